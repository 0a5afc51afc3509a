"""Workers behind a bounded queue: what a server is, whatever it does with its messages.

In Kendall's notation a G/G/c/K station, first come, first served: a message that finds a worker
idle is begun at once, else it waits, and if too many wait it is dropped. tests/sim/test_queueing.py
holds this against theory (`mat_sim.theory`).

Where order matters, each worker has a queue of its own, and what belongs together has one key, and
so goes to one worker: what receive-side scaling does in a network card, and SO_REUSEPORT with
sockets. Otherwise the second of two messages may be done with first.
"""

from collections import deque
from typing import final

from mat_sim.engine._clock import Clock, Happening
from mat_sim.engine._record import Record


class Work(Happening):
    """Something to be done by a worker, such as a message to be answered."""

    __slots__ = ("lane", "since", "workers")

    def __init__(self, workers: "Workers", since: float) -> None:
        self.workers = workers
        self.lane: Lane | None = None
        """Where it is worked on, or waits."""
        self.since = since
        """When it arrived, s."""

    def duration(self) -> float:
        """How long a worker takes, s; asked for once, when one begins."""
        raise NotImplementedError

    def done(self) -> None:
        """The worker is done with it."""
        raise NotImplementedError

    def happen(self) -> None:
        """The worker is done, and takes the next."""
        lane = self.lane
        assert lane is not None
        lane.busy -= 1
        self.done()
        self.workers.take_next(lane)


@final
class Lane:
    """A queue, and the workers that take from it."""

    __slots__ = ("busy", "queue", "workers")

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.busy = 0
        self.queue: deque[Work] = deque()


@final
class Workers:
    """The workers of a server, and what waits before them."""

    __slots__ = ("_bound", "_clock", "_lanes", "_record", "_waiting")

    def __init__(
        self,
        clock: Clock,
        count: int,
        bound: int,
        record: Record | None,
        *,
        keep_order: bool = False,
    ) -> None:
        """At most `bound` messages wait; without a `record` nothing is written down.

        With `keep_order`, what is offered with equal keys is done in order.
        """
        self._clock = clock
        self._bound = bound
        self._record = record
        self._lanes = [Lane(1) for _ in range(count)] if keep_order else [Lane(count)]
        self._waiting = 0

    def offer(self, work: Work, key: int = 0) -> bool:
        """Work has arrived: to a worker, into a queue, or, if too much waits, into the void."""
        record = self._record
        if record is not None:
            record.received()
        lane = work.lane = self._lanes[key % len(self._lanes)]
        if lane.busy < lane.workers:
            self._begin(work, lane)
        elif self._waiting < self._bound:
            lane.queue.append(work)
            self._waits(1)
        else:
            if record is not None:
                record.dropped()
            return False
        return True

    def take_next(self, lane: Lane) -> None:
        """An idle worker takes what has waited longest."""
        if lane.queue and lane.busy < lane.workers:
            work = lane.queue.popleft()
            self._waits(-1)
            self._begin(work, lane)

    def _begin(self, work: Work, lane: Lane) -> None:
        lane.busy += 1
        taken = work.duration()
        if self._record is not None:
            self._record.begins(self._clock.now - work.since, taken)
        self._clock.after(taken, work)

    def _waits(self, more: int) -> None:
        self._waiting += more
        if self._record is not None:
            self._record.queue_is(self._waiting)
