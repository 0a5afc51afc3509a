"""Random times, as a scenario writes them: `0.01`, `{uniform = [0.005, 0.015]}` and so on.

Every time in a scenario (delays, service times, association) is one of these, in seconds. A draw
takes its randomness from the caller, so that equal seeds give equal runs.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final, TypeAlias, cast, final

from mat_files.errors import shown


@final
@dataclass(frozen=True, slots=True)
class Constant:
    """Always `value` seconds."""

    value: float

    @property
    def mean(self) -> float:
        """Expectation, s."""
        return self.value

    def sample(self, random: Random) -> float:  # noqa: ARG002  # as the others
        """The value; `random` is not used."""
        return self.value

    def __str__(self) -> str:
        return f"{self.value:g}"


@final
@dataclass(frozen=True, slots=True)
class Uniform:
    """Any time between `low` and `high` seconds, all equally likely."""

    low: float
    high: float

    @property
    def mean(self) -> float:
        """Expectation, s."""
        return (self.low + self.high) / 2

    def sample(self, random: Random) -> float:
        """One draw, s."""
        return random.uniform(self.low, self.high)

    def __str__(self) -> str:
        return f"{{uniform = [{self.low:g}, {self.high:g}]}}"


@final
@dataclass(frozen=True, slots=True)
class Exponential:
    """Exponentially distributed with the mean `mean` seconds."""

    mean: float

    def sample(self, random: Random) -> float:
        """One draw, s."""
        return random.expovariate(1 / self.mean)

    def __str__(self) -> str:
        return f"{{exponential = {self.mean:g}}}"


@final
@dataclass(frozen=True, slots=True)
class Normal:
    """Normal with mean `centre` and standard deviation `deviation` (s), truncated at zero.

    A negative draw is drawn again, which makes the true mean a little larger than `centre` where
    `deviation` is of its size.
    """

    centre: float
    deviation: float

    @property
    def mean(self) -> float:
        """Expectation of the truncated distribution, s."""
        ratio = self.centre / self.deviation
        density = math.exp(-ratio * ratio / 2) / math.sqrt(2 * math.pi)
        return self.centre + self.deviation * density / (0.5 * (1 + math.erf(ratio / math.sqrt(2))))

    def sample(self, random: Random) -> float:
        """One draw, s; at most two tries on average, as `centre` is not negative."""
        while (value := random.gauss(self.centre, self.deviation)) < 0:
            pass
        return value

    def __str__(self) -> str:
        return f"{{normal = [{self.centre:g}, {self.deviation:g}]}}"


@final
@dataclass(frozen=True, slots=True)
class Empirical:
    """As measured: `quantiles` in seconds at equal steps of probability, from 0 to 1.

    Between two of them, all times are equally likely.
    """

    quantiles: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Expectation, s."""
        ends = (self.quantiles[0] + self.quantiles[-1]) / 2
        return (math.fsum(self.quantiles) - ends) / (len(self.quantiles) - 1)

    def sample(self, random: Random) -> float:
        """One draw, s."""
        place = random.random() * (len(self.quantiles) - 1)
        step = int(place)
        low, high = self.quantiles[step : step + 2]
        return low + (place - step) * (high - low)

    def __str__(self) -> str:
        return f"{{quantiles = [{', '.join(f'{value:g}' for value in self.quantiles)}]}}"


Distribution: TypeAlias = Constant | Uniform | Exponential | Normal | Empirical

FORMS: Final = (
    "a number of seconds, {uniform = [low, high]}, {exponential = mean}, {normal = [mean, sd]}"
    " or {quantiles = [least, …, greatest]}"
)
_ARITY: Final = {"constant": (1,), "uniform": (2,), "exponential": (1,), "normal": (2,)}
"""How many numbers a form takes; those that are not here take two or more."""


def _numbers(value: object) -> list[float] | None:
    """`value` as a list of finite, non-negative numbers; `None` if it is not that."""
    items = cast(list[object], value) if isinstance(value, list) else [value]
    numbers = [float(i) for i in items if isinstance(i, int | float) and not isinstance(i, bool)]
    good = len(numbers) == len(items) and all(math.isfinite(n) and n >= 0 for n in numbers)
    return numbers if good else None


def _constant(value: float) -> Distribution:
    return Constant(value)


def _uniform(low: float, high: float) -> Distribution:
    if low > high:
        raise ValueError(f"uniform runs from {low:g} to {high:g}; low must not be above high")
    return Uniform(low, high)


def _exponential(mean: float) -> Distribution:
    if mean == 0:
        raise ValueError("exponential has mean 0; the mean must be greater than 0")
    return Exponential(mean)


def _normal(mean: float, deviation: float) -> Distribution:
    if deviation == 0:
        raise ValueError("normal has standard deviation 0; write the mean alone as a number")
    return Normal(mean, deviation)


def _empirical(*quantiles: float) -> Distribution:
    for before, after in itertools.pairwise(quantiles):
        if before > after:
            raise ValueError(f"quantiles fall from {before:g} to {after:g}; they must not fall")
    return Empirical(quantiles)


_BUILD: Final[dict[str, Callable[..., Distribution]]] = {
    "constant": _constant,
    "uniform": _uniform,
    "exponential": _exponential,
    "normal": _normal,
    "quantiles": _empirical,
}


def parse(value: object) -> Distribution:
    """The distribution that a TOML value describes.

    Raises `ValueError` saying what is wrong and what would be right.
    """
    if isinstance(value, Distribution):
        return value
    given: object = value
    table = cast(dict[str, object], value) if isinstance(value, dict) else {"constant": value}
    kind = next(iter(table), "")
    if len(table) != 1 or kind not in _BUILD:
        raise ValueError(f"is {shown(given)}; must be {FORMS}")
    numbers = _numbers(table[kind])
    if numbers is None or len(numbers) not in _ARITY.get(kind, range(2, len(numbers) + 1)):
        raise ValueError(f"is {shown(given)}; must be {FORMS}, times being 0 or more")
    return _BUILD[kind](*numbers)
