"""The node machine beyond the paper's figures: failures, limits, prefixes, address reuse."""

from dataclasses import replace

import pytest

from mat.address import format_address, parse_address
from mat.effects import DropPacket, Event, EventKind, NotFound, Reason, ReleasePacket, Send
from mat.messages import MAT_PORT, Endpoint, HaNotify, HaNotifyAck, HaQuery, MaAnswer, MaQuery
from mat.parameters import DEFAULTS
from mat.registrations import RegistrationTable
from mat.states import RegistrationState
from tests.core.test_figures import SETTLED, separate, shared, talking
from tests.core.world import Held, World

OUTSIDER = parse_address("192.0.2.99")


def delivered(world: World) -> list[int]:
    return [delivery.packet.number for delivery in world.deliveries]


# ---- peers without MAT -------------------------------------------------------------------------


def test_packet_to_a_host_without_ims_record_goes_out_as_ordinary_ip() -> None:
    world = separate()
    world.zones[world.hosts["CN"].key.home_address] = NotFound.NOT_MAT
    start = world.now
    world.send("MN", "CN")
    world.run(0.5)
    assert world.messages(start) == ["MN → DNS: DNS", "MN → nobody: data"]
    translation = world.hosts["MN"].kernel[world.hosts["CN"].machine.home_address]
    assert format_address(translation.local) == "198.51.100.1"
    assert translation.mobile == translation.home


def test_negative_answer_of_the_dns_is_kept_for_a_while_and_then_asked_again() -> None:
    world = separate()
    world.zones[world.hosts["CN"].key.home_address] = NotFound.NOT_MAT
    start = world.now
    for _ in range(14):
        world.send("MN", "CN")
        world.run(DEFAULTS.non_mat_time / 10)
    assert world.messages(start).count("MN → DNS: DNS") == 2


def test_unknown_source_that_no_ims_knows_is_an_ordinary_host() -> None:
    world = separate()
    world.holder[OUTSIDER] = "outsider"
    start = world.now
    world.send_plain("outsider", "192.0.2.99", world.hosts["MN"].machine.addresses[0])
    world.run(0.5)
    world.send_plain("outsider", "192.0.2.99", world.hosts["MN"].machine.addresses[0])
    world.run(0.5)
    assert [format_address(d.source) for d in world.deliveries] == ["192.0.2.99"] * 2
    assert world.messages(start).count("MN → IMS_MN: HA Query") == 1


def test_mat_node_taken_for_an_ordinary_host_is_recognised_by_its_notice() -> None:
    world = separate()
    world.attach("MN", "192.0.2.99")
    world.run(SETTLED)
    world.send_plain("MN", "192.0.2.99", world.hosts["CN"].machine.addresses[0])
    world.run(0.5)
    packet = world.send("MN", "CN")
    world.run(DEFAULTS.unknown_source_time)
    assert packet.number in delivered(world)
    world.send("MN", "CN")
    world.run(0.5)
    assert world.deliveries[-1].source == world.hosts["MN"].machine.home_address


# ---- home, several addresses -------------------------------------------------------------------


def test_at_home_nothing_is_translated_on_that_side() -> None:
    world = separate()
    world.attach("MN", "10.1.0.1")
    world.run(1.0)
    world.send("MN", "CN")
    world.run(1.0)
    translation = world.hosts["CN"].kernel[world.hosts["MN"].machine.home_address]
    assert translation.mobile == translation.home
    assert len(world.deliveries) == 1


def test_the_drafts_two_interface_handover_loses_no_packet() -> None:
    world = talking(separate())
    world.deliveries.clear()
    old, new = "198.51.100.1", "198.51.100.77"
    sent = 0
    for addresses in ((old, new), (new, old), (new,)):
        world.attach("MN", *addresses)
        for _ in range(60):
            world.send("MN", "CN")
            world.send("CN", "MN")
            sent += 2
            world.run(0.01)
    world.run(0.5)
    assert len(world.deliveries) == sent
    assert not world.dropped


def test_known_lower_priority_address_is_accepted_at_once() -> None:
    world = talking(separate())
    world.attach("MN", "198.51.100.1", "198.51.100.77")
    world.run(1.0)
    start = world.now
    world.send_plain("MN", "198.51.100.77", world.hosts["CN"].machine.addresses[0])
    world.run(0.5)
    assert world.messages(start) == ["MN → CN: data"]
    assert world.deliveries[-1].source == world.hosts["MN"].machine.home_address


def test_address_held_too_short_is_used_only_after_the_peer_confirmed_it() -> None:
    world = separate()
    world.attach("MN", "198.51.100.77")
    world.run(1.0)
    start = world.now
    world.send("MN", "CN")
    world.run(1.0)
    sent = world.messages(start)
    assert sent.index("CN → MN: HA Notify Ack") < sent.index("MN → CN: data")
    assert len(world.deliveries) == 1


