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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, final

from mat.address import Address
from mat_sim.baselines._datagram import (
    IPV4_HEADER,
    IPV4_TUNNEL,
    UDP_HEADER,
    Data,
    Datagram,
    Message,
)
from mat_sim.baselines._home_agent import Binding, HomeAgent, HomeAgents
from mat_sim.baselines._machine import Deliver, Discard, Effect, Home, Host, Reason, Transmit
from mat_sim.baselines._registering import RegisteringHost

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
class MobileIpv4Host(RegisteringHost):
    """A mobile node, or, without a home agent, a host that knows nothing of Mobile IPv4."""

    def __init__(
        self, home_address: Address, agent: Address | None, parameters: Parameters
    ) -> None:
        super().__init__(home_address, agent, begins_at=home_address)
        self._parameters = parameters
        self._identification = 0
        self._sent = 0.0

    def informed(self, now: float, peers: Sequence[Address]) -> bool:  # noqa: ARG002
        """Peers are not told."""
        return True

    def found(self, now: float, home_address: Address, address: Address | None) -> list[Effect]:  # noqa: ARG002
        """It never asks the DNS."""
        return []

    # ---- registration --------------------------------------------------------------------------

    def _moved(self, now: float, *, told: bool) -> list[Effect]:
        return [] if told else self._register(now)

    def _register(self, now: float) -> list[Effect]:
        parameters = self._parameters
        first, ceiling = parameters.first_timeout, parameters.lifetime
        return self._ask_server(now, self._transmit, first=first, ceiling=ceiling)

    def _transmit(self, now: float, repeat: bool) -> list[Effect]:
        assert self._agent is not None
        assert self._wanted is not None
        self._identification += 1
        self._sent = now
        lifetime = 0.0 if self._wanted == self.home_address else self._parameters.lifetime
        message = RegistrationRequest(
            self.home_address, self._wanted, lifetime, self._identification
        )
        datagram = Datagram(self._wanted, self._agent, message, REQUEST_SIZE)
        return [Transmit(datagram, self._wanted, repeat)]

    def _answered(self, reply: RegistrationReply) -> list[Effect]:
        if self._request is None or reply.identification != self._identification:
            return []
        if reply.code != ACCEPTED:
            # The next repetition is one that the home agent takes (section 3.6.2.3).
            self._identification = reply.last
            return []
        self._confirmed(self._sent, reply.lifetime)
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


@final
class Ipv4HomeAgent(HomeAgent):
    """Registers nodes and stands in for those that are away."""

    def _registration(self, now: float, datagram: Datagram) -> list[Effect] | None:
        request = datagram.payload
        if isinstance(request, RegistrationRequest):
            return self._register(now, request, datagram.source)
        return None

    def _into_tunnel(self, inner: Datagram, care_of: Address) -> Datagram:
        return inner.tunnelled(self.address, care_of, IPV4_TUNNEL)

    def _register(self, now: float, request: RegistrationRequest, source: Address) -> list[Effect]:
        known = self._bindings.get(request.home_address)
        code, last = ACCEPTED, request.identification
        if known is not None and request.identification <= known.number:
            code, last = IDENTIFICATION_MISMATCH, known.number
        else:
            care_of = request.care_of if request.lifetime > 0 else None
            binding = Binding(care_of, now + request.lifetime, request.identification)
            self._bindings[request.home_address] = binding
        reply = RegistrationReply(code, request.lifetime, request.identification, last)
        return [Transmit(Datagram(self.address, source, reply, REPLY_SIZE), self.address)]


@final
class MobileIpv4(HomeAgents):
    """The system: a home agent for each of `homes`, on the home network."""

    family: Literal[4, 6] = 4
    tells_peers = False

    def __init__(self, homes: Sequence[Home], parameters: Parameters | None = None) -> None:
        super().__init__(homes, {home.server: Ipv4HomeAgent(home.server) for home in homes})
        self._parameters = parameters or Parameters()
        reverse = self._parameters.reverse_tunnel
        self.name = "Mobile IPv4, reverse tunnel" if reverse else "Mobile IPv4"

    def host(self, home_address: Address, *, moves: bool = True) -> Host:
        """A mobile node, or an ordinary host."""
        agent = self._agent_of(home_address) if moves else None
        return MobileIpv4Host(home_address, agent, self._parameters)
