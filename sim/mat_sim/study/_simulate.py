"""`simulate`: one scenario, replicated; `reproduce`: the same again, from its results."""

from pathlib import Path

from mat_files.results import Results
from mat_files.scenario import Scenario
from mat_sim.engine import Run
from mat_sim.study._cases import Cases, precision_of, resolved
from mat_sim.study._crew import Job
from mat_sim.study._progress import progress_bar
from mat_sim.study._recipe import stored_scenario, warn_of_other_version
from mat_sim.study._shelf import Memory, joined
from mat_sim.study._stopping import Precision


def simulate(
    scenario: str | Path | Scenario,
    *,
    runs: int = 1,
    precision: float | Precision | None = None,
    seed: int | None = None,
    first_run: int = 0,
    processes: int | None = None,
    client: object = None,
    progress: bool | None = None,
) -> Results:
    """Simulate a scenario, `runs` times with independent randomness; the tables of all runs.

    `scenario` is the name of one that comes with mat, a file, or a `Scenario`. With `precision`
    there are as many runs as it takes, and at least `runs`: a number is the relative half-width of
    the 95 % interval of the mean handover's `total`, a `Precision` says it all. If the greatest
    number of runs is not enough, there is a `PrecisionNotReached` warning. `seed` takes the place
    of the scenario's. Runs are numbered from `first_run`: to add to ten runs, begin at 10.

    Runs go on in `processes` at once (default: one per core), or on the Dask cluster of `client`, a
    `dask.distributed.Client` or a scheduler's address. Equal scenario, seed and runs give equal
    results, wherever they are made. `progress` shows a bar; by default on a terminal and in
    Jupyter. Raises `ScenarioError`, and `StudyError` where the workers cannot go on.
    """
    return replicate(
        scenario,
        runs=runs,
        precision=precision,
        seed=seed,
        first_run=first_run,
        processes=processes,
        client=client,
        progress=progress,
    )[0]


def replicate(
    scenario: str | Path | Scenario,
    *,
    runs: int,
    precision: float | Precision | None = None,
    seed: int | None = None,
    first_run: int = 0,
    processes: int | None = None,
    client: object = None,
    progress: bool | None = None,
) -> tuple[Results, Run]:
    """As `simulate`, and with it the first run as the engine left it, for its ladders."""
    chosen = resolved(scenario, seed)
    memory = Memory()
    first: list[Run] = []

    def watch(job: Job, run: Run) -> None:
        if job.run == first_run:
            first.append(run)

    with progress_bar(f"simulating {chosen.scenario.name}", progress) as report:
        cases = Cases(
            [chosen],
            [""],
            memory,
            first_run=first_run,
            runs=runs,
            precision=precision_of(precision),
            report=report,
            watch=watch,
        )
        cases.work_off(processes, client)
    return joined(memory, 0, first_run, cases.counts[0]), first[0]


def reproduce(
    results: Results,
    *,
    folder: str | Path | None = None,
    processes: int | None = None,
    progress: bool | None = None,
) -> Results:
    """Make results again from what they say of themselves: equal ones, with the same version.

    `folder` is where the movement file is; by default the working directory, or where the
    scenarios are that come with mat. Raises `ResultsError` where it is not found, or has not the
    SHA-256 that it had, and for results that are not of a simulation.
    """
    provenance = results.provenance
    place = Path(folder) if folder is not None else None
    scenario = stored_scenario(provenance, place)
    warn_of_other_version(provenance)
    return simulate(
        scenario,
        runs=provenance.runs,
        first_run=provenance.first_run,
        processes=processes,
        progress=progress,
    )
