"""A flow of data packets in one direction: when each was sent, and when it was delivered."""

from array import array
from typing import Final, final

import numpy as np

from mat.address import Address
from mat_files.measure import interruption, losses

UP: Final = "up"
DOWN: Final = "down"
_NEVER: Final = float("nan")


@final
class Flow:
    """Packets at a constant rate from one node to another, between their home addresses."""

    __slots__ = (
        "_delivered",
        "_sent",
        "destination",
        "receiver",
        "sender",
        "size",
        "source",
        "spacing",
        "stops",
    )

    def __init__(
        self,
        *,
        sender: str,
        receiver: str,
        source: Address,
        destination: Address,
        spacing: float,
        size: int,
        stops: float,
    ) -> None:
        self.sender = sender
        self.receiver = receiver
        self.source = source
        self.destination = destination
        self.spacing = spacing
        self.size = size
        self.stops = stops
        """When the mobile node has left for good, s."""
        self._sent = array("d")
        self._delivered = array("d")

    def send(self, now: float) -> int:
        """One more packet; its number."""
        self._sent.append(now)
        self._delivered.append(_NEVER)
        return len(self._sent) - 1

    def deliver(self, now: float, number: int) -> None:
        """A packet has reached the application."""
        self._delivered[number] = now

    def peer(self, way: str) -> Address:
        """The home address at the other end, for a node that this flow is up or down for."""
        return self.destination if way == UP else self.source

    @property
    def begun(self) -> bool:
        """Whether any packet was sent."""
        return bool(self._sent)

    def interruption(self, begin: float, end: float) -> float:
        """Longest time without a delivery around a handover, s (`mat_files.measure`)."""
        return interruption(np.array(self._delivered), begin, end, self.spacing)

    def losses(self, begin: float, end: float) -> int:
        """Packets of a handover that were never delivered (`mat_files.measure`)."""
        return losses(np.array(self._sent), np.array(self._delivered), begin, end)
