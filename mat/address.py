"""Addresses of both families as one type (docs/protocol.md, section 3).

An `Address` is 16 bytes in network order; IPv4 is IPv4-mapped, ::ffff:a.b.c.d (RFC 4291, section
2.5.5.2), which is what lets one IMS and one mapping table serve both families. Prefix lengths are
counted in this 128-bit form everywhere: an IPv4 /24 is 120.
"""

import ipaddress
from typing import Final, NewType

Address = NewType("Address", bytes)

UNSPECIFIED: Final = Address(bytes(16))
"""The address :: of RFC 4291: no address."""
IPV4_PREFIX: Final = bytes(10) + b"\xff\xff"
"""The first 12 bytes of every IPv4 address."""

_EXACT: Final = 128
_ALL_ONES: Final = (1 << 128) - 1
_NETWORK: Final = tuple(_ALL_ONES << (128 - length) & _ALL_ONES for length in range(129))
_HOST: Final = tuple(_ALL_ONES >> length for length in range(129))


def parse_address(text: str) -> Address:
    """The address written as `192.0.2.1`, `2001:db8::1` or `::ffff:192.0.2.1`.

    Raises ValueError when the text is anything else: a name, a prefix, an address with a zone.
    """
    if "%" in text:
        raise ValueError(f"{text!r} has a zone: write the address without '%' and what follows it")
    try:
        packed = ipaddress.ip_address(text).packed
    except ValueError:
        raise ValueError(
            f"{text!r} is not an address: expected IPv4 like 192.0.2.1 or IPv6 like 2001:db8::1"
        ) from None
    return from_ipv4(packed) if len(packed) == 4 else Address(packed)


def format_address(address: Address) -> str:
    """The usual text of an address: dotted for IPv4, shortest form for IPv6 (RFC 5952)."""
    return str(ipaddress.ip_address(to_packed(address)))


def from_ipv4(packed: bytes) -> Address:
    """The address of four bytes of IPv4 in network order."""
    return Address(IPV4_PREFIX + packed)


def is_ipv4(address: Address) -> bool:
    """Whether the address is an IPv4 one."""
    return address.startswith(IPV4_PREFIX)


def to_packed(address: Address) -> bytes:
    """The bytes as the family's own packets carry them: 4 for IPv4, 16 for IPv6."""
    return address[12:] if address.startswith(IPV4_PREFIX) else address


def prefix_of(address: Address, length: int) -> Address:
    """The address with all bits behind the first `length` (0 to 128) cleared."""
    if length == _EXACT:
        return address
    return Address((int.from_bytes(address) & _NETWORK[length]).to_bytes(16))


def in_prefix(address: Address, prefix: Address, length: int) -> bool:
    """Whether two addresses agree in their first `length` (0 to 128) bits."""
    if length == _EXACT:
        return address == prefix
    return (int.from_bytes(address) ^ int.from_bytes(prefix)) <= _HOST[length]


def move_to_prefix(address: Address, prefix: Address, length: int) -> Address:
    """The host behind `length` (0 to 128) bits of `address`, in `prefix`: MoPre translation."""
    if length == _EXACT:
        return prefix
    network = int.from_bytes(prefix) & _NETWORK[length]
    return Address((network | int.from_bytes(address) & _HOST[length]).to_bytes(16))


def is_unicast(address: Address) -> bool:
    """Whether an address can be a host's: not unspecified, loopback, multicast or broadcast."""
    if is_ipv4(address):
        return 0 < address[12] < 224 and address[12] != 127
    return any(address[:15]) and address[0] != 0xFF
