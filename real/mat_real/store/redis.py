"""The shared store: Redis or Valkey, one server or a cluster, behind the `Store` interface.

Theory of operation. An update is one script on the server, which compares and sets; its reply comes
when the server has it on the disk (`appendfsync always`). What the server says is the outcome.
Everything submitted between two flushes is one batch on the wire. When the outcome is not known (no
connection, no reply in time, any error) the effect is answered as unavailable, and the node tries
again with a greater freshness: whether the first attempt counted does not matter then.

By mobile address. An index entry names the registration that claimed the address last, by
`registered_at`. It is a hint: the registration is read as well, and counts only if it has the
address. An entry lives a little longer than its mapping, a registration for ever, since its
freshness guards against replays after the mapping has ended (docs/protocol.md, section 6.3).

- One server: the script that stores a registration claims its addresses too, in one step.
- A cluster: entry and registration are on different servers. The registration is stored first,
  then its addresses are claimed, and only then is the update acknowledged. If the IMS dies in
  between, the mapping is found by home address and not by mobile address until the node, which was
  not answered, sends its update again. A claim that comes late does not displace a later one.

By home address. A single address has one key. When that is not there, the prefix lengths in use are
read, and then all prefixes that could cover the address: a prefix that another IMS has stored a
moment ago is found.

Where nothing is stored, freshness must exceed a floor (section 6.3). A server without one is new,
or has lost its data; either way the time of day becomes its floor before the first update is judged
(`_redis_schema` says how that is noticed). IMS that share a store need clocks that agree to within
seconds, as they judge by their own whether a mapping has expired.

What remains. The death of a server whose replica then takes its place loses what the replica had
not got: `replicas` narrows this, and Redis promises no more. A copy of the data put back from a
backup knows less than was acknowledged.
"""

import asyncio
import logging
import math
import struct
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Final, NamedTuple, TypeAlias, assert_never, cast, final

from mat.address import Address, prefix_of
from mat.effects import ReadByHome, ReadByMobile, StoreWrite
from mat.messages import EXACT
from mat.registrations import Key, Outcome, Registration, key_of, pack, unpack
from mat_real.store import Answered, Found, StoreEffect, StoreError, Written
from mat_real.store._redis_link import UNREAD, Command, Connector, Durability, RedisConfig
from mat_real.store._redis_schema import (
    CLAIM,
    INDEX_SLACK,
    STORED,
    WRITE,
    Schema,
    Verdict,
    claim,
    claimant,
    packed_freshness,
    partition_of,
    verdict,
)
from mat_real.store._redis_servers import Cluster, Servers, SingleServer
from mat_real.store._redis_wire import ErrorReply, Reply, encode

__all__ = ["Durability", "RedisConfig", "RedisStore"]


_log = logging.getLogger(__name__)


class _Request(NamedTuple):
    """A command for the server that has `key`."""

    key: bytes
    packed: bytes
    writes: bool = False


Result: TypeAlias = Written | Found
_Steps: TypeAlias = Generator[Sequence[_Request], list[Reply], Result]
"""An effect: rounds of requests, each sent together, and the result in the end."""


@final
class _Operation:
    """An effect under way."""

    __slots__ = ("deadline", "done", "effect", "missing", "replies", "steps")

    def __init__(self, effect: StoreEffect | None, steps: _Steps, deadline: float) -> None:
        self.effect = effect
        self.steps = steps
        self.deadline = deadline
        self.replies: list[Reply] = []
        self.missing = 0
        self.done = False


