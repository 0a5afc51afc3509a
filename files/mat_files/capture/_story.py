"""What a capture tells, as the messages of a ladder diagram.

Theory of operation. First all that is MAT's is read: messages, questions for IMS records, MUOs.
They say which mobile address belongs to which home address, and who is a server: who is asked or
told. So hosts have names even where the capture has none: that of the home address, else the
address. Then each packet becomes a line. In a capture of hosts a packet that arrived is there
twice, and its two records are paired; one that was not seen to arrive is lost, unless it left in
the last second, or for a host that is not in the capture. In any other capture a packet is there
once, and when it arrived elsewhere is not known. Data are packets between nodes that are no
messages.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple, final

from mat.address import Address, format_address, is_ipv4
from mat.codec import Malformed, decode
from mat.messages import (
    MAT_PORT,
    NAMES,
    HaAnswer,
    HaNotify,
    HaNotifyAck,
    HaQuery,
    ImsUpdate,
    ImsUpdateReply,
    MaAnswer,
    MaQuery,
    Message,
)
from mat_files.capture._dns import DNS_PORT, ImsLookup, ims_lookup
from mat_files.capture._names import host_of
from mat_files.capture._packets import IpPacket, ip_packet
from mat_files.capture._pairing import Pairing
from mat_files.capture._read import Capture, Packet
from mat_files.errors import CaptureError
from mat_files.ladder import LadderMessage, step_of

_SECOND: Final = 10**9
_UNDER_WAY: Final = _SECOND
"""Nanoseconds after which nothing is under way any more."""
_DNS: Final = "DNS"


@final
@dataclass(frozen=True, slots=True)
class Story:
    """What happened, in order, and the columns of a diagram of it. Times in s from its begin."""

    messages: Sequence[LadderMessage]
    participants: tuple[str, ...]

    def between(self, begin: float, end: float) -> "Story":
        """What was sent in this time."""
        return replace(self, messages=[one for one in self.messages if begin <= one.sent < end])

    def signalling(self) -> "Story":
        """What is no data."""
        return replace(self, messages=[one for one in self.messages if one.kind != "data"])


def story_of(
    capture: Capture, nodes: Sequence[str] = (), family: Literal[4, 6] | None = None
) -> Story:
    """All that a capture tells of MAT, or what concerns these nodes: is from, to or about them.

    Of both families, or of one: what is about addresses of it, whatever IP carries it. Raises
    `CaptureError` if there is no such node.
    """
    seen = list(_seen(capture))
    people = _People(capture, seen)
    known = {people.column(packet.packet, packet.ip.source) for packet in seen}
    known |= {people.name(packet.ip.destination) for packet in seen} | people.nodes
    if unknown := set(nodes) - known:
        there = ", ".join(sorted(people.nodes)) or "none"
        raise CaptureError(f"{', '.join(sorted(unknown))}: not in the capture; nodes: {there}")
    lines = _Lines(capture, people)
    for one in seen:
        lines.add(one)
    found = [line for line in lines.finished(capture) if line.concerns(nodes, family)]
    return Story([line.message() for line in found], people.participants())


@final
@dataclass(frozen=True, slots=True)
class _Seen:
    """A packet, opened: a message, or what is wrong with it; a question for an IMS; or neither."""

    packet: Packet
    ip: IpPacket
    message: Message | Malformed | None
    lookup: ImsLookup | None


def _seen(capture: Capture) -> Iterator[_Seen]:
    for packet in capture.packets:
        ip = ip_packet(packet.content)
        if ip is None:
            continue
        ports = ip.ports or ()
        if DNS_PORT in ports:
            lookup = ims_lookup(ip.payload)
            if lookup is not None:
                yield _Seen(packet, ip, None, lookup)
        else:
            yield _Seen(packet, ip, decode(ip.payload) if MAT_PORT in ports else None, None)


def _mapping(message: Message | Malformed | None) -> tuple[Sequence[Address], Sequence[Address]]:
    """The home and the mobile addresses that a message says belong together."""
    match message:
        case ImsUpdate():
            return (message.home_address,), message.mobile_addresses
        case MaAnswer() | HaNotifyAck() if message.code == 0:
            return (message.home_address,), message.mobile_addresses
        case HaAnswer() if message.code == 0:
            return message.home_addresses, (message.mobile_address,)
        case _:
            return (), ()


def _key(
    message: ImsUpdate | MaQuery | MaAnswer | HaNotify | HaNotifyAck | HaQuery | HaAnswer,
) -> Address:
    """The address that a message is about."""
    if isinstance(message, HaQuery | HaAnswer):
        return message.mobile_address
    return message.home_address


@final
class _People:
    """Who is who. All is learnt at the begin; what changes, again as it is told."""

    def __init__(self, capture: Capture, seen: Iterable[_Seen]) -> None:
        self._capture = capture
        self._homes: dict[Address, Address] = {}
        """By mobile and by home address."""
        self._first: dict[Address, Address] = {}
        """The same, of who had the address first."""
        self._places: dict[Address, str] = {}
        """Hosts that have sent from an address, or registered a home address."""
        self._servers: dict[Address, None] = {}
        self._own: dict[str, str] = {}
        """The last IMS that each node has told."""
        self._mobile: dict[str, set[Address]] = {}
        """Mobile addresses, by node, in order of appearance."""
        self.hosts = {one.place for one in capture.packets} if capture.of_hosts else set[str]()
        for one in seen:
            self._note_place(one)
            self.learn(one)
            self._note_servers(one)
        for home in self._homes.values():
            self._mobile.setdefault(self._called(home), set())
        self._server_names = {self._called(address): None for address in self._servers}

    def learn(self, one: _Seen) -> None:
        """What this packet says of addresses holds from now on."""
        homes, mobiles = _mapping(one.message)
        if one.ip.home_address is not None:
            homes, mobiles = (one.ip.home_address,), (one.ip.source,)
        for home in homes:
            for address in (home, *mobiles):
                self._homes[address] = home
                self._first.setdefault(address, home)
            if mobiles:
                self._mobile.setdefault(self._called(home), set()).update(mobiles)

    def _note_place(self, one: _Seen) -> None:
        if self._capture.of_hosts and one.packet.outward:
            self._places[one.ip.source] = one.packet.place
            if isinstance(one.message, ImsUpdate):
                self._places[one.message.home_address] = one.packet.place

    def _note_servers(self, one: _Seen) -> None:
        source, destination = one.ip.source, one.ip.destination
        match one.message:
            case ImsUpdate() | MaQuery() | HaQuery():
                self._servers[destination] = None
            case ImsUpdateReply() | MaAnswer() | HaAnswer():
                self._servers[source] = None
            case _:
                pass
        if one.lookup is not None:
            self._servers[source if one.lookup.answered else destination] = None
        if isinstance(one.message, ImsUpdate):
            self._own[self._called(one.message.home_address)] = self._called(destination)

    def forget(self) -> None:
        """Begin to learn anew; who had an address first is still known."""
        self._homes = {}

    def _called(self, address: Address) -> str:
        name = self._capture.names.get(address)
        if name:
            return host_of(name)
        return self._places.get(address) or format_address(address)

    def name(self, address: Address) -> str:
        """Whose an address is at the moment, or was first."""
        if address in self._capture.names:
            return self._called(address)
        return self._called(self._homes.get(address) or self._first.get(address) or address)

    def column(self, packet: Packet, address: Address) -> str:
        """The name of the host that a packet passed, at its end of that address."""
        return packet.place if self._capture.of_hosts else self.name(address)

    def is_node(self, address: Address) -> bool:
        """Whether a node has this address."""
        known = address in self._homes or address in self._first or address in self._capture.names
        return known and address not in self._servers

    def is_server(self, name: str) -> bool:
        """Whether this is the name of a server."""
        return name in self._server_names

    @property
    def nodes(self) -> set[str]:
        """The names of all nodes."""
        return set(self._mobile)

    def participants(self) -> tuple[str, ...]:
        """Columns: who moves most, other servers, its own, other nodes."""
        nodes = sorted(self._mobile, key=lambda name: -len(self._mobile[name]))
        own = self._own.get(nodes[0]) if nodes else None
        servers = [name for name in self._server_names if name not in (own, _DNS)]
        owned = [] if own is None else [own]
        return (*nodes[:1], *servers, *owned, *nodes[1:])


class _What(NamedTuple):
    """What a packet is; `about` is the node that it is about, if any, and `ipv4` its family."""

    label: str
    kind: Literal["signal", "data", "dns"]
    ipv4: bool
    step: str | None = None
    about: str = ""


@final
@dataclass(slots=True)
class _Line:
    """A line in the making."""

    sent: int
    from_: str
    to: str
    what: _What
    watched: bool
    begin: int
    received: int | None = None

    def concerns(self, nodes: Sequence[str], family: Literal[4, 6] | None) -> bool:
        """Whether it is of this family, and from, to or about one of these nodes, if any."""
        if family is not None and self.what.ipv4 is not (family == 4):
            return False
        return not nodes or not {self.from_, self.to, self.what.about}.isdisjoint(nodes)

    def message(self) -> LadderMessage:
        """The line as it is drawn."""
        received = None if self.received is None else (self.received - self.begin) / _SECOND
        sent = (self.sent - self.begin) / _SECOND
        watched = self.watched or received is not None
        what = self.what
        return LadderMessage(
            sent, received, self.from_, self.to, what.label, what.step, what.kind, watched
        )


@final
class _Lines:
    """Makes lines of packets."""

    def __init__(self, capture: Capture, people: _People) -> None:
        self._people = people
        self._hosts = capture.of_hosts
        self._begin = capture.packets[0].time if capture.packets else 0
        self._lines: list[_Line] = []
        self._pairs = Pairing[_Line]()
        self._asked: dict[tuple[str, int], _What] = {}
        """Requests, by who sent them and their sequence."""
        self._heard: set[tuple[str, str]] = set()
        """Which nodes something has come to from which others, or about them."""
        people.forget()

    def add(self, one: _Seen) -> None:
        """The next packet, in order of time."""
        packet = one.packet
        if packet.outward is False:
            line = self._pairs.arrived(one.ip.content)
            if line is not None:
                line.received = packet.time
                if self._hosts:
                    line.to = packet.place
                return
        self._people.learn(one)
        line = self._line(one)
        if line is not None:
            self._lines.append(line)
            if packet.outward:
                self._pairs.left(one.ip.content, line)

    def _line(self, one: _Seen) -> _Line | None:
        people, packet, ip = self._people, one.packet, one.ip
        came = packet.outward is False
        from_ = people.name(ip.source) if came else people.column(packet, ip.source)
        to = people.column(packet, ip.destination) if came else people.name(ip.destination)
        what = self._what(one, from_, to)
        if what is None:
            return None
        watched = self._hosts and not came and to in people.hosts
        return _Line(packet.time, from_, to, what, watched, self._begin)

    def _what(self, one: _Seen, from_: str, to: str) -> "_What | None":
        """What a packet is; None for one that has nothing to do with MAT."""
        ipv4 = is_ipv4(one.ip.source)
        if isinstance(one.message, Malformed):
            return _What("malformed", "signal", ipv4)
        if one.message is not None:
            return self._message(one.message, from_, to)
        if one.lookup is not None:
            return self._lookup(one.lookup)
        if not (self._people.is_node(one.ip.source) and self._people.is_node(one.ip.destination)):
            return None
        self._heard.add((to, from_))
        return _What("data" if one.ip.home_address is None else "data + MUO", "data", ipv4)

    def _message(self, message: Message, from_: str, to: str) -> "_What":
        people, name = self._people, NAMES[type(message)]
        nodes = [not people.is_server(one) for one in (from_, to)]
        request = self._asked.get((to, message.sequence))
        if isinstance(message, ImsUpdateReply):
            # It does not say which home address it is about: its update did.
            about, ipv4 = (request.about, request.ipv4) if request is not None else ("", True)
            return _What(name, "signal", ipv4, step_of(message, *nodes), about)
        address = _key(message)
        about = people.name(address)
        first = (from_, about) not in self._heard
        step = step_of(message, *nodes, first=first)
        if isinstance(message, MaAnswer) and request is not None:
            step = request.step or step
        what = _What(name, "signal", is_ipv4(address), step, about)
        if isinstance(message, ImsUpdate | MaQuery):
            self._asked[from_, message.sequence] = what
        self._note_heard(message, to)
        return what

    def _note_heard(self, message: Message, to: str) -> None:
        """What has come to a node about another, which it will ask about then."""
        people = self._people
        if isinstance(message, HaNotify):
            self._heard.add((to, people.name(message.home_address)))
        elif isinstance(message, HaAnswer):
            self._heard.update((to, people.name(one)) for one in message.home_addresses)

    def _lookup(self, lookup: ImsLookup) -> "_What":
        people = self._people
        about, ipv4 = people.name(lookup.home_address), is_ipv4(lookup.home_address)
        if not lookup.answered:
            return _What(f"IMS of {about}?", "dns", ipv4, None, about)
        found = [people.name(address) for one in lookup.records for address in one.addresses]
        found += [one.name for one in lookup.records if one.name]
        return _What(f"IMS: {', '.join(found) or 'none'}", "dns", ipv4, None, about)

    def finished(self, capture: Capture) -> list[_Line]:
        """All lines; what left at the very end may still be under way."""
        last = capture.packets[-1].time if capture.packets else 0
        for line in self._lines:
            if line.sent > last - _UNDER_WAY:
                line.watched = False
        return self._lines
