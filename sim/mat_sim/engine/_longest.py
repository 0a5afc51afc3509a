"""The longest that a random time can be, where that is bounded or as good as bounded."""

from typing import Final, assert_never

from mat_files.distributions import (
    Constant,
    Distribution,
    Empirical,
    Exponential,
    Normal,
    Uniform,
)

_MEANS: Final = 40
"""An exponential time is longer than so many means with a probability of 4e-18."""
_DEVIATIONS: Final = 10
"""A normal one is more than so many standard deviations above the mean with one of 8e-24."""


def longest(time: Distribution) -> float:
    """The time that no draw exceeds, s; where there is none, that none ever will exceed."""
    match time:
        case Constant(value):
            return value
        case Uniform(_, high):
            return high
        case Exponential(mean):
            return _MEANS * mean
        case Normal(centre, deviation):
            return centre + _DEVIATIONS * deviation
        case Empirical(quantiles):
            return quantiles[-1]
        case _:
            assert_never(time)
