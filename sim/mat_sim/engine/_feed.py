"""Attachment events on their way into a run."""

from collections.abc import Iterable, Sequence
from typing import final

from mat_sim.engine._clock import Clock, Happening
from mat_sim.engine._roamer import Access, Roamer
from mat_sim.engine._timetable import Move


@final
class Feed(Happening):
    """Attachment events, one after the other: only the next is in the calendar."""

    __slots__ = ("_access", "_clock", "_hosts", "_moves", "_next")

    def __init__(
        self,
        moves: Iterable[Move],
        hosts: Sequence[Roamer],
        access: Sequence[Access],
        clock: Clock,
    ) -> None:
        """`hosts` and `access` by the numbers of nodes and networks in `moves`."""
        self._moves = iter(moves)
        self._hosts = hosts
        self._access = access
        self._clock = clock
        self._next: Move | None = next(self._moves, None)
        if self._next is not None:
            clock.first_at(self._next[0], self)

    def happen(self) -> None:
        """The next events are due: all of this time."""
        now = self._clock.now
        while self._next is not None and self._next[0] <= now:
            _, node, attaches, network, interface, wanted = self._next
            host, access = self._hosts[node], self._access[network]
            if attaches:
                host.attach(access, interface, wanted)
            else:
                host.detach(access)
            self._next = next(self._moves, None)
        if self._next is not None:
            self._clock.first_at(self._next[0], self)
