"""Time: SimPy's, with one timer for the whole population of machines.

A machine shows its earliest deadline; the clock keeps the deadlines of all in one heap and has one
SimPy event armed for the earliest. A process, or even an event, per machine would cost ten times as
much for a large population.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Protocol, final

import simpy


class Sleeper(Protocol):
    """Something with a machine inside, to be woken at its deadline."""

    armed: float | None
    """The deadline that the clock knows of."""

    def deadline(self) -> float | None:
        """When it wants to be woken, s."""
        ...

    def wake(self, now: float) -> None:
        """Its deadline has come."""
        ...


@final
class Clock:
    """Simulated time in seconds, from 0."""

    __slots__ = ("_armed", "_count", "_environment", "_heap")

    def __init__(self) -> None:
        self._environment = simpy.Environment()
        self._heap: list[tuple[float, int, Sleeper]] = []
        self._count = 0
        self._armed: float | None = None

    @property
    def now(self) -> float:
        """The present time, s."""
        return float(self._environment.now)

    def after(self, delay: float, act: Callable[..., None], *arguments: Any) -> None:
        """Call `act(*arguments)` after `delay` seconds."""
        event: Any = self._environment.timeout(delay)  # SimPy leaves the callbacks' type open
        callbacks: list[Callable[[object], None]] = event.callbacks
        callbacks.append(lambda _event: act(*arguments))

    def at(self, time: float, act: Callable[..., None], *arguments: Any) -> None:
        """Call `act(*arguments)` at a time that is not past."""
        self.after(max(0.0, time - self.now), act, *arguments)

    def rearm(self, sleeper: Sleeper) -> None:
        """After every input to a machine: its deadline may be another."""
        due = sleeper.deadline()
        if due is None or due == sleeper.armed:
            return
        sleeper.armed = due
        self._count += 1
        heappush(self._heap, (due, self._count, sleeper))
        self._arm()

    def run(self, until: float) -> None:
        """Let time pass up to `until`."""
        self._environment.run(until=until)

    def _arm(self) -> None:
        due = self._heap[0][0]
        if self._armed is None or due < self._armed:
            self._armed = due
            self.at(due, self._fire, due)

    def _fire(self, armed: float) -> None:
        if self._armed == armed:
            self._armed = None
        now = self.now
        while self._heap and self._heap[0][0] <= now:
            due, _, sleeper = heappop(self._heap)
            if sleeper.armed == due:
                sleeper.armed = None
                sleeper.wake(now)
                self.rearm(sleeper)
        if self._heap:
            self._arm()
