"""Flows without an event for every packet.

What becomes of a packet is certain as long as nothing changes that it depends on: how its sender
translates, who has the addresses that it bears then, how its receiver translates back. So a flow
sleeps where that is certain for all packets to come, and nobody waits for one of them:

- *delivered*: both hosts translate, and either end's handover has had its first packet;
- *lost*: nobody has the address that packets go to, or the one that they leave from;
- *kept*: the sender does not translate, and its machine drops a packet for each that comes, the
  oldest that it holds or, without any address, this one itself.

Nothing is certain over a link that has a rate: there packets are in each other's way.

It is woken by whoever changes one of those things. Then the packets sent meanwhile are made good:
those that would have arrived are counted, and those still under way become events like any other.
Where nothing but numbers is asked for, packets are counted without being looked at.

The machines of both ends would have heard of the traffic once a second: they are told before their
next input (`_conversations`), so that they do what they would have done.
"""

from collections import deque
from collections.abc import Sequence
from math import ceil, inf, log, nextafter
from random import Random
from typing import Final, final

from numpy.random import Generator

from mat.address import Address
from mat.effects import DropPacket, NodeEffect, Reason, ReleasePacket, Translation
from mat_sim.engine._clock import NEVER, Happening
from mat_sim.engine._conversations import Tie
from mat_sim.engine._flow import DOWN, UP, Flow
from mat_sim.engine._gauge import Gauge
from mat_sim.engine._handover import NOT_YET
from mat_sim.engine._host import MUO, Host, Packet
from mat_sim.engine._network import Link, Network, Site
from mat_sim.engine._rhythm import Regular, Rhythm
from mat_sim.engine._tally import Count, Tally

_AWAKE: Final = 0
_DELIVERED: Final = 1
_LOST: Final = 2
_KEPT: Final = 3

_UNSURE: Final = 0
_PUSHED_OUT: Final = 1
_REFUSED: Final = 2
"""What the machine did with the last packet: nothing certain, or dropped an older one, or it."""

_IMPROBABLE: Final = 1e-12
_SLACK: Final = 2.0
"""Seconds of packets that are looked at in any case: a second and what belongs to it."""


@final
class Surroundings:
    """What all quiet flows of a run share."""

    __slots__ = ("counts", "holds", "network", "pause", "random", "tally")

    def __init__(
        self,
        network: Network,
        tally: Tally,
        *,
        random: Random,
        counts: Generator,
        pause: float,
        holds: int,
    ) -> None:
        """`pause` is the longest time that a machine may be left alone, in seconds.

        `holds` is how many packets it holds for a peer.
        """
        self.network = network
        self.tally = tally
        self.random = random
        self.counts = counts
        self.pause = pause
        self.holds = holds


