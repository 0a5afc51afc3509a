"""Mobile PPC, mobile peer-to-peer communication (Takeuchi, Suzuki, Watanabe).

There is no server for mobility. Applications use the addresses that a connection was begun with,
and each host's IP layer keeps a table, the CIT (connection ID table), of what their packets bear
now. A host that has got a new address tells the peer, CU Request; the peer changes its table and
answers, CU Response; then the host changes its own. From then on both translate, without any
header. A dynamic DNS says where a host is when a connection is begun, and for nothing else.

If both hosts lose their addresses before either has told the other, both requests go to where
nobody is: the connection is lost. That is the weakness of telling peers only.

The published papers are the source of this order of events; messages' lengths and the repetition of
requests are assumptions (docs/baselines.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, TypeAlias, final

from mat.address import Address
from mat_sim.baselines._alarms import Request
from mat_sim.baselines._connections import Connection, ConnectionHost, Pair
from mat_sim.baselines._datagram import IPV4_HEADER, UDP_HEADER, Datagram, Message
from mat_sim.baselines._machine import Effect, Host, Reason, Server, Transmit

_ICMP_HEADER: Final = 8
_CONNECTION_ID: Final = 16
"""Two addresses, two ports and the protocol, padded."""
_AUTHENTICATOR: Final = 4 + 16
"""A sequence number and HMAC-MD5."""
REQUEST_SIZE: Final = IPV4_HEADER + _ICMP_HEADER + 2 * _CONNECTION_ID + _AUTHENTICATOR
"""The connection as it was and as it is to be, in an ICMP message."""
RESPONSE_SIZE: Final = IPV4_HEADER + _ICMP_HEADER + _AUTHENTICATOR
_DNS_HEADER: Final = 12
_ZONE: Final = 24
_TSIG: Final = 70
DNS_UPDATE_SIZE: Final = IPV4_HEADER + UDP_HEADER + _DNS_HEADER + _ZONE + 12 + 16 + _TSIG
"""RFC 2136: delete the old A record, add the new one; names of 20 bytes; TSIG (RFC 8945)."""
DNS_UPDATE_RESPONSE_SIZE: Final = IPV4_HEADER + UDP_HEADER + _DNS_HEADER + _ZONE + _TSIG


@final
@dataclass(frozen=True, slots=True)
class Parameters:
    """Times in seconds. All are assumptions."""

    first_timeout: float = 1.0
    """Until a request is repeated; doubled each time."""
    longest_timeout: float = 32.0
    attempts: int = 5
    """Unanswered CU Requests after which a connection is given up."""


@final
@dataclass(frozen=True, slots=True)
class CuRequest(Message):
    """Host → peer: my address in this connection, seen from the peer, is a new one."""

    name: ClassVar[str] = "CU Request"

    opened: Pair
    address: Address
    sequence: int


@final
@dataclass(frozen=True, slots=True)
class CuResponse(Message):
    """Peer → host: my table is changed."""

    name: ClassVar[str] = "CU Response"

    opened: Pair
    sequence: int


@final
@dataclass(frozen=True, slots=True)
class DnsUpdate(Message):
    """Host → dynamic DNS (RFC 2136)."""

    name: ClassVar[str] = "DNS UPDATE"

    home_address: Address
    address: Address
    sequence: int


@final
@dataclass(frozen=True, slots=True)
class DnsUpdateResponse(Message):
    """Dynamic DNS → host (RFC 2136)."""

    name: ClassVar[str] = "DNS UPDATE response"

    sequence: int


@final
class MobilePpcHost(ConnectionHost):
    """A host with a CIT."""

    def __init__(self, home_address: Address, dns: Address | None, parameters: Parameters) -> None:
        """`dns` is the dynamic DNS server's address; None: the host's record never changes."""
        super().__init__(home_address)
        self._dns = dns
        self._parameters = parameters
        self._update: Request | None = None
        self._recorded: Address | None = None
        self._wanted: Address | None = None
        self._sequence = 0

    @property
    def registered(self) -> bool:
        """Whether the DNS has the preferred address."""
        return self._dns is None or self.addresses[:1] == (self._recorded,)

    def informed(self, now: float, peers: Sequence[Address]) -> bool:  # noqa: ARG002
        """Whether the connections with all these peers have the preferred address."""
        current = [self._current[peer] for peer in peers if peer in self._current]
        return all(one.wanted is None and self._knows(one) for one in current)

    def _knows(self, connection: Connection) -> bool:
        return self.addresses[:1] == (connection.wire.local,)

    # ---- moving --------------------------------------------------------------------------------

    def addresses_changed(self, now: float, addresses: Sequence[Address]) -> list[Effect]:
        """These are its addresses from now on; tells the peers and the DNS."""
        self.addresses = tuple(addresses)
        if not addresses:
            self._stop()
            return []
        effects: list[Effect] = []
        for connection in self._connections.values():
            effects += self._tell(now, connection)
        return effects + self._record(now)

    def _stop(self) -> None:
        self._alarms.end(self._update)
        self._update = None
        for connection in self._connections.values():
            self._alarms.end(connection.request)
            connection.request = None

    def _tell(self, now: float, connection: Connection) -> list[Effect]:
        address = self.addresses[0]
        under_way = connection.request is not None and connection.wanted == address
        known = connection.wanted is None and connection.wire.local == address
        if connection.broken or under_way or known:
            return []
        self._alarms.end(connection.request)
        connection.wanted = address
        connection.add_local(address)

        def transmit(_now: float, repeat: bool) -> list[Effect]:
            connection.sequence += 1
            local, remote = connection.opened
            message = CuRequest(Pair(remote, local), address, connection.sequence)
            datagram = Datagram(address, connection.wire.remote, message, REQUEST_SIZE)
            return [Transmit(datagram, address, repeat)]

        connection.request = Request(
            transmit,
            first=self._parameters.first_timeout,
            ceiling=self._parameters.longest_timeout,
            limit=self._parameters.attempts,
            given_up=lambda _now: self._give_up(connection),
        )
        return self._alarms.begin(now, connection.request)

    def _give_up(self, connection: Connection) -> list[Effect]:
        connection.request = None
        connection.broken = True
        return []

    def _told(self, datagram: Datagram, response: CuResponse) -> list[Effect]:
        connection = self._connections.get(response.opened)
        if connection is None or connection.request is None:
            return []
        if response.sequence != connection.sequence:
            return []
        self._alarms.end(connection.request)
        connection.request = connection.wanted = None
        connection.wire = Pair(datagram.destination, connection.wire.remote)
        return []

    def _peer_moved(self, datagram: Datagram, request: CuRequest) -> list[Effect]:
        connection = self._connections.get(request.opened)
        if connection is None or connection.broken:
            return []
        connection.wire = Pair(connection.wire.local, request.address)
        connection.add_remote(request.address)
        local, remote = connection.opened
        message = CuResponse(Pair(remote, local), request.sequence)
        here = datagram.destination
        return [Transmit(Datagram(here, datagram.source, message, RESPONSE_SIZE), here)]

    # ---- the dynamic DNS -----------------------------------------------------------------------

    def _record(self, now: float) -> list[Effect]:
        address = self.addresses[0]
        settled = self._update is not None or self._recorded == self._wanted
        if self._dns is None or (settled and self._wanted == address):
            return []
        self._alarms.end(self._update)
        self._wanted = address
        self._update = Request(
            self._transmit_update,
            first=self._parameters.first_timeout,
            ceiling=self._parameters.longest_timeout,
        )
        return self._alarms.begin(now, self._update)

    def _transmit_update(self, _now: float, repeat: bool) -> list[Effect]:
        assert self._dns is not None
        assert self._wanted is not None
        self._sequence += 1
        message = DnsUpdate(self.home_address, self._wanted, self._sequence)
        datagram = Datagram(self._wanted, self._dns, message, DNS_UPDATE_SIZE)
        return [Transmit(datagram, self._wanted, repeat)]

    def _update_answered(self, response: DnsUpdateResponse) -> list[Effect]:
        if self._update is not None and response.sequence == self._sequence:
            self._alarms.end(self._update)
            self._update = None
            self._recorded = self._wanted
        return []

    def receive(self, now: float, datagram: Datagram) -> list[Effect]:
        """A datagram has arrived."""
        match datagram.payload:
            case CuRequest() as request:
                return self._peer_moved(datagram, request)
            case CuResponse() as response:
                return self._told(datagram, response)
            case DnsUpdateResponse() as response:
                return self._update_answered(response)
            case _:
                return super().receive(now, datagram)


@final
class DynamicDns:
    """The DNS server that hosts tell where they are."""

    role = "DDNS"
    forwards = False

    def __init__(self, address: Address) -> None:
        self.address = address
        self.records: dict[Address, Address] = {}
        self._sequences: dict[Address, int] = {}
        self.deadline: float | None = None

    def handle_timer(self, now: float) -> list[Effect]:  # noqa: ARG002
        """It has no timers."""
        return []

    def entries(self, now: float) -> int:  # noqa: ARG002
        """How many hosts have a record."""
        return len(self.records)

    def receive(self, now: float, datagram: Datagram) -> list[Effect]:  # noqa: ARG002
        """An update."""
        update = datagram.payload
        if not isinstance(update, DnsUpdate):
            return []
        if update.sequence > self._sequences.get(update.home_address, 0):
            self._sequences[update.home_address] = update.sequence
            self.records[update.home_address] = update.address
        message = DnsUpdateResponse(update.sequence)
        answer = Datagram(self.address, datagram.source, message, DNS_UPDATE_RESPONSE_SIZE)
        return [Transmit(answer, self.address)]

    def way_on(self, now: float, datagram: Datagram) -> Transmit | Reason:  # noqa: ARG002
        """It forwards nothing."""
        return Reason.UNREACHABLE


_Servers: TypeAlias = Mapping[Address, Server]


@final
class MobilePpc:
    """The system: hosts, and one dynamic DNS server at `dns`."""

    family: Literal[4, 6] = 4
    name = "Mobile PPC"
    tells_peers = True

    def __init__(self, dns: Address, parameters: Parameters | None = None) -> None:
        self._parameters = parameters or Parameters()
        self._dns = DynamicDns(dns)
        self.servers: _Servers = {dns: self._dns}

    def host(self, home_address: Address, *, moves: bool = True) -> Host:
        """A mobile host, or one whose DNS record is as good as its address."""
        if not moves:
            self._dns.records[home_address] = home_address
        dns = self._dns.address if moves else None
        return MobilePpcHost(home_address, dns, self._parameters)

    def catcher(self, now: float, destination: Address) -> Address | None:  # noqa: ARG002
        """Nobody stands in for anybody."""
        return None

    def answer(self, now: float, home_address: Address) -> Address | None:  # noqa: ARG002
        """A host's record in the dynamic DNS."""
        return self._dns.records.get(home_address)
