"""What a machine wants done. A driver carries effects out in order (dispatch on `type(effect)`).

Look-ups and the store are effects too, answered by an input of the machine: a slow DNS or a store
far away is the same code path in simulation as in reality.
"""

import enum
from dataclasses import dataclass
from typing import final

from mat.address import Address, move_to_prefix, prefix_of
from mat.mapping_table import Mapping
from mat.messages import Endpoint, HaNotify, HaQuery, ImsUpdate, MaQuery, Message
from mat.registrations import Registration

Handle = object
"""A packet held by the driver; opaque to the core."""


@final
@dataclass(slots=True)
class Translation:
    """How packets between this node and one peer are rewritten.

    Out: (local_home → home) becomes (local → mobile). In: the reverse, for packets from any address
    in `accepted` to any in `local_accepted`; others go to `packet_in`. Where this node is a mobile
    router, its `local_…` addresses are prefixes of `local_prefix_length`, and host bits are kept.
    `announce` is the HoA that a Mapping Update Option carries on packets out, or None.
    """

    home: Address
    mobile: Address
    accepted: tuple[Address, ...]
    local_home: Address
    local_prefix_length: int
    local: Address
    local_accepted: tuple[Address, ...]
    announce: Address | None = None

    def outward(self, source: Address, destination: Address) -> tuple[Address, Address]:
        """Addresses on the wire of a packet between home addresses."""
        del destination
        return move_to_prefix(source, self.local, self.local_prefix_length), self.mobile

    def inward(self, source: Address, destination: Address) -> tuple[Address, Address]:
        """Home addresses of a packet from the wire."""
        del source
        return self.home, move_to_prefix(destination, self.local_home, self.local_prefix_length)

    def accepts(self, source: Address, destination: Address) -> bool:
        """Whether a packet with these addresses on the wire is this translation's."""
        return source in self.accepted and self.accepts_at(destination)

    def accepts_at(self, destination: Address) -> bool:
        """Whether a packet from the peer to this own address on the wire is for this node."""
        return prefix_of(destination, self.local_prefix_length) in self.local_accepted


class Reason(enum.Enum):
    """Why a packet was dropped."""

    OVERFLOW = "the hold queue is full"
    UNREACHABLE = "the peer has no mapping, or its servers are silent"
    NO_ADDRESS = "this node has no mobile address"
    NOT_ITS_ADDRESS = "the source is not an address of the node that claims it"
    MISDIRECTED = "it may have been meant for who had this node's address before"


class EventKind(enum.Enum):
    """What happened, to be counted. From the network nothing raises; it ends up here."""

    REGISTERED = "own mapping registered"
    REGISTRATION_REFUSED = "an IMS refused the mapping"
    NOT_A_MAT_ZONE = "the own home address has no IMS record"
    RESYNCHRONISED = "freshness moved past what the IMS had seen"
    PEER_ESTABLISHED = "peer resolved"
    PEER_MOVED = "a peer's mapping changed"
    PEER_CONFIRMED = "a peer confirmed the own mapping"
    PEER_UNCONFIRMED = "a peer did not confirm; used as the paper does, after the IMS's Ack"
    PEER_FORGOTTEN = "mapping ended"
    ADDRESS_REUSED = "an address changed hands"
    SILENT = "no answer from any server"
    RETRANSMITTED = "a request was sent again"
    RATE_LIMITED = "a look-up was put off or refused"
    UNEXPECTED = "an answer to nothing that was asked"
    UNAUTHENTIC = "authentication missing or wrong"
    STALE = "older than what is known"
    REFUSED = "an IMS answered a query with an error"
    IGNORED = "not for this machine"


@final
@dataclass(slots=True)
class Send:
    """Send a message; from this own address, where one is named (and the families agree)."""

    message: Message
    destination: Endpoint
    source: Address | None = None


@final
@dataclass(slots=True)
class Lookup:
    """Find the IMS record of a home address.

    The driver must answer with `servers_found`, if only to say that the DNS did not.
    """

    home_address: Address


class NotFound(enum.Enum):
    """Answers to `Lookup` other than servers."""

    NOT_MAT = "the zone answers, and there is no IMS record"
    FAILED = "no answer from the DNS"


@final
@dataclass(slots=True)
class SetMapping:
    """Translate packets between this node and a peer like this, in place of what was there."""

    translation: Translation


@final
@dataclass(slots=True)
class ClearMapping:
    """Do not translate packets of this peer any more: bring them to `packet_out`, `packet_in`."""

    home_address: Address


@final
@dataclass(slots=True)
class ReleasePacket:
    """Let a held packet go, rewritten by this translation."""

    handle: Handle
    translation: Translation


@final
@dataclass(slots=True)
class DropPacket:
    """Discard a held packet."""

    handle: Handle
    reason: Reason


@final
@dataclass(slots=True)
class Event:
    """Something to count; `about` is the address it concerns, if any."""

    kind: EventKind
    about: Address | None = None


@final
@dataclass(slots=True)
class StoreWrite:
    """Compare-and-set a registration (`mat.registrations.judge`); answer with `written`."""

    registration: Registration
    update: ImsUpdate
    source: Endpoint


@final
@dataclass(slots=True)
class ReadByHome:
    """Read the registration that covers `home_address`; answer with `read`."""

    home_address: Address
    asked: MaQuery | HaNotify
    source: Endpoint
    code: int = 0
    of_notifier: bool = False
    """It is the mapping of who notifies, to vouch for it; the peer's is read next."""


@final
@dataclass(slots=True)
class ReadByMobile:
    """Read the registration with the newest claim to `mobile_address`; answer with `read`."""

    mobile_address: Address
    asked: HaQuery
    source: Endpoint


@final
@dataclass(slots=True)
class Learned:
    """An IMS got the mapping of another IMS's node; workers of one IMS tell each other.

    The others take it with `MappingServer.learn`, before they look at datagrams that came later.
    """

    mapping: Mapping


NodeEffect = Send | Lookup | SetMapping | ClearMapping | ReleasePacket | DropPacket | Event
ServerEffect = Send | Lookup | StoreWrite | ReadByHome | ReadByMobile | Learned | Event
Effect = NodeEffect | ServerEffect
