"""Positions of generated nodes at equal steps, as a trace that is read has them."""

import math

import numpy as np

from mat_files.attachment import NumberedNames
from mat_files.traces._trace import FloatArray, IndexArray, Trace


def ticks(step: float, end: float) -> FloatArray:
    """The multiples of `step` (s) from 0 up to the first that is not before `end` (s)."""
    return np.arange(math.ceil(end / step) + 1, dtype=np.float64) * step


def traced(time: FloatArray, x: FloatArray, y: FloatArray, step: float) -> Trace:
    """The trace of nodes MN1, MN2 …, whose places (m) are rows of `x` and `y`, by `time`."""
    count, rows = x.shape
    node: IndexArray = np.tile(np.arange(count, dtype=np.int64), rows)
    names = tuple(NumberedNames(count))
    return Trace(np.repeat(time, count), node, x.T.ravel(), y.T.ravel(), names, step)
