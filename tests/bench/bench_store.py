"""Why the embedded store is a journal: one commit of 500 updates, of 100,000 random nodes.

    pytest tests/bench/bench_store.py --benchmark-columns=min,median --benchmark-sort=name

Each layout keeps what an IMS needs to find again after a crash. LMDB is no dependency: its rows
appear where the module lmdb is installed. The files lie in the current directory's build/bench, for
a temporary directory may be in memory, where a commit costs nothing.
"""

import random
import shutil
import sqlite3
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from mat.address import from_ipv4
from mat.messages import EXACT
from mat.registrations import Registration, RegistrationTable, pack
from mat_real.store.journal import Journal, create

NODES = 100_000
GROUP = 500
Rows = list[tuple[bytes, bytes]]


@pytest.fixture
def folder() -> Generator[Path]:
    made = Path("build/bench")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    yield made
    shutil.rmtree(made)


def home(number: int) -> bytes:
    return from_ipv4(bytes((10, *(number * 2654435761 % (1 << 24)).to_bytes(3, "big"))))


def rows(numbers: range | list[int], freshness: int) -> Rows:
    made: Rows = []
    for number in numbers:
        moved = from_ipv4(bytes((172, *((number + freshness) % (1 << 24)).to_bytes(3, "big"))))
        one = Registration(from_ipv4(bytes(4)), EXACT, (moved,), freshness, freshness, 0.0, 180)
        made.append((home(number), pack(one)))
    return sorted(made)


def sqlite_table(folder: Path) -> Callable[[Rows], None]:
    database = sqlite3.connect(folder / "table", isolation_level=None)
    database.executescript(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
        "CREATE TABLE home (home BLOB PRIMARY KEY, record BLOB) WITHOUT ROWID;"
        "CREATE TABLE mobile (mobile BLOB PRIMARY KEY, home BLOB) WITHOUT ROWID;"
    )

    def write(group: Rows) -> None:
        database.execute("BEGIN IMMEDIATE")
        database.executemany("INSERT OR REPLACE INTO home VALUES (?, ?)", group)
        mobiles = sorted((record[-16:], key) for key, record in group)
        database.executemany("INSERT OR REPLACE INTO mobile VALUES (?, ?)", mobiles)
        database.execute("COMMIT")

    return write


def lmdb_table(folder: Path) -> Callable[[Rows], None]:
    lmdb: Any = pytest.importorskip("lmdb")
    environment = lmdb.open(str(folder / "lmdb"), map_size=4 << 30, max_dbs=2)
    homes, mobiles = environment.open_db(b"home"), environment.open_db(b"mobile")

    def write(group: Rows) -> None:
        with environment.begin(write=True) as transaction:
            transaction.cursor(homes).putmulti(group)
            moved = sorted((record[-16:], key) for key, record in group)
            transaction.cursor(mobiles).putmulti(moved)

    return write


def journal(folder: Path) -> Callable[[Rows], None]:
    create(folder / "journal", 0, "")
    opened = Journal(folder / "journal")
    table = RegistrationTable()

    def write(group: Rows) -> None:
        done = opened.append(b"".join(key + record for key, record in group), len(group), None)
        for key, record in group:
            table.put(key, record)
        opened.appended(done)

    return write


@pytest.mark.parametrize(
    "layout", [sqlite_table, lmdb_table, journal], ids=lambda one: one.__name__
)
@pytest.mark.parametrize("count", [1, GROUP])
def test_commit(
    benchmark: BenchmarkFixture,
    folder: Path,
    layout: Callable[[Path], Callable[[Rows], None]],
    count: int,
) -> None:
    write = layout(folder)
    for start in range(0, NODES, 10_000):
        write(rows(range(start, start + 10_000), 1))
    source = random.Random(1)
    freshness = iter(range(2, 1 << 30))

    def group() -> tuple[tuple[Rows], dict[str, object]]:
        return (rows([source.randrange(NODES) for _ in range(count)], next(freshness)),), {}

    run: Any = benchmark.pedantic
    run(write, setup=group, rounds=200 if count == 1 else 40)