def test_peer_that_never_confirms_gets_its_packets_after_the_ims_vouched() -> None:
    world = separate()
    world.attach("MN", "198.51.100.77")
    world.lose = lambda _source, target, what: (target, what) == ("CN", "HA Notify")
    world.send("MN", "CN")
    world.run(30.0)
    assert world.events[EventKind.PEER_UNCONFIRMED] == 1
    assert len(world.deliveries) == 1


# ---- address reuse -----------------------------------------------------------------------------


def three() -> World:
    """A and B are mobile and share no IMS; CN talks to A."""
    world = World()
    for name, address, homes in (
        ("IMS_A", "192.0.2.1", "10.1.0.0/16"),
        ("IMS_B", "192.0.2.2", "10.2.0.0/16"),
        ("IMS_CN", "192.0.2.3", "10.3.0.0/16"),
    ):
        world.add_server(name, address, homes)
    world.add_host("A", "10.1.0.1", "IMS_A")
    world.add_host("B", "10.2.0.1", "IMS_B")
    world.add_host("CN", "10.3.0.1", "IMS_CN")
    world.attach("A", "198.51.100.1")
    world.attach("B", "198.51.100.2")
    world.attach("CN", "203.0.113.1")
    world.run(SETTLED)
    world.send("A", "CN")
    world.run(0.5)
    world.send("CN", "A")
    world.run(0.5)
    return world


def test_new_holder_of_an_address_never_passes_for_the_old_one() -> None:
    world = three()
    world.attach("A")
    world.attach("B", "198.51.100.1")
    for _ in range(100):
        world.send("B", "CN")
        world.run(0.01)
    sources = {(d.packet.sender, d.source) for d in world.deliveries if d.at == "CN"}
    assert sources == {(name, world.hosts[name].machine.home_address) for name in ("A", "B")}
    assert world.events[EventKind.ADDRESS_REUSED] == 1
    assert world.deliveries[-1].packet.sender == "B"


def test_new_holder_never_passes_for_the_old_one_even_if_its_notices_are_lost() -> None:
    world = three()
    world.attach("A")
    world.attach("B", "198.51.100.1")
    losses = iter([True, True, False])
    world.lose = lambda source, target, what: (
        (source, target, what) == ("B", "CN", "HA Notify") and next(losses, False)
    )
    for _ in range(60):
        world.send("B", "CN")
        world.run(0.1)
    sources = {(d.packet.sender, d.source) for d in world.deliveries if d.at == "CN"}
    assert sources == {(name, world.hosts[name].machine.home_address) for name in ("A", "B")}


def test_once_the_new_holder_is_known_nothing_more_goes_to_it_for_the_old_one() -> None:
    world = three()
    world.attach("A")
    world.attach("B", "198.51.100.1")
    world.send("B", "CN")
    world.run(1.0)
    world.deliveries.clear()
    for _ in range(20):
        world.send("CN", "A")
        world.run(0.1)
    assert not world.deliveries


def test_what_remains_a_host_without_mat_passes_until_the_mapping_is_renewed_or_ends() -> None:
    """docs/protocol.md, section 9.3: no message can tell, so the lifetime is the bound."""
    world = three()
    world.attach("A")
    world.holder[parse_address("198.51.100.1")] = "stranger"
    there = world.hosts["CN"].machine.addresses[0]
    world.send_plain("stranger", "198.51.100.1", there)
    world.run(1.0)
    assert world.deliveries[-1].source == world.hosts["A"].machine.home_address
    world.run(DEFAULTS.registration_lifetime)
    world.send_plain("stranger", "198.51.100.1", there)
    world.run(1.0)
    assert format_address(world.deliveries[-1].source) == "198.51.100.1"


def unanswered() -> World:
    """B has A's address, and CN, which knows A there, answers none of B's notices."""
    world = three()
    world.attach("A")
    world.attach("B", "198.51.100.1")
    world.lose = lambda _source, target, what: (target, what) == ("CN", "HA Notify")
    world.deliveries.clear()
    return world


def test_what_came_before_a_peer_was_given_up_on_is_not_delivered() -> None:
    world = unanswered()
    world.send("B", "CN")
    world.send("CN", "A")
    world.run(30.0)
    assert world.events[EventKind.PEER_UNCONFIRMED] == 1
    assert [d.at for d in world.deliveries] == ["CN"]
    assert [reason for packet, reason in world.dropped if packet.sender == "CN"] == ["MISDIRECTED"]


