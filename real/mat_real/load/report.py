"""What a user sees of a load test: tables in the terminal, and one figure.

matplotlib is imported when the figure is drawn, not before.
"""

import io
import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from mat.messages import Code
from mat_real.load.ledger import Note
from mat_real.load.measures import (
    NAMES_OF_KINDS,
    PROCEDURE,
    QUANTILES,
    Run,
    Timeline,
    codes,
    doubts,
    lateness,
    main,
    measured,
    quantiles,
    timeline,
)

_COLOURS: Final = {
    "IMS Update": "#009e73",
    "HA Notify": "#cc79a7",
    "MA Query": "#0072b2",
    PROCEDURE: "#000000",
}
"""Okabe and Ito's colours, which most colour-blind readers tell apart; as in `mat sim`'s figure."""
_HEADS: Final = ("median", "p90", "p99", "p99.9", "max")


def print_summary(run: Run, console: Console) -> None:
    """Print how the servers held, and whether the generator's figures can be relied on."""
    console.print(_counts(run))
    console.print(_responses(run))
    for line in (*_verdict(run), *_oddities(run)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for doubt in doubts(run):
        console.print(f"[bold red]Not to be trusted:[/] {doubt}.", highlight=False, soft_wrap=True)


def _table(title: str, *heads: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("request", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _counts(run: Run) -> Table:
    heads = ("begun", "done", "refused", "lost", "superseded", "repeated")
    table = _table("Requests", *heads)
    for about in measured(run.ledger):
        table.add_row(about.name, *(str(getattr(about, head)) for head in heads))
    return table


def _responses(run: Run) -> Table:
    table = _table("Response time, ms", *_HEADS)
    for about in measured(run.ledger):
        table.add_row(about.name, *map(_milliseconds, about.quantiles()))
    return table


def _milliseconds(seconds: float) -> str:
    if math.isnan(seconds):
        return "–"
    return f"{seconds * 1000:.2f}" if seconds < 0.1 else f"{seconds * 1000:.0f}"


def _verdict(run: Run) -> list[str]:
    ledger, about = run.ledger, main(run.ledger)
    unbegun = len(ledger.plan) - ledger.begun
    left = f", {unbegun} not begun" if unbegun else ""
    ended = f"{about.done} of {about.begun} done, {about.lost} lost for good{left}"
    lines = [f"{run.what}: {ended}, in {ledger.ended:.1f} s."]
    late = quantiles(lateness(ledger))
    if not math.isnan(late[0]):
        shown = ", ".join(
            f"{head} {_milliseconds(value)}" for head, value in zip(_HEADS, late, strict=True)
        )
        lines.append(f"The generator was late by, ms: {shown}.")
    if run.interrupted:
        lines.append("Interrupted: what was open then counts as lost.")
    return lines


def _oddities(run: Run) -> list[str]:
    """What should not happen, where it did."""
    ledger = run.ledger
    lines = [
        f"{NAMES_OF_KINDS[kind]} was answered with code {code} ({_code_name(code)}) {number} times."
        for kind, by_code in codes(ledger).items()
        for code, number in by_code.items()
    ]
    counts = (
        (run.forged, "Replies carried a false MAC: those handovers do not count as done"),
        (len(ledger.noted(Note.WRONG).times), f"requests were {Note.WRONG.value}"),
        (len(ledger.noted(Note.OUTDATED).times), f"requests were {Note.OUTDATED.value}"),
        (len(ledger.noted(Note.LATE).times), f"requests were {Note.LATE.value}"),
        (ledger.unexpected, "datagrams answered nothing that was asked, or had a wrong nonce"),
        (run.unreachable, "times the host said that nobody listens there, or that it has no way"),
    )
    return [*lines, *(f"{number} {what}." for number, what in counts if number)]


def _code_name(code: int) -> str:
    return Code(code).name.lower().replace("_", " ") if code in set(Code) else "unknown"


# ---- the figure ----------------------------------------------------------------------------------


def figure(run: Run) -> bytes:
    """A PNG of the run: response times and rates over time, and distributions."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    canvas: Any = Figure(figsize=(13, 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(canvas)
    left, middle, right = canvas.subplots(1, 3)
    line = timeline(run.ledger)
    _draw_responses(left, line, main(run.ledger).name)
    _draw_rates(middle, line)
    _draw_distributions(right, run)
    for axes in (left, middle, right):
        axes.grid(visible=True, which="major", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=8, framealpha=0.9)
    canvas.suptitle(run.what, fontsize=11)
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_responses(axes: Any, line: Timeline, name: str) -> None:
    shown = {0.5: ("#0072b2", "-"), 0.99: ("#e69f00", "-"), 0.999: ("#d55e00", "--")}
    for share, row in zip(QUANTILES, line.quantiles, strict=True):
        known = ~np.isnan(row)
        if share in shown and known.any():
            colour, style = shown[share]
            middles = line.starts[known] + line.interval / 2
            axes.set_xlim(0, middles[-1] + line.interval / 2)
            head = _HEADS[QUANTILES.index(share)]
            marker = "o" if np.count_nonzero(known) < 30 else ""
            axes.plot(
                middles, row[known] * 1000, style, color=colour, label=head, marker=marker, ms=3
            )
    axes.set_title(f"Response time: {name}", fontsize=11)
    axes.set_xlabel("time at which it began (s)")
    axes.set_ylabel("ms")
    _logarithmic(axes.set_yscale, axes.yaxis, 1, 2, 5)
    low, high = axes.get_ylim()
    axes.set_ylim(low / 1.5, high * 1.5)


def _draw_rates(axes: Any, line: Timeline) -> None:
    edges = np.append(line.starts, line.starts[-1] + line.interval)
    for values, name, colour in (
        (line.begun, "sent first", "#0072b2"),
        (line.answered, "answered", "#009e73"),
        (line.repeated, "sent again", "#d55e00"),
    ):
        if values.any():
            rate = values / line.interval
            axes.stairs(rate, edges, label=name, color=colour, linewidth=1.6)
    axes.set_title("Requests of all kinds", fontsize=11)
    axes.set_xlabel("time (s)")
    axes.set_ylabel("requests per second")
    axes.set_xlim(0, edges[-1])
    axes.set_ylim(bottom=0)


def _draw_distributions(axes: Any, run: Run) -> None:
    for about in measured(run.ledger):
        if len(about.times):
            label = f"{about.name} ({about.done} of {about.begun})"
            share = about.done / about.begun
            _draw_share(axes, about.times, share, label=label, color=_COLOURS[about.name])
    axes.set_title("Distribution", fontsize=11)
    axes.set_xlabel("response time (ms)")
    axes.set_ylabel("share of those begun")
    _logarithmic(axes.set_xscale, axes.xaxis, 1, 3)
    axes.set_ylim(0, 1.02)


def _logarithmic(set_scale: Any, axis: Any, *subs: float) -> None:
    """A logarithmic scale with plain numbers, at these places of each decade."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    set_scale("log")
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def _draw_share(axes: Any, times: NDArray[np.float64], share: float, **style: Any) -> None:
    """The share that had been answered after a time; a thousand points draw it well enough."""
    points = np.linspace(0, 1, min(len(times), 1000))
    axes.plot(np.quantile(times, points) * 1000, points * share, linewidth=1.6, **style)
