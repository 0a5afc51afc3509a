"""Random waypoint: walk straight to a place drawn evenly from an area, pause, walk on.

Started in the ordinary way, with everybody at an evenly drawn place and a fresh draw of speed, the
model is not what it becomes: slow legs last longer, so the mean speed falls for a long time, and
who walks is more often in the middle. Here it starts in its stationary distribution, after
W. Navidi and T. Camp, Stationary Distributions for the Random Waypoint Mobility Model, IEEE
Transactions on Mobile Computing 3(1), 2004:

- A node pauses with probability E[pause] / (E[pause] + E[leg] E[1/speed]). Then it is anywhere
  with equal probability, and what is left of its pause has the density (1 - F) / E[pause].
- Else it is anywhere on a leg drawn with probability proportional to its length, and its speed has
  a density proportional to 1/speed. The mean speed of who walks is (b - a) / ln(b / a) for speeds
  drawn from a to b.

Nodes may walk in groups: a reference point does as above, and each of its nodes in a square around
it (T. Camp, J. Boleng, V. Davies, A Survey of Mobility Models for Ad Hoc Network Research, Wireless
Communications and Mobile Computing 2(5), 2002, section 3.5).
"""

import math
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from mat_files.attachment import AttachmentEvents, NumberedNames
from mat_files.coverage import Coverage, Visits, visits_events
from mat_files.movement._ticks import ticks, traced
from mat_files.scenario import RandomWaypoint
from mat_files.traces._trace import FloatArray, Trace

Waypoint: TypeAlias = tuple[FloatArray, FloatArray, FloatArray]
"""Time (s) and place (m) of every node."""

_ROWS: Final = 1 << 22
"""Positions in memory at a time."""


def random_waypoint_events(
    model: RandomWaypoint,
    networks: Sequence[Coverage],
    count: int,
    random: np.random.Generator,
    *,
    step: float,
    end: float,
    hysteresis: float,
    interfaces: int,
) -> AttachmentEvents:
    """`count` nodes that look around every `step` seconds up to `end` (s), and stay."""
    found = visits_events(
        NumberedNames(count),
        walks(model, count, random, step=step, end=end),
        networks,
        hysteresis=hysteresis,
        interfaces=interfaces,
    )
    return found.chosen(np.flatnonzero(found.time <= end))


def random_waypoint_trace(
    model: RandomWaypoint, count: int, random: np.random.Generator, *, step: float, end: float
) -> Trace:
    """Where the same nodes are at every look around, up to the first one not before `end` (s)."""
    time = ticks(step, end)
    visits = list(walks(model, count, random, step=step, end=end))
    columns = [[some.x for some in visits], [some.y for some in visits]]
    x, y = (np.concatenate(column).reshape(count, -1)[:, : len(time)] for column in columns)
    return traced(time, x, y, step)


