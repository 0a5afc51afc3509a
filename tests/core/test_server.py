"""The IMS machine: updates it takes and refuses, queries, and notices that it follows up."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypeVar

import pytest

from mat.address import Address, format_address, parse_address
from mat.authentication import Key, is_authentic, sign
from mat.codec import Malformed, decode, encode
from mat.effects import (
    Effect,
    Event,
    EventKind,
    Lookup,
    NotFound,
    ReadByHome,
    ReadByMobile,
    Send,
    StoreWrite,
)
from mat.mapping_table import Servers
from mat.messages import (
    AMPLIFICATION_LIMIT,
    EXACT,
    MAT_PORT,
    MAX_MOBILE_ADDRESSES,
    MOST_FRESHNESS,
    Code,
    Endpoint,
    HaAnswer,
    HaNotify,
    HaNotifyAck,
    HaQuery,
    ImsUpdate,
    ImsUpdateReply,
    MaAnswer,
    MaQuery,
    Message,
)
from mat.parameters import DEFAULTS, Parameters
from mat.registrations import Outcome, Registration, RegistrationTable
from mat.states import RegistrationState
from tests.core.test_figures import separate
from tests.core.world import World

ASKER = Endpoint(parse_address("203.0.113.5"), MAT_PORT)
REMOTE = (
    Endpoint(parse_address("192.0.2.8"), MAT_PORT),
    Endpoint(parse_address("192.0.2.9"), MAT_PORT),
)
HOME, PEER = parse_address("10.1.0.1"), parse_address("10.1.0.2")
FOREIGN, ELSEWHERE = parse_address("10.9.0.1"), parse_address("198.51.100.99")
NONCE = bytes(range(8))
FRESH = 1 << 40

Wanted = TypeVar("Wanted", bound=Message)


def ims(**overrides: float) -> World:
    """One IMS for two nodes and a mobile router, none of which does anything by itself."""
    world = World(parameters=Parameters.with_overrides(overrides))
    world.add_server("IMS", "192.0.2.1", "10.1.0.0/16")
    world.add_host("MN", "10.1.0.1", "IMS")
    world.add_host("CN", "10.1.0.2", "IMS")
    world.add_host("R", "10.1.4.0/24", "IMS")
    world.now = 1000.0
    return world


def parsed(*addresses: str) -> tuple[Address, ...]:
    return tuple(parse_address(address) for address in addresses)


def update(
    key: Key,
    addresses: Sequence[Address],
    freshness: int = FRESH,
    *,
    version: int = 0,
    lifetime: int = 60,
    home: Address | None = None,
    prefix_length: int | None = None,
) -> ImsUpdate:
    message = ImsUpdate(
        77,
        key.home_address if home is None else home,
        tuple(addresses),
        version or freshness,
        lifetime,
        key.prefix_length if prefix_length is None else prefix_length,
        nonce=NONCE,
    )
    sign(message, key, freshness)
    return message


def ask(world: World, message: Message, source: Endpoint = ASKER) -> list[Effect]:
    """What the IMS sends and counts when the datagram of a message comes in."""
    decoded = decode(encode(message))
    assert not isinstance(decoded, Malformed)
    return carried_out(world, world.servers["IMS"].machine.receive(world.now, decoded, source))


def carried_out(world: World, effects: Iterable[Effect]) -> list[Effect]:
    """Effects without those of the store, which are carried out, and with what follows of them."""
    server, left = world.servers["IMS"], list[Effect]()
    machine, store, up = server.machine, server.store, server.store_up
    for effect in effects:
        match effect:
            case StoreWrite():
                result = store.write(effect.registration) if up else (Outcome.UNAVAILABLE, 0)
                left += carried_out(world, machine.written(world.now, effect, *result))
            case ReadByHome():
                found = store.by_home(effect.home_address) if up else Outcome.UNAVAILABLE
                left += carried_out(world, machine.read(world.now, effect, found))
            case ReadByMobile():
                claim = store.by_mobile(effect.mobile_address) if up else Outcome.UNAVAILABLE
                left += carried_out(world, machine.read(world.now, effect, claim))
            case _:
                left.append(effect)
    return left


def sent(effects: Iterable[Effect], kind: type[Wanted]) -> list[Wanted]:
    """The messages of one type among the effects, after they crossed the wire."""
    messages = [decode(encode(effect.message)) for effect in effects if isinstance(effect, Send)]
    return [message for message in messages if isinstance(message, kind)]


def only(effects: Iterable[Effect], kind: type[Wanted]) -> Wanted:
    (message,) = sent(effects, kind)
    return message


def events(effects: Iterable[Effect]) -> list[EventKind]:
    return [effect.kind for effect in effects if isinstance(effect, Event)]


def lookups(effects: Iterable[Effect]) -> list[Address]:
    return [effect.home_address for effect in effects if isinstance(effect, Lookup)]


def register(world: World, name: str, *addresses: str, freshness: int = FRESH) -> Registration:
    """The mapping of a node, stored at the IMS."""
    key = world.hosts[name].key
    reply = only(ask(world, update(key, parsed(*addresses), freshness)), ImsUpdateReply)
    assert reply.code == Code.SUCCEEDED
    stored = world.servers["IMS"].store.by_home(key.home_address)
    assert stored is not None
    return stored


# ---- IMS Update: authentication ----------------------------------------------------------------


def unsigned(message: ImsUpdate) -> ImsUpdate:
    message.authentication = message.wire = None
    return message


def damaged(message: ImsUpdate, at: int) -> ImsUpdate:
    wire = bytearray(encode(message))
    wire[at] ^= 1
    broken = decode(bytes(wire))
    assert isinstance(broken, ImsUpdate)
    return broken


@pytest.mark.parametrize(
    "how", ["unsigned", "wrong key", "unknown key", "sequence", "lifetime", "freshness", "mac"]
)
def test_update_that_is_not_authentic_gets_an_unsigned_code_1_and_is_not_stored(how: str) -> None:
    world = ims()
    key = world.hosts["MN"].key
    good = update(key, [ELSEWHERE])
    size = len(encode(good))
    forged = {
        "unsigned": lambda: unsigned(good),
        "wrong key": lambda: update(Key(key.key_id, b"another secret, as long", HOME), [ELSEWHERE]),
        "unknown key": lambda: update(Key(999, key.secret, HOME), [ELSEWHERE]),
        "sequence": lambda: damaged(good, 7),
        "lifetime": lambda: damaged(good, 8 + 16 + 16 + 7),
        "freshness": lambda: damaged(update(key, [ELSEWHERE], version=FRESH - 1), size + 16 - 17),
        "mac": lambda: damaged(good, size - 1),
    }[how]()
    effects = ask(world, forged)
    reply = only(effects, ImsUpdateReply)
    assert (reply.code, reply.authentication) == (Code.AUTHENTICATION_FAILED, None)
    assert (reply.sequence, reply.nonce) == (forged.sequence, NONCE)
    assert events(effects) == [EventKind.UNAUTHENTIC]
    assert len(world.servers["IMS"].store) == 0


def test_update_whose_mac_is_cut_short_is_no_message() -> None:
    wire = encode(update(ims().hosts["MN"].key, [ELSEWHERE]))
    shorter = bytearray(wire[:-4])
    assert decode(bytes(shorter)) is Malformed.EXTENSION
    shorter[len(wire) - 31] = 7
    assert decode(bytes(shorter)) is Malformed.EXTENSION


def test_reply_copies_sequence_and_nonce_and_is_authentic() -> None:
    world = ims()
    key = world.hosts["MN"].key
    reply = only(ask(world, update(key, [ELSEWHERE])), ImsUpdateReply)
    assert (reply.sequence, reply.code, reply.nonce) == (77, Code.SUCCEEDED, NONCE)
    assert is_authentic(reply, key)
    assert reply.authentication is not None
    assert reply.authentication.freshness == FRESH


# ---- IMS Update: what is acceptable ------------------------------------------------------------


@pytest.mark.parametrize(
    ("home", "length"),
    [("10.1.0.2", EXACT), ("10.1.0.0", 120), ("10.9.0.1", EXACT), ("10.1.4.0", EXACT)],
)
def test_key_registers_only_its_own_home_address_or_prefix(home: str, length: int) -> None:
    world = ims()
    key = world.hosts["MN"].key
    moved = parsed("198.51.100.0")
    effects = ask(world, update(key, moved, home=parse_address(home), prefix_length=length))
    reply = only(effects, ImsUpdateReply)
    assert reply.code == Code.NOT_RESPONSIBLE
    assert is_authentic(reply, key)
    assert events(effects) == [EventKind.REFUSED]
    assert len(world.servers["IMS"].store) == 0


def test_key_of_a_prefix_does_not_register_a_host_of_it() -> None:
    world = ims()
    key = world.hosts["R"].key
    host = update(key, [ELSEWHERE], home=parse_address("10.1.4.0"), prefix_length=EXACT)
    assert only(ask(world, host), ImsUpdateReply).code == Code.NOT_RESPONSIBLE
    wider = update(key, parsed("198.51.0.0"), home=parse_address("10.1.0.0"), prefix_length=112)
    assert only(ask(world, wider), ImsUpdateReply).code == Code.NOT_RESPONSIBLE
    assert len(world.servers["IMS"].store) == 0


def test_valid_key_of_a_home_that_this_ims_does_not_serve_is_refused() -> None:
    world = ims()
    foreign = world.add_host("foreign", "10.9.0.1", "IMS")
    reply = only(ask(world, update(foreign.key, [ELSEWHERE])), ImsUpdateReply)
    assert reply.code == Code.NOT_RESPONSIBLE
    assert len(world.servers["IMS"].store) == 0


@pytest.mark.parametrize(
    "addresses",
    [
        ["224.0.0.5"],
        ["127.0.0.1"],
        ["0.0.0.0"],
        ["255.255.255.255"],
        ["::"],
        ["::1"],
        ["ff02::1"],
        ["2001:db8::1"],
        ["198.51.100.1", "2001:db8::1"],
        ["198.51.100.1", "198.51.100.2", "198.51.100.1"],
    ],
    ids=" ".join,
)
def test_address_that_no_host_can_have_is_unacceptable(addresses: list[str]) -> None:
    world = ims()
    key = world.hosts["MN"].key
    reply = only(ask(world, update(key, parsed(*addresses))), ImsUpdateReply)
    assert reply.code == Code.UNACCEPTABLE
    assert is_authentic(reply, key)
    assert len(world.servers["IMS"].store) == 0


@pytest.mark.parametrize("address", ["ff02::1", "::1", "::", "198.51.100.1"])
def test_the_same_of_a_home_address_of_ipv6(address: str) -> None:
    world = World()
    world.add_server("IMS", "2001:db8::1", "2001:db8:1::/48")
    key = world.add_host("MN", "2001:db8:1::1", "IMS").key
    assert only(ask(world, update(key, parsed(address))), ImsUpdateReply).code == Code.UNACCEPTABLE
    good = update(key, parsed("2001:db8:a::1"))
    assert only(ask(world, good), ImsUpdateReply).code == Code.SUCCEEDED


def test_mapping_holds_eight_addresses_and_nine_are_no_message() -> None:
    world = ims()
    key = world.hosts["MN"].key
    nine = parsed(*(f"198.51.100.{n}" for n in range(1, MAX_MOBILE_ADDRESSES + 2)))
    assert decode(encode(update(key, nine))) is Malformed.ADDRESSES
    assert only(ask(world, update(key, nine[:-1])), ImsUpdateReply).code == Code.SUCCEEDED
    stored = world.servers["IMS"].store.by_home(HOME)
    assert stored is not None
    assert stored.mobile_addresses == nine[:-1]


@pytest.mark.parametrize(
    ("version", "freshness", "code"),
    [
        (FRESH, FRESH, Code.SUCCEEDED),
        (FRESH - 1, FRESH, Code.SUCCEEDED),
        (FRESH + 1, FRESH, Code.UNACCEPTABLE),
        (MOST_FRESHNESS - 1, MOST_FRESHNESS - 1, Code.SUCCEEDED),
        (FRESH, MOST_FRESHNESS, Code.UNACCEPTABLE),
    ],
)
def test_version_is_not_above_freshness_nor_freshness_near_its_end(
    version: int, freshness: int, code: Code
) -> None:
    world = ims()
    message = update(world.hosts["MN"].key, [ELSEWHERE], freshness, version=version)
    assert only(ask(world, message), ImsUpdateReply).code == code
    assert len(world.servers["IMS"].store) == (code is Code.SUCCEEDED)


# ---- IMS Update: freshness ---------------------------------------------------------------------


def test_replayed_older_update_is_stale_and_the_reply_says_what_is_stored() -> None:
    world = ims()
    key = world.hosts["MN"].key
    old = update(key, parsed("198.51.100.1"), FRESH)
    ask(world, old)
    register(world, "MN", "198.51.100.2", freshness=FRESH + 5)
    effects = ask(world, old)
    reply = only(effects, ImsUpdateReply)
    assert reply.code == Code.STALE
    assert is_authentic(reply, key)
    assert reply.authentication is not None
    assert reply.authentication.freshness == FRESH + 5
    assert events(effects) == [EventKind.STALE]
    stored = world.servers["IMS"].store.by_home(HOME)
    assert stored is not None
    assert stored.mobile_addresses == parsed("198.51.100.2")


def test_the_same_update_again_is_answered_again_and_not_applied_again() -> None:
    world = ims()
    message = update(world.hosts["MN"].key, [ELSEWHERE])
    first = only(ask(world, message), ImsUpdateReply)
    world.now += 30.0
    again = only(ask(world, message), ImsUpdateReply)
    assert again == first
    stored = world.servers["IMS"].store.by_home(HOME)
    assert stored is not None
    assert stored.registered_at == 1000.0


def test_refresh_of_the_same_version_is_applied() -> None:
    world = ims()
    register(world, "MN", "198.51.100.1")
    world.now += 30.0
    key = world.hosts["MN"].key
    ask(world, update(key, parsed("198.51.100.1"), FRESH + 9, version=FRESH))
    stored = world.servers["IMS"].store.by_home(HOME)
    assert stored is not None
    assert (stored.registered_at, stored.version, stored.freshness) == (1030.0, FRESH, FRESH + 9)


def test_overtaken_transmission_of_the_same_mapping_is_a_success() -> None:
    world = ims()
    key = world.hosts["MN"].key
    ask(world, update(key, [ELSEWHERE], FRESH + 5, version=FRESH))
    reply = only(ask(world, update(key, [ELSEWHERE], FRESH)), ImsUpdateReply)
    assert reply.code == Code.SUCCEEDED
    assert reply.authentication is not None
    assert reply.authentication.freshness == FRESH


@pytest.mark.parametrize(("asked", "granted"), [(60, 60), (600, 600), (601, 600), (1 << 31, 600)])
def test_lifetime_is_at_most_the_maximum(asked: int, granted: int) -> None:
    world = ims()
    ask(world, update(world.hosts["MN"].key, [ELSEWHERE], lifetime=asked))
    stored = world.servers["IMS"].store.by_home(HOME)
    assert stored is not None
    assert stored.lifetime == granted == min(asked, DEFAULTS.maximum_lifetime)


@pytest.mark.parametrize(("addresses", "lifetime"), [((), 60), ((ELSEWHERE,), 0)])
def test_withdrawal_ends_the_mapping_and_still_guards_freshness(
    addresses: tuple[Address, ...], lifetime: int
) -> None:
    world = ims()
    key = world.hosts["MN"].key
    register(world, "MN", "198.51.100.99")
    withdrawal = update(key, addresses, FRESH + 1, lifetime=lifetime)
    assert only(ask(world, withdrawal), ImsUpdateReply).code == Code.SUCCEEDED
    assert world.servers["IMS"].store.by_mobile(ELSEWHERE) is None
    answer = only(ask(world, MaQuery(1, HOME, nonce=NONCE)), MaAnswer)
    assert (answer.code, answer.mobile_addresses) == (Code.NO_MAPPING, ())
    claim = only(ask(world, HaQuery(1, ELSEWHERE, nonce=NONCE)), HaAnswer)
    assert claim.code == Code.NO_MAPPING
    replayed = only(ask(world, update(key, [ELSEWHERE], FRESH)), ImsUpdateReply)
    assert replayed.code == Code.STALE


def test_store_that_lost_everything_refuses_recordings_by_its_floor_and_the_node_moves_past() -> (
    None
):
    world = separate()
    server, host = world.servers["IMS_MN"], world.hosts["MN"]
    recorded = server.store.by_home(HOME)
    assert recorded is not None
    floor = recorded.freshness + (1 << 42)
    server.store = RegistrationTable(floor=floor)
    assert server.store.write(recorded) == (Outcome.STALE, floor)
    world.run(DEFAULTS.registration_lifetime * DEFAULTS.refresh_share + 1.0)
    assert world.events[EventKind.RESYNCHRONISED] == 1
    assert host.machine.registration_state is RegistrationState.REGISTERED
    stored = server.store.by_home(HOME)
    assert stored is not None
    assert stored.mobile_addresses == host.machine.addresses
    assert stored.freshness > floor


# ---- MA Query ----------------------------------------------------------------------------------


def test_query_gets_the_mapping_with_what_remains_of_its_life_and_its_age() -> None:
    world = ims()
    register(world, "MN", "198.51.100.1", "198.51.100.2")
    world.now += 10.5
    answer = only(ask(world, MaQuery(9, HOME, nonce=NONCE)), MaAnswer)
    assert (answer.sequence, answer.code, answer.nonce) == (9, Code.SUCCEEDED, NONCE)
    assert answer.mobile_addresses == parsed("198.51.100.1", "198.51.100.2")
    assert (answer.version, answer.lifetime, answer.age) == (FRESH, 49, 10_500)


def test_mapping_is_gone_when_its_lifetime_is_over() -> None:
    world = ims()
    register(world, "MN", "198.51.100.1")
    for later, code in ((59.9, Code.SUCCEEDED), (0.2, Code.NO_MAPPING)):
        world.now += later
        for query in (MaQuery(1, HOME, nonce=NONCE), MaQuery(1, HOME)):
            assert only(ask(world, query), MaAnswer).code == code
        claim = only(ask(world, HaQuery(1, parse_address("198.51.100.1"), nonce=NONCE)), HaAnswer)
        assert claim.code == code


def test_query_for_a_home_of_another_ims_is_not_its_responsibility() -> None:
    answer = only(ask(ims(), MaQuery(1, FOREIGN, nonce=NONCE)), MaAnswer)
    assert (answer.code, answer.home_address) == (Code.NOT_RESPONSIBLE, FOREIGN)


@pytest.mark.parametrize("draft_length", [False, True])
@pytest.mark.parametrize("count", range(MAX_MOBILE_ADDRESSES + 1))
def test_answer_to_a_draft_query_has_no_extensions_and_keeps_to_the_size_limit(
    count: int, draft_length: bool
) -> None:
    world = ims()
    register(world, "MN", *(f"198.51.100.{n + 1}" for n in range(count)))
    query = MaQuery(1, HOME, draft_length=draft_length)
    answer = only(ask(world, query), MaAnswer)
    wire = encode(answer)
    assert (wire[2], answer.nonce, answer.draft_length) == (0, b"", draft_length)
    assert answer.code == (Code.SUCCEEDED if count else Code.NO_MAPPING)
    assert len(answer.mobile_addresses) == min(count, 3)
    assert len(wire) <= AMPLIFICATION_LIMIT * len(encode(query))


@pytest.mark.parametrize("name", ["MN", "R"])
def test_padded_query_gets_all_addresses_and_one_cut_short_what_fits(name: str) -> None:
    world = ims()
    register(world, name, *(f"198.51.{n}.0" for n in range(1, 9)))
    query = encode(MaQuery(1, world.hosts[name].key.home_address, nonce=NONCE))
    bare = bytearray(query[:40])
    for wire, most in ((query, 8), (bytes(bare), 3)):
        asked = decode(wire)
        assert isinstance(asked, MaQuery)
        answer = only(ask(world, asked), MaAnswer)
        assert len(answer.mobile_addresses) == most
        assert len(encode(answer)) <= AMPLIFICATION_LIMIT * len(wire)


def test_host_behind_a_mobile_router_has_the_routers_mapping() -> None:
    world = ims()
    register(world, "R", "198.51.100.0")
    host = parse_address("10.1.4.77")
    whole = only(ask(world, MaQuery(1, host, nonce=NONCE)), MaAnswer)
    assert (whole.home_address, whole.prefix_length) == (parse_address("10.1.4.0"), 120)
    assert whole.mobile_addresses == parsed("198.51.100.0")
    of_the_draft = only(ask(world, MaQuery(1, host)), MaAnswer)
    assert (of_the_draft.home_address, of_the_draft.prefix_length) == (host, EXACT)
    assert of_the_draft.mobile_addresses == parsed("198.51.100.77")


# ---- a store that does not answer --------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        update(Key(1, b"MN".ljust(16, b"."), HOME), [ELSEWHERE]),
        MaQuery(1, HOME, nonce=NONCE),
        MaQuery(1, HOME),
        HaNotify(1, HOME, PEER, 1, nonce=NONCE),
        HaQuery(1, ELSEWHERE, nonce=NONCE),
    ],
    ids=["update", "query", "draft query", "notify", "ha query"],
)
def test_while_the_store_is_silent_everybody_is_to_try_again(request_: Message) -> None:
    world = ims()
    server = world.servers["IMS"]
    register(world, "CN", "198.51.100.2")
    server.store_up = False
    (send,) = ask(world, request_)
    assert isinstance(send, Send)
    answer = send.message
    assert isinstance(answer, (ImsUpdateReply, MaAnswer, HaNotifyAck, HaAnswer))
    assert answer.code == Code.TRY_AGAIN
    assert answer.nonce == request_.nonce
    if isinstance(answer, ImsUpdateReply):
        assert is_authentic(answer, world.hosts["MN"].key)
    server.store_up = True
    assert server.store.by_home(HOME) is None


# ---- HA Notify ---------------------------------------------------------------------------------


def notice(sequence: int, home: Address = FOREIGN, version: int = FRESH) -> HaNotify:
    return HaNotify(sequence, home, PEER, version, nonce=NONCE)


def mapping_of(query: MaQuery, *addresses: str, version: int = FRESH, age: int = 0) -> MaAnswer:
    """What the IMS of another node answers."""
    moved = parsed(*addresses)
    return MaAnswer(
        query.sequence, 0, query.home_address, moved, version, 60, age, nonce=query.nonce
    )


def found(world: World, result: Servers | NotFound, home: Address = FOREIGN) -> list[Effect]:
    return carried_out(world, world.servers["IMS"].machine.servers_found(world.now, home, result))


def inquired(
    world: World, address: str, *, version: int = FRESH, home: Address = FOREIGN, age: int = 0
) -> HaNotifyAck:
    """A notice of another IMS's node, followed up: steps 2 to 4."""
    assert lookups(ask(world, notice(1, home, version))) == [home]
    query = only(found(world, REMOTE[:1], home), MaQuery)
    answer = mapping_of(query, address, version=version, age=age)
    return only(ask(world, answer, REMOTE[0]), HaNotifyAck)


