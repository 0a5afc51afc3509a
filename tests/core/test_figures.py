"""The paper's figures 2 and 3, message by message, over real machines.

Sequences are exact. Steps 2' and 4' (the mover's notice to the peer itself, and its answer) are
this project's additions to the handover; `without_additions` shows that the rest is the figure.
"""

import pytest

from tests.core.world import World

SETTLED = 700.0
"""By then an address has been held so long that its use needs no confirmation."""

FIGURE_2 = [
    "MN → DNS: DNS",
    "MN → IMS_CN: MA Query",
    "IMS_CN → MN: MA Answer",
    "MN → IMS_CN: HA Notify",
    "IMS_CN → DNS: DNS",
    "IMS_CN → IMS_MN: MA Query",
    "IMS_MN → IMS_CN: MA Answer",
    "IMS_CN → MN: HA Notify Ack",
    "MN → CN: data",
    "CN → IMS_CN: HA Query",
    "IMS_CN → CN: HA Answer",
    "CN → DNS: DNS",
    "CN → IMS_MN: MA Query",
    "IMS_MN → CN: MA Answer",
]
FIGURE_2_SHARED = [
    "MN → DNS: DNS",
    "MN → IMS: MA Query",
    "IMS → MN: MA Answer",
    "MN → IMS: HA Notify",
    "IMS → MN: HA Notify Ack",
    "MN → CN: data",
    "CN → IMS: HA Query",
    "IMS → CN: HA Answer",
    "CN → DNS: DNS",
    "CN → IMS: MA Query",
    "IMS → CN: MA Answer",
]


def separate() -> World:
    """MN and CN with an IMS each, attached and settled."""
    world = World()
    world.add_server("IMS_MN", "192.0.2.1", "10.1.0.0/16")
    world.add_server("IMS_CN", "192.0.2.2", "10.2.0.0/16")
    world.add_host("MN", "10.1.0.1", "IMS_MN")
    world.add_host("CN", "10.2.0.1", "IMS_CN")
    return settled(world)


def shared() -> World:
    """MN and CN with one IMS for both, attached and settled."""
    world = World()
    world.add_server("IMS", "192.0.2.1", "10.0.0.0/8")
    world.add_host("MN", "10.1.0.1", "IMS")
    world.add_host("CN", "10.2.0.1", "IMS")
    return settled(world)


def ipv6() -> World:
    """MAT(IPv6): the Mapping Update Option in place of HA Notify and HA Query."""
    world = World()
    world.add_server("IMS_MN", "2001:db8::1", "2001:db8:1::/48")
    world.add_server("IMS_CN", "2001:db8::2", "2001:db8:2::/48")
    world.add_host("MN", "2001:db8:1::1", "IMS_MN")
    world.add_host("CN", "2001:db8:2::1", "IMS_CN")
    world.attach("MN", "2001:db8:a::1")
    world.attach("CN", "2001:db8:c::1")
    world.run(SETTLED)
    return world


def settled(world: World) -> World:
    world.attach("MN", "198.51.100.1")
    world.attach("CN", "203.0.113.1")
    world.run(SETTLED)
    return world


def talking(world: World) -> World:
    """The same, with a first packet exchanged in both directions."""
    world.send("MN", "CN")
    world.run(0.5)
    world.send("CN", "MN")
    world.run(0.5)
    assert len(world.deliveries) == 2
    return world


def without_additions(messages: list[str]) -> list[str]:
    """What is left of a handover without the notice to the peer and what it causes (2', 7, 4')."""
    return [m for m in messages if not m.startswith("CN →") and "→ CN:" not in m]


def test_figure_2_start_of_communication_with_separate_ims() -> None:
    world = separate()
    start = world.now
    world.send("MN", "CN")
    world.run(1.0)
    assert world.messages(start) == FIGURE_2
    delivery = world.deliveries[0]
    assert (delivery.source, delivery.destination) == (
        world.hosts["MN"].machine.home_address,
        world.hosts["CN"].machine.home_address,
    )


def test_figure_2_skips_step_3_when_both_ims_are_one() -> None:
    world = shared()
    start = world.now
    world.send("MN", "CN")
    world.run(1.0)
    assert world.messages(start) == FIGURE_2_SHARED
    assert len(world.deliveries) == 1


def test_figure_2_takes_the_sum_of_its_path_delays() -> None:
    world = separate()
    start = world.now
    world.send("MN", "CN")
    world.run(1.0)
    one_way, dns = world.delay, 2 * world.dns_delay
    steps_0_to_4 = dns + 2 * one_way + one_way + dns + 2 * one_way + one_way
    steps_5_to_7 = one_way + 2 * one_way + dns + 2 * one_way
    assert world.deliveries[0].time - start == pytest.approx(steps_0_to_4 + steps_5_to_7)


