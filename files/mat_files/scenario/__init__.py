"""The scenario format and its reader: one TOML file for simulator, namespace lab and load test.

Start reading at `_model.py`, which is the format. `load_scenario` checks a file in four steps (TOML
syntax, overrides, the fields one by one, what they mean together) and reports every problem of the
step that failed, each with its line.
"""

from mat_files.scenario._check import check_movement
from mat_files.scenario._load import load_scenario, scenario_from
from mat_files.scenario._model import (
    FORMAT,
    SYSTEM_FAMILIES,
    About,
    Access,
    Correspondents,
    CoverageModel,
    Crowd,
    Dhcp,
    Dns,
    Grid,
    Ims,
    IpNetwork,
    Load,
    MobilitySystem,
    Movement,
    Network,
    Nodes,
    RandomWaypoint,
    Scenario,
    Services,
    Source,
    Traffic,
    Train,
)
from mat_files.scenario._write import inline, plain

__all__ = [
    "FORMAT",
    "SYSTEM_FAMILIES",
    "About",
    "Access",
    "Correspondents",
    "CoverageModel",
    "Crowd",
    "Dhcp",
    "Dns",
    "Grid",
    "Ims",
    "IpNetwork",
    "Load",
    "MobilitySystem",
    "Movement",
    "Network",
    "Nodes",
    "RandomWaypoint",
    "Scenario",
    "Services",
    "Source",
    "Traffic",
    "Train",
    "check_movement",
    "inline",
    "load_scenario",
    "plain",
    "scenario_from",
]
