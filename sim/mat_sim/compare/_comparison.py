"""What two sets of results have in common, and by how much they differ.

Compared are completed handovers of one kind, part by part, by the medians of both sides: a median
stands still where one handover in ten is out of the ordinary, which on a machine that does other
things too it is. Two medians agree if they differ by no more than a share of the greater one, or by
no more than what no machine can do better, whichever is larger (`Tolerance`).
"""

import math
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from mat_files.results import Results
from mat_files.schema import DIRECTIONS, PARTS

KINDS: Final = ("soft", "hard")
TIMES: Final = (*PARTS, "total", *(f"interruption_{way}" for way in DIRECTIONS))
PACKETS: Final = tuple(f"lost_{way}" for way in DIRECTIONS)
COLUMNS: Final = (*TIMES, *PACKETS)
NET_COLUMNS: Final = (*PARTS, "total")
"""Those of which is known what the lab itself adds."""
Unit: TypeAlias = Literal["s", "packets"]


@final
@dataclass(frozen=True, slots=True)
class Tolerance:
    """By how much medians may differ: `share` of the greater, or `time` (s), or `packets`."""

    share: float = 0.1
    time: float = 0.002
    packets: float = 1.0

    def allowed(self, unit: Unit, first: float, second: float) -> float:
        """The greatest difference of two medians that agree, in their unit."""
        least = self.time if unit == "s" else self.packets
        return max(least, self.share * max(first, second))


@final
@dataclass(frozen=True, slots=True)
class Side:
    """One side's values of a column: how many, their median and 95th percentile; NaN of none."""

    count: int
    median: float
    p95: float


@final
@dataclass(frozen=True, slots=True)
class Line:
    """A column of the handovers of one kind on both sides, in s or packets."""

    kind: str
    column: str
    unit: Unit
    first: Side
    second: Side
    allowed: float
    judged: bool = True

    @property
    def difference(self) -> float:
        """The second median less the first; NaN where a side has none."""
        return self.second.median - self.first.median

    @property
    def agrees(self) -> bool | None:
        """Whether the medians are as near as is allowed; None if not judged, or a side has none."""
        if math.isnan(self.difference) or not self.judged:
            return None
        return abs(self.difference) <= self.allowed


@final
@dataclass(frozen=True, slots=True)
class Count:
    """Messages of a type from one role to another, sent and lost in a run (a mean of several)."""

    type: str
    from_role: str
    to_role: str
    sent: tuple[float, float]
    lost: tuple[float, float]


@final
@dataclass(frozen=True, slots=True)
class Traffic:
    """Data from one role to another: packets of a run, and their mean delay (s; NaN of none)."""

    from_role: str
    to_role: str
    sent: tuple[float, float]
    lost: tuple[float, float]
    delay: tuple[float, float]


@final
@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sets of results side by side; `names` are what the sides are called."""

    names: tuple[str, str]
    results: tuple[Results, Results]
    lines: tuple[Line, ...]
    outcomes: tuple[tuple[str, str, int, int], ...]
    """Kind, outcome, and the handovers of each side."""
    counts: tuple[Count, ...]
    traffic: tuple[Traffic, ...]

    @property
    def beyond(self) -> tuple[Line, ...]:
        """What differs by more than is allowed."""
        return tuple(line for line in self.lines if line.agrees is False)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that both sides have."""
        return all(line.agrees is None for line in self.lines)


def compare(
    first: Results,
    second: Results,
    names: tuple[str, str] = ("simulator", "lab"),
    tolerance: Tolerance | None = None,
    judged: Collection[str] = COLUMNS,
) -> Comparison:
    """Put two sets of results side by side; differences are the second less the first.

    Columns that are not `judged` are shown alone.
    """
    pair = first, second
    lines = tuple(_lines(pair, tolerance or Tolerance(), judged))
    outcomes, counts = tuple(_outcomes(pair)), tuple(_counts(pair))
    return Comparison(names, pair, lines, outcomes, counts, tuple(_traffic(pair)))


def completed(results: Results, kind: str) -> Any:
    """The rows of completed handovers of a kind."""
    frame = results.handovers
    return frame[(frame["outcome"] == "completed") & (frame["kind"] == kind)]


def values(column: Any) -> NDArray[np.float64]:
    """The values of a column that exist."""
    array: NDArray[np.float64] = column.to_numpy(dtype=np.float64, na_value=np.nan)
    return array[~np.isnan(array)]


def _lines(
    pair: tuple[Results, Results], tolerance: Tolerance, judged: Collection[str]
) -> Iterator[Line]:
    for kind in KINDS:
        one, other = (completed(results, kind) for results in pair)
        for column in COLUMNS:
            sides = _side(values(one[column])), _side(values(other[column]))
            if not any(side.count for side in sides):
                continue
            unit: Unit = "s" if column in TIMES else "packets"
            medians = (0.0 if math.isnan(side.median) else side.median for side in sides)
            allowed = tolerance.allowed(unit, *medians)
            yield Line(kind, column, unit, *sides, allowed, column in judged)


def _side(array: NDArray[np.float64]) -> Side:
    if not array.size:
        return Side(0, math.nan, math.nan)
    median, p95 = np.quantile(array, (0.5, 0.95)).tolist()
    return Side(len(array), median, p95)


def _outcomes(pair: tuple[Results, Results]) -> Iterator[tuple[str, str, int, int]]:
    one, other = (
        Counter(zip(table["kind"], table["outcome"], strict=True))
        for table in (results.handovers for results in pair)
    )
    for kind, outcome in sorted({*one, *other}, key=lambda key: (key[0] != "soft", key)):
        yield kind, outcome, one[kind, outcome], other[kind, outcome]


def _counts(pair: tuple[Results, Results]) -> Iterator[Count]:
    sums = [_sums(results) for results in pair]
    for key in sorted({*sums[0], *sums[1]}):
        one, other = (side.get(key, (0.0, 0.0)) for side in sums)
        yield Count(*key, sent=(one[0], other[0]), lost=(one[1], other[1]))


def _sums(results: Results) -> dict[tuple[str, str, str], tuple[float, float]]:
    """Sent and lost messages of a run, by type and roles."""
    keys = ["type", "from_role", "to_role"]
    frame = results.messages.groupby(keys)[["sent", "lost"]].sum().reset_index()
    runs = results.provenance.runs
    return {
        (str(kind), str(sender), str(receiver)): (sent / runs, lost / runs)
        for kind, sender, receiver, sent, lost in frame.to_numpy(object).tolist()
    }


def _traffic(pair: tuple[Results, Results]) -> Iterator[Traffic]:
    one, other = (_flows(results) for results in pair)
    nothing = 0.0, 0.0, math.nan
    for key in sorted({*one, *other}):
        first, second = one.get(key, nothing), other.get(key, nothing)
        sent, lost, delay = zip(first, second, strict=True)
        yield Traffic(*key, sent, lost, delay)


def _flows(results: Results) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Packets sent and lost in a run and the mean delay of those delivered, by roles."""
    runs = results.provenance.runs
    found: dict[tuple[str, str], tuple[float, float, float]] = {}
    for (sender, receiver), rows in results.flows.groupby(["from_role", "to_role"]):
        arrived = rows[rows["delay_mean"].notna()]
        weights = values(arrived["delivered"])
        delays = values(arrived["delay_mean"])
        delay = float(np.average(delays, weights=weights)) if weights.sum() else math.nan
        found[str(sender), str(receiver)] = (
            rows["sent"].sum() / runs,
            rows["lost"].sum() / runs,
            delay,
        )
    return found
