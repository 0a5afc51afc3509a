"""Real nodes' worth of datagrams against a real machine, on good days and on bad ones.

What the server did is known, so what the report says of it can be checked to the last datagram.
"""

import contextlib
import dataclasses
import itertools
import socket
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from mat.address import Address, parse_address
from mat.authentication import Key, sign
from mat.codec import decode, encode
from mat.messages import Endpoint, ImsUpdateReply, MaAnswer
from mat.registrations import Registration
from mat_real.load import echo
from mat_real.load.answers import match
from mat_real.load.forms import Kind, queries
from mat_real.load.generator import Timing
from mat_real.load.ledger import Fate, Ledger, Note
from mat_real.load.measures import Measured, Run, codes, main, measured
from mat_real.load.patterns import CHAINS, Plan, at_once, simultaneous, steady
from mat_real.load.play import Player
from mat_real.load.population import LoadError, Population, Target, populate
from mat_real.load.volley import Volley
from tests.real.tiny_ims import Faults, TinyIms, some_keys

KEYS = some_keys(120)
QUICK = Timing(timeout=0.1, give_up=2.0)
PATIENT = Timing(timeout=20.0, give_up=60.0)
"""Repeats nothing because the machine was busy."""


def random() -> np.random.Generator:
    return np.random.default_rng(3)


def player(keys: list[Key], *servers: TinyIms) -> Player:
    targets = [Target(server.endpoint) for server in servers]
    return Player(populate(keys, targets, None, random()), targets, sockets=4)


def plan(count: int, messages: str = "handover") -> Plan:
    return Plan(CHAINS[messages], *simultaneous(0.2)(count, random()))


def registered(ims: TinyIms, keys: list[Key] = KEYS) -> Player:
    played = player(keys, ims)
    played.register()
    return played


def counted(run: Run) -> dict[str, tuple[int, int, int, int]]:
    """Begun, done, lost and repeated, by name."""
    return {m.name: (m.begun, m.done, m.lost, m.repeated) for m in measured(run.ledger)}


def stored(ims: TinyIms, key: Key) -> Registration:
    found = ims.store.by_home(key.home_address)
    assert found is not None
    return found


def moved(population: Population, ordinal: int) -> list[bytes]:
    nodes = np.arange(len(population))
    found: list[bytes] = population.mobile_addresses(nodes, np.full(len(nodes), ordinal)).tolist()
    return found


# ---- good days -----------------------------------------------------------------------------------


def test_every_node_is_registered_before_the_load() -> None:
    with TinyIms(KEYS) as ims:
        played = registered(ims)
        assert [stored(ims, key).mobile_addresses for key in KEYS] == [
            (address,) for address in moved(played.population, 0)
        ]


def test_a_simultaneous_handover_leaves_every_node_at_its_new_address() -> None:
    with TinyIms(KEYS) as ims:
        played = registered(ims)
        heard = ims.heard
        run = played.play("handovers", plan(len(KEYS)), PATIENT)
        assert ims.heard - heard == 3 * len(KEYS)
    assert counted(run) == {
        "IMS Update": (120, 120, 0, 0),
        "HA Notify": (120, 120, 0, 0),
        "MA Query": (120, 120, 0, 0),
        "handover": (120, 120, 0, 0),
    }
    assert (run.forged, run.ledger.unexpected, run.dropped, run.unsent) == (0, 0, 0, 0)
    assert [stored(ims, key).mobile_addresses for key in KEYS] == [
        (address,) for address in moved(run.population, 1)
    ]


def test_notices_and_queries_follow_the_reply() -> None:
    with TinyIms(KEYS) as ims:
        ledger = registered(ims).play("handovers", plan(len(KEYS)), PATIENT).ledger
    sent, answered = ledger.sent.reshape(-1, 3), ledger.answered.reshape(-1, 3)
    assert (sent[:, 1:] >= answered[:, :1]).all()
    assert (answered >= sent).all()
    assert (sent[:, 0] >= ledger.plan.starts).all()


def test_queries_alone_ask_for_what_is_registered() -> None:
    with TinyIms(KEYS) as ims:
        played = registered(ims)
        queries = Plan(CHAINS["query"], *steady(2000.0, 0.2)(len(KEYS), random()))
        run = played.play("queries", queries, PATIENT)
    assert counted(run) == {"MA Query": (400, 400, 0, 0)}


