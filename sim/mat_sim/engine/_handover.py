"""One handover of one node, from its begin to its end (docs/results.md gives the definitions)."""

from collections.abc import Iterable, Sequence
from typing import Final, final

from mat.address import Address
from mat.node import MobileNode
from mat.states import PeerState, RegistrationState
from mat_sim.engine._flow import Flow
from mat_sim.engine._network import Link

COMPLETED: Final = "completed"
SUPERSEDED: Final = "superseded"
UNFINISHED: Final = "unfinished"
NOT_YET: Final = float("nan")


@final
class Handover:
    """The times at which each part of a handover ended, in seconds; NaN while it has not."""

    __slots__ = (
        "_first",
        "acted",
        "address",
        "began",
        "configured",
        "end",
        "from_address",
        "from_link",
        "linked",
        "notified",
        "ordinal",
        "outcome",
        "peers",
        "reach",
        "registered",
        "soft",
        "to_link",
    )

    def __init__(
        self, ordinal: int, began: float, from_link: Link, peers: tuple[Address, ...]
    ) -> None:
        self.ordinal = ordinal
        self.began = began
        self.from_link = from_link
        self.from_address = from_link.address
        self.peers = peers
        self.to_link: Link | None = None
        self.reach = NOT_YET
        self.acted = NOT_YET
        self.linked = NOT_YET
        self.configured = NOT_YET
        self.registered = NOT_YET
        self.notified = NOT_YET
        self.address: Address | None = None
        self.soft = False
        self.outcome = UNFINISHED
        self.end = NOT_YET
        self._first: dict[tuple[str, Address], float] | None = None

    @property
    def kind(self) -> str:
        """Soft or hard."""
        return "soft" if self.soft else "hard"

    def reaches(self, now: float, link: Link) -> None:
        """The new network is in reach; its link may be there already, in whole or in part."""
        self.to_link = link
        self.reach = now
        if link.address is None:
            self.acted = max(now, link.acted)
            self.linked = max(now, link.linked)

    def has_address(self, now: float, link: Link) -> None:
        """The new link, now the preferred one, has its address."""
        self.address = link.address
        self.configured = now
        self.soft = self.from_link.up

    def observe(self, now: float, machine: MobileNode) -> None:
        """After an input to the node's machine: registered, notified?"""
        if self.address is None:
            return
        if not is_known(self.registered):
            # A mapping outlives the address: after a gap, an old one may be there already.
            registered = machine.registered
            if machine.registration_state is not RegistrationState.REGISTERED:
                return
            if not registered or registered[0] != self.address:
                return
            self.registered = now
        if self.peers and not is_known(self.notified) and not machine.announces:
            told = [
                peer.home_address
                for peer in machine.peers()
                if peer.introduction is None and peer.state is PeerState.ESTABLISHED
            ]
            if all(peer in told for peer in self.peers):
                self.notified = now

    def progress(self, now: float, *, registered: bool, told: bool) -> None:
        """As `observe`, of another system's machine, which has the new address already."""
        if registered and not is_known(self.registered):
            self.registered = now
        if told and self.peers and is_known(self.registered) and not is_known(self.notified):
            self.notified = now

    def delivered(self, now: float, direction: str, peer: Address, through: Address) -> None:
        """A data packet has been delivered that left from, or came to, the address `through`."""
        if through == self.address:
            if self._first is None:
                self._first = {}
            self._first.setdefault((direction, peer), now)

    def awaits(self, direction: str, peer: Address, through: Address) -> bool:
        """Whether `delivered` would be news."""
        return through == self.address and (direction, peer) not in (self._first or {})

    def is_complete(self, flows: Iterable[tuple[str, Flow]], *, notifies: bool) -> bool:
        """Whether nothing is left to happen."""
        if not is_known(self.registered):
            return False
        if self.peers and notifies and not is_known(self.notified):
            return False
        first = self._first or {}
        return all(key in first for key in self._expected(flows))

    def _expected(self, flows: Iterable[tuple[str, Flow]]) -> list[tuple[str, Address]]:
        return [(way, peer) for way, flow in flows if (peer := flow.peer(way)) in self.peers]

    def finish(self, now: float, outcome: str) -> None:
        """It is over, one way or another."""
        self.end = now
        self.outcome = outcome
        # When a link acts and is associated is known beforehand: what was not to be is taken back.
        if self.acted > now:
            self.acted = NOT_YET
        if self.linked > now:
            self.linked = NOT_YET

    def parts(self, flows: Sequence[tuple[str, Flow]]) -> tuple[float, ...]:
        """How long each of `mat_files.schema.PARTS` took, s; NaN where it did not end."""
        first = self._first_packet(flows)
        known = self.notified if is_known(self.notified) else self.registered
        return (
            self.reach - self.began,
            self.acted - self.reach,
            self.linked - self.acted,
            self.configured - self.linked,
            self.registered - self.configured,
            self.notified - self.registered,
            max(0.0, first - known) if is_known(first) and is_known(known) else NOT_YET,
        )

    def _first_packet(self, flows: Sequence[tuple[str, Flow]]) -> float:
        expected, first = self._expected(flows) if flows else [], self._first or {}
        if not expected or not all(key in first for key in expected):
            return NOT_YET
        return max(first[key] for key in expected)

    def measured(self, direction: str, flows: Sequence[tuple[str, Flow]]) -> tuple[float, float]:
        """Interruption (s) and loss (packets) in one direction; NaN without traffic."""
        affected = [
            flow
            for way, flow in flows
            if way == direction and flow.begun and flow.peer(way) in self.peers
        ]
        if not affected:
            return NOT_YET, NOT_YET
        gaps = [flow.interruption(self.began, self.end) for flow in affected]
        return max(gaps), float(sum(flow.losses(self.began, self.end) for flow in affected))


def is_known(time: float) -> bool:
    """Whether a time is no NaN."""
    return time == time  # noqa: PLR0124