def test_notice_of_an_own_node_is_acknowledged_at_once_with_the_peers_mapping() -> None:
    world = ims()
    register(world, "MN", "198.51.100.1")
    register(world, "CN", "203.0.113.7", freshness=FRESH + 3)
    world.now += 2.0
    effects = ask(world, notice(5, HOME))
    ack = only(effects, HaNotifyAck)
    assert len(effects) == 1
    assert (ack.sequence, ack.code, ack.nonce) == (5, Code.SUCCEEDED, NONCE)
    assert (ack.home_address, ack.mobile_addresses) == (PEER, parsed("203.0.113.7"))
    assert (ack.version, ack.lifetime, ack.age) == (FRESH + 3, 58, 2000)


def test_notice_of_a_version_that_this_replica_does_not_hold_has_to_be_repeated() -> None:
    world = ims()
    assert only(ask(world, notice(1, HOME)), HaNotifyAck).code == Code.TRY_AGAIN
    register(world, "MN", "198.51.100.1")
    assert only(ask(world, notice(1, HOME, FRESH + 1)), HaNotifyAck).code == Code.TRY_AGAIN
    assert only(ask(world, notice(1, HOME, FRESH)), HaNotifyAck).code == Code.SUCCEEDED
    world.now += 61.0
    assert only(ask(world, notice(1, HOME, FRESH)), HaNotifyAck).code == Code.TRY_AGAIN


