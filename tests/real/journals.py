"""Journal stores in the test's own process: what is submitted, what comes back, and when."""

import asyncio
import queue
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mat.address import Address, parse_address
from mat.effects import ReadByHome, ReadByMobile, StoreWrite
from mat.messages import EXACT, Endpoint, HaQuery, ImsUpdate, MaQuery
from mat.registrations import Registration, key_of, pack
from mat_real.store import Found, StoreEffect, Written
from mat_real.store.journal import JournalStore, create

LIMIT = 60.0
"""Seconds for a commit, on a machine where much else goes on."""
_ANYBODY = Endpoint(Address(bytes(16)), 0)


def new_journal(folder: Path, floor: int = 0) -> Path:
    """An empty journal file."""
    path = folder / "ims.store"
    create(path, floor, "0 0.0")
    return path


def registration(
    home: str,
    freshness: int,
    moved: Iterable[str] = ("198.51.100.1",),
    *,
    prefix_length: int = EXACT,
    version: int = 0,
    at: float | None = None,
    lifetime: int = 180,
) -> Registration:
    """A registration; unless said otherwise it is registered at the second of its freshness."""
    return Registration(
        parse_address(home),
        prefix_length,
        tuple(map(parse_address, moved)),
        version or freshness,
        freshness,
        float(freshness) if at is None else at,
        lifetime,
    )


def write_of(wanted: Registration) -> StoreWrite:
    """The effect by which a machine would have a registration stored."""
    update = ImsUpdate(
        0,
        wanted.home_address,
        wanted.mobile_addresses,
        wanted.version,
        wanted.lifetime,
        wanted.prefix_length,
    )
    return StoreWrite(wanted, update, _ANYBODY)


class Opened:
    """An open journal store. The event loop is the test: nothing is answered but in `turn`."""

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        self._turns: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.answers: list[tuple[StoreEffect, Written | Found]] = []
        self.entered: list[tuple[str, bool]] = []
        """Tickets of updates that came in by the express lane, and whether they are durable."""
        self.store: JournalStore[str] = JournalStore(
            path, self._answered, self._entered, self._turns.put, shared=shared
        )

    def _answered(self, effect: StoreEffect, result: Written | Found) -> None:
        self.answers.append((effect, result))

    def _entered(self, tickets: list[str], durable: bool) -> None:
        self.entered += [(ticket, durable) for ticket in tickets]

    def turn(self) -> None:
        """Wait for the commit that is under way, and have it answered."""
        self._turns.get(timeout=LIMIT)()

    def settle(self) -> None:
        """Have everything committed and answered."""
        self.store.flush()
        while self.store.depth():
            self.turn()

    def submit(self, *wanted: Registration) -> None:
        """Hand in updates by the machine's way."""
        for one in wanted:
            self.store.submit(write_of(one))

    def enter(self, *wanted: Registration) -> list[bool]:
        """Hand in updates by the express lane's way; the ticket is the freshness."""
        return [
            self.store.enter(
                key_of(one.home_address, one.prefix_length),
                pack(one),
                one.freshness,
                str(one.freshness),
            )
            for one in wanted
        ]

    def results(self) -> list[Written | Found]:
        """What came back since this was last called, in the order in which it came."""
        results = [result for _, result in self.answers]
        self.answers.clear()
        return results

    def write(self, *wanted: Registration) -> list[Written | Found]:
        """Hand in updates, have them committed, and say what became of them."""
        self.submit(*wanted)
        self.settle()
        return self.results()

    def by_home(self, home: str) -> Found:
        """What a look-up by home address finds."""
        address = parse_address(home)
        return self._read(ReadByHome(address, MaQuery(0, address), _ANYBODY))

    def by_mobile(self, moved: str) -> Found:
        """What a look-up by mobile address finds."""
        address = parse_address(moved)
        return self._read(ReadByMobile(address, HaQuery(0, address), _ANYBODY))

    def _read(self, effect: ReadByHome | ReadByMobile) -> Found:
        self.store.submit(effect)
        answered, found = self.answers.pop()
        assert answered is effect
        assert not isinstance(found, tuple)
        return found

    def rows(self) -> int:
        """Rows that are in the file, whoever wrote them."""
        ((count,),) = self.store._journal._reader.execute("SELECT count(*) FROM journal")
        return int(count)

    def most_pages(self, count: int) -> None:
        """Let the file have so many pages: beyond, SQLite says what it says on a full disk."""
        self.store._journal._database.execute(f"PRAGMA max_page_count = {count}")

    def close(self) -> None:
        """Close the store as a worker does that is told to end."""
        self.settle()
        asyncio.run(self.store.close())


def freshness_of(found: Found) -> int:
    """The freshness of what was found."""
    assert isinstance(found, Registration)
    return found.freshness


def homes(count: int, start: int = 0) -> Sequence[str]:
    """So many home addresses."""
    return [f"10.1.{n >> 8}.{n & 255}" for n in range(start, start + count)]
