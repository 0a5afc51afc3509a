"""What an animation shows, as plain data: places, movement, links, messages, handovers.

Times are in seconds of simulated time, places in metres (or, where a scenario has no positions, in
units in which a network's disc has the radius 1). A scene can be put together by hand; `scene`
(module `_staging`) makes one of a scenario.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias, final

from mat_files.errors import Problem, ScenarioError
from mat_files.ladder import LadderMessage

MOST_NODES: Final = 300
"""Mobile nodes in one animation: more are neither told apart nor drawn smoothly."""
MOST_SIGNALS: Final = 20_000
"""Signalling messages and look-ups; about 40 bytes of the page each."""
MOST_DATA: Final = 10_000
"""Data packets; of more, every second, third … of each flow is drawn."""
MOST_POINTS: Final = 200_000
"""Positions of all nodes together, after those on a straight line are left out."""

PartyKind: TypeAlias = Literal["ims", "dns", "correspondent", "other"]
Point: TypeAlias = tuple[float, float, float]
"""Time (s), x and y."""


@final
@dataclass(frozen=True, slots=True)
class Disc:
    """An access network: its covered disc."""

    name: str
    x: float
    y: float
    radius: float


@final
@dataclass(frozen=True, slots=True)
class Party:
    """Who does not move: a server or a correspondent, on the access network it names if any."""

    name: str
    kind: PartyKind
    network: str | None = None


@final
@dataclass(frozen=True, slots=True)
class Link:
    """A node's link to a network: there from `start`, of use from `ready`, gone at `end`.

    A node uses, of its links that are ready, the one that became so last.
    """

    network: str
    start: float
    ready: float
    end: float


@final
@dataclass(frozen=True, slots=True)
class Node:
    """A mobile node: where it is, in uninterrupted pieces, and its links in order of `start`."""

    name: str
    path: tuple[tuple[Point, ...], ...]
    links: tuple[Link, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class Handover:
    """A handover of a node from `begin` to `end` (`None`: it was not completed)."""

    node: str
    kind: str
    begin: float
    end: float | None
    outcome: str = "completed"


@final
@dataclass(frozen=True, slots=True)
class Scene:
    """All that an animation shows, from `begin` to `end`.

    `note` tells the viewer what was left out. Names of parties in `messages` that are neither nodes
    nor fixed parties belong to nobody: such messages end in the core.
    """

    title: str
    begin: float
    end: float
    networks: tuple[Disc, ...]
    parties: tuple[Party, ...]
    nodes: tuple[Node, ...]
    messages: tuple[LadderMessage, ...]
    handovers: tuple[Handover, ...] = ()
    description: str = ""
    note: str = ""

    def limited(self, where: str = "scene") -> "Scene":
        """This scene with few enough data packets to show.

        Raises `ScenarioError`, at the place `where`, if there is too much of anything else.
        """
        signals = [message for message in self.messages if message.kind != "data"]
        points = sum(len(piece) for node in self.nodes for piece in node.path)
        check_nodes(len(self.nodes), where)
        if len(signals) > MOST_SIGNALS:
            what = f"{len(signals):,} messages of signalling"
            raise _too_much(where, what, f"{MOST_SIGNALS:,}", _SHORTER)
        if points > MOST_POINTS:
            raise _too_much(where, f"{points:,} positions", f"{MOST_POINTS:,}", _SHORTER)
        return self._thinned(signals)

    def _thinned(self, signals: list[LadderMessage]) -> "Scene":
        flows: dict[tuple[str, str], list[LadderMessage]] = {}
        for message in self.messages:
            if message.kind == "data":
                flows.setdefault((message.from_, message.to), []).append(message)
        step = _step([len(flow) for flow in flows.values()])
        kept = [message for flow in flows.values() for message in flow[::step]]
        note = f"Of the data packets, one in {step} is drawn." if step > 1 else ""
        ordered = tuple(_in_order([*signals, *kept]))
        return replace(self, messages=ordered, note=" ".join(filter(None, (self.note, note))))


def _step(flows: Sequence[int]) -> int:
    """The least step at which flows of these lengths, each rounded up, are few packets enough."""
    least = max(1, math.ceil(sum(flows) / MOST_DATA))
    steps = range(least, max(flows, default=0) + 1)
    return next((n for n in steps if sum(-(-length // n) for length in flows) <= MOST_DATA), least)


_SHORTER: Final = (
    "show less time, with --from and --until, or fewer nodes, with --set nodes.count=N"
)


def check_nodes(count: int, where: str) -> None:
    """Raise `ScenarioError` where so many mobile nodes are too many for an animation."""
    if count > MOST_NODES:
        how = f"show fewer, with --set nodes.count={MOST_NODES}"
        raise _too_much(where, f"{count:,} mobile nodes", str(MOST_NODES), how)


def _too_much(where: str, what: str, most: str, how: str) -> ScenarioError:
    return ScenarioError([Problem(where, "", f"has {what}; an animation holds {most}; {how}")])


def _in_order(messages: Iterable[LadderMessage]) -> list[LadderMessage]:
    return sorted(messages, key=lambda message: message.sent)
