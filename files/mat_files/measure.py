"""Interruption and loss around a handover, from when packets were sent and delivered.

These functions are the definition, for the simulator and the namespace lab alike. A flow is one
direction between two nodes: arrays of equal length, in order of sending, with the time of sending
and the time of delivery to the application, NaN for a packet that never arrived.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]


def interruption(delivered: FloatArray, begin: float, end: float, spacing: float) -> float:
    """Longest time without a delivery in [begin, end], less the packet spacing; s, 0 or more.

    The time counts from the last delivery before `begin` (or from `begin`, if there is none) to the
    first after `end` (or to `end`). `end` is when the handover was complete, or, if it never was,
    when the next one began or the run ended. `spacing` is the regular time between two packets.
    """
    times = np.sort(delivered[~np.isnan(delivered)])
    first = np.searchsorted(times, begin, side="right")
    last = np.searchsorted(times, end, side="left")
    before = times[first - 1] if first > 0 else begin
    after = times[last] if last < len(times) else end
    edges = np.concatenate(([before], times[first:last], [max(before, after)]))
    return max(0.0, float(np.diff(edges).max()) - spacing)


def losses(sent: FloatArray, delivered: FloatArray, begin: float, end: float) -> int:
    """Packets of the handover in [begin, end] that were never delivered.

    Those are the ones sent after the last packet that was delivered before `begin`, up to `end`: so
    what was on its way when the link went is counted, and so is what a lossy link lost meanwhile.
    """
    arrived = np.flatnonzero(delivered < begin)
    first = int(arrived[-1]) + 1 if arrived.size else 0
    window = (np.arange(len(sent)) >= first) & (sent <= end)
    return int(np.count_nonzero(window & np.isnan(delivered)))
