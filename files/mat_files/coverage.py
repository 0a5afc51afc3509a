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
"""

from collections.abc import Sequence
from typing import Final, Protocol, final

import numpy as np

from mat_files.attachment import Action, AttachmentEvent
from mat_files.traces._trace import FloatArray, IndexArray, Trace

_NONE: Final = -1
_BLOCK: Final = 1 << 21
"""Distances computed at a time: bounds memory to some 50 MB whatever the trace."""


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


def coverage_events(
    trace: Trace, networks: Sequence[Coverage], *, hysteresis: float, interfaces: int
) -> list[AttachmentEvent]:
    """All attachment events of a trace, in order of time.

    At equal times: in the nodes' order of appearance, and for one node as they happen. `hysteresis`
    in metres; `interfaces` 1 or 2. A function of its arguments, linear in rows times networks.
    """
    found: list[tuple[float, int, AttachmentEvent]] = []
    for node, rows in trace.visits():
        links = _Links(trace.nodes[node], networks, interfaces)
        for block in _blocks(rows[:-1], len(networks)):
            _walk(links, trace.time[block], _distances(trace, block, networks), hysteresis)
        links.leave(float(trace.time[rows[-1]]))
        found += [(event.time, node, event) for event in links.events]
    found.sort(key=lambda item: item[:2])
    return [event for _, _, event in found]


def _blocks(rows: IndexArray, networks: int) -> list[IndexArray]:
    size = max(1, _BLOCK // max(1, networks))
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _distances(trace: Trace, rows: IndexArray, networks: Sequence[Coverage]) -> FloatArray:
    """Distance (m) from each row to each network; infinite where out of range."""
    x = np.array([network.x for network in networks])
    y = np.array([network.y for network in networks])
    reach = np.array([network.range for network in networks])
    distance = np.hypot(trace.x[rows, None] - x, trace.y[rows, None] - y)
    return np.where(distance <= reach, distance, np.inf)


def _walk(links: "_Links", time: FloatArray, distance: FloatArray, hysteresis: float) -> None:
    if not distance.shape[1]:
        return
    nearest = distance.argmin(axis=1).tolist()
    for now, here, best in zip(time.tolist(), distance, nearest, strict=True):
        links.scan(now, here, best, hysteresis)


@final
class _Links:
    """The links of one node during one visit; `_preferred` and `_other` are network indices."""

    __slots__ = ("_free", "_interface", "_name", "_networks", "_other", "_preferred", "events")

    def __init__(self, name: str, networks: Sequence[Coverage], interfaces: int) -> None:
        self._name = name
        self._networks = networks
        self._free = list(range(interfaces))
        self._interface: dict[int, int] = {}
        self._preferred = _NONE
        self._other = _NONE
        self.events: list[AttachmentEvent] = []

    def scan(self, now: float, distance: FloatArray, nearest: int, hysteresis: float) -> None:
        """One look around: rules 1 to 3 of this module."""
        if self._other != _NONE and distance[self._other] == np.inf:
            self._detach(now, self._other)
            self._other = _NONE
        if self._preferred != _NONE and distance[self._preferred] == np.inf:
            self._lose(now)
        if self._preferred == _NONE:
            if distance[nearest] < np.inf:
                self._preferred = nearest
                self._attach(now, nearest)
        elif distance[nearest] + hysteresis < distance[self._preferred]:
            self._prefer(now, nearest)

    def leave(self, now: float) -> None:
        """The node's last row: every link ends, the preferred one last."""
        for network in (self._other, self._preferred):
            if network != _NONE:
                self._detach(now, network)
        self._preferred = self._other = _NONE

    def _lose(self, now: float) -> None:
        if self._other != _NONE:
            self._attach(now, self._other)
        self._detach(now, self._preferred)
        self._preferred, self._other = self._other, _NONE

    def _prefer(self, now: float, network: int) -> None:
        if network != self._other:
            self._make_room(now)
        self._attach(now, network)
        self._preferred, self._other = network, self._preferred

    def _make_room(self, now: float) -> None:
        """Free an interface: the other link goes first, the preferred one if there is no other."""
        if self._free:
            return
        if self._other != _NONE:
            self._detach(now, self._other)
            self._other = _NONE
        else:
            self._detach(now, self._preferred)
            self._preferred = _NONE

    def _attach(self, now: float, network: int) -> None:
        if network not in self._interface:
            self._interface[network] = self._free.pop(0)
        self._record(now, "attach", network, self._interface[network])

    def _detach(self, now: float, network: int) -> None:
        interface = self._interface.pop(network)
        self._free = sorted([*self._free, interface])
        self._record(now, "detach", network, interface)

    def _record(self, now: float, action: Action, network: int, interface: int) -> None:
        name = self._networks[network].name
        self.events.append(AttachmentEvent(now, self._name, action, name, interface))
