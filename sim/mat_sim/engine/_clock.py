"""Time: SimPy's, with one calendar for the whole population.

SimPy has one event for each stretch of a run (`Clock.run`); what happens in between lies in a
calendar of our own. An event of SimPy's for each message and each timer would cost six to nine
microseconds and 0.4 KB; an entry of the calendar costs less than one and 0.1 KB.

Only what happens within the present slot of a millisecond or so is in a heap; what is later lies
in lists, one for each slot, without order. So the heap is as long as few things happen at a time,
and not as long as a million nodes have timers (a calendar queue with one heap; Brown 1988).
"""

from heapq import heapify, heappop, heappush
from typing import Any, Final, final

import simpy

NEVER: Final = float("inf")
_EARLIEST: Final = -(1 << 60)
_SLOTS: Final = 1024.0
"""Slots a second."""


class Happening:
    """Something that happens at a time."""

    __slots__ = ()

    def happen(self) -> None:
        """The time has come."""
        raise NotImplementedError


_Entry = tuple[float, int, Happening]
"""When, in which order at equal times, and what."""


@final
class Clock:
    """Simulated time in seconds, from 0 to the `end` of the run, which nothing comes after."""

    __slots__ = (
        "_calendar",
        "_early",
        "_environment",
        "_horizon",
        "_later",
        "_order",
        "_slot",
        "_slots",
        "end",
        "happenings",
        "now",
    )

    def __init__(self, end: float) -> None:
        self.now = 0.0
        self.end = end
        self.happenings = 0
        """How many there were."""
        self._environment = simpy.Environment()
        self._calendar: list[_Entry] = []
        """A heap of what happens up to the end of the present slot."""
        self._later: dict[int, list[_Entry]] = {}
        """What happens after it, by slot."""
        self._slots: list[int] = []
        """A heap of the slots that have something."""
        self._slot = 0
        """The present slot."""
        self._order = 0
        self._early = _EARLIEST
        self._horizon = 0.0

    def at(self, time: float, happening: Happening) -> None:
        """At a time, or now if it is past. At equal times, in order of asking."""
        if time < self.end:
            self._order += 1
            self._enter(max(time, self.now), self._order, happening)

    def first_at(self, time: float, happening: Happening) -> None:
        """As `at`, and before all else that happens at that time."""
        if time < self.end:
            self._enter(max(time, self.now), 0, happening)

    def early_at(self, time: float, happening: Happening) -> None:
        """As `at`, and before all else that happens at that time but what is as early."""
        if time < self.end:
            self._early += 1
            self._enter(max(time, self.now), self._early, happening)

    def _enter(self, time: float, order: int, happening: Happening) -> None:
        entry, slot = (time, order, happening), int(time * _SLOTS)
        if slot <= self._slot:
            heappush(self._calendar, entry)
            return
        waiting = self._later.get(slot)
        if waiting is None:
            self._later[slot] = [entry]
            heappush(self._slots, slot)
        else:
            waiting.append(entry)

    def after(self, delay: float, happening: Happening) -> None:
        """After a number of seconds."""
        self.at(self.now + delay, happening)

    def run(self, until: float) -> None:
        """Let time pass up to `until`; what happens at that very time is still to come."""
        if until <= self.now:
            return
        if self._has_before(until):
            self._horizon = until
            first: Any = self._environment.timeout(self._calendar[0][0] - self._environment.now)
            first.callbacks.append(self._pass)
        self._environment.run(until=until)
        self.now = until

    def clear(self) -> None:
        """Nothing happens any more."""
        self._calendar = []
        self._later = {}
        self._slots = []

    def _has_before(self, time: float) -> bool:
        """Whether the next thing happens before a time: then it is in the heap."""
        if not self._calendar and self._slots:
            self._slot = heappop(self._slots)
            self._calendar = self._later.pop(self._slot)
            heapify(self._calendar)
        return bool(self._calendar) and self._calendar[0][0] < time

    def _pass(self, _event: object) -> None:
        while self._has_before(self._horizon):
            time, _, happening = heappop(self._calendar)
            self.now = time
            self.happenings += 1
            happening.happen()


class Sleeper(Happening):
    """Something with a machine inside, woken at the machine's deadline.

    The calendar has an entry no later than the deadline. A deadline that moves away leaves the
    entry where it is: when that comes up, the machine is asked again.
    """

    __slots__ = ("armed", "clock")

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.armed = NEVER
        """When the calendar has an entry for this, s."""

    def deadline(self) -> float | None:
        """When the machine wants to be woken, s."""
        raise NotImplementedError

    def wake(self, now: float) -> None:
        """The machine's deadline has come."""
        raise NotImplementedError

    def rearm(self) -> None:
        """After every input to the machine: its deadline may be another."""
        due = self.deadline()
        if due is not None and due < self.armed:
            self.armed = due
            self.clock.at(due, self)

    def happen(self) -> None:
        """An entry of the calendar has come up; the latest that was asked for, or an older one."""
        now = self.clock.now
        if now < self.armed:
            return
        self.armed = NEVER
        due = self.deadline()
        if due is not None and due <= now:
            self.wake(now)
        self.rearm()
