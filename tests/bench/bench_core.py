"""The core without a driver: codec, one whole handover, and memory.

    pytest tests/bench/bench_core.py --benchmark-columns=min,median --benchmark-json=core.json

Memory is in the extra info of the JSON file.

The handover is figure 3 between separate IMS, with steps 2' and 4' and the CN's query: ten
messages and their authentication, through all four machines, values handed from one to the next.
"""

import random
import tracemalloc
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from mat.address import Address, parse_address
from mat.authentication import Key
from mat.codec import decode, encode
from mat.effects import Lookup, ReadByHome, ReadByMobile, Send, StoreWrite
from mat.mapping_table import Mapping, MappingTable
from mat.messages import EXACT, MAT_PORT, Endpoint, MaAnswer, MaQuery, Message
from mat.node import MobileNode
from mat.registrations import RegistrationTable
from mat.server import MappingServer

HOME_MN, HOME_CN = parse_address("10.1.0.1"), parse_address("10.2.0.1")
AT_CN = parse_address("203.0.113.1")
QUERY = MaQuery(7, HOME_MN, 0, nonce=bytes(range(8)))
ANSWER = MaAnswer(7, 0, HOME_MN, (AT_CN,), 1 << 40, 180, 1000, nonce=bytes(range(8)))


@pytest.mark.parametrize("message", [QUERY, ANSWER], ids=["MA Query", "MA Answer"])
def test_encode(benchmark: BenchmarkFixture, message: Message) -> None:
    assert benchmark(encode, message)


@pytest.mark.parametrize("message", [QUERY, ANSWER], ids=["MA Query", "MA Answer"])
def test_decode(benchmark: BenchmarkFixture, message: Message) -> None:
    assert benchmark(decode, encode(message)) == message


class Direct:
    """Two nodes and their IMS, with no time between a message and its arrival."""

    def __init__(self) -> None:
        self.now = 0.0
        keys = {i: Key(i, bytes(16), home) for i, home in ((1, HOME_MN), (2, HOME_CN))}
        self.machines: dict[Address, MobileNode | MappingServer] = {}
        self.stores: dict[Address, RegistrationTable] = {}
        self.zones: dict[Address, tuple[Endpoint, ...]] = {}
        for i, home in ((1, HOME_MN), (2, HOME_CN)):
            address = parse_address(f"192.0.2.{i}")
            self.zones[home] = (Endpoint(address, MAT_PORT),)
            responsible = frozenset((home,)).__contains__
            self.machines[address] = MappingServer(keys.get, responsible, random.Random(i))
            self.stores[address] = RegistrationTable()
        self.mn = MobileNode(keys[1], random.Random(3))
        self.cn = MobileNode(keys[2], random.Random(4))
        self.messages = 0

    def attach(self, node: MobileNode, address: Address) -> None:
        for at, machine in list(self.machines.items()):
            if machine.deadline is not None and machine.deadline <= self.now:
                self.run(machine, at, machine.handle_timer(self.now))
        for old in [a for a, machine in self.machines.items() if machine is node]:
            del self.machines[old]
        self.machines[address] = node
        self.run(node, address, node.addresses_changed(self.now, (address,)))

    def run(self, machine: Any, at: Address, effects: Any) -> None:
        """Carry out effects, and what they cause, until nothing is left."""
        queue = deque([(machine, at, effects)])
        while queue:
            machine, at, effects = queue.popleft()
            for effect in effects:
                kind = type(effect)
                if kind is Send:
                    self.messages += 1
                    there = effect.destination.address
                    target = self.machines.get(there)
                    if target is not None:
                        source = Endpoint(at, MAT_PORT)
                        found = target.receive(self.now, effect.message, source)
                        queue.append((target, there, found))
                elif kind is Lookup:
                    home = effect.home_address
                    found = machine.servers_found(self.now, home, self.zones[home])
                    queue.append((machine, at, found))
                elif kind is StoreWrite:
                    result = self.stores[at].write(effect.registration)
                    queue.append((machine, at, machine.written(self.now, effect, *result)))
                elif kind is ReadByHome:
                    registration = self.stores[at].by_home(effect.home_address)
                    queue.append((machine, at, machine.read(self.now, effect, registration)))
                elif kind is ReadByMobile:
                    registration = self.stores[at].by_mobile(effect.mobile_address)
                    queue.append((machine, at, machine.read(self.now, effect, registration)))


def talking() -> Direct:
    direct = Direct()
    direct.attach(direct.mn, parse_address("198.51.100.1"))
    direct.attach(direct.cn, AT_CN)
    direct.run(direct.mn, direct.mn.addresses[0], direct.mn.packet_out(0.0, "packet", HOME_CN))
    return direct


def test_one_handover_through_all_machines(benchmark: BenchmarkFixture) -> None:
    direct = talking()
    places = [parse_address(f"198.51.100.{n}") for n in range(2, 250)]
    turn = iter(range(1 << 30))

    def hand_over() -> None:
        direct.now += 1.0
        direct.attach(direct.mn, places[next(turn) % len(places)])

    before = direct.messages
    hand_over()
    assert direct.messages - before == 10
    benchmark(hand_over)
    (peer,) = direct.cn.peers()
    assert peer.mapping is not None
    assert peer.mapping.mobile_addresses == direct.mn.addresses


def _bytes_each(count: int, make: Callable[[int], object]) -> float:
    tracemalloc.start()
    kept = [make(n) for n in range(count)]
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / len(kept)


def test_memory_of_an_idle_registered_node(benchmark: BenchmarkFixture) -> None:
    """Reported as extra info: bytes per node, its key and addresses included."""
    source = random.Random(1)
    server = Endpoint(parse_address("192.0.2.1"), MAT_PORT)
    servers = (server,)

    def idle_node(n: int) -> MobileNode:
        home = Address(bytes(10) + b"\xff\xff\x0a" + n.to_bytes(3, "big"))
        key = Key(n, n.to_bytes(16, "big"), home)
        node = MobileNode(key, source, servers=servers)
        keys = {n: key}
        ims = MappingServer(keys.get, lambda _home: True, source)
        moved = Address(bytes(10) + b"\xff\xff\xc0" + n.to_bytes(3, "big"))
        here = Endpoint(moved, MAT_PORT)
        (update, *_) = node.addresses_changed(0.0, (moved,))
        assert isinstance(update, Send)
        (write, *_) = ims.receive(0.0, update.message, here)
        assert isinstance(write, StoreWrite)
        (reply, *_) = ims.written(0.0, write, *RegistrationTable().write(write.registration))
        assert isinstance(reply, Send)
        node.receive(0.0, reply.message, server)
        assert node.registered
        return node

    size = benchmark(_bytes_each, 500, idle_node)
    benchmark.extra_info["bytes per idle node"] = round(size)


def test_memory_of_an_imt_entry(benchmark: BenchmarkFixture) -> None:
    """Reported as extra info: bytes per entry, its addresses included."""
    table = MappingTable(1 << 20)

    def entry(n: int) -> None:
        home = Address(bytes(10) + b"\xff\xff\x0a" + n.to_bytes(3, "big"))
        moved = Address(bytes(10) + b"\xff\xff\xc0" + n.to_bytes(3, "big"))
        table.put(Mapping(home, EXACT, (moved,), n, 0.0, 1.0))

    size = benchmark(_bytes_each, 1000, entry)
    benchmark.extra_info["bytes per entry"] = round(size)
