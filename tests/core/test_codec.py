"""The wire format: recorded vectors, the draft's layout by hand, and every kind of damage."""

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mat.address import Address, parse_address
from mat.codec import FLAG_EXTENSIONS, Extension, Malformed, decode, encode, size_of
from mat.messages import (
    AMPLIFICATION_LIMIT,
    EXACT,
    MAX_MOBILE_ADDRESSES,
    REQUEST_SIZE,
    Authentication,
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
from tests.vectors.record import FILE, described, messages

VECTORS: list[dict[str, Any]] = json.loads(FILE.read_text())
HOME, MOVED = parse_address("10.1.0.1"), parse_address("198.51.100.7")
NONCE = bytes(range(8))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["name"])
def test_recorded_vector_decodes_to_its_fields_and_encodes_to_its_bytes(
    vector: dict[str, Any],
) -> None:
    datagram = bytes.fromhex(vector["datagram"])
    message = decode(datagram)
    assert not isinstance(message, Malformed)
    fields = {k: v for k, v in vector.items() if k not in ("name", "datagram")}
    assert described(message) == fields
    message.wire = None
    assert encode(message).hex() == datagram.hex()


def test_there_is_a_vector_for_every_message_family_and_code() -> None:
    assert [v["name"] for v in VECTORS] == list(messages())


