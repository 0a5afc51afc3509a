"""What becomes of packets from the queue.

A packet takes the shortest way that is right. One like an earlier one is rewritten as that was. Of
others, the addresses are cut out and looked up, `mat.translation.translate` does the rest, and
refuses what must not pass. Only ICMP errors and packets with options or extension headers, which
may quote a packet or carry a Mapping Update Option, are read before (docs/protocol.md, section 11).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, final

from mat.address import Address, from_ipv4, in_prefix, to_packed
from mat.effects import Translation
from mat.rewriting import rewriting
from mat.translation import (
    PacketAddresses,
    Refusal,
    insert_muo,
    read_addresses,
    remove_muo,
    translate,
)
from mat_real.dataplane import Consumer, Counters
from mat_real.dataplane.path_mtu import PathMtu
from mat_real.dataplane.queue import PREROUTING, PacketQueue
from mat_real.dataplane.table import HOST, Plain, TranslationTable

_ICMP, _ICMPV6 = 1, 58
_PLAIN: Final = frozenset((6, 17, 47, 50, 132))
"""IPv6 upper layers that quote nothing: TCP, UDP, GRE, ESP, SCTP."""
_ERRORS_IPV4: Final = frozenset((b"\x03", b"\x04", b"\x0b", b"\x0c"))
_ERRORS_IPV6: Final = frozenset((b"\x01", b"\x02", b"\x03", b"\x04"))
_TOO_BIG: Final = 2
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
    packet: bytes
    outward: bool
    addresses: PacketAddresses


@final
class Translator:
    """Takes packets from the queue, and translates, holds, passes or drops them."""

    __slots__ = (
        "_consumer",
        "_paths",
        "_queue",
        "_routed",
        "_table",
        "_waiting",
        "counters",
        "mtu",
        "used",
    )

    def __init__(
        self, table: TranslationTable, queue: PacketQueue, consumer: Consumer, mtu: int
    ) -> None:
        self._table = table
        self._queue = queue
        self._consumer = consumer
        self._routed: tuple[Own, ...] = ()
        self._waiting: set[Held] = set()
        self._paths = PathMtu()
        self.mtu = mtu
        self.counters = Counters()
        self.used: set[Address] = set()
        """Home addresses of peers that packets were translated for; for the reader to empty."""

    def own(self, owns: Iterable[Own]) -> None:
        """These are the own addresses."""
        self._routed = tuple(own for own in owns if own.prefix_length < HOST)

    def close(self) -> None:
        """Take no more."""
        self._paths.close()

    # ---- from the queue ------------------------------------------------------------------------

    def arrived(self, number: bytes, hook: int, packet: bytes) -> None:
        """Take a packet from the queue; see `mat_real.dataplane.queue.OnPacket`."""
        pair = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]
        plain = self._table.plain.get(pair)
        if plain is not None and (rewritten := plain.rewriting(packet)) is not None:
            self.counters.translated += 1
            self.used.add(plain.home)
            self._queue.accept(number, rewritten)
            return
        if hook == PREROUTING and not (self._routed and self._is_forwarded(packet)):
            self._in(number, packet)
        else:
            self._out(number, packet)

    def _is_forwarded(self, packet: bytes) -> bool:
        """Whether the packet came from a host behind this router, not from the wire."""
        _, destination = _addresses(packet)
        return not self._is_behind(destination)

    def _is_behind(self, destination: Address) -> bool:
        """Whether this is an address of a mobile prefix of this router."""
        return any(own.is_mobile(destination) for own in self._routed)

    def _out(self, number: bytes, packet: bytes) -> None:
        key = packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]
        entry = self._table.outward.get(key)
        if entry is None or not _is_simple(packet):
            self._out_read(number, packet)
            return
        translation, source, destination = entry
        announced = translation.announce
        if translation.local_prefix_length != HOST:
            home, destination = _addresses(packet)
            source, destination = translation.outward(home, destination)
            announced = announced and home
        elif announced is None:
            self._learn(packet, translation, source, destination)
        self._send(number, translate(packet, source, destination), translation, announced)

    def _out_read(self, number: bytes, packet: bytes) -> None:
        addresses = read_addresses(packet)
        if type(addresses) is Refusal:
            self._refuse(number, addresses)
            return
        held = Held(number, packet, True, addresses)
        if addresses.embedded_source is not None and self._is_behind(addresses.destination):
            self._error_in(held)
            return
        entry = self._table.outward.get(to_packed(addresses.destination))
        if entry is None:
            self._hold(held)
            self._consumer.packet_out(held, addresses.source, addresses.destination)
        else:
            self._leave(held, entry.translation)

    def _in(self, number: bytes, packet: bytes) -> None:
        ipv4 = packet[0] >> 4 == 4
        translation = self._table.inward.get(packet[12:20] if ipv4 else packet[8:40])
        if translation is None or not _is_simple(packet):
            self._in_read(number, packet)
            return
        home, local_home = translation.home, translation.local_home
        self._learn(packet, translation, home, local_home)
        self._deliver(number, translate(packet, home, local_home), translation)

    def _learn(
        self, packet: bytes, translation: Translation, source: Address, destination: Address
    ) -> None:
        """Be quicker with the next packet that has this one's addresses."""
        before = _addresses(packet)
        # What has the source of another host than the translation's is forged, or routed.
        if before[0] == translation.local_home or destination == translation.local_home:
            pair = to_packed(before[0]) + to_packed(before[1])
            self._table.plain[pair] = Plain(
                translation.home, rewriting(*before, source, destination)
            )

    def _in_read(self, number: bytes, packet: bytes) -> None:
        addresses = read_addresses(packet)
        if type(addresses) is Refusal:
            self._refuse(number, addresses)
            return
        source, destination = addresses.source, addresses.destination
        held = Held(number, packet, False, addresses)
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
            self._pass(held.number)
            return
        # The quote went the other way.
        peer, own = about.inward(addresses.embedded_destination, addresses.embedded_source)
        sender = self._translation_in(addresses.source, addresses.destination)
        source = None if sender is None else sender.home
        _, destination = about.inward(addresses.source, addresses.destination)
        packet = translate(held.packet, source, destination, own, peer)
        self._deliver(held.number, packet, about)
        if _is_too_big(held.packet):
            mtu = int.from_bytes(held.packet[44:48])
            self._paths.ask(
                addresses.embedded_source, addresses.embedded_destination, mtu, self.mtu
            )

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
        # Of a mobile router, the host behind it is announced, not the prefix.
        announced = translation.announce and addresses.source
        self._send(held.number, packet, translation, announced)

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
        self,
        number: bytes,
        packet: bytes | Refusal,
        translation: Translation,
        announced: Address | None,
    ) -> None:
        if announced is not None and type(packet) is not Refusal:
            announcing = insert_muo(packet, announced, self.mtu)
            # What has no room for it goes without (docs/protocol.md, section 11.5).
            packet = packet if type(announcing) is Refusal else announcing
        self._deliver(number, packet, translation)

    def _enter(self, held: Held, translation: Translation) -> None:
        addresses = held.addresses
        source, destination = translation.inward(addresses.source, addresses.destination)
        packet = translate(held.packet, source, destination)
        if addresses.home_address is not None and type(packet) is not Refusal:
            packet = remove_muo(packet)
        self._deliver(held.number, packet, translation)

    def _deliver(self, number: bytes, packet: bytes | Refusal, translation: Translation) -> None:
        if type(packet) is Refusal:
            self._refuse(number, packet)
            return
        self.counters.translated += 1
        self.used.add(translation.home)
        self._queue.accept(number, packet)

    def _refuse(self, number: bytes, refusal: Refusal) -> None:
        if refusal is Refusal.LINK_SCOPE:
            self._pass(number)
        else:
            self.counters.refused[refusal] += 1
            self._queue.drop(number)

    def _pass(self, number: bytes) -> None:
        self.counters.passed += 1
        self._queue.accept(number)


def _is_simple(packet: bytes) -> bool:
    """Whether the packet surely quotes no other and has no Mapping Update Option."""
    if packet[0] >> 4 == 4:
        if packet[9] != _ICMP:
            return True
        return packet[0] == _NO_OPTIONS and packet[20:21] not in _ERRORS_IPV4
    if packet[6] == _ICMPV6:
        return packet[40:41] not in _ERRORS_IPV6
    return packet[6] in _PLAIN


def _is_too_big(packet: bytes) -> bool:
    """Whether a packet is ICMPv6's Packet Too Big, without extension headers."""
    return packet[0] >> 4 == 6 and packet[6] == _ICMPV6 and packet[40] == _TOO_BIG


def _addresses(packet: bytes) -> tuple[Address, Address]:
    if packet[0] >> 4 == 4:
        return from_ipv4(packet[12:16]), from_ipv4(packet[16:20])
    return Address(packet[8:24]), Address(packet[24:40])
