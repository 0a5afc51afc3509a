"""Subcommands from entry points.

A distribution adds a subcommand to `mat` by naming a `click.Command` in the entry-point group
`mat.commands`:

    [project.entry-points."mat.commands"]
    sim = "mat_sim.cli:sim"

Every such module is imported to list the subcommands with their short helps, by `mat --help` and by
each press of the Tab key. What it owes in return:

- Importing it, its package's `__init__` included, imports nothing heavy: click, the standard
  library, itself. Pandas, SimPy, pydantic and their like are imported inside the functions that
  use them.
- What is wrong with the user's input leaves as a `click.ClickException` (exit code 1) or a
  `click.UsageError` (exit code 2), with a message that says what would be right. The package's own
  exceptions stay free of click; the command translates them.

A subcommand that cannot be loaded stays in the list with the reason, and fails when it is called:
`mat` never behaves as though a plug-in were not installed. The same holds for a name that two
distributions claim.
"""

from importlib.metadata import EntryPoint, entry_points
from typing import NoReturn

import click

GROUP = "mat.commands"


class PluginGroup(click.Group):
    """A click group that adds the subcommands of the entry-point group `mat.commands`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all subcommands, those that cannot be loaded included."""
        return sorted({*super().list_commands(ctx), *entry_points(group=GROUP).names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the subcommand, a stand-in if it is broken, or None if there is none."""
        own = super().get_command(ctx, cmd_name)
        plugins = {plugin.value: plugin for plugin in entry_points(group=GROUP, name=cmd_name)}
        claims = [*plugins, *(["mat itself"] if own else [])]
        if len(claims) > 1:
            return unavailable(cmd_name, f"claimed by {' and by '.join(sorted(claims))}")
        return own or next((load(plugin) for plugin in plugins.values()), None)


def load(plugin: EntryPoint) -> click.Command:
    """Return the command that an entry point names, or a stand-in that says why there is none."""
    try:
        loaded = plugin.load()
    except Exception as error:  # noqa: BLE001 - a foreign module may raise anything while imported
        return unavailable(plugin.name, f"{type(error).__name__}: {error}")
    if not isinstance(loaded, click.Command):
        return unavailable(plugin.name, f"{plugin.value} is not a click command")
    return loaded


def unavailable(name: str, reason: str) -> click.Command:
    """Return a command that shows the reason in the list and fails with it when called."""
    reason = " ".join(reason.split())

    def fail() -> NoReturn:
        raise click.ClickException(f"the subcommand '{name}' is unavailable: {reason}")

    return click.Command(
        name,
        callback=fail,
        short_help=f"(unavailable: {reason})",
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )
