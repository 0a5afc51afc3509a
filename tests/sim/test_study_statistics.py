"""Intervals, warm-up and estimates against what is known to be true."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from mat_files.results import Provenance, Results
from mat_sim.study import (
    Statistic,
    batch_means,
    estimate,
    mser5,
    parsed,
    quantile_interval,
    steady_state,
    student_t,
    welch,
)
from tests.files.test_results import handover

STUDIES = 2000
"""How often an interval is made to count how often it holds the truth."""
NOISE = 3 * math.sqrt(0.95 * 0.05 / STUDIES)
"""How far a coverage of 95 % may be from it by chance, in so many studies."""


def ar1(random: np.random.Generator, length: int, begin: float = 0.0) -> NDArray[np.float64]:
    """An autoregressive series with mean 0 that begins elsewhere: x' = 0.8 x + a normal draw."""
    values = np.empty(length)
    value = begin
    for index, draw in enumerate(random.normal(size=length)):
        value = 0.8 * value + draw
        values[index] = value
    return values


# --- intervals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("runs", [2, 5, 20])
def test_of_100_intervals_of_a_mean_95_hold_it(runs: int) -> None:
    random = np.random.default_rng(1)
    found = [student_t(random.normal(3.0, 2.0, runs)) for _ in range(STUDIES)]
    held = np.mean([interval.low <= 3.0 <= interval.high for interval in found])
    assert held == pytest.approx(0.95, abs=NOISE)


def test_an_interval_of_less_confidence_holds_the_mean_as_often_as_it_says() -> None:
    random = np.random.default_rng(2)
    found = [student_t(random.normal(3.0, 2.0, 8), 0.8) for _ in range(STUDIES)]
    held = np.mean([interval.low <= 3.0 <= interval.high for interval in found])
    assert held == pytest.approx(0.8, abs=3 * math.sqrt(0.8 * 0.2 / STUDIES))


def test_a_students_interval_by_hand() -> None:
    found = student_t([1.0, 2.0, 3.0])
    half = 4.302652729911275 / math.sqrt(3)  # t of 2 degrees of freedom at 0.975
    assert (found.value, found.count) == (2.0, 3)
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half))
    assert found.half_width == pytest.approx(half)
    assert found.relative == pytest.approx(half / 2)


def test_one_value_or_none_has_no_interval() -> None:
    alone, nothing = student_t([5.0, math.nan]), student_t([])
    assert (alone.value, alone.count) == (5.0, 1)
    assert math.isnan(alone.low)
    assert math.isnan(alone.relative)
    assert math.isnan(student_t([0.0]).relative)
    assert "no interval" in str(alone)
    assert (math.isnan(nothing.value), nothing.count) == (True, 0)


def test_values_without_spread_have_an_interval_of_width_0() -> None:
    assert student_t([0.0, 0.0]).relative == 0
    assert student_t([-1.0, 1.0]).relative == math.inf


@pytest.mark.parametrize(("quantile", "size"), [(0.5, 30), (0.9, 100), (0.99, 500)])
def test_the_interval_of_a_quantile_holds_it_at_least_as_often_as_it_says(
    quantile: float, size: int
) -> None:
    random = np.random.default_rng(3)
    truth = -math.log(1 - quantile)
    found = [quantile_interval(random.exponential(size=size), quantile) for _ in range(STUDIES)]
    held = np.mean([interval.low <= truth <= interval.high for interval in found])
    assert 0.95 - NOISE <= held <= 0.99


def test_a_high_quantile_of_few_values_has_no_upper_end() -> None:
    found = quantile_interval(np.arange(100.0), 0.99)
    assert math.isnan(found.high)
    assert found.value == pytest.approx(98.01)


def test_batch_means_hold_the_mean_of_dependent_values_and_single_values_do_not() -> None:
    random = np.random.default_rng(4)
    series = [ar1(random, 2000)[200:] for _ in range(400)]
    batched = np.mean([abs(e.value) <= e.half_width for e in map(batch_means, series)])
    single = np.mean([abs(e.value) <= e.half_width for e in map(student_t, series)])
    assert batched == pytest.approx(0.95, abs=0.04)
    assert single < 0.6


def test_batches_are_equal_and_the_first_values_are_left_over() -> None:
    found = batch_means([100, 1, 1, 3, 3], 2)
    assert (found.value, found.count) == (2.0, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: student_t([1, 2], 95), "confidence is 95; must be between 0 and 1"),
        (lambda: quantile_interval([1, 2], 1), "quantile is 1; must be between 0 and 1"),
        (lambda: batch_means([1, 2], 3), "2 values cannot be cut into 3 batches"),
        (lambda: batch_means([1, 2], 1), "two batches or more"),
        (lambda: mser5(range(49)), "49 values are too few for MSER-5; it needs 50"),
        (lambda: mser5([*range(60), math.nan]), "value 60 is nan; must be a finite number"),
        (lambda: batch_means([1, math.inf, 2], 2), "value 1 is inf; must be a finite number"),
        (lambda: welch([range(20), [math.nan] * 20], 2), "value 1, 0 is nan; must be a finite"),
        (lambda: welch([range(20)], 5), "window is 5; must be 0 or more, and less than a quarter"),
    ],
)
def test_what_cannot_be_computed_is_said(call: object, message: str) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match=message):
        call()


