"""The scenario format and its reader: one TOML file for simulator, namespace lab and load test.

Start reading at `_model.py`, which is the format. `load_scenario` checks a file in four steps (TOML
syntax, overrides, the fields one by one, what they mean together) and reports every problem of the
step that failed, each with its line.
"""

from mat_files.scenario._check import check_population
from mat_files.scenario._load import load_scenario
from mat_files.scenario._model import (
    FORMAT,
    About,
    Access,
    Correspondents,
    CoverageModel,
    Dns,
    Grid,
    Ims,
    Movement,
    Network,
    Nodes,
    Scenario,
    Source,
    Traffic,
)

__all__ = [
    "FORMAT",
    "About",
    "Access",
    "Correspondents",
    "CoverageModel",
    "Dns",
    "Grid",
    "Ims",
    "Movement",
    "Network",
    "Nodes",
    "Scenario",
    "Source",
    "Traffic",
    "check_population",
    "load_scenario",
]
