"""The table of handovers (docs/results.md), from what can be seen from outside of the nodes.

That is: when links came and went (the lab did it), when addresses were configured (the kernel says
so), and when probes were sent and arrived. Registration and notices are not seen from outside:
`register` and `notify` are empty, and `first_packet` counts from the address. A handover is
complete when a probe that was sent after the address was configured has arrived in each direction,
with each peer. Times are seconds of this machine, whatever speed the scenario was played at.
"""

import csv
import hashlib
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, final

import mat
from mat_files.results import Provenance, Results, write_files
from mat_files.scenario import Scenario
from mat_real.lab.moves import Move
from mat_real.lab.plan import IpAddress, Plan
from mat_real.lab.play import Played
from mat_real.lab.streams import Direction, Flow, Stream

MOVES: Final = "moves.csv"
_DIRECTIONS: Final[tuple[Direction, ...]] = ("up", "down")


@final
@dataclass(slots=True)
class _Handover:
    """One handover: its begin, the move that brought the new network, and what ended it."""

    old: str
    new: str
    begin: float
    attached: Move | None
    """None where the new link had been there before."""
    old_gone: float = math.inf
    limit: float = math.inf
    """When the next handover began or the new link was lost."""


def write_results(
    directory: Path, scenario: Scenario, plan: Plan, played: Played, streams: Sequence[Stream]
) -> list[Path]:
    """Write the tables of a run, and `moves.csv`: what was done to the links, and how late.

    Returns the files. Raises `ResultsError`.
    """
    rows = handover_rows(scenario, plan, played, streams)
    written = Results.build(_provenance(scenario), rows, (), ()).write(directory)
    write_files(directory, {MOVES: _moves(played).encode()})
    return [*written, directory / MOVES]


def handover_rows(
    scenario: Scenario, plan: Plan, played: Played, streams: Sequence[Stream]
) -> list[dict[str, object]]:
    """The rows of the table, by node and time."""
    seen = _Seen(plan, played, scenario.nodes.family)
    rows: list[dict[str, object]] = []
    for node in (node.name for node in plan.nodes if node.mobile):
        flows = [one for stream in streams for one in _flows(stream, node) if one[1].spacing]
        peers = sum(node in (stream.node, stream.peer) for stream in streams)
        moves = [move for move in played.moves if move.node == node]
        for ordinal, one in enumerate(_handovers(moves), 1):
            row = _Row(seen, node, one, flows).cells()
            rows.append({"run": 0, "node": node, "ordinal": ordinal, "peers": peers, **row})
    return rows


def _flows(stream: Stream, node: str) -> Iterator[tuple[Direction, Flow]]:
    """The flows of a stream by direction, up being away from this node."""
    if node == stream.node:
        yield "up", stream.flow("up")
        yield "down", stream.flow("down")
    elif node == stream.peer:
        yield "up", stream.flow("down")
        yield "down", stream.flow("up")


# ---- which handovers there were ------------------------------------------------------------------


@final
@dataclass(slots=True)
class _Links:
    """The links of a node, the preferred one last; what it had, while it has none."""

    up: list[str] = field(default_factory=list[str])
    lost: tuple[str, float] | None = None


def _handovers(moves: Sequence[Move]) -> list[_Handover]:
    """The handovers of one node."""
    links = _Links()
    found: list[_Handover] = []
    for move in moves:
        _note_loss(move, found)
        one = _detached(links, move) if move.act == "detach" else _attached(links, move)
        if one is not None:
            if found:
                found[-1].limit = min(found[-1].limit, one.begin)
            found.append(one)
    return found


def _note_loss(move: Move, found: Sequence[_Handover]) -> None:
    if move.act != "detach" or not found:
        return
    last = found[-1]
    if move.network == last.new:
        last.limit = min(last.limit, move.time)
    elif move.network == last.old:
        last.old_gone = min(last.old_gone, move.time)


def _detached(links: _Links, move: Move) -> _Handover | None:
    preferred = links.up[-1] == move.network
    links.up.remove(move.network)
    if not preferred:
        return None
    if not links.up:
        links.lost = move.network, move.time
        return None
    return _Handover(move.network, links.up[-1], move.time, None, old_gone=move.time)


def _attached(links: _Links, move: Move) -> _Handover | None:
    before = links.up[-1] if links.up else None
    if move.network in links.up:
        links.up.remove(move.network)
    links.up.append(move.network)
    chosen = move.time if move.reach is None else move.reach
    lost, links.lost = links.lost, None
    attached = None if move.act == "prefer" else move
    if before is not None and before != move.network:
        return _Handover(before, move.network, chosen, attached)
    if lost is not None and lost[0] != move.network:
        old, gone = lost
        return _Handover(old, move.network, min(chosen, gone), attached, old_gone=gone)
    return None


