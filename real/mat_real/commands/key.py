"""`mat key`: the keys that nodes share with their mapping server."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from mat_real.commands.extras import NeedsIms

if TYPE_CHECKING:
    from collections.abc import Generator

    from mat_real.key_changes import NodeFile
    from mat_real.key_file import Entry, Home

DEFAULT_FILE: Final = Path("/etc/mat/keys")
PATH: Final = click.Path(path_type=Path, readable=False)
"""Any path: what is wrong with a file says who opens it, in the same words for every command."""
MOST_AT_ONCE: Final = 1 << 20
"""Keys that `new --each` makes at once: they are kept in memory until they are written."""

_LAST_ID: Final = (1 << 32) - 1
_LONGEST_OVERLAP: Final = 3660 * 86400
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BLOCK: Final = 1000
"""Lines printed together: click flushes after each call."""

_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group(cls=NeedsIms, short_help="Make, list, rotate and revoke the keys of nodes.")
def key() -> None:
    """Keys that nodes share with their mapping server (IMS).

    \b
    mat key new 10.1.2.3 --out node.key      a key for a node; node.key goes to the node
    mat key list                             ids, home addresses, states; never secrets
    mat key rotate 10.1.2.3 --out new.key    a new key; the old one is valid for a week more
    mat key revoke 10.1.2.3                  the node can register no longer

    The server's file has one key a line, ID HOA[/PREFIX] SECRET [until=TIME], and mode 0600. A
    running server takes a change on with SIGHUP: systemctl reload mat-ims, or kill -HUP.
    """


# ---- what arguments mean -------------------------------------------------------------------------


def _home(text: str) -> "Home":
    from mat_real.key_file import parse_home

    try:
        return parse_home(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} {error}.") from None


def _id_or_home(text: str) -> "int | Home":
    if not (text.isascii() and text.isdigit()):
        return _home(text)
    if len(text) > 10 or int(text) > _LAST_ID:
        raise click.BadParameter(f"{text} is no key id; these go up to {_LAST_ID}.")
    return int(text)


def _duration(text: str) -> int:
    number, unit = text[:-1], _UNITS.get(text[-1:])
    if unit is None or not (number.isascii() and number.isdigit() and len(number) < 10):
        raise click.BadParameter(f"{text!r} is no duration; write 90s, 15m, 12h or 7d.")
    if int(number) * unit > _LONGEST_OVERLAP:
        raise click.BadParameter(f"{text!r} is more than ten years; a rotation comes to an end.")
    return int(number) * unit


_keys_option = click.option(
    "--keys",
    "path",
    type=PATH,
    envvar="MAT_KEYS",
    default=DEFAULT_FILE,
    show_default=True,
    show_envvar=True,
    help="The server's key file.",
)


def _node_options(command: _Command) -> _Command:
    """Where new keys go besides the server's file."""
    out = click.option(
        "--out",
        type=PATH,
        help="Write the new key into this file, for the node; - prints it.",
    )
    force = click.option("--force", is_flag=True, help="Replace the file that --out names.")
    return out(force(command))


def _node_file(out: Path | None, force: bool) -> "NodeFile | None":
    from mat_real.key_changes import NodeFile

    if out is not None and str(out) != "-":
        return NodeFile(out, force)
    if force:
        raise click.UsageError("--force needs --out FILE")
    return None


@contextmanager
def _translated_errors() -> "Generator[None]":
    """What is wrong with key files as an error of the command line."""
    from mat_real.key_file import KeyFileError

    try:
        yield
    except KeyFileError as error:
        raise click.ClickException(str(error)) from error


# ---- new -----------------------------------------------------------------------------------------


