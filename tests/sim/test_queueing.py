"""An IMS as a queue, against queueing theory.

A population beside the simulated node (`[background]`) asks the real machine of an IMS. Each case
runs several times with independent randomness. A run's first interval is warm-up; the others are
batches, each some two hundred times as long as the queue remembers. What theory says must lie in
the 99.99 % confidence interval of the mean over all batches (Student's t), and the interval must be
narrow enough to tell a wrong model from the right one. `--log-cli-level=INFO` shows the figures.
"""

import functools
import logging
import math
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import pytest

from mat_files.distributions import Constant, Distribution, Empirical, Exponential, Uniform
from mat_files.scenario import About, Ims, Load, Network, Nodes, Scenario, Traffic
from mat_sim.engine import simulate
from mat_sim.theory import (
    erlang_b,
    erlang_c,
    md1_wait,
    mg1_wait,
    mixture,
    mm1_wait,
    mm1k_loss,
    mmc_wait,
    mmc_wait_quantile,
    moments,
    queue_length,
    variance,
)

SERVICE = 0.001
"""Mean service time, s."""
LENGTH = 6.0
"""An interval, s."""
BATCHES, RUNS = 7, 4
ERRORS = 4.562
"""Half of a 99.99 % confidence interval in standard errors, for 28 batches."""
MEASURED = Empirical((0.0002, 0.0003, 0.0004, 0.0005, 0.0036))
"""As a calibration has it: most are quick, and some are not. Its mean is that of the others."""


_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Measured:
    """A column of the table `ims`, over all batches."""

    batches: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.batches)

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return statistics.stdev(self.batches) / math.sqrt(len(self.batches))

    def agrees(self, theory: float, within: float) -> bool:
        """Whether theory is in the interval, which must be narrower than this share of it."""
        half = ERRORS * self.error
        _LOG.info("theory %.4g, simulated %.4g ± %.2g", theory, self.mean, half)
        assert half < within * theory, "the interval is too wide to tell"
        return abs(self.mean - theory) < half


def station(utilisation: float, service: Distribution, workers: int, queue: int) -> Scenario:
    """An IMS that Poisson arrivals would keep this busy."""
    rate = utilisation * workers / service.mean
    return Scenario(
        format=1,
        scenario=About(name="queue", duration=(1 + BATCHES) * LENGTH, interval=LENGTH),
        nodes=Nodes(count=1),
        network=(Network(name="A"),),
        traffic=Traffic(pairs="none"),
        ims=(Ims(name="IMS", service=service, workers=workers, queue=queue),),
        background=Load(nodes=1000, query=rate / 1000),
    )


@functools.cache
def batches(
    utilisation: float, service: Distribution, workers: int, queue: int
) -> dict[str, Measured]:
    """The columns of the table of a station."""
    return all_batches(station(utilisation, service, workers, queue))


def all_batches(scenario: Scenario) -> dict[str, Measured]:
    """The columns of the table after the warm-up."""
    tables = [simulate(scenario, run=run).results.ims.iloc[1:] for run in range(RUNS)]
    joined = pd.concat(tables)
    assert len(joined) == RUNS * BATCHES
    return {
        str(column): Measured(tuple(map(float, joined[column])))
        for column in joined.select_dtypes("number")
        if joined[column].notna().all()
    }


def measured(
    utilisation: float, service: Distribution, workers: int = 1, queue: int = 100_000
) -> dict[str, Measured]:
    """As `batches`, without an end to the queue."""
    return batches(utilisation, service, workers, queue)


# ---- the formulas --------------------------------------------------------------------------------


def test_erlangs_formulas_have_the_values_of_published_tables() -> None:
    assert erlang_b(10, 5.0) == pytest.approx(0.018385, abs=1e-6)
    assert erlang_c(2, 1.0) == pytest.approx(1 / 3)
    assert erlang_c(5, 3.0) == pytest.approx(0.23615, abs=1e-5)
    assert erlang_c(1, 0.7) == pytest.approx(0.7)


def test_special_cases_follow_from_the_general_ones() -> None:
    assert mm1_wait(700, SERVICE) == pytest.approx(0.7 / 0.3 * SERVICE)
    assert mg1_wait(700, Exponential(SERVICE)) == pytest.approx(mm1_wait(700, SERVICE))
    assert md1_wait(700, SERVICE) == pytest.approx(mm1_wait(700, SERVICE) / 2)
    assert mm1k_loss(1000, SERVICE, 4) == pytest.approx(1 / 5)
    assert mm1k_loss(500, SERVICE, 1) == pytest.approx(erlang_b(1, 0.5))


