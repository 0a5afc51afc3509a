"""The coverage model: from positions to attachment events.

Each access network covers a disc. A node looks around at each row of its trace (the scan interval
is the trace's step), except the last, where it leaves everything. At a scan:

1. A link whose network is out of range is lost: detach. If it was the preferred one and the other
   interface holds a link, that link becomes the preferred one, and this comes first: attach, then
   detach.
2. Without a link, the node attaches to the nearest network in range.
3. A network in range that is nearer than the preferred one by more than the hysteresis is better,
   and the nearest of those becomes the preferred one.
   One interface: detach from the old, attach to the new: a hard handover.
   Two interfaces: attach to the new while the old link stays, for as long as it is in range or
   until its interface is needed for a third network: a soft handover. Where the new network is the
   one on the other interface, the attach only changes the preference.

So two interfaces make soft handovers where ranges overlap by enough for the hysteresis, and hard
ones elsewhere. Equal distances go to the network listed first. Everything happens at the row's
time; what then takes time (association, address) is the simulator's to add.

Of most rows nothing can come. At each scan it is worked out how far the node may go before any of
the rules can apply (each distance changes by at most the way gone), and the next scan is at the
first row beyond. All nodes are scanned together, each at its own row.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, final

import numpy as np
from numpy.typing import NDArray

from mat_files.attachment import AttachmentEvents
from mat_files.traces._trace import FloatArray, IndexArray, Trace

_NONE: Final = -1
_BLOCK: Final = 1 << 22
"""Rows, and distances, handled at a time: bounds memory to some 300 MB whatever the trace."""
_LOST_OTHER, _KEPT, _LOST, _ROOM, _JOINED = range(5)
"""What a node does within one scan, in this order."""
_MICROMETRE: Final = 1e-6
_ROUNDING: Final = 1e-14
_FAR: Final = 1e300
"""The greatest distance, m: finite, so that differences of distances are numbers."""

BoolArray = NDArray[np.bool_]


class Coverage(Protocol):
    """An access network as this model sees it: a name, a centre and a range, in metres."""

    @property
    def name(self) -> str:
        """Unique among the networks."""
        ...

    @property
    def x(self) -> float:
        """Centre, m."""
        ...

    @property
    def y(self) -> float:
        """Centre, m."""
        ...

    @property
    def range(self) -> float:
        """Radius, m; the rim itself is covered."""
        ...


@final
@dataclass(frozen=True, slots=True, eq=False)
class Visits:
    """Uninterrupted presences: the rows of one after those of the other, each in order of time.

    `time` in seconds, `x` and `y` in metres, one per row; `node` (index) and `length` (rows), one
    per presence.
    """

    time: FloatArray
    x: FloatArray
    y: FloatArray
    node: IndexArray
    length: IndexArray


def coverage_events(
    trace: Trace, networks: Sequence[Coverage], *, hysteresis: float, interfaces: int
) -> AttachmentEvents:
    """All attachment events of a trace, in order of time.

    At equal times: in the nodes' order of appearance, and for one node as they happen. `hysteresis`
    in metres; `interfaces` 1 or 2. A function of its arguments.
    """
    return visits_events(
        trace.nodes,
        _visits(trace),
        networks,
        hysteresis=hysteresis,
        interfaces=interfaces,
    )


def visits_events(
    nodes: Sequence[str],
    visits: Iterable[Visits],
    networks: Sequence[Coverage],
    *,
    hysteresis: float,
    interfaces: int,
) -> AttachmentEvents:
    """The same of presences that are handed over piece by piece, so that not all are held."""
    found = _Found()
    if networks:
        cells = _Cells(networks)
        for some in visits:
            for block in _blocks(some, len(networks)):
                _Scans(block, cells, found, hysteresis, interfaces).run()
    return found.events(nodes, [network.name for network in networks])


def _visits(trace: Trace) -> Iterator[Visits]:
    every = trace.visits()
    size = max(1, _BLOCK // max(1, len(trace.time) // len(every)))
    for start in range(0, len(every), size):
        some = every[start : start + size]
        rows = np.concatenate([rows for _, rows in some])
        yield Visits(
            trace.time[rows],
            trace.x[rows],
            trace.y[rows],
            np.array([node for node, _ in some]),
            np.array([len(rows) for _, rows in some]),
        )


def _blocks(visits: Visits, networks: int) -> Iterator[Visits]:
    """Pieces small enough for a table of all nodes' distances to all networks."""
    size = max(1, _BLOCK // networks)
    ends = np.concatenate(([0], np.cumsum(visits.length)))
    for start in range(0, len(visits.node), size):
        stop = min(start + size, len(visits.node))
        rows = slice(ends[start], ends[stop])
        yield Visits(
            visits.time[rows],
            visits.x[rows],
            visits.y[rows],
            visits.node[start:stop],
            visits.length[start:stop],
        )


@final
class _Cells:
    """Centres and ranges as columns."""

    __slots__ = ("reach", "x", "y")

    def __init__(self, networks: Sequence[Coverage]) -> None:
        self.x = np.array([network.x for network in networks], np.float64)
        self.y = np.array([network.y for network in networks], np.float64)
        self.reach = np.array([network.range for network in networks], np.float64)


@final
class _Found:
    """Columns of events, in the order in which they are found."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[tuple[NDArray[Any], ...]] = []

    def add(self, attach: bool, turn: int, columns: tuple[NDArray[Any], ...]) -> None:
        """Events of one kind: times, nodes, networks, interfaces.

        `turn` orders a node's events of one time.
        """
        if size := len(columns[0]):
            self._parts.append((np.full(size, attach), np.full(size, turn, np.int8), *columns))

    def events(self, nodes: Sequence[str], networks: Sequence[str]) -> AttachmentEvents:
        """All of them in order."""
        empty = (*(np.empty(0, np.int64) for _ in range(6)),)
        columns = zip(*(self._parts or [empty]), strict=True)
        attach, turn, time, node, network, interface = map(np.concatenate, columns)
        order = np.lexsort((turn, node, time))
        return AttachmentEvents(
            nodes,
            networks,
            time=time[order],
            node=node[order],
            attach=attach[order],
            network=network[order],
            interface=interface[order],
        )


@final
class _Scans:
    """The scans of some visits; all columns have one element per visit that is still going on.

    `_preferred` and `_other` are network indices, `_on` and `_beside` the interfaces they hold.
    """

    def __init__(
        self, visits: Visits, cells: _Cells, found: _Found, hysteresis: float, interfaces: int
    ) -> None:
        ends = np.cumsum(visits.length)
        self._visits = visits
        self._cells = cells
        self._found = found
        self._hysteresis = hysteresis
        self._interfaces = interfaces
        self._way, self._most = _way(visits, ends)
        self._margin = _margin(visits, cells)
        self._node = visits.node
        self._row = ends - visits.length
        self._last = ends - 1
        self._preferred = np.full(len(ends), _NONE)
        self._other = np.full(len(ends), _NONE)
        self._on = np.zeros(len(ends), np.int64)
        self._beside = np.zeros(len(ends), np.int64)

    def run(self) -> None:
        """Every visit to its end."""
        self._end(self._row >= self._last)
        while len(self._row):
            distance = self._distances()
            self._scan(distance)
            self._row = self._next(self._slack(distance))
            self._end(self._row >= self._last)

    def _distances(self) -> FloatArray:
        x, y = self._visits.x[self._row, None], self._visits.y[self._row, None]
        with np.errstate(over="ignore"):  # absurd positions are merely far away
            return np.minimum(np.hypot(x - self._cells.x, y - self._cells.y), _FAR)

    def _scan(self, distance: FloatArray) -> None:
        """One look around: rules 1 to 3 of this module."""
        near = np.where(distance <= self._cells.reach, distance, np.inf)
        self._lose_other((self._other != _NONE) & (_of(near, self._other) == np.inf))
        self._lose((self._preferred != _NONE) & (_of(near, self._preferred) == np.inf))
        nearest = near.argmin(axis=1)
        best = _of(near, nearest)
        alone = self._preferred == _NONE
        better = ~alone & (best + self._hysteresis < _of(near, self._preferred))
        self._prefer(better, nearest)
        self._join(alone & (best < np.inf), nearest)

    def _lose_other(self, who: BoolArray) -> None:
        self._detach(who, self._other, self._beside, _LOST_OTHER)
        self._other = np.where(who, _NONE, self._other)

    def _lose(self, who: BoolArray) -> None:
        self._attach(who & (self._other != _NONE), self._other, self._beside, _KEPT)
        self._detach(who, self._preferred, self._on, _LOST)
        self._preferred = np.where(who, self._other, self._preferred)
        self._on = np.where(who, self._beside, self._on)
        self._other = np.where(who, _NONE, self._other)

    def _join(self, who: BoolArray, network: IndexArray) -> None:
        self._preferred = np.where(who, network, self._preferred)
        self._on = np.where(who, 0, self._on)
        self._attach(who, self._preferred, self._on, _JOINED)

    def _prefer(self, who: BoolArray, network: IndexArray) -> None:
        """A better network: on the interface that it has, or on one that is free or made so."""
        new = who & (network != self._other)
        if self._interfaces == 1:
            self._detach(new, self._preferred, self._on, _ROOM)
        else:
            self._detach(new & (self._other != _NONE), self._other, self._beside, _ROOM)
            self._other = np.where(who, self._preferred, self._other)
            # The new one is on the interface beside; that of the old one is beside from now.
            self._beside = np.where(who, self._on, self._beside)
            self._on = np.where(who, 1 - self._on, self._on)
        self._preferred = np.where(who, network, self._preferred)
        self._attach(who, self._preferred, self._on, _JOINED)

    def _attach(self, who: BoolArray, network: IndexArray, on: IndexArray, turn: int) -> None:
        self._found.add(True, turn, self._rows(who, network, on))

    def _detach(self, who: BoolArray, network: IndexArray, on: IndexArray, turn: int) -> None:
        self._found.add(False, turn, self._rows(who, network, on))

    def _rows(
        self, who: BoolArray, network: IndexArray, on: IndexArray
    ) -> tuple[NDArray[Any], ...]:
        return self._visits.time[self._row[who]], self._node[who], network[who], on[who]

    def _slack(self, distance: FloatArray) -> FloatArray:
        """How far (m) each node may go before any rule can apply."""
        least, most = distance - self._margin, distance + self._margin
        beyond, inside = least - self._cells.reach, self._cells.reach - most
        linked = self._preferred != _NONE
        mine = np.where(linked, _of(most, self._preferred), np.inf)
        # Nearer by the hysteresis, if both distances change by all of the way; and in range.
        closer = (self._hysteresis + least - mine[:, None]) / 2
        others = np.maximum(closer, beyond)
        rows = np.flatnonzero(linked)
        others[rows, self._preferred[rows]] = np.inf
        nearest: FloatArray = others.min(axis=1)
        for link in (self._preferred, self._other):
            nearest = np.minimum(nearest, np.where(link == _NONE, np.inf, _of(inside, link)))
        return nearest

    def _next(self, slack: FloatArray) -> IndexArray:
        """The first row to which the way is longer than the slack."""
        whole = np.clip(slack / _MICROMETRE - 3, 0, self._most).astype(np.int64)
        beyond = np.searchsorted(self._way, self._way[self._row] + whole, side="right")
        return np.asarray(np.minimum(np.maximum(beyond, self._row + 1), self._last))

    def _end(self, who: BoolArray) -> None:
        """The last row of some: every link ends, the preferred one last."""
        if not who.any():
            return
        self._detach(who & (self._other != _NONE), self._other, self._beside, _LOST_OTHER)
        self._detach(who & (self._preferred != _NONE), self._preferred, self._on, _LOST)
        stay = ~who
        for name in ("_row", "_last", "_node", "_preferred", "_other", "_on", "_beside"):
            setattr(self, name, getattr(self, name)[stay])


def _of(table: FloatArray, column: IndexArray) -> FloatArray:
    """One element of each row; anything where `column` is `_NONE`."""
    found: FloatArray = table[np.arange(len(table)), column]
    return found


def _way(visits: Visits, ends: IndexArray) -> tuple[NDArray[np.int64], int]:
    """The way gone up to each row, and the longest step that it tells from longer ones.

    In whole micrometres, rounded up, because sums of these are exact.
    """
    most = (1 << 62) // max(1, len(visits.x))
    with np.errstate(over="ignore"):
        step = np.hypot(
            np.diff(visits.x, prepend=visits.x[:1]), np.diff(visits.y, prepend=visits.y[:1])
        )
        step = np.minimum(np.ceil(step / _MICROMETRE) + 1, most)
    step[ends[:-1]] = 0
    return np.cumsum(step.astype(np.int64)), most - 1


def _margin(visits: Visits, cells: _Cells) -> FloatArray:
    """What rounding may do, m, to distances to each network."""
    widest = max(float(np.abs(visits.x).max()), float(np.abs(visits.y).max()))
    return _ROUNDING * widest + _ROUNDING * np.abs(cells.x) + _ROUNDING * np.abs(cells.y)
