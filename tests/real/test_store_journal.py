"""The embedded store: group commit, shared fate, the cleaner, two workers, and reopening."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mat.address import format_address, parse_address
from mat.registrations import Outcome, Registration, RegistrationTable, key_of, pack
from mat_real.store import StoreError, journal
from mat_real.store.journal import SLACK, SMALL, Journal, create
from tests.real.journals import Opened, freshness_of, homes, new_journal, registration

PAGES_FOR_ALL = 1 << 30
Open = Callable[..., Opened]


@pytest.fixture
def opened(tmp_path: Path) -> Generator[Open]:
    """Opens stores of one journal file, and closes at the end those that are still open."""
    path = new_journal(tmp_path)
    stores: list[Opened] = []

    def one_more(*, shared: bool = False) -> Opened:
        stores.append(Opened(path, shared=shared))
        return stores[-1]

    yield one_more
    for store in stores:
        if store.store._thread.is_alive():
            store.close()


# ---- group commit --------------------------------------------------------------------------------


def test_updates_that_arrive_together_are_one_row(opened: Open) -> None:
    store = opened()
    store.submit(*(registration(home, 1) for home in homes(500)))
    assert store.answers == []
    store.settle()
    assert store.results() == [(Outcome.STORED, 1)] * 500
    assert store.rows() == 1


def test_what_arrives_during_a_commit_is_the_next_row(opened: Open) -> None:
    store = opened()
    store.submit(*(registration(home, 1) for home in homes(SMALL + 1)))
    store.store.flush()
    for home in homes(100, 1000):
        store.submit(registration(home, 1))
        store.store.flush()
    assert store.store.depth() == SMALL + 101
    store.turn()
    assert store.results() == [(Outcome.STORED, 1)] * (SMALL + 1)
    store.turn()
    assert store.results() == [(Outcome.STORED, 1)] * 100
    assert (store.rows(), store.store.depth()) == (2, 0)


def test_the_last_of_several_updates_of_a_node_in_one_group_counts(opened: Open) -> None:
    store = opened()
    updates = [registration("10.1.0.1", n, [f"198.51.100.{n}"]) for n in (1, 3, 2)]
    assert store.write(*updates) == [(Outcome.STORED, 1), (Outcome.STORED, 3), (Outcome.STALE, 3)]
    assert store.by_home("10.1.0.1") == updates[1]
    assert store.store._journal.entries == 1


def test_nothing_is_seen_before_it_is_durable(opened: Open) -> None:
    store = opened()
    store.write(registration("10.1.0.1", 1))
    store.submit(registration("10.1.0.1", 2))
    store.enter(registration("10.1.0.2", 2), *(registration(home, 2) for home in homes(SMALL, 90)))
    store.store.flush()
    assert freshness_of(store.by_home("10.1.0.1")) == 1
    assert store.by_home("10.1.0.2") is None
    store.turn()
    assert freshness_of(store.by_home("10.1.0.1")) == 2
    assert freshness_of(store.by_home("10.1.0.2")) == 2


def test_a_small_group_is_answered_at_once_while_the_disk_is_quick(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened()
    monkeypatch.setattr(journal, "QUICK", 60.0)
    store.write(registration("10.1.0.1", 1))
    store.submit(registration("10.1.0.1", 2))
    store.store.flush()
    assert store.results() == [(Outcome.STORED, 2)]
    assert freshness_of(store.by_home("10.1.0.1")) == 2
    # A commit that was slow, though it failed, is a sign to keep look-ups out of its way.
    store.most_pages(1)
    moved = [f"198.51.100.{number}" for number in range(1, 9)]
    store.write(*(registration(home, 1, moved) for home in homes(SMALL, 1000)))
    monkeypatch.setattr(journal, "QUICK", 0.0)
    store.submit(*(registration(home, 1, moved) for home in homes(SMALL, 2000)))
    store.store.flush()
    assert store.results() == [(Outcome.UNAVAILABLE, 0)] * SMALL
    store.submit(*(registration(home, 1) for home in homes(SMALL, 3000)))
    store.store.flush()
    assert store.store.depth() == SMALL


def test_the_express_lane_leaves_what_is_not_plainly_fresher(opened: Open) -> None:
    store = opened()
    assert store.enter(registration("10.1.0.1", 5)) == [True]
    assert store.enter(registration("10.1.0.1", 5), registration("10.1.0.1", 4)) == [False, False]
    store.settle()
    assert store.enter(registration("10.1.0.1", 5), registration("10.1.0.1", 6)) == [False, True]
    store.settle()
    assert store.entered == [("5", True), ("6", True)]


# ---- one fate for an update and what is compared with it -----------------------------------------


def pending(store: Opened, *, under_way: bool) -> None:
    """An update that waits for its commit, or whose commit is under way."""
    store.submit(registration("10.1.0.1", 10))
    store.enter(*(registration(home, 1) for home in homes(SMALL, 90)))
    if under_way:
        store.store.flush()


@pytest.mark.parametrize("under_way", [False, True])
def test_what_repeats_a_pending_update_waits_for_it(opened: Open, under_way: bool) -> None:
    store = opened()
    pending(store, under_way=under_way)
    store.submit(registration("10.1.0.1", 9, version=10))
    store.submit(registration("10.1.0.1", 9))
    assert store.answers == []
    store.settle()
    assert store.results() == [(Outcome.STORED, 10), (Outcome.REPEATED, 10), (Outcome.STALE, 10)]


@pytest.mark.parametrize("under_way", [False, True])
def test_what_repeats_a_pending_update_fails_with_it(opened: Open, under_way: bool) -> None:
    store = opened()
    store.write(*(registration(home, 1) for home in homes(60, 100)))
    store.most_pages(1)
    store.submit(*(registration(home, 1) for home in homes(100, 1000)))
    pending(store, under_way=under_way)
    store.submit(registration("10.1.0.1", 9, version=10))
    store.submit(registration("10.1.0.1", 9))
    assert store.answers == []
    store.settle()
    assert store.results() == [(Outcome.UNAVAILABLE, 0)] * 103
    assert {durable for _, durable in store.entered} == {False}
    assert store.by_home("10.1.0.1") is None


def test_a_commit_that_fails_is_said_to_all_of_it_and_the_next_one_works(opened: Open) -> None:
    store = opened()
    store.write(registration("10.1.0.1", 1))
    store.most_pages(1)
    many = [registration(home, 2) for home in homes(200)]
    store.submit(*many[:100])
    store.enter(*many[100:])
    store.settle()
    assert store.results() == [(Outcome.UNAVAILABLE, 0)] * 100
    assert store.entered == [("2", False)] * 100
    assert "full" in store.store.failure
    assert freshness_of(store.by_home("10.1.0.1")) == 1
    assert store.rows() == 1

    store.most_pages(PAGES_FOR_ALL)
    assert store.write(*many) == [(Outcome.STORED, 2)] * 200
    assert store.store.failure == ""
    assert freshness_of(store.by_home("10.1.0.1")) == 2


def test_an_update_outlives_the_failure_of_the_one_before_it(opened: Open) -> None:
    store = opened()
    store.write(registration("10.1.0.1", 1))
    store.most_pages(1)
    store.submit(registration("10.1.0.1", 2), *(registration(home, 2) for home in homes(200, 500)))
    store.store.flush()
    # Two in one row fit the page that is there.
    store.submit(registration("10.1.0.1", 3), registration("10.1.0.1", 2, version=3))
    store.settle()
    later = [(Outcome.STORED, 3), (Outcome.REPEATED, 3)]
    assert store.results() == [*[(Outcome.UNAVAILABLE, 0)] * 201, *later]
    assert freshness_of(store.by_home("10.1.0.1")) == 3


# ---- what is there after reopening ---------------------------------------------------------------


def test_a_new_store_refuses_what_is_not_above_its_floor(tmp_path: Path) -> None:
    path = new_journal(tmp_path, floor=1000)
    for _ in range(2):
        store = Opened(path)
        assert store.write(registration("10.1.0.1", 1000)) == [(Outcome.STALE, 1000)]
        assert store.enter(registration("10.1.0.1", 1000)) == [False]
        store.close()
    store = Opened(path)
    assert store.write(registration("10.1.0.1", 1001)) == [(Outcome.STORED, 1001)]
    # The floor is for who was never heard of; who was continues above what is stored.
    assert store.write(registration("10.1.0.1", 1000)) == [(Outcome.STALE, 1001)]
    store.close()


def test_a_withdrawal_is_remembered_against_replays(opened: Open) -> None:
    store = opened()
    mapping = registration("10.1.0.1", 1)
    withdrawal = registration("10.1.0.1", 2, [], lifetime=0)
    assert store.write(mapping, withdrawal) == [(Outcome.STORED, 1), (Outcome.STORED, 2)]
    for one in (store, opened()):
        assert one.by_home("10.1.0.1") == withdrawal
        assert one.by_mobile("198.51.100.1") is None
        assert one.write(mapping) == [(Outcome.STALE, 2)]
        one.close()


def test_an_expired_mapping_is_remembered_against_replays(opened: Open) -> None:
    store = opened()
    store.write(registration("10.1.0.1", 5, at=0.0, lifetime=1))
    store.close()
    again = opened()
    assert again.write(registration("10.1.0.1", 4)) == [(Outcome.STALE, 5)]
    assert again.write(registration("10.1.0.1", 4, version=5)) == [(Outcome.REPEATED, 5)]


def test_prefixes_and_addresses_in_them_are_kept_apart(opened: Open) -> None:
    store = opened()
    router = registration("10.1.4.0", 1, ["198.51.4.0"], prefix_length=120)
    wider = registration("10.1.0.0", 1, ["198.52.0.0"], prefix_length=112)
    host = registration("10.1.4.7", 1, ["203.0.113.7"])
    zero = registration("10.1.4.0", 1, ["203.0.113.8"])
    store.write(router, wider, host, zero)
    for one in (store, opened()):
        assert one.by_home("10.1.4.7") == host
        assert one.by_home("10.1.4.0") == zero
        assert one.by_home("10.1.4.8") == router
        assert one.by_home("10.1.5.8") == wider
        assert one.by_mobile("198.51.4.9") == router
        assert one.by_mobile("203.0.113.7") == host
        one.close()


def test_who_claimed_an_address_last_has_it_also_after_reopening(opened: Open) -> None:
    store = opened()
    contested = ["198.51.100.7"]
    first = registration("10.1.0.1", 30, contested, at=1.0)
    second = registration("10.1.0.2", 20, contested, at=3.0)
    late = registration("10.1.0.3", 10, contested, at=2.0)
    store.write(first)
    store.write(second)
    # One that was accepted earlier by another worker, and is read only now.
    store.write(late)
    for one in (store, opened()):
        assert one.by_mobile("198.51.100.7") == second
        one.close()
    again = opened()
    again.write(registration("10.1.0.1", 31, contested, at=4.0))
    again.close()
    assert freshness_of(opened().by_mobile("198.51.100.7")) == 31


# ---- the cleaner ---------------------------------------------------------------------------------


def size(path: Path) -> int:
    """Bytes of a store's file, its WAL included."""
    wal = path.with_name(path.name + "-wal")
    return path.stat().st_size + (wal.stat().st_size if wal.exists() else 0)


