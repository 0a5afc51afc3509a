"""Retransmission, lifetimes and refusals of each baseline, by the rules of its specification."""

from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from mat.address import Address
from mat_sim.baselines import (
    Data,
    Datagram,
    Lin6,
    MobileIpv4,
    MobileIpv6,
    MobilePpc,
    NoMobility,
    Reason,
    System,
    Transmit,
    lin6,
    mobile_ipv4,
    mobile_ipv6,
)
from mat_sim.baselines._mobility_header import BindingAcknowledgement, BindingUpdate
from tests.sim.baselines_world import A1, A2, B1, CN, HOME, MN, MN2, MS, SERVER, World


def moved(system: System) -> World:
    """MN in A, CN at home, data both ways for a while, nothing on the way any more."""
    world = World(system)
    world.host(CN)
    world.host(MN, A1)
    world.run(4.0)
    world.flow(MN, CN, 4.0, 4.1)
    world.flow(CN, MN, 4.0, 4.1)
    world.run(10.0)
    return world


def times(world: World, name: str, origin: str, target: str) -> list[Any]:
    """When messages of a type left on a hop, from the last move at 10 s on."""
    return [
        pytest.approx(sent.time - 10.0, abs=1e-9)
        for sent in world.log
        if (sent.name, sent.origin, sent.target) == (name, origin, target) and sent.time >= 10
    ]


def lose(world: World, *names: str) -> None:
    world.lose = lambda datagram: datagram.name in names


# ---- lost messages -------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["Registration Request", "Registration Reply"])
def test_a_lost_registration_is_repeated_after_one_second_then_twice_as_long(missing: str) -> None:
    world = moved(MobileIpv4([HOME]))
    lose(world, missing)
    world.move(world.hosts[MN], B1)
    world.run(26.0)
    assert times(world, "Registration Request", "MN", "HA") == [0, 1, 3, 7, 15]
    assert [sent.repeat for sent in world.log if sent.time >= 10][:2] == [False, True] or (
        missing == "Registration Reply"
    )
    assert not world.hosts[MN].registered
    lose(world)
    world.run(42.0)
    assert world.hosts[MN].registered
    assert times(world, "Registration Request", "MN", "HA")[5:] == [31]


def test_registrations_are_repeated_at_most_a_lifetime_apart() -> None:
    world = moved(MobileIpv4([HOME], mobile_ipv4.Parameters(lifetime=4.0)))
    lose(world, "Registration Request")
    world.move(world.hosts[MN], B1)
    world.run(26.0)
    assert times(world, "Registration Request", "MN", "HA") == [0, 1, 3, 7, 11, 15]


def test_a_lost_binding_update_is_repeated_up_to_every_32_seconds() -> None:
    world = moved(MobileIpv6([HOME]))
    lose(world, "Binding Update")
    world.move(world.hosts[MN], B1)
    world.run(150.0)
    expected = [0, 1, 3, 7, 15, 31, 63, 95, 127]
    assert times(world, "Binding Update", "MN", "HA") == expected


def test_a_first_binding_update_waits_longer_for_duplicates_of_the_home_address() -> None:
    world = World(MobileIpv6([HOME]))
    world.host(CN)
    world.now = 10.0
    world.host(MN, A1)
    world.run(20.0)
    assert times(world, "Binding Update", "MN", "HA") == [0]
    # 25 there, and a second for the detection.
    assert times(world, "Binding Acknowledgement", "HA", "MN") == [1.025]

    world = World(MobileIpv6([HOME]))
    lose(world, "Binding Acknowledgement")
    world.now = 10.0
    world.host(MN, A1)
    world.run(20.0)
    assert times(world, "Binding Update", "MN", "HA") == [0, 1.5, 4.5]


def test_lost_tests_are_repeated_each_for_itself_and_the_binding_update_waits_for_both() -> None:
    world = moved(MobileIpv6([HOME]))
    lose(world, "Home Test")
    world.move(world.hosts[MN], B1)
    world.run(12.0)
    assert times(world, "Home Test Init", "MN", "HA") == [0, 1]
    assert times(world, "Care-of Test Init", "MN", "CN") == [0]
    assert times(world, "Binding Update", "MN", "CN") == []
    lose(world)
    world.run(20.0)
    assert times(world, "Home Test Init", "MN", "HA") == [0, 1, 3]
    assert times(world, "Binding Update", "MN", "CN") == [3 + 114 * MS]


