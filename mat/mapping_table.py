"""The IMT: which mobile addresses stand for which home address, and the other way round.

An entry is a `Mapping`, of a MAT node or of a host known not to be one. Apart from them stands
until when nobody may ask for a home address again. The reverse index holds, for each mobile
address, the mapping with the newest claim to it: addresses are leased again, so an older claim is
void even before its lifetime ends (docs/protocol.md, section 9). The same table serves an IMS for
the nodes of others.

Bounded: when full, the entry that was put or used longest ago goes. After smoltcp's neighbour
cache (Found, NotFound, RateLimited).
"""

import enum
from dataclasses import dataclass
from typing import final

from mat.address import Address, move_to_prefix, prefix_of
from mat.messages import EXACT, Endpoint

Servers = tuple[Endpoint, ...]
"""The IMS of a home address: its replicas, in order of preference."""


@final
@dataclass(slots=True)
class Mapping:
    """HoA (or home prefix) → MoAs (or MoPre) in order of priority, as its IMS answered.

    `registered_at` and `expires` are seconds on the holder's own clock; `version` orders the
    mappings of one home address; a host that is `non_mat` stands for itself.
    """

    home_address: Address
    prefix_length: int
    mobile_addresses: tuple[Address, ...]
    version: int
    registered_at: float
    expires: float
    non_mat: bool = False

    def home_behind(self, mobile_address: Address) -> Address:
        """The home address that one of the mobile addresses stands for."""
        return move_to_prefix(mobile_address, self.home_address, self.prefix_length)


class Missing(enum.Enum):
    """Why the table has no mapping to give."""

    NOT_FOUND = "unknown: ask"
    RATE_LIMITED = "asked a moment ago, without success: do not ask yet"


class MappingTable:
    """A bounded table of mappings, by home address and by mobile address."""

    __slots__ = ("_blocked", "_by_home", "_by_mobile", "_lengths", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._by_home: dict[Address, Mapping] = {}
        self._blocked: dict[Address, float] = {}
        self._by_mobile: dict[Address, Mapping] = {}
        self._lengths: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self._by_home)

    def find(self, now: float, home_address: Address) -> Mapping | Missing:
        """The mapping that covers a home address, or why there is none. Counts as use."""
        entry = self._by_home.get(home_address)
        if entry is None and self._lengths:
            entry = self._find_prefix(home_address)
        if entry is None or entry.expires <= now:
            blocked = self._blocked.get(home_address, now) > now
            return Missing.RATE_LIMITED if blocked else Missing.NOT_FOUND
        self._by_home[entry.home_address] = self._by_home.pop(entry.home_address)
        return entry

    def owner(self, now: float, mobile_address: Address) -> Mapping | None:
        """The mapping with the newest claim to a mobile address."""
        mapping = self._by_mobile.get(mobile_address)
        if mapping is None:
            for length in self._lengths:
                covering = self._by_mobile.get(prefix_of(mobile_address, length))
                if covering is not None and covering.prefix_length == length:
                    mapping = covering
                    break
        return mapping if mapping is not None and mapping.expires > now else None

    def usable(self, mapping: Mapping) -> tuple[Address, ...]:
        """The mobile addresses of a mapping that nobody has claimed since."""
        claims = self._by_mobile
        for address in mapping.mobile_addresses:
            if claims.get(address) is not mapping:
                return tuple(m for m in mapping.mobile_addresses if claims.get(m) is mapping)
        return mapping.mobile_addresses

    def put(self, mapping: Mapping) -> list[Mapping]:
        """Enter or replace a mapping.

        Returns the other mappings that this touched: those that lost an address to it, and one that
        was evicted to make room (which `find` no longer knows).
        """
        touched = self._make_room(mapping.home_address)
        previous = self._by_home.pop(mapping.home_address, None)
        if previous is not None:
            self._withdraw_claims(previous)
        self._blocked.pop(mapping.home_address, None)
        self._by_home[mapping.home_address] = mapping
        if mapping.prefix_length != EXACT and mapping.prefix_length not in self._lengths:
            self._lengths = tuple(sorted((*self._lengths, mapping.prefix_length), reverse=True))
        for address in mapping.mobile_addresses:
            rival = self._by_mobile.get(address)
            if rival is None or _claims_over(mapping, rival):
                self._by_mobile[address] = mapping
                if rival is not None and rival is not mapping:
                    touched.append(rival)
        return touched

    def block(self, home_address: Address, until: float) -> None:
        """Nobody asks for this home address before `until`. As many are kept as mappings."""
        self.remove(home_address)
        self._blocked[home_address] = until
        if len(self._blocked) > self.limit:
            del self._blocked[next(iter(self._blocked))]

    def remove(self, home_address: Address) -> None:
        """Forget an entry, if there is one."""
        self._blocked.pop(home_address, None)
        entry = self._by_home.pop(home_address, None)
        if entry is not None:
            self._withdraw_claims(entry)

    def mappings(self) -> list[Mapping]:
        """All mappings, the one used longest ago first."""
        return list(self._by_home.values())

    def _find_prefix(self, home_address: Address) -> Mapping | None:
        for length in self._lengths:
            entry = self._by_home.get(prefix_of(home_address, length))
            if entry is not None and entry.prefix_length == length:
                return entry
        return None

    def _make_room(self, home_address: Address) -> list[Mapping]:
        if home_address in self._by_home or len(self._by_home) < self.limit:
            return []
        oldest = next(iter(self._by_home.values()))
        self.remove(oldest.home_address)
        return [oldest]

    def _withdraw_claims(self, mapping: Mapping) -> None:
        for address in mapping.mobile_addresses:
            if self._by_mobile.get(address) is mapping:
                del self._by_mobile[address]


def _claims_over(mapping: Mapping, rival: Mapping) -> bool:
    """Whether a mapping takes an address from another.

    A MAT node does from any other host; else the later registration does, for an address has one
    holder at a time.
    """
    if mapping.non_mat != rival.non_mat:
        return rival.non_mat
    return mapping.registered_at >= rival.registered_at
