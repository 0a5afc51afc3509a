"""Mobile IPv4 (RFC 5944), with co-located care-of addresses and without foreign agents.

A node away from home registers the address that it has got there, its care-of address, with its
home agent. The home agent stands in for it: whatever is sent to the home address it sends on to the
care-of address, in a tunnel. The node's own packets go straight to the peer and bear the home
address as source (triangular routing, section 4.2.2), or, where networks filter such sources,
through the tunnel to the home agent as well (reverse tunnelling, RFC 3024). Peers need to know
nothing of all this.

Registration is a request and a reply over UDP (section 3). It is repeated after a second and then
after twice as long each time, up to the lifetime asked for (section 3.6.3); a repetition has an
identification of its own. Returning home is a registration with lifetime 0 (section 3.6.1.2).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, TypeAlias, final

from mat.address import Address
from mat_sim.baselines._alarms import REFRESH, Alarm, Alarms, Request
from mat_sim.baselines._datagram import (
    IPV4_HEADER,
    IPV4_TUNNEL,
    UDP_HEADER,
    Data,
    Datagram,
    Message,
)
from mat_sim.baselines._machine import (
    Deliver,
    Discard,
    Effect,
    Home,
    Host,
    Reason,
    Server,
    Transmit,
    home_server,
)

_AUTHENTICATION: Final = 22
"""Mobile-Home Authentication Extension with HMAC-MD5 (section 3.5.2)."""
REQUEST_SIZE: Final = IPV4_HEADER + UDP_HEADER + 24 + _AUTHENTICATION
REPLY_SIZE: Final = IPV4_HEADER + UDP_HEADER + 20 + _AUTHENTICATION

ACCEPTED: Final = 0
IDENTIFICATION_MISMATCH: Final = 133


@final
@dataclass(frozen=True, slots=True)
class Parameters:
    """Times in seconds."""

    lifetime: float = 1800.0
    """Asked for in a registration: the default of section 3.6.1.2."""
    first_timeout: float = 1.0
    """Until a registration is repeated: the least that section 3.6.3 allows."""
    reverse_tunnel: bool = False
    """Send through the home agent (RFC 3024) in place of triangular routing."""


@final
@dataclass(frozen=True, slots=True)
class RegistrationRequest(Message):
    """Node → home agent (section 3.3). Lifetime 0: I am at home."""

    name: ClassVar[str] = "Registration Request"

    home_address: Address
    care_of: Address
    lifetime: float
    identification: int


@final
@dataclass(frozen=True, slots=True)
class RegistrationReply(Message):
    """Home agent → node (section 3.4)."""

    name: ClassVar[str] = "Registration Reply"

    code: int
    lifetime: float
    identification: int
    last: int
    """The identification that the home agent goes by: the last it has taken."""

    @property
    def refuses(self) -> bool:
        """Whether the registration was denied."""
        return self.code != ACCEPTED


@final
class MobileIpv4Host:
    """A mobile node, or, without a home agent, a host that knows nothing of Mobile IPv4."""

    def __init__(
        self, home_address: Address, agent: Address | None, parameters: Parameters
    ) -> None:
        self.home_address = home_address
        self.addresses: tuple[Address, ...] = ()
        self._agent = agent
        self._parameters = parameters
        self._alarms = Alarms()
        self._identification = 0
        self._request: Request | None = None
        self._wanted = home_address
        self._registered: Address | None = home_address
        self._refresh = Alarm(self._renew)
        self._sent = 0.0

    @property
    def deadline(self) -> float | None:
        """When to call `handle_timer`, s."""
        return self._alarms.deadline

    @property
    def registered(self) -> bool:
        """Whether the home agent has confirmed the preferred address."""
        return self._agent is None or self.addresses[:1] == (self._registered,)

    def informed(self, now: float, peers: Sequence[Address]) -> bool:  # noqa: ARG002
        """Peers are not told."""
        return True

    def found(self, now: float, home_address: Address, address: Address | None) -> list[Effect]:  # noqa: ARG002
        """It never asks the DNS."""
        return []

    def handle_timer(self, now: float) -> list[Effect]:
        """The deadline has come."""
        return self._alarms.handle(now)

    # ---- registration --------------------------------------------------------------------------

    def addresses_changed(self, now: float, addresses: Sequence[Address]) -> list[Effect]:
        """These are its addresses from now on; registers the preferred one."""
        self.addresses = tuple(addresses)
        if self._agent is None:
            return []
        if not addresses:
            self._stop()
            return []
        # An unanswered request may have been granted: what it was for is what counts.
        settled = self._request is not None or self._registered == self._wanted
        if settled and self._wanted == addresses[0]:
            return []
        return self._register(now, addresses[0])

    def _stop(self) -> None:
        self._alarms.end(self._request)
        self._request = None

    def _register(self, now: float, care_of: Address) -> list[Effect]:
        self._stop()
        self._wanted = care_of
        parameters = self._parameters
        self._request = Request(
            self._transmit, first=parameters.first_timeout, ceiling=parameters.lifetime
        )
        return self._alarms.begin(now, self._request)

    def _transmit(self, now: float, repeat: bool) -> list[Effect]:
        assert self._agent is not None
        self._identification += 1
        self._sent = now
        lifetime = 0.0 if self._wanted == self.home_address else self._parameters.lifetime
        message = RegistrationRequest(
            self.home_address, self._wanted, lifetime, self._identification
        )
        datagram = Datagram(self._wanted, self._agent, message, REQUEST_SIZE)
        return [Transmit(datagram, self._wanted, repeat)]

    def _renew(self, now: float) -> list[Effect]:
        if not self.addresses or self._request is not None:
            self._registered = None
            return []
        return self._register(now, self.addresses[0])

    def _answered(self, reply: RegistrationReply) -> list[Effect]:
        if self._request is None or reply.identification != self._identification:
            return []
        if reply.code != ACCEPTED:
            # The next repetition is one that the home agent takes (section 3.6.2.3).
            self._identification = reply.last
            return []
        self._stop()
        self._registered = self._wanted
        self._alarms.cancel(self._refresh)
        if reply.lifetime > 0:
            self._alarms.schedule(self._refresh, self._sent + REFRESH * reply.lifetime)
        return []

    # ---- data ----------------------------------------------------------------------------------

    def receive(self, now: float, datagram: Datagram) -> list[Effect]:
        """A datagram has arrived."""
        if isinstance(datagram.payload, RegistrationReply):
            return self._answered(datagram.payload)
        got = self.way_in(now, datagram)
        if isinstance(got, Data):
            return [Deliver(got)]
        content = datagram.content
        return [Discard(content, got)] if isinstance(content, Data) else []

    def packet_out(self, now: float, data: Data) -> list[Effect]:
        """An application sends a packet."""
        way = self.way_out(now, data)
        return [way] if isinstance(way, Transmit) else [Discard(data, way)]

    def way_out(self, now: float, data: Data) -> Transmit | Reason:  # noqa: ARG002
        """Plain from home; else from the home address, or through the tunnel to the home agent."""
        if not self.addresses:
            return Reason.NO_ADDRESS
        plain = Datagram(self.home_address, data.destination, data, data.size)
        if self.home_address in self.addresses:
            return Transmit(plain, self.home_address)
        if self._agent is None or not self._parameters.reverse_tunnel:
            return Transmit(plain, self.addresses[0])
        # A home agent takes nothing out of a tunnel that it has not agreed to.
        care_of = self._registered
        if care_of is None or care_of not in self.addresses:
            return Reason.NOT_REGISTERED
        return Transmit(plain.tunnelled(care_of, self._agent, IPV4_TUNNEL), care_of)

    def way_in(self, now: float, datagram: Datagram) -> Data | Reason:  # noqa: ARG002
        """Out of the home agent's tunnel, or plain to the home address."""
        inner = datagram
        if isinstance(datagram.payload, Datagram):
            if datagram.source != self._agent:
                return Reason.NOT_ACCEPTED
            inner = datagram.payload
        if inner.destination != self.home_address or not isinstance(inner.payload, Data):
            return Reason.NOT_ACCEPTED
        return inner.payload


