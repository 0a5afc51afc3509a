"""What a record says: medians and spreads of round trips, means of throughput, parts of handovers.

A spread is from the least to the greatest round. What MAT adds to a round trip is a difference
within a round; of that, too, the median and the spread count. Throughput is a mean over the rounds
with its 95 % confidence interval (Student's t), as of the paper's means of ten.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np

from mat_files.results import Results
from mat_paper import crowd, handover
from mat_paper.hosts import WAYS
from mat_paper.played import LAB, SIMULATOR
from mat_paper.record import Ping, Record, Udp
from mat_paper.variants import VARIANTS, Variant

if TYPE_CHECKING:
    from mat_sim.compare import Line

_CONFIDENCE: Final = 0.95


@final
@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some values, the least and the greatest."""

    median: float
    low: float
    high: float


def spread(values: Iterable[float]) -> Spread:
    """Of one value at least."""
    array = np.array(list(values))
    return Spread(float(np.median(array)), float(array.min()), float(array.max()))


# ---- table 4 -------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class RoundTrips:
    """One way's floods, s: least, mean and greatest round trip, and what is added to the mean.

    `lost` is how many of all packets were not answered.
    """

    way: str
    least: Spread
    mean: Spread
    greatest: Spread
    added: Spread | None
    lost: int
    sent: int


def round_trips(record: Record) -> list[RoundTrips]:
    """Each way's, where there is a flood of it."""
    rows = record.rows(Ping)
    plain = {row.round: row.mean for row in rows if row.way == "without"}
    found = [_round_trips(way, [row for row in rows if row.way == way], plain) for way in WAYS]
    return [one for one in found if one is not None]


def _round_trips(way: str, rows: Sequence[Ping], plain: dict[int, float]) -> RoundTrips | None:
    if not rows:
        return None
    added = [row.mean - plain[row.round] for row in rows if row.round in plain]
    return RoundTrips(
        way,
        spread(row.least for row in rows),
        spread(row.mean for row in rows),
        spread(row.greatest for row in rows),
        spread(added) if added and way != "without" else None,
        sum(row.transmitted - row.received for row in rows),
        sum(row.transmitted for row in rows),
    )


# ---- figure 5 ------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its confidence interval; of one value, that alone."""

    mean: float
    low: float
    high: float


def estimate(values: Iterable[float]) -> Estimate:
    """Of one value at least."""
    from scipy import stats

    array = np.array(list(values), dtype=np.float64)
    mean = float(array.mean())
    if len(array) < 2:
        return Estimate(mean, mean, mean)
    error = float(array.std(ddof=1)) / math.sqrt(len(array))
    half = error * float(stats.t.ppf((1 + _CONFIDENCE) / 2, len(array) - 1))
    return Estimate(mean, mean - half, mean + half)


@final
@dataclass(frozen=True, slots=True)
class Throughput:
    """One way at one load, bit/s: what iperf's client sent, and what arrived; `loss` a share."""

    way: str
    load: float
    sent: Estimate
    arrived: Estimate
    loss: Estimate
    rounds: int


def throughput(record: Record) -> list[Throughput]:
    """By way and load."""
    rows = record.rows(Udp)
    found: list[Throughput] = []
    for way in WAYS:
        for load in sorted({row.load for row in rows if row.way == way}):
            same = [row for row in rows if (row.way, row.load) == (way, load)]
            loss = estimate(row.lost / max(1, row.datagrams) for row in same)
            sent, arrived = (
                estimate(getattr(r, name) for r in same) for name in ("sent", "arrived")
            )
            found.append(Throughput(way, load, sent, arrived, loss, len(same)))
    return found


# ---- handovers -----------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class Handovers:
    """One kind of handover in the simulator and in the lab, column by column.

    In `lines` the lab's programs and links beyond the scenario do not count, in `raw` they do;
    `handovers` are how many the simulator has and the lab.
    """

    variant: Variant
    handovers: tuple[int, int]
    lines: tuple["Line", ...]
    raw: tuple["Line", ...]

    @property
    def parts(self) -> Iterator[tuple["Line", "Line"]]:
        """What is judged: the parts and their sum, without the lab's own time and with it."""
        raw = {line.column: line for line in self.raw}
        for line in self.lines:
            if line.judged:
                yield line, raw[line.column]


def handovers(record: Record) -> list[Handovers]:
    """Each kind's, where it was measured. Raises `ResultsError`."""
    from mat_sim.compare import NET_COLUMNS, compare, net

    place = record.directory / handover.FOLDER
    lab = Results.read(place / LAB)
    without = net(lab, place / LAB)
    found: list[Handovers] = []
    for variant in VARIANTS:
        simulated = Results.read(handover.simulated(place, variant))
        first = _only(simulated, variant)
        lines, raw = (
            compare(first, _only(one, variant), judged=NET_COLUMNS).lines for one in (without, lab)
        )
        counts = len(first.handovers), len(_only(lab, variant).handovers)
        found.append(Handovers(variant, counts, lines, raw))
    return found


def _only(results: Results, variant: Variant) -> Results:
    return replace(results, handovers=handover.of_variant(results, variant))


# ---- a crowd -------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class Crowd:
    """So many nodes at the same time, in one place: median and 95th percentile of a time, s.

    `where` is `simulator`, `lab`, or `net`, the lab without its programs' own time.
    """

    nodes: int
    where: str
    column: str
    median: float
    p95: float
    completed: int
    all: int


CROWD_COLUMNS: Final = ("register", "notify", "total")


def crowds(record: Record) -> list[Crowd]:
    """By number of nodes. Raises `ResultsError`."""
    size = record.size.crowd
    found: list[Crowd] = []
    for nodes in size.nodes:
        places = [crowd.folder(record.directory, nodes, number) for number in range(size.rounds)]
        for where, frame in _crowd_frames(places).items():
            done = frame[frame["outcome"] == "completed"]
            for column in CROWD_COLUMNS:
                values = done[column].to_numpy(dtype=np.float64, na_value=np.nan)
                median, p95 = np.quantile(values, (0.5, 0.95)) if values.size else (np.nan, np.nan)
                counts = len(done), len(frame)
                found.append(Crowd(nodes, where, column, float(median), float(p95), *counts))
    return found


def _crowd_frames(places: Sequence[Path]) -> dict[str, Any]:
    import pandas as pd

    from mat_sim.compare import net

    labs = [Results.read(place / LAB) for place in places]
    sides = {
        "simulator": [Results.read(place / SIMULATOR) for place in places],
        "lab": labs,
        "net": [net(lab, place / LAB) for lab, place in zip(labs, places, strict=True)],
    }
    return {name: pd.concat([one.handovers for one in each]) for name, each in sides.items()}
