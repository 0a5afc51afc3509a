"""How plots look, and how they are written.

Widths are those of two-column journals (IEEE: 88.9 mm and 181.9 mm); text is 8 pt there, so figures
go into a paper unscaled. The font is the one that comes with matplotlib, so that figures are the
same everywhere.
"""

from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from mat_files.palette import OKABE_ITO

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

Width: TypeAlias = Literal["single", "double"]

_INCHES: Final[dict[Width, tuple[float, float]]] = {"single": (3.5, 2.4), "double": (7.16, 2.8)}
_TYPES: Final[dict[str, dict[str, None]]] = {
    ".pdf": {"CreationDate": None},
    ".svg": {"Date": None},
    ".png": {"Software": None},
}
"""What can be written, with the metadata that would differ from one time to the next."""


def settings(width: Width = "single", height: float | None = None) -> dict[str, Any]:
    """The rcParams of a figure one or two columns wide; `height` in inches.

    `matplotlib.rcParams.update(settings("double"))` sets them for a whole notebook.
    """
    cycler: Any = import_module("cycler").cycler
    across, usual = _INCHES[width]
    return {
        "figure.figsize": (across, height or usual),
        "figure.constrained_layout.use": True,
        "figure.dpi": 150,
        "savefig.dpi": 300,
        "font.family": "DejaVu Sans",
        "font.size": 8,
        "axes.titlesize": 8,
        "axes.labelsize": 8,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "legend.fontsize": 7,
        "legend.frameon": False,
        "legend.handlelength": 1.6,
        "legend.columnspacing": 1.2,
        "axes.prop_cycle": cycler(color=OKABE_ITO),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.alpha": 0.3,
        "grid.linewidth": 0.5,
        "lines.linewidth": 1.3,
        "lines.markersize": 3.5,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
    }


@contextmanager
def style(width: Width = "single", height: float | None = None) -> Generator[None]:
    """What is drawn inside is one (`single`) or two (`double`) columns wide; `height` in inches."""
    with library().rc_context(settings(width, height)):
        yield


def save(figure: "Figure | SubFigure | Axes", path: str | Path) -> None:
    """Write a figure, or the one that Axes belong to, as PDF, SVG or PNG by the name's ending.

    No date is in the file, and equal figures make equal bytes. Text stays text in a PDF (embedded
    as TrueType, as publishers ask for) and becomes outlines in an SVG. Raises `ValueError` for
    another ending and `OSError` where the file cannot be written.
    """
    kind = Path(path).suffix.lower()
    if kind not in _TYPES:
        raise ValueError(f"{path}: ends in {kind or 'nothing'}; must end in {', '.join(_TYPES)}")
    fixed = {"svg.hashsalt": "mat", "svg.fonttype": "path", "pdf.fonttype": 42}
    whole: Any = figure.get_figure(root=True)
    with library().rc_context(fixed):
        whole.savefig(path, format=kind[1:], metadata=_TYPES[kind])


def axes_or_new(axes: "Axes | None") -> "Axes":
    """The Axes to draw into: those given, or those of a new figure."""
    chosen: Axes = pyplot().subplots()[1] if axes is None else axes
    settle(chosen)
    return chosen


def settle(axes: Any) -> None:
    """Let ticks look as they do now whenever they are made: that may be after `style` has ended."""
    now = library().rcParams
    for axis in ("x", "y"):
        axes.tick_params(
            axis=axis,
            labelsize=now[f"{axis}tick.labelsize"],
            width=now[f"{axis}tick.major.width"],
            grid_alpha=now["grid.alpha"],
            grid_linewidth=now["grid.linewidth"],
        )


def library() -> Any:
    """matplotlib, whose types are too partial to help. Imported late: that takes half a second."""
    return import_module("matplotlib")


def pyplot() -> Any:
    """The part of matplotlib whose figures notebooks show by themselves."""
    return import_module("matplotlib.pyplot")


def label(axes: Any, x: str, y: str, *, legend: bool = True) -> None:
    """Name the axes, and what is drawn where there is more than one thing."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if legend and len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend()


def legend_above(axes: Any, columns: int) -> None:
    """What is drawn, above the picture, where it hides nothing."""
    if len(axes.get_legend_handles_labels()[0]):
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns)


def nothing(axes: Any) -> None:
    """Say that there is nothing to draw."""
    axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", color="#999999")
