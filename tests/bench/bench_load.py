"""The load generator by itself: what a steady rate costs it, and what it prepares beforehand.

    pytest tests/bench/bench_load.py --benchmark-columns=min,median --benchmark-json=load.json

It talks to a server that costs nothing (`reflector`) on another processor. The extra info has the
messages per second of processor time, how busy the processor was, and how late the generator was:
a rate is steady if all was answered and the generator kept time.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from mat.address import parse_address
from mat.messages import Endpoint
from mat_real.load.forms import Kind
from mat_real.load.generator import LoadGenerator, Timing
from mat_real.load.measures import Run, doubts, lateness, main, quantiles
from mat_real.load.patterns import CHAINS, Plan, at_once, steady
from mat_real.load.play import Player
from mat_real.load.population import Population, Target, populate
from mat_real.load.volley import Volley
from tests.real.tiny_ims import some_keys

ROOT = Path(__file__).parents[2]
NODES = 20_000
SECONDS = 5.0


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    processors = sorted(os.sched_getaffinity(0))
    folders = [ROOT, ROOT / "files", ROOT / "real"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))}
    command = [sys.executable, "-m", "tests.bench.reflector", str(processors[-1])]
    piped = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=piped, stdout=piped) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = int(process.stdout.readline())
        os.sched_setaffinity(0, {processors[0]})
        yield Target(Endpoint(parse_address("127.0.0.1"), port))
        os.sched_setaffinity(0, processors)
        process.stdin.close()


def population(target: Target) -> Population:
    return populate(some_keys(NODES), [target], None, np.random.default_rng(1))


@pytest.mark.parametrize("rate", [10_000, 100_000, 150_000])
def test_steady_queries_on_one_processor(
    benchmark: BenchmarkFixture, target: Target, rate: int
) -> None:
    player = Player(population(target), [target])
    plan = Plan(CHAINS["query"], *steady(rate, SECONDS)(NODES, np.random.default_rng(1)))
    used: list[float] = []

    def play() -> Run:
        before = time.process_time()
        run = player.play("steady", plan, Timing())
        used.append(time.process_time() - before)
        return run

    pedantic: Any = benchmark.pedantic
    run: Run = pedantic(play, rounds=1)
    about = main(run.ledger)
    median, _, late, *_ = quantiles(lateness(run.ledger))
    benchmark.extra_info |= {
        "queries answered per second": round(about.done / run.ledger.ended),
        "lost": about.lost,
        "sent again": about.repeated,
        "processor": f"{used[0] / run.ledger.ended:.0%}",
        "µs of processor per query and answer": round(used[0] / about.done * 1e6, 2),
        "late, ms: median, p99": f"{median * 1000:.1f}, {late * 1000:.1f}",
        "doubts": doubts(run),
    }
    assert about.begun == len(plan)


def test_encoding_and_signing_of_updates(benchmark: BenchmarkFixture, target: Target) -> None:
    """Of NODES IMS Updates, before a run."""
    nodes = population(target)
    plan = Plan((Kind.UPDATE,), *at_once(NODES, np.random.default_rng(1)))
    volley = Volley([target.endpoint], 1)
    try:
        benchmark(LoadGenerator, nodes, plan, volley, Timing())
    finally:
        volley.close()
