"""The eight messages of MAT as values (docs/protocol.md, sections 3 and 4).

A machine builds and reads these; `mat.codec` turns them into datagrams and back. Treat a message
as immutable once built: `wire` remembers its encoding, which authentication covers.
"""

import enum
from dataclasses import dataclass, field
from typing import Final, NamedTuple, final

from mat.address import Address, is_ipv4

MAT_PORT: Final = 49628
"""UDP port of IMS and nodes. None was ever assigned; this one is in the dynamic range."""

MAX_MOBILE_ADDRESSES: Final = 8
"""Addresses in one mapping: more interfaces than a host carries, and the Length octet holds it."""

REQUEST_SIZE: Final = 64
"""A query with a nonce is padded to this many bytes, so that the longest answer keeps within
`AMPLIFICATION_LIMIT` times its size."""

AMPLIFICATION_LIMIT: Final = 3
"""An answer is at most this many times as long as its query (QUIC's figure, RFC 9000, 8)."""

MOST_FRESHNESS: Final = (1 << 64) - (1 << 48)
"""Freshness from here on is refused: a node that reached the end could never register again."""

NONCE_SIZE: Final = 8
EXACT: Final = 128
"""Prefix length of a mapping for one address, counted in the 128-bit form."""


def shortest_prefix(home_address: Address) -> int:
    """The shortest home prefix that a notice may be about: IPv4 /16, IPv6 /32."""
    return 96 + 16 if is_ipv4(home_address) else 32


class Endpoint(NamedTuple):
    """Where a datagram goes or comes from: an address and a UDP port.

    `local` is for hosts with several addresses: the own one that a datagram came to, and that the
    answer to it has to leave from. None leaves the choice to the driver.
    """

    address: Address
    port: int
    local: Address | None = None


class Type(enum.IntEnum):
    """Message types; 1 to 4 are the draft's, 5 to 8 are numbered here."""

    IMS_UPDATE = 1
    IMS_UPDATE_REPLY = 2
    MA_QUERY = 3
    MA_ANSWER = 4
    HA_NOTIFY = 5
    HA_NOTIFY_ACK = 6
    HA_QUERY = 7
    HA_ANSWER = 8


class Code(enum.IntEnum):
    """Result codes of answers; requests carry 0. 0 and 1 are the draft's."""

    SUCCEEDED = 0
    AUTHENTICATION_FAILED = 1
    NO_MAPPING = 2
    STALE = 3
    NOT_RESPONSIBLE = 4
    UNACCEPTABLE = 5
    TRY_AGAIN = 6


@final
@dataclass(slots=True)
class Authentication:
    """The authentication extension: which key, how fresh, and the MAC over all bytes before it."""

    key_id: int
    freshness: int
    mac: bytes = bytes(16)


@dataclass(slots=True)
class _Common:
    """What every message has: the sequence that an answer copies, and what surrounds the body."""

    sequence: int
    nonce: bytes = field(default=b"", kw_only=True)
    """Eight unguessable bytes that the answer returns; empty in the draft's messages."""
    draft_length: bool = field(default=False, kw_only=True)
    """The sender's Length does not count the header (the draft read that way): answer in kind."""
    wire: bytes | None = field(default=None, kw_only=True, repr=False, compare=False)


@dataclass(slots=True)
class _Answer(_Common):
    code: int


@final
@dataclass(slots=True)
class ImsUpdate(_Common):
    """Node → own IMS: my mapping. No mobile address, or lifetime 0, withdraws it."""

    home_address: Address
    mobile_addresses: tuple[Address, ...]
    version: int
    lifetime: int
    prefix_length: int = EXACT
    authentication: Authentication | None = None


@final
@dataclass(slots=True)
class ImsUpdateReply(_Answer):
    """IMS → node: the fate of an IMS Update."""

    authentication: Authentication | None = None


@final
@dataclass(slots=True)
class MaQuery(_Common):
    """Node or IMS → IMS: where is this home address? `version` is the least that would help."""

    home_address: Address
    version: int = 0


@final
@dataclass(slots=True)
class MaAnswer(_Answer):
    """IMS → asker: the mapping; `lifetime` is what remains of it, `age` how long it has stood.

    `prefix_length` below `EXACT` makes the home address a prefix and the mobile one a MoPre.
    """

    home_address: Address
    mobile_addresses: tuple[Address, ...]
    version: int
    lifetime: int
    age: int = 0
    prefix_length: int = EXACT


@final
@dataclass(slots=True)
class HaNotify(_Common):
    """MN → IMS_CN, or MN → CN: the mapping of `home_address` has changed, go and ask.

    `peer` is the home address of the correspondent that this concerns.
    """

    home_address: Address
    peer: Address
    version: int = 0
    prefix_length: int = EXACT


@final
@dataclass(slots=True)
class HaNotifyAck(_Answer):
    """IMS_CN or CN → MN: the new mapping was fetched. From IMS_CN, with the peer's own mapping."""

    home_address: Address
    mobile_addresses: tuple[Address, ...] = ()
    version: int = 0
    lifetime: int = 0
    age: int = 0
    prefix_length: int = EXACT


@final
@dataclass(slots=True)
class HaQuery(_Common):
    """Node → own IMS: whose mobile address is this?"""

    mobile_address: Address


@final
@dataclass(slots=True)
class HaAnswer(_Answer):
    """IMS → node: the home addresses behind a mobile address (one, or none)."""

    mobile_address: Address
    home_addresses: tuple[Address, ...] = ()
    version: int = 0
    lifetime: int = 0
    age: int = 0


Request = ImsUpdate | MaQuery | HaNotify | HaQuery
Answer = ImsUpdateReply | MaAnswer | HaNotifyAck | HaAnswer
Message = Request | Answer

NAMES: Final[dict[type, str]] = {
    ImsUpdate: "IMS Update",
    ImsUpdateReply: "IMS Update Reply",
    MaQuery: "MA Query",
    MaAnswer: "MA Answer",
    HaNotify: "HA Notify",
    HaNotifyAck: "HA Notify Ack",
    HaQuery: "HA Query",
    HaAnswer: "HA Answer",
}
"""The paper's name of each message, for counts, logs and diagrams."""
