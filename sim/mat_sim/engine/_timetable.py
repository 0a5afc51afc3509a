"""What of the movement's columns the engine looks at, piece by piece."""

from collections.abc import Iterator
from typing import Final, final

import numpy as np

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


def presence(events: AttachmentEvents, nodes: int, end: float) -> tuple[list[float], list[float]]:
    """For each node, its first attachment and the time from which it is gone for good, s.

    A node that is never anywhere is there from `end` on; one that stays is gone at `end`.
    """
    first = np.full(nodes, end)
    attaches = events.attach
    # Of several assignments to one place the last one stays, so the first event is put in last.
    first[events.node[attaches][::-1]] = events.time[attaches][::-1]
    last = np.zeros(nodes)
    last[events.node] = events.time
    pairs = events.node.astype(np.int64) * len(events.networks) + events.network
    _, ends = np.unique(pairs[::-1], return_index=True)
    held = np.zeros(nodes, np.bool_)
    finally_attached = attaches[::-1][ends]
    held[events.node[::-1][ends][finally_attached]] = True
    ever = np.zeros(nodes, np.bool_)
    ever[events.node] = True
    gone = np.where(held | ~ever, end, last)
    return first.tolist(), gone.tolist()
