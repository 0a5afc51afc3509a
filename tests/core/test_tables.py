"""The mapping table, the registrations of an IMS, timers and rates."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mat.address import Address, format_address, parse_address
from mat.mapping_table import Mapping, MappingTable, Missing
from mat.messages import EXACT
from mat.registrations import Outcome, Registration, RegistrationTable, home_behind
from mat.timers import Timed, Timers, TokenBucket

A, B, C = (parse_address(f"10.1.0.{n}") for n in (1, 2, 3))
X, Y, Z = (parse_address(f"198.51.100.{n}") for n in (1, 2, 3))


def mapping(
    home: Address,
    *moved: Address,
    at: float = 0.0,
    ends: float = 100.0,
    length: int = EXACT,
    non_mat: bool = False,
) -> Mapping:
    return Mapping(home, length, moved, 1, at, ends, non_mat)


def table(*mappings: Mapping, limit: int = 10) -> MappingTable:
    made = MappingTable(limit)
    for one in mappings:
        made.put(one)
    return made


def router(at: float = 0.0, ends: float = 100.0) -> Mapping:
    """10.1.4.0/24 behind 198.51.4.0/24."""
    home, moved = parse_address("10.1.4.0"), parse_address("198.51.4.0")
    return mapping(home, moved, at=at, ends=ends, length=120)


# ---- MappingTable ------------------------------------------------------------------------------


def test_mapping_is_found_until_it_ends() -> None:
    one = mapping(A, X, ends=100.0)
    made = table(one)
    assert made.find(99.9, A) is one
    assert made.find(100.0, A) is Missing.NOT_FOUND
    assert made.find(0.0, B) is Missing.NOT_FOUND


def test_new_mapping_takes_the_place_of_the_old_one_of_its_home() -> None:
    made = table(mapping(A, X), mapping(B, Z))
    newer = mapping(A, Y)
    assert made.put(newer) == []
    assert made.find(0.0, A) is newer
    assert made.owner(0.0, X) is None
    assert made.owner(0.0, Y) is newer
    assert len(made) == 2


def test_owner_of_every_address_of_a_mapping_until_it_ends() -> None:
    one = mapping(A, X, Y)
    made = table(one)
    assert made.owner(99.9, X) is made.owner(99.9, Y) is one
    assert made.owner(100.0, X) is None
    assert made.owner(0.0, Z) is None


def test_later_registration_takes_an_address_and_the_loser_is_told() -> None:
    old, new = mapping(A, X, Y, at=1.0), mapping(B, Y, at=2.0)
    made = table(old)
    assert made.put(new) == [old]
    assert made.owner(3.0, Y) is new
    assert made.usable(old) == (X,)
    assert made.usable(new) == (Y,)


def test_earlier_registration_does_not_take_an_address_though_it_is_learnt_later() -> None:
    new, old = mapping(B, X, at=2.0), mapping(A, X, at=1.0)
    made = table(new)
    assert made.put(old) == []
    assert made.owner(3.0, X) is new
    assert made.usable(old) == ()


def test_void_claim_does_not_come_back_when_the_newer_one_is_removed() -> None:
    made = table(mapping(A, X, at=1.0), mapping(B, X, at=2.0))
    made.remove(B)
    assert made.owner(3.0, X) is None


def test_mat_node_takes_its_address_from_an_ordinary_host_whatever_the_times() -> None:
    ordinary = mapping(X, X, at=5.0, non_mat=True)
    node = mapping(A, X, at=1.0)
    made = table(ordinary)
    assert made.put(node) == [ordinary]
    assert made.owner(6.0, X) is node
    assert made.put(mapping(X, X, at=9.0, non_mat=True)) == []
    assert made.owner(9.0, X) is node


def test_usable_is_the_very_tuple_while_nobody_else_claims() -> None:
    one = mapping(A, X, Y)
    assert table(one).usable(one) is one.mobile_addresses


def test_block_keeps_others_from_asking_for_a_while() -> None:
    made = table()
    made.block(A, until=5.0)
    assert made.find(4.9, A) is Missing.RATE_LIMITED
    assert made.find(5.0, A) is Missing.NOT_FOUND
    assert len(made) == 0


def test_block_replaces_a_mapping_and_a_mapping_a_block() -> None:
    made = table(mapping(A, X))
    made.block(A, until=5.0)
    assert made.owner(0.0, X) is None
    assert made.mappings() == []
    one = mapping(A, Y)
    made.put(one)
    assert made.find(0.0, A) is one
    assert len(made) == 1


def test_remove_forgets_the_entry_and_its_claims() -> None:
    made = table(mapping(A, X, Y))
    made.remove(A)
    made.remove(A)
    assert (made.find(0.0, A), made.owner(0.0, X), len(made)) == (Missing.NOT_FOUND, None, 0)


def test_full_table_evicts_the_entry_put_or_found_longest_ago() -> None:
    one, two, three = mapping(A, X), mapping(B, Y), mapping(C, Z)
    made = table(one, two, limit=2)
    made.find(0.0, A)
    assert made.mappings() == [two, one]
    assert made.put(three) == [two]
    assert made.mappings() == [one, three]
    assert made.owner(0.0, Y) is None


def test_replacing_an_entry_evicts_nothing() -> None:
    made = table(mapping(A, X), mapping(B, Y), limit=2)
    assert made.put(mapping(A, Z)) == []
    made.block(B, until=1.0)
    assert len(made) == 1


def test_blocks_are_bounded_apart_and_evict_no_mapping() -> None:
    one = mapping(C, X)
    made = table(one, limit=1)
    for home in (A, B):
        made.block(home, until=5.0)
    assert made.find(0.0, A) is Missing.NOT_FOUND
    assert made.find(0.0, B) is Missing.RATE_LIMITED
    assert made.find(0.0, C) is one


def test_eviction_and_a_lost_address_are_both_told() -> None:
    one, two, three = mapping(A, X), mapping(B, Y), mapping(C, Y, at=1.0)
    assert table(one, two, limit=2).put(three) == [one, two]


def test_prefix_mapping_covers_its_hosts_and_keeps_their_host_bits() -> None:
    one = router()
    made = table(one)
    assert made.find(0.0, parse_address("10.1.4.77")) is one
    assert made.find(0.0, parse_address("10.1.5.77")) is Missing.NOT_FOUND
    assert made.owner(0.0, parse_address("198.51.4.77")) is one
    assert made.owner(0.0, parse_address("198.51.5.77")) is None
    assert made.owner(100.0, parse_address("198.51.4.77")) is None
    assert format_address(one.home_behind(parse_address("198.51.4.77"))) == "10.1.4.77"


def test_longest_prefix_and_a_single_address_first() -> None:
    wide = mapping(parse_address("10.1.0.0"), parse_address("198.51.0.0"), length=112)
    narrow, host = router(), mapping(parse_address("10.1.4.7"), parse_address("198.51.4.7"))
    for order in ((wide, narrow, host), (host, narrow, wide)):
        made = table(*order)
        for last, expected in ((7, host), (8, narrow)):
            assert made.find(0.0, parse_address(f"10.1.4.{last}")) is expected
            assert made.owner(0.0, parse_address(f"198.51.4.{last}")) is expected
        assert made.find(0.0, parse_address("10.1.9.9")) is wide


def test_entry_for_an_exact_address_does_not_cover_the_prefix_it_looks_like() -> None:
    exact = mapping(parse_address("10.1.4.0"), parse_address("198.51.4.0"))
    made = table(exact, mapping(parse_address("10.9.9.0"), parse_address("198.51.9.0"), length=120))
    assert made.find(0.0, parse_address("10.1.4.1")) is Missing.NOT_FOUND
    assert made.owner(0.0, parse_address("198.51.4.1")) is None


addresses = st.sampled_from([parse_address(f"198.51.100.{n}") for n in range(6)])
homes = st.sampled_from([parse_address(f"10.1.0.{n}") for n in range(6)])


@given(
    st.integers(1, 4),
    st.lists(
        st.tuples(homes, st.lists(addresses, max_size=3, unique=True), st.integers(0, 9)),
        max_size=30,
    ),
)
def test_table_stays_within_its_limit_and_its_claims_are_those_of_its_mappings(
    limit: int, steps: list[tuple[Address, list[Address], int]]
) -> None:
    made = MappingTable(limit)
    for home, moved, at in steps:
        if moved:
            touched = made.put(mapping(home, *moved, at=float(at)))
            assert all(rival.home_address != home for rival in touched)
        else:
            made.block(home, until=50.0)
        assert len(made) <= limit
        held = made.mappings()
        assert all(any(one is m for m in held) for one in made._by_mobile.values())
        for one in held:
            assert all(made.owner(0.0, a) is one for a in made.usable(one))
        for address, one in made._by_mobile.items():
            assert address in one.mobile_addresses


# ---- RegistrationTable -------------------------------------------------------------------------


def registration(
    home: Address,
    *moved: Address,
    freshness: int = 5,
    version: int | None = None,
    length: int = EXACT,
) -> Registration:
    version = freshness if version is None else version
    return Registration(home, length, moved, version, freshness, 0.0, 60)


def store(*registrations: Registration) -> RegistrationTable:
    made = RegistrationTable()
    for one in registrations:
        assert made.write(one) == (Outcome.STORED, one.freshness)
    return made


def prefix(home: str, moved: str, length: int) -> Registration:
    return registration(parse_address(home), parse_address(moved), length=96 + length)


def test_write_stores_what_is_fresher_repeats_what_is_equal_and_refuses_the_rest() -> None:
    one = registration(A, X, freshness=5)
    made = store(one)
    assert made.write(registration(A, X, freshness=5)) == (Outcome.REPEATED, 5)
    assert made.write(registration(A, Y, freshness=5)) == (Outcome.STALE, 5)
    assert made.write(registration(A, X, freshness=4)) == (Outcome.STALE, 5)
    assert made.write(registration(A, X, freshness=5, version=4)) == (Outcome.STALE, 5)
    assert made.write(registration(A, X, freshness=5, length=120)) == (Outcome.STORED, 5)
    assert made.by_home(A) == one
    assert made.write(registration(A, Y, freshness=6)) == (Outcome.STORED, 6)
    assert len(made) == 2


def test_new_node_must_be_fresher_than_the_floor() -> None:
    made = RegistrationTable(floor=5)
    assert made.write(registration(A, X, freshness=5)) == (Outcome.STALE, 5)
    assert made.write(registration(A, X, freshness=6)) == (Outcome.STORED, 6)


def test_by_home_finds_the_longest_prefix_and_the_single_address_first() -> None:
    wide, narrow = prefix("10.1.0.0", "198.51.0.0", 16), prefix("10.1.4.0", "203.0.113.0", 24)
    host = registration(parse_address("10.1.4.7"), X)
    for made in (store(wide, narrow, host), store(host, narrow, wide)):
        assert made.by_home(parse_address("10.1.4.7")) == host
        assert made.by_home(parse_address("10.1.4.8")) == narrow
        assert made.by_home(parse_address("10.1.5.8")) == wide
        assert made.by_home(parse_address("10.2.5.8")) is None


def test_by_home_of_a_single_address_does_not_cover_the_prefix_it_looks_like() -> None:
    made = store(registration(parse_address("10.1.4.0"), X), prefix("10.9.9.0", "203.0.113.0", 24))
    assert made.by_home(parse_address("10.1.4.1")) is None


def test_by_mobile_is_the_newest_claim() -> None:
    first, second = registration(A, X, Y), registration(B, Y)
    made = store(first, second)
    assert made.by_mobile(X) == first
    assert made.by_mobile(Y) == second
    again = registration(A, X, Y, freshness=6, version=5)
    made.write(again)
    assert made.by_mobile(Y) == again
    assert made.by_mobile(Z) is None


def test_by_mobile_forgets_an_address_given_up_but_not_its_next_holder() -> None:
    made = store(registration(A, X, Y), registration(B, Y))
    made.write(registration(A, Z, freshness=6))
    assert made.by_mobile(X) is None
    claim = made.by_mobile(Y)
    assert claim is not None
    assert claim.home_address == B


def test_by_mobile_finds_the_prefix_that_an_address_is_in() -> None:
    wide, narrow = prefix("10.1.0.0", "198.51.0.0", 16), prefix("10.2.4.0", "198.51.4.0", 24)
    made = store(wide, narrow, registration(A, parse_address("203.0.113.0")))
    assert made.by_mobile(parse_address("198.51.4.9")) == narrow
    assert made.by_mobile(parse_address("198.51.9.9")) == wide
    assert made.by_mobile(parse_address("203.0.113.9")) is None


def test_home_behind_a_mobile_address() -> None:
    routed = prefix("10.1.4.0", "198.51.4.0", 24)
    assert format_address(home_behind(routed, parse_address("198.51.4.77"))) == "10.1.4.77"
    assert home_behind(registration(A, X, Y), Y) == A


def test_addresses_of_a_home_under_a_registration() -> None:
    routed = prefix("10.1.4.0", "198.51.4.0", 24)
    moved = routed.addresses_of(parse_address("10.1.4.77"))
    assert [format_address(address) for address in moved] == ["198.51.4.77"]
    assert registration(A, X, Y).addresses_of(A) == (X, Y)


# ---- Timers ------------------------------------------------------------------------------------


def woken(timers: Timers, now: float) -> list[Timed]:
    return list(timers.due(now))


def test_timer_wakes_once_and_not_before_its_time() -> None:
    timers, one = Timers(), Timed()
    timers.schedule(one, 5.0)
    assert timers.deadline == 5.0
    assert woken(timers, 4.9) == []
    assert woken(timers, 5.0) == [one]
    assert not timers._heap
    assert woken(timers, 9.0) == []


def test_timer_moved_earlier_or_later_wakes_at_the_last_time_asked_for() -> None:
    timers, one = Timers(), Timed()
    for times in ((5.0, 3.0), (5.0, 7.0), (5.0, 3.0, 7.0), (7.0, 3.0, 5.0)):
        for due in times:
            timers.schedule(one, due)
        assert woken(timers, times[-1] - 0.1) == []
        assert timers.deadline == times[-1]
        assert woken(timers, times[-1]) == [one]
        assert woken(timers, 100.0) == []


def test_cancelled_timer_does_not_wake_and_the_deadline_moves_on() -> None:
    timers, one, other = Timers(), Timed(), Timed()
    timers.schedule(one, 3.0)
    timers.schedule(other, 5.0)
    timers.cancel(one)
    assert timers.deadline == 5.0
    assert woken(timers, 9.0) == [other]
    timers.cancel(other)
    assert timers.deadline is None


def test_timers_of_one_time_wake_in_the_order_they_were_set() -> None:
    timers, several = Timers(), [Timed() for _ in range(5)]
    for one in several:
        timers.schedule(one, 3.0)
    assert woken(timers, 3.0) == several


def test_timer_that_sets_itself_again_while_woken_wakes_again_later() -> None:
    timers, one = Timers(), Timed()
    timers.schedule(one, 1.0)
    for woken_one in timers.due(1.0):
        timers.schedule(woken_one, 2.0)
    assert timers.deadline == 2.0
    assert woken(timers, 2.0) == [one]


def test_timer_cancelled_by_another_that_wakes_first_stays_asleep() -> None:
    timers, one, other = Timers(), Timed(), Timed()
    timers.schedule(one, 1.0)
    timers.schedule(other, 1.0)
    heard = []
    for timed in timers.due(2.0):
        heard.append(timed)
        timers.cancel(other)
    assert heard == [one]
    assert timers.deadline is None


def test_timer_moved_later_or_set_again_takes_no_more_room() -> None:
    timers, one, first = Timers(), Timed(), Timed()
    timers.schedule(first, 1.0)
    for n in range(1000):
        timers.schedule(one, 10.0 + n)
        if n % 3 == 0:
            timers.cancel(one)
    assert len(timers._heap) == 2


@dataclass
class Model:
    """What each timer was last asked for, and the entries that a move ahead leaves behind."""

    due: dict[int, float] = field(default_factory=dict)
    behind: list[float] = field(default_factory=list)


class TimersAgainstModel(RuleBasedStateMachine):
    """Any order of setting, moving, cancelling and waking."""

    def __init__(self) -> None:
        super().__init__()
        self.timers, self.timed = Timers(), [Timed() for _ in range(5)]
        self.model, self.now = Model(), 0.0

    @rule(which=st.integers(0, 4), wait=st.integers(1, 20))
    def set(self, which: int, wait: int) -> None:
        queued = self.timed[which].queued
        if queued is not None and self.now + wait < queued:
            self.model.behind.append(queued)
        self.timers.schedule(self.timed[which], self.now + wait)
        self.model.due[which] = self.now + wait

    @rule(which=st.integers(0, 4))
    def cancel(self, which: int) -> None:
        self.timers.cancel(self.timed[which])
        self.model.due.pop(which, None)

    @rule(seconds=st.integers(0, 8))
    def wake(self, seconds: int) -> None:
        self.now += seconds
        heard = [self.timed.index(timed) for timed in self.timers.due(self.now)]
        expected = {which for which, due in self.model.due.items() if due <= self.now}
        assert len(heard) == len(set(heard))
        assert set(heard) == expected
        assert all(self.timed[which].due is None for which in heard)
        for which in expected:
            del self.model.due[which]
        assert self.timers.deadline is None or self.timers.deadline > self.now

    @invariant()
    def deadline_is_never_late(self) -> None:
        deadline = self.timers.deadline
        if not self.model.due:
            assert deadline is None
        else:
            assert deadline is not None
            assert deadline <= min(self.model.due.values())

    @invariant()
    def stale_entries_do_not_pile_up(self) -> None:
        self.model.behind = [at for at in self.model.behind if at > self.now]
        waiting = [timed for timed in self.timed if timed.queued is not None]
        assert len(self.timers._heap) <= len(waiting) + len(self.model.behind)
        if not self.model.due:
            assert not self.timers._heap


TestTimersAgainstModel = TimersAgainstModel.TestCase


# ---- TokenBucket -------------------------------------------------------------------------------


def test_bucket_gives_its_burst_at_once_and_its_rate_over_time() -> None:
    bucket = TokenBucket(rate=2.0, burst=5.0)
    assert [bucket.take(100.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert not bucket.take(100.4)
    assert bucket.take(100.5)
    assert not bucket.take(100.5)
    assert [bucket.take(1000.0) for _ in range(6)] == [True] * 5 + [False]


def test_bucket_is_full_again_when_nothing_is_left_of_what_was_taken() -> None:
    bucket = TokenBucket(rate=2.0, burst=5.0)
    assert bucket.is_full(0.0)
    assert bucket.take(100.0)
    assert bucket.take(100.0)
    assert not bucket.is_full(100.9)
    assert bucket.is_full(101.0)


@pytest.mark.parametrize("rate", [0.5, 4.0, 128.0])
def test_refusals_cost_nothing(rate: float) -> None:
    bucket = TokenBucket(rate, burst=1.0)
    assert bucket.take(0.0)
    assert sum(bucket.take(n / 1024) for n in range(1, 10 * 1024 + 1)) == rate * 10


@given(
    st.floats(0.1, 50.0),
    st.integers(1, 20),
    st.lists(st.floats(0.0, 5.0), min_size=1, max_size=60),
)
def test_bucket_never_gives_more_than_burst_and_rate_allow(
    rate: float, burst: int, waits: list[float]
) -> None:
    bucket, now, given_at = TokenBucket(rate, burst), 0.0, list[float]()
    for wait in waits:
        now += wait
        if bucket.take(now):
            given_at.append(now)
    for first, start in enumerate(given_at):
        for last, end in enumerate(given_at[first:], first):
            assert last - first + 1 <= burst + rate * (end - start) + 1e-6


def test_home_prefixes_that_begin_alike_are_two_registrations() -> None:
    made = store(prefix("10.1.0.0", "198.51.0.0", 16), prefix("10.1.0.0", "203.0.113.0", 24))
    wide, narrow = made.by_home(parse_address("10.1.7.7")), made.by_home(parse_address("10.1.0.7"))
    assert wide is not None
    assert narrow is not None
    assert (wide.prefix_length, narrow.prefix_length) == (96 + 16, 96 + 24)
