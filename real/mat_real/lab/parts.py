"""When the parts of a handover ended, from what was recorded of one node's messages and probes.

A node is registered when a Reply has accepted an update that lists the new address. Its peers are
notified when the IMS of each has acknowledged a notice of that version or a later one; MAT(IPv6)
needs none. The first packet is that of each direction and peer, delivered to the application, that
left from the new address or came to it. A node that never registers is a host without MAT: only
its packets count.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

from mat.address import Address, parse_address
from mat.messages import Code, HaNotify, HaNotifyAck, ImsUpdate, ImsUpdateReply
from mat_real.lab.plan import IpAddress
from mat_real.lab.probe import number_of
from mat_real.lab.recording import DATA, Transmission
from mat_real.lab.shares import Share, Shares
from mat_real.lab.streams import Direction, Flow, Stream
from mat_real.lab.tables import Sent

_Delivery: TypeAlias = tuple[float, Transmission]
"""When a packet was delivered to the application, s, and the packet."""


@final
@dataclass(frozen=True, slots=True)
class Way:
    """A stream in one direction, up being away from a node.

    `home` if it goes between home addresses; `delivered` are times by the packets' numbers, s.
    """

    direction: Direction
    peer: str
    home: bool
    port: int
    flow: Flow
    delivered: dict[int, float]


def ways_of(streams: Iterable[Stream], node: str) -> Iterator[Way]:
    """The directions in which a node's streams have packets."""
    for stream in streams:
        if node not in (stream.node, stream.peer):
            continue
        here = node == stream.node
        peer = stream.peer if here else stream.node
        ends: tuple[tuple[Direction, Direction], ...] = (("up", "down"), ("down", "up"))
        for direction, other in ends:
            own = direction if here else other
            flow, delivered = stream.flow(own), stream.deliveries(own)
            if flow.spacing:
                yield Way(direction, peer, stream.home, stream.port, flow, delivered)


@final
@dataclass(frozen=True, slots=True)
class Times:
    """When a node had its address, was registered, …, s; None for what was not in time.

    `complete` is when nothing was left to happen.
    """

    configured: float | None = None
    registered: float | None = None
    notified: float | None = None
    first: float | None = None
    complete: float | None = None
    register_share: Share | None = None
    notify_share: Share | None = None
    """What the lab itself added to the parts that end so; None where they did not end."""
    whole_share: Share | None = None
    """The same from the address to the first packets."""


