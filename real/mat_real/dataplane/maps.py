"""What the kernel's maps of one family hold, and the commands that change it.

A command names the elements that differ only: of 1,000 peers, one that moves costs three elements.
"""

import socket
from collections.abc import Iterator, Mapping
from typing import Any, Final, final

from mat.address import Address, from_ipv4
from mat.effects import Translation
from mat_real.dataplane import rules
from mat_real.dataplane.rules import IPV4, MAPS, Family
from mat_real.dataplane.table import HOST

Wanted = Mapping[str, Mapping[bytes, bytes | None]]
"""By map and key the value that an element is to have; None for no element."""

COUNTING: Final = ("local", "home")


@final
class KernelMaps:
    """A copy of the kernel's maps of a family, and how far their counters were read."""

    __slots__ = ("_family", "_seen", "elements")

    def __init__(self, family: Family) -> None:
        self._family = family
        self.elements: dict[str, dict[bytes, bytes]] = {name: {} for name in MAPS}
        self._seen: dict[str, dict[bytes, int]] = {name: {} for name in COUNTING}

    # ---- changing ------------------------------------------------------------------------------

    def commands(self, wanted: Wanted) -> str:
        """What makes the kernel's maps as wanted; empty where they are."""
        text = ""
        for name, values in wanted.items():
            held = self.elements[name]
            changed = {key: value for key, value in values.items() if held.get(key) != value}
            gone = [self._text(key) for key in changed if key in held]
            put = [
                f"{self._text(key)} : {self._text(value)}"
                for key, value in changed.items()
                if value is not None
            ]
            text += rules.elements(self._family, "delete", name, gone)
            text += rules.elements(self._family, "add", name, put)
        return text

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

    def _text(self, key: bytes) -> str:
        """An address, or several, as nftables writes them."""
        width = self._family.width
        family = socket.AF_INET if width == 4 else socket.AF_INET6
        return " . ".join(
            socket.inet_ntop(family, key[at : at + width]) for at in range(0, len(key), width)
        )

    # ---- reading -------------------------------------------------------------------------------

    def load(self, listed: Mapping[str, Any]) -> None:
        """Take over a map as the kernel lists it."""
        name = listed["name"]
        if name not in MAPS:
            return
        for key, value, packets in self._listed(listed):
            self.elements[name][key] = value
            if name in COUNTING:
                self._seen[name][key] = packets

    def used(self, listed: Mapping[str, Any]) -> Iterator[Address]:
        """Home addresses of the peers that a map has counted packets of since it was read last."""
        name = listed["name"]
        seen = self._seen[name]
        for key, value, packets in self._listed(listed):
            if seen.get(key, 0) != packets:
                seen[key] = packets
                yield self.address(key if name == "local" else value)

    def standing(self, home: Address) -> Iterator[Translation]:
        """The translations, for this home address, that the maps amount to."""
        accepted: dict[bytes, dict[bytes, None]] = {}
        at: dict[bytes, dict[bytes, None]] = {}
        for key, peer in self.elements["home"].items():
            accepted.setdefault(peer, {})[key[: self._family.width]] = None
            at.setdefault(peer, {})[key[self._family.width :]] = None
        for peer, mobile in self.elements["mobile"].items():
            local = self.elements["local"][peer]
            # What is first is what is used; the order of the others cannot be told.
            sources = {mobile: None, **accepted.get(peer, {})} if peer in accepted else {}
            own = [key for key in (local, *at.get(peer, {})) if key in at.get(peer, {})]
            yield Translation(
                self.address(peer),
                self.address(mobile),
                tuple(self.address(source) for source in sources),
                home,
                HOST,
                self.address(local),
                tuple(self.address(key) for key in dict.fromkeys(own)),
            )

    def _listed(self, listed: Mapping[str, Any]) -> Iterator[tuple[bytes, bytes, int]]:
        """Key, value and packets of each element."""
        for key, value in listed.get("elem", ()):
            if "elem" in key:
                counted: Any = key["elem"]
                packets: int = counted["counter"]["packets"]
                yield self._key(counted["val"]), self._packed(value), packets
            else:
                yield self._key(key), self._packed(value), 0

    def _key(self, listed: Any) -> bytes:
        if isinstance(listed, str):
            return self._packed(listed)
        return b"".join(map(self._packed, listed["concat"]))

    def _packed(self, text: str) -> bytes:
        return socket.inet_pton(socket.AF_INET if self._family is IPV4 else socket.AF_INET6, text)

    def address(self, packed: bytes) -> Address:
        """The address that these bytes are in this family."""
        return from_ipv4(packed) if self._family is IPV4 else Address(packed)
