"""Studies: replications, confidence, warm-up, sweeps (docs/study.md is the how-to).

Start reading at `_simulate.py` and `_sweep.py`, which users call. `_cases.py` is the plan of a
study, `_crew.py` who does the runs, `_shelf.py` where they are kept, `_stopping.py` how many there
are to be; `_estimate.py`, `_intervals.py` and `_warmup.py` are the statistics, `_recipe.py` how a
result is made again.
"""

from mat_sim.study._errors import PrecisionNotReached, StudyError
from mat_sim.study._estimate import Statistic, SteadyState, estimate, parsed, steady_state
from mat_sim.study._intervals import (
    CONFIDENCE,
    Estimate,
    batch_means,
    quantile_interval,
    student_t,
)
from mat_sim.study._progress import progress_bar
from mat_sim.study._simulate import replicate, reproduce, simulate
from mat_sim.study._stopping import LEAST_RUNS, Precision
from mat_sim.study._sweep import Sweep, sweep
from mat_sim.study._tables import print_estimates, print_sweep, summary, write_summary
from mat_sim.study._warmup import WarmUp, mser5, welch

__all__ = [
    "CONFIDENCE",
    "LEAST_RUNS",
    "Estimate",
    "Precision",
    "PrecisionNotReached",
    "Statistic",
    "SteadyState",
    "StudyError",
    "Sweep",
    "WarmUp",
    "batch_means",
    "estimate",
    "mser5",
    "parsed",
    "print_estimates",
    "print_sweep",
    "progress_bar",
    "quantile_interval",
    "replicate",
    "reproduce",
    "simulate",
    "steady_state",
    "student_t",
    "summary",
    "sweep",
    "welch",
    "write_summary",
]
