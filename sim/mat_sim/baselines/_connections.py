"""Hosts without home addresses, whose applications use the addresses of the moment.

A connection is begun with the addresses that both hosts have then, found in the DNS, and those are
what applications and sockets know it by for as long as it lasts. A packet is delivered if its
addresses, after whatever translation there is, are those of a connection.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from mat.address import Address
from mat_sim.baselines._alarms import Alarms, Request
from mat_sim.baselines._datagram import Data, Datagram
from mat_sim.baselines._machine import Deliver, Discard, Effect, Lookup, Reason, Transmit

_MOST_WAITING: Final = 16
"""Packets that wait for one peer's address."""
_MOST_ADDRESSES: Final = 4
"""Addresses of one side of a connection that packets may still bear."""


class Pair(NamedTuple):
    """Addresses of a connection: the own one and the peer's."""

    local: Address
    remote: Address


class Connection:
    """One connection: how applications know it, and what its packets bear now."""

    __slots__ = (
        "broken",
        "locals",
        "opened",
        "peer",
        "remotes",
        "request",
        "sequence",
        "wanted",
        "wire",
    )

    def __init__(self, peer: Address, opened: Pair) -> None:
        self.peer = peer
        self.opened = opened
        self.wire = opened
        self.locals: tuple[Address, ...] = (opened.local,)
        self.remotes: tuple[Address, ...] = (opened.remote,)
        """With `locals`, what its packets may come with: the latest addresses, for stragglers."""
        self.wanted: Address | None = None
        """The own address that the peer is being told, or was without having answered."""
        self.broken = False
        self.request: Request | None = None
        self.sequence = 0

    def add_local(self, address: Address) -> None:
        """Packets may come to this address from now on."""
        self.locals = (*self.locals, address)[-_MOST_ADDRESSES:]

    def add_remote(self, address: Address) -> None:
        """Packets may come from this address from now on."""
        self.remotes = (*self.remotes, address)[-_MOST_ADDRESSES:]

    def accepts(self, wire: Pair) -> bool:
        """Whether packets with these addresses belong to it."""
        return wire.local in self.locals and wire.remote in self.remotes


class ConnectionHost:
    """A host without mobility: what its connections began with is what their packets bear."""

    def __init__(self, home_address: Address) -> None:
        """`home_address` names the host, to the DNS; no packet bears it, unless it is held."""
        self.home_address = home_address
        self.addresses: tuple[Address, ...] = ()
        self._alarms = Alarms()
        self._connections: dict[Pair, Connection] = {}
        self._current: dict[Address, Connection] = {}
        """The connection to a peer that is sent on: the one begun first."""
        self._waiting: dict[Address, list[Data]] = {}

    @property
    def deadline(self) -> float | None:
        """When to call `handle_timer`, s."""
        return self._alarms.deadline

    @property
    def registered(self) -> bool:
        """There is nothing to register with."""
        return True

    def informed(self, now: float, peers: Sequence[Address]) -> bool:  # noqa: ARG002
        """Peers are not told."""
        return True

    def handle_timer(self, now: float) -> list[Effect]:
        """The deadline has come."""
        return self._alarms.handle(now)

    def addresses_changed(self, now: float, addresses: Sequence[Address]) -> list[Effect]:  # noqa: ARG002
        """These are its addresses from now on."""
        self.addresses = tuple(addresses)
        return []

    # ---- beginning -----------------------------------------------------------------------------

    def packet_out(self, now: float, data: Data) -> list[Effect]:
        """An application sends a packet; the first to a peer begins a connection."""
        way = self.way_out(now, data)
        if isinstance(way, Transmit):
            return [way]
        peer = data.destination
        if way is not Reason.UNRESOLVED:
            return [Discard(data, way)]
        waiting = self._waiting.get(peer)
        if waiting is None:
            self._waiting[peer] = [data]
            return [Lookup(peer)]
        if len(waiting) >= _MOST_WAITING:
            return [Discard(data, Reason.QUEUE_FULL)]
        waiting.append(data)
        return []

    def found(self, now: float, home_address: Address, address: Address | None) -> list[Effect]:
        """The DNS has answered: a peer's address."""
        waiting = self._waiting.pop(home_address, [])
        if address is None or not self.addresses:
            return [Discard(data, Reason.UNRESOLVED) for data in waiting]
        if home_address not in self._current:
            self._begin(home_address, Pair(self.addresses[0], address))
        effects: list[Effect] = []
        for data in waiting:
            effects += self.packet_out(now, data)
        return effects

    def _begin(self, peer: Address, opened: Pair) -> Connection:
        connection = Connection(peer, opened)
        self._connections[opened] = connection
        self._current.setdefault(peer, connection)
        return connection

    # ---- data ----------------------------------------------------------------------------------

    def way_out(self, now: float, data: Data) -> Transmit | Reason:  # noqa: ARG002
        """Between the addresses that the connection has now, while the own one is held."""
        connection = self._current.get(data.destination)
        if not self.addresses:
            return Reason.NO_ADDRESS
        if connection is None:
            return Reason.UNRESOLVED
        if connection.broken:
            return Reason.BROKEN
        local, remote = connection.wire
        if local not in self.addresses:
            return Reason.NO_ADDRESS
        named = Data(data.handle, data.source, data.destination, data.size, connection.opened)
        return Transmit(Datagram(local, remote, named, data.size), local)

    def receive(self, now: float, datagram: Datagram) -> list[Effect]:
        """A datagram has arrived."""
        data = datagram.payload
        if not isinstance(data, Data):
            return []
        got = self.way_in(now, datagram)
        if isinstance(got, Reason):
            return [Discard(data, got)]
        opened = self._opened(datagram, data)
        if opened not in self._connections:
            self._begin(data.source, opened)
        return [Deliver(got)]

    def _opened(self, datagram: Datagram, data: Data) -> Pair:
        """The connection that its sender means, as this side has it."""
        local, remote = data.socket or (datagram.source, datagram.destination)
        return Pair(remote, local)

    def way_in(self, now: float, datagram: Datagram) -> Data | Reason:  # noqa: ARG002
        """By the addresses of a connection, or by those of a new one."""
        data = datagram.payload
        if not isinstance(data, Data):
            return Reason.NOT_ACCEPTED
        wire = Pair(datagram.destination, datagram.source)
        opened = self._opened(datagram, data)
        connection = self._connections.get(opened)
        known = wire == opened if connection is None else connection.accepts(wire)
        return data if known and wire.local in self.addresses else Reason.NOT_ACCEPTED
