"""What became of every request: arrays over their numbers.

Request `procedure * width + position` is the one at that position of the procedure's chain. Its
number is the low bits of its sequence, so an answer leads straight to its row; the high bits are
the run's own, and the nonce is the request's, so that nothing else is taken for an answer.
"""

import enum
from collections.abc import Sequence
from typing import Final, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from mat.messages import Type
from mat_real.load.forms import REPLY, Kind, Numbers, Rows, Sequences, authentic
from mat_real.load.patterns import Plan
from mat_real.load.population import Population

Index = NDArray[np.intp]
"""Numbers of requests, or of procedures."""

ANSWERS: Final[dict[Kind, Type]] = {
    Kind.UPDATE: Type.IMS_UPDATE_REPLY,
    Kind.QUERY: Type.MA_ANSWER,
    Kind.NOTIFY: Type.HA_NOTIFY_ACK,
}


class Fate(enum.IntEnum):
    """What became of a request."""

    PLANNED = 0
    """Not sent: its time did not come, or the one before it in the chain did not succeed."""
    OPEN = 1
    DONE = 2
    """Answered with code 0, and rightly."""
    FAILED = 3
    """Answered with a code that ends it."""
    LOST = 4
    """Not answered for good: no attempts, or no time, left."""
    SUPERSEDED = 5
    """Its node has begun the next procedure."""
    FORGED = 6
    """The Reply's MAC is wrong."""


class Note(enum.Enum):
    """What is noted of a request besides its first transmission and its answer."""

    SENT_AGAIN = "sent again"
    REFUSED = "answered with a code other than 0"
    OUTDATED = "answered with an older mapping than the one notified"
    WRONG = "answered with the wrong key, freshness or home address, or cut off"
    LATE = "answered once more, or after it was given up"


class Noted(NamedTuple):
    """Datagrams, one a row: when (s), of which request, with what code, of how many bytes."""

    times: NDArray[np.float64]
    requests: Index
    codes: NDArray[np.uint8]
    sizes: NDArray[np.uint32]

    def chosen(self, which: NDArray[np.bool_]) -> "Noted":
        """Some of them."""
        return Noted(self.times[which], self.requests[which], self.codes[which], self.sizes[which])


