"""A MAT node: the real machine behind the links, and the table that its kernel translates by."""

from collections.abc import Sequence
from random import Random
from typing import Final, assert_never, final

from mat.address import Address
from mat.authentication import Key
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
from mat.messages import EXACT, Endpoint, Message
from mat.node import MobileNode
from mat.parameters import Parameters
from mat.resumption import Knowledge
from mat_sim.engine._clock import Happening
from mat_sim.engine._dormancy import Dormitory, Dozer, Packing
from mat_sim.engine._flow import DOWN, UP, Flow
from mat_sim.engine._handovers import Handovers
from mat_sim.engine._network import Datagram, Network, Party
from mat_sim.engine._tally import Count, Line
from mat_sim.engine._wiring import Wiring

_REPORT_USE: Final = 1.0
"""Seconds between reports of a peer's use to the machine, as a driver polls its counters."""
_MUO: Final = 24
"""Bytes of a Mapping Update Option and what carries it."""
_LONG_AGO: Final = float("-inf")


@final
class Packet(Datagram):
    """A data packet: of which flow, its number, and the addresses that it bears at the moment."""

    __slots__ = ("announced", "count", "flow", "lines", "number", "outward")

    def __init__(self, network: Network, flow: Flow, number: int) -> None:
        super().__init__(network, flow.source, flow.destination)
        self.flow = flow
        self.number = number
        self.outward = True
        """Whether it has not left its sender yet."""
        self.announced: Address | None = None
        self.count: Count | None = None
        self.lines: list[Line] | None = None

    def arrive(self, holder: Party) -> None:
        """Whoever holds the destination has it."""
        assert self.count is not None
        self.count.delivered += 1
        if self.lines is not None:
            for line in self.lines:
                line.received = self.network.clock.now
        if isinstance(holder, Host):
            holder.take(self)

    def lose(self) -> None:
        """Only the count knows."""
        assert self.count is not None
        self.count.lost += 1


@final
class Sending(Happening):
    """The next packet of a flow is due."""

    __slots__ = ("_flow", "_host")

    def __init__(self, host: "Host", flow: Flow) -> None:
        self._host = host
        self._flow = flow

    def happen(self) -> None:
        """It leaves, and the one after it is due in a while."""
        clock, flow = self._host.clock, self._flow
        if clock.now < flow.stops:
            clock.after(flow.spacing, self)
            self._host.emit(flow)


@final
class Machines:
    """What the machines of all hosts are made with."""

    __slots__ = ("dormitory", "packing", "parameters", "random")

    def __init__(
        self, parameters: Parameters, random: Random, dormitory: Dormitory, packing: Packing
    ) -> None:
        self.parameters = parameters
        self.random = random
        self.dormitory = dormitory
        self.packing = packing


