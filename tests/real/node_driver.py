"""Real node machines over real sockets: a host of the lab is a `mat.node.MobileNode` with a socket.

Mobile addresses are not of this machine, so the lab knows which socket stands for which: what is
sent to a mobile address goes to the socket of the host that has it, and comes from one it has. The
servers are reached where they are. The DNS is a table. Nothing runs but in `run_until`.
"""

import random
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Self, assert_never

from mat.address import Address, format_address, from_ipv4, parse_address
from mat.authentication import Key
from mat.codec import Malformed, decode, encode
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
from mat.messages import MAT_PORT, Endpoint
from mat.node import MobileNode
from mat.parameters import DEFAULTS, Parameters
from tests.real.ims_server import START_LIMIT

LONGEST_SLEEP = 0.05


class Host:
    """A host with one home address: its machine, its socket, and what it was told."""

    def __init__(self, lab: "Lab", key: Key, parameters: Parameters) -> None:
        self._lab = lab
        wall_clock = time.time() - time.monotonic()
        self.node = MobileNode(key, lab.random, parameters=parameters, wall_clock=wall_clock)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(("127.0.0.1", 0))
        self.translations: dict[Address, Translation] = {}
        self.events: Counter[EventKind] = Counter()
        self.released: list[object] = []
        self.dropped: list[object] = []

    def move(self, *moved: str) -> None:
        """Have these mobile addresses from now on."""
        addresses = tuple(map(parse_address, moved))
        self._lab.moved(self, addresses)
        self.carry_out(self.node.addresses_changed(time.monotonic(), addresses))

    def talk(self, packet: str, home: str) -> None:
        """Send a packet to a home address; it comes out in `released`, or in `dropped`."""
        self.carry_out(self.node.packet_out(time.monotonic(), packet, parse_address(home)))

    @property
    def registered(self) -> list[str]:
        """The mobile addresses that a replica has acknowledged."""
        return [format_address(address) for address in self.node.registered]

    def where_is(self, home: str) -> str:
        """The mobile address that packets to a home address go to; empty if they wait."""
        known = self.translations.get(parse_address(home))
        return "" if known is None else format_address(known.mobile)

    def readable(self) -> None:
        """Hand in what has arrived."""
        with suppress(BlockingIOError):
            while True:
                try:
                    datagram, (host, port) = self.socket.recvfrom(2048)
                except ConnectionRefusedError:
                    # A server that is dead: the machine notices by itself, as over a network.
                    continue
                message = decode(datagram)
                assert not isinstance(message, Malformed)
                source = self._lab.source(host, port)
                self.carry_out(self.node.receive(time.monotonic(), message, source))

    def wake(self) -> None:
        """Have done whatever is due."""
        deadline, now = self.node.deadline, time.monotonic()
        if deadline is not None and deadline <= now:
            self.carry_out(self.node.handle_timer(now))

    def carry_out(self, effects: Sequence[NodeEffect]) -> None:
        """Do what the machine wants done."""
        for effect in effects:
            match effect:
                case Send():
                    self._lab.send(self, encode(effect.message), effect.destination)
                case Lookup():
                    found = self._lab.servers_of(effect.home_address)
                    now = time.monotonic()
                    self.carry_out(self.node.servers_found(now, effect.home_address, found))
                case SetMapping():
                    self.translations[effect.translation.home] = effect.translation
                case ClearMapping():
                    self.translations.pop(effect.home_address, None)
                case ReleasePacket():
                    self.released.append(effect.handle)
                case DropPacket():
                    self.dropped.append(effect.handle)
                case Event():
                    self.events[effect.kind] += 1
                case _:
                    assert_never(effect)


class Lab:
    """Hosts of one zone, whose IMS has these replicas, as (address, port)."""

    def __init__(self, *replicas: tuple[str, int]) -> None:
        self._servers: Servers = tuple(Endpoint(parse_address(a), port) for a, port in replicas)
        self._hosts: list[Host] = []
        self._holders: dict[Address, Host] = {}
        self._selector = selectors.DefaultSelector()
        self.random = random.Random(11)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for host in self._hosts:
            host.socket.close()

    def host(self, key: Key, *moved: str, parameters: Parameters = DEFAULTS) -> Host:
        """One more host, which has these mobile addresses."""
        made = Host(self, key, parameters)
        self._hosts.append(made)
        self._selector.register(made.socket, selectors.EVENT_READ, made)
        made.move(*moved)
        return made

    def run_until(self, condition: Callable[[], bool], limit: float = START_LIMIT) -> None:
        """Let the hosts run until a condition holds; fails if it does not within the limit."""
        end = time.monotonic() + limit
        while not condition():
            assert time.monotonic() < end, "the condition was not met in time"
            for ready, _ in self._selector.select(self._sleep()):
                ready.data.readable()
            for host in self._hosts:
                host.wake()

    def _sleep(self) -> float:
        deadlines = [host.node.deadline for host in self._hosts if host.node.deadline is not None]
        first = min(deadlines, default=float("inf")) - time.monotonic()
        return max(0.0, min(first, LONGEST_SLEEP))

    # ---- what hosts need -----------------------------------------------------------------------

    def moved(self, host: Host, addresses: Sequence[Address]) -> None:
        """A host has these mobile addresses, and no others."""
        self._holders = {a: who for a, who in self._holders.items() if who is not host}
        self._holders |= dict.fromkeys(addresses, host)

    def servers_of(self, home_address: Address) -> Servers | NotFound:
        """The answer of the DNS."""
        return (
            self._servers
            if home_address[:14] == from_ipv4(b"\x0a\1\0\0")[:14]
            else NotFound.NOT_MAT
        )

    def send(self, host: Host, datagram: bytes, destination: Endpoint) -> None:
        """Bring a datagram to a server, or to the host that has the address."""
        where = format_address(destination.address), destination.port
        holder = self._holders.get(destination.address)
        if holder is not None:
            where = holder.socket.getsockname()
        elif destination not in self._servers:
            return
        try:
            host.socket.sendto(datagram, where)
        except ConnectionRefusedError:
            # Said about the one before; this one was not sent.
            with suppress(ConnectionRefusedError):
                host.socket.sendto(datagram, where)

    def source(self, host: str, port: int) -> Endpoint:
        """Where a datagram from a socket came from: a server, or a host's first mobile address."""
        for address, holder in self._holders.items():
            if holder.socket.getsockname() == (host, port):
                return Endpoint(address, MAT_PORT)
        return Endpoint(parse_address(host), port)
