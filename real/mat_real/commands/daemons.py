"""What the commands that run a daemon, and ask it, have in common. Light to import."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])


def configured(default: Path, example: str) -> Callable[[_Command], _Command]:
    """Options `--config` and `--set`; `example` is a field and value for the latter's help."""

    def decorate(command: _Command) -> _Command:
        command = click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="KEY=VALUE",
            help=f"Another value for a field, such as {example}; may be given more than once.",
        )(command)
        return click.option(
            "--config",
            type=click.Path(path_type=Path, readable=False),
            help=f"Configuration file. Default: {default} if there is one.",
        )(command)

    return decorate


def existing(config: Path | None, default: Path) -> Path | None:
    """The file that is named, or the default, if that is there."""
    return default if config is None and default.exists() else config


def ask(control: Path, who: str, field: str, *words: str) -> dict[str, Any]:
    """What a daemon answers on its control socket; `field` is what its configuration calls that."""
    from mat_real.control import ask as ask_daemon

    try:
        found: dict[str, Any] = ask_daemon(control, *words)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        mend = f"is the {who} running, and is this its {field}?"
        if isinstance(error, PermissionError):
            mend = f"ask as root, or as the user that the {who} runs as"
        raise click.ClickException(f"{control}: no {who} answers ({reason}); {mend}") from error
    if "error" in found:
        raise click.ClickException(found["error"])
    return found
