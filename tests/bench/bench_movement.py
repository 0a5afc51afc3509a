"""Movement: a crowd of a million, 100,000 who wander for ten minutes, and the town's coverage.

    pytest tests/bench/bench_movement.py --benchmark-json=movement.json

Memory (the most that is allocated at a time, and what is kept) is in the extra info of the JSON
file, in MB. `row by row` is the coverage model of the tests, which leaves nothing out.
"""

import tracemalloc
from collections.abc import Callable, Sequence

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from mat_files.attachment import AttachmentEvent
from mat_files.coverage import coverage_events
from mat_files.library import find_scenario
from mat_files.mobility import Mobility, mobility
from mat_files.scenario import Scenario, load_scenario
from mat_files.traces import Trace, read_trace
from tests.files.straightforward_coverage import straightforward_events
from tests.files.test_traces import SCENARIOS

ONCE = pytest.mark.benchmark(min_rounds=1, max_time=0.1)


def built(benchmark: BenchmarkFixture, scenario: Scenario) -> Mobility:
    tracemalloc.start()
    found = mobility(scenario)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    events = len(found.events)
    benchmark.extra_info.update(events=events, kept=round(kept / 1e6), peak=round(peak / 1e6))
    benchmark(mobility, scenario)
    return found


@ONCE
@pytest.mark.parametrize("overlap", [0, 1])
def test_a_crowd_of_a_million(benchmark: BenchmarkFixture, overlap: int) -> None:
    values = ["nodes.count=1000000", f"movement.crowd.overlap={overlap}", "nodes.interfaces=2"]
    assert (
        len(built(benchmark, load_scenario(find_scenario("stadium"), values)).events) == 3_000_000
    )


@ONCE
def test_a_train_of_a_hundred_thousand(benchmark: BenchmarkFixture) -> None:
    scenario = load_scenario(find_scenario("train"), ["nodes.count=100000"])
    assert len(built(benchmark, scenario).events) == 500_000


@ONCE
@pytest.mark.parametrize("nodes", [10_000, 100_000])
def test_wandering_for_ten_minutes(benchmark: BenchmarkFixture, nodes: int) -> None:
    """Nine networks of the town, everybody looks around every second."""
    values = [
        "movement={random_waypoint = {size = [1900, 1900], origin = [250, 350]}}",
        f"nodes.count={nodes}",
        "scenario.duration=600",
    ]
    assert len(built(benchmark, load_scenario(find_scenario("town"), values)).events) > nodes


@pytest.mark.parametrize("model", [coverage_events, straightforward_events], ids=["", "row by row"])
@pytest.mark.parametrize("interfaces", [1, 2])
def test_coverage_of_the_town(
    benchmark: BenchmarkFixture,
    model: Callable[..., Sequence[AttachmentEvent]],
    interfaces: int,
) -> None:
    trace: Trace = read_trace(SCENARIOS / "town.fcd.xml.gz")
    networks = load_scenario(find_scenario("town")).networks
    assert benchmark(model, trace, networks, hysteresis=100.0, interfaces=interfaces)
