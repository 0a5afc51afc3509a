"""`mat sim`: simulations from the command line. Light to import; the engine loads when it runs."""

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from mat_files.library import find_scenario, shipped_scenarios

if TYPE_CHECKING:
    from collections.abc import Generator

    from rich.console import Console

    from mat_sim.engine import Run


@click.group(short_help="Simulate handovers on a scenario.")
def sim() -> None:
    """Simulate MAT: the real protocol machines in a modelled world."""


def _complete_scenario(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    names = [name for name in shipped_scenarios() if name.startswith(incomplete)]
    # Bash's script lets go of all names as soon as there is a file among them.
    return [CompletionItem(name) for name in names] or [CompletionItem(incomplete, type="file")]


@sim.command("run", short_help="Run a scenario; tables, a figure and a ladder diagram come out.")
@click.argument("scenario", shell_complete=_complete_scenario)
@click.option(
    "--trace",
    type=click.Path(path_type=Path),
    help="Movement in place of the scenario's: SUMO FCD, ns-2 setdest, CSV of positions or events.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed in place of the scenario's.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Write Parquet, CSV, PNG and the ladder diagram into this directory.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Another value for a field, such as nodes.interfaces=1; may be given more than once.",
)
def run(
    scenario: str,
    trace: Path | None,
    seed: int | None,
    out: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Run SCENARIO: a TOML file, or the name of one that comes with mat (first, town).

    \b
    mat sim run town                              134 vehicles in a town, soft handovers
    mat sim run town --set nodes.interfaces=1     the same with one interface: hard handovers
    mat sim run town --set coverage.grid.loss=0.05    (fields: docs/scenario.md)
    mat sim run my.toml --trace moves.xml --out results

    Equal scenario and seed give equal results, byte for byte.
    """
    with _translated_errors():
        _run(scenario, trace, seed, out, overrides)


@contextmanager
def _translated_errors() -> "Generator[None]":
    """Bad input as an error of the command line: message, exit code 1, no traceback."""
    from mat_files.errors import ResultsError, ScenarioError

    try:
        yield
    except (ScenarioError, ResultsError) as error:
        raise click.ClickException(str(error)) from error


def _run(
    name: str, trace: Path | None, seed: int | None, out: Path | None, overrides: tuple[str, ...]
) -> None:
    from rich.console import Console

    from mat_files.results import check_directory
    from mat_files.scenario import load_scenario
    from mat_sim.ladder import WIDTH
    from mat_sim.report import figure, print_summary

    loaded = load_scenario(find_scenario(name), overrides, trace, seed)
    if out is not None:
        check_directory(out)
    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        reconfigure(errors="replace")  # its encoding may lack a name's letters
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    finished = _simulated(loaded, console)
    print_summary(finished.results, console)
    drawing = _ladders(finished)
    console.print(drawing, markup=False, highlight=False, soft_wrap=True)
    if out is not None:
        extra = {"handovers.png": figure(finished.results), "ladder.txt": drawing.encode()}
        finished.results.write(out, extra)
        console.print(f"\nWritten to {out}: tables as Parquet and CSV, handovers.png, ladder.txt.")


def _simulated(loaded: object, console: "Console") -> "Run":
    """The run, with a progress bar on a terminal."""
    from rich.progress import Progress

    from mat_files.scenario import Scenario
    from mat_sim.engine import simulate

    assert isinstance(loaded, Scenario)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"simulating {loaded.scenario.name}", total=None)
        return simulate(loaded, lambda now, end: bar.update(task, completed=now, total=end))


def _ladders(finished: "Run") -> str:
    """One handover of each kind as a ladder diagram."""
    from mat_sim.report import ladder

    parts: list[str] = []
    for kind, (node, messages) in finished.ladders.items():
        title = (
            f"A {kind} handover of {node} (steps as in the paper's figure 3; 2', 4', 7: the peer)"
        )
        parts += [title, ladder(messages, finished.participants)]
    return "\n\n".join(parts) if parts else "No handover was completed."
