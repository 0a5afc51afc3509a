"""From paths to a trace: waypoints joined by straight lines, and looked at regularly.

BonnMotion's and GPX's files hold paths. A trace holds positions at equal steps, because the nodes
of a scenario look around at equal steps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import numpy as np

from mat_files.errors import trace_error
from mat_files.traces._trace import FloatArray, IndexArray, Trace

LARGEST: Final = 100_000_000
"""Positions taken from one trace's paths, at most: some 5 GB in memory."""

_ROUNDING: Final = 1e-9
"""Part of a step by which a waypoint may miss the time at which its node is looked at."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """One uninterrupted presence of `node` (index), from its first waypoint to its last.

    `time` in seconds, increasing; `x` and `y` in metres. `path` and `line` are where it was read.
    """

    node: int
    time: FloatArray
    x: FloatArray
    y: FloatArray
    path: Path
    line: int

    def ticks(self, step: float) -> range:
        """The multiples of `step` within it."""
        first = math.ceil(self.time[0] / step - _ROUNDING)
        return range(first, math.floor(self.time[-1] / step + _ROUNDING) + 1)


def sampled(names: Sequence[str], stretches: Sequence[Stretch], step: float) -> Trace:
    """Positions at the multiples of `step` (s).

    Raises `TraceError` if they are too many, or a node has none.
    """
    looked = [(stretch, stretch.ticks(step)) for stretch in stretches]
    _check_size(looked)
    _check_lengths(names, looked, step)
    times = [np.arange(ticks.start, ticks.stop, dtype=np.float64) * step for _, ticks in looked]
    pairs = list(zip(stretches, times, strict=True))
    trace = Trace(
        np.concatenate(times),
        np.repeat([one.node for one in stretches], [len(time) for time in times]),
        np.concatenate([np.interp(time, one.time, one.x) for one, time in pairs]),
        np.concatenate([np.interp(time, one.time, one.y) for one, time in pairs]),
        tuple(names),
        step,
    )
    return _in_order(trace)


def _in_order(trace: Trace) -> Trace:
    """Rows by time, nodes numbered in order of appearance."""
    order = np.lexsort((trace.node, trace.time))
    node = trace.node[order]
    first = np.unique(node, return_index=True)[1]
    appearance: IndexArray = np.argsort(first)
    number = np.empty(len(appearance), np.int64)
    number[appearance] = np.arange(len(appearance))
    names = tuple(trace.nodes[int(i)] for i in appearance)
    columns = (trace.time[order], number[node], trace.x[order], trace.y[order])
    return Trace(*columns, names, trace.step)


def _check_size(looked: Sequence[tuple[Stretch, range]]) -> None:
    total = 0
    for stretch, ticks in looked:
        total += len(ticks)
        if total > LARGEST:
            what = (
                f"the movement ends at t = {stretch.time[-1]:g}; {LARGEST} positions are the most"
            )
            what += ", so shorten it or set a longer movement.step"
            raise trace_error(stretch.path, stretch.line, "t", what)


def _check_lengths(
    names: Sequence[str], looked: Sequence[tuple[Stretch, range]], step: float
) -> None:
    """Every node is looked at once at least."""
    seen = {stretch.node for stretch, ticks in looked if ticks}
    for stretch, _ in looked:
        if stretch.node not in seen:
            name = names[stretch.node]
            what = (
                f"{name!r} is there for less than a step of {step:g} s; set a shorter movement.step"
            )
            raise trace_error(stretch.path, stretch.line, "t", what)
