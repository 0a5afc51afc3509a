"""What commands of both drivers take alike. Light to import."""

from collections.abc import Callable
from typing import Any, TypeAlias

import click
from click.shell_completion import CompletionItem

from mat_files.library import shipped_scenarios

Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]


def scenario_argument(*, required: bool = True) -> Decorator:
    """The argument SCENARIO, a name or a path (`find_scenario`), completed by the shell as both."""
    return click.argument("scenario", required=required, shell_complete=_complete)


def _complete(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    names = [name for name in shipped_scenarios() if name.startswith(incomplete)]
    # Bash's script lets go of all names as soon as there is a file among them.
    return [CompletionItem(name) for name in names] or [CompletionItem(incomplete, type="file")]