def test_the_journal_stays_short_under_a_million_rewrites(tmp_path: Path) -> None:
    path = new_journal(tmp_path)
    store = Opened(path)
    nodes = [(key_of(parse_address(home), 128), home) for home in homes(1000)]
    most_entries = most_bytes = freshness = 0
    for _ in range(1000):
        freshness += 1
        record = pack(registration("10.1.0.0", freshness))
        for key, home in nodes:
            assert store.store.enter(key, record, freshness, home)
        store.settle()
        most_entries = max(most_entries, store.store._journal.entries)
        most_bytes = max(most_bytes, size(path))
    assert len(store.entered) == 1_000_000
    ((entries,),) = store.store._journal._reader.execute("SELECT sum(entries) FROM journal")
    assert entries == store.store._journal.entries
    # Twice what is live and the slack, and a commit with what it cleans.
    assert most_entries <= 2 * 1000 + SLACK + 2 * 1000
    assert most_bytes <= 100 * most_entries + (8 << 20)
    store.close()
    again = Opened(path)
    assert [freshness_of(again.by_home(home)) for _, home in nodes] == [freshness] * 1000
    again.close()


def filled(store: Opened, home: str, start: int = 1) -> int:
    """Make the journal worth cleaning, with rewrites of one home; the freshness it ends with."""
    nodes = [home, *homes(99, 60_000)]
    freshness = start
    while store.store._journal.entries <= SLACK + 2 * len(store.store.table):
        assert all(store.enter(*(registration(node, freshness) for node in nodes)))
        store.settle()
        freshness += 1
    return freshness - 1


