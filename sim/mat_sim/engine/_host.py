"""A node: the real machine, its links, the table its kernel translates by, and its handovers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, assert_never, final

from mat.address import Address
from mat.effects import (
    ClearMapping,
    DropPacket,
    Event,
    EventKind,
    Lookup,
    NodeEffect,
    NotFound,
    ReleasePacket,
    Send,
    SetMapping,
    Translation,
)
from mat.mapping_table import Servers
from mat.messages import Endpoint, Message
from mat.node import MobileNode
from mat_files.distributions import Distribution
from mat_files.scenario import Network as AccessNetwork
from mat_sim.engine._clock import Clock
from mat_sim.engine._flow import DOWN, UP, Flow
from mat_sim.engine._handover import COMPLETED, SUPERSEDED, UNFINISHED, Handover
from mat_sim.engine._network import Link, Party
from mat_sim.engine._pool import Pool
from mat_sim.engine._tally import Count, Line, Watch, arrived, lost
from mat_sim.engine._wiring import Wiring

_REPORT_USE: Final = 1.0
"""Seconds between reports of a peer's use to the machine, as a driver polls its counters."""
_FOREVER: Final = float("inf")


@final
@dataclass(frozen=True, slots=True)
class Packet:
    """A data packet under way: of which flow, its number, and the addresses it bears."""

    flow: Flow
    number: int
    source: Address
    destination: Address
    outward: bool