def test_reply_after_figure_2_needs_no_message() -> None:
    world = talking(separate())
    start = world.now
    world.send("CN", "MN")
    world.send("MN", "CN")
    world.run(0.5)
    assert world.messages(start) == ["CN → MN: data", "MN → CN: data"]


def test_figure_3_soft_handover_with_separate_ims() -> None:
    world = talking(separate())
    start = world.now
    world.attach("MN", "198.51.100.77", "198.51.100.1")
    world.run(1.0)
    assert world.messages(start) == [
        "MN → IMS_MN: IMS Update",
        "IMS_MN → MN: IMS Update Reply",
        "MN → IMS_CN: HA Notify",
        "MN → CN: HA Notify",
        "IMS_CN → DNS: DNS",
        "CN → IMS_MN: MA Query",
        "IMS_CN → IMS_MN: MA Query",
        "IMS_MN → CN: MA Answer",
        "IMS_MN → IMS_CN: MA Answer",
        "CN → MN: HA Notify Ack",
        "IMS_CN → MN: HA Notify Ack",
    ]
    assert without_additions(world.messages(start)) == [
        "MN → IMS_MN: IMS Update",
        "IMS_MN → MN: IMS Update Reply",
        "MN → IMS_CN: HA Notify",
        "IMS_CN → DNS: DNS",
        "IMS_CN → IMS_MN: MA Query",
        "IMS_MN → IMS_CN: MA Answer",
        "IMS_CN → MN: HA Notify Ack",
    ]


def test_figure_3_soft_handover_loses_nothing_and_waits_for_nothing() -> None:
    world = talking(separate())
    world.deliveries.clear()
    sent = 0
    for step in (("198.51.100.77", "198.51.100.1"), ("198.51.100.77",)):
        world.attach("MN", *step)
        for _ in range(100):
            world.send("MN", "CN")
            world.send("CN", "MN")
            sent += 2
            world.run(0.005)
    world.run(1.0)
    assert len(world.deliveries) == sent
    assert all(d.time - world.now < 1 for d in world.deliveries)


def test_figure_3_hard_handover_with_separate_ims() -> None:
    world = talking(separate())
    world.attach("MN")
    world.run(0.05)
    start = world.now
    world.attach("MN", "198.51.100.77")
    world.send("MN", "CN")
    world.run(1.0)
    assert world.messages(start) == [
        "MN → IMS_MN: IMS Update",
        "IMS_MN → MN: IMS Update Reply",
        "MN → IMS_CN: HA Notify",
        "MN → CN: HA Notify",
        "IMS_CN → DNS: DNS",
        "CN → IMS_MN: MA Query",
        "IMS_CN → IMS_MN: MA Query",
        "IMS_MN → CN: MA Answer",
        "IMS_MN → IMS_CN: MA Answer",
        "CN → MN: HA Notify Ack",
        "IMS_CN → MN: HA Notify Ack",
        "MN → CN: data",
    ]


def test_figure_3_hard_handover_with_shared_ims() -> None:
    world = talking(shared())
    world.attach("MN")
    start = world.now
    world.attach("MN", "198.51.100.77")
    world.send("MN", "CN")
    world.run(1.0)
    assert world.messages(start) == [
        "MN → IMS: IMS Update",
        "IMS → MN: IMS Update Reply",
        "MN → IMS: HA Notify",
        "MN → CN: HA Notify",
        "IMS → MN: HA Notify Ack",
        "CN → IMS: MA Query",
        "IMS → CN: MA Answer",
        "CN → MN: HA Notify Ack",
        "MN → CN: data",
    ]


def test_the_mover_speaks_first_so_one_way_traffic_to_it_recovers() -> None:
    world = talking(separate())
    world.attach("MN")
    world.attach("MN", "198.51.100.77")
    start = world.now
    recovered = None
    for _ in range(20):
        packet = world.send("CN", "MN")
        world.run(0.005)
        if any(d.packet is packet for d in world.deliveries) and recovered is None:
            recovered = world.now
    world.run(1.0)
    one_way = world.delay
    learns = 2 * one_way + one_way + 2 * one_way
    first = next(d for d in world.deliveries if d.time > start)
    assert first.time - start <= learns + one_way + 0.005 + 1e-9


