"""When who begins: at the times that were asked for, whoever listens."""

from collections.abc import Callable

import numpy as np
import pytest

from mat_files.library import find_scenario
from mat_files.mobility import mobility
from mat_files.scenario import load_scenario
from mat_real.load.forms import Kind
from mat_real.load.patterns import (
    CHAINS,
    Pattern,
    Plan,
    from_scenario,
    poisson,
    simultaneous,
    steady,
)
from mat_real.load.population import LoadError


def random() -> np.random.Generator:
    return np.random.default_rng(7)


def test_simultaneous_is_every_node_once_within_the_window() -> None:
    nodes, starts = simultaneous(2.0)(1000, random())
    assert sorted(nodes.tolist()) == list(range(1000))
    assert (np.diff(starts) >= 0).all()
    assert starts[0] >= 0
    assert starts[-1] <= 2.0
    assert np.histogram(starts, 4, (0, 2))[0].min() > 200, "not all over the window"


def test_simultaneous_within_no_time_is_all_at_once() -> None:
    assert simultaneous(0.0)(5, random())[1].tolist() == [0.0] * 5


def test_steady_has_equal_distances_and_takes_the_nodes_in_turn() -> None:
    nodes, starts = steady(100.0, 0.3)(10, random())
    assert starts.tolist() == pytest.approx([k / 100 for k in range(30)])
    assert nodes[:10].tolist() == nodes[10:20].tolist() == nodes[20:].tolist()
    assert sorted(nodes[:10].tolist()) == list(range(10))


def test_poisson_has_the_rate_and_exponential_distances() -> None:
    nodes, starts = poisson(1000.0, 20.0)(50, random())
    assert len(starts) == pytest.approx(20_000, rel=0.05)
    gaps = np.diff(starts)
    assert gaps.min() >= 0
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05), "as an exponential distribution has"
    assert np.bincount(nodes).min() >= len(nodes) // 50


@pytest.mark.parametrize("pattern", [simultaneous(1.0), steady(10.0, 3.0), poisson(10.0, 3.0)])
def test_equal_seeds_give_equal_plans(pattern: Pattern) -> None:
    one, two = pattern(20, random()), pattern(20, random())
    assert [column.tolist() for column in one] == [column.tolist() for column in two]


def test_a_plan_knows_each_nodes_procedure_before_and_its_ordinal() -> None:
    nodes = np.array([3, 1, 3, 3, 0, 1])
    plan = Plan((Kind.UPDATE,), nodes, np.arange(6.0))
    assert plan.previous.tolist() == [-1, -1, 0, 2, -1, 1]
    assert plan.ordinals.tolist() == [1, 1, 2, 3, 1, 2]
    assert Plan((Kind.UPDATE,), nodes, np.arange(6.0), first=0).ordinals.tolist()[3] == 2
    assert plan.last_start == 5.0


def test_a_plan_without_procedures_is_one() -> None:
    plan = Plan((Kind.QUERY,), np.zeros(0, np.intp), np.zeros(0))
    assert (len(plan), plan.last_start) == (0, 0.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: steady(1e6, 100.0)(10, random()),
        lambda: poisson(1e6, 100.0)(10, random()),
        lambda: Plan(CHAINS["handover"], np.zeros(3_000_000, np.intp), np.zeros(3_000_000)),
    ],
)
def test_more_requests_than_fit_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(LoadError, match=r"\d+ requests; at most \d+ fit one run: lower"):
        make()


def test_the_handovers_of_first_are_hard_and_begin_with_the_first_of_them() -> None:
    movement = mobility(load_scenario(find_scenario("first")))
    nodes, starts, networks = from_scenario(movement.events, movement.nodes, 2.0)
    times = [event.time for event in movement.events if event.action == "attach"][1:]
    assert nodes.tolist() == [0, 0, 0]
    assert starts.tolist() == [(time - times[0]) / 2 for time in times]
    assert list(zip(networks.before, networks.after, networks.soft, strict=True)) == [
        ("A", "B", False),
        ("B", "C", False),
        ("C", "A", False),
    ]


def test_the_handovers_of_town_are_those_that_the_simulator_counts() -> None:
    movement = mobility(load_scenario(find_scenario("town")))
    nodes, starts, networks = from_scenario(movement.events, movement.nodes, 1.0)
    assert len(nodes) == 273
    assert (np.diff(starts) >= 0).all()
    assert any(networks.soft)
    assert all(a != b for a, b in zip(networks.before, networks.after, strict=True))


def test_a_scenario_where_nobody_moves_is_refused() -> None:
    movement = mobility(load_scenario(find_scenario("first")))
    with pytest.raises(LoadError, match="the scenario has no handover"):
        from_scenario(movement.events[:1], movement.nodes, 1.0)
