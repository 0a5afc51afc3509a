"""The network: sites around a core, and who holds which address.

A datagram travels from its sender's site to the core and on to the site that the destination's
holder is at; each half has its delay and its loss. Whoever holds the address when the datagram
arrives gets it.

Where links have no rate, no datagram is in the way of another, and the whole way is one event,
foreseen at departure. Where one has a rate (`_capacity`), each half is for itself: first its queue,
then its loss, then its delay. The way up needs no event for that, but the way down does, since its
queue is in the order of arrival at the core. It leads to the site that has the address by then, or
had it last: an address belongs to a place, and what is sent to it goes there though its holder has
left, and takes its share of the link.
"""

from random import Random
from typing import final

from mat.address import Address
from mat.effects import NotFound
from mat.mapping_table import Servers
from mat.messages import Endpoint, Message
from mat_files.distributions import Distribution
from mat_sim.engine._capacity import Capacity
from mat_sim.engine._clock import NEVER, Clock, Happening, Sleeper
from mat_sim.engine._draw import Draw
from mat_sim.engine._longest import longest
from mat_sim.engine._tap import Tap


class Party(Sleeper):
    """A node or a server: something that holds addresses and takes messages."""

    __slots__ = ("cached", "name", "role")

    def __init__(self, clock: Clock, name: str, role: str) -> None:
        super().__init__(clock)
        self.name = name
        self.role = role
        self.cached: dict[Address, float] | None = None
        """Home addresses whose servers the DNS has told, and until when that may be kept, s."""

    def lag(self) -> float:
        """How long from now until what it says now leaves, s."""
        return 0.0

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

    __slots__ = (
        "_delay",
        "capacity",
        "kept",
        "longest_delay",
        "mean_delay",
        "network",
    )

    def __init__(
        self,
        delay: Distribution,
        loss: float,
        network: str = "",
        *,
        capacity: Capacity | None = None,
    ) -> None:
        self.capacity = capacity
        """What the path can carry; None if there is no limit."""
        self.network = network
        """The access network's name; empty elsewhere."""
        self.kept = 1 - loss
        """Probability that a packet is not lost on the way."""
        self._delay = Draw(delay)
        self.mean_delay = delay.mean
        """Expectation of how long a packet is on its way between here and the core, s."""
        self.longest_delay = longest(delay)
        """The longest that it is, s."""

    def delay(self, random: Random) -> float:
        """How long a packet is on its way between here and the core, s, once it is sent."""
        return self._delay.sample(random)

    def loses(self, random: Random) -> bool:
        """Whether a packet is lost on the way."""
        return self.kept < 1 and random.random() >= self.kept

    def sending_time(self, size: int) -> float:
        """How long it takes to send so many bytes over the link to the core, s."""
        return self.capacity.up.takes(size) if self.capacity is not None else 0.0


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

    __slots__ = ("_dependents", "_interval", "_links", "capacities", "clock", "random", "tap")

    def __init__(
        self, clock: Clock, random: Random, interval: float, tap: Tap | None = None
    ) -> None:
        """`interval` is the length of a row of the table `links`, s."""
        self.clock = clock
        self.random = random
        self.tap = tap
        self._interval = interval
        self.capacities: list[Capacity] = []
        """Of all links that have a rate."""
        self._links: dict[Address, Link] = {}
        """The link that has an address, or had it last."""
        self._dependents: dict[Address, dict[Dependent, None]] = {}

    def capacity(self, kind: str, name: str, rate: float | None, queue: int) -> Capacity | None:
        """The capacity of a new link between a place and the core; None where it has no rate."""
        if rate is None:
            return None
        made = Capacity(self.clock, kind, name, rate=rate, queue=queue, interval=self._interval)
        self.capacities.append(made)
        return made

    def connect(self, link: Link, address: Address) -> None:
        """The link has this address from now on."""
        link.address = address
        link.endpoint = None
        self._links[address] = link
        if self.tap is not None:
            self.tap.address(address, link.party.name, link.network)
        self._wake_dependents(address)

    def withdraw(self, link: Link) -> None:
        """The link is up and has its address no longer, though it had it last."""
        address, link.address = link.address, None
        if address is not None:
            self._wake_dependents(address)

    def disconnect(self, link: Link) -> None:
        """The link is down: its address leads nowhere."""
        link.up = False
        link.endpoint = None
        if link.address is not None:
            self._wake_dependents(link.address)

    def clear(self) -> None:
        """Nobody has an address any more."""
        self._links = {}
        self._dependents = {}

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
        return link if link is not None and link.up and link.address == address else None

    def site_of(self, address: Address) -> Site | None:
        """Where an address is, or was last."""
        link = self._links.get(address)
        return link.site if link is not None else None

    def has_rate(self, here: Link, destination: Address) -> bool:
        """Whether a link that a datagram would take from `here` has a rate."""
        there = self.site_of(destination)
        return here.site.capacity is not None or (there is not None and there.capacity is not None)

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

    def depart(self, lag: float = 0.0) -> None:
        """Leave the source, so many seconds from now, and arrive later, or be lost.

        Only to a queue on the way does it matter that this is not yet: it takes an event then.
        """
        network = self.network
        here = network.link_of(self.source)
        there = network.link_of(self.destination)
        self.origin = here
        if here is None:
            self.lose()
            return
        is_rated = bool(network.capacities) and network.has_rate(here, self.destination)
        if is_rated and lag > 0:
            network.clock.after(lag, _Departure(self))
            return
        if network.tap is not None:
            self._pass_by(network.tap, here, lag, outward=True)
        if is_rated:
            self._go_up(here.site)
            return
        if _is_lost(here, there, network.random):
            self.lose()
            return
        delay = here.site.delay(network.random)
        if there is not None:
            delay += there.site.delay(network.random)
        self.travel(network.clock.now + lag + delay)

    def _go_up(self, here: Site) -> None:
        """From a site to the core, where a link of the way has a rate."""
        capacity, network = here.capacity, self.network
        sent = capacity.up.send(self.wire_size()) if capacity is not None else network.clock.now
        if sent == NEVER or here.loses(network.random):
            self.lose()
            return
        core = sent + here.delay(network.random)
        there = network.site_of(self.destination)
        if there is None:
            self.travel(core)
        elif there.capacity is None:
            self._reach(there, core)
        else:
            network.clock.at(core, _AtCore(self))

    def go_down(self) -> None:
        """From the core to the site that the destination is at now, or was last."""
        there = self.network.site_of(self.destination)
        assert there is not None
        capacity = there.capacity
        sent = self.network.clock.now
        if capacity is not None:
            sent = capacity.down.send(self.wire_size())
        self._reach(there, sent)

    def _reach(self, there: Site, sent: float) -> None:
        """Sent from the core at a time, if it was: arrive there, or be lost."""
        random = self.network.random
        if sent == NEVER or there.loses(random):
            self.lose()
        else:
            self.travel(sent + there.delay(random))

    def travel(self, arrival: float) -> None:
        """The arrival is at this time, s."""
        self.network.clock.at(arrival, self)

    def wire_size(self) -> int:
        """Its length, IP header included, bytes."""
        raise NotImplementedError

    def happen(self) -> None:
        """The way is over; whether somebody is there shows now."""
        link = self.network.link_of(self.destination)
        if link is None:
            self.lose()
            return
        if self.network.tap is not None:
            self._pass_by(self.network.tap, link, 0.0, outward=False)
        self.arrive(link.party)

    def _pass_by(self, tap: Tap, link: Link, lag: float, *, outward: bool) -> None:
        now, host = self.network.clock.now, link.party.name
        if lag > 0:
            tap.tell(host, now + lag, self.content(), outward=outward)
        else:
            tap.packet(now, host, self.content(), outward=outward)

    def content(self) -> bytes:
        """The IP packet that it is."""
        raise NotImplementedError

    def arrive(self, holder: Party) -> None:
        """Whoever holds the destination has got it."""
        raise NotImplementedError

    def lose(self) -> None:
        """It never arrives."""
        raise NotImplementedError


@final
class _Departure(Happening):
    """A datagram that a host has written by now."""

    __slots__ = ("_datagram",)

    def __init__(self, datagram: Datagram) -> None:
        self._datagram = datagram

    def happen(self) -> None:
        """It leaves."""
        self._datagram.depart()


@final
class _AtCore(Happening):
    """A datagram is at the core, and its way down has a rate."""

    __slots__ = ("_datagram",)

    def __init__(self, datagram: Datagram) -> None:
        self._datagram = datagram

    def happen(self) -> None:
        """It goes down."""
        self._datagram.go_down()


def _is_lost(here: Link, there: Link | None, random: Random) -> bool:
    kept = here.site.kept * (there.site.kept if there is not None else 1.0)
    return kept < 1 and random.random() >= kept