def test_stragglers_are_not_delivered_either_where_a_peer_was_given_up_on() -> None:
    world = unanswered()
    world.send("B", "CN")
    while not world.events[EventKind.PEER_UNCONFIRMED]:
        world.run(0.1)
    world.send("CN", "A")
    world.run(DEFAULTS.reuse_grace)
    assert all(delivery.at == "CN" for delivery in world.deliveries)
    packet = world.send("CN", "B")
    world.run(1.0)
    assert world.deliveries[-1].packet is packet


def test_what_remains_where_no_notice_is_answered_ends_with_the_former_mapping() -> None:
    """docs/protocol.md, section 9.3: nothing that the new holder hears could tell."""
    world = unanswered()
    world.send("B", "CN")
    world.run(30.0)
    assert world.deliveries[-1].source == world.hosts["A"].machine.home_address
    world.run(DEFAULTS.registration_lifetime)
    world.send("B", "CN")
    world.run(1.0)
    assert world.deliveries[-1].source == world.hosts["B"].machine.home_address


def test_registered_lifetime_ends_before_the_lease() -> None:
    world = separate()
    world.attach("MN", "198.51.100.77", until=[world.now + 20.0])
    world.run(1.0)
    registration = world.servers["IMS_MN"].store.by_home(world.hosts["MN"].machine.home_address)
    assert registration is not None
    assert registration.lifetime == 20 - DEFAULTS.lease_guard


def test_lease_that_is_nearly_over_is_not_registered_until_it_is_extended() -> None:
    world = separate()
    world.attach("MN", "198.51.100.77", until=[world.now + 4.0])
    world.run(0.5)
    assert world.hosts["MN"].machine.registered == ()
    world.attach("MN", "198.51.100.77", until=[world.now + 60.0])
    world.run(0.5)
    assert world.hosts["MN"].machine.registration_state is RegistrationState.REGISTERED


def test_straggler_for_the_former_holder_is_not_taken_even_after_the_confirmation() -> None:
    world = three()
    world.send("B", "CN")
    world.run(1.0)
    world.send("CN", "B")
    world.run(1.0)
    world.deliveries.clear()
    delays = [world.delay]
    world.delays = lambda: delays
    world.attach("A")
    delays = [0.8]
    world.send("CN", "A")
    delays = [world.delay]
    world.attach("B", "198.51.100.1")
    world.run(DEFAULTS.reuse_grace)
    assert not world.deliveries
    world.run(1.0)
    packet = world.send("CN", "B")
    world.run(1.0)
    assert world.deliveries[-1].packet is packet


# ---- failures ----------------------------------------------------------------------------------


def test_silent_dns_drops_the_packet_and_is_asked_again_after_a_moment() -> None:
    world = separate()
    world.lose = lambda _source, target, _what: target == "DNS"
    world.send("MN", "CN")
    world.run(0.5)
    assert [reason for _, reason in world.dropped] == ["UNREACHABLE"]
    world.send("MN", "CN")
    world.run(1.0)
    assert len(world.dropped) == 2
    world.lose = lambda _source, _target, _what: False
    world.send("MN", "CN")
    world.run(1.0)
    assert len(world.deliveries) == 1


def test_lost_signalling_is_sent_again_until_it_arrives() -> None:
    for lost in range(12):
        world = separate()
        countdown = [lost]

        def lose(_source: str, _target: str, what: str, left: list[int] = countdown) -> bool:
            if what in ("data", "DNS"):
                return False
            left[0] -= 1
            return left[0] == -1

        world.lose = lose
        world.send("MN", "CN")
        world.run(5.0)
        assert len(world.deliveries) == 1, lost


def test_another_replica_answers_when_one_is_silent() -> None:
    world = World()
    world.add_server("IMS_1", "192.0.2.1", "10.0.0.0/8")
    world.add_server("IMS_2", "192.0.2.2", "10.0.0.0/8")
    world.add_host("MN", "10.1.0.1", "IMS_1", "IMS_2")
    world.add_host("CN", "10.2.0.1", "IMS_1", "IMS_2")
    world.attach("MN", "198.51.100.1")
    world.attach("CN", "203.0.113.1")
    world.run(SETTLED)
    assert all(len(server.store) == 2 for server in world.servers.values())
    del world.holder[world.servers["IMS_1"].endpoint.address]
    world.send("MN", "CN")
    world.run(10.0)
    assert len(world.deliveries) == 1
    start = world.now
    world.run(DEFAULTS.peer_query_interval)
    assert "MN → IMS_2: MA Query" in world.messages(start)
    assert "MN → nobody: MA Query" not in world.messages(start)