@final
class Host(Dozer):
    """A mobile node or a correspondent that follows MAT."""

    __slots__ = (
        "_due",
        "_in",
        "_known",
        "_machine",
        "_machines",
        "_out",
        "_reported",
        "_wiring",
        "held_back",
    )

    def __init__(
        self,
        number: int,
        name: str,
        role: str,
        home: Address,
        *,
        machines: Machines,
        wiring: Wiring,
        handovers: Handovers,
    ) -> None:
        network = wiring.network
        super().__init__(number, name, role, home, network=network, handovers=handovers)
        self.held_back = False
        """Whether the machine is to hear nothing before it is told how it begins."""
        self._machines = machines
        self._wiring = wiring
        self._machine: MobileNode | None = None
        self._known: bytes | Knowledge | None = None
        """What a machine that was put away knew."""
        self._due: float | None = None
        """When it wants to be woken."""
        # A table each is much for a million hosts without traffic: it is made when it is needed.
        self._out: dict[Address, Translation] | None = None
        self._in: dict[Address, Translation] | None = None
        self._reported: dict[Address, float] | None = None

    # ---- the machine ---------------------------------------------------------------------------

    @property
    def machine(self) -> MobileNode:
        """The machine; if it was put away, it is made again."""
        if self._machine is None:
            made, known = self._machines, self._known
            key = key_of_host(self.number, self.home)
            self._machine = MobileNode(key, made.random, parameters=made.parameters)
            if isinstance(known, bytes):
                known = made.packing.unpack(self.home, known)
            if known is not None:
                self._machine.resume(self.clock.now, known)
                self._known = None
            if not self.flows and self.partners:
                made.dormitory.woke(self)
        return self._machine

    def rest(self) -> bool:
        """Put the machine away, if nothing is under way."""
        assert self._machine is not None
        knowledge = self._machine.knowledge(self.clock.now)
        if knowledge is None or self._current is not None:
            return False
        self._due = self._machine.deadline
        self._machine.retire()
        self._machine = None
        self._known = self._machines.packing.pack(knowledge) or knowledge
        return True

    def resume(self, knowledge: Knowledge) -> None:
        """Begin with all this known already."""
        self.held_back = False
        self.partners = tuple(peer.mapping.home_address for peer in knowledge.peers)
        if self.flows:
            self.apply(self.machine.resume(self.clock.now, knowledge))
            return
        self._known = self._machines.packing.pack(knowledge) or knowledge
        self._due = min(knowledge.own.refresh, *(peer.query for peer in knowledge.peers))
        self.rearm()

    def begin(self) -> None:
        """Begin from nothing, if this has been held back."""
        if self.held_back:
            self.held_back = False
            self.tell()

    def deadline(self) -> float | None:
        """When the machine wants to be woken."""
        return self._machine.deadline if self._machine is not None else self._due

    def wake(self, now: float) -> None:
        """The machine's deadline has come."""
        self.apply(self.machine.handle_timer(now))

    def receive(self, message: Message, source: Endpoint) -> None:
        """A message has arrived."""
        self.apply(self.machine.receive(self.clock.now, message, source))

    def servers_found(self, home_address: Address, result: Servers | NotFound) -> None:
        """The DNS has answered."""
        self.apply(self.machine.servers_found(self.clock.now, home_address, result))

    def addresses_changed(self, addresses: list[Address], leases: list[float]) -> None:
        """The links have changed, or their leases."""
        if self.held_back:
            return
        self.apply(self.machine.addresses_changed(self.clock.now, addresses, leases))

    def notifies(self) -> bool:
        """In MAT(IPv6) peers are told with the data packets."""
        return not self.machine.announces

    def apply(self, effects: Sequence[NodeEffect]) -> None:
        """Carry out what the machine wants done."""
        self.touched = self.clock.now
        repeat = False
        for effect in effects:
            self._carry_out(effect, repeat=repeat)
            repeat = isinstance(effect, Event) and effect.kind is EventKind.RETRANSMITTED
        self.rearm()
        if self._current is not None:
            self._current.observe(self.clock.now, self.machine)
            self._check_complete()

    def _carry_out(self, effect: NodeEffect, *, repeat: bool) -> None:
        match effect:
            case Send():
                self._wiring.send(self, self._leaving(effect.source), effect, repeat=repeat)
            case SetMapping():
                self._set_mapping(effect.translation)
            case ClearMapping():
                self._clear_mapping(effect.home_address)
            case Lookup():
                self._wiring.look_up(self, effect.home_address, self.preferred_site())
            case ReleasePacket():
                self._release(effect)
            case DropPacket() | Event():
                pass
            case _:
                assert_never(effect)

    def _leaving(self, source: Address | None) -> Address | None:
        """The address a message leaves from: the one named, else that of the preferred link."""
        addresses = self.machine.addresses
        if source is not None and source in addresses:
            return source
        return addresses[0] if addresses else None

    def _set_mapping(self, translation: Translation) -> None:
        if not self.flows:
            return
        if self._out is None or self._in is None:
            self._out, self._in = {}, {}
        self._clear_mapping(translation.home)
        self._out[translation.home] = translation
        for address in translation.accepted:
            self._in[address] = translation

    def _clear_mapping(self, home_address: Address) -> None:
        if self._out is None or self._in is None:
            return
        old = self._out.pop(home_address, None)
        for address in old.accepted if old is not None else ():
            if self._in.get(address) is old:
                del self._in[address]

    # ---- data ----------------------------------------------------------------------------------

    def emit(self, flow: Flow) -> None:
        """Send the next packet of a flow."""
        now = self.clock.now
        packet = Packet(self._network, flow, flow.send(now))
        translation = self._out.get(flow.destination) if self._out is not None else None
        if translation is None:
            self.apply(self.machine.packet_out(now, packet, flow.destination))
        else:
            self._put_on_wire(packet, translation)
            self._report_use(now, flow.destination)

    def _put_on_wire(self, packet: Packet, translation: Translation) -> None:
        flow = packet.flow
        source, destination = translation.outward(flow.source, flow.destination)
        packet.source, packet.destination, packet.outward = source, destination, False
        packet.announced = translation.announce
        announced = translation.announce is not None
        receiver = self._network.last_holder(destination) or self
        tally = self._wiring.tally
        packet.count = tally.count_data(self, receiver, flow.size + (_MUO if announced else 0))
        if tally.watching:
            packet.lines = tally.note_data(self.clock.now, self, receiver, announced=announced)
        packet.depart()

    def take(self, packet: Packet) -> None:
        """A packet has come from the wire: to the application, or to the machine."""
        now = self.clock.now
        assert packet.source is not None
        translation = self._in.get(packet.source) if self._in is not None else None
        if (
            translation is None
            or not translation.accepts(packet.source, packet.destination)
            or (packet.announced is not None and packet.announced != translation.home)
        ):
            source, destination = packet.source, packet.destination
            self.apply(self.machine.packet_in(now, packet, source, destination, packet.announced))
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
        flow, now = packet.flow, self.clock.now
        assert packet.source is not None
        seen = translation.inward(packet.source, packet.destination)
        if seen != (flow.source, flow.destination) or self.name != flow.receiver:
            return
        flow.deliver(now, packet.number)
        self.first_delivery(DOWN, flow.source, packet.destination)
        sender = self._network.last_holder(packet.source)
        if isinstance(sender, Host) and sender.name == flow.sender:
            sender.first_delivery(UP, flow.destination, packet.source)

    def _report_use(self, now: float, peer: Address) -> None:
        if self._reported is None:
            self._reported = {}
        if now - self._reported.get(peer, _LONG_AGO) >= _REPORT_USE:
            self._reported[peer] = now
            self.apply(self.machine.used(now, (peer,)))

    # ---- ladders -------------------------------------------------------------------------------

    def watched(self) -> None:
        """A handover begins: its messages may be wanted for a ladder."""
        self._wiring.tally.watch(self.name, self.home)

    def unwatched(self, *, kind: str, completed: bool) -> None:
        """It is over."""
        self._wiring.tally.unwatch(self.name, kind if completed else None)


def key_of_host(number: int, home: Address) -> Key:
    """The key that a host shares with its IMS: made when it is needed."""
    return Key(number, number.to_bytes(16, "big"), home, EXACT)
