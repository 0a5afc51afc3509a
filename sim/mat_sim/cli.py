"""`mat sim`: simulations from the command line. Light to import; the engine loads when it runs."""

import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import click

from mat_files.command_line import scenario_argument
from mat_files.library import find_scenario
from mat_sim.animation.command import animate
from mat_sim.compare.command import compare

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from rich.console import Console

    from mat_files.scenario import Scenario
    from mat_sim.engine import Run
    from mat_sim.study import Precision, Statistic


@click.group(short_help="Simulate handovers on a scenario.")
def sim() -> None:
    """Simulate MAT: the real protocol machines in a modelled world."""


sim.add_command(animate)
sim.add_command(compare)


def _scenario_options(command: "Callable[..., None]") -> "Callable[..., None]":
    """What both `run` and `sweep` take: a scenario, and what is different from it."""
    options = (
        scenario_argument(),
        click.option(
            "--trace",
            type=click.Path(path_type=Path),
            help="Movement in place of the scenario's: SUMO FCD, ns-2, BonnMotion, GPX (or a folder"
            " of it), CSV of positions or events.",
        ),
        click.option("--seed", type=click.IntRange(min=0), help="Seed in place of the scenario's."),
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="KEY=VALUE",
            help="Another value for a field, such as nodes.interfaces=1; may be given more than"
            " once.",
        ),
    )
    return _with(options, command)


def _replication_options(command: "Callable[..., None]") -> "Callable[..., None]":
    """How often, how precisely, and by how many."""
    options = (
        click.option(
            "--runs",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            help="Replications, each with randomness of its own; with --precision, the least.",
        ),
        click.option(
            "--first-run",
            type=click.IntRange(min=0),
            default=0,
            metavar="N",
            help="Number of the first replication: to add to ten of them, begin at 10.",
        ),
        click.option(
            "--precision",
            type=click.FloatRange(min=0, min_open=True),
            metavar="P",
            help="As many runs as it takes for a 95 % interval of ± P: 0.05 for ± 5 %.",
        ),
        click.option(
            "--most-runs",
            type=click.IntRange(min=2),
            default=200,
            show_default=True,
            help="With --precision, the greatest number of runs.",
        ),
        click.option(
            "--of",
            multiple=True,
            metavar="COLUMN[:STATISTIC]",
            help="What to estimate, with a confidence interval; --precision is that of the first."
            " A column of the handovers and mean (the default), median, min, max, sum, count or a"
            " quantile: total:0.99. Default: total.",
        ),
        click.option(
            "--processes",
            type=click.IntRange(min=1),
            help="Runs to do at once. Default: one per core.",
        ),
        click.option(
            "--dask",
            metavar="ADDRESS",
            help="Do the runs on the Dask cluster whose scheduler is there: tcp://HOST:8786.",
        ),
    )
    return _with(options, command)


def _with(
    options: "Iterable[Callable[[Callable[..., None]], Callable[..., None]]]",
    command: "Callable[..., None]",
) -> "Callable[..., None]":
    for option in reversed(tuple(options)):
        command = option(command)
    return command


@sim.command("run", short_help="Run a scenario; tables, a figure and a ladder diagram come out.")
@_scenario_options
@_replication_options
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Write Parquet, CSV, PNG and the ladder diagram into this directory.",
)
@click.option(
    "--pcapng",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write all packets of the first run into this capture, for Wireshark and mat ladder.",
)
def run(
    scenario: str,
    *,
    trace: Path | None,
    seed: int | None,
    overrides: tuple[str, ...],
    out: Path | None,
    pcapng: Path | None,
    **replication: Any,
) -> None:
    """Run SCENARIO: a TOML file, or one of mat's by its name (first, town, train, stadium).

    \b
    mat sim run town                              134 vehicles in a town, soft handovers
    mat sim run town --set nodes.interfaces=1     the same with one interface: hard handovers
    mat sim run town --set coverage.grid.loss=0.05    (fields: docs/scenario.md)
    mat sim run my.toml --trace moves.xml --out results
    mat sim run first --set 'scenario.system="mobile-ipv4"'    docs/baselines.md has them all
    mat sim run town --runs 10                    ten replications, with confidence intervals
    mat sim run town --precision 0.05 --of total:0.99   runs until the 99 % quantile is ± 5 %
    mat sim run first --pcapng first.pcapng       every packet of it (docs/wireshark.md)

    Equal scenario, seed and runs give equal results, byte for byte, on any number of processes.
    """
    with _translated_errors():
        loaded = _loaded(scenario, overrides, trace, seed)
        wanted = _Replication(**replication)
        if pcapng is not None:
            _capture(loaded, wanted.first_run, pcapng)
        _run(loaded, out, wanted)


