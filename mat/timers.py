"""One earliest deadline for many timers, and a limiter of rates.

A machine keeps its timers in a heap and shows its driver the earliest. Moving a timer later or
cancelling it leaves the heap alone: the old entry is recognised when it comes up. So the heap holds
hardly more entries than there are timers, and an early call of the driver is harmless.
"""

from collections.abc import Iterator
from heapq import heappop, heappush


class Timed:
    """Something that wants to be woken: `due` is when, in seconds; None is never."""

    __slots__ = ("due", "queued")

    def __init__(self) -> None:
        self.due: float | None = None
        self.queued: float | None = None


class Timers:
    """The timers of one machine; `deadline` is the earliest of them, None if there is none."""

    __slots__ = ("_count", "_heap", "deadline")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timed]] = []
        self._count = 0
        self.deadline: float | None = None

    def clear(self) -> None:
        """Wake nothing any more."""
        self._heap = []
        self.deadline = None

    def schedule(self, timed: Timed, due: float) -> None:
        """Wake `timed` at `due`, in place of what was asked for before."""
        timed.due = due
        if timed.queued is None or due < timed.queued:
            timed.queued = due
            self._count += 1
            heappush(self._heap, (due, self._count, timed))
        if self.deadline is None or due < self.deadline:
            self.deadline = due

    def cancel(self, timed: Timed) -> None:
        """Do not wake `timed`."""
        timed.due = None
        self._drop_stale()

    def due(self, now: float) -> Iterator[Timed]:
        """Each timer whose time has come, once; its `due` is None when it is handed out."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            at, _, timed = heappop(heap)
            if at != timed.queued:
                continue
            timed.queued = None
            if timed.due is not None and timed.due > now:
                self.schedule(timed, timed.due)
            elif timed.due is not None:
                timed.due = None
                yield timed
        self._drop_stale()

    def _drop_stale(self) -> None:
        heap = self._heap
        while heap:
            at, _, timed = heap[0]
            if at == timed.queued:
                if timed.due is not None:
                    break
                timed.queued = None
            heappop(heap)
        self.deadline = heap[0][0] if heap else None


class TokenBucket:
    """At most `rate` a second over time, at most `burst` at once."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Whether one more is allowed now; if so it is counted."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def is_full(self, now: float) -> bool:
        """Whether nothing is left of what was counted."""
        return self._tokens + (now - self._at) * self._rate >= self._burst
