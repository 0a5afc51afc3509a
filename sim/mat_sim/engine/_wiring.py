"""What stations and hosts share: sending messages, and asking the DNS."""

from random import Random
from typing import final

from mat.address import Address
from mat.effects import NotFound, Send
from mat.mapping_table import Servers
from mat.messages import MAT_PORT, Endpoint, Message
from mat_files.scenario import Dns
from mat_sim.engine._clock import Happening
from mat_sim.engine._network import Datagram, Network, Party, Site
from mat_sim.engine._tally import Count, Line, Tally
from mat_sim.engine._zones import Zones


@final
class Letter(Datagram):
    """A message on its way."""

    __slots__ = ("_count", "_lines", "_message")

    def __init__(
        self,
        network: Network,
        source: Address | None,
        destination: Address,
        message: Message,
        *,
        count: Count,
        lines: list[Line] | None,
    ) -> None:
        super().__init__(network, source, destination)
        self._message = message
        self._count = count
        self._lines = lines

    def arrive(self, holder: Party) -> None:
        """Hand it over."""
        self._count.delivered += 1
        if self._lines is not None:
            for line in self._lines:
                line.received = self.network.clock.now
        origin = self.origin
        assert origin is not None
        assert self.source is not None
        if origin.endpoint is None or origin.address != self.source:
            origin.endpoint = Endpoint(self.source, MAT_PORT)
        holder.receive(self._message, origin.endpoint)

    def lose(self) -> None:
        """Only the count knows."""
        self._count.lost += 1


@final
class Wiring:
    """Messages between parties, the DNS with a cache per asker, and the count of it all."""

    __slots__ = ("_dns", "_random", "_zones", "network", "tally", "warm_until")

    def __init__(
        self, network: Network, tally: Tally, *, dns: Dns, zones: Zones, random: Random
    ) -> None:
        self.network = network
        self.tally = tally
        self._dns = dns
        self._zones = zones
        self._random = random
        self.warm_until = 0.0
        """Until when all answers of the DNS are in everybody's cache, s."""

    def send(self, sender: Party, source: Address | None, effect: Send, *, repeat: bool) -> None:
        """Send a message from an address of the sender's."""
        there, message, network = effect.destination.address, effect.message, self.network
        receiver = network.last_holder(there)
        count = self.tally.count_message(message, sender, receiver, repeat=repeat)
        lines = None
        if self.tally.watching:
            lines = self.tally.note_message(network.clock.now, message, sender, receiver)
        Letter(network, source, there, message, count=count, lines=lines).depart()

    def look_up(self, asker: Party, home_address: Address, site: Site | None) -> None:
        """Ask the DNS from a site; a cached answer takes no time."""
        result = self._zones.find(home_address)
        clock, cached = self.network.clock, asker.cached
        known = cached is not None and cached.get(home_address, -1.0) > clock.now
        if known or clock.now < self.warm_until:
            clock.after(0.0, _Told(asker, home_address, result))
            return
        lines = self.tally.look_up(clock.now, asker, home_address)
        taken = 2 * self._dns.delay.sample(self._random) + self._dns.service.sample(self._random)
        if site is not None:
            taken += 2 * site.delay(self._random)
        keep = clock.now + taken + self._dns.ttl
        clock.after(taken, _Told(asker, home_address, result, keep=keep, lines=lines))


@final
class _Told(Happening):
    """The DNS's answer reaches who asked."""

    __slots__ = ("_asker", "_home_address", "_keep", "_lines", "_result")

    def __init__(
        self,
        asker: Party,
        home_address: Address,
        result: Servers | NotFound,
        *,
        keep: float = -1.0,
        lines: list[Line] | None = None,
    ) -> None:
        self._asker = asker
        self._home_address = home_address
        self._result = result
        self._keep = keep
        """Until when the answer may be kept, s; past if it was cached already."""
        self._lines = lines

    def happen(self) -> None:
        """The answer is there."""
        asker = self._asker
        now = asker.clock.now
        if self._keep > now:
            if asker.cached is None:
                asker.cached = {}
            asker.cached[self._home_address] = self._keep
        if self._lines is not None:
            for line in self._lines:
                line.received = now
        asker.servers_found(self._home_address, self._result)
