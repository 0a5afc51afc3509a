"""One worker of an IMS: a machine of `mat.server` between sockets, store and DNS.

Theory of operation. When a socket is readable, the worker empties it. What that brings is worked
off at once if it is little; else it goes to a backlog (`backlog`), for the kernel's buffer is small
and a crowd that moves together is not. The backlog is worked off in slices, and between two slices
the worker empties the sockets again and lets the event loop turn. What the express lane
(`mat.express`) knows is answered from bytes to bytes; everything else is decoded and goes through
the machine, whose effects are carried out here. At the end of a slice everything that was collected
leaves together: answers in one system call, updates in one commit.

A full backlog is the sign of overload: the sockets are left alone then, and the kernel drops what
their buffers cannot hold. Nodes ask again; nothing here has to remember them.

Requests of this IMS to others leave from a socket of the worker's own, so that the answers come
back to the worker that asked.
"""

import asyncio
import math
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Final, Protocol, assert_never, cast, final

from mat.address import UNSPECIFIED, Address
from mat.authentication import KeyRing
from mat.codec import MAX_DATAGRAM, Malformed, decode, encode
from mat.effects import (
    Event,
    Learned,
    Lookup,
    NotFound,
    Send,
    ServerEffect,
    StoreWrite,
)
from mat.express import Admitted, ExpressLane, acknowledge
from mat.mapping_table import Mapping, Servers
from mat.messages import NAMES, Code, Endpoint, HaNotify, Request, Type
from mat.registrations import (
    Key,
    Outcome,
    Registration,
    key_of,
    pack,
    unpack,
)
from mat.server import MappingServer, Responsible
from mat_real.alarm import Alarm
from mat_real.datagrams import BATCH, SLOT, DatagramSocket, Peer, bind
from mat_real.ims.backlog import Backlog, Waiting
from mat_real.ims.tallies import ANSWERS, EVENTS, INDEX, MALFORMED, RECEIVED, SENT, Tallies
from mat_real.store import Found, Store, StoreEffect, StoreError, Written

DIRECT: Final = 4
"""Batches that are worked off without a detour through the backlog."""
SLICE: Final = DIRECT * BATCH
"""Datagrams worked off before the sockets are looked at again."""

AHEAD: Final = 64
"""Rounds of `DIRECT` batches that are read from one socket before something is worked off."""
INQUIRY_TIME: Final = 5.0
"""Seconds that the worker waits at its end for what it has asked other IMS and the DNS."""

_TYPES: Final = dict(zip(NAMES, Type, strict=True))
_ANSWERED: Final = {
    Type.IMS_UPDATE_REPLY: "IMS Update",
    Type.MA_ANSWER: "MA Query",
    Type.HA_NOTIFY_ACK: "HA Notify",
    Type.HA_ANSWER: "HA Query",
}
_LAST_CODE: Final = max(Code)
_OVERFLOWED: Final = INDEX[("overflowed",)]
_REPEATED: Final = INDEX[("repeated",)]
_UNAVAILABLE: Final = INDEX[("store_unavailable",)]
_KEY: Final = 17
_SHORTEST: Final = 8
_Make = Callable[[type[Waiting], tuple[DatagramSocket, bytes, Peer, float]], Waiting]
_new = cast(_Make, tuple.__new__)  # pyright: ignore[reportUnknownMemberType]
_KINDS: Final = frozenset(Type)


class Resolver(Protocol):
    """What a worker needs of the DNS: `mat_real.dns.Resolver`, or a stand-in without a network."""

    def cached(self, home_address: Address) -> Servers | NotFound | None:
        """What is known without asking; None if it has to be asked."""
        ...

    async def servers(self, home_address: Address) -> Servers | NotFound:
        """The IMS of a home address, in order of preference."""
        ...


@final
@dataclass(slots=True)
class Siblings:
    """The other workers of the same server: Unix datagram sockets to them, and from them."""

    inbox: socket.socket
    outboxes: tuple[socket.socket, ...]