def test_nodes_that_move_again_and_again_are_where_they_went_last() -> None:
    with TinyIms(KEYS) as ims:
        played = registered(ims)
        moves = Plan(CHAINS["update"], *steady(600.0, 0.6)(len(KEYS), random()))
        run = played.play("updates", moves, PATIENT)
        assert counted(run) == {"IMS Update": (360, 360, 0, 0)}
        assert [stored(ims, key).mobile_addresses for key in KEYS] == [
            (address,) for address in moved(played.population, 3)
        ]


def test_ipv6_servers_and_home_addresses_are_played_alike() -> None:
    keys = some_keys(20, "2001:db8::1")
    with TinyIms(keys, address=parse_address("::1")) as ims:
        run = registered(ims, keys).play("handovers", plan(20), PATIENT)
    assert counted(run)["handover"] == (20, 20, 0, 0)


def test_each_server_gets_what_concerns_its_own_home_addresses() -> None:
    keys = [*some_keys(30), *some_keys(30, "10.1.0.1")]
    keys = [Key(n, key.secret, key.home_address) for n, key in enumerate(keys, 1)]
    with TinyIms(keys[:30]) as one, TinyIms(keys[30:]) as two:
        targets = [
            Target(one.endpoint, parse_address("10.0.0.0"), 112),
            Target(two.endpoint, parse_address("10.1.0.0"), 112),
        ]
        played = Player(populate(keys, targets, None, random()), targets, sockets=2)
        played.probe()
        played.register()
        assert (len(one.store), len(two.store)) == (30, 30)
        run = played.play("queries", plan(60, "query"), PATIENT)
    assert counted(run) == {"MA Query": (60, 60, 0, 0)}


# ---- losses and retransmissions ------------------------------------------------------------------


@pytest.mark.parametrize("kth", [3, 7])
@pytest.mark.parametrize("messages", ["update", "handover"])
def test_every_kth_datagram_lost_is_reported_to_the_last_one(kth: int, messages: str) -> None:
    heard: list[int] = []

    def hears(number: int) -> bool:
        heard.append(number)
        return number % kth != 0

    with TinyIms(KEYS) as ims:
        played = registered(ims)
        ims.faults.hears = hears
        load = plan(len(KEYS), messages)
        ledger = played.play("load", load, Timing(timeout=0.05, give_up=20.0)).ledger
    dropped = sum(number % kth == 0 for number in heard)
    assert dropped >= len(KEYS) // kth
    assert ledger.transmissions == len(heard)
    assert ledger.heard == len(heard) - dropped
    about = main(ledger)
    assert about.repeated == len(heard) - int(np.count_nonzero(~np.isnan(ledger.sent)))
    # A notice has four attempts, which may all be dropped; an update has no end of them.
    assert about.done + about.lost == len(KEYS)
    assert messages == "handover" or (about.lost, about.repeated) == (0, dropped)


def test_a_server_that_is_silent_at_first_gets_everything_again_and_loses_nothing() -> None:
    with TinyIms(KEYS, Faults(silent=0.0)) as ims:
        played = registered(ims)
        ims.faults.silent = time.monotonic() - ims.since + 0.5
        run = played.play("handovers", plan(len(KEYS)), Timing(timeout=0.1, give_up=10.0))
    begun, done, lost, repeated = counted(run)["IMS Update"]
    assert (begun, done, lost) == (120, 120, 0)
    assert repeated >= 120
    assert counted(run)["handover"][:3] == (120, 120, 0)


def test_a_silent_server_loses_all_for_good_and_nothing_else_is_begun() -> None:
    with TinyIms(KEYS) as ims:
        played = registered(ims)
        ims.faults.hears = lambda _: False
        run = played.play("handovers", plan(len(KEYS)), Timing(timeout=0.05, give_up=0.6))
    assert counted(run)["handover"][:3] == (120, 0, 120)
    assert counted(run)["HA Notify"] == (0, 0, 0, 0)
    # After 0.05 s, 0.15 s and 0.35 s; perhaps after 0.75 s.
    assert set(run.ledger.attempts[::3].tolist()) <= {4, 5}


def test_a_query_has_its_attempts_and_no_more() -> None:
    with TinyIms(KEYS) as ims:
        played = registered(ims)
        ims.faults.hears = lambda _: False
        run = played.play("queries", plan(30, "query"), Timing(timeout=0.01, give_up=20.0))
    assert counted(run) == {"MA Query": (30, 0, 30, 4 * 30)}