def test_a_crowd_that_cleans_the_journal_to_its_end_loses_nothing(opened: Open) -> None:
    """So many new nodes in one commit that the cleaner takes all there is."""
    store = opened()
    freshness = filled(store, "10.1.0.1")
    rows = store.rows()
    crowd = homes(12_000, 1000)
    store.submit(*(registration(home, 1) for home in crowd))
    store.settle()
    assert store.rows() < rows
    ((entries,),) = store.store._journal._reader.execute("SELECT sum(entries) FROM journal")
    assert store.store._journal.entries == entries
    store.close()
    again = opened()
    assert freshness_of(again.by_home("10.1.0.1")) == freshness
    assert all(freshness_of(again.by_home(home)) == 1 for home in crowd)


def test_another_worker_sees_what_is_committed_after_all_was_cleaned(opened: Open) -> None:
    store, other = opened(shared=True), opened(shared=True)
    freshness = filled(store, "10.1.0.1")
    other.store.catch_up()
    store.submit(*(registration(home, 1) for home in homes(12_000, 1000)))
    store.settle()
    store.write(registration("10.1.0.1", freshness + 1))
    other.store.catch_up()
    assert freshness_of(other.by_home("10.1.0.1")) == freshness + 1
    assert freshness_of(other.by_home("10.1.4.0")) == 1


