"""What of the movement's columns the engine looks at, piece by piece."""

from collections.abc import Iterator
from typing import Final, final

from mat.address import Address, parse_address
from mat_files.attachment import AttachmentEvents

_PIECE: Final = 1 << 14

Move = tuple[float, int, bool, int, int, Address | None]
"""Time (s), node, whether it attaches, network, interface, and the address if one is prescribed."""


@final
class Timetable:
    """Attachment events as tuples, in order; only a piece of them exists at a time."""

    __slots__ = ("_events",)

    def __init__(self, events: AttachmentEvents) -> None:
        self._events = events

    def __iter__(self) -> Iterator[Move]:
        events = self._events
        for start in range(0, len(events), _PIECE):
            piece = slice(start, start + _PIECE)
            columns = (events.time, events.node, events.attach, events.network, events.interface)
            rows = zip(*(column[piece].tolist() for column in columns), strict=True)
            for number, row in enumerate(rows, start):
                moa = events.moas.get(number)
                yield (*row, parse_address(str(moa)) if moa is not None else None)
