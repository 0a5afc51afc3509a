"""LIN6 (draft-teraoka-ipng-lin6-02).

A node's address is a network prefix and its LIN6 ID, so whoever receives a packet reads in its
source who sent it, and nothing is added to packets (sections 3.2 and 4.1). Where a node is, its
mapping agent knows; which agent that is, the DNS knows (section 3.5). To send to a node whose
prefix is not known, ask its mapping agent, and let the packet wait (section 7.1).

After a move a node registers its prefix with its mapping agent, and tells its correspondents that
it has moved (section 5.2): with a Mapping Refresh, which makes them ask the mapping agent (type 2,
section 3.8.2), or, where the two have a security association, with a Mapping Update that they can
take as it is (type 1, section 3.8.1).

A node that never moves has a stationary address, which needs no mapping (section 3.4).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, TypeAlias, final

from mat.address import Address
from mat_sim.baselines._alarms import REFRESH, Request
from mat_sim.baselines._datagram import IPV6_HEADER, UDP_HEADER, Data, Datagram, Message
from mat_sim.baselines._machine import (
    Deliver,
    Discard,
    Effect,
    Home,
    Host,
    Lookup,
    Reason,
    Server,
    Transmit,
    home_server,
)
from mat_sim.baselines._registering import RegisteringHost

_AUTHENTICATION_HEADER: Final = 24
"""With HMAC-SHA1-96 (RFC 2402, section 2; RFC 2404)."""
UPDATE_SIZE: Final = IPV6_HEADER + _AUTHENTICATION_HEADER + UDP_HEADER + 32
UPDATE_REPLY_SIZE: Final = IPV6_HEADER + _AUTHENTICATION_HEADER + UDP_HEADER + 8
QUERY_SIZE: Final = IPV6_HEADER + UDP_HEADER + 32
"""Query and reply are equally long (section 4.3)."""
REFRESH_SIZE: Final = IPV6_HEADER + UDP_HEADER + 16

_FIRST_TIMEOUT: Final = 1.0
"""Seconds; this and those below are assumptions, for the draft has no retransmission."""
_LONGEST_TIMEOUT: Final = 32.0
_MOST_QUERIES: Final = 5
_MOST_WAITING: Final = 16
"""Packets that wait for one peer's mapping."""


@final
@dataclass(frozen=True, slots=True)
class Parameters:
    """Times in seconds."""

    lifetime: float = 60.0
    """Of a mapping (an assumption: the draft has the field and no value)."""
    security_associations: bool = False
    """Correspondents take a Mapping Update (type 1); else they get a Mapping Refresh (type 2)."""


@final
@dataclass(frozen=True, slots=True)
class MappingUpdate(Message):
    """Node → own mapping agent, or correspondent (section 4.2)."""

    name: ClassVar[str] = "Mapping Update Request"

    home_address: Address
    address: Address
    sequence: int
    timestamp: float
    lifetime: float


@final
@dataclass(frozen=True, slots=True)
class MappingUpdateReply(Message):
    """The answer to a Mapping Update Request (section 4.2)."""

    name: ClassVar[str] = "Mapping Update Reply"

    sequence: int


@final
@dataclass(frozen=True, slots=True)
class MaQuery(Message):
    """Node → a peer's mapping agent (section 4.3)."""

    name: ClassVar[str] = "MA Query"

    home_address: Address
    sequence: int


@final
@dataclass(frozen=True, slots=True)
class MaReply(Message):
    """Mapping agent → asker (section 4.3); no address: no mapping exists."""

    name: ClassVar[str] = "MA Reply"

    home_address: Address
    address: Address | None
    sequence: int
    timestamp: float
    lifetime: float

    @property
    def refuses(self) -> bool:
        """Whether there is no such mapping."""
        return self.address is None


@final
@dataclass(frozen=True, slots=True)
class MappingRefresh(Message):
    """Node → correspondent: I have moved, ask my mapping agent (section 4.4)."""

    name: ClassVar[str] = "Mapping Refresh"

    home_address: Address
    timestamp: float


@final
class _Peer:
    """A peer: where it is, and what waits for that."""

    __slots__ = (
        "address",
        "agent",
        "query",
        "query_sequence",
        "renew",
        "timestamp",
        "told",
        "until",
        "update",
        "update_sequence",
        "used",
        "waiting",
    )

    def __init__(self) -> None:
        self.address: Address | None = None
        self.until = 0.0
        self.timestamp = -1.0
        self.agent: Address | None = None
        self.query: Request | None = None
        self.query_sequence = 0
        self.renew = 0.0
        """When to ask again, s, for the mapping is used."""
        self.waiting: list[Data] = []
        self.used = float("-inf")
        self.told: Address | None = None
        """The own address that it was told last."""
        self.update: Request | None = None
        self.update_sequence = 0