def test_replica_that_missed_an_update_is_not_believed() -> None:
    world = World()
    world.add_server("IMS_1", "192.0.2.1", "10.0.0.0/8")
    world.add_server("IMS_2", "192.0.2.2", "10.0.0.0/8")
    world.add_host("MN", "10.1.0.1", "IMS_1", "IMS_2")
    world.add_host("CN", "10.2.0.1", "IMS_1", "IMS_2")
    world.attach("MN", "198.51.100.1")
    world.attach("CN", "203.0.113.1")
    world.run(SETTLED)
    talking(world)
    world.lose = lambda _source, target, what: (target, what) == ("IMS_1", "IMS Update")
    world.attach("MN", "198.51.100.77")
    world.run(1.0)
    translation = world.hosts["CN"].kernel[world.hosts["MN"].machine.home_address]
    assert format_address(translation.mobile) == "198.51.100.77"


def test_peer_without_a_registration_is_unreachable() -> None:
    world = separate()
    world.add_host("other", "10.2.0.9", "IMS_CN")
    world.send("MN", "other")
    world.run(1.0)
    assert [reason for _, reason in world.dropped] == ["UNREACHABLE"]


def test_node_that_rebooted_is_found_again_by_a_peer_that_kept_sending() -> None:
    world = talking(separate())
    world.reboot("MN")
    world.attach("MN", "198.51.100.77")
    packets = []
    for _ in range(100):
        packets.append(world.send("CN", "MN"))
        world.run(1.0)
    assert world.deliveries[-1].packet is packets[-1]
    assert world.deliveries[-1].source == world.hosts["CN"].machine.home_address


def test_peer_in_use_is_asked_about_periodically_and_an_idle_one_runs_out() -> None:
    world = talking(separate())
    start = world.now
    for _ in range(10):
        world.send("MN", "CN")
        world.run(10.0)
    asked = world.messages(start).count("MN → IMS_CN: MA Query")
    assert 3 <= asked <= 5
    world.run(DEFAULTS.registration_lifetime + DEFAULTS.peer_idle_time)
    assert not list(world.hosts["MN"].machine.peers())
    assert not world.hosts["MN"].kernel


# ---- limits ------------------------------------------------------------------------------------


def test_hold_queue_is_bounded_per_peer_and_in_all() -> None:
    world = separate()
    for _ in range(DEFAULTS.hold_per_peer + 3):
        world.send("MN", "CN")
    assert [reason for _, reason in world.dropped] == ["OVERFLOW"] * 3
    machine = world.hosts["MN"].machine
    for peer in range(100):
        destination = parse_address(f"10.2.7.{peer}")
        for _ in range(5):
            machine.packet_out(world.now, "packet", destination)
    assert machine.held == DEFAULTS.hold_total


def test_strangers_cannot_make_a_node_ask_more_than_its_limit() -> None:
    world = separate()
    machine, now = world.hosts["MN"].machine, world.now
    here = machine.addresses[0]
    asked = limited = 0
    for n in range(1000):
        source = parse_address(f"192.0.{n // 250}.{n % 250 + 1}")
        for effect in machine.packet_in(now, "packet", source, here):
            asked += isinstance(effect, Send)
            limited += isinstance(effect, Event) and effect.kind is EventKind.RATE_LIMITED
    assert asked == DEFAULTS.triggered_burst
    assert limited == 1000 - asked


def test_messages_about_one_peer_keep_to_their_rate() -> None:
    world = talking(separate())
    start = world.now
    for n in range(30):
        world.attach("MN", f"198.51.100.{n + 10}")
        world.run(0.1)
    seconds = world.now - start
    notified = world.messages(start).count("MN → IMS_CN: HA Notify")
    assert notified <= DEFAULTS.peer_message_rate * seconds + 3
    world.run(2.0)
    packet = world.send("CN", "MN")
    world.run(0.5)
    assert packet.number in delivered(world)


def test_table_evicts_the_peer_used_longest_ago() -> None:
    world = separate()
    machine = world.hosts["MN"].machine
    for n in range(DEFAULTS.table_size + 10):
        home = parse_address(f"10.3.{n // 250}.{n % 250}")
        machine.packet_out(world.now, "packet", home)
        machine.servers_found(world.now, home, NotFound.NOT_MAT)
    peers = list(machine.peers())
    assert len(peers) == DEFAULTS.table_size
    assert format_address(peers[0].home_address) == "10.3.0.10"


# ---- messages that are not what they should be -------------------------------------------------


def test_answers_to_nothing_and_requests_for_others_are_counted() -> None:
    world = talking(separate())
    machine, source = world.hosts["MN"].machine, Endpoint(OUTSIDER, MAT_PORT)
    not_for_it = HaNotify(1, OUTSIDER, OUTSIDER, 1, nonce=bytes(8))
    for message in (HaQuery(1, OUTSIDER, nonce=bytes(8)), not_for_it):
        (effect,) = machine.receive(world.now, message, source)
        assert effect == Event(EventKind.IGNORED, OUTSIDER)


