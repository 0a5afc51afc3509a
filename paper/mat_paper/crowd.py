"""Handovers of N real nodes in the same moment, against real IMS, and in the simulator.

The lab comes first: its nodes get their addresses by DHCP, each for itself, and the simulator is
given what that took them.
"""

import itertools
from pathlib import Path
from typing import Final

from mat_files.results import Results
from mat_paper.calibration import address_times
from mat_paper.ping import Report
from mat_paper.played import LAB, SCENARIOS, SIMULATOR, play, simulate
from mat_paper.record import Record

FOLDER: Final = "crowd"
_SCENARIO: Final = SCENARIOS / "crowd.toml"


def measure(record: Record, logs: Path, report: Report) -> None:
    """Play what is missing. Raises `PaperError`."""
    size = record.size.crowd
    wanted = list(itertools.product(size.nodes, range(size.rounds)))
    for done, (nodes, number) in enumerate(wanted):
        report(done, len(wanted))
        place = folder(record.directory, nodes, number)
        count, seed = f"nodes.count={nodes}", number + 1
        play(_SCENARIO, place / LAB, logs, f"--set={count}", f"--seed={seed}", "--dhcp")
        calibrated = address_times(Results.read(place / LAB).handovers)
        simulate(_SCENARIO, place / SIMULATOR, [count, *calibrated], seed=seed)
    report(len(wanted), len(wanted))


def folder(directory: Path, nodes: int, number: int) -> Path:
    """Where the tables of a crowd of so many nodes are, by the number of the round."""
    return directory / FOLDER / f"{nodes}-{number + 1}"