# --- warm-up --------------------------------------------------------------------------------------


def test_mser_cuts_a_transient_where_it_has_died_down() -> None:
    random = np.random.default_rng(5)
    cuts, means, raw = [], [], []
    for _ in range(50):
        values = ar1(random, 2000, begin=200.0)
        found = mser5(values)
        assert found.settled
        cuts.append(found.cut)
        means.append(values[found.cut :].mean())
        raw.append(values.mean())
    # 200 · 0.8^n is a standard deviation of the series (1.67) at n = 21, a tenth of that at 32.
    assert 15 <= np.median(cuts) <= 40
    assert abs(np.mean(means)) < 0.05
    assert np.mean(raw) > 0.35


def test_mser_by_hand() -> None:
    values = np.repeat([9.0, 9.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0], 5)
    found = mser5(values)
    assert found.cut == 10
    assert found.curve[2] == pytest.approx(10 * 0.25 / 10**2)
    assert found.curve[0] == pytest.approx(np.var([9, 9, *[1, 2] * 5]) / 12)


def test_mser_says_of_a_run_that_ends_in_its_transient_that_it_is_too_short() -> None:
    assert not mser5(np.linspace(0, 1, 500)).settled


def test_welch_averages_runs_and_smooths() -> None:
    found = welch([[0, 3, 6, 9, 12, 15], [2, 5, 8, 11, 14, 17]], 1)
    assert found.curve.tolist() == pytest.approx([1, 4, 7, 10, 13])
    spike = np.zeros(20)
    spike[10] = 7.0
    assert welch(spike, 3).curve.tolist() == pytest.approx([0] * 7 + [1] * 7 + [0] * 3)


def test_welch_cuts_a_transient_and_nothing_where_there_is_none() -> None:
    random = np.random.default_rng(6)
    cuts = [welch([ar1(random, 1000, begin=200.0) for _ in range(10)], 20).cut for _ in range(20)]
    assert 20 <= np.median(cuts) <= 60
    steady = [welch([ar1(random, 1100)[100:] for _ in range(10)], 20).cut for _ in range(20)]
    assert np.median(steady) == 0


def test_welch_says_of_a_run_that_drifts_that_it_has_not_settled() -> None:
    assert not welch([np.linspace(0, 1, 400)], 10).settled
    random = np.random.default_rng(7)
    assert welch([ar1(random, 1000) for _ in range(20)], 10).settled


# --- estimates from results -----------------------------------------------------------------------


def results(*runs: Sequence[Mapping[str, object]], first_run: int = 0) -> Results:
    rows = [
        handover(ordinal=ordinal, **{"run": first_run + run, **row})
        for run, rows in enumerate(runs)
        for ordinal, row in enumerate(rows, 1)
    ]
    provenance = Provenance("1", "", "", 1, first_run=first_run, runs=len(runs))
    return Results.build(provenance, rows, [], [])


def totals(*runs: list[float]) -> Results:
    return results(*([{"total": value} for value in values] for values in runs))


@pytest.mark.parametrize(
    ("by", "values"),
    [
        ("mean", [2.0, 6.0]),
        ("median", [2.0, 5.0]),
        ("min", [1.0, 5.0]),
        ("max", [3.0, 8.0]),
        ("sum", [6.0, 18.0]),
        ("count", [3.0, 3.0]),
        (0.5, [2.0, 5.0]),
        (0, [1.0, 5.0]),
        (np.ptp, [2.0, 3.0]),
    ],
)
def test_a_statistic_is_taken_from_each_run(by: object, values: list[float]) -> None:
    found = Statistic("total", by)  # type: ignore[arg-type]
    assert found.per_run(totals([1, 2, 3], [5, 5, 8])) == values


def test_an_estimate_is_the_mean_of_the_runs_values_with_its_interval() -> None:
    found = estimate(totals([1, 3], [2, 4], [3, 5]), "total", "max", confidence=0.9)
    assert found == student_t([3, 4, 5], 0.9)


def test_rows_without_a_value_do_not_count_and_runs_without_rows_have_none() -> None:
    some = results([{"total": 1.0}, {}], [{}], [])
    assert Statistic("total").per_run(some)[0] == 1.0
    assert np.isnan(Statistic("total").per_run(some)[1:]).all()
    assert Statistic("total", "count").per_run(some) == [1, 0, 0]
    assert Statistic("total", "sum").per_run(some) == [1, 0, 0]
    assert estimate(some).count == 1


def test_a_comparison_is_a_proportion_of_the_rows_that_have_a_value() -> None:
    some = results([{"total": 0.5}, {"total": 1.5}, {}], [{"total": 1.5, "lost_up": 3}])
    assert Statistic("total > 1").per_run(some) == [0.5, 1.0]
    assert Statistic("lost_up > 1").per_run(some)[1] == 1.0
    assert math.isnan(Statistic("lost_up > 1").per_run(some)[0])
    assert Statistic("outcome == 'unfinished'").per_run(some) == [1.0, 1.0]