@final
class QuietFlow(Flow):
    """Packets from one node to another, which are events only where their fate is uncertain."""

    __slots__ = (
        "_around",
        "_arrived",
        "_begun",
        "_closed",
        "_count",
        "_delay",
        "_delays",
        "_due",
        "_earlier",
        "_far",
        "_fate",
        "_from",
        "_here",
        "_highest",
        "_last",
        "_machine",
        "_machine_at",
        "_margin",
        "_morning",
        "_near",
        "_open",
        "_packet",
        "_queue",
        "_regular",
        "_sending",
        "_size",
        "_there",
        "_to",
        "_under_way",
        "_windows",
    )

    def __init__(
        self,
        sender: Host,
        receiver: Host,
        *,
        rhythm: Rhythm,
        size: int,
        stops: float,
        around: Surroundings,
    ) -> None:
        super().__init__(
            sender=sender.name,
            receiver=receiver.name,
            source=sender.home,
            destination=receiver.home,
            rhythm=rhythm,
            size=size,
            stops=stops,
        )
        self._around = around
        self._from = sender
        self._to = receiver
        self._near: Tie = sender.tie(receiver.home)
        self._far: Tie = receiver.tie(sender.home)
        for host, tie in ((sender, self._near), (receiver, self._far)):
            host.conversations().is_quiet = True
            tie.flows.append(self)
        self._sending: Happening | None = None
        self._begun = False
        self._morning = NEVER
        """When it is to be awake next, s."""
        # ---- what was measured -----------------------------------------------------------------
        self._arrived = 0
        self._delays = 0.0
        self._last = NOT_YET
        """Time of the last delivery, s."""
        self._highest = -1
        """Highest number that was delivered."""
        self._earlier = -1
        """The same, of what was delivered before the last delivery, where that was an event."""
        self._open: list[Gauge] = []
        self._closed: list[Gauge] = []
        """In order of their ends."""
        self._windows: dict[tuple[float, float], Gauge] = {}
        # ---- what the sender's machine does ----------------------------------------------------
        self._machine = _UNSURE
        self._machine_at = 0
        """After which of its inputs."""
        self._queue: deque[Packet] = deque(maxlen=around.holds)
        """The packets that it was given last."""
        # ---- while asleep ----------------------------------------------------------------------
        self._fate = _AWAKE
        self._packet: Packet | None = None
        """What a packet looks like on the wire."""
        self._here: Site | None = None
        self._there: Site | None = None
        self._count: Count | None = None
        self._size = 0
        self._regular: Regular | None = None
        """The rhythm, where rate and delay are constant: then `_due` and `_delay` count."""
        self._due = 0
        """Number of the next packet to arrive."""
        self._delay = 0.0
        self._margin = 0.0
        """Packets of the last so many seconds are looked at one by one."""
        self._under_way: list[tuple[float, int, float]] = []
        """Arrival, number and time of sending."""

    def begin(self, sending: Happening) -> None:
        """The happening that is to come up when the next packet is due."""
        self._sending = sending
        self._around.network.clock.early_at(self.rhythm.next, sending)

    # ---- packets that are events ---------------------------------------------------------------

    def send(self, now: float) -> int:  # noqa: ARG002
        """One more packet; its number."""
        return self.rhythm.number - 1

    def deliver(self, now: float, number: int, sent: float) -> None:
        """A packet has reached the application."""
        self.settle()
        self._arrived += 1
        self._delays += now - sent
        self._measure(now, number)

    def _measure(self, now: float, number: int) -> None:
        """A packet is delivered, after all that were delivered before it."""
        if now != self._last:
            self._earlier = self._highest
        self._last = now
        self._highest = max(self._highest, number)
        for gauge in self._open:
            gauge.delivered(now, number)
        for gauge in reversed(self._closed):
            if gauge.is_done_with(number):
                break
            gauge.delivered(now, number)

    def kept(self, packet: object, effects: Sequence[NodeEffect], inputs: int) -> None:
        """What the sender's machine did with a packet, as its input of this number."""
        assert isinstance(packet, Packet)
        self._machine, self._machine_at = _UNSURE, inputs
        self._near.held = self._near.told = packet.sent
        self._queue.append(packet)
        for effect in effects:
            if isinstance(effect, ReleasePacket):
                self._queue.clear()
            elif isinstance(effect, DropPacket):
                self._dropped(packet, effect)

    def _dropped(self, packet: Packet, effect: DropPacket) -> None:
        if effect.handle is packet:
            self._queue.clear()
            if effect.reason is Reason.NO_ADDRESS:
                self._machine = _REFUSED
        elif effect.reason is Reason.OVERFLOW:
            self._machine = _PUSHED_OUT

    # ---- falling asleep ------------------------------------------------------------------------

    def doze(self) -> bool:
        """A packet is due: whether its fate is certain, and that of those after it."""
        self._begun = True
        around, now = self._around, self._around.network.clock.now
        steady = self.rhythm.steady_until(around.pause)
        if steady <= now:
            return False
        translation = self._from.translation_to(self.destination)
        if translation is None:
            asleep = self._is_kept(now - around.pause)
        else:
            asleep = self._is_certain(translation, now - around.pause)
        if asleep and steady not in (NEVER, self._morning):
            self._morning = steady
            around.network.clock.at(steady, _Morning(self))
        return asleep

    def _is_kept(self, recently: float) -> bool:
        """The sender's machine has the packets; whether it drops one for each that comes."""
        if self._machine == _UNSURE or self._machine_at != self._from.conversations().inputs:
            return False
        if self._machine == _PUSHED_OUT and (
            self._near.held < recently or len(self._queue) < self._around.holds
        ):
            return False
        self._fate = _KEPT
        self._margin = (self._around.holds + 1) * self.rhythm.longest_pause
        self._from.conversations().kept[self] = None
        return True

    def _is_certain(self, translation: Translation, recently: float) -> bool:
        """Packets leave their sender; whether it is certain how they end."""
        network = self._around.network
        if self._near.used < recently or self._around.tally.wants_data(self.sender, self.receiver):
            return False
        source, destination = translation.outward(self.source, self.destination)
        here, there = network.link_of(source), network.link_of(destination)
        if here is not None and network.capacities and network.has_rate(here, destination):
            return False
        if here is not None and there is not None:
            if not self._reaches(there, source, destination, translation.announce, recently):
                return False
            self._fate = _DELIVERED
        else:
            self._fate = _LOST
        self._leave(source, destination, translation.announce)
        self._here = here.site if here is not None else None
        self._there = there.site if there is not None else None
        self._foresee()
        return True

    def _reaches(
        self,
        there: Link,
        source: Address,
        destination: Address,
        announced: Address | None,
        recently: float,
    ) -> bool:
        """Whether packets reach the application, and no handover waits for one that does."""
        return (
            there.party is self._to
            and self._far.used >= recently
            and self._to.would_deliver(self, source, destination, announced)
            and not self._from.awaits(UP, self.destination, source)
            and not self._to.awaits(DOWN, self.source, destination)
        )

    def _leave(self, source: Address, destination: Address, announced: Address | None) -> None:
        network, tally = self._around.network, self._around.tally
        packet = self._packet = Packet(network, self, -1, 0.0)
        packet.source, packet.destination, packet.outward = source, destination, False
        packet.announced = announced
        receiver = network.last_holder(destination) or self._from
        self._size = self.size + (MUO if announced is not None else 0)
        self._count = packet.count = tally.count("data", self._from.role, receiver.role)
        network.depend(self, source)
        network.depend(self, destination)

    def _foresee(self) -> None:
        """What packets meet on their way, and whether it is the same for all."""
        mean, longest, kept = 0.0, 0.0, 1.0
        for site in (self._here, self._there):
            if site is not None:
                mean += site.mean_delay
                longest += site.longest_delay
                kept *= site.kept
        rhythm, self._due = self.rhythm, self.rhythm.number
        if isinstance(rhythm, Regular) and mean == longest and (kept == 1 or self._fate == _LOST):
            self._regular, self._delay = rhythm, longest if self._here is not None else 0.0
            return
        # So long that one in it was delivered, and that all before it have arrived.
        packets = 1 if kept == 1 else 1 + ceil(log(_IMPROBABLE) / log(1 - kept))
        self._margin = longest + _SLACK + packets * rhythm.longest_pause

    # ---- waking up -----------------------------------------------------------------------------

    def wake(self) -> None:
        """Something changes that packets may depend on."""
        if self._fate == _AWAKE:
            return
        self.settle()
        clock = self._around.network.clock
        if self._fate == _KEPT:
            del self._from.conversations().kept[self]
        else:
            self._put_back_under_way()
        self._fate = _AWAKE
        if self.rhythm.next < self.stops and self._sending is not None:
            clock.early_at(self.rhythm.next, self._sending)

    def _put_back_under_way(self) -> None:
        """Those that have not arrived are events from now on; and there may be news to tell."""
        network, like, regular = self._around.network, self._packet, self._regular
        assert like is not None
        if regular is not None:
            for number in range(self._due, regular.number):
                sent = regular.time(number)
                self._under_way.append((sent + self._delay, number, sent))
            self._regular = None
        for arrival, number, sent in self._under_way:
            packet = Packet(network, self, number, sent)
            packet.source, packet.destination, packet.outward = like.source, like.destination, False
            packet.announced, packet.count = like.announced, like.count
            network.clock.early_at(arrival, packet)
        self._under_way = []
        for address in (like.source, like.destination):
            if address is not None:
                network.release(self, address)
        self._packet = None
        self._from.conversations().untold[self.destination] = self._near
        self._to.conversations().untold[self.source] = self._far

    # ---- what has happened meanwhile -----------------------------------------------------------

    def settle(self) -> None:
        """Account for all packets up to now; those of this very moment went before all else."""
        if self._fate == _AWAKE:
            return
        now = self._around.network.clock.now
        limit = min(nextafter(now, inf), self.stops)
        if self._regular is not None:
            self._settle_regular(self._regular, now, limit)
            return
        skipped = 0
        if self._fate != _DELIVERED or not self._is_measured(self.rhythm.number):
            skipped = self.rhythm.skip(limit - self._margin)
        first = self.rhythm.number
        times = self.rhythm.until(limit)
        if self._fate == _KEPT:
            self._keep(first, times)
            return
        self._count_sent(skipped + len(times))
        if skipped:
            self._skip(skipped)
        if times:
            self._near.passed_all(times)
            self._depart(first, times)
        self._arrive(now)

    def _count_sent(self, packets: int) -> None:
        assert self._count is not None
        self._count.sent += packets
        self._count.bytes += packets * self._size

    def _settle_regular(self, rhythm: Regular, now: float, limit: float) -> None:
        """Of a constant rate and delay: all by arithmetic."""
        begin, delay = rhythm.number, self._delay
        sent = rhythm.skip(limit)
        self._count_sent(sent)
        if sent:
            self._near.passed_all(rhythm.edges(begin, rhythm.number, 0.0))
        begin, end = self._due, rhythm.arrived(now, delay)
        if end <= begin:
            return
        self._due = end
        assert self._count is not None
        if self._fate == _LOST:
            self._count.lost += end - begin
            return
        self._count.delivered += end - begin
        self._note(end - begin, (end - begin) * delay)
        self._far.passed_all(rhythm.edges(begin, end, delay))
        if self._is_measured(begin):
            for number in range(begin, end):
                self._measure(rhythm.time(number) + delay, number)
        else:
            self._last = rhythm.time(end - 1) + delay
            self._highest = max(self._highest, end - 1)

    def _is_measured(self, number: int) -> bool:
        """Whether packets from a number on count for a handover."""
        closed = self._closed
        return bool(self._open) or bool(closed and not closed[-1].is_done_with(number))

    def _keep(self, first: int, times: list[float]) -> None:
        """The newest packets take the places of those that the machine holds."""
        if not times:
            return
        if self._queue:
            self._near.held = times[-1]
        numbers = [(packet.number, packet.sent) for packet in self._queue]
        numbers += enumerate(times, first)
        held = len(self._queue)
        for packet, (number, sent) in zip(self._queue, numbers[len(numbers) - held :], strict=True):
            packet.number, packet.sent = number, sent

    def _skip(self, packets: int) -> None:
        """Packets have come to their end long ago."""
        assert self._count is not None
        if self._fate == _LOST or self._here is None or self._there is None:
            self._count.lost += packets
            return
        arrived, kept = packets, self._here.kept * self._there.kept
        if kept < 1:
            arrived = int(self._around.counts.binomial(packets, kept))
        self._count.delivered += arrived
        self._count.lost += packets - arrived
        self._note(arrived, arrived * (self._here.mean_delay + self._there.mean_delay))

    def _depart(self, first: int, times: list[float]) -> None:
        """Packets leave their sender."""
        here, there, random = self._here, self._there, self._around.random
        assert self._count is not None
        if here is None:
            self._count.lost += len(times)
            return
        kept = here.kept * (there.kept if there is not None else 1.0)
        for number, sent in enumerate(times, first):
            if kept < 1 and random.random() >= kept:
                self._count.lost += 1
                continue
            delay = here.delay(random)
            if there is not None:
                delay += there.delay(random)
            self._under_way.append((sent + delay, number, sent))

    def _arrive(self, now: float) -> None:
        """Packets have arrived before now, or would have if there were anybody."""
        assert self._count is not None
        arrived = [one for one in self._under_way if one[0] <= now]
        if not arrived:
            return
        self._under_way = [one for one in self._under_way if one[0] > now]
        if self._fate == _LOST:
            self._count.lost += len(arrived)
            return
        self._count.delivered += len(arrived)
        self._note(len(arrived), sum(arrival - sent for arrival, _, sent in arrived))
        arrived.sort()
        self._far.passed_all([arrival for arrival, _, _ in arrived])
        if self._is_measured(min(number for _, number, _ in arrived)):
            for arrival, number, _ in arrived:
                self._measure(arrival, number)
        else:
            self._last = arrived[-1][0]
            self._highest = max(self._highest, *(number for _, number, _ in arrived))

    def _note(self, packets: int, delays: float) -> None:
        """Packets were delivered, which have taken so long in all, s."""
        assert self._packet is not None
        self._arrived += packets
        self._delays += delays
        if self._packet.announced is not None:
            self.headers += packets * MUO

    # ---- handovers -----------------------------------------------------------------------------

    def handover_begins(self, begin: float) -> None:
        """A handover begins at one of the ends."""
        self.wake()
        # A packet that is delivered at this very moment is one of the handover.
        highest = self._earlier if self._last == begin else self._highest
        self._open.append(Gauge(begin, self._last, highest + 1))

    def handover_ends(self, begin: float, end: float) -> None:
        """It is over."""
        self.wake()
        gauge = next(one for one in self._open if one.begin == begin)
        self._open.remove(gauge)
        due = self.rhythm.next <= end < self.stops
        gauge.close(end, self.rhythm.number + due)
        self._closed.append(gauge)
        self._windows[begin, end] = gauge

    @property
    def begun(self) -> bool:
        """Whether any packet was sent."""
        return self._begun

    def totals(self) -> tuple[int, int, float]:
        """Packets sent, packets delivered, and the sum of what these took, s."""
        return self.rhythm.number, self._arrived, self._delays

    def interruption(self, begin: float, end: float) -> float:
        """Longest time without a delivery around a handover, s (`mat_files.measure`)."""
        return self._windows[begin, end].interruption(self.rhythm.spacing)

    def losses(self, begin: float, end: float) -> int:
        """Packets of a handover that were never delivered (`mat_files.measure`)."""
        return self._windows[begin, end].lost


@final
class _Morning(Happening):
    """The time up to which a flow could sleep is over."""

    __slots__ = ("_flow",)

    def __init__(self, flow: QuietFlow) -> None:
        self._flow = flow

    def happen(self) -> None:
        """It wakes."""
        self._flow.wake()