def test_a_test_that_answers_an_earlier_cookie_does_not_count() -> None:
    world = moved(MobileIpv6([HOME]))
    held: list[Datagram] = []

    def delay_home_test(datagram: Datagram) -> bool:
        if datagram.name == "Home Test" and datagram.destination == B1:
            held.append(datagram)
            return True
        return False

    world.lose = delay_home_test
    world.move(world.hosts[MN], B1)
    world.run(11.05)
    lose(world, "Home Test")
    mobile = world.hosts[MN]
    assert len(held) == 1
    world.apply(mobile, mobile.receive(world.now, held[0]))
    world.run(11.5)
    assert times(world, "Binding Update", "MN", "CN") == []


def test_a_lost_acknowledgement_of_a_correspondent_has_the_binding_update_repeated() -> None:
    system = MobileIpv6([HOME], mobile_ipv6.Parameters(acknowledge=True))
    world = moved(system)
    done = 114 * MS

    def from_correspondent(datagram: Datagram) -> bool:
        return datagram.name == "Binding Acknowledgement" and datagram.source == CN

    world.lose = from_correspondent
    world.move(world.hosts[MN], B1)
    world.run(14.0)
    assert times(world, "Binding Update", "MN", "CN") == [done, done + 1, done + 3]
    assert world.legs(CN, MN) == [("CN", "MN", 24)]
    assert world.legs(MN, CN) == [("MN", "HA", 40), ("HA", "CN", 0)]
    assert not world.hosts[MN].informed(world.now, [CN])
    lose(world)
    world.run(20.0)
    assert world.legs(MN, CN) == [("MN", "CN", 24)]
    assert world.hosts[MN].informed(world.now, [CN])


def test_a_correspondent_without_the_binding_says_so_and_the_route_is_optimised_anew() -> None:
    world = moved(MobileIpv6([HOME]))
    world.lose = lambda datagram: datagram.name == "Binding Update" and datagram.destination == CN
    world.move(world.hosts[MN], B1)
    world.run(11.0)
    # The node takes it that its Binding Update has arrived.
    assert world.path(MN, CN).failure is Reason.NO_BINDING
    lose(world)
    world.probes.clear()
    world.flow(MN, CN, 11.0, 11.3)
    world.run(12.0)
    assert ("Binding Error", "CN", "MN", 64) in world.signalling(since=10)
    # Packets before the error are lost: 17 there and 17 back. Then they take the tunnel.
    lost = [probe.lost for probe in world.probes[MN, CN] if probe.lost]
    assert set(lost) == {Reason.NO_BINDING}
    assert 34 <= len(lost) <= 35
    assert world.legs(MN, CN) == [("MN", "CN", 24)]
    assert world.path(CN, MN).failure is None


def test_no_correspondent_gets_more_than_three_messages_of_a_type_within_a_second() -> None:
    world = moved(MobileIpv6([HOME]))
    mobile = world.hosts[MN]
    for number in range(8):
        address = (B1, A1)[number % 2]
        world.at(10.0 + 0.15 * number, lambda address=address: world.move(mobile, address))  # type: ignore[misc]
    world.run(20.0)
    for name, origin in (("Home Test Init", "HA"), ("Care-of Test Init", "MN")):
        sent = [one.time for one in world.log if (one.name, one.origin) == (name, origin)]
        sent = [time for time in sent if time >= 10]
        assert len(sent) >= 4
        assert all(later - one >= 1 - 1e-9 for one, later in zip(sent, sent[3:], strict=False))
    assert mobile.informed(world.now, [CN])


def test_a_lost_mapping_update_is_repeated_and_the_refresh_waits_for_its_reply() -> None:
    world = moved(Lin6([HOME]))
    lose(world, "Mapping Update Request")
    world.move(world.hosts[MN], B1)
    world.run(12.0)
    assert times(world, "Mapping Update Request", "MN", "MA") == [0, 1]
    assert times(world, "Mapping Refresh", "MN", "CN") == []
    lose(world)
    world.run(16.0)
    assert times(world, "Mapping Refresh", "MN", "CN") == [3 + 60 * MS]


