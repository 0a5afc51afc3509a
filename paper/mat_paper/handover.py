"""Handovers with DHCP, timed in their parts, in the lab and in the simulator.

The lab comes first; for each kind of handover the simulator is given what DHCP took there.
"""

import shutil
from pathlib import Path
from typing import Any, Final

from mat_files.results import Results
from mat_paper.calibration import address_times
from mat_paper.ping import Report
from mat_paper.played import LAB, SCENARIOS, SIMULATOR, play, simulate
from mat_paper.record import Record
from mat_paper.variants import TARGET, VARIANTS, Variant, duration, events

FOLDER: Final = "handover"


def measure(record: Record, logs: Path, report: Report) -> None:
    """Play what is missing. Raises `PaperError` and `ResultsError`."""
    size, folder = record.size.handover, record.directory / FOLDER
    scenario = _written(folder, size.cycles)
    length = f"scenario.duration={duration(size.cycles)}"
    steps = 1 + len(VARIANTS)
    report(0, steps)
    play(scenario, folder / LAB, logs, f"--set={length}", "--dhcp")
    lab = Results.read(folder / LAB)
    for number, variant in enumerate(VARIANTS, 1):
        report(number, steps)
        calibrated = address_times(of_variant(lab, variant))
        simulate(scenario, simulated(folder, variant), [length, *calibrated], runs=size.runs)
    report(steps, steps)


def simulated(folder: Path, variant: Variant) -> Path:
    """Where the simulator's tables of a kind of handover are."""
    return folder / f"{SIMULATOR}-{variant.node}"


def of_variant(results: Results, variant: Variant) -> Any:
    """The rows of its completed handovers, from A to B; the way back is as long as A is near."""
    frame: Any = results.handovers
    chosen = (frame["node"] == variant.node) & (frame["kind"] == variant.kind)
    chosen &= frame["to_network"] == TARGET
    return frame[chosen & (frame["outcome"] == "completed")]


def _written(folder: Path, cycles: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    scenario = folder / "handover.toml"
    shutil.copyfile(SCENARIOS / scenario.name, scenario)
    (folder / "handover.csv").write_text(events(cycles), encoding="utf-8")
    return scenario