def test_notice_is_never_believed() -> None:
    world = talking(separate())
    mn, cn = world.hosts["MN"].machine, world.hosts["CN"].machine
    forged = HaNotify(1, mn.home_address, cn.home_address, 1 << 63, nonce=bytes(8))
    before = dict(world.hosts["CN"].kernel)
    world.apply("CN", cn.receive(world.now, forged, Endpoint(OUTSIDER, MAT_PORT)))
    world.run(1.0)
    assert world.hosts["CN"].kernel == before
    assert not any("CN → nobody" in line for line in world.messages())


def test_detached_node_refuses_packets_to_strangers_and_holds_those_to_peers() -> None:
    world = talking(separate())
    world.attach("MN")
    home = parse_address("10.2.0.55")
    (effect,) = world.hosts["MN"].machine.packet_out(world.now, "packet", home)
    assert effect == DropPacket("packet", Reason.NO_ADDRESS)
    world.send("MN", "CN")
    assert world.hosts["MN"].machine.held == 1
    assert world.hosts["MN"].machine.registration_state is RegistrationState.DETACHED


def test_answer_with_a_wrong_nonce_changes_nothing() -> None:
    world = separate()
    world.send("MN", "CN")
    world.run(0.015)
    machine, source = world.hosts["MN"].machine, world.servers["IMS_CN"].endpoint
    (peer,) = machine.peers()
    assert peer.query is not None
    sequence, home = peer.query.request.sequence, peer.home_address
    forged = MaAnswer(sequence, 0, home, (OUTSIDER,), 9 << 32, 60, nonce=bytes(8))
    expected = [Event(EventKind.UNEXPECTED, source.address)]
    assert list(machine.receive(world.now, forged, source)) == expected
    world.run(1.0)
    assert len(world.deliveries) == 1


def test_answer_for_another_home_address_is_not_taken() -> None:
    world = separate()
    world.send("MN", "CN")
    world.run(0.015)
    machine, source = world.hosts["MN"].machine, world.servers["IMS_CN"].endpoint
    (peer,) = machine.peers()
    assert peer.query is not None
    request = peer.query.request
    other = parse_address("10.2.9.9")
    wrong = MaAnswer(request.sequence, 0, other, (OUTSIDER,), 9 << 32, 60, nonce=request.nonce)
    (effect,) = machine.receive(world.now, wrong, source)
    assert isinstance(effect, Event)
    assert effect.kind is EventKind.UNEXPECTED
    assert not world.hosts["MN"].kernel


def test_useless_addresses_in_an_answer_are_left_out() -> None:
    world = talking(separate())
    world.run(DEFAULTS.peer_query_interval)
    machine, source = world.hosts["MN"].machine, world.servers["IMS_CN"].endpoint
    world.apply("MN", machine.used(world.now, [world.hosts["CN"].machine.home_address]))
    (peer,) = machine.peers()
    before = dict(world.hosts["MN"].kernel)
    while peer.query is None:
        world.apply("MN", machine.used(world.now, [peer.home_address]))
        world.run(0.005)
    useless = ("224.0.0.1", "127.0.0.1", "2001:db8::1", "198.51.100.1")
    moved = tuple(parse_address(text) for text in (*useless, "203.0.113.1"))
    request = peer.query.request
    assert isinstance(request, MaQuery)
    answer = MaAnswer(
        request.sequence, 0, peer.home_address, moved, 1 << 63, 60, nonce=request.nonce
    )
    world.apply("MN", machine.receive(world.now, answer, source))
    assert world.hosts["MN"].kernel == before


def test_mapping_lives_no_longer_than_the_longest_lifetime() -> None:
    world = separate()
    world.send("MN", "CN")
    world.run(0.015)
    machine, source = world.hosts["MN"].machine, world.servers["IMS_CN"].endpoint
    (peer,) = machine.peers()
    assert peer.query is not None
    request = peer.query.request
    there = world.hosts["CN"].machine.addresses
    answer = MaAnswer(
        request.sequence, 0, peer.home_address, there, 1 << 62, 2**32 - 1, nonce=request.nonce
    )
    world.apply("MN", machine.receive(world.now, answer, source))
    assert peer.mapping is not None
    assert peer.mapping.expires == world.now + DEFAULTS.maximum_lifetime


def test_confirmation_of_an_older_mapping_does_not_open_the_gate() -> None:
    world = talking(separate())
    world.attach("MN", "198.51.100.77")
    world.run(0.055)
    world.attach("MN", "198.51.100.78")
    start = world.now
    world.send("MN", "CN")
    world.run(1.0)
    sent = world.messages(start)
    acks = [i for i, line in enumerate(sent) if line == "CN → MN: HA Notify Ack"]
    assert sent.index("MN → CN: data") > acks[-1]


