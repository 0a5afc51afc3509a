"""What the lab itself adds to a handover: its programs, and its links beyond what they were to be.

Theory of operation. A part of a handover that messages make up ends with the arrival of the last of
them. Each was sent because of another, which its sender had received last: so the way leads back,
message by message, to the node that moved. What the messages were under way is the links' share, of
which the mean of the scenario's delays was asked for; what is between the arrival of one and the
departure of the next is the programs'. With both taken off, a part is what the protocol takes over
these links, and so what the simulator says, whose hosts take no time.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import final

from mat.address import Address, format_address
from mat.messages import HaNotify, HaNotifyAck, ImsUpdate, ImsUpdateReply, MaAnswer, MaQuery
from mat_real.lab.plan import AccessNetwork, Node, Plan
from mat_real.lab.probe import sent_at
from mat_real.lab.recording import Transmission


@final
@dataclass(frozen=True, slots=True)
class Share:
    """Of a part of a handover, in s: what programs took, and links beyond their mean delays.

    The program that changes links and addresses is one of them; it may be late.
    """

    programs: float
    links: float = 0.0

    def less(self, parts: Iterable["Share"]) -> "Share":
        """What is left of this without parts of it."""
        listed = list(parts)
        programs, links = (sum(p.programs for p in listed), sum(p.links for p in listed))
        return Share(self.programs - programs, self.links - links)


@final
class Shares:
    """The shares of the parts of handovers, from all that was sent in a run."""

    __slots__ = ("_arrived", "_plan")

    def __init__(self, plan: Plan, transmissions: Iterable[Transmission]) -> None:
        self._plan = plan
        self._arrived = [
            one for one in transmissions if one.message is not None and one.received is not None
        ]

    def of(self, node: str, home: Address, begin: float, last: Transmission) -> Share:
        """Of the part of a node's handover from `begin` to the arrival of the message `last`."""
        assert last.received is not None
        chain = [last]
        while chain[-1].sender != node and (cause := self._cause(home, chain[-1])) is not None:
            chain.append(cause)
        return self._share(last.received - begin, chain)

    def of_packet(
        self, node: str, home: Address, begin: float, packet: Transmission, delivered: float
    ) -> Share | None:
        """Of all from when a node had its address until a packet was delivered to the application.

        The time for which a packet that the application sent later had not been there is not the
        lab's doing. None for a packet that went whatever was signalled.
        """
        cause = self._news(node, home, packet)
        chain = [packet]
        while cause is not None and cause.sent >= begin:
            chain.append(cause)
            if isinstance(cause.message, ImsUpdate):
                waited = max(0.0, sent_at(packet.datagram.payload) - (chain[1].received or 0.0))
                return self._share(delivered - begin - waited, chain)
            at_node = cause.sender == node
            cause = self._news(node, home, cause) if at_node else self._cause(home, cause)
        return None

    def _share(self, length: float, chain: Sequence[Transmission]) -> Share:
        under_way = sum((one.received or one.sent) - one.sent for one in chain)
        return Share(length - under_way, under_way - sum(self._wanted(one) for one in chain))

    def _cause(self, home: Address, effect: Transmission) -> Transmission | None:
        """What the sender of a message had received last about a home address or in this matter."""
        answers_only = isinstance(effect.message, MaAnswer | ImsUpdateReply)
        return self._last(
            effect,
            lambda one: _is_request_of(one, effect) or (not answers_only and _is_about(one, home)),
        )

    def _news(self, node: str, home: Address, effect: Transmission) -> Transmission | None:
        """What made a host send a packet, or the node a message: how things stand by its peer.

        The node itself learns from its IMS's Reply that it is registered, and from its peer's Ack
        that this knows.
        """
        if effect.sender != node:
            return self._last(effect, lambda one: _is_about(one, home))
        if effect.message is not None:
            return self._last(effect, lambda one: isinstance(one.message, ImsUpdateReply))
        news, peer = (HaNotifyAck, ImsUpdateReply), effect.receiver
        return self._last(
            effect,
            lambda one: (
                isinstance(one.message, news)
                and (one.sender == peer or isinstance(one.message, ImsUpdateReply))
            ),
        )

    def _last(
        self, effect: Transmission, wanted: Callable[[Transmission], bool]
    ) -> Transmission | None:
        """The last of those wanted that the sender of a message had received before."""
        found = (
            one
            for one in self._arrived
            if one.receiver == effect.sender and (one.received or 0.0) <= effect.sent
        )
        return max(filter(wanted, found), key=lambda one: one.received or 0.0, default=None)

    def _wanted(self, one: Transmission) -> float:
        """The mean delay of the way of a message, s."""
        ends = (one.sender, one.datagram.source), (one.receiver, one.datagram.destination)
        return sum(self._mean(host, end.address) for host, end in ends)

    def _mean(self, host: str, address: Address) -> float:
        """That of the link to the core by which a host has an address."""
        end = self._plan.everyone[host]
        assert not isinstance(end, AccessNetwork)
        if not isinstance(end, Node) or end.site is not None:
            return end.quality.delay.mean
        there = ip_address(format_address(address))
        means = (
            network.quality.delay.mean
            for network in self._plan.networks
            if any(there.version == pool.version and there in pool for pool in network.pool)
        )
        return next(means, 0.0)


def _is_about(one: Transmission, home: Address) -> bool:
    message = one.message
    return isinstance(message, ImsUpdate | HaNotify | MaQuery | MaAnswer) and (
        message.home_address == home
    )


def _is_request_of(request: Transmission, answer: Transmission) -> bool:
    """Whether one message is the request that another answers."""
    if request.message is None or answer.message is None:
        return False
    return request.sender == answer.receiver and request.message.sequence == answer.message.sequence
