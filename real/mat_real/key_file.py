"""Key files: what a line says, and what is asked of the file itself.

A key file is text, one key a line, so that it can be read, merged and deployed with ordinary tools:

    ID HOA[/PREFIX] SECRET [until=2026-12-01T00:00:00Z]

ID is a decimal number of 32 bits. A prefix length is the family's own: 10.1.4.0/24. SECRET is
base64 of at least 16 bytes. `until` is where the key ends, in UTC. What follows a `#` is a comment;
blank lines mean nothing. The file of an IMS and that of a node differ only in the number of lines
(docs/protocol.md, section 6.1).

Whoever reads the file can move every node in it. So it is refused unless it is a regular file that
nobody but its owner can open, and the owner is root or who runs; only root uses the file of any
user, as it administers them all. It is the open file that is looked at, not a name that may change
meanwhile.

No message quotes a line: with a field left out or put elsewhere, it would show the secret.
"""

import os
import shlex
import stat
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterator
from datetime import UTC, datetime
from io import TextIOWrapper
from math import inf
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import BinaryIO, Final, Literal, NamedTuple, NoReturn, TypeAlias

from mat.address import Address, format_address, from_ipv4, is_ipv4, is_unicast, prefix_of
from mat.authentication import MINIMUM_SECRET, Key
from mat.messages import EXACT
from mat_files.errors import InputError, Problem

NEVER: Final = inf
"""`until` of a key that has no end."""
LAST_ID: Final = (1 << 32) - 1
MAX_PROBLEMS: Final = 20
"""A file with more is no key file, or is garbled: reading stops."""

Home: TypeAlias = tuple[Address, int]
"""A home address or home prefix, and its length in the 128-bit form."""

State: TypeAlias = Literal["valid", "rotating", "expired"]
"""A rotating key is valid, and will end; an expired one authenticates nobody."""

_UNTIL: Final = "until="
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class KeyFileError(InputError):
    """A key file that cannot be used or changed as asked."""


class LineError(ValueError):
    """A line that is no key; `field` is the part that is wrong."""

    def __init__(self, field: str, what: str) -> None:
        super().__init__(what)
        self.field = field


class Entry(NamedTuple):
    """One key as its line has it; `until` in seconds since 1970."""

    key_id: int
    home_address: Address
    prefix_length: int
    secret: bytes
    until: float = NEVER

    @property
    def home(self) -> Home:
        """What the key may register."""
        return self.home_address, self.prefix_length

    def state(self, now: float) -> State:
        """What the key is good for at this time."""
        if self.until == NEVER:
            return "valid"
        return "rotating" if now < self.until else "expired"

    def key(self) -> Key:
        """The key, without its end."""
        return Key(self.key_id, self.secret, self.home_address, self.prefix_length)

    def line(self) -> str:
        """The line of a file, without its end."""
        secret = b2a_base64(self.secret, newline=False).decode("ascii")
        end = "" if self.until == NEVER else f" {format_until(self.until)}"
        return f"{self.key_id} {format_home(self.home)} {secret}{end}"


def fail(path: Path, what: str, field: str = "") -> NoReturn:
    """Raise the `KeyFileError` for one problem of the file as a whole."""
    raise KeyFileError([Problem(str(path), field, what)])


# ---- one line ------------------------------------------------------------------------------------


def parse_line(text: str) -> Entry | None:
    """The key of a line, or None where it has none. Raises `LineError`."""
    fields = text.partition("#")[0].split()
    if not fields:
        return None
    if not 3 <= len(fields) <= 4:
        raise LineError("", f"has {len(fields)} fields; ID HOA SECRET [{_UNTIL}TIME] are needed")
    try:
        home_address, prefix_length = parse_home(fields[1])
    except ValueError as error:
        raise LineError("HoA", str(error)) from None
    until = _parse_until(fields[3]) if len(fields) == 4 else NEVER
    key_id, secret = _parse_id(fields[0]), _parse_secret(fields[2])
    return Entry(key_id, home_address, prefix_length, secret, until)


def parse_home(text: str) -> Home:
    """A home address, or a home prefix with its length behind a slash. Raises `ValueError`."""
    address, slash, length = text.partition("/")
    try:
        packed = inet_pton(AF_INET6 if ":" in address else AF_INET, address)
    except (OSError, ValueError):
        raise ValueError(
            "is no address; IPv4 like 192.0.2.1 or IPv6 like 2001:db8::1 is needed, with /LENGTH"
            " behind it for a prefix"
        ) from None
    home_address = from_ipv4(packed) if len(packed) == 4 else Address(packed)
    if not is_unicast(home_address):
        raise ValueError("is no unicast address; a home address is a host's")
    return (home_address, _prefix_length(home_address, length) if slash else EXACT)


