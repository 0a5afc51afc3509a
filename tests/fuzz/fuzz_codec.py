"""Fuzzes the codec with arbitrary bytes, and the machines with whatever decodes.

    python tests/fuzz/fuzz_codec.py -max_total_time=60

Asserts that decoding never raises, that what decodes encodes and decodes to an equal value, and
that neither a node nor an IMS raises whatever comes in: as a stranger sends it, and as a peer of
theirs does who answers what they asked.
"""

import random
import sys
from collections.abc import Iterable

import atheris

with atheris.instrument_imports(include=["mat"]):
    from mat.address import Address, parse_address, prefix_of
    from mat.authentication import Key, sign
    from mat.codec import Malformed, decode, encode
    from mat.effects import (
        Effect,
        Lookup,
        NotFound,
        ReadByHome,
        ReadByMobile,
        Send,
        StoreWrite,
    )
    from mat.messages import (
        EXACT,
        MAT_PORT,
        Authentication,
        Endpoint,
        HaAnswer,
        HaNotify,
        HaNotifyAck,
        HaQuery,
        ImsUpdate,
        ImsUpdateReply,
        MaAnswer,
        MaQuery,
        Message,
        Request,
    )
    from mat.node import MobileNode
    from mat.peer import Peer
    from mat.registrations import RegistrationTable
    from mat.server import MappingServer

HOME, PEER, FOREIGN = (parse_address(f"10.{n}.0.1") for n in (1, 2, 9))
HERE, THERE, STRANGER = (parse_address(f"198.51.100.{n}") for n in (1, 2, 77))
FEW = [HOME, PEER, FOREIGN, HERE, THERE, STRANGER]
KEY = Key(1, bytes(16), HOME)
MESSAGES = 8
PAUSES = (0.0, 0.01, 1.5, 40.0, 700.0)
"""Seconds between messages."""
IMS = Endpoint(parse_address("192.0.2.1"), MAT_PORT)
ANSWERS = {
    ImsUpdateReply: ImsUpdate,
    MaAnswer: MaQuery,
    HaNotifyAck: HaNotify,
    HaAnswer: HaQuery,
}


def some_address(data: atheris.FuzzedDataProvider) -> Address:
    """Mostly one of those that the machines have to do with."""
    if data.ConsumeIntInRange(0, 3):
        which: int = data.ConsumeIntInRange(0, len(FEW) - 1)
        return FEW[which]
    drawn: bytes = data.ConsumeBytes(16)
    return Address(drawn.ljust(16, b"\1"))


def some_message(data: atheris.FuzzedDataProvider) -> Message:
    """Any message that can be sent, as a datagram would bring it."""
    kind = data.ConsumeIntInRange(1, 8)
    sequence, code = data.ConsumeIntInRange(0, 3), data.ConsumeIntInRange(0, 7)
    length = data.ConsumeIntInRange(0, EXACT) if data.ConsumeBool() else EXACT
    home, other = (prefix_of(some_address(data), length) for _ in range(2))
    moved = tuple(
        prefix_of(some_address(data), length) for _ in range(data.ConsumeIntInRange(0, 8))
    )
    version, lifetime = data.ConsumeIntInRange(1, (1 << 64) - 1), data.ConsumeIntInRange(0, 700)
    age = data.ConsumeIntInRange(0, (1 << 32) - 1) if data.ConsumeBool() else 0
    nonce = data.ConsumeBytes(8).ljust(8, b"\1") if data.ConsumeBool() else b""
    if kind == 1:
        signature = Authentication(1, data.ConsumeIntInRange(1, (1 << 64) - 1))
        return ImsUpdate(sequence, home, moved, version, lifetime, length, signature, nonce=nonce)
    if kind == 2:
        return ImsUpdateReply(sequence, code, nonce=nonce)
    if kind == 3:
        return MaQuery(sequence, home, version, nonce=nonce)
    if kind == 4:
        return MaAnswer(sequence, code, home, moved, version, lifetime, age, length, nonce=nonce)
    if kind == 5:
        return HaNotify(sequence, home, some_address(data), version, length, nonce=nonce)
    if kind == 6:
        return HaNotifyAck(sequence, code, home, moved, version, lifetime, age, length, nonce=nonce)
    if kind == 7:
        return HaQuery(sequence, other, nonce=nonce)
    return HaAnswer(sequence, code, other, moved, version, lifetime, age, nonce=nonce)


def damaged(data: atheris.FuzzedDataProvider, datagram: bytes) -> bytes:
    """A datagram with something put in, replaced or cut out."""
    start = data.ConsumeIntInRange(0, len(datagram))
    end = start + data.ConsumeIntInRange(0, 8)
    put_in: bytes = data.ConsumeBytes(data.ConsumeIntInRange(0, 8))
    return datagram[:start] + put_in + datagram[end:]


def check_round_trip(datagram: bytes) -> Message | None:
    """The message in a datagram, if there is one: encoded anew, it is the same."""
    message = decode(datagram)
    if isinstance(message, Malformed):
        return None
    message.wire = None
    again = decode(encode(message))
    assert not isinstance(again, Malformed)
    unsigned = isinstance(message, ImsUpdate) and message.authentication is None
    if unsigned or not message.nonce:
        # The draft's forms have no place for the lower half of a version, nor for an age.
        assert type(again) is type(message)
        again.wire = None
        message, again = again, decode(encode(again))
    assert again == message
    message.wire = None
    return message


