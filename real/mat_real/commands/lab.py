"""`mat lab`: networks, servers and nodes on this machine alone. Light to import."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import click

from mat_real.commands.extras import NeedsReal


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
    from mat_real.lab import LabError, enter_user_namespace
    from mat_real.lab.demo import play

    try:
        enter_user_namespace()
        if logs is None:
            _with_temporary_logs(lambda folder: play(folder, _say))
        else:
            logs.mkdir(parents=True, exist_ok=True)
            play(logs, _say)
    except LabError as error:
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
