"""What a server writes down: a row of the table `ims` for each interval of the run.

Only the interval that the clock is in is open, and it is closed by the first thing that is written
down after it. Times that workers are busy are known when they begin, so they go ahead of the clock
and have a list of their own; so has the queue, whose length lasts beyond an interval.
"""

from collections.abc import Iterator
from typing import Final, final

from mat_sim.engine._clock import Clock
from mat_sim.engine._sketch import Sketch

Row = dict[str, object]

_FEW: Final = 1e-9
"""Share of an interval by which the end of a run may miss the begin of one."""


def intervals(end: float, length: float) -> Iterator[tuple[int, float, float]]:
    """Number, begin and length of the intervals of a run that ends at `end`, s."""
    for number in range(max(0, int(end / length - _FEW)) + 1):
        yield number, number * length, min(length, end - number * length)


@final
class Shares:
    """A quantity times how long it lasted, by interval."""

    __slots__ = ("_interval", "_sums")

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._sums: list[float] = []

    def add(self, begin: float, end: float, quantity: float) -> None:
        """The quantity was this from `begin` to `end`, s."""
        number, sums = int(begin / self._interval), self._sums
        while begin < end:
            until = min(end, (number + 1) * self._interval)
            while len(sums) <= number:
                sums.append(0.0)
            sums[number] += (until - begin) * quantity
            begin, number = until, number + 1

    def of(self, number: int) -> float:
        """The sum of an interval."""
        return self._sums[number] if number < len(self._sums) else 0.0


@final
class _Interval:
    """The counts of one interval."""

    __slots__ = (
        "answered",
        "dropped",
        "forwarded",
        "mappings",
        "queue_max",
        "received",
        "refused",
        "responses",
        "waits",
    )

    def __init__(self, queue: int = 0, mappings: int = 0) -> None:
        """It begins with a queue of this length, and so many mappings."""
        self.received = 0
        self.answered = 0
        self.refused = 0
        self.dropped = 0
        self.forwarded = 0
        self.queue_max = queue
        self.mappings = mappings
        self.waits = Sketch()
        self.responses = Sketch()

    def row(self) -> Row:
        """Its part of the row."""
        return {
            "received": self.received,
            "answered": self.answered,
            "refused": self.refused,
            "dropped": self.dropped,
            "forwarded": self.forwarded,
            "queue_max": self.queue_max,
            "wait_mean": self.waits.mean,
            "wait_p50": self.waits.quantile(0.5),
            "wait_p99": self.waits.quantile(0.99),
            "wait_max": self.waits.greatest if self.waits.count else None,
            "response_mean": self.responses.mean,
            "response_p50": self.responses.quantile(0.5),
            "response_p99": self.responses.quantile(0.99),
            "mappings": self.mappings,
        }


@final
class Record:
    """What one server does, interval by interval."""

    __slots__ = (
        "_busy",
        "_clock",
        "_closed",
        "_interval",
        "_name",
        "_open",
        "_queue",
        "_queue_since",
        "_queued",
        "_workers",
    )

    def __init__(self, clock: Clock, name: str, workers: int, interval: float) -> None:
        """`interval` is the length of a row, s."""
        self._clock = clock
        self._name = name
        self._workers = workers
        self._interval = interval
        self._open = _Interval()
        self._closed: list[Row] = []
        self._busy = Shares(interval)
        self._queued = Shares(interval)
        self._queue = 0
        self._queue_since = 0.0

    # ---- what happens --------------------------------------------------------------------------

    def received(self) -> None:
        """A message has arrived."""
        self._current().received += 1

    def dropped(self) -> None:
        """It found the queue full."""
        self._current().dropped += 1

    def queue_is(self, length: int) -> None:
        """The queue has another length."""
        now, interval = self._clock.now, self._current()
        if self._queue:
            self._queued.add(self._queue_since, now, self._queue)
        self._queue, self._queue_since = length, now
        interval.queue_max = max(interval.queue_max, length)

    def begins(self, waited: float, taken: float) -> None:
        """A worker begins with what has waited, and will take so long, s."""
        self._current().waits.add(waited)
        now = self._clock.now
        self._busy.add(now, min(now + taken, self._clock.end), 1.0)

    def answered(self, *, refused: bool, response: float) -> None:
        """An answer leaves, so long after its request arrived, s; below 0 if that is not known."""
        interval = self._current()
        interval.answered += 1
        interval.refused += refused
        if response >= 0:
            interval.responses.add(response)

    def forwarded(self) -> None:
        """A packet was sent on."""
        self._current().forwarded += 1

    def holds(self, mappings: int) -> None:
        """So many mappings are held from now on."""
        self._current().mappings = mappings

    # ---- rows ----------------------------------------------------------------------------------

    def _current(self) -> _Interval:
        number = int(self._clock.now / self._interval)
        while len(self._closed) < number:
            self._close()
        return self._open

    def _close(self) -> None:
        self._closed.append(self._open.row())
        self._open = _Interval(self._queue, self._open.mappings)

    def rows(self, run: int) -> list[Row]:
        """The rows of the table, up to the end of the run; nothing is written down after it."""
        end = self._clock.end
        if self._queue:
            self._queued.add(self._queue_since, end, self._queue)
        parts = list(intervals(end, self._interval))
        while len(self._closed) < len(parts):
            self._close()
        return [self._row(run, number, start, length) for number, start, length in parts]

    def _row(self, run: int, number: int, start: float, length: float) -> Row:
        row: Row = {"run": run, "ims": self._name, "start": start, "interval": length}
        row["busy"] = min(1.0, self._busy.of(number) / (length * self._workers))
        row["queue_mean"] = self._queued.of(number) / length
        row.update(self._closed[number])
        return row
