"""One handover of one node, from its begin to its end (docs/results.md gives the definitions)."""

from collections.abc import Iterable, Sequence
from typing import Final, final

from mat.address import Address, format_address
from mat.node import MobileNode
from mat_sim.engine._flow import DOWN, UP, Flow
from mat_sim.engine._network import Link
from mat_sim.measure import interruption, losses

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
            if machine.registered[:1] != (self.address,):
                return
            self.registered = now
            return
        if (
            self.notified is None
            and self.peers
            and all(
                peer.introduction is None
                for peer in machine.peers()
                if peer.home_address in self.peers
            )
        ):
            self.notified = now

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

    def row(
        self, run: int, node: str, flows: Sequence[tuple[str, Flow]], end: float
    ) -> dict[str, object]:
        """Its row in the table `handovers`; `end` is when the run, or the node, ended."""
        until = self.end if self.end is not None else end
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
        skipped = self.acted is None
        base = self.configured if skipped else self.reach
        return {
            "away": _between(self.began, self.reach if not skipped else self.began),
            "detect": _between(self.reach, self.acted),
            "associate": _between(self.acted, self.linked),
            "address": _between(self.linked, self.configured),
            "register": _between(self.configured, self.registered),
            "notify": _between(self.registered, self.notified),
            "first_packet": to_first if base is not None else None,
        }

    def _traffic(self, way: str, flows: Sequence[Flow], until: float) -> dict[str, object]:
        measured = [(f.sent, f.delivered, f.spacing) for f in flows]
        measured = [m for m in measured if m[0].size]
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
