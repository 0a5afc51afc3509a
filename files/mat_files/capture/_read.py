"""Reading captures: pcapng and pcap, of whatever wrote them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple, final

from mat.address import Address, from_ipv4
from mat_files.capture import _blocks as blocks
from mat_files.capture._links import LINKS, opened
from mat_files.errors import CaptureError

_PCAP: Final = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
    b"\xa1\xb2\x3c\x4d": (">", 1),
}
"""How a file of pcap begins: its byte order, and the ns of its finer unit."""
_SECOND: Final = 10**9
_LINK_TYPE: Final = 0xFFFF
_SHORTEST_BLOCK: Final = 12
_SECTION_START: Final = blocks.SECTION.to_bytes(4)
_POWER_OF_TWO: Final = 0x80
_MICROSECONDS: Final = 6


@final
@dataclass(frozen=True, slots=True)
class Packet:
    """An IPv4 or IPv6 packet as it passed `place` at `time`, in ns since 1970.

    `outward` if it left there; None where that is not known. `content` may be less than the `size`
    bytes that the packet had.
    """

    time: int
    place: str
    outward: bool | None
    content: bytes
    size: int


@final
@dataclass(slots=True)
class Capture:
    """What is in a capture: IP packets in order of time, and names of addresses.

    `of_hosts` if each place is a host, and all that left it and reached it is there. `cut` says
    how the file ends too early, and is empty if it does not.
    """

    packets: list[Packet] = field(default_factory=list[Packet])
    names: dict[Address, str] = field(default_factory=dict[Address, str])
    of_hosts: bool = False
    cut: str = ""


def read_capture(path: Path) -> Capture:
    """All that is in a file, up to where it is cut off; it may be written at this moment.

    Raises `CaptureError` for a file that is no capture, and for a link type without IP packets.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CaptureError(f"{path}: cannot be read ({error.strerror})") from error
    if content[:4] in _PCAP:
        capture = _read_pcap(path, content)
    elif content[:4] == _SECTION_START:
        capture = _Pcapng(path).read(content)
    else:
        what = "is no capture; what tcpdump and Wireshark write is: pcap or pcapng, not compressed"
        raise CaptureError(f"{path}: {what}")
    if any(one.time > other.time for one, other in pairwise(capture.packets)):
        capture.packets.sort(key=lambda packet: packet.time)
    return capture


def _within(capture: Capture) -> str:
    return f"within what follows packet {len(capture.packets)}"


def _check_link(path: Path, link: int) -> None:
    if link not in LINKS:
        known = "Ethernet, Linux cooked, raw IP"
        raise CaptureError(f"{path}: link type {link} is none that IP is looked for in: {known}")


class _Interface(NamedTuple):
    """How packets of an interface are to be read; time is `number * scale // divisor + offset`."""

    name: str
    link: int
    scale: int = 1
    divisor: int = 1
    offset: int = 0

    def packets(
        self, time: int, frame: bytes, size: int, outward: bool | None = None
    ) -> Iterator[Packet]:
        """The IP packet in a frame, if there is one."""
        found = opened(self.link, frame)
        if found is not None:
            direction = outward if found.outward is None else found.outward
            header = len(frame) - len(found.packet)
            yield Packet(time, self.name, direction, found.packet, size - header)


# ---- pcap ----------------------------------------------------------------------------------------


def _read_pcap(path: Path, content: bytes) -> Capture:
    order, unit = _PCAP[content[:4]]
    head, record = Struct(f"{order}IHHiIII"), Struct(f"{order}IIII")
    capture = Capture()
    if len(content) < head.size:
        capture.cut = "within its header"
        return capture
    link = head.unpack_from(content)[6] & _LINK_TYPE
    _check_link(path, link)
    at = head.size
    while at < len(content):
        if at + record.size > len(content):
            capture.cut = _within(capture)
            break
        seconds, fine, kept, size = record.unpack_from(content, at)
        begin, at = at + record.size, at + record.size + kept
        if at > len(content):
            capture.cut = _within(capture)
            break
        time = seconds * _SECOND + fine * unit
        capture.packets += _Interface("", link).packets(time, content[begin:at], size)
    return capture


# ---- pcapng --------------------------------------------------------------------------------------