def test_a_repetition_comes_from_where_the_request_came_from() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ims:
        ims.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        ims.bind(("127.0.0.1", 0))
        ims.setblocking(False)
        target = Target(Endpoint(parse_address("127.0.0.1"), ims.getsockname()[1]))
        played = Player(populate(KEYS, [target], None, random()), [target], sockets=4)
        run = played.play("queries", plan(len(KEYS), "query"), Timing(timeout=0.05, give_up=0.2))
        ports: dict[bytes, set[int]] = {}
        with contextlib.suppress(BlockingIOError):
            while True:
                query, (_, port) = ims.recvfrom(2048)
                ports.setdefault(query[4:8], set()).add(port)
    assert main(run.ledger).repeated >= 120
    assert len(ports) == 120
    assert all(len(of_request) == 1 for of_request in ports.values())
    assert len(set.union(*ports.values())) > 1, "and the requests share the ports"


def test_repeated_updates_are_fresher_and_keep_their_version() -> None:
    with TinyIms(KEYS) as ims:
        played = registered(ims)
        first = ims.heard + len(KEYS)
        ims.faults.hears = lambda number: number > first
        moves = Plan(CHAINS["update"], *at_once(len(KEYS), random()))
        run = played.play("updates", moves, QUICK)
        versions = dict(zip(moves.nodes.tolist(), run.ledger.versions.tolist(), strict=True))
        for node, key in enumerate(KEYS):
            assert stored(ims, key).version == versions[node] < stored(ims, key).freshness
    assert counted(run) == {"IMS Update": (120, 120, 0, 120)}


def test_answers_that_come_twice_count_once() -> None:
    with TinyIms(KEYS) as ims:
        played = registered(ims)
        ims.faults.times = 2
        run = played.play("handovers", plan(len(KEYS)), PATIENT)
    assert counted(run)["handover"] == (120, 120, 0, 0)
    # What came after the last one was done is not waited for.
    assert 0.9 * 360 <= len(run.ledger.noted(Note.LATE).times) <= 360


def test_a_slow_server_does_not_slow_the_load_down() -> None:
    with TinyIms(KEYS) as ims:
        played = registered(ims)
        ims.faults.slow = 0.05
        queries = Plan(CHAINS["query"], *steady(400.0, 0.5)(len(KEYS), random()))
        run = played.play("queries", queries, Timing(timeout=30.0, give_up=0.5))
    begun, done, lost, repeated = counted(run)["MA Query"]
    assert (begun, repeated) == (200, 0)
    assert done < 60, "it has 50 ms for each"
    assert lost == 200 - done


def test_what_its_node_has_left_behind_is_superseded() -> None:
    with TinyIms(KEYS[:2]) as ims:
        played = registered(ims, KEYS[:2])
        silent = ims.heard + 2
        ims.faults.hears = lambda number: number > silent
        moves = Plan(CHAINS["handover"], np.array([0, 1, 0]), np.array([0.0, 0.0, 0.1]))
        run = played.play("handovers", moves, Timing(timeout=0.3, give_up=5.0))
        assert [stored(ims, key).mobile_addresses for key in KEYS[:2]] == [
            (moved(run.population, ordinal)[node],) for node, ordinal in enumerate((2, 1))
        ]
    assert main(run.ledger).superseded == 1
    assert run.ledger.fates[:3].tolist() == [Fate.SUPERSEDED] * 3
    assert main(run.ledger).done == 2


# ---- false answers -------------------------------------------------------------------------------


def wrong_nonce(datagram: bytes) -> bytes:
    message = decode(datagram)
    assert isinstance(message, ImsUpdateReply | MaAnswer)
    return datagram.replace(message.nonce, bytes(8))


def test_answers_with_a_wrong_nonce_are_no_answers() -> None:
    with TinyIms(KEYS) as ims:
        played = registered(ims)
        before = ims.heard
        ims.faults.says = wrong_nonce
        run = played.play("queries", plan(len(KEYS), "query"), Timing(timeout=30.0, give_up=0.5))
        assert run.ledger.unexpected == ims.heard - before == 120
    assert counted(run) == {"MA Query": (120, 0, 120, 0)}


def forged(datagram: bytes) -> bytes:
    if not isinstance(decode(datagram), ImsUpdateReply):
        return datagram
    return datagram[:-1] + bytes((datagram[-1] ^ 1,))


