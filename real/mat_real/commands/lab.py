"""`mat lab`: networks, servers and nodes on this machine alone. Light to import."""

import shutil
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mat_files.command_line import scenario_argument
from mat_files.library import find_scenario
from mat_real.commands.extras import NeedsReal

if TYPE_CHECKING:
    from mat_real.lab import Outcome, Outlook, ScenarioRun
    from mat_real.lab.run import Report


@click.group(cls=NeedsReal, short_help="Networks, servers and nodes in network namespaces.")
def lab() -> None:
    """MAT's network on one machine, in network namespaces, with real programs.

    Labs of your own are built from Python: docs/lab.md.
    """


@lab.command("demo", short_help="A download while its host is carried from network to network.")
@click.option(
    "--logs",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for logs and configurations; by default, one that stays only if something fails.",
)
def demo(logs: Path | None) -> None:
    """Build a lab, download a file over MAT, move, and compare what arrived.

    Takes half a minute, 400 MB in the temporary folder for as long, and root, or user namespaces
    where they are allowed. Ctrl-C ends it and removes everything.

    \b
    mat lab demo
    mat lab demo --logs lab-logs
    """
    from mat_real.lab import enter_user_namespace
    from mat_real.lab.demo import play

    with _translated_errors():
        enter_user_namespace()
        if logs is None:
            _with_temporary_logs(lambda folder: play(folder, _say))
        else:
            logs.mkdir(parents=True, exist_ok=True)
            play(logs, _say)


@lab.command("run", short_help="Play a scenario with real programs; result tables come out.")
@scenario_argument()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Write the tables into this directory, as Parquet and CSV.",
)
@click.option(
    "--trace",
    type=click.Path(path_type=Path),
    help="Movement in place of the scenario's: SUMO FCD, ns-2, BonnMotion, GPX (or a folder of"
    " it), CSV of positions or events.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed in place of the scenario's.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Another value for a field, such as nodes.interfaces=1; may be given more than once.",
)
@click.option(
    "--dhcp",
    is_flag=True,
    help="Have nodes ask DHCP for their addresses, in place of waiting as long as the scenario"
    " says.",
)
@click.option(
    "--logs",
    type=click.Path(path_type=Path, file_okay=False),
    help="New folder for logs and configurations; by default, one that stays only if something"
    " fails.",
)
@click.option(
    "--pcapng",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write signalling, DNS and probes of all hosts into this capture, for Wireshark and mat"
    " ladder.",
)
def run(
    scenario: str,
    *,
    out: Path,
    trace: Path | None,
    seed: int | None,
    overrides: tuple[str, ...],
    dhcp: bool,
    logs: Path | None,
    pcapng: Path | None,
) -> None:
    """Play SCENARIO in namespaces: a TOML file, or one of mat's by its name (first, town).

    \b
    mat lab run first --out lab-results
    mat lab run my.toml --set nodes.interfaces=1 --out lab-results --logs lab-logs
    mat lab run first --dhcp --out lab-results         what DHCP really takes
    mat lab run first --out lab-results --pcapng lab.pcapng     and mat ladder lab.pcapng
    mat sim compare first --lab lab-results            beside the simulator

    Movement takes as long as the scenario says; how long it takes in all is said first. It needs
    root, or user namespaces where they are allowed, and a process for each node. Ctrl-C ends it and
    removes everything; results are written at the end. What differs from the simulator is said in
    docs/lab.md.
    """
    from mat_files.scenario import load_scenario
    from mat_real.lab import ScenarioRun, enter_user_namespace

    with _translated_errors():
        enter_user_namespace()
        read = load_scenario(find_scenario(scenario), overrides, trace, seed)
        planned = ScenarioRun(read, pcapng)
        _tell_outlook(read.scenario.name, planned.outlook())
        if logs is None:
            _with_temporary_logs(lambda folder: _play(planned, out, folder, dhcp=dhcp))
        else:
            _check_new(logs)
            _play(planned, out, logs, dhcp=dhcp)


def _tell_outlook(name: str, outlook: "Outlook") -> None:
    there = f"networks: {outlook.networks}, mobile nodes: {outlook.mobile}"
    times = f"{outlook.movement:.0f} s of movement in real time"
    whole = f"about {outlook.movement + outlook.starting:.0f} s in all"
    _say(f"{name}: {there}, correspondents: {outlook.fixed}; {times}, {whole}")


def _check_new(logs: Path) -> None:
    """A key is made once; what an earlier lab has left is in the way."""
    logs.mkdir(parents=True, exist_ok=True)
    if any(logs.iterdir()):
        raise click.ClickException(f"{logs}: is not empty; name a new folder for the logs")


def _play(planned: "ScenarioRun", out: Path, logs: Path, *, dhcp: bool) -> None:
    with _progress() as report:
        outcome = planned.play(out, logs, report, dhcp=dhcp)
    _tell_outcome(outcome)
    _say(f"Written to {out}: tables as Parquet and CSV, moves.csv, shares.csv.")
    if planned.capture is not None:
        _say(f"Written to {planned.capture}: signalling, DNS and probes of all hosts.")


def _tell_outcome(outcome: "Outcome") -> None:
    handovers = outcome.handovers
    parts = ", ".join(f"{count} {name}" for name, count in sorted(handovers.items()))
    late = f"links were changed up to {outcome.late * 1000:.0f} ms late"
    _say(f"handovers: {handovers.total()}{f' ({parts})' if parts else ''}; {late}")


@contextmanager
def _progress() -> "Generator[Report]":
    """A bar on a terminal, silence elsewhere; drawn seldom: it takes time from what is played."""
    if not sys.stderr.isatty():
        yield lambda _done, _whole: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, refresh_per_second=2) as bar:
        task = bar.add_task("starting", total=None)

        def report(done: float, whole: float) -> None:
            bar.update(task, completed=done, total=whole, description="playing")

        yield report


@contextmanager
def _translated_errors() -> "Generator[None]":
    """What a lab or its input lacks as an error of the command line."""
    from mat_files.errors import CaptureError, ResultsError, ScenarioError
    from mat_real.lab import LabError

    try:
        yield
    except (LabError, CaptureError, ScenarioError, ResultsError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename or 'the lab'}: {error.strerror}") from error


def _say(text: str) -> None:
    try:
        click.echo(text)
    except UnicodeEncodeError:
        # A terminal that has few characters.
        click.echo(text.replace("█", "#").replace("…", "..."))


def _with_temporary_logs(what: Callable[[Path], None]) -> None:
    """Do something with a folder that stays only if it raises `LabError`."""
    from mat_real.lab import LabError

    folder = Path(tempfile.mkdtemp(prefix="mat-lab-logs-"))
    keep = False
    try:
        what(folder)
    except LabError as error:
        keep = any(folder.iterdir())
        raise LabError(f"{error}\nthe logs are in {folder}" if keep else str(error)) from error
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


@lab.command("clean", short_help="Remove what labs that were killed have left.")
def clean() -> None:
    """Remove namespaces and programs of labs whose process is dead; living ones are left alone."""
    from mat_real.lab import LabError, remove_leftovers

    try:
        removed = remove_leftovers()
    except LabError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{len(removed)} labs removed" if removed else "nothing was left")
