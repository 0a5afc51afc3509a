"""`mat lab`: networks, servers and nodes on this machine alone. Light to import."""

import tempfile
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
    help="Folder for logs and configurations; by default, one that goes when all went well.",
)
def demo(logs: Path | None) -> None:
    """Build a lab, download a file over MAT, move, and compare what arrived.

    Takes half a minute, and root, or user namespaces where they are allowed.

    \b
    mat lab demo
    mat lab demo --logs lab-logs
    """
    from mat_real.lab import LabError, enter_user_namespace
    from mat_real.lab.demo import play

    try:
        enter_user_namespace()
        if logs is None:
            with tempfile.TemporaryDirectory(prefix="mat-lab-") as folder:
                play(Path(folder), click.echo)
        else:
            logs.mkdir(parents=True, exist_ok=True)
            play(logs, click.echo)
    except LabError as error:
        raise click.ClickException(str(error)) from error


@lab.command("clean", short_help="Remove what labs that were killed have left.")
def clean() -> None:
    """Remove namespaces and programs of labs whose process is dead; living ones are left alone."""
    from mat_real.lab import LabError, remove_leftovers

    try:
        removed = remove_leftovers()
    except LabError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{len(removed)} labs removed" if removed else "nothing was left")
