"""The coverage model written down row by row: what `mat_files.coverage` has to agree with."""

from collections.abc import Sequence
from typing import Final, final

import numpy as np

from mat_files.attachment import Action, AttachmentEvent
from mat_files.coverage import Coverage
from mat_files.traces import Trace
from mat_files.traces._trace import FloatArray, IndexArray

_NONE: Final = -1


def straightforward_events(
    trace: Trace, networks: Sequence[Coverage], *, hysteresis: float, interfaces: int
) -> list[AttachmentEvent]:
    found: list[tuple[float, int, AttachmentEvent]] = []
    for node, rows in trace.visits():
        links = _Links(trace.nodes[node], networks, interfaces)
        _walk(links, trace.time[rows[:-1]], _distances(trace, rows[:-1], networks), hysteresis)
        links.leave(float(trace.time[rows[-1]]))
        found += [(event.time, node, event) for event in links.events]
    found.sort(key=lambda item: item[:2])
    return [event for _, _, event in found]


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