def test_notice_to_a_peer_of_another_ims_is_not_its_responsibility() -> None:
    effects = ask(ims(), HaNotify(1, HOME, FOREIGN, 1, nonce=NONCE))
    assert only(effects, HaNotifyAck).code == Code.NOT_RESPONSIBLE
    assert len(effects) == 1


def test_many_notices_of_a_node_cause_one_lookup_and_one_query_and_all_are_acknowledged() -> None:
    world = ims()
    effects = [effect for n in range(20) for effect in ask(world, notice(n))]
    assert effects == [Lookup(FOREIGN)]
    query = only(found(world, REMOTE), MaQuery)
    assert (query.home_address, query.version) == (FOREIGN, FRESH)
    assert ask(world, notice(20)) == []
    acks = sent(ask(world, mapping_of(query, "198.51.100.9"), REMOTE[0]), HaNotifyAck)
    assert [(ack.sequence, ack.code) for ack in acks] == [(n, Code.SUCCEEDED) for n in range(21)]
    assert world.servers["IMS"].machine.inquiries == 0
    assert world.servers["IMS"].machine.foreign_mappings == 1


@pytest.mark.parametrize(
    ("result", "code"), [(NotFound.FAILED, Code.TRY_AGAIN), (NotFound.NOT_MAT, Code.NO_MAPPING)]
)
def test_node_that_the_dns_does_not_find_cannot_be_followed_up(
    result: NotFound, code: Code
) -> None:
    world = ims()
    ask(world, notice(1))
    effects = found(world, result)
    assert only(effects, HaNotifyAck).code == code
    assert world.servers["IMS"].machine.inquiries == 0
    assert found(world, REMOTE) == []


