"""The Redis store against real servers: same answers as the table in memory, whatever happens."""

import asyncio
import datetime as dt
import ipaddress
import itertools
import random
import re
import signal
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.crc import key_slot
from redis.exceptions import InvalidResponse, ResponseError

from mat.address import Address, parse_address, prefix_of
from mat.effects import ReadByHome, ReadByMobile, StoreWrite
from mat.messages import EXACT, Endpoint, HaQuery, ImsUpdate, MaQuery
from mat.registrations import Outcome, Registration, RegistrationTable, key_of
from mat_real.store import Found, StoreEffect, StoreError, Written
from mat_real.store._redis_link import RedisConfig
from mat_real.store._redis_schema import CLAIM, Schema, claim, partition_of
from mat_real.store._redis_wire import ErrorReply, ReplyReader, encode
from mat_real.store.redis import RedisStore
from tests.real.redis_servers import (
    BOUND,
    DURABLE,
    RedisServer,
    await_that,
    redis_cluster,
    redis_server,
    require_redis,
)

HOME = parse_address("2001:db8:1:1::1")
OTHER = parse_address("2001:db8:1:1:2::")
X, Y = parse_address("2001:db8:a:1::9"), parse_address("2001:db8:b::9")
SOURCE = Endpoint(X, 49628)
NOW = 1_000_000.0
SCHEMA = Schema("mat")
UNAVAILABLE = (Outcome.UNAVAILABLE, 0)

Value = TypeVar("Value")


def run(work: Coroutine[Any, Any, Value]) -> Value:
    """Run to the end, as the IMS would, but not for ever."""

    async def bounded() -> Value:
        return await asyncio.wait_for(work, 4 * BOUND)

    return uvloop.run(bounded())


def registration(
    home: Address = HOME,
    moved: Sequence[Address] = (X,),
    *,
    freshness: int = 10,
    version: int | None = None,
    at: float = NOW,
    length: int = EXACT,
    lifetime: int = 180,
) -> Registration:
    version = freshness if version is None else version
    return Registration(home, length, tuple(moved), version, freshness, at, lifetime)


def writing(update: Registration) -> StoreWrite:
    message = ImsUpdate(1, update.home_address, update.mobile_addresses, update.version, 180)
    return StoreWrite(update, message, SOURCE)


def by_home(home: Address) -> ReadByHome:
    return ReadByHome(home, MaQuery(1, home, 0), SOURCE)


def by_mobile(mobile: Address) -> ReadByMobile:
    return ReadByMobile(mobile, HaQuery(1, mobile), SOURCE)


class Worker:
    """What an IMS's worker is to its store: it submits, and takes what is answered."""

    store: RedisStore

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[StoreEffect, asyncio.Future[Any]]] = {}

    def answered(self, effect: StoreEffect, result: Written | Found) -> None:
        submitted, future = self._waiting.pop(id(effect))
        assert submitted is effect
        if not future.cancelled():
            future.set_result(result)

    def submit(self, effect: StoreEffect) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[id(effect)] = effect, future
        self.store.submit(effect)
        return future

    async def do(self, *effects: StoreEffect) -> list[Any]:
        """Submit as one batch; the results."""
        futures = [self.submit(effect) for effect in effects]
        self.store.flush()
        return await asyncio.wait_for(asyncio.gather(*futures), BOUND)

    async def write(self, update: Registration) -> Written:
        (result,) = await self.do(writing(update))
        return result  # type: ignore[no-any-return]

    async def home(self, address: Address) -> Found:
        (result,) = await self.do(by_home(address))
        return result  # type: ignore[no-any-return]

    async def mobile(self, address: Address) -> Found:
        (result,) = await self.do(by_mobile(address))
        return result  # type: ignore[no-any-return]

    async def again(self, update: Registration) -> Written:
        """Update until the store is back, with a greater freshness each time, as a node does."""
        end = time.monotonic() + BOUND
        for freshness in itertools.count(update.freshness):
            result = await self.write(replace(update, freshness=freshness))
            if result[0] is not Outcome.UNAVAILABLE:
                return result
            assert time.monotonic() < end, "the store did not come back"
            await asyncio.sleep(0.02)
        raise AssertionError


@asynccontextmanager
async def worker(config: RedisConfig, clock: Callable[[], float] = float) -> AsyncIterator[Worker]:
    """An IMS's worker with a store; with `clock` 0, a new store has the floor 0."""
    one = Worker()
    one.store = await RedisStore.open(config, one.answered, clock=clock)
    try:
        yield one
    finally:
        await one.store.close()
        assert one.store.depth() == 0
        assert not one._waiting


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server for tests that leave it as it is; each takes a key prefix of its own."""
    with redis_server(tmp_path_factory.mktemp("redis") / "shared") as server:
        yield server


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    with redis_cluster(tmp_path_factory.mktemp("redis") / "cluster") as servers:
        yield servers


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that the test may kill."""
    with redis_server(tmp_path / "redis") as one:
        yield one


_prefixes = (f"t{number}" for number in itertools.count())


def fresh(server: RedisServer, **options: Any) -> RedisConfig:
    """The configuration of a store that is empty."""
    return RedisConfig(server.url, prefix=next(_prefixes), **options)


BOTH = pytest.mark.parametrize("kind", ["one server", "cluster"])


@pytest.fixture
def config(kind: str, request: pytest.FixtureRequest) -> RedisConfig:
    """An empty store on one server, and on a cluster."""
    if kind == "cluster":
        return fresh(request.getfixturevalue("cluster")[0], cluster=True)
    return fresh(request.getfixturevalue("shared"))


# ---- the same answers as the table in memory -----------------------------------------------------

