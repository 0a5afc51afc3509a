"""Real machines over a fake network: the fixture of the protocol tests.

Hosts with addresses, IMS with stores, a DNS, and a network that delivers each datagram and packet
after a delay to whoever holds the destination address by then. Everything crosses the codec. A
host's kernel is its table of translations; only what that does not cover reaches the machine.
Time stands still between `run` calls, and equal seeds give equal logs.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from mat.address import Address, in_prefix, parse_address
from mat.authentication import Key
from mat.codec import Malformed, decode, encode
from mat.effects import (
    ClearMapping,
    DropPacket,
    Effect,
    Event,
    EventKind,
    Learned,
    Lookup,
    NotFound,
    ReadByHome,
    ReadByMobile,
    ReleasePacket,
    Send,
    SetMapping,
    StoreWrite,
    Translation,
)
from mat.mapping_table import Servers
from mat.messages import (
    EXACT,
    MAT_PORT,
    NAMES,
    Endpoint,
    Message,
)
from mat.node import MobileNode
from mat.parameters import DEFAULTS, Parameters
from mat.registrations import Outcome, RegistrationTable
from mat.server import MappingServer

STANDSTILL = 100_000


@dataclass
class Packet:
    """A data packet: who sent it to whom, in truth, and by which home addresses."""

    number: int
    sender: str
    receiver: str
    source: Address
    destination: Address


@dataclass
class Held:
    """A packet as the driver holds it: which way it goes, and the addresses it bears."""

    packet: Packet
    outward: bool
    source: Address
    destination: Address


@dataclass
class Delivery:
    """A packet handed to the applications of a host, under the addresses they see."""

    time: float
    at: str
    packet: Packet
    source: Address
    destination: Address


@dataclass
class Host:
    """A MAT node: the machine, and the table its kernel translates by."""

    name: str
    key: Key
    machine: MobileNode
    kernel: dict[Address, Translation] = field(default_factory=dict)


@dataclass
class Server:
    """An IMS: the machine, its address and its store."""

    name: str
    endpoint: Endpoint
    machine: MappingServer
    store: RegistrationTable
    store_up: bool = True


class World:
    """The fake network and everything on it. Delays in seconds, one way."""

    def __init__(
        self, seed: int = 1, *, delay: float = 0.010, parameters: Parameters = DEFAULTS
    ) -> None:
        self.now = 0.0
        self.delay = delay
        self.dns_delay = 0.004
        self.parameters = parameters
        self.random = random.Random(seed)
        self.hosts: dict[str, Host] = {}
        self.servers: dict[str, Server] = {}
        self.zones: dict[Address, Servers | NotFound] = {}
        self.holder: dict[Address, str] = {}
        self.log: list[tuple[float, str, str, str]] = []
        self.events: Counter[EventKind] = Counter()
        self.unconfirmed: dict[tuple[str, Address], float] = {}
        """When a host last went on without the confirmation of a peer."""
        self.deliveries: list[Delivery] = []
        self.dropped: list[tuple[Packet, str]] = []
        self.lose: Callable[[str, str, str], bool] = lambda _source, _target, _what: False
        self.drops_options = False
        self.delays: Callable[[], list[float]] = lambda: [self.delay]
        """The delay of each copy of a datagram that arrives."""
        self.sent_to: list[tuple[Packet, Address]] = []
        self.registered: dict[Address, set[Address]] = {}
        """Every mobile address that an IMS ever stored for a home address."""
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._packets = 0

    # ---- building ------------------------------------------------------------------------------

    def add_server(self, name: str, address: str, *homes: str) -> Server:
        """An IMS at `address` for the home prefixes (or addresses) `homes`."""
        endpoint = Endpoint(parse_address(address), MAT_PORT)
        prefixes = [_prefix(home) for home in homes]
        store = RegistrationTable()
        machine = MappingServer(
            self._key_of,
            lambda home: any(in_prefix(home, prefix, length) for prefix, length in prefixes),
            random.Random(self.random.getrandbits(64)),
            parameters=self.parameters,
        )
        server = self.servers[name] = Server(name, endpoint, machine, store)
        self.holder[endpoint.address] = name
        return server

    def add_host(self, name: str, home: str, *servers: str, announces: bool | None = None) -> Host:
        """A MAT node whose IMS record names `servers`."""
        prefix, length = _prefix(home)
        key = Key(len(self.hosts) + 1, name.encode().ljust(16, b"."), prefix, length)
        self.zones[prefix] = tuple(self.servers[server].endpoint for server in servers)
        host = self.hosts[name] = Host(name, key, self._machine(key, announces))
        return host

    def _machine(self, key: Key, announces: bool | None, clock: float = 1e9) -> MobileNode:
        source = random.Random(self.random.getrandbits(64))
        return MobileNode(
            key, source, parameters=self.parameters, wall_clock=clock, announces=announces
        )

    def reboot(self, name: str, clock: float = 1e9) -> None:
        """Everything the host knew is gone, its addresses too; its clock shows `clock`."""
        host = self.hosts[name]
        self.release(name)
        host.machine = self._machine(host.key, None, clock)
        host.kernel = {}

    def _key_of(self, key_id: int) -> Key | None:
        return next((h.key for h in self.hosts.values() if h.key.key_id == key_id), None)

    # ---- doing ---------------------------------------------------------------------------------

    def attach(self, name: str, *addresses: str, until: Sequence[float] = ()) -> None:
        """The host has exactly these addresses now, in this order of priority."""
        self.release(name)
        parsed = [parse_address(address) for address in addresses]
        for address in parsed:
            self.holder[address] = name
        self.apply(name, self.hosts[name].machine.addresses_changed(self.now, parsed, until))

    def release(self, name: str) -> None:
        """The network knows no address of this host any more; the host is not told."""
        for address in [a for a, holder in self.holder.items() if holder == name]:
            del self.holder[address]

    def send(self, sender: str, receiver: str, host_part: int = 0) -> Packet:
        """An application on one host sends a packet to the home address of another."""
        self._packets += 1
        source, destination = (
            self.hosts[sender].key.home_address,
            self.hosts[receiver].key.home_address,
        )
        destination = Address(destination[:-1] + bytes((destination[-1] + host_part,)))
        packet = Packet(self._packets, sender, receiver, source, destination)
        self._out_of_host(sender, packet)
        return packet

    def send_plain(
        self,
        sender: str,
        source: str,
        destination: Address,
        *,
        receiver: str = "",
        announced: Address | None = None,
    ) -> Packet:
        """A host without MAT sends a packet from an address it holds."""
        self._packets += 1
        at = parse_address(source)
        packet = Packet(self._packets, sender, receiver, at, destination)
        self._carry(sender, packet, at, destination, announced)
        return packet

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        at_once = 0
        while True:
            at, act = self._next()
            if at > end:
                break
            at_once = at_once + 1 if at <= self.now else 0
            assert at_once < STANDSTILL, "time stands still: a timer re-arms itself for now"
            self.now = max(self.now, at)
            act()
        self.now = end

    def _next(self) -> tuple[float, Callable[[], None]]:
        timers = [
            (machine.deadline, name)
            for name, machine in self._machines()
            if machine.deadline is not None
        ]
        due, name = min(timers, default=(float("inf"), ""))
        if self._queue and self._queue[0][0] <= due:
            at = self._queue[0][0]
            return at, self._take_next
        return due, lambda: self.apply(name, self._timer(name))

    def _take_next(self) -> None:
        heapq.heappop(self._queue)[2]()

    def _machines(self) -> Iterator[tuple[str, MobileNode | MappingServer]]:
        yield from ((host.name, host.machine) for host in self.hosts.values())
        yield from ((server.name, server.machine) for server in self.servers.values())

    def _timer(self, name: str) -> Sequence[Effect]:
        if name in self.hosts:
            return self.hosts[name].machine.handle_timer(self.now)
        return self.servers[name].machine.handle_timer(self.now)

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something later."""
        self._count += 1
        heapq.heappush(self._queue, (self.now + seconds, self._count, act))

    # ---- effects -------------------------------------------------------------------------------

    def apply(self, name: str, effects: Sequence[Effect]) -> None:
        """Carry out what the machine of `name` wants."""
        for effect in effects:
            self._apply(name, effect)

    def _apply(self, name: str, effect: Effect) -> None:
        match effect:
            case Send():
                self._transmit(name, effect)
            case Lookup():
                self._look_up(name, effect.home_address)
            case SetMapping():
                self.hosts[name].kernel[effect.translation.home] = effect.translation
            case ClearMapping():
                self.hosts[name].kernel.pop(effect.home_address, None)
            case ReleasePacket():
                self._release(name, effect)
            case DropPacket():
                assert isinstance(effect.handle, Held)
                self.dropped.append((effect.handle.packet, effect.reason.name))
            case Event():
                self.events[effect.kind] += 1
                if effect.kind is EventKind.PEER_UNCONFIRMED and effect.about is not None:
                    self.unconfirmed[name, effect.about] = self.now
            case StoreWrite() | ReadByHome() | ReadByMobile():
                self._store(name, effect)
            case Learned():
                pass  # each IMS here is one machine
            case _:
                assert_never(effect)

    def _store(self, name: str, effect: StoreWrite | ReadByHome | ReadByMobile) -> None:
        server = self.servers[name]
        if isinstance(effect, StoreWrite):
            up = server.store_up
            result = server.store.write(effect.registration) if up else (Outcome.UNAVAILABLE, 0)
            if result[0] is Outcome.STORED:
                known = self.registered.setdefault(effect.registration.home_address, set())
                known.update(effect.registration.mobile_addresses)
            self.apply(name, server.machine.written(self.now, effect, *result))
        elif not server.store_up:
            self.apply(name, server.machine.read(self.now, effect, Outcome.UNAVAILABLE))
        elif isinstance(effect, ReadByHome):
            found = server.store.by_home(effect.home_address)
            self.apply(name, server.machine.read(self.now, effect, found))
        else:
            moved = server.store.by_mobile(effect.mobile_address)
            self.apply(name, server.machine.read(self.now, effect, moved))

    def _look_up(self, name: str, home_address: Address) -> None:
        self.log.append((self.now, name, "DNS", "DNS"))
        if self.lose(name, "DNS", "DNS"):
            result: Servers | NotFound = NotFound.FAILED
        else:
            result = self._zone(home_address)

        def answer() -> None:
            machine = self.hosts[name].machine if name in self.hosts else self.servers[name].machine
            self.apply(name, machine.servers_found(self.now, home_address, result))

        self.after(2 * self.dns_delay, answer)

    def _zone(self, home_address: Address) -> Servers | NotFound:
        for host in self.hosts.values():
            if in_prefix(home_address, host.key.home_address, host.key.prefix_length):
                return self.zones[host.key.home_address]
        return NotFound.NOT_MAT

    def source_of(self, name: str, effect: Send) -> Address | None:
        """The address a message leaves from."""
        if name in self.servers:
            return self.servers[name].endpoint.address
        addresses = self.hosts[name].machine.addresses
        if effect.source in addresses:
            return effect.source
        return addresses[0] if addresses else None

    def _transmit(self, name: str, effect: Send) -> None:
        source = self.source_of(name, effect)
        if source is None:
            return
        target = self._holder_of(effect.destination.address)
        what = NAMES[type(effect.message)]
        self.log.append((self.now, name, target, what))
        if self.lose(name, target, what):
            return
        datagram = encode(effect.message)
        came_from = Endpoint(source, MAT_PORT)
        for delay in self.delays():
            self.after(delay, lambda: self._arrive(effect.destination, datagram, came_from))

    def _arrive(self, destination: Endpoint, datagram: bytes, source: Endpoint) -> None:
        name = self._holder_of(destination.address)
        message: Message | Malformed = decode(datagram)
        assert not isinstance(message, Malformed), (message, datagram.hex())
        if name in self.servers:
            self.apply(name, self.servers[name].machine.receive(self.now, message, source))
        elif name in self.hosts:
            self.apply(name, self.hosts[name].machine.receive(self.now, message, source))

    # ---- packets -------------------------------------------------------------------------------

    def _translation(self, name: str, home: Address) -> Translation | None:
        for translation in self.hosts[name].kernel.values():
            if home == translation.home:
                return translation
        return None

    def _out_of_host(self, name: str, packet: Packet) -> None:
        translation = self._translation(name, packet.destination)
        machine = self.hosts[name].machine
        if translation is None:
            handle = Held(packet, True, packet.source, packet.destination)
            self.apply(name, machine.packet_out(self.now, handle, packet.destination))
            return
        self._put_on_wire(name, packet, translation)
        self.apply(name, machine.used(self.now, [translation.home]))

    def _put_on_wire(self, name: str, packet: Packet, translation: Translation) -> None:
        source, destination = translation.outward(packet.source, packet.destination)
        self._carry(name, packet, source, destination, translation.announce)

    def _carry(
        self,
        name: str,
        packet: Packet,
        source: Address,
        destination: Address,
        announced: Address | None,
    ) -> None:
        target = self._holder_of(destination)
        what = "data" if announced is None else "data+MUO"
        self.log.append((self.now, name, target, what))
        lost = self.lose(name, target, what) or (self.drops_options and announced is not None)
        if lost or self._holder_of(source) != name:
            return
        if packet.sender in self.hosts and packet.receiver in self.hosts:
            self.sent_to.append((packet, destination))
        for delay in self.delays():
            self.after(delay, lambda: self._into_host(source, destination, announced, packet))

    def _holder_of(self, address: Address) -> str:
        exact = self.holder.get(address)
        if exact is not None:
            return exact
        for host in self.hosts.values():
            length = host.key.prefix_length
            for own in host.machine.addresses:
                if length != EXACT and in_prefix(address, own, length) and own in self.holder:
                    return host.name
        return "nobody"

    def _into_host(
        self, source: Address, destination: Address, announced: Address | None, packet: Packet
    ) -> None:
        name = self._holder_of(destination)
        if name not in self.hosts:
            return
        machine = self.hosts[name].machine
        for translation in self.hosts[name].kernel.values():
            if not translation.accepts(source, destination):
                continue
            seen = translation.inward(source, destination)
            if announced is None or announced == seen[0]:
                self._deliver(name, packet, *seen)
                self.apply(name, machine.used(self.now, [translation.home]))
                return
        handle = Held(packet, False, source, destination)
        self.apply(name, machine.packet_in(self.now, handle, source, destination, announced))

    def _release(self, name: str, effect: ReleasePacket) -> None:
        held = effect.handle
        assert isinstance(held, Held)
        if held.outward:
            self._put_on_wire(name, held.packet, effect.translation)
        else:
            seen = effect.translation.inward(held.source, held.destination)
            self._deliver(name, held.packet, *seen)

    def _deliver(self, name: str, packet: Packet, source: Address, destination: Address) -> None:
        self.deliveries.append(Delivery(self.now, name, packet, source, destination))

    # ---- reading -------------------------------------------------------------------------------

    def messages(self, since: float = 0.0) -> list[str]:
        """What was sent from `since` on, as `from → to: what`."""
        return [f"{a} → {b}: {what}" for at, a, b, what in self.log if at >= since]


def _prefix(text: str) -> tuple[Address, int]:
    """`10.0.0.1`, `10.0.0.0/24` or `2001:db8::/64` with the length in the 128-bit form."""
    address, _, length = text.partition("/")
    if not length:
        return parse_address(address), EXACT
    return parse_address(address), int(length) + (0 if ":" in address else 96)
