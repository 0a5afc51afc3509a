"""One handover of one node, from its begin to its end (docs/results.md gives the definitions)."""

from collections.abc import Iterable, Sequence
from typing import Final, final

from mat.address import Address, format_address
from mat.node import MobileNode
from mat.states import PeerState, RegistrationState
from mat_files.measure import interruption, losses
from mat_sim.engine._flow import DOWN, UP, Flow
from mat_sim.engine._network import Link

COMPLETED: Final = "completed"
SUPERSEDED: Final = "superseded"
UNFINISHED: Final = "unfinished"


@final
class Handover:
    """The times at which each part of a handover ended, in seconds; None while it has not."""

    __slots__ = (
        "_first",
        "acted",
        "address",
        "began",
        "configured",
        "end",
        "from_link",
        "kind",
        "linked",
        "notified",
        "ordinal",
        "outcome",
        "peers",
        "reach",
        "registered",
        "to_link",
    )

    def __init__(
        self, ordinal: int, began: float, from_link: Link, peers: Sequence[Address]
    ) -> None:
        self.ordinal = ordinal
        self.began = began
        self.from_link = from_link
        self.peers = tuple(peers)
        self.to_link: Link | None = None
        self.reach: float | None = None
        self.acted: float | None = None
        self.linked: float | None = None
        self.configured: float | None = None
        self.registered: float | None = None
        self.notified: float | None = None
        self.address: Address | None = None
        self.kind = "hard"
        self.outcome = UNFINISHED
        self.end: float | None = None
        self._first: dict[tuple[str, Address], float] = {}

    def reaches(self, now: float, link: Link) -> None:
        """The new network is in reach; its link may be there already, in whole or in part."""
        self.to_link, self.reach = link, now
        if link.address is None:
            self.acted = now if link.acted else None
            self.linked = now if link.linked else None

    def has_address(self, now: float, link: Link) -> None:
        """The new link, now the preferred one, has its address."""
        self.address = link.address
        self.configured = now
        self.kind = "soft" if self.from_link.up else "hard"

    def observe(self, now: float, machine: MobileNode) -> None:
        """After an input to the node's machine: registered, notified?"""
        if self.address is None:
            return
        if self.registered is None:
            # A mapping outlives the address: after a gap, an old one may be there already.
            state, first = machine.registration_state, machine.registered[:1]
            if state is not RegistrationState.REGISTERED or first != (self.address,):
                return
            self.registered = now
        if self.notified is None and self.peers and not machine.announces:
            told = [
                peer.home_address
                for peer in machine.peers()
                if peer.state is PeerState.ESTABLISHED and peer.introduction is None
            ]
            self.notified = now if set(self.peers).issubset(told) else None

    def delivered(self, now: float, direction: str, peer: Address, through: Address) -> None:
        """A data packet has been delivered that left from, or came to, the address `through`."""
        if through == self.address:
            self._first.setdefault((direction, peer), now)

    def is_complete(self, flows: Iterable[tuple[str, Flow]], *, notifies: bool) -> bool:
        """Whether nothing is left to happen."""
        if self.registered is None or (self.notified is None and self.peers and notifies):
            return False
        return all(key in self._first for key in self._expected(flows))

    def _expected(self, flows: Iterable[tuple[str, Flow]]) -> list[tuple[str, Address]]:
        keys = [(way, flow.destination if way == UP else flow.source) for way, flow in flows]
        return [(way, peer) for way, peer in keys if peer in self.peers]

    def finish(self, now: float, outcome: str) -> None:
        """It is over, one way or another."""
        self.end = now
        self.outcome = outcome

    def row(self, run: int, node: str, flows: Sequence[tuple[str, Flow]]) -> dict[str, object]:
        """Its row in the table `handovers`, once it is over."""
        assert self.end is not None
        until = self.end
        parts = self._parts(flows)
        row: dict[str, object] = {
            "run": run,
            "node": node,
            "ordinal": self.ordinal,
            "from_network": self.from_link.network,
            "to_network": self.to_link.network if self.to_link else None,
            "from_moa": _text(self.from_link.address),
            "to_moa": _text(self.address),
            "kind": self.kind,
            "time": self.began,
            **parts,
            "peers": len(self.peers),
            "outcome": self.outcome,
        }
        if self.outcome == COMPLETED:
            row["total"] = sum(part for part in parts.values() if part is not None)
        for way in (UP, DOWN):
            row |= self._traffic(way, [flow for w, flow in flows if w == way], until)
        return row

    def _parts(self, flows: Sequence[tuple[str, Flow]]) -> dict[str, float | None]:
        first = None
        expected = self._expected(flows)
        if expected and all(key in self._first for key in expected):
            first = max(self._first[key] for key in expected)
        known = self.notified if self.notified is not None else self.registered
        to_first = None if first is None or known is None else max(0.0, first - known)
        return {
            "away": _between(self.began, self.reach),
            "detect": _between(self.reach, self.acted),
            "associate": _between(self.acted, self.linked),
            "address": _between(self.linked, self.configured),
            "register": _between(self.configured, self.registered),
            "notify": _between(self.registered, self.notified),
            "first_packet": to_first,
        }

    def _traffic(self, way: str, flows: Sequence[Flow], until: float) -> dict[str, object]:
        measured = [
            (f.sent, f.delivered, f.spacing)
            for f in flows
            if f.begun and (f.destination if way == UP else f.source) in self.peers
        ]
        if not measured:
            return {}
        began = self.began
        gaps = [interruption(got, began, until, spacing) for _, got, spacing in measured]
        gone = [losses(sent, got, began, until) for sent, got, _ in measured]
        return {f"interruption_{way}": max(gaps), f"lost_{way}": sum(gone)}


def _between(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else end - begin


def _text(address: Address | None) -> str | None:
    return format_address(address) if address is not None else None
