"""A node's own mapping: its addresses, and keeping its own IMS up to date with them.

Every replica gets an IMS Update; the first Reply makes the mapping valid, the others follow in
their own time. A retransmission carries a greater freshness and what is left of the lifetime by
then, so a late datagram can neither be replayed nor stretch a lease (docs/protocol.md, section 6).
"""

import enum
from typing import final

from mat.address import Address
from mat.authentication import Key, is_authentic, sign
from mat.effects import Event, EventKind, Lookup, NodeEffect, NotFound, Send
from mat.exchanges import UNLIMITED, Exchange, Exchanges, Purpose
from mat.mapping_table import Servers
from mat.messages import MOST_FRESHNESS, Code, ImsUpdate, ImsUpdateReply
from mat.resumption import OwnMapping
from mat.states import REGISTRATION, RegistrationInput, RegistrationState
from mat.timers import Timed

_FRACTION = float(1 << 32)
_LATEST = MOST_FRESHNESS - (1 << 56)
"""The latest time of day that freshness follows; a clock beyond it counts on from here."""
_MOST_DOUBLINGS = 10
_FOREVER = float("inf")
_ATTEMPTS_PER_LOOKUP = 4
"""After so many Updates without a Reply, the IMS may have moved: the DNS is asked again."""


class Progress(enum.Enum):
    """What a Reply, or its absence, means for the peers of the node."""

    NONE = "nothing new"
    MOVED = "a new mapping is valid now: tell the peers"
    REFRESHED = "the same mapping lives on"
    LAPSED = "no mapping is valid any more"