@final
class Ledger:
    """Requests of a plan and their fates. Times are in seconds from the begin of the run."""

    def __init__(self, plan: Plan, random: np.random.Generator) -> None:
        self.plan = plan
        self.width = len(plan.kinds)
        count = len(plan) * self.width
        self.fates: NDArray[np.uint8] = np.zeros(count, np.uint8)
        self.sent: NDArray[np.float64] = np.full(count, np.nan)
        """First transmission."""
        self.answered: NDArray[np.float64] = np.full(count, np.nan)
        """Arrival of the answer, where the request is done or failed."""
        self.attempts: NDArray[np.uint8] = np.zeros(count, np.uint8)
        self.codes: NDArray[np.uint8] = np.zeros(count, np.uint8)
        """Code of that answer."""
        self.sizes: NDArray[np.uint16] = np.zeros(count, np.uint16)
        """Bytes of that answer."""
        self.nonces: Numbers = random.integers(0, 1 << 64, count, np.uint64)
        self.versions: Numbers = np.zeros(len(plan), np.uint64)
        self.replies: Rows = np.zeros(len(plan) if Kind.UPDATE in plan.kinds else 0, REPLY)
        self.open = 0
        """Requests sent and not over."""
        self.done = 0
        """Requests answered as they should be."""
        self.begun = 0
        """Procedures begun: the first so many of the plan."""
        self.transmissions = 0
        self.heard = 0
        """Answers to requests of this run, of whatever code, and however often."""
        self.ended = 0.0
        """When the run was over."""
        self.unexpected = 0
        """Datagrams that answer nothing that was asked, a wrong nonce included."""
        self._mask = (1 << count.bit_length()) - 1
        self._bits = int(random.integers(0, 1 << 32)) & ~self._mask
        self._notes: dict[Note, list[Noted]] = {note: [] for note in Note}

    # ---- numbers -------------------------------------------------------------------------------

    def procedures(self, requests: Index) -> Index:
        """The procedures that requests belong to."""
        return requests // self.width

    def nodes(self, requests: Index) -> Index:
        """The nodes whose procedures those are."""
        return self.plan.nodes[requests // self.width]

    def position(self, kind: Kind) -> int:
        """Where in the chain a kind of request stands."""
        return self.plan.kinds.index(kind)

    def sequences(self, requests: Index) -> Sequences:
        """The sequences of requests."""
        return (requests | self._bits).astype(np.uint32)

    def requests(self, sequences: Sequences) -> tuple[Index, NDArray[np.bool_]]:
        """The requests with these sequences, and which of them there are; 0 for others."""
        found = (sequences & np.uint32(self._mask)).astype(np.intp)
        known = (sequences & np.uint32(~self._mask & 0xFFFFFFFF)) == self._bits
        known &= found < len(self.fates)
        found[~known] = 0
        return found, known

    # ---- what happens --------------------------------------------------------------------------

    def transmitted(self, now: float, requests: Index, size: int) -> None:
        """Requests went out as datagrams of `size` bytes, for the first time or again."""
        again = requests[self.attempts[requests] > 0]
        first = requests if not len(again) else requests[self.attempts[requests] == 0]
        self.attempts[requests] += 1
        self.transmissions += len(requests)
        self.sent[first] = now
        self.fates[first] = Fate.OPEN
        self.open += len(first)
        if len(again):
            nothing = np.zeros(len(again), np.uint8)
            sizes = np.full(len(again), size, np.uint32)
            self.note(Note.SENT_AGAIN, Noted(np.full(len(again), now), again, nothing, sizes))

    def close(self, requests: Index, fate: Fate) -> None:
        """Open requests are over."""
        self.fates[requests] = fate
        self.open -= len(requests)

    def answer(self, answers: Noted, fate: Fate) -> None:
        """Open requests are over by an answer."""
        requests = answers.requests
        self.close(requests, fate)
        self.done += len(requests) if fate is Fate.DONE else 0
        self.answered[requests] = answers.times
        self.codes[requests] = answers.codes
        self.sizes[requests] = answers.sizes

    def supersede(self, procedures: Index) -> None:
        """The nodes of these procedures have begun another: what is not over is pointless."""
        requests = (procedures[:, None] * self.width + np.arange(self.width)).ravel()
        fates = self.fates[requests]
        self.close(requests[fates == Fate.OPEN], Fate.SUPERSEDED)
        self.fates[requests[fates == Fate.PLANNED]] = Fate.SUPERSEDED

    def note(self, note: Note, what: Noted) -> None:
        """Note what is no end of requests."""
        if len(what.requests):
            self._notes[note].append(what)

    def noted(self, note: Note) -> Noted:
        """All notes of one kind."""
        entries = self._notes[note]
        if not entries:
            nothing = np.zeros(0, np.uint32)
            return Noted(np.zeros(0), nothing.astype(np.intp), nothing.astype(np.uint8), nothing)
        return Noted(*map(np.concatenate, zip(*entries, strict=True)))

    # ---- afterwards ----------------------------------------------------------------------------

    def end(self, now: float) -> None:
        """The run is over: what is open is lost."""
        self.ended = now
        self.close(np.flatnonzero(self.fates == Fate.OPEN), Fate.LOST)

    def verify(self, population: Population) -> int:
        """Look at the MACs of all Replies that were believed; the number of those forged."""
        if Kind.UPDATE not in self.plan.kinds:
            return 0
        position = self.position(Kind.UPDATE)
        procedures = np.flatnonzero(self.fates[position :: self.width] == Fate.DONE)
        secrets = population.secrets(self.plan.nodes[procedures])
        forged = procedures[~authentic(self.replies[procedures], secrets)]
        self.fates[forged * self.width + position] = Fate.FORGED
        return len(forged)


def split(kinds: Sequence[Kind], requests: Index) -> dict[Kind, Index]:
    """Where in an array of requests those of each kind stand; kinds without any are left out."""
    positions = requests % len(kinds)
    places = {kind: np.flatnonzero(positions == k) for k, kind in enumerate(kinds)}
    return {kind: place for kind, place in places.items() if len(place)}