@final
class NodeRecord:
    """What was recorded of one node, in order of time."""

    __slots__ = (
        "_announces",
        "_data",
        "_homes",
        "_ims",
        "_node",
        "_registers",
        "_shares",
        "_signals",
    )

    def __init__(self, sent: Sent, node: str, family: Literal[4, 6]) -> None:
        own = [one for one in sent.transmissions if node in (one.sender, one.receiver)]
        arrived = [one for one in own if one.received is not None]
        self._node = node
        self._shares = Shares(sent.plan, sent.transmissions)
        self._data = [one for one in arrived if one.kind == DATA]
        self._signals = [one for one in arrived if one.message is not None]
        self._registers = any(isinstance(one.message, ImsUpdate) for one in own)
        self._announces = family == 6
        self._ims = {ims.name for ims in sent.plan.ims}
        self._homes = {
            one.name: parse_address(str(one.home.of(family))) for one in sent.plan.nodes if one.home
        }

    def times(
        self, ways: Sequence[Way], configured: float, address: IpAddress, limit: float
    ) -> Times:
        """The times of a handover to `address`, had since `configured`, that ended at `limit`."""
        moa = parse_address(str(address))
        reply, version = self._registered(moa, configured)
        registered = reply.received if reply else None
        packets = [self._first_packet(way, moa, configured) for way in ways]
        first = _last(packet[0] if packet else None for packet in packets)
        wanted = [first] if ways else []
        ack: Transmission | None = None
        if self._registers:
            wanted.append(registered)
            peers = {way.peer for way in ways if way.home and not self._announces}
            if peers and reply is not None:
                ack = _latest(self._acknowledged(peer, version) for peer in peers)
            wanted += [ack.received if ack else None] if peers else []
        notified = ack.received if ack else None
        complete = _last([configured, *wanted])
        return Times(
            configured,
            _by(limit, registered),
            _by(limit, notified),
            _by(limit, first),
            _by(limit, complete),
            self._share(configured, reply, limit),
            self._share(registered, ack, limit),
            self._whole_share(configured, packets, limit),
        )

    def _whole_share(
        self, configured: float, packets: Sequence[_Delivery | None], limit: float
    ) -> Share | None:
        known = [packet for packet in packets if packet is not None and packet[0] <= limit]
        if not known or len(known) < len(packets):
            return None
        delivered, packet = max(known, key=lambda one: one[0])
        home = self._homes[self._node]
        return self._shares.of_packet(self._node, home, configured, packet, delivered)

    def _share(self, begin: float | None, last: Transmission | None, limit: float) -> Share | None:
        if begin is None or last is None or _by(limit, last.received) is None:
            return None
        return self._shares.of(self._node, self._homes[self._node], begin, last)

    def _registered(self, moa: Address, since: float) -> tuple[Transmission | None, int]:
        """The first Reply that accepts an update which lists an address, and its version."""
        updates: dict[int, ImsUpdate] = {}
        for one in self._signals:
            message = one.message
            if isinstance(message, ImsUpdate) and moa in message.mobile_addresses:
                updates[message.sequence] = message
            elif isinstance(message, ImsUpdateReply) and message.code == Code.SUCCEEDED:
                update = updates.get(message.sequence)
                if update is not None and one.received is not None and one.received >= since:
                    return one, update.version
        return None, 0

    def _acknowledged(self, peer: str, version: int) -> Transmission | None:
        """With what a peer's IMS acknowledged a notice of a version, or of a later one, first."""
        notices: set[int] = set()
        for one in self._signals:
            message = one.message
            if isinstance(message, HaNotify):
                to_peer = one.sender == self._node and message.peer == self._homes[peer]
                if to_peer and message.version >= version:
                    notices.add(message.sequence)
            elif self._accepts(one) and message is not None and message.sequence in notices:
                return one
        return None

    def _accepts(self, one: Transmission) -> bool:
        """Whether this is an IMS's word that it took a notice."""
        message = one.message
        from_ims = one.sender in self._ims
        return from_ims and isinstance(message, HaNotifyAck) and message.code == Code.SUCCEEDED

    def _first_packet(self, way: Way, moa: Address, since: float) -> _Delivery | None:
        """The packet from an address, or to it, that was delivered first since a time.

        A node may have had the address before.
        """
        found: _Delivery | None = None
        for one in self._through(way, moa):
            number = number_of(one.datagram.payload)
            at = way.delivered.get(number) if number is not None else None
            if at is not None and at >= since and (found is None or at < found[0]):
                found = at, one
        return found

    def _through(self, way: Way, moa: Address) -> Iterator[Transmission]:
        for one in self._data:
            outward = one.sender == self._node
            near = one.datagram.source if outward else one.datagram.destination
            here = near.port == way.port and near.address == moa
            if here and outward is (way.direction == "up"):
                yield one


def _by(limit: float, at: float | None) -> float | None:
    return at if at is not None and at <= limit else None


def _latest(acks: Iterable[Transmission | None]) -> Transmission | None:
    """The last one to arrive; None if one is missing."""
    latest: Transmission | None = None
    for ack in acks:
        if ack is None:
            return None
        if latest is None or (ack.received or 0.0) > (latest.received or 0.0):
            latest = ack
    return latest


def _last(times: Iterable[float | None]) -> float | None:
    """The last of some times; None if one is missing, or all are."""
    known: list[float] = []
    for at in times:
        if at is None:
            return None
        known.append(at)
    return max(known, default=None)
