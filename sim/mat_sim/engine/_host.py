"""A MAT node: the real machine behind the links, and the table that its kernel translates by."""

from collections.abc import Sequence
from random import Random
from typing import Final, assert_never, final

from mat.address import Address, is_ipv4
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
from mat.messages import EXACT, Endpoint, ImsUpdateReply, Message
from mat.node import MobileNode
from mat.parameters import Parameters
from mat.resumption import Knowledge
from mat_files.capture import PROBE_PORT, probe_payload, udp_packet
from mat_sim.baselines import IPV4_HEADER, IPV6_HEADER, UDP_HEADER
from mat_sim.engine._clock import Happening
from mat_sim.engine._conversations import HEARD_SHARE, Conversations, Tie
from mat_sim.engine._dormancy import Packing
from mat_sim.engine._flow import DOWN, UP, Flow
from mat_sim.engine._handovers import Handovers
from mat_sim.engine._network import Network, Party
from mat_sim.engine._roamer import Roamer
from mat_sim.engine._tally import Counted
from mat_sim.engine._wiring import Wiring

MUO: Final = 24
"""Bytes of a Mapping Update Option and what carries it."""


@final
class Packet(Counted):
    """A data packet: of which flow, its number, and the addresses that it bears at the moment."""

    __slots__ = ("announced", "flow", "number", "outward", "sent")

    def __init__(self, network: Network, flow: Flow, number: int, sent: float) -> None:
        super().__init__(network, flow.source, flow.destination, count=None, lines=None)
        self.flow = flow
        self.number = number
        self.sent = sent
        """When the application sent it, s."""
        self.outward = True
        """Whether it has not left its sender yet."""
        self.announced: Address | None = None

    def content(self) -> bytes:
        """A probe, as the lab sends them."""
        assert self.source is not None
        flow, ends = self.flow, (self.source, self.destination)
        size = flow.size - (IPV4_HEADER if is_ipv4(ends[0]) else IPV6_HEADER) - UDP_HEADER
        payload = probe_payload(self.number, round(self.sent * 1e9), size)
        source, destination = (Endpoint(end, PROBE_PORT) for end in ends)
        return udp_packet(source, destination, payload, self.announced)

    def travel(self, arrival: float) -> None:
        """At equal times, packets go before messages: it does not matter what was asked first."""
        self.network.clock.early_at(arrival, self)

    def wire_size(self) -> int:
        """Its length, with a Mapping Update Option where it carries one, bytes."""
        return self.flow.size + (MUO if self.announced is not None else 0)

    def reach(self, holder: Party) -> None:
        """A host takes it, or leaves it to its machine."""
        if isinstance(holder, Host):
            holder.take(self)


@final
class Sending(Happening):
    """The next packet of a flow is due."""

    __slots__ = ("_flow", "_host")

    def __init__(self, host: Roamer, flow: Flow) -> None:
        self._host = host
        self._flow = flow

    def happen(self) -> None:
        """It leaves, and the one after it is due in a while."""
        clock, flow = self._host.clock, self._flow
        if clock.now < flow.stops and not flow.doze():
            flow.rhythm.advance()
            clock.early_at(flow.rhythm.next, self)
            self._host.emit(flow)


@final
class Parting(Happening):
    """A flow between two nodes is over, as one of them has left for good."""

    __slots__ = ("_ends",)

    def __init__(self, *ends: Roamer) -> None:
        self._ends = ends

    def happen(self) -> None:
        """No handover waits for its packets any more."""
        for end in self._ends:
            end.check_complete()


@final
class Machines:
    """What the machines of all hosts are made with."""

    __slots__ = ("packing", "parameters", "random")

    def __init__(self, parameters: Parameters, random: Random, packing: Packing) -> None:
        self.parameters = parameters
        self.random = random
        self.packing = packing