@sim.command("sweep", short_help="Run a scenario in many cases; a table of them comes out.")
@_scenario_options
@click.option(
    "--vary",
    "varied",
    multiple=True,
    required=True,
    metavar="KEY=V1,V2,…",
    help="Values of a field; all combinations are cases. May be given more than once.",
)
@_replication_options
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Write each run into this directory as it comes; go on with what is there.",
)
def sweep(
    scenario: str,
    *,
    trace: Path | None,
    seed: int | None,
    overrides: tuple[str, ...],
    varied: tuple[str, ...],
    out: Path,
    **replication: Any,
) -> None:
    """Run SCENARIO in all combinations of the values that --vary gives, and compare the cases.

    \b
    mat sim sweep town --vary nodes.interfaces=1,2 --runs 10 --out soft-or-hard
    mat sim sweep town --vary ims.0.service=0.0001,0.001 --vary ims.0.workers=1,2,4 --out load
    mat sim sweep town --vary 'coverage.grid.address=0.3,{exponential = 0.3}' --out dhcp
    mat sim sweep town --vary nodes.interfaces=1,2 --precision 0.05 --of interruption_down --out o
    mat sim sweep town --vary nodes.interfaces=1,2 --runs 50 --out o --dask tcp://10.0.0.1:8786

    Values are TOML, so text needs quotes: --vary 'traffic.pairs="mobile","none"'. All cases have
    the same seed, so that they differ by what is varied.

    After Ctrl-C, or whatever ended it, the same command goes on where it was, and does only what is
    missing; it may ask for more values or more runs. In Python, Sweep.read("OUT") has the tables.
    """
    with _translated_errors():
        loaded = _loaded(scenario, overrides, trace, seed)
        _sweep(loaded, varied, out, _Replication(**replication))


@contextmanager
def _translated_errors() -> "Generator[None]":
    """Bad input as an error of the command line: message, exit code 1, no traceback."""
    from mat_files.errors import CaptureError, ResultsError, ScenarioError
    from mat_sim.study import StudyError

    try:
        yield
    except (CaptureError, ScenarioError, ResultsError, StudyError) as error:
        raise click.ClickException(str(error)) from error


@final
@dataclass(frozen=True, slots=True)
class _Replication:
    """The options of `_replication_options`."""

    runs: int
    first_run: int
    precision: float | None
    most_runs: int
    of: tuple[str, ...]
    processes: int | None
    dask: str | None

    def statistics(self) -> "list[Statistic]":
        """What to estimate. Raises `click.UsageError`."""
        from mat_sim.study import parsed

        try:
            return [parsed(text) for text in self.of or ("total",)]
        except ValueError as error:
            raise click.UsageError(f"--of: {error}") from error

    def wanted(self) -> "Precision | None":
        """The precision of the first statistic, if any is wanted."""
        from mat_sim.study import LEAST_RUNS, Precision

        if self.precision is None:
            return None
        least = min(LEAST_RUNS, self.most_runs)
        return Precision(self.precision, self.statistics()[0], least=least, most=self.most_runs)


def _loaded(
    name: str, overrides: tuple[str, ...], trace: Path | None, seed: int | None
) -> "Scenario":
    from mat_files.scenario import load_scenario

    return load_scenario(find_scenario(name), overrides, trace, seed)


def _console() -> "Console":
    from rich.console import Console

    from mat_files.ladder import WIDTH

    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        reconfigure(errors="replace")  # its encoding may lack a name's letters
    return Console(width=None if sys.stdout.isatty() else WIDTH)


