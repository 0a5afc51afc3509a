"""`mat paper`: the paper's evaluation, done over. Light to import."""

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from mat_paper import PARTS

if TYPE_CHECKING:
    from mat_paper.record import Record
    from mat_paper.run import Told
    from mat_paper.size import Size

_DEFAULT: Final = Path("paper-results")
_WIDTH: Final = 140
"""Columns of what is printed where there is no terminal."""


@click.command("paper", short_help="The paper's evaluation, done over, beside its own figures.")
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)), metavar="[PART]...")
@click.option("--short", "name", flag_value="short", default="short", help="Two minutes; default.")
@click.option("--full", "name", flag_value="full", help="As much as the paper, and more.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=_DEFAULT,
    show_default=True,
    help="Keep measurements, report and figures in this directory.",
)
@click.option(
    "--from",
    "from_",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Measure nothing: print what this directory has.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Another value for a field of the size, such as ping.count=1000; may be given more than"
    " once.",
)
def paper(
    parts: tuple[str, ...],
    *,
    name: str,
    out: Path,
    from_: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Do section 5 of the paper over, in network namespaces, and what it could not do.

    \b
    PARTs; by default all:
      ping      table 4: round trips without MAT, with its fast path, with NFQUEUE alone
      udp       figure 5: UDP throughput at loads that are stepped up, of the same three
      ladders   figures 2 and 3, drawn from captured packets
      handover  handovers with DHCP, soft and hard, in their parts; lab and simulator
      crowd     handovers of many real nodes at the same time; lab and simulator

    \b
    mat paper                              two minutes, into paper-results
    mat paper --full --out full            how long it takes is said first
    mat paper --full --out full            after Ctrl-C: goes on where it was
    mat paper ping udp --set ping.count=10000 --set 'udp.loads=[100, 800]' --out other
    mat paper --from full                  print a result again

    It takes root, or user namespaces where they are allowed, and a machine that does nothing else.
    Measurements are kept as they are made, with machine and versions; all fields of a size are in
    docs/evaluation.md. Ctrl-C ends everything that was started.
    """
    from mat_real.commands.extras import explained

    with explained("real"), _translated_errors():
        if from_ is not None:
            if parts or overrides:
                raise click.UsageError("--from prints what is there; PARTs and --set measure")
            _print_again(from_)
        else:
            _measure(parts or tuple(PARTS), name, out, overrides)


def _measure(parts: Sequence[str], name: str, out: Path, overrides: tuple[str, ...]) -> None:
    from mat_paper.machine import machine
    from mat_paper.record import Record
    from mat_paper.run import check_programs, evaluate
    from mat_paper.size import load_size
    from mat_real.lab import enter_user_namespace

    size = load_size("full" if name == "full" else "short", overrides)
    enter_user_namespace()
    check_programs()
    record = Record.begin(out, name, size, machine())
    left = [part for part in PARTS if part in parts and part not in record.parts]
    _tell_outlook(name, size, left, out)
    try:
        with _progress(left) as told:
            evaluate(record, parts, told)
    except KeyboardInterrupt:
        click.echo(f"What was measured is kept in {out}; the same command goes on.", err=True)
        raise
    _show(record)
    click.echo(f"Written to {out}: report.md, report.html, figures, measurements.")


def _tell_outlook(name: str, size: "Size", left: Sequence[str], out: Path) -> None:
    from mat_paper.size import duration

    if not left:
        click.echo(
            f"{out} has all of this; to measure again, name a new directory: --out DIR", err=True
        )
        return
    each = {part: size.seconds(part) for part in left}
    parts = ", ".join(f"{part} {duration(seconds)}" for part, seconds in each.items())
    click.echo(f"{name}: about {duration(sum(each.values()))} ({parts})", err=True)


def _print_again(directory: Path) -> None:
    from mat_paper import PaperError
    from mat_paper.record import Record

    record = Record.read(directory)
    if not record.parts:
        raise PaperError(
            f"{directory}: no part of it is whole; go on with: mat paper --out {directory}"
        )
    _show(record)


def _show(record: "Record") -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    from mat_paper.report import report

    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    console.print(Markdown(report(record, pictures=False)))


@contextmanager
def _progress(parts: Sequence[str]) -> "Generator[Told]":
    """A bar on a terminal; elsewhere a line when a part begins."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns: Any = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    console = Console(stderr=True)
    # Drawn seldom: it takes time from what is measured.
    with Progress(*columns, TimeElapsedColumn(), console=console, refresh_per_second=1) as bar:
        tasks = {part: bar.add_task(part, total=None, start=False) for part in parts}

        def told(part: str, done: int, whole: int) -> None:
            # No effect but the first time.
            bar.start_task(tasks[part])
            bar.update(tasks[part], completed=done, total=whole)

        yield told


def _lines() -> Callable[[str, int, int], None]:
    begun: set[str] = set()

    def told(part: str, done: int, whole: int) -> None:
        if part not in begun:
            click.echo(f"{part}: {whole - done} of {whole} steps left", err=True)
            begun.add(part)

    return told


@contextmanager
def _translated_errors() -> Generator[None]:
    """What is missing, or wrong with the input, as errors of the command line."""
    from mat_files.errors import InputError, ResultsError
    from mat_paper import PaperError
    from mat_real.lab import LabError

    try:
        yield
    except (PaperError, LabError, InputError, ResultsError) as error:
        raise click.ClickException(str(error)) from error