def test_query_by_the_drafts_text_gets_an_answer_that_the_drafts_text_can_parse() -> None:
    home = bytes(10) + b"\xff\xff\x0a\x01\x00\x01"
    query = struct.pack("!BBBBI", 3, 0, 0, 7, 0xCAFE) + home + struct.pack("!I", 1234)
    assert decode(query) == MaQuery(0xCAFE, HOME, 1234 << 32)
    answer = encode(MaAnswer(0xCAFE, 0, HOME, (MOVED,), 99 << 32, 60))
    kind, code, flags, words, sequence = struct.unpack_from("!BBBBI", answer)
    assert (kind, code, flags, words, sequence) == (4, 0, 0, len(answer) // 4, 0xCAFE)
    assert answer[8:24] == home
    assert answer[24:40] == bytes(10) + b"\xff\xff\xc6\x33\x64\x07"
    assert struct.unpack_from("!II", answer, 40) == (99, 60)
    assert len(answer) == 48


def test_length_that_leaves_out_the_header_is_answered_in_kind() -> None:
    query = struct.pack("!BBBBI", 3, 0, 0, 5, 1) + HOME + bytes(4)
    message = decode(query)
    assert isinstance(message, MaQuery)
    assert message.draft_length
    answer = encode(MaAnswer(1, 0, HOME, (MOVED,), 0, 60, draft_length=True))
    assert answer[3] == len(answer) // 4 - 2
    decoded = decode(answer)
    assert isinstance(decoded, MaAnswer)
    assert decoded.mobile_addresses == (MOVED,)


def test_part_that_length_counts_is_the_drafts_even_with_extensions() -> None:
    plain = encode(MaAnswer(1, 0, HOME, (MOVED,), 7 << 32, 60))
    extended = encode(MaAnswer(1, 0, HOME, (MOVED,), 7 << 32, 60, 1500, nonce=NONCE))
    assert extended[: 4 * extended[3]] == plain[:2] + bytes((FLAG_EXTENSIONS,)) + plain[3:]


def test_requests_are_padded_so_that_the_longest_answer_is_within_the_limit() -> None:
    full = tuple(Address(bytes(15) + bytes((i,))) for i in range(MAX_MOBILE_ADDRESSES))
    answers: list[Message] = [
        MaAnswer(1, 0, HOME, full, 1, 1, 1, EXACT, nonce=NONCE),
        HaNotifyAck(1, 0, HOME, full, 1, 1, 1, EXACT, nonce=NONCE),
        HaAnswer(1, 0, MOVED, full, 1, 1, 1, nonce=NONCE),
    ]
    requests: list[Message] = [
        MaQuery(1, HOME, nonce=NONCE),
        HaNotify(1, HOME, HOME, 1, nonce=NONCE),
        HaQuery(1, MOVED, nonce=NONCE),
    ]
    for request, answer in zip(requests, answers, strict=True):
        assert len(encode(request)) >= REQUEST_SIZE
        assert len(encode(answer)) <= AMPLIFICATION_LIMIT * len(encode(request))


def _damaged(name: str) -> bytes:
    base = encode(MaAnswer(1, 0, HOME, (MOVED,), 7 << 32, 60, nonce=NONCE))
    body_end = 4 * base[3]
    extension = bytes((200, 2, 0, 0)) + bytes(4)
    unknown = bytes((90, 1, 0, 0))
    many = HOME * (MAX_MOBILE_ADDRESSES + 2) + bytes(8)
    return {
        "short": base[:7],
        "long": base + bytes(2000),
        "type 0": b"\0" + base[1:],
        "type 9": b"\x09" + base[1:],
        "length beyond the datagram": base[:3] + b"\xff" + base[4:],
        "length inside the header": base[:3] + b"\1" + base[4:],
        "length within the body": base[:3] + bytes((base[3] - 1,)) + base[4:],
        "trailing bytes": encode(MaQuery(1, HOME)) + bytes(4),
        "odd body": struct.pack("!BBBBI", 4, 0, 0, 9, 1) + HOME + bytes(12),
        "too many addresses": struct.pack("!BBBBI", 4, 0, 0, 2 + len(many) // 4, 1) + many,
        "reply with a body": struct.pack("!BBBBI", 2, 0, 0, 3, 1) + bytes(4),
        "extension cut off": base[:-1],
        "extension of no words": base[:body_end] + bytes((200, 0, 0, 0)),
        "extension twice": base + extension + extension,
        "nonce of another size": base[:body_end] + bytes((Extension.NONCE, 2, 0, 0)) + bytes(4),
        "unknown extension to understand": base + unknown,
        "something after the authentication": encode(
            ImsUpdateReply(1, 0, Authentication(1, 1), nonce=NONCE)
        )
        + extension,
        "prefix length 129": base + bytes((Extension.PREFIX, 1, 129, 0)),
        "prefix with host bits": base + bytes((Extension.PREFIX, 1, 64, 0)),
        "version against timestamp": base[: body_end - 8] + bytes(8) + base[body_end:],
    }[name]


DAMAGE = {
    "short": Malformed.SHORT,
    "long": Malformed.LONG,
    "type 0": Malformed.TYPE,
    "type 9": Malformed.TYPE,
    "length beyond the datagram": Malformed.LENGTH,
    "length inside the header": Malformed.LENGTH,
    "length within the body": Malformed.EXTENSION,
    "trailing bytes": Malformed.LENGTH,
    "odd body": Malformed.BODY,
    "too many addresses": Malformed.ADDRESSES,
    "reply with a body": Malformed.BODY,
    "extension cut off": Malformed.EXTENSION,
    "extension of no words": Malformed.EXTENSION,
    "extension twice": Malformed.EXTENSION,
    "nonce of another size": Malformed.EXTENSION,
    "unknown extension to understand": Malformed.UNKNOWN_EXTENSION,
    "something after the authentication": Malformed.EXTENSION,
    "prefix length 129": Malformed.PREFIX,
    "prefix with host bits": Malformed.PREFIX,
    "version against timestamp": Malformed.TIMESTAMP,
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named(name: str) -> None:
    assert decode(_damaged(name)) is DAMAGE[name]


def test_unknown_flags_codes_and_skippable_extensions_are_read_over() -> None:
    answer = encode(MaAnswer(1, 0, HOME, (MOVED,), 7 << 32, 60, nonce=NONCE))
    skippable = bytes((200, 2, 0, 0)) + bytes(4)
    changed = answer[:1] + b"\x63" + bytes((answer[2] | 0x3F,)) + answer[3:] + skippable
    message = decode(changed)
    assert isinstance(message, MaAnswer)
    assert (message.code, message.mobile_addresses, message.nonce) == (0x63, (MOVED,), NONCE)


addresses = st.binary(min_size=16, max_size=16).map(Address)
words = st.integers(0, 2**32 - 1)
versions = st.integers(0, 2**64 - 1)
nonces = st.binary(min_size=8, max_size=8)
moves = st.lists(addresses, max_size=MAX_MOBILE_ADDRESSES).map(tuple)
signatures = st.builds(Authentication, words, versions, st.binary(min_size=16, max_size=16))


def _any_message() -> st.SearchStrategy[Message]:
    codes = st.integers(0, 255)
    exact, some_version = st.just(EXACT), versions.filter(bool)
    signed = st.builds(
        ImsUpdate, words, addresses, moves, some_version, words, exact, signatures, nonce=nonces
    )
    return st.one_of(
        signed,
        st.builds(ImsUpdateReply, words, codes, st.none() | signatures, nonce=nonces),
        st.builds(MaQuery, words, addresses, versions, nonce=nonces),
        st.builds(MaAnswer, words, codes, addresses, moves, versions, words, words, nonce=nonces),
        st.builds(HaNotify, words, addresses, addresses, versions, nonce=nonces),
        st.builds(
            HaNotifyAck, words, codes, addresses, moves, versions, words, words, nonce=nonces
        ),
        st.builds(HaQuery, words, addresses, nonce=nonces),
        st.builds(HaAnswer, words, codes, addresses, moves, versions, words, words, nonce=nonces),
    )


@given(_any_message())
def test_the_size_of_a_message_is_that_of_its_datagram(message: Message) -> None:
    assert size_of(message) == len(encode(message))


@given(_any_message())
def test_every_message_survives_the_wire(message: Message) -> None:
    assert decode(encode(message)) == message


@given(st.binary(max_size=300))
def test_any_bytes_decode_to_a_message_or_a_reason(datagram: bytes) -> None:
    assert decode(datagram) is not None


@given(st.sampled_from(VECTORS), st.data())
def test_damaged_vectors_decode_to_a_message_or_a_reason(
    vector: dict[str, Any], data: st.DataObject
) -> None:
    datagram = bytearray.fromhex(vector["datagram"])
    for _ in range(data.draw(st.integers(1, 4))):
        datagram[data.draw(st.integers(0, len(datagram) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(datagram)))
    message = decode(bytes(datagram[:cut]))
    if not isinstance(message, Malformed):
        message.wire = None
        encode(message)
