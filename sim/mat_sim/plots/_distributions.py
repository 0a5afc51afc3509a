"""Distributions: the parts of a handover, the interruption, and two sets of results compared."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mat_files.palette import OKABE_ITO, PART_COLOURS, PART_NAMES
from mat_files.schema import DIRECTIONS, PARTS
from mat_sim.plots._data import Source, Values, by_column, half_band, handovers_of, unit_of, values
from mat_sim.plots._style import axes_or_new, label, legend_above, nothing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TOWARDS: Final = {"up": "from the node", "down": "to the node"}
_POINTS: Final = 2000
"""Steps of a curve that are drawn: more would only make the file larger."""


def distribution(
    samples: "Mapping[str, Sequence[float] | Values]",
    quantity: str = "time",
    *,
    confidence: float | None = 0.95,
    axes: "Axes | None" = None,
) -> "Axes":
    """The distribution functions of some samples of times (s), by name.

    Each has a band that holds the whole true function with this confidence (`half_band`); `None`
    draws none. `quantity` names the horizontal axis.
    """
    arrays = {name: values(sample) for name, sample in samples.items()}
    drawing = axes_or_new(axes)
    factor, unit = unit_of(arrays.values())
    for index, (name, array) in enumerate(arrays.items()):
        if array.size:
            colour = OKABE_ITO[index % len(OKABE_ITO)]
            _ecdf(
                drawing, array * factor, confidence, label=f"{name} ({array.size:,})", color=colour
            )
    _finish(drawing, f"{quantity} ({unit})", legend=True)
    return drawing


def parts(source: Source, *, kind: str | None = None, axes: "Axes | None" = None) -> "Axes":
    """The distributions of the parts of completed handovers and of their total.

    `kind` (such as `hard`) takes those alone. The horizontal axis is linear up to 1 ms and
    logarithmic beyond; parts that are 0 throughout are left out.
    """
    frame = handovers_of(source)
    frame = frame[frame["outcome"] == "completed"]
    if kind is not None:
        frame = frame[frame["kind"] == kind]
    drawing = axes_or_new(axes)
    for part in (*PARTS, "total"):
        array = values(frame[part])
        if array.any():
            width = 2.0 if part == "total" else 1.3
            style = {"color": PART_COLOURS[part], "linewidth": width}
            _ecdf(drawing, array * 1000, None, label=PART_NAMES[part], **style)
    _finish_logarithmic(drawing, "duration (ms)")
    return drawing


def interruption(source: Source, *, axes: "Axes | None" = None) -> "Axes":
    """The distributions of the interruption by direction and kind of handover."""
    drawing = axes_or_new(axes)
    for kind, frame in by_column(handovers_of(source), "kind"):
        for direction, colour in zip(DIRECTIONS, OKABE_ITO, strict=False):
            array = values(frame[f"interruption_{direction}"])
            if array.size:
                name = f"{kind}, {_TOWARDS[direction]}"
                style = "-" if kind == "soft" else "--"
                _ecdf(drawing, array * 1000, None, label=name, color=colour, linestyle=style)
    _finish_logarithmic(drawing, "interruption (ms)")
    return drawing


def comparison(
    first: Source,
    second: Source,
    column: str = "total",
    *,
    names: tuple[str, str] = ("simulator", "lab"),
    confidence: float = 0.95,
    axes: "Axes | None" = None,
) -> "Axes":
    """Two distributions of a column (s) side by side, with their medians and the difference.

    The difference is the second median less the first. Both need at least one value, else
    `ValueError`.
    """
    frames = handovers_of(first), handovers_of(second)
    pair = [values(frame[column]) for frame in frames]
    for name, array in zip(names, pair, strict=True):
        if not array.size:
            raise ValueError(f"{name} has no value of {column}; nothing can be compared")
    quantity = PART_NAMES.get(column, column.replace("_", " "))
    samples = dict(zip(names, pair, strict=True))
    drawing = distribution(samples, quantity, confidence=confidence, axes=axes)
    _draw_medians(drawing, pair)
    return drawing


def _draw_medians(axes: Any, pair: Sequence[Values]) -> None:
    factor, unit = unit_of(pair)
    first, second = (float(np.median(array)) * factor for array in pair)
    for median, colour in zip((first, second), OKABE_ITO, strict=False):
        axes.axvline(median, color=colour, linewidth=0.8, linestyle=":")
    difference = _difference(first, second)
    text = f"medians {first:.4g} and {second:.4g} {unit}\ndifference {difference} {unit}"
    where = {"transform": axes.transAxes, "ha": "right", "va": "bottom"}
    axes.text(0.98, 0.04, text, fontsize="small", **where)


def _difference(first: float, second: float) -> str:
    """With one digit more than four of the greater median have: below that it means nothing."""
    greatest = max(abs(first), abs(second)) or 1.0
    places = max(0, 4 - math.floor(math.log10(greatest)))
    text = f"{round(second - first, places):+.{places}f}".rstrip("0").rstrip(".")
    return text if float(text) else "0"


def _ecdf(axes: Any, array: Values, confidence: float | None, **style: Any) -> None:
    count = len(array)
    ordered = np.sort(array)
    share = np.arange(1, count + 1) / count
    if count > _POINTS:
        chosen = np.unique(np.linspace(0, count - 1, _POINTS).round().astype(np.intp))
        ordered, share = ordered[chosen], share[chosen]
    x = np.concatenate((ordered[:1], ordered))
    y = np.concatenate(([0.0], share))
    axes.step(x, y, where="post", **style)
    if confidence is not None:
        half = half_band(count, confidence)
        low, high = np.clip(y - half, 0, 1), np.clip(y + half, 0, 1)
        colour = style["color"]
        axes.fill_between(x, low, high, step="post", color=colour, alpha=0.15, linewidth=0)


def _finish(axes: Any, x: str, *, legend: bool) -> None:
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.02)
    label(axes, x, "cumulative share", legend=legend)
    if not axes.get_lines():
        nothing(axes)


def _finish_logarithmic(axes: Any, x: str) -> None:
    from matplotlib.ticker import StrMethodFormatter

    axes.set_xscale("symlog", linthresh=1.0)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    legend_above(axes, 2)
    _finish(axes, x, legend=False)
