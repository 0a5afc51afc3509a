"""The IMS record: where the DNS says which servers hold a home address's mapping.

It stands in the reverse zone of the HoA, where the PTR is. No type was ever assigned: 65338 is of
the private range (RFC 6895), so a server needs to know nothing but RFC 3597's generic form. The
layout follows AMTRELAY (RFC 8777): precedence, a kind, then addresses or a name; docs/protocol.md,
section 7.
"""

from dataclasses import dataclass
from struct import Struct
from typing import Final, final

from mat.address import Address, format_address, from_ipv4, is_ipv4, parse_address, to_packed
from mat.messages import MAT_PORT

IMS_RECORD_TYPE: Final = 65338
MAX_ADDRESSES: Final = 8
"""Addresses of one record; more replicas than that are more records."""

_IPV4, _IPV6, _NAME = 1, 2, 3
_HEAD: Final = Struct("!BBH")
_MAX_NAME: Final = 255
_MAX_LABEL: Final = 63


class RecordError(ValueError):
    """RDATA or text that is no IMS record; says what is wrong and what would be right."""


@final
@dataclass(slots=True, frozen=True)
class ImsRecord:
    """One IMS: lower `precedence` is preferred; either addresses (of one family) or a DNS name."""

    precedence: int
    port: int
    addresses: tuple[Address, ...] = ()
    name: str = ""

    def to_rdata(self) -> bytes:
        """Wire form, as in a DNS answer."""
        if self.name:
            return _HEAD.pack(self.precedence, _NAME, self.port) + _name_to_wire(self.name)
        kind = _IPV4 if is_ipv4(self.addresses[0]) else _IPV6
        packed = b"".join(to_packed(address) for address in self.addresses)
        return _HEAD.pack(self.precedence, kind, self.port) + packed

    def to_text(self) -> str:
        """Presentation form: precedence, port, then addresses or a name with its final dot."""
        where = self.name or " ".join(format_address(address) for address in self.addresses)
        return f"{self.precedence} {self.port} {where}"

    def to_generic_text(self) -> str:
        """RFC 3597 presentation form, for a server that does not know the type."""
        rdata = self.to_rdata()
        return f"\\# {len(rdata)} {rdata.hex()}"


def from_rdata(rdata: bytes) -> ImsRecord:
    """The record in RDATA. Raises `RecordError`."""
    if len(rdata) < _HEAD.size:
        raise RecordError(f"IMS record of {len(rdata)} bytes; it starts with {_HEAD.size}")
    precedence, kind, port = _HEAD.unpack_from(rdata)
    rest = rdata[_HEAD.size :]
    if port == 0:
        raise RecordError("port 0 in an IMS record; a port is 1 to 65535")
    if kind == _NAME:
        return ImsRecord(precedence, port, name=_name_from_wire(rest))
    if kind not in (_IPV4, _IPV6):
        raise RecordError(f"kind {kind} in an IMS record; 1 is IPv4, 2 is IPv6, 3 is a name")
    size = 4 if kind == _IPV4 else 16
    count, left_over = divmod(len(rest), size)
    if left_over or not 1 <= count <= MAX_ADDRESSES:
        raise RecordError(f"{len(rest)} bytes of addresses; 1 to {MAX_ADDRESSES} times {size} fit")
    parts = (rest[i : i + size] for i in range(0, len(rest), size))
    addresses = tuple(_from_packed(part) for part in parts)
    if kind == _IPV6 and any(is_ipv4(address) for address in addresses):
        raise RecordError("IPv4-mapped address in an IMS record of kind 2; IPv4 is kind 1")
    return ImsRecord(precedence, port, addresses)


def from_text(text: str) -> ImsRecord:
    """The record in presentation form. Raises `RecordError`."""
    match text.split():
        case [precedence, port, *where] if where:
            pass
        case _:
            raise RecordError(f"{text!r}: precedence, port, then addresses or a name are needed")
    level = _number(precedence, "precedence", 0, 255)
    number = _number(port, "port", 1, 65535)
    if len(where) == 1 and where[0].endswith("."):
        _name_to_wire(where[0])
        return ImsRecord(level, number, name=where[0])
    try:
        addresses = tuple(parse_address(part) for part in where)
    except ValueError as error:
        raise RecordError(f"{text!r}: {error}; a name ends with a dot") from None
    if len({is_ipv4(a) for a in addresses}) != 1 or len(addresses) > MAX_ADDRESSES:
        raise RecordError(f"{text!r}: one record holds up to {MAX_ADDRESSES} addresses of a family")
    return ImsRecord(level, number, addresses)


def reverse_name(home_address: Address) -> str:
    """The name in in-addr.arpa or ip6.arpa where the IMS record of a home address stands."""
    packed = to_packed(home_address)
    if len(packed) == 4:
        return ".".join(str(octet) for octet in reversed(packed)) + ".in-addr.arpa."
    return ".".join(reversed(packed.hex())) + ".ip6.arpa."


def record(*addresses: str, precedence: int = 10, port: int = MAT_PORT) -> ImsRecord:
    """A record from addresses as text, with the usual precedence and port."""
    return ImsRecord(precedence, port, tuple(parse_address(address) for address in addresses))


def _from_packed(packed: bytes) -> Address:
    return from_ipv4(packed) if len(packed) == 4 else Address(packed)


def _number(text: str, what: str, low: int, high: int) -> int:
    digits = text.isascii() and text.isdigit() and len(text) <= len(str(high))
    if not digits or not low <= int(text) <= high:
        raise RecordError(f"{what} {text!r}: a whole number from {low} to {high} is needed")
    return int(text)


def _name_to_wire(name: str) -> bytes:
    labels = name.removesuffix(".").split(".")
    printable = all("!" <= character <= "~" for character in name)
    if not printable or not all(1 <= len(label) <= _MAX_LABEL for label in labels):
        raise RecordError(f"name {name!r}: ASCII labels of 1 to {_MAX_LABEL} characters are needed")
    wire = b"".join(bytes((len(label),)) + label.encode("ascii") for label in labels) + b"\0"
    if len(wire) > _MAX_NAME:
        raise RecordError(f"name {name!r}: longer than {_MAX_NAME} bytes")
    return wire


def _name_from_wire(wire: bytes) -> str:
    labels: list[str] = []
    start = 0
    while start < len(wire) and wire[start]:
        end = start + 1 + wire[start]
        if wire[start] > _MAX_LABEL or end >= len(wire):
            raise RecordError("name in an IMS record is cut off or compressed")
        label = wire[start + 1 : end]
        if not all(0x21 <= octet < 0x7F and octet != ord(".") for octet in label):
            raise RecordError("name in an IMS record has octets that no host name has")
        labels.append(label.decode("ascii"))
        start = end
    if not labels or start + 1 != len(wire) or len(wire) > _MAX_NAME:
        raise RecordError("name in an IMS record is empty, too long, or followed by more")
    return ".".join(labels) + "."
