"""The node's dataplane: packets of the host, with home addresses above and mobile ones on the wire.

Theory of operation. Packets with the own home address as their source are taken up where the host
sends them, after connection tracking, and packets to its mobile addresses where they come in,
before it: so connection tracking, firewalls and applications see home addresses only
(docs/protocol.md, section 11.1). nftables rules pick these packets out, and leave all others alone:
those of the signalling, of DHCP, of neighbour and router discovery, and of flows that an
application opened on a mobile address itself.

There are two dataplanes, and both do the same to a packet:

- *maps*: the kernel translates, by nftables maps that hold the translations. What the maps do not
  know, and what nftables cannot translate, goes to a queue (NFQUEUE).
- *queue*: all of it goes to the queue, and is translated here by `mat.translation`: the reference,
  for what the kernel can do otherwise, and for kernels whose nftables can do less.

From the queue, a packet of a known peer goes on at once. One of an unknown peer is held there by
the kernel, and its `Handle` given to the `Consumer`, until `release` or `drop`.

What stands in the kernel outlives this process. A killed daemon's maps go on translating, a new
one's dataplane finds them, and `close` removes them: the table `mat` of each family. Nothing else
is touched.
"""

import enum
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, final

from mat.address import Address
from mat.effects import Handle, Translation
from mat.translation import Refusal

QUEUE: Final = 49628
"""Number of the queue, of 65,536 in a network namespace."""


class DataplaneError(Exception):
    """The kernel, a program or a library does not do its part; says what, and how to mend it."""


@final
class Mode(enum.Enum):
    """Who translates packets of known peers."""

    MAPS = "maps"
    QUEUE = "queue"


@final
@dataclass(slots=True)
class Counters:
    """Packets, since the dataplane was opened unless said otherwise."""

    translated: int = 0
    """In the queue, released ones included."""
    mapped: int = 0
    """In the kernel, by the maps; since the tables were made."""
    passed: int = 0
    """Let through the queue as they came: of one link only, or errors about flows of others."""
    held: int = 0
    """Given to the `Consumer`; `waiting` of them have had no answer yet."""
    waiting: int = 0
    dropped: int = 0
    """By the `Consumer`."""
    overflowed: int = 0
    """Because the queue was full, or its socket; since the queue was bound."""
    refused: Counter[Refusal] = field(default_factory=Counter[Refusal])
    """Dropped because they cannot be translated."""


class Consumer(Protocol):
    """Who decides about packets that no translation covers. Called on the event loop's thread."""

    def packet_out(self, handle: Handle, source: Address, destination: Address) -> None:
        """A packet between home addresses; `mat.node.MobileNode.packet_out`."""
        ...

    def packet_in(
        self, handle: Handle, source: Address, destination: Address, announced: Address | None
    ) -> None:
        """A packet from the wire, with the home address of its Mapping Update Option if any."""
        ...


class Dataplane(Protocol):
    """Translates packets as it is told. Used on the event loop's thread.

    `set`, `clear`, `own` and `uplinks` are collected, and done all at once by `commit`.
    Every method that changes the kernel may raise `DataplaneError`.
    """

    @property
    def mtu(self) -> int:
        """Bytes that a packet may have with a Mapping Update Option; larger ones go without."""
        ...

    @mtu.setter
    def mtu(self, size: int) -> None: ...

    def set(self, translation: Translation) -> None:
        """Translate packets of this peer like this, in place of what was there."""
        ...

    def clear(self, home_address: Address) -> None:
        """Bring packets of this peer to the `Consumer`, from `commit` on."""
        ...

    def own(self, home: Address, prefix_length: int, mobile: Sequence[Address]) -> None:
        """The home address, or prefix, of one family, and the present mobile addresses of it."""
        ...

    def uplinks(self, addresses: Sequence[tuple[str, Address]]) -> None:
        """Interface and mobile address, the best first, of both families.

        Hosts on other interfaces are behind this one, and not spoken to by MAT. Until this is
        called, every interface is an uplink.
        """
        ...

    def commit(self) -> None:
        """Do what was collected, in one transaction."""
        ...

    def release(self, handle: Handle, translation: Translation) -> None:
        """Rewrite a held packet and let it go. One that cannot be rewritten is dropped, counted."""
        ...

    def drop(self, handle: Handle) -> None:
        """Discard a held packet."""
        ...

    def used(self) -> list[Address]:
        """Home addresses of the peers whose packets were translated since the last call."""
        ...

    def traffic(self, *, ipv4: bool) -> tuple[int, int]:
        """Packets in and out that the kernel has translated so far, in one family."""
        ...

    def standing(self) -> list[Translation]:
        """What a predecessor left in the kernel, and goes on until it is set or cleared."""
        ...

    def counters(self) -> Counters:
        """What happened to packets so far."""
        ...

    def close(self, *, keep: bool = False) -> None:
        """End. The kernel's rules and maps are removed, unless kept for a successor."""
        ...
