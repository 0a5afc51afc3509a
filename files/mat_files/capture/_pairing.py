"""What left somewhere and arrived elsewhere."""

from collections import defaultdict
from collections.abc import Hashable
from typing import Generic, TypeVar, final

T = TypeVar("T")


@final
class Pairing(Generic[T]):
    """Finds for what arrives the departure that it belongs to, in order of time.

    That is the last one of the same content which has no arrival yet: a repetition leaves long
    after its original has arrived, if that ever does.
    """

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending: dict[Hashable, list[T]] = defaultdict(list)

    def left(self, content: Hashable, departure: T) -> None:
        """Something of this content has left."""
        self._pending[content].append(departure)

    def arrived(self, content: Hashable) -> T | None:
        """Something of this content has arrived: its departure; None if that was not seen."""
        pending = self._pending.get(content)
        return pending.pop() if pending else None