Ticket = tuple[Waiting, Admitted]
"""An admitted update, and the datagram that it came in."""


def _since(ticket: Ticket) -> float:
    return ticket[0].since


Enter = Callable[[Key, bytes, int, Ticket], bool]
"""How the store takes an admitted update: `JournalStore.enter`."""


@final
class Worker:
    """The driver of one machine. All of it runs on the event loop's thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        machine: MappingServer,
        *,
        sockets: Iterable[DatagramSocket],
        resolver: Resolver,
        now: Callable[[], float],
        tallies: Tallies,
        backlog: int,
        siblings: Siblings | None = None,
    ) -> None:
        """`backlog` is how many datagrams may wait. Call `begin` once the store is there."""
        self._loop = loop
        self._sockets = tuple(sockets)
        self._by_local = {s.local.address: s for s in self._sockets}
        """The socket of an own address; what came to another came to the first, the wildcard's."""
        self._asking = DatagramSocket(bind())
        self._sources = deque((*self._sockets, self._asking))
        """In the order in which they are emptied next."""
        self._machine = machine
        self._resolver = resolver
        self._now = now
        self._tallies = tallies
        self._words = tallies.words
        self._undelivered_before = tallies["undelivered",]
        """What predecessors of this worker have counted."""
        self._backlog = Backlog()
        self._limit = backlog
        self._siblings = siblings
        self._store: Store | None = None
        self._express: tuple[ExpressLane, Enter] | None = None
        self._catch_up: Callable[[], None] | None = None
        self._since: dict[int, float] = {}
        """When the request of a store effect arrived, by the effect's `id`."""
        self._notified: dict[tuple[int, Endpoint], float] = {}
        """When an HA Notify arrived that an inquiry is made for."""
        self._arrived = 0.0
        self._alarm = Alarm(loop, now, self._wake)
        self._working = False
        self._in_slice = False
        self._store_lost = False
        self._ending = False
        self._no_inquiries = asyncio.Event()
        """Set at the end, once there are none."""
        self._settling = False
        self._tasks: set[asyncio.Task[None]] = set()

    # ---- life ----------------------------------------------------------------------------------

    def begin(
        self,
        store: Store,
        express: tuple[ExpressLane, Enter] | None = None,
        catch_up: Callable[[], None] | None = None,
    ) -> None:
        """Start to serve.

        `express` is the express lane and how it enters updates into the store, where the store's
        table is in this process; `catch_up` brings the store up to date with other workers, and is
        called before each slice.
        """
        self._store, self._express, self._catch_up = store, express, catch_up
        for one in self._sockets:
            self._loop.add_reader(one.fileno(), self._readable, one)
        self._loop.add_reader(self._asking.fileno(), self._readable, self._asking)
        if self._siblings is not None:
            self._loop.add_reader(self._siblings.inbox.fileno(), self._hear_siblings)

    def adopt(self, keys: KeyRing, responsible: Responsible) -> None:
        """Go on with other keys and zones."""
        self._machine.adopt(keys, responsible)
        if self._express is not None:
            self._express[0].adopt(keys, responsible)

    async def end(self) -> None:
        """Answer what has arrived so far, and stop.

        What other IMS and the DNS have to say to that is waited for, but not for ever.
        """
        self._ending = True
        for one in self._sockets:
            self._fill(one)
            self._loop.remove_reader(one.fileno())
        while self._backlog:
            self._work_off(self._backlog.take(SLICE))
        # The answers of other IMS, and the time until they are asked again, are still seen to.
        self._working = False
        self._sources = deque((self._asking,))
        self._rearm()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._no_inquiries.wait(), INQUIRY_TIME)
        if self._store is not None:
            await self._store.close()
        self._flush()
        self._loop.remove_reader(self._asking.fileno())
        if self._siblings is not None:
            self._loop.remove_reader(self._siblings.inbox.fileno())
        for task in self._tasks:
            task.cancel()
        self._alarm.cancel()

    def gauge(self) -> None:
        """Set the gauges among the tallies; called now and then.

        Reads what other workers have committed, so that an idle worker does not fall far behind.
        """
        self._is_up_to_date()
        tallies, machine = self._tallies, self._machine
        tallies.set(("gauge", "backlog"), len(self._backlog))
        tallies.set(("gauge", "store_pending"), self._store.depth() if self._store else 0)
        tallies.set(("gauge", "foreign_mappings"), machine.foreign_mappings)
        tallies.set(("gauge", "inquiries"), machine.inquiries)
        undelivered = sum(s.undelivered for s in (*self._sockets, self._asking))
        tallies.set(("undelivered",), self._undelivered_before + undelivered)

    # ---- datagrams -----------------------------------------------------------------------------

    def _readable(self, source: DatagramSocket) -> None:
        if self._working:
            # Sockets are emptied between slices then, as far as there is room.
            return
        arrived, more = self._read(source, DIRECT)
        if more:
            self._put_off(arrived)
            self._fill(source)
            self._work()
        elif arrived:
            self._work_off(arrived)
            self._rearm()

    def _read(self, source: DatagramSocket, batches: int) -> tuple[list[Waiting], bool]:
        """Datagrams of up to so many batches, and whether there may be more."""
        found = list[Waiting]()
        for _ in range(batches):
            arrived = source.receive()
            now = self._now()
            # Half the time that calling the class takes, of which this is the most frequent use.
            found += [_new(Waiting, (source, datagram, peer, now)) for datagram, peer in arrived]
            if len(arrived) < source.batch:
                return found, False
        return found, True

    def _fill(self, source: DatagramSocket) -> None:
        """Move datagrams from the kernel's buffer to the backlog, until either has had enough.

        What takes no room there, as repetitions do, could come for ever: there is an end to it.
        """
        for _ in range(AHEAD):
            if len(self._backlog) >= self._limit:
                self._words[_OVERFLOWED] += 1
                return
            arrived, more = self._read(source, DIRECT)
            self._put_off(arrived)
            if not more:
                return

    def _put_off(self, arrived: list[Waiting]) -> None:
        """To the backlog, but for what is no message: that is counted, and takes no room."""
        messages = [one for one in arrived if _may_be_a_message(one[1])]
        if len(messages) < len(arrived):
            for one in arrived:
                if not _may_be_a_message(one.datagram):
                    self._by_machine(one)
        self._words[_REPEATED] += self._backlog.add(messages)

    def _work(self) -> None:
        """Work off a slice of the backlog, and come back as long as there is more."""
        self._work_off(self._backlog.take(SLICE))
        self._rearm()
        self._working = bool(self._backlog)
        if self._working:
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        # The first may take all the room there is: each is the first in its turn.
        self._sources.rotate()
        for one in self._sources:
            self._fill(one)
        self._work()

    def _work_off(self, slice_: list[Waiting]) -> None:
        """Handle datagrams, and let go of what that led to."""
        self._hear_siblings()
        self._in_slice = True
        self._store_lost = not self._is_up_to_date()
        rest = slice_
        if self._express is not None and not self._store_lost:
            rest = self._by_lane(*self._express, slice_)
        for waiting in rest:
            self._by_machine(waiting)
        self._in_slice = self._store_lost = False
        self._flush()

    def _is_up_to_date(self) -> bool:
        """Whether all is known that other workers have committed by now.

        If it is not, whatever was said now might be out of date.
        """
        try:
            if self._catch_up is not None:
                self._catch_up()
        except StoreError:
            return False
        return True

    def _by_machine(self, waiting: Waiting) -> None:
        source, datagram, peer, since = waiting
        message = decode(datagram)
        if isinstance(message, Malformed):
            self._words[MALFORMED[message]] += 1
            return
        self._words[RECEIVED + datagram[0]] += 1
        self._arrived, endpoint = since, source.endpoint(peer)
        effects = self._machine.receive(self._now(), message, endpoint)
        if type(message) is HaNotify and (not effects or type(effects[-1]) is Lookup):
            self._notified.setdefault((message.sequence, endpoint), since)
        self._apply(effects)

    def _by_lane(self, lane: ExpressLane, enter: Enter, slice_: list[Waiting]) -> list[Waiting]:
        """Let the express lane take what it can; the others are returned."""
        rest, now = list[Waiting](), self._now()
        answer, admit = lane.answer, lane.admit
        taken, arrived_at = [0] * (len(Type) + 1), 0.0
        together = [(arrived_at, taken)]
        for waiting in slice_:
            source, datagram, peer, since = waiting
            if since != arrived_at:
                taken, arrived_at = [0] * (len(Type) + 1), since
                together.append((arrived_at, taken))
            size = answer(datagram, now, source.outgoing, source.place())
            if size:
                source.replied(peer, size)
                taken[datagram[0]] += 1
                continue
            update = admit(datagram, now)
            if update is not None and enter(
                update.key.home_address, update.record, update.freshness, (waiting, update)
            ):
                taken[Type.IMS_UPDATE] += 1
            else:
                rest.append(waiting)
        ended = self._now()
        for arrived_at, taken in together:
            self._count_taken(taken, ended - arrived_at)
        return rest

    def _count_taken(self, taken: list[int], seconds: float) -> None:
        """Count what the lane took of the requests that arrived together."""
        for kind in Type:
            if taken[kind]:
                self._words[RECEIVED + kind] += taken[kind]
                if kind is not Type.IMS_UPDATE:
                    self._count_answers(Type(kind + 1), Code.SUCCEEDED, taken[kind], seconds)

    def _count_answers(self, kind: Type, code: int, count: int, seconds: float) -> None:
        self._words[SENT + kind] += count
        self._words[ANSWERS[kind] + min(code, _LAST_CODE)] += count
        self._tallies.responded(_ANSWERED[kind], seconds, count)

    def entered(self, tickets: Sequence[Ticket], durable: bool) -> None:
        """A group of updates that the lane admitted is durable, or could not be stored."""
        code = Code.SUCCEEDED if durable else Code.TRY_AGAIN
        now = self._now()
        for since, together in groupby(tickets, key=_since):
            count = 0
            for waiting, update in together:
                waiting.source.reply(waiting.peer, acknowledge(update, code))
                count += 1
            self._count_answers(Type.IMS_UPDATE_REPLY, code, count, now - since)
        if not durable:
            self._words[_UNAVAILABLE] += len(tickets)
        self._soon()

    def _flush(self) -> None:
        if self._store is not None:
            self._store.flush()
        for one in self._sockets:
            one.flush()
        self._asking.flush()

    # ---- effects -------------------------------------------------------------------------------

    def _apply(self, effects: Sequence[ServerEffect]) -> None:
        for effect in effects:
            if type(effect) is Send:
                self._send(effect)
            elif isinstance(effect, StoreEffect):
                self._submit(effect)
            elif type(effect) is Event:
                self._words[EVENTS[effect.kind]] += 1
            elif type(effect) is Lookup:
                self._look_up(effect.home_address)
            elif type(effect) is Learned:
                self._tell_siblings(effect.mapping)
            else:
                assert_never(effect)

    def _submit(self, effect: StoreEffect) -> None:
        assert self._store is not None
        self._since[id(effect)] = self._arrived
        written = isinstance(effect, StoreWrite)
        if self._store_lost or not (self._in_slice or written or self._is_up_to_date()):
            self.answered(effect, (Outcome.UNAVAILABLE, 0) if written else Outcome.UNAVAILABLE)
        else:
            self._store.submit(effect)

    def answered(self, effect: StoreEffect, result: Written | Found) -> None:
        """The store's results come here, within a slice or at any later time."""
        now = self._now()
        arrived, self._arrived = self._arrived, self._since.pop(id(effect), now)
        if isinstance(effect, StoreWrite):
            assert isinstance(result, tuple)
            self._words[_UNAVAILABLE] += result[0] is Outcome.UNAVAILABLE
            effects = self._machine.written(now, effect, *result)
        else:
            assert not isinstance(result, tuple)
            self._words[_UNAVAILABLE] += result is Outcome.UNAVAILABLE
            effects = self._machine.read(now, effect, result)
        self._apply(effects)
        self._arrived = arrived
        self._soon()

    def _soon(self) -> None:
        """Outside a slice, let go of what was collected once this turn of the loop is over."""
        if not self._in_slice and not self._settling:
            self._settling = True
            self._loop.call_soon(self._settle)

    def _settle(self) -> None:
        """Outside a slice: let the answers go that belong together."""
        self._settling = False
        self._flush()
        self._rearm()

    def _send(self, effect: Send) -> None:
        message, destination = effect.message, effect.destination
        kind = _TYPES[type(message)]
        if isinstance(message, Request):
            self._words[SENT + kind] += 1
            self._asking.send(destination, encode(message))
            return
        through = self._by_local.get(destination.local or UNSPECIFIED, self._sockets[0])
        through.send(destination, encode(message))
        arrived = self._arrived
        if kind is Type.HA_NOTIFY_ACK:
            arrived = self._notified.pop((message.sequence, destination), arrived)
        self._count_answers(kind, message.code, 1, self._now() - arrived)

    def _look_up(self, home_address: Address) -> None:
        known = self._resolver.cached(home_address)
        if known is not None:
            self._apply(self._machine.servers_found(self._now(), home_address, known))
            return
        task = self._loop.create_task(self._resolve(home_address))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _resolve(self, home_address: Address) -> None:
        arrived = self._now()
        found = await self._resolver.servers(home_address)
        self._arrived = arrived
        self._apply(self._machine.servers_found(self._now(), home_address, found))
        self._settle()

    # ---- time ----------------------------------------------------------------------------------

    def _rearm(self) -> None:
        """Have the machine woken at its deadline."""
        if self._ending and not self._machine.inquiries:
            self._no_inquiries.set()
        self._alarm.set(self._machine.deadline)

    def _wake(self) -> None:
        self._arrived = self._now()
        self._apply(self._machine.handle_timer(self._now()))
        self._settle()

    # ---- the other workers ---------------------------------------------------------------------

    def _tell_siblings(self, mapping: Mapping) -> None:
        if self._siblings is None:
            return
        data = _to_bytes(mapping)
        for outbox in self._siblings.outboxes:
            # One that does not read is dead or far behind: nodes ask again.
            with suppress(OSError):
                outbox.send(data)

    def _hear_siblings(self) -> None:
        if self._siblings is None:
            return
        while True:
            try:
                data = self._siblings.inbox.recv(SLOT)
            except BlockingIOError:
                return
            self._machine.learn(self._now(), _from_bytes(data))


def _may_be_a_message(datagram: bytes) -> bool:
    return _SHORTEST <= len(datagram) <= MAX_DATAGRAM and datagram[0] in _KINDS


def _to_bytes(mapping: Mapping) -> bytes:
    life = math.ceil(mapping.expires - mapping.registered_at)
    registration = Registration(
        mapping.home_address,
        mapping.prefix_length,
        mapping.mobile_addresses,
        mapping.version,
        0,
        mapping.registered_at,
        max(0, life),
    )
    return key_of(mapping.home_address, mapping.prefix_length).ljust(_KEY) + pack(registration)


def _from_bytes(data: bytes) -> Mapping:
    found = unpack(data[:_KEY], data[_KEY:])
    return Mapping(
        found.home_address,
        found.prefix_length,
        found.mobile_addresses,
        found.version,
        found.registered_at,
        found.expires,
    )
