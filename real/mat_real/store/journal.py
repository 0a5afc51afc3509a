"""The embedded store: a table in memory, and a journal in an SQLite file.

Theory of operation. Look-ups are answered from memory. Updates that arrive together are appended to
the journal together, in one row, and acknowledged when SQLite says that the row is on the disk:
group commit. While one commit is under way in a thread of its own, the next group collects, so that
groups grow with the load and a single update waits for nothing but its own commit. A small group
commits on the event loop's own thread as long as the disk is quick and no other worker may hold it
up: the way to another thread and back costs more than it saves then.

A journal and not a table of rows by home address, because a commit of 500 random rows rewrites 500
pages, in SQLite and in LMDB alike, and a journal two (the measurement is in docs/design.md). The
cleaner keeps it short: when the journal holds more than twice what is live, each commit also takes
rows from its beginning, appends what is still live of them, and deletes them. Opening reads the
journal from end to end; of two registrations under one key the fresher counts, in whatever order
they stand, so the order of rows means nothing.

Several workers share one file. Each keeps the table, and before it takes up what has arrived it
reads what the others have committed (`catch_up`). Whoever was answered by one worker is so known to
all others before a datagram sent afterwards is looked at.

SQLite runs in WAL mode with synchronous=FULL (https://sqlite.org/wal.html): an answered commit
survives the death of the process and of the machine. SQLite does not notice a bit that flips in a
value, nor one that makes a row id of a table an ordinary column. So each row carries its CRC-32,
and a file whose tables are not declared in these very words does not open.
"""

import asyncio
import fcntl
import logging
import os
import queue
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from struct import Struct
from typing import Final, Generic, NamedTuple, TypeVar, assert_never, final

from mat.effects import ReadByHome, ReadByMobile, StoreWrite
from mat.registrations import (
    RECORD,
    Key,
    Outcome,
    RegistrationTable,
    freshness_of,
    judge,
    key_of,
    pack,
    unpack,
)
from mat_real.store import Answered, StoreEffect, StoreError
from mat_real.store._wal import damaged_frames

Ticket = TypeVar("Ticket")
"""What the express lane hands in with an update and wants back."""

APPLICATION: Final = 0x4D41544A
"""SQLite's application_id of a journal: "MATJ"."""
FORMAT: Final = 1
"""SQLite's user_version: the format of the rows."""
SLACK: Final = 10_000
"""Registrations that a journal may hold in vain whatever its size."""
BUSY: Final = 10.0
"""Seconds to wait for another worker's commit."""

SMALL: Final = 16
"""Updates that are not worth the way to another thread and back, if commits are quick."""
QUICK: Final = 0.001
"""Seconds for which a commit may keep look-ups waiting."""

_log = logging.getLogger("mat.ims")

_ENTRY: Final = 16 + RECORD.size
_TABLES: Final = {
    "meta": """CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL,
    crc INTEGER NOT NULL
) WITHOUT ROWID""",
    "journal": """CREATE TABLE journal (
    id INTEGER PRIMARY KEY,
    entries INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    data BLOB NOT NULL
)""",
}
_SCHEMA: Final = f"""
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {FORMAT};
{_TABLES["meta"]};
{_TABLES["journal"]};
"""
_FILE_HEADER: Final = Struct(">16s52xI")
"""Of an SQLite file: what it begins with, and its application_id."""
_COUNT: Final = "SELECT CAST(total(entries) AS INTEGER) FROM journal"
_APPEND: Final = "INSERT INTO journal (entries, crc, data) VALUES (?, ?, ?)"
_TAIL: Final = "SELECT id, entries, crc, data FROM journal WHERE id > ? ORDER BY id"
_HEAD: Final = "SELECT id, entries, crc, data FROM journal WHERE id > ? ORDER BY id LIMIT 1"


def split(data: bytes) -> Iterator[tuple[Key, bytes]]:
    """The registrations of a row: key and packed record each. Raises `ValueError`."""
    start, size = 0, len(data)
    while start < size:
        at = start + 16
        if start + _ENTRY > size:
            raise ValueError("a registration is cut off")
        end = start + _ENTRY + 16 * data[start + _ENTRY - 1]
        if end > size:
            raise ValueError("a registration is cut off")
        home, length = data[start:at], data[start + _ENTRY - 2]
        yield (home if length == 128 else home + bytes((length,))), data[at:end]
        start = end


