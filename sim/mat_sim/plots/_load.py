"""The load of the IMS over time."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

import numpy as np

from mat_files.palette import OKABE_ITO
from mat_sim.plots._style import axes_or_new, label, legend_above, library, nothing, pyplot, settle

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mat_files.results import Results
    from mat_sim.study import Statistic

LoadTime: TypeAlias = Literal[
    "wait_mean",
    "wait_p50",
    "wait_p99",
    "wait_max",
    "response_mean",
    "response_p50",
    "response_p99",
]
"""A column of the table `ims` that is a time."""

_PANELS: Final = (
    ("arrivals", "arrivals\n(messages/s)"),
    ("busy", "busy\n(share)"),
    ("queue_max", "longest queue\n(messages)"),
)
_OF_TIMES: Final = {
    "mean": "mean {}",
    "p50": "median {}",
    "p99": "99 % of {}s",
    "max": "longest {}",
}
_MOST: Final = 6
"""Servers drawn in a colour of their own; the others, less busy, are grey together."""
_OUTER: Final = (0.025, 0.975)
_REST: Final = "#bbbbbb"


def ims_load(
    source: "Results | pd.DataFrame",
    *,
    time: LoadTime = "wait_mean",
    figure: "Figure | None" = None,
) -> "tuple[Axes, ...]":
    """Arrivals, share of time busy, longest queue and the wait of each IMS over time.

    `source` is results, or their table `ims`. `time` is the column of times that is drawn: the mean
    wait, or another, such as `wait_p99` or `response_p99`; a load test has only responses. Of
    several runs, the lines are means and the bands hold 95 % of the runs. Returns the four Axes,
    from top to bottom, of `figure` or a new one. Raises `ValueError` for another column.
    """
    panels_of = (*_PANELS, (time, _label_of(time)))
    frame: Any = getattr(source, "ims", source)
    panels = _panels(figure, len(panels_of))
    servers = _busiest_first(frame)
    several = len(frame["run"].unique()) > 1
    for axes, (column, name) in zip(panels, panels_of, strict=True):
        for index, server in enumerate(servers):
            _draw(axes, _over_time(frame[frame["ims"] == server], column), server, index, several)
        label(axes, "", name, legend=False)
        settle(axes)
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        if not servers:
            nothing(axes)
    panels[-1].set_xlabel("time (s)")
    if len(servers) > 1:
        legend_above(panels[0], 4)
    return panels


def _label_of(time: str) -> str:
    if time not in get_args(LoadTime):
        raise ValueError(f"time is {time!r}; must be one of {', '.join(get_args(LoadTime))}")
    what, _, statistic = time.partition("_")
    return f"{_OF_TIMES[statistic].format(what)}\n(ms)"


def _panels(figure: "Figure | None", count: int) -> tuple[Any, ...]:
    drawing: Any = figure
    if drawing is None:
        width: float = library().rcParams["figure.figsize"][0]
        drawing = pyplot().figure(figsize=(width, 4.6))
    return tuple(drawing.subplots(count, 1, sharex=True))


def _busiest_first(frame: Any) -> list[str]:
    received = frame.groupby("ims", sort=False)["received"].sum()
    names: list[str] = received.sort_values(ascending=False, kind="stable").index.tolist()
    return names


def _over_time(rows: Any, column: str) -> Any:
    """Mean, low and high of a column at each begin of an interval, over the runs."""
    if column == "arrivals":
        quantity = rows["received"] / rows["interval"]
    else:
        quantity = rows[column] * (1000.0 if column in get_args(LoadTime) else 1.0)
    groups = quantity.astype("float64").groupby(rows["start"])
    low, high = (groups.quantile(share) for share in _OUTER)
    table = groups.mean().to_frame("mean").assign(low=low, high=high)
    return _closed(table, rows)


def _closed(table: Any, rows: Any) -> Any:
    """The last interval's values once more, at its end, so that it is drawn."""
    if len(table):
        end = float((rows["start"] + rows["interval"]).max())
        table.loc[end] = table.iloc[-1]
    return table


def _draw(axes: Any, table: Any, server: str, index: int, several: bool) -> None:
    coloured = index < _MOST
    colour = OKABE_ITO[index] if coloured else _REST
    name = server if coloured else ("others" if index == _MOST else None)
    x = np.asarray(table.index, dtype=np.float64)
    style = {"where": "post", "color": colour, "zorder": 2.5 - 0.01 * index}
    axes.step(x, table["mean"].to_numpy(), label=name, **style)
    if several and coloured:
        low, high = table["low"].to_numpy(), table["high"].to_numpy()
        axes.fill_between(x, low, high, step="post", color=colour, alpha=0.15, linewidth=0)


def over_time(
    sources: "Mapping[str, Results]",
    statistic: "Statistic",
    *,
    factor: float = 1.0,
    y_label: str | None = None,
    axes: "Axes | None" = None,
) -> "Axes":
    """A quantity of the table `ims` in each interval of a run, by name of the results.

    `statistic` says which, such as `Statistic("received / interval", table="ims")`; where several
    servers have a row for an interval, it is their sum. Of several runs, the line is the mean and
    the band its 95 % confidence interval in each interval. `factor` is applied to both.
    """
    drawing = axes_or_new(axes)
    for index, (name, results) in enumerate(sources.items()):
        times, columns = _course(statistic, results)
        _draw_course(drawing, times, [factor * column for column in columns], name, index)
    drawing.set_ylim(bottom=0)
    label(drawing, "time (s)", y_label or statistic.name)
    return drawing


def _draw_course(axes: Any, times: Any, columns: list[Any], name: str, index: int) -> None:
    middle, low, high = columns
    colour = OKABE_ITO[index % len(OKABE_ITO)]
    axes.step(times, middle, where="post", color=colour, label=name)
    axes.fill_between(times, low, high, step="post", color=colour, alpha=0.2, linewidth=0)
    axes.margins(x=0)


def _course(statistic: "Statistic", results: "Results") -> "tuple[Any, list[Any]]":
    """Begins of intervals, and for each the mean over the runs and the ends of its interval."""
    from mat_sim.study import student_t

    rows = statistic.observed(results)
    runs: Any = rows.pivot_table("value", "time", "run", aggfunc="sum")
    found = [student_t(values) for values in runs.to_numpy(np.float64)]
    table = np.array([(each.value, each.low, each.high) for each in found]).reshape(-1, 3)
    return runs.index.to_numpy(np.float64), list(table.T)
