"""The network: sites around a core, and who holds which address.

A datagram travels from its sender's site to the core and on to the site that the destination's
holder is at; each half has its delay and its loss. Whoever holds the address when the datagram
arrives gets it.
"""

from random import Random
from typing import final

from mat.address import Address
from mat.effects import NotFound
from mat.mapping_table import Servers
from mat.messages import Endpoint, Message
from mat_files.distributions import Constant, Distribution
from mat_sim.engine._clock import NEVER, Clock, Happening, Sleeper
from mat_sim.engine._longest import longest


class Party(Sleeper):
    """A node or a server: something that holds addresses and takes messages."""

    __slots__ = ("cached", "name", "role")

    def __init__(self, clock: Clock, name: str, role: str) -> None:
        super().__init__(clock)
        self.name = name
        self.role = role
        self.cached: dict[Address, float] | None = None
        """Home addresses whose servers the DNS has told, and until when that may be kept, s."""

    def receive(self, message: Message, source: Endpoint) -> None:
        """A message has arrived."""
        raise NotImplementedError

    def servers_found(self, home_address: Address, result: Servers | NotFound) -> None:
        """The DNS has answered."""
        raise NotImplementedError

    def arrived(self, datagram: "Datagram") -> None:
        """A datagram of a system other than MAT has arrived."""
        raise NotImplementedError


@final
class Site:
    """A place, and what the path between it and the core is like."""

    __slots__ = ("_always", "_delay", "kept", "longest_delay", "mean_delay", "network")

    def __init__(self, delay: Distribution, loss: float, network: str = "") -> None:
        self.network = network
        """The access network's name; empty elsewhere."""
        self.kept = 1 - loss
        """Probability that a packet is not lost on the way."""
        self._delay = delay
        self.mean_delay = delay.mean
        """Expectation of how long a packet takes between here and the core, s."""
        self.longest_delay = longest(delay)
        """The longest that it takes, s."""
        self._always = delay.value if isinstance(delay, Constant) else -1.0

    def delay(self, random: Random) -> float:
        """How long a packet takes between here and the core, s."""
        return self._always if self._always >= 0 else self._delay.sample(random)


@final
class Link:
    """An attachment of a party to a site, with the address it has there.

    `order` rises with each time the link is made the preferred one.
    """

    __slots__ = (
        "acted",
        "address",
        "endpoint",
        "interface",
        "lease",
        "linked",
        "noticed_down",
        "order",
        "party",
        "site",
        "up",
    )

    def __init__(self, party: Party, site: Site, interface: int = 0, order: int = 0) -> None:
        self.party = party
        self.site = site
        self.interface = interface
        self.order = order
        self.acted = NEVER
        """When the node acts on the network's being there, s."""
        self.linked = NEVER
        """When the link is associated, s."""
        self.address: Address | None = None
        self.endpoint: Endpoint | None = None
        """The address and the port of MAT, once it was used."""
        self.lease = NEVER
        """When the address has to be given back, s."""
        self.up = True
        self.noticed_down = False

    @property
    def network(self) -> str:
        """The access network's name."""
        return self.site.network


class Dependent:
    """Something that depends on who has an address."""

    __slots__ = ()

    def wake(self) -> None:
        """That is about to change, or has changed just now."""
        raise NotImplementedError


@final
class Network:
    """All addresses and the paths between them."""

    __slots__ = ("_dependents", "_links", "clock", "random")

    def __init__(self, clock: Clock, random: Random) -> None:
        self.clock = clock
        self.random = random
        self._links: dict[Address, Link] = {}
        """The link that has an address, or had it last."""
        self._dependents: dict[Address, dict[Dependent, None]] = {}

    def connect(self, link: Link, address: Address) -> None:
        """The link has this address from now on."""
        link.address = address
        link.endpoint = None
        self._links[address] = link
        self._wake_dependents(address)

    def disconnect(self, link: Link) -> None:
        """The link is down: its address leads nowhere."""
        link.up = False
        if link.address is not None:
            self._wake_dependents(link.address)

    def depend(self, one: Dependent, address: Address) -> None:
        """`one` is woken when another has the address, or nobody, until `release`."""
        self._dependents.setdefault(address, {})[one] = None

    def release(self, one: Dependent, address: Address) -> None:
        """It need not be woken any more."""
        found = self._dependents.get(address)
        if found is not None and found.pop(one, one) is None and not found:
            del self._dependents[address]

    def _wake_dependents(self, address: Address) -> None:
        for one in list(self._dependents.get(address, ())):
            one.wake()

    def link_of(self, address: Address | None) -> Link | None:
        """The link that has an address now."""
        link = self._links.get(address) if address is not None else None
        return link if link is not None and link.up else None

    def last_holder(self, address: Address) -> Party | None:
        """Who holds an address now, or held it last."""
        link = self._links.get(address)
        return link.party if link is not None else None


class Datagram(Happening):
    """Something on its way from one address to another; its happening is the arrival."""

    __slots__ = ("destination", "network", "origin", "source")

    def __init__(self, network: Network, source: Address | None, destination: Address) -> None:
        self.network = network
        self.source = source
        self.destination = destination
        self.origin: Link | None = None
        """The link that it left by."""

    def depart(self) -> None:
        """Leave the source, and arrive later, or be lost."""
        network = self.network
        here = network.link_of(self.source)
        there = network.link_of(self.destination)
        self.origin = here
        if here is None or _is_lost(here, there, network.random):
            self.lose()
            return
        delay = here.site.delay(network.random)
        if there is not None:
            delay += there.site.delay(network.random)
        self.travel(delay)

    def travel(self, delay: float) -> None:
        """The arrival is so many seconds from now."""
        self.network.clock.after(delay, self)

    def happen(self) -> None:
        """The way is over; whether somebody is there shows now."""
        link = self.network.link_of(self.destination)
        if link is None:
            self.lose()
        else:
            self.arrive(link.party)

    def arrive(self, holder: Party) -> None:
        """Whoever holds the destination has got it."""
        raise NotImplementedError

    def lose(self) -> None:
        """It never arrives."""
        raise NotImplementedError


def _is_lost(here: Link, there: Link | None, random: Random) -> bool:
    kept = here.site.kept * (there.site.kept if there is not None else 1.0)
    return kept < 1 and random.random() >= kept