EDGES = [0, 1, 2, (1 << 32) - 1, 1 << 32, (1 << 53) - 1, 1 << 53, (1 << 53) + 1]
EDGES += [(1 << 63) - 1, 1 << 63, (1 << 63) + 1, (1 << 64) - 2, (1 << 64) - 1]

HOMES = [(HOME, EXACT), (OTHER, EXACT), (parse_address("198.51.100.7"), EXACT)]
HOMES += [(parse_address("2001:db8:1:1::"), 64), (parse_address("2001:db8:1::"), 48)]
# No two prefixes of different lengths have the same first address, for which the table in memory
# has one place only. The exact addresses are inside of prefixes, and outside.
MOVED = {
    EXACT: [X, parse_address("2001:db8:a:2::9"), Y],
    64: [parse_address("2001:db8:a:1::"), parse_address("2001:db8:c:1::")],
    48: [parse_address("2001:db8:a::"), parse_address("2001:db8:c::")],
}
ASKED = [address for address, _ in HOMES] + [parse_address("2001:db8:1:7::1")]
FOUND_AT = [*MOVED[EXACT], *MOVED[64], parse_address("2001:db8:a:7::1")]


@st.composite
def updates(draw: st.DrawFn) -> Registration:
    home, length = draw(st.sampled_from(HOMES))
    moved = draw(st.lists(st.sampled_from(MOVED[length]), unique=True))
    version = draw(st.sampled_from([0, 7, (1 << 64) - 1]))
    freshness = draw(st.sampled_from(EDGES))
    lifetime = draw(st.sampled_from([1, 180, (1 << 32) - 1])) if moved else 0
    return Registration(home, length, tuple(moved), version, freshness, 0.0, lifetime)


async def compare(config: RedisConfig, groups: list[list[Registration]], tick: float) -> None:
    table = RegistrationTable()
    now = NOW
    async with worker(config) as one:
        for group in groups:
            batch = [
                replace(update, registered_at=now + i * tick) for i, update in enumerate(group)
            ]
            now += 1.0
            expected = [table.write(update) for update in batch]
            assert await one.do(*map(writing, batch)) == expected
            assert await one.do(*map(by_home, ASKED)) == [table.by_home(a) for a in ASKED]
            assert await one.do(*map(by_mobile, FOUND_AT)) == [table.by_mobile(a) for a in FOUND_AT]


GROUPS = st.lists(st.lists(updates(), min_size=1, max_size=4), max_size=8)


@given(groups=GROUPS, tick=st.sampled_from([0.0, 0.001]))
def test_one_server_answers_as_the_table_in_memory(
    shared: RedisServer, groups: list[list[Registration]], tick: float
) -> None:
    run(compare(fresh(shared), groups, tick))


@settings(max_examples=40)
@given(groups=GROUPS)
def test_a_cluster_answers_as_the_table_in_memory(
    cluster: list[RedisServer], groups: list[list[Registration]]
) -> None:
    run(compare(fresh(cluster[1], cluster=True), groups, 0.001))