@final
class Host:
    """A mobile node or a correspondent."""

    def __init__(
        self,
        name: str,
        role: str,
        machine: MobileNode,
        *,
        clock: Clock,
        wiring: Wiring,
        random: Random,
    ) -> None:
        self.name = name
        self.role = role
        self.machine = machine
        self.armed: float | None = None
        self.flows: list[tuple[str, Flow]] = []
        """Direction, seen from this node, and flow."""
        self.handovers: list[Handover] = []
        self.leaves = _FOREVER
        """When its last link goes for good, s."""
        self._clock = clock
        self._wiring = wiring
        self._random = random
        self._links: list[Link] = []
        self._moves = 0
        self._current: Handover | None = None
        self._out: dict[Address, Translation] = {}
        self._in: dict[Address, Translation] = {}
        self._reported: dict[Address, float] = {}
        self._leases: dict[Address, float] = {}

    # ---- the machine ---------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When the machine wants to be woken."""
        return self.machine.deadline

    def wake(self, now: float) -> None:
        """The machine's deadline has come."""
        self._apply(self.machine.handle_timer(now))

    def receive(self, message: Message, source: Endpoint) -> None:
        """A message has arrived."""
        self._apply(self.machine.receive(self._clock.now, message, source))

    def servers_found(self, home_address: Address, result: Servers | NotFound) -> None:
        """The DNS has answered."""
        self._apply(self.machine.servers_found(self._clock.now, home_address, result))

    def _apply(self, effects: Sequence[NodeEffect]) -> None:
        repeat = False
        for effect in effects:
            self._carry_out(effect, repeat=repeat)
            repeat = isinstance(effect, Event) and effect.kind is EventKind.RETRANSMITTED
        self._clock.rearm(self)
        if self._current is not None:
            self._current.observe(self._clock.now, self.machine)
            self._check_complete()

    def _carry_out(self, effect: NodeEffect, *, repeat: bool) -> None:
        match effect:
            case Send():
                self._wiring.send(self, self._leaving(effect.source), effect, repeat=repeat)
            case Lookup():
                delay = self._links[-1].delay if self._links else None
                self._wiring.look_up(self, effect.home_address, delay)
            case SetMapping():
                self._set_mapping(effect.translation)
            case ClearMapping():
                self._clear_mapping(effect.home_address)
            case ReleasePacket():
                self._release(effect)
            case DropPacket() | Event():
                pass
            case _:
                assert_never(effect)

    def _leaving(self, source: Address | None) -> Address | None:
        """The address a message leaves from: the one named, else that of the preferred link."""
        addresses = self.machine.addresses
        return source if source in addresses else next(iter(addresses), None)

    def _set_mapping(self, translation: Translation) -> None:
        self._clear_mapping(translation.home)
        self._out[translation.home] = translation
        for address in translation.accepted:
            self._in[address] = translation

    def _clear_mapping(self, home_address: Address) -> None:
        old = self._out.pop(home_address, None)
        for address in old.accepted if old else ():
            if self._in.get(address) is old:
                del self._in[address]

    # ---- links ---------------------------------------------------------------------------------

    def settle_at(self, link: Link, address: Address) -> None:
        """This node is here, with this address, from the beginning and for good."""
        self._links.append(link)
        self._wiring.network.connect(link, address)
        self._leases[address] = _FOREVER
        self._tell_machine()

    def attach(
        self, access: AccessNetwork, pool: Pool, interface: int, address: Address | None
    ) -> None:
        """A network has come into reach and is the preferred one from now on."""
        now = self._clock.now
        self._moves += 1
        known = next(
            (link for link in self._links if link.network == access.name and link.up), None
        )
        if known is not None:
            self._prefer(now, known)
            return
        link = Link(self, access.delay, access.loss, access.name, interface, self._moves)
        self._begin_handover(now, link)
        self._links.append(link)
        if self._moves == 1 and pool.start_attached:
            self._configure(link, pool, address)
        else:
            detect = access.detect.sample(self._random)
            self._clock.after(detect, self._act, link, access, pool, address)

    def _act(self, link: Link, access: AccessNetwork, pool: Pool, address: Address | None) -> None:
        if link.up:
            link.acted = True
            self._mark(link, "acted")
            association = access.association.sample(self._random)
            self._clock.after(association, self._linked, link, access.address, pool, address)

    def _linked(self, link: Link, taken: Distribution, pool: Pool, address: Address | None) -> None:
        if link.up:
            link.linked = True
            self._mark(link, "linked")
            time = taken.sample(self._random)
            self._clock.after(time, self._configure, link, pool, address)

    def _configure(self, link: Link, pool: Pool, address: Address | None) -> None:
        """The link has an address: the machine hears of it."""
        if not link.up:
            return
        now = self._clock.now
        leased, until = pool.lease(now, self.name, address)
        self._wiring.network.connect(link, leased)
        self._leases[leased] = until
        self._clock.after((until - now) / 2, self._renew, link, pool)
        self._replace_interface(link)
        if self._current is not None and self._current.to_link is link:
            self._current.has_address(now, link)
        self._tell_machine()

    def _renew(self, link: Link, pool: Pool) -> None:
        if link.up and link.address is not None:
            now = self._clock.now
            self._leases[link.address] = pool.renew(now, link.address)
            self._clock.after((self._leases[link.address] - now) / 2, self._renew, link, pool)
            self._tell_machine()

    def _replace_interface(self, link: Link) -> None:
        """What the same interface was attached to before is gone for sure."""
        for old in self._links:
            if old is not link and old.interface == link.interface and not old.up:
                old.noticed_down = True

    def detach(self, network: str, notice: Callable[[], float]) -> None:
        """A network is out of reach: its link is dead at once, and noticed after a while."""
        link = next(link for link in self._links if link.network == network and link.up)
        now = self._clock.now
        preferred = max((one for one in self._links if one.up), key=lambda one: one.order)
        self._wiring.network.disconnect(link)
        if link is preferred:
            self._lost_preferred(now, link)
        self._clock.after(notice(), self._noticed, link)

    def _noticed(self, link: Link) -> None:
        if link.noticed_down:
            self._links = [one for one in self._links if one is not link]
            return
        link.noticed_down = True
        self._links = [one for one in self._links if one is not link]
        current = self._current
        if current is not None and current.from_link is link and current.configured is None:
            target = current.to_link
            if target is not None and target.address is not None:
                current.acted = self._clock.now
                current.has_address(self._clock.now, target)
        self._tell_machine()

    def _tell_machine(self) -> None:
        usable = [one for one in self._links if one.address is not None and not one.noticed_down]
        usable.sort(key=lambda one: -one.order)
        addresses = [one.address for one in usable if one.address is not None]
        until = [self._leases[address] for address in addresses]
        self._apply(self.machine.addresses_changed(self._clock.now, addresses, until))

    # ---- handovers -----------------------------------------------------------------------------

    def _peers(self) -> list[Address]:
        """Home addresses of the peers that traffic is going on with."""
        now = self._clock.now
        ends = [(flow.destination if way == UP else flow.source, flow) for way, flow in self.flows]
        return list(dict.fromkeys(p for p, flow in ends if flow.begun and flow.stops > now))

    def _open(self, now: float, from_link: Link, to_link: Link | None) -> None:
        """A new handover takes the place of one that is not complete."""
        if self._current is not None:
            self._close(now, SUPERSEDED)
        self._current = Handover(len(self.handovers) + 1, now, from_link, self._peers())
        if to_link is not None:
            self._current.reaches(now, to_link)
        self._wiring.tally.watch(Watch(self.name, self.machine.home_address))

    def _close(self, now: float, outcome: str) -> None:
        current, self._current = self._current, None
        watch = self._wiring.tally.unwatch(self.name)
        if current is None or current.to_link is None:
            return
        current.finish(now, outcome)
        self.handovers.append(current)
        if outcome == COMPLETED and watch is not None:
            self._wiring.tally.ladders.setdefault(current.kind, watch)

    def _begin_handover(self, now: float, link: Link) -> None:
        """A new network is in reach: the goal of a handover seeking one, or of a new one."""
        if self._current is not None and self._current.to_link is None:
            self._current.reaches(now, link)
            return
        ups = [one for one in self._links if one.up]
        if ups:
            self._open(now, max(ups, key=lambda one: one.order), link)

    def _lost_preferred(self, now: float, link: Link) -> None:
        if now >= self.leaves:
            self._close(now, UNFINISHED)
            return
        others = [one for one in self._links if one.up]
        self._open(now, link, max(others, key=lambda one: one.order, default=None))

    def _prefer(self, now: float, link: Link) -> None:
        """Back to a network whose link is still up: nothing to set up."""
        ups = [one for one in self._links if one.up]
        old = max(ups, key=lambda one: one.order)
        link.order = self._moves
        if old is link:
            return
        self._open(now, old, link)
        if self._current is not None and link.address is not None:
            self._current.has_address(now, link)
            self._tell_machine()

    def _mark(self, link: Link, part: str) -> None:
        if self._current is not None and self._current.to_link is link:
            setattr(self._current, part, self._clock.now)

    def _check_complete(self) -> None:
        current = self._current
        if current is None:
            return
        flows = [(way, flow) for way, flow in self.flows if flow.stops > self._clock.now]
        notifies = not self.machine.announces
        if current.is_complete(flows, notifies=notifies):
            self._close(self._clock.now, COMPLETED)

    def end(self, outcome: str) -> None:
        """The run is over."""
        self._close(self._clock.now, outcome)

    # ---- data ----------------------------------------------------------------------------------

    def tick(self, flow: Flow) -> None:
        """Send the next packet of a flow, and arrange for the one after it."""
        now = self._clock.now
        if now >= flow.stops:
            return
        self._clock.after(flow.spacing, self.tick, flow)
        packet = Packet(flow, flow.send(now), flow.source, flow.destination, outward=True)
        translation = self._out.get(flow.destination)
        if translation is None:
            self._apply(self.machine.packet_out(now, packet, flow.destination))
        else:
            self._put_on_wire(packet, translation)
            self._report_use(now, flow.destination)

    def _put_on_wire(self, packet: Packet, translation: Translation) -> None:
        source, destination = translation.outward(packet.source, packet.destination)
        network = self._wiring.network
        receiver: Party = network.last_holder(destination) or self
        announced = translation.announce
        size = packet.flow.size + (24 if announced else 0)
        now = self._clock.now
        tally = self._wiring.tally
        noted = tally.data(now, self, receiver, size, announced=announced is not None)
        on_wire = Packet(packet.flow, packet.number, source, destination, outward=False)
        network.carry(source, destination, self._arrive, _lose_packet, on_wire, announced, noted)

    def _arrive(
        self,
        holder: Party,
        packet: Packet,
        announced: Address | None,
        noted: tuple[Count, list[Line]],
    ) -> None:
        arrived(self._clock.now, noted)
        if isinstance(holder, Host):
            holder.take(packet, announced)

    def take(self, packet: Packet, announced: Address | None) -> None:
        """A data packet has arrived at one of this node's addresses."""
        now = self._clock.now
        translation = self._in.get(packet.source)
        known = translation is not None and translation.accepts(packet.source, packet.destination)
        if translation is None or not known or announced not in (None, translation.home):
            source, destination = packet.source, packet.destination
            self._apply(self.machine.packet_in(now, packet, source, destination, announced))
            return
        self._deliver(packet, translation)
        self._report_use(now, translation.home)

    def _release(self, effect: ReleasePacket) -> None:
        packet = effect.handle
        assert isinstance(packet, Packet)
        if packet.outward:
            self._put_on_wire(packet, effect.translation)
        else:
            self._deliver(packet, effect.translation)

    def _deliver(self, packet: Packet, translation: Translation) -> None:
        """To the application, if the addresses are those of its flow: a socket takes no others."""
        flow, now = packet.flow, self._clock.now
        seen = translation.inward(packet.source, packet.destination)
        if seen != (flow.source, flow.destination) or self.name != flow.receiver:
            return
        flow.deliver(now, packet.number)
        self._first_delivery(now, DOWN, flow.source, packet.destination)
        sender = self._wiring.network.last_holder(packet.source)
        if isinstance(sender, Host) and sender.name == flow.sender:
            sender._first_delivery(now, UP, flow.destination, packet.source)  # noqa: SLF001

    def _first_delivery(self, now: float, way: str, peer: Address, through: Address) -> None:
        if self._current is not None:
            self._current.delivered(now, way, peer, through)
            self._check_complete()

    def _report_use(self, now: float, peer: Address) -> None:
        if now - self._reported.get(peer, -_FOREVER) >= _REPORT_USE:
            self._reported[peer] = now
            self._apply(self.machine.used(now, (peer,)))


def _lose_packet(
    _packet: Packet, _announced: Address | None, noted: tuple[Count, list[Line]]
) -> None:
    lost(noted)
