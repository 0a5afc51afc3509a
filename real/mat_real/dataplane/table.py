"""The translations in force, by what a packet shows: the node's IMT as packets see it.

A packet out shows the peer's home address; a packet in shows where it came from and the own address
that it came to. Addresses are in the form of the family's own packets, 4 or 16 bytes, so that a key
is a slice of a packet.

Two translations may claim the same packets in: an application that speaks to a mobile address by
itself makes of it a peer without MAT, while it is that of a MAT node as well. The MAT node has it;
among others, the one set last (docs/protocol.md, section 9.2).
"""

from collections.abc import Iterator
from typing import Final, NamedTuple, final

from mat.address import Address, to_packed
from mat.effects import Translation

HOST: Final = 128
"""The prefix length of a host's home address."""


class Outward(NamedTuple):
    """What becomes of packets to one peer."""

    translation: Translation
    source: Address
    """The own mobile address; of a mobile router, the prefix."""
    destination: Address


@final
class TranslationTable:
    """Translations by home address of the peer, by destination out, by addresses in."""

    __slots__ = ("_claims", "by_home", "inward", "outward", "routed")

    def __init__(self) -> None:
        self.by_home: dict[Address, Translation] = {}
        self.outward: dict[bytes, Outward] = {}
        """By the peer's home address."""
        self.inward: dict[bytes, Translation] = {}
        """By source and own address, one behind the other; not those of mobile routers."""
        self.routed: dict[bytes, Translation] = {}
        """By source, where this node is a mobile router."""
        self._claims: dict[bytes, list[Translation]] = {}

    def set(self, translation: Translation) -> None:
        """Put a translation in, in place of that of the same peer."""
        self.clear(translation.home)
        self.by_home[translation.home] = translation
        entry = Outward(translation, translation.local, translation.mobile)
        self.outward[to_packed(translation.home)] = entry
        for key in inward_keys(translation):
            self._claims.setdefault(key, []).append(translation)
            self._settle(key, translation)

    def clear(self, home_address: Address) -> None:
        """Take a peer's translation out, if there is one."""
        translation = self.by_home.pop(home_address, None)
        if translation is None:
            return
        del self.outward[to_packed(home_address)]
        for key in inward_keys(translation):
            self._claims[key].remove(translation)
            self._settle(key, translation)

    def _settle(self, key: bytes, translation: Translation) -> None:
        """Decide who has a key that this translation claims, or claimed."""
        claims = self._claims[key]
        table = self.inward if translation.local_prefix_length == HOST else self.routed
        if claims:
            table[key] = max(reversed(claims), key=_is_mobile)
        else:
            del self._claims[key], table[key]


def inward_keys(translation: Translation) -> Iterator[bytes]:
    """The keys of a translation in `TranslationTable.inward`, or in `routed`."""
    peers = dict.fromkeys(map(to_packed, translation.accepted))
    if translation.local_prefix_length < HOST:
        return iter(peers)
    own = dict.fromkeys(map(to_packed, translation.local_accepted))
    return (peer + address for peer in peers for address in own)


def _is_mobile(translation: Translation) -> bool:
    return translation.accepted != (translation.home,)
