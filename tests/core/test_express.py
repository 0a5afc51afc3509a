"""The express lane says what the machine says, byte for byte, or leaves it to the machine."""

import hmac
import random
import struct

from hypothesis import given
from hypothesis import strategies as st

from mat.address import Address, from_ipv4, parse_address
from mat.authentication import Key, mac_of, sign
from mat.codec import Malformed, decode, encode
from mat.effects import ReadByHome, Send, ServerEffect, StoreWrite
from mat.express import ExpressLane, acknowledge
from mat.messages import (
    EXACT,
    MAT_PORT,
    MAX_MOBILE_ADDRESSES,
    Code,
    Endpoint,
    HaNotify,
    ImsUpdate,
    MaQuery,
)
from mat.registrations import Outcome, Registration, RegistrationTable, pack
from mat.server import MappingServer

ASKER = Endpoint(parse_address("203.0.113.5"), MAT_PORT)
HOME = parse_address("10.1.0.1")
NONCE = bytes(range(8))
NOW = 1000.0
NOT_SERVED = parse_address("10.9.0.1")
KEYS = {
    1: Key(1, b"a secret of sixteen or more", HOME),
    2: Key(2, b"another one, as long as that", parse_address("2001:db8::1")),
    4: Key(4, b"one of another IMS's nodes", NOT_SERVED),
    3: Key(3, b"a third one for some router", parse_address("10.1.4.0"), 120),
}

versions = st.integers(1, (1 << 64) - (1 << 48) - 1)
homes = st.sampled_from([HOME, parse_address("10.1.0.2"), parse_address("2001:db8::1"), NOT_SERVED])
mobiles = st.lists(
    st.integers(1, 250).map(lambda n: from_ipv4(bytes((198, 51, 100, n)))),
    unique=True,
    max_size=MAX_MOBILE_ADDRESSES,
).map(tuple)
registrations = st.builds(
    Registration,
    homes,
    st.just(EXACT),
    mobiles,
    versions,
    versions,
    st.floats(NOW - 700, NOW + 10),
    st.integers(0, 600),
)
prefixes = st.just(
    Registration(parse_address("10.1.0.0"), 112, (parse_address("198.51.0.0"),), 9, 9, NOW - 1, 60)
)
queries = st.builds(
    MaQuery,
    st.integers(0, 2**32 - 1),
    homes,
    st.one_of(st.just(0), versions),
    nonce=st.sampled_from([NONCE, b""]),
).map(encode)
notices = st.builds(
    HaNotify,
    st.integers(0, 2**32 - 1),
    homes,
    homes,
    st.one_of(st.just(0), st.integers(1, 1 << 40), versions),
    nonce=st.sampled_from([NONCE, b""]),
).map(encode)
requests = st.one_of(queries, notices)


def damaged(wire: bytes, at: int, value: int) -> bytes:
    changed = bytearray(wire)
    changed[at % len(wire)] = value
    return bytes(changed)


