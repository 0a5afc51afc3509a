"""What home agents of Mobile IPv4 and IPv6 have in common: standing in for nodes that are away."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mat.address import Address
from mat_sim.baselines._datagram import Data, Datagram
from mat_sim.baselines._machine import Discard, Effect, Home, Reason, Server, Transmit, home_server


@dataclass(slots=True)
class Binding:
    """Where a node is, while it is away; `number` orders its requests."""

    care_of: Address | None
    until: float
    number: int


class HomeAgent:
    """Sends on to the care-of address what is addressed to a node that is away."""

    role = "HA"
    forwards = True

    def __init__(self, address: Address) -> None:
        self.address = address
        self._bindings: dict[Address, Binding] = {}

    @property
    def deadline(self) -> float | None:
        """When to call `handle_timer`, s."""
        return None

    def handle_timer(self, now: float) -> list[Effect]:  # noqa: ARG002
        """What has expired is seen when it is looked at: that takes no timer."""
        return []

    def care_of(self, now: float, home_address: Address) -> Address | None:
        """Where a node is; None: at home, or nobody knows."""
        binding = self._bindings.get(home_address)
        return binding.care_of if binding and binding.until > now else None

    def entries(self, now: float) -> int:
        """How many nodes are away."""
        return sum(self.care_of(now, home) is not None for home in self._bindings)

    def receive(self, now: float, datagram: Datagram) -> list[Effect]:
        """A registration, or something to be forwarded."""
        if datagram.destination == self.address:
            effects = self._registration(now, datagram)
            if effects is not None:
                return effects
        way = self.way_on(now, datagram)
        if isinstance(way, Transmit):
            return [way]
        content = datagram.content
        return [Discard(content, way)] if isinstance(content, Data) else []

    def _registration(self, now: float, datagram: Datagram) -> list[Effect] | None:
        """What a registration brings about; None if the datagram is none."""
        raise NotImplementedError

    def _into_tunnel(self, inner: Datagram, care_of: Address) -> Datagram:
        """A datagram on its way to a care-of address."""
        raise NotImplementedError

    def way_on(self, now: float, datagram: Datagram) -> Transmit | Reason:
        """Into the tunnel to the care-of address, after having come out of a reverse tunnel."""
        inner = datagram
        if isinstance(datagram.payload, Datagram):
            inner = datagram.payload
            if self.care_of(now, inner.source) != datagram.source:
                return Reason.NO_BINDING
        care_of = self.care_of(now, inner.destination)
        if care_of is not None:
            return Transmit(self._into_tunnel(inner, care_of), self.address)
        # Onto the home link: to a node that has just come back, or to nobody.
        return Transmit(inner, self.address)


class HomeAgents:
    """The part of a system that is its home agents, one for each of `homes`."""

    def __init__(self, homes: Sequence[Home], agents: Mapping[Address, HomeAgent]) -> None:
        self._homes = tuple(homes)
        self._agents = agents
        self.servers: Mapping[Address, Server] = agents

    def _agent_of(self, home_address: Address) -> Address | None:
        return home_server(self._homes, home_address)

    def catcher(self, now: float, destination: Address) -> Address | None:
        """The home agent of a node that is away."""
        agent = self._agent_of(destination)
        if agent is None or self._agents[agent].care_of(now, destination) is None:
            return None
        return agent

    def answer(self, now: float, home_address: Address) -> Address | None:  # noqa: ARG002
        """Nobody asks the DNS."""
        return None
