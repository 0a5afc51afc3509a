"""What is counted and drawn: messages by type and hop, and one handover as a ladder."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, final

from mat.address import Address
from mat.codec import size_of
from mat.messages import (
    NAMES,
    HaNotify,
    ImsUpdate,
    MaAnswer,
    MaQuery,
    Message,
)
from mat_files.ladder import LadderMessage, step_of
from mat_sim.baselines import IPV4_HEADER, IPV6_HEADER, UDP_HEADER, Datagram
from mat_sim.engine._network import Datagram as Travelling
from mat_sim.engine._network import Network, Party

DNS_PARTY: Final = "DNS"
NODES: Final = ("MN", "CN")
"""Roles of nodes; those of servers are their names."""
RESOLVER: Final = "resolver"
"""Role of the caching resolvers of sites."""
DNS_QUERY_SIZE: Final = 64
"""Bytes of a DNS query for an IMS record, and of its answer: typical, for the byte count only."""
DNS_ANSWER_SIZE: Final = 88
_MOST_DATA: Final = 400
"""Data packets that one ladder records at most."""

_KINDS: Final = 2
"""Kinds of handover, soft and hard; of each, one ladder is recorded."""
_MOST_WATCHED: Final = 16
"""Nodes that are watched at a time, of a crowd that moves together."""
_MOST_WATCHES: Final = 500
"""Handovers that are watched in all: a kind that has not come by then may never come."""

Kind: TypeAlias = Literal["signal", "data", "dns"]


@final
@dataclass(slots=True)
class Count:
    """Messages of one type on one hop."""

    sent: int = 0
    delivered: int = 0
    lost: int = 0
    retransmitted: int = 0
    bytes: int = 0
    udp: bool = False
    """Whether `bytes` are UDP payload; else whole IP packets."""


@final
@dataclass(slots=True)
class Line:
    """A line of a ladder in the making; `received` comes later, if it does."""

    sent: float
    from_: str
    to: str
    label: str
    step: str | None
    kind: Kind
    received: float | None = None

    def finished(self) -> LadderMessage:
        """The line as the report takes it."""
        return LadderMessage(
            self.sent, self.received, self.from_, self.to, self.label, self.step, self.kind
        )


def headers(family: Literal[4, 6]) -> int:
    """Bytes of what carries a message in this version of IP: IP and UDP header."""
    return (IPV4_HEADER if family == 4 else IPV6_HEADER) + UDP_HEADER


def received(lines: list[Line] | None, now: float) -> None:
    """What these lines are about has arrived; None, as mostly, where nobody draws it."""
    if lines is not None:
        for line in lines:
            line.received = now


class Counted(Travelling):
    """A datagram on its way that is counted when it leaves and when its way is over."""

    __slots__ = ("count", "lines")

    def __init__(
        self,
        network: Network,
        source: Address | None,
        destination: Address,
        *,
        count: Count | None,
        lines: list[Line] | None,
    ) -> None:
        super().__init__(network, source, destination)
        self.count = count
        """None until it leaves."""
        self.lines = lines

    def arrive(self, holder: Party) -> None:
        """Whoever holds the destination has it."""
        assert self.count is not None
        self.count.delivered += 1
        received(self.lines, self.network.clock.now)
        self.reach(holder)

    def reach(self, holder: Party) -> None:
        """What the holder of the destination does with it."""
        raise NotImplementedError

    def lose(self) -> None:
        """Only the count knows."""
        assert self.count is not None
        self.count.lost += 1


@final
class Watch:
    """Records what concerns one node while it is in a handover."""

    __slots__ = ("_data", "home", "lines", "name")

    def __init__(self, name: str, home: Address) -> None:
        self.name = name
        self.home = home
        self._data = 0
        self.lines: list[Line] = []

    def finished(self) -> list[LadderMessage]:
        """The ladder: all signalling, and data from just before the first of it."""
        signals = [line.sent for line in self.lines if line.kind != "data"]
        begin = min(signals, default=0.0)
        last = {(line.from_, line.to): line for line in self.lines if line.sent < begin}
        kept = {id(line) for line in last.values()}
        return [line.finished() for line in self.lines if line.sent >= begin or id(line) in kept]

    @property
    def is_full(self) -> bool:
        """Whether no data packet is recorded any more."""
        return self._data >= _MOST_DATA

    def add(self, line: Line) -> None:
        """Record a line, unless it is one data packet too many."""
        self._data += line.kind == "data"
        if line.kind != "data" or self._data <= _MOST_DATA:
            self.lines.append(line)


@final
class Tally:
    """All counts of a run, and the watches that are on."""

    __slots__ = (
        "_begun",
        "_counts",
        "_every_packet",
        "_watches",
        "ladders",
        "recording",
        "watching",
    )

    def __init__(self, *, records: bool = False, every_packet: bool = False) -> None:
        """`records` keeps every line, for an animation; else only ladders are kept.

        With `every_packet` each data packet is wanted by somebody.
        """
        self._every_packet = every_packet
        self._counts: dict[tuple[str, str, str], Count] = {}
        self._begun = 0
        """Watches so far."""
        self._watches: dict[str | Address, Watch] = {}
        """By the node's name and by its home address."""
        self.ladders: dict[str, Watch] = {}
        """Of each kind of handover, the first that was completed."""
        self.recording: list[Line] | None = [] if records else None
        self.watching = records
        """Whether lines are wanted at all."""

    def watch(self, name: str, home: Address) -> None:
        """Record what concerns this node from now on, while ladders are missing."""
        wanted = len(self.ladders) < _KINDS and self._begun < _MOST_WATCHES
        if wanted and len(self._watches) < 2 * _MOST_WATCHED:
            self._begun += 1
            self._watches[name] = self._watches[home] = Watch(name, home)
            self.watching = True

    def unwatch(self, name: str, completed: str | None) -> None:
        """Record no more of this node; the kind of handover it completed, if it did."""
        watch = self._watches.pop(name, None)
        if watch is None:
            return
        self._watches.pop(watch.home, None)
        if completed is not None:
            self.ladders.setdefault(completed, watch)
        self.watching = bool(self._watches) or self.recording is not None

    def count(self, kind: str, sender: str, receiver: str) -> Count:
        """The counts of one type on one hop, by role."""
        key = (kind, sender, receiver)
        count = self._counts.get(key)
        if count is None:
            count = self._counts[key] = Count()
        return count

    def count_message(
        self, message: Message, sender: Party, receiver: Party | None, *, repeat: bool
    ) -> Count:
        """A message goes out; its count, which is to hear what becomes of it."""
        there = receiver.role if receiver is not None else sender.role
        count = self.count(NAMES[type(message)], sender.role, there)
        count.sent += 1
        count.retransmitted += repeat
        count.bytes += size_of(message)
        count.udp = True
        return count

    def note_message(
        self, now: float, message: Message, sender: Party, receiver: Party | None
    ) -> list[Line] | None:
        """A line for the ladders that the message belongs to; None if there is none."""
        name, about = receiver.name if receiver is not None else "?", _about(message)
        if not self._concerns(sender.name, name, about):
            return None
        there = receiver.role if receiver is not None else sender.role
        step = step_of(message, sender.role in NODES, there in NODES)
        return self._note(Line(now, sender.name, name, NAMES[type(message)], step, "signal"), about)

    def count_datagram(
        self, datagram: Datagram, sender: Party, receiver: Party, *, repeat: bool
    ) -> Count:
        """As `count_message`, for a datagram of another system, data or signalling."""
        count = self.count(datagram.name, sender.role, receiver.role)
        count.sent += 1
        count.retransmitted += repeat
        count.bytes += datagram.size
        return count

    def note_datagram(
        self, now: float, datagram: Datagram, sender: Party, receiver: Party
    ) -> list[Line] | None:
        """As `note_message`, for a datagram of another system."""
        kind: Kind = "data" if datagram.is_data else "signal"
        line = Line(now, sender.name, receiver.name, datagram.name, None, kind)
        named = (home for home in _named(datagram) if home in self._watches)
        return self._note(line, next(named, None))

    def wants_data(self, sender: str, receiver: str) -> bool:
        """Whether a data packet would get a line, or is wanted otherwise."""
        if self.recording is not None or self._every_packet:
            return True
        found = self._watches.get(sender), self._watches.get(receiver)
        return any(watch is not None and not watch.is_full for watch in found)

    def _concerns(self, sender: str, receiver: str, about: Address | None) -> bool:
        """Whether anybody wants a line."""
        watches = self._watches
        return (
            self.recording is not None
            or sender in watches
            or receiver in watches
            or (about is not None and about in watches)
        )

    def count_data(self, sender: Party, receiver: Party, size: int) -> Count:
        """A data packet goes out."""
        count = self.count("data", sender.role, receiver.role)
        count.sent += 1
        count.bytes += size
        return count

    def note_data(
        self, now: float, sender: Party, receiver: Party, *, announced: bool
    ) -> list[Line] | None:
        """As `note_message`, for a data packet."""
        label = "data + MUO" if announced else "data"
        return self._note(Line(now, sender.name, receiver.name, label, None, "data"), None)

    def look_up(
        self,
        now: float,
        asker: Party,
        home: Address,
        question: str = "IMS?",
        *,
        answers: str = DNS_PARTY,
    ) -> list[Line] | None:
        """A question to the DNS goes out, and will be answered by a party of the role `answers`."""
        self.count_look_up(asker.role, answers)
        if not self.watching:
            return None
        return self._note(Line(now, asker.name, DNS_PARTY, question, None, "dns"), home)

    def count_look_up(self, asks: str, answers: str) -> None:
        """A question to the DNS and its answer, by role."""
        for kind, sender, receiver, size in (
            ("DNS query", asks, answers, DNS_QUERY_SIZE),
            ("DNS answer", answers, asks, DNS_ANSWER_SIZE),
        ):
            count = self.count(kind, sender, receiver)
            count.sent += 1
            count.delivered += 1
            count.bytes += size
            count.udp = True

    def _note(self, line: Line, about: Address | None) -> list[Line] | None:
        """Put the line into every ladder that it concerns."""
        keys = (line.from_, line.to, about)
        found = [self._watches[key] for key in keys if key is not None and key in self._watches]
        concerned = {id(watch): watch for watch in found}
        for watch in concerned.values():
            watch.add(line)
        if self.recording is not None:
            self.recording.append(line)
            return [line]
        return [line] if concerned else None

    def finished_ladders(self) -> dict[str, tuple[str, list[LadderMessage]]]:
        """Of each kind of handover, the node and its messages."""
        return {kind: (watch.name, watch.finished()) for kind, watch in self.ladders.items()}

    def rows(self, run: int, family: Literal[4, 6]) -> Iterator[dict[str, object]]:
        """The rows of the table `messages`, in this version of IP."""
        header = headers(family)
        for (kind, sender, receiver), count in sorted(self._counts.items()):
            yield {
                "run": run,
                "type": kind,
                "from_role": sender,
                "to_role": receiver,
                "sent": count.sent,
                "delivered": count.delivered,
                "lost": count.lost,
                "retransmitted": count.retransmitted,
                "bytes": count.bytes,
                "ip_bytes": count.bytes + (count.sent * header if count.udp else 0),
            }


def _named(datagram: Datagram) -> Iterator[Address]:
    """The home addresses that a datagram of another system is about."""
    payload = datagram.payload
    while isinstance(payload, Datagram):
        datagram, payload = payload, payload.payload
    named = (getattr(payload, "home_address", None), datagram.home_source)
    yield from (home for home in (*named, datagram.home_destination) if home is not None)
    yield from (datagram.source, datagram.destination)


def _about(message: Message) -> Address | None:
    """The home address whose mapping a message is about."""
    if isinstance(message, (MaQuery, MaAnswer, ImsUpdate, HaNotify)):
        return message.home_address
    return None