@final
class Host(Roamer):
    """A mobile node or a correspondent that follows MAT."""

    __slots__ = (
        "_due",
        "_known",
        "_machine",
        "_machines",
        "_talk",
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
        network, tally = wiring.network, wiring.tally
        super().__init__(
            number, name, role, home, network=network, handovers=handovers, tally=tally
        )
        self.held_back = False
        """Whether the machine is to hear nothing before it is told how it begins."""
        self._machines = machines
        self._wiring = wiring
        self._machine: MobileNode | None = None
        self._known: bytes | Knowledge | None = None
        """What a machine that was put away knew."""
        self._due: float | None = None
        """When it wants to be woken."""
        self._talk: Conversations | None = None
        """Its traffic; most of a million hosts have none."""

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
        return self._machine

    def _rest(self, machine: MobileNode) -> None:
        """Put the machine away, if nothing is under way."""
        knowledge = machine.knowledge(self.clock.now)
        if knowledge is not None:
            machine.retire()
            self._machine = None
            self._keep(knowledge)

    def resume(self, knowledge: Knowledge) -> None:
        """Begin with all this known already."""
        self.held_back = False
        self.partners = tuple(peer.mapping.home_address for peer in knowledge.peers)
        if self.flows:
            self.apply(self.machine.resume(self.clock.now, knowledge))
            return
        self._keep(knowledge)
        self.rearm()

    def _keep(self, knowledge: Knowledge) -> None:
        """Know this without a machine."""
        self.forget_endpoints()
        self._known = self._machines.packing.pack(knowledge) or knowledge
        self._due = knowledge.own.refresh
        for peer in knowledge.peers:
            self._due = min(self._due, peer.query)

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
        self.apply(self._informed().handle_timer(now))

    def receive(self, message: Message, source: Endpoint) -> None:
        """A message has arrived."""
        # A registration that is acknowledged is told to all peers, in order of their use.
        machine = self._informed(of_all=isinstance(message, ImsUpdateReply))
        self.apply(machine.receive(self.clock.now, message, source))

    def servers_found(self, home_address: Address, result: Servers | NotFound) -> None:
        """The DNS has answered."""
        self.apply(self._informed().servers_found(self.clock.now, home_address, result))

    def addresses_changed(self, addresses: list[Address], leases: list[float]) -> None:
        """The links have changed, or their leases."""
        for _, flow in self.flows:
            flow.wake()
        if self.held_back:
            return
        machine = self._informed(of_all=True)
        self.apply(machine.addresses_changed(self.clock.now, addresses, leases))

    def notifies(self) -> bool:
        """In MAT(IPv6) peers are told with the data packets."""
        return not self.machine.announces

    def apply(self, effects: Sequence[NodeEffect]) -> None:
        """Carry out what the machine wants done."""
        if self._talk is not None:
            self._talk.machine_acts()
        repeat = False
        for effect in effects:
            self._carry_out(effect, repeat=repeat)
            repeat = isinstance(effect, Event) and effect.kind is EventKind.RETRANSMITTED
        self.rearm()
        if self._current is not None:
            self._current.observe(self.clock.now, self.machine)
            self.check_complete()
        if self._current is None and not self.flows and self._machine is not None:
            self._rest(self._machine)

    def _carry_out(self, effect: NodeEffect, *, repeat: bool) -> None:
        match effect:
            case Send():
                self._wiring.send(self, self._leaving(effect.source), effect, repeat=repeat)
            case SetMapping():
                if self._talk is not None:
                    self._talk.set(effect.translation)
            case ClearMapping():
                if self._talk is not None:
                    self._talk.clear(effect.home_address)
            case Lookup():
                source = self._leaving(None)
                self._wiring.look_up(self, effect.home_address, self.preferred_site(), source)
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

    # ---- data ----------------------------------------------------------------------------------

    def tie(self, peer: Address) -> Tie:
        """The traffic with a peer, which is expected from now on."""
        if self._talk is None:
            self._talk = Conversations()
        return self._talk.tie(peer)

    def emit(self, flow: Flow) -> None:
        """Send the next packet of a flow."""
        now, talk = self.clock.now, self._talk
        assert talk is not None
        packet = Packet(self._network, flow, flow.send(now), now)
        translation = talk.outward(flow.destination)
        if translation is None:
            effects = self._informed().packet_out(now, packet, flow.destination)
            flow.kept(packet, effects, talk.inputs)
            if not _only_drops(effects):
                self.apply(effects)
        else:
            self._put_on_wire(packet, translation)
            self._report_use(now, flow.destination)

    def _put_on_wire(self, packet: Packet, translation: Translation) -> None:
        flow = packet.flow
        source, destination = translation.outward(flow.source, flow.destination)
        packet.source, packet.destination, packet.outward = source, destination, False
        packet.announced = translation.announce
        receiver = self._network.last_holder(destination) or self
        tally = self._tally
        packet.count = tally.count_data(self, receiver, packet.wire_size())
        if tally.watching:
            announced = translation.announce is not None
            packet.lines = tally.note_data(self.clock.now, self, receiver, announced=announced)
        packet.depart()

    def take(self, packet: Packet) -> None:
        """A packet has come from the wire: to the application, or to the machine."""
        now = self.clock.now
        assert packet.source is not None
        translation = self._accepting(packet.source, packet.destination, packet.announced)
        if translation is None:
            source, destination = packet.source, packet.destination
            machine = self._informed()
            self.apply(machine.packet_in(now, packet, source, destination, packet.announced))
            return
        self._deliver(packet, translation)
        self._report_use(now, translation.home)

    def _accepting(
        self, source: Address, destination: Address, announced: Address | None
    ) -> Translation | None:
        """How a packet from the wire is translated; None if that is for the machine to say."""
        translation = self._talk.inward(source) if self._talk is not None else None
        if (
            translation is None
            or not translation.accepts(source, destination)
            or (announced is not None and announced != translation.home)
        ):
            return None
        return translation

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
        flow.deliver(now, packet.number, packet.sent)
        if packet.announced is not None:
            flow.headers += MUO
        self.first_delivery(DOWN, flow.source, packet.destination)
        sender = self._network.last_holder(packet.source)
        if isinstance(sender, Host) and sender.name == flow.sender:
            sender.first_delivery(UP, flow.destination, packet.source)

    def _report_use(self, now: float, peer: Address) -> None:
        """The machine hears of the first packet within a second (`_conversations`)."""
        assert self._talk is not None
        tie = self._talk.tie(peer)
        tie.settle(now)
        if tie.is_news(now):
            machine = self._informed()
            tie.passed(now)
            self._apply_if_any(machine.used(now, (peer,)))

    def _informed(self, *, of_all: bool = False) -> MobileNode:
        """The machine, for its next input: it has heard of the traffic that took no events.

        `of_all`: of all peers, and the order in which they were in use last is right.
        """
        machine, talk = self.machine, self._talk
        if talk is None or not talk.is_quiet:
            return machine
        now, idle = self.clock.now, self._machines.parameters.peer_idle_time
        everybody = of_all or talk.few or now - talk.heard > idle * HEARD_SHARE
        if everybody:
            talk.heard = now
        if of_all and not talk.few:
            uses = talk.uses(now, machine.peers())
        else:
            uses = talk.news(now, everybody=everybody)
        for at, peer, known in uses:
            self._tell_use(machine, peer, known, at)
        return machine

    def _tell_use(self, machine: MobileNode, peer: Address, known: float, at: float) -> None:
        """The machine knows of use until `known`: after a long time, it hears of it in steps."""
        step = self._machines.parameters.peer_idle_time / 2
        while known > 0 and at - known > step:
            known += step
            self._apply_if_any(machine.used(known, (peer,)))
        self._apply_if_any(machine.used(at, (peer,)))

    def _apply_if_any(self, effects: Sequence[NodeEffect]) -> None:
        if effects:
            self.apply(effects)

    # ---- data without events (`_quiet`) --------------------------------------------------------

    def translation_to(self, peer: Address) -> Translation | None:
        """How packets to a peer leave; None if that is for the machine to say."""
        return self._talk.outward(peer) if self._talk is not None else None

    def would_deliver(
        self, flow: Flow, source: Address, destination: Address, announced: Address | None
    ) -> bool:
        """Whether packets of a flow that come with these addresses reach the application."""
        translation = self._accepting(source, destination, announced)
        if translation is None or self.name != flow.receiver:
            return False
        return translation.inward(source, destination) == (flow.source, flow.destination)

    def conversations(self) -> Conversations:
        """Its traffic."""
        assert self._talk is not None
        return self._talk


def key_of_host(number: int, home: Address) -> Key:
    """The key that a host shares with its IMS: made when it is needed."""
    return Key(number, number.to_bytes(16, "big"), home, EXACT)


def _only_drops(effects: Sequence[NodeEffect]) -> bool:
    """Whether there is nothing to do for a driver."""
    return all(isinstance(effect, DropPacket) for effect in effects)
