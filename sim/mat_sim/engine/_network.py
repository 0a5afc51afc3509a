"""The network: sites around a core, and who holds which address.

A datagram travels from its sender's site to the core and on to the site that the destination's
holder is at; each half has its delay and its loss. Whoever holds the address when the datagram
arrives gets it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol, final

from mat.address import Address
from mat_files.distributions import Distribution
from mat_sim.engine._clock import Clock


class Party(Protocol):
    """A node or a server: something that holds addresses."""

    name: str
    role: str


@final
@dataclass(slots=True, eq=False)
class Link:
    """An attachment of a party to a site, with the address it has there.

    `order` rises with each time the link is made the preferred one.
    """

    party: Party
    delay: Distribution
    loss: float
    network: str = ""
    interface: int = 0
    order: int = 0
    acted: bool = False
    linked: bool = False
    address: Address | None = None
    up: bool = True
    noticed_down: bool = False


@final
class Network:
    """All addresses and the paths between them."""

    __slots__ = ("_clock", "_links", "_random", "_roles")

    def __init__(self, clock: Clock, random: Random) -> None:
        self._clock = clock
        self._random = random
        self._links: dict[Address, Link] = {}
        self._roles: dict[Address, Party] = {}

    def connect(self, link: Link, address: Address) -> None:
        """The link has this address from now on."""
        link.address = address
        self._links[address] = link
        self._roles[address] = link.party

    def disconnect(self, link: Link) -> None:
        """The link is down: its address leads nowhere."""
        link.up = False
        if link.address is not None and self._links.get(link.address) is link:
            del self._links[link.address]

    def holder(self, address: Address) -> Party | None:
        """Who holds an address now."""
        link = self._links.get(address)
        return link.party if link else None

    def last_holder(self, address: Address) -> Party | None:
        """Who holds an address now, or held it last."""
        return self._roles.get(address)

    def carry(
        self,
        source: Address | None,
        destination: Address,
        arrived: Callable[..., None],
        lost: Callable[..., None],
        *arguments: Any,
    ) -> None:
        """Take a datagram along: `arrived(holder, *arguments)` later, or `lost(*arguments)`."""
        here = self._links.get(source) if source is not None else None
        there = self._links.get(destination)
        if here is None or self._is_lost(here, there):
            lost(*arguments)
            return
        delay = here.delay.sample(self._random)
        if there is not None:
            delay += there.delay.sample(self._random)
        self._clock.after(delay, self._arrive, destination, arrived, lost, arguments)

    def _is_lost(self, here: Link, there: Link | None) -> bool:
        kept = (1 - here.loss) * (1 - there.loss if there is not None else 1)
        return kept < 1 and self._random.random() >= kept

    def _arrive(
        self,
        destination: Address,
        arrived: Callable[..., None],
        lost: Callable[..., None],
        arguments: tuple[Any, ...],
    ) -> None:
        link = self._links.get(destination)
        if link is None:
            lost(*arguments)
        else:
            arrived(link.party, *arguments)
