"""The driver of a node's machines, one for each family in which the host has a home address.

Theory of operation. Everything comes in on the event loop's thread: datagrams of the signalling,
packets that the dataplane does not know, new pictures of the uplinks, answers of the DNS, time.
Each goes to the machine that it concerns, whose effects are carried out at once, but for what costs
a system call: mappings, datagrams and the timer are collected and go once everything that arrived
together has been seen to. So a handover with a thousand peers is one change of the kernel's maps.

Time is CLOCK_BOOTTIME, which goes on while the host sleeps: mappings and leases age meanwhile.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol, assert_never, final

from mat.address import Address, format_address, is_ipv4, prefix_of
from mat.codec import Malformed, decode, encode
from mat.effects import (
    ClearMapping,
    DropPacket,
    Event,
    EventKind,
    Handle,
    Lookup,
    NodeEffect,
    NotFound,
    ReleasePacket,
    Send,
    SetMapping,
)
from mat.mapping_table import Servers
from mat.messages import Endpoint, HaNotify, Message
from mat.node import MobileNode
from mat_real.alarm import Alarm
from mat_real.datagrams import DatagramSocket
from mat_real.dataplane import Consumer, Counters, Dataplane

USED_INTERVAL: Final = 10.0
"""Seconds between two looks at which peers' packets have passed: well below `peer_idle_time`."""
STANDING_TIME: Final = 60.0
"""Seconds for which a predecessor's mappings stand without an answer about them."""

_log = logging.getLogger("mat.node")


