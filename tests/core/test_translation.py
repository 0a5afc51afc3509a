"""Translation against scapy, which builds every expected packet and checksum from nothing.

The central statement: a packet built with one pair of addresses and translated to another is, byte
for byte, the packet built with the other. scapy computes checksums over the whole packet; the
translation adjusts them by the difference of the addresses.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final, NamedTuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP, in4_chksum
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, in6_chksum
from scapy.packet import Packet as ScapyPacket
from scapy.packet import Raw
from scapy.utils import checksum as internet_checksum

from mat.address import Address, format_address, from_ipv4, parse_address, to_packed
from mat.translation import (
    MAX_EXTENSION_HEADERS,
    MUO_SIZE,
    PacketAddresses,
    Refusal,
    insert_muo,
    read_addresses,
    read_muo,
    remove_muo,
    translate,
)


class Ends(NamedTuple):
    source: Address
    destination: Address

    @property
    def reversed(self) -> "Ends":
        return Ends(self.destination, self.source)


def ends(source: str, destination: str) -> Ends:
    return Ends(parse_address(source), parse_address(destination))


HOME: Final = {
    4: ends("192.0.2.1", "198.51.100.2"),
    6: ends("2001:db8:1::1", "2001:db8:2::2"),
}
MOBILE: Final = {
    4: ends("10.1.2.3", "172.16.200.4"),
    6: ends("2001:db8:aaaa::1", "2001:db8:bbbb:cccc::2"),
}
HOME_ADDRESS: Final = HOME[6].source
ICMP: Final = {4: 1, 6: 58}
FULL_CHECKSUM: Final[dict[int, Callable[..., int]]] = {4: in4_chksum, 6: in6_chksum}
IP_HEADER: Final = {4: 20, 6: 40}
LONG: Final = 65_575
"""An MTU that keeps nothing out."""

# Protocol number, length of the header and offset of its checksum, for those scapy has no layer of.
BARE: Final = {
    "DCCP": (33, 16, 6),
    "UDP-Lite": (136, 8, 6),
    "HIP": (139, 8, 4),
    "Mobility": (135, 8, 4),
}
OPAQUE: Final = {"IP in IP": 4, "GRE": 47, "ESP": 50, "no next header": 59, "SCTP": 132}
CHECKSUM_AT: Final = {
    "TCP": 16,
    "UDP": 6,
    "ICMPv6": 2,
    **{name: offset for name, (_, _, offset) in BARE.items()},
}
KINDS: Final = {
    4: ["TCP", "UDP", "UDP without checksum", "ICMP", "DCCP", "UDP-Lite", "HIP", *OPAQUE],
    6: ["TCP", "UDP", "UDP without checksum", "ICMPv6", *BARE, *OPAQUE],
}
OPTIONS: Final = {
    "router alert": b"\x94\x04\x00\x00",
    "source route at its end": b"\x83\x07\x08\x0a\x00\x00\x01\x00",
    "record route": b"\x01\x07\x07\x04\x00\x00\x00\x00",
}
EXTENSIONS: Final = {
    "hop-by-hop": (0, b"\x00\x05\x02\x00\x00\x01\x00"),
    "routing, no segments left": (43, b"\x02\x00\x00" + bytes(20)),
    "atomic fragment": (44, b"\x07\x00\x00\x01\x02\x03\x04"),
    "destination options": (60, b"\x01\x01\x0c" + bytes(12)),
}


# ---- building packets --------------------------------------------------------------------------


def network(version: int, pair: Ends, protocol: int) -> ScapyPacket:
    if version == 4:
        source, destination = map(format_address, pair)
        return IP(src=source, dst=destination, proto=protocol)
    source, destination = (str(IPv6Address(bytes(address))) for address in pair)
    return IPv6(src=source, dst=destination, nh=protocol)


def full_checksum(version: int, pair: Ends, protocol: int, data: bytes) -> int:
    return FULL_CHECKSUM[version](protocol, network(version, pair, protocol), data)


def put(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + struct.pack("!H", value) + data[at + 2 :]


def scapy_layer(version: int, pair: Ends, layer: ScapyPacket, payload: bytes) -> tuple[int, bytes]:
    protocol = 6 if isinstance(layer, TCP) else 17
    packet = bytes(network(version, pair, protocol) / layer / Raw(payload))
    return protocol, packet[IP_HEADER[version] :]


def icmp_message(version: int, pair: Ends, head: bytes, body: bytes) -> bytes:
    """`head` is the eight bytes of the ICMP header, its checksum still zero."""
    message = head + body
    if version == 4:
        return put(message, 2, internet_checksum(message))
    return put(message, 2, full_checksum(6, pair, 58, message))


def upper_layer(version: int, pair: Ends, kind: str, payload: bytes) -> tuple[int, bytes]:
    if kind == "TCP":
        return scapy_layer(version, pair, TCP(sport=5060, dport=80, seq=7), payload)
    if kind == "UDP":
        return scapy_layer(version, pair, UDP(sport=5060, dport=53), payload)
    if kind == "UDP without checksum":
        return scapy_layer(version, pair, UDP(sport=5060, dport=53, chksum=0), payload)
    if kind in {"ICMP", "ICMPv6"}:
        echo = bytes((8 if version == 4 else 128, 0, 0, 0, 1, 2, 3, 4))
        return ICMP[version], icmp_message(version, pair, echo, payload)
    if kind in OPAQUE:
        return OPAQUE[kind], payload
    protocol, size, offset = BARE[kind]
    data = bytes(range(size)) + payload
    computed = full_checksum(version, pair, protocol, put(data, offset, 0))
    return protocol, put(data, offset, computed or (0xFFFF if kind == "UDP-Lite" else 0))


def chained(names: tuple[str, ...], protocol: int) -> tuple[int, bytes]:
    """IPv6 extension headers before `protocol`: the first one's number, and their bytes."""
    headers = b""
    following = protocol
    for name in reversed(names):
        kind, body = EXTENSIONS[name]
        headers = bytes((following,)) + body + headers
        following = kind
    return following, headers