@BOTH
def test_freshness_is_compared_in_all_of_its_64_bits(config: RedisConfig) -> None:
    async def work() -> None:
        async with worker(config) as one:
            for below, above in itertools.combinations(EDGES, 2):
                home = Address(below.to_bytes(8) + above.to_bytes(8))
                table = RegistrationTable()
                for freshness in (below, above, below, above):
                    update = registration(home, freshness=freshness, version=freshness // 2)
                    assert await one.write(update) == table.write(update)

    run(work())


@BOTH
def test_effects_on_one_home_address_take_effect_in_their_order(config: RedisConfig) -> None:
    async def work() -> None:
        async with worker(config) as one:
            first = registration(freshness=1)
            second = registration(moved=(Y, X), freshness=2)
            withdrawn = registration(moved=(), freshness=3, lifetime=0)
            found = await one.do(
                writing(first),
                by_home(HOME),
                writing(second),
                by_home(HOME),
                writing(withdrawn),
                by_home(HOME),
            )
            assert found[0::2] == [(Outcome.STORED, n) for n in (1, 2, 3)]
            assert found[1::2] == [first, second, withdrawn]

    run(work())


def test_an_index_entry_expires_and_freshness_stays(shared: RedisServer) -> None:
    async def work() -> None:
        config = fresh(shared)
        schema = Schema(config.prefix)
        async with worker(config) as one:
            await one.write(registration(freshness=9, lifetime=180))
            assert 180 <= shared.do("TTL", schema.index(X, EXACT)) <= 240
            assert shared.do("TTL", schema.registration(HOME)) == -1
            await one.write(registration(freshness=10, lifetime=600))
            assert 600 <= shared.do("TTL", schema.index(X, EXACT)) <= 660
            await one.write(registration(freshness=11, lifetime=1))
            shared.do("DEL", schema.index(X, EXACT))
            assert await one.mobile(X) is None
            assert await one.write(registration(freshness=8)) == (Outcome.STALE, 11)

    run(work())


def test_claim_that_comes_late_changes_nothing(shared: RedisServer) -> None:
    """In a cluster it is a step of its own, and may come after those of later updates."""
    entry = Schema(next(_prefixes)).index(X, EXACT)

    def claimed(home: Address, at: float, seconds: int) -> tuple[bytes, bool]:
        shared.do("EVAL", CLAIM.text, "1", entry, claim(at, home), str(seconds))
        return shared.do("GET", entry), shared.do("TTL", entry) > 100

    assert claimed(HOME, 5.0, 200) == (claim(5.0, HOME), True)
    assert claimed(HOME, 3.0, 10) == (claim(5.0, HOME), True)
    assert claimed(OTHER, 4.0, 10) == (claim(5.0, HOME), True)
    assert claimed(OTHER, 5.0, 10) == (claim(5.0, OTHER), False)


@BOTH
def test_a_prefix_stored_by_another_ims_is_found_at_once(config: RedisConfig) -> None:
    async def work() -> None:
        async with worker(config) as one, worker(config) as other:
            home, moved = prefix_of(HOME, 64), prefix_of(X, 64)
            assert await one.home(HOME) is None
            assert await one.mobile(X) is None
            update = registration(home, (moved,), length=64)
            assert await other.write(update) == (Outcome.STORED, 10)
            assert await one.home(HOME) == update
            assert await one.mobile(X) == update

    run(work())


def test_repeated_update_to_a_cluster_mends_an_index_that_was_cut_short(
    cluster: list[RedisServer],
) -> None:
    """The IMS died between the two steps, and its sibling gets the same datagram."""

    async def work() -> None:
        config = fresh(cluster[0], cluster=True)
        async with worker(config) as one:
            update = registration()
            await one.write(update)
            entry = Schema(config.prefix).index(X, EXACT)
            assert sum(_deleted(server, entry) for server in cluster) == 1
            assert await one.mobile(X) is None
            later = replace(update, registered_at=NOW + 5)
            assert await one.write(later) == (Outcome.REPEATED, 10)
            assert await one.mobile(X) == update

    run(work())


def _deleted(server: RedisServer, key: bytes) -> int:
    """How many keys of this name the server had, if it is the one that has such keys."""
    try:
        return int(server.do("DEL", key))
    except ResponseError:
        return 0


def test_repeated_update_takes_no_address_from_who_claimed_it_meanwhile(
    cluster: list[RedisServer],
) -> None:
    async def work() -> None:
        async with worker(fresh(cluster[0], cluster=True)) as one:
            await one.write(registration())
            other = registration(OTHER)
            await one.write(other)
            assert await one.write(registration()) == (Outcome.REPEATED, 10)
            assert await one.mobile(X) == other

    run(work())


# ---- several IMS ---------------------------------------------------------------------------------


@BOTH
def test_in_a_race_the_fresher_wins_and_nobody_reads_backwards(config: RedisConfig) -> None:
    async def work() -> None:
        acknowledged = 0
        freshness = iter(range(1, 401))

        async def writer(one: Worker) -> None:
            nonlocal acknowledged
            for number in freshness:
                update = registration(moved=(X if number % 2 else Y,), freshness=number)
                await asyncio.sleep(random.random() / 1000)
                outcome, stored = await one.write(update)
                assert (outcome, stored > number) in (
                    (Outcome.STORED, False),
                    (Outcome.STALE, True),
                )
                acknowledged = max(acknowledged, number)

        async def reader(one: Worker) -> None:
            while acknowledged < 400:
                before = acknowledged
                found = await one.home(HOME)
                seen = found.freshness if isinstance(found, Registration) else 0
                assert seen >= before

        async with worker(config) as one, worker(config) as other:
            async with asyncio.TaskGroup() as together:
                for each in (one, other, one, other):
                    together.create_task(writer(each))
                together.create_task(reader(one))
                together.create_task(reader(other))
            last = await one.home(HOME)
            assert isinstance(last, Registration)
            assert last.freshness == 400
            holder = await other.mobile(last.mobile_addresses[0])
            assert holder == last
            assert await other.mobile(Y if last.mobile_addresses[0] == X else X) is None

    run(work())


@BOTH
def test_an_address_that_changes_hands_is_found_at_every_moment(config: RedisConfig) -> None:
    async def work() -> None:
        done = asyncio.Event()

        async def hand_over(one: Worker) -> None:
            """First the new holder claims the address, then the old one leaves it."""
            holder, next_holder = HOME, OTHER
            for number in range(2, 300):
                update = registration(next_holder, (X,), freshness=number, at=NOW + number)
                assert (await one.write(update))[0] is Outcome.STORED
                left = registration(holder, (Y,), freshness=number, at=NOW + number)
                assert (await one.write(left))[0] is Outcome.STORED
                holder, next_holder = next_holder, holder
            done.set()

        async def ask(one: Worker) -> None:
            while not done.is_set():
                found = await one.do(*(by_mobile(X) for _ in range(20)))
                assert None not in found

        async with worker(config) as one, worker(config) as other:
            await one.write(registration(freshness=1))
            async with asyncio.TaskGroup() as together:
                together.create_task(hand_over(one))
                together.create_task(ask(one))
                together.create_task(ask(other))

    run(work())


# ---- faults --------------------------------------------------------------------------------------


class Nodes:
    """Fifty nodes that keep moving, and what they were told."""

    def __init__(self, one: Worker) -> None:
        self._one = one
        self._freshness = 0
        self._stop = asyncio.Event()
        self.acknowledged: dict[Address, Registration] = {}
        self.refused = 0

    @asynccontextmanager
    async def moving(self) -> AsyncIterator[None]:
        self._stop.clear()
        load = asyncio.gather(*map(self._move, range(50)))
        try:
            yield
        finally:
            self._stop.set()
            await load

    async def _move(self, number: int) -> None:
        home = Address(HOME[:15] + bytes((number,)))
        while not self._stop.is_set():
            self._freshness += 1
            moved = Address(X[:13] + self._freshness.to_bytes(3))
            update = registration(home, (moved,), freshness=self._freshness)
            outcome, _ = await self._one.write(update)
            if outcome is Outcome.STORED:
                self.acknowledged[home] = update
            else:
                assert outcome is Outcome.UNAVAILABLE
                self.refused += 1
                await asyncio.sleep(0.01)

    async def check_nothing_lost(self, one: Worker) -> None:
        """What is stored is what was acknowledged last, or a later update without an answer."""
        assert len(self.acknowledged) == 50
        for home, update in self.acknowledged.items():
            found = await one.home(home)
            assert isinstance(found, Registration)
            assert found.freshness >= update.freshness
            assert await one.mobile(found.mobile_addresses[0]) == found
            if found.freshness == update.freshness:
                assert found == update


def test_server_killed_under_load_and_started_again_loses_nothing_acknowledged(
    server: RedisServer,
) -> None:
    async def work() -> None:
        async with worker(RedisConfig(server.url)) as one:
            nodes = Nodes(one)
            for _ in range(3):
                refused = nodes.refused
                async with nodes.moving():
                    await asyncio.sleep(0.2)
                    await asyncio.to_thread(server.kill)
                    await asyncio.sleep(0.1)
                    await asyncio.to_thread(server.start)
                    await one.again(registration(OTHER, freshness=1 << 40))
                assert nodes.refused > refused
                await nodes.check_nothing_lost(one)
        async with worker(RedisConfig(server.url)) as one:
            await nodes.check_nothing_lost(one)

    run(work())


def test_recording_is_stale_after_a_restart_that_lost_the_data(server: RedisServer) -> None:
    now = 1_700_000_000.0
    recorded = registration(freshness=int(now) << 32)

    async def work() -> None:
        async with worker(RedisConfig(server.url), clock=lambda: now + 60) as one:
            assert (await one.write(recorded))[0] is Outcome.STALE, "a new store has a floor"
            newer = replace(recorded, freshness=int(now + 61) << 32)
            assert (await one.write(newer))[0] is Outcome.STORED
            server.kill()
            server.lose_data()
            server.start()
            replayed = await one.again(recorded)
            assert replayed == (Outcome.STALE, int(now + 60) << 32)
            assert await one.home(HOME) is None

    run(work())


def test_recording_is_stale_after_the_data_was_deleted_under_a_connection(
    server: RedisServer,
) -> None:
    now = 1_700_000_000.0

    async def work() -> None:
        async with worker(RedisConfig(server.url), clock=lambda: now) as one:
            server.do("FLUSHALL")
            recorded = registration(freshness=int(now) << 32)
            assert await one.write(recorded) == (Outcome.STALE, int(now) << 32)
            newer = replace(recorded, freshness=(int(now) << 32) + 1)
            assert (await one.write(newer))[0] is Outcome.STORED

    run(work())


def test_recording_is_stale_after_one_server_of_a_cluster_lost_its_data(tmp_path: Path) -> None:
    now = 1_700_000_000.0

    async def work(servers: list[RedisServer]) -> None:
        homes = [Address(HOME[:15] + bytes((n,))) for n in range(64)]
        updates = [registration(home, freshness=(int(now) << 32) + 9) for home in homes]
        config = RedisConfig(servers[0].url, cluster=True)
        async with worker(config, clock=lambda: now) as one:
            assert {o for o, _ in await one.do(*map(writing, updates))} == {Outcome.STORED}
        later = now + 60
        async with worker(config, clock=lambda: later) as one:
            servers[0].do("FLUSHALL")
            answers = await one.do(*map(writing, updates))
            assert set(answers) == {
                (Outcome.REPEATED, (int(now) << 32) + 9),
                (Outcome.STALE, int(later) << 32),
            }

    with redis_cluster(tmp_path / "cluster") as servers:
        run(work(servers))


def test_silent_server_is_left_and_its_late_replies_are_not_taken_for_others(
    server: RedisServer,
) -> None:
    async def work() -> None:
        async with worker(RedisConfig(server.url, timeout=0.3)) as one:
            await one.write(registration(freshness=1))
            server.signal(signal.SIGSTOP)
            answers = await one.do(
                writing(registration(freshness=2)), by_home(HOME), by_mobile(X), by_home(OTHER)
            )
            assert answers == [UNAVAILABLE] + 3 * [Outcome.UNAVAILABLE]
            assert await one.home(HOME) is Outcome.UNAVAILABLE
            server.signal(signal.SIGCONT)
            outcome, _ = await one.again(registration(OTHER, (Y,), freshness=5))
            assert outcome is Outcome.STORED
            found = await one.home(HOME)
            assert isinstance(found, Registration)
            assert found.home_address == HOME
            assert found.freshness in (1, 2)

    run(work())


def test_lost_connection_is_answered_at_once(server: RedisServer) -> None:
    async def work() -> None:
        async with worker(RedisConfig(server.url, timeout=4 * BOUND)) as one:
            await one.write(registration())
            server.signal(signal.SIGSTOP)
            late = [one.submit(writing(registration(freshness=11))), one.submit(by_home(HOME))]
            one.store.flush()
            waiting = one.submit(by_mobile(X))
            server.kill()
            answers = await asyncio.wait_for(asyncio.gather(*late, waiting), BOUND)
            assert answers == [UNAVAILABLE, Outcome.UNAVAILABLE, Outcome.UNAVAILABLE]

    run(work())


def test_server_that_is_silent_for_ever_is_not_waited_for(tmp_path: Path) -> None:
    """Its connections stay open, and another server has taken its place."""

    async def work() -> None:
        async with worker(RedisConfig(f"unix://{path}", timeout=0.3)) as one:
            first.signal(signal.SIGSTOP)
            assert await one.home(HOME) is Outcome.UNAVAILABLE
            with redis_server(tmp_path / "second", *options):
                assert (await one.again(registration()))[0] is Outcome.STORED

    path = tmp_path / "socket"
    options = (*DURABLE, "--unixsocket", str(path))
    with redis_server(tmp_path / "first", *options) as first:
        run(work())


def test_server_that_becomes_a_replica_is_not_believed(server: RedisServer, tmp_path: Path) -> None:
    async def work(other: RedisServer) -> None:
        async with worker(RedisConfig(server.url)) as one:
            await one.write(registration())
            server.do("REPLICAOF", "127.0.0.1", str(other.port))
            assert await one.home(HOME) is Outcome.UNAVAILABLE
            assert await one.write(registration(freshness=11)) == UNAVAILABLE
        with pytest.raises(StoreError, match="is a slave and no master; name the master"):
            await RedisStore.open(RedisConfig(server.url), Worker().answered)

    with redis_server(tmp_path / "other") as other:
        run(work(other))


def test_update_counts_when_as_many_replicas_as_wanted_have_it(
    server: RedisServer, tmp_path: Path
) -> None:
    async def work(replica: RedisServer) -> None:
        config = RedisConfig(server.url, replicas=1)
        with pytest.raises(StoreError, match="NOREPLICAS"):
            await RedisStore.open(config, Worker().answered, clock=float)
        replica.do("REPLICAOF", "127.0.0.1", str(server.port))
        await_that(lambda: _copied(server), "replication")
        async with worker(config) as one:
            update = registration()
            assert await one.write(update) == (Outcome.STORED, 10)
            assert replica.do("EXISTS", SCHEMA.registration(HOME)) == 1
            replica.kill()
            update = registration(freshness=11)
            assert await one.do(writing(update), by_home(HOME)) == [UNAVAILABLE, update]

    with redis_server(tmp_path / "replica") as replica:
        run(work(replica))


def _copied(server: RedisServer) -> bool:
    """Whether a replica confirms what is written now."""
    return int(server.do("SET", "x", "1", then=("WAIT", "1", "1000"))) == 1


@pytest.mark.parametrize(
    ("command", "undone"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
        (
            ("CONFIG", "SET", "min-replicas-to-write", "1"),
            ("CONFIG", "SET", "min-replicas-to-write", "0"),
        ),
    ],
    ids=["no memory", "too few replicas"],
)
def test_update_that_the_server_refuses_is_to_be_tried_again(
    server: RedisServer, command: tuple[str, ...], undone: tuple[str, ...]
) -> None:
    async def work() -> None:
        async with worker(RedisConfig(server.url)) as one:
            update = registration()
            await one.write(update)
            server.do(*command)
            assert await one.write(registration(freshness=11)) == UNAVAILABLE
            server.do(*undone)
            assert await one.home(HOME) == update
            assert await one.write(registration(freshness=11)) == (Outcome.STORED, 11)

    run(work())


@BOTH
def test_server_that_forgot_the_scripts_is_told_again(
    config: RedisConfig, shared: RedisServer, cluster: list[RedisServer]
) -> None:
    async def work() -> None:
        async with worker(config) as one:
            for server in (shared, *cluster):
                server.do("SCRIPT", "FLUSH")
            homes = [Address(HOME[:15] + bytes((n,))) for n in range(1, 30)]
            updates = [registration(home, (Y,)) for home in homes]
            answers = await one.do(*map(writing, updates))
            assert set(answers) == {(Outcome.STORED, 10)}
            found = await one.mobile(Y)
            assert found in updates

    run(work())


def test_damaged_data_is_no_answer(shared: RedisServer) -> None:
    async def work() -> None:
        config = fresh(shared)
        schema = Schema(config.prefix)
        async with worker(config) as one:
            shared.do("SET", schema.registration(HOME), b"\xff" * 33)
            assert await one.home(HOME) is Outcome.UNAVAILABLE
            shared.do("LPUSH", schema.registration(OTHER), "of another type")
            assert await one.home(OTHER) is Outcome.UNAVAILABLE
            assert await one.write(registration(OTHER)) == UNAVAILABLE
            shared.do("SADD", schema.lengths, "x")
            assert await one.home(X) is Outcome.UNAVAILABLE

    run(work())


def test_what_is_beyond_the_queue_is_refused_at_once(shared: RedisServer) -> None:
    async def work() -> None:
        async with worker(fresh(shared, queue=3)) as one:
            futures = [one.submit(by_home(HOME)) for _ in range(4)]
            assert [future.done() for future in futures] == [False, False, False, True]
            assert one.store.depth() == 3
            one.store.flush()
            assert await asyncio.gather(*futures) == [None, None, None, Outcome.UNAVAILABLE]

    run(work())


def test_connection_that_is_closed_and_not_yet_given_up_takes_no_harm(shared: RedisServer) -> None:
    async def work() -> None:
        async with worker(fresh(shared)) as one:
            for _ in range(3):
                (link,) = one.store._servers.links()
                assert link._connection is not None
                link._connection.abort()
                futures: list[asyncio.Future[Any]] = []
                for _ in range(5):
                    futures.append(one.submit(by_home(HOME)))
                    one.store.flush()
                    await asyncio.sleep(0)
                assert await asyncio.gather(*futures) == [Outcome.UNAVAILABLE] * 5
                await one.again(registration())

    run(work())


def test_what_nobody_waits_for_any_more_is_not_sent(server: RedisServer) -> None:
    async def work() -> None:
        async with worker(RedisConfig(server.url, timeout=0.2)) as one:
            assert await one.submit(writing(registration())) == UNAVAILABLE
            assert await one.home(HOME) is None
            assert "cmdstat_evalsha" not in server.do("INFO", "commandstats")

    run(work())


def test_closing_answers_what_was_submitted(server: RedisServer) -> None:
    async def work() -> None:
        async with worker(RedisConfig(server.url)) as one:
            futures = [one.submit(by_mobile(X)) for _ in range(10)]
        assert [future.result() for future in futures] == [None] * 10
        async with worker(RedisConfig(server.url, timeout=0.3)) as one:
            server.signal(signal.SIGSTOP)
            late = one.submit(by_home(HOME))
        assert late.result() is Outcome.UNAVAILABLE

    run(work())


def test_the_longer_time_for_the_start_ends_with_it(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mat_real.store.redis.START", 3600.0)

    async def work() -> None:
        async with worker(RedisConfig(server.url, timeout=0.3)) as one:
            server.signal(signal.SIGSTOP)
            assert await one.home(HOME) is Outcome.UNAVAILABLE

    run(work())


def test_more_than_a_batch_at_once(shared: RedisServer) -> None:
    async def work() -> None:
        async with worker(fresh(shared, max_in_flight=1)) as one:
            homes = [Address(HOME[:13] + n.to_bytes(3)) for n in range(5000)]
            answers = await one.do(*(writing(registration(home, (home,))) for home in homes))
            assert set(answers) == {(Outcome.STORED, 10)}
            found = await one.do(*map(by_mobile, homes))
            assert [one.home_address for one in found] == homes

    run(work())


# ---- faults of a cluster -------------------------------------------------------------------------


def test_cluster_without_one_of_its_servers_goes_on_with_the_others(tmp_path: Path) -> None:
    async def work(servers: list[RedisServer]) -> None:
        homes = [Address(HOME[:15] + bytes((n,))) for n in range(64)]
        async with worker(RedisConfig(servers[0].url, cluster=True)) as one:
            first = await one.do(*(writing(registration(home, ())) for home in homes))
            assert set(first) == {(Outcome.STORED, 10)}
            servers[0].kill()
            await asyncio.sleep(0.1)
            found = await one.do(*map(by_home, homes))
            lost = [home for home, one in zip(homes, found, strict=True) if _unavailable(one)]
            assert 0 < len(lost) < 40
            servers[0].start()
            for home in lost:
                update = registration(home, (), freshness=11)
                assert (await one.again(update))[0] is Outcome.STORED

    with redis_cluster(tmp_path / "cluster") as servers:
        run(work(servers))


def test_ims_starts_on_a_cluster_of_which_a_server_is_down(tmp_path: Path) -> None:
    async def work(servers: list[RedisServer]) -> None:
        homes = [Address(HOME[:15] + bytes((n,))) for n in range(64)]
        servers[1].kill()
        config = RedisConfig(servers[0].url, cluster=True)
        async with worker(config) as one:
            answers = await one.do(*(writing(registration(home, ())) for home in homes))
            assert set(answers) == {(Outcome.STORED, 10), UNAVAILABLE}
            servers[1].start()
            for home in homes:
                assert (await one.again(registration(home, ())))[0] is not Outcome.STALE

    with redis_cluster(tmp_path / "cluster") as servers:
        run(work(servers))


def test_replica_that_takes_the_place_of_a_killed_master_is_found(tmp_path: Path) -> None:
    async def work(servers: list[RedisServer]) -> None:
        config = RedisConfig(servers[0].url, cluster=True, replicas=1)
        async with worker(config) as one:
            nodes = Nodes(one)
            async with nodes.moving():
                await asyncio.sleep(0.3)
                servers[0].kill()
                await asyncio.to_thread(await_that, replaced, "the failover")
                # Comes back as a replica, without which no update counts here.
                await asyncio.to_thread(servers[0].start)
                for n in range(16):
                    home = Address(OTHER[:15] + bytes((n,)))
                    await one.again(registration(home, (), freshness=1 << 40))
            assert nodes.refused > 0
            await nodes.check_nothing_lost(one)

    def replaced() -> bool:
        rows = servers[1].do("CLUSTER", "SLOTS")
        return servers[0].port not in {row[2][1] for row in rows}

    with redis_cluster(tmp_path / "cluster", replicas=1) as servers:
        run(work(servers))


def _unavailable(found: Found) -> bool:
    return found is Outcome.UNAVAILABLE


def test_slot_that_moves_to_another_server_under_load_is_followed(tmp_path: Path) -> None:
    async def work(servers: list[RedisServer]) -> None:
        async with worker(RedisConfig(servers[0].url, cluster=True)) as one:
            nodes = Nodes(one)
            async with nodes.moving():
                await asyncio.sleep(0.3)
                await asyncio.to_thread(_move_slots, servers)
                await asyncio.sleep(0.1)
            await nodes.check_nothing_lost(one)

    with redis_cluster(tmp_path / "cluster") as servers:
        run(work(servers))


@pytest.mark.parametrize("kind", ["ip", "unknown-endpoint"])
def test_slot_that_is_half_moved_answers_for_what_has_moved(tmp_path: Path, kind: str) -> None:
    async def work(servers: list[RedisServer]) -> None:
        for server in servers:
            server.do("CONFIG", "SET", "cluster-preferred-endpoint-type", kind)
        async with worker(RedisConfig(servers[0].url, cluster=True)) as one:
            update = registration(moved=())
            await one.write(update)
            slot = _slot(servers[0], SCHEMA.registration(HOME))
            source, target = _owner(servers, slot), _stranger(servers, slot)
            _begin_move(source, target, slot)
            keys = source.do("CLUSTER", "GETKEYSINSLOT", str(slot), "100")
            _migrate(source, target, keys)
            assert await one.home(HOME) == update
            fresher = registration(moved=(), freshness=11)
            assert await one.write(fresher) == (Outcome.STORED, 11)
            _end_move(servers, target, slot)
            assert await one.home(HOME) == fresher

    with redis_cluster(tmp_path / "cluster") as servers:
        run(work(servers))


def _slot(server: RedisServer, key: bytes) -> int:
    return int(server.do("CLUSTER", "KEYSLOT", key))


def _owner(servers: list[RedisServer], slot: int) -> RedisServer:
    for first, last, (_, port, *_), *_ in servers[0].do("CLUSTER", "SLOTS"):
        if first <= slot <= last:
            return next(server for server in servers if server.port == port)
    raise AssertionError


def _stranger(servers: list[RedisServer], slot: int) -> RedisServer:
    return next(server for server in servers if server is not _owner(servers, slot))


def _identity(server: RedisServer) -> str:
    return str(server.do("CLUSTER", "MYID").decode())


def _begin_move(source: RedisServer, target: RedisServer, slot: int) -> None:
    target.do("CLUSTER", "SETSLOT", str(slot), "IMPORTING", _identity(source))
    source.do("CLUSTER", "SETSLOT", str(slot), "MIGRATING", _identity(target))


def _migrate(source: RedisServer, target: RedisServer, keys: list[bytes]) -> None:
    source.do("MIGRATE", "127.0.0.1", str(target.port), "", "0", "5000", "KEYS", *keys)


def _end_move(servers: list[RedisServer], target: RedisServer, slot: int) -> None:
    for server in (target, *(server for server in servers if server is not target)):
        server.do("CLUSTER", "SETSLOT", str(slot), "NODE", _identity(target))


def _move_slots(servers: list[RedisServer]) -> None:
    """Move the slots of the first nodes, key by key, slowly enough to be met half moved."""
    homes = [Address(HOME[:15] + bytes((n,))) for n in range(8)]
    for slot in {_slot(servers[0], SCHEMA.registration(home)) for home in homes}:
        source, target = _owner(servers, slot), _stranger(servers, slot)
        _begin_move(source, target, slot)
        while keys := source.do("CLUSTER", "GETKEYSINSLOT", str(slot), "1"):
            _migrate(source, target, keys)
            time.sleep(0.02)
        _end_move(servers, target, slot)


# ---- what is refused at the start ----------------------------------------------------------------


def refusal(config: RedisConfig) -> str:
    """What the start says."""

    async def start() -> str:
        with pytest.raises(StoreError) as error:
            await RedisStore.open(config, Worker().answered)
        return str(error.value)

    return run(start())


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("appendonly", "no", "appendonly is 'no': .* set appendonly yes in redis.conf"),
        ("appendfsync", "everysec", "appendfsync is 'everysec': .* set appendfsync always"),
        ("no-appendfsync-on-rewrite", "yes", "no-appendfsync-on-rewrite is 'yes'"),
        ("maxmemory-policy", "allkeys-lru", "maxmemory-policy is 'allkeys-lru'"),
    ],
)
def test_server_that_would_lose_what_it_acknowledged_is_refused(
    tmp_path: Path, setting: str, value: str, said: str
) -> None:
    async def trust(server: RedisServer) -> None:
        async with worker(RedisConfig(server.url, durability="trust")) as one:
            assert await one.write(registration()) == (Outcome.STORED, 10)

    with redis_server(tmp_path / "redis", *DURABLE, f"--{setting}", value) as server:
        message = refusal(RedisConfig(server.url))
        assert message.startswith(f"redis://127.0.0.1:{server.port}: ")
        assert re.search(said, message)
        run(trust(server))


