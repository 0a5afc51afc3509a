"""What the DNS knows: the servers of each home prefix."""

from bisect import bisect_right
from typing import Final, final

from mat.address import UNSPECIFIED, Address
from mat.effects import NotFound
from mat.mapping_table import Servers

_BITS: Final = 128


@final
class Zones:
    """Home prefixes and what belongs to each: the reverse zones of the DNS.

    All addresses are laid out in stretches of equal servers, so that one bisection finds them.
    """

    __slots__ = ("_firsts", "_servers", "_zones")

    def __init__(self) -> None:
        self._zones: list[tuple[int, int, Servers]] = []
        """Length, prefix (its bits alone) and servers, the longest first."""
        self._firsts: list[Address] = []
        """The first address of each stretch; empty while there is something new to be laid out."""
        self._servers: list[Servers | None] = []

    def add(self, prefix: Address, length: int, servers: Servers) -> None:
        """The servers of a home prefix."""
        self._zones.append((length, int.from_bytes(prefix) >> (_BITS - length), servers))
        self._zones.sort(key=_length, reverse=True)
        self._firsts = []

    def _lay_out(self) -> None:
        starts = {0}
        for length, bits, _ in self._zones:
            starts |= {bits << (_BITS - length), (bits + 1) << (_BITS - length)}
        inside = sorted(start for start in starts if start < 1 << _BITS)
        self._firsts = [Address(start.to_bytes(len(UNSPECIFIED))) for start in inside]
        self._servers = [self._longest(start) for start in inside]

    def _longest(self, start: int) -> Servers | None:
        for length, bits, servers in self._zones:
            if start >> (_BITS - length) == bits:
                return servers
        return None

    def _at(self, home: Address) -> Servers | None:
        if not self._firsts:
            self._lay_out()
        return self._servers[bisect_right(self._firsts, home) - 1]

    def find(self, home: Address) -> Servers | NotFound:
        """The servers of the longest prefix that a home address is in."""
        servers = self._at(home)
        return servers if servers is not None else NotFound.NOT_MAT

    def has(self, home: Address) -> bool:
        """Whether a home address is in any of them."""
        return self._at(home) is not None

    def servers(self, home: Address) -> Servers:
        """The servers of a home address that has some."""
        servers = self._at(home)
        assert servers is not None
        return servers


def _length(zone: tuple[int, int, Servers]) -> int:
    return zone[0]
