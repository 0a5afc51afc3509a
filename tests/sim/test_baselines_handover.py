"""Handovers of each baseline: how long data is interrupted, in sums of path delays worked out by
hand from the specification, and what is signalled.

One way, in ms: MN in network A 5, in B 10, CN 7, server 20, each to the core.
So MN(B)–server 30, MN(B)–CN 17, server–CN 27.
"""

from collections.abc import Callable

import pytest

from mat_sim.baselines import (
    Lin6,
    MobileIpv4,
    MobileIpv6,
    MobilePpc,
    NoMobility,
    Reason,
    System,
    lin6,
    mobile_ipv4,
    mobile_ipv6,
)
from tests.sim.baselines_world import (
    A1,
    A2,
    B1,
    B2,
    CN,
    HOME,
    MN,
    MN2,
    MS,
    PERIOD,
    SERVER,
    World,
)

LEFT = 5.2
"""When the link in A goes."""
MOVED = 5.5
"""When the address in B is there."""
END = 6.5
BEGUN = 4.5
"""When whatever the first packets set off is over."""

SYSTEMS: dict[str, Callable[[], System]] = {
    "mobile ipv4": lambda: MobileIpv4([HOME]),
    "mobile ipv4, reverse tunnel": lambda: MobileIpv4(
        [HOME], mobile_ipv4.Parameters(reverse_tunnel=True)
    ),
    "mobile ipv6": lambda: MobileIpv6([HOME]),
    "mobile ipv6, acknowledged": lambda: MobileIpv6(
        [HOME], mobile_ipv6.Parameters(acknowledge=True)
    ),
    "mobile ipv6, tunnel": lambda: MobileIpv6(
        [HOME], mobile_ipv6.Parameters(route_optimisation=False)
    ),
    "lin6": lambda: Lin6([HOME]),
    "lin6, associated": lambda: Lin6([HOME], lin6.Parameters(security_associations=True)),
    "mobile ppc": lambda: MobilePpc(SERVER),
    "no mobility": NoMobility,
}


def world_with(system: str, *, peer: Callable[[World], object] | None = None) -> World:
    """MN in A, CN at home, talking long enough for everything to be set up."""
    world = World(SYSTEMS[system]())
    world.host(CN)
    world.host(MN, A1)
    if peer:
        peer(world)
    world.run(4.0)
    return world


def hard(world: World) -> World:
    """Leave A, be nowhere for 300 ms, then be in B."""
    mobile = world.hosts[MN]
    world.at(LEFT, lambda: world.move(mobile))
    world.at(MOVED, lambda: world.move(mobile, B1))
    return world


def hard_with_data(system: str) -> World:
    world = hard(world_with(system))
    world.flow(MN, CN, 4.0, END)
    world.flow(CN, MN, 4.0, END)
    world.run(END)
    return world


# Mobile IPv4: a packet from the CN arrives at the home agent 27 later, the request 30 after MOVED.
# Reverse tunnel: the reply is there after 60.
# Mobile IPv6: home test 30 + 27 + 27 + 30 = 114 (home registration 60, care-of test 34), and the
# Binding Update takes 17. Without optimisation as Mobile IPv4.
# LIN6: update and reply 60, refresh 17, query and reply 54; with an association, update 17.
# Mobile PPC: request 17, response 17.
@pytest.mark.parametrize(
    ("system", "up", "down"),
    [
        ("mobile ipv4", 0, 3),
        ("mobile ipv4, reverse tunnel", 60, 3),
        ("mobile ipv6", 0, 114 + 17),
        ("mobile ipv6, acknowledged", 0, 114 + 17),
        ("mobile ipv6, tunnel", 0, 3),
        ("lin6", 0, 60 + 17 + 54),
        ("lin6, associated", 0, 17),
        ("mobile ppc", 17 + 17, 17),
    ],
)
def test_data_flows_again_after_the_sum_of_path_delays(system: str, up: int, down: int) -> None:
    world = hard_with_data(system)

    def first(milliseconds: int) -> object:
        return pytest.approx(milliseconds * MS + 0.5 * PERIOD, abs=1e-7)

    assert world.first_after(MN, CN, MOVED) == first(up)
    assert world.first_after(CN, MN, MOVED) == first(down)


def test_without_mobility_nothing_of_an_old_flow_is_delivered_after_a_move() -> None:
    world = hard_with_data("no mobility")
    assert world.first_after(MN, CN, LEFT) is None
    # Sent while the link was up, but 12 ms before it went: it was under way.
    assert world.first_after(CN, MN, LEFT - 12 * MS) is None
    assert world.probes[MN, CN][-1].lost is Reason.NO_ADDRESS
    assert world.first_after(CN, MN, 4.0) is not None


