"""What an IMS stores of its nodes, and the rule by which an update replaces what is there.

Every store (memory here; files and servers in the drivers) applies `judge` inside its own
compare-and-set, so that all of them agree (docs/protocol.md, section 6.3).
"""

import enum
from dataclasses import dataclass
from typing import final

from mat.address import Address, move_to_prefix, prefix_of
from mat.messages import EXACT


@final
@dataclass(slots=True)
class Registration:
    """A mapping as its node registered it. Times in seconds of the IMS's clock.

    `version` orders the mappings of a node, `freshness` its updates: a refresh is fresher and of
    the same version. `mobile_addresses` is empty after a withdrawal; freshness stays, against
    replays.
    """

    home_address: Address
    prefix_length: int
    mobile_addresses: tuple[Address, ...]
    version: int
    freshness: int
    registered_at: float
    lifetime: int

    @property
    def expires(self) -> float:
        """When the mapping ends unless it is refreshed."""
        return self.registered_at + self.lifetime

    def addresses_of(self, home_address: Address) -> tuple[Address, ...]:
        """The mobile addresses of one home address under this registration."""
        if self.prefix_length == EXACT:
            return self.mobile_addresses
        moved = self.mobile_addresses
        return tuple(move_to_prefix(home_address, prefix, self.prefix_length) for prefix in moved)


class Outcome(enum.Enum):
    """What became of an update at the store."""

    STORED = "stored"
    REPEATED = "what is stored already: answered again, not applied again"
    STALE = "not newer than what is stored"
    UNAVAILABLE = "the store did not answer"


def judge(existing: Registration | None, update: Registration, floor: int) -> Outcome:
    """Whether `update` may replace `existing`; `floor` is the freshness a new node must exceed."""
    if update.freshness > (existing.freshness if existing else floor):
        return Outcome.STORED
    return Outcome.REPEATED if existing and _same_mapping(existing, update) else Outcome.STALE


def _same_mapping(one: Registration, other: Registration) -> bool:
    return (
        one.version == other.version
        and one.mobile_addresses == other.mobile_addresses
        and one.prefix_length == other.prefix_length
    )


_Key = Address | tuple[Address, int]
"""A home address, or a home prefix with its length."""


def _key(home_address: Address, prefix_length: int) -> _Key:
    return home_address if prefix_length == EXACT else (home_address, prefix_length)


class RegistrationTable:
    """A store in memory: by home address, and by mobile address (the newest claim to it)."""

    __slots__ = ("_by_home", "_by_mobile", "_prefix_lengths", "floor")

    def __init__(self, floor: int = 0) -> None:
        self.floor = floor
        self._by_home: dict[_Key, Registration] = {}
        self._by_mobile: dict[Address, Registration] = {}
        self._prefix_lengths: set[int] = set()

    def __len__(self) -> int:
        return len(self._by_home)

    def write(self, update: Registration) -> tuple[Outcome, int]:
        """Store `update` if `judge` allows it; also the freshness now stored (or the floor)."""
        key = _key(update.home_address, update.prefix_length)
        existing = self._by_home.get(key)
        outcome = judge(existing, update, self.floor)
        if outcome is Outcome.STORED:
            self._replace(key, existing, update)
            return outcome, update.freshness
        return outcome, existing.freshness if existing else self.floor

    def _replace(self, key: _Key, existing: Registration | None, update: Registration) -> None:
        for address in existing.mobile_addresses if existing is not None else ():
            if self._by_mobile.get(address) is existing:
                del self._by_mobile[address]
        self._by_home[key] = update
        for address in update.mobile_addresses:
            self._by_mobile[address] = update
        if update.prefix_length != EXACT:
            self._prefix_lengths.add(update.prefix_length)

    def by_home(self, home_address: Address) -> Registration | None:
        """The registration that covers a home address, the longest prefix first."""
        found = self._by_home.get(home_address)
        if found is not None or not self._prefix_lengths:
            return found
        for length in sorted(self._prefix_lengths, reverse=True):
            found = self._by_home.get((prefix_of(home_address, length), length))
            if found is not None:
                return found
        return None

    def by_mobile(self, mobile_address: Address) -> Registration | None:
        """The registration that last claimed a mobile address, as its own or in its MoPre."""
        found = self._by_mobile.get(mobile_address)
        if found is not None:
            return found
        for length in sorted(self._prefix_lengths, reverse=True):
            found = self._by_mobile.get(prefix_of(mobile_address, length))
            if found is not None and found.prefix_length == length:
                return found
        return None


def home_behind(registration: Registration, mobile_address: Address) -> Address:
    """The home address behind one mobile address of a registration."""
    if registration.prefix_length == EXACT:
        return registration.home_address
    return move_to_prefix(mobile_address, registration.home_address, registration.prefix_length)
