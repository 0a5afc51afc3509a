"""MAT's translation of packets: pure functions, bytes in, bytes out (docs/protocol.md).

Theory of operation. A MAT node exchanges home for mobile addresses in the packets that leave it
and mobile for home addresses in those that arrive. A packet keeps its length and everything but
its addresses and the checksums that cover them. This module knows no mappings: a driver reads the
addresses (`read_addresses`), looks them up, and has them replaced (`translate`).

Checksums are adjusted, not computed. A one's complement sum is a number modulo 0xffff, and since
2**16 is 1 in that arithmetic, the sum over an address is simply its integer value modulo 0xffff,
the ::ffff: of IPv4-mapped addresses counting for nothing. What the addresses add to the sum, the
checksum loses. So a packet that was damaged before stays damaged, by the same amount: no error is
ever repaired into an undetected one. Three rules for zero: a UDP or UDP-Lite checksum of zero says
"none" and stays; one that becomes zero is written 0xffff; other protocols write zero as zero.

The upper layer is found behind IPv4 options and IPv6 extension headers. Its checksum is in the
first fragment; later fragments have addresses only. Checksums must be complete, not left to
hardware: a driver has the kernel finish them (and segment, where it must) before it hands over.

ICMP errors quote the packet that caused them, and the application that is to learn of the error
knows that packet by its home addresses. So the quote is translated like a packet: addresses, IPv4
header checksum, upper-layer checksum where the quote reaches that far; then the checksum of the
ICMP message. A quote that is itself an error is not opened again. What follows the quote (RFC 4884)
is never touched.

Neighbour discovery, multicast listener reports, router messages and redirects speak of the
addresses of one link; home addresses have no meaning there. They are `Refusal.LINK_SCOPE`: pass
them as they came. Every other refusal means: drop and count.

The Mapping Update Option (MUO) of MAT(IPv6) stands alone in a Destination Options header of 24
bytes directly before the upper layer: inserting and removing it are exact inverses.

Follows RFC 791, 792, 768, 9293, 3828, 4340, 4443, 4727, 4884, 6935, 8200; checksums by RFC 1624,
ICMP errors as in RFC 7915, sections 4.2 to 4.5 and 5.2.
"""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, final

from mat.address import IPV4_PREFIX, Address, is_ipv4

MUO_TYPE: Final = 0x1E
"""Option type of the MUO: experimental (RFC 4727), skipped where unknown, not changed en route."""
MUO_IDENTIFIER: Final = b"MA"
"""First two bytes of the option's data, which tell MAT from other experiments."""
MUO_SIZE: Final = 24
"""Bytes that a MUO adds to a packet: a whole Destination Options header."""
MAX_EXTENSION_HEADERS: Final = 8
"""IPv6 extension headers walked over in search of the upper layer."""


@final
class Refusal(enum.Enum):
    """Why a packet cannot be translated. All but `LINK_SCOPE` mean: drop and count."""

    TOO_SHORT = "the packet is shorter than an IP header"
    BAD_VERSION = "the version is neither 4 nor 6"
    LENGTH_MISMATCH = "the length in the IP header is not the length of the packet"
    BAD_HEADER_LENGTH = "the IPv4 header length is below 20 bytes"
    BAD_OPTIONS = "an IPv4 option has an impossible length, so a source route could hide there"
    SOURCE_ROUTE = "an unexpired IPv4 source route: the destination is not the final one"
    ROUTING_HEADER = "an IPv6 routing header with segments left: the destination is not final"
    CHAIN_TOO_LONG = "more IPv6 extension headers than are walked over"
    AUTHENTICATION_HEADER = "an IPsec Authentication Header covers the addresses"
    TRUNCATED = "the packet ends before the headers or the checksum that must be adjusted"
    QUOTE_TRUNCATED = "the packet quoted in an ICMP error ends before its addresses do"
    QUOTE_FAMILY = "what an ICMP error quotes is not a packet of the error's own family"
    MAPPED_ADDRESS = "an IPv6 packet with an IPv4-mapped address, which here means an IPv4 one"
    FAMILY_MISMATCH = "an address is not of the packet's family"
    LINK_SCOPE = "the message concerns addresses of one link: pass it as it came"
    FRAGMENT = "a MUO in one fragment would shift the data of all later ones"
    TOO_BIG = "with the MUO the packet would exceed the MTU"
    MUO_MALFORMED = "the MUO has the wrong length or carries an IPv4 address"