def test_server_started_again_with_less_durability_is_not_used(server: RedisServer) -> None:
    async def work() -> None:
        async with worker(RedisConfig(server.url)) as one:
            server.kill()
            server._options = ("--appendonly", "no")
            server.start()
            for n in range(20):
                assert await one.write(registration(freshness=n)) == UNAVAILABLE
                await asyncio.sleep(0.02)

    run(work())


def test_password_is_taken_from_the_url_or_from_a_file(tmp_path: Path) -> None:
    async def works(config: RedisConfig) -> None:
        async with worker(config) as one:
            assert await one.home(HOME) is None

    with redis_server(tmp_path / "redis", password="open sesame") as server:
        secret = tmp_path / "password"
        secret.write_text("open sesame\n")
        run(works(RedisConfig(server.url.replace("//", "//:open%20sesame@"))))
        run(works(RedisConfig(server.url, password_file=secret)))
        run(works(RedisConfig(server.url.replace("//", "//default@"), password_file=secret)))

        assert "password refused" in refusal(RedisConfig(server.url))
        wrong = RedisConfig(server.url.replace("//", "//:wrong-secret@"))
        assert "password refused" in refusal(wrong)
        assert "wrong-secret" not in refusal(wrong)
        assert "wrong-secret" not in repr(wrong)
        secret.write_text(" \n")
        assert "is empty" in refusal(RedisConfig(server.url, password_file=secret))
        secret.unlink()
        assert str(secret) in refusal(RedisConfig(server.url, password_file=secret))


