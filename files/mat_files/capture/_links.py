"""Bare IP packets in the frames of a link (https://www.tcpdump.org/linktypes.html)."""

from collections.abc import Callable
from typing import Final, NamedTuple

_IPV4: Final = 0x0800
_IPV6: Final = 0x86DD
_TAGS: Final = (0x8100, 0x88A8)
"""Ethernet types of a VLAN's tag (IEEE 802.1Q)."""
_TAG: Final = 4
_OUTGOING: Final = 4
"""Packet type, in both cooked headers, of what this host sent."""
_ETHERNET_HEADER: Final = 14
_COOKED: Final = 16
_COOKED_2: Final = 20


class Frame(NamedTuple):
    """The IP packet of a frame, and whether it left, where the frame says so."""

    packet: bytes
    outward: bool | None = None


def _raw(frame: bytes) -> Frame | None:
    return Frame(frame)


def _ethernet(frame: bytes) -> Frame | None:
    at = _ETHERNET_HEADER
    kind = int.from_bytes(frame[at - 2 : at])
    while kind in _TAGS and at < len(frame):
        at += _TAG
        kind = int.from_bytes(frame[at - 2 : at])
    return Frame(frame[at:]) if kind in (_IPV4, _IPV6) else None


def _cooked(frame: bytes) -> Frame | None:
    """LINKTYPE_LINUX_SLL: packet type first, protocol last."""
    if int.from_bytes(frame[14:16]) not in (_IPV4, _IPV6):
        return None
    return Frame(frame[_COOKED:], int.from_bytes(frame[:2]) == _OUTGOING)


def _cooked_2(frame: bytes) -> Frame | None:
    """LINKTYPE_LINUX_SLL2: protocol first, packet type in the eleventh byte."""
    if int.from_bytes(frame[:2]) not in (_IPV4, _IPV6) or len(frame) < _COOKED_2:
        return None
    return Frame(frame[_COOKED_2:], frame[10] == _OUTGOING)


LINKS: Final[dict[int, Callable[[bytes], Frame | None]]] = {
    1: _ethernet,
    12: _raw,
    14: _raw,
    101: _raw,
    113: _cooked,
    228: _raw,
    229: _raw,
    276: _cooked_2,
}
"""How to open the frames of the link types that IP packets are found in."""


def opened(link: int, frame: bytes) -> Frame | None:
    """The IP packet in a frame of a link type, if it has one."""
    found = LINKS[link](frame)
    return found if found is not None and found.packet else None
