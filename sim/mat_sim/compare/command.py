"""`mat sim compare`: a scenario in the simulator and in the namespace lab. Light to import."""

import sys
from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, final

import click

from mat_files.command_line import scenario_argument
from mat_files.library import find_scenario

if TYPE_CHECKING:
    from mat_files.results import Results
    from mat_files.scenario import Scenario
    from mat_sim.compare import Comparison, Tolerance

_DIRECTORY = click.Path(path_type=Path, file_okay=False, exists=True)


@final
@dataclass(frozen=True, slots=True)
class _Chosen:
    """A scenario, and what is to be different from its file."""

    name: str
    trace: Path | None
    seed: int | None
    overrides: tuple[str, ...]

    def load(self) -> "Scenario":
        """Raises `ScenarioError`."""
        from mat_files.scenario import load_scenario

        return load_scenario(find_scenario(self.name), self.overrides, self.trace, self.seed)

    def arguments(self) -> list[str]:
        """The same for `mat lab run`."""
        options = [f"--set={override}" for override in self.overrides]
        options += [] if self.trace is None else [f"--trace={self.trace}"]
        options += [] if self.seed is None else [f"--seed={self.seed}"]
        return [str(find_scenario(self.name)), *options]


@click.command("compare", short_help="Run a scenario in the simulator and in the namespace lab.")
@scenario_argument(required=False)
@click.option("--lab", type=_DIRECTORY, help="Results that `mat lab run` has written before.")
@click.option("--first", type=_DIRECTORY, help="Results in place of the simulator's.")
@click.option("--second", type=_DIRECTORY, help="Results in place of the lab's.")
@click.option(
    "--trace",
    type=click.Path(path_type=Path),
    help="Movement in place of the scenario's.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed in place of the scenario's.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Another value for a field, in both; may be given more than once.",
)
@click.option(
    "--runs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Replications in the simulator; the lab plays the scenario once.",
)
@click.option(
    "--net",
    is_flag=True,
    help="Take off what the lab's own programs and links add to the parts of a handover; only"
    " those are judged then.",
)
@click.option("--dhcp", is_flag=True, help="As of `mat lab run`: addresses come by DHCP.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write both results, the tables as CSV and a figure as PDF and PNG into this directory.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    metavar="P",
    help="Allow a difference of P (0.1 for 10 %), and exit with 1 where there is a greater one.",
)
def compare(
    scenario: str | None,
    *,
    lab: Path | None,
    first: Path | None,
    second: Path | None,
    trace: Path | None,
    seed: int | None,
    overrides: tuple[str, ...],
    runs: int,
    net: bool,
    dhcp: bool,
    out: Path | None,
    tolerance: float | None,
) -> None:
    """Run SCENARIO in the simulator and in the namespace lab, and put both side by side.

    \b
    mat sim compare first --out compared         the lab plays it first, in real time
    mat lab run first --out lab-results          or: the lab once,
    mat sim compare first --lab lab-results      and the simulator as often as you like
    mat sim compare first --lab lab-results --net --tolerance 0.1
    mat sim compare --first one --second other   any two directories of results

    Of each part of a handover there are median and 95th percentile of both sides, by kind. Medians
    agree if they differ by at most 10 % of the greater, 2 ms or 1 packet, whichever is most.

    \b
    Simulator and lab are known to differ in this (docs/compare.md):
      all parts          the lab's programs take some ms, the simulator's hosts none: --net
      interruption       the same, and as coarse as the packets' spacing
      lost links         noticed at once in the lab, after `detect` in the simulator
      address            with --dhcp, what DHCP takes, not what the scenario says
      messages           correspondents are registered before the lab's run begins
    Where the lab is not watched, columns are empty, and there is a dash.

    The lab needs root, or user namespaces; `mat lab run --help` says more.
    """
    with _translated_errors():
        if scenario is None:
            found = _of_directories(first, second, tolerance, net=net)
        elif first is not None or second is not None:
            raise click.UsageError("--first and --second take the place of SCENARIO; give either")
        else:
            chosen = _Chosen(scenario, trace, seed, overrides)
            with _lab_results(chosen, lab, out, dhcp=dhcp) as place:
                found = _of_scenario(chosen.load(), place, runs, out, tolerance, net=net)
        _show(found, out)
    if tolerance is not None and (found.beyond or found.is_empty):
        raise click.exceptions.Exit(1)


