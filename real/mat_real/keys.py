"""The keys of an IMS in memory: a million of them, shared by forked workers.

A million `Key` objects would be 250 MB, and each worker that counts references would soon have a
copy of its own. `KeyRing` keeps one sorted array of ids and one string of records, which no look-up
writes to. Ids are given out one after the other, so the place of a key is its id less the first; an
index of places mends that where keys were revoked, and ids all over the range are bisected.

Keys that were asked for lately are kept as objects, up to a bound; those that end are not, so that
what is kept needs no look at the clock.
"""

import time
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from operator import lt
from pathlib import Path
from struct import Struct
from typing import BinaryIO, Final, final

from mat.address import Address
from mat.authentication import Key
from mat_files.errors import Problem
from mat_real.key_file import (
    MAX_PROBLEMS,
    NEVER,
    Entry,
    Home,
    KeyFileError,
    numbered_entries,
    open_key_file,
)

MAX_VALID: Final = 2
"""Valid keys of one HoA: the new and the old one of a rotation (docs/protocol.md, section 6.1)."""
KEPT: Final = 1 << 16
"""Keys kept as objects, some 250 bytes each; when they are that many, all are let go."""

_SECRET: Final = 32
"""Bytes of a secret that a record has room for: those we make. Longer ones are kept apart."""
_RECORD: Final = Struct(f"<16sBBd{_SECRET}s")
"""Home address, prefix length, bytes of secret (0: kept apart), until, secret."""
_SIZE: Final = _RECORD.size
_unpack_from: Final = _RECORD.unpack_from
_HOME: Final = 17
"""Bytes of a record that say whose it is."""


