"""ns-2 movement: `set X_` and `setdest`, as traceExporter, BonnMotion and setdest write it.

Two things go by that name. In ns-2 itself, `at T "$node_(N) setdest X Y V"` starts a walk at T,
from wherever the node is, towards (X, Y) at V m/s. SUMO's traceExporter writes one such line per
FCD row, with the position *at* T as the destination: read literally, every vehicle would lag by one
step. Its files give themselves away, since each vehicle's first destination is its own starting
point; then the destinations are taken as positions, which restores the FCD rows exactly. It does
not write when a vehicle leaves (that is in its separate activity file); the last line of a vehicle
is its last row, and so the end of its presence, as in FCD.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, final

from mat_files.errors import trace_error
from mat_files.traces._paths import LARGEST
from mat_files.traces._text import lines, number
from mat_files.traces._trace import Row

_SET: Final = re.compile(r"\$node_\(([^)]+)\)\s+set\s+([XYZ])_\s+(\S+)\s*;?")
_MOVE: Final = re.compile(
    r'\$ns_\s+at\s+(\S+)\s+"\$node_\(([^)]+)\)\s+setdest\s+(\S+)\s+(\S+)\s+(\S+)"\s*;?\s*(?:#.*)?'
)
_IGNORED: Final = re.compile(r"\$god_\b|\$ns_\s+at\s+\S+\s+\"\$god_\b|set\s+\w+")


class _Move(NamedTuple):
    time: float
    x: float
    y: float
    speed: float
    line: int


@final
@dataclass(slots=True)
class _Node:
    start: dict[str, float] = field(default_factory=dict[str, float])
    moves: list[_Move] = field(default_factory=list[_Move])


def read_ns2(path: Path, step: float) -> Iterator[Row]:
    """The rows of an ns-2 movement file, nodes named by their numbers.

    `step` is the time (s) between the positions taken from a walk.
    """
    nodes = _parse(path)
    _check_starts(path, nodes)
    if all(_stands(node) for node in nodes.values()):
        return _recorded(nodes)
    return _walked(path, nodes, step)


def _parse(path: Path) -> dict[str, _Node]:
    nodes: dict[str, _Node] = {}
    for line, text in lines(path):
        if move := _MOVE.fullmatch(text):
            _add_move(path, line, nodes, move)
        elif start := _SET.fullmatch(text):
            node, label = nodes.setdefault(start[1], _Node()), f"{start[2]}_"
            value = number(path, line, label, start[3])
            _check_finite(path, line, label, value)
            node.start[start[2]] = value
        elif not _IGNORED.match(text):
            what = (
                f"{text[:60]!r} is not understood; expected '$node_(N) set X_ VALUE' or"
                " '$ns_ at TIME \"$node_(N) setdest X Y SPEED\"'"
            )
            raise trace_error(path, line, "", what)
    return nodes


def _add_move(path: Path, line: int, nodes: dict[str, _Node], match: re.Match[str]) -> None:
    time, name, *rest = match.groups()
    values = [
        number(path, line, label, text)
        for label, text in zip(("t", "x", "y", "speed"), (time, *rest), strict=True)
    ]
    for label, value in zip(("t", "x", "y", "speed"), values, strict=True):
        _check_finite(path, line, label, value)
    move = _Move(values[0], values[1], values[2], values[3], line)
    moves = nodes.setdefault(name, _Node()).moves
    if moves and move.time < moves[-1].time:
        what = f"is {move.time:g} after {moves[-1].time:g}; rows must be in order of time"
        raise trace_error(path, line, "t", what)
    if move.time < 0:
        raise trace_error(path, line, "t", f"is {move.time:g}; time starts at 0")
    if move.speed < 0:
        raise trace_error(path, line, "speed", f"is {move.speed:g}; must be 0 or more")
    moves.append(move)


def _check_finite(path: Path, line: int, label: str, value: float) -> None:
    if not math.isfinite(value):
        raise trace_error(path, line, label, f"is {value}; must be a finite number")


def _check_starts(path: Path, nodes: dict[str, _Node]) -> None:
    for name, node in nodes.items():
        if missing := {"X", "Y"} - node.start.keys():
            line = node.moves[0].line if node.moves else 0
            what = f"node {name!r} has no starting {min(missing)}_; set it before its first setdest"
            raise trace_error(path, line, f"{min(missing)}_", what)


def _stands(node: _Node) -> bool:
    """Whether the first destination is where the node is already: the mark of traceExporter."""
    if not node.moves:
        return False
    return (node.moves[0].x, node.moves[0].y) == (node.start["X"], node.start["Y"])


def _recorded(nodes: dict[str, _Node]) -> Iterator[Row]:
    """Destinations as positions. Each node is in order; sorting by line restores the file's."""
    every = [(move, name) for name, node in nodes.items() for move in node.moves]
    for move, name in sorted(every, key=lambda item: item[0].line):
        yield Row(move.time, name, move.x, move.y, move.line)


def _walked(path: Path, nodes: dict[str, _Node], step: float) -> Iterator[Row]:
    """Positions of every node from 0 to the last arrival, one per `step`."""
    legs = {name: _legs(node) for name, node in nodes.items()}
    last = max((leg[-1] for leg in legs.values()), key=lambda leg: leg.arrival)
    if last.arrival * len(legs) > LARGEST * step:
        what = f"the walk arrives at t = {last.arrival:g}; {LARGEST} positions are the most"
        raise trace_error(path, last.line, "t", what + ", so begin earlier or walk faster")
    return _sampled(legs, last.arrival, step)


def _sampled(legs: "dict[str, list[_Leg]]", end: float, step: float) -> Iterator[Row]:
    current = dict.fromkeys(legs, 0)
    for tick in range(math.floor(end / step) + 1):
        now = tick * step
        for name, walk in legs.items():
            while current[name] + 1 < len(walk) and walk[current[name] + 1].time <= now:
                current[name] += 1
            yield Row(now, name, *walk[current[name]].at(now))


class _Leg(NamedTuple):
    """A walk from (x, y) at `time` that covers (dx, dy) until `arrival`."""

    time: float
    arrival: float
    x: float
    y: float
    dx: float
    dy: float
    line: int

    def at(self, now: float) -> tuple[float, float, int]:
        span = self.arrival - self.time
        share = min((now - self.time) / span, 1.0) if span > 0 else 1.0
        return self.x + share * self.dx, self.y + share * self.dy, self.line


def _legs(node: _Node) -> list[_Leg]:
    x, y = node.start["X"], node.start["Y"]
    legs = [_Leg(0.0, 0.0, x, y, 0.0, 0.0, 0)]
    for move in node.moves:
        x, y, _ = legs[-1].at(move.time)
        dx, dy = move.x - x, move.y - y
        if move.speed <= 0:
            dx = dy = 0.0
        duration = math.hypot(dx, dy) / move.speed if move.speed > 0 else 0.0
        legs.append(_Leg(move.time, move.time + duration, x, y, dx, dy, move.line))
    return legs
