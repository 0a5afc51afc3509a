"""The table of handovers (docs/results.md), from what can be seen from outside of the nodes.

That is: when links came and went (the lab did it), when addresses were configured (the kernel says
so), what was sent and arrived (it was recorded), and when applications sent and got probes. When a
part of a handover counts as done is said in `mat_real.lab.parts`. Times are seconds of this
machine, whatever speed the scenario was played at.
"""

import csv
import io
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, final

import mat
from mat_files.mobility import movement_digest
from mat_files.results import Provenance, Results, write_files
from mat_files.scenario import Scenario
from mat_real.lab.flows import flow_rows
from mat_real.lab.moves import Move
from mat_real.lab.parts import NodeRecord, Times, Way, ways_of
from mat_real.lab.plan import IpAddress, Plan
from mat_real.lab.play import Played
from mat_real.lab.shares import Share
from mat_real.lab.streams import Direction, Stream
from mat_real.lab.tables import Sent

MOVES: Final = "moves.csv"
SHARES: Final = "shares.csv"
_DIRECTIONS: Final[tuple[Direction, ...]] = ("up", "down")


@final
@dataclass(slots=True)
class _Handover:
    """One handover: its begin, the move that brought the new network, and what ended it.

    `late` is by how much it began later than it was to, s.
    """

    old: str
    new: str
    begin: float
    attached: Move | None
    """None where the new link had been there before."""
    old_gone: float = math.inf
    limit: float = math.inf
    """When the next handover began or the new link was lost."""
    late: float = 0.0


def write_results(
    directory: Path, scenario: Scenario, plan: Plan, played: Played, streams: Sequence[Stream]
) -> list[Path]:
    """Write the tables of a run, `moves.csv` and `shares.csv`.

    These are what was done to the links, and how late, and what the lab itself added to handovers.
    While the lab is there. Returns the files. Raises `ResultsError`, and `LabError` if packets were
    missed when they were recorded.
    """
    sent = _sent(scenario, plan, played)
    handovers = list(_shared_rows(scenario, sent, streams))
    rows = [row for row, _ in handovers]
    tables = rows, sent.message_rows(), sent.ims_rows(), flow_rows(sent, streams)
    written = Results.build(_provenance(scenario), *tables).write(directory)
    extra = {MOVES: _moves(played).encode(), SHARES: _shares(handovers).encode()}
    write_files(directory, extra)
    return [*written, *(directory / name for name in extra)]


def handover_rows(
    scenario: Scenario, plan: Plan, played: Played, streams: Sequence[Stream]
) -> list[dict[str, object]]:
    """The rows of the table, by node and time; when, and what it raises, as `write_results`."""
    return [row for row, _ in _shared_rows(scenario, _sent(scenario, plan, played), streams)]


def _sent(scenario: Scenario, plan: Plan, played: Played) -> Sent:
    return Sent.during(plan, played, scenario.nodes.family, time.monotonic())


def _shared_rows(
    scenario: Scenario, sent: Sent, streams: Sequence[Stream]
) -> Iterator[tuple[dict[str, object], dict[str, Share]]]:
    """The rows, each with what the lab itself added to parts."""
    family = scenario.nodes.family
    seen = _Seen(sent.plan, sent.played, family)
    for node in (node.name for node in sent.plan.nodes if node.mobile):
        ways, record = list(ways_of(streams, node)), NodeRecord(sent, node, family)
        peers = sum(node in (stream.node, stream.peer) for stream in streams)
        moves = [move for move in sent.played.moves if move.node == node]
        for ordinal, one in enumerate(_handovers(moves), 1):
            cells, shares = _Row(seen, node, one, ways, record).cells()
            yield {"run": 0, "node": node, "ordinal": ordinal, "peers": peers, **cells}, shares


# ---- which handovers there were ------------------------------------------------------------------


@final
@dataclass(slots=True)
class _Links:
    """The links of a node, the preferred one last; what it had, while it has none."""

    up: list[str] = field(default_factory=list[str])
    lost: Move | None = None


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
        links.lost = move
        return None
    new, gone = links.up[-1], move.time
    return _Handover(move.network, new, gone, None, old_gone=gone, late=move.late)


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
    if lost is None or lost.network == move.network:
        return None
    begin, late = min((chosen, 0.0), (lost.time, lost.late))
    return _Handover(lost.network, move.network, begin, attached, old_gone=lost.time, late=late)


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
        pool, interface = self._plan.network(network).pool, self._interface(node, network, since)
        held: tuple[float, IpAddress] | None = None
        for change in self.played.addresses:
            address = change.address
            if change.node != node or address.version != self._family:
                continue
            # An IPv6 address outlives its link.
            if interface is not None and change.interface != interface:
                continue
            if address not in (pool.ipv4 if address.version == 4 else pool.ipv6):
                continue
            if change.time > since and held is not None:
                break
            held = (max(since, change.time), address) if change.present else None
        return held

    def _interface(self, node: str, network: str, at: float) -> str | None:
        """By which interface a node was attached to a network last; None if before the run."""
        found = [
            f"eth{move.interface}"
            for move in self.played.moves
            if (move.node, move.network, move.act) == (node, network, "attach") and move.time <= at
        ]
        return found[-1] if found else None


