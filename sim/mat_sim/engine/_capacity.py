"""What a link to the core can carry: a rate and a queue for each direction.

A site's link to the core is full duplex. Each direction has a transmitter, which sends datagrams
one after the other in order of arrival, each for the time that its length takes at the rate; the
way begins when the last bit has left. While one is sent, so many others wait, and one that finds
the queue full is dropped. This is a G/D/1/K station where all are of one length.

First come, first served means that what happens to a datagram is known when it arrives: its sending
begins when that of the last one ends. So the queue is a list of those ends, and takes no events.
"""

from collections import deque
from collections.abc import Iterator
from typing import Final, final

from mat_sim.engine._clock import NEVER, Clock
from mat_sim.engine._record import Row, Shares, intervals
from mat_sim.engine._sketch import Sketch

_BITS: Final = 8


@final
class _Load:
    """What came to a transmitter in one interval."""

    __slots__ = ("arrived", "bytes", "dropped", "waits")

    def __init__(self) -> None:
        self.arrived = 0
        self.dropped = 0
        self.bytes = 0
        self.waits = Sketch()

    def row(self) -> Row:
        """Its part of the row."""
        waits = self.waits
        return {
            "arrived": self.arrived,
            "dropped": self.dropped,
            "bytes": self.bytes,
            "wait_mean": waits.mean,
            "wait_p99": waits.quantile(0.99),
            "wait_max": waits.greatest if waits.count else None,
        }


@final
class Transmitter:
    """Sends datagrams over one direction of a link, at `rate` bit/s."""

    __slots__ = (
        "_busy",
        "_clock",
        "_closed",
        "_ends",
        "_interval",
        "_load",
        "_number",
        "_queue",
        "_queued",
        "_rate",
    )

    def __init__(self, clock: Clock, rate: float, queue: int, interval: float) -> None:
        """`queue` is how many wait at most; `interval` the length of a row of the table, s."""
        self._clock = clock
        self._rate = rate
        self._queue = queue
        self._interval = interval
        self._ends: deque[float] = deque()
        """When the sending of each datagram that is here will have ended, s."""
        self._busy = Shares(interval)
        self._queued = Shares(interval)
        self._number = 0
        self._load = _Load()
        """That of the interval with this number; waits count where they begin."""
        self._closed: dict[int, Row] = {}

    def takes(self, size: int) -> float:
        """How long the sending of so many bytes takes, s."""
        return size * _BITS / self._rate

    def send(self, size: int) -> float:
        """A datagram of so many bytes arrives; when it will have been sent, or NEVER if dropped."""
        now, ends, load = self._clock.now, self._ends, self._current()
        while ends and ends[0] <= now:
            ends.popleft()
        load.arrived += 1
        if len(ends) > self._queue:
            load.dropped += 1
            return NEVER
        begin = ends[-1] if ends else now
        end = begin + self.takes(size)
        ends.append(end)
        load.bytes += size
        load.waits.add(begin - now)
        last = self._clock.end
        self._queued.add(now, min(begin, last), 1.0)
        self._busy.add(begin, min(end, last), 1.0)
        return end

    def _current(self) -> _Load:
        number = int(self._clock.now / self._interval)
        if number != self._number:
            self._close()
            self._number = number
        return self._load

    def _close(self) -> None:
        if self._load.arrived:
            self._closed[self._number] = self._load.row()
            self._load = _Load()

    def rows(self) -> Iterator[Row]:
        """The load of each interval; nothing where there was none in the whole run."""
        self._close()
        if not self._closed:
            return
        nothing = _Load().row()
        for number, start, length in intervals(self._clock.end, self._interval):
            yield {
                "start": start,
                "interval": length,
                "busy": min(1.0, self._busy.of(number) / length),
                "queue_mean": self._queued.of(number) / length,
                **self._closed.get(number, nothing),
            }


@final
class Capacity:
    """The transmitters of the link between a site and the core."""

    __slots__ = ("_kind", "_name", "down", "up")

    def __init__(
        self, clock: Clock, kind: str, name: str, *, rate: float, queue: int, interval: float
    ) -> None:
        """`kind` and `name` say what the link leads to (`mat_files.schema.LINKS`)."""
        self._kind = kind
        self._name = name
        self.up = Transmitter(clock, rate, queue, interval)
        self.down = Transmitter(clock, rate, queue, interval)

    def rows(self, run: int) -> Iterator[Row]:
        """The rows of the table `links`."""
        for direction, transmitter in (("up", self.up), ("down", self.down)):
            for row in transmitter.rows():
                named = {"link": self._name, "kind": self._kind, "direction": direction}
                yield {"run": run, **named, **row}
