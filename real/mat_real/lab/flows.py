"""The table `flows` (docs/results.md), from what applications sent and got.

That both ends of a stream write down, so a time for which a packet was held on the way is part of
its delay. What headers were added is seen in the recordings. A packet that arrives has come the
straight way: all links meet in one core, and nobody between the ends sends it on.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, final

from mat.address import is_ipv4
from mat_real.lab.probe import HEADERS
from mat_real.lab.recording import DATA, Transmission
from mat_real.lab.streams import Direction, Stream
from mat_real.lab.tables import Sent

_WAYS: Final[tuple[Direction, ...]] = ("up", "down")


@final
@dataclass(slots=True)
class _Sum:
    """Packets from one role to another in the time of the run."""

    sent: int = 0
    delays: list[float] = field(default_factory=list[float])
    headers: list[int] = field(default_factory=list[int])


def flow_rows(sent: Sent, streams: Sequence[Stream]) -> Iterator[dict[str, object]]:
    """The rows of the table, in the order of the simulator's; when, as `write_results`."""
    sums: dict[tuple[str, str], _Sum] = defaultdict(_Sum)
    for stream in streams:
        for way in _WAYS:
            ends = (stream.node, stream.peer) if way == "up" else (stream.peer, stream.node)
            _add(sums[sent.role(ends[0]), sent.role(ends[1])], stream, way, sent)
    for one in sent.transmissions:
        if one.kind == DATA and one.received is not None and one.received <= sent.played.end:
            sums[sent.role(one.sender), sent.role(one.receiver)].headers.append(_added(one))
    for (sender, receiver), found in sorted(sums.items()):
        if found.sent:
            yield {"run": 0, "from_role": sender, "to_role": receiver, **_cells(found)}


def _add(found: _Sum, stream: Stream, way: Direction, sent: Sent) -> None:
    begin, end = sent.played.begin, sent.played.end
    flow = stream.flow(way)
    for left, arrived in zip(flow.sent, flow.delivered, strict=True):
        if begin <= left <= end:
            found.sent += 1
            if arrived is not None and arrived <= end:
                found.delays.append(arrived - left)


def _added(one: Transmission) -> int:
    """Bytes besides the headers and the contents that an application's packet has."""
    plain = HEADERS[4 if is_ipv4(one.datagram.source.address) else 6]
    return one.datagram.size - plain - len(one.datagram.payload)


def _cells(found: _Sum) -> dict[str, object]:
    delivered = len(found.delays)
    cells: dict[str, object] = {
        "sent": found.sent,
        "delivered": delivered,
        "lost": found.sent - delivered,
    }
    if delivered:
        cells["delay_mean"] = math.fsum(found.delays) / delivered
        cells["stretch_mean"] = 1.0
    if found.headers:
        cells["header_mean"] = sum(found.headers) / len(found.headers)
    return cells