def garbled(wires: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Datagrams as they are sent, and the same with one byte changed, cut off or added to."""
    return st.one_of(
        wires,
        st.builds(damaged, wires, st.integers(0, 150), st.integers(0, 255)),
        st.builds(lambda wire, end: wire[:end], wires, st.integers(0, 150)),
        st.builds(lambda wire, more: wire + more, wires, st.binary(max_size=8)),
    )


def by_the_lane(wire: bytes, table: RegistrationTable) -> bytes:
    outgoing = bytearray(1280)
    size = lane(table).answer(wire, NOW, outgoing, 7)
    return bytes(outgoing[7 : 7 + size])


def responsible(home: Address) -> bool:
    return home != NOT_SERVED


def lane(table: RegistrationTable) -> ExpressLane:
    return ExpressLane(table, KEYS.get, responsible, 600)


def machine() -> MappingServer:
    return MappingServer(KEYS.get, responsible, random.Random(1))


def by_the_machine(wire: bytes, table: RegistrationTable) -> bytes:
    message = decode(wire)
    assert not isinstance(message, Malformed)
    ims = machine()
    effects: list[ServerEffect] = list(ims.receive(NOW, message, ASKER))
    while isinstance(effects[0], ReadByHome):
        read = effects.pop(0)
        assert isinstance(read, ReadByHome)
        effects += ims.read(NOW, read, table.by_home(read.home_address))
    (send,) = effects
    assert isinstance(send, Send), "the machine would ask somebody else"
    assert send.destination == ASKER
    return encode(send.message)


@given(garbled(requests), st.lists(st.one_of(registrations, prefixes), max_size=4))
def test_the_lane_answers_as_the_machine_does_or_not_at_all(
    wire: bytes, stored: list[Registration]
) -> None:
    table = RegistrationTable()
    for one in stored:
        table.write(one)
    said = by_the_lane(wire, table)
    assert not said or said == by_the_machine(wire, table)


@given(st.one_of(st.just(0), versions), st.integers(1, MAX_MOBILE_ADDRESSES))
def test_the_lane_takes_the_queries_that_nodes_send(version: int, count: int) -> None:
    table = RegistrationTable()
    moved = tuple(Address(from_ipv4(bytes((198, 51, 100, n + 1)))) for n in range(count))
    table.write(Registration(HOME, EXACT, moved, 7 << 32, 8 << 32, NOW - 2, 60))
    wire = encode(MaQuery(77, HOME, version, nonce=NONCE))
    assert by_the_lane(wire, table) == by_the_machine(wire, table)


def test_a_timestamp_at_odds_with_the_version_is_left_to_the_machine() -> None:
    table = RegistrationTable()
    table.write(Registration(HOME, EXACT, (ASKER.address,), 7, 8, NOW, 60))
    wire = bytearray(encode(MaQuery(77, HOME, 5 << 32, nonce=NONCE)))
    struct.pack_into("!I", wire, 24, 6)
    assert by_the_lane(bytes(wire), table) == b""


def test_the_lane_takes_the_notices_that_nodes_send() -> None:
    table = RegistrationTable()
    table.write(Registration(HOME, EXACT, (ASKER.address,), 7 << 32, 8 << 32, NOW - 2, 60))
    peer = parse_address("10.1.0.2")
    table.write(Registration(peer, EXACT, (ASKER.address,), 9 << 32, 9 << 32, NOW - 1, 30))
    wire = encode(HaNotify(77, HOME, peer, 7 << 32, nonce=NONCE))
    assert by_the_lane(wire, table) == by_the_machine(wire, table)
    later = encode(HaNotify(77, HOME, peer, 8 << 32, nonce=NONCE))
    assert by_the_lane(later, table) == b""


def update_of(
    key: Key, moved: tuple[Address, ...], freshness: int, version: int, lifetime: int
) -> bytes:
    version, length = min(version, freshness), key.prefix_length
    message = ImsUpdate(77, key.home_address, moved, version, lifetime, length, nonce=NONCE)
    sign(message, key, freshness)
    return encode(message)


any_mobile = st.one_of(
    mobiles,
    st.lists(
        st.sampled_from(["10.0.0.1", "224.0.0.1", "127.0.0.1", "2001:db8::9", "ff02::1"]),
        max_size=3,
    ).map(lambda texts: tuple(parse_address(text) for text in texts)),
)
updates = st.builds(
    update_of,
    st.sampled_from([KEYS[1], KEYS[2], KEYS[4], Key(1, b"a false secret, and long enough", HOME)]),
    any_mobile,
    st.one_of(versions, st.integers((1 << 64) - (1 << 48) - 2, (1 << 64) - 1)),
    versions,
    st.integers(0, 1000),
)


@given(garbled(updates))
def test_the_lane_admits_what_the_machine_stores_and_says_so_as_the_machine_does(
    wire: bytes,
) -> None:
    admitted = lane(RegistrationTable()).admit(wire, NOW)
    if admitted is None:
        return
    message = decode(wire)
    assert isinstance(message, ImsUpdate)
    ims = machine()
    (write,) = ims.receive(NOW, message, ASKER)
    assert isinstance(write, StoreWrite)
    assert write.registration.home_address == admitted.key.home_address
    assert pack(write.registration) == admitted.record
    for outcome, code in ((Outcome.STORED, Code.SUCCEEDED), (Outcome.UNAVAILABLE, Code.TRY_AGAIN)):
        (send,) = ims.written(NOW, write, outcome, admitted.freshness)
        assert isinstance(send, Send)
        assert acknowledge(admitted, code) == encode(send.message)


@given(mobiles.filter(bool), versions, versions, st.integers(1, 1000))
def test_the_lane_admits_the_updates_that_nodes_send(
    moved: tuple[Address, ...], freshness: int, version: int, lifetime: int
) -> None:
    wire = update_of(KEYS[1], moved, freshness, version, lifetime)
    assert lane(RegistrationTable()).admit(wire, NOW) is not None


def test_the_lane_leaves_routers_and_forgeries_to_the_machine() -> None:
    router = update_of(KEYS[3], (parse_address("198.51.4.0"),), 9, 9, 60)
    forged = update_of(Key(1, b"a false secret, and long enough", HOME), (HOME,), 9, 9, 60)
    foreign = update_of(Key(2, KEYS[2].secret, HOME), (HOME,), 9, 9, 60)
    assert [lane(RegistrationTable()).admit(wire, NOW) for wire in (router, forged, foreign)] == [
        None
    ] * 3


@given(st.binary(min_size=16, max_size=200), st.binary(max_size=200))
def test_the_mac_is_the_standard_librarys(secret: bytes, covered: bytes) -> None:
    made = mac_of(Key(1, secret, HOME), covered)
    assert made == hmac.digest(secret, covered, "sha256")[:16]


def test_a_keys_secret_does_not_show_in_what_is_printed_of_it() -> None:
    assert "secret" not in repr(KEYS[1])