def test_without_mobility_flows_go_on_only_if_the_very_same_address_returns() -> None:
    world = world_with("no mobility")
    world.flow(MN, CN, 4.0, END)
    world.flow(CN, MN, 4.0, END)
    mobile = world.hosts[MN]
    world.at(MOVED - 0.5, lambda: world.move(mobile, B1))
    world.at(MOVED, lambda: world.move(mobile, A1))
    world.run(END)
    assert world.first_after(MN, CN, MOVED - 0.5) == pytest.approx(0.5 + 0.5 * PERIOD)
    # What is sent 12 ms before the return arrives just when the address is there again.
    assert world.first_after(CN, MN, MOVED - 0.5) == pytest.approx(0.5 - 12 * MS + 0.5 * PERIOD)


@pytest.mark.parametrize("system", [name for name in SYSTEMS if name != "no mobility"])
def test_all_packets_before_and_after_the_interruption_are_delivered(system: str) -> None:
    world = hard_with_data(system)
    for probes in world.probes.values():
        settled = [probe for probe in probes if BEGUN < probe.sent < END - 0.2]
        delivered = [probe.delivered is not None for probe in settled]
        first, last = delivered.index(False), len(delivered) - delivered[::-1].index(False)
        assert not any(delivered[first:last])
        assert all(delivered[last:])


def soft_with_data(system: str, overlap: float) -> World:
    """MN gets its address in B while it is still in A, and leaves A after `overlap` seconds."""
    world = world_with(system)
    world.flow(MN, CN, 4.0, END)
    world.flow(CN, MN, 4.0, END)
    mobile = world.hosts[MN]
    world.at(MOVED, lambda: world.move(mobile, B1, A1))
    world.at(MOVED + overlap, lambda: world.move(mobile, B1))
    world.run(END + 1)
    return world


def lost(world: World) -> list[float]:
    """When the packets were sent that were lost, from when everything was set up."""
    probes = [probe for flow in world.probes.values() for probe in flow]
    return sorted(one.sent for one in probes if one.delivered is None and one.sent > BEGUN)


TOLD = 0.15
"""Seconds after which every system has told everybody of a move."""
LOSSLESS = [name for name in SYSTEMS if name not in ("no mobility", "mobile ipv4, reverse tunnel")]


@pytest.mark.parametrize("system", LOSSLESS)
def test_a_soft_handover_loses_nothing(system: str) -> None:
    world = soft_with_data(system, TOLD)
    assert lost(world) == []
    assert world.hosts[MN].registered
    assert world.hosts[MN].informed(world.now, [CN])


def test_a_soft_handover_without_mobility_loses_nothing_until_the_old_link_goes() -> None:
    world = soft_with_data("no mobility", 0.5)
    assert lost(world)[0] == pytest.approx(MOVED + 0.5 - 12 * MS + 0.5 * PERIOD)


def test_a_reverse_tunnel_loses_what_still_comes_from_the_address_that_was_replaced() -> None:
    world = soft_with_data("mobile ipv4, reverse tunnel", TOLD)
    # The request is there after 30, a packet by the old link after 25; the reply after 60.
    sent = lost(world)
    assert sent[0] == pytest.approx(MOVED + 5 * MS + 0.5 * PERIOD)
    assert sent[-1] == pytest.approx(MOVED + 60 * MS - 0.5 * PERIOD)
    assert len(sent) == 55


@pytest.mark.parametrize(
    ("system", "messages"),
    [
        (
            "mobile ipv4",
            [("Registration Request", "MN", "HA", 74), ("Registration Reply", "HA", "MN", 70)],
        ),
        (
            "mobile ipv6",
            [
                ("Binding Update", "MN", "HA", 120),
                ("Home Test Init", "MN", "HA", 140),
                ("Care-of Test Init", "MN", "CN", 56),
                ("Care-of Test", "CN", "MN", 64),
                ("Binding Acknowledgement", "HA", "MN", 104),
                ("Home Test Init", "HA", "CN", 56),
                ("Home Test", "CN", "HA", 64),
                ("Home Test", "HA", "MN", 156),
                ("Binding Update", "MN", "CN", 96),
            ],
        ),
        (
            "lin6",
            [
                ("Mapping Update Request", "MN", "MA", 104),
                ("Mapping Update Reply", "MA", "MN", 80),
                ("Mapping Refresh", "MN", "CN", 64),
                ("MA Query", "CN", "MA", 80),
                ("MA Reply", "MA", "CN", 80),
            ],
        ),
        (
            "lin6, associated",
            [
                ("Mapping Update Request", "MN", "MA", 104),
                ("Mapping Update Request", "MN", "CN", 104),
                ("Mapping Update Reply", "CN", "MN", 80),
                ("Mapping Update Reply", "MA", "MN", 80),
            ],
        ),
        (
            "mobile ppc",
            [
                ("CU Request", "MN", "CN", 80),
                ("DNS UPDATE", "MN", "DDNS", 162),
                ("CU Response", "CN", "MN", 48),
                ("DNS UPDATE response", "DDNS", "MN", 134),
            ],
        ),
        ("no mobility", []),
    ],
)
def test_a_handover_takes_these_messages_and_no_others(
    system: str, messages: list[tuple[str, str, str, int]]
) -> None:
    world = hard_with_data(system)
    expected = sorted(messages)
    assert sorted(world.signalling(since=LEFT)) == expected
    assert not any(sent.repeat for sent in world.log)


