"""Confidence intervals as tables for the terminal."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd
from rich.table import Table

from mat_files.results import Results, write_files
from mat_sim.study._estimate import Statistic, estimate
from mat_sim.study._intervals import CONFIDENCE, Estimate
from mat_sim.study._sweep import Sweep

USUAL: Final = (
    Statistic("total"),
    Statistic("total", 0.95),
    Statistic("interruption_up"),
    Statistic("interruption_down"),
)
"""What a table of estimates has beside what was asked for."""


def print_estimates(results: Results, wanted: Sequence[Statistic], console: Any) -> None:
    """Statistics of replications, each with its interval: those wanted, then the usual ones."""
    runs = results.provenance.runs
    table = _table(f"Over {runs} runs: mean and {CONFIDENCE * 100:g} % confidence interval")
    for name in ("statistic", "unit"):
        table.add_column(name)
    for name in ("mean", "from", "to", "±"):
        table.add_column(name, justify="right")
    for statistic in dict.fromkeys((*wanted, *USUAL)):
        unit, factor = _unit(statistic)
        table.add_row(statistic.name, unit, *_numbers(estimate(results, statistic), factor))
    console.print(table)


def print_sweep(sweep: Sweep, wanted: Sequence[Statistic], console: Any) -> None:
    """Statistics of each case of a sweep, a table for each statistic."""
    for statistic in wanted:
        unit, factor = _unit(statistic)
        found = sweep.estimate(statistic)
        title = f"{statistic.name}{', ' if unit else ''}{unit}:"
        table = _table(f"{title} mean and {CONFIDENCE * 100:g} % confidence interval")
        own = [name for name in found.columns if name not in _ESTIMATE]
        for name in own:
            table.add_column(name, overflow="fold")
        for name in ("runs", "mean", "from", "to", "±"):
            table.add_column(name, justify="right")
        for row in _rows(found):
            value, low, high, runs = (row[name] for name in _ESTIMATE)
            numbers = _numbers(Estimate(value, low, high, CONFIDENCE, runs), factor)
            table.add_row(*(_text(row[name]) for name in own), str(runs), *numbers)
        console.print(table)


def summary(sweep: Sweep, wanted: Iterable[Statistic]) -> pd.DataFrame:
    """The estimates of all cases in one table: a row for each case and statistic, in SI units."""
    frames = [sweep.estimate(s).assign(statistic=s.name, unit=s.unit) for s in wanted]
    return pd.concat(frames, ignore_index=True)


def write_summary(directory: Path, estimates: pd.DataFrame) -> None:
    """Write estimates as summary.csv into a directory. Raises `ResultsError`."""
    text = estimates.to_csv(index=False, lineterminator="\n")
    write_files(directory, {"summary.csv": text.encode()})


_ESTIMATE: Final = ("value", "low", "high", "runs")


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold")


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    names = list(frame.columns)
    return [dict(zip(names, row, strict=True)) for row in frame.to_numpy(object).tolist()]


def _unit(statistic: Statistic) -> tuple[str, float]:
    """Seconds are shown in milliseconds."""
    return ("ms", 1000.0) if statistic.unit == "s" else (statistic.unit, 1.0)


def _numbers(found: Estimate, factor: float) -> list[str]:
    """Mean, both ends, and the half-width as a share; a dash for what there is not."""
    numbers = [number * factor for number in (found.value, found.low, found.high)]
    share = "–" if math.isnan(found.relative) else f"{found.relative:.1%}"
    return [*("–" if math.isnan(number) else f"{number:.5g}" for number in numbers), share]


def _text(value: object) -> str:
    return "" if value is None else str(value)