def test_rows_are_chosen_by_where() -> None:
    some = results([{"total": 1.0, "kind": "soft"}, {"total": 3.0, "lost_up": 2}])
    assert Statistic("total", where="kind == 'hard'").per_run(some) == [3.0]
    assert Statistic("total", where="lost_up > 0").per_run(some) == [3.0]


def test_an_expression_adds_columns_up() -> None:
    burst = results([{"time": 10.0, "total": 2.0}, {"time": 11.0, "total": 0.5}, {"time": 12.0}])
    assert Statistic("time + total", "max").per_run(burst) == [12.0]


def test_runs_are_counted_from_the_first_that_the_results_have() -> None:
    assert Statistic("total").per_run(results([{"total": 7.0}], first_run=5)) == [7.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Statistic("totl"), "'totl': handovers has no column totl; there are: "),
        (lambda: Statistic("total", "avg"), "'avg' is no statistic; there are: mean, median"),  # type: ignore[arg-type]
        (lambda: Statistic("total", 99), "quantile is 99; must be from 0 to 1"),
        (lambda: Statistic("total >"), "'total >' is no column and no expression"),
        (lambda: Statistic("1 + 1"), "'1 . 1' names no column of handovers"),
        (lambda: Statistic("total", where="x > 1"), "'x > 1': handovers has no column x"),
        (lambda: Statistic("total", table="ims"), "'total': ims has no column total"),
        (lambda: Statistic("total", table="cars"), "'cars' is no table; there are"),  # type: ignore[arg-type]
        (lambda: Statistic("kind"), "'kind' is no number; .* compare text: kind == 'hard'"),
        (lambda: Statistic("time + kind"), "'time . kind' cannot be computed"),
        (lambda: Statistic("total > 'a'"), "cannot be computed"),
        (lambda: Statistic("total if total else 1"), "cannot be computed"),
        (lambda: Statistic("total.max()"), "method of a column.*; name a statistic .* total:max"),
        (lambda: Statistic("[total]"), "is not one value for each row"),
        (lambda: Statistic("total", where="total"), "'total' is no condition; write for example"),
        (lambda: Statistic("total", where="kind > 1"), "'kind > 1' cannot be computed"),
        (lambda: parsed("total:99"), "quantile is 99"),
        (lambda: parsed("total:most"), "'most' is no statistic"),
    ],
)
def test_what_names_no_statistic_is_said(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("text", "statistic"),
    [
        ("total", Statistic("total")),
        ("total:0.99", Statistic("total", 0.99)),
        ("interruption_down:max", Statistic("interruption_down", "max")),
    ],
)
def test_a_statistic_on_the_command_line(text: str, statistic: Statistic) -> None:
    assert parsed(text) == statistic
    assert statistic.name == text


def test_the_unit_of_a_statistic_is_its_columns() -> None:
    assert Statistic("total", 0.9).unit == "s"
    assert Statistic("lost_up", "sum").unit == "packets"
    assert Statistic("total", "count").unit == ""
    assert Statistic("total > 1").unit == ""


# --- steady state ---------------------------------------------------------------------------------


def waits(*series: NDArray[np.float64], servers: int = 1) -> Results:
    rows = [
        {
            "run": run,
            "ims": f"IMS{server}",
            "start": float(start),
            "interval": 1.0,
            "received": 1,
            "answered": 1,
            "refused": 0,
            "wait_mean": value,
        }
        for run, values in enumerate(series)
        for server in range(servers)
        # Not in order of time, as nothing says that rows are.
        for start, value in reversed(list(enumerate(values)))
    ]
    return Results.build(Provenance("1", "", "", 1, runs=len(series)), [], [], rows)


def test_a_steady_state_leaves_out_each_runs_warm_up() -> None:
    random = np.random.default_rng(8)
    found = steady_state(waits(*(ar1(random, 600, begin=200.0) for _ in range(5))))
    assert found.settled
    assert all(10 <= warm_up.cut <= 60 for warm_up in found.warm_ups)
    assert found.estimate.count == 5
    assert abs(found.estimate.value) < 0.5


def test_a_steady_state_of_one_run_is_that_of_its_batches() -> None:
    values = ar1(np.random.default_rng(9), 2000, begin=200.0)
    found = steady_state(waits(values), batches=10)
    assert found.estimate == batch_means(values[found.warm_ups[0].cut :], 10)


def test_servers_are_not_mixed() -> None:
    values = ar1(np.random.default_rng(9), 100)
    with pytest.raises(ValueError, match="run 0 has several servers; choose one with where"):
        steady_state(waits(values, servers=2))
    chosen = steady_state(waits(values, servers=2), where="ims == 'IMS1'")
    assert chosen.warm_ups[0].cut == mser5(values).cut


def test_messages_have_no_steady_state() -> None:
    with pytest.raises(ValueError, match="messages has no times"):
        steady_state(waits(np.zeros(60)), "sent", table="messages")