def test_an_acknowledged_binding_update_is_answered_and_only_then_used() -> None:
    world = hard_with_data("mobile ipv6, acknowledged")
    answer = ("Binding Acknowledgement", "CN", "MN", 96)
    assert answer in world.signalling(since=LEFT)
    # The acknowledgement is there after 114 + 17 + 17; until then packets go through the tunnel.
    ways = [sent for sent in world.log if sent.name == "data" and sent.origin == "MN"]
    straight = [sent.time for sent in ways if sent.target == "CN" and sent.time > MOVED]
    assert straight[0] == pytest.approx(MOVED + 148 * MS + 0.5 * PERIOD)


@pytest.mark.parametrize(
    ("system", "up", "down"),
    [
        (
            "mobile ipv4",
            [("MN", "CN", 0)],
            [("CN", "HA", 0), ("HA", "MN", 20)],
        ),
        (
            "mobile ipv4, reverse tunnel",
            [("MN", "HA", 20), ("HA", "CN", 0)],
            [("CN", "HA", 0), ("HA", "MN", 20)],
        ),
        ("mobile ipv6", [("MN", "CN", 24)], [("CN", "MN", 24)]),
        (
            "mobile ipv6, tunnel",
            [("MN", "HA", 40), ("HA", "CN", 0)],
            [("CN", "HA", 0), ("HA", "MN", 40)],
        ),
        ("lin6", [("MN", "CN", 0)], [("CN", "MN", 0)]),
        ("mobile ppc", [("MN", "CN", 0)], [("CN", "MN", 0)]),
    ],
)
def test_way_and_header_overhead_after_a_handover(
    system: str, up: list[tuple[str, str, int]], down: list[tuple[str, str, int]]
) -> None:
    world = hard_with_data(system)
    assert world.legs(MN, CN) == up
    assert world.legs(CN, MN) == down


def test_before_the_route_is_optimised_packets_go_through_the_home_agent() -> None:
    world = world_with("mobile ipv6")
    assert world.legs(MN, CN) == [("MN", "HA", 40), ("HA", "CN", 0)]
    assert world.legs(CN, MN) == [("CN", "HA", 0), ("HA", "MN", 40)]


def test_the_question_for_the_way_says_why_a_packet_does_not_arrive() -> None:
    world = world_with("mobile ipv4")
    world.move(world.hosts[MN])
    assert world.path(MN, CN).failure is Reason.NO_ADDRESS
    lost = world.path(CN, MN)
    assert lost.failure is Reason.UNREACHABLE
    assert lost.waypoints == (CN, SERVER, A1)


# ---- both ends move ------------------------------------------------------------------------------


def both_mobile(system: str, *, end: float = END) -> World:
    """MN and MN2 in A, then nowhere, then in B, all at the same moments."""
    world = World(SYSTEMS[system]())
    one, other = world.host(MN, A1), world.host(MN2, A2)
    world.run(4.0)
    world.flow(MN, MN2, 4.0, end)
    world.flow(MN2, MN, 4.0, end)
    world.at(LEFT, lambda: world.move_all((one, ()), (other, ())))
    world.at(MOVED, lambda: world.move_all((one, (B1,)), (other, (B2,))))
    world.run(end)
    return world


# Mobile IPv4: the request is at the home agent after 30, as is a packet sent at once.
# Mobile IPv6: so are Home Test Init (30, on to the peer 30) and Home Test (the same way back), 120;
# the Binding Update goes to the peer's home address, 60: it is taken from 180 on.
@pytest.mark.parametrize(
    ("system", "resumes"),
    [("mobile ipv4", 0), ("mobile ipv4, reverse tunnel", 60), ("mobile ipv6, tunnel", 0)],
)
def test_both_ends_moving_at_once_find_each_other_through_home_agents(
    system: str, resumes: int
) -> None:
    world = both_mobile(system)
    expected = pytest.approx(resumes * MS + 0.5 * PERIOD, abs=1e-7)
    assert world.first_after(MN, MN2, MOVED) == expected
    assert world.first_after(MN2, MN, MOVED) == expected


