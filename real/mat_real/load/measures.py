"""What a run comes to: response times, losses, and whether the generator itself kept time.

A response time runs from the first transmission of a request to the arrival of its answer, so that
it contains the timeouts in between. That of a handover is the IMS Update's and, after it, the
longer one of HA Notify and MA Query. How long the generator took from a Reply to what follows it is
not in there: it is the generator's lateness.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from mat.messages import NAMES, HaNotify, ImsUpdate, MaQuery
from mat_real.load.forms import Kind
from mat_real.load.ledger import Fate, Index, Ledger, Note, Noted
from mat_real.load.population import Population, Target

QUANTILES: Final = (0.5, 0.9, 0.99, 0.999, 1.0)
NAMES_OF_KINDS: Final[dict[Kind, str]] = {
    Kind.UPDATE: NAMES[ImsUpdate],
    Kind.QUERY: NAMES[MaQuery],
    Kind.NOTIFY: NAMES[HaNotify],
}
PROCEDURE: Final = "handover"
LATE: Final = 0.010
"""Seconds by which the generator may be late (99th percentile): ten turns of its loop."""
LATE_SHARE: Final = 0.1
"""The same as a share of the response times' 99th percentile, where that is more."""

Times = NDArray[np.float64]


@final
@dataclass(frozen=True, slots=True)
class Run:
    """A run that is over. `what` says in words what was played; `seed` is that of peers and times.

    `dropped`, `unsent` and `unreachable` are the sockets' own counts (`Volley`).
    """

    what: str
    seed: int
    targets: Sequence[Target]
    population: Population
    ledger: Ledger
    forged: int
    dropped: int = 0
    unsent: int = 0
    unreachable: int = 0
    interrupted: bool = False


@final
@dataclass(frozen=True, slots=True)
class Measured:
    """Requests of one kind, or procedures: how many, and the response times of those done, s."""

    name: str
    begun: int
    done: int
    refused: int
    """Ended by a code, or by a Reply that was forged."""
    lost: int
    """Not answered for good."""
    superseded: int
    """Over because the node had begun the next procedure."""
    repeated: int
    """Transmissions besides the first."""
    starts: Times
    times: Times

    def quantiles(self) -> list[float]:
        """The response times' `QUANTILES`, s; NaN where nothing was done."""
        return quantiles(self.times)


def quantiles(values: Times) -> list[float]:
    """`QUANTILES` of values; NaN where there are none."""
    if not len(values):
        return [float("nan")] * len(QUANTILES)
    found: list[float] = np.quantile(values, QUANTILES).tolist()
    return found


def measured(ledger: Ledger) -> list[Measured]:
    """Each kind of request in the order of the chain, then the procedures where that is more."""
    found = [_of_kind(ledger, kind) for kind in ledger.plan.kinds]
    return [*found, of_procedures(ledger)] if ledger.width > 1 else found


def main(ledger: Ledger) -> Measured:
    """What the run was about: procedures, or the one kind of request."""
    return measured(ledger)[-1]


def _of_kind(ledger: Ledger, kind: Kind) -> Measured:
    own = slice(ledger.position(kind), None, ledger.width)
    fates, sent, answered = ledger.fates[own], ledger.sent[own], ledger.answered[own]
    begun = ~np.isnan(sent)
    done = fates == Fate.DONE
    return Measured(
        NAMES_OF_KINDS[kind],
        int(np.count_nonzero(begun)),
        *_counts(fates[begun]),
        int(ledger.attempts[own].sum(dtype=np.int64)) - int(np.count_nonzero(begun)),
        sent[done],
        (answered - sent)[done],
    )


