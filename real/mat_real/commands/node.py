"""`mat node`: this host as a MAT node. Light to import; the daemon loads when it runs."""

import json
from pathlib import Path
from typing import Any

import click

from mat_real.commands.daemons import ask, configured, existing
from mat_real.commands.extras import NeedsReal

DEFAULT_CONFIG = Path("/etc/mat/node.toml")
DEFAULT_CONTROL = Path("/run/mat-node/node.sock")

_control_option = click.option(
    "--control",
    type=click.Path(path_type=Path),
    default=DEFAULT_CONTROL,
    show_default=True,
    help="The node's control socket (node.control in its configuration).",
)


@click.group(cls=NeedsReal, short_help="Be a MAT node: connections survive a change of network.")
def node() -> None:
    """This host as a node of MAT.

    Connections to other MAT nodes, by their home addresses, survive every change of network;
    traffic with everybody else goes as before.
    """


@node.command("run", short_help="Be a node until told to stop.")
@configured(DEFAULT_CONFIG, "node.dataplane='\"queue\"'")
@click.option("--check", is_flag=True, help="Check configuration and key, and leave.")
def run(config: Path | None, overrides: tuple[str, ...], check: bool) -> None:
    """Be a MAT node until SIGTERM or Ctrl-C. Takes root, or CAP_NET_ADMIN.

    \b
    mat key new 10.1.0.1 --keys keys --out node.key      on the mapping server: a key
    mat node run                                         with node.key as /etc/mat/node.key
    mat node run --config node.toml --check              is all as it should be?
    mat node run --set 'node.key="node.key"' --set 'node.interfaces=["eth0", "wlan0"]'

    All that it installs is removed when it ends: nftables tables `mat`, rules and routes of
    protocol 77, the home address on lo. Killed, it leaves connections to go on
    in the kernel; the next one finds them. What each field means is said in docs/node.md.
    """
    _run(existing(config, DEFAULT_CONFIG), overrides, check=check)


def _run(config: Path | None, overrides: tuple[str, ...], *, check: bool) -> None:
    from mat_files.errors import InputError
    from mat_real.control import ControlError
    from mat_real.dataplane import DataplaneError
    from mat_real.key_file import format_home
    from mat_real.node.config import Configuration
    from mat_real.node.run import NodeError
    from mat_real.node.run import run as be_node
    from mat_real.uplinks import UplinksError

    try:
        configuration = Configuration(config, overrides)
        if check:
            homes = [
                format_home((k.home_address, k.prefix_length)) for k in configuration.own_keys()
            ]
            click.echo(f"Fine: the node of {' and '.join(homes)}.")
        else:
            be_node(configuration)
    except (InputError, NodeError, ControlError, DataplaneError, UplinksError) as error:
        raise click.ClickException(str(error)) from error


@node.command("status", short_help="Show mappings, peers and counters of the running node.")
@_control_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def status(control: Path, as_json: bool) -> None:
    """Show where the node is, with whom it talks, and what happened to packets.

    \b
    mat node status
    mat node status --json | python3 -m json.tool
    """
    found = _ask(control, "status")
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        _show(found)


@node.command("rehome", short_help="Move to another uplink now.")
@click.argument("interface", required=False)
@_control_option
def rehome(interface: str | None, control: Path) -> None:
    """Have connections go through INTERFACE from now on; by default, through the next best.

    \b
    mat node rehome wlan0
    """
    words = ["rehome"] if interface is None else ["rehome", interface]
    click.echo(f"moving to {_ask(control, *words)['to']}")


def _ask(control: Path, *words: str) -> dict[str, Any]:
    return ask(control, "node", "node.control", *words)


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    if "dataplane" not in found:
        raise click.ClickException("the socket is not a node's; mat ims status shows it")
    console = Console()
    console.print(
        f"mat {found['version']}, up {found['uptime']:.0f} s, dataplane {found['dataplane']}",
        highlight=False,
    )
    uplinks = Table("uplink", "mobile address", "gateway", "lease, s")
    for one in found["uplinks"]:
        lease = "–" if one["lease"] is None else f"{one['lease']:.0f}"
        uplinks.add_row(one["interface"], one["address"], one["gateway"] or "–", lease)
    console.print(uplinks)
    for home in found["homes"]:
        registered = " ".join(home["registered"]) or "nowhere"
        at = " ".join(home["ims"]) or "not found yet"
        state = "" if home["state"] == "registered" else f"{home['state']}, "
        console.print(
            f"{home['home']}: {state}registered at {registered}, IMS {at}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        peers = Table("peer", "state", "mobile addresses", "expires, s", "last used, s", "held")
        for peer in home["peers"]:
            expires = "–" if peer["expires"] is None else f"{peer['expires']:.0f}"
            peers.add_row(
                peer["home"],
                peer["state"],
                " ".join(peer["mobile"]) or "–",
                expires,
                f"{peer['used']:.0f}",
                str(peer["held"]),
            )
        console.print(peers)
    for name in ("packets", "messages", "events"):
        texts = (f"{key} {value}" for key, value in found[name].items() if key != "refused")
        console.print(f"{name}: {', '.join(texts) or 'none'}", highlight=False, soft_wrap=True)
    refused = ", ".join(f"{key} {value}" for key, value in found["packets"]["refused"].items())
    if refused:
        console.print(f"refused: {refused}", highlight=False, soft_wrap=True)
    for problem in found["problems"]:
        console.print(f"problem: {problem}", markup=False, highlight=False, soft_wrap=True)
