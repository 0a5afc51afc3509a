"""Stores: where an IMS keeps what its nodes registered.

A store applies `mat.registrations.judge` as one compare-and-set and says of each update what became
of it. What is `Outcome.STORED` (or `REPEATED`) is durable: it survives a crash of the IMS and of
the machine. A store that cannot tell says `Outcome.UNAVAILABLE`; it never answers with what may be
out of date.
"""

from collections.abc import Callable
from typing import Protocol, TypeAlias

from mat.effects import ReadByHome, ReadByMobile, StoreWrite
from mat.registrations import Outcome, Registration

StoreEffect: TypeAlias = StoreWrite | ReadByHome | ReadByMobile
Written: TypeAlias = tuple[Outcome, int]
"""The fate of a `StoreWrite`, and the freshness that is stored now (the floor, if nothing is)."""
Found: TypeAlias = Registration | Outcome | None
"""What a read found: a registration (perhaps expired), None, or `Outcome.UNAVAILABLE`."""

Answered: TypeAlias = Callable[[StoreEffect, Written | Found], None]
"""How a store hands back a result, with the effect that it is the result of."""


class StoreError(Exception):
    """A store that cannot be opened or used; says which, why, and how to mend it."""


class Store(Protocol):
    """What the server's worker needs of a store. All calls are made on the event loop's thread."""

    def submit(self, effect: StoreEffect) -> None:
        """Begin to carry out an effect; the result may come before this returns, or much later.

        Effects on the same home address take effect in the order in which they were submitted.
        """
        ...

    def flush(self) -> None:
        """No more is submitted for the moment: let what has been collected go, as one batch."""
        ...

    def depth(self) -> int:
        """Effects submitted and not answered yet."""
        ...

    async def close(self) -> None:
        """Finish what was submitted, answer it, and let go of everything."""
        ...
