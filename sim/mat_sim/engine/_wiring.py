"""What stations and hosts share: sending messages, and asking the DNS."""

from collections.abc import Callable
from random import Random
from typing import final

from mat.address import Address, is_ipv4
from mat.codec import encode, size_of
from mat.effects import NotFound, Send
from mat.mapping_table import Servers
from mat.messages import MAT_PORT, Endpoint, Message
from mat_files.capture import udp_packet
from mat_files.scenario import Dns
from mat_sim.engine._clock import Happening
from mat_sim.engine._network import Network, Party, Site
from mat_sim.engine._tally import (
    DNS_PARTY,
    RESOLVER,
    Count,
    Counted,
    Line,
    Tally,
    headers,
    received,
)
from mat_sim.engine._tap import Correspondent, Enquiry
from mat_sim.engine._zones import Zones


@final
class Letter(Counted):
    """A message on its way."""

    __slots__ = ("_message",)

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
        super().__init__(network, source, destination, count=count, lines=lines)
        self._message = message

    def wire_size(self) -> int:
        """Its length with IP and UDP header, bytes."""
        return size_of(self._message) + headers(4 if is_ipv4(self.destination) else 6)

    def content(self) -> bytes:
        """The datagram of the message."""
        assert self.source is not None
        ends = Endpoint(self.source, MAT_PORT), Endpoint(self.destination, MAT_PORT)
        return udp_packet(ends[0], ends[1], encode(self._message))

    def reach(self, holder: Party) -> None:
        """Hand it over."""
        origin = self.origin
        assert origin is not None
        assert self.source is not None
        if origin.endpoint is None or origin.address != self.source:
            origin.endpoint = Endpoint(self.source, MAT_PORT)
        holder.receive(self._message, origin.endpoint)


@final
class Wiring:
    """Messages between parties, the DNS with its caches, and the count of it all."""

    __slots__ = (
        "_dns",
        "_names",
        "_random",
        "_resolvers",
        "_zones",
        "network",
        "tally",
        "warm_until",
    )

    def __init__(
        self,
        network: Network,
        tally: Tally,
        *,
        dns: Dns,
        zones: Zones,
        random: Random,
        names: "NameServers",
    ) -> None:
        self.network = network
        self.tally = tally
        self._dns = dns
        self._zones = zones
        self._random = random
        self._names = names
        self._resolvers: dict[Site, dict[Address, float]] = {}
        """Until when the resolver of a site may keep what it knows, s, by home address."""
        self.warm_until = 0.0
        """Until when all answers of the DNS are in everybody's cache, s."""

    def send(self, sender: Party, source: Address | None, effect: Send, *, repeat: bool) -> None:
        """Send a message from an address of the sender's."""
        there, message, network = effect.destination.address, effect.message, self.network
        receiver = network.last_holder(there)
        count = self.tally.count_message(message, sender, receiver, repeat=repeat)
        lag, lines = sender.lag(), None
        if self.tally.watching:
            lines = self.tally.note_message(network.clock.now + lag, message, sender, receiver)
        Letter(network, source, there, message, count=count, lines=lines).depart(lag)

    def look_up(
        self, asker: Party, home_address: Address, site: Site | None, source: Address | None
    ) -> None:
        """Ask the DNS from a site and an address; a cached answer takes no time."""
        result = self._zones.find(home_address)
        clock, cached = self.network.clock, asker.cached
        known = cached is not None and cached.get(home_address, -1.0) > clock.now
        if known or clock.now < self.warm_until:
            clock.after(0.0, _Told(asker, home_address, result))
            return
        lag = asker.lag()
        if self._dns.resolver is not None and site is not None:
            lines = self.tally.look_up(clock.now + lag, asker, home_address, answers=RESOLVER)
            back = self._dns.resolver.sample(self._random)
            told = _Told(asker, home_address, result, lines=lines)
            out = lag + self._dns.resolver.sample(self._random)
            told.enquiry = self._enquiry(asker.name, source, self._names.of(site), home_address)
            if told.enquiry is not None:
                told.enquiry.asked(clock.now + lag, clock.now + out)
            clock.after(out, _Asked(self, site, told, back))
            return
        lines = self.tally.look_up(clock.now + lag, asker, home_address)
        told = _Told(asker, home_address, result, lines=lines)
        told.enquiry = self._enquiry(asker.name, source, self._names.dns, home_address)
        taken = self._ask_dns(site, told.enquiry, result, lag)
        told.keep = clock.now + taken + self._dns.ttl
        clock.after(taken, told)

    def _enquiry(
        self, asker: str, source: Address | None, server: Correspondent, home: Address
    ) -> Enquiry | None:
        """For a capture, if there is one."""
        tap = self.network.tap
        if tap is None or source is None:
            return None
        return tap.enquiry(Correspondent(asker, source), server, home)

    def _ask_dns(
        self,
        site: Site | None,
        enquiry: Enquiry | None,
        result: Servers | NotFound,
        lag: float = 0.0,
    ) -> float:
        """Ask the DNS itself from a site, so many seconds from now; how long it takes, s."""
        way, now = self._dns.delay.sample(self._random), self.network.clock.now + lag
        taken = 2 * way + self._dns.service.sample(self._random)
        if site is not None:
            there = site.delay(self._random)
            taken, way = taken + 2 * there, way + there
        if enquiry is not None:
            enquiry.asked(now, now + way)
            enquiry.answered(now + taken - way, now + taken, result)
        return lag + taken

    def resolve(self, site: Site, told: "_Told", back: float) -> None:
        """A site's resolver is asked: it tells at once what it knows, and else asks the DNS."""
        now = self.network.clock.now
        cache = self._resolvers.setdefault(site, {})
        until = cache.get(told.home_address, -1.0)
        if until > now:
            told.keep = until
            self._tell(told, back)
            return
        self.tally.count_look_up(RESOLVER, DNS_PARTY)
        asks = self._names.of(site)
        enquiry = self._enquiry(asks.name, asks.address, self._names.dns, told.home_address)
        taken = self._ask_dns(site, enquiry, told.result)
        self.network.clock.after(taken, _Resolved(self, cache, told, back))

    def resolved(self, cache: dict[Address, float], told: "_Told", back: float) -> None:
        """The DNS has answered a resolver, which keeps the answer and passes it on."""
        told.keep = cache[told.home_address] = self.network.clock.now + self._dns.ttl
        self._tell(told, back)

    def _tell(self, told: "_Told", back: float) -> None:
        """A resolver answers."""
        now = self.network.clock.now
        if told.enquiry is not None:
            told.enquiry.answered(now, now + back, told.result)
        self.network.clock.after(back, told)