@final
class Lin6Host(RegisteringHost):
    """A LIN6 node, mobile or not."""

    def __init__(
        self,
        home_address: Address,
        agent: Address | None,
        stationary: Callable[[Address], bool],
        parameters: Parameters,
    ) -> None:
        """`stationary` tells the addresses of nodes that never move: their form shows it."""
        super().__init__(home_address, agent, begins_at=None)
        self._stationary = stationary
        self._parameters = parameters
        self._peers: dict[Address, _Peer] = {}
        self._sequence = 0
        self._update_sequence = 0
        self._lookups: set[Address] = set()

    def informed(self, now: float, peers: Sequence[Address]) -> bool:  # noqa: ARG002
        """Whether all these peers have been told of the preferred address."""
        if self._agent is None:
            return True
        known = [self._peers[peer].told for peer in peers if peer in self._peers]
        return all((told,) == self.addresses[:1] for told in known)

    # ---- registration --------------------------------------------------------------------------

    def _moved(self, now: float, *, told: bool) -> list[Effect]:
        return self._tell_all(now) if told else self._register(now)

    def _stop(self) -> None:
        super()._stop()
        for peer in self._peers.values():
            self._alarms.end(peer.update)
            peer.update = None

    def _register(self, now: float) -> list[Effect]:
        effects = self._ask_server(
            now, self._transmit, first=_FIRST_TIMEOUT, ceiling=_LONGEST_TIMEOUT
        )
        return effects + self._tell_all(now) if self._parameters.security_associations else effects

    def _transmit(self, now: float, repeat: bool) -> list[Effect]:
        assert self._agent is not None
        assert self._wanted is not None
        self._update_sequence = self._next()
        return [self._mapping_update(now, self._wanted, self._agent, self._update_sequence, repeat)]

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _mapping_update(
        self, now: float, address: Address, destination: Address, sequence: int, repeat: bool
    ) -> Transmit:
        lifetime = self._parameters.lifetime
        message = MappingUpdate(self.home_address, address, sequence, now, lifetime)
        return Transmit(self._datagram(address, destination, message, UPDATE_SIZE), address, repeat)

    def _datagram(
        self, source: Address, destination: Address, message: Message, size: int
    ) -> Datagram:
        return Datagram(source, destination, message, size, home_source=self.home_address)

    def _update_answered(
        self, now: float, source: Address, reply: MappingUpdateReply
    ) -> list[Effect]:
        if source != self._agent:
            self._peer_answered(source, reply)
            return []
        if self._request is None or reply.sequence != self._update_sequence:
            return []
        self._confirmed(now, self._parameters.lifetime)
        return self._tell_all(now)

    # ---- telling peers -------------------------------------------------------------------------

    def _tell_all(self, now: float) -> list[Effect]:
        """After a move: everyone that data has gone on with lately."""
        effects: list[Effect] = []
        lately = now - self._parameters.lifetime
        for home, peer in self._peers.items():
            if peer.told != self.addresses[0] and peer.used >= lately:
                effects += self._tell(now, home, peer)
        return effects

    def _tell(self, now: float, home: Address, peer: _Peer) -> list[Effect]:
        if self._parameters.security_associations:
            return self._send_update(now, home, peer)
        if self._registered != self.addresses[0]:
            return []
        destination = self._address_of(now, home)
        if destination is None:
            return self._ask(now, home)
        peer.told = self.addresses[0]
        message = MappingRefresh(self.home_address, now)
        datagram = self._datagram(self.addresses[0], destination, message, REFRESH_SIZE)
        return [Transmit(datagram, self.addresses[0])]

    def _send_update(self, now: float, home: Address, peer: _Peer) -> list[Effect]:
        self._alarms.end(peer.update)
        address = self.addresses[0]

        def transmit(now: float, repeat: bool) -> list[Effect]:
            destination = self._address_of(now, home)
            if destination is None:
                return []
            peer.update_sequence = self._next()
            return [self._mapping_update(now, address, destination, peer.update_sequence, repeat)]

        peer.update = Request(
            transmit, first=_FIRST_TIMEOUT, ceiling=_LONGEST_TIMEOUT, limit=_MOST_QUERIES
        )
        return self._alarms.begin(now, peer.update)

    def _peer_answered(self, home: Address, reply: MappingUpdateReply) -> None:
        peer = self._peers.get(home)
        if peer is None or peer.update is None:
            return
        if reply.sequence == peer.update_sequence:
            self._alarms.end(peer.update)
            peer.update = None
            peer.told = self.addresses[0] if self.addresses else None

    # ---- finding peers -------------------------------------------------------------------------

    def _address_of(self, now: float, home: Address) -> Address | None:
        if self._stationary(home):
            return home
        peer = self._peers.get(home)
        return peer.address if peer is not None and peer.until > now else None

    def _ask(self, now: float, home: Address) -> list[Effect]:
        """Query a peer's mapping agent, after the DNS if need be."""
        peer = self._peers.setdefault(home, _Peer())
        if peer.query is not None or home in self._lookups:
            return []
        if peer.agent is None:
            self._lookups.add(home)
            return [Lookup(home)]
        agent = peer.agent

        def transmit(_now: float, repeat: bool) -> list[Effect]:
            if not self.addresses:
                return []
            peer.query_sequence = self._next()
            message = MaQuery(home, peer.query_sequence)
            datagram = self._datagram(self.addresses[0], agent, message, QUERY_SIZE)
            return [Transmit(datagram, self.addresses[0], repeat)]

        peer.query = Request(
            transmit,
            first=_FIRST_TIMEOUT,
            ceiling=_LONGEST_TIMEOUT,
            limit=_MOST_QUERIES,
            given_up=lambda _now: self._unresolved(peer),
        )
        return self._alarms.begin(now, peer.query)

    def found(self, now: float, home_address: Address, address: Address | None) -> list[Effect]:
        """The DNS has answered: a peer's mapping agent."""
        if home_address not in self._lookups:
            return []
        self._lookups.discard(home_address)
        peer = self._peers[home_address]
        peer.agent = address
        return self._ask(now, home_address) if address is not None else self._unresolved(peer)

    def _unresolved(self, peer: _Peer) -> list[Effect]:
        peer.query = None
        waiting, peer.waiting = peer.waiting, []
        return [Discard(data, Reason.UNRESOLVED) for data in waiting]

    def _resolved(self, now: float, reply: MaReply) -> list[Effect]:
        peer = self._peers.get(reply.home_address)
        if peer is None or peer.query is None or reply.sequence != peer.query_sequence:
            return []
        self._alarms.end(peer.query)
        peer.query = None
        if reply.address is None:
            return self._unresolved(peer)
        self._learn(now, peer, reply.address, reply.timestamp, reply.lifetime)
        waiting, peer.waiting = peer.waiting, []
        effects: list[Effect] = []
        for data in waiting:
            effects += self.packet_out(now, data)
        if self._agent is not None and self.addresses and peer.told is not None:
            effects += self._tell_all(now)
        return effects

    def _learn(
        self, now: float, peer: _Peer, address: Address, timestamp: float, lifetime: float
    ) -> None:
        if timestamp >= peer.timestamp:
            peer.address, peer.timestamp, peer.until = address, timestamp, now + lifetime
            peer.renew = now + REFRESH * lifetime

    # ---- what arrives --------------------------------------------------------------------------

    def receive(self, now: float, datagram: Datagram) -> list[Effect]:
        """A datagram has arrived."""
        match datagram.payload:
            case MappingUpdateReply() as reply:
                return self._update_answered(now, datagram.sender, reply)
            case MaReply() as reply:
                return self._resolved(now, reply)
            case MappingRefresh() as notice:
                return self._ask(now, notice.home_address)
            case MappingUpdate() as update:
                return self._updated(now, datagram, update)
            case Data() as data:
                return self._receive_data(now, datagram, data)
            case _:
                return []

    def _updated(self, now: float, datagram: Datagram, update: MappingUpdate) -> list[Effect]:
        peer = self._peers.setdefault(update.home_address, _Peer())
        self._learn(now, peer, update.address, update.timestamp, update.lifetime)
        reply = MappingUpdateReply(update.sequence)
        source = datagram.destination
        answer = self._datagram(source, datagram.source, reply, UPDATE_REPLY_SIZE)
        return [Transmit(answer, source)]

    def _receive_data(self, now: float, datagram: Datagram, data: Data) -> list[Effect]:
        got = self.way_in(now, datagram)
        if isinstance(got, Reason):
            return [Discard(data, got)]
        self._use(now, got.source)
        return [Deliver(got)]

    def _use(self, now: float, home: Address) -> None:
        peer = self._peers.setdefault(home, _Peer())
        peer.used = now
        if peer.told is None and self.addresses:
            # Whoever begins to talk asks, or is asked back: it has the address of that time.
            peer.told = self.addresses[0]

    # ---- data ----------------------------------------------------------------------------------

    def packet_out(self, now: float, data: Data) -> list[Effect]:
        """An application sends a packet."""
        way = self.way_out(now, data)
        home = data.destination
        if isinstance(way, Transmit):
            self._use(now, home)
            old = not self._stationary(home) and now >= self._peers[home].renew
            return [way, *self._ask(now, home)] if old else [way]
        if way is not Reason.UNRESOLVED:
            return [Discard(data, way)]
        peer = self._peers.setdefault(home, _Peer())
        if len(peer.waiting) >= _MOST_WAITING:
            return [Discard(data, Reason.QUEUE_FULL)]
        peer.waiting.append(data)
        return self._ask(now, home)

    def way_out(self, now: float, data: Data) -> Transmit | Reason:
        """Straight to where the peer is."""
        if not self.addresses:
            return Reason.NO_ADDRESS
        destination = self._address_of(now, data.destination)
        if destination is None:
            return Reason.UNRESOLVED
        source = self.addresses[0]
        datagram = Datagram(
            source, destination, data, data.size, self.home_address, data.destination
        )
        return Transmit(datagram, source)

    def way_in(self, now: float, datagram: Datagram) -> Data | Reason:  # noqa: ARG002
        """Whatever bears this node's ID, from whichever prefix (section 7.2)."""
        data = datagram.payload
        if not isinstance(data, Data) or datagram.home_destination != self.home_address:
            return Reason.NOT_ACCEPTED
        return data