@final
class _Pcapng:
    """Reads sections and their blocks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._order = "<"
        self._interfaces: list[_Interface] = []
        self._descriptions: set[str] = set()
        self._time = 0
        """Of the packet before: a simple one bears none."""
        self._capture = Capture()

    def read(self, content: bytes) -> Capture:
        """All blocks, up to one that is cut off or impossible."""
        at = 0
        while at < len(content):
            if content[at : at + 4] == _SECTION_START:
                self._begin_section(content, at)
            kind, size = self._head(content, at)
            if size < _SHORTEST_BLOCK or size % 4 or at + size > len(content):
                self._capture.cut = _within(self._capture)
                break
            try:
                self._block(kind, content[at + 8 : at + size - 4])
            except (IndexError, ValueError):
                raise CaptureError(f"{self._path}: is damaged at byte {at}") from None
            at += size
        self._capture.of_hosts = self._descriptions == {blocks.HOST}
        return self._capture

    def _head(self, content: bytes, at: int) -> tuple[int, int]:
        """Kind and size of a block; size 0 if it is not all there."""
        if at + _SHORTEST_BLOCK > len(content):
            return 0, 0
        kind, size = Struct(f"{self._order}II").unpack_from(content, at)
        return kind, size

    def _begin_section(self, content: bytes, at: int) -> None:
        little = content[at + 8 : at + 12] == blocks.BYTE_ORDER.to_bytes(4, "little")
        self._order = "<" if little else ">"
        self._interfaces = []

    def _block(self, kind: int, body: bytes) -> None:
        if kind == blocks.INTERFACE:
            self._interface(body)
        elif kind == blocks.PACKET:
            self._packet(body)
        elif kind == blocks.SIMPLE_PACKET:
            size = self._number(body, 0)
            self._add(0, self._time, body[4 : 4 + size], size, None)
        elif kind == blocks.NAMES:
            for family, record in self._options(body):
                self._name(family, record)

    def _number(self, body: bytes, at: int, size: int = 4) -> int:
        if at + size > len(body):
            raise ValueError("a block is too short")
        return int.from_bytes(body[at : at + size], "little" if self._order == "<" else "big")

    def _options(self, body: bytes) -> Iterator[tuple[int, bytes]]:
        at = 0
        while at + 4 <= len(body):
            code, size = self._number(body, at, 2), self._number(body, at + 2, 2)
            if code == blocks.END:
                return
            yield code, body[at + 4 : at + 4 + size]
            at += 4 + size + -size % 4

    def _interface(self, body: bytes) -> None:
        link = self._number(body, 0, 2)
        _check_link(self._path, link)
        options = dict(self._options(body[8:]))
        name = options.get(blocks.IF_NAME, b"").rstrip(b"\0").decode(errors="replace")
        description = options.get(blocks.IF_DESCRIPTION, b"").rstrip(b"\0")
        self._descriptions.add(description.decode(errors="replace"))
        scale, divisor = _unit(options.get(blocks.IF_RESOLUTION, bytes((_MICROSECONDS,)))[0])
        offset = self._number(options.get(blocks.IF_OFFSET, bytes(8)), 0, 8) * _SECOND
        self._interfaces.append(_Interface(name, link, scale, divisor, offset))

    def _packet(self, body: bytes) -> None:
        number, high, low, kept, size = (self._number(body, 4 * i) for i in range(5))
        end = 20 + kept
        if end > len(body):
            raise ValueError("a packet is longer than its block")
        interface = self._interfaces[number]
        time = (high << 32 | low) * interface.scale // interface.divisor + interface.offset
        flags = dict(self._options(body[end + -kept % 4 :])).get(blocks.PACKET_FLAGS, bytes(4))
        direction = self._number(flags, 0) & blocks.DIRECTION
        outward = {blocks.OUTWARD: True, blocks.INWARD: False}.get(direction)
        self._add(number, time, body[20:end], size, outward)

    def _add(self, number: int, time: int, frame: bytes, size: int, outward: bool | None) -> None:
        interface, self._time = self._interfaces[number], time
        self._capture.packets += interface.packets(time, frame, size, outward)

    def _name(self, family: int, record: bytes) -> None:
        size = {blocks.IPV4_NAME: 4, blocks.IPV6_NAME: 16}.get(family)
        if size is None or len(record) <= size:
            return
        address = from_ipv4(record[:4]) if size == 4 else Address(record[:16])
        self._capture.names[address] = record[size:].split(b"\0")[0].decode(errors="replace")


def _unit(resolution: int) -> tuple[int, int]:
    """What makes nanoseconds of a time: a factor and a divisor."""
    power = resolution & ~_POWER_OF_TWO
    return _SECOND, 2**power if resolution & _POWER_OF_TWO else 10**power
