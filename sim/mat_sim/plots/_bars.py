"""Systems, kinds or cases side by side: stacked parts, and estimates with their intervals."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mat_files.palette import OKABE_ITO, PART_COLOURS, PART_NAMES
from mat_files.schema import PARTS
from mat_sim.plots._data import Source, by_column, handovers_of, values
from mat_sim.plots._style import axes_or_new, label, legend_above, nothing

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_NORMAL_95: Final = 1.96
_MARKERS: Final = "os^Dv"
_LANE: Final = 0.5
"""Height that the series of one name share, of the distance between two names."""


def stacked(
    source: "Source | Mapping[str, Source]", *, by: str = "kind", axes: "Axes | None" = None
) -> "Axes":
    """The mean of each part of completed handovers, stacked to the mean of the total.

    One bar for each value of the column `by`, or, of a mapping, one for each name in it. A part
    that a handover has not counts as 0, as in the total. The whisker is the 95 % confidence
    interval of the mean total (normal approximation), of three handovers or more.
    """
    frames = _completed(source, by)
    drawing = axes_or_new(axes)
    if frames:
        _draw(drawing, frames)
    else:
        nothing(drawing)
    return drawing


def _completed(source: "Source | Mapping[str, Source]", by: str) -> dict[str, Any]:
    """The completed handovers by name; a name without any is left out."""
    if isinstance(source, Mapping):
        frames = {name: handovers_of(each) for name, each in source.items()}
    else:
        frames = dict(by_column(handovers_of(source), by))
    done = {name: frame[frame["outcome"] == "completed"] for name, frame in frames.items()}
    return {name: frame for name, frame in done.items() if len(frame)}


def _draw(axes: Any, frames: Mapping[str, Any]) -> None:
    rows = np.arange(len(frames))
    left = np.zeros(len(frames))
    for part in PARTS:
        widths = np.array([_mean(frame, part) for frame in frames.values()])
        if widths.any():
            colour, name = PART_COLOURS[part], PART_NAMES[part]
            axes.barh(rows, widths, 0.6, left=left, color=colour, label=name)
        left = left + widths
    halves = np.array([_half(values(frame["total"])) for frame in frames.values()])
    axes.errorbar(left, rows, xerr=halves, fmt="none", ecolor="black", elinewidth=0.8, capsize=2)
    for row, end, half in zip(rows, left, halves, strict=True):
        place = {"xytext": (3, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(f"{float(f'{end:.3g}'):,g} ms", (end + half, row), **place)
    axes.set_yticks(rows, list(frames))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("mean time of a handover (ms)")
    axes.set_xlim(0, 1.2 * float((left + halves).max()) or 1)
    legend_above(axes, 3)


def _mean(frame: Any, part: str) -> float:
    return 1000 * float(values(frame[part]).sum()) / len(frame)


def _half(total: Any) -> float:
    """Half of the confidence interval of the mean, ms."""
    if len(total) < 3:
        return 0.0
    return 1000 * _NORMAL_95 * float(total.std(ddof=1)) / float(np.sqrt(len(total)))


def estimates(
    frames: "Mapping[str, pd.DataFrame]",
    by: str,
    *,
    estimate: str = "value",
    low: str = "low",
    high: str = "high",
    factor: float = 1.0,
    x_label: str | None = None,
    axes: "Axes | None" = None,
) -> "Axes":
    """Values with their confidence intervals, side by side: a line for each value of column `by`.

    Each frame, as `Sweep.estimate` returns them, is a series with a colour; they have the same
    rows, which are drawn in their order from the top. `factor` is applied to values and intervals,
    such as 1000 for milliseconds; the label should name the unit.
    """
    drawing = axes_or_new(axes)
    lanes = (np.arange(len(frames)) - (len(frames) - 1) / 2) * _LANE / len(frames)
    for index, (name, frame) in enumerate(frames.items()):
        columns = (frame[column].to_numpy(np.float64) for column in (estimate, low, high))
        _draw_estimates(drawing, [factor * column for column in columns], lanes[index], name, index)
        _name_rows(drawing, [str(value) for value in frame[by]])
    label(drawing, x_label or estimate, "", legend=False)
    if len(frames) > 1:
        legend_above(drawing, len(frames))
    return drawing


def _name_rows(axes: Any, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


def _draw_estimates(axes: Any, columns: list[Any], lane: float, name: str, index: int) -> None:
    middle, low, high = columns
    around = np.nan_to_num([middle - low, high - middle])
    look = {"fmt": _MARKERS[index % len(_MARKERS)], "capsize": 2, "elinewidth": 0.8}
    colour = OKABE_ITO[index % len(OKABE_ITO)]
    rows = np.arange(len(middle)) + lane
    axes.errorbar(middle, rows, xerr=around, color=colour, label=name, **look)
