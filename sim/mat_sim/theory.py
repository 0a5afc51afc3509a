"""What queueing theory says of a server or a link, to draw beside what the simulator says.

Messages arrive as a Poisson process, are served first come, first served, and all that is random is
independent. In Kendall's notation: M/M/c has c workers and exponential service times, M/D/1 and
M/G/1 one worker and constant or any service times, K in M/M/1/K is the number of messages that
there is room for, with the one that is worked on. Rates are in 1/s and times in s. Waiting is
the time from arrival until a worker begins; a response takes the service time besides.

    from mat_sim.theory import mixture, mg1_wait, mmc_wait
    [mmc_wait(rate, service=50e-6, workers=2) for rate in rates]
    [mg1_wait(rate, mixture([(1, of_an_update), (2, of_a_query)])) for rate in rates]

Sources: L. Kleinrock, Queueing Systems, volume 1, 1975, sections 3.2 (M/M/1), 3.5 (M/M/m and
Erlang's C formula), 3.6 (M/M/1/K), 5.5 (M/G/1, the Pollaczek-Khinchine formula). O. Brun and J.-M.
Garcia, Analytical solution of finite capacity M/D/1 queues, Journal of Applied Probability 37(4),
2000, theorem 1 (M/D/1/K).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never, final

from mat_files.distributions import (
    Constant,
    Distribution,
    Empirical,
    Exponential,
    Normal,
    Uniform,
)

__all__ = [
    "Moments",
    "erlang_b",
    "erlang_c",
    "md1_wait",
    "md1k_loss",
    "mg1_wait",
    "mixture",
    "mm1_wait",
    "mm1k_loss",
    "mmc_wait",
    "mmc_wait_quantile",
    "moments",
    "queue_length",
    "variance",
]


@final
@dataclass(frozen=True, slots=True)
class Moments:
    """All that a mean wait depends on: the mean (s) of service times, and of their squares (s²)."""

    mean: float
    square: float


def erlang_b(workers: int, load: float) -> float:
    """Probability that a message is lost where none can wait (M/M/c/c); `load` is in erlangs.

    Raises `ValueError` for a number of workers, or a load, below 0.
    """
    if workers < 0 or not load >= 0:
        raise ValueError(f"{workers} workers, {load:g} erlangs; neither can be below 0")
    loss = 1.0
    for number in range(1, workers + 1):
        loss = load * loss / (number + load * loss)
    return loss


def erlang_c(workers: int, load: float) -> float:
    """Probability that a message has to wait in an M/M/c queue.

    `load` is the rate times the mean service time, in erlangs. Raises `ValueError` where the
    workers cannot keep up.
    """
    _check(load, workers)
    loss = erlang_b(workers, load)
    return loss / (1 - load / workers * (1 - loss))


def mm1_wait(rate: float, service: float) -> float:
    """Mean wait in an M/M/1 queue, s; `service` is the mean service time."""
    return mmc_wait(rate, service, 1)


def mmc_wait(rate: float, service: float, workers: int) -> float:
    """Mean wait in an M/M/c queue, s. Raises `ValueError` where the workers cannot keep up."""
    load = rate * service
    return erlang_c(workers, load) * service / (workers - load)


def mmc_wait_quantile(rate: float, service: float, workers: int, share: float) -> float:
    """The wait that this share of the messages does not exceed in an M/M/c queue, s.

    Raises `ValueError` where the workers cannot keep up, and for a share that no wait is the end
    of.
    """
    if not 0 <= share < 1:
        raise ValueError(f"share is {share:g}; must be 0 or more and below 1, such as 0.99")
    load = rate * service
    waits = erlang_c(workers, load)
    longer = 1 - share
    if waits <= longer:
        return 0.0
    return math.log(waits / longer) * service / (workers - load)


def md1_wait(rate: float, service: float) -> float:
    """Mean wait in an M/D/1 queue, s: half of that in an M/M/1 queue."""
    return mg1_wait(rate, Constant(service))


def mg1_wait(rate: float, service: Distribution | Moments) -> float:
    """Mean wait in an M/G/1 queue, s, by Pollaczek and Khinchine.

    `service` is a distribution of `mat_files.distributions`, such as an `[[ims]]` has, or the
    moments of one, such as `mixture` has for messages of several types; `rate` is that of all
    messages. Raises `ValueError` where the worker cannot keep up.
    """
    times = service if isinstance(service, Moments) else moments(service)
    load = rate * times.mean
    _check(load, 1)
    return rate * times.square / (2 * (1 - load))


def moments(time: Distribution) -> Moments:
    """The first two moments of a distribution."""
    return Moments(time.mean, time.mean**2 + variance(time))


def mixture(types: Sequence[tuple[float, Distribution]]) -> Moments:
    """The service times of messages of several types, each with its rate and its distribution.

    Rates may be in any unit, as only their ratios matter: `mixture([(1, update), (2, query)])` is
    two queries for each update. As one Poisson process is made of several, a queue of such messages
    is M/G/1. Raises `ValueError` for a negative rate, or where all are 0.
    """
    total = math.fsum(rate for rate, _ in types)
    if total <= 0 or any(rate < 0 for rate, _ in types):
        given = ", ".join(f"{rate:g}" for rate, _ in types) or "none"
        raise ValueError(f"rates are {given}; must be 0 or more, and one of them above 0")
    parts = [(rate / total, moments(time)) for rate, time in types]
    return Moments(
        math.fsum(share * part.mean for share, part in parts),
        math.fsum(share * part.square for share, part in parts),
    )


def mm1k_loss(rate: float, service: float, room: int) -> float:
    """Probability that a message is dropped in an M/M/1/K queue.

    `room` is K, all messages that are there; an `[[ims]]` has K = 1 + `queue`. Raises `ValueError`
    for a room, or a load, below 0.
    """
    load = rate * service
    if room < 0 or not load >= 0:
        raise ValueError(f"room for {room}, {load:g} erlangs; neither can be below 0")
    if load <= 1:
        return load**room / math.fsum(load**number for number in range(room + 1))
    # The same, shortened by load**room, which may be too great for a number.
    return 1 / math.fsum(load**-number for number in range(room + 1))


def md1k_loss(rate: float, service: float, room: int) -> float:
    """Probability that a packet is dropped in an M/D/1/K queue.

    `room` is K, all packets that are there; a link has K = 1 + `queue`.
    """
    load = rate * service
    terms = [
        math.exp((room - 1 - n) * load) * (-load * (room - 1 - n)) ** n / math.factorial(n)
        for n in range(room)
    ]
    total = math.fsum(terms)
    return 1 - total / (1 + load * total)


def queue_length(rate: float, wait: float) -> float:
    """Mean number of messages that wait, by Little's law: `rate` of those let in, mean wait."""
    return rate * wait


def variance(time: Distribution) -> float:
    """The variance of a distribution, s²."""
    match time:
        case Constant():
            return 0.0
        case Uniform(low, high):
            return (high - low) ** 2 / 12
        case Exponential(mean):
            return mean**2
        case Normal(centre, deviation):
            # Truncated at 0: its mean exceeds the centre by `beyond`.
            beyond = time.mean - centre
            return deviation**2 - beyond * (centre + beyond)
        case Empirical(quantiles):
            parts = itertools.pairwise(quantiles)
            squares = [(low * low + low * high + high * high) / 3 for low, high in parts]
            return math.fsum(squares) / len(squares) - time.mean**2
        case _:
            assert_never(time)


def _check(load: float, workers: int) -> None:
    if not 0 <= load < workers:
        what = f"a load of {load:g} erlangs is too much for {workers} workers"
        raise ValueError(f"{what}: the queue grows without end; it must be less than {workers}")
