"""Plots of results, fit for a paper: labelled, with units, confidence bands and safe colours.

Every function takes data and, if wanted, the matplotlib Axes to draw into, and returns the Axes.
Without Axes it makes a figure, which a notebook shows by itself. Sizes and fonts come from `style`,
and `save` writes PDF, SVG or PNG, equal bytes for equal figures::

    from mat_sim import plots

    with plots.style("single"):
        axes = plots.parts(results)
    plots.save(axes.figure, "parts.pdf")

Start reading at `_style.py`; `_distributions.py`, `_bars.py`, `_load.py` and `_curve.py` are the
plots, `_knee.py` finds the knee of a load curve. matplotlib is imported when something is drawn.
"""

from mat_sim.plots._bars import estimates, stacked
from mat_sim.plots._curve import curve
from mat_sim.plots._distributions import comparison, distribution, interruption, parts
from mat_sim.plots._knee import Knee, knee
from mat_sim.plots._load import LoadTime, ims_load, over_time
from mat_sim.plots._style import Width, legend_above, pyplot, save, settings, settle, style

__all__ = [
    "Knee",
    "LoadTime",
    "Width",
    "comparison",
    "curve",
    "distribution",
    "estimates",
    "ims_load",
    "interruption",
    "knee",
    "legend_above",
    "over_time",
    "parts",
    "pyplot",
    "save",
    "settings",
    "settle",
    "stacked",
    "style",
]
