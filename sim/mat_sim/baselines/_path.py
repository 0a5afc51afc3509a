"""The way that a packet would take at one moment, without sending it.

For traffic that is not played packet by packet, and for path stretch and header overhead: the legs
of the way with their lengths in bytes, and whether the packet would be accepted at the end. It is
the machines that say so, by their questions `way_out`, `way_on` and `way_in`; the state of the
moment is taken for the whole way, as if it took no time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, final

from mat.address import Address
from mat_sim.baselines._datagram import Data
from mat_sim.baselines._machine import Host, Reason, System, Transmit

_MOST_LEGS: Final = 8
"""No system's way is longer; a loop of two home agents ends here."""


class Leg(NamedTuple):
    """From one address to another, with `size` bytes."""

    origin: Address
    target: Address
    size: int


@final
@dataclass(frozen=True, slots=True)
class Path:
    """The legs of a way, as far as it goes; `failure` says why it does not arrive, if so."""

    legs: tuple[Leg, ...]
    failure: Reason | None = None

    @property
    def waypoints(self) -> tuple[Address, ...]:
        """The addresses on the way, both ends included."""
        return (*(leg.origin for leg in self.legs[:1]), *(leg.target for leg in self.legs))

    def overhead(self, data: Data) -> int:
        """Bytes above the packet's own length, summed over the legs."""
        return sum(leg.size - data.size for leg in self.legs)


def path(
    now: float,
    data: Data,
    sender: Host,
    system: System,
    holder: Callable[[Address], Host | None],
) -> Path:
    """The way of `data` from its sender; `holder` tells which host holds an address now."""
    way = sender.way_out(now, data)
    legs: list[Leg] = []
    while isinstance(way, Transmit) and len(legs) < _MOST_LEGS:
        datagram = way.datagram
        target = datagram.destination
        if target not in system.servers:
            target = system.catcher(now, target) or target
        legs.append(Leg(way.leaves_from, target, datagram.size))
        if target in system.servers:
            way = system.servers[target].way_on(now, datagram)
            continue
        receiver = holder(target)
        got = receiver.way_in(now, datagram) if receiver else Reason.UNREACHABLE
        return Path(tuple(legs), got if isinstance(got, Reason) else None)
    return Path(tuple(legs), way if isinstance(way, Reason) else Reason.UNREACHABLE)
