"""A DHCP client's machine (RFC 2131), made for hosts that move.

Inputs take `now`, effects come back, one deadline, as in `mat.node`: no clock, no sockets. Real
interfaces have it, and those of the simulator's nodes. What is unlike a client that stays:

- With the carrier the address goes: the next network may be another. The lease is kept in mind, and
  when the carrier is back the client asks for it again (INIT-REBOOT), which in the same network is
  one round trip. It does not wait for the answer long: with the first retransmission it asks
  everybody (DISCOVER), and an answer to the first question still counts.
- The first retransmission comes after 0.1 s, not after 4 s: until there is an address, nothing else
  can go on. DISCOVER offers to be bound at once (rapid commit, RFC 4039): one round trip, not two.
- Nothing is ever released (docs/protocol.md, section 9.3): the address would go to another while
  peers still send to it.

Not done: probing whether an address is in use (RFC 5227), which takes seconds, and which servers
do; routes by option 121, which is not asked for, so that servers give the router option.
"""

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

from mat.address import Address, is_unicast, to_packed
from mat.dhcp_messages import ANY, BROADCAST, DhcpMessage, Kind, Option
from mat.exchanges import Random

RETRANSMISSION: Final[tuple[float, ...]] = (0.1, 0.4, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Seconds from each transmission to the next while there is no address; the last one repeats."""
_JITTER: Final = 0.1
_REQUEST_ATTEMPTS: Final = 4
"""Transmissions of the request for an offer before other servers are asked again."""
_LEAST_RENEWAL_PAUSE: Final = 60.0
"""Seconds (RFC 2131, section 4.4.5)."""
_RENEWAL_SHARE: Final = 0.5
_REBINDING_SHARE: Final = 0.875
_FOREVER: Final = 0xFFFFFFFF
_LEAST_MTU: Final = 576
_HOST: Final = 128
_MAXIMUM_SIZE: Final = 1500
_WANTED: Final = bytes(
    (
        Option.SUBNET_MASK,
        Option.ROUTER,
        Option.NAME_SERVER,
        Option.INTERFACE_MTU,
        Option.LEASE_TIME,
        Option.RENEWAL_TIME,
        Option.REBINDING_TIME,
    )
)


@final
class State(enum.Enum):
    """Where the client is (RFC 2131, figure 5)."""

    STOPPED = "no carrier"
    REBOOTING = "asked for the address that it had"
    SELECTING = "asked for any address"
    REQUESTING = "took an offer"
    BOUND = "has an address"
    RENEWING = "has an address, asked its server to prolong"
    REBINDING = "has an address, asked all servers to prolong"


_HOLDING: Final = frozenset({State.BOUND, State.RENEWING, State.REBINDING})


@final
@dataclass(frozen=True, slots=True)
class Lease:
    """An address for a time. Times are those of `now`, in seconds."""

    address: Address
    prefix_length: int
    """In the 128-bit form."""
    gateway: Address | None
    name_servers: tuple[Address, ...]
    mtu: int | None
    server: Address
    renew: float
    rebind: float
    until: float


@final
@dataclass(frozen=True, slots=True)
class Transmit:
    """Send a message; to a server that is asked as itself, from an address, or to all."""

    message: DhcpMessage
    source: Address = ANY
    destination: Address = BROADCAST


@final
@dataclass(frozen=True, slots=True)
class Bind:
    """The interface has the address of this lease, until then."""

    lease: Lease


@final
@dataclass(frozen=True, slots=True)
class Unbind:
    """The interface has no address any more."""


DhcpEffect = Transmit | Bind | Unbind


@final
class DhcpClient:
    """The client of one interface.

    `held` is an address that the interface has from a predecessor of this client.
    """

    __slots__ = (
        "_begun",
        "_hardware_address",
        "_keeps",
        "_offer",
        "_random",
        "_reboot_transaction",
        "_requests",
        "_searches",
        "_sent",
        "_transaction",
        "_wish",
        "_wish_until",
        "deadline",
        "lease",
        "state",
    )

    def __init__(self, random: Random, held: Address | None = None) -> None:
        self._random = random
        self._wish = held
        self._wish_until = math.inf
        self._hardware_address = b""
        self._transaction = 0
        self._reboot_transaction: int | None = None
        self._offer: DhcpMessage | None = None
        self._begun = 0.0
        self._sent = 0.0
        self._searches = 0
        self._requests = 0
        self._keeps = held is not None
        self.state = State.STOPPED
        self.lease: Lease | None = None
        """What the interface has; None if nothing."""
        self.deadline: float | None = None
        """When `handle_timer` is due."""

    # ---- inputs --------------------------------------------------------------------------------

    def carrier_came(self, now: float, hardware_address: bytes) -> Sequence[DhcpEffect]:
        """The interface works, and has this Ethernet address."""
        if self._hardware_address not in {b"", hardware_address}:
            self._wish = None
        self._hardware_address = hardware_address
        self._begun = now
        self._searches = self._requests = 0
        self._reboot_transaction = self._offer = None
        if self._wish is None or self._wish_until <= now:
            return self._select(now)
        self.state = State.REBOOTING
        self._transaction = self._reboot_transaction = self._random.getrandbits(32)
        return [self._ask(now)]

    def carrier_went(self) -> Sequence[DhcpEffect]:
        """The interface does not work, or is not there."""
        self.state = State.STOPPED
        self.deadline = None
        return self._unbind()

    def receive(self, now: float, message: DhcpMessage) -> Sequence[DhcpEffect]:
        """A server says something."""
        if message.hardware_address != self._hardware_address or not self._answers(message):
            return ()
        if message.kind is Kind.OFFER:
            return self._offered(now, message)
        if message.kind is Kind.ACK:
            return self._acknowledged(now, message)
        if message.kind is Kind.NAK:
            return self._refused(now, message.transaction)
        return ()

    def handle_timer(self, now: float) -> Sequence[DhcpEffect]:
        """Do what is due."""
        if self.deadline is None or now < self.deadline:
            return ()
        if self.state in _HOLDING:
            return self._prolong(now)
        if self.state is State.REBOOTING:
            return self._select(now)
        if self.state is State.REQUESTING and self._requests == _REQUEST_ATTEMPTS:
            return self._select(now)
        return [self._ask(now)]

    # ---- getting an address --------------------------------------------------------------------

    def _select(self, now: float) -> list[DhcpEffect]:
        self._begin_selecting()
        return [self._ask(now)]

    def _begin_selecting(self) -> None:
        self.state = State.SELECTING
        self._offer = None
        self._transaction = self._random.getrandbits(32)

    def _answers(self, message: DhcpMessage) -> bool:
        """Whether it is about a question that is open."""
        return self.state not in {State.STOPPED, State.BOUND} and message.transaction in {
            self._transaction,
            self._reboot_transaction,
        }

    def _offered(self, now: float, message: DhcpMessage) -> Sequence[DhcpEffect]:
        servers = message.addresses(Option.SERVER)
        if self.state is not State.SELECTING or len(servers) != 1 or not is_unicast(message.yours):
            return ()
        self.state = State.REQUESTING
        self._offer = message
        self._requests = 0
        return [self._ask(now)]

    def _acknowledged(self, now: float, message: DhcpMessage) -> Sequence[DhcpEffect]:
        rapid = Option.RAPID_COMMIT in message.options
        rebooted = message.transaction == self._reboot_transaction
        if self.state is State.SELECTING and not rapid and not rebooted:
            return ()
        lease = self._lease_of(message, self._begun if rebooted else self._sent)
        if lease is None or lease.until <= now:
            return ()
        self.state = State.BOUND
        self.lease = lease
        self._wish, self._wish_until = lease.address, lease.until
        self._reboot_transaction = None
        self._keeps = False
        self._searches = 0
        self.deadline = lease.renew if lease.renew < math.inf else None
        return [Bind(lease)]

    def _refused(self, now: float, transaction: int) -> Sequence[DhcpEffect]:
        of_reboot = transaction == self._reboot_transaction
        if self.state is State.SELECTING and not of_reboot:
            return ()
        self._wish = self._reboot_transaction = None
        if of_reboot and self.state is not State.REBOOTING:
            return self._unbind()
        if self.state is State.REQUESTING:
            # It offered, and refuses now: not again and again as fast as it answers.
            self._begin_selecting()
            self.deadline = now + self._pause(self._searches)
            return ()
        return [*self._unbind(), *self._select(now)]

    def _unbind(self) -> Sequence[DhcpEffect]:
        if self.lease is None and not self._keeps:
            return ()
        self.lease = None
        self._keeps = False
        return [Unbind()]

    def _pause(self, transmissions: int) -> float:
        pause = RETRANSMISSION[min(transmissions, len(RETRANSMISSION) - 1)]
        return pause * (1 + _JITTER * self._random.random())

    # ---- keeping it ----------------------------------------------------------------------------

    def _prolong(self, now: float) -> Sequence[DhcpEffect]:
        lease = self.lease
        assert lease is not None
        if now >= lease.until:
            self._wish = None
            return [*self._unbind(), *self._select(now)]
        state = State.REBINDING if now >= lease.rebind else State.RENEWING
        if state is not self.state:
            self.state = state
            self._begun = now
            self._transaction = self._random.getrandbits(32)
        end = lease.rebind if state is State.RENEWING else lease.until
        pause = max((end - now) / 2, _LEAST_RENEWAL_PAUSE)
        self.deadline = min(now + pause, end)
        self._sent = now
        message = self._message(now, Kind.REQUEST, {}, client=lease.address)
        server = lease.server if state is State.RENEWING else BROADCAST
        return [Transmit(message, lease.address, server)]

    # ---- messages ------------------------------------------------------------------------------

    def _ask(self, now: float) -> Transmit:
        """The question of a state without an address, and when it is asked again."""
        self._sent = now
        if self.state is State.REQUESTING:
            self.deadline = now + self._pause(self._requests)
            self._requests += 1
        else:
            self.deadline = now + self._pause(self._searches)
            self._searches += 1
        wish: dict[int, bytes] = {}
        if self._wish is not None:
            wish[Option.REQUESTED_ADDRESS] = to_packed(self._wish)
        if self.state is State.SELECTING:
            options = {**wish, Option.RAPID_COMMIT: b""}
            return Transmit(self._message(now, Kind.DISCOVER, options))
        if self._offer is not None:
            wish = {
                Option.REQUESTED_ADDRESS: to_packed(self._offer.yours),
                Option.SERVER: self._offer.options[Option.SERVER],
            }
        return Transmit(self._message(now, Kind.REQUEST, wish))

    def _message(
        self, now: float, kind: Kind, options: Mapping[int, bytes], client: Address = ANY
    ) -> DhcpMessage:
        common: dict[int, bytes] = {
            Option.CLIENT: b"\1" + self._hardware_address,
            Option.MAXIMUM_SIZE: _MAXIMUM_SIZE.to_bytes(2),
            Option.WANTED: _WANTED,
        }
        return DhcpMessage(
            kind,
            self._transaction,
            self._hardware_address,
            client,
            seconds=int(now - self._begun),
            options={**common, **options},
        )

    def _lease_of(self, message: DhcpMessage, asked: float) -> Lease | None:
        """What an ACK grants, counted from when it was asked for (RFC 2131, section 4.4.5)."""
        seconds = message.number(Option.LEASE_TIME, 4)
        servers = message.addresses(Option.SERVER)
        if seconds is None or len(servers) != 1 or not is_unicast(message.yours):
            return None
        length = math.inf if seconds == _FOREVER else float(seconds)
        rebind = message.number(Option.REBINDING_TIME, 4) or length * _REBINDING_SHARE
        renew = message.number(Option.RENEWAL_TIME, 4) or length * _RENEWAL_SHARE
        rebind = length * _REBINDING_SHARE if rebind > length else rebind
        renew = min(length * _RENEWAL_SHARE, rebind) if renew > rebind else renew
        gateways = filter(is_unicast, message.addresses(Option.ROUTER))
        mtu = message.number(Option.INTERFACE_MTU, 2)
        return Lease(
            message.yours,
            _prefix_length(message.number(Option.SUBNET_MASK, 4)),
            next(gateways, None),
            tuple(filter(is_unicast, message.addresses(Option.NAME_SERVER))),
            mtu if mtu is not None and mtu >= _LEAST_MTU else None,
            servers[0],
            asked + renew,
            asked + rebind,
            asked + length,
        )


def _prefix_length(mask: int | None) -> int:
    """Of a subnet mask, in the 128-bit form; a mask that is none is that of a single host."""
    length = 32 if mask is None else mask.bit_count()
    contiguous = mask == (1 << 32) - (1 << 32 - length)
    return 96 + length if contiguous and length else _HOST
