"""The addresses of one access network, leased as a DHCP server does."""

from ipaddress import IPv4Network, IPv6Network
from typing import Final, final

from mat.address import Address, from_ipv4

_FIRST: Final = 2
"""The first host number that is leased: 0 is the network, 1 the router."""


@final
class Pool:
    """Leases of one network. An address is leased again only after its lease has ended."""

    __slots__ = ("_held", "_network", "_next", "_nodes", "_until", "lease_time", "start_attached")

    def __init__(
        self, network: IPv4Network | IPv6Network, lease_time: float, *, start_attached: bool
    ) -> None:
        self._network = network
        self._next = _FIRST
        self._until: dict[Address, float] = {}
        self._held: dict[str, Address] = {}
        self._nodes: dict[Address, str] = {}
        self.lease_time = lease_time
        self.start_attached = start_attached

    def lease(self, now: float, node: str, wanted: Address | None = None) -> tuple[Address, float]:
        """An address for a node, and when its lease ends, s.

        The one that is wanted; else, while its lease lasts, the one that the node had before; else
        any that is free.
        """
        had = self._held.get(node)
        if had is not None and (self._nodes[had] != node or self._until[had] <= now):
            had = None
        address = wanted or had or self._any()
        self._held[node], self._nodes[address] = address, node
        return address, self.renew(now, address)

    def renew(self, now: float, address: Address) -> float:
        """The end of the lease, extended from now, s."""
        self._until[address] = now + self.lease_time
        return self._until[address]

    def _any(self) -> Address:
        while self._next < self._network.num_addresses - 1:
            self._next += 1
            address = address_in(self._network, self._next - 1)
            if address not in self._until:  # it is there if a node wanted it
                return address
        oldest = min(self._until, key=lambda a: self._until[a])
        del self._until[oldest]
        return oldest


def _address(number: int, version: int) -> Address:
    return (
        from_ipv4(number.to_bytes(4, "big"))
        if version == 4
        else Address(number.to_bytes(16, "big"))
    )


def address_in(network: IPv4Network | IPv6Network, host: int) -> Address:
    """The address with this host number in a prefix."""
    return _address(int(network.network_address) + host, network.version)