def test_a_lost_mapping_refresh_is_made_good_when_the_mapping_runs_out() -> None:
    world = moved(Lin6([HOME]))
    lose(world, "Mapping Refresh")
    world.move(world.hosts[MN], B1)
    world.run(20.0)
    assert world.path(CN, MN).failure is Reason.UNREACHABLE
    # Learnt at about 4 s, for the rest of a minute that the mapping agent had from 0 s.
    world.probes.clear()
    world.flow(CN, MN, 60.0, 61.0)
    world.run(62.0)
    assert world.path(CN, MN).failure is None


def test_a_query_without_an_answer_is_given_up_and_what_waited_is_lost() -> None:
    world = World(Lin6([HOME]))
    world.host(CN)
    world.host(MN, A1)
    lose(world, "MA Query")
    world.now = 10.0
    world.flow(CN, MN, 10.0, 10.02)
    world.run(60.0)
    queries = times(world, "MA Query", "CN", "MA")
    assert queries == [2.5 * MS, 1 + 2.5 * MS, 3 + 2.5 * MS, 7 + 2.5 * MS, 15 + 2.5 * MS]
    reasons = [probe.lost for probe in world.probes[CN, MN]]
    assert reasons == [Reason.UNRESOLVED] * 16 + [Reason.QUEUE_FULL] * 4


def test_packets_wait_for_the_look_up_and_the_mapping() -> None:
    world = World(Lin6([HOME]))
    world.host(CN)
    world.host(MN, A1)
    world.run(10.0)
    world.flow(CN, MN, 10.0, 10.001)
    world.run(11.0)
    # DNS 2, query and reply 54, CN to MN 12.
    delivered = world.probes[CN, MN][0].delivered
    assert delivered == pytest.approx(10.0005 + 68 * MS)


def test_a_mapping_that_has_run_out_is_asked_for_before_anything_is_sent() -> None:
    world = moved(Lin6([HOME]))
    # Nobody has talked for longer than a mapping lasts: the move is told to nobody.
    world.run(100.0)
    world.move(world.hosts[MN], B1)
    world.run(101.0)
    assert times(world, "Mapping Refresh", "MN", "CN") == []
    world.probes.clear()
    world.flow(CN, MN, 101.0, 101.001)
    world.run(102.0)
    delivered = world.probes[CN, MN][0].delivered
    assert delivered == pytest.approx(101.0005 + (54 + 17) * MS)


def test_a_mapping_in_use_is_asked_for_again_before_it_runs_out() -> None:
    world = moved(Lin6([HOME]))
    for second in range(10, 200):
        world.probes.clear()
        world.flow(CN, MN, second, second + 0.001)
        world.run(second + 0.9)
        probe = world.probes[CN, MN][0]
        assert probe.delivered is not None
        if second > 10:
            assert probe.delivered - probe.sent == pytest.approx(12 * MS)


def test_a_lost_cu_response_keeps_the_sender_waiting_but_not_the_peer() -> None:
    world = moved(MobilePpc(SERVER))
    lose(world, "CU Response")
    world.move(world.hosts[MN], B1)
    world.run(10.5)
    assert world.path(CN, MN).failure is None
    assert world.path(MN, CN).failure is Reason.NO_ADDRESS
    assert not world.hosts[MN].informed(world.now, [CN])
    lose(world)
    world.run(12.0)
    assert world.legs(MN, CN) == [("MN", "CN", 0)]
    assert times(world, "CU Request", "MN", "CN") == [0, 1]
    assert world.hosts[MN].informed(world.now, [CN])


# ---- lifetimes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "name"),
    [
        (MobileIpv4([HOME], mobile_ipv4.Parameters(lifetime=40.0)), "Registration Request"),
        (MobileIpv6([HOME], mobile_ipv6.Parameters(lifetime=40.0)), "Binding Update"),
        (Lin6([HOME], lin6.Parameters(lifetime=40.0)), "Mapping Update Request"),
    ],
)
def test_a_registration_is_renewed_after_three_quarters_of_its_lifetime(
    system: System, name: str
) -> None:
    world = World(system)
    world.host(MN, A1)
    world.run(100.0)
    sent = [one.time for one in world.log if one.name == name]
    assert len(sent) == 4
    assert [later - one for one, later in pairwise(sent)] == [pytest.approx(30.0, abs=0.1)] * 3
    assert not any(one.repeat for one in world.log)
    assert system.servers[SERVER].entries(world.now) == 1