class Machines:
    """A node and an IMS in the middle of things, and the requests of theirs that are open."""

    def __init__(self) -> None:
        source = random.Random(1)
        self.now = 1000.0
        self.store = RegistrationTable()
        self.server = MappingServer({1: KEY}.get, lambda home: home != FOREIGN, source)
        self.node = MobileNode(KEY, source)
        self.asked: list[Request] = []
        self.do(self.node, self.node.addresses_changed(self.now, [HERE]))
        self.do(self.node, self.node.packet_out(self.now, "packet", PEER))
        notice = HaNotify(1, FOREIGN, PEER, 1, nonce=bytes(8))
        self.do(self.server, self.server.receive(self.now, notice, IMS))

    def do(self, machine: MobileNode | MappingServer, effects: Iterable[Effect]) -> None:
        """Remember requests; answer look-ups and the store's effects at once."""
        for effect in effects:
            if isinstance(effect, Send):
                assert not isinstance(decode(encode(effect.message)), Malformed)
                if isinstance(effect.message, (ImsUpdate, MaQuery, HaNotify, HaQuery)):
                    self.asked.append(effect.message)
            elif isinstance(effect, Lookup):
                is_mat = effect.home_address != STRANGER
                found = (IMS,) if is_mat else NotFound.NOT_MAT
                self.do(machine, machine.servers_found(self.now, effect.home_address, found))
            elif isinstance(effect, StoreWrite):
                result = self.store.write(effect.registration)
                self.do(machine, self.server.written(self.now, effect, *result))
            elif isinstance(effect, ReadByHome):
                by_home = self.store.by_home(effect.home_address)
                self.do(machine, self.server.read(self.now, effect, by_home))
            elif isinstance(effect, ReadByMobile):
                by_mobile = self.store.by_mobile(effect.mobile_address)
                self.do(machine, self.server.read(self.now, effect, by_mobile))

    def receive(self, message: Message) -> None:
        """At both machines, over the wire."""
        for machine in (self.node, self.server):
            decoded = decode(encode(message))
            assert not isinstance(decoded, Malformed)
            self.do(machine, machine.receive(self.now, decoded, IMS))

    def receive_as_expected(self, message: Message) -> None:
        """As an authentic update, or as the answer to each request of its kind that is open."""
        message.draft_length = False
        if isinstance(message, ImsUpdate):
            freshness = message.authentication.freshness if message.authentication else 1
            message.home_address, message.prefix_length = KEY.home_address, KEY.prefix_length
            message.version = message.version or 1
            sign(message, KEY, max(freshness, message.version))
            self.receive(message)
        wanted = ANSWERS.get(type(message))
        answered = [request for request in self.asked if type(request) is wanted]
        self.asked = [request for request in self.asked if type(request) is not wanted]
        for request in answered:
            message.sequence, message.nonce, message.wire = request.sequence, request.nonce, None
            if isinstance(message, ImsUpdateReply) and isinstance(request, ImsUpdate):
                assert request.authentication is not None
                sign(message, KEY, request.authentication.freshness + message.code)
            elif (
                isinstance(message, MaAnswer) and isinstance(request, MaQuery) and message.code < 4
            ):
                message.home_address = prefix_of(request.home_address, message.prefix_length)
            self.receive(message)

    def pass_time(self, seconds: float) -> None:
        """Timers fire; packets come and go meanwhile."""
        self.now += seconds
        for machine in (self.node, self.server):
            self.do(machine, machine.handle_timer(self.now))
            assert machine.deadline is None or machine.deadline > self.now
        for source in {*FEW, *(a for p in self.node.peers() if p.mapping for a in moas(p))}:
            effects = self.node.packet_in(self.now, "packet", source, HERE, PEER)
            self.do(self.node, effects)
            self.do(self.node, self.node.packet_in(self.now, "packet", source, HERE))
        self.do(self.node, self.node.packet_out(self.now, "packet", PEER))
        self.do(self.node, self.node.used(self.now, [PEER, FOREIGN]))


def moas(peer: Peer) -> tuple[Address, ...]:
    """The mobile addresses of a peer."""
    return peer.mapping.mobile_addresses if peer.mapping else ()


def test_one_input(data: bytes) -> None:
    """The bytes as a datagram, to the codec; then as a series of messages, to the machines."""
    check_round_trip(data)
    provider = atheris.FuzzedDataProvider(data)
    machines = Machines()
    for _ in range(MESSAGES):
        if not provider.remaining_bytes():
            break
        made = some_message(provider)
        if made.nonce:
            assert decode(encode(made)) == made
        is_whole = provider.ConsumeBool()
        datagram = encode(made) if is_whole else damaged(provider, encode(made))
        message = check_round_trip(datagram)
        if message is None:
            continue
        if provider.ConsumeBool():
            machines.receive_as_expected(message)
        else:
            machines.receive(message)
        machines.pass_time(PAUSES[provider.ConsumeIntInRange(0, len(PAUSES) - 1)])


if __name__ == "__main__":
    # Long inputs from the start: a series of messages takes some hundred bytes.
    atheris.Setup([*sys.argv, "-len_control=0"], test_one_input)
    atheris.Fuzz()
