"""Datagrams that wait to be worked off, each request once.

Under overload a node asks again before it was answered, and again. Were each repetition worked off,
the server would be the busier the further it is behind, with answers that came too late before. So
a repetition takes the place of what it repeats: it waits no longer than that has to, and the work
is that of the requests, however often they come. What is kept is the newest transmission, for that
of an IMS Update carries the freshness that the node counts on.
"""

from collections import OrderedDict
from typing import Final, NamedTuple, final

from mat_real.datagrams import DatagramSocket, Peer

_HEADER: Final = 8
"""Bytes of a message with its type and sequence."""


class Waiting(NamedTuple):
    """A datagram: the socket that it came to, from whom, and since when it has waited, s."""

    source: DatagramSocket
    datagram: bytes
    peer: Peer
    since: float


@final
class Backlog:
    """A queue, first in first out; `len` is how many wait."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: OrderedDict[tuple[DatagramSocket, Peer, bytes], Waiting] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, arrived: list[Waiting]) -> int:
        """Put datagrams at the end, or in the place of what they repeat; how many did that."""
        waiting = self._waiting
        before = len(waiting)
        for one in arrived:
            source, datagram, peer, _ = one
            name = source, peer, datagram[:_HEADER]
            known = waiting.get(name)
            waiting[name] = one if known is None else one._replace(since=known.since)
        return before + len(arrived) - len(waiting)

    def take(self, most: int) -> list[Waiting]:
        """Remove those that have waited longest, up to `most`."""
        pop = self._waiting.popitem
        return [pop(last=False)[1] for _ in range(min(most, len(self._waiting)))]