def test_silent_remote_ims_is_asked_so_often_and_then_all_are_to_try_again() -> None:
    world = ims()
    machine = world.servers["IMS"].machine
    ask(world, notice(1))
    effects = found(world, REMOTE)
    while machine.deadline is not None:
        world.now = machine.deadline
        effects += carried_out(world, machine.handle_timer(world.now))
    asked = [e.destination for e in effects if isinstance(e, Send) and e.destination != ASKER]
    assert len(asked) == DEFAULTS.query_attempts
    assert all(one != other for one, other in pairwise(asked))
    assert only(effects, HaNotifyAck).code == Code.TRY_AGAIN
    assert EventKind.SILENT in events(effects)
    assert machine.inquiries == 0


def test_replica_behind_the_notified_version_is_passed_over() -> None:
    world = ims()
    ask(world, notice(1))
    query = only(found(world, REMOTE), MaQuery)
    behind = ask(world, mapping_of(query, "198.51.100.1", version=FRESH - 1), REMOTE[0])
    (again,) = behind
    assert isinstance(again, Send)
    assert again.destination == REMOTE[1]
    effects = ask(world, mapping_of(query, "198.51.100.9"), REMOTE[1])
    assert only(effects, HaNotifyAck).code == Code.SUCCEEDED
    claim = only(ask(world, HaQuery(1, parse_address("198.51.100.9"), nonce=NONCE)), HaAnswer)
    assert claim.home_addresses == (FOREIGN,)