def _counts(fates: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Done, refused, lost, superseded."""
    number = np.bincount(fates, minlength=len(Fate)).tolist()
    refused = number[Fate.FAILED] + number[Fate.FORGED]
    return number[Fate.DONE], refused, number[Fate.LOST], number[Fate.SUPERSEDED]


def of_procedures(ledger: Ledger) -> Measured:
    """Procedures as wholes: done when all of their requests are."""
    fates = ledger.fates.reshape(-1, ledger.width)
    sent = ledger.sent.reshape(-1, ledger.width)
    begun = ~np.isnan(sent[:, 0])
    whole = worst(fates)
    done = whole == Fate.DONE
    times = (ledger.answered.reshape(-1, ledger.width) - sent)[done]
    return Measured(
        PROCEDURE,
        int(np.count_nonzero(begun)),
        *_counts(whole[begun]),
        int(ledger.attempts.sum(dtype=np.int64)) - int(np.count_nonzero(~np.isnan(sent))),
        sent[done, 0],
        times[:, 0] + times[:, 1:].max(axis=1, initial=0.0),
    )


def worst(fates: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The fate of procedures, one a row: that of the first request that is not done, or done."""
    other = fates != Fate.DONE
    found: NDArray[np.uint8] = fates[np.arange(len(fates)), other.argmax(axis=1)]
    return found


def lateness(ledger: Ledger) -> Times:
    """How late each first transmission was, s: after its planned time, or after the Reply."""
    width = ledger.width
    sent = ledger.sent.reshape(-1, width)
    late = [sent[:, 0] - ledger.plan.starts]
    late += [sent[:, k] - ledger.answered[::width] for k in range(1, width)]
    every = np.concatenate(late)
    return every[~np.isnan(every)]


def doubts(run: Run) -> list[str]:
    """Why the figures are not to be trusted, if they are not."""
    found: list[str] = []
    late = quantiles(lateness(run.ledger))[2]
    allowed = max(LATE, LATE_SHARE * np.nan_to_num(main(run.ledger).quantiles()[2]))
    if late > allowed:
        what = f"the generator was late by {late * 1000:.1f} ms (99th percentile)"
        found.append(f"{what}, more than {allowed * 1000:.1f} ms: give it a faster, or idle, core")
    if run.dropped:
        found.append(
            f"{run.dropped} answers found no room at the generator: raise net.core.rmem_max"
        )
    if run.unsent:
        found.append(f"{run.unsent} datagrams were not taken by the kernel: lower the rate")
    return found


def codes(ledger: Ledger) -> dict[Kind, dict[int, int]]:
    """Answers with a code other than 0, by kind of request and code."""
    noted = ledger.noted(Note.REFUSED)
    failed = np.flatnonzero(ledger.fates == Fate.FAILED)
    requests = np.concatenate((noted.requests, failed))
    number = np.concatenate((noted.codes, ledger.codes[failed]))
    found: dict[Kind, dict[int, int]] = {}
    for position, kind in enumerate(ledger.plan.kinds):
        own = number[requests % ledger.width == position]
        values, counts = np.unique(own, return_counts=True)
        found[kind] = dict(zip(values.tolist(), counts.tolist(), strict=True))
    return found


# ---- datagrams -----------------------------------------------------------------------------------


def transmissions(ledger: Ledger, first_sizes: dict[Kind, int]) -> Noted:
    """Every datagram sent."""
    requests = np.flatnonzero(~np.isnan(ledger.sent))
    sizes = np.array([first_sizes[kind] for kind in ledger.plan.kinds], np.uint32)
    nothing = np.zeros(len(requests), np.uint8)
    first = Noted(ledger.sent[requests], requests, nothing, sizes[requests % ledger.width])
    return _joined([first, ledger.noted(Note.SENT_AGAIN)])


def arrivals(ledger: Ledger) -> Noted:
    """Every datagram that answered a request of this run."""
    requests = np.flatnonzero(~np.isnan(ledger.answered))
    sizes = ledger.sizes[requests].astype(np.uint32)
    last = Noted(ledger.answered[requests], requests, ledger.codes[requests], sizes)
    others = (Note.REFUSED, Note.OUTDATED, Note.WRONG, Note.LATE)
    return _joined([last, *(ledger.noted(note) for note in others)])


def _joined(parts: Sequence[Noted]) -> Noted:
    return Noted(*map(np.concatenate, zip(*parts, strict=True)))


def servers_of(run: Run, requests: Index) -> Index:
    """Which of the targets requests go to."""
    population, ledger = run.population, run.ledger
    nodes = ledger.nodes(requests)
    if Kind.NOTIFY in ledger.plan.kinds:
        notices = requests % ledger.width == ledger.position(Kind.NOTIFY)
        nodes = np.where(notices, population.peers[nodes], nodes)
    return population.servers[nodes]


# ---- over time -----------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class Timeline:
    """The run in intervals of equal length, s; `starts` are where they begin.

    `quantiles` has a row for each of `QUANTILES`, over what began in the interval (NaN: nothing).
    """

    interval: float
    starts: Times
    begun: NDArray[np.int64]
    repeated: NDArray[np.int64]
    answered: NDArray[np.int64]
    quantiles: Times


def timeline(ledger: Ledger) -> Timeline:
    """First transmissions, repeats, answers and response times over time."""
    length = interval(ledger.plan.last_start)
    count = max(1, int(np.ceil(ledger.ended / length - 1e-9)))
    edges: Times = np.arange(count + 1, dtype=np.float64) * length
    about = main(ledger)
    return Timeline(
        length,
        edges[:-1].round(1),
        histogram(ledger.sent[~np.isnan(ledger.sent)], edges),
        histogram(ledger.noted(Note.SENT_AGAIN).times, edges),
        histogram(ledger.answered[ledger.fates == Fate.DONE], edges),
        _quantiles_over_time(about, edges),
    )


def interval(last_start: float) -> float:
    """The length of the intervals, s: a tenth where all begin within 20 s, else a whole one."""
    return 0.1 if last_start <= 20 else 1.0


def histogram(times: Times, edges: Times) -> NDArray[np.int64]:
    """How many of the times lie between edges; what is beyond them counts at the ends."""
    inside = np.clip(times, edges[0], edges[-1])
    return np.histogram(inside, edges)[0].astype(np.int64)


def _quantiles_over_time(about: Measured, edges: Times) -> Times:
    places = np.clip(np.searchsorted(edges, about.starts, "right") - 1, 0, len(edges) - 2)
    order = np.argsort(places, kind="stable")
    times, bounds = about.times[order], np.searchsorted(places[order], np.arange(len(edges)))
    found = [quantiles(times[bounds[k] : bounds[k + 1]]) for k in range(len(edges) - 1)]
    return np.array(found).T
