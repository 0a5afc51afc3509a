"""When the packets of a flow leave its sender: at a constant rate, at random, or on and off.

Nothing that happens in the network changes a rhythm. So it can be played packet by packet, or be
asked for all packets up to some time at once; both ways give the same times, to the last bit.
"""

from bisect import bisect_left
from math import ceil
from random import Random
from typing import Final, final

from numpy.random import PCG64, Generator

from mat_files.distributions import Distribution
from mat_sim.engine._clock import NEVER
from mat_sim.engine._longest import longest

_BLOCK: Final = 128
"""Times of a Poisson process that are drawn at once."""
_PAUSES: Final = 40
"""A pause of a Poisson process is longer than so many means with a probability of 4e-18."""


class Rhythm:
    """The times of a flow's packets, from the next one on."""

    __slots__ = ("longest_pause", "next", "number", "spacing")

    def __init__(self, spacing: float, longest_pause: float) -> None:
        self.spacing = spacing
        """Mean time between two packets, while there are any, s."""
        self.longest_pause = longest_pause
        """The longest time between two packets, s."""
        self.next = 0.0
        """Time of the next packet, s."""
        self.number = 0
        """Its number, from 0: so many have been sent."""

    def advance(self) -> None:
        """The next packet is sent."""
        raise NotImplementedError

    def until(self, time: float) -> list[float]:
        """The times of all packets from the next one on and before `time`: they are sent."""
        raise NotImplementedError

    def skip(self, time: float) -> int:
        """As `until`, for who only wants to know how many there are."""
        return len(self.until(time))

    def steady_until(self, pause: float) -> float:
        """Until when no pause is longer than `pause`, s; past, if that is not known."""
        return NEVER if self.longest_pause <= pause else 0.0


@final
class Regular(Rhythm):
    """A constant rate."""

    __slots__ = ("_first",)

    def __init__(self, first: float, spacing: float) -> None:
        super().__init__(spacing, spacing)
        self._first = first
        self.next = first

    def advance(self) -> None:
        """The next packet is sent."""
        self._go_to(self.number + 1)

    def until(self, time: float) -> list[float]:
        """The times of all packets from the next one on and before `time`."""
        first, spacing, number = self._first, self.spacing, self.number
        self._go_to(max(number, _before(time, first, spacing)))
        return [first + one * spacing for one in range(number, self.number)]

    def skip(self, time: float) -> int:
        """How many there are."""
        number = self.number
        self._go_to(max(number, _before(time, self._first, self.spacing)))
        return self.number - number

    def time(self, number: int) -> float:
        """When a packet is sent, s."""
        return self._first + number * self.spacing

    def arrived(self, now: float, delay: float) -> int:
        """Of the packets sent, how many arrive by now if each takes `delay`, s."""
        number = min(self.number, _before(now - delay, self._first, self.spacing) + 1)
        while number > 0 and self.time(number - 1) + delay > now:
            number -= 1
        return number

    def edges(self, begin: int, end: int, delay: float) -> list[float]:
        """Arrivals of packets numbered from `begin` up to `end`, without that: the last one's, s.

        Before it, the first one's that comes within the same second of the clock.
        """
        last = self.time(end - 1) + delay
        second = int(last)
        number = max(begin, _before(second - delay, self._first, self.spacing) - 1)
        while self.time(number) + delay < second:
            number += 1
        return [self.time(number) + delay, last]

    def _go_to(self, number: int) -> None:
        self.number = number
        self.next = self._first + number * self.spacing


@final
class Poisson(Rhythm):
    """Random times, each independent of all others."""

    __slots__ = ("_place", "_random", "_times")

    def __init__(self, begin: float, spacing: float, seed: int) -> None:
        super().__init__(spacing, _PAUSES * spacing)
        self._random = Generator(PCG64(seed))
        self._times = [begin]
        self._place = 0
        self._more()

    def _more(self) -> None:
        """The next block of times."""
        gaps = self._random.standard_exponential(_BLOCK) * self.spacing
        self._times = (self._times[-1] + gaps.cumsum()).tolist()
        self._place = 0
        self.next = self._times[0]

    def advance(self) -> None:
        """The next packet is sent."""
        self.number += 1
        self._place += 1
        if self._place == _BLOCK:
            self._more()
        else:
            self.next = self._times[self._place]

    def until(self, time: float) -> list[float]:
        """The times of all packets from the next one on and before `time`."""
        passed: list[float] = []
        while self._times[-1] < time:
            passed += self._times[self._place :]
            self._more()
        place = bisect_left(self._times, time, self._place)
        passed += self._times[self._place : place]
        self.number += len(passed)
        self._place = place
        self.next = self._times[place]
        return passed


@final
class OnOff(Rhythm):
    """A constant rate for a time, nothing for a time, and so on."""

    __slots__ = ("_begun", "_ends", "_off", "_on", "_place", "_random")

    def __init__(
        self, first: float, spacing: float, on: Distribution, off: Distribution, random: Random
    ) -> None:
        """`on` and `off` are how long there are packets, and none."""
        super().__init__(spacing, spacing + longest(off))
        self._on = on
        self._off = off
        self._random = random
        self._begun = first
        self._ends = first + on.sample(random)
        self._place = 0
        """Of the next packet within this time of sending, from 0."""
        self._settle()

    def _settle(self) -> None:
        """The next packet is one of this time of sending, or of a later one."""
        self.next = self._begun + self._place * self.spacing
        while self.next >= self._ends:
            self._begun = self.next = self._ends + self._off.sample(self._random)
            self._ends = self._begun + self._on.sample(self._random)
            self._place = 0

    def advance(self) -> None:
        """The next packet is sent."""
        self.number += 1
        self._place += 1
        self._settle()

    def until(self, time: float) -> list[float]:
        """The times of all packets from the next one on and before `time`."""
        passed: list[float] = []
        while self.next < time:
            begun, spacing, place = self._begun, self.spacing, self._place
            self._place = _before(min(time, self._ends), begun, spacing)
            passed += [begun + one * spacing for one in range(place, self._place)]
            self._settle()
        self.number += len(passed)
        return passed

    def steady_until(self, pause: float) -> float:
        """Until when no pause is longer: to the end of this time of sending, if not for good."""
        if self.longest_pause <= pause:
            return NEVER
        return self._ends if self.spacing <= pause else 0.0


def _before(time: float, first: float, spacing: float) -> int:
    """How many numbers of the sequence `first + n * spacing` are below `time`."""
    number = max(0, ceil((time - first) / spacing))
    while number > 0 and first + (number - 1) * spacing >= time:
        number -= 1
    while first + number * spacing < time:
        number += 1
    return number