def test_a_handover_whose_reply_was_forged_does_not_count() -> None:
    turn = itertools.count()

    def some_forged(datagram: bytes) -> bytes:
        is_reply = isinstance(decode(datagram), ImsUpdateReply)
        return forged(datagram) if is_reply and next(turn) % 10 == 0 else datagram

    with TinyIms(KEYS) as ims:
        played = registered(ims)
        ims.faults.says = some_forged
        run = played.play("handovers", plan(len(KEYS)), PATIENT)
    assert run.forged == 12
    assert counted(run)["IMS Update"] == (120, 108, 0, 0)
    assert counted(run)["handover"] == (120, 108, 0, 0)
    assert main(run.ledger).refused == 12


def test_a_registration_with_forged_replies_is_an_error() -> None:
    with TinyIms(KEYS, Faults(says=forged)) as ims:
        what = "120 of 120 nodes could not be registered: the MAC of the Reply is wrong"
        with pytest.raises(LoadError, match=what):
            player(KEYS, ims).register()


def with_other_key(datagram: bytes) -> bytes:
    reply = decode(datagram)
    assert isinstance(reply, ImsUpdateReply)
    assert reply.authentication is not None
    key = dataclasses.replace(KEYS[0], key_id=reply.authentication.key_id + 1)
    sign(reply, key, reply.authentication.freshness)
    return encode(reply)


def with_old_freshness(datagram: bytes) -> bytes:
    reply = decode(datagram)
    assert isinstance(reply, ImsUpdateReply)
    assert reply.authentication is not None
    key = KEYS[reply.authentication.key_id - 1]
    sign(reply, key, reply.authentication.freshness - 1)
    return encode(reply)


@pytest.mark.parametrize("says", [with_other_key, with_old_freshness])
def test_a_reply_with_another_key_or_freshness_is_not_believed(
    says: Callable[[bytes], bytes],
) -> None:
    with TinyIms(KEYS) as ims:
        played = registered(ims)
        ims.faults.says = says
        run = played.play("updates", plan(len(KEYS), "update"), Timing(timeout=30.0, give_up=0.5))
    assert counted(run) == {"IMS Update": (120, 0, 120, 0)}
    assert len(run.ledger.noted(Note.WRONG).times) == 120


def changed(datagram: bytes, **fields: object) -> bytes:
    """A mapping answer with other fields; others as they are."""
    message = decode(datagram)
    if not isinstance(message, MaAnswer):
        return datagram
    for name, value in fields.items():
        setattr(message, name, value)
    message.wire = None
    return encode(message)


def test_an_answer_with_an_older_mapping_than_notified_is_told_apart() -> None:
    with TinyIms(KEYS) as ims:
        played = registered(ims)
        ims.faults.says = lambda datagram: changed(datagram, version=1 << 32)
        run = played.play("handovers", plan(len(KEYS)), Timing(timeout=30.0, give_up=0.5))
    assert len(run.ledger.noted(Note.OUTDATED).times) == 120
    assert counted(run)["MA Query"] == (120, 0, 120, 0)
    assert counted(run)["HA Notify"] == (120, 120, 0, 0)


def without_version(datagram: bytes) -> bytes:
    return datagram[:-16] if isinstance(decode(datagram), MaAnswer) else datagram


def test_an_answer_without_a_version_counts_by_its_timestamp() -> None:
    with TinyIms(KEYS) as ims:
        played = registered(ims)
        ims.faults.says = without_version
        asked = played.play("queries", plan(len(KEYS), "query"), PATIENT)
        moved_on = played.play("handovers", plan(len(KEYS)), Timing(timeout=30.0, give_up=0.5))
    assert counted(asked) == {"MA Query": (120, 120, 0, 0)}
    assert len(moved_on.ledger.noted(Note.OUTDATED).times) == 120, "of the second, not the version"


def test_an_answer_about_somebody_else_is_no_answer() -> None:
    with TinyIms(KEYS) as ims:
        played = registered(ims)
        other = parse_address("10.200.0.1")
        ims.faults.says = lambda datagram: changed(datagram, home_address=other)
        run = played.play("queries", plan(len(KEYS), "query"), Timing(timeout=30.0, give_up=0.5))
    assert len(run.ledger.noted(Note.WRONG).times) == 120
    assert counted(run)["MA Query"] == (120, 0, 120, 0)