def create(path: Path, floor: int, clock: str) -> None:
    """Make an empty journal file, mode 0600.

    Raises `StoreError`, also if the file exists, or if it was moved away without its WAL: SQLite
    would take what that holds for the new file's.
    """
    making, wal = path.with_name(f".{path.name}.new"), _wal_of(path)
    if wal.exists():
        what = f"is what is left of a store; without {path.name} it is worth nothing"
        raise StoreError(f"{wal}: {what}: move it away, or put {path.name} back")
    try:
        making.unlink(missing_ok=True)
        making.touch(mode=0o600)
        with closing(sqlite3.connect(making, isolation_level=None)) as database:
            database.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
            for name, value in (("floor", f"{floor:x}"), ("clock", clock)):
                row = (name, value, _meta_crc(name, value))
                database.execute("INSERT INTO meta VALUES (?, ?, ?)", row)
        # Under its name it is whole from the first moment; a link, unlike a rename, replaces none.
        os.link(making, path)
        making.unlink()
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{path}: cannot be made ({error}); {_MEND_DISK}") from error


def check_place(path: Path) -> None:
    """See whether a journal could be opened there, or made. Raises `StoreError`.

    What it holds is not read: that takes a while.
    """
    with _refusing(path):
        if path.exists():
            _refuse_foreign(path)
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise PermissionError(f"nothing can be made in {path.parent}")


_OF_DISK: Final = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
)
_MEND_DISK: Final = "see that the directory exists, can be written, and is not full"
_MEND_FILE: Final = (
    "move the file away, together with those of its name and -wal or -shm; then put back a copy, or"
    " begin without one: the store is empty then, and nodes register again"
)


