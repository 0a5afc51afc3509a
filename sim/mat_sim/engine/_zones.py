"""What the DNS knows: the servers of each home prefix."""

from typing import final

from mat.address import Address, prefix_of
from mat.effects import NotFound
from mat.mapping_table import Servers


@final
class Zones:
    """Home prefixes and what belongs to each: the reverse zones of the DNS."""

    __slots__ = ("_by_length",)

    def __init__(self) -> None:
        self._by_length: dict[int, dict[Address, Servers]] = {}

    def add(self, prefix: Address, length: int, servers: Servers) -> None:
        """The servers of a home prefix."""
        found = {**self._by_length, length: {**self._by_length.get(length, {}), prefix: servers}}
        self._by_length = dict(sorted(found.items(), reverse=True))

    def find(self, home: Address) -> Servers | NotFound:
        """The servers of the longest prefix that a home address is in."""
        for length, zones in self._by_length.items():
            servers = zones.get(prefix_of(home, length))
            if servers is not None:
                return servers
        return NotFound.NOT_MAT

    def has(self, home: Address) -> bool:
        """Whether a home address is in any of them."""
        return not isinstance(self.find(home), NotFound)

    def servers(self, home: Address) -> Servers:
        """The servers of a home address that has some."""
        servers = self.find(home)
        assert not isinstance(servers, NotFound)
        return servers