@final
class Registrar(Timed):
    """The registration of one home address. Its timer: refresh, lapse, or the next look-up."""

    __slots__ = (
        "_answered",
        "_exchanges",
        "_freshness",
        "_lookups",
        "_wall_clock",
        "addresses",
        "expires",
        "key",
        "registered",
        "registered_version",
        "servers",
        "since",
        "state",
        "until",
        "updates",
        "version",
    )

    def __init__(self, key: Key, exchanges: Exchanges, servers: Servers, wall_clock: float) -> None:
        super().__init__()
        self.key = key
        self._exchanges = exchanges
        self.servers = servers
        self._wall_clock = wall_clock
        self._freshness = 0
        self._answered = False
        self._lookups = 0
        self.state = RegistrationState.DETACHED
        self.addresses: tuple[Address, ...] = ()
        """Mobile addresses the host has now, in order of priority."""
        self.since: tuple[float, ...] = ()
        self.until: tuple[float, ...] = ()
        self.registered: tuple[Address, ...] = ()
        """The mapping that a replica has acknowledged."""
        self.registered_version = 0
        self.version = 0
        self.expires = 0.0
        self.updates: tuple[Exchange, ...] = ()

    def resume(self, own: OwnMapping) -> None:
        """Go on from a registration that stands."""
        self.servers = own.servers
        self.addresses = self.registered = own.addresses
        self.since, self.until = own.since, own.until
        self.version = self.registered_version = own.version
        self._freshness = own.freshness
        self.expires = own.expires
        self._exchanges.round_trips = own.round_trips
        self._answered = True
        self.state = RegistrationState.REGISTERED
        self._exchanges.schedule(self, own.refresh)

    def knowledge(self) -> OwnMapping | None:
        """What `resume` would need; None unless the mapping that stands is the present one."""
        standing = self.registered == self.addresses and self.registered_version == self.version
        if self.state is not RegistrationState.REGISTERED or not standing or self.due is None:
            return None
        return OwnMapping(
            self.addresses,
            self.since,
            self.until,
            self.servers,
            self.version,
            self._freshness,
            self.expires,
            self.due,
            self._exchanges.round_trips,
        )

    def change(
        self,
        now: float,
        addresses: tuple[Address, ...],
        until: tuple[float, ...],
        out: list[NodeEffect],
    ) -> bool:
        """The host's addresses are these now. False if only their leases changed, or nothing."""
        self.until = until
        if addresses == self.addresses:
            lease = self._lease_end() - self._exchanges.parameters.lease_guard
            shortened = self.state is RegistrationState.REGISTERED and lease < self.expires
            waited = self.state is RegistrationState.REGISTERING and not self.updates
            if shortened or waited:
                self._update(now, out)
            return False
        # What was given up in between is another matter: it may have been someone else's since.
        kept = [a for a in self.registered if a in self.addresses and a in addresses]
        self.registered = tuple(kept)
        held = dict(zip(self.addresses, self.since, strict=True))
        self.since = tuple(held.get(address, now) for address in addresses)
        self.addresses = addresses
        self.version = self._next_freshness(now)
        if not addresses:
            self._step(RegistrationInput.LOST)
            self._cancel()
        elif not self.servers:
            self._step(RegistrationInput.ATTACHED)
            self._look_up(now, out)
        else:
            self._step(RegistrationInput.MOVED)
            self._update(now, out)
        return True

    def servers_found(self, now: float, result: Servers | NotFound, out: list[NodeEffect]) -> None:
        """The DNS answered for the own home address."""
        if isinstance(result, NotFound):
            if result is NotFound.NOT_MAT:
                out.append(Event(EventKind.NOT_A_MAT_ZONE, self.key.home_address))
            if self.state is RegistrationState.LOCATING:
                self._step(RegistrationInput.LOOKUP_FAILED)
            return
        moved = result != self.servers
        self.servers = result
        self._lookups = 0
        if self.state is RegistrationState.LOCATING:
            self._step(RegistrationInput.SERVERS_FOUND)
            self._update(now, out)
        elif moved and self.addresses:
            self._update(now, out)

    def replied(
        self, now: float, exchange: Exchange, reply: ImsUpdateReply, out: list[NodeEffect]
    ) -> Progress:
        """An answer to one of the updates under way."""
        signature = reply.authentication
        if signature is None or not is_authentic(reply, self.key):
            out.append(Event(EventKind.UNAUTHENTIC, self.key.home_address))
            return Progress.NONE
        if reply.code == Code.STALE:
            return self._resynchronise(now, exchange, signature.freshness, out)
        if reply.code != Code.SUCCEEDED:
            out.append(Event(EventKind.REGISTRATION_REFUSED, self.key.home_address))
            return Progress.NONE
        if not exchange.first_freshness <= signature.freshness <= self._freshness:
            out.append(Event(EventKind.UNEXPECTED, self.key.home_address))
            return Progress.NONE
        self._exchanges.finish(exchange)
        self.updates = tuple(update for update in self.updates if update is not exchange)
        return self._accepted(exchange, out)

    def timed_out(self, now: float, exchange: Exchange, out: list[NodeEffect]) -> None:
        """No Reply in time: send again, for as long as the address is there, and its lease."""
        if self._lifetime(now) < 1:
            self._exchanges.finish(exchange)
            self.updates = tuple(update for update in self.updates if update is not exchange)
        elif self._exchanges.fall_over(exchange):
            out.append(Event(EventKind.RETRANSMITTED, exchange.destination.address))
            self._transmit(now, exchange, out)
            if exchange.attempts % _ATTEMPTS_PER_LOOKUP == 0:
                out.append(Lookup(self.key.home_address))

    def fire(self, now: float, out: list[NodeEffect]) -> Progress:
        """The own timer: look up again, refresh, or notice that the mapping has lapsed."""
        if self.state is RegistrationState.LOCATING:
            self._look_up(now, out)
        elif self.state is RegistrationState.REGISTERED and now >= self.expires:
            self._step(RegistrationInput.LAPSED)
            self.registered = ()
            if not self.updates:
                self._update(now, out)
            return Progress.LAPSED
        elif self.state is RegistrationState.REGISTERED:
            self._update(now, out)
            self._exchanges.schedule(self, self.expires)
        return Progress.NONE

    def foremost(self) -> Address | None:
        """The address that is first in priority of those that are registered."""
        for address in self.addresses:
            if address in self.registered:
                return address
        return None

    def settled(self, now: float, address: Address) -> bool:
        """Whether an own address was held so long that no stale mapping can name it."""
        if address == self.key.home_address:
            return True
        held_since = self.since[self.addresses.index(address)]
        return now - held_since >= self._exchanges.parameters.settle_time

    def _step(self, happened: RegistrationInput) -> None:
        self.state = REGISTRATION[self.state, happened]

    def _look_up(self, now: float, out: list[NodeEffect]) -> None:
        out.append(Lookup(self.key.home_address))
        parameters = self._exchanges.parameters
        again = parameters.initial_timeout * (1 << self._lookups)
        self._lookups = min(self._lookups + 1, _MOST_DOUBLINGS)
        self._exchanges.schedule(self, now + min(again, parameters.maximum_timeout))

    def _next_freshness(self, now: float) -> int:
        """Greater than every one before; where the clock allows, the time of day in 2⁻³² s."""
        clock = min(int((now + self._wall_clock) * _FRACTION), _LATEST)
        self._freshness = max(self._freshness + 1, clock)
        return self._freshness

    def _cancel(self) -> None:
        for exchange in self.updates:
            self._exchanges.finish(exchange)
        self.updates = ()

    def _update(self, now: float, out: list[NodeEffect]) -> None:
        """IMS Update to every replica, in place of updates still under way.

        None for addresses whose lease is about to end: it waits for the lease to be extended.
        """
        self._cancel()
        self._answered = False
        if self._lifetime(now) < 1:
            return
        self.updates = tuple(self._begin(now, (server,), out) for server in self.servers)

    def _begin(self, now: float, server: Servers, out: list[NodeEffect]) -> Exchange:
        sequence, nonce = self._exchanges.identify()
        update = ImsUpdate(
            sequence,
            self.key.home_address,
            self.addresses,
            self.version,
            0,
            self.key.prefix_length,
            nonce=nonce,
        )
        exchange = Exchange(Purpose.REGISTER, None, update, server, UNLIMITED)
        self._exchanges.add(exchange)
        self._transmit(now, exchange, out)
        exchange.first_freshness = self._freshness
        return exchange

    def _transmit(self, now: float, exchange: Exchange, out: list[NodeEffect]) -> None:
        old = exchange.request
        assert isinstance(old, ImsUpdate)
        update = ImsUpdate(
            old.sequence,
            old.home_address,
            old.mobile_addresses,
            old.version,
            self._lifetime(now),
            old.prefix_length,
            nonce=old.nonce,
        )
        sign(update, self.key, self._next_freshness(now))
        exchange.request = update
        self._exchanges.transmitted(now, exchange)
        out.append(Send(update, exchange.destination))

    def _lifetime(self, now: float) -> int:
        """Whole seconds to ask for: never beyond the shortest lease, less the guard."""
        parameters = self._exchanges.parameters
        asked = min(parameters.registration_lifetime, parameters.maximum_lifetime)
        return int(min(asked, self._lease_end() - now - parameters.lease_guard))

    def _lease_end(self) -> float:
        """When the first of the leases ends, s."""
        first = _FOREVER
        for end in self.until:
            first = min(first, end)
        return first

    def _accepted(self, exchange: Exchange, out: list[NodeEffect]) -> Progress:
        update = exchange.request
        assert isinstance(update, ImsUpdate)
        if self._answered:
            return Progress.NONE
        self._answered = True
        self._step(RegistrationInput.ACCEPTED)
        moved = self.registered_version != self.version
        self.registered, self.registered_version = self.addresses, self.version
        self.expires = exchange.sent_at + update.lifetime
        parameters = self._exchanges.parameters
        interval = update.lifetime * parameters.refresh_share
        interval = self._exchanges.jittered(interval, parameters.refresh_jitter)
        self._exchanges.schedule(self, exchange.sent_at + interval)
        out.append(Event(EventKind.REGISTERED, self.key.home_address))
        return Progress.MOVED if moved else Progress.REFRESHED

    def _resynchronise(
        self, now: float, exchange: Exchange, stored: int, out: list[NodeEffect]
    ) -> Progress:
        """The IMS has seen greater freshness (a reboot, a wrong clock): continue above it."""
        update = exchange.request
        assert isinstance(update, ImsUpdate)
        if stored < exchange.first_freshness or stored >= MOST_FRESHNESS:
            out.append(Event(EventKind.UNEXPECTED, self.key.home_address))
            return Progress.NONE
        out.append(Event(EventKind.RESYNCHRONISED, self.key.home_address))
        self._freshness = max(self._freshness, stored)
        self.version = self._next_freshness(now)
        self._update(now, out)
        return Progress.NONE
