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

from mat_files.results import Results
from mat_files.schema import DIRECTIONS, PARTS
from mat_sim.ladder import LadderMessage, ladder

__all__ = ["LadderMessage", "figure", "ladder", "print_summary"]

KINDS: Final = ("soft", "hard")
OUTCOMES: Final = ("completed", "superseded", "unfinished")
_NAMES: Final = {
    "away": "without coverage",
    "detect": "detect",
    "associate": "associate",
    "address": "address",
    "register": "register (IMS Update)",
    "notify": "notify (HA Notify)",
    "first_packet": "first packet",
    "total": "total",
}
_COLOURS: Final = {
    "away": "#999999",
    "detect": "#e69f00",
    "associate": "#56b4e9",
    "address": "#0072b2",
    "register": "#009e73",
    "notify": "#cc79a7",
    "first_packet": "#d55e00",
    "total": "#000000",
}
"""Okabe and Ito's colours, which most colour-blind readers tell apart."""


def print_summary(results: Results, console: Console) -> None:
    """Print how many handovers there were, how long their parts took, and what was sent."""
    for table in (_counts(results), _durations(results), _messages(results), _load(results)):
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
            table.add_row(_NAMES.get(column, column.replace("_", " ")), *shown)
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


def _load(results: Results) -> Table:
    heads = ("IMS", "received", "answered", "refused", "dropped", "busiest", "longest wait, ms")
    table = _table("IMS", *heads)
    for name, frame in results.ims.groupby("ims", sort=False):
        counts = [str(int(frame[c].sum())) for c in ("received", "answered", "refused", "dropped")]
        waits = _values(frame["wait_max"])
        longest = f"{waits.max() * 1000:.2f}" if waits.size else "–"
        table.add_row(str(name), *counts, f"{frame['busy'].max():.2%}", longest)
    return table


def figure(results: Results) -> bytes:
    """A PNG of the run: how long the parts of a handover took, and the interruption of the traffic.

    Both as cumulative distributions: the share of handovers that took at most so long.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    canvas: Any = Figure(figsize=(11, 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(canvas)
    left, right = canvas.subplots(1, 2)
    _draw_parts(left, results.handovers)
    _draw_interruption(right, results.handovers)
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_parts(axes: Any, handovers: pd.DataFrame) -> None:
    completed = handovers[handovers["outcome"] == "completed"]
    for part in (*PARTS, "total"):
        values = _values(completed[part])
        if values.any():
            width = 2.2 if part == "total" else 1.4
            _ecdf(axes, values, label=_NAMES[part], color=_COLOURS[part], linewidth=width)
    _finish(axes, f"Parts of a handover ({len(completed)} completed)", "duration (ms)")


def _draw_interruption(axes: Any, handovers: pd.DataFrame) -> None:
    names = {"up": "from the mobile node", "down": "to the mobile node"}
    for kind, frame in _by_kind(handovers):
        for direction, colour in zip(DIRECTIONS, ("#0072b2", "#d55e00"), strict=True):
            values = _values(frame[f"interruption_{direction}"])
            if values.size:
                label = f"{kind}, {names[direction]} ({values.size})"
                style = "-" if kind == "soft" else "--"
                _ecdf(axes, values, label=label, color=colour, linestyle=style, linewidth=1.8)
    _finish(axes, "Interruption of the traffic", "longest time without a packet (ms)")


def _ecdf(axes: Any, values: NDArray[np.float64], **style: Any) -> None:
    ordered = np.sort(values) * 1000
    share = np.arange(1, len(ordered) + 1) / len(ordered)
    axes.step(
        np.concatenate((ordered[:1], ordered)),
        np.concatenate(([0.0], share)),
        where="post",
        **style,
    )


def _finish(axes: Any, title: str, label: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(label)
    axes.set_ylabel("share of handovers")
    axes.set_xscale("symlog", linthresh=1.0)
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.02)
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    _plain_ticks(axes.xaxis)
    if axes.get_lines():
        axes.legend(frameon=False, fontsize=8, loc="upper left")
    else:
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", color="#999999")


def _plain_ticks(axis: Any) -> None:
    """Milliseconds as numbers, not as powers of ten."""
    from matplotlib.ticker import StrMethodFormatter

    axis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