@dataclass(slots=True)
class _Binding:
    care_of: Address | None
    until: float
    identification: int


@final
class HomeAgent:
    """Registers nodes and stands in for those that are away."""

    role = "HA"
    forwards = True

    def __init__(self, address: Address, parameters: Parameters) -> None:
        self.address = address
        self._parameters = parameters
        self._bindings: dict[Address, _Binding] = {}
        self.deadline: float | None = None

    def handle_timer(self, now: float) -> list[Effect]:  # noqa: ARG002
        """It has no timers: what has expired is seen when it is looked at."""
        return []

    def care_of(self, now: float, home_address: Address) -> Address | None:
        """Where a node is; None: at home, or nobody knows."""
        binding = self._bindings.get(home_address)
        return binding.care_of if binding and binding.until > now else None

    def entries(self, now: float) -> int:
        """How many nodes are away."""
        return sum(self.care_of(now, home) is not None for home in self._bindings)

    def receive(self, now: float, datagram: Datagram) -> list[Effect]:
        """A request, or something to be forwarded."""
        request = datagram.payload
        if isinstance(request, RegistrationRequest) and datagram.destination == self.address:
            return self._register(now, request, datagram.source)
        way = self.way_on(now, datagram)
        if isinstance(way, Transmit):
            return [way]
        content = datagram.content
        return [Discard(content, way)] if isinstance(content, Data) else []

    def _register(self, now: float, request: RegistrationRequest, source: Address) -> list[Effect]:
        known = self._bindings.get(request.home_address)
        code, last = ACCEPTED, request.identification
        if known is not None and request.identification <= known.identification:
            code, last = IDENTIFICATION_MISMATCH, known.identification
        else:
            care_of = request.care_of if request.lifetime > 0 else None
            binding = _Binding(care_of, now + request.lifetime, request.identification)
            self._bindings[request.home_address] = binding
        reply = RegistrationReply(code, request.lifetime, request.identification, last)
        return [Transmit(Datagram(self.address, source, reply, REPLY_SIZE), self.address)]

    def way_on(self, now: float, datagram: Datagram) -> Transmit | Reason:
        """Into the tunnel to the care-of address, after having come out of a reverse tunnel."""
        inner = datagram
        if isinstance(datagram.payload, Datagram):
            inner = datagram.payload
            if self.care_of(now, inner.source) != datagram.source:
                return Reason.NO_BINDING
        care_of = self.care_of(now, inner.destination)
        if care_of is not None:
            outer = inner.tunnelled(self.address, care_of, IPV4_TUNNEL)
            return Transmit(outer, self.address)
        # Onto the home link: to a node that has just come back, or to nobody.
        return Transmit(inner, self.address)


_Servers: TypeAlias = Mapping[Address, Server]


@final
class MobileIpv4:
    """The system: a home agent for each of `homes`, on the home network."""

    family: Literal[4, 6] = 4
    tells_peers = False

    def __init__(self, homes: Sequence[Home], parameters: Parameters | None = None) -> None:
        self._homes = tuple(homes)
        self._parameters = parameters or Parameters()
        reverse = self._parameters.reverse_tunnel
        self.name = "Mobile IPv4, reverse tunnel" if reverse else "Mobile IPv4"
        self._agents = {home.server: HomeAgent(home.server, self._parameters) for home in homes}
        self.servers: _Servers = self._agents

    def host(self, home_address: Address, *, moves: bool = True) -> Host:
        """A mobile node, or an ordinary host."""
        agent = home_server(self._homes, home_address) if moves else None
        return MobileIpv4Host(home_address, agent, self._parameters)

    def catcher(self, now: float, destination: Address) -> Address | None:
        """The home agent of a node that is away."""
        agent = home_server(self._homes, destination)
        if agent is None or self._agents[agent].care_of(now, destination) is None:
            return None
        return agent

    def answer(self, now: float, home_address: Address) -> Address | None:  # noqa: ARG002
        """Nobody asks."""
        return None