def _wal_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _gate_of(path: Path) -> int:
    """A file descriptor to lock, of a file that is there for nothing else. Raises `OSError`."""
    gate = path.with_name(path.name + ".gate")
    return os.open(gate, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _meta_crc(name: str, value: str) -> int:
    return zlib.crc32(f"{name}={value}".encode())


@contextmanager
def _refusing(path: Path) -> Generator[None]:
    """Say what is wrong with a file, and how to mend it. Raises `StoreError`."""
    try:
        yield
    except (OSError, sqlite3.Error, ValueError) as error:
        mend = _MEND_DISK if _is_of_disk(error) else _MEND_FILE
        raise StoreError(f"{path}: cannot be used as a store ({error}); {mend}") from error


def _is_of_disk(error: Exception) -> bool:
    """Whether something is wrong with where the file is, and not with what it holds."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, OSError) if code is None else code & 0xFF in _OF_DISK


def _make_private(path: Path) -> None:
    """A journal that was copied back may have become readable for others; its WAL would be, too.

    Raises `OSError`.
    """
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
        _log.warning("%s could be read by others; its mode is 0600 now", path)


def _refuse_foreign(path: Path) -> None:
    """Raises `StoreError` for a file that is no journal, before SQLite touches it.

    Raises `OSError` for one that may not be written; SQLite would be content to read it.
    """
    with path.open("r+b") as file:
        head = file.read(_FILE_HEADER.size).ljust(_FILE_HEADER.size, b"\0")
    if _FILE_HEADER.unpack(head) != (b"SQLite format 3\0", APPLICATION):
        mend = f"name another file, or, if it was one once, {_MEND_FILE}"
        raise StoreError(f"{path}: is no store of an IMS; {mend}")


def _connected(path: Path) -> sqlite3.Connection:
    """A connection to an existing file. Transactions are begun by hand."""
    uri = f"{path.resolve().as_uri()}?mode=rw"
    database = sqlite3.connect(
        uri, uri=True, isolation_level=None, timeout=BUSY, check_same_thread=False
    )
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    # `_wal` relies on it.
    database.execute("PRAGMA cache_spill = OFF")
    return database


class Cleaning(NamedTuple):
    """The cleaner's part: what is still the registration that counts, and how many may stand."""

    live: Callable[[Key, bytes], bool]
    limit: int


class Appended(NamedTuple):
    """A commit: the id of its row, registrations in it, and in the journal, if it was counted."""

    row: int
    entries: int
    total: int | None


@final
class Journal:
    """A journal file: opened, checked, read from end to end, appended to."""

    __slots__ = ("_database", "_file", "_gate", "_path", "_reader", "entries", "last")

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        """Open the file and check it; `shared` says that other processes write to it too.

        Raises `StoreError` for a file that is not there, no journal, damaged or not to be written:
        a store that may have lost something does not open.
        """
        self._path = path
        self.entries = 0
        """Registrations in the journal, live or not, as far as this worker knows."""
        self.last = 0
        """Id of the last row that was read or written."""
        with ExitStack() as opened, _refusing(path):
            _refuse_foreign(path)
            _make_private(path)
            damaged = damaged_frames(path)
            if damaged:
                raise StoreError(f"{_wal_of(path)}: {damaged}; {_MEND_FILE}")
            self._database = opened.enter_context(closing(_connected(path)))
            self._reader = opened.enter_context(closing(_connected(path)))
            self._check()
            self._file = path.stat()
            self._gate = _gate_of(path) if shared else None
            opened.pop_all()

    def read_all(self, table: RegistrationTable) -> None:
        """Read the whole journal, and the floor, into an empty table. Raises `StoreError`."""
        table.floor = int(self.meta("floor"), 16)
        with _refusing(self._path):
            self.catch_up(table)

    def _check(self) -> None:
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version != FORMAT:
            what = f"has format {version}; this program reads and writes {FORMAT}"
            raise StoreError(f"{self._path}: {what}")
        tables = self._database.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema")
        if set(tables) != {("table", name, name, sql) for name, sql in _TABLES.items()}:
            raise ValueError("its tables are not those of a store")
        (found,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise ValueError(" ".join(found.split()))

    def meta(self, name: str) -> str:
        """A value of the file's own table. Raises `StoreError` if it is not what was written."""
        with _refusing(self._path):
            query = "SELECT value, crc FROM meta WHERE name = ?"
            value, crc = self._database.execute(query, (name,)).fetchone() or ("", None)
            if not isinstance(value, str) or crc != _meta_crc(name, value):
                raise ValueError(f"its {name} is missing, or not what was written")
        return value

    def set_meta(self, name: str, value: str) -> None:
        """Store a value in the file's own table. Raises `StoreError`."""
        with _refusing(self._path):
            change = "UPDATE meta SET value = ?, crc = ? WHERE name = ?"
            self._database.execute(change, (value, _meta_crc(name, value), name))

    def catch_up(self, table: RegistrationTable) -> int:
        """Read into `table` what was appended since, by whichever worker; the number of rows.

        Raises `sqlite3.Error`, and `ValueError` for a row that is not what was written.
        """
        self._be_in_place()
        rows = 0
        for row in self._reader.execute(_TAIL, (self.last,)):
            for key, record in self._entries(*row):
                table.put(key, record)
            self.last = row[0]
            self.entries += row[1]
            rows += 1
        return rows

    def _be_in_place(self) -> None:
        """Raises `ValueError` if the file under its name is another: who opens it next finds that.

        SQLite does not notice, and would go on with the file that was moved away.
        """
        try:
            in_place = os.path.samestat(self._path.stat(), self._file)
        except OSError:
            in_place = False
        if not in_place:
            raise ValueError(f"{self._path} was moved away or replaced; put it back")

    def _entries(
        self, row: int, entries: int, crc: int, data: object
    ) -> Iterator[tuple[Key, bytes]]:
        if not isinstance(data, bytes) or zlib.crc32(data) != crc:
            raise ValueError(f"row {row} of the journal is not what was written")
        count = 0
        for key, record in split(data):
            count += 1
            yield key, record
        if count != entries:
            raise ValueError(f"row {row} of the journal holds {count} of {entries} registrations")

    def append(self, group: bytes, count: int, cleaning: Cleaning | None) -> Appended:
        """Commit one group of registrations.

        With `cleaning`, rows from the beginning are cleaned in the same transaction, if there are
        too many. Raises `sqlite3.Error`, and `ValueError` as `catch_up` does; nothing is written
        then.
        """
        database, total, cleaned = self._database, None, 0
        with self._alone():
            self._be_in_place()
            database.execute("BEGIN IMMEDIATE")
            try:
                if cleaning is not None:
                    (total,) = database.execute(_COUNT).fetchone()
                    if total > cleaning.limit:
                        kept, removed, cleaned = self._worn(2 * count + SLACK // 10, cleaning.live)
                        group, count = group + b"".join(kept), count + len(kept)
                        total -= removed
                    total += count
                row = database.execute(_APPEND, (count, zlib.crc32(group), group)).lastrowid
                # Only now: were the journal empty, the new row's id would be one others have read.
                database.execute("DELETE FROM journal WHERE id <= ?", (cleaned,))
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise
        assert row is not None
        return Appended(row, count, total)

    @contextmanager
    def _alone(self) -> Generator[None]:
        """No other worker commits meanwhile, nor folds the WAL into the file.

        SQLite has locks of its own, but before 3.51.3 a commit and a checkpoint of two processes
        at the same moment could lose frames of the WAL (https://sqlite.org/wal.html#walresetbug).
        """
        if self._gate is None:
            yield
            return
        fcntl.flock(self._gate, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._gate, fcntl.LOCK_UN)

    def appended(self, done: Appended) -> None:
        """Take a commit of this worker into account, on the thread that reads.

        Where another worker's row stands before it, `catch_up` reads both.
        """
        if self.last == done.row - 1:
            self.last = done.row
            self.entries += done.entries
        if done.total is not None:
            self.entries = done.total

    def _worn(
        self, wanted: int, live: Callable[[Key, bytes], bool]
    ) -> tuple[list[bytes], int, int]:
        """The rows at the beginning that hold about `wanted` registrations.

        Returns those of them that are live, to be appended; how many all are; the last row's id.
        """
        kept: list[bytes] = []
        removed = last = 0
        while removed < wanted:
            row = self._database.execute(_HEAD, (last,)).fetchone()
            if row is None:
                break
            for key, record in self._entries(*row):
                if live(key, record):
                    kept.append(key[:16] + record)
            last, entries = row[:2]
            removed += entries
        return kept, removed, last

    def latest(self) -> float:
        """When the newest registration was registered, s of the server's clock; 0 if there is none.

        Reads all rows, but enters nothing into a table. Raises `StoreError`.
        """
        newest = 0.0
        with _refusing(self._path):
            for row in self._reader.execute(_TAIL, (0,)):
                for _, record in self._entries(*row):
                    newest = max(newest, RECORD.unpack_from(record)[2])
        return newest

    def close(self) -> None:
        """Close the file; the last to do so folds the WAL into it."""
        with self._alone():
            self._reader.close()
            self._database.close()
        if self._gate is not None:
            os.close(self._gate)


@final
@dataclass(slots=True)
class _Group(Generic[Ticket]):
    """Updates that commit together, and everything that is answered when they have."""

    records: dict[Key, bytes] = field(default_factory=dict[Key, bytes])
    answers: list[tuple[StoreWrite, Outcome, int]] = field(
        default_factory=list[tuple[StoreWrite, Outcome, int]]
    )
    admitted: list[Ticket] = field(default_factory=list[Ticket])


def _raise(error: BaseException) -> None:
    raise error


@final
class JournalStore(Generic[Ticket]):
    """The embedded store behind the `Store` interface, in one worker."""

    def __init__(
        self,
        path: Path,
        answered: Answered,
        entered: Callable[[list[Ticket], bool], None],
        call_soon: Callable[[Callable[[], None]], object],
        *,
        shared: bool = False,
    ) -> None:
        """Open a journal file that exists.

        `entered` gets the tickets of each group, and whether it is durable. `call_soon` has a
        function called on the event loop's thread; `shared` says that other workers write to the
        file too. Raises `StoreError`.
        """
        self.table = RegistrationTable()
        self._journal = Journal(path, shared=shared)
        self._journal.read_all(self.table)
        self._answered = answered
        self._entered = entered
        self._call_soon = call_soon
        self._shared = shared
        self._collecting = _Group[Ticket]()
        self._pending: dict[Key, bytes] = {}
        self._writing: _Group[Ticket] | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._failure = self._unreadable = ""
        self._quick = True
        self._work: queue.SimpleQueue[_Group[Ticket] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
        self._thread.start()

    @property
    def failure(self) -> str:
        """Why the last commit failed, or the journal cannot be read; empty if all is well."""
        return self._failure or self._unreadable

    def catch_up(self) -> None:
        """See what other workers have committed. Raises `StoreError` if that cannot be told."""
        if self._shared:
            try:
                self._journal.catch_up(self.table)
            except (sqlite3.Error, ValueError) as error:
                self._unreadable = f"the journal cannot be read ({error})"
                raise StoreError(self._unreadable) from error
            self._unreadable = ""

    # ---- the store's interface -----------------------------------------------------------------

    def submit(self, effect: StoreEffect) -> None:
        """Carry out an effect: a read at once, a write with its group."""
        match effect:
            case ReadByHome():
                self._answered(effect, self.table.by_home(effect.home_address))
            case ReadByMobile():
                self._answered(effect, self.table.by_mobile(effect.mobile_address))
            case StoreWrite():
                self._submit_write(effect)
            case _:
                assert_never(effect)

    def _submit_write(self, effect: StoreWrite) -> None:
        update = effect.registration
        key = key_of(update.home_address, update.prefix_length)
        pending = self._pending.get(key)
        if pending is None:
            outcome, freshness = self.table.judge(update)
            if outcome is not Outcome.STORED:
                self._answered(effect, (outcome, freshness))
                return
        else:
            compared = unpack(key, pending)
            outcome, freshness = judge(compared, update, 0), compared.freshness
        group = self._collecting
        if outcome is Outcome.STORED:
            self._pending[key] = group.records[key] = pack(update)
            freshness = update.freshness
        elif self._writing is not None and self._writing.records.get(key) is pending:
            # What it was compared with is not durable yet: the two share their fate.
            group = self._writing
        group.answers.append((effect, outcome, freshness))

    def enter(self, key: Key, record: bytes, freshness: int, ticket: Ticket) -> bool:
        """The express lane's way in: an update that is plainly fresher than all that is known.

        Returns False, having done nothing, if it is not. `ticket` is handed back through
        `entered` when its group is done.
        """
        known = self._pending.get(key) or self.table.get(key)
        if freshness <= (freshness_of(known) if known is not None else self.table.floor):
            return False
        group = self._collecting
        self._pending[key] = group.records[key] = record
        group.admitted.append(ticket)
        return True

    def flush(self) -> None:
        """Let the group go, unless one is under way: then it goes when that one is done."""
        if self._writing is not None or not self._collecting.records:
            return
        self._writing, self._collecting = self._collecting, _Group[Ticket]()
        self._idle.clear()
        small = len(self._writing.records) <= SMALL
        if self._quick and small and not self._shared and self._cleaning() is None:
            self._commit(self._writing)()
        else:
            self._work.put(self._writing)

    def depth(self) -> int:
        """Updates that wait for their commit."""
        under_way = len(self._writing.records) if self._writing else 0
        return under_way + len(self._collecting.records)

    async def close(self) -> None:
        """Commit and answer what was submitted, and close the file."""
        self.flush()
        await self._idle.wait()
        self._work.put(None)
        self._thread.join()
        self._journal.close()

    # ---- commits: in the writer's thread, or on the event loop's if they are small and quick ----

    def _write(self) -> None:
        while (group := self._work.get()) is not None:
            try:
                done = self._commit(group)
            except BaseException as error:  # noqa: BLE001  # it must not end with this thread
                done = partial(_raise, error)
            self._call_soon(done)

    def _commit(self, group: _Group[Ticket]) -> Callable[[], None]:
        """Commit a group; what is to be done about it on the event loop's thread."""
        records, begun = group.records, time.perf_counter()
        data = b"".join(key[:16] + record for key, record in records.items())
        try:
            done = self._journal.append(data, len(records), self._cleaning())
        except (sqlite3.Error, ValueError) as error:
            self._failure = str(error)
            return self._failed
        finally:
            self._quick = time.perf_counter() - begun < QUICK
        self._failure = ""
        return partial(self._committed, done)

    def _cleaning(self) -> Cleaning | None:
        limit = 2 * len(self.table) + SLACK
        return Cleaning(self._is_live, limit) if self._journal.entries > limit else None

    def _is_live(self, key: Key, record: bytes) -> bool:
        """Whether nothing fresher is known under the key. What is not read yet stays."""
        known = self.table.get(key)
        return known is None or freshness_of(known) <= freshness_of(record)

    # ---- back on the event loop ----------------------------------------------------------------

    def _committed(self, done: Appended) -> None:
        """Durable: now look-ups may see it, and then it is acknowledged."""
        group = self._writing
        assert group is not None
        put = self.table.put
        for key, record in group.records.items():
            put(key, record)
        self._journal.appended(done)
        self._finish(group)
        for effect, outcome, freshness in group.answers:
            self._answered(effect, (outcome, freshness))
        if group.admitted:
            self._entered(group.admitted, True)
        self._next()

    def _failed(self) -> None:
        group = self._writing
        assert group is not None
        self._finish(group)
        for effect, _, _ in group.answers:
            self._answered(effect, (Outcome.UNAVAILABLE, 0))
        if group.admitted:
            self._entered(group.admitted, False)
        self._next()

    def _next(self) -> None:
        self.flush()
        if self._writing is None:
            self._idle.set()

    def _finish(self, group: _Group[Ticket]) -> None:
        pending = self._pending
        for key, record in group.records.items():
            if pending.get(key) is record:
                del pending[key]
        self._writing = None
