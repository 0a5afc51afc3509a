"""Changes of key files: new keys, rotation, revocation.

A change reads the file, and writes it anew beside the old one, which it replaces in one step when
all is on disk (`_drafts`). Lines that a change is not about stay as they are, comments and order
included; new keys stand at the end. Writers wait for each other; readers need no lock.

A node's own file is on disk before the IMS's file changes, and takes the place of an older one
only after it: at no moment does a node have a new key instead of one that would still work.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from math import ceil
from os import fstat
from pathlib import Path
from secrets import token_bytes, token_hex
from typing import Final, final

from mat_real._drafts import Draft, locked
from mat_real.key_file import (
    LAST_ID,
    Entry,
    Home,
    fail,
    format_home,
    format_until,
    open_key_file,
    parse_line,
)
from mat_real.keys import KeyRing, read_ring

SECRET: Final = 32
"""Bytes of a secret that is made here: as many as HMAC-SHA-256 gives (RFC 2104, section 3)."""
STEP: Final = 10_000
"""Keys made between two calls of `progress`."""

_HEADING: Final = b"# Keys of a MAT mapping server: ID HOA[/PREFIX] SECRET [until=TIME]\n"
_BOM: Final = "\ufeff"

Progress = Callable[[int], object]
"""Told how many keys were made since the last call."""
_Edits = Mapping[int, str | None]
"""What becomes of lines, by key id: another last field, or None for a line that goes."""


@final
@dataclass(frozen=True, slots=True)
class NodeFile:
    """A file for the new keys alone: that of the node."""

    path: Path
    overwrite: bool = False

    def check(self) -> None:
        """Raise `KeyFileError` if no new file can be put there."""
        if not self.path.is_symlink() and not self.path.exists():
            return
        if not self.overwrite:
            fail(self.path, "exists already; --force replaces it, and the key in it is lost")
        if not self.path.is_file():
            fail(self.path, "is no regular file, and not replaced by one; name another")

    def draft(self) -> Draft:
        """A draft of the file."""
        if not self.overwrite:
            return Draft(self.path, self.path)
        path = self.path.resolve()
        return Draft(path, path.with_name(f".{path.name}.{token_hex(4)}"))


@final
@dataclass(frozen=True, slots=True)
class NewKeys:
    """What `new_keys` made: ids, and the lines, which are secret."""

    ids: range
    lines: Sequence[str]


@final
@dataclass(frozen=True, slots=True)
class Rotation:
    """What `rotate` did: the new key's id and line, the old one's id and end, ended ones' ids."""

    key_id: int
    line: str
    old_id: int
    until: float
    removed: tuple[int, ...]


def new_keys(
    path: Path,
    homes: Sequence[Home],
    now: float,
    *,
    first_id: int | None = None,
    node_file: NodeFile | None = None,
    progress: Progress = lambda _count: None,
) -> NewKeys:
    """Add a key for each home to the file of an IMS, which is made if there is none.

    The ids are consecutive, from `first_id` or else from the next free one. Raises `KeyFileError`
    if the file cannot be used or written, an id is taken, or a home has a valid key already, which
    is for `rotate` to replace; then nothing has changed.
    """
    with _changing(path, now, node_file, create=True) as change:
        ids = change.free_ids(len(homes), first_id)
        change.check_keyless(homes, now)
        lines = list(_made(ids, homes, progress))
        change.write({}, lines)
    return NewKeys(ids, lines)


def rotate(
    path: Path, home: Home, overlap: float, now: float, node_file: NodeFile | None = None
) -> Rotation:
    """Give a home a new key; the one it has ends `overlap` seconds from now.

    Keys of this home that have ended are removed. Raises `KeyFileError` as `new_keys` does, and
    unless exactly one key of the home is valid.
    """
    with _changing(path, now, node_file) as change:
        entries = change.keys_of(home)
        valid = [entry for entry in entries if now < entry.until]
        if len(valid) != 1:
            fail(change.path, _why_not_to_rotate(home, valid))
        (old,) = valid
        until = min(old.until, float(ceil(now + overlap)))
        removed = tuple(entry.key_id for entry in entries if entry is not old)
        ids = change.free_ids(1, None)
        (line,) = _made(ids, [home], lambda _count: None)
        change.write({**dict.fromkeys(removed), old.key_id: format_until(until)}, [line])
    return Rotation(ids[0], line, old.key_id, until, removed)


def _why_not_to_make(valid: Mapping[Home, Sequence[int]]) -> str:
    """What to do about homes that have valid keys already, given the ids of these."""
    home, ids = next(iter(valid.items()))
    name, others = format_home(home), len(valid) - 1
    count = f", as {others} more of the homes named have one" if others else ""
    if len(ids) == 1:
        return f"{name} has key {ids[0]} already{count}; `mat key rotate {name}` replaces it"
    what = f"{name} is being rotated already{count}: keys {ids[0]} and {ids[1]} are valid"
    return f"{what}; `mat key revoke ID` removes one"


def _why_not_to_rotate(home: Home, valid: Sequence[Entry]) -> str:
    name = format_home(home)
    if not valid:
        return f"{name} has no valid key to rotate; make one with: mat key new {name}"
    ids = " and ".join(str(entry.key_id) for entry in valid)
    return f"{name} is being rotated already: keys {ids} are valid; revoke one, or wait for its end"


def revoke_id(path: Path, key_id: int, now: float) -> None:
    """Remove a key. Raises `KeyFileError` if there is none, or the file cannot be used."""
    with _changing(path, now) as change:
        if all(entry.key_id != key_id for entry in change.ring.entries()):
            fail(change.path, f"has no key {key_id}; mat key list shows those it has")
        change.write({key_id: None})