def boottime() -> float:
    """Seconds since the boot of the host, its sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Resolver(Protocol):
    """What a node needs of the DNS: `mat_real.dns.Resolver`."""

    def cached(self, home_address: Address) -> Servers | NotFound | None:
        """What is known without asking; None if it has to be asked."""
        ...

    async def servers(self, home_address: Address) -> Servers | NotFound:
        """The IMS of a home address, in order of preference."""
        ...


class Moa(Protocol):
    """A mobile address of this host, as `mat_real.uplinks` has it."""

    @property
    def address(self) -> Address:
        """The address itself."""
        ...

    @property
    def interface(self) -> str:
        """The interface that has it."""
        ...

    @property
    def mtu(self) -> int:
        """Bytes of the largest packet that leaves from it whole."""
        ...

    @property
    def until(self) -> float:
        """When its lease ends, s of `boottime`; infinite for good."""
        ...


@final
class Daemon:
    """The node, as far as it is neither uplinks nor kernel. A `mat_real.dataplane.Consumer`."""

    def __init__(
        self,
        machines: Mapping[bool, MobileNode],
        *,
        loop: asyncio.AbstractEventLoop,
        signalling: DatagramSocket,
        dataplane: Callable[[Consumer], Dataplane],
        resolver: Resolver,
        now: Callable[[], float] = boottime,
    ) -> None:
        """`machines` by whether they are IPv4's. Call `begin` when all is in place.

        Raises what opening the dataplane raises.
        """
        self._machines = dict(machines)
        self._loop = loop
        self._signalling = signalling
        self._dataplane = dataplane(self)
        self._resolver = resolver
        self._now = now
        self._addresses: dict[bool, tuple[Address, ...]] = {True: (), False: ()}
        self._settling: asyncio.Handle | None = None
        self._alarm = Alarm(loop, now, self._wake)
        self._look: asyncio.TimerHandle | None = None
        self._last_stand: asyncio.TimerHandle | None = None
        self._standing: set[Address] = set()
        """Peers whose mappings a predecessor left in the kernel, not found out about yet."""
        self._tasks: set[asyncio.Task[None]] = set()
        self.unanswered: tuple[Address, float] | None = None
        """Whom the DNS was asked about last, and when that had failed; None if it has answered."""
        self.events: Counter[EventKind] = Counter()
        self.malformed: Counter[Malformed] = Counter()
        self.received = 0
        self.sent = 0

    # ---- life ----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Serve."""
        self._loop.add_reader(self._signalling.fileno(), self._readable)
        self._standing = {standing.home for standing in self._dataplane.standing()}
        self._look = self._loop.call_later(USED_INTERVAL, self._look_at_use)
        self._last_stand = self._loop.call_later(STANDING_TIME, self._clear_standing)

    def _adopt_standing(self) -> None:
        """Ask about the peers that a predecessor's mappings are still translated for."""
        for home in self._standing:
            machine = self._machines.get(is_ipv4(home))
            if machine is not None:
                # No packet waits for the answer; it is asked as though one did.
                self._apply(machine, machine.packet_out(self._now(), None, home))

    def _clear_standing(self) -> None:
        """What could not be found out by now does not stand any longer."""
        for home in self._standing:
            self._dataplane.clear(home)
        self._standing.clear()
        self._dataplane.commit()

    def end(self, *, keep: bool = False) -> None:
        """Serve no longer; what is collected still goes. The kernel's part stays if `keep`.

        Raises `DataplaneError` if the kernel refuses something; the end it is all the same.
        """
        try:
            self._settle()
        finally:
            # A socket that is closed while the loop reads it would end the process.
            self._loop.remove_reader(self._signalling.fileno())
            self._alarm.cancel()
            for timer in (self._look, self._last_stand):
                if timer is not None:
                    timer.cancel()
            for task in self._tasks:
                task.cancel()
            self._dataplane.close(keep=keep)

    def counters(self) -> Counters:
        """What happened to packets so far."""
        return self._dataplane.counters()

    def traffic(self, *, ipv4: bool) -> tuple[int, int]:
        """Packets in and out that the kernel has translated so far, in one family."""
        return self._dataplane.traffic(ipv4=ipv4)

    # ---- inputs --------------------------------------------------------------------------------

    def uplinks_changed(self, ipv4: Sequence[Moa], ipv6: Sequence[Moa]) -> None:
        """The mobile addresses of the host are these now, in order of preference."""
        self._dataplane.uplinks([(moa.interface, moa.address) for moa in (*ipv4, *ipv6)])
        if ipv6:
            self._dataplane.mtu = min(moa.mtu for moa in ipv6)
        for is_four, moas in ((True, ipv4), (False, ipv6)):
            addresses = tuple(moa.address for moa in moas)
            self._addresses[is_four] = addresses
            machine = self._machines.get(is_four)
            if machine is None:
                continue
            self._dataplane.own(machine.home_address, machine.prefix_length, addresses)
            until = tuple(moa.until for moa in moas)
            self._apply(machine, machine.addresses_changed(self._now(), addresses, until))
        self._adopt_standing()
        # The sooner the IMS knows, the shorter the interruption: the kernel's tables, which take
        # milliseconds to change, are needed when it has answered.
        self._signalling.flush()
        self._settle()

    def packet_out(self, handle: Handle, source: Address, destination: Address) -> None:
        """A packet from the home address to one that the dataplane has no mapping for."""
        del source
        machine = self._machines.get(is_ipv4(destination))
        if machine is None:
            self._dataplane.drop(handle)
        else:
            self._apply(machine, machine.packet_out(self._now(), handle, destination))

    def packet_in(
        self, handle: Handle, source: Address, destination: Address, announced: Address | None
    ) -> None:
        """A packet to an own mobile address that the dataplane has no mapping for."""
        machine = self._machines.get(is_ipv4(destination))
        if machine is None:
            self._dataplane.drop(handle)
        else:
            effects = machine.packet_in(self._now(), handle, source, destination, announced)
            self._apply(machine, effects)

    def _readable(self) -> None:
        while arrived := self._signalling.receive():
            for datagram, peer in arrived:
                self.received += 1
                message = decode(datagram)
                if isinstance(message, Malformed):
                    self.malformed[message] += 1
                else:
                    self._receive(message, self._signalling.endpoint(peer))
            if len(arrived) < self._signalling.batch:
                break
        self._settle()

    def _receive(self, message: Message, source: Endpoint) -> None:
        """Give a message to the machine that it is for."""
        if isinstance(message, HaNotify):
            machine = self._machines.get(is_ipv4(message.peer))
            if machine is not None:
                self._apply(machine, machine.receive(self._now(), message, source))
            return
        # An answer belongs to whose question it answers; not every answer says whose that was.
        left: Sequence[NodeEffect] = ()
        for machine in self._machines.values():
            left = machine.receive(self._now(), message, source)
            if not _was_unexpected(left):
                self._apply(machine, left)
                return
        self._count(left)

    # ---- effects -------------------------------------------------------------------------------

    def _apply(self, machine: MobileNode, effects: Sequence[NodeEffect]) -> None:
        for effect in effects:
            if type(effect) is Send:
                self._send(effect)
            elif type(effect) is SetMapping:
                self._standing.discard(effect.translation.home)
                self._dataplane.set(effect.translation)
            elif type(effect) is ClearMapping:
                self._standing.discard(effect.home_address)
                self._dataplane.clear(effect.home_address)
            elif type(effect) is ReleasePacket:
                if effect.handle is not None:
                    self._dataplane.release(effect.handle, effect.translation)
            elif type(effect) is DropPacket:
                if effect.handle is not None:
                    self._dataplane.drop(effect.handle)
            elif type(effect) is Lookup:
                self._look_up(machine, effect.home_address)
            elif type(effect) is Event:
                self.events[effect.kind] += 1
            else:
                assert_never(effect)
        if self._settling is None:
            self._settling = self._loop.call_soon(self._settle)

    def _count(self, effects: Iterable[NodeEffect]) -> None:
        for effect in effects:
            if type(effect) is Event:
                self.events[effect.kind] += 1

    def _settle(self) -> None:
        """Let go of what was collected."""
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        self._dataplane.commit()
        self._signalling.flush()
        self._rearm()

    def _send(self, effect: Send) -> None:
        self.sent += 1
        self._signalling.send(effect.destination, encode(effect.message), self._sender(effect))

    def _sender(self, effect: Send) -> Address | None:
        """The own address that a message is from; None for that which it answers from."""
        source = effect.source
        own = self._addresses[is_ipv4(effect.destination.address)]
        if source is None:
            # Left to the kernel it would be the home address.
            return own[0] if own and effect.destination.local is None else None
        # Of a mobile router it is the prefix.
        length = self._machines[is_ipv4(source)].prefix_length
        return next((a for a in own if prefix_of(a, length) == source), source)

    def _look_up(self, machine: MobileNode, home_address: Address) -> None:
        known = self._resolver.cached(home_address)
        if known is not None:
            self._apply(machine, machine.servers_found(self._now(), home_address, known))
            return
        task = self._loop.create_task(self._resolve(machine, home_address))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _resolve(self, machine: MobileNode, home_address: Address) -> None:
        found = await self._resolver.servers(home_address)
        self._note_answer(home_address, failed=found in (NotFound.FAILED, ()))
        self._apply(machine, machine.servers_found(self._now(), home_address, found))

    def _note_answer(self, home_address: Address, *, failed: bool) -> None:
        """Keep whether the DNS answers, and say so in the log when that changes."""
        before, self.unanswered = self.unanswered, (home_address, self._now()) if failed else None
        asked = {"home": format_address(home_address)}
        if failed and before is None:
            _log.warning("the DNS does not answer: no new peers are found", extra=asked)
        elif before is not None and not failed:
            _log.info("the DNS answers again", extra=asked)

    # ---- time ----------------------------------------------------------------------------------

    def _rearm(self) -> None:
        deadlines = [m.deadline for m in self._machines.values() if m.deadline is not None]
        self._alarm.set(min(deadlines, default=None))

    def _wake(self) -> None:
        for machine in self._machines.values():
            self._apply(machine, machine.handle_timer(self._now()))
        self._settle()

    def _look_at_use(self) -> None:
        """Tell the machines which peers' packets the kernel has translated lately."""
        used = self._dataplane.used()
        for is_four, machine in self._machines.items():
            of_family = [home for home in used if is_ipv4(home) == is_four]
            if of_family:
                self._apply(machine, machine.used(self._now(), of_family))
        self._look = self._loop.call_later(USED_INTERVAL, self._look_at_use)


def _was_unexpected(effects: Sequence[NodeEffect]) -> bool:
    return (
        len(effects) == 1 and type(effects[0]) is Event and effects[0].kind is EventKind.UNEXPECTED
    )
