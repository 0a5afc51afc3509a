"""The translations in force, by what a packet shows: the node's IMT as packets see it.

A packet out shows the peer's home address; a packet in shows where it came from and the own address
that it came to. Addresses are in the form of the family's own packets, 4 or 16 bytes, so that a key
is a slice of a packet.

Two translations may claim the same packets in: an application that speaks to a mobile address by
itself makes of it a peer without MAT, while it is that of a MAT node as well. The MAT node has it;
among others, the one set last (docs/protocol.md, section 9.2).
"""

from typing import Final, NamedTuple, final

from mat.address import Address, to_packed
from mat.effects import Translation
from mat.rewriting import Rewriting

HOST: Final = 128
"""The prefix length of a host's home address."""


class Outward(NamedTuple):
    """What becomes of packets to one peer."""

    translation: Translation
    source: Address
    """The own mobile address; of a mobile router, the prefix."""
    destination: Address


class Plain(NamedTuple):
    """What becomes of plain packets with one pair of addresses."""

    home: Address
    """Of the peer."""
    rewriting: Rewriting


@final
class TranslationTable:
    """Translations by home address of the peer, by destination out, by addresses in."""

    __slots__ = ("_claims", "_keys", "by_home", "inward", "outward", "plain", "routed")

    def __init__(self) -> None:
        self.by_home: dict[Address, Translation] = {}
        self.outward: dict[bytes, Outward] = {}
        """By the peer's home address."""
        self.inward: dict[bytes, Translation] = {}
        """By source and own address, one behind the other; not those of mobile routers."""
        self.routed: dict[bytes, Translation] = {}
        """By source, where this node is a mobile router."""
        self.plain: dict[bytes, Plain] = {}
        """By source and destination of packets either way; for the reader to fill."""
        self._claims: dict[bytes, list[Translation]] = {}
        self._keys: dict[Address, list[bytes]] = {}

    def set(self, translation: Translation) -> list[bytes]:
        """Put a translation in, in place of that of the same peer.

        Returns the keys, in `inward` or `routed`, that may have another translation now.
        """
        changed = self.clear(translation.home)
        keys = _inward_keys(translation)
        self.by_home[translation.home] = translation
        self._keys[translation.home] = keys
        entry = Outward(translation, translation.local, translation.mobile)
        self.outward[to_packed(translation.home)] = entry
        for key in keys:
            self._claims.setdefault(key, []).append(translation)
            self._settle(key, translation)
        return changed + keys

    def clear(self, home_address: Address) -> list[bytes]:
        """Take a peer's translation out, if there is one; returns keys as `set` does."""
        translation = self.by_home.pop(home_address, None)
        if translation is None:
            return []
        peer = to_packed(home_address)
        del self.outward[peer]
        self.plain.pop(to_packed(translation.local_home) + peer, None)
        keys = self._keys.pop(home_address)
        for key in keys:
            self._claims[key].remove(translation)
            self._settle(key, translation)
        return keys

    def _settle(self, key: bytes, translation: Translation) -> None:
        """Decide who has a key that this translation claims, or claimed."""
        claims = self._claims[key]
        self.plain.pop(key, None)
        table = self.inward if translation.local_prefix_length == HOST else self.routed
        if claims:
            table[key] = max(reversed(claims), key=_is_mobile)
        else:
            del self._claims[key], table[key]


def _inward_keys(translation: Translation) -> list[bytes]:
    """The keys of a translation in `TranslationTable.inward`, or in `routed`."""
    start = len(translation.home) - len(to_packed(translation.home))
    peers = [address[start:] for address in translation.accepted]
    if translation.local_prefix_length < HOST:
        return list(dict.fromkeys(peers))
    own = [address[start:] for address in translation.local_accepted]
    return list(dict.fromkeys(peer + address for peer in peers for address in own))


def _is_mobile(translation: Translation) -> bool:
    return translation.accepted != (translation.home,)