@pytest.mark.parametrize("make", [MobileIpv4, MobileIpv6, Lin6])
def test_a_registration_that_is_not_renewed_expires(
    make: type[MobileIpv4] | type[MobileIpv6] | type[Lin6],
) -> None:
    world = World(make([HOME]))
    mobile = world.host(MN, A1)
    world.run(10.0)
    world.move(mobile)
    server = world.system.servers[SERVER]
    assert server.entries(world.now) == 1
    world.run(2000.0)
    assert server.entries(world.now) == 0
    assert world.system.catcher(world.now, MN) is None
    world.move(mobile, A1)
    world.run(2010.0)
    assert mobile.registered
    assert server.entries(world.now) == 1


def test_bindings_of_correspondents_are_renewed_while_data_flows_and_lapse_else() -> None:
    world = moved(MobileIpv6([HOME]))
    assert world.legs(CN, MN) == [("CN", "MN", 24)]
    world.probes.clear()
    # Begun at 4 s; renewed after 315 s, if used since; for 420 s.
    world.flow(MN, CN, 300.0, 300.002)
    world.run(600.0)
    updates = [one.time for one in world.log if (one.name, one.target) == ("Binding Update", "CN")]
    assert len(updates) == 2
    assert updates[1] - updates[0] == pytest.approx(315, abs=1)
    world.run(1000.0)
    assert world.legs(CN, MN) == [("CN", "HA", 0), ("HA", "MN", 40)]
    assert world.legs(MN, CN) == [("MN", "HA", 40), ("HA", "CN", 0)]


# ---- refusals ------------------------------------------------------------------------------------


def answers(system: System, *datagrams: Datagram) -> list[Datagram]:
    """What the server answers, one after the other, at 10 s."""
    server = system.servers[SERVER]
    effects = [effect for one in datagrams for effect in server.receive(10.0, one)]
    return [effect.datagram for effect in effects if isinstance(effect, Transmit)]


def test_a_registration_that_was_overtaken_is_refused_and_changes_nothing() -> None:
    system = MobileIpv4([HOME])
    new = mobile_ipv4.RegistrationRequest(MN, B1, 1800, 2)
    old = mobile_ipv4.RegistrationRequest(MN, A1, 1800, 1)
    replies = answers(system, Datagram(B1, SERVER, new, 74), Datagram(A1, SERVER, old, 74))
    assert [one.payload for one in replies] == [
        mobile_ipv4.RegistrationReply(0, 1800, 2, 2),
        mobile_ipv4.RegistrationReply(133, 1800, 1, 2),
    ]
    assert answers(system, Datagram(CN, MN, _data(), 200))[0].destination == B1


def test_a_node_that_lost_count_goes_on_from_where_its_home_agent_is() -> None:
    for system in (MobileIpv4([HOME]), MobileIpv6([HOME])):
        world = moved(system)
        for address in (B1, A1) * 4:
            world.move(world.hosts[MN], address)
            world.run(world.now + 1)
        reborn = World(system, now=world.now)
        mobile = reborn.host(MN, B1)
        reborn.run(world.now + 0.5)
        assert not mobile.registered
        reborn.run(world.now + 5)
        assert mobile.registered


def test_a_correspondent_refuses_a_binding_update_that_was_overtaken() -> None:
    world = moved(MobileIpv6([HOME]))
    peer = world.hosts[CN]

    def update(care_of: Address, sequence: int) -> Datagram:
        message = BindingUpdate(MN, care_of, 420, sequence, False, False)
        return Datagram(care_of, CN, message, 96, home_source=MN)

    assert peer.receive(10.0, update(B1, 9)) == []
    (refusal,) = peer.receive(10.0, update(A1, 8))
    assert isinstance(refusal, Transmit)
    assert refusal.datagram.payload == BindingAcknowledgement(135, 420, 9)
    assert world.path(CN, MN).waypoints == (CN, B1)
    # It goes on from there: what the node has to say next is taken.
    world.now = 10.0
    world.apply(world.hosts[MN], world.hosts[MN].receive(10.0, refusal.datagram))
    world.probes.clear()
    world.flow(MN, CN, 10.0, 10.001)
    world.run(11.0)
    assert world.legs(CN, MN) == [("CN", "MN", 24)]