def _run(loaded: "Scenario", out: Path | None, replication: _Replication) -> None:
    from mat_files.results import check_directory
    from mat_sim.report import figure, print_summary
    from mat_sim.study import print_estimates, replicate

    statistics, precision = replication.statistics(), replication.wanted()
    if out is not None:
        check_directory(out)
    console = _console()
    with _told_warnings():
        results, first = replicate(
            loaded,
            runs=replication.runs,
            precision=precision,
            first_run=replication.first_run,
            processes=replication.processes,
            client=replication.dask,
        )
    print_summary(results, console)
    if results.provenance.runs > 1:
        print_estimates(results, statistics, console)
    drawing = _ladders(first)
    console.print(drawing, markup=False, highlight=False, soft_wrap=True)
    if out is not None:
        extra = {"handovers.png": figure(results), "ladder.txt": drawing.encode()}
        results.write(out, extra)
        console.print(f"\nWritten to {out}: tables as Parquet and CSV, handovers.png, ladder.txt.")


def _capture(loaded: "Scenario", run: int, path: Path) -> None:
    """All packets of one run: it is simulated for them apart from the study it belongs to."""
    from mat_files.capture import writing
    from mat_sim.engine import simulate

    with writing(path) as writer:
        simulate(loaded, run=run, capture=writer)
    click.echo(f"Written to {path}: all packets of run {run}.\n")


def _sweep(
    loaded: "Scenario", varied: tuple[str, ...], out: Path, replication: _Replication
) -> None:
    from mat_sim.study import print_sweep, summary, sweep, write_summary

    statistics, precision = replication.statistics(), replication.wanted()
    vary = dict(_values(text) for text in varied)
    try:
        with _told_warnings():
            found = sweep(
                loaded,
                vary,
                runs=replication.runs,
                precision=precision,
                first_run=replication.first_run,
                out=out,
                processes=replication.processes,
                client=replication.dask,
            )
    except KeyboardInterrupt:
        click.echo(f"{_so_far(out)} The same command goes on from there.", err=True)
        raise
    console = _console()
    print_sweep(found, statistics, console)
    write_summary(out, summary(found, statistics))
    console.print(f"\nWritten to {out}: summary.csv, cases.csv, and the tables of each run.")


def _values(text: str) -> "tuple[str, list[object]]":
    """Key and values of `KEY=V1,V2`, the values being TOML."""
    import tomllib

    key, equals, values = text.partition("=")
    try:
        listed: list[object] = tomllib.loads(f"values = [{values}]")["values"] if equals else []
    except tomllib.TOMLDecodeError:
        what = f"{values!r} are no TOML values; text needs quotes"
        raise click.UsageError(f'--vary {text}: {what}: \'{key}="one","two"\'') from None
    if not listed or not key.strip():
        what = "is not KEY=V1,V2; write for example nodes.interfaces=1,2"
        raise click.UsageError(f"--vary {text}: {what}")
    return key.strip(), listed


def _so_far(out: Path) -> str:
    from mat_files.errors import ResultsError
    from mat_sim.study import Sweep

    try:
        return f"{Sweep.read(out).cases['runs'].sum()} runs are in {out}."
    except ResultsError:
        return f"No run is in {out} yet."


@contextmanager
def _told_warnings() -> "Generator[None]":
    """A precision that was not reached, as a line on standard error."""
    import warnings

    from mat_sim.study import PrecisionNotReached

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PrecisionNotReached)
        yield
    for warning in caught:
        if issubclass(warning.category, PrecisionNotReached):
            click.echo(f"Warning: {warning.message}", err=True)
        else:
            place = (warning.filename, warning.lineno)
            warnings.warn_explicit(warning.message, warning.category, *place)


def _ladders(finished: "Run") -> str:
    """One handover of each kind as a ladder diagram."""
    from mat_sim.report import ladder

    parts: list[str] = []
    for kind, (node, messages) in finished.ladders.items():
        title = f"A {kind} handover of {node}"
        if any(message.step for message in messages):
            title += " (steps as in the paper's figure 3; 2', 4', 7: the peer)"
        parts += [title, ladder(messages, finished.participants)]
    return "\n\n".join(parts) if parts else "No handover was completed."