@dataclass(slots=True)
class _Mapping:
    address: Address
    timestamp: float
    until: float


@final
class MappingAgent:
    """Knows where its nodes are, and tells whoever asks (section 6)."""

    role = "MA"
    forwards = False

    def __init__(self, address: Address) -> None:
        self.address = address
        self._mappings: dict[Address, _Mapping] = {}
        self.deadline: float | None = None

    def handle_timer(self, now: float) -> list[Effect]:  # noqa: ARG002
        """It has no timers: what has expired is seen when it is looked at."""
        return []

    def entries(self, now: float) -> int:
        """How many mappings are valid."""
        return sum(mapping.until > now for mapping in self._mappings.values())

    def receive(self, now: float, datagram: Datagram) -> list[Effect]:
        """A request."""
        match datagram.payload:
            case MappingUpdate() as update:
                self._store(now, update)
                reply: Message = MappingUpdateReply(update.sequence)
                return [self._answer(datagram, reply, UPDATE_REPLY_SIZE)]
            case MaQuery() as query:
                return [self._answer(datagram, self._look_up(now, query), QUERY_SIZE)]
            case _:
                return []

    def _store(self, now: float, update: MappingUpdate) -> None:
        known = self._mappings.get(update.home_address)
        if known is None or update.timestamp >= known.timestamp:
            until = now + update.lifetime
            self._mappings[update.home_address] = _Mapping(update.address, update.timestamp, until)

    def _look_up(self, now: float, query: MaQuery) -> MaReply:
        mapping = self._mappings.get(query.home_address)
        if mapping is None or mapping.until <= now:
            return MaReply(query.home_address, None, query.sequence, 0.0, 0.0)
        left = mapping.until - now
        home = query.home_address
        return MaReply(home, mapping.address, query.sequence, mapping.timestamp, left)

    def _answer(self, datagram: Datagram, message: Message, size: int) -> Transmit:
        return Transmit(Datagram(self.address, datagram.source, message, size), self.address)

    def way_on(self, now: float, datagram: Datagram) -> Transmit | Reason:  # noqa: ARG002
        """It forwards nothing."""
        return Reason.UNREACHABLE