def received(volley: Volley) -> int:
    end = time.monotonic() + 5.0
    while not (count := volley.receive()) and time.monotonic() < end:
        time.sleep(0.001)
    return count


def test_a_datagram_cut_short_is_not_read_on_in_what_lay_there_before() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ims:
        ims.bind(("127.0.0.1", 0))
        volley = Volley([Endpoint(parse_address("127.0.0.1"), ims.getsockname()[1])], 1)
        try:
            ledger = Ledger(Plan((Kind.QUERY,), np.zeros(1, np.intp), np.zeros(1)), random())
            sequence, nonce = ledger.sequences(np.zeros(1, np.intp)), ledger.nonces[:1]
            rows = queries(sequence, nonce, np.zeros(1, "V16"))
            volley.send(0, rows, np.zeros(1, np.intp))
            query, client = ims.recvfrom(2048)
            true = echo.answer(query)
            for datagram, matched in ((true, 1), (true[:8], 0), (true[:59], 0)):
                ims.sendto(datagram, client)
                assert received(volley) == 1
                assert len(match(volley, 1, ledger).requests) == matched
        finally:
            volley.close()
    assert ledger.unexpected == 2


def garbled(datagram: bytes) -> Iterator[bytes]:
    yield b""
    yield datagram[:3]
    yield datagram[:20]
    yield datagram[:-4]
    yield datagram + bytes(300)
    yield bytes((5,)) + datagram[1:]
    yield datagram[:3] + b"\xff" + datagram[4:]
    # An answer with thirteen addresses, and its nonce at the very end of what is read.
    nonce = datagram[datagram.index(bytes((1, 3, 0, 0))) :][:12]
    yield datagram[:3] + bytes((60,)) + datagram[4:24] + bytes(216) + nonce + bytes(4)


@pytest.mark.parametrize("form", range(8))
@pytest.mark.parametrize("messages", ["update", "query"])
def test_garbage_is_counted_and_stops_nothing(form: int, messages: str) -> None:
    with TinyIms(KEYS) as ims:
        played = registered(ims)
        ims.faults.says = lambda datagram: list(garbled(datagram))[form]
        load = plan(len(KEYS), messages)
        ledger = played.play("load", load, Timing(timeout=30.0, give_up=0.4)).ledger
    if (form, messages) == (4, "query"):
        # An answer is read to its end; what follows it is not looked at.
        assert main(ledger).done == 120
        return
    assert (main(ledger).begun, main(ledger).done) == (120, 0)
    assert ledger.unexpected + len(ledger.noted(Note.WRONG).times) == 120


# ---- refusals ------------------------------------------------------------------------------------


def test_nodes_that_nobody_registered_are_unknown_by_code_2() -> None:
    with TinyIms(KEYS) as ims:
        run = player(KEYS, ims).play("queries", plan(len(KEYS), "query"), PATIENT)
    assert codes(run.ledger) == {Kind.QUERY: {2: 120}}
    assert main(run.ledger).refused == 120
    assert counted(run) == {"MA Query": (120, 0, 0, 0)}


def test_a_server_that_has_seen_greater_freshness_costs_one_exchange() -> None:
    with TinyIms(KEYS) as ims:
        played = player(KEYS, ims)
        ahead = int(time.time() + 3600) << 32
        for key in KEYS:
            ims.store.write(Registration(key.home_address, 128, (), ahead, ahead, 0.0, 0))
        registration = played.register()
        assert codes(registration.ledger) == {Kind.UPDATE: {3: 120}}
        assert counted(registration) == {"IMS Update": (120, 120, 0, 120)}
        run = played.play("handovers", plan(len(KEYS)), PATIENT)
        assert counted(run)["handover"] == (120, 120, 0, 0), "and no more than one"
        assert all(stored(ims, key).freshness > ahead for key in KEYS)


def test_updates_in_hand_are_renewed_when_freshness_has_moved_on() -> None:
    with TinyIms(KEYS) as ims:
        played = registered(ims)
        moves = Plan(CHAINS["handover"], *steady(600.0, 0.4)(len(KEYS), random()))
        ahead = int(time.time() + 3600) << 32
        for key in KEYS:
            ims.store.write(Registration(key.home_address, 128, (), ahead, ahead, 0.0, 0))
        run = played.play("handovers", moves, PATIENT)
    assert codes(run.ledger)[Kind.UPDATE] == {3: 120}, "the second time round it is known"
    assert main(run.ledger).done == 240