def test_node_that_hears_nothing_from_its_ims_is_not_registered_any_more() -> None:
    world = talking(separate())
    del world.holder[world.servers["IMS_MN"].endpoint.address]
    world.run(DEFAULTS.registration_lifetime + 20.0)
    assert world.hosts["MN"].machine.registered == ()
    assert not world.hosts["MN"].kernel
    world.holder[world.servers["IMS_MN"].endpoint.address] = "IMS_MN"
    world.run(DEFAULTS.maximum_timeout * 1.2)
    packet = world.send("MN", "CN")
    world.run(1.0)
    assert packet.number in delivered(world)


def test_packets_held_for_a_silent_ims_are_dropped_and_not_counted_any_more() -> None:
    world = separate()
    world.holder[OUTSIDER] = "outsider"
    del world.holder[world.servers["IMS_MN"].endpoint.address]
    world.send_plain("outsider", "192.0.2.99", world.hosts["MN"].machine.addresses[0])
    world.run(1.0)
    assert world.hosts["MN"].machine.held == 1
    world.run(40.0)
    assert world.hosts["MN"].machine.held == 0
    assert [reason for _, reason in world.dropped] == ["UNREACHABLE"]


def test_option_that_names_another_than_the_source_delivers_nothing() -> None:
    world = talking(separate())
    mn, cn = world.hosts["MN"].machine, world.hosts["CN"].machine
    packet = Held(
        world.send("CN", "MN"), outward=False, source=OUTSIDER, destination=cn.addresses[0]
    )
    effects = cn.packet_in(world.now, packet, OUTSIDER, cn.addresses[0], mn.home_address)
    world.apply("CN", effects)
    world.run(1.0)
    assert [reason for _, reason in world.dropped] == ["NOT_ITS_ADDRESS"]


def test_notice_for_a_whole_prefix_from_a_stranger_is_bounded() -> None:
    world = separate()
    machine = world.hosts["MN"].machine
    for n in range(500):
        home = parse_address(f"10.2.{n // 250}.{n % 250 + 1}")
        machine.packet_out(world.now, "packet", home)
        machine.servers_found(world.now, home, (world.servers["IMS_CN"].endpoint,))
    source = Endpoint(OUTSIDER, MAT_PORT)
    for length in (96, 96 + 16):
        home = parse_address("0.0.0.0" if length == 96 else "10.2.0.0")
        forged = HaNotify(1, home, machine.home_address, 1 << 63, length, nonce=bytes(8))
        effects = machine.receive(world.now, forged, source)
        sent = [effect.message for effect in effects if isinstance(effect, Send)]
        assert len(sent) <= DEFAULTS.triggered_burst
        assert all(isinstance(message, MaQuery) for message in sent)


def test_ordinary_host_stays_one_until_the_dns_says_otherwise() -> None:
    world = separate()
    home = world.hosts["CN"].machine.home_address
    world.zones[world.hosts["CN"].key.home_address] = NotFound.NOT_MAT
    world.send("MN", "CN")
    world.run(0.5)
    mn = world.hosts["MN"].machine
    forged = HaNotify(1, home, mn.home_address, 7, nonce=bytes(8))
    for _ in range(20):
        world.apply("MN", mn.receive(world.now, forged, Endpoint(OUTSIDER, MAT_PORT)))
        world.run(0.01)
        assert home in world.hosts["MN"].kernel


def test_start_of_communication_with_replicas_reaches_the_one_that_knows() -> None:
    world = World()
    world.add_server("IMS_MN", "192.0.2.1", "10.1.0.0/16")
    world.add_server("IMS_1", "192.0.2.2", "10.2.0.0/16")
    world.add_server("IMS_2", "192.0.2.3", "10.2.0.0/16")
    world.add_host("MN", "10.1.0.1", "IMS_MN")
    world.add_host("CN", "10.2.0.1", "IMS_1", "IMS_2")
    world.attach("MN", "198.51.100.1")
    world.attach("CN", "203.0.113.1")
    world.run(SETTLED)
    world.send("MN", "CN")
    world.run(1.0)
    (delivery,) = world.deliveries
    assert delivery.source == world.hosts["MN"].machine.home_address


def test_shared_ims_that_lost_its_store_does_not_vouch_for_who_notifies() -> None:
    world = shared()
    world.servers["IMS"].store = RegistrationTable()
    world.send("MN", "CN")
    world.run(0.3)
    assert not world.deliveries


def test_address_held_before_is_not_taken_as_registered_when_it_comes_back() -> None:
    world = talking(separate())
    world.attach("MN")
    world.attach("MN", "198.51.100.1")
    assert world.hosts["MN"].machine.registered == ()


