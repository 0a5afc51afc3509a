"""Addresses against the standard library's `ipaddress`, which the hot functions do without."""

import ipaddress
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mat.address import (
    UNSPECIFIED,
    Address,
    format_address,
    from_ipv4,
    in_prefix,
    is_ipv4,
    move_to_prefix,
    parse_address,
    prefix_of,
    to_packed,
)

ADDRESSES: Final = st.binary(min_size=16, max_size=16).map(Address)
LENGTHS: Final = st.integers(0, 128)


def network(address: Address, length: int) -> ipaddress.IPv6Network:
    return ipaddress.IPv6Network((bytes(address), length), strict=False)


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_text_and_bytes_agree_with_ipaddress(
    expected: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    address = parse_address(str(expected))
    mapped = expected.version == 6 and expected.ipv4_mapped is not None
    assert len(address) == 16
    assert is_ipv4(address) is (expected.version == 4 or mapped)
    assert to_packed(address) == expected.packed or mapped
    assert format_address(address) == str(expected) or mapped


def test_an_ipv4_address_is_ipv4_mapped() -> None:
    address = parse_address("192.0.2.1")
    assert address == bytes.fromhex("00000000000000000000ffffc0000201")
    assert address == parse_address("::ffff:192.0.2.1") == from_ipv4(b"\xc0\x00\x02\x01")
    assert format_address(address) == "192.0.2.1"


def test_the_unspecified_address_is_of_neither_node() -> None:
    assert parse_address("::") == UNSPECIFIED
    assert not is_ipv4(UNSPECIFIED)


@pytest.mark.parametrize(
    "text", ["", "localhost", "192.0.2", "192.0.2.1/24", "2001:db8::/32", "fe80::1%eth0", "1::2::3"]
)
def test_what_is_no_address_is_named_in_the_error(text: str) -> None:
    with pytest.raises(ValueError, match="address") as raised:
        parse_address(text)
    assert repr(text) in str(raised.value)


@given(ADDRESSES, LENGTHS)
def test_prefix_of_agrees_with_ipaddress(address: Address, length: int) -> None:
    assert prefix_of(address, length) == network(address, length).network_address.packed


@given(ADDRESSES, LENGTHS, LENGTHS)
def test_in_prefix_agrees_with_ipaddress(address: Address, differing: int, length: int) -> None:
    flipped = int.from_bytes(address) ^ (1 << 127 >> differing)
    other = Address(flipped.to_bytes(16))
    inside = ipaddress.IPv6Address(bytes(other)) in network(address, length)
    assert in_prefix(other, address, length) is inside


@given(ADDRESSES, ADDRESSES, LENGTHS)
def test_a_moved_host_is_in_the_new_prefix_with_its_old_host_bits(
    address: Address, prefix: Address, length: int
) -> None:
    moved = move_to_prefix(address, prefix, length)
    assert in_prefix(moved, prefix, length)
    assert move_to_prefix(moved, address, length) == address


def test_a_mobile_prefix_carries_a_whole_ipv4_network_in_the_128_bit_form() -> None:
    host = parse_address("192.0.2.77")
    moved = move_to_prefix(host, parse_address("198.51.100.200"), 96 + 24)
    assert format_address(moved) == "198.51.100.77"