def ipv4(pair: Ends, protocol: int, data: bytes, options: bytes = b"", fragment: int = 0) -> bytes:
    """`fragment` is flags and offset as the header has them."""
    head = struct.pack(
        "!BBHHHBBH",
        0x45 + len(options) // 4,
        0,
        20 + len(options) + len(data),
        0x1234,
        fragment,
        64,
        protocol,
        0,
    )
    header = head + b"".join(map(to_packed, pair)) + options
    return put(header, 10, internet_checksum(header)) + data


def ipv6(pair: Ends, protocol: int, data: bytes) -> bytes:
    return bytes(network(6, pair, protocol) / Raw(data))


@dataclass(frozen=True)
class Packet:
    """A packet but for its addresses. `extras` names IPv4 options or IPv6 extension headers."""

    version: int
    kind: str
    payload: bytes = b"payload"
    extras: tuple[str, ...] = ()

    def build(self, pair: Ends) -> bytes:
        protocol, data = upper_layer(self.version, pair, self.kind, self.payload)
        if self.version == 4:
            return ipv4(pair, protocol, data, b"".join(OPTIONS[name] for name in self.extras))
        first, headers = chained(self.extras, protocol)
        return ipv6(pair, first, headers + data)

    @property
    def upper(self) -> int:
        if self.version == 4:
            return 20 + sum(len(OPTIONS[name]) for name in self.extras)
        return 40 + len(chained(self.extras, 0)[1])

    @property
    def checksum(self) -> int | None:
        offset = CHECKSUM_AT.get(self.kind)
        return None if offset is None else self.upper + offset


@dataclass(frozen=True)
class IcmpError:
    """An ICMP error that quotes `inner`, up to `cut` bytes of it or in RFC 4884's form."""

    inner: Packet
    kind: int
    cut: int
    extended: bool = False

    def build(self, outer: Ends, inner: Ends) -> bytes:
        version = self.inner.version
        quote = self.inner.build(inner)[: self.cut]
        head = bytearray((self.kind, 0, 0, 0, 0, 0, 0, 0))
        if self.kind not in EXTENDED_ERRORS[version]:
            head[4:8] = b"\x01\x01\x01\x01"
        if self.extended:
            head[5 if version == 4 else 4] = 128 // (4 if version == 4 else 8)
            quote = self.inner.build(inner)[:128].ljust(128, b"\0") + EXTENSION_STRUCTURE
        message = icmp_message(version, outer, bytes(head), quote)
        if version == 4:
            return ipv4(outer, ICMP[4], message)
        return ipv6(outer, ICMP[6], message)


EXTENSION_STRUCTURE: Final = bytes.fromhex("2000dfff0008010112345678")
ERRORS: Final = {4: [3, 4, 11, 12], 6: [1, 2, 3, 4]}
EXTENDED_ERRORS: Final = {4: [3, 11, 12], 6: [1, 3]}