def test_where_every_replica_is_behind_the_notice_has_to_be_repeated() -> None:
    world = ims()
    ask(world, notice(1))
    query = only(found(world, REMOTE[:1]), MaQuery)
    effects = ask(world, mapping_of(query, "198.51.100.1", version=FRESH - 1), REMOTE[0])
    assert only(effects, HaNotifyAck).code == Code.TRY_AGAIN


def test_node_unknown_to_all_its_replicas_has_no_mapping() -> None:
    world = ims()
    ask(world, notice(1))
    query = only(found(world, REMOTE), MaQuery)
    none = MaAnswer(query.sequence, Code.NO_MAPPING, FOREIGN, (), 0, 0, nonce=query.nonce)
    assert sent(ask(world, none, REMOTE[0]), HaNotifyAck) == []
    assert only(ask(world, none, REMOTE[1]), HaNotifyAck).code == Code.NO_MAPPING
    assert world.servers["IMS"].machine.foreign_mappings == 0


def test_error_of_the_remote_ims_is_counted_and_its_timer_goes_on() -> None:
    world = ims()
    machine = world.servers["IMS"].machine
    ask(world, notice(1))
    query = only(found(world, REMOTE[:1]), MaQuery)
    busy = MaAnswer(query.sequence, Code.TRY_AGAIN, FOREIGN, (), 0, 0, nonce=query.nonce)
    assert events(ask(world, busy, REMOTE[0])) == [EventKind.REFUSED]
    assert machine.inquiries == 1
    assert machine.deadline is not None
    world.now = machine.deadline
    assert only(carried_out(world, machine.handle_timer(world.now)), MaQuery) == query


