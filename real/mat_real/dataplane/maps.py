"""What the kernel's maps and sets of one family hold, and the messages that change it.

A message names the elements that differ only: of 1,000 peers, one that moves costs two elements.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, final

from mat.address import Address, from_ipv4
from mat.effects import Translation
from mat_real.dataplane.nfnetlink import Element, Message, delete, put
from mat_real.dataplane.rules import IPV4, MAPS, MOBILES, TABLE, Family
from mat_real.dataplane.table import HOST

Wanted = Mapping[str, Mapping[bytes, bytes | None]]
"""By map and key the value that an element is to have; None for no element."""

MEMBER: Final = b""
"""The value of a set's elements."""


@final
class KernelMaps:
    """A copy of the kernel's maps and sets of a family, and how far their counters were read."""

    __slots__ = ("_family", "_seen", "elements")

    def __init__(self, family: Family) -> None:
        self._family = family
        self.elements: dict[str, dict[bytes, bytes]] = {name: {} for name in (*MAPS, MOBILES)}
        self._seen: dict[str, dict[bytes, int]] = {name: {} for name in MAPS}

    # ---- changing ------------------------------------------------------------------------------

    def changes(self, wanted: Wanted) -> list[Message]:
        """What makes the kernel's maps as wanted; nothing where they are."""
        where = self._family.number, TABLE
        messages: list[Message] = []
        for name, values in wanted.items():
            held = self.elements[name]
            gone = [key for key, value in values.items() if held.get(key, value) != value]
            new = {
                key: value
                for key, value in values.items()
                if value is not None and held.get(key) != value
            }
            messages += delete(*where, name, gone) + put(*where, name, new)
        return messages

    def done(self, wanted: Wanted) -> None:
        """The kernel's maps are as wanted now."""
        for name, values in wanted.items():
            held, seen = self.elements[name], self._seen.get(name, {})
            for key, value in values.items():
                if held.get(key) == value:
                    continue
                seen.pop(key, None)
                if value is None:
                    del held[key]
                else:
                    held[key] = value

    def members(self, name: str, keys: Iterable[bytes]) -> dict[bytes, bytes | None]:
        """What has a set have these members only."""
        return dict.fromkeys(self.elements[name], None) | dict.fromkeys(keys, MEMBER)

    # ---- reading -------------------------------------------------------------------------------

    def load(self, name: str, listed: Iterable[Element]) -> None:
        """Take over a map or set as the kernel lists it."""
        for key, value, packets in listed:
            self.elements[name][key] = value
            if name in MAPS:
                self._seen[name][key] = packets

    def used(self, name: str, listed: Iterable[Element]) -> Iterator[Address]:
        """Home addresses of the peers that a map has counted packets of since it was read last."""
        seen = self._seen[name]
        for key, value, packets in listed:
            if seen.get(key, 0) != packets:
                seen[key] = packets
                yield self.address(key if name == "out" else value[: self._family.width])

    def standing(self) -> Iterator[Translation]:
        """The translations that the maps amount to."""
        width = self._family.width
        accepted: dict[bytes, dict[bytes, None]] = {}
        at: dict[bytes, dict[bytes, None]] = {}
        home = b""
        for key, value in self.elements["in"].items():
            peer, home = value[:width], value[width:]
            accepted.setdefault(peer, {})[key[:width]] = None
            at.setdefault(peer, {})[key[width:]] = None
        for peer, value in self.elements["out"].items() if home else ():
            local, mobile = value[:width], value[width:]
            # What is first is what is used; the order of the others cannot be told.
            sources = {mobile: None, **accepted.get(peer, {})} if peer in accepted else {}
            own = [key for key in (local, *at.get(peer, {})) if key in at.get(peer, {})]
            yield Translation(
                self.address(peer),
                self.address(mobile),
                tuple(self.address(source) for source in sources),
                self.address(home),
                HOST,
                self.address(local),
                tuple(self.address(key) for key in dict.fromkeys(own)),
            )

    def address(self, packed: bytes) -> Address:
        """The address that these bytes are in this family."""
        return from_ipv4(packed) if self._family is IPV4 else Address(packed)