def test_option_that_names_an_ordinary_host_delivers_nothing_under_its_address() -> None:
    world = separate()
    mn = world.hosts["MN"].machine
    host, here = parse_address("192.0.2.80"), mn.addresses[0]
    for _ in range(2):
        assert mn.packet_in(world.now, "forged", OUTSIDER, here, host)
        effects = mn.servers_found(world.now, host, NotFound.NOT_MAT)
        dropped = [effect for effect in effects if isinstance(effect, DropPacket)]
        assert [effect.reason for effect in dropped] == [Reason.NOT_ITS_ADDRESS]
        assert not any(isinstance(effect, ReleasePacket) for effect in effects)
    assert mn.held == 0


def test_packet_waiting_at_an_address_that_is_given_up_is_dropped() -> None:
    world = talking(separate())
    world.attach("CN", "203.0.113.77")
    cn = world.hosts["CN"].machine
    there, source = cn.addresses[0], world.hosts["MN"].machine.addresses[0]
    packet = Held(world.send("MN", "CN"), outward=False, source=source, destination=there)
    world.apply("CN", cn.packet_in(world.now, packet, source, there))
    assert cn.held == 1
    world.attach("CN", "203.0.113.78")
    assert (cn.held, world.dropped[-1][1]) == (0, "NO_ADDRESS")


def test_forged_notices_do_not_evict_a_peer_in_use() -> None:
    world = World(parameters=replace(DEFAULTS, table_size=8))
    world.add_server("IMS", "192.0.2.1", "10.0.0.0/8")
    world.add_host("MN", "10.1.0.1", "IMS")
    world.add_host("CN", "10.2.0.1", "IMS")
    world.attach("MN", "198.51.100.1")
    world.attach("CN", "203.0.113.1")
    world.run(1.0)
    talking(world)
    machine = world.hosts["MN"].machine
    world.lose = lambda _source, target, _what: target == "DNS"
    for n in range(40):
        world.send("MN", "CN")
        home = parse_address(f"66.0.0.{n + 1}")
        forged = HaNotify(n, home, machine.home_address, 1 << 32, nonce=bytes(8))
        world.apply("MN", machine.receive(world.now, forged, Endpoint(OUTSIDER, MAT_PORT)))
        world.run(0.05)
        assert world.hosts["CN"].machine.home_address in world.hosts["MN"].kernel


def test_notice_of_what_cannot_be_a_peer_is_ignored() -> None:
    world = separate()
    machine, source = world.hosts["MN"].machine, Endpoint(OUTSIDER, MAT_PORT)
    for text in ("2001:db8::1", "224.0.0.1", "255.255.255.255", "10.1.0.1"):
        notify = HaNotify(1, parse_address(text), machine.home_address, 1, nonce=bytes(8))
        assert list(machine.receive(world.now, notify, source)) == [
            Event(EventKind.IGNORED, OUTSIDER)
        ]


def test_data_flows_as_soon_as_the_ims_vouches_for_a_node_whose_notices_go_unanswered() -> None:
    world = talking(separate())
    world.deliveries.clear()
    world.attach("MN", "198.51.100.77")
    start = world.now
    blocked = {("CN", "HA Notify"), ("IMS_CN", "HA Notify")}

    def lose(_source: str, target: str, what: str) -> bool:
        return (target, what) in blocked and (target == "CN" or world.now < start + 17.0)

    world.lose = lose
    for _ in range(40):
        world.send("MN", "CN")
        world.run(1.0)
        if world.deliveries:
            break
    acks = [at for at, a, b, what in world.log if (a, b, what) == ("IMS_CN", "MN", "HA Notify Ack")]
    assert world.deliveries[0].time - acks[-1] < 0.1


# ---- mobile router -----------------------------------------------------------------------------


def mobile_router() -> World:
    world = World()
    world.add_server("IMS_R", "192.0.2.1", "10.1.0.0/16")
    world.add_server("IMS_CN", "192.0.2.2", "10.2.0.0/16")
    world.add_host("R", "10.1.4.0/24", "IMS_R")
    world.add_host("CN", "10.2.0.1", "IMS_CN")
    world.attach("R", "198.51.100.0")
    world.attach("CN", "203.0.113.1")
    world.run(SETTLED)
    return world


def test_hosts_behind_a_mobile_router_keep_their_host_bits() -> None:
    world = mobile_router()
    for host in (5, 6):
        world.send("CN", "R", host)
        world.run(1.0)
    assert [format_address(d.destination) for d in world.deliveries] == ["10.1.4.5", "10.1.4.6"]
    mapped = [t.mobile for t in world.hosts["CN"].kernel.values()]
    assert [format_address(mobile) for mobile in mapped] == ["198.51.100.5", "198.51.100.6"]


