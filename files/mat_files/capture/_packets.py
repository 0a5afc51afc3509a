"""IP packets: what is in them, and how those are made that the simulator sends.

Opened are IPv4 and IPv6 packets, also behind options and extension headers, where MAT's MUO stands,
and also such as were not recorded to their end.
"""

from dataclasses import dataclass
from functools import cached_property
from struct import Struct
from typing import Final, NamedTuple, final

from mat.address import Address, from_ipv4, is_ipv4, to_packed
from mat.checksum import internet_checksum
from mat.messages import Endpoint
from mat.translation import MUO_IDENTIFIER, MUO_SIZE, MUO_TYPE, Refusal, insert_muo
from mat_files.capture._read import Packet

PROBE_PORT: Final = 49700
"""UDP port of the lab's first stream of probes, and of all data of the simulator."""
_PROBE: Final = Struct("!4sIq")

_UDP: Final = 17
_UDP_HEADER: Final = Struct("!HHHH")
_IPV4_HEADER: Final = Struct("!BBHHHBBH4s4s")
_IPV6_HEADER: Final = Struct("!IHBB16s16s")
_DO_NOT_FRAGMENT: Final = 0x4000
_FRAGMENT: Final = 0x1FFF
_HOPS: Final = 64
_DESTINATION_OPTIONS: Final = 60
_EXTENSIONS: Final = frozenset((0, 43, 44, _DESTINATION_OPTIONS))
_FRAGMENT_HEADER: Final = 44
_CHECKSUMS: Final = {6: 16, _UDP: 6, 58: 2}
"""Where TCP, UDP and ICMPv6 have their checksum."""
_LONGEST: Final = 0xFFFF


@final
@dataclass(frozen=True)
class IpPacket:
    """What is in an IP packet. `home_address` is the one in its MUO, if there is one.

    `upper` is what follows the headers of IP, as far as it was recorded; it is empty in later
    fragments.
    """

    source: Address
    destination: Address
    protocol: int
    upper: bytes
    home_address: Address | None = None

    @property
    def ports(self) -> tuple[int, int] | None:
        """Source and destination port of a UDP datagram; None for anything else."""
        if self.protocol != _UDP or len(self.upper) < _UDP_HEADER.size:
            return None
        source, destination, _, _ = _UDP_HEADER.unpack_from(self.upper)
        return source, destination

    @property
    def payload(self) -> bytes:
        """What a UDP datagram carries."""
        length = int.from_bytes(self.upper[4:6])
        return self.upper[_UDP_HEADER.size : length]

    @cached_property
    def content(self) -> tuple[Address, Address, int, bytes]:
        """What is the same where it leaves and where it arrives.

        The checksum is not: where it leaves, a network card may still have to work it out.
        """
        at = _CHECKSUMS.get(self.protocol)
        upper = self.upper if at is None else self.upper[:at] + self.upper[at + 2 :]
        return self.source, self.destination, self.protocol, upper


class Datagram(NamedTuple):
    """A UDP datagram as it passed a host at `time`, s since 1970.

    `outward` if it left there; `size` in bytes, with IP's headers.
    """

    time: float
    outward: bool
    source: Endpoint
    destination: Endpoint
    payload: bytes
    size: int


def datagram_of(packet: Packet) -> Datagram | None:
    """The UDP datagram in a packet, if it is a whole one."""
    opened = ip_packet(packet.content)
    if opened is None or opened.ports is None:
        return None
    source = Endpoint(opened.source, opened.ports[0])
    destination = Endpoint(opened.destination, opened.ports[1])
    outward = bool(packet.outward)
    time = packet.time // 10**9 + packet.time % 10**9 / 1e9
    return Datagram(time, outward, source, destination, opened.payload, packet.size)


def ip_packet(packet: bytes) -> IpPacket | None:
    """The packet opened; None if there is no header of IP, or not all of it."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= _IPV4_HEADER.size:
        return _ipv4(packet)
    return _ipv6(packet) if version == 6 and len(packet) >= _IPV6_HEADER.size else None


def _ipv4(packet: bytes) -> IpPacket:
    header, size = (packet[0] & 0xF) * 4, int.from_bytes(packet[2:4])
    later = int.from_bytes(packet[6:8]) & _FRAGMENT
    upper = b"" if later else packet[header : size or None]
    return IpPacket(from_ipv4(packet[12:16]), from_ipv4(packet[16:20]), packet[9], upper)


def _ipv6(packet: bytes) -> IpPacket:
    end = _IPV6_HEADER.size + (int.from_bytes(packet[4:6]) or _LONGEST)
    kind, at = packet[6], _IPV6_HEADER.size
    home: Address | None = None
    while kind in _EXTENSIONS and at + 8 <= len(packet):
        if kind == _DESTINATION_OPTIONS:
            home = _muo(packet[at : at + MUO_SIZE])
        if kind == _FRAGMENT_HEADER and int.from_bytes(packet[at + 2 : at + 4]) >> 3:
            kind, at = packet[at], len(packet)
            break
        size = 8 if kind == _FRAGMENT_HEADER else 8 * (packet[at + 1] + 1)
        kind, at = packet[at], at + size
    source, destination = Address(packet[8:24]), Address(packet[24:40])
    return IpPacket(source, destination, kind, packet[at:end], home)


def _muo(header: bytes) -> Address | None:
    """The home address in a header of destination options that is a MUO."""
    if len(header) < MUO_SIZE or header[2] != MUO_TYPE or header[4:6] != MUO_IDENTIFIER:
        return None
    return Address(header[8:MUO_SIZE])


# ---- making them -------------------------------------------------------------------------------


def udp_packet(
    source: Endpoint, destination: Endpoint, payload: bytes, home_address: Address | None = None
) -> bytes:
    """The datagram as an IP packet, with a MUO that carries `home_address` where there is one.

    Checksums are right, the hop limit is 64, and IPv4's Don't Fragment is set, as Linux does.
    """
    size = _UDP_HEADER.size + len(payload)
    ends = to_packed(source.address) + to_packed(destination.address)
    whole = ends + bytes((0, _UDP)) + size.to_bytes(2)
    head = _UDP_HEADER.pack(source.port, destination.port, size, 0)
    checksum = internet_checksum(whole + head + payload) or _LONGEST
    datagram = head[:6] + checksum.to_bytes(2) + payload
    if is_ipv4(source.address):
        return _ipv4_header(ends, size) + datagram
    packet = _IPV6_HEADER.pack(6 << 28, size, _UDP, _HOPS, ends[:16], ends[16:]) + datagram
    if home_address is None:
        return packet
    announced = insert_muo(packet, home_address, _LONGEST)
    return packet if isinstance(announced, Refusal) else announced


def _ipv4_header(ends: bytes, size: int) -> bytes:
    fields = 0x45, 0, _IPV4_HEADER.size + size, 0, _DO_NOT_FRAGMENT, _HOPS, _UDP
    bare = _IPV4_HEADER.pack(*fields, 0, ends[:4], ends[4:])
    return _IPV4_HEADER.pack(*fields, internet_checksum(bare), ends[:4], ends[4:])


def probe_payload(number: int, sent: int, size: int) -> bytes:
    """What the lab's probes carry, `size` bytes: number, time of sending in ns, zeros."""
    return _PROBE.pack(b"MATP", number, sent).ljust(size, b"\0")[: max(size, 0)]