@final
class RedisStore:
    """Registrations in Redis or Valkey; made by `open`."""

    def __init__(self, config: RedisConfig, answered: Answered, clock: Callable[[], float]) -> None:
        self._answered = answered
        self._clock = clock
        self._config = config
        self._schema = Schema(config.prefix)
        self._atomic = not config.cluster
        kind = Cluster if config.cluster else SingleServer
        self._servers: Servers = kind(Connector(config), self._answer, self.flush)
        self._loop = asyncio.get_running_loop()
        self._operations: deque[_Operation] = deque()
        self._depth = 0
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._refusals: list[ErrorReply] = []

    @classmethod
    async def open(
        cls, config: RedisConfig, answered: Answered, *, clock: Callable[[], float] = time.time
    ) -> "RedisStore":
        """Connect, check the servers, and see that there are floors.

        `clock` gives the time of day in seconds since 1970, for the floor of a new store. Raises
        `StoreError`, which says how to mend it.
        """
        store = cls(config, answered, clock)
        await store._servers.open()
        try:
            await store._make_floors()
        except BaseException:
            await store.close()
            raise
        return store

    # ---- the store's interface -----------------------------------------------------------------

    def submit(self, effect: StoreEffect) -> None:
        """Begin to carry out an effect; it is answered within `timeout`."""
        if self._depth >= self._config.queue:
            self._answered(effect, _unavailable(effect))
        else:
            self._begin(effect, self._steps(effect))

    def flush(self) -> None:
        """Let what has been collected go."""
        for link in self._servers.links():
            link.flush()

    def depth(self) -> int:
        """Effects submitted and not answered yet."""
        return self._depth

    async def close(self) -> None:
        """Wait until everything is answered, and let go of the connections."""
        self.flush()
        if self._depth:
            self._idle.clear()
            await self._idle.wait()
        if self._timer is not None:
            self._timer.cancel()
        await self._servers.close()

    # ---- operations ----------------------------------------------------------------------------

    def _steps(self, effect: StoreEffect) -> _Steps:
        match effect:
            case StoreWrite():
                return self._write(effect.registration)
            case ReadByHome():
                return self._by_home(effect.home_address)
            case ReadByMobile():
                return self._by_mobile(effect.mobile_address)
            case _:
                assert_never(effect)

    def _begin(self, effect: StoreEffect | None, steps: _Steps) -> None:
        timeout = self._config.timeout
        if effect is None:
            timeout = max(timeout, START)
        operation = _Operation(effect, steps, self._loop.time() + timeout)
        self._depth += 1
        self._operations.append(operation)
        if self._timer is None:
            self._timer = self._loop.call_at(operation.deadline, self._overdue)
        self._send(operation, next(steps))

    def _send(self, operation: _Operation, requests: Sequence[_Request]) -> None:
        operation.replies = [None] * len(requests)
        operation.missing = len(requests)
        for index, request in enumerate(requests):
            if operation.done:
                return
            self._servers.add(Command(*request, operation, index))

    def _answer(self, command: Command, reply: Reply) -> None:
        """A reply has come; it may be the last of its round."""
        operation = cast(_Operation, command.waiting)
        if operation.done or command.index == UNREAD:
            return
        if type(reply) is ErrorReply:
            self._fail(operation, reply)
            return
        operation.replies[command.index] = reply
        operation.missing -= 1
        if operation.missing:
            return
        try:
            requests = operation.steps.send(operation.replies)
        except StopIteration as end:
            self._finish(operation, end.value)
        except (ValueError, struct.error) as error:
            _log.error("store: %s: damaged data: %s", self._config.place, error)
            self._fail(operation, _DAMAGED)
        else:
            self._send(operation, requests)

    def _fail(self, operation: _Operation, reply: ErrorReply) -> None:
        operation.steps.close()
        if operation.effect is None:
            self._refusals.append(reply)
        self._finish(operation, _unavailable(operation.effect))

    def _finish(self, operation: _Operation, result: Result) -> None:
        operation.done = True
        self._depth -= 1
        operations = self._operations
        while operations and operations[0].done:
            operations.popleft()
        if not self._depth:
            self._idle.set()
        if operation.effect is not None:
            self._answered(operation.effect, result)

    def _overdue(self) -> None:
        """Answer what has waited too long, and leave servers that are silent."""
        now = self._loop.time()
        while self._operations and self._operations[0].deadline <= now:
            self._fail(self._operations[0], _TOO_LATE)
            # Who was answered may have submitted something on that.
            self.flush()
        for link in self._servers.links():
            link.check(now)
        ends = [link.deadline() for link in self._servers.links()]
        if self._operations:
            ends.append(self._operations[0].deadline)
        due = min((end for end in ends if end is not None), default=None)
        self._timer = None if due is None else self._loop.call_at(due, self._overdue)

    # ---- updates -------------------------------------------------------------------------------

    def _write(self, update: Registration) -> _Steps:
        length = update.prefix_length
        key = key_of(update.home_address, length)
        index = [self._schema.index(address, length) for address in update.mobile_addresses]
        requests = [self._compare_and_set(key, update, index if self._atomic else [])]
        if length != EXACT:
            packed = encode(b"SADD", self._schema.lengths, b"%d" % length)
            requests.append(_Request(self._schema.lengths, packed, writes=True))
        said = _verdict((yield requests), update)
        while said is None:
            yield [self._floor(self._schema.floor(partition_of(key)))]
            said = _verdict((yield requests), update)
        if not self._atomic and index and said.outcome is not Outcome.STALE:
            yield [self._claim(entry, said, update.home_address) for entry in index]
        return said.outcome, said.freshness

    def _compare_and_set(self, key: Key, update: Registration, index: list[bytes]) -> _Request:
        registration = self._schema.registration(key)
        floor = self._schema.floor(partition_of(key))
        seconds = b"%d" % (update.lifetime + INDEX_SLACK)
        keys = [registration, floor, *index]
        packed = WRITE.call(keys, pack(update), seconds, update.home_address)
        return _Request(registration, packed, writes=True)

    def _claim(self, entry: bytes, said: Verdict, home_address: Address) -> _Request:
        at = said.registered_at
        if said.outcome is Outcome.REPEATED:
            # The claim may have been lost the first time; who came at the same moment keeps his.
            at = math.nextafter(at, -math.inf)
        seconds = b"%d" % (said.lifetime + INDEX_SLACK)
        packed = CLAIM.call([entry], claim(at, home_address), seconds)
        return _Request(entry, packed, writes=True)

    # ---- look-ups ------------------------------------------------------------------------------

    def _by_home(self, home_address: Address) -> _Steps:
        (record,) = yield [self._get_registration(home_address)]
        if record is not None:
            return unpack(home_address, cast(bytes, record))
        lengths = _lengths((yield [self._get_lengths()]))
        keys = [key_of(prefix_of(home_address, length), length) for length in lengths]
        if not keys:
            return None
        records = yield [self._get_registration(key) for key in keys]
        for key, record in zip(keys, records, strict=True):
            if record is not None:
                return unpack(key, cast(bytes, record))
        return None

    def _by_mobile(self, mobile_address: Address) -> _Steps:
        entries = yield [self._get(self._schema.index(mobile_address, EXACT))]
        found = yield from self._holder(mobile_address, EXACT, entries[0])
        if found is not None:
            return found
        lengths = _lengths((yield [self._get_lengths()]))
        if not lengths:
            return None
        prefixes = [prefix_of(mobile_address, length) for length in lengths]
        index = [self._schema.index(*claimed) for claimed in zip(prefixes, lengths, strict=True)]
        entries = yield [self._get(entry) for entry in index]
        for prefix, length, entry in zip(prefixes, lengths, entries, strict=True):
            found = yield from self._holder(prefix, length, entry)
            if found is not None:
                return found
        return None

    def _holder(
        self, address: Address, length: int, entry: Reply
    ) -> Generator[Sequence[_Request], list[Reply], Registration | None]:
        """The registration that an index entry names, if it has the address."""
        while entry is not None:
            key = key_of(claimant(cast(bytes, entry)), length)
            (record,) = yield [self._get_registration(key)]
            if record is not None:
                registration = unpack(key, cast(bytes, record))
                if address in registration.mobile_addresses:
                    return registration
            before = entry
            # It may have left the address to another between the two look-ups.
            (entry,) = yield [self._get(self._schema.index(address, length))]
            if entry == before:
                break
        return None

    def _get_registration(self, key: Key) -> _Request:
        return self._get(self._schema.registration(key))

    def _get(self, key: bytes) -> _Request:
        return _Request(key, encode(b"GET", key))

    def _get_lengths(self) -> _Request:
        return _Request(self._schema.lengths, encode(b"SMEMBERS", self._schema.lengths))

    # ---- floors --------------------------------------------------------------------------------

    async def _make_floors(self) -> None:
        """Have a floor in each partition. Raises `StoreError` if a server does not take it.

        A server of a cluster that is down now is no obstacle: an update there makes the floor.
        """
        self._idle.clear()
        for key in self._schema.floors():
            self._begin(None, self._make_floor(key))
        self.flush()
        await self._idle.wait()
        if self._timer is not None:
            # It is set for the end of the start; what comes now has less time.
            self._timer.cancel()
            self._overdue()
        refusals = {refusal.code: refusal.text for refusal in self._refusals}
        self._refusals.clear()
        if self._config.cluster:
            for code in _DOWN:
                refusals.pop(code, None)
        if "MOVED" in refusals:
            what = "the server is part of a cluster; say cluster = true"
            raise StoreError(f"{self._config.place}: {what}")
        if refusals:
            what = "; ".join(refusals.values())
            raise StoreError(f"{self._config.place}: the server takes no data ({what})")

    def _make_floor(self, key: bytes) -> _Steps:
        yield [self._floor(key)]
        return None

    def _floor(self, key: bytes) -> _Request:
        """The time of day as freshness, unless there is a floor already (section 6.2)."""
        floor = packed_freshness(int(self._clock() * (1 << 32)))
        return _Request(key, encode(b"SET", key, floor, b"NX"), writes=True)


START: Final = 10.0
"""Seconds in which a server has to take the floors, if `timeout` is less: its disk may be at rest
for longer than one update is worth waiting for."""

_TOO_LATE: Final = ErrorReply("TIMEOUT no reply in time")
_DAMAGED: Final = ErrorReply("DAMAGED data")
_DOWN: Final = ("LOST", "CLUSTERDOWN", "TIMEOUT")
"""Codes of errors that say nothing but that a server is not there now."""


def _unavailable(effect: StoreEffect | None) -> Result:
    refused = isinstance(effect, StoreWrite)
    return (Outcome.UNAVAILABLE, 0) if refused else Outcome.UNAVAILABLE


def _verdict(replies: list[Reply], update: Registration) -> Verdict | None:
    said = cast(bytes, replies[0])
    if said == STORED:
        return Verdict(Outcome.STORED, update.freshness, update.registered_at, update.lifetime)
    return verdict(said)


def _lengths(replies: list[Reply]) -> list[int]:
    """The prefix lengths in use, the longest first."""
    return sorted(map(int, cast(list[bytes], replies[0])), reverse=True)
