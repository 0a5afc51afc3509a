"""The knee of a load curve: the load from which on more load costs more in time than it brings.

Kleinrock's power is the load divided by the time that it takes; the knee is where it is greatest.
There a line through the origin touches the curve. Nothing has to be chosen for it, neither a limit
nor a scale, and it does not move with how far a sweep goes. For M/M/1 it is at half the capacity,
where the time is twice that of an idle server, for the mean and for any quantile; for M/D/1 it is
at 2 - sqrt(2) of it, some 59 %. A constant delay, such as a path's, moves it to the right: what
does not depend on the load hides the queue until that is long.

L. Kleinrock: Power and Deterministic Rules of Thumb for Probabilistic Problems in Computer
Communications, ICC 1979.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

if TYPE_CHECKING:
    from mat_sim.plots._data import Values


@final
@dataclass(frozen=True, slots=True)
class Knee:
    """The knee's `load` and the `value` (time) there, in the curve's units.

    `low` and `high` are the least and the greatest load that it might be at: by the curve's
    confidence band, or, without one, the neighbours in the sweep.
    """

    load: float
    value: float
    low: float
    high: float


def knee(
    loads: "Sequence[float] | Values",
    values: "Sequence[float] | Values",
    low: "Sequence[float] | Values | None" = None,
    high: "Sequence[float] | Values | None" = None,
) -> Knee | None:
    """The knee of a curve of times over loads, or `None` where the curve does not reach it.

    `low` and `high` are the band of `values`. Loads may be in any order; the knee lies between two
    of them by a parabola through the power of three. Raises `ValueError` for fewer than three
    points, for a load that occurs twice, and for loads or values that are not positive numbers;
    a load of 0 is left out.
    """
    columns = [np.asarray(c, dtype=np.float64) for c in (loads, values, low, high) if c is not None]
    table = np.column_stack(columns)
    table = table[table[:, 0] != 0]
    table = table[np.argsort(table[:, 0], kind="stable")]
    x, y = table[:, 0], table[:, 1]
    _check(table[:, :2])
    power = x / y
    best = int(power.argmax())
    if best in (0, len(x) - 1):
        return None
    near = slice(best - 1, best + 2)
    load = _vertex(x[near], power[near])
    first, last = x[best - 1], x[best + 1]
    if table.shape[1] == 4:
        # Cross-multiplied, as the band of a few runs may reach below 0.
        possible = x[x >= (x / table[:, 3]).max() * table[:, 2]]
        first, last = min([first, *possible]), max([last, *possible])
    return Knee(load, float(np.interp(load, x, y)), float(first), float(last))


def _check(table: "Values") -> None:
    if len(table) < 3:
        raise ValueError(f"has {len(table)} points with load; a knee needs three at least")
    if not (np.isfinite(table).all() and (table > 0).all()):
        raise ValueError("loads and times must be positive numbers")
    if (np.diff(table[:, 0]) == 0).any():
        raise ValueError("a load occurs twice; give one estimate a load")


def _vertex(x: "Values", y: "Values") -> float:
    """Where the parabola through three points, the middle one the highest, is highest."""
    left, right = x[1] - x[0], x[2] - x[1]
    rise, fall = (y[1] - y[0]) / left, (y[1] - y[2]) / right
    if rise + fall == 0:
        return float(x[1])
    return float((x[0] + x[1]) / 2 + rise * (left + right) / 2 / (rise + fall))