def test_repeated_notice_is_answered_from_what_is_known() -> None:
    world = ims()
    assert inquired(world, "198.51.100.9").code == Code.SUCCEEDED
    world.now += 5.0
    effects = ask(world, notice(2))
    assert lookups(effects) == []
    assert only(effects, HaNotifyAck).code == Code.SUCCEEDED
    assert lookups(ask(world, notice(3, version=FRESH + 1))) == [FOREIGN]


def test_notice_after_a_refresh_renews_the_foreign_mapping() -> None:
    world = ims()
    there = HaQuery(1, parse_address("198.51.100.9"), nonce=NONCE)
    for _ in range(4):
        inquired(world, "198.51.100.9")
        world.now += 40.0
        assert only(ask(world, there), HaAnswer).code == Code.SUCCEEDED
    world.now += 21.0
    assert only(ask(world, there), HaAnswer).code == Code.NO_MAPPING


def test_late_answer_of_an_older_version_does_not_replace_a_newer_mapping() -> None:
    world = ims()
    inquired(world, "198.51.100.9", version=FRESH + 5)
    world.now += 30.0
    assert inquired(world, "198.51.100.8", version=FRESH).code == Code.SUCCEEDED
    for address, code in (("198.51.100.9", Code.SUCCEEDED), ("198.51.100.8", Code.NO_MAPPING)):
        claim = only(ask(world, HaQuery(1, parse_address(address), nonce=NONCE)), HaAnswer)
        assert claim.code == code


