"""The load itself: one loop that sends what is due, reads what came, and sends again.

Theory of operation. The first request of each procedure has its time in the plan and is sent at
that time whatever the servers do (an open loop); the others of its chain follow an accepted IMS
Update, as a node's do. What is sent first is encoded and signed beforehand. All work is done on
blocks, so that a turn of the loop costs some dozens of array operations however many messages it
moves; between two turns it sleeps for `TICK`.

Timers and attempts are those of the protocol (docs/protocol.md, section 10): a timeout doubles from
`Timing.timeout` up to `maximum_timeout`, stretched by jitter; an IMS Update is repeated, fresher
each time and signed anew, until time is up; a query and a notice have their attempts. The timers of
a block begin together and are looked at together, when the first of them can be due: by then nearly
all of its requests have been answered, and only the rest is set again.

Replies are believed by sequence, nonce, key and freshness; they are kept, and their MACs are
verified after the run (`Ledger.verify`), where that takes no time from the load.
"""

import gc
import heapq
import time
from collections.abc import Callable
from collections.abc import Generator as Yielding
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from mat.messages import MOST_FRESHNESS, Code
from mat.parameters import DEFAULTS, Parameters
from mat_real.load import answers as reading
from mat_real.load import forms
from mat_real.load.answers import Answers
from mat_real.load.forms import Kind, Rows
from mat_real.load.ledger import Fate, Index, Ledger, Note, Noted, split
from mat_real.load.patterns import Plan
from mat_real.load.population import Population
from mat_real.load.volley import CAPACITY, Volley

TICK: Final = 0.001
"""Seconds of sleep between two turns, unless more is due at once. What a turn costs hardly depends
on how much it moves, and the kernel notes when answers arrive."""
NEIGHBOURS: Final = 64
"""Procedures in a row that use one source port: as many datagrams as leave in one system call."""
BLOCK: Final = 512
"""Requests sent in one turn of the loop; they take a millisecond or so."""
_GRAIN: Final = 0.01
"""Seconds between two looks at a block of timers: they are a tenth of a second apart, or more."""
_LINGER: Final = 1.0
"""Seconds at the end in which answers to repeated requests are still counted."""
_REPORT: Final = 0.25
"""Seconds between two reports of progress."""
_UNLIMITED: Final = 255
_FRACTION: Final = float(1 << 32)

Stopped = Callable[[Ledger], bool]
"""Whether a run is to end early."""
Report = Callable[[Ledger, float], None]
"""Takes how a run goes, and the seconds since its begin."""


@final
@dataclass(frozen=True, slots=True)
class Timing:
    """`timeout` until the first retransmission, s; `give_up` after the last start, s.

    `outstanding` is how many requests may be open before the next procedure begins; None makes the
    loop open.
    """

    timeout: float = DEFAULTS.initial_timeout
    give_up: float = 30.0
    outstanding: int | None = None


@final
class _Timers:
    """Blocks of requests by the time at which the first of them can be due."""

    __slots__ = ("_blocks", "_count")

    def __init__(self) -> None:
        self._blocks: list[tuple[float, int, Index]] = []
        self._count = 0

    def add(self, due: float, requests: Index) -> None:
        self._count += 1
        heapq.heappush(self._blocks, (due, self._count, requests))

    def take(self, now: float) -> Index | None:
        """Blocks that are due, in one, up to about `BLOCK`; None if there are none."""
        taken: list[Index] = []
        count = 0
        while self._blocks and self._blocks[0][0] <= now and count < BLOCK:
            taken.append(heapq.heappop(self._blocks)[2])
            count += len(taken[-1])
        return np.concatenate(taken) if taken else None


