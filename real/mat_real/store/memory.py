"""A store in memory, for tests and demos: what it acknowledges is gone with the process."""

from collections.abc import Callable
from typing import Generic, TypeVar, assert_never, final

from mat.effects import ReadByHome, ReadByMobile, StoreWrite
from mat.registrations import Key, RegistrationTable
from mat_real.store import Answered, StoreEffect

Ticket = TypeVar("Ticket")


@final
class MemoryStore(Generic[Ticket]):
    """`RegistrationTable` behind the `Store` interface."""

    def __init__(self, answered: Answered, entered: Callable[[list[Ticket], bool], None]) -> None:
        """`entered` gets what came in by `enter`, at each flush."""
        self.table = RegistrationTable()
        self._answered = answered
        self._entered = entered
        self._tickets: list[Ticket] = []

    def submit(self, effect: StoreEffect) -> None:
        """Carry out an effect at once."""
        match effect:
            case StoreWrite():
                self._answered(effect, self.table.write(effect.registration))
            case ReadByHome():
                self._answered(effect, self.table.by_home(effect.home_address))
            case ReadByMobile():
                self._answered(effect, self.table.by_mobile(effect.mobile_address))
            case _:
                assert_never(effect)

    def enter(self, key: Key, record: bytes, freshness: int, ticket: Ticket) -> bool:
        """The express lane's way in, as `JournalStore.enter`."""
        if self.table.get(key) is None and freshness <= self.table.floor:
            return False
        if not self.table.put(key, record):
            return False
        self._tickets.append(ticket)
        return True

    def flush(self) -> None:
        """Answer what came in by the express lane."""
        if self._tickets:
            tickets, self._tickets = self._tickets, []
            self._entered(tickets, True)

    def depth(self) -> int:
        """Nothing ever waits here for long."""
        return len(self._tickets)

    async def close(self) -> None:
        """Answer what waits."""
        self.flush()
