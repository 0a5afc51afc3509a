"""A timer for a deadline that moves: of a machine's next input, mostly."""

import asyncio
import math
from collections.abc import Callable
from typing import final


@final
class Alarm:
    """Calls `wake` at the deadline that was set last, once."""

    __slots__ = ("_deadline", "_loop", "_now", "_timer", "_wake")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        now: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        """`now` is the clock that deadlines are times of, in seconds."""
        self._loop = loop
        self._now = now
        self._wake = wake
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None

    def set(self, deadline: float | None) -> None:
        """Wake at this time, or at once if it has passed; None: at none."""
        if deadline == self._deadline:
            return
        self.cancel()
        self._deadline = deadline
        if deadline is not None:
            # uvloop rounds to milliseconds: down, it would wake again and again until it is time.
            left = math.ceil((deadline - self._now()) * 1000) / 1000
            self._timer = self._loop.call_later(max(0.0, left), self._ring)

    def cancel(self) -> None:
        """Wake at no time."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._deadline = None

    def _ring(self) -> None:
        self._timer = self._deadline = None
        self._wake()
