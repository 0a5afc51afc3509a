"""Distributions with `mat` subcommands that exist only in a test's folder."""

from pathlib import Path

PLUGINS = '''
import click

@click.group()
def fake() -> None:
    """A group from elsewhere."""

@fake.command()
def flood() -> None:
    for _ in range(100_000):
        click.echo("a line of output")

@fake.command()
def interrupted() -> None:
    raise KeyboardInterrupt

@fake.command()
def refused() -> None:
    raise click.ClickException("scenario.toml: line 3: 'speed' must be positive")

@fake.command()
@click.argument("path", type=click.Path())
def read(path: str) -> None:
    open(path)

@fake.command()
@click.option("--count", type=int, required=True)
def counted(count: int) -> None:
    click.echo(count)

@fake.command()
@click.pass_context
def leaves(ctx: click.Context) -> None:
    ctx.exit(5)

@fake.command()
def returns() -> str:
    return "a value that is no exit code"

@fake.command()
def bug() -> None:
    raise RuntimeError("a bug")

not_a_command = 7
'''


def install(folder: Path, *, distribution: str = "fake", **commands: str) -> Path:
    """Write a distribution into the folder, with an entry point per subcommand.

    The folder, put on the path, provides the module `fake_plugins_module` and the entry points.
    """
    (folder / "fake_plugins_module.py").write_text(PLUGINS)
    (folder / "broken_module.py").write_text("import a_package_that_nobody_has\n")
    info = folder / f"{distribution}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in commands.items()]
    (info / "entry_points.txt").write_text("\n".join(["[mat.commands]", *lines, ""]))
    return folder
