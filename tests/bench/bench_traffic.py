"""Traffic with and without an event for every packet: events and time per handover.

    pytest tests/bench/bench_traffic.py --benchmark-json=traffic.json

500 nodes with a correspondent each, 50 packets a second each way, 300 s, a hard handover per
node and minute. With events, a few of them stand for all: what a node takes does not depend
on how many there are. Events and milliseconds of processor time per handover are in the extra info;
what counts is the ratio.
"""

from pathlib import Path
from random import Random
from time import process_time

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from mat_files.scenario import Scenario
from mat_sim.engine import Run, simulate
from tests.sim.test_engine import SHARED, scenario

ONCE = pytest.mark.benchmark(min_rounds=1, max_time=0.1)
DURATION = 300


def moves(nodes: int) -> str:
    random, rows = Random(1), [(0.0, f"m{node} attach A") for node in range(nodes)]
    for node in range(nodes):
        here, time = "A", random.uniform(5, 60)
        while time < DURATION - 5:
            there = random.choice([network for network in "ABC" if network != here])
            rows += [(time, f"m{node} detach {here}"), (time, f"m{node} attach {there}")]
            here, time = there, time + random.uniform(30, 90)
    rows.sort(key=lambda row: row[0])
    return ", ".join(f"{time:.6f} {row}" for time, row in rows)


def described(folder: Path, nodes: int, events: str, kind: str) -> Scenario:
    values = {
        "scenario.duration": DURATION,
        "nodes.interfaces": 1,
        "correspondents.count": nodes,
        "traffic.up": 50,
        "traffic.down": 50,
        "traffic.events": f"'{events}'",
        "traffic.kind": f"'{kind}'",
        "ims.0.service": 0.00001,
    }
    overrides = [f"{key}={value}" for key, value in values.items()]
    return scenario(folder, moves(nodes), *overrides, ims=SHARED)


def timed(described: Scenario) -> tuple[Run, float]:
    before = process_time()
    run = simulate(described)
    return run, process_time() - before


@ONCE
@pytest.mark.parametrize("kind", ["cbr", "poisson", "onoff"])
@pytest.mark.parametrize(("events", "nodes"), [("packets", 20), ("changes", 20), ("changes", 500)])
def test_traffic(
    benchmark: BenchmarkFixture, tmp_path: Path, events: str, nodes: int, kind: str
) -> None:
    run, taken = benchmark(timed, described(tmp_path, nodes, events, kind))
    handovers = len(run.results.handovers)
    benchmark.extra_info.update(
        handovers=handovers,
        packets=int(run.results.flows["sent"].sum()),
        events_per_handover=round(run.happenings / handovers),
        milliseconds_per_handover=round(1e3 * taken / handovers, 2),
    )