def revoke_home(path: Path, home: Home, now: float) -> list[int]:
    """Remove all keys of a home; returns their ids. Raises `KeyFileError` as `revoke_id` does."""
    with _changing(path, now) as change:
        ids = [entry.key_id for entry in change.keys_of(home)]
        if not ids:
            name = format_home(home)
            fail(change.path, f"has no key for {name}; mat key list shows those it has")
        change.write(dict.fromkeys(ids))
    return ids


def _made(ids: range, homes: Sequence[Home], progress: Progress) -> Iterator[str]:
    for count, (key_id, home) in enumerate(zip(ids, homes, strict=True), 1):
        yield Entry(key_id, *home, token_bytes(SECRET)).line()
        if count % STEP == 0:
            progress(STEP)
    progress(len(ids) % STEP)


# ---- the file ------------------------------------------------------------------------------------


@final
class _Change:
    """A key file whose lock is held: what it has, and the way to replace it."""

    __slots__ = ("_data", "_node_file", "_owner", "path", "ring")

    def __init__(
        self,
        path: Path,
        data: bytes,
        ring: KeyRing,
        owner: int | None,
        node_file: NodeFile | None,
    ) -> None:
        self.path = path
        self.ring = ring
        self._data = data
        self._owner = owner
        self._node_file = node_file

    def keys_of(self, home: Home) -> list[Entry]:
        """The keys of one home, ended ones included."""
        return [entry for entry in self.ring.entries() if entry.home == home]

    def free_ids(self, count: int, first_id: int | None) -> range:
        """Ids for new keys, from `first_id` on if that is given and they are free."""
        if first_id is None:
            try:
                return self.ring.next_ids(count)
            except ValueError as error:
                fail(self.path, f"{error}; revoke keys that are no longer needed")
        ids = range(first_id, first_id + count)
        if ids[-1] > LAST_ID:
            fail(self.path, f"{count} ids from {first_id} on would go beyond {LAST_ID}")
        for entry in self.ring.entries():
            if entry.key_id in ids:
                owner = format_home(entry.home)
                fail(self.path, f"key {entry.key_id} is that of {owner}; choose another id")
        return ids

    def check_keyless(self, homes: Iterable[Home], now: float) -> None:
        """Raise `KeyFileError` if a home has a valid key already, or is named twice."""
        wanted: set[Home] = set()
        for home in homes:
            if home in wanted:
                fail(self.path, f"one new key for {format_home(home)} at a time; it is named twice")
            wanted.add(home)
        valid: dict[Home, list[int]] = {}
        for entry in self.ring.entries():
            if entry.home in wanted and now < entry.until:
                valid.setdefault(entry.home, []).append(entry.key_id)
        if valid:
            fail(self.path, _why_not_to_make(valid))

    def write(self, edits: _Edits, new: Sequence[str] = ()) -> None:
        """Replace the file by its lines, edited, and new ones; these go to the node's file too."""
        with ExitStack() as stack:
            drafts = [stack.enter_context(Draft(self.path, self._beside(), self._owner))]
            drafts[0].write(self._edited(edits))
            if self._node_file is not None:
                drafts.append(stack.enter_context(self._node_file.draft()))
            for draft in drafts:
                draft.write(f"{line}\n".encode("ascii") for line in new)
                draft.save()
            for draft in drafts:
                draft.commit()

    def _beside(self) -> Path:
        """The draft's name, which is ours under the lock: what a crash left there is removed."""
        beside = self.path.with_name(f".{self.path.name}.new")
        try:
            beside.unlink(missing_ok=True)
        except OSError as error:
            fail(self.path, f"cannot be changed: {beside} is in the way ({error.strerror})")
        return beside

    def _edited(self, edits: _Edits) -> Iterator[bytes]:
        numbers = [str(key_id).encode("ascii") for key_id in edits]
        for line in BytesIO(self._data):
            # To parse a million lines for the sake of one takes seconds.
            affected = any(number in line for number in numbers)
            yield _edited(line, edits) if affected else line


def _edited(line: bytes, edits: _Edits) -> bytes:
    text = line.decode("utf-8", errors="surrogateescape")
    entry = parse_line(text.removeprefix(_BOM))
    if entry is None or entry.key_id not in edits:
        return line
    field = edits[entry.key_id]
    if field is None:
        return b""
    key, hash_sign, comment = text.partition("#")
    behind = key[len(key.rstrip()) :] + hash_sign + comment
    return (" ".join([*key.split()[:3], field]) + behind).encode("utf-8", errors="surrogateescape")


@contextmanager
def _changing(
    path: Path, now: float, node_file: NodeFile | None = None, *, create: bool = False
) -> Generator[_Change]:
    if node_file is not None:
        node_file.check()
    try:
        # A link stays one: it is the file behind it that is replaced.
        path = path.resolve()
    except (OSError, RuntimeError):
        fail(path, "is a symbolic link that leads nowhere")
    if node_file is not None and node_file.path.resolve() == path:
        fail(path, "is the server's key file; the node needs one of its own")
    with locked(path.parent):
        if create and not path.exists():
            yield _Change(path, _HEADING, KeyRing(()), None, node_file)
            return
        with open_key_file(path) as file:
            owner = fstat(file.fileno()).st_uid
            data = file.read()
        ring = read_ring(BytesIO(data), path, lambda: now)
        if data and not data.endswith(b"\n"):
            data += b"\n"
        yield _Change(path, data, ring, owner, node_file)
