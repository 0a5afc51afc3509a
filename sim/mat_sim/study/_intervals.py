"""Confidence intervals, for means over independent values and for quantiles of one sample.

Two situations, which must not be confused:

- *Replications* are independent of each other, whatever goes on within one. Any number taken from
  each (a mean, a 99 % quantile, the greatest) is one value per run, and `student_t` over the runs
  is the interval of its expectation. Few runs are enough, as the number of each is an average of
  much.
- *Values within one run* depend on each other in general: what one message waits, the next waits
  too. Only where they do not (no queue, no common cause) `quantile_interval` holds: between two of
  the ordered values, without any assumption on their distribution. `batch_means` takes means of
  long stretches of one run, which are nearly independent, and `student_t` over those.

Sources: A. M. Law, Simulation Modeling and Analysis, 5th ed., 9.4 and 9.5; W. J. Conover, Practical
Nonparametric Statistics, 3rd ed., 3.2 (quantiles by order statistics, as in scipy's quantile_test);
B. Schmeiser, "Batch size effects in the analysis of simulation output", Operations Research 30(3),
1982 (10 to 30 batches).
"""

import math
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE: Final = 0.95
"""Confidence of an interval where none is said."""
BATCHES: Final = 20
"""Batches where no number is said."""


@final
@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimated value with its confidence interval, in the unit of what was estimated.

    `count` is the number of independent values behind it: runs, batches or observations. `low` and
    `high` are NaN where there are too few for an interval.
    """

    value: float
    low: float
    high: float
    confidence: float
    count: int

    @property
    def half_width(self) -> float:
        """Half the interval's width; NaN without an interval."""
        return (self.high - self.low) / 2

    @property
    def relative(self) -> float:
        """Half-width as a share of the value: 0.05 is ± 5 %; 0 where both are 0.

        NaN without an interval.
        """
        half = self.half_width
        if half == 0 or math.isnan(half):
            return half
        return half / abs(self.value) if self.value else math.inf

    def __str__(self) -> str:
        share = f"{self.confidence * 100:g} %"
        if math.isnan(self.half_width):
            return f"{self.value:.4g} (no interval: {self.count} values)"
        return f"{self.value:.4g}, {share} within [{self.low:.4g}, {self.high:.4g}]"


def student_t(values: ArrayLike, confidence: float = CONFIDENCE) -> Estimate:
    """Mean of independent values with its Student-t interval.

    Values are those of replications or batches, roughly normal, as means and quantiles of many
    observations are. NaN values (a run without any observation) are left out, and not counted.
    Raises `ValueError` for a confidence that is not between 0 and 1.
    """
    from scipy import stats

    check_confidence(confidence)
    sample = _present(values)
    count = len(sample)
    if not count:
        return Estimate(math.nan, math.nan, math.nan, confidence, 0)
    mean = float(sample.mean())
    if count == 1:
        return Estimate(mean, math.nan, math.nan, confidence, 1)
    error = float(sample.std(ddof=1)) / math.sqrt(count)
    half = float(stats.t.ppf((1 + confidence) / 2, count - 1)) * error
    return Estimate(mean, mean - half, mean + half, confidence, count)


def quantile_interval(
    values: ArrayLike, quantile: float, confidence: float = CONFIDENCE
) -> Estimate:
    """A quantile of independent values of one run, between two of the ordered values.

    The interval covers the true quantile with at least `confidence`, whatever the distribution. Its
    ends are NaN where there are too few values, as for the 99 % quantile of fewer than about 370.
    """
    from scipy import stats

    check_confidence(confidence)
    _check_quantile(quantile)
    sample = _present(values)
    if not len(sample):
        return Estimate(math.nan, math.nan, math.nan, confidence, 0)
    tested: Any = stats.quantile_test(sample, p=quantile)
    interval = tested.confidence_interval(confidence_level=confidence)
    value = float(np.quantile(sample, quantile))
    return Estimate(value, float(interval.low), float(interval.high), confidence, len(sample))


def batch_means(
    values: ArrayLike, batches: int = BATCHES, confidence: float = CONFIDENCE
) -> Estimate:
    """Mean of one long run of dependent values in the steady state, by means of batches.

    The values are in order of time, without warm-up (`mser5`). They are cut into `batches` of equal
    length; what is left over at the begin is dropped. Holds where batches are much longer than the
    time over which values depend on each other. Raises `ValueError` for fewer values than batches,
    and for one that is not finite.
    """
    sample = finite(values)
    length = len(sample) // batches if batches > 1 else 0
    if not length:
        what = f"{len(sample)} values cannot be cut into {batches} batches"
        raise ValueError(f"{what}; two batches or more are needed, of one value or more")
    kept = sample[len(sample) - batches * length :]
    return student_t(kept.reshape(batches, length).mean(axis=1), confidence)


def finite(values: ArrayLike) -> NDArray[np.float64]:
    """Values in order of time, of which none can be left out. Raises `ValueError`."""
    sample = np.asarray(values, np.float64)
    if (bad := np.argwhere(~np.isfinite(sample))).size:
        place = tuple(bad[0].tolist())
        what = f"value {', '.join(map(str, place))} is {sample[place]}"
        raise ValueError(f"{what}; must be a finite number")
    return sample


def _present(values: ArrayLike) -> NDArray[np.float64]:
    sample = np.asarray(values, np.float64)
    return sample[~np.isnan(sample)]


def check_confidence(confidence: float) -> None:
    """Raises `ValueError` for what is no confidence."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence:g}; must be between 0 and 1, such as 0.95")


def _check_quantile(quantile: float) -> None:
    if not 0 < quantile < 1:
        raise ValueError(f"quantile is {quantile:g}; must be between 0 and 1, such as 0.99")
