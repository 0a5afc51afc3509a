"""What a host with traffic holds: how packets are translated, and when each peer was in use.

A driver tells the machine of a peer's use about once a second (docs/protocol.md, section 8). Here
that is the first packet, either way, within each second of the clock. So what the machine is to be
told follows from when packets passed, whether or not there was an event for each of them.
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final, final

from mat.address import Address
from mat.effects import Translation
from mat.peer import Peer
from mat_sim.engine._flow import Flow

_LONG_AGO: Final = float("-inf")
HEARD_SHARE: Final = 0.25
"""A machine hears of all peers at least this often, as a share of the time that makes them idle."""
_FEW: Final = 4
"""Peers of a host that can be gone through whenever its machine is to hear something."""


@final
class Tie:
    """Traffic with one peer."""

    __slots__ = ("_settled", "flows", "held", "peer", "second", "told", "used")

    def __init__(self, peer: Address) -> None:
        self.peer = peer
        self.flows: list[Flow] = []
        """Both directions."""
        self._settled = -1
        """A second whose first packet is known for sure."""
        self.second = -1
        """The last second in which packets passed."""
        self.used = _LONG_AGO
        """When the first of them did, s."""
        self.held = _LONG_AGO
        """When the last packet came that the machine would have held, s."""
        self.told = _LONG_AGO
        """Until when the machine knows, s."""

    def is_news(self, now: float) -> bool:
        """Whether a packet that passes now is one to tell the machine of."""
        return int(now) > self.second

    def passed(self, now: float) -> None:
        """The machine is told of it."""
        self.second, self.used, self.told = int(now), now, now

    def passed_all(self, times: list[float]) -> None:
        """Packets have passed at these times, in order."""
        second = int(times[-1])
        if second < self.second:
            return
        first = times[bisect_left(times, second)]
        self.used = min(first, self.used) if second == self.second else first
        self.second = second

    def settle(self, now: float) -> None:
        """All packets up to now are accounted for, if that can bring anything new."""
        if self._settled < int(now):
            for flow in self.flows:
                flow.settle()
            self._settled = self.second

    @property
    def last(self) -> float:
        """What the machine is to know, s."""
        return max(self.used, self.held)


@final
class Conversations:
    """All traffic of a host."""

    __slots__ = ("_in", "_out", "_ties", "heard", "inputs", "is_quiet", "kept", "untold")

    def __init__(self) -> None:
        self._out: dict[Address, Translation] = {}
        self._in: dict[Address, Translation] = {}
        self._ties: dict[Address, Tie] = {}
        self.untold: dict[Address, Tie] = {}
        """Peers whose flows were woken, so that there may be something to tell of them."""
        self.heard = 0.0
        """When the machine was last told of all peers, s."""
        self.inputs = 0
        """How often the machine has acted."""
        self.is_quiet = False
        """Whether there are packets without events."""
        self.kept: dict[Flow, None] = {}
        """Flows asleep whose packets the machine would hold or drop."""

    def tie(self, peer: Address) -> Tie:
        """The traffic with a peer."""
        found = self._ties.get(peer)
        if found is None:
            found = self._ties[peer] = Tie(peer)
        return found

    @property
    def few(self) -> bool:
        """Whether there are few peers."""
        return len(self._ties) <= _FEW

    def machine_acts(self) -> None:
        """The machine has had an input: what it does with packets from now on is open."""
        self.inputs += 1
        for flow in list(self.kept):
            flow.wake()

    # ---- translation ---------------------------------------------------------------------------

    def outward(self, peer: Address) -> Translation | None:
        """How packets to a peer are translated."""
        return self._out.get(peer)

    def inward(self, source: Address) -> Translation | None:
        """How packets from a mobile address are."""
        return self._in.get(source)

    def set(self, translation: Translation) -> None:
        """Translate like this from now on."""
        self.clear(translation.home)
        self._out[translation.home] = translation
        for address in translation.accepted:
            rival = self._in.get(address)
            if rival is not None:
                self._wake(rival.home)
            self._in[address] = translation

    def clear(self, home_address: Address) -> None:
        """Do not translate packets of a peer any more."""
        self._wake(home_address)
        old = self._out.pop(home_address, None)
        for address in old.accepted if old is not None else ():
            if self._in.get(address) is old:
                del self._in[address]

    def _wake(self, peer: Address) -> None:
        tie = self._ties.get(peer)
        if tie is not None:
            for flow in tie.flows:
                flow.wake()

    # ---- what the machine has not heard yet ----------------------------------------------------

    def uses(self, now: float, peers: Iterable[Peer]) -> list[tuple[float, Address, float]]:
        """All peers in the order in which they were last in use: when, who, what was known.

        With few peers `news` will do: the machine hears of each before anything else.
        """
        self._settle_kept()
        for tie in self._ties.values():
            tie.settle(now)
        self.untold.clear()
        listed = [(self._last(peer), peer.home_address, peer.used_at) for peer in peers]
        listed.sort(key=_when)
        return listed

    def _settle_kept(self) -> None:
        """Of these, every packet is one that the machine would have been given."""
        for flow in self.kept:
            flow.settle()

    def _last(self, peer: Peer) -> float:
        tie = self._ties.get(peer.home_address)
        if tie is None:
            return peer.used_at
        tie.told = max(peer.used_at, tie.last)
        return tie.told

    def news(self, now: float, *, everybody: bool) -> list[tuple[float, Address, float]]:
        """As `uses`, of peers of whom the machine is to hear more: all, or only the untold."""
        self._settle_kept()
        listed: list[tuple[float, Address, float]] = []
        for tie in (self._ties if everybody else self.untold).values():
            tie.settle(now)
            if tie.last > tie.told:
                listed.append((tie.last, tie.peer, tie.told))
                tie.told = tie.last
        self.untold.clear()
        listed.sort(key=_when)
        return listed


def _when(use: tuple[float, Address, float]) -> float:
    return use[0]