def test_start_without_a_server_says_which(tmp_path: Path) -> None:
    require_redis()
    server = RedisServer(tmp_path)
    for cluster in (False, True):
        message = refusal(RedisConfig(server.url, cluster=cluster))
        assert message.startswith(f"{server.url}: cannot be reached")


def test_start_with_a_server_that_hangs_up_says_so() -> None:
    async def start() -> None:
        async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(0)
            writer.transport.abort()

        other = await asyncio.start_server(hang_up, "127.0.0.1")
        async with other:
            port = other.sockets[0].getsockname()[1]
            for user in ("", ":secret@"):
                config = RedisConfig(f"redis://{user}127.0.0.1:{port}")
                with pytest.raises(StoreError, match="cannot be reached"):
                    await RedisStore.open(config, Worker().answered)

    run(start())


def test_cluster_and_single_server_are_not_taken_for_each_other(
    shared: RedisServer, cluster: list[RedisServer]
) -> None:
    assert "leave out cluster = true" in refusal(RedisConfig(shared.url, cluster=True))
    assert "say cluster = true" in refusal(RedisConfig(cluster[0].url))


def test_user_who_may_do_only_what_is_needed_can_use_the_store(server: RedisServer) -> None:
    def allow(*commands: str) -> None:
        server.do("ACL", "SETUSER", "ims", "reset", "on", ">secret", "~mat:*", *commands)

    async def works(config: RedisConfig) -> None:
        async with worker(config) as one:
            home, moved = prefix_of(HOME, 64), prefix_of(X, 64)
            outcome, _ = await one.write(registration(home, (moved,), length=64))
            assert outcome is not Outcome.UNAVAILABLE
            assert isinstance(await one.mobile(X), Registration)

    needed = ["get", "set", "ttl", "sadd", "smembers", "evalsha", "script|load", "role"]
    config = RedisConfig(server.url.replace("//", "//ims:secret@"))
    allow(*(f"+{name}" for name in needed))
    assert "does not tell its configuration" in refusal(config)
    run(works(replace(config, durability="trust")))
    allow(*(f"+{name}" for name in (*needed, "config|get")))
    run(works(config))
    allow("+config|get", "+role")
    assert "the user needs get, set, ttl" in refusal(config)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "http://localhost"}, "url: cannot be read; write redis://"),
        ({"url": "redis://:secret/x@localhost"}, "/ and @ in a password as %2F and %40"),
        ({"url": "redis://:secret@[::1"}, "url: cannot be read"),
        ({"url": "redis://localhost?nonsense=1"}, "nonsense"),
        ({"url": "redis://:a@localhost", "password_file": Path("b")}, "in the url and in"),
        ({"timeout": 0.0}, "timeout = 0.0"),
        ({"replicas": -1}, "replicas = -1"),
        ({"max_in_flight": 0}, "max_in_flight = 0"),
        ({"queue": 0}, "queue = 0"),
        ({"prefix": "{mat}"}, "without braces"),
        ({"prefix": ""}, "prefix"),
    ],
)
def test_wrong_configuration_is_refused(options: dict[str, Any], said: str) -> None:
    async def start() -> None:
        await RedisStore.open(RedisConfig(**{"url": "redis://localhost", **options}), print)

    with pytest.raises(StoreError) as error:
        run(start())
    assert said in str(error.value)
    assert "secret" not in str(error.value)