def test_a_reverse_tunnel_from_elsewhere_than_the_care_of_address_is_not_forwarded() -> None:
    world = moved(MobileIpv4([HOME], mobile_ipv4.Parameters(reverse_tunnel=True)))
    agent = world.system.servers[SERVER]
    plain = Datagram(MN, CN, mobile_ipv4.RegistrationReply(0, 0, 0, 0), 100)
    assert isinstance(agent.way_on(10.0, plain.tunnelled(A1, SERVER, 20)), Transmit)
    assert agent.way_on(10.0, plain.tunnelled(A2, SERVER, 20)) is Reason.NO_BINDING


def test_a_tunnel_from_elsewhere_than_the_home_agent_is_not_opened() -> None:
    for system in (MobileIpv4([HOME]), MobileIpv6([HOME])):
        world = moved(system)
        way = world.hosts[CN].way_out(10.0, _data())
        assert isinstance(way, Transmit)
        forged = Datagram(CN, MN, _data(), 200).tunnelled(CN, A1, 20)
        assert world.hosts[MN].way_in(10.0, forged) is Reason.NOT_ACCEPTED


def test_a_connection_takes_no_packets_that_bear_anothers_addresses() -> None:
    world = moved(MobilePpc(SERVER))
    way = world.hosts[CN].way_out(world.now, _data())
    assert isinstance(way, Transmit)
    stray = Datagram(A2, way.datagram.destination, way.datagram.payload, 200)
    assert world.hosts[MN].way_in(world.now, way.datagram) == way.datagram.payload
    assert world.hosts[MN].way_in(world.now, stray) is Reason.NOT_ACCEPTED


def _data() -> Data:
    return Data(None, CN, MN, 200)


# ---- anything may be lost ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: MobileIpv4([HOME], mobile_ipv4.Parameters(reverse_tunnel=True)),
        lambda: MobileIpv6([HOME], mobile_ipv6.Parameters(acknowledge=True)),
        lambda: Lin6([HOME]),
        lambda: Lin6([HOME], lin6.Parameters(security_associations=True)),
        lambda: MobilePpc(SERVER),
    ],
)
@pytest.mark.parametrize("seed", range(20))
def test_after_many_moves_and_losses_everything_comes_right_by_itself(
    make: Callable[[], System], seed: int
) -> None:
    system = make()
    random = Random(seed)
    world = World(system)
    world.host(CN)
    mobile = world.host(MN, A1)
    world.run(4.0)
    world.flow(MN, CN, 4.0, 4.5)
    world.flow(CN, MN, 4.0, 4.5)
    world.run(5.0)
    world.lose = lambda datagram: not datagram.is_data and random.random() < 0.2
    for _ in range(20):
        world.run(world.now + 3 * random.random())
        world.move(mobile, *random.choice([(A1,), (B1,), (B1, A1), (A1, B1), ()]))
    world.move(mobile, B1)
    world.lose = lambda _datagram: False
    for _ in range(100):
        world.run(world.now + 1.0)
        world.probes.clear()
        world.flow(MN, CN, world.now, world.now + 0.001)
        world.flow(CN, MN, world.now, world.now + 0.001)
    world.run(world.now + 1.0)
    assert mobile.registered
    assert world.probes[MN, CN][0].delivered is not None
    assert world.probes[CN, MN][0].delivered is not None


EVERY: list[System] = [
    MobileIpv4([HOME]),
    MobileIpv6([HOME]),
    Lin6([HOME]),
    MobilePpc(SERVER),
    NoMobility(),
]


@pytest.mark.parametrize("system", EVERY)
def test_an_early_call_of_the_timer_does_nothing(system: System) -> None:
    world = World(system)
    host = world.host(MN, A1)
    other = world.host(MN2, A2)
    deadlines = [host.deadline, other.deadline]
    assert host.handle_timer(0.1) == []
    assert other.handle_timer(0.1) == []
    assert [host.deadline, other.deadline] == deadlines
