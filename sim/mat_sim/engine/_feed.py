"""Attachment events on their way into a run."""

from collections.abc import Iterable
from typing import final

from mat.address import parse_address
from mat_files.attachment import AttachmentEvent
from mat_sim.engine._clock import Clock, Happening
from mat_sim.engine._host import Host
from mat_sim.engine._roamer import Access


@final
class Feed(Happening):
    """Attachment events, one after the other: only the next is in the calendar."""

    __slots__ = ("_access", "_clock", "_events", "_hosts", "_next")

    def __init__(
        self,
        events: Iterable[AttachmentEvent],
        hosts: dict[str, Host],
        access: dict[str, Access],
        clock: Clock,
    ) -> None:
        self._events = iter(events)
        self._hosts = hosts
        self._access = access
        self._clock = clock
        self._next: AttachmentEvent | None = next(self._events, None)
        if self._next is not None:
            clock.first_at(self._next.time, self)

    def _advance(self) -> None:
        self._next = next(self._events, None)

    def happen(self) -> None:
        """The next events are due: all of this time."""
        now = self._clock.now
        while self._next is not None and self._next.time <= now:
            self._apply(self._next)
            self._advance()
        if self._next is not None:
            self._clock.first_at(self._next.time, self)

    def _apply(self, event: AttachmentEvent) -> None:
        host, access = self._hosts[event.node], self._access[event.network]
        if event.action == "attach":
            wanted = parse_address(str(event.moa)) if event.moa else None
            host.attach(access, event.interface, wanted)
        else:
            host.detach(access)
