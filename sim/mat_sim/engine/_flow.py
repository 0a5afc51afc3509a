"""A flow of data packets in one direction: when each was sent, and when it was delivered."""

from array import array
from collections.abc import Sequence
from typing import Final

import numpy as np

from mat.address import Address
from mat.effects import NodeEffect
from mat_files.measure import interruption, losses
from mat_sim.engine._network import Dependent
from mat_sim.engine._rhythm import Rhythm

UP: Final = "up"
DOWN: Final = "down"
_NEVER: Final = float("nan")


class Flow(Dependent):
    """Packets from one node to another, between their home addresses, each an event.

    What is said to do nothing here is for `_quiet.QuietFlow`.
    """

    __slots__ = (
        "_delivered",
        "_sent",
        "destination",
        "detour",
        "headers",
        "receiver",
        "rhythm",
        "sender",
        "size",
        "source",
        "stops",
    )

    def __init__(
        self,
        *,
        sender: str,
        receiver: str,
        source: Address,
        destination: Address,
        rhythm: Rhythm,
        size: int,
        stops: float,
    ) -> None:
        self.sender = sender
        self.receiver = receiver
        self.source = source
        self.destination = destination
        self.rhythm = rhythm
        self.size = size
        self.stops = stops
        """When the mobile node has left for good, s."""
        self.headers = 0
        """Bytes of headers added to packets that were delivered, over all hops."""
        self.detour = 0.0
        """Sum over packets that were delivered, of how much longer than straight their way was."""
        self._sent = array("d")
        self._delivered = array("d")

    def send(self, now: float) -> int:
        """One more packet; its number."""
        self._sent.append(now)
        self._delivered.append(_NEVER)
        return len(self._sent) - 1

    def deliver(self, now: float, number: int, sent: float) -> None:  # noqa: ARG002
        """A packet has reached the application, which was sent at the time `sent`."""
        self._delivered[number] = now

    def peer(self, way: str) -> Address:
        """The home address at the other end, for a node that this flow is up or down for."""
        return self.destination if way == UP else self.source

    @property
    def begun(self) -> bool:
        """Whether any packet was sent."""
        return bool(self._sent)

    def totals(self) -> tuple[int, int, float]:
        """Packets sent, packets delivered, and the sum of what these took, s."""
        delivered = np.array(self._delivered)
        took = delivered - np.array(self._sent)
        return len(took), int(np.isfinite(delivered).sum()), float(np.nansum(took))

    def interruption(self, begin: float, end: float) -> float:
        """Longest time without a delivery around a handover, s (`mat_files.measure`)."""
        return interruption(np.array(self._delivered), begin, end, self.rhythm.spacing)

    def losses(self, begin: float, end: float) -> int:
        """Packets of a handover that were never delivered (`mat_files.measure`)."""
        return losses(np.array(self._sent), np.array(self._delivered), begin, end)

    # ---- without an event for each packet --------------------------------------------------------

    def doze(self) -> bool:
        """A packet is due: whether it needs no event, nor do those after it. Not here."""
        return False

    def wake(self) -> None:
        """Something changes that packets may depend on. It does nothing here."""

    def settle(self) -> None:
        """Account for all packets up to now. It does nothing here."""

    def kept(self, packet: object, effects: Sequence[NodeEffect], inputs: int) -> None:
        """What the sender's machine did with a packet, as its input of this number.

        It does nothing here.
        """

    def handover_begins(self, begin: float) -> None:
        """A handover begins at one of the ends. It does nothing here."""

    def handover_ends(self, begin: float, end: float) -> None:
        """It is over. It does nothing here."""
