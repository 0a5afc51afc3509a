"""How many replications: a given number, or as many as a wanted precision takes."""

import itertools

import numpy as np
import pytest

from mat_sim.study import Precision, Statistic, student_t
from mat_sim.study._stopping import Replications


def finish(replications: Replications, values: dict[int, float]) -> None:
    for run, value in values.items():
        replications.finished(run, value)


def sequential(values: list[float], precision: Precision, runs: int = 1) -> Replications:
    """One run after the other, until there are enough."""
    replications = Replications(runs, precision)
    while (run := replications.next_run(surely=True)) is not None:
        replications.finished(run, values[run])
    return replications


def test_a_number_of_runs_is_that_number() -> None:
    replications = Replications(3, None)
    assert [replications.next_run(surely=False) for _ in range(4)] == [0, 1, 2, None]
    assert replications.enough == 3
    assert [replications.needed(run) for run in (0, 2, 3)] == [True, True, False]


def test_runs_go_on_until_the_interval_is_narrow_enough() -> None:
    values = np.random.default_rng(1).normal(10, 2, 200).tolist()
    precision = Precision(0.1, least=5)
    found = sequential(values, precision)
    assert found.reached
    assert found.enough is not None
    widths = [student_t(values[:runs]).relative for runs in range(5, found.enough + 1)]
    assert all(width > 0.1 for width in widths[:-1])
    assert widths[-1] <= 0.1
    assert found.estimate() == student_t(values[: found.enough])


def test_intervals_of_a_sequential_study_hold_the_mean_nearly_as_often_as_they_say() -> None:
    random = np.random.default_rng(2)
    held = []
    for _ in range(400):
        found = sequential(random.normal(10, 3, 200).tolist(), Precision(0.1)).estimate()
        assert found.relative <= 0.1
        held.append(found.low <= 10 <= found.high)
    assert np.mean(held) == pytest.approx(0.94, abs=0.035)


def test_there_are_no_fewer_runs_than_the_least_and_no_more_than_the_most() -> None:
    assert sequential([1.0] * 100, Precision(0.1)).enough == 10
    assert sequential([1.0] * 100, Precision(0.1), runs=25).enough == 25
    wide = sequential([0.0, 100.0] * 50, Precision(0.1, least=2, most=30))
    assert (wide.enough, wide.reached) == (30, False)


def test_runs_without_a_value_do_not_end_the_study() -> None:
    nothing = sequential([float("nan")] * 20, Precision(0.1, most=15))
    assert (nothing.enough, nothing.reached) == (15, False)


@pytest.mark.parametrize("order", list(itertools.permutations(range(5))))
def test_the_order_in_which_runs_finish_changes_nothing(order: tuple[int, ...]) -> None:
    values = [1.0, 3.0, 2.0, 2.0, 2.0]
    precision = Precision(0.7, least=3, most=5)
    alone = sequential(values, precision)
    replications = Replications(1, precision)
    finish(replications, {run: values[run] for run in order})
    assert replications.enough == alone.enough == 4
    assert [replications.needed(run) for run in range(5)] == [True] * 4 + [False]


def test_whether_a_run_is_needed_is_open_until_those_before_it_are_done() -> None:
    replications = Replications(1, Precision(0.1, least=2, most=9))
    assert [replications.needed(run) for run in (1, 2)] == [True, None]
    finish(replications, {0: 1.0, 1: 9.0})
    assert [replications.needed(run) for run in (2, 3)] == [True, None]


def test_a_run_beyond_those_needed_is_begun_only_on_demand() -> None:
    replications = Replications(1, Precision(0.1, least=2, most=4))
    assert [replications.next_run(surely=True) for _ in range(3)] == [0, 1, None]
    assert [replications.next_run(surely=False) for _ in range(3)] == [2, 3, None]


def test_runs_that_are_there_are_not_begun() -> None:
    replications = Replications(4, None)
    finish(replications, {0: 0.0, 2: 0.0})
    assert [replications.next_run(surely=True) for _ in range(3)] == [1, 3, None]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"relative": 0}, "precision is 0; must be greater than 0"),
        ({"relative": 0.1, "confidence": 95}, "confidence is 95; must be between 0 and 1"),
        ({"relative": 0.1, "least": 1}, "between 1 and 200 runs cannot be"),
        ({"relative": 0.1, "least": 20, "most": 10}, "between 20 and 10 runs cannot be"),
    ],
)
def test_what_is_no_precision_is_said(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Precision(of=Statistic(), **values)  # type: ignore[arg-type]
