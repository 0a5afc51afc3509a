"""Random times have the mean that they say."""

import tomllib
from random import Random

import pytest

from mat_files.distributions import (
    Constant,
    Distribution,
    Empirical,
    Exponential,
    Normal,
    Uniform,
    parse,
)


@pytest.mark.parametrize(
    "distribution",
    [
        Constant(0.2),
        Uniform(0.1, 0.5),
        Exponential(0.3),
        Normal(0.3, 0.05),
        Normal(0.1, 0.2),
        Empirical((0.1, 0.2, 0.2, 0.9)),
        Empirical((0.0, 0.3)),
    ],
)
def test_draws_have_the_stated_mean_and_are_never_negative(distribution: Distribution) -> None:
    random = Random(1)
    draws = [distribution.sample(random) for _ in range(20_000)]
    assert min(draws) >= 0
    assert sum(draws) / len(draws) == pytest.approx(distribution.mean, rel=0.02)


@pytest.mark.parametrize(
    "distribution",
    [
        Constant(0.2),
        Uniform(0.1, 0.5),
        Exponential(0.3),
        Normal(0.3, 0.05),
        Empirical((0.1, 0.4, 0.5)),
    ],
)
def test_equal_randomness_gives_equal_draws(distribution: Distribution) -> None:
    first, second = Random(7), Random(7)
    assert [distribution.sample(first) for _ in range(5)] == [
        distribution.sample(second) for _ in range(5)
    ]


def test_an_empirical_distribution_has_the_quantiles_that_it_was_given() -> None:
    quantiles = (0.001, 0.002, 0.002, 0.004, 0.010)
    random = Random(1)
    draws = sorted(Empirical(quantiles).sample(random) for _ in range(40_001))
    assert [draws[k * 10_000] for k in range(5)] == pytest.approx(quantiles, rel=0.05)
    assert quantiles[0] <= draws[0] <= draws[-1] <= quantiles[-1]


def test_the_mean_of_an_empirical_distribution_is_exact() -> None:
    assert Empirical((0.0, 1.0)).mean == 0.5
    assert Empirical((1.0, 2.0, 6.0)).mean == pytest.approx(1.5 / 2 + 4.0 / 2)


@pytest.mark.parametrize(
    "distribution",
    [Constant(0.2), Uniform(0.1, 0.5), Exponential(0.3), Normal(0.3, 0.05), Empirical((0.1, 0.4))],
)
def test_a_distribution_is_written_as_it_is_read(distribution: Distribution) -> None:
    assert parse(tomllib.loads(f"time = {distribution}")["time"]) == distribution
    assert parse(distribution) is distribution


def test_quantiles_must_not_fall() -> None:
    with pytest.raises(ValueError, match=r"quantiles fall from 0\.3 to 0\.2; they must not fall"):
        parse({"quantiles": [0.1, 0.3, 0.2]})


@pytest.mark.parametrize(
    "value", [{"quantiles": []}, {"quantiles": [1]}, {"quantiles": 1}, {"quantiles": [-1, 1]}]
)
def test_a_distribution_needs_at_least_two_quantiles_that_are_times(value: object) -> None:
    with pytest.raises(ValueError, match=r"or \{quantiles = \[least, …, greatest\]\}, times being"):
        parse(value)


@pytest.mark.parametrize(
    "value", [True, None, "1", [1, 2], {}, {"uniform": [1]}, {"a": 1, "b": 2}, float("nan"), -1]
)
def test_anything_else_is_refused_with_the_forms_there_are(value: object) -> None:
    with pytest.raises(ValueError, match=r"must be a number of seconds, \{uniform = \[low, high\]"):
        parse(value)