class PacketAddresses(NamedTuple):
    """What a driver looks up: the addresses of a packet and of what it quotes.

    `protocol` is the upper-layer protocol's number, in a later fragment the next header of the
    fragment. The embedded addresses are those of the packet quoted by an ICMP error, and
    `home_address` is the sender's as a MUO gives it; None where there is none.
    """

    source: Address
    destination: Address
    protocol: int
    embedded_source: Address | None = None
    embedded_destination: Address | None = None
    home_address: Address | None = None


def read_addresses(packet: bytes) -> PacketAddresses | Refusal:
    """The addresses that translation of this IPv4 or IPv6 packet is about.

    Refuses what `translate` refuses, whatever the addresses, and a malformed MUO.
    """
    parsed = _parse(packet)
    if type(parsed) is Refusal:
        return parsed
    family, header, quote = parsed
    home_address = _muo_of(packet, header)
    if type(home_address) is Refusal:
        return home_address
    source, destination = family.read(packet, 0)
    if quote is None:
        return PacketAddresses(source, destination, header.protocol, None, None, home_address)
    inner = family.read(packet, quote.start)
    return PacketAddresses(source, destination, header.protocol, *inner, home_address)


def translate(
    packet: bytes,
    source: Address | None,
    destination: Address | None,
    embedded_source: Address | None = None,
    embedded_destination: Address | None = None,
) -> bytes | Refusal:
    """The packet with these addresses in place of its own; checksums that were right are right.

    None leaves an address as it is. The embedded addresses are for the packet that an ICMP error
    quotes and are ignored in any other packet. Length, TTL and hop limit stay. Checksums by
    RFC 1624, ICMP errors by RFC 7915, sections 4.2 to 4.5 and 5.2.
    """
    parsed = _parse(packet)
    if type(parsed) is Refusal:
        return parsed
    family, header, quote = parsed
    addresses = _replacement(packet, family, 0, source, destination)
    if type(addresses) is Refusal:
        return addresses
    translated = bytearray(packet)
    if quote is not None:
        start = quote.start
        embedded = _replacement(packet, family, start, embedded_source, embedded_destination)
        if type(embedded) is Refusal:
            return embedded
        change = _rewrite(translated, family, quote, embedded)
        _adjust(translated, header.upper + _ICMP_CHECKSUM, change)
    _rewrite(translated, family, header, addresses)
    return bytes(translated)


def insert_muo(packet: bytes, home_address: Address, mtu: int) -> bytes | Refusal:
    """The IPv6 packet with a MUO, directly before the upper layer, that carries the home address.

    Refused when the result is longer than `mtu` bytes and for fragments. The MUO has a header of
    its own even where there are destination options already: RFC 8200, section 4.1, has receivers
    accept extension headers any number of times. No checksum covers it.
    """
    parsed = _parse(packet)
    if type(parsed) is Refusal:
        return parsed
    family, header, _ = parsed
    if family is not _IPV6 or is_ipv4(home_address):
        return Refusal.FAMILY_MISMATCH
    if len(packet) + MUO_SIZE > min(mtu, _IPV6.header + _LONGEST_PAYLOAD):
        return Refusal.TOO_BIG
    link = _link_to(packet, header.upper) if header.upper else Refusal.FRAGMENT
    if type(link) is Refusal:
        return link
    option = bytes((packet[link], _MUO_WORDS, MUO_TYPE, _MUO_DATA)) + MUO_IDENTIFIER + bytes(2)
    longer = bytearray(packet)
    longer[link] = _DESTINATION_OPTIONS
    longer[header.upper : header.upper] = option + home_address
    return _if_readable(_with_payload_length(longer))


def read_muo(packet: bytes) -> Address | Refusal | None:
    """The home address in the packet's MUO; None without a MUO, in IPv4 and in later fragments."""
    parsed = _parse(packet)
    if type(parsed) is Refusal:
        return parsed
    return _muo_of(packet, parsed[1])


def remove_muo(packet: bytes) -> bytes | Refusal:
    """The packet without its MUO: the exact inverse of `insert_muo`. Without one, as it is."""
    parsed = _parse(packet)
    if type(parsed) is Refusal:
        return parsed
    _, header, _ = parsed
    home_address = _muo_of(packet, header)
    if home_address is None:
        return packet
    if type(home_address) is Refusal:
        return home_address
    link = _link_to(packet, header.options)
    if type(link) is Refusal:
        return link
    shorter = bytearray(packet)
    shorter[link] = packet[header.options]
    del shorter[header.options : header.upper]
    return _with_payload_length(shorter)