def test_keys_that_the_server_does_not_know_are_an_error_that_says_so() -> None:
    others = some_keys(5)
    what = "5 of 5 nodes could not be registered: code 1, it does not know these keys"
    with TinyIms(KEYS) as ims:
        played = player(others, ims)
        played.probe()
        with pytest.raises(LoadError, match=what):
            played.register()
        assert ims.heard <= 1 + 3 * 5, "and does not ask for half a minute"


# ---- is it an IMS? -------------------------------------------------------------------------------


def test_a_server_that_does_not_hold_the_home_addresses_is_an_error_before_the_load() -> None:
    with TinyIms(KEYS) as ims:
        what = r"does not hold the mapping of 10\.7\.0\.1 \(code 4\); give the address of the IMS"
        with pytest.raises(LoadError, match=what):
            player(some_keys(3, "10.7.0.1"), ims).probe()


def test_nobody_at_the_port_is_an_error_before_the_load() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    target = Target(Endpoint(parse_address("127.0.0.1"), port))
    played = Player(populate(KEYS, [target], None, random()), [target])
    with pytest.raises(LoadError, match=f"nobody listens at 127.0.0.1:{port}"):
        played.probe()


def test_silence_is_an_error_before_the_load() -> None:
    what = r"no answer from .* within 5 s; is it an IMS"
    with TinyIms(KEYS, Faults(hears=lambda _: False)) as ims, pytest.raises(LoadError, match=what):
        player(KEYS, ims).probe()


def test_a_probe_is_content_with_an_ims_that_knows_nobody_yet() -> None:
    with TinyIms(KEYS) as ims:
        player(KEYS, ims).probe()


# ---- the end -------------------------------------------------------------------------------------


def test_a_run_that_is_stopped_keeps_what_it_has() -> None:
    with TinyIms(KEYS) as ims:
        played = registered(ims)
        queries = Plan(CHAINS["query"], *steady(200.0, 30.0)(len(KEYS), random()))
        seen: list[int] = []
        short = Player(
            played.population,
            played.targets,
            stopped=lambda: bool(seen),
            report=lambda ledger, _: seen.append(ledger.begun),
        )
        run = short.play("queries", queries, PATIENT)
    about: Measured = main(run.ledger)
    assert run.interrupted
    assert seen[0] <= about.begun < 6000
    assert about.done + about.lost == about.begun
    assert about.done > 0


def test_progress_is_reported_with_what_has_begun() -> None:
    told: list[tuple[int, float]] = []

    def report(ledger: Ledger, now: float) -> None:
        told.append((ledger.begun, now))

    with TinyIms(KEYS) as ims:
        played = registered(ims)
        queries = Plan(CHAINS["query"], *steady(200.0, 0.8)(len(KEYS), random()))
        Player(played.population, played.targets, report=report).play("queries", queries, QUICK)
    assert told
    assert told == sorted(told)
    assert all(0 < begun <= 160 for begun, _ in told)


def test_secrets_and_addresses_of_the_population_are_its_keys() -> None:
    population = populate(KEYS, [Target(Endpoint(Address(bytes(16)), 1))], 3, random())
    assert population.secrets(np.array([2, 0])) == [KEYS[2].secret, KEYS[0].secret]


def test_a_repetition_leaves_from_the_port_of_what_it_repeats() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ims:
        ims.bind(("127.0.0.1", 0))
        ims.settimeout(5)
        volley = Volley([Endpoint(parse_address("127.0.0.1"), ims.getsockname()[1])], 4)
        try:
            count = 200
            ledger = Ledger(Plan((Kind.QUERY,), np.arange(count), np.zeros(count)), random())
            requests = np.arange(count)
            rows = queries(ledger.sequences(requests), ledger.nonces, np.zeros(count, "V16"))
            turns = requests // 8
            ports: list[dict[bytes, int]] = []
            # Once all in order, once every third, from the end.
            for which in (requests, requests[::-3]):
                volley.send(0, rows[which], turns[which])
                arrived = [ims.recvfrom(2048) for _ in which]
                ports.append({datagram: port for datagram, (_, port) in arrived})
        finally:
            volley.close()
    first, again = ports
    assert set(first.values()) == set(again.values())
    assert len(set(first.values())) == 4
    assert again == {datagram: first[datagram] for datagram in again}
