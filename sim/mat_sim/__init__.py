"""The simulator of MAT: the real protocol machines in a modelled world, under SimPy.

Public names load on first use, so that `import mat_sim` stays cheap for command-line help.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from mat_files.errors import Problem, ResultsError, ScenarioError, TraceError

if TYPE_CHECKING:
    from mat_files.mobility import mobility, positions
    from mat_files.results import Results
    from mat_files.scenario import Scenario, load_scenario
    from mat_sim.study import (
        Estimate,
        Precision,
        PrecisionNotReached,
        Statistic,
        StudyError,
        Sweep,
        estimate,
        reproduce,
        simulate,
        sweep,
    )

_STUDY: Final = (
    "Estimate",
    "Precision",
    "PrecisionNotReached",
    "Statistic",
    "StudyError",
    "Sweep",
    "estimate",
    "reproduce",
    "simulate",
    "sweep",
)
_LAZY: Final = {
    "Results": "mat_files.results",
    "Scenario": "mat_files.scenario",
    "load_scenario": "mat_files.scenario",
    "mobility": "mat_files.mobility",
    "positions": "mat_files.mobility",
    **dict.fromkeys(_STUDY, "mat_sim.study"),
}

__all__ = [
    "Estimate",
    "Precision",
    "PrecisionNotReached",
    "Problem",
    "Results",
    "ResultsError",
    "Scenario",
    "ScenarioError",
    "Statistic",
    "StudyError",
    "Sweep",
    "TraceError",
    "estimate",
    "load_scenario",
    "mobility",
    "positions",
    "reproduce",
    "simulate",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
