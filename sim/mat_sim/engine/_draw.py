"""Random times as the engine draws them: several for each message, so the usual forms are here.

Draws are those of `mat_files.distributions`, to the bit; those modules are not compiled.
"""

from math import log
from random import Random
from typing import Final, final

from mat_files.distributions import Constant, Distribution, Exponential, Uniform

_CONSTANT: Final = 0
_UNIFORM: Final = 1
_EXPONENTIAL: Final = 2
_OTHER: Final = 3


@final
class Draw:
    """What one distribution draws, s."""

    __slots__ = ("_distribution", "_form", "_least", "_rate", "_span")

    def __init__(self, distribution: Distribution) -> None:
        self._distribution = distribution
        self._form = _OTHER
        self._least = 0.0
        self._span = 0.0
        self._rate = 1.0
        match distribution:
            case Constant(value):
                self._form, self._least = _CONSTANT, value
            case Uniform(low, high):
                self._form, self._least, self._span = _UNIFORM, low, high - low
            case Exponential(mean):
                self._form, self._rate = _EXPONENTIAL, 1 / mean
            case _:
                pass

    def sample(self, random: Random) -> float:
        """One draw, s."""
        if self._form == _CONSTANT:
            return self._least
        if self._form == _UNIFORM:
            return self._least + self._span * random.random()
        if self._form == _EXPONENTIAL:
            return -log(1 - random.random()) / self._rate
        return self._distribution.sample(random)
