"""What a record says, drawn: vector and PNG, in the style of the simulator's plots."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from mat_files.palette import OKABE_ITO, PART_COLOURS, PART_NAMES
from mat_files.schema import PARTS
from mat_paper import published
from mat_paper.hosts import WAY_NAMES, WAYS
from mat_paper.summary import CROWD_COLUMNS, Crowd, Handovers, RoundTrips, Throughput

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS: Final = ("pdf", "svg", "png")
_MEGA: Final = 1e-6
_MILLI: Final = 1e3
_GREY: Final = "#555555"
_PLACES: Final = {"simulator": "simulator", "net": "lab, net", "lab": "lab"}


def files(name: str, figure: "Figure") -> Iterator[tuple[str, bytes]]:
    """A figure as files by name, in all kinds; it is closed."""
    from mat_sim import plots

    with TemporaryDirectory() as folder:
        for kind in KINDS:
            path = Path(folder) / f"{name}.{kind}"
            plots.save(figure, path)
            yield path.name, path.read_bytes()
    plots.pyplot().close(figure)


def table_4(found: Sequence[RoundTrips]) -> "Figure":
    """Round trips from least to greatest with the mean; the paper's, and the medians of ours."""
    from mat_sim import plots

    colours: dict[str, str] = dict(zip(WAYS, OKABE_ITO, strict=False))
    rows = [
        (f"paper, {name} MAT", (one.least, one.mean, one.greatest), _GREY)
        for name, one in published.TABLE_4.items()
    ]
    for one in found:
        times = (one.least.median, one.mean.median, one.greatest.median)
        rows.append((WAY_NAMES[one.way], times, colours[one.way]))
    with plots.style("single", 1.9):
        figure, axes = _subplots(1, 1)
        for place, (_, (least, mean, greatest), colour) in enumerate(rows):
            axes.plot([least * _MILLI, greatest * _MILLI], [place, place], color=colour)
            axes.plot(mean * _MILLI, place, "o", color=colour)
        _rows(axes, [row[0] for row in rows])
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("round trip (ms): least, mean, greatest")
    return figure


def figure_5(found: Sequence[Throughput]) -> "Figure":
    """What arrived over the load, with 95 % confidence bands, and the loss below.

    Upright lines: up to where the paper saw no difference, and its machines' limit.
    """
    from mat_sim import plots

    with plots.style("single", 3.6):
        figure, (upper, lower) = _subplots(2, 1, sharex=True, height_ratios=(2, 1))
        for axes, name, factor, label in (
            (upper, "arrived", _MEGA, "arrived (Mbit/s)"),
            (lower, "loss", 100.0, "lost (%)"),
        ):
            frame = _estimates(found, name)
            plots.curve(frame, "load", by="way", factor=factor, y_label=label, axes=axes)
            for at, style in ((published.UDP_EQUAL, ":"), (published.UDP_LIMIT, "--")):
                words = "paper: " + ("equal up to" if style == ":" else "limit")
                axes.axvline(at * _MEGA, color=_GREY, linestyle=style, linewidth=0.8, label=words)
            axes.set_ylim(bottom=0)
        greatest = max(one.load for one in found) * _MEGA
        whole = {"color": _GREY, "linewidth": 0.6, "label": "as offered"}
        upper.plot([0, greatest], [0, greatest], **whole)
        upper.set_xlabel("")
        upper.legend(loc="upper left")
        lower.get_legend().remove()
        lower.set_xlabel("offered load (Mbit/s)")
    return figure


def _estimates(found: Sequence[Throughput], name: str) -> Any:
    import pandas as pd

    rows = [(one, getattr(one, name)) for one in found]
    return pd.DataFrame(
        {
            "way": [WAY_NAMES[one.way] for one, _ in rows],
            "load": [one.load * _MEGA for one, _ in rows],
            "estimate": [estimate.mean for _, estimate in rows],
            "low": [estimate.low for _, estimate in rows],
            "high": [estimate.high for _, estimate in rows],
        }
    )


def parts(found: Sequence[Handovers]) -> "Figure":
    """The medians of the parts of each kind of handover, stacked: simulator, lab net, lab."""
    from mat_sim import plots

    bars = list(_bars(found))
    with plots.style("double", 0.6 + 0.3 * len(bars)):
        figure, axes = _subplots(1, 1)
        lefts = [0.0] * len(bars)
        for part in PARTS:
            widths = [bar[1].get(part, 0.0) * _MILLI for bar in bars]
            if any(widths):
                style = {"color": PART_COLOURS[part], "label": PART_NAMES[part]}
                axes.barh(range(len(bars)), widths, 0.65, left=lefts, **style)
            lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
        _rows(axes, [bar[0] for bar in bars])
        axes.set_xlabel("medians of the parts (ms)")
        plots.legend_above(axes, 4)
    return figure


def _bars(found: Sequence[Handovers]) -> Iterator[tuple[str, dict[str, float]]]:
    for one in found:
        pairs = [(line, raw) for line, raw in one.parts if line.column in PARTS]
        yield (
            f"{one.variant.name}: simulator",
            {line.column: line.first.median for line, _ in pairs},
        )
        yield "lab, net", {line.column: line.second.median for line, _ in pairs}
        yield "lab", {raw.column: raw.second.median for _, raw in pairs}


def crowd(found: Sequence[Crowd]) -> "Figure":
    """Median and 95th percentile over the number of nodes, of what meets at the servers."""
    from mat_sim import plots

    with plots.style("double", 2.5):
        figure, pictures = _subplots(1, len(CROWD_COLUMNS))
        for axes, column in zip(pictures, CROWD_COLUMNS, strict=True):
            for (where, name), colour in zip(_PLACES.items(), OKABE_ITO, strict=False):
                own = [one for one in found if (one.where, one.column) == (where, column)]
                nodes = [one.nodes for one in own]
                axes.plot(nodes, [o.median * _MILLI for o in own], "o-", color=colour, label=name)
                dashed = {"color": colour, "linestyle": "--", "linewidth": 0.8}
                axes.plot(nodes, [one.p95 * _MILLI for one in own], **dashed)
                axes.set_xticks(nodes)
            axes.set_title(PART_NAMES[column])
            axes.set_xlabel("nodes at the same time")
            axes.set_ylim(bottom=0)
        pictures[0].set_ylabel("median, 95th percentile dashed (ms)")
        pictures[0].legend()
    return figure


def _subplots(rows: int, columns: int, **how: Any) -> "tuple[Figure, Any]":
    """A figure, and its Axes."""
    from mat_sim import plots

    drawn: tuple[Figure, Any] = plots.pyplot().subplots(rows, columns, **how)
    figure, axes = drawn
    for one in figure.axes:
        plots.settle(one)
    return figure, axes


def _rows(axes: Any, names: Sequence[str]) -> None:
    """Name what is drawn in rows, from above."""
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
