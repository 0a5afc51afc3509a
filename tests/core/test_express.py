"""The express lane says what the machine says, byte for byte, or leaves it to the machine."""

import random
import struct

from hypothesis import given
from hypothesis import strategies as st

from mat.address import Address, from_ipv4, parse_address
from mat.authentication import Key
from mat.codec import Malformed, decode, encode
from mat.effects import ReadByHome, Send
from mat.express import answer
from mat.messages import EXACT, MAT_PORT, MAX_MOBILE_ADDRESSES, Endpoint, MaQuery
from mat.registrations import Registration, RegistrationTable
from mat.server import MappingServer

ASKER = Endpoint(parse_address("203.0.113.5"), MAT_PORT)
HOME = parse_address("10.1.0.1")
NONCE = bytes(range(8))
NOW = 1000.0

versions = st.integers(1, (1 << 64) - (1 << 48) - 1)
homes = st.sampled_from([HOME, parse_address("10.1.0.2"), parse_address("2001:db8::1")])
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


def damaged(wire: bytes, at: int, value: int) -> bytes:
    changed = bytearray(wire)
    changed[at % len(wire)] = value
    return bytes(changed)


datagrams = st.one_of(
    queries,
    st.builds(damaged, queries, st.integers(0, 63), st.integers(0, 255)),
    st.builds(lambda wire, end: wire[:end], queries, st.integers(0, 64)),
    st.builds(lambda wire, more: wire + more, queries, st.binary(max_size=8)),
    st.binary(min_size=64, max_size=64),
)


def by_the_lane(wire: bytes, table: RegistrationTable) -> bytes:
    outgoing = bytearray(1280)
    size = answer(bytearray(b"??" + wire), 2, len(wire), table, NOW, outgoing, 7)
    return bytes(outgoing[7 : 7 + size])


def by_the_machine(wire: bytes, table: RegistrationTable) -> bytes:
    keys: dict[int, Key] = {}
    machine = MappingServer(keys.get, lambda _home: True, random.Random(1))
    message = decode(wire)
    assert not isinstance(message, Malformed)
    (read,) = machine.receive(NOW, message, ASKER)
    assert isinstance(read, ReadByHome)
    (send,) = machine.read(NOW, read, table.by_home(read.home_address))
    assert isinstance(send, Send)
    assert send.destination == ASKER
    return encode(send.message)


@given(datagrams, st.lists(st.one_of(registrations, prefixes), max_size=4))
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
