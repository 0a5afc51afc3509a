"""What becomes of packets from the queue.

A packet takes the shortest way that is right: its addresses are cut out and looked up,
`mat.translation.translate` does the rest, and refuses what must not pass. Only ICMP errors and
packets with options or extension headers, which may quote a packet or carry a Mapping Update
Option, are read before (docs/protocol.md, section 11).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, final

from mat.address import Address, from_ipv4, in_prefix, to_packed
from mat.effects import Translation
from mat.translation import (
    PacketAddresses,
    Refusal,
    insert_muo,
    read_addresses,
    remove_muo,
    translate,
)
from mat_real.dataplane import Consumer, Counters
from mat_real.dataplane.queue import PREROUTING, PacketQueue
from mat_real.dataplane.table import HOST, TranslationTable

_ICMP, _ICMPV6 = 1, 58
_PLAIN: Final = frozenset((6, 17, 47, 50, 132))
"""IPv6 upper layers that quote nothing: TCP, UDP, GRE, ESP, SCTP."""
_ERRORS_IPV4: Final = frozenset((b"\x03", b"\x04", b"\x0b", b"\x0c"))
_ERRORS_IPV6: Final = frozenset((b"\x01", b"\x02", b"\x03", b"\x04"))
_NO_OPTIONS: Final = 0x45


@final
@dataclass(frozen=True, slots=True)
class Own:
    """The own addresses of one family; of a mobile router, prefixes."""

    home: Address
    prefix_length: int
    mobile: tuple[Address, ...]

    def is_mobile(self, address: Address) -> bool:
        """Whether this is a mobile address, or one in a mobile prefix."""
        return any(in_prefix(address, mobile, self.prefix_length) for mobile in self.mobile)


@final
@dataclass(slots=True, eq=False)
class Held:
    """A packet that waits in the kernel for `release` or `drop`; the `Handle` of it."""

    number: bytes
    mark: int
    packet: bytes
    outward: bool
    addresses: PacketAddresses


@final
class Translator:
    """Takes packets from the queue, and translates, holds, passes or drops them."""

    __slots__ = (
        "_consumer",
        "_keep_mark",
        "_queue",
        "_routed",
        "_table",
        "_waiting",
        "counters",
        "mtu",
        "used",
    )

    def __init__(
        self, table: TranslationTable, queue: PacketQueue, consumer: Consumer, mark: int, mtu: int
    ) -> None:
        """`mark` is the bit that brought the packets to the queue."""
        self._table = table
        self._queue = queue
        self._consumer = consumer
        self._keep_mark = 0xFFFF_FFFF & ~mark
        self._routed: tuple[Own, ...] = ()
        self._waiting: set[Held] = set()
        self.mtu = mtu
        self.counters = Counters()
        self.used: set[Address] = set()
        """Home addresses of peers that packets were translated for; for the reader to empty."""

    def own(self, owns: Iterable[Own]) -> None:
        """These are the own addresses."""
        self._routed = tuple(own for own in owns if own.prefix_length < HOST)

    # ---- from the queue ------------------------------------------------------------------------

    def arrived(self, number: bytes, hook: int, mark: int, packet: bytes) -> None:
        """Take a packet from the queue; see `mat_real.dataplane.queue.OnPacket`."""
        mark &= self._keep_mark
        if hook == PREROUTING and not (self._routed and self._is_forwarded(packet)):
            self._in(number, mark, packet)
        else:
            self._out(number, mark, packet)

    def _is_forwarded(self, packet: bytes) -> bool:
        """Whether the packet came from a host behind this router, not from the wire."""
        _, destination = _addresses(packet)
        return not any(own.is_mobile(destination) for own in self._routed)

    def _out(self, number: bytes, mark: int, packet: bytes) -> None:
        key = packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]
        entry = self._table.outward.get(key)
        if entry is None or not _is_simple(packet):
            self._out_read(number, mark, packet)
            return
        translation, source, destination = entry
        if translation.local_prefix_length != HOST:
            source, destination = translation.outward(*_addresses(packet))
        self._send(number, mark, translate(packet, source, destination), translation)

    def _out_read(self, number: bytes, mark: int, packet: bytes) -> None:
        addresses = read_addresses(packet)
        if type(addresses) is Refusal:
            self._refuse(number, mark, addresses)
            return
        held = Held(number, mark, packet, True, addresses)
        entry = self._table.outward.get(to_packed(addresses.destination))
        if entry is None:
            self._hold(held)
            self._consumer.packet_out(held, addresses.source, addresses.destination)
        else:
            self._leave(held, entry.translation)

    def _in(self, number: bytes, mark: int, packet: bytes) -> None:
        ipv4 = packet[0] >> 4 == 4
        translation = self._table.inward.get(packet[12:20] if ipv4 else packet[8:40])
        if translation is None or not _is_simple(packet):
            self._in_read(number, mark, packet)
            return
        home, local_home = translation.home, translation.local_home
        self._deliver(number, mark, translate(packet, home, local_home), translation)

    def _in_read(self, number: bytes, mark: int, packet: bytes) -> None:
        addresses = read_addresses(packet)
        if type(addresses) is Refusal:
            self._refuse(number, mark, addresses)
            return
        source, destination = addresses.source, addresses.destination
        held = Held(number, mark, packet, False, addresses)
        if addresses.embedded_source is not None:
            self._error_in(held)
            return
        translation = self._translation_in(source, destination)
        announced = addresses.home_address
        if translation is not None and announced in (None, translation.home):
            self._enter(held, translation)
        else:
            self._hold(held)
            self._consumer.packet_in(held, source, destination, announced)

    def _error_in(self, held: Held) -> None:
        """An ICMP error: about a flow between home addresses, or about one of somebody else's."""
        addresses = held.addresses
        assert addresses.embedded_source is not None
        assert addresses.embedded_destination is not None
        about = self._translation_in(addresses.embedded_destination, addresses.embedded_source)
        if about is None:
            self._pass(held.number, held.mark)
            return
        # The quote went the other way.
        peer, own = about.inward(addresses.embedded_destination, addresses.embedded_source)
        sender = self._translation_in(addresses.source, addresses.destination)
        source = None if sender is None else sender.home
        _, destination = about.inward(addresses.source, addresses.destination)
        packet = translate(held.packet, source, destination, own, peer)
        self._deliver(held.number, held.mark, packet, about)

    def _translation_in(self, source: Address, destination: Address) -> Translation | None:
        key = to_packed(source)
        found = self._table.inward.get(key + to_packed(destination))
        if found is None:
            routed = self._table.routed.get(key)
            if routed is not None and routed.accepts_at(destination):
                return routed
        return found

    # ---- from the consumer ---------------------------------------------------------------------

    def release(self, held: Held, translation: Translation) -> None:
        """Let a packet that waited go on, translated."""
        self._waiting.discard(held)
        if held.outward:
            self._leave(held, translation)
        else:
            self._enter(held, translation)

    def drop(self, held: Held) -> None:
        """Discard a packet that waited."""
        self._waiting.discard(held)
        self.counters.dropped += 1
        self._queue.drop(held.number)

    @property
    def waiting(self) -> int:
        """Packets that wait."""
        return len(self._waiting)

    def _hold(self, held: Held) -> None:
        self._waiting.add(held)
        self.counters.held += 1

    # ---- verdicts ------------------------------------------------------------------------------

    def _leave(self, held: Held, translation: Translation) -> None:
        addresses = held.addresses
        source, destination = translation.outward(addresses.source, addresses.destination)
        packet = translate(held.packet, source, destination, *self._quoted_out(addresses))
        self._send(held.number, held.mark, packet, translation)

    def _quoted_out(self, addresses: PacketAddresses) -> tuple[Address | None, Address | None]:
        """The wire's addresses of the packet that an ICMP error of this host quotes."""
        source, destination = addresses.embedded_source, addresses.embedded_destination
        if source is None or destination is None:
            return None, None
        entry = self._table.outward.get(to_packed(source))
        if entry is None:
            return None, None
        own, peer = entry.translation.outward(destination, source)
        return peer, own

    def _send(
        self, number: bytes, mark: int, packet: bytes | Refusal, translation: Translation
    ) -> None:
        if translation.announce is not None and type(packet) is not Refusal:
            announcing = insert_muo(packet, translation.announce, self.mtu)
            # What has no room for it goes without (docs/protocol.md, section 11.5).
            packet = packet if type(announcing) is Refusal else announcing
        self._deliver(number, mark, packet, translation)

    def _enter(self, held: Held, translation: Translation) -> None:
        addresses = held.addresses
        source, destination = translation.inward(addresses.source, addresses.destination)
        packet = translate(held.packet, source, destination)
        if addresses.home_address is not None and type(packet) is not Refusal:
            packet = remove_muo(packet)
        self._deliver(held.number, held.mark, packet, translation)

    def _deliver(
        self, number: bytes, mark: int, packet: bytes | Refusal, translation: Translation
    ) -> None:
        if type(packet) is Refusal:
            self._refuse(number, mark, packet)
            return
        self.counters.translated += 1
        self.used.add(translation.home)
        self._queue.accept(number, mark, packet)

    def _refuse(self, number: bytes, mark: int, refusal: Refusal) -> None:
        if refusal is Refusal.LINK_SCOPE:
            self._pass(number, mark)
        else:
            self.counters.refused[refusal] += 1
            self._queue.drop(number)

    def _pass(self, number: bytes, mark: int) -> None:
        self.counters.passed += 1
        self._queue.accept(number, mark)


def _is_simple(packet: bytes) -> bool:
    """Whether the packet surely quotes no other and has no Mapping Update Option."""
    if packet[0] >> 4 == 4:
        if packet[9] != _ICMP:
            return True
        return packet[0] == _NO_OPTIONS and packet[20:21] not in _ERRORS_IPV4
    if packet[6] == _ICMPV6:
        return packet[40:41] not in _ERRORS_IPV6
    return packet[6] in _PLAIN


def _addresses(packet: bytes) -> tuple[Address, Address]:
    if packet[0] >> 4 == 4:
        return from_ipv4(packet[12:16]), from_ipv4(packet[16:20])
    return Address(packet[8:24]), Address(packet[24:40])
