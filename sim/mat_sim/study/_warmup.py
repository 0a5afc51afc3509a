"""Warm-up: how much of a run's begin to leave out where its steady state is asked for.

A run begins empty: no queue, nobody registered. What is measured first is not yet what goes on
later, and pulls a mean away from it. Two ways to find the cut:

- `mser5` decides by itself, from one run: the cut after which the remaining observations give the
  mean with the smallest standard error. To cut more would lose observations, to cut less would keep
  odd ones; both widen it.
- `welch` averages runs at equal times and smooths the average, for the eye: plot the curve, and
  look where it becomes flat. Its `cut` is the first point from which the curve stays as close to
  the level of its second half as that half itself does, with half as much again allowed.

For a burst there is no steady state and nothing to leave out: it begins, and it ends. Then the
numbers of whole runs are what counts (a *terminating* study): `estimate`, over replications.

Sources: K. P. White, "An effective truncation heuristic for bias reduction in simulation output",
Simulation 69(6), 1997 (MSER); K. P. White, M. J. Cobb, S. C. Spratt, "A comparison of five
steady-state truncation heuristics for simulation", Winter Simulation Conference 2000 (MSER-5);
P. D. Welch, "The statistical analysis of simulation results", in Lavenberg (ed.), Computer
Performance Modeling Handbook, 1983; A. M. Law, Simulation Modeling and Analysis, 5th ed., 9.5.1.
"""

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mat_sim.study._intervals import finite

_BATCH: Final = 5
_LEAST: Final = 10
"""Batches that MSER-5 needs to say anything."""
_ALLOWED: Final = 1.5
"""How far Welch's curve may go from its level, in what its second half does at most."""
_DRIFT: Final = 2 / 3
"""How far its last two quarters may lie apart, likewise."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class WarmUp:
    """A warm-up found: `cut` observations at the begin to leave out.

    `curve` is what was minimised (MSER-5, per batch of 5) or looked at (Welch, per observation).
    `settled` is false where the run is too short to tell: MSER-5's cut would lie in its second
    half, or Welch's curve still drifts there.
    """

    cut: int
    curve: NDArray[np.float64]
    settled: bool


def mser5(values: ArrayLike) -> WarmUp:
    """The warm-up of one run by MSER-5; `values` are in order of time.

    Raises `ValueError` for fewer than 50 values, and for one that is not finite.
    """
    sample = finite(values)
    batches = len(sample) // _BATCH
    if batches < _LEAST:
        what = f"{len(sample)} values are too few for MSER-5"
        raise ValueError(f"{what}; it needs {_LEAST * _BATCH} or more")
    means = sample[: batches * _BATCH].reshape(batches, _BATCH).mean(axis=1)
    curve = _squared_errors(means)
    best = int(curve.argmin())
    settled = best <= len(means) // 2
    return WarmUp(best * _BATCH, curve, settled)


def _squared_errors(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """For every cut d, the squared standard error of the mean of `means[d:]`.

    As in the definition, with n - d as divisor of the variance. The last cuts leave too few values
    for a variance; five remain always.
    """
    centred = means - means.mean()
    left = np.arange(len(means), 0, -1)
    total = np.cumsum(centred[::-1])[::-1]
    squares = np.cumsum(centred[::-1] ** 2)[::-1]
    errors: NDArray[np.float64] = np.maximum(squares - total**2 / left, 0) / left**2
    return errors[: len(means) - _BATCH]


def welch(runs: ArrayLike, window: int) -> WarmUp:
    """Welch's curve of several runs: their average, smoothed over `window` points to each side.

    `runs` has a row per run and a column per observation, at equal times. Near the begin the window
    is narrower; the curve ends `window` points before the runs do. Raises `ValueError` where the
    window is not shorter than a quarter of the runs, and for a value that is not finite.
    """
    averages = np.atleast_2d(finite(runs)).mean(axis=0)
    if not 0 <= window < len(averages) / 4:
        what = f"window is {window}; must be 0 or more, and less than a quarter of"
        raise ValueError(f"{what} the {len(averages)} observations")
    sums = np.concatenate(([0.0], np.cumsum(averages)))
    at = np.arange(len(averages) - window)
    reach = np.minimum(at, window)
    curve = (sums[at + reach + 1] - sums[at - reach]) / (2 * reach + 1)
    return _settling(curve)


def _settling(curve: NDArray[np.float64]) -> WarmUp:
    late = curve[len(curve) // 2 :]
    distance = np.abs(curve - late.mean())
    allowed = _ALLOWED * np.abs(late - late.mean()).max()
    outside = np.flatnonzero(distance > allowed)
    cut = int(outside[-1]) + 1 if len(outside) else 0
    # A straight drift moves the mean of one quarter to the next by as much as the half deviates.
    earlier, later = np.array_split(late, 2)
    settled = abs(later.mean() - earlier.mean()) <= _DRIFT * allowed / _ALLOWED
    return WarmUp(cut, curve, bool(settled))