# ---- ways to reach a server ----------------------------------------------------------------------


def test_server_behind_a_unix_socket(tmp_path: Path) -> None:
    async def work() -> None:
        async with worker(RedisConfig(f"unix://{path}")) as one:
            assert await one.write(registration()) == (Outcome.STORED, 10)

    path = tmp_path / "socket"
    with redis_server(tmp_path / "redis", *DURABLE, "--unixsocket", str(path)):
        run(work())


def test_server_behind_tls(tmp_path: Path) -> None:
    certificate, key = _certificate(tmp_path)
    options = [*DURABLE, "--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    options += ["--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no"]

    async def work(config: RedisConfig) -> None:
        async with worker(config) as one:
            assert await one.write(registration()) == (Outcome.STORED, 10)

    with redis_server(tmp_path / "redis", *options) as server:
        port = RedisServer(tmp_path).port
        server.do("CONFIG", "SET", "tls-port", str(port))
        url = f"rediss://127.0.0.1:{port}"
        run(work(RedisConfig(f"{url}?ssl_ca_certs={certificate}")))
        assert "cannot be reached" in refusal(RedisConfig(url))


def _certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis")])
    start = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=2))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "certificate.pem", directory / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    ssl.create_default_context(cafile=str(paths[0]))
    return paths