@final
@dataclass(frozen=True, slots=True)
class _Row:
    """How a handover becomes a row."""

    seen: _Seen
    node: str
    handover: _Handover
    ways: Sequence[Way]
    record: NodeRecord

    def cells(self) -> tuple[dict[str, object], dict[str, Share]]:
        """The row, and what the lab itself added to its parts."""
        one, played = self.handover, self.seen.played
        limit = min(one.limit, played.end)
        there = one.attached.time if one.attached else one.begin
        address = self.seen.address(self.node, one.new, there)
        if address is not None and address[0] > limit:
            address = None
        before = self.seen.address(self.node, one.old, one.begin)
        times = self.record.times(self.ways, *address, limit) if address else Times()
        cells = {
            "from_network": one.old,
            "to_network": one.new,
            "from_moa": str(before[1]) if before and before[0] <= one.begin else None,
            "to_moa": str(address[1]) if address else None,
            "kind": "soft" if address and one.old_gone > address[0] else "hard",
            "time": one.begin - played.begin,
            **self._parts(times),
            **self._traffic(limit if times.complete is None else times.complete),
            "outcome": self._outcome(times),
        }
        return cells, dict(self._shares(times))

    def _shares(self, times: Times) -> Iterator[tuple[str, Share]]:
        one, move = self.handover, self.handover.attached
        if move is not None:
            if one.late:
                yield "away", Share(-one.late)
            yield "associate", Share(move.late)
            if times.configured is not None and move.address is not None:
                yield "address", Share(times.configured - move.time - move.address)
        known = {"register": times.register_share, "notify": times.notify_share}
        yield from ((part, share) for part, share in known.items() if share is not None)
        if times.whole_share is not None and (times.notified or math.inf) < (times.first or 0.0):
            before = [share for share in known.values() if share is not None]
            yield "first_packet", times.whole_share.less(before)

    def _outcome(self, times: Times) -> str:
        if times.complete is not None:
            return "completed"
        return "superseded" if self.handover.limit <= self.seen.played.end else "unfinished"

    def _parts(self, times: Times) -> dict[str, object]:
        one, move = self.handover, self.handover.attached
        parts: dict[str, float | None] = {"away": 0.0}
        if move is not None:
            reach = move.time if move.reach is None else move.reach
            parts["away"] = max(0.0, reach - one.begin)
            if move.detect is not None:
                parts["detect"] = move.detect
                parts["associate"] = max(0.0, move.time - reach - move.detect)
            parts["address"] = _between(move.time, times.configured)
        parts["register"] = _between(times.configured, times.registered)
        parts["notify"] = _between(times.registered, times.notified)
        if times.complete is not None:
            before = times.notified or times.registered or times.configured
            first = _between(before, times.first)
            parts["first_packet"] = None if first is None else max(0.0, first)
        done = [part for part in parts.values() if part is not None]
        return {**parts, "total": sum(done) if times.complete is not None else None}

    def _traffic(self, end: float) -> dict[str, object]:
        cells: dict[str, object] = {}
        for direction in _DIRECTIONS:
            flows = [way.flow for way in self.ways if way.direction == direction]
            if flows:
                begin = self.handover.begin
                cells[f"interruption_{direction}"] = max(f.interruption(begin, end) for f in flows)
                cells[f"lost_{direction}"] = sum(f.losses(begin, end) for f in flows)
        return cells


def _between(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else end - begin


# ---- files ---------------------------------------------------------------------------------------


def _provenance(scenario: Scenario) -> Provenance:
    source, trace = scenario.source, movement_digest(scenario)
    overrides = "\n".join(source.overrides)
    return Provenance(mat.__version__, source.text, overrides, scenario.scenario.seed, trace)


def _moves(played: Played) -> str:
    """What was done, as CSV: times from the begin of the run, and how late each was, s."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["t", "late", "node", "action", "network", "interface"])
    for move in played.moves:
        late = "" if move.due is None else f"{move.late:.6f}"
        time = f"{move.time - played.begin:.6f}"
        writer.writerow([time, late, move.node, move.act, move.network, move.interface])
    return text.getvalue()


def _shares(handovers: Iterable[tuple[dict[str, object], dict[str, Share]]]) -> str:
    """What the lab itself added to parts of handovers, as CSV, s."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["node", "ordinal", "kind", "part", "programs", "links"])
    for row, shares in handovers:
        for part, share in shares.items():
            numbers = f"{share.programs:.6f}", f"{share.links:.6f}"
            writer.writerow([row["node"], row["ordinal"], row["kind"], part, *numbers])
    return text.getvalue()
