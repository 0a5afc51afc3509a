"""Random times have the mean that they say."""

from random import Random

import pytest

from mat_files.distributions import Constant, Distribution, Exponential, Normal, Uniform, parse


@pytest.mark.parametrize(
    "distribution",
    [Constant(0.2), Uniform(0.1, 0.5), Exponential(0.3), Normal(0.3, 0.05), Normal(0.1, 0.2)],
)
def test_draws_have_the_stated_mean_and_are_never_negative(distribution: Distribution) -> None:
    random = Random(1)
    draws = [distribution.sample(random) for _ in range(20_000)]
    assert min(draws) >= 0
    assert sum(draws) / len(draws) == pytest.approx(distribution.mean, rel=0.02)


@pytest.mark.parametrize(
    "distribution", [Constant(0.2), Uniform(0.1, 0.5), Exponential(0.3), Normal(0.3, 0.05)]
)
def test_equal_randomness_gives_equal_draws(distribution: Distribution) -> None:
    first, second = Random(7), Random(7)
    assert [distribution.sample(first) for _ in range(5)] == [
        distribution.sample(second) for _ in range(5)
    ]


@pytest.mark.parametrize(
    "value", [True, None, "1", [1, 2], {}, {"uniform": [1]}, {"a": 1, "b": 2}, float("nan"), -1]
)
def test_anything_else_is_refused_with_the_forms_there_are(value: object) -> None:
    with pytest.raises(ValueError, match=r"must be a number of seconds, \{uniform = \[low, high\]"):
        parse(value)