# ---- the parts of a packet ---------------------------------------------------------------------

_HOP_BY_HOP: Final = 0
_ICMP: Final = 1
_TCP: Final = 6
_UDP: Final = 17
_DCCP: Final = 33
_ROUTING: Final = 43
_FRAGMENT: Final = 44
_AUTHENTICATION_HEADER: Final = 51
_ICMPV6: Final = 58
_NO_NEXT_HEADER: Final = 59
_DESTINATION_OPTIONS: Final = 60
_MOBILITY: Final = 135
_UDP_LITE: Final = 136
_HIP: Final = 139
_EXTENSIONS: Final = frozenset((_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION_OPTIONS))
_ZERO_IS_NONE: Final = frozenset((_UDP, _UDP_LITE))

# Where, in the upper-layer header, the checksum is that covers the addresses (the pseudo-header).
# All others (ESP, SCTP, GRE, IP in IP, ICMP in IPv4, ...) have none, or one over their own bytes
# only: their packets need nothing but new addresses.
_CHECKSUMS: Final = {_TCP: 16, _UDP: 6, _UDP_LITE: 6, _DCCP: 6, _HIP: 4}
_ICMP_CHECKSUM: Final = 2
_ICMP_HEADER: Final = 8

_END_OF_OPTIONS: Final = 0
_NO_OPERATION: Final = 1
_SOURCE_ROUTES: Final = frozenset((131, 137))

_LONGEST_PAYLOAD: Final = 0xFFFF
_MUO_WORDS: Final = MUO_SIZE // 8 - 1
_MUO_DATA: Final = MUO_SIZE - 4


class _Header(NamedTuple):
    """Where things are in a packet, or in a quoted one; 0 for what it has not or is cut off."""

    start: int
    protocol: int
    upper: int = 0
    """The upper-layer header; 0 in a later fragment."""
    options: int = 0
    """A Destination Options header directly before the upper layer."""
    checksum: int = 0
    """The upper-layer checksum that covers the addresses."""


@final
@dataclass(frozen=True, slots=True)
class _Family:
    """How IPv4 and IPv6 differ, as far as translation is concerned. Sizes in bytes."""

    version: int
    header: int
    source: int
    """Offset of the source address; the destination follows."""
    width: int
    header_checksum: int
    """Offset of the IP header's own checksum; 0: it has none."""
    read: Callable[[bytes, int], tuple[Address, Address]]
    walk: Callable[[bytes, int, int], tuple[int, int, int] | Refusal]
    """(packet, start, limit) to (protocol, upper, options) as in `_Header`."""
    checksums: Mapping[int, int]
    icmp: int
    errors: Mapping[int, int]
    """ICMP types that quote a packet, each with the offset of RFC 4884's length octet or 0."""
    quote_unit: int
    """What that octet counts in."""
    link_scope: frozenset[int]
    """ICMP types about the addresses of one link."""


def _parse(packet: bytes) -> tuple[_Family, _Header, _Header | None] | Refusal:
    """Family, header and, in an ICMP error, the quoted packet's header."""
    family = _family_of(packet)
    if type(family) is Refusal:
        return family
    header = _find_header(packet, family, 0, len(packet))
    if type(header) is Refusal:
        return header
    if header.protocol != family.icmp or not header.upper:
        return family, header, None
    quote = _find_quote(packet, family, header.upper)
    return quote if type(quote) is Refusal else (family, header, quote)


def _family_of(packet: bytes) -> _Family | Refusal:
    size = len(packet)
    if size < _IPV4.header:
        return Refusal.TOO_SHORT
    version = packet[0] >> 4
    if version == 4:
        return _IPV4 if packet[2] << 8 | packet[3] == size else Refusal.LENGTH_MISMATCH
    if version != 6:
        return Refusal.BAD_VERSION
    if size < _IPV6.header:
        return Refusal.TOO_SHORT
    right = (packet[4] << 8 | packet[5]) + _IPV6.header == size
    return _IPV6 if right else Refusal.LENGTH_MISMATCH


def _find_header(packet: bytes, family: _Family, start: int, limit: int) -> _Header | Refusal:
    found = family.walk(packet, start, limit)
    if type(found) is Refusal:
        return found
    protocol, upper, options = found
    if protocol == _AUTHENTICATION_HEADER:
        return Refusal.AUTHENTICATION_HEADER
    offset = family.checksums.get(protocol)
    if offset is None or not upper:
        return _Header(start, protocol, upper, options)
    at = upper + offset
    if at + 2 > limit:
        return Refusal.TRUNCATED
    if protocol in _ZERO_IS_NONE and packet[at] == packet[at + 1] == 0:
        at = 0
    return _Header(start, protocol, upper, options, at)


