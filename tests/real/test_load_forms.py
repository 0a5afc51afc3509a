"""What the load test sends is, byte for byte, what the codec makes of the same messages."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mat.address import Address
from mat.authentication import Key, sign
from mat.codec import encode
from mat.messages import HaNotify, ImsUpdate, ImsUpdateReply, MaQuery
from mat_real.load import forms

ADDRESSES = st.binary(min_size=16, max_size=16).map(Address)
SEQUENCES = st.integers(0, 2**32 - 1)
NONCES = st.binary(min_size=8, max_size=8)
NUMBERS = st.integers(1, 2**64 - 1)
SECRETS = st.binary(min_size=16, max_size=40)
REQUESTS = st.lists(st.tuples(SEQUENCES, NONCES, ADDRESSES, ADDRESSES, NUMBERS), min_size=1)


def columns(
    requests: list[tuple[int, bytes, Address, Address, int]],
) -> tuple[forms.Sequences, forms.Numbers, forms.Addresses, forms.Addresses, forms.Numbers]:
    sequences, nonces, some, others, numbers = zip(*requests, strict=True)
    return (
        np.array(sequences, np.uint32),
        np.frombuffer(b"".join(nonces), np.uint64),
        np.frombuffer(b"".join(some), "V16"),
        np.frombuffer(b"".join(others), "V16"),
        np.array(numbers, np.uint64),
    )


def datagrams(rows: forms.Rows) -> list[bytes]:
    return [row.tobytes() for row in rows]


@given(REQUESTS)
def test_queries_are_those_of_the_codec(
    requests: list[tuple[int, bytes, Address, Address, int]],
) -> None:
    sequences, nonces, homes, _, versions = columns(requests)
    assert datagrams(forms.queries(sequences, nonces, homes)) == [
        encode(MaQuery(sequence, home, nonce=nonce)) for sequence, nonce, home, _, _ in requests
    ]
    assert datagrams(forms.queries_of_version(sequences, nonces, homes, versions)) == [
        encode(MaQuery(sequence, home, version, nonce=nonce))
        for sequence, nonce, home, _, version in requests
    ]


@given(REQUESTS)
def test_notices_are_those_of_the_codec(
    requests: list[tuple[int, bytes, Address, Address, int]],
) -> None:
    assert datagrams(forms.notices(*columns(requests))) == [
        encode(HaNotify(sequence, home, peer, version, nonce=nonce))
        for sequence, nonce, home, peer, version in requests
    ]


@given(REQUESTS, SECRETS, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_first_updates_are_those_of_the_codec_and_signed(
    requests: list[tuple[int, bytes, Address, Address, int]],
    secret: bytes,
    key_id: int,
    lifetime: int,
) -> None:
    sequences, nonces, homes, mobiles, versions = columns(requests)
    rows = forms.first_updates(
        sequences,
        nonces,
        homes=homes,
        mobiles=mobiles,
        versions=versions,
        key_ids=np.full(len(requests), key_id, np.uint32),
        lifetime=lifetime,
    )
    forms.sign(rows, [secret] * len(requests))
    expected: list[bytes] = []
    for sequence, nonce, home, mobile, version in requests:
        update = ImsUpdate(sequence, home, (mobile,), version, lifetime, nonce=nonce)
        sign(update, Key(key_id, secret, home), version)
        expected.append(encode(update))
    assert datagrams(rows) == expected


@given(REQUESTS, SECRETS, st.integers(1, 1000))
def test_repeated_updates_are_fresher_and_of_the_same_version(
    requests: list[tuple[int, bytes, Address, Address, int]], secret: bytes, later: int
) -> None:
    requests = [(*request[:4], min(request[4], 2**64 - 1 - later)) for request in requests]
    sequences, nonces, homes, mobiles, versions = columns(requests)
    first = forms.first_updates(
        sequences,
        nonces,
        homes=homes,
        mobiles=mobiles,
        versions=versions,
        key_ids=np.full(len(requests), 7, np.uint32),
        lifetime=180,
    )
    rows = forms.updates_again(first, versions, versions + np.uint64(later))
    forms.sign(rows, [secret] * len(requests))
    expected: list[bytes] = []
    for sequence, nonce, home, mobile, version in requests:
        update = ImsUpdate(sequence, home, (mobile,), version, 180, nonce=nonce)
        sign(update, Key(7, secret, home), version + later)
        expected.append(encode(update))
    assert datagrams(rows) == expected


@pytest.mark.parametrize("wrong", [0, 30, 51])
def test_a_reply_is_authentic_only_as_it_was_signed(wrong: int) -> None:
    home = Address(bytes(10) + b"\xff\xff\x0a\0\0\1")
    key, other = Key(1, b"secret of one key", home), Key(1, b"secret of another", home)
    reply = ImsUpdateReply(3, 0, nonce=bytes(8))
    sign(reply, key, 1 << 40)
    true = encode(reply)
    changed = bytearray(true)
    changed[wrong] ^= 1
    rows = np.frombuffer(true + true + bytes(changed), forms.REPLY)
    secrets = [key.secret, other.secret, key.secret]
    assert forms.authentic(rows, secrets).tolist() == [True, False, False]
