"""What stations and hosts share: sending messages, and asking the DNS."""

from collections.abc import Callable
from random import Random
from typing import Protocol, final

from mat.address import Address
from mat.effects import NotFound, Send
from mat.mapping_table import Servers
from mat.messages import MAT_PORT, Endpoint, Message
from mat_files.distributions import Distribution
from mat_files.scenario import Dns
from mat_sim.engine._clock import Clock
from mat_sim.engine._network import Network, Party
from mat_sim.engine._tally import Count, Line, Tally, arrived, lost


class Receiver(Party, Protocol):
    """A party that takes messages and the DNS's answers."""

    def receive(self, message: Message, source: Endpoint) -> None:
        """A message has arrived."""
        ...

    def servers_found(self, home_address: Address, result: Servers | NotFound) -> None:
        """The DNS has answered."""
        ...


Zones = Callable[[Address], Servers | NotFound]
"""What the DNS knows: the servers of a home address."""


@final
class Wiring:
    """Messages between parties, the DNS with a cache per asker, and the count of it all."""

    __slots__ = ("_cached", "_clock", "_dns", "_random", "_zones", "network", "tally")

    def __init__(
        self,
        clock: Clock,
        network: Network,
        tally: Tally,
        *,
        dns: Dns,
        zones: Zones,
        random: Random,
    ) -> None:
        self._clock = clock
        self.network = network
        self.tally = tally
        self._dns = dns
        self._zones = zones
        self._random = random
        self._cached: dict[tuple[str, Address], float] = {}

    def send(self, sender: Party, source: Address | None, effect: Send, *, repeat: bool) -> None:
        """Send a message from an address of the sender's."""
        there = effect.destination.address
        receiver = self.network.last_holder(there)
        now = self._clock.now
        noted = self.tally.message(now, effect.message, sender, receiver, repeat=repeat)
        came_from = Endpoint(source, MAT_PORT) if source is not None else effect.destination
        self.network.carry(source, there, self._arrive, _lose, effect.message, came_from, noted)

    def _arrive(
        self, holder: Receiver, message: Message, source: Endpoint, noted: tuple[Count, list[Line]]
    ) -> None:
        arrived(self._clock.now, noted)
        holder.receive(message, source)

    def look_up(self, asker: Receiver, home_address: Address, delay: Distribution | None) -> None:
        """Ask the DNS from a site `delay` from the core; a cached answer takes no time."""
        result = self._zones(home_address)
        now = self._clock.now
        key = (asker.name, home_address)
        if self._cached.get(key, -1.0) > now:
            self._clock.after(0.0, asker.servers_found, home_address, result)
            return
        lines = self.tally.look_up(now, asker, home_address)
        there_and_back = 2 * self._dns.delay.sample(self._random)
        if delay is not None:
            there_and_back += 2 * delay.sample(self._random)
        taken = there_and_back + self._dns.service.sample(self._random)
        self._clock.after(taken, self._answered, asker, home_address, result, lines)

    def _answered(
        self, asker: Receiver, home_address: Address, result: Servers | NotFound, lines: list[Line]
    ) -> None:
        now = self._clock.now
        self._cached[asker.name, home_address] = now + self._dns.ttl
        for line in lines:
            line.received = now
        asker.servers_found(home_address, result)


def _lose(_message: Message, _source: Endpoint, noted: tuple[Count, list[Line]]) -> None:
    lost(noted)