# ---- the protocol --------------------------------------------------------------------------------

REPLIES = st.recursive(
    st.none() | st.integers() | st.binary(),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)


def _sent(reply: Any) -> bytes:
    match reply:
        case None:
            return b"$-1\r\n"
        case int():
            return b":%d\r\n" % reply
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case _:
            return b"*%d\r\n" % len(reply) + b"".join(map(_sent, reply))


@given(replies=st.lists(REPLIES), cuts=st.lists(st.integers(0, 400)))
def test_replies_are_read_however_they_are_cut(replies: list[Any], cuts: list[int]) -> None:
    data = b"".join(map(_sent, replies))
    reader = ReplyReader()
    found: list[Any] = []
    for start, end in itertools.pairwise([0, *sorted(min(c, len(data)) for c in cuts), len(data)]):
        found += reader.feed(data[start:end])
    assert found == replies


def test_an_error_is_told_from_a_reply() -> None:
    (error, done) = ReplyReader().feed(b"-MOVED 7 127.0.0.1:6379\r\n+OK\r\n")
    assert isinstance(error, ErrorReply)
    assert (error.code, error.text) == ("MOVED", "MOVED 7 127.0.0.1:6379")
    assert done == b"OK"


@pytest.mark.parametrize("data", [b"HTTP/1.1 400\r\n", b"$x\r\n", b":\r\n", b"*2\r\n?\r\n"])
def test_what_is_not_the_protocol_is_an_error(data: bytes) -> None:
    with pytest.raises(InvalidResponse):
        ReplyReader().feed(data)


def test_a_command_is_an_array_of_its_arguments() -> None:
    assert encode(b"GET", b"a\r\nb") == b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n"


def test_a_registration_and_its_floor_are_in_one_slot() -> None:
    for n in range(100):
        key = key_of(Address(HOME[:15] + bytes((n,))), EXACT)
        floor = SCHEMA.floor(partition_of(key))
        assert key_slot(SCHEMA.registration(key)) == key_slot(floor)