VERSIONS: Final = st.sampled_from([4, 6])
PAYLOADS: Final = st.binary(max_size=70)
IPV4: Final = st.binary(min_size=4, max_size=4).map(from_ipv4)
IPV6: Final = st.binary(min_size=16, max_size=16).map(Address)


def pairs(version: int) -> st.SearchStrategy[Ends]:
    address = IPV4 if version == 4 else IPV6
    return st.builds(Ends, address, address)


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    version = draw(VERSIONS)
    kind = draw(st.sampled_from(KINDS[version]))
    names = st.sampled_from(sorted(OPTIONS if version == 4 else EXTENSIONS))
    return Packet(version, kind, draw(PAYLOADS), tuple(draw(st.lists(names, max_size=3))))


@st.composite
def icmp_errors(draw: st.DrawFn) -> IcmpError:
    inner = draw(packets())
    version = inner.version
    if draw(st.booleans()):
        return IcmpError(inner, draw(st.sampled_from(EXTENDED_ERRORS[version])), 0, extended=True)
    whole = len(inner.build(HOME[version]))
    cut = draw(st.integers(IP_HEADER[version], whole))
    # Half a checksum in the quote is left as it is; no node can tell.
    assume(inner.checksum is None or cut != inner.checksum + 1)
    return IcmpError(inner, draw(st.sampled_from(ERRORS[version])), cut)


# ---- addresses and checksums -------------------------------------------------------------------


@given(packets(), st.data())
def test_a_translated_packet_is_the_packet_built_with_the_other_addresses(
    packet: Packet, data: st.DataObject
) -> None:
    home, mobile = data.draw(pairs(packet.version)), data.draw(pairs(packet.version))
    assert translate(packet.build(home), *mobile) == packet.build(mobile)


@pytest.mark.parametrize(
    ("version", "kind"), [(version, kind) for version, kinds in KINDS.items() for kind in kinds]
)
@pytest.mark.parametrize("payload", [b"", b"x", b"even", bytes(1400)])
def test_every_protocol_there_and_back(version: int, kind: str, payload: bytes) -> None:
    packet = Packet(version, kind, payload)
    there = translate(packet.build(HOME[version]), *MOBILE[version])
    assert there == packet.build(MOBILE[version])
    assert translate(packet.build(MOBILE[version]), *HOME[version]) == packet.build(HOME[version])


@pytest.mark.parametrize("version", [4, 6])
def test_none_leaves_an_address_as_it_is(version: int) -> None:
    packet = Packet(version, "TCP")
    home, mobile = HOME[version], MOBILE[version]
    built = packet.build(home)
    assert translate(built, None, None) == built
    unusual = put(built, IP_HEADER[version] + CHECKSUM_AT["TCP"], 0xFFFF)
    assert translate(unusual, None, None) == unusual
    half = packet.build(Ends(home.source, mobile.destination))
    assert translate(built, None, mobile.destination) == half
    half = packet.build(Ends(mobile.source, home.destination))
    assert translate(built, mobile.source, None) == half


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("kind", "written"), [("UDP", 0xFFFF), ("UDP-Lite", 0xFFFF), ("TCP", 0)])
def test_a_checksum_that_becomes_zero(version: int, kind: str, written: int) -> None:
    """The payload's last word is chosen so that the sum comes out as zero under MOBILE."""
    at = IP_HEADER[version] + CHECKSUM_AT[kind]
    zero_sum = Packet(version, kind, bytes(2)).build(MOBILE[version])[at : at + 2]
    packet = Packet(version, kind, zero_sum)
    there = packet.build(MOBILE[version])
    assert there[at : at + 2] == written.to_bytes(2)
    assert translate(packet.build(HOME[version]), *MOBILE[version]) == there
    assert translate(there, *HOME[version]) == packet.build(HOME[version])


