"""Interruption and loss of one handover in one flow, measured as packets pass.

It comes to the same as `mat_files.measure`, without keeping when each packet was sent and
delivered.
"""

from typing import final

from mat_sim.engine._handover import NOT_YET, is_known


@final
class Gauge:
    """What is known of a handover from its begin on; deliveries come in order of time."""

    __slots__ = (
        "_any",
        "_arrived",
        "_edge",
        "_first",
        "_longest",
        "_past",
        "begin",
        "end",
        "upper",
    )

    def __init__(self, begin: float, last: float, first: int) -> None:
        """The last delivery was at `last`, NaN for none; packets count from number `first` on."""
        self.begin = begin
        self.end = NOT_YET
        self.upper = 0
        """Packets count up to, but without, this number."""
        self._first = first
        self._any = is_known(last)
        """Whether anything was delivered before."""
        self._edge = last if self._any else begin
        self._longest = 0.0
        self._arrived = 0
        self._past = False
        """Whether there was a delivery at the end or after it."""

    def close(self, end: float, upper: int) -> None:
        """The handover is over; packets up to a number had been sent."""
        self.end = end
        self.upper = upper
        self._past = self._any and self._edge >= end

    def is_done_with(self, number: int) -> bool:
        """Whether, the handover being over, a packet of this number is nothing to it."""
        return self._past and number >= self.upper

    def delivered(self, now: float, number: int) -> None:
        """A packet has been delivered."""
        self._gap(now)
        if self._first <= number and (number < self.upper or not is_known(self.end)):
            self._arrived += 1

    def _gap(self, now: float) -> None:
        if not self._past:
            # What is delivered at the very begin counts as delivered before.
            if now > self.begin:
                self._longest = max(self._longest, now - self._edge)
            self._edge, self._any = now, True
            self._past = now >= self.end

    @property
    def lost(self) -> int:
        """Packets that were never delivered."""
        return self.upper - self._first - self._arrived

    def interruption(self, spacing: float) -> float:
        """Longest time without a delivery, less the spacing of packets, s."""
        longest = self._longest
        if not self._past:
            longest = max(longest, self.end - self._edge)
        return max(0.0, longest - spacing)
