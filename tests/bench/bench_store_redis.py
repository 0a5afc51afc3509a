"""Updates and look-ups by one worker in Redis servers started here, on the same machine.

    pytest tests/bench/bench_store_redis.py --benchmark-columns=median --benchmark-json=redis.json

A round is `EFFECTS` effects, submitted in groups of 64 (a batch of datagrams) with at most
`OUTSTANDING` under way; the server writes each batch to the disk before it answers. The extra info
of the JSON file has effects per second, CPU time of the worker's process per effect, and bytes in
Redis per registration. `test_the_wire` has the same commands carried by the client library: as its
pipeline, and packed and read by its connection.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis.asyncio.connection as library
import uvloop
from pytest_benchmark.fixture import BenchmarkFixture
from redis.asyncio import Redis

from mat.address import Address, parse_address
from mat.effects import ReadByHome, ReadByMobile, StoreWrite
from mat.messages import EXACT, Endpoint, HaQuery, ImsUpdate, MaQuery
from mat.registrations import Registration
from mat_real.store import Found, StoreEffect, Written
from mat_real.store._redis_wire import ReplyReader, encode
from mat_real.store.redis import RedisConfig, RedisStore
from tests.real.redis_servers import RedisServer, redis_cluster, redis_server

EFFECTS = 10_000
GROUP = 64
OUTSTANDING = 1024
ROUNDS = 7
SOURCE = Endpoint(parse_address("192.0.2.1"), 49628)

_random = random.Random(1)
HOMES = [Address(_random.randbytes(16)) for _ in range(EFFECTS)]
MOVED = [Address(_random.randbytes(16)) for _ in range(EFFECTS)]
_freshness = itertools.count(1)


class Worker:
    """Submits effects as fast as they are answered."""

    store: RedisStore

    def __init__(self, runner: asyncio.Runner) -> None:
        self.runner = runner
        self._answers = asyncio.Event()
        self.results: set[str] = set()

    def answered(self, effect: StoreEffect, result: Written | Found) -> None:
        del effect
        self.results.add(result[0].name if isinstance(result, tuple) else type(result).__name__)
        self._answers.set()

    async def carry_out(self, effects: list[StoreEffect]) -> None:
        store = self.store
        for start in range(0, len(effects), GROUP):
            for effect in effects[start : start + GROUP]:
                store.submit(effect)
            store.flush()
            while store.depth() > OUTSTANDING:
                self._answers.clear()
                await self._answers.wait()
        while store.depth():
            self._answers.clear()
            await self._answers.wait()


@pytest.fixture(scope="module", params=["one server", "cluster"])
def servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[RedisServer]]:
    directory = tmp_path_factory.mktemp("redis") / "data"
    if request.param == "cluster":
        with redis_cluster(directory) as several:
            yield several
    else:
        with redis_server(directory) as one:
            yield [one]


@pytest.fixture
def worker(servers: list[RedisServer]) -> Iterator[Worker]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        one = Worker(runner)
        config = RedisConfig(servers[0].url, cluster=len(servers) > 1)
        one.store = runner.run(RedisStore.open(config, one.answered, clock=float))
        runner.run(one.carry_out(updates()))
        one.results.clear()
        yield one
        runner.run(one.store.close())


def updates() -> list[StoreEffect]:
    """Every node moves once."""
    freshness = next(_freshness)
    message = ImsUpdate(1, HOMES[0], (), freshness, 180)
    effects: list[StoreEffect] = []
    for home, moved in zip(HOMES, MOVED, strict=True):
        update = Registration(home, EXACT, (moved,), freshness, freshness, time.time(), 180)
        effects.append(StoreWrite(update, message, SOURCE))
    return effects


def look_ups_by_home() -> list[StoreEffect]:
    return [ReadByHome(home, MaQuery(1, home, 0), SOURCE) for home in HOMES]


def look_ups_by_mobile() -> list[StoreEffect]:
    return [ReadByMobile(moved, HaQuery(1, moved), SOURCE) for moved in MOVED]


@pytest.mark.parametrize(
    ("effects", "result"),
    [
        (updates, "STORED"),
        (look_ups_by_home, "Registration"),
        (look_ups_by_mobile, "Registration"),
    ],
    ids=["updates", "by home", "by mobile"],
)
def test_store(
    benchmark: BenchmarkFixture,
    worker: Worker,
    servers: list[RedisServer],
    effects: Callable[[], list[StoreEffect]],
    result: str,
) -> None:
    cpu = 0.0

    def carry_out(some: list[StoreEffect]) -> None:
        nonlocal cpu
        before = time.process_time()
        worker.runner.run(worker.carry_out(some))
        cpu += time.process_time() - before

    benchmark.pedantic(carry_out, setup=lambda: ((effects(),), {}), rounds=ROUNDS)  # type: ignore[no-untyped-call]
    assert worker.results == {result}
    report(benchmark)
    benchmark.extra_info["µs of CPU per effect"] = round(cpu / ROUNDS / EFFECTS * 1e6, 1)
    used = sum(int(server.do("INFO", "memory")["used_memory_dataset"]) for server in servers)
    benchmark.extra_info["bytes per registration"] = used // EFFECTS


def report(benchmark: BenchmarkFixture) -> None:
    if benchmark.stats is not None:
        benchmark.extra_info["effects/s"] = round(EFFECTS / benchmark.stats["median"])


def test_one_update_alone(benchmark: BenchmarkFixture, worker: Worker) -> None:
    """Its round trip and its fsync, with nothing to share them with."""

    def carry_out(update: StoreEffect) -> None:
        worker.runner.run(worker.carry_out([update]))

    benchmark.pedantic(carry_out, setup=lambda: ((updates()[0],), {}), rounds=100)  # type: ignore[no-untyped-call]


async def by_pipeline(url: str, commands: list[tuple[bytes, ...]]) -> None:
    async with Redis.from_url(url, protocol=2) as client:
        for start in range(0, len(commands), GROUP):
            pipeline = client.pipeline(transaction=False)
            for command in commands[start : start + GROUP]:
                pipeline.execute_command(*command)
            await pipeline.execute()


async def by_connection(url: str, commands: list[tuple[bytes, ...]]) -> None:
    connection = library.ConnectionPool.from_url(url, protocol=2).make_connection()  # type: ignore[no-untyped-call]
    await connection.connect()
    for start in range(0, len(commands), GROUP):
        some = commands[start : start + GROUP]
        await connection.send_packed_command(connection.pack_commands(some))
        for _ in some:
            await connection.read_response(disable_decoding=True)
    await connection.disconnect()


async def by_own_means(url: str, commands: list[tuple[bytes, ...]]) -> None:
    port = int(url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    replies = ReplyReader()
    for start in range(0, len(commands), GROUP):
        some = commands[start : start + GROUP]
        writer.write(b"".join(encode(*command) for command in some))
        missing = len(some)
        while missing:
            missing -= len(replies.feed(await reader.read(1 << 18)))
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("carry", [by_pipeline, by_connection, by_own_means])
@pytest.mark.parametrize("what", ["set", "get"])
def test_the_wire(
    benchmark: BenchmarkFixture,
    tmp_path: Path,
    carry: Callable[..., object],
    what: str,
) -> None:
    """One batch at a time, so times include the server's work; CPU time is the client's."""
    keys = [b"mat:{000}:r:%b/128" % home.hex().encode() for home in HOMES]
    commands: list[tuple[bytes, ...]] = [(b"GET", key) for key in keys]
    if what == "set":
        commands = [(b"SET", key, bytes(46), b"EX", b"240") for key in keys]
    cpu = 0.0
    with redis_server(tmp_path / "data") as server:

        def carry_out() -> None:
            nonlocal cpu
            before = time.process_time()
            uvloop.run(carry(server.url, commands))  # type: ignore[arg-type]
            cpu += time.process_time() - before

        benchmark.pedantic(carry_out, rounds=ROUNDS)  # type: ignore[no-untyped-call]
    report(benchmark)
    benchmark.extra_info["µs of CPU per command"] = round(cpu / ROUNDS / EFFECTS * 1e6, 1)