@final
class LoadGenerator:
    """Carries out a plan. One run each."""

    def __init__(
        self,
        population: Population,
        plan: Plan,
        volley: Volley,
        timing: Timing,
        *,
        parameters: Parameters = DEFAULTS,
    ) -> None:
        """Encodes and signs: 3 µs for an IMS Update."""
        self._population = population
        self._plan = plan
        self._volley = volley
        self._timing = timing
        self._parameters = parameters
        self._lifetime = int(parameters.registration_lifetime)
        self._random = np.random.default_rng()
        self.ledger = Ledger(plan, self._random)
        self._limits = {
            Kind.UPDATE: _UNLIMITED,
            Kind.QUERY: parameters.query_attempts,
            Kind.NOTIFY: parameters.notify_attempts,
        }
        self._timers = _Timers()
        self._due: NDArray[np.float64] = np.zeros(len(self.ledger.fates))
        self._scratch: Index = np.zeros(len(self.ledger.fates), np.intp)
        self._home_words = population.homes.view(np.uint32).reshape(-1, 4)
        self._supersedes = plan.kinds[0] is Kind.UPDATE and bool((plan.previous >= 0).any())
        self._wall_clock = time.time()
        self._origin = time.monotonic()
        self._resynchronised: NDArray[np.bool_] = np.zeros(len(plan), np.bool_)
        self._updates: Rows = self._first_updates() if plan.kinds[0] is Kind.UPDATE else _NONE
        self._end = plan.last_start + timing.give_up

    # ---- the loop ------------------------------------------------------------------------------

    def run(self, stopped: Stopped, report: Report) -> Ledger:
        """Play the plan to its end, or until `stopped`; `report` is called now and then."""
        ledger = self.ledger
        next_report = _REPORT
        with _undisturbed():
            self._wall_clock = time.time()
            self._origin = time.monotonic()
            now = 0.0
            while not self._is_over(now) and not stopped(ledger):
                busy = self._begin(now)
                busy |= self._read()
                busy |= self._repeat(self._now())
                now = self._now()
                if now >= next_report:
                    report(ledger, now)
                    next_report = now + _REPORT
                elif not busy:
                    time.sleep(TICK)
                now = self._now()
            ledger.end(now)
            self._linger(stopped)
        return ledger

    def _linger(self, stopped: Stopped) -> None:
        """What was sent more than once may be answered more than once: that is not lost."""
        end = self._now() + _LINGER
        ledger = self.ledger
        while ledger.heard < ledger.transmissions and self._now() < end and not stopped(ledger):
            self._read()
            time.sleep(TICK)

    def _now(self) -> float:
        return time.monotonic() - self._origin

    def _is_over(self, now: float) -> bool:
        ledger = self.ledger
        return now >= self._end or (ledger.begun == len(self._plan) and ledger.open == 0)

    # ---- sending -------------------------------------------------------------------------------

    def _begin(self, now: float) -> bool:
        """Send the first requests of the procedures whose time has come; True if some are left."""
        ledger = self.ledger
        room, outstanding = BLOCK, self._timing.outstanding
        if outstanding is not None:
            room = min(room, outstanding - ledger.open)
        start = ledger.begun
        due = int(np.searchsorted(self._plan.starts, now, "right"))
        end = min(start + max(room, 0), due)
        if end == start:
            return False
        procedures = np.arange(start, end)
        kind = self._plan.kinds[0]
        rows = self._due_updates(start, end) if kind is Kind.UPDATE else None
        self._transmit(kind, procedures * ledger.width, rows)
        ledger.begun = end
        self._end = max(self._end, now + self._timing.give_up)
        if self._supersedes:
            previous = self._plan.previous[start:end]
            ledger.supersede(previous[previous >= 0])
        return end < due

    def _transmit(self, kind: Kind, requests: Index, rows: Rows | None = None) -> None:
        """Send requests of one kind, each to its server, and set their timers."""
        if rows is None:
            rows = self._rows(kind, requests)
        servers = self._servers(kind, requests)
        now = self._now()
        # Neighbours share a source port, so that they leave in one system call.
        turns = self.ledger.procedures(requests) // NEIGHBOURS
        if (servers == servers[0]).all():
            self._volley.send(int(servers[0]), rows, turns)
        else:
            for server in np.unique(servers).tolist():
                of_it = servers == server
                self._volley.send(server, rows[of_it], turns[of_it])
        self.ledger.transmitted(now, requests, rows.dtype.itemsize)
        parameters, attempts = self._parameters, self.ledger.attempts[requests]
        timeouts = np.minimum(
            self._timing.timeout * np.exp2(attempts - 1.0), parameters.maximum_timeout
        )
        stretch = 1 + parameters.timeout_jitter * self._random.random(len(requests))
        due = now + timeouts * stretch
        self._due[requests] = due
        self._timers.add(float(due.min()), requests)

    def _servers(self, kind: Kind, requests: Index) -> Index:
        nodes = self.ledger.nodes(requests)
        return self._population.servers[
            self._population.peers[nodes] if kind is Kind.NOTIFY else nodes
        ]

    def _rows(self, kind: Kind, requests: Index) -> Rows:
        """Requests as datagrams; IMS Updates as those that are repeated."""
        ledger, homes = self.ledger, self._population.homes
        procedures = ledger.procedures(requests)
        if kind is Kind.UPDATE:
            return self._updates_again(procedures)
        named = ledger.sequences(requests), ledger.nonces[requests]
        nodes, versions = ledger.nodes(requests), ledger.versions[procedures]
        if kind is Kind.NOTIFY:
            peers = homes[self._population.peers[nodes]]
            return forms.notices(*named, homes[nodes], peers, versions)
        if len(self._plan.kinds) == 1:
            return forms.queries(*named, homes[nodes])
        return forms.queries_of_version(*named, homes[nodes], versions)

    # ---- IMS Updates ---------------------------------------------------------------------------

    def _first_updates(self) -> Rows:
        """All IMS Updates of the plan, signed, with the freshness that their time will have."""
        plan, population, ledger = self._plan, self._population, self.ledger
        nodes = plan.nodes
        clock = np.uint64(int(self._wall_clock * _FRACTION))
        begin = np.maximum(population.freshness + np.uint64(1), clock)
        later = (plan.starts * _FRACTION).astype(np.uint64) + plan.ordinals.astype(np.uint64)
        ledger.versions[:] = begin[nodes] + later
        requests = np.arange(len(plan)) * ledger.width
        rows = forms.first_updates(
            ledger.sequences(requests),
            ledger.nonces[requests],
            homes=population.homes[nodes],
            mobiles=population.mobile_addresses(nodes, plan.ordinals),
            versions=ledger.versions,
            key_ids=population.key_ids[nodes],
            lifetime=self._lifetime,
        )
        forms.sign(rows, population.secrets(nodes))
        return rows

    def _due_updates(self, start: int, end: int) -> Rows:
        """Those that are sent now; anew where the node has used a greater freshness meanwhile."""
        freshness = self._population.freshness
        nodes, versions = self._plan.nodes[start:end], self.ledger.versions[start:end]
        rows = self._updates[start:end]
        behind = np.flatnonzero(versions <= freshness[nodes])
        if len(behind):
            self._renew(start + behind)
        np.maximum.at(freshness, nodes, versions)
        return rows

    def _renew(self, procedures: Index) -> None:
        """Sign IMS Updates anew, with a new version above the freshness that their nodes used."""
        nodes = self._plan.nodes[procedures]
        rows = self._updates[procedures]
        versions = self._next_freshness(nodes)
        rows["freshness"], rows["timestamp"] = versions, versions >> np.uint64(32)
        forms.sign(rows, self._population.secrets(nodes))
        self._updates[procedures] = rows
        self.ledger.versions[procedures] = versions

    def _updates_again(self, procedures: Index) -> Rows:
        nodes = self._plan.nodes[procedures]
        rows = forms.updates_again(
            self._updates[procedures], self.ledger.versions[procedures], self._next_freshness(nodes)
        )
        forms.sign(rows, self._population.secrets(nodes))
        return rows

    def _next_freshness(self, nodes: Index) -> forms.Numbers:
        """The time of day, or one more than the last that the node used."""
        clock = np.uint64(int((self._wall_clock + self._now()) * _FRACTION))
        used = self._population.freshness
        following: forms.Numbers = np.maximum(used[nodes] + np.uint64(1), clock)
        used[nodes] = following
        return following

    # ---- answers -------------------------------------------------------------------------------

    def _read(self) -> bool:
        """Read what came and do what follows from it; True if there may be more."""
        count = self._volley.receive()
        if not count:
            return False
        self._volley.arrivals[:count] -= self._origin
        found = reading.match(self._volley, count, self.ledger)
        self.ledger.heard += len(found.requests)
        in_time = self.ledger.fates[found.requests] == Fate.OPEN
        in_time &= reading.once(found, self._scratch)
        self._note(Note.LATE, found.chosen(~in_time))
        found = found.chosen(in_time)
        for kind, places in split(self._plan.kinds, found.requests).items():
            if kind is Kind.UPDATE:
                self._replied(found.chosen(places))
            else:
                self._told(kind, found.chosen(places))
        return count > CAPACITY // 2

    def _noted(self, found: Answers) -> Noted:
        volley = self._volley
        # The kernel's clock may be adjusted, and ours read a moment too late.
        times = np.maximum(volley.arrivals[found.rows], self.ledger.sent[found.requests])
        codes = reading.codes(volley, found)
        return Noted(times, found.requests, codes, volley.sizes[found.rows])

    def _note(self, note: Note, found: Answers) -> None:
        self.ledger.note(note, self._noted(found))

    def _answered(self, found: Answers, fate: Fate) -> None:
        self.ledger.answer(self._noted(found), fate)

    def _replied(self, found: Answers) -> None:
        """IMS Update Replies: what was accepted goes on to the rest of the chain."""
        ledger = self.ledger
        rows, signed = reading.replies(self._volley, found)
        codes = reading.codes(self._volley, found)
        procedures, nodes = ledger.procedures(found.requests), ledger.nodes(found.requests)
        signed &= rows["key_id"] == self._population.key_ids[nodes]
        succeeded = codes == Code.SUCCEEDED
        used = rows["freshness"] <= self._population.freshness[nodes]
        used &= rows["freshness"] >= ledger.versions[procedures]
        accepted = succeeded & signed & used
        self._note(Note.WRONG, found.chosen(succeeded & ~accepted))
        self._note(Note.REFUSED, found.chosen(~succeeded))
        ledger.replies[procedures[accepted]] = rows[accepted]
        self._answered(found.chosen(accepted), Fate.DONE)
        stale = signed & (codes == Code.STALE) & ~self._resynchronised[procedures]
        if stale.any():
            self._resynchronise(found.requests[stale], rows[stale])
        self._go_on(procedures[accepted])

    def _go_on(self, procedures: Index) -> None:
        """The rest of the chain, for procedures whose IMS Update was accepted."""
        if len(procedures):
            for position, kind in enumerate(self._plan.kinds[1:], 1):
                self._transmit(kind, procedures * self.ledger.width + position)

    def _resynchronise(self, requests: Index, rows: Rows) -> None:
        """The server has seen a greater freshness: continue above it, once, with a new version."""
        stored = rows["freshness"].astype(np.uint64)
        true = forms.authentic(rows, self._population.secrets(self.ledger.nodes(requests)))
        true &= stored >= self.ledger.versions[self.ledger.procedures(requests)]
        true &= stored < MOST_FRESHNESS
        if true.any():
            requests = requests[true]
            nodes, procedures = self.ledger.nodes(requests), self.ledger.procedures(requests)
            self._resynchronised[procedures] = True
            np.maximum.at(self._population.freshness, nodes, stored[true])
            self._renew(procedures)
            self._transmit(Kind.UPDATE, requests, self._updates[procedures])

    def _told(self, kind: Kind, found: Answers) -> None:
        """MA Answers and HA Notify Acks. Codes that may pass leave the request to its timer."""
        codes = reading.codes(self._volley, found)
        nodes = self.ledger.nodes(found.requests)
        about = self._population.peers[nodes] if kind is Kind.NOTIFY else nodes
        said = reading.mappings(self._volley, found, self._home_words[about])
        good = said.about & (codes == Code.SUCCEEDED)
        refused = said.about & (codes != Code.SUCCEEDED)
        if kind is Kind.QUERY:
            versions = self.ledger.versions[self.ledger.procedures(found.requests)]
            outdated = good & said.present & (said.versions < versions)
            unknown = (refused & (codes == Code.NO_MAPPING)) | (good & ~said.present)
            self._note(Note.OUTDATED, found.chosen(outdated))
            self._answered(found.chosen(unknown), Fate.FAILED)
            good &= ~(outdated | unknown)
            refused &= ~unknown
        self._note(Note.WRONG, found.chosen(~said.about))
        self._note(Note.REFUSED, found.chosen(refused))
        self._answered(found.chosen(good), Fate.DONE)

    # ---- timers --------------------------------------------------------------------------------

    def _repeat(self, now: float) -> bool:
        """Send again what was not answered in time; True if more may be due."""
        requests = self._timers.take(now)
        if requests is None:
            return False
        more = len(requests) >= BLOCK
        requests = requests[self.ledger.fates[requests] == Fate.OPEN]
        late = self._due[requests] <= now
        waiting = requests[~late]
        if len(waiting):
            self._timers.add(max(float(self._due[waiting].min()), now + _GRAIN), waiting)
        for kind, places in split(self._plan.kinds, requests[late]).items():
            self._once_more(kind, requests[late][places])
        return more

    def _once_more(self, kind: Kind, requests: Index) -> None:
        over = self.ledger.attempts[requests] >= self._limits[kind]
        self.ledger.close(requests[over], Fate.LOST)
        if not over.all():
            self._transmit(kind, requests[~over])


_NONE: Final[Rows] = np.zeros(0, forms.UPDATE)


@contextmanager
def _undisturbed() -> Yielding[None]:
    """Without garbage collection, which would stop the loop for some milliseconds."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