_Servers: TypeAlias = Mapping[Address, Server]


@final
class Lin6:
    """The system: a mapping agent for each of `homes`, anywhere."""

    family: Literal[4, 6] = 6
    tells_peers = True

    def __init__(self, homes: Sequence[Home], parameters: Parameters | None = None) -> None:
        self._homes = tuple(homes)
        self._parameters = parameters or Parameters()
        associated = self._parameters.security_associations
        self.name = "LIN6, security associations" if associated else "LIN6"
        self.servers: _Servers = {home.server: MappingAgent(home.server) for home in homes}
        self._stationary: set[Address] = set()

    def host(self, home_address: Address, *, moves: bool = True) -> Host:
        """A mobile node, or one with a stationary address."""
        if not moves:
            self._stationary.add(home_address)
        agent = home_server(self._homes, home_address) if moves else None
        return Lin6Host(home_address, agent, self._stationary.__contains__, self._parameters)

    def catcher(self, now: float, destination: Address) -> Address | None:  # noqa: ARG002
        """Nobody stands in for anybody."""
        return None

    def answer(self, now: float, home_address: Address) -> Address | None:  # noqa: ARG002
        """A node's mapping agent (the MA record of section 3.5)."""
        if home_address in self._stationary:
            return None
        return home_server(self._homes, home_address)