# ---- HA Notify: limits -------------------------------------------------------------------------


def is_put_off(effects: list[Effect]) -> bool:
    refused = [ack.code for ack in sent(effects, HaNotifyAck)] == [Code.TRY_AGAIN]
    assert refused is not bool(lookups(effects))
    return refused


def homes(count: int) -> list[Address]:
    return [parse_address(f"10.9.0.{n + 1}") for n in range(count)]


def test_inquiries_in_progress_are_limited() -> None:
    world = ims(inquiry_limit=3)
    put_off = [is_put_off(ask(world, notice(1, home))) for home in homes(5)]
    assert put_off == [False, False, False, True, True]
    assert world.servers["IMS"].machine.inquiries == 3
    found(world, NotFound.FAILED, homes(1)[0])
    assert not is_put_off(ask(world, notice(1, homes(5)[4])))


def test_inquiries_are_limited_over_time() -> None:
    world = ims(inquiry_rate=1.0, inquiry_burst=2.0)
    first = ask(world, notice(1, homes(1)[0])) + ask(world, notice(1, homes(2)[1]))
    assert lookups(first) == homes(2)
    refused = ask(world, notice(1, homes(3)[2]))
    assert is_put_off(refused)
    assert events(refused) == [EventKind.RATE_LIMITED]
    world.now += 1.0
    assert not is_put_off(ask(world, notice(1, homes(3)[2])))


def test_notices_that_wait_for_one_inquiry_are_limited_and_one_repeated_waits_once() -> None:
    world = ims(inquiry_waiting=2)
    assert lookups(ask(world, notice(1))) == [FOREIGN]
    assert ask(world, notice(1)) == ask(world, notice(2)) == []
    assert is_put_off(ask(world, notice(3)))
    acks = sent(found(world, NotFound.NOT_MAT), HaNotifyAck)
    assert [ack.sequence for ack in acks] == [1, 2]


def test_foreign_mappings_are_limited_and_the_one_used_longest_ago_goes() -> None:
    world = ims(foreign_table_size=2)
    for n, home in enumerate(homes(3)):
        inquired(world, f"198.51.100.{n + 1}", home=home)
    assert world.servers["IMS"].machine.foreign_mappings == 2
    for n, code in ((1, Code.NO_MAPPING), (2, Code.SUCCEEDED), (3, Code.SUCCEEDED)):
        asked = HaQuery(1, parse_address(f"198.51.100.{n}"), nonce=NONCE)
        assert only(ask(world, asked), HaAnswer).code == code


# ---- HA Query ----------------------------------------------------------------------------------


def test_address_that_nobody_registered_has_no_home() -> None:
    answer = only(ask(ims(), HaQuery(4, ELSEWHERE, nonce=NONCE)), HaAnswer)
    assert (answer.sequence, answer.code, answer.nonce) == (4, Code.NO_MAPPING, NONCE)
    assert (answer.mobile_address, answer.home_addresses) == (ELSEWHERE, ())


def test_address_of_a_node_whose_zone_the_server_no_longer_serves_has_no_home() -> None:
    world = ims()
    register(world, "MN", "198.51.100.99")
    asked = HaQuery(1, ELSEWHERE, nonce=NONCE)
    assert only(ask(world, asked), HaAnswer).code == Code.SUCCEEDED
    world.servers["IMS"].machine.adopt(lambda _: None, lambda home: home != HOME)
    assert only(ask(world, asked), HaAnswer).code == Code.NO_MAPPING


def test_address_of_an_own_node_whatever_its_priority() -> None:
    world = ims()
    register(world, "MN", "198.51.100.1", "198.51.100.2")
    world.now += 3.0
    for address in parsed("198.51.100.1", "198.51.100.2"):
        answer = only(ask(world, HaQuery(1, address, nonce=NONCE)), HaAnswer)
        assert (answer.code, answer.home_addresses) == (Code.SUCCEEDED, (HOME,))
        assert (answer.version, answer.lifetime, answer.age) == (FRESH, 57, 3000)


def test_address_behind_a_mobile_router_has_the_home_behind_it() -> None:
    world = ims()
    register(world, "R", "198.51.100.0")
    answer = only(ask(world, HaQuery(1, parse_address("198.51.100.77"), nonce=NONCE)), HaAnswer)
    assert [format_address(home) for home in answer.home_addresses] == ["10.1.4.77"]


