"""Addresses: those of one access network, leased as a DHCP server does, and home addresses."""

from array import array
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from random import Random
from typing import Final, final

import numpy as np

from mat.address import Address, from_ipv4

_ROUTER: Final = 1
_FIRST: Final = 2
"""The first host number that is leased: 0 is the network, 1 the router."""
_NEVER_GIVEN: Final = float("-inf")


@final
class Pool:
    """Leases of one network, to nodes by their number.

    An address is leased again only after its lease has ended. By host number, there are the end of
    each lease and the node that has, or had, it: 16 bytes an address that was ever given out.
    """

    __slots__ = ("_base", "_had", "_next", "_node", "_size", "_until", "_version", "lease_time")

    def __init__(self, network: IPv4Network | IPv6Network, lease_time: float) -> None:
        self.lease_time = lease_time
        self._base = int(network.network_address)
        self._version = network.version
        self._size = network.num_addresses - 1
        self._next = _FIRST
        self._until = array("d")
        self._node = array("q")
        self._had: dict[int, int] = {}
        """Host number that a node had when it left."""

    def lease(self, now: float, node: int, wanted: Address | None = None) -> tuple[Address, float]:
        """An address for a node, and when its lease ends, s.

        The one that is wanted; else, while its lease lasts, the one that the node had before; else
        any that is free.
        """
        number = self._number(wanted) if wanted is not None else self._for(now, node)
        address = wanted if wanted is not None else _address(self._base + number, self._version)
        self._give(number, node)
        return address, self.renew(now, address)

    def _give(self, number: int, node: int) -> None:
        if self._is_here(number):
            missing = number + 1 - len(self._until)
            self._until.extend([_NEVER_GIVEN] * missing)
            self._node.extend([0] * missing)
            self._node[number] = node

    # ---- as a DHCP server gives them -----------------------------------------------------------

    def offer(
        self, now: float, node: int, seconds: float, reserved: Address | None = None
    ) -> Address | None:
        """An address for a node, kept for it so long; None if others have them all.

        What was given to it before is offered again, as long as nobody else has got it.
        """
        number = self._number(reserved) if reserved is not None else self._free_for(now, node)
        if number is None:
            return None
        self._give(number, node)
        if self._is_here(number):
            self._had[node] = number
            self._until[number] = max(self._until[number], now + seconds)
        return _address(self._base + number, self._version)

    def _free_for(self, now: float, node: int) -> int | None:
        if self.had(node):
            return self._had[node]
        number = self._for(now, node)
        taken = number < len(self._until) and self._until[number] > now
        return None if taken else number

    def has(self, node: int, address: Address) -> bool:
        """Whether this is the address that was offered or given to a node last."""
        return self.had(node) and self._had[node] == self._number(address)

    def had(self, node: int) -> bool:
        """Whether an address is kept for a node."""
        number = self._had.get(node, -1)
        return number >= 0 and self._node[number] == node

    @property
    def router(self) -> Address:
        """The address of the network's router."""
        return _address(self._base + _ROUTER, self._version)

    def renew(self, now: float, address: Address) -> float:
        """The end of the lease, extended from now, s."""
        number, until = self._number(address), now + self.lease_time
        if self._is_here(number):
            self._until[number] = until
        return until

    def left(self, node: int, address: Address) -> None:
        """A node has gone without giving its address back."""
        if self._is_here(number := self._number(address)):
            self._had[node] = number

    def _number(self, address: Address) -> int:
        return int.from_bytes(address[12:] if self._version == 4 else address) - self._base

    def _is_here(self, number: int) -> bool:
        """Whether this is an address of the pool: a file of events may prescribe others."""
        return 0 <= number < self._size

    def _for(self, now: float, node: int) -> int:
        if self.had(node) and self._until[self._had[node]] > now:
            return self._had[node]
        while self._next < self._size:
            number, self._next = self._next, self._next + 1
            if number >= len(self._until) or self._until[number] == _NEVER_GIVEN:
                return number
        given = np.frombuffer(self._until)[_FIRST:]
        return _FIRST + int(given.argmin())


@final
class Homes:
    """Home addresses in the parts of a prefix: equally many in each, and else at random.

    Who has the same IMS as somebody is so independent of all that goes in turn in a scenario.
    """

    __slots__ = ("_next", "_parts", "_random")

    def __init__(self, parts: Sequence[IPv4Network | IPv6Network], random: Random) -> None:
        self._parts = parts
        self._random = random
        self._next = [1] * len(parts)

    def give(self, count: int) -> list[Address]:
        """The next so many addresses; without parts, in order."""
        order = [number % len(self._parts) for number in range(count)]
        if len(self._parts) > 1:
            self._random.shuffle(order)
        return [self._give(part) for part in order]

    def _give(self, part: int) -> Address:
        number = self._next[part]
        self._next[part] += 1
        return address_in(self._parts[part], number)


def _address(number: int, version: int) -> Address:
    if version == 4:
        return from_ipv4(number.to_bytes(4, "big"))
    return Address(number.to_bytes(16, "big"))


def address_in(network: IPv4Network | IPv6Network, host: int) -> Address:
    """The address with this host number in a prefix."""
    return _address(int(network.network_address) + host, network.version)
