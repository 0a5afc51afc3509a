"""Estimates from result tables: one number per run, and the interval of its expectation.

A `Statistic` says which number: a column of a table or an expression of columns, restricted to the
rows wanted, and what is made of those rows (their mean, a quantile, the greatest). It is taken from
each replication, and the runs' numbers are averaged, with a Student-t interval (`_intervals.py`).
So the value of a quantile is the mean over the runs of each run's quantile. With a single run there
is no interval; `quantile_interval` and `steady_state` make one within it, each under a condition.
"""

import ast
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, cast, final, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mat_files.frames import frame_of_rows
from mat_files.results import Results
from mat_files.schema import SCHEMAS, Column
from mat_sim.study._intervals import BATCHES, CONFIDENCE, Estimate, batch_means, student_t
from mat_sim.study._warmup import WarmUp, mser5

TableName: TypeAlias = Literal["handovers", "messages", "ims", "flows", "links"]
Reduction: TypeAlias = Literal["mean", "median", "min", "max", "sum", "count"]
Values: TypeAlias = NDArray[np.float64]

REDUCTIONS: Final[tuple[Reduction, ...]] = get_args(Reduction)
_TIMES: Final[dict[TableName, str]] = {"handovers": "time", "ims": "start", "links": "start"}
"""The column by which a table's rows are in order of time."""
_ONE: Final[dict[TableName, tuple[str, str]]] = {
    "ims": ("servers", "ims == 'IMS'"),
    "links": ("links", "link == 'A' and direction == 'up'"),
}
"""Of what there must be a single one in a series of intervals, and how to choose it."""


@final
@dataclass(frozen=True, slots=True)
class Statistic:
    """A number that each run has.

    `of` is a column (`total`) or an expression of columns (`time + total`, `total > 1`,
    `outcome == 'completed'`; a comparison counts as 1 where it holds and 0 where not, so its mean
    is a proportion). `by` is "mean", "median", "min", "max", "sum", "count", a quantile such as
    0.99, or a function of an array that returns a number. `where` keeps the rows for which it
    holds, such as `kind == 'hard'`. Rows in which a column named in `of` is empty do not count.
    """

    of: str = "total"
    by: Reduction | float | Callable[[Values], float] = "mean"
    table: TableName = "handovers"
    where: str | None = None

    def __post_init__(self) -> None:
        """Raises `ValueError` for what names no statistic."""
        if self.table not in get_args(TableName):
            raise ValueError(f"{self.table!r} is no table; there are: {_listed(TableName)}")
        self._check(self.of)
        _check_numbers(self.table, self.of)
        if self.where is not None:
            self._check(self.where)
            _check_condition(self.table, self.where)
        if isinstance(self.by, str) and self.by not in REDUCTIONS:
            what = f"{self.by!r} is no statistic; there are: {_listed(Reduction)},"
            raise ValueError(f"{what} a quantile such as 0.99, or a function")
        if isinstance(self.by, int | float) and not 0 <= self.by <= 1:
            raise ValueError(f"quantile is {self.by:g}; must be from 0 to 1, such as 0.99")

    @property
    def name(self) -> str:
        """What the option `--of` takes."""
        by = getattr(self.by, "__name__", None) or (
            self.by if isinstance(self.by, str) else f"{self.by:g}"
        )
        return self.of if by == "mean" else f"{self.of}:{by}"

    @property
    def unit(self) -> str:
        """The unit of the value where `of` is a column, else empty."""
        column = next((c for c in _columns(self.table) if c.name == self.of), None)
        return column.unit if column and self.by != "count" else ""

    def values(self, results: Results) -> Values:
        """The observations, of all runs, in the table's order."""
        return self.observed(results)["value"].to_numpy(np.float64)

    def per_run(self, results: Results) -> list[float]:
        """The number of each run, in order; NaN where a run has no observation."""
        observed = self.observed(results)
        by_run = {run: frame["value"] for run, frame in observed.groupby("run", sort=False)}
        first = results.provenance.first_run
        none = pd.Series([], dtype=np.float64)
        return [
            self._reduced(by_run.get(run, none).to_numpy(np.float64))
            for run in range(first, first + results.provenance.runs)
        ]

    def observed(self, results: Results) -> pd.DataFrame:
        """Columns `run`, `value`, and `time` where the table has one; without empty values."""
        frame: Any = getattr(results, self.table)
        if self.where is not None:
            frame = frame[_evaluated(frame, self.where).fillna(value=False).astype(bool)]
        used = sorted(_names(self.of))
        present: Any = frame[frame[used].notna().all(axis="columns")]
        value = _evaluated(present, self.of)
        kept = pd.DataFrame({"run": present["run"], "value": value.astype("float64")})
        if (time := _TIMES.get(self.table)) is not None:
            kept["time"] = present[time]
        return kept[kept["value"].notna()]

    def _reduced(self, values: Values) -> float:
        if self.by == "count":
            return float(len(values))
        if self.by == "sum":
            return math.fsum(values)
        if not len(values):
            return math.nan
        if callable(self.by):
            return float(self.by(values))
        if isinstance(self.by, str):
            return float(getattr(np, self.by)(values))
        return float(np.quantile(values, self.by))

    def _check(self, text: str) -> None:
        known = {column.name for column in _columns(self.table)}
        if unknown := sorted(_names(text) - known):
            what = f"{text!r}: {self.table} has no column {', '.join(unknown)}"
            raise ValueError(f"{what}; there are: {', '.join(sorted(known))}")
        if not _names(text):
            raise ValueError(f"{text!r} names no column of {self.table}")