@pytest.mark.parametrize(
    ("system", "legs"),
    [
        ("mobile ipv4", [("MN", "HA", 0), ("HA", "MN2", 20)]),
        ("mobile ipv4, reverse tunnel", [("MN", "HA", 20), ("HA", "MN2", 20)]),
        ("mobile ipv6, tunnel", [("MN", "HA", 40), ("HA", "MN2", 40)]),
        ("lin6", [("MN", "MN2", 0)]),
        ("mobile ppc", [("MN", "MN2", 0)]),
    ],
)
def test_way_and_header_overhead_between_two_nodes_of_one_home_agent(
    system: str, legs: list[tuple[str, str, int]]
) -> None:
    world = World(SYSTEMS[system]())
    world.host(MN, A1)
    world.host(MN2, B2)
    world.run(4.0)
    world.flow(MN, MN2, 4.0, 4.1)
    world.run(5.0)
    assert world.legs(MN, MN2) == legs


def test_both_ends_moving_at_once_optimise_their_route_again() -> None:
    world = both_mobile("mobile ipv6", end=MOVED + 2)
    # Each still has the other's old care-of address, to which the tunnelled packets go on from
    # the home agent, until the other's Binding Update is there.
    assert world.first_after(MN, MN2, MOVED) == pytest.approx(180 * MS + 0.5 * PERIOD, abs=1e-7)
    # MN's Home Test Init was at the home agent just before MN2's Binding Update: the next is not.
    assert world.legs(MN, MN2) == [("MN", "MN2", 48)]
    assert world.legs(MN2, MN) == [("MN2", "MN", 48)]


def test_lin6_nodes_that_both_moved_find_each_other_when_their_mappings_run_out() -> None:
    world = both_mobile("lin6", end=MOVED + 65)
    resumes = world.first_after(MN, MN2, MOVED)
    assert resumes is not None
    assert 1 < resumes <= 60
    assert world.legs(MN, MN2) == [("MN", "MN2", 0)]


def test_mobile_ppc_loses_a_connection_whose_ends_both_moved() -> None:
    world = both_mobile("mobile ppc", end=MOVED + 65)
    assert world.first_after(MN, MN2, LEFT) is None
    assert world.first_after(MN2, MN, LEFT) is None
    assert world.probes[MN, MN2][-1].lost is Reason.BROKEN
    requests = [sent.time - MOVED for sent in world.log if sent.name == "CU Request"]
    assert sorted(set(requests)) == pytest.approx([0, 1, 3, 7, 15])


def test_mobile_ppc_keeps_a_connection_whose_ends_move_one_after_the_other() -> None:
    world = World(SYSTEMS["mobile ppc"]())
    one, other = world.host(MN, A1), world.host(MN2, A2)
    world.run(4.0)
    world.flow(MN, MN2, 4.0, END)
    world.flow(MN2, MN, 4.0, END)
    world.at(LEFT, lambda: world.move(one, B1))
    world.at(MOVED, lambda: world.move(other, B2))
    world.run(END)
    # Both in B, 20 ms from one another.
    assert world.first_after(MN2, MN, MOVED) == pytest.approx(40 * MS + 0.5 * PERIOD, abs=1e-7)
    assert world.legs(MN, MN2) == [("MN", "MN2", 0)]


# ---- at home -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "request_size", "reply_size"),
    [("mobile ipv4", 74, 70), ("mobile ipv6, tunnel", 96, 80)],
)
def test_a_node_that_returns_home_deregisters_and_needs_no_agent(
    system: str, request_size: int, reply_size: int
) -> None:
    world = world_with(system)
    assert world.system.servers[SERVER].entries(world.now) == 1
    world.move(world.hosts[MN], MN)
    world.run(5.0)
    sizes = [size for _, _, _, size in world.signalling(since=4.0)]
    assert sizes == [request_size, reply_size]
    assert world.system.servers[SERVER].entries(world.now) == 0
    assert world.legs(MN, CN) == [("MN", "CN", 0)]
    assert world.legs(CN, MN) == [("CN", "MN", 0)]
    assert world.hosts[MN].registered


def test_a_node_that_returns_home_has_its_correspondents_forget_the_care_of_address() -> None:
    world = world_with("mobile ipv6")
    world.flow(MN, CN, 4.0, 6.0)
    world.run(6.0)
    world.move(world.hosts[MN], MN)
    world.run(7.0)
    names = [(name, origin, target) for name, origin, target, _ in world.signalling(since=6.0)]
    assert names == [
        ("Binding Update", "MN", "HA"),
        ("Home Test Init", "MN", "CN"),
        # It left before the Binding Update was at the home agent, and arrived after it.
        ("Home Test", "CN", "HA"),
        ("Binding Acknowledgement", "HA", "MN"),
        ("Home Test", "HA", "MN"),
        ("Binding Update", "MN", "CN"),
    ]
    assert world.legs(MN, CN) == [("MN", "CN", 0)]
    assert world.legs(CN, MN) == [("CN", "MN", 0)]
    assert world.hosts[MN].informed(world.now, [CN])
