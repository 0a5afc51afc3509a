"""Truncated, corrupted and replaced store files: a clear refusal, or answers that are right.

What is flipped or cut is a file of a store that worked. It is opened as a server opens it. Either
that is refused, or all that was acknowledged is there. Where a crash of the machine may have left
the same bytes, namely without the last transaction and without the WAL-index, that counts as right.
"""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from mat.address import parse_address
from mat.messages import Code
from mat.registrations import Key, RegistrationTable, freshness_of, pack
from mat_real.store import StoreError
from mat_real.store.journal import APPLICATION, Journal, create
from tests.real.ims_server import (
    MAIN,
    Client,
    addresses,
    configuration,
    free_port,
    key,
    running,
    started,
    write_keys,
)
from tests.real.journals import homes, registration

STEP = int(os.environ.get("MAT_FAULT_FLIPS", "29"))
"""Every how many bytes a bit of the main file is flipped; 1 flips each bit of each byte."""
FRAME = 24 + 4096
WAL_HEADER = 32
CLOCK = "0a1b2c3d-boot 1234567.25"
FLOOR = 77 << 32

Content = dict[str, bytes]
"""A store's files: by what their names end in."""
State = tuple[dict[Key, bytes], int, str]
"""What a server takes from a store: registrations, floor, clock."""


@dataclass
class History:
    """Files of a store as a killed server leaves them, and its states after each commit."""

    content: Content
    states: list[State]


def append(journal: Journal, names: Sequence[str], freshness: int) -> None:
    rows = [registration(home, freshness, ["198.51.100.1", "203.0.113.9"]) for home in names]
    data = b"".join(one.home_address + pack(one) for one in rows)
    journal.append(data, len(rows), None)


def read(path: Path) -> State:
    """What a server takes from a store. Raises `StoreError`."""
    table = RegistrationTable()
    journal = Journal(path)
    with closing(journal):
        journal.read_all(table)
        state = dict(table._by_home), table.floor, journal.meta("clock")
        journal.latest()
    return state


