"""Timers that know what to do, and requests that are repeated until they are answered."""

from collections.abc import Callable
from typing import Final, final

from mat.timers import Timed, Timers
from mat_sim.baselines._machine import Effect

REFRESH: Final = 0.75
"""Share of a lifetime after which it is renewed. The specifications say "well before" its end."""


@final
class Alarm(Timed):
    """A timer and what to do when its time has come."""

    __slots__ = ("ring",)

    def __init__(self, ring: Callable[[float], list[Effect]]) -> None:
        super().__init__()
        self.ring = ring


@final
class Rate:
    """At most `most` within any `within` seconds."""

    __slots__ = ("_most", "_sent", "_within")

    def __init__(self, most: int, within: float) -> None:
        self._most = most
        self._within = within
        self._sent: tuple[float, ...] = ()

    def earliest(self, now: float) -> float:
        """When the next one is allowed, s."""
        full = len(self._sent) == self._most
        return max(now, self._sent[0] + self._within) if full else now

    def sent(self, now: float) -> None:
        """One is sent now."""
        self._sent = (*self._sent, now)[-self._most :]


@final
class Request(Timed):
    """Something to send, and to send again after `first` seconds, then doubling up to `ceiling`.

    `transmit` is called with the time and whether it is a repetition. After `limit` transmissions
    without an answer `given_up` is called; without a limit it goes on until `Alarms.cancel`.
    """

    __slots__ = ("_attempts", "_ceiling", "_given_up", "_interval", "_limit", "_rate", "_transmit")

    def __init__(
        self,
        transmit: Callable[[float, bool], list[Effect]],
        *,
        first: float,
        ceiling: float,
        limit: int | None = None,
        given_up: Callable[[float], list[Effect]] | None = None,
        rate: Rate | None = None,
    ) -> None:
        super().__init__()
        self._transmit = transmit
        self._interval = first
        self._ceiling = ceiling
        self._limit = limit
        self._given_up = given_up
        self._rate = rate
        self._attempts = 0

    def attempt(self, now: float, alarms: "Alarms") -> list[Effect]:
        """The next transmission, or the end of trying."""
        if self._limit is not None and self._attempts >= self._limit:
            return self._given_up(now) if self._given_up else []
        allowed = self._rate.earliest(now) if self._rate else now
        if allowed > now:
            alarms.schedule(self, allowed)
            return []
        if self._rate:
            self._rate.sent(now)
        self._attempts += 1
        alarms.schedule(self, now + self._interval)
        self._interval = min(2 * self._interval, self._ceiling)
        return self._transmit(now, self._attempts > 1)


@final
class Alarms(Timers):
    """The timers of one machine."""

    __slots__ = ()

    def begin(self, now: float, request: Request) -> list[Effect]:
        """Send a request for the first time."""
        return request.attempt(now, self)

    def end(self, timed: Timed | None) -> None:
        """It is answered, or of no use any more."""
        if timed is not None:
            self.cancel(timed)

    def handle(self, now: float) -> list[Effect]:
        """Do what is due."""
        effects: list[Effect] = []
        for timed in self.due(now):
            if isinstance(timed, Request):
                effects += timed.attempt(now, self)
            elif isinstance(timed, Alarm):
                effects += timed.ring(now)
        return effects