def _find_quote(packet: bytes, family: _Family, icmp: int) -> _Header | Refusal | None:
    """The header of the packet that the ICMP message at `icmp` quotes; None: it is no error.

    The quote's own length field is not believed: routers are known to damage it.
    """
    if icmp + _ICMP_CHECKSUM + 2 > len(packet):
        return Refusal.TRUNCATED
    kind = packet[icmp]
    length_octet = family.errors.get(kind)
    if length_octet is None:
        return Refusal.LINK_SCOPE if kind in family.link_scope else None
    start = icmp + _ICMP_HEADER
    limit = len(packet)
    if length_octet and start <= limit and packet[icmp + length_octet]:
        limit = min(limit, start + packet[icmp + length_octet] * family.quote_unit)
    if start + family.header > limit:
        return Refusal.QUOTE_TRUNCATED
    if packet[start] >> 4 != family.version:
        return Refusal.QUOTE_FAMILY
    found = _find_header(packet, family, start, limit)
    return _Header(start, _NO_NEXT_HEADER) if found is Refusal.TRUNCATED else found


def _read_ipv4(packet: bytes, start: int) -> tuple[Address, Address]:
    source = IPV4_PREFIX + packet[start + 12 : start + 16]
    return Address(source), Address(IPV4_PREFIX + packet[start + 16 : start + 20])


def _read_ipv6(packet: bytes, start: int) -> tuple[Address, Address]:
    return Address(packet[start + 8 : start + 24]), Address(packet[start + 24 : start + 40])


def _walk_ipv4(packet: bytes, start: int, limit: int) -> tuple[int, int, int] | Refusal:
    upper = start + (packet[start] & 0x0F) * 4
    if upper != start + 20:
        if upper < start + 20:
            return Refusal.BAD_HEADER_LENGTH
        if upper > limit:
            return Refusal.TRUNCATED
        refusal = _check_options(packet, start + 20, upper)
        if refusal is not None:
            return refusal
    later_fragment = packet[start + 6] & 0x1F or packet[start + 7]
    return packet[start + 9], 0 if later_fragment else upper, 0


def _check_options(packet: bytes, at: int, end: int) -> Refusal | None:
    """Refuses IPv4 options with a source route that is not yet at its end (RFC 791)."""
    while at < end and packet[at] != _END_OF_OPTIONS:
        if packet[at] == _NO_OPERATION:
            at += 1
            continue
        length = packet[at + 1] if at + 1 < end else 0
        if length < 2 or at + length > end:
            return Refusal.BAD_OPTIONS
        if packet[at] in _SOURCE_ROUTES and (length < 3 or packet[at + 2] <= length):
            return Refusal.SOURCE_ROUTE
        at += length
    return None


def _walk_ipv6(packet: bytes, start: int, limit: int) -> tuple[int, int, int] | Refusal:
    starts = packet.startswith
    if starts(IPV4_PREFIX, start + 8) or starts(IPV4_PREFIX, start + 24):
        return Refusal.MAPPED_ADDRESS
    following = packet[start + 6]
    at = start + 40
    options = headers = 0
    while following in _EXTENSIONS:
        headers += 1
        if headers > MAX_EXTENSION_HEADERS:
            return Refusal.CHAIN_TOO_LONG
        if at + 8 > limit:
            return Refusal.TRUNCATED
        if following == _ROUTING and packet[at + 3]:
            return Refusal.ROUTING_HEADER
        if following == _FRAGMENT and (packet[at + 2] or packet[at + 3] & 0xF8):
            return packet[at], 0, 0
        options = at if following == _DESTINATION_OPTIONS else 0
        at, following = at + _extension_size(packet, following, at), packet[at]
    return (following, at, options) if at <= limit else Refusal.TRUNCATED


def _extension_size(packet: bytes, kind: int, at: int) -> int:
    return 8 if kind == _FRAGMENT else 8 + packet[at + 1] * 8


# ---- rewriting ---------------------------------------------------------------------------------