def restored(folder: Path, content: Content) -> Path:
    """The files in a folder of their own; the path of the main file."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for end, data in content.items():
        (folder / f"ims.store{end}").write_bytes(data)
    return folder / "ims.store"


def files_of(path: Path) -> Content:
    names = ((end, path.with_name(path.name + end)) for end in ("", "-wal", "-shm"))
    return {end: file.read_bytes() for end, file in names if file.exists()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damage")


@pytest.fixture(scope="module")
def closed(folder: Path) -> History:
    """A store that was closed: only the main file is there. Rows of all sizes, several pages."""
    path = folder / "closed.store"
    create(path, FLOOR, CLOCK)
    journal = Journal(path)
    for freshness in range(100, 130):
        append(journal, homes(1, freshness % 7), freshness)
    for freshness in range(200, 204):
        append(journal, homes(60, 100), freshness)
    journal.close()
    state = read(path)
    return History(files_of(path), [state])


@pytest.fixture(scope="module")
def killed(folder: Path) -> History:
    """A store whose server was killed: most is in the WAL. The states are those of its commits."""
    path = folder / "killed.store"
    create(path, FLOOR, CLOCK)
    journal = Journal(path)
    append(journal, homes(40, 100), 100)
    journal.close()
    states, journal = [read(path)], Journal(path)
    for freshness in range(200, 206):
        # Sizes that change which pages a transaction writes.
        append(journal, homes(1 + 25 * (freshness % 3)), freshness)
        states.append(read(restored(folder / "one", files_of(path))))
    content = files_of(path)
    journal.close()
    assert set(content) == {"", "-wal", "-shm"}
    return History(content, states)


def flips(content: Content, end: str, places: Iterable[int]) -> Iterator[tuple[int, Content]]:
    """The files with one bit of one of them flipped, and where."""
    chance = random.Random(5)
    data = bytearray(content[end])
    for place in places:
        for bit in range(8) if STEP == 1 else (chance.randrange(8),):
            data[place] ^= 1 << bit
            yield place, content | {end: bytes(data)}
            data[place] ^= 1 << bit


def commits_in(content: Content) -> list[int]:
    """Where the WAL ended after each commit."""
    wal = content["-wal"]
    frames = range(WAL_HEADER, len(wal), FRAME)
    return [at + FRAME for at in frames if int.from_bytes(wal[at + 4 : at + 8], "big")]


def outcome(path: Path) -> State | str:
    """What a server takes from a store, or why it refuses it."""
    try:
        return read(path)
    except StoreError as error:
        return str(error)


def refused(path: Path) -> str:
    """Why a store does not open; fails if it does."""
    with pytest.raises(StoreError) as caught:
        read(path)
    assert path.name in str(caught.value)
    return str(caught.value)


# ---- flips ---------------------------------------------------------------------------------------


def test_a_flipped_bit_in_the_main_file_is_noticed_or_does_no_harm(
    folder: Path, closed: History
) -> None:
    size = len(closed.content[""])
    # Whole: the header, and the end of the first page, where the tables are declared.
    places = sorted({*range(100), *range(3500, 4096), *range(0, size, STEP)})
    noticed = 0
    for place, content in flips(closed.content, "", places):
        path = restored(folder / "flipped", content)
        found = outcome(path)
        if isinstance(found, str):
            noticed += 1
            assert "move the file away" in found or "has format" in found, place
        else:
            assert found == closed.states[0], place
    assert noticed > len(places) // 3


def test_a_flipped_bit_in_a_name_or_value_of_the_files_own_table_is_noticed(
    folder: Path, closed: History
) -> None:
    whole = closed.content[""]
    for text in (CLOCK.encode(), f"{FLOOR:x}".encode(), b"clock" + CLOCK.encode()):
        begin = whole.index(text)
        for _, content in flips(closed.content, "", range(begin, begin + len(text))):
            assert "move the file away" in refused(restored(folder / "flipped", content))


def places_in_wal(content: Content) -> list[int]:
    """The header, the header of each frame, and some of each page."""
    size = len(content["-wal"])
    heads = (at for start in range(WAL_HEADER, size, FRAME) for at in range(start, start + 24))
    return sorted({*range(WAL_HEADER), *heads, *range(WAL_HEADER + 24, size, 1009)})


def test_a_flipped_bit_in_the_wal_is_noticed(folder: Path, killed: History) -> None:
    for place, content in flips(killed.content, "-wal", places_in_wal(killed.content)):
        path = restored(folder / "flipped", content)
        found = outcome(path)
        assert found == killed.states[-1] or "ims.store-wal" in found, place


def test_without_the_index_a_flipped_bit_costs_at_most_the_last_transaction(
    folder: Path, killed: History
) -> None:
    """The bytes that the kernel had not put on the disk when the machine stopped look the same."""
    content = {end: data for end, data in killed.content.items() if end != "-shm"}
    lost = set[int]()
    for place, flipped in flips(content, "-wal", places_in_wal(content)):
        path = restored(folder / "flipped", flipped)
        found = outcome(path)
        assert found in killed.states[-2:] or "ims.store-wal" in found, place
        if found == killed.states[-2]:
            lost.add(place)
    # That it can happen is the known limit; it happens at the end of the file and nowhere else.
    assert lost
    assert min(lost) >= commits_in(content)[-2]


def test_a_lost_mark_of_a_commit_does_not_make_two_transactions_one(
    folder: Path, killed: History
) -> None:
    """Then the first could pass for the beginning of the second, which a crash cut off."""
    wal, ends = killed.content["-wal"], commits_in(killed.content)
    for end in ends[:-1]:
        mark = end - FRAME + 4
        content = {"": killed.content[""], "-wal": wal[:mark] + bytes(4) + wal[mark + 4 :]}
        assert "is damaged" in refused(restored(folder / "unmarked", content))


def test_damage_that_would_lead_later_commits_astray_is_noticed(
    folder: Path, closed: History
) -> None:
    """All rows can be read; but the list of free pages names a page that holds some of them."""
    whole = closed.content[""]
    trunk = whole[:32] + (4).to_bytes(4, "big") + (1).to_bytes(4, "big") + whole[40:]
    assert "reelist" in refused(restored(folder / "free", {"": trunk}))


def test_a_flipped_bit_in_the_index_does_no_harm(folder: Path, killed: History) -> None:
    for place, content in flips(killed.content, "-shm", [*range(136), *range(136, 32768, 509)]):
        path = restored(folder / "flipped", content)
        assert outcome(path) == killed.states[-1], place


def test_an_index_of_another_generation_or_of_junk_is_left_aside(
    folder: Path, killed: History
) -> None:
    index = bytearray(killed.content["-shm"])
    for copy in (0, 48):
        # More frames than there are, of a WAL with other salts.
        index[copy + 17] += 1
        index[copy + 33] ^= 1
    noise = random.Random(2).randbytes(32768)
    for junk in (b"", bytes(32768), noise, noise[:48] * 682, bytes(index)):
        path = restored(folder / "junk", killed.content | {"-shm": junk})
        assert read(path) == killed.states[-1]


# ---- cuts ----------------------------------------------------------------------------------------


def test_a_main_file_that_was_cut_off_is_refused(folder: Path, closed: History) -> None:
    whole = closed.content[""]
    lengths = {0, 1, 15, 16, 68, 72, 99, 100, 101, 4095, *range(511, len(whole), 1024)}
    for length in sorted({*lengths, *range(4096, len(whole), 4096), len(whole) - 1}):
        refused(restored(folder / "cut", {"": whole[:length]}))


def test_a_wal_that_was_cut_off_is_refused(folder: Path, killed: History) -> None:
    wal = killed.content["-wal"]
    for length in (0, 31, *range(WAL_HEADER, len(wal), 1030), len(wal) - 1):
        path = restored(folder / "cut", killed.content | {"-wal": wal[:length]})
        assert "-wal: has" in refused(path)
    path = restored(folder / "cut", {e: d for e, d in killed.content.items() if e != "-wal"})
    assert "-wal: has been cut off" in refused(path)


def cut_off(history: History) -> Iterator[bytes]:
    """The WAL as a power cut may leave it: what the kernel has written of the last transaction."""
    wal = history.content["-wal"]
    begins = commits_in(history.content)[-2]
    for length in range(begins, len(wal), 1030):
        yield wal[:length]
    earlier = bytearray(wal[begins : begins + FRAME])
    earlier[8:16] = b"old salt"
    for start in range(begins, len(wal), FRAME):
        page = start + 24
        for hole in (wal[start:page] + bytes(4096), bytes(FRAME), bytes(earlier)):
            yield wal[:start] + hole + wal[start + FRAME :]


def test_a_transaction_that_a_crash_cut_off_was_never_there(folder: Path, killed: History) -> None:
    """Without the index, which a power cut takes along."""
    states = killed.states
    for number, wal in enumerate(cut_off(killed)):
        path = restored(folder / "cut", {"": killed.content[""], "-wal": wal})
        assert read(path) == states[-2], number
        # What is committed over it is whole again.
        journal = Journal(path)
        append(journal, homes(3), 300)
        journal.close()
        table = read(path)[0]
        written = {parse_address(home) for home in homes(3)}
        assert {key: table[key] for key in table if key not in written} == {
            key: states[-2][0][key] for key in states[-2][0] if key not in written
        }
        assert {freshness_of(table[key]) for key in written} == {300}


# ---- other files in its place --------------------------------------------------------------------


def other_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "CREATE TABLE precious (thing TEXT); INSERT INTO precious VALUES (1)"
        )


def of_another_format(path: Path) -> None:
    create(path, FLOOR, CLOCK)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA user_version = 7")


def with_our_mark(path: Path) -> None:
    other_database(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.executescript(f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = 1")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (other_database, "is no store of an IMS"),
        (lambda path: path.write_text("[ims]\nzones = []\n" * 99), "is no store of an IMS"),
        (lambda path: path.write_bytes(b""), "is no store of an IMS"),
        (lambda path: path.write_bytes(bytes(8192)), "is no store of an IMS"),
        (of_another_format, "has format 7; this program reads and writes 1"),
        (with_our_mark, "its tables are not those of a store"),
    ],
    ids=["other database", "text", "empty", "zeros", "other format", "other tables"],
)
def test_another_file_in_its_place_is_refused(tmp_path: Path, make: object, why: str) -> None:
    assert callable(make)
    path = tmp_path / "ims.store"
    make(path)
    assert why in refused(path)


def test_a_foreign_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ims.store"
    other_database(path)
    before = path.read_bytes()
    refused(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_left_of_a_store_does_not_get_into_a_new_one(
    tmp_path: Path, killed: History
) -> None:
    path = restored(tmp_path / "left", killed.content)
    path.unlink()
    with pytest.raises(StoreError, match=r"ims\.store-wal: is what is left of a store"):
        create(path, FLOOR, CLOCK)
    assert not path.exists()
    assert (path.parent / "ims.store-wal").read_bytes() == killed.content["-wal"]


# ---- a server ------------------------------------------------------------------------------------

MN = key(1, "10.1.0.1")


def serve(folder: Path) -> subprocess.CompletedProcess[str]:
    """A server on the store of a folder, which is expected to refuse."""
    return subprocess.run(
        [sys.executable, "-c", MAIN, "ims", "serve", "--config", str(folder / "ims.toml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_server_refuses_a_damaged_store_and_says_how_to_mend_it(
    tmp_path: Path, killed: History, closed: History
) -> None:
    configuration(tmp_path, free_port())
    write_keys(tmp_path / "keys", [MN])
    clock = closed.content[""].index(CLOCK.encode())
    value = closed.content[""].index(parse_address("203.0.113.9"), 8192)
    cases: list[tuple[Content, int, str]] = [
        (killed.content, WAL_HEADER + FRAME + 100, "ims.store-wal: frame 1 is damaged"),
        (closed.content, clock + 20, "its clock is missing, or not what was written"),
        (closed.content, value, "is not what was written"),
        (closed.content, 5, "is no store of an IMS"),
    ]
    for content, place, why in cases:
        end = "-wal" if why.startswith("ims.store-wal") else ""
        damaged = bytearray(content[end])
        damaged[place] ^= 4
        for name, data in (content | {end: bytes(damaged)}).items():
            (tmp_path / f"ims.store{name}").write_bytes(data)
        tried = serve(tmp_path)
        assert (tried.returncode, tried.stdout) == (1, "")
        assert why in tried.stderr
        assert "move the file away" in tried.stderr
        assert "Traceback" not in tried.stderr
        for name in content:
            (tmp_path / f"ims.store{name}").unlink(missing_ok=True)


def test_a_store_that_was_moved_away_as_told_begins_empty_and_refuses_recordings(
    tmp_path: Path,
) -> None:
    before = time.time_ns() * (1 << 32) // 10**9
    with running(tmp_path, [MN]) as server, Client(server.port) as node:
        assert node.update(MN, ["198.51.100.1"]) is not None
        server.kill()
        wal = bytearray((tmp_path / "ims.store-wal").read_bytes())
        wal[WAL_HEADER + 50] ^= 1
        (tmp_path / "ims.store-wal").write_bytes(wal)
        tried = serve(tmp_path)
        assert tried.returncode == 1
        assert "frame 0 is damaged" in tried.stderr

        away = tmp_path / "away"
        away.mkdir()
        for end in ("", "-wal", "-shm"):
            (tmp_path / f"ims.store{end}").rename(away / f"ims.store{end}")
        again = started(tmp_path, server.port)
        try:
            unknown = node.query("10.1.0.1")
            assert unknown is not None
            assert unknown.code == Code.NO_MAPPING
            recorded = node.update(MN, ["198.51.100.1"], before)
            assert recorded is not None
            assert recorded.code == Code.STALE
            assert node.update(MN, ["198.51.100.2"]) is not None
            assert addresses(node.query("10.1.0.1")) == ["198.51.100.2"]
        finally:
            assert again.stop() == 0