def test_both_move_at_once_and_meet_again_in_one_exchange() -> None:
    world = talking(separate())
    world.attach("MN")
    world.attach("CN")
    start = world.now
    world.attach("MN", "198.51.100.77")
    world.run(0.003)
    world.attach("CN", "203.0.113.77")
    to_cn, to_mn = world.send("MN", "CN"), world.send("CN", "MN")
    world.run(1.0)
    assert world.messages(start) == [
        "MN → IMS_MN: IMS Update",
        "CN → IMS_CN: IMS Update",
        "IMS_MN → MN: IMS Update Reply",
        "IMS_CN → CN: IMS Update Reply",
        "MN → IMS_CN: HA Notify",
        "MN → nobody: HA Notify",
        "CN → IMS_MN: HA Notify",
        "CN → nobody: HA Notify",
        "IMS_CN → DNS: DNS",
        "IMS_MN → DNS: DNS",
        "IMS_CN → IMS_MN: MA Query",
        "IMS_MN → IMS_CN: MA Query",
        "IMS_MN → IMS_CN: MA Answer",
        "IMS_CN → IMS_MN: MA Answer",
        "IMS_CN → MN: HA Notify Ack",
        "IMS_MN → CN: HA Notify Ack",
        "MN → CN: HA Notify",
        "CN → MN: HA Notify",
        "CN → MN: HA Notify Ack",
        "MN → CN: HA Notify Ack",
        "MN → CN: data",
        "CN → MN: data",
    ]
    assert {d.packet.number for d in world.deliveries} >= {to_cn.number, to_mn.number}


def test_both_move_at_once_with_shared_ims() -> None:
    world = talking(shared())
    world.attach("MN")
    world.attach("CN")
    world.attach("MN", "198.51.100.77")
    world.attach("CN", "203.0.113.77")
    to_cn, to_mn = world.send("MN", "CN"), world.send("CN", "MN")
    world.run(0.2)
    assert {d.packet.number for d in world.deliveries} >= {to_cn.number, to_mn.number}


def test_ipv6_start_of_communication_announces_in_the_first_packet() -> None:
    world = ipv6()
    start = world.now
    world.send("MN", "CN")
    world.run(1.0)
    assert world.messages(start) == [
        "MN → DNS: DNS",
        "MN → IMS_CN: MA Query",
        "IMS_CN → MN: MA Answer",
        "MN → CN: HA Notify",
        "MN → CN: data+MUO",
        "CN → DNS: DNS",
        "CN → IMS_MN: MA Query",
        "IMS_MN → CN: MA Answer",
        "CN → MN: HA Notify Ack",
    ]
    assert len(world.deliveries) == 1
    start = world.now
    world.send("CN", "MN")
    world.send("MN", "CN")
    world.run(1.0)
    assert world.messages(start) == ["CN → MN: data", "MN → CN: data"]


def test_ipv6_handover_announces_in_the_next_packet() -> None:
    world = talking(ipv6())
    world.attach("MN")
    start = world.now
    world.attach("MN", "2001:db8:b::1")
    world.send("MN", "CN")
    world.run(1.0)
    assert world.messages(start) == [
        "MN → IMS_MN: IMS Update",
        "IMS_MN → MN: IMS Update Reply",
        "MN → IMS_CN: MA Query",
        "MN → CN: HA Notify",
        "MN → CN: data+MUO",
        "IMS_CN → MN: MA Answer",
        "CN → IMS_MN: MA Query",
        "IMS_MN → CN: MA Answer",
        "CN → MN: HA Notify Ack",
    ]
    assert len(world.deliveries) == 3


def test_ipv6_both_move_at_once() -> None:
    world = talking(ipv6())
    world.attach("MN")
    world.attach("CN")
    world.attach("MN", "2001:db8:b::1")
    world.attach("CN", "2001:db8:d::1")
    world.run(0.2)
    to_cn, to_mn = world.send("MN", "CN"), world.send("CN", "MN")
    world.run(0.02)
    assert {d.packet.number for d in world.deliveries} >= {to_cn.number, to_mn.number}


def test_ipv6_falls_back_to_notices_where_the_path_drops_the_option() -> None:
    world = ipv6()
    world.drops_options = True
    world.send("MN", "CN")
    world.run(0.2)
    second = world.send("MN", "CN")
    world.run(0.2)
    assert [d.packet for d in world.deliveries] == [second]


def test_ipv6_falls_back_to_the_peers_ims_where_notices_are_filtered_too() -> None:
    world = ipv6()
    world.drops_options = True
    world.lose = lambda _source, target, what: what == "HA Notify" and target == "CN"
    packets = []
    for _ in range(40):
        packets.append(world.send("MN", "CN"))
        world.run(1.0)
    assert packets[-1].number in {d.packet.number for d in world.deliveries}
    assert "MN → IMS_CN: HA Notify" in world.messages()
    assert "CN → IMS_CN: HA Query" in world.messages()
