"""A train: passengers who cross the borders of a row of networks together.

All passengers go the same way, each a fixed distance behind the head. So the coverage model is
asked once, for a train that is a point, and every passenger has its events later by the time that
the train takes over the distance. The train comes from beyond the first point of its route, on the
straight line through it: at time 0 a passenger holds the links that it would have come with.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mat_files.attachment import AttachmentEvents, NumberedNames
from mat_files.coverage import Coverage, coverage_events
from mat_files.movement._ticks import ticks, traced
from mat_files.scenario import Train
from mat_files.traces._trace import FloatArray, Trace

LOOK: Final = 0.01
"""Time between two looks around, s: borders are crossed on time to this precision."""
_MOST: Final = 1_000_000
"""Looks around, at most; on a longer way they are farther apart."""


def train_events(
    train: Train,
    networks: Sequence[Coverage],
    count: int,
    random: np.random.Generator,
    *,
    hysteresis: float,
    interfaces: int,
) -> AttachmentEvents:
    """`count` passengers, the first at the head."""
    route = np.array(train.points([(network.x, network.y) for network in networks]))
    way = _distances(route)
    events, at = _of_a_point(train, route, networks, hysteresis=hysteresis, interfaces=interfaces)
    behind = _behind(train, count, random)
    parts = [*_boarding(events, at, behind), *_crossings(train, events, at, behind, way[-1])]
    empty = (np.empty(0),) * 6
    time, node, attach, network, interface, turn = map(
        np.concatenate, zip(*(parts or [empty]), strict=True)
    )
    order = np.lexsort((turn, node, time))
    return AttachmentEvents(
        NumberedNames(count),
        events.networks,
        time=time[order],
        node=node[order],
        attach=attach[order],
        network=network[order],
        interface=interface[order],
    )


def train_trace(
    train: Train,
    networks: Sequence[Coverage],
    count: int,
    random: np.random.Generator,
    *,
    step: float,
    end: float,
) -> Trace:
    """Where the same passengers are at every `step` (s), up to the first one not before `end`."""
    route = np.array(train.points([(network.x, network.y) for network in networks]))
    route, way = _with_approach(train, route)
    time = ticks(step, end)
    head = np.clip((time - train.departure) * train.speed, 0, way[-1])
    at = head - _behind(train, count, random)[:, None]
    x, y = np.interp(at, way, route[:, 0]), np.interp(at, way, route[:, 1])
    return traced(time, x, y, step)


def _distances(route: FloatArray) -> FloatArray:
    """Way from the first point of the route to each, m."""
    return np.concatenate(([0.0], np.cumsum(np.hypot(*np.diff(route, axis=0).T))))


def _behind(train: Train, count: int, random: np.random.Generator) -> FloatArray:
    """How far behind the head each passenger is, m, increasing."""
    if train.spacing == "even":
        return np.linspace(0, train.length, count)
    return np.sort(random.uniform(0, train.length, count))


def _of_a_point(
    train: Train,
    route: FloatArray,
    networks: Sequence[Coverage],
    *,
    hysteresis: float,
    interfaces: int,
) -> tuple[AttachmentEvents, FloatArray]:
    """The events of a point that comes a train's length from before the route, and where (m)."""
    route, way = _with_approach(train, route)
    duration = (train.length + way[-1]) / train.speed
    step = max(LOOK, duration / _MOST)
    # One look more than the way is long: at the last row of a trace a node leaves.
    time = np.arange(int(duration / step) + 2, dtype=np.float64) * step
    at = time * train.speed - train.length
    x, y = np.interp(at, way, route[:, 0]), np.interp(at, way, route[:, 1])
    trace = Trace(time, np.zeros(len(time), np.int64), x, y, ("train",), step)
    found = coverage_events(trace, networks, hysteresis=hysteresis, interfaces=interfaces)
    found = found.chosen(np.flatnonzero(found.time < time[-1]))
    return found, found.time * train.speed - train.length


def _with_approach(train: Train, route: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The route with the straight line that the train has come along, and the way to each point.

    The way is counted from the begin of the route, so the first point's is negative.
    """
    way = _distances(route)
    backwards = (route[0] - route[1]) / way[1] * (train.length + 1)
    return np.vstack((route[0] + backwards, route)), np.concatenate(([-train.length - 1], way))


def _boarding(
    events: AttachmentEvents, at: FloatArray, behind: FloatArray
) -> Iterator[tuple[NDArray[Any], ...]]:
    """The links that passengers hold at time 0, the preferred one last."""
    passed = np.searchsorted(at, -behind, side="right")
    held: dict[int, int] = {}
    for number in range(len(events) + 1):
        if number:
            network = int(events.network[number - 1])
            interface = held.pop(network, int(events.interface[number - 1]))
            if events.attach[number - 1]:
                held[network] = interface
        who = np.flatnonzero(passed == number)
        for turn, (network, interface) in enumerate(held.items()):
            yield _part(np.zeros(len(who)), who, True, network, interface, turn)


def _crossings(
    train: Train, events: AttachmentEvents, at: FloatArray, behind: FloatArray, end: float
) -> Iterator[tuple[NDArray[Any], ...]]:
    """What happens to passengers on the way, up to where the head stops."""
    rows = zip(
        itertools.count(),
        at.tolist(),
        events.attach.tolist(),
        events.network.tolist(),
        events.interface.tolist(),
        strict=False,
    )
    for turn, place, attach, network, interface in rows:
        who = np.flatnonzero((place > -behind) & (place + behind <= end))
        time = train.departure + (place + behind[who]) / train.speed
        yield _part(time, who, attach, network, interface, turn)


def _part(time: FloatArray, who: NDArray[np.int64], *values: int) -> tuple[NDArray[Any], ...]:
    """Events of some passengers, alike in all but time."""
    return time, who, *(np.full(len(who), value) for value in values)
