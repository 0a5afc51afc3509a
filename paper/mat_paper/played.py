"""Scenarios that lab and simulator play, into folders of a record.

The lab is a program of its own (`mat lab run`), as is the simulator where it is to write a capture;
what they print goes to a log beside the tables.
A folder that has tables is whole, as they are put there at the end, together.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mat_files.program import ProgramError, run_mat
from mat_paper import PaperError

SCENARIOS: Final = Path(__file__).parent / "scenarios"
LAB: Final = "lab"
SIMULATOR: Final = "simulator"
_ATTEMPTS: Final = 3
_WHOLE: Final = "handovers.parquet"


def is_played(out: Path) -> bool:
    """Whether tables are there."""
    return (out / _WHOLE).exists()


def play(scenario: Path, out: Path, logs: Path, *options: str) -> None:
    """Have the lab play a scenario, unless it has; logs go below `logs`.

    A machine that is busy for a moment gets another chance: the lab refuses links that are slower
    than they are to be. Raises `PaperError`.
    """
    for attempt in range(0 if is_played(out) else _ATTEMPTS):
        place = logs / f"{out.parent.name}-{attempt + 1}"
        try:
            _run(["lab", "run", str(scenario), f"--out={out}", f"--logs={place}", *options], out)
        except PaperError:
            if attempt + 1 == _ATTEMPTS:
                raise
        else:
            return


def simulate_with_capture(scenario: Path, out: Path, pcapng: Path) -> None:
    """Have the simulator play it and write a capture, unless it has. Raises `PaperError`."""
    if not is_played(out):
        _run(["sim", "run", str(scenario), f"--out={out}", f"--pcapng={pcapng}"], out)


def simulate(
    scenario: Path, out: Path, overrides: Sequence[str], *, seed: int | None = None, runs: int = 1
) -> None:
    """Have the simulator play it, unless it has. Raises `ResultsError`."""
    from mat_files.scenario import load_scenario
    from mat_sim import study

    if not is_played(out):
        read = load_scenario(scenario, overrides, seed=seed)
        study.simulate(read, runs=runs, processes=1, progress=False).write(out)


def _run(command: Sequence[str], out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    path = out.parent / f"{out.name}.log"
    try:
        with path.open("w+", encoding="utf-8") as log:
            run_mat(command, log)
    except ProgramError as error:
        said = path.read_text(encoding="utf-8").strip() or "it printed nothing"
        raise PaperError(f"{error}:\n{said}") from error