# ---- what was seen of them -----------------------------------------------------------------------


@final
class _Seen:
    """What was seen of addresses during a run."""

    def __init__(self, plan: Plan, played: Played, family: Literal[4, 6]) -> None:
        self._plan = plan
        self._family = family
        self.played = played

    def address(self, node: str, network: str, since: float) -> tuple[float, IpAddress] | None:
        """The address that a node had on a network at this time or got next, and since when, s."""
        pool = self._plan.network(network).pool
        held: tuple[float, IpAddress] | None = None
        for change in self.played.addresses:
            address = change.address
            if change.node != node or address.version != self._family:
                continue
            if address not in (pool.ipv4 if address.version == 4 else pool.ipv6):
                continue
            if change.time > since and held is not None:
                break
            held = (max(since, change.time), address) if change.present else None
        return held


@final
@dataclass(frozen=True, slots=True)
class _Row:
    """How a handover becomes a row."""

    seen: _Seen
    node: str
    handover: _Handover
    flows: Sequence[tuple[Direction, Flow]]

    def cells(self) -> dict[str, object]:
        one, played = self.handover, self.seen.played
        limit = min(one.limit, played.end)
        there = one.attached.time if one.attached else one.begin
        address = self.seen.address(self.node, one.new, there)
        if address is not None and address[0] > limit:
            address = None
        before = self.seen.address(self.node, one.old, one.begin)
        complete = None if address is None else self._complete(address[0], limit)
        return {
            "from_network": one.old,
            "to_network": one.new,
            "from_moa": str(before[1]) if before and before[0] <= one.begin else None,
            "to_moa": str(address[1]) if address else None,
            "kind": "soft" if address and one.old_gone > address[0] else "hard",
            "time": one.begin - played.begin,
            **self._parts(address[0] if address else None, complete),
            **self._traffic(limit if complete is None else complete),
            "outcome": self._outcome(complete),
        }

    def _complete(self, configured: float, limit: float) -> float | None:
        """When the handover was complete, s; None if it was not by `limit`."""
        complete = configured
        for _, flow in self.flows:
            first = flow.first_delivery(configured)
            if first is None or first > limit:
                return None
            complete = max(complete, first)
        return complete

    def _outcome(self, complete: float | None) -> str:
        if complete is not None:
            return "completed"
        return "superseded" if self.handover.limit <= self.seen.played.end else "unfinished"

    def _parts(self, configured: float | None, complete: float | None) -> dict[str, object]:
        one, move = self.handover, self.handover.attached
        parts: dict[str, float | None] = {"away": 0.0}
        if move is not None:
            reach = move.time if move.reach is None else move.reach
            parts["away"] = max(0.0, reach - one.begin)
            if move.detect is not None:
                parts["detect"] = move.detect
                parts["associate"] = max(0.0, move.time - reach - move.detect)
            parts["address"] = None if configured is None else configured - move.time
        if complete is not None and configured is not None and self.flows:
            parts["first_packet"] = complete - configured
        done = [part for part in parts.values() if part is not None]
        return {**parts, "total": sum(done) if complete is not None else None}

    def _traffic(self, end: float) -> dict[str, object]:
        cells: dict[str, object] = {}
        for direction in _DIRECTIONS:
            flows = [flow for way, flow in self.flows if way == direction]
            if flows:
                begin = self.handover.begin
                cells[f"interruption_{direction}"] = max(f.interruption(begin, end) for f in flows)
                cells[f"lost_{direction}"] = sum(f.losses(begin, end) for f in flows)
        return cells


# ---- files ---------------------------------------------------------------------------------------


def _provenance(scenario: Scenario) -> Provenance:
    source, movement = scenario.source, scenario.movement
    name = movement.events or movement.trace
    trace = hashlib.sha256(scenario.file(name).read_bytes()).hexdigest() if name else ""
    overrides = "\n".join(source.overrides)
    return Provenance(mat.__version__, source.text, overrides, scenario.scenario.seed, trace)


def _moves(played: Played) -> str:
    """What was done, as CSV: times from the begin of the run, and how late each was, s."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["t", "late", "node", "action", "network", "interface"])
    for move in played.moves:
        late = "" if move.due is None else f"{move.time - move.due:.6f}"
        time = f"{move.time - played.begin:.6f}"
        writer.writerow([time, late, move.node, move.act, move.network, move.interface])
    return text.getvalue()