def _replacement(
    packet: bytes,
    family: _Family,
    start: int,
    source: Address | None,
    destination: Address | None,
) -> bytes | Refusal:
    """Source and destination as the packet at `start` is to carry them."""
    at = start + family.source
    width = family.width
    ipv4 = family is _IPV4
    if source is None:
        packed_source = packet[at : at + width]
    elif is_ipv4(source) is ipv4:
        packed_source = source[-width:]
    else:
        return Refusal.FAMILY_MISMATCH
    if destination is None:
        return packed_source + packet[at + width : at + 2 * width]
    if is_ipv4(destination) is ipv4:
        return packed_source + destination[-width:]
    return Refusal.FAMILY_MISMATCH


def _rewrite(packet: bytearray, family: _Family, header: _Header, addresses: bytes) -> int:
    """Put the addresses in and adjust the checksums; by how much the sum over the packet changed.

    All of this lies at even offsets from the start of any checksummed data, so the order of bytes
    in the sum never turns.
    """
    at = header.start + family.source
    end = at + len(addresses)
    delta = (int.from_bytes(addresses) - int.from_bytes(packet[at:end])) % 0xFFFF
    packet[at:end] = addresses
    change = delta
    if family.header_checksum:
        _adjust(packet, header.start + family.header_checksum, delta)
        change -= delta
    if header.checksum:
        _adjust(packet, header.checksum, delta, 0xFFFF if header.protocol in _ZERO_IS_NONE else 0)
        change -= delta
    return change


def _adjust(packet: bytearray, at: int, delta: int, zero: int = 0) -> None:
    """Make good, in the checksum at `at`, that the data's sum grew by `delta` (RFC 1624).

    `zero` is how a checksum of zero is written.
    """
    if delta:
        checksum = ((packet[at] << 8 | packet[at + 1]) - delta) % 0xFFFF or zero
        packet[at] = checksum >> 8
        packet[at + 1] = checksum & 0xFF


# ---- the Mapping Update Option ----------------------------------------------------------------


def _muo_of(packet: bytes, header: _Header) -> Address | Refusal | None:
    """The home address of a MUO that opens the last Destination Options header."""
    at = header.options
    if not at or packet[at + 2] != MUO_TYPE or packet[at + 4 : at + 6] != MUO_IDENTIFIER:
        return None
    if packet[at + 1] != _MUO_WORDS or packet[at + 3] != _MUO_DATA:
        return Refusal.MUO_MALFORMED
    home_address = Address(packet[at + 8 : at + MUO_SIZE])
    return Refusal.MUO_MALFORMED if is_ipv4(home_address) else home_address


def _with_payload_length(packet: bytearray) -> bytes:
    packet[4:6] = (len(packet) - _IPV6.header).to_bytes(2)
    return bytes(packet)


def _if_readable(packet: bytes) -> bytes | Refusal:
    """The packet, unless its receiver would refuse it: the MUO is one extension header more."""
    parsed = _parse(packet)
    return parsed if type(parsed) is Refusal else packet


def _link_to(packet: bytes, target: int) -> int | Refusal:
    """Where the next-header octet is that announces the header at `target`, in a walked chain."""
    link, at = 6, _IPV6.header
    while at != target:
        if packet[link] == _FRAGMENT and packet[at + 3] & 1:
            return Refusal.FRAGMENT
        link, at = at, at + _extension_size(packet, packet[link], at)
    return link


# ---- the two families --------------------------------------------------------------------------

_IPV4: Final = _Family(
    version=4,
    header=20,
    source=12,
    width=4,
    header_checksum=10,
    read=_read_ipv4,
    walk=_walk_ipv4,
    checksums=_CHECKSUMS,
    icmp=_ICMP,
    # Destination unreachable, source quench, time exceeded, parameter problem.
    errors={3: 5, 4: 0, 11: 5, 12: 5},
    quote_unit=4,
    # Redirect, router advertisement and solicitation.
    link_scope=frozenset((5, 9, 10)),
)
_IPV6: Final = _Family(
    version=6,
    header=40,
    source=8,
    width=16,
    header_checksum=0,
    read=_read_ipv6,
    walk=_walk_ipv6,
    checksums=_CHECKSUMS | {_ICMPV6: _ICMP_CHECKSUM, _MOBILITY: 4},
    icmp=_ICMPV6,
    # Destination unreachable, packet too big, time exceeded, parameter problem.
    errors={1: 4, 2: 0, 3: 4, 4: 0},
    quote_unit=8,
    # Multicast listener (1 and 2), neighbour and router discovery, redirect, renumbering, inverse
    # and secure discovery, multicast router discovery.
    link_scope=frozenset((*range(130, 139), 141, 142, 143, 148, 149, 151, 152, 153)),
)
