"""Datagrams in a file of recorded packets (pcap-savefile(5)), as `mat_real.lab.recorder` writes it.

Read are UDP datagrams over IPv4 and IPv6, also behind destination options, where MAT's MUO stands.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from mat.address import Address, from_ipv4
from mat.messages import Endpoint

_MAGIC: Final = 0xA1B23C4D
"""Of a file of this machine's byte order whose times are in nanoseconds."""
_FILE: Final = struct.Struct("=IHHiIII")
_RECORD: Final = struct.Struct("=IIII")  # seconds, nanoseconds, bytes kept, bytes there were
_COOKED: Final = struct.Struct("!HHIHBB8s")  # LINKTYPE_LINUX_SLL2
_OUTGOING: Final = 4
_UDP: Final = 17
_DESTINATION_OPTIONS: Final = 60
_IPV4_HEADER: Final = 20
_IPV6_HEADER: Final = 40
_UDP_HEADER: Final = 8
_FRAGMENT: Final = 0x1FFF


@final
@dataclass(frozen=True, slots=True)
class Datagram:
    """A datagram as it passed a host at `time`, s of CLOCK_REALTIME.

    `outward` if it left there; `size` in bytes, with IP's headers.
    """

    time: float
    outward: bool
    source: Endpoint
    destination: Endpoint
    payload: bytes
    size: int


def datagrams(path: Path) -> Iterator[Datagram]:
    """The datagrams of a file that may be written at this moment, in order.

    Raises `ValueError` for a file that is none of the recorder's.
    """
    content = path.read_bytes()
    if len(content) < _FILE.size or _FILE.unpack_from(content)[0] != _MAGIC:
        raise ValueError(f"{path}: is no recording")
    at = _FILE.size
    while at + _RECORD.size <= len(content):
        seconds, nanoseconds, kept, _ = _RECORD.unpack_from(content, at)
        begin, at = at + _RECORD.size, at + _RECORD.size + kept
        if at > len(content):
            return
        found = _datagram(seconds + nanoseconds / 1e9, content[begin:at])
        if found is not None:
            yield found


def _datagram(time: float, frame: bytes) -> Datagram | None:
    outward = _COOKED.unpack_from(frame)[4] == _OUTGOING
    packet = frame[_COOKED.size :]
    opened = _opened_ipv4(packet) if packet[0] >> 4 == 4 else _opened_ipv6(packet)
    if opened is None:
        return None
    source, destination, size, udp = opened
    ports = struct.unpack_from("!HH", udp)
    return Datagram(
        time,
        outward,
        Endpoint(source, ports[0]),
        Endpoint(destination, ports[1]),
        udp[_UDP_HEADER:],
        size,
    )


def _opened_ipv4(packet: bytes) -> tuple[Address, Address, int, bytes] | None:
    """Addresses, size, and the UDP datagram, of a packet that is one and no later fragment."""
    header, size = (packet[0] & 0xF) * 4, int.from_bytes(packet[2:4])
    later = int.from_bytes(packet[6:8]) & _FRAGMENT
    if packet[9] != _UDP or later or size < header + _UDP_HEADER:
        return None
    return from_ipv4(packet[12:16]), from_ipv4(packet[16:20]), size, packet[header:size]


def _opened_ipv6(packet: bytes) -> tuple[Address, Address, int, bytes] | None:
    size = _IPV6_HEADER + int.from_bytes(packet[4:6])
    kind, at = packet[6], _IPV6_HEADER
    if kind == _DESTINATION_OPTIONS:
        kind, at = packet[at], at + 8 * (packet[at + 1] + 1)
    if kind != _UDP or size < at + _UDP_HEADER:
        return None
    return Address(packet[8:24]), Address(packet[24:40]), size, packet[at:size]
