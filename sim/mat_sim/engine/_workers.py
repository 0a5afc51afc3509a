"""Workers behind a bounded queue: what a server is, whatever it does with its messages.

In Kendall's notation a G/G/c/K station, first come, first served: a message that finds a worker
idle is begun at once, else it waits, and if too many wait it is dropped. tests/sim/test_queueing.py
holds this against theory (`mat_sim.theory`).
"""

from collections import deque
from typing import final

from mat_sim.engine._clock import Clock, Happening
from mat_sim.engine._record import Record


class Work(Happening):
    """Something to be done by a worker, such as a message to be answered."""

    __slots__ = ("since", "workers")

    def __init__(self, workers: "Workers", since: float) -> None:
        self.workers = workers
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
        self.workers.release()
        self.done()
        self.workers.take_next()


@final
class Workers:
    """The workers of a server, and the queue before them."""

    __slots__ = ("_bound", "_busy", "_clock", "_count", "_queue", "_record")

    def __init__(self, clock: Clock, count: int, bound: int, record: Record | None) -> None:
        """At most `bound` messages wait; without a `record` nothing is written down."""
        self._clock = clock
        self._count = count
        self._bound = bound
        self._record = record
        self._busy = 0
        self._queue: deque[Work] = deque()

    def offer(self, work: Work) -> bool:
        """Work has arrived: to a worker, into the queue, or, if that is full, into the void."""
        record = self._record
        if record is not None:
            record.received()
        if self._busy < self._count:
            self._begin(work)
        elif len(self._queue) < self._bound:
            self._queue.append(work)
            self._note_queue()
        else:
            if record is not None:
                record.dropped()
            return False
        return True

    def release(self) -> None:
        """A worker is idle."""
        self._busy -= 1

    def take_next(self) -> None:
        """An idle worker takes what has waited longest."""
        if self._queue and self._busy < self._count:
            work = self._queue.popleft()
            self._note_queue()
            self._begin(work)

    def _begin(self, work: Work) -> None:
        self._busy += 1
        taken = work.duration()
        if self._record is not None:
            self._record.begins(self._clock.now - work.since, taken)
        self._clock.after(taken, work)

    def _note_queue(self) -> None:
        if self._record is not None:
            self._record.queue_is(len(self._queue))
