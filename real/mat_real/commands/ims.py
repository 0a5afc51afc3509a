"""`mat ims`: the mapping server. Light to import; the server loads when it runs."""

import json
from pathlib import Path
from typing import Any

import click

from mat_real.commands.daemons import ask, configured, existing
from mat_real.commands.extras import NeedsIms
from mat_real.commands.load import load

DEFAULT_CONFIG = Path("/etc/mat/ims.toml")
EXAMPLE = """\
# Relative paths are relative to this file. As a system service: /etc/mat/keys, /run/mat/ims.sock,
# /var/lib/mat/ims.store.
[ims]
zones = ["10.1.0.0/16"]            # home prefixes this server is responsible for
keys = "keys"                      # made by `mat key new HOA --keys keys`
control = "ims.sock"               # for `mat ims status --control ims.sock`
[store]
path = "ims.store"
[metrics]
listen = "127.0.0.1:9628"
"""


@click.group(cls=NeedsIms, short_help="Run a mapping server, look at it, load-test it.")
def ims() -> None:
    """The IP address mapping server (IMS): it holds the mappings of the nodes of its zones."""


ims.add_command(load)


@ims.command("serve", short_help="Run a mapping server until it is told to stop.")
@configured(DEFAULT_CONFIG, "ims.workers=2")
@click.option("--check", is_flag=True, help="Check configuration and key file, and leave.")
@click.option("--example", is_flag=True, help="Print a configuration to begin with, and leave.")
def serve(config: Path | None, overrides: tuple[str, ...], check: bool, example: bool) -> None:
    """Run a mapping server, IPv4 and IPv6, until SIGTERM or Ctrl-C.

    \b
    mat ims serve --example > ims.toml            a configuration to begin with
    mat ims serve --config ims.toml --check       is all as it should be?
    mat ims serve --config ims.toml
    mat ims serve --config ims.toml --set ims.workers=2 --set 'log.format="json"'

    SIGHUP (systemctl reload mat-ims) reads keys and zones again without losing a request. What each
    field means is said in docs/ims.md.
    """
    if example:
        click.echo(EXAMPLE, nl=False)
        return
    config = existing(config, DEFAULT_CONFIG)
    if config is None and not overrides:
        what = f"there is no {DEFAULT_CONFIG}; name a configuration with --config"
        raise click.UsageError(f"{what}, or begin with: mat ims serve --example > ims.toml")
    _serve(config, overrides, check=check)


def _serve(config: Path | None, overrides: tuple[str, ...], *, check: bool) -> None:
    from mat_files.errors import InputError
    from mat_real.control import ControlError
    from mat_real.dns import DnsError
    from mat_real.ims.check import look_through
    from mat_real.ims.config import Configuration
    from mat_real.ims.supervisor import ServerError
    from mat_real.ims.supervisor import serve as run
    from mat_real.keys import load as load_keys
    from mat_real.store import StoreError

    try:
        if check:
            found = Configuration(config, overrides)
            ring = load_keys(found.beside(found.config.ims.keys))
            for warning in look_through(found, ring):
                click.echo(f"Warning: {warning}", err=True)
            click.echo(f"Fine: {len(found.config.ims.zones)} zones, {len(ring)} keys.")
        else:
            run(config, overrides)
    except (InputError, ServerError, ControlError, StoreError, DnsError) as error:
        raise click.ClickException(str(error)) from error


@ims.command("status", short_help="Show what a running server does.")
@click.option(
    "--control",
    type=click.Path(path_type=Path),
    default=Path("/run/mat/ims.sock"),
    show_default=True,
    help="The server's control socket (ims.control in its configuration).",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def status(control: Path, as_json: bool) -> None:
    """Show requests, answers, response times, store and workers of a running server.

    \b
    mat ims status
    mat ims status --control ./ims.sock --json | python3 -m json.tool
    """
    found = ask(control, "server", "ims.control", "status")
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    if "store" not in found:
        raise click.ClickException("the socket is not a mapping server's; mat node status shows it")
    console = Console()
    console.print(
        f"mat {found['version']}, up {_duration(found['uptime'])}, store {found['store']}, on "
        f"{' '.join(found['listen'])}, for {' '.join(found['zones'])}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    requests = Table("request", "received", "succeeded", "other codes", "p50 ≤", "p99 ≤", "p99.9 ≤")
    for name, one in found["requests"].items():
        succeeded = one["answers"]["succeeded"]
        others = sum(one["answers"].values()) - succeeded
        times = [_seconds(value, succeeded + others) for value in one["response"].values()]
        requests.add_row(name, str(one["received"]), str(succeeded), str(others), *times)
    console.print(requests)
    workers = Table("worker", "pid", "restarts", "mappings", "keys", "backlog", "store pending")
    for number, one in enumerate(found["workers"]):
        columns = ("pid", "restarts", "mappings", "keys", "backlog", "store_pending")
        shown = ("–" if one[column] is None else str(one[column]) for column in columns)
        workers.add_row(str(number), *shown)
    console.print(workers)
    console.print(
        f"malformed {found['malformed']}, unauthentic {found['unauthentic']}, store unavailable "
        f"{found['store_unavailable']}, overloads {found['overflowed']}, reloads "
        f"{found['reloads']}",
        highlight=False,
        soft_wrap=True,
    )


def _seconds(value: float | None, answers: int) -> str:
    """A quantile of the response times of so many answers."""
    from mat_real.ims.tallies import BOUNDS

    if value is None:
        return f"> {BOUNDS[-1]:.3g} s" if answers else "–"
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
