"""No mobility: what a host's packets bear is what it had when the connection was begun.

An address that is gone takes the connections with it. After a move the host's own packets cannot be
sent, as their source is no longer its address, and what the peer sends goes to where the host was:
nothing of an old flow is delivered, either way, unless the host gets the very same address again.
Applications do not connect anew. That is the floor to measure the others against, and what IP by
itself does (RFC 9293, section 3.1: a connection is a pair of sockets, addresses included).
"""

from collections.abc import Mapping
from typing import Literal, TypeAlias, final

from mat.address import Address
from mat_sim.baselines._connections import ConnectionHost
from mat_sim.baselines._machine import Host, Server

_Servers: TypeAlias = Mapping[Address, Server]


@final
class NoMobility:
    """The system: hosts and a DNS that knows where they are when a connection is begun."""

    tells_peers = False

    def __init__(self, family: Literal[4, 6] = 4) -> None:
        self.name = "no mobility"
        self.family: Literal[4, 6] = family
        self.servers: _Servers = {}
        self._hosts: dict[Address, ConnectionHost] = {}

    def host(self, home_address: Address, *, moves: bool = True) -> Host:  # noqa: ARG002
        """Any host."""
        host = self._hosts[home_address] = ConnectionHost(home_address)
        return host

    def catcher(self, now: float, destination: Address) -> Address | None:  # noqa: ARG002
        """Nobody stands in for anybody."""
        return None

    def answer(self, now: float, home_address: Address) -> Address | None:  # noqa: ARG002
        """Where a host is at this moment: how applications come to know it is not modelled."""
        host = self._hosts.get(home_address)
        return host.addresses[0] if host is not None and host.addresses else None