def _prefix_length(home_address: Address, text: str) -> int:
    bits = 32 if is_ipv4(home_address) else 128
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and int(text) <= bits):
        raise ValueError(f"has a wrong prefix length; /0 to /{bits} is possible")
    length = 128 - bits + int(text)
    if (prefix := prefix_of(home_address, length)) != home_address:
        fitting = f"{format_address(prefix)}/{text}"
        raise ValueError(f"has bits set behind its prefix length; the prefix would be {fitting}")
    return length


def format_home(home: Home) -> str:
    """A home address or prefix as its line has it."""
    address, length = home
    # IPv4 is what a million lines are of, and ipaddress takes ten times as long.
    ipv4 = is_ipv4(address)
    text = inet_ntop(AF_INET, address[12:]) if ipv4 else format_address(address)
    return text if length == EXACT else f"{text}/{length - 96 if ipv4 else length}"


def _parse_id(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 10 and (key_id := int(text)) <= LAST_ID:
        return key_id
    raise LineError("id", f"a whole number from 0 to {LAST_ID} is needed")


def _parse_secret(text: str) -> bytes:
    try:
        secret = a2b_base64(text, strict_mode=True)
    except ValueError:
        raise LineError("secret", "is not base64, or is cut off") from None
    if len(secret) < MINIMUM_SECRET:
        what = f"has {len(secret)} bytes; {MINIMUM_SECRET} or more are needed"
        raise LineError("secret", what)
    return secret


def _parse_until(text: str) -> float:
    time = text.removeprefix(_UNTIL)
    try:
        until = datetime.fromisoformat(time).timestamp()
    except (ValueError, OverflowError):
        until = NEVER
    # One way to write it, of the many of ISO 8601.
    if until == NEVER or text != format_until(until):
        raise LineError("until", f"a time in UTC like {_UNTIL}2026-12-01T00:00:00Z is needed")
    return until


def format_time(time: float) -> str:
    """A time in whole seconds since 1970 as text, in UTC."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_until(until: float) -> str:
    """The last field of the line of a key that ends."""
    return _UNTIL + format_time(until)


# ---- the file ------------------------------------------------------------------------------------


def open_key_file(path: Path, mend: str = "") -> BinaryIO:
    """The file, opened for reading, if it is one that only its owner can open.

    Raises `KeyFileError` otherwise, and where there is none; `mend` says how one is made, if not as
    an IMS's.
    """
    try:
        # A FIFO without a writer must not hold up who opens it: O_NONBLOCK.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        fail(path, f"does not exist; {mend or f'mat key new HOA --keys {quoted(path)} makes it'}")
    except OSError as error:
        fail(path, f"cannot be read ({error.strerror}); name a readable key file")
    try:
        _check(path, os.fstat(descriptor))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _check(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        fail(path, "is no regular file, as a key file must be")
    user = os.geteuid()
    if user != 0 and status.st_uid not in (0, user):
        what = f"belongs to user {status.st_uid}, who could change it; run as that user"
        fail(path, f"{what}, or as root run: chown {user} {quoted(path)}")
    mode = stat.S_IMODE(status.st_mode)
    if mode & _OTHERS:
        what = f"mode {mode:04o} lets other users at the secrets"
        fail(path, f"{what}; run: chmod 600 {quoted(path)}")


def quoted(path: Path) -> str:
    """A path as a shell needs it, for messages that name a command."""
    return shlex.quote(str(path))


def numbered_entries(file: BinaryIO, path: Path) -> Iterator[tuple[int, Entry]]:
    """The keys of an open file with the number of their lines, from 1; `path` is for messages.

    Raises `KeyFileError` when the file is read, with every problem found on the way. The file
    stays open.
    """
    problems: list[Problem] = []
    # A comment may be of any encoding; in a field, an odd byte is an error of that field.
    text = TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="\n")
    try:
        for number, line in enumerate(text, 1):
            try:
                entry = parse_line(line)
            except LineError as error:
                problems.append(Problem(f"{path}:{number}", error.field, str(error)))
                if len(problems) == MAX_PROBLEMS:
                    problems.append(Problem(str(path), "", "too many problems: not read further"))
                    break
                continue
            if entry is not None:
                yield number, entry
    finally:
        text.detach()
    if problems:
        raise KeyFileError(problems)