@key.command(short_help="Make keys for home addresses.")
@click.argument("homes", metavar="HOA...", type=_home, nargs=-1, required=True)
@_keys_option
@_node_options
@click.option(
    "--id",
    "first_id",
    type=click.IntRange(0, _LAST_ID),
    help="The key's id, or the first of several; by default the next free one.",
)
@click.option("--each", is_flag=True, help="A key for each address of the prefix HOA: for labs.")
@click.option(
    "--count", type=click.IntRange(1, MOST_AT_ONCE), help="With --each: the first so many only."
)
def new(
    *,
    homes: tuple["Home", ...],
    path: Path,
    out: Path | None,
    force: bool,
    first_id: int | None,
    each: bool,
    count: int | None,
) -> None:
    """Make a key for each HOA: a home address, or a home prefix for a mobile router.

    \b
    mat key new 10.1.2.3 --out node.key      node.key (mode 0600) is the node's own key file
    mat key new 10.1.4.0/24 --out van.key    one key, for a router that moves with its network
    mat key new 2001:db8:1::7                prints the key, which is secret
    mat key new 10.1.0.0/16 --each           65536 keys, for a lab or a load test
    mat key new 10.0.0.0/12 --each --count 1000000 --keys load.keys

    The key is added to the server's file, which is made if there is none. A HOA that has a valid
    key is refused: mat key rotate replaces that. With --each, keys go elsewhere, or are printed,
    only if --out says so.
    """
    if count is not None and not each:
        raise click.UsageError("--count needs --each")
    wanted = _each(homes, count) if each else homes
    node_file = _node_file(out, force)
    with _translated_errors():
        lines = _new(path, wanted, first_id, node_file)
    if node_file is not None or out is not None or not each:
        _hand_over(lines, node_file)
    _say_reload()


def _each(homes: Sequence["Home"], count: int | None) -> "Sequence[Home]":
    from mat.address import Address
    from mat.messages import EXACT

    if len(homes) != 1:
        raise click.UsageError("--each takes one prefix")
    ((prefix, length),) = homes
    size = 1 << (EXACT - length)
    if count is None and size > MOST_AT_ONCE:
        most = f"--count N, up to {MOST_AT_ONCE}, says how many get a key"
        raise click.UsageError(f"the prefix has {size} addresses; {most}")
    if count is not None and count > size:
        raise click.UsageError(f"the prefix has {size} addresses, fewer than --count {count}")
    first = int.from_bytes(prefix)
    return [(Address((first + i).to_bytes(16)), EXACT) for i in range(count or size)]


def _new(
    path: Path, homes: Sequence["Home"], first_id: int | None, node_file: "NodeFile | None"
) -> Sequence[str]:
    """Make the keys, with a progress bar on a terminal if they are many; their lines."""
    from mat_real.key_changes import STEP, new_keys
    from mat_real.key_file import format_home

    hidden = len(homes) < STEP or not sys.stderr.isatty()
    with click.progressbar(
        length=len(homes), label="making keys", file=sys.stderr, hidden=hidden
    ) as bar:
        made = new_keys(
            path,
            homes,
            time.time(),
            first_id=first_id,
            node_file=node_file,
            progress=bar.update,
        )
    if len(homes) == 1:
        _say(f"Key {made.ids[0]} for {format_home(homes[0])} added to {path}.")
    else:
        _say(f"{len(homes)} keys, {made.ids[0]} to {made.ids[-1]}, added to {path}.")
    return made.lines


def _hand_over(lines: Sequence[str], node_file: "NodeFile | None") -> None:
    if node_file is not None:
        _say(f"Written to {node_file.path}, mode 0600: the node's own key file.")
        return
    _say(
        "What follows is secret: it belongs into the node's key file, mode 0600, and nowhere else."
    )
    _print(lines)


# ---- list ----------------------------------------------------------------------------------------


@key.command("list", short_help="List keys and their states, without secrets.")
@click.argument("home", metavar="[HOA]", type=_home, required=False)
@_keys_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_keys(home: "Home | None", path: Path, as_json: bool) -> None:
    """List all keys, or those of HOA; of a prefix, also those of the addresses in it.

    \b
    mat key list
    mat key list 10.1.4.0/24 --keys load.keys
    mat key list --json | jq -r 'select(.state == "expired").id'

    States: valid; rotating (valid, and ends at the time shown, as a new key took its place);
    expired (authenticates nobody). Secrets are in the file only.
    """
    from mat_real.keys import load

    with _translated_errors():
        entries = load(path).entries()
    if home is not None:
        entries = _within(entries, home)
    _print((_as_json if as_json else _as_row)(entries, time.time()))


