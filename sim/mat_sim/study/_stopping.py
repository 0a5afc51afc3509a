"""How many replications: a number, or as many as a wanted precision takes.

Sequential stopping: after `least` runs, and after each further one, the interval of the named
statistic is computed over the runs so far, in the order of their numbers; the first number of runs
whose interval is narrow enough is the number taken. Runs may come in any order and more may have
been begun than are needed; as the decision only looks at complete beginnings 0, 1 … n, and what is
beyond is dropped, it is the same on any number of processes.

The interval's coverage suffers a little from stopping when it happens to be narrow; from ten runs
on, and for a relative half-width of 15 % or less, by little.

Source: A. M. Law, Simulation Modeling and Analysis, 5th ed., 9.4.1; A. M. Law, W. D. Kelton, R. M.
Koenig, "Relative width sequential confidence intervals for the mean", Communications in Statistics
B10(1), 1981.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, final

from mat_sim.study._estimate import Statistic
from mat_sim.study._intervals import CONFIDENCE, Estimate, check_confidence, student_t

LEAST_RUNS: Final = 10
"""The least number of runs of a sequential study, where no other is said."""


@final
@dataclass(frozen=True, slots=True)
class Precision:
    """Runs until the half-width of a statistic's interval is at most a share of its value.

    `relative` is that share: 0.05 is ± 5 %. `of` is the statistic, `least` and `most` bound the
    number of runs.
    """

    relative: float
    of: Statistic = field(default_factory=Statistic)
    confidence: float = CONFIDENCE
    least: int = LEAST_RUNS
    most: int = 200

    def __post_init__(self) -> None:
        """Raises `ValueError` for what is no precision."""
        if not self.relative > 0:
            what = f"precision is {self.relative:g}; must be greater than 0, such as 0.05"
            raise ValueError(f"{what} for ± 5 %")
        check_confidence(self.confidence)
        if not 2 <= self.least <= self.most:
            what = f"between {self.least} and {self.most} runs cannot be"
            raise ValueError(f"{what}; the least must be 2 or more, and not above the most")


@final
class Replications:
    """Which runs of one case are to be made, and when there are enough.

    Runs are counted from 0 here, whatever the first one's number.
    """

    def __init__(self, runs: int, precision: Precision | None) -> None:
        self._precision = precision
        self._least = runs if precision is None else max(runs, precision.least)
        self._most = runs if precision is None else max(runs, precision.most)
        self._values: dict[int, float] = {}
        self._checked = self._least - 1
        self._begun = 0
        self.enough: int | None = runs if precision is None else None
        """How many runs there are to be, once that is known."""
        self.reached = True
        """Whether they give the wanted precision."""

    @property
    def expected(self) -> int:
        """How many runs there will be, as far as is known."""
        return self.enough or min(max(self._least, self._begun), self._most)

    def next_run(self, *, surely: bool) -> int | None:
        """A run to begin; with `surely`, only one that is needed whatever the others give."""
        limit = self.enough or (self._certain if surely else self._most)
        while self._begun < limit:
            self._begun += 1
            if self._begun - 1 not in self._values:
                return self._begun - 1
        return None

    def possible(self, run: int) -> bool:
        """Whether a run may be among those taken."""
        return 0 <= run < (self.enough or self._most)

    def needed(self, run: int) -> bool | None:
        """Whether a run is among those taken; `None` where that is open."""
        if self.enough is not None:
            return run < self.enough
        return True if run < self._certain else None

    def finished(self, run: int, value: float) -> None:
        """The statistic's value in a finished run."""
        self._values[run] = value
        while self.enough is None and all(
            number in self._values for number in range(self._checked + 1)
        ):
            self._check(self._checked + 1)

    def estimate(self) -> Estimate:
        """The statistic over the runs taken."""
        assert self._precision is not None
        return _over(self._values, self.enough or 0, self._precision.confidence)

    @property
    def _certain(self) -> int:
        """Runs that are needed in any case."""
        return max(self._least, self._checked + 1)

    def _check(self, runs: int) -> None:
        assert self._precision is not None
        self._checked = runs
        interval = _over(self._values, runs, self._precision.confidence)
        narrow = interval.relative <= self._precision.relative
        if narrow or runs == self._most:
            self.enough, self.reached = runs, narrow


def _over(values: Mapping[int, float], runs: int, confidence: float) -> Estimate:
    return student_t([values[run] for run in range(runs)], confidence)
