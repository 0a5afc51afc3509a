"""What a node has to know to go on from where it was: after a restart, or as a study begins.

`MobileNode.resume` takes these in place of the exchanges that led there. Whoever hands them in
vouches for them: an address that has become another's meanwhile, or a registration that the IMS has
lost, is found out by the next refresh and the next query, as it would be without a restart.
"""

from dataclasses import dataclass
from typing import final

from mat.address import Address
from mat.mapping_table import Mapping, Servers
from mat.messages import Endpoint


@final
@dataclass(slots=True)
class OwnMapping:
    """A registration as its node knows it. Times in seconds on the node's clock.

    `since` and `until` are, for each address, since when it is held and when its lease ends;
    `expires` is the end of the registered lifetime, and `refresh` when it is to be prolonged.
    `freshness` is the greatest that was used; `round_trips` are those measured to servers, newest
    first.
    """

    addresses: tuple[Address, ...]
    since: tuple[float, ...]
    until: tuple[float, ...]
    servers: Servers
    version: int
    freshness: int
    expires: float
    refresh: float
    round_trips: tuple[tuple[Endpoint, float], ...] = ()


@final
@dataclass(slots=True)
class KnownPeer:
    """A peer that data was exchanged with, and that knows this node's mapping.

    `mapping` is the peer's; `query` is when it is asked for next, `used_at` when data went last,
    `caller` whether this node spoke first, `confirmed` whether the peer has said that it knows
    this node's addresses, and `introduced` whether its IMS has. `paced` is up to when the messages
    sent to it lately use up the rate that they may have, by purpose.
    """

    servers: Servers
    mapping: Mapping
    query: float
    used_at: float
    caller: bool
    confirmed: bool
    introduced: bool = False
    paced: tuple[float, float, float] | None = None


@final
@dataclass(slots=True)
class LeftAddress:
    """A mobile address that a peer has left lately, and when."""

    mobile_address: Address
    home_address: Address
    at: float


@final
@dataclass(slots=True)
class Knowledge:
    """All that a node knows while nothing is under way."""

    own: OwnMapping
    peers: tuple[KnownPeer, ...] = ()
    left: tuple[LeftAddress, ...] = ()
