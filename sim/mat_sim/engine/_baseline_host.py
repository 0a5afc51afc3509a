"""A host of one of the systems that MAT is compared with: the system's machine behind the links."""

from collections.abc import Sequence
from typing import assert_never, final

from mat.address import Address
from mat_sim.baselines import Data, Deliver, Discard, Effect, Lookup, Transmit
from mat_sim.engine._carriage import Asker, Carriage, Carried, Journey
from mat_sim.engine._flow import DOWN, UP, Flow
from mat_sim.engine._handovers import Handovers
from mat_sim.engine._network import Datagram as Travelling


@final
class BaselineHost(Asker):
    """A mobile node, or a correspondent that never moves."""

    __slots__ = ("_carriage", "machine")

    def __init__(
        self,
        number: int,
        name: str,
        role: str,
        home: Address,
        *,
        moves: bool,
        carriage: Carriage,
        handovers: Handovers,
    ) -> None:
        network, tally = carriage.network, carriage.tally
        super().__init__(
            number, name, role, home, network=network, handovers=handovers, tally=tally
        )
        self._carriage = carriage
        self.machine = carriage.system.host(home, moves=moves)
        carriage.knows(self)

    # ---- the machine ---------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When the machine wants to be woken."""
        return self.machine.deadline

    def wake(self, now: float) -> None:
        """The machine's deadline has come."""
        self._apply(self.machine.handle_timer(now))

    def addresses_changed(self, addresses: list[Address], leases: list[float]) -> None:  # noqa: ARG002
        """The links have changed, or their leases, which no system here minds."""
        if tuple(addresses) != self.machine.addresses:
            self._apply(self.machine.addresses_changed(self.clock.now, addresses))
        else:
            self._progress()

    def notifies(self) -> bool:
        """Whether the system has its hosts tell their peers."""
        return self._carriage.system.tells_peers

    def arrived(self, datagram: Travelling) -> None:
        """A datagram has come to one of the addresses."""
        assert isinstance(datagram, Carried)
        effects = self.machine.receive(self.clock.now, datagram.payload)
        self._apply(effects, datagram.destination)

    def found(self, home_address: Address, address: Address | None) -> None:
        """The DNS has answered."""
        self._apply(self.machine.found(self.clock.now, home_address, address))

    def emit(self, flow: Flow) -> None:
        """Send the next packet of a flow."""
        data = Data(Journey(self, flow), flow.source, flow.destination, flow.size)
        self._apply(self.machine.packet_out(self.clock.now, data))

    def _apply(self, effects: Sequence[Effect], through: Address | None = None) -> None:
        """Carry out what the machine wants; `through` is where what it delivers has come to."""
        for effect in effects:
            match effect:
                case Transmit():
                    self._carriage.transmit(self, effect)
                case Deliver():
                    assert through is not None
                    self._deliver(effect.data, through)
                case Lookup():
                    self._carriage.look_up(self, effect.home_address, self.preferred_site())
                case Discard():
                    pass
                case _:
                    assert_never(effect)
        self.rearm()
        self._progress()

    def _progress(self) -> None:
        """Is the new address registered, have the peers been told?"""
        current, machine = self._current, self.machine
        if current is None or machine.addresses[:1] != (current.address,):
            return
        now = self.clock.now
        told = self.notifies() and machine.informed(now, current.peers)
        current.progress(now, registered=machine.registered, told=told)
        self.check_complete()

    def _deliver(self, data: Data, through: Address) -> None:
        """To the application, unless an address of another host's has led the packet here."""
        journey = data.handle
        link = self._network.link_of(through)
        if data.destination != self.home or not isinstance(journey, Journey) or link is None:
            return
        journey.delivered(self.clock.now, link.site)
        self.first_delivery(DOWN, data.source, through)
        if journey.left_by is not None:
            journey.sender.first_delivery(UP, data.destination, journey.left_by)
