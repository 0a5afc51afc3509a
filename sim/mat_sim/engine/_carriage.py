"""Datagrams of a baseline on their way: what its hosts and agents share.

The machines of `mat_sim.baselines` say what is to be sent and by which link; here it travels. A
datagram goes to the server of its destination address; else to the agent that stands in for a node
at that moment; else to whoever holds the address (docs/baselines.md, Interface). A tunnel is a
datagram in a datagram, so each of its ends is the end of a leg, counted by itself.

A packet of data takes a `Journey` along: from the legs that it has travelled follow path stretch
and header overhead when it is delivered (docs/results.md, Flows).
"""

from math import inf
from random import Random
from typing import final

from mat.address import Address
from mat_files.scenario import Dns
from mat_sim.baselines import Data, Datagram, System, Transmit
from mat_sim.engine._clock import Happening
from mat_sim.engine._flow import Flow
from mat_sim.engine._network import Link, Network, Party, Site
from mat_sim.engine._roamer import Roamer
from mat_sim.engine._tally import Count, Counted, Line, Tally, received


@final
class Journey:
    """A packet of a flow, and the way that it has come."""

    __slots__ = (
        "_begin",
        "_distance",
        "_flow",
        "_headers",
        "_number",
        "_sent",
        "left_by",
        "sender",
    )

    def __init__(self, sender: Roamer, flow: Flow) -> None:
        """The next packet of the flow begins it."""
        self.sender = sender
        self._flow = flow
        self._sent = sender.clock.now
        self._number = flow.send(self._sent)
        self.left_by: Address | None = None
        """The address whose link it left its sender by."""
        self._begin = 0.0
        self._distance = 0.0
        self._headers = 0

    def leg(self, origin: Address, here: Link | None, there: Link | None, headers: int) -> None:
        """It goes on; distances are mean delays, s, and `headers` the bytes above its own."""
        out = here.site.mean_delay if here is not None else 0.0
        back = there.site.mean_delay if there is not None else 0.0
        if self.left_by is None:
            self.left_by = origin
            self._begin = out
        self._distance += out + back
        self._headers += headers

    def delivered(self, now: float, site: Site) -> None:
        """It has reached the application at a site."""
        flow, straight = self._flow, self._begin + site.mean_delay
        flow.deliver(now, self._number, self._sent)
        flow.headers += self._headers
        if self._distance > straight:
            flow.detour += self._distance / straight - 1 if straight > 0 else inf


@final
class Carried(Counted):
    """A datagram on one leg of its way."""

    __slots__ = ("payload",)

    def __init__(
        self,
        network: Network,
        leaves_from: Address,
        target: Address,
        payload: Datagram,
        *,
        count: Count,
        lines: list[Line] | None,
    ) -> None:
        super().__init__(network, leaves_from, target, count=count, lines=lines)
        self.payload = payload

    def wire_size(self) -> int:
        """Its length, with the headers of its tunnels, bytes."""
        return self.payload.size

    def reach(self, holder: Party) -> None:
        """Hand it over."""
        holder.arrived(self)


@final
class Carriage:
    """Carries what hosts and agents of a system send, and their questions to the DNS."""

    __slots__ = ("_dns", "_homes", "_random", "network", "system", "tally")

    def __init__(
        self, system: System, network: Network, tally: Tally, *, dns: Dns, random: Random
    ) -> None:
        self.system = system
        self.network = network
        self.tally = tally
        self._dns = dns
        self._random = random
        self._homes: dict[Address, Roamer] = {}

    def knows(self, host: Roamer) -> None:
        """There is such a host; what is sent to its home address counts as sent to it."""
        self._homes[host.home] = host

    def transmit(self, sender: Party, effect: Transmit) -> None:
        """Send a datagram over the link that it is to leave by."""
        payload, origin, network = effect.datagram, effect.leaves_from, self.network
        target = self._target(payload.destination)
        receiver = network.last_holder(target) or self._homes.get(target) or sender
        content = payload.content
        if isinstance(content, Data) and isinstance(content.handle, Journey):
            here, there = network.link_of(origin), network.link_of(target)
            content.handle.leg(origin, here, there, payload.size - content.size)
        count = self.tally.count_datagram(payload, sender, receiver, repeat=effect.repeat)
        lag, lines = 0.0 if payload.is_data else sender.lag(), None
        if self.tally.watching:
            lines = self.tally.note_datagram(network.clock.now + lag, payload, sender, receiver)
        Carried(network, origin, target, payload, count=count, lines=lines).depart(lag)

    def _target(self, destination: Address) -> Address:
        system = self.system
        if destination in system.servers:
            return destination
        return system.catcher(self.network.clock.now, destination) or destination

    def look_up(self, asker: "Asker", home_address: Address, site: Site | None) -> None:
        """Ask the DNS from a site; nothing is cached, as hosts keep what they were told."""
        clock, lag = self.network.clock, asker.lag()
        lines = self.tally.look_up(clock.now + lag, asker, home_address, question="where?")
        out, back = (self._way_to_dns(site) for _ in range(2))
        service = self._dns.service.sample(self._random)
        question = _Question(asker, home_address, self.system, back=back, lines=lines)
        clock.after(lag + out + service, question)

    def _way_to_dns(self, site: Site | None) -> float:
        there = site.delay(self._random) if site is not None else 0.0
        return there + self._dns.delay.sample(self._random)


class Asker(Roamer):
    """A host that the DNS answers."""

    __slots__ = ()

    def found(self, home_address: Address, address: Address | None) -> None:
        """The DNS has answered."""
        raise NotImplementedError


@final
class _Question(Happening):
    """A question to the DNS: it happens at the server, and then at the asker."""

    __slots__ = ("_answer", "_answered", "_asker", "_back", "_home_address", "_lines", "_system")

    def __init__(
        self,
        asker: Asker,
        home_address: Address,
        system: System,
        *,
        back: float,
        lines: list[Line] | None,
    ) -> None:
        self._asker = asker
        self._home_address = home_address
        self._system = system
        self._back = back
        self._lines = lines
        self._answered = False
        self._answer: Address | None = None

    def happen(self) -> None:
        """The server answers, or the asker hears of it."""
        clock = self._asker.clock
        if not self._answered:
            self._answered = True
            self._answer = self._system.answer(clock.now, self._home_address)
            clock.after(self._back, self)
            return
        received(self._lines, clock.now)
        self._asker.found(self._home_address, self._answer)