def _within(entries: Iterable["Entry"], home: "Home") -> Iterator["Entry"]:
    from mat.address import in_prefix

    prefix, length = home
    for entry in entries:
        if entry.prefix_length >= length and in_prefix(entry.home_address, prefix, length):
            yield entry


def _as_row(entries: Iterable["Entry"], now: float) -> Iterator[str]:
    from mat_real.key_file import NEVER, format_home, format_time

    yield f"{'ID':10}  {'STATE':8}  {'UNTIL':20}  HOA"
    for entry in entries:
        until = "-" if entry.until == NEVER else format_time(entry.until)
        yield f"{entry.key_id:<10}  {entry.state(now):8}  {until:20}  {format_home(entry.home)}"


def _as_json(entries: Iterable["Entry"], now: float) -> Iterator[str]:
    import json

    from mat_real.key_file import NEVER, format_home, format_time

    for entry in entries:
        fields = {
            "id": entry.key_id,
            "home": format_home(entry.home),
            "state": entry.state(now),
            "until": None if entry.until == NEVER else format_time(entry.until),
        }
        yield json.dumps(fields)


# ---- rotate, revoke ------------------------------------------------------------------------------


@key.command(short_help="Give a home address a new key; the old one ends later.")
@click.argument("home", metavar="HOA", type=_home)
@_keys_option
@_node_options
@click.option(
    "--overlap",
    metavar="DURATION",
    type=_duration,
    default="7d",
    show_default=True,
    help="How long the old key stays valid: 90s, 15m, 12h, 7d.",
)
def rotate(home: "Home", path: Path, out: Path | None, force: bool, overlap: int) -> None:
    """Make a new key for HOA, and let the old one end after the overlap.

    \b
    mat key rotate 10.1.2.3 --out node.key --force    the node's file is replaced
    mat key rotate 10.1.2.3 --overlap 12h             prints the key, which is secret

    Until then both keys are valid, so there is time to bring the new one to the node. Reload the
    server before the node uses it. Keys of HOA that have expired are removed.
    """
    from mat_real.key_changes import rotate as rotate_key
    from mat_real.key_file import format_home, format_time

    node_file = _node_file(out, force)
    with _translated_errors():
        done = rotate_key(path, home, overlap, time.time(), node_file)
    _say(f"Key {done.key_id} for {format_home(home)} added to {path}.")
    _say(f"Key {done.old_id} stays valid until {format_time(done.until)}.")
    if done.removed:
        _say(f"Expired, and removed: {_listed(done.removed)}.")
    _hand_over([done.line], node_file)
    _say_reload()


@key.command(short_help="Remove a key, or all keys of a home address.")
@click.argument("which", metavar="ID|HOA", type=_id_or_home)
@_keys_option
def revoke(which: "int | Home", path: Path) -> None:
    """Remove the key with this ID, or all keys of HOA.

    \b
    mat key revoke 7
    mat key revoke 10.1.4.0/24        the keys of that home prefix, not of addresses in it

    What the node has registered stays until its lifetime ends, ten minutes at most.
    """
    from mat_real.key_changes import revoke_home, revoke_id

    with _translated_errors():
        if isinstance(which, int):
            revoke_id(path, which, time.time())
            ids = [which]
        else:
            ids = revoke_home(path, which, time.time())
    _say(f"Removed from {path}: {_listed(ids)}.")
    _say_reload()


# ---- what is printed -----------------------------------------------------------------------------


def _listed(ids: Sequence[int]) -> str:
    return ("key " if len(ids) == 1 else "keys ") + ", ".join(map(str, ids))


def _say(text: str) -> None:
    """Tell the user something, apart from what a program may read."""
    click.echo(text, err=True)


def _say_reload() -> None:
    _say("A running server takes this on with: systemctl reload mat-ims (or kill -HUP its process)")


def _print(lines: Iterable[str]) -> None:
    remaining = iter(lines)
    while block := list(islice(remaining, _BLOCK)):
        click.echo("\n".join(block))