@final
class NameServers:
    """The DNS and the resolvers of sites, as hosts of their own: for captures alone."""

    __slots__ = ("_address", "_resolvers", "dns")

    def __init__(self, address: Callable[[int], Address]) -> None:
        """`address` gives addresses that nobody else has, by number from 0."""
        self._address = address
        self.dns = Correspondent(DNS_PARTY, address(0))
        self._resolvers: dict[Site, Correspondent] = {}

    def of(self, site: Site) -> Correspondent:
        """The resolver of a site."""
        if site not in self._resolvers:
            number = len(self._resolvers) + 1
            made = Correspondent(f"{RESOLVER} {number}", self._address(number))
            self._resolvers[site] = made
        return self._resolvers[site]


@final
class _Told(Happening):
    """The DNS's answer reaches who asked."""

    __slots__ = ("_asker", "_lines", "enquiry", "home_address", "keep", "result")

    def __init__(
        self,
        asker: Party,
        home_address: Address,
        result: Servers | NotFound,
        *,
        lines: list[Line] | None = None,
    ) -> None:
        self._asker = asker
        self.home_address = home_address
        self.result = result
        self.keep = -1.0
        """Until when the answer may be kept, s; past if it was cached already."""
        self.enquiry: Enquiry | None = None
        """Of the asker's, for a capture."""
        self._lines = lines

    def happen(self) -> None:
        """The answer is there."""
        asker = self._asker
        now = asker.clock.now
        if self.keep > now:
            if asker.cached is None:
                asker.cached = {}
            asker.cached[self.home_address] = self.keep
        received(self._lines, now)
        asker.servers_found(self.home_address, self.result)


@final
class _Asked(Happening):
    """A question has come to the resolver of a site; its answer will take `back` from there."""

    __slots__ = ("_back", "_site", "_told", "_wiring")

    def __init__(self, wiring: Wiring, site: Site, told: _Told, back: float) -> None:
        self._wiring = wiring
        self._site = site
        self._told = told
        self._back = back

    def happen(self) -> None:
        """The resolver sees to it."""
        self._wiring.resolve(self._site, self._told, self._back)


@final
class _Resolved(Happening):
    """The DNS's answer reaches a resolver."""

    __slots__ = ("_back", "_cache", "_told", "_wiring")

    def __init__(
        self, wiring: Wiring, cache: dict[Address, float], told: _Told, back: float
    ) -> None:
        self._wiring = wiring
        self._cache = cache
        self._told = told
        self._back = back

    def happen(self) -> None:
        """It has it."""
        self._wiring.resolved(self._cache, self._told, self._back)