@given(packets(), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_a_wrong_checksum_stays_wrong_by_as_much(packet: Packet, wrong: int, header: int) -> None:
    version, at = packet.version, packet.checksum
    assume(at is not None)
    assert at is not None
    assume(wrong or not packet.kind.startswith("UDP"))
    damaged = put(packet.build(HOME[version]), at, wrong)
    if version == 4:
        damaged = put(damaged, 10, header)
    translated = translate(damaged, *MOBILE[version])
    assert isinstance(translated, bytes)

    def residue(data: bytes, pair: Ends) -> tuple[int, int]:
        protocol = upper_layer(version, pair, packet.kind, b"")[0]
        whole = full_checksum(version, pair, protocol, data[packet.upper :])
        own = internet_checksum(data[: packet.upper]) if version == 4 else 0
        return whole % 0xFFFF, own % 0xFFFF

    assert residue(translated, MOBILE[version]) == residue(damaged, HOME[version])


@given(packets(), st.data())
def test_a_damaged_payload_is_not_covered_up(packet: Packet, data: st.DataObject) -> None:
    assume(packet.payload)
    flipped = data.draw(st.integers(1, 255))

    def damage(built: bytes) -> bytes:
        return built[:-1] + bytes((built[-1] ^ flipped,))

    home, mobile = HOME[packet.version], MOBILE[packet.version]
    assert translate(damage(packet.build(home)), *mobile) == damage(packet.build(mobile))


# ---- fragments ---------------------------------------------------------------------------------


def fragments(packet: Packet, pair: Ends, cut: int) -> list[bytes]:
    """Two fragments of a packet without extras, cut `cut` bytes (a multiple of 8) into it."""
    protocol, data = upper_layer(packet.version, pair, packet.kind, packet.payload)
    if packet.version == 4:
        first = ipv4(pair, protocol, data[:cut], fragment=0x2000)
        return [first, ipv4(pair, protocol, data[cut:], fragment=cut // 8)]
    heads = (struct.pack("!BBHI", protocol, 0, field, 99) for field in (1, cut))
    parts = (data[:cut], data[cut:])
    return [ipv6(pair, 44, head + part) for head, part in zip(heads, parts, strict=True)]


@given(packets(), st.sampled_from([24, 32, 2048]))
def test_only_the_first_fragment_has_its_checksum_adjusted(packet: Packet, cut: int) -> None:
    packet = Packet(packet.version, packet.kind, packet.payload.ljust(cut + 40, b"."))
    home, mobile = HOME[packet.version], MOBILE[packet.version]
    translated = [translate(fragment, *mobile) for fragment in fragments(packet, home, cut)]
    assert translated == fragments(packet, mobile, cut)


@pytest.mark.parametrize("version", [4, 6])
def test_a_first_fragment_too_short_for_the_checksum_is_refused(version: int) -> None:
    first, later = fragments(Packet(version, "TCP"), HOME[version], 8)
    assert translate(first, *MOBILE[version]) is Refusal.TRUNCATED
    assert isinstance(translate(later, *MOBILE[version]), bytes)


# ---- ICMP errors -------------------------------------------------------------------------------


@given(icmp_errors(), st.data())
def test_an_icmp_error_is_translated_with_the_packet_it_quotes(
    error: IcmpError, data: st.DataObject
) -> None:
    pair = pairs(error.inner.version)
    before, quoted_before, after, quoted_after = (data.draw(pair) for _ in range(4))
    translated = translate(error.build(before, quoted_before), *after, *quoted_after)
    assert translated == error.build(after, quoted_after)


@pytest.mark.parametrize("version", [4, 6])
def test_quoted_addresses_stay_when_none_are_given(version: int) -> None:
    error = IcmpError(Packet(version, "UDP"), ERRORS[version][0], 60)
    home, mobile = HOME[version], MOBILE[version]
    translated = translate(error.build(mobile, mobile.reversed), *home)
    assert translated == error.build(home, mobile.reversed)


@pytest.mark.parametrize("version", [4, 6])
def test_a_quote_that_is_an_error_is_not_opened_again(version: int) -> None:
    """Its own quote keeps its addresses; its checksum follows its own addresses only."""
    home, mobile = HOME[version], MOBILE[version]

    def nested(outer: Ends, middle: Ends) -> bytes:
        innermost = Packet(version, "UDP").build(mobile)
        head = bytes((ERRORS[version][0], 0, 0, 0, 0, 0, 0, 0))
        build = ipv4 if version == 4 else ipv6
        message = icmp_message(version, middle, head, innermost)
        quote = build(middle, ICMP[version], message)
        return build(outer, ICMP[version], icmp_message(version, outer, head, quote))

    translated = translate(nested(mobile, mobile.reversed), *home, *home.reversed)
    assert translated == nested(home, home.reversed)


@pytest.mark.parametrize(
    ("version", "kind"), [(v, kind) for v, kinds in EXTENDED_ERRORS.items() for kind in kinds]
)
def test_what_follows_a_quote_is_not_taken_for_its_checksum(version: int, kind: int) -> None:
    """The quote ends before the TCP checksum and RFC 4884 data follows at once."""
    long_options = bytes((6, 11, 1, 92)) + bytes(92)

    def build(pair: Ends) -> bytes:
        if version == 4:
            quote = Packet(4, "TCP").build(pair.reversed)[:36]
            head = bytes((kind, 0, 0, 0, 0, 9, 0, 0))
        else:
            quote = ipv6(pair.reversed, 60, long_options)[:128]
            head = bytes((kind, 0, 0, 0, 16, 0, 0, 0))
        message = icmp_message(version, pair, head, quote + b"\xaa" * 64)
        return (ipv4 if version == 4 else ipv6)(pair, ICMP[version], message)

    home = HOME[version]
    translated = translate(build(MOBILE[version]), *home, *home.reversed)
    assert translated == build(home)


# ---- what a driver looks up --------------------------------------------------------------------


@given(packets(), st.data())
def test_the_addresses_of_a_packet_are_read(packet: Packet, data: st.DataObject) -> None:
    pair = data.draw(pairs(packet.version))
    protocol = upper_layer(packet.version, pair, packet.kind, b"")[0]
    assert read_addresses(packet.build(pair)) == PacketAddresses(*pair, protocol)


@given(icmp_errors(), st.data())
def test_the_addresses_of_an_icmp_error_include_those_quoted(
    error: IcmpError, data: st.DataObject
) -> None:
    version = error.inner.version
    outer, inner = data.draw(pairs(version)), data.draw(pairs(version))
    expected = PacketAddresses(*outer, ICMP[version], *inner)
    assert read_addresses(error.build(outer, inner)) == expected


# ---- what is refused ---------------------------------------------------------------------------


def udp4(options: bytes = b"") -> bytes:
    return ipv4(HOME[4], 17, upper_layer(4, HOME[4], "UDP", b"payload")[1], options)


def chain6(following: int, headers: bytes) -> bytes:
    return ipv6(HOME[6], following, headers + upper_layer(6, HOME[6], "UDP", b"payload")[1])


def icmp4(kind: int, body: bytes, word: bytes = bytes(4)) -> bytes:
    return ipv4(HOME[4], 1, icmp_message(4, HOME[4], bytes((kind, 0, 0, 0)) + word, body))


def icmp6(kind: int, body: bytes) -> bytes:
    return ipv6(HOME[6], 58, icmp_message(6, HOME[6], bytes((kind, 0, 0, 0, 0, 0, 0, 0)), body))


QUOTE4: Final = Packet(4, "UDP").build(HOME[4])
QUOTE6: Final = Packet(6, "UDP").build(HOME[6])
PADDING: Final = bytes.fromhex("010400000000")

REFUSED: Final = {
    "nothing": (b"", Refusal.TOO_SHORT),
    "19 bytes of IPv4": (udp4()[:19], Refusal.TOO_SHORT),
    "39 bytes of IPv6": (QUOTE6[:39], Refusal.TOO_SHORT),
    "version 5": (b"\x55" + udp4()[1:], Refusal.BAD_VERSION),
    "IPv4 with link padding": (udp4() + b"\0", Refusal.LENGTH_MISMATCH),
    "IPv4 cut off": (udp4()[:-1], Refusal.LENGTH_MISMATCH),
    "IPv6 with link padding": (QUOTE6 + b"\0", Refusal.LENGTH_MISMATCH),
    "IPv6 cut off": (QUOTE6[:-1], Refusal.LENGTH_MISMATCH),
    "IPv4 header of 16 bytes": (b"\x44" + udp4()[1:], Refusal.BAD_HEADER_LENGTH),
    "IPv4 header longer than the packet": (
        b"\x4f" + ipv4(HOME[4], 17, bytes(8))[1:],
        Refusal.TRUNCATED,
    ),
    "IPv4 option of length 1": (udp4(b"\x94\x01\x00\x00"), Refusal.BAD_OPTIONS),
    "IPv4 option beyond the header": (udp4(b"\x94\x05\x00\x00"), Refusal.BAD_OPTIONS),
    "IPv4 option without its length, nothing behind": (
        ipv4(HOME[4], 59, b"", b"\x01\x01\x01\x94"),
        Refusal.BAD_OPTIONS,
    ),
    "loose source route": (udp4(b"\x83\x07\x04\x0a\x00\x00\x01\x00"), Refusal.SOURCE_ROUTE),
    "strict source route": (udp4(b"\x01\x89\x07\x04\x0a\x00\x00\x01"), Refusal.SOURCE_ROUTE),
    "source route whose pointer is in its last address": (
        udp4(b"\x83\x07\x07\x0a\x00\x00\x01\x00"),
        Refusal.SOURCE_ROUTE,
    ),
    "source route without pointer": (udp4(b"\x01\x01\x83\x02"), Refusal.SOURCE_ROUTE),
    "routing header, one segment left": (
        chain6(43, b"\x11\x02\x00\x01" + bytes(20)),
        Refusal.ROUTING_HEADER,
    ),
    "nine extension headers": (
        chain6(60, (b"\x3c\x00" + PADDING) * 8 + b"\x11\x00" + PADDING),
        Refusal.CHAIN_TOO_LONG,
    ),
    "extension header beyond the packet": (chain6(60, b"\x11\xff" + PADDING), Refusal.TRUNCATED),
    "extension header beyond the packet, no upper layer": (
        ipv6(HOME[6], 60, b"\x3b\x01" + PADDING),
        Refusal.TRUNCATED,
    ),
    "extension header cut off": (ipv6(HOME[6], 60, b"\x3b\x00\x01"), Refusal.TRUNCATED),
    "AH in IPv4": (ipv4(HOME[4], 51, bytes(24)), Refusal.AUTHENTICATION_HEADER),
    "AH in IPv6": (chain6(51, b"\x11\x04" + bytes(22)), Refusal.AUTHENTICATION_HEADER),
    "UDP header cut off": (ipv4(HOME[4], 17, bytes(7)), Refusal.TRUNCATED),
    "TCP header cut off": (ipv6(HOME[6], 6, bytes(17)), Refusal.TRUNCATED),
    "ICMP header cut off": (ipv4(HOME[4], 1, b"\x08\x00\x00"), Refusal.TRUNCATED),
    "ICMP error with 19 bytes of quote": (icmp4(3, QUOTE4[:19]), Refusal.QUOTE_TRUNCATED),
    "ICMPv6 error with 39 bytes of quote": (icmp6(1, QUOTE6[:39]), Refusal.QUOTE_TRUNCATED),
    "ICMP error without a quote": (
        ipv4(HOME[4], 1, b"\x03\x00\x00\x00\x00"),
        Refusal.QUOTE_TRUNCATED,
    ),
    "ICMP error whose quote ends in its header": (
        icmp4(3, QUOTE4, b"\x00\x04\x00\x00"),
        Refusal.QUOTE_TRUNCATED,
    ),
    "ICMP error quoting IPv6": (icmp4(3, QUOTE6), Refusal.QUOTE_FAMILY),
    "ICMPv6 error quoting IPv4": (icmp6(1, QUOTE4 + bytes(9)), Refusal.QUOTE_FAMILY),
    "ICMP error quoting AH": (
        icmp4(3, ipv4(HOME[4], 51, bytes(24))),
        Refusal.AUTHENTICATION_HEADER,
    ),
    "IPv6 from an IPv4-mapped source": (
        ipv6(Ends(HOME[4].source, HOME[6].destination), 59, b""),
        Refusal.MAPPED_ADDRESS,
    ),
    "IPv6 to an IPv4-mapped destination": (
        ipv6(Ends(HOME[6].source, HOME[4].destination), 59, b""),
        Refusal.MAPPED_ADDRESS,
    ),
    "ICMPv6 error quoting an IPv4-mapped source": (
        icmp6(1, ipv6(Ends(HOME[4].source, HOME[6].destination), 59, b"")),
        Refusal.MAPPED_ADDRESS,
    ),
    **{
        f"ICMP type {kind} (redirect, router discovery)": (icmp4(kind, QUOTE4), Refusal.LINK_SCOPE)
        for kind in (5, 9, 10)
    },
    **{
        f"ICMPv6 type {kind} (neighbours, routers, listeners)": (
            icmp6(kind, bytes(32)),
            Refusal.LINK_SCOPE,
        )
        for kind in (*range(130, 139), 141, 142, 143, 148, 149, 151, 152, 153)
    },
}


@pytest.mark.parametrize(("packet", "refusal"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(packet: bytes, refusal: Refusal) -> None:
    version = 6 if packet[:1] >= b"\x60" else 4
    pair = MOBILE[version]
    assert read_addresses(packet) is refusal
    assert translate(packet, *pair, *pair) is refusal
    assert remove_muo(packet) is refusal
    assert read_muo(packet) is refusal
    assert insert_muo(packet, HOME_ADDRESS, LONG) is refusal


@pytest.mark.parametrize("version", [4, 6])
def test_an_address_of_the_other_family_is_refused(version: int) -> None:
    error = IcmpError(Packet(version, "UDP"), ERRORS[version][0], 60)
    packet = error.build(HOME[version], MOBILE[version])
    other = MOBILE[10 - version].source
    for place in range(4):
        addresses: list[Address | None] = [None] * 4
        addresses[place] = other
        assert translate(packet, *addresses) is Refusal.FAMILY_MISMATCH


def test_unknown_icmp_types_have_their_own_addresses_translated_only() -> None:
    for kind in (0, 8, 13, 42):
        packet = icmp4(kind, QUOTE4)
        translated = translate(packet, *MOBILE[4], *MOBILE[4])
        assert translated == ipv4(MOBILE[4], 1, packet[20:])


# ---- the Mapping Update Option -----------------------------------------------------------------


def muo_after(packet: bytes) -> bytes:
    inserted = insert_muo(packet, HOME_ADDRESS, LONG)
    assert isinstance(inserted, bytes)
    return inserted


def ipv6_packets() -> st.SearchStrategy[Packet]:
    return packets().filter(lambda packet: packet.version == 6)


def test_the_muo_byte_for_byte() -> None:
    packet = Packet(6, "UDP", extras=("hop-by-hop",))
    inserted = muo_after(packet.build(MOBILE[6]))
    header = bytes.fromhex("11 02 1e 14 4d41 0000") + HOME_ADDRESS
    assert inserted[48 : 48 + MUO_SIZE] == header
    assert inserted[40] == 60
    parsed = IPv6(inserted)[IPv6ExtHdrDestOpt]
    assert (parsed.nh, parsed.len, len(parsed.options)) == (17, 2, 1)
    assert (parsed.options[0].otype, parsed.options[0].optlen) == (0x1E, 20)
    assert parsed.payload.payload.load == packet.payload


@given(ipv6_packets(), IPV6)
def test_removing_a_muo_undoes_inserting_it(packet: Packet, home_address: Address) -> None:
    built = packet.build(MOBILE[6])
    inserted = insert_muo(built, home_address, LONG)
    assert isinstance(inserted, bytes)
    assert len(inserted) == len(built) + MUO_SIZE
    assert read_muo(inserted) == home_address
    assert remove_muo(inserted) == built
    assert read_muo(built) is None
    assert remove_muo(built) == built
    found = read_addresses(inserted)
    assert isinstance(found, PacketAddresses)
    assert found.home_address == home_address


@given(ipv6_packets())
def test_a_packet_with_a_muo_is_translated_like_any_other(packet: Packet) -> None:
    """scapy skips the MUO on its way to the upper layer, as any receiver does."""
    inserted = translate(muo_after(packet.build(HOME[6])), *MOBILE[6])
    assert inserted == muo_after(packet.build(MOBILE[6]))
    if packet.kind in {"TCP", "UDP"}:
        parsed = IPv6(inserted)[packet.kind]
        protocol = 6 if packet.kind == "TCP" else 17
        assert full_checksum(6, MOBILE[6], protocol, bytes(parsed)) in {0, 0xFFFF}


def test_a_muo_needs_room_within_the_mtu() -> None:
    packet = Packet(6, "UDP", bytes(1000)).build(MOBILE[6])
    size = len(packet) + MUO_SIZE
    assert isinstance(insert_muo(packet, HOME_ADDRESS, size), bytes)
    assert insert_muo(packet, HOME_ADDRESS, size - 1) is Refusal.TOO_BIG
    longest = ipv6(MOBILE[6], 59, bytes(0xFFFF - MUO_SIZE))
    assert isinstance(insert_muo(longest, HOME_ADDRESS, 2 * LONG), bytes)
    too_long = ipv6(MOBILE[6], 59, bytes(0xFFFF - MUO_SIZE + 1))
    assert insert_muo(too_long, HOME_ADDRESS, 2 * LONG) is Refusal.TOO_BIG


@pytest.mark.parametrize("index", [0, 1])
def test_no_muo_is_put_into_or_taken_from_a_fragment(index: int) -> None:
    fragment = fragments(Packet(6, "UDP", bytes(64)), MOBILE[6], 32)[index]
    assert insert_muo(fragment, HOME_ADDRESS, LONG) is Refusal.FRAGMENT
    assert remove_muo(fragment) == fragment
    atomic = muo_after(Packet(6, "UDP", bytes(64), ("atomic fragment",)).build(MOBILE[6]))
    first = atomic[:43] + b"\x01" + atomic[44:]
    assert read_muo(first) == HOME_ADDRESS
    assert remove_muo(first) is Refusal.FRAGMENT


def test_a_muo_is_ipv6_only() -> None:
    home_address = HOME[4].source
    assert insert_muo(QUOTE4, HOME_ADDRESS, LONG) is Refusal.FAMILY_MISMATCH
    assert insert_muo(QUOTE6, home_address, LONG) is Refusal.FAMILY_MISMATCH
    assert read_muo(QUOTE4) is None
    assert remove_muo(QUOTE4) == QUOTE4


def test_no_muo_is_put_behind_as_many_headers_as_a_receiver_reads() -> None:
    headers = ("destination options",) * MAX_EXTENSION_HEADERS
    fits = Packet(6, "UDP", extras=headers[1:]).build(MOBILE[6])
    assert read_muo(muo_after(fits)) == HOME_ADDRESS
    full = Packet(6, "UDP", extras=headers).build(MOBILE[6])
    assert insert_muo(full, HOME_ADDRESS, LONG) is Refusal.CHAIN_TOO_LONG


MUO: Final = "021e144d410000" + HOME_ADDRESS.hex()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (MUO, HOME_ADDRESS),
        (MUO.replace("4d410000", "4d41ffff"), HOME_ADDRESS),
        (MUO.replace("4d41", "4d42"), None),
        (MUO.replace("1e14", "1f14"), None),
        (MUO.replace("1e14", "1e10"), Refusal.MUO_MALFORMED),
        (MUO.replace("021e", "031e") + "010600000000" + "0000", Refusal.MUO_MALFORMED),
        ("021e144d410000" + HOME[4].source.hex(), Refusal.MUO_MALFORMED),
    ],
    ids=["sent", "flags", "identifier", "type", "length", "in company", "IPv4"],
)
def test_reading_destination_options(header: str, expected: Address | Refusal | None) -> None:
    packet = chain6(60, bytes.fromhex("11" + header))
    assert read_muo(packet) == expected
    found = read_addresses(packet)
    assert (found.home_address if isinstance(found, PacketAddresses) else found) == expected
    removed = remove_muo(packet)
    if isinstance(expected, Refusal):
        assert removed is expected
    else:
        assert removed == (packet if expected is None else chain6(17, b""))


def test_a_muo_before_another_extension_header_is_none() -> None:
    routing, body = EXTENSIONS["routing, no segments left"]
    packet = chain6(60, bytes((routing,)) + bytes.fromhex(MUO) + b"\x11" + body)
    assert read_muo(packet) is None
    assert remove_muo(packet) == packet


# ---- whatever comes ----------------------------------------------------------------------------


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A packet or error with some bytes changed and its end cut off, its length field right."""
    built = draw(st.one_of(packets().map(_built), icmp_errors().map(_built)))
    packet = bytearray(built[: draw(st.integers(20, len(built)))])
    places = st.integers(0, len(packet) - 1)
    for at, value in draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=6)):
        packet[at] = value
    version = packet[0] >> 4
    if version == 4:
        packet[2:4] = len(packet).to_bytes(2)
    elif len(packet) >= 40:
        packet[4:6] = (len(packet) - 40).to_bytes(2)
    return bytes(packet)


def _built(shape: Packet | IcmpError) -> bytes:
    if isinstance(shape, Packet):
        return shape.build(HOME[shape.version])
    version = shape.inner.version
    return shape.build(HOME[version], HOME[version].reversed)


ANYTHING: Final = st.one_of(st.binary(max_size=120), mutated())


@given(ANYTHING)
def test_whatever_comes_is_translated_there_and_back_or_refused(packet: bytes) -> None:
    found = read_addresses(packet)
    version = packet[0] >> 4 if packet else 4
    pair = MOBILE.get(version, MOBILE[4])
    there = translate(packet, *pair, *pair.reversed)
    if isinstance(found, Refusal):
        assert there is found or found is Refusal.MUO_MALFORMED
        return
    assert isinstance(there, bytes)
    assert len(there) == len(packet)
    back = translate(there, *found[:2], *found[3:5])
    assert isinstance(back, bytes)
    assert read_addresses(back) == found
    # 0xffff and zero are one number to a checksum: the first translation may write it anew.
    assert translate(back, *pair, *pair.reversed) == there
    if b"\xff\xff" not in packet:
        assert back == packet


MUO_FUNCTIONS: Final[list[Callable[[bytes], object]]] = [
    read_muo,
    remove_muo,
    lambda packet: insert_muo(packet, HOME_ADDRESS, 1500),
]


@given(ANYTHING)
def test_muo_functions_take_whatever_comes(packet: bytes) -> None:
    for function in MUO_FUNCTIONS:
        assert isinstance(function(packet), bytes | Refusal | None)
    inserted = insert_muo(packet, HOME_ADDRESS, 1500)
    if isinstance(inserted, bytes):
        assert remove_muo(inserted) == packet
