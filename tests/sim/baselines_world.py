"""Real machines of a baseline over a fake network: sites at fixed delays from a core, no queues."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from typing import Protocol, runtime_checkable

from mat.address import Address, format_address, parse_address
from mat_sim.baselines import (
    Data,
    Datagram,
    Deliver,
    Discard,
    Effect,
    Home,
    Host,
    Lookup,
    Path,
    Reason,
    Server,
    System,
    Transmit,
    path,
)

MS = 0.001
SERVER = parse_address("198.18.0.1")
HOME = Home(parse_address("10.0.0.0"), 96 + 16, SERVER)
MN = parse_address("10.0.0.1")
MN2 = parse_address("10.0.0.2")
CN = parse_address("10.32.0.1")
A1, A2 = parse_address("10.128.1.1"), parse_address("10.128.1.2")
B1, B2 = parse_address("10.128.2.1"), parse_address("10.128.2.2")
SIZE = 200
PERIOD = 1 * MS

DELAYS = {SERVER: 20 * MS, CN: 7 * MS, A1: 5 * MS, A2: 5 * MS, B1: 10 * MS, B2: 10 * MS}
"""One way to the core; a mobile node at home is where its home agent is."""
LOOK_UP = 2 * MS


@runtime_checkable
class Asker(Host, Protocol):
    """A host, told from a server at run time."""


@dataclass
class Sent:
    """One datagram on one leg."""

    time: float
    name: str
    origin: str
    target: str
    size: int
    repeat: bool


@dataclass
class Probe:
    """A packet of data: when it was sent, and when it was delivered or why it was not."""

    sent: float
    delivered: float | None = None
    lost: Reason | None = None


@dataclass
class World:
    """Hosts and servers of one system, and what passed between them."""

    system: System
    now: float = 0.0
    hosts: dict[Address, Host] = field(default_factory=dict)
    held: dict[Address, Host] = field(default_factory=dict)
    log: list[Sent] = field(default_factory=list)
    probes: dict[tuple[Address, Address], list[Probe]] = field(default_factory=dict)
    lose: Callable[[Datagram], bool] = lambda _datagram: False
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _count: int = 0

    # ---- building and moving

    def host(self, home: Address, *addresses: Address) -> Host:
        """A mobile host at these addresses, or, without any, one that is at home for good."""
        host = self.hosts[home] = self.system.host(home, moves=bool(addresses))
        self.move(host, *(addresses or (home,)))
        return host

    def move(self, host: Host, *addresses: Address) -> None:
        """The host has these addresses from now on."""
        self.held = {address: who for address, who in self.held.items() if who is not host}
        self.held |= dict.fromkeys(addresses, host)
        self.apply(host, host.addresses_changed(self.now, addresses))

    def move_all(self, *moves: tuple[Host, tuple[Address, ...]]) -> None:
        """Several hosts at once."""
        for host, addresses in moves:
            self.move(host, *addresses)

    def flow(self, source: Address, destination: Address, start: float, stop: float) -> None:
        """Packets in the middle of every millisecond."""
        probes = self.probes.setdefault((source, destination), [])
        for number in range(round((stop - start) / PERIOD)):
            self.at(start + (number + 0.5) * PERIOD, lambda: self._send(source, destination))
        assert probes == []

    def _send(self, source: Address, destination: Address) -> None:
        probe = Probe(self.now)
        self.probes[source, destination].append(probe)
        host = self.hosts[source]
        self.apply(host, host.packet_out(self.now, Data(probe, source, destination, SIZE)))

    # ---- time

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Do something later."""
        self._count += 1
        heappush(self._events, (time, self._count, action))

    def run(self, until: float) -> None:
        """Let time pass."""
        while True:
            event = self._events[0][0] if self._events else float("inf")
            due, machine = self._first_deadline()
            if min(event, due) > until:
                self.now = until
                return
            if event <= due:
                self.now, _, action = heappop(self._events)
                action()
            else:
                self.now = max(self.now, due)
                assert machine is not None
                self.apply(machine, machine.handle_timer(self.now))

    def _first_deadline(self) -> tuple[float, Host | Server | None]:
        best: tuple[float, Host | Server | None] = (float("inf"), None)
        machines: list[Host | Server] = [*self.hosts.values(), *self.system.servers.values()]
        for machine in machines:
            if machine.deadline is not None and machine.deadline < best[0]:
                best = (machine.deadline, machine)
        return best

    # ---- effects

    def apply(self, machine: Host | Server, effects: Sequence[Effect]) -> None:
        """Carry out what a machine wants."""
        for effect in effects:
            match effect:
                case Transmit():
                    self._carry(effect)
                case Deliver(Data(handle=Probe() as probe)):
                    assert probe.delivered is None
                    probe.delivered = self.now
                case Discard(Data(handle=Probe() as probe), reason):
                    probe.lost = reason
                case Lookup(home):
                    self.at(self.now + LOOK_UP, partial(self._found, machine, home))
                case _:
                    raise AssertionError(effect)

    def _found(self, machine: Host | Server, home: Address) -> None:
        assert isinstance(machine, Asker)
        answer = self.system.answer(self.now, home)
        self.apply(machine, machine.found(self.now, home, answer))

    def _carry(self, transmit: Transmit) -> None:
        datagram, origin = transmit.datagram, transmit.leaves_from
        target = datagram.destination
        if target not in self.system.servers:
            target = self.system.catcher(self.now, target) or target
        size, name = datagram.size, datagram.name
        entry = Sent(self.now, name, self.role(origin), self.role(target), size, transmit.repeat)
        self.log.append(entry)
        if origin not in {*self.held, *self.system.servers} or self.lose(datagram):
            return
        delay = self.delay(origin) + self.delay(target)
        self.at(self.now + delay, lambda: self._arrive(target, datagram))

    def _arrive(self, target: Address, datagram: Datagram) -> None:
        machine = self.system.servers.get(target) or self.held.get(target)
        if machine is not None:
            self.apply(machine, machine.receive(self.now, datagram))

    def delay(self, address: Address) -> float:
        """From an address to the core."""
        return DELAYS.get(address, DELAYS[SERVER])

    def role(self, address: Address) -> str:
        """MN, MN2, CN or the server's role."""
        if address in self.system.servers:
            return self.system.servers[address].role
        names = {MN: "MN", MN2: "MN2", CN: "CN"}
        host = self.held.get(address)
        return names[host.home_address] if host else "?"

    # ---- looking

    def first_after(self, source: Address, destination: Address, time: float) -> float | None:
        """The first packet sent after `time` that was delivered: when it was sent, after `time`."""
        sent = [
            probe.sent
            for probe in self.probes[source, destination]
            if probe.sent > time and probe.delivered is not None
        ]
        return sent[0] - time if sent else None

    def signalling(self, since: float = 0.0) -> list[tuple[str, str, str, int]]:
        """Type, from, to and length of every message since."""
        return [
            (sent.name, sent.origin, sent.target, sent.size)
            for sent in self.log
            if sent.name != "data" and sent.time >= since
        ]

    def path(self, source: Address, destination: Address) -> Path:
        """The way of a packet now."""
        data = Data(None, source, destination, SIZE)
        return path(self.now, data, self.hosts[source], self.system, self.held.get)

    def legs(self, source: Address, destination: Address) -> list[tuple[str, str, int]]:
        """The way of a packet now, with its header overhead on each leg."""
        way = self.path(source, destination)
        assert way.failure is None, (way, [format_address(one) for one in way.waypoints])
        return [(self.role(leg.origin), self.role(leg.target), leg.size - SIZE) for leg in way.legs]
