"""What an IMS stores of its nodes, and the rule by which an update replaces what is there.

Every store (memory here; files and servers in the drivers) applies `judge` inside its own
compare-and-set, so that all of them agree (docs/protocol.md, section 6.3).
"""

import enum
from dataclasses import dataclass
from struct import Struct
from typing import Final, final

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

    __hash__ = object.__hash__  # as in mat.states


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


Key = bytes
"""What a registration is stored under: a home address, or a home prefix with its length behind."""


def key_of(home_address: Address, prefix_length: int) -> Key:
    """The key of a home address, or of a home prefix."""
    return home_address if prefix_length == EXACT else home_address + bytes((prefix_length,))


RECORD: Final = Struct("<QQdIBB")
"""A packed registration, but for its key and the mobile addresses behind: version, freshness,
registered_at, lifetime, prefix length, number of mobile addresses. A table of a million
registrations fits where a million objects would not; stores write the same bytes."""


def pack(registration: Registration) -> bytes:
    """All of a registration but its home address."""
    moved = registration.mobile_addresses
    return RECORD.pack(
        registration.version,
        registration.freshness,
        registration.registered_at,
        registration.lifetime,
        registration.prefix_length,
        len(moved),
    ) + b"".join(moved)


def unpack(key: Key, record: bytes) -> Registration:
    """The registration that was packed. Raises `ValueError` if this cannot be one."""
    if len(record) < RECORD.size or (len(record) - RECORD.size) != 16 * record[RECORD.size - 1]:
        raise ValueError(f"a record of {len(record)} bytes cannot be a registration")
    version, freshness, registered_at, lifetime, prefix_length, _ = RECORD.unpack_from(record)
    moved = tuple(
        Address(record[start : start + 16]) for start in range(RECORD.size, len(record), 16)
    )
    return Registration(
        Address(key[:16]), prefix_length, moved, version, freshness, registered_at, lifetime
    )


_MOBILE: Final = RECORD.size
"""Where the mobile addresses begin."""
_freshness_and_time: Final = Struct("<8xQd").unpack_from


def freshness_of(record: bytes) -> int:
    """The freshness in a packed registration."""
    freshness: int = _freshness_and_time(record)[0]
    return freshness


class RegistrationTable:
    """Registrations in memory, packed: by home address, and by mobile address.

    A mobile address belongs to the registration that claimed it last, by `registered_at`.
    """

    __slots__ = ("_by_home", "_by_mobile", "_prefix_lengths", "floor")

    def __init__(self, floor: int = 0) -> None:
        self.floor = floor
        self._by_home: dict[Key, bytes] = {}
        self._by_mobile: dict[Address, Key] = {}
        self._prefix_lengths: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self._by_home)

    def get(self, key: Key) -> bytes | None:
        """The packed registration under a key."""
        return self._by_home.get(key)

    def judge(self, update: Registration) -> tuple[Outcome, int]:
        """What `write` would say."""
        key = key_of(update.home_address, update.prefix_length)
        record = self._by_home.get(key)
        if record is None:
            return judge(None, update, self.floor), self.floor
        stored: int = _freshness_and_time(record)[0]
        if update.freshness > stored:
            return Outcome.STORED, stored
        return judge(unpack(key, record), update, self.floor), stored

    def write(self, update: Registration) -> tuple[Outcome, int]:
        """Store `update` if `judge` allows it; also the freshness now stored (or the floor)."""
        outcome, stored = self.judge(update)
        if outcome is not Outcome.STORED:
            return outcome, stored
        self.put(key_of(update.home_address, update.prefix_length), pack(update))
        return outcome, update.freshness

    def put(self, key: Key, record: bytes) -> bool:
        """Enter a packed registration unless a fresher one is there; whether it was entered."""
        freshness, registered_at = _freshness_and_time(record)
        existing = self._by_home.get(key)
        if existing is None:
            if len(key) > 16 and key[16] not in self._prefix_lengths:
                self._prefix_lengths = tuple(sorted({*self._prefix_lengths, key[16]}, reverse=True))
        elif _freshness_and_time(existing)[0] >= freshness:
            return False
        elif existing[_MOBILE:] != record[_MOBILE:]:
            self._disclaim(key, existing)
        self._by_home[key] = record
        for start in range(_MOBILE, len(record), 16):
            address = Address(record[start : start + 16])
            rival = self._by_mobile.get(address)
            if rival is None or rival == key or self._registered_at(rival) <= registered_at:
                self._by_mobile[address] = key
        return True

    def _registered_at(self, key: Key) -> float:
        registered_at: float = _freshness_and_time(self._by_home[key])[1]
        return registered_at

    def _disclaim(self, key: Key, record: bytes) -> None:
        for start in range(_MOBILE, len(record), 16):
            address = Address(record[start : start + 16])
            if self._by_mobile.get(address) == key:
                del self._by_mobile[address]

    def by_home(self, home_address: Address) -> Registration | None:
        """The registration that covers a home address, the longest prefix first."""
        record = self._by_home.get(home_address)
        if record is not None:
            return unpack(home_address, record)
        for length in self._prefix_lengths:
            key = key_of(prefix_of(home_address, length), length)
            record = self._by_home.get(key)
            if record is not None:
                return unpack(key, record)
        return None

    def by_mobile(self, mobile_address: Address) -> Registration | None:
        """The registration that last claimed a mobile address, as its own or in its MoPre."""
        key = self._by_mobile.get(mobile_address)
        if key is None:
            for length in self._prefix_lengths:
                covering = self._by_mobile.get(prefix_of(mobile_address, length))
                if covering is not None and covering[16:] == bytes((length,)):
                    key = covering
                    break
        return None if key is None else unpack(key, self._by_home[key])


def home_behind(registration: Registration, mobile_address: Address) -> Address:
    """The home address behind one mobile address of a registration."""
    if registration.prefix_length == EXACT:
        return registration.home_address
    return move_to_prefix(mobile_address, registration.home_address, registration.prefix_length)
