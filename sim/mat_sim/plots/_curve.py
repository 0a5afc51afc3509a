"""A statistic against a swept parameter, with confidence bands and the knee."""

from typing import TYPE_CHECKING, Any

import numpy as np

from mat_files.palette import OKABE_ITO
from mat_sim.plots._data import by_column
from mat_sim.plots._knee import Knee, knee
from mat_sim.plots._style import axes_or_new, label

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def curve(
    frame: "pd.DataFrame",
    x: str = "x",
    *,
    estimate: str = "estimate",
    low: str = "low",
    high: str = "high",
    by: str | None = None,
    mark_knee: bool = False,
    factor: float = 1.0,
    x_label: str | None = None,
    y_label: str | None = None,
    axes: "Axes | None" = None,
) -> "Axes":
    """The column `estimate` over the column `x`, with a band from `low` to `high`.

    `by` names a column whose values have a line each. The band is left out where the frame has no
    such columns. `mark_knee` marks where `knee` finds one, with its range where there is a band;
    then `x` is a load. `factor` is applied to the estimates and the band, such as 1000 for
    milliseconds; labels should name the units. Raises `ValueError` for a column that is missing.
    """
    wanted = [x, estimate, *([by] if by else [])]
    if missing := [name for name in wanted if name not in frame.columns]:
        has = ", ".join(map(str, frame.columns))
        raise ValueError(f"the frame has no column {', '.join(missing)}; it has {has}")
    drawing = axes_or_new(axes)
    whole: Any = frame
    banded = low in whole.columns and high in whole.columns
    groups = list(by_column(whole, by)) if by else [("", whole)]
    for index, (name, rows) in enumerate(groups):
        ordered = rows.sort_values(x, kind="stable")
        columns = [x, estimate, *((low, high) if banded else ())]
        table = [ordered[column].to_numpy(dtype=np.float64) for column in columns]
        table[1:] = [factor * column for column in table[1:]]
        colour = OKABE_ITO[index % len(OKABE_ITO)]
        _draw(drawing, table, name, colour)
        found = knee(*table) if mark_knee else None
        if found:
            _mark(drawing, found, colour, index)
    label(drawing, x_label or x, y_label or estimate)
    return drawing


def _draw(axes: Any, table: list[Any], name: str, colour: str) -> None:
    axes.plot(table[0], table[1], marker="o", color=colour, label=name or None)
    axes.xaxis.set_major_formatter("{x:,g}")
    if len(table) == 4:
        axes.fill_between(table[0], table[2], table[3], color=colour, alpha=0.2, linewidth=0)


def _mark(axes: Any, found: Knee, colour: str, row: int) -> None:
    rounded = float(f"{found.load:.3g}")
    axes.axvline(found.load, color=colour, linestyle=":", linewidth=1.0)
    axes.axvspan(found.low, found.high, color=colour, alpha=0.07, linewidth=0)
    axes.annotate(
        f"knee at {rounded:,g}",
        (found.load, 0.97 - 0.08 * row),
        (-3, 0),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="right",
        va="top",
        color=colour,
        fontsize="small",
    )
