"""What a user sees of a comparison: tables in the terminal, CSV files and a figure."""

import csv
import io
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rich.table import Table

from mat_files.palette import PART_NAMES
from mat_files.results import write_files
from mat_sim import plots
from mat_sim.compare._comparison import KINDS, TIMES, Comparison, Line, completed, values

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console

FILES: Final = (
    "comparison.csv",
    "comparison-messages.csv",
    "comparison-flows.csv",
    "comparison.pdf",
    "comparison.png",
)
"""What `write_comparison` writes."""
_PANELS: Final = 3
"""Pictures beside one another."""
_HEIGHT: Final = 2.1
"""Of a row of them, inches."""
_VISIBLE: Final = 1e-6
"""Seconds by which values must differ for a picture of them."""
_VERDICTS: Final = {True: "yes", False: "NO", None: "–"}


def print_comparison(comparison: Comparison, console: "Console") -> None:
    """Print how many handovers there were, what they took on both sides, and what was sent."""
    console.print(_outcomes(comparison))
    for kind in KINDS:
        lines = [line for line in comparison.lines if line.kind == kind]
        if lines:
            console.print(_parts(comparison, kind, lines))
    console.print(_messages(comparison))
    if comparison.traffic:
        console.print(_traffic(comparison))


def _table(title: str, columns: Sequence[str], text: int) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index < text else "right", overflow="fold")
    return table


def _outcomes(comparison: Comparison) -> Table:
    table = _table("Handovers", ("kind", "outcome", *comparison.names), 2)
    for kind, outcome, first, second in comparison.outcomes:
        table.add_row(kind, outcome, str(first), str(second))
    return table


def _parts(comparison: Comparison, kind: str, lines: Sequence[Line]) -> Table:
    one, other = comparison.names
    counts = "medians of " + " and ".join(map(str, _greatest(lines)))
    title = f"Completed {kind} handovers, ms or packets; {counts}"
    medians, p95 = (f"median\n{one}", f"\n{other}"), (f"p95\n{one}", f"\n{other}")
    table = _table(title, ("", *medians, *p95, "difference", "allowed", "agree"), 1)
    for line in lines:
        table.add_row(_name(line.column), *_cells(line), _VERDICTS[line.agrees])
    return table


def _greatest(lines: Sequence[Line]) -> tuple[int, int]:
    """How many handovers each side has."""
    return max(line.first.count for line in lines), max(line.second.count for line in lines)


def _name(column: str) -> str:
    return PART_NAMES.get(column, column.replace("_", " "))


def _cells(line: Line) -> Iterator[str]:
    factor = 1000.0 if line.unit == "s" else 1.0
    for number in (line.first.median, line.second.median, line.first.p95, line.second.p95):
        yield _number(number * factor, ".1f")
    yield _number(line.difference * factor, "+z.1f")
    yield _number(line.allowed * factor, ".1f")


def _number(number: float, form: str) -> str:
    return "–" if math.isnan(number) else format(number, form)


def _messages(comparison: Comparison) -> Table:
    one, other = comparison.names
    heads = ("type", "from", "to", f"sent\n{one}", f"\n{other}", f"lost\n{one}", f"\n{other}")
    table = _table("Messages of a run", heads, 3)
    for count in comparison.counts:
        numbers = (f"{number:.6g}" for number in (*count.sent, *count.lost))
        table.add_row(count.type, count.from_role, count.to_role, *numbers)
    return table


def _traffic(comparison: Comparison) -> Table:
    one, other = comparison.names
    pairs = [(f"{what}\n{one}", f"\n{other}") for what in ("sent", "lost", "mean delay (ms)")]
    table = _table("Data packets of a run", ("from", "to", *itertools.chain(*pairs)), 2)
    for flow in comparison.traffic:
        numbers = (f"{number:.6g}" for number in (*flow.sent, *flow.lost))
        delays = (_number(1000 * delay, ".1f") for delay in flow.delay)
        table.add_row(flow.from_role, flow.to_role, *numbers, *delays)
    return table


# ---- files ---------------------------------------------------------------------------------------


def write_comparison(comparison: Comparison, directory: Path) -> list[Path]:
    """Write the tables as CSV (SI units) and the figure as PDF and PNG. Raises `ResultsError`."""
    drawn = figure(comparison)
    contents = (
        _csv(_LINE_HEADS, _line_rows(comparison)),
        _csv(_COUNT_HEADS, _count_rows(comparison)),
        _csv(_FLOW_HEADS, _flow_rows(comparison)),
        _drawn(drawn, "pdf"),
        _drawn(drawn, "png"),
    )
    write_files(directory, dict(zip(FILES, contents, strict=True)))
    return [directory / name for name in FILES]


_LINE_HEADS: Final = (
    *("kind", "column", "unit", "first_count", "second_count", "first_median", "second_median"),
    *("first_p95", "second_p95", "difference", "allowed", "agrees"),
)
_COUNT_HEADS: Final = (
    *("type", "from_role", "to_role", "first_sent", "second_sent", "first_lost", "second_lost"),
)
_FLOW_HEADS: Final = (
    *("from_role", "to_role", "first_sent", "second_sent", "first_lost", "second_lost"),
    *("first_delay_mean", "second_delay_mean"),
)


def _line_rows(comparison: Comparison) -> Iterator[tuple[object, ...]]:
    for line in comparison.lines:
        one, other = line.first, line.second
        numbers = (one.median, other.median, one.p95, other.p95, line.difference, line.allowed)
        shown = ("" if math.isnan(number) else number for number in numbers)
        verdict = {True: "yes", False: "no", None: ""}[line.agrees]
        yield line.kind, line.column, line.unit, one.count, other.count, *shown, verdict


def _count_rows(comparison: Comparison) -> Iterator[tuple[object, ...]]:
    for count in comparison.counts:
        yield count.type, count.from_role, count.to_role, *count.sent, *count.lost


def _flow_rows(comparison: Comparison) -> Iterator[tuple[object, ...]]:
    for flow in comparison.traffic:
        delays = ("" if math.isnan(delay) else delay for delay in flow.delay)
        yield flow.from_role, flow.to_role, *flow.sent, *flow.lost, *delays


def _csv(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows(rows)
    return text.getvalue().encode()


def _drawn(drawn: "Figure", form: str) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"comparison.{form}"
        plots.save(drawn, path)
        return path.read_bytes()


def figure(comparison: Comparison) -> "Figure":
    """The distributions of both sides, a picture for each part that is not the same throughout."""
    panels = list(_panels(comparison))
    rows = max(1, math.ceil(len(panels) / _PANELS))
    with plots.style("double", _HEIGHT * rows):
        whole: Any = import_module("matplotlib.figure").Figure()
        places: list[Any] = list(whole.subplots(rows, _PANELS, squeeze=False).flat)
        for place, (kind, column, one, other) in zip(places, panels, strict=False):
            plots.comparison(one, other, column, names=comparison.names, axes=place)
            place.set_title(f"{kind}: {_name(column)}")
        for place in places[len(panels) :]:
            place.set_axis_off()
    drawn: Figure = whole
    return drawn


def _panels(comparison: Comparison) -> Iterator[tuple[str, str, Any, Any]]:
    for kind in KINDS:
        one, other = (completed(results, kind) for results in comparison.results)
        for column in TIMES:
            arrays = values(one[column]), values(other[column])
            if all(array.size for array in arrays) and np.ptp(np.concatenate(arrays)) > _VISIBLE:
                yield kind, column, one, other
