"""A million mappings: memory of the server, and time from its start to its first answer.

    pytest tests/bench/bench_ims_million.py --benchmark-json=million.json

Memory (proportional set size of supervisor and worker, keys included) is in the extra info of the
JSON file. The time includes the interpreter's start.
"""

import shutil
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from mat.address import from_ipv4
from mat.authentication import Key
from mat.messages import EXACT
from mat.registrations import Registration, pack
from mat_real.ims.clock import remembered
from mat_real.store.journal import Journal, create
from tests.real.ims_server import Client, Server, free_port, started, write_keys

NODES = 1_000_000
GROUP = 1000


@pytest.fixture(scope="module")
def folder() -> Generator[Path]:
    made = Path("build/bench-million").resolve()
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    write_keys(made / "keys", (key(number) for number in range(NODES)))
    create(made / "ims.store", 0, remembered("", 0.0))
    journal = Journal(made / "ims.store")
    now = time.time()
    for start in range(0, NODES, GROUP):
        numbers = range(start, start + GROUP)
        journal.append(b"".join(entry(number, now) for number in numbers), GROUP, None)
    journal.close()
    yield made
    shutil.rmtree(made)


def key(number: int) -> Key:
    home = from_ipv4(bytes((10, *number.to_bytes(3, "big"))))
    return Key(number + 1, b"a secret of 32 bytes %11d" % number, home)


def entry(number: int, now: float) -> bytes:
    moved = from_ipv4(bytes((172, *number.to_bytes(3, "big"))))
    one = Registration(key(number).home_address, EXACT, (moved,), 1 << 32, 1 << 32, now, 600)
    return one.home_address + pack(one)


def proportional_memory(pid: int) -> int:
    """Bytes of a process, with shared pages divided among those that share them."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) << 10


def test_restart_with_a_million_mappings(benchmark: BenchmarkFixture, folder: Path) -> None:
    port = free_port()
    tables = {"ims": {"zones": '["10.0.0.0/8"]'}}
    servers: list[Server] = []
    memory: list[int] = []

    def restart() -> None:
        servers.append(started(folder, port, tables))
        with Client(port) as node:
            answer = node.query("10.15.66.63", attempts=100)
            assert answer is not None
            assert answer.mobile_addresses

    def stop() -> None:
        for server in servers:
            if server.process.poll() is None:
                pids = [server.process.pid, *server.workers()]
                memory.append(sum(map(proportional_memory, pids)))
                server.kill()

    try:
        run: object = benchmark.pedantic
        assert callable(run)
        run(restart, setup=stop, rounds=3)
    finally:
        stop()
    benchmark.extra_info["megabytes"] = round(max(memory) / 1e6)