def test_address_of_a_node_that_notified() -> None:
    world = ims()
    inquired(world, "198.51.100.9", age=1500)
    world.now += 1.0
    answer = only(ask(world, HaQuery(1, parse_address("198.51.100.9"), nonce=NONCE)), HaAnswer)
    assert (answer.code, answer.home_addresses) == (Code.SUCCEEDED, (FOREIGN,))
    assert (answer.version, answer.lifetime, answer.age) == (FRESH, 59, 2500)


@pytest.mark.parametrize(("age", "holder"), [(2000, FOREIGN), (8000, HOME)])
def test_of_two_claims_to_an_address_the_newer_wins(age: int, holder: Address) -> None:
    world = ims()
    register(world, "MN", "198.51.100.9")
    world.now += 5.0
    inquired(world, "198.51.100.9", age=age)
    query = HaQuery(1, parse_address("198.51.100.9"), nonce=NONCE)
    assert only(ask(world, query), HaAnswer).home_addresses == (holder,)


def test_of_two_own_nodes_the_later_claim_to_an_address_wins() -> None:
    world = ims()
    register(world, "MN", "198.51.100.9")
    register(world, "CN", "198.51.100.9")
    query = HaQuery(1, parse_address("198.51.100.9"), nonce=NONCE)
    assert only(ask(world, query), HaAnswer).home_addresses == (PEER,)


# ---- messages that are not what they should be -------------------------------------------------


def test_answer_to_nothing_that_was_asked_is_counted_and_not_kept() -> None:
    world = ims()
    ask(world, notice(1))
    query = only(found(world, REMOTE[:1]), MaQuery)
    good = mapping_of(query, "198.51.100.9")
    other_nonce = MaAnswer(query.sequence, 0, FOREIGN, (ELSEWHERE,), FRESH, 60, nonce=NONCE)
    other_home = MaAnswer(query.sequence, 0, PEER, (ELSEWHERE,), FRESH, 60, nonce=query.nonce)
    other_sequence = MaAnswer(
        query.sequence ^ 1, 0, FOREIGN, (ELSEWHERE,), FRESH, 60, nonce=query.nonce
    )
    for answer, source in (
        (good, ASKER),
        (other_nonce, REMOTE[0]),
        (other_home, REMOTE[0]),
        (other_sequence, REMOTE[0]),
    ):
        effects = ask(world, answer, source)
        assert effects == [Event(EventKind.UNEXPECTED, source.address)]
    assert world.servers["IMS"].machine.foreign_mappings == 0
    assert only(ask(world, good, REMOTE[0]), HaNotifyAck).code == Code.SUCCEEDED
    assert events(ask(world, good, REMOTE[0])) == [EventKind.UNEXPECTED]


@pytest.mark.parametrize(
    "answer",
    [ImsUpdateReply(1, 0), HaNotifyAck(1, 0, HOME), HaAnswer(1, 0, ELSEWHERE, (HOME,))],
    ids=lambda answer: type(answer).__name__,
)
def test_answers_that_only_nodes_get_are_counted(answer: Message) -> None:
    world = ims()
    assert ask(world, answer) == [Event(EventKind.IGNORED, ASKER.address)]
    assert world.servers["IMS"].machine.deadline is None


def test_unusable_addresses_of_a_foreign_mapping_are_not_kept() -> None:
    world = ims()
    ask(world, notice(1))
    query = only(found(world, REMOTE[:1]), MaQuery)
    answer = mapping_of(query, "224.0.0.5", "2001:db8::1", "198.51.100.9")
    ask(world, answer, REMOTE[0])
    for address, code in (
        ("224.0.0.5", Code.NO_MAPPING),
        ("2001:db8::1", Code.NO_MAPPING),
        ("198.51.100.9", Code.SUCCEEDED),
    ):
        asked = HaQuery(1, parse_address(address), nonce=NONCE)
        assert only(ask(world, asked), HaAnswer).code == code


# ---- an IMS that speaks for others --------------------------------------------------------------


def answered_with_a_wide_prefix() -> World:
    """The IMS of a foreign node has answered for everybody."""
    world = ims()
    ask(world, notice(1))
    query = only(found(world, REMOTE[:1]), MaQuery)
    wide, length = parse_address("10.0.0.0"), 104
    moved = (parse_address("203.0.0.0"),)
    forged = MaAnswer(query.sequence, 0, wide, moved, 1 << 63, 600, 0, length, nonce=query.nonce)
    ask(world, forged, REMOTE[0])
    return world


def test_answer_for_a_wide_prefix_does_not_vouch_for_other_nodes() -> None:
    other = homes(9)[8]
    assert lookups(ask(answered_with_a_wide_prefix(), notice(2, other))) == [other]


def test_answer_for_a_wide_prefix_does_not_own_other_addresses() -> None:
    world = answered_with_a_wide_prefix()
    somebody = parse_address("203.0.113.200")
    answer = only(ask(world, HaQuery(1, somebody, nonce=NONCE)), HaAnswer)
    assert answer.code == Code.NO_MAPPING
