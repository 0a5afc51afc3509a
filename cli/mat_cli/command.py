"""The root command, its errors and its exit codes.

What a command raises decides what the user sees:

| raised                             | seen                          | exit code |
|------------------------------------|-------------------------------|-----------|
| nothing                            | the command's output          | 0         |
| `click.ClickException`             | `Error:` and the message      | 1         |
| `OSError` that names a file        | `Error:`, the file and why    | 1         |
| a full disk behind the output      | `Error:` and that             | 1         |
| `click.UsageError`                 | the usage and the message     | 2         |
| `KeyboardInterrupt` (Ctrl-C)       | `Interrupted.`                | 130       |
| `BrokenPipeError` (`mat … | head`) | nothing                       | 1         |
| anything else                      | a traceback: it is a bug      | 1         |
"""

import errno
import os
import sys
from typing import NoReturn

import click

from mat_cli.completion import completion
from mat_cli.plugins import PluginGroup

INTERRUPTED = 128 + 2
"""Exit code after Ctrl-C: what a shell reports for a process that SIGINT ended."""


def print_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    """Print the version and leave, if the option was given."""
    if not wanted or ctx.resilient_parsing:
        return
    from mat import __version__

    click.echo(f"mat {__version__} (Python {sys.version.split()[0]})")
    ctx.exit()


@click.group(
    cls=PluginGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=print_version,
    help="Show the version and exit.",
)
def command() -> None:
    """MAT, IP mobility by home and mobile addresses: simulate it, run it, measure it."""


command.add_command(completion)


def main() -> NoReturn:
    """Run the `mat` command on the arguments of this process and exit."""
    try:
        result: object = command.main(prog_name="mat", standalone_mode=False)
        # Here, where its failure can still be caught, and not while the interpreter shuts down.
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as error:
        # Click turns Ctrl-C and the end of the input at a prompt into Abort, and keeps the cause.
        interrupted = isinstance(error.__cause__ or error, KeyboardInterrupt)
        click.echo("Interrupted." if interrupted else "Aborted.", err=True)
        sys.exit(INTERRUPTED if interrupted else 1)
    except BrokenPipeError:
        # The reader has gone. What is still buffered must not raise again at interpreter shutdown.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        where = os.fsdecode(error.filename) if error.filename is not None else "standard output"
        click.ClickException(f"{where}: {error.strerror}").show()
        # What is still buffered must not raise again at interpreter shutdown.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    # `ctx.exit(code)` arrives as the result. What else a command returns is no exit code.
    sys.exit(result if type(result) is int else 0)