def test_a_mixture_has_the_moments_of_draws_of_its_types() -> None:
    types: list[tuple[float, Distribution]]
    types = [(3.0, Exponential(0.2)), (1.0, Uniform(0.5, 1.5)), (0.0, Constant(9.0))]
    stream = random.Random(1)
    kinds = stream.choices(types, [rate for rate, _ in types], k=100_000)
    draws = [time.sample(stream) for _, time in kinds]
    mixed = mixture(types)
    assert mixed.mean == pytest.approx(statistics.fmean(draws), rel=0.01)
    assert mixed.square == pytest.approx(statistics.fmean(x * x for x in draws), rel=0.02)
    assert mixture([(7.0, types[0][1])]) == moments(types[0][1])


@pytest.mark.parametrize("rates", [(), (0.0,), (2.0, -1.0)])
def test_a_mixture_of_nothing_is_an_error(rates: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must be 0 or more, and one of them above 0"):
        mixture([(rate, Constant(1.0)) for rate in rates])


def test_the_loss_of_an_overload_far_beyond_a_long_queue_is_what_is_too_much() -> None:
    assert mm1k_loss(100 / SERVICE, SERVICE, 1001) == pytest.approx(0.99)
    assert mm1k_loss(2 / SERVICE, SERVICE, 3) == pytest.approx(8 / 15)


@pytest.mark.parametrize(
    "call",
    [
        lambda: erlang_b(-1, 1.0),
        lambda: erlang_b(2, -1.0),
        lambda: mm1k_loss(-1.0, 1.0, 2),
        lambda: mm1k_loss(1.0, 1.0, -1),
        lambda: mmc_wait_quantile(0.5, 1.0, 1, 1.0),
        lambda: mmc_wait_quantile(0.5, 1.0, 1, -0.1),
    ],
)
def test_formulas_refuse_what_they_are_not_for(call: Callable[[], float]) -> None:
    with pytest.raises(ValueError, match=r"neither can be below 0|must be 0 or more and below 1"):
        call()


def test_the_quantile_is_where_the_tail_of_the_wait_has_the_rest() -> None:
    wait = mmc_wait_quantile(1400, SERVICE, 2, 0.99)
    tail = erlang_c(2, 1.4) * math.exp(-(2 / SERVICE - 1400) * wait)
    assert tail == pytest.approx(0.01)
    assert mmc_wait_quantile(1400, SERVICE, 2, 0.4) == 0


@pytest.mark.parametrize(
    "time", [Constant(0.2), Uniform(0.1, 0.4), Exponential(0.2), Empirical((0.1, 0.1, 0.7, 0.9))]
)
def test_the_variance_is_that_of_many_draws(time: Distribution) -> None:
    stream = random.Random(1)
    draws = [time.sample(stream) for _ in range(100_000)]
    assert variance(time) == pytest.approx(statistics.pvariance(draws), rel=0.03, abs=1e-12)


def test_workers_that_cannot_keep_up_are_an_error() -> None:
    with pytest.raises(ValueError, match="a load of 2 erlangs is too much for 2 workers"):
        mmc_wait(2000, SERVICE, 2)
    with pytest.raises(ValueError, match="must be less than 1"):
        mg1_wait(1000, Constant(SERVICE))


# ---- the station ---------------------------------------------------------------------------------


@pytest.mark.parametrize("utilisation", [0.3, 0.7])
def test_mean_waits_of_one_worker_are_those_of_mm1(utilisation: float) -> None:
    wait = measured(utilisation, Exponential(SERVICE))["wait_mean"]
    assert wait.agrees(mm1_wait(utilisation / SERVICE, SERVICE), within=0.25)


@pytest.mark.parametrize("workers", [2, 4])
def test_waits_of_several_workers_follow_erlang_c(workers: int) -> None:
    rate = 0.7 * workers / SERVICE
    wait = measured(0.7, Exponential(SERVICE), workers)["wait_mean"]
    assert wait.agrees(mmc_wait(rate, SERVICE, workers), within=0.25)


def test_mean_waits_with_constant_service_are_those_of_md1() -> None:
    wait = measured(0.7, Constant(SERVICE))["wait_mean"]
    assert wait.agrees(md1_wait(0.7 / SERVICE, SERVICE), within=0.25)


@pytest.mark.parametrize("service", [Uniform(0.0, 2 * SERVICE), MEASURED], ids=["even", "measured"])
def test_mean_waits_follow_pollaczek_and_khinchine(service: Distribution) -> None:
    wait = measured(0.6, service)["wait_mean"]
    assert wait.agrees(mg1_wait(0.6 / service.mean, service), within=0.25)


def test_messages_of_two_types_wait_as_their_mixture_says() -> None:
    """A message of either type waits for those of both."""
    update, query = Uniform(0.001, 0.005), Exponential(0.0004)
    rates = {"update": 100.0, "query": 750.0}
    scenario = station(0.6, update, 1, 100_000).changed(
        {
            "ims.0.services": {
                "update": {"uniform": [0.001, 0.005]},
                "query": {"exponential": 4e-4},
            },
            "background.update": rates["update"] / 1000,
            "background.query": rates["query"] / 1000,
        }
    )
    mixed = mixture([(rates["update"], update), (rates["query"], query)])
    wait = all_batches(scenario)["wait_mean"]
    theory = mg1_wait(sum(rates.values()), mixed)
    assert wait.agrees(theory, within=0.25)
    # What would be wrong: one distribution for all, of the same mean.
    assert theory > 1.3 * mm1_wait(sum(rates.values()), mixed.mean)


@pytest.mark.parametrize(("utilisation", "queue"), [(0.8, 3), (1.5, 5)])
def test_a_bounded_queue_drops_what_mm1k_loses(utilisation: float, queue: int) -> None:
    found = measured(utilisation, Exponential(SERVICE), queue=queue)
    pairs = zip(found["dropped"].batches, found["received"].batches, strict=True)
    share = Measured(tuple(lost / all_ for lost, all_ in pairs))
    assert share.agrees(mm1k_loss(utilisation / SERVICE, SERVICE, 1 + queue), within=0.1)


@pytest.mark.parametrize("workers", [1, 4])
def test_first_come_is_first_served(workers: int) -> None:
    """Another order has the same mean; the longest waits are longer, and most are shorter."""
    found = measured(0.7, Exponential(SERVICE), workers)
    for column, share in (("wait_p50", 0.5), ("wait_p99", 0.99)):
        theory = mmc_wait_quantile(0.7 * workers / SERVICE, SERVICE, workers, share)
        if theory:
            assert found[column].agrees(theory, within=0.35)


def test_a_response_is_a_wait_and_a_service() -> None:
    """In an M/M/1 queue it is exponential (Kleinrock, 3.2 and 5.7), so its quantiles are known."""
    found = measured(0.7, Exponential(SERVICE))
    mean = mm1_wait(0.7 / SERVICE, SERVICE) + SERVICE
    assert found["response_mean"].agrees(mean, within=0.25)
    assert found["response_p50"].agrees(mean * math.log(2), within=0.25)
    assert found["response_p99"].agrees(mean * math.log(100), within=0.35)


def test_a_response_with_constant_service_is_later_than_the_wait_by_that() -> None:
    found = measured(0.7, Constant(SERVICE))
    waits, responses = found["wait_mean"], found["response_mean"]
    for waited, responded in zip(waits.batches, responses.batches, strict=True):
        assert responded - waited == pytest.approx(SERVICE, rel=0.01)


def test_workers_are_as_busy_as_arrivals_make_them() -> None:
    assert measured(0.7, Exponential(SERVICE), 4)["busy"].agrees(0.7, within=0.03)
    assert measured(0.6, MEASURED)["busy"].agrees(0.6, within=0.03)


def test_the_queue_is_as_long_as_little_says() -> None:
    """The length over time and the waits are measured apart; the law holds in every batch."""
    found = measured(0.7, Exponential(SERVICE))
    arrivals, waits, lengths = (found[name] for name in ("received", "wait_mean", "queue_mean"))
    for arrived, waited, length in zip(
        arrivals.batches, waits.batches, lengths.batches, strict=True
    ):
        assert length == pytest.approx(queue_length(arrived / LENGTH, waited), rel=0.02)
