"""What a user sees of a run: tables in the terminal, one figure, and the ladder diagram.

matplotlib is imported when a figure is drawn, not before.
"""

import io
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from mat_files.ladder import LadderMessage, ladder
from mat_files.palette import PART_NAMES
from mat_files.results import Results
from mat_files.schema import DIRECTIONS, PARTS
from mat_sim import plots

__all__ = ["LadderMessage", "figure", "ladder", "print_summary"]

KINDS: Final = ("soft", "hard")
OUTCOMES: Final = ("completed", "superseded", "unfinished")


def print_summary(results: Results, console: Console) -> None:
    """Print how many handovers there were, how long their parts took, and what was sent."""
    tables = (_counts, _durations, _messages, _data, _load, _links)
    for table in (made(results) for made in tables):
        if table.row_count:
            console.print(table)


def _table(title: str, *columns: str, text: int = 1) -> Table:
    """A table whose first `text` columns are text and the others numbers."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index < text else "right", no_wrap=True)
    return table


def _counts(results: Results) -> Table:
    table = _table(
        "Handovers",
        "kind",
        "number",
        "completed",
        "superseded",
        "unfinished",
        "lost up",
        "lost down",
    )
    for kind, frame in _by_kind(results.handovers):
        outcomes = [str(int((frame["outcome"] == o).sum())) for o in OUTCOMES]
        lost = [str(int(frame[f"lost_{direction}"].sum())) for direction in DIRECTIONS]
        table.add_row(kind, str(len(frame)), *outcomes, *lost)
    return table


def _by_kind(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for kind in KINDS:
        rows = frame[frame["kind"] == kind]
        if len(rows):
            yield kind, rows


def _durations(results: Results) -> Table:
    kinds = [kind for kind, _ in _by_kind(results.handovers)]
    heads = [f"{kind} {what}" for kind in kinds for what in ("median", "p95", "max")]
    table = _table("Time per handover, ms", "part", *heads)
    for column in (*PARTS, "total", *(f"interruption_{d}" for d in DIRECTIONS)):
        cells = [_quantiles(frame[column]) for _, frame in _by_kind(results.handovers)]
        if any(cells):
            shown = [cell for row in cells for cell in row or ("–", "–", "–")]
            table.add_row(PART_NAMES.get(column, column.replace("_", " ")), *shown)
    return table


def _values(column: Any) -> NDArray[np.float64]:
    """The values that exist."""
    values: NDArray[np.float64] = column.to_numpy(dtype=np.float64, na_value=np.nan)
    return values[~np.isnan(values)]


def _quantiles(column: Any) -> list[str]:
    """Median, 95th percentile and maximum in ms; empty without values or where all are 0."""
    values = _values(column)
    if not values.any():
        return []
    points: list[float] = np.quantile(values, (0.5, 0.95, 1.0)).tolist()
    return [f"{point * 1000:.1f}" for point in points]


def _messages(results: Results) -> Table:
    heads = ("type", "from", "to", "sent", "delivered", "lost", "repeated", "bytes")
    table = _table("Messages", *heads, text=3)
    columns = ["sent", "delivered", "lost", "retransmitted", "bytes"]
    keys = ["type", "from_role", "to_role"]
    totals = results.messages.groupby(keys, sort=False)[columns].sum().reset_index()
    for row in totals.to_numpy().tolist():
        table.add_row(*map(str, row))
    return table


def _data(results: Results) -> Table:
    heads = ("from", "to", "sent", "delivered", "delay, ms", "path stretch", "header bytes")
    table = _table("Data, mean of a packet", *heads, text=2)
    for roles, frame in results.flows.groupby(["from_role", "to_role"], sort=False):
        counts = [str(int(frame[column].sum())) for column in ("sent", "delivered")]
        delay = _weighted(frame, "delay_mean", 1000, ".1f")
        means = [_weighted(frame, column, 1, ".2f") for column in ("stretch_mean", "header_mean")]
        table.add_row(*map(str, roles), *counts, delay, *means)
    return table


def _weighted(frame: Any, column: str, factor: float, form: str) -> str:
    """The mean of a column over all packets that were delivered, in several runs."""
    known = frame[frame[column].notna()]
    delivered = known["delivered"].to_numpy(np.float64)
    if not delivered.any():
        return "–"
    mean = float((known[column].to_numpy(np.float64) * delivered).sum() / delivered.sum())
    return format(mean * factor, form)


def _load(results: Results) -> Table:
    heads = ("IMS", "received", "answered", "refused", "dropped", "busiest", "longest wait, ms")
    table = _table("IMS", *heads)
    for name, frame in results.ims.groupby("ims", sort=False):
        counts = [str(int(frame[c].sum())) for c in ("received", "answered", "refused", "dropped")]
        waits = _values(frame["wait_max"])
        longest = f"{waits.max() * 1000:.2f}" if waits.size else "–"
        table.add_row(str(name), *counts, f"{frame['busy'].max():.2%}", longest)
    return table


def _links(results: Results) -> Table:
    heads = ("link", "way", "packets", "dropped", "bytes", "busiest", "longest wait, ms")
    table = _table("Links with a rate", *heads, text=2)
    for (name, _, way), frame in results.links.groupby(["link", "kind", "direction"], sort=False):
        counts = [str(int(frame[column].sum())) for column in ("arrived", "dropped", "bytes")]
        longest = _values(frame["wait_max"]).max()
        table.add_row(
            str(name), str(way), *counts, f"{frame['busy'].max():.2%}", f"{longest * 1000:.2f}"
        )
    return table


def figure(results: Results) -> bytes:
    """A PNG of the run: how long the parts of a handover took, and the interruption of the traffic.

    Both as cumulative distributions: the share of handovers that took at most so long.
    """
    from matplotlib.figure import Figure

    with plots.style("double"):
        whole: Any = Figure(figsize=(6.6, 3.0), dpi=250)
        left, right = whole.subplots(1, 2)
        plots.parts(results, axes=left)
        plots.interruption(results, axes=right)
        completed = int((results.handovers["outcome"] == "completed").sum())
        _title(left, f"Parts of a handover ({completed:,} completed)")
        _title(right, "Interruption of the traffic")
        buffer = io.BytesIO()
        whole.savefig(buffer, format="png", dpi=250, metadata={"Software": None})
        return buffer.getvalue()


def _title(axes: Any, text: str) -> None:
    """Above the legend, where there is one."""
    legend = axes.get_legend()
    if legend:
        legend.set_title(text, prop={"weight": "bold"})
    else:
        axes.set_title(text)
