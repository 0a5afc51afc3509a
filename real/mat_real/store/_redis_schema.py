"""What lies where in Redis, and the two scripts that write it.

With the default prefix:

    mat:{2f7}:r:20010db8…0001/128  a registration, as `mat.registrations.pack` packs it; no expiry
    mat:{2f7}:floor                the floor of this partition's home addresses, 8 bytes
    mat:m:20010db8…9001/128        who claimed a mobile address last, and when; expires
    mat:lengths                    the prefix lengths in use

Home addresses fall into `PARTITIONS` by their CRC-32. All keys of a partition share a hash tag, and
so a slot of Redis Cluster and a server: a server that has lost its registrations has lost their
floors as well, and a script that finds no floor says so. That is how a loss of data is noticed at
the first update that it could harm, without any state in the IMS.

Integers are little-endian and 64 bits long. Lua has only doubles, and its comparison of strings
follows the server's locale, so the scripts compare freshness as two halves of 32 bits.
"""

import zlib
from collections.abc import Iterator
from hashlib import sha1
from struct import Struct
from typing import Final, NamedTuple, final

from mat.address import Address
from mat.messages import EXACT
from mat.registrations import RECORD, Key, Outcome
from mat_real.store._redis_wire import encode

PARTITIONS: Final = 1024
"""Enough for a cluster of dozens of servers to share evenly; part of the schema."""

INDEX_SLACK: Final = 60
"""Seconds that an index entry outlives its mapping by: the clocks of IMS and Redis may differ."""

assert RECORD.format == "<QQdIBB", "the scripts know where in a record its fields are"
_REPEATED: Final = Struct("<QdI")
_FRESHNESS: Final = Struct("<Q")
_CLAIM: Final = Struct("<d16s")

_CLAIM_FUNCTION: Final = """
local function claim(key, claimed, seconds)
  local held = redis.call('GET', key)
  if held then
    local later = struct.unpack('<d', held) > struct.unpack('<d', claimed)
    if string.sub(held, 9) == string.sub(claimed, 9) then
      seconds = math.max(seconds, redis.call('TTL', key))
      if later then claimed = held end
    elseif later then
      return
    end
  end
  redis.call('SET', key, claimed, 'EX', seconds)
end
"""

_WRITE_TEXT: Final = (
    _CLAIM_FUNCTION
    + """
local function fresher(one, other)
  local one_low, one_high = struct.unpack('<I4I4', one)
  local other_low, other_high = struct.unpack('<I4I4', other)
  return one_high > other_high or one_high == other_high and one_low > other_low
end

local update = ARGV[1]
local existing = redis.call('GET', KEYS[1])
local stored
if existing then
  stored = string.sub(existing, 9, 16)
else
  stored = redis.call('GET', KEYS[2])
  if not stored then return 'f' end
end
if not fresher(string.sub(update, 9, 16), stored) then
  local same = existing and string.sub(existing, 1, 8) == string.sub(update, 1, 8)
    and string.sub(existing, 29) == string.sub(update, 29)
  return same and 'r' .. string.sub(existing, 9, 28) or 'x' .. stored
end
redis.call('SET', KEYS[1], update)
for i = 3, #KEYS do
  claim(KEYS[i], string.sub(update, 17, 24) .. ARGV[3], tonumber(ARGV[2]))
end
return 's'
"""
)
_CLAIM_TEXT: Final = _CLAIM_FUNCTION + "claim(KEYS[1], ARGV[1], tonumber(ARGV[2]))\nreturn 's'\n"


@final
class Script:
    """A Lua script, called by its digest; the server has to be told its text once."""

    __slots__ = ("_digest", "text")

    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self._digest = sha1(self.text, usedforsecurity=False).hexdigest().encode()

    def call(self, keys: list[bytes], *arguments: bytes) -> bytes:
        """The command that runs the script."""
        return encode(b"EVALSHA", self._digest, b"%d" % len(keys), *keys, *arguments)


WRITE: Final = Script(_WRITE_TEXT)
"""Compare and set. Keys: registration, floor, index entries to claim. Arguments: the packed
registration, seconds until the entries expire, home address. `verdict` reads its reply."""
CLAIM: Final = Script(_CLAIM_TEXT)
"""Claim one index entry. Key: the entry. Arguments: `claim`, seconds until it expires."""
SCRIPTS: Final = (WRITE, CLAIM)


class Verdict(NamedTuple):
    """What the write script said; `registered_at` and `lifetime` are those of what is stored."""

    outcome: Outcome
    freshness: int
    registered_at: float = 0.0
    lifetime: int = 0


def verdict(reply: bytes) -> Verdict | None:
    """The reply of the write script to an update that was not stored; None if the floor is gone."""
    if reply[:1] == b"f":
        return None
    if reply[:1] == b"r":
        return Verdict(Outcome.REPEATED, *_REPEATED.unpack_from(reply, 1))
    return Verdict(Outcome.STALE, *_FRESHNESS.unpack_from(reply, 1))


STORED: Final = b"s"
"""The reply of the write script to an update that was stored."""


def claim(registered_at: float, home_address: Address) -> bytes:
    """An index entry: who claims the mobile address, and since when."""
    return _CLAIM.pack(registered_at, home_address)


def claimant(entry: bytes) -> Address:
    """The home address (or prefix) of an index entry."""
    return Address(entry[8:])


def packed_freshness(freshness: int) -> bytes:
    """A floor as it is stored."""
    return _FRESHNESS.pack(freshness)


def partition_of(key: Key) -> int:
    """Which partition a home address or home prefix is in."""
    return zlib.crc32(key) % PARTITIONS


@final
class Schema:
    """The names of the keys, under one prefix."""

    __slots__ = ("_prefix", "lengths")

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.encode()
        self.lengths = b"%b:lengths" % self._prefix

    def registration(self, key: Key) -> bytes:
        """Where the registration of a home address or home prefix is."""
        length = EXACT if len(key) == 16 else key[16]
        home = key[:16].hex().encode()
        return b"%b:{%03x}:r:%b/%d" % (self._prefix, partition_of(key), home, length)

    def floor(self, partition: int) -> bytes:
        """Where the floor of a partition is."""
        return b"%b:{%03x}:floor" % (self._prefix, partition)

    def floors(self) -> Iterator[bytes]:
        """Where the floors of all partitions are."""
        return (self.floor(partition) for partition in range(PARTITIONS))

    def index(self, mobile_address: Address, length: int) -> bytes:
        """Where it says who has a mobile address (length 128), or a MoPre of that length."""
        return b"%b:m:%b/%d" % (self._prefix, mobile_address.hex().encode(), length)