def estimate(
    results: Results,
    of: str | Statistic = "total",
    by: Reduction | float | Callable[[Values], float] = "mean",
    *,
    table: TableName = "handovers",
    where: str | None = None,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """The expectation of a statistic over the replications in `results`, with its interval.

    `of`, `by`, `table` and `where` are those of `Statistic`. Raises `ValueError` for what is no
    column or no statistic.
    """
    statistic = of if isinstance(of, Statistic) else Statistic(of, by, table, where)
    return student_t(statistic.per_run(results), confidence)


@final
@dataclass(frozen=True, slots=True, eq=False)
class SteadyState:
    """What a long run settles to, and the warm-up that was left out of each run."""

    estimate: Estimate
    warm_ups: tuple[WarmUp, ...]

    @property
    def settled(self) -> bool:
        """Whether every run was long enough for its warm-up to be found."""
        return all(warm_up.settled for warm_up in self.warm_ups)


def steady_state(
    results: Results,
    of: str = "wait_mean",
    *,
    table: TableName = "ims",
    where: str | None = None,
    batches: int = BATCHES,
    confidence: float = CONFIDENCE,
) -> SteadyState:
    """The mean that a statistic settles to: warm-up left out by MSER-5, run by run.

    Over several runs the interval is that of their means; with one run it comes from `batches`
    batch means. Raises `ValueError` where a run has fewer than 50 observations, or where rows of
    several servers are mixed: then `where` must choose one, such as `ims == 'IMS_MN'`.
    """
    statistic = Statistic(of, "mean", table, where)
    series = list(_series(statistic, results))
    warm_ups = tuple(mser5(values) for values in series)
    kept = [values[w.cut :] for values, w in zip(series, warm_ups, strict=True)]
    if len(kept) == 1:
        return SteadyState(batch_means(kept[0], batches, confidence), warm_ups)
    return SteadyState(student_t([values.mean() for values in kept], confidence), warm_ups)


def _series(statistic: Statistic, results: Results) -> Iterator[Values]:
    """The observations of each run in order of time."""
    if statistic.table not in _TIMES:
        raise ValueError(
            f"{statistic.table} has no times; a steady state is one of handovers, ims or links"
        )
    observed = statistic.observed(results)
    for run, frame in observed.groupby("run"):
        if statistic.table in _ONE and frame["time"].duplicated().any():
            what, choice = _ONE[statistic.table]
            raise ValueError(f'run {run} has several {what}; choose one with where="{choice}"')
        yield frame.sort_values("time", kind="stable")["value"].to_numpy(np.float64)


def parsed(text: str) -> Statistic:
    """The statistic that `--of` means: `COLUMN` or `COLUMN:STATISTIC`.

    Raises `ValueError`.
    """
    of, colon, by = text.rpartition(":")
    if not colon:
        return Statistic(text)
    try:
        return Statistic(of, float(by))
    except ValueError:
        if by.replace(".", "").isdecimal():
            raise
        return Statistic(of, cast(Reduction, by))


def _columns(table: TableName) -> tuple[Column, ...]:
    return next(schema.columns for schema in SCHEMAS if schema.name == table)


def _check_numbers(table: TableName, expression: str) -> None:
    """Raises `ValueError` for what gives no number in each row, before anything is simulated."""
    found = _in_a_row(table, expression)
    try:
        found.astype("float64")
    except ValueError as error:
        what = f"{expression!r} is no number; write for example total, or compare text:"
        raise ValueError(f"{what} kind == 'hard'") from error


def _check_condition(table: TableName, expression: str) -> None:
    """Raises `ValueError` for what neither holds nor fails in a row."""
    if not pd.api.types.is_bool_dtype(_in_a_row(table, expression).dtype):
        raise ValueError(f"{expression!r} is no condition; write for example kind == 'hard'")


def _in_a_row(table: TableName, expression: str) -> Any:
    """What an expression gives in a table of one row. Raises `ValueError`."""
    schema = next(schema for schema in SCHEMAS if schema.name == table)
    row = {column.name: "a" if column.type == "text" else 1 for column in schema.columns}
    try:
        found = _evaluated(frame_of_rows(schema, [row]), expression)
    except (TypeError, ValueError, NotImplementedError, AttributeError, KeyError) as error:
        raise ValueError(f"{expression!r} cannot be computed ({error})") from error
    if not isinstance(found, pd.Series):
        raise ValueError(f"{expression!r} is not one value for each row")
    return cast(Any, found)


def _names(expression: str) -> set[str]:
    """The columns that an expression names. Raises `ValueError` if it is none."""
    try:
        tree = ast.parse(expression, mode="eval")
    except SyntaxError as error:
        what = f"{expression!r} is no column and no expression of columns"
        raise ValueError(f"{what}; write for example total, or total > 1") from error
    if any(isinstance(node, ast.Attribute) for node in ast.walk(tree)):
        what = f"{expression!r} takes a method of a column, which would mix rows of all runs"
        raise ValueError(f"{what}; name a statistic instead, such as total:max")
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _evaluated(frame: pd.DataFrame, expression: str) -> Any:
    if expression in frame:
        return frame[expression]
    return cast(Any, frame).eval(expression, engine="python")


def _listed(literal: Any) -> str:
    return ", ".join(get_args(literal))