def test_the_cleaner_keeps_what_another_worker_acknowledged_and_it_has_not_read(
    opened: Open,
) -> None:
    store, other = opened(shared=True), opened(shared=True)
    freshness = filled(store, "10.1.0.1")
    other.store.catch_up()
    assert other.write(registration("10.1.0.1", freshness + 1)) == [(Outcome.STORED, freshness + 1)]
    store.submit(*(registration(home, 1) for home in homes(12_000, 1000)))
    store.settle()
    for one in (store, other):
        one.close()
    assert freshness_of(opened().by_home("10.1.0.1")) == freshness + 1


REWRITER = """
import sys
from pathlib import Path
from mat_real.store import journal
from tests.real.journals import Opened, homes, registration
journal.SLACK = 100
store = Opened(Path(sys.argv[1]))
freshness = int(sys.argv[2])
# These stay as they are, so the cleaner has to carry them along again and again.
store.write(*(registration(home, 1) for home in homes(500, 5000)))
while True:
    freshness += 1
    assert all(store.enter(*(registration(home, freshness) for home in homes(1000))))
    store.settle()
    print(freshness, flush=True)
"""


def test_what_was_acknowledged_survives_a_kill_while_the_journal_is_cleaned(
    tmp_path: Path,
) -> None:
    path = new_journal(tmp_path)
    chance = random.Random(7)
    acknowledged = 0
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", REWRITER, str(path), str(acknowledged + 1)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert process.stdout is not None
        for _ in range(chance.randrange(12, 30)):
            acknowledged = int(process.stdout.readline())
        time.sleep(chance.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        for line in process.stdout:
            acknowledged = int(line)
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
        store = Opened(path)
        found = {freshness_of(store.by_home(home)) for home in homes(1000)}
        # The whole group is there, or the one whose answer was cut off.
        assert found in ({acknowledged}, {acknowledged + 1})
        assert {freshness_of(store.by_home(home)) for home in homes(500, 5000)} == {1}
        assert store.rows() <= 20
        acknowledged = max(found)
        store.close()


# ---- two workers ---------------------------------------------------------------------------------


def test_workers_of_one_file_see_what_the_others_have_committed(opened: Open) -> None:
    one, other = opened(shared=True), opened(shared=True)
    for freshness in range(1, 20, 2):
        one.write(registration("10.1.0.1", freshness))
        other.store.catch_up()
        assert freshness_of(other.by_home("10.1.0.1")) == freshness
        assert other.write(registration("10.1.0.1", freshness)) == [(Outcome.REPEATED, freshness)]
        other.write(registration("10.1.0.1", freshness + 1))
        one.store.catch_up()
        assert freshness_of(one.by_home("10.1.0.1")) == freshness + 1
    assert one.store._journal.last == other.store._journal.last
    assert one.store._journal.entries == other.store._journal.entries == 20


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_the_freshest_of_two_workers_wins_in_whatever_order(
    opened: Open, order: tuple[int, int]
) -> None:
    """Neither has heard of the other's when it accepts its own."""
    first, second = opened(shared=True), opened(shared=True)
    for store, freshness in zip((first, second), order, strict=True):
        assert store.write(registration("10.1.0.1", freshness)) == [(Outcome.STORED, freshness)]
    for store in (first, second, opened(shared=True)):
        store.store.catch_up()
        assert freshness_of(store.by_home("10.1.0.1")) == 2


def test_a_commit_that_is_under_way_hides_nothing_of_the_other_worker(opened: Open) -> None:
    one, other = opened(shared=True), opened(shared=True)
    one.submit(registration("10.1.0.1", 1))
    one.store.flush()
    other.write(registration("10.1.0.2", 1))
    one.store.catch_up()
    assert freshness_of(one.by_home("10.1.0.2")) == 1
    one.settle()
    one.store.catch_up()
    other.store.catch_up()
    assert freshness_of(other.by_home("10.1.0.1")) == 1
    assert one.store._journal.entries == other.store._journal.entries == 2


# ---- against the table in memory -----------------------------------------------------------------

HOMES = ("10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.4.0", "10.1.4.0/24")
MOVED = ("198.51.100.0", "198.51.101.0", "198.51.102.0")


@st.composite
def updates(draw: st.DrawFn) -> Registration:
    home, _, length = draw(st.sampled_from(HOMES)).partition("/")
    freshness = draw(st.integers(1, 12))
    return registration(
        home,
        freshness,
        draw(st.lists(st.sampled_from(MOVED), unique=True, max_size=2)),
        prefix_length=96 + int(length) if length else 128,
        version=draw(st.integers(1, freshness)),
    )


STEPS = st.lists(
    st.one_of(updates(), st.sampled_from(("flush", "turn", "settle", "reopen"))), max_size=40
)


class Compared:
    """A journal store and the reference, which is handed the same updates in the same order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.store = Opened(path)
        self._reference = RegistrationTable(floor=2)
        self._expected: dict[int, tuple[Outcome, int]] = {}
        self._submitted: list[Registration] = []
        self._clock = 0.0

    def update(self, wanted: Registration) -> None:
        self._clock += 1
        wanted.registered_at = self._clock
        self._submitted.append(wanted)
        self._expected[id(wanted)] = self._reference.write(wanted)
        self.store.submit(wanted)

    def step(self, step: str) -> None:
        if step == "flush":
            self.store.store.flush()
        elif step == "turn" and self.store.store._writing is not None:
            self.store.turn()
        elif step in ("settle", "reopen"):
            self.store.settle()
            self.check()
        if step == "reopen":
            self.store.close()
            self.store = Opened(self._path)
            self.check()

    def check(self) -> None:
        for effect, result in self.store.answers:
            assert result == self._expected.pop(id(effect.registration))  # type: ignore[union-attr]
        self.store.answers.clear()
        assert not self._expected
        for home in (*(home.partition("/")[0] for home in HOMES), "10.1.4.9"):
            assert self.store.by_home(home) == self._reference.by_home(parse_address(home))
        for moved in (*MOVED, "198.51.100.9"):
            self._check_mobile(moved)

    def _check_mobile(self, moved: str) -> None:
        """Who claimed it last; where he has left it since, nobody or one who has it still."""
        address = parse_address(moved)
        found, expected = self.store.by_mobile(moved), self._reference.by_mobile(address)
        if expected is not None or found is None:
            assert found == expected
        else:
            assert isinstance(found, Registration)
            assert self._reference.by_home(found.home_address) is not None
            assert found.mobile_addresses


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS, st.sampled_from((0, SMALL)))
def test_every_history_ends_as_in_the_table_in_memory(
    tmp_path: Path, steps: list[Registration | str], small: int
) -> None:
    """Whether groups commit in the other thread (`small` is 0) or in this one."""
    path = tmp_path / "compared.store"
    create(path, 2, "0 0.0")
    compared = Compared(path)
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(journal, "SMALL", small)
    try:
        for step in steps:
            if isinstance(step, str):
                compared.step(step)
            else:
                compared.update(step)
        compared.step("reopen")
    finally:
        compared.store.close()
        monkeypatch.undo()
        path.unlink()


# ---- opening -------------------------------------------------------------------------------------


def test_a_new_store_does_not_take_the_place_of_another(tmp_path: Path) -> None:
    path = new_journal(tmp_path)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="exists"):
        create(path, 0, "0 0.0")
    assert path.read_bytes() == before
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_newest_registration_is_found_without_a_table(opened: Open, tmp_path: Path) -> None:
    store = opened()
    store.write(registration("10.1.0.1", 9, at=50.0), registration("10.1.0.2", 8, at=70.0))
    store.close()
    file = Journal(tmp_path / "ims.store")
    assert file.latest() == 70.0
    assert file.meta("clock") == "0 0.0"
    file.close()


def test_addresses_come_back_as_they_went_in(opened: Open) -> None:
    store = opened()
    six = registration("2001:db8:1::1", 1, ["2001:db8:9::7", "2001:db8:9::8"])
    eight = registration("10.1.0.1", 1, [f"198.51.100.{n}" for n in range(1, 9)])
    store.write(six, eight)
    store.close()
    again = opened()
    assert again.by_home("2001:db8:1::1") == six
    found = again.by_home("10.1.0.1")
    assert found == eight
    assert isinstance(found, Registration)
    assert format_address(found.mobile_addresses[7]) == "198.51.100.8"