def test_prefix_in_an_answer_says_nothing_of_addresses_that_were_not_asked_for() -> None:
    world = mobile_router()
    world.send("CN", "R", 5)
    world.run(1.0)
    start = world.now
    world.send("CN", "R", 6)
    world.run(1.0)
    assert "CN → DNS: DNS" in world.messages(start)
    assert "CN → IMS_R: MA Query" in world.messages(start)


def test_mobile_router_moves_and_its_hosts_stay_reachable() -> None:
    world = mobile_router()
    world.send("CN", "R", 5)
    world.run(1.0)
    world.attach("R", "203.0.112.0")
    world.run(1.0)
    packet = world.send("CN", "R", 5)
    world.run(1.0)
    assert world.deliveries[-1].packet is packet
    assert format_address(world.deliveries[-1].destination) == "10.1.4.5"


def test_routers_notice_is_acknowledged_by_who_knows_nobody_in_either_prefix() -> None:
    world = mobile_router()
    machine = world.hosts["CN"].machine
    home, source = parse_address("10.9.4.0"), parse_address("198.51.100.77")
    notice = HaNotify(1, home, machine.home_address, 7, 120, nonce=bytes(8))

    def answers() -> list[tuple[type, int]]:
        effects = machine.receive(world.now, notice, Endpoint(source, MAT_PORT))
        sent = [effect.message for effect in effects if isinstance(effect, Send)]
        return [(type(m), m.version) for m in sent if isinstance(m, HaNotifyAck)]

    assert answers() == [(HaNotifyAck, 7)]
    # Now somebody is known at the mobile prefix, who is another router's.
    world.send("CN", "R", 5)
    world.run(1.0)
    assert answers() == []


def test_equal_seeds_give_equal_logs() -> None:
    def run(seed: int) -> list[tuple[float, str, str, str]]:
        world = World(seed)
        world.add_server("IMS", "192.0.2.1", "10.0.0.0/8")
        for n in range(3):
            world.add_host(f"N{n}", f"10.1.0.{n + 1}", "IMS")
            world.attach(f"N{n}", f"198.51.100.{n + 1}")
        world.lose = lambda _source, _target, _what: world.random.random() < 0.3
        for n in range(40):
            world.send(f"N{n % 3}", f"N{(n + 1) % 3}")
            world.run(3.0)
            world.attach(f"N{n % 3}", f"198.51.100.{n + 10}")
        return world.log

    assert run(1) == run(1)
    assert run(1) != run(2)


@pytest.mark.parametrize("world", [separate(), shared()], ids=["separate", "shared"])
def test_timer_called_early_late_or_twice_does_no_harm(world: World) -> None:
    machine = world.hosts["MN"].machine
    assert machine.deadline is not None
    assert not machine.handle_timer(world.now)
    late = machine.deadline + 500.0
    first = machine.handle_timer(late)
    assert any(isinstance(effect, Send) for effect in first)
    assert not machine.handle_timer(late)


def test_mobile_routers_lease_is_that_of_its_prefix() -> None:
    world = mobile_router()
    machine = world.hosts["R"].machine
    world.release("R")
    moved = [parse_address("203.0.112.7"), parse_address("203.0.112.9")]
    world.holder[parse_address("203.0.112.0")] = "R"
    leases = [world.now + 60.0, world.now + 30.0]
    world.apply("R", machine.addresses_changed(world.now, moved, leases))
    world.run(0.1)
    assert [format_address(address) for address in machine.registered] == ["203.0.112.0"]
    stored = world.servers["IMS_R"].store.by_home(machine.home_address)
    assert stored is not None
    assert stored.lifetime == 30 - DEFAULTS.lease_guard


def test_packets_for_hosts_behind_a_former_router_do_not_reach_those_behind_the_next() -> None:
    world = World()
    for n, name in ((1, "R1"), (2, "R2"), (3, "CN")):
        world.add_server(f"IMS_{name}", f"192.0.2.{n}", f"10.{n}.0.0/16")
        home = f"10.{n}.5.0/24" if name != "CN" else "10.3.0.1"
        world.add_host(name, home, f"IMS_{name}")
    world.attach("R1", "198.51.100.0")
    world.attach("R2", "198.51.101.0")
    world.attach("CN", "203.0.113.1")
    world.run(1.0)
    for router in ("R1", "R2"):
        world.send("CN", router, 5)
    world.run(3.0)
    assert len(world.deliveries) == 2
    world.attach("R1")
    world.attach("R2", "198.51.100.0")
    for _ in range(10):
        world.send("CN", "R1", 5)
        world.run(0.01)
    world.run(3.0)
    assert all(d.at == d.packet.receiver for d in world.deliveries)