def _of_directories(
    first: Path | None, second: Path | None, tolerance: float | None, *, net: bool
) -> "Comparison":
    from mat_files.results import Results
    from mat_sim.compare import compare as compared

    if first is None or second is None:
        raise click.UsageError("give a SCENARIO, or two directories: --first DIR --second DIR")
    names = (first.name, second.name)
    if names[0] == names[1]:
        names = (str(first), str(second))
    one, other = Results.read(first), _read(second, net=net)
    return compared(one, other, names, _tolerance(tolerance), _judged(net=net))


@contextmanager
def _lab_results(
    chosen: _Chosen, lab: Path | None, out: Path | None, *, dhcp: bool
) -> Generator[Path]:
    """The directory of the lab's results: those that are there, or what it makes of it now.

    The lab comes first: it is sooner seen there if a scenario is too much.
    """
    from mat_files.program import run_mat
    from mat_files.results import check_directory

    scenario = chosen.load()
    if out is not None:
        check_directory(out)
    if lab is not None:
        _tell_differences(lab, scenario)
        yield lab
        return
    with TemporaryDirectory(prefix="mat-compare-") as folder:
        place = Path(folder) if out is None else out / "lab"
        options = [*(["--dhcp"] if dhcp else []), f"--out={place}"]
        run_mat(["lab", "run", *chosen.arguments(), *options])
        yield place


def _of_scenario(
    scenario: "Scenario",
    lab: Path,
    runs: int,
    out: Path | None,
    tolerance: float | None,
    *,
    net: bool,
) -> "Comparison":
    from mat_sim.compare import compare as compared
    from mat_sim.study import simulate

    played = _read(lab, net=net)
    simulated = simulate(scenario, runs=runs)
    if out is not None:
        simulated.write(out / "simulator")
    return compared(simulated, played, tolerance=_tolerance(tolerance), judged=_judged(net=net))


def _read(directory: Path, *, net: bool) -> "Results":
    from mat_files.results import Results
    from mat_sim.compare import net as without_shares

    results = Results.read(directory)
    return without_shares(results, directory) if net else results


def _tell_differences(lab: Path, scenario: "Scenario") -> None:
    """Say so where results of the lab are of something else."""
    from mat_files.mobility import movement_digest
    from mat_files.results import Results

    found, source = Results.read(lab).provenance, scenario.source
    differences = {
        "scenario file": found.scenario != source.text,
        "--set": found.overrides != "\n".join(source.overrides),
        "seed": found.seed != scenario.scenario.seed,
        "movement": found.trace != movement_digest(scenario),
    }
    if different := [name for name, differs in differences.items() if differs]:
        what = f"{lab} was made with another {', '.join(different)}"
        click.echo(f"Warning: {what}; compared all the same.", err=True)


def _tolerance(share: float | None) -> "Tolerance":
    from mat_sim.compare import Tolerance

    return Tolerance() if share is None else Tolerance(share)


def _judged(*, net: bool) -> "Collection[str]":
    """With the lab's own time taken off, what it is taken off from."""
    from mat_sim.compare import COLUMNS, NET_COLUMNS

    return NET_COLUMNS if net else COLUMNS


def _show(found: "Comparison", out: Path | None) -> None:
    from rich.console import Console

    from mat_files.ladder import WIDTH
    from mat_sim.compare import print_comparison, write_comparison

    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    print_comparison(found, console)
    if out is not None:
        names = ", ".join(path.name for path in write_comparison(found, out))
        console.print(f"\nWritten to {out}: {names}.", soft_wrap=True)


@contextmanager
def _translated_errors() -> Generator[None]:
    """Bad input, and a lab that failed, as errors of the command line."""
    from mat_files.errors import ResultsError, ScenarioError
    from mat_files.program import ProgramError
    from mat_sim.study import StudyError

    try:
        yield
    except ProgramError as error:
        mend = "mend that, or give results that a lab has written elsewhere: --lab DIR"
        raise click.ClickException(f"{error}, as said above; {mend}") from error
    except (ScenarioError, ResultsError, StudyError) as error:
        raise click.ClickException(str(error)) from error