@final
class KeyRing:
    """Keys by id, as `mat.authentication.KeyRing` asks: None for an unknown or ended one.

    `clock` gives seconds since 1970; it is read only for keys that end. Raises `ValueError` if two
    entries have the same id.
    """

    __slots__ = ("_clock", "_first", "_ids", "_index", "_kept", "_long", "_records", "_span")

    def __init__(self, entries: Iterable[Entry], clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._kept: dict[int, Key] = {}
        self._long: dict[int, bytes] = {}
        self._ids = array("I")
        self._records = b""
        self._pack(entries)
        if not _ascending(self._ids):
            self._sort()
        self._first = self._ids[0] if self._ids else 0
        self._span = self._ids[-1] - self._first if self._ids else -1
        self._index = self._indexed()

    def _pack(self, entries: Iterable[Entry]) -> None:
        records = bytearray()
        pack, ids = _RECORD.pack, self._ids
        for key_id, home_address, prefix_length, secret, until in entries:
            ids.append(key_id)
            if len(secret) > _SECRET:
                self._long[key_id] = secret
                records += pack(home_address, prefix_length, 0, until, b"")
            else:
                records += pack(home_address, prefix_length, len(secret), until, secret)
        self._records = bytes(records)

    def _sort(self) -> None:
        order = sorted(range(len(self)), key=self._ids.__getitem__)
        size, records = _RECORD.size, self._records
        self._ids = array("I", map(self._ids.__getitem__, order))
        self._records = b"".join(records[i * size : (i + 1) * size] for i in order)
        if not _ascending(self._ids):
            raise ValueError("a key id occurs twice")

    def _indexed(self) -> "range | array[int] | None":
        """The place of each id from the first to the last; None if too many are missing."""
        missing = self._span + 1 - len(self)
        if missing == 0:
            return range(len(self))
        if missing > len(self):
            return None
        # A missing id leads to the first place, which is another's.
        index = array("I", bytes(self._ids.itemsize * (self._span + 1)))
        for place, key_id in enumerate(self._ids):
            index[key_id - self._first] = place
        return index

    def __call__(self, key_id: int) -> Key | None:
        """The key with this id, if there is one and it is valid now."""
        key = self._kept.get(key_id)
        if key is not None:
            return key
        place = self._place(key_id)
        if place is None:
            return None
        home_address, prefix_length, size, until, secret = _unpack_from(
            self._records, place * _SIZE
        )
        key = Key(
            key_id, secret[:size] if size else self._long[key_id], home_address, prefix_length
        )
        if until == NEVER:
            if len(self._kept) == KEPT:
                self._kept.clear()
            self._kept[key_id] = key
        elif until <= self._clock():
            return None
        return key

    def _place(self, key_id: int) -> int | None:
        beyond = key_id - self._first
        if not 0 <= beyond <= self._span:
            return None
        index = self._index
        place = bisect_left(self._ids, key_id) if index is None else index[beyond]
        return place if self._ids[place] == key_id else None

    def __len__(self) -> int:
        """Keys in the ring, ended ones included."""
        return len(self._ids)

    def entries(self) -> Iterator[Entry]:
        """All keys in order of their ids, ended ones included."""
        for key_id, record in zip(self._ids, _RECORD.iter_unpack(self._records), strict=True):
            home_address, prefix_length, size, until, secret = record
            secret = secret[:size] if size else self._long[key_id]
            yield Entry(key_id, home_address, prefix_length, secret, until)

    def homes(self) -> Iterator[Home]:
        """Every home address and home prefix that has a key, valid or ended, once."""
        for home in dict.fromkeys(self._homes()):
            yield Address(home[:16]), home[16]

    def next_ids(self, count: int) -> range:
        """`count` ids in a row that are free: those after the greatest, or the first gap.

        Raises `ValueError` if there is no such gap.
        """
        ids = self._ids
        start = ids[-1] + 1 if ids else 1
        if start + count <= 1 << 32:
            return range(start, start + count)
        start = 1
        for key_id in ids:
            if key_id - start >= count:
                return range(start, start + count)
            start = key_id + 1
        raise ValueError(f"no {count} key ids in a row are free")

    def crowded(self, now: float) -> bool:
        """Whether a home has more valid keys than `MAX_VALID`."""
        homes = self._homes()
        if len(set(homes)) == len(homes):
            return False
        records = zip(homes, _RECORD.iter_unpack(self._records), strict=True)
        valid = Counter(home for home, (_, _, _, until, _) in records if now < until)
        return max(valid.values(), default=0) > MAX_VALID

    def _homes(self) -> list[bytes]:
        size, records = _RECORD.size, self._records
        return [records[start : start + _HOME] for start in range(0, len(records), size)]


def _ascending(ids: "array[int]") -> bool:
    return all(map(lt, ids, islice(ids, 1, None)))


def load(path: Path, clock: Callable[[], float] = time.time) -> KeyRing:
    """The keys of a file. Raises `KeyFileError` with what is wrong with the file or its lines."""
    with open_key_file(path) as file:
        return read_ring(file, path, clock)


def read_ring(file: BinaryIO, path: Path, clock: Callable[[], float]) -> KeyRing:
    """The keys of an open file, which must be seekable; `path` is for messages. As `load`."""
    now = clock()
    try:
        ring = KeyRing((entry for _, entry in numbered_entries(file, path)), clock)
    except ValueError:
        ring = None
    if ring is None or ring.crowded(now):
        file.seek(0)
        raise KeyFileError(islice(_conflicts(file, path, now), MAX_PROBLEMS))
    return ring


def _conflicts(file: BinaryIO, path: Path, now: float) -> Iterator[Problem]:
    """What lines say against each other: a second reading, which only a file with such lines gets.

    So the reading that every server does needs to remember no line numbers.
    """
    line_of: dict[int, int] = {}
    valid: dict[Home, list[int]] = {}
    for number, entry in numbered_entries(file, path):
        where = f"{path}:{number}"
        if (first := line_of.setdefault(entry.key_id, number)) != number:
            what = f"{entry.key_id} is the key of line {first} already; give each key its own"
            yield Problem(where, "id", what)
        if now < entry.until:
            lines = valid.setdefault(entry.home, [])
            lines.append(number)
            if len(lines) > MAX_VALID:
                what = f"has {MAX_VALID} valid keys already, in lines {lines[0]} and {lines[1]}"
                yield Problem(where, "HoA", f"{what}; remove one of them")