def walks(
    model: RandomWaypoint, count: int, random: np.random.Generator, *, step: float, end: float
) -> Iterator[Visits]:
    """The nodes' positions, some nodes at a time, up to one step beyond `end`."""
    time = np.arange(math.floor(end / step) + 2, dtype=np.float64) * step
    walked = 2 * end / (model.mean_pause + model.mean_walk)
    groups = max(1, int(_ROWS / max(len(time), walked)) // model.group)
    for start in range(0, count, groups * model.group):
        size = min(groups * model.group, count - start)
        x, y = _positions(model, size, random, time)
        yield Visits(
            np.tile(time, size),
            x.ravel(),
            y.ravel(),
            np.arange(start, start + size),
            np.full(size, len(time)),
        )


def share_paused(model: RandomWaypoint) -> float:
    """Part of the time that a node pauses."""
    return model.mean_pause / (model.mean_pause + model.mean_walk)


def _positions(
    model: RandomWaypoint, count: int, random: np.random.Generator, time: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Of each node (row) at each time (column), m."""
    if model.group == 1:
        return _sampled(_Walkers(model, count, random), time)
    centres = _sampled(_Walkers(model, -(-count // model.group), random), time)
    around = _sampled(_Walkers(model.around, count, random), time)
    group = np.arange(count) // model.group
    return centres[0][group] + around[0], centres[1][group] + around[1]


def _sampled(walkers: "_Walkers", time: FloatArray) -> tuple[FloatArray, FloatArray]:
    # At the last time nobody looks around any more.
    when, x, y = walkers.waypoints(float(time[-2]))
    return _between(time, when, x), _between(time, when, y)


def _between(time: FloatArray, when: FloatArray, where: FloatArray) -> FloatArray:
    """Places at `time`, one row per node, from waypoints, one column per node."""
    found = np.empty((when.shape[1], len(time)))
    for node in range(len(found)):
        found[node] = np.interp(time, when[:, node], where[:, node])
    return found


@final
class _Walkers:
    """Draws for a number of nodes at once; one element per node."""

    def __init__(self, model: RandomWaypoint, count: int, random: np.random.Generator) -> None:
        self._model = model
        self._count = count
        self._random = random

    def waypoints(self, end: float) -> Waypoint:
        """Times (s) and places (m), one row per waypoint, at least up to `end`."""
        moving, path = self._begin()
        time, x, y = path[-1]
        # Who paused at the beginning walks on from there at once.
        pause = np.where(moving, self._pauses(), 0.0)
        while time.min() < end:
            path.append((time + pause, x, y))
            to_x, to_y = self._places()
            duration = np.hypot(to_x - x, to_y - y) / self._speeds()
            time, x, y = time + pause + duration, to_x, to_y
            path.append((time, x, y))
            pause = self._pauses()
        columns = [np.array(column) for column in zip(*path, strict=True)]
        return columns[0], columns[1], columns[2]

    def _begin(self) -> tuple[NDArray[np.bool_], list[Waypoint]]:
        """Who moves at 0; and where everybody is, and when and where that leg or pause ends."""
        moving = self._random.random(self._count) >= share_paused(self._model)
        place_x, place_y = self._places()
        from_x, from_y, to_x, to_y = self._long_legs()
        part = self._random.random(self._count)
        x = np.where(moving, from_x + part * (to_x - from_x), place_x)
        y = np.where(moving, from_y + part * (to_y - from_y), place_y)
        to_x, to_y = np.where(moving, to_x, x), np.where(moving, to_y, y)
        low, high = self._model.speed
        speed = low * (high / low) ** self._random.random(self._count)
        ends = np.where(moving, np.hypot(to_x - x, to_y - y) / speed, self._rests())
        return moving, [(np.zeros(self._count), x, y), (ends, to_x, to_y)]

    def _places(self) -> tuple[FloatArray, FloatArray]:
        (left, low), (width, height) = self._model.origin, self._model.size
        x, y = self._random.random((2, self._count))
        return left + width * x, low + height * y

    def _speeds(self) -> FloatArray:
        return self._random.uniform(*self._model.speed, self._count)

    def _pauses(self) -> FloatArray:
        return self._random.uniform(*self._model.pause, self._count)

    def _rests(self) -> FloatArray:
        """What is left of a pause at a time drawn evenly: part of one drawn by its length."""
        low, high = self._model.pause
        whole = np.sqrt(low**2 + (high**2 - low**2) * self._random.random(self._count))
        return whole * self._random.random(self._count)

    def _long_legs(self) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Both ends of legs drawn with probability proportional to their length."""
        longest = math.hypot(*self._model.size)
        ends = np.empty((4, self._count))
        open_ = np.arange(self._count)
        while len(open_):
            drawn = np.array([*self._places(), *self._places()])[:, : len(open_)]
            length = np.hypot(drawn[2] - drawn[0], drawn[3] - drawn[1])
            taken = self._random.random(len(open_)) * longest < length
            ends[:, open_[taken]] = drawn[:, taken]
            open_ = open_[~taken]
        return ends[0], ends[1], ends[2], ends[3]
