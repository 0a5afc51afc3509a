"""When who begins: everything is fixed before the run, so that no server can slow it down."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from mat_files.attachment import AttachmentEvent
from mat_real.load.forms import Kind
from mat_real.load.population import LoadError

MOST_REQUESTS: Final = 8_000_000
"""Requests of one run: what is made and noted for each takes up to 220 bytes."""

CHAINS: Final[dict[str, tuple[Kind, ...]]] = {
    "handover": (Kind.UPDATE, Kind.NOTIFY, Kind.QUERY),
    "update": (Kind.UPDATE,),
    "query": (Kind.QUERY,),
}
"""What a procedure consists of, by name. Once the first has succeeded, the others are sent."""

Nodes = NDArray[np.intp]
Times = NDArray[np.float64]


@final
@dataclass(frozen=True, slots=True)
class Networks:
    """Where the procedures of a scenario lead from and to, and which of them are soft."""

    before: Sequence[str]
    after: Sequence[str]
    soft: Sequence[bool]


@final
class Plan:
    """Procedures in order of their start: which node, when, and what of.

    `starts` are in seconds from the begin of the run. `previous` is the number of the node's
    procedure before, -1 for none; `ordinals` counts a node's procedures. `networks` is None but for
    a scenario.
    """

    __slots__ = ("kinds", "networks", "nodes", "ordinals", "previous", "starts")

    def __init__(
        self,
        kinds: tuple[Kind, ...],
        nodes: Nodes,
        starts: Times,
        *,
        networks: Networks | None = None,
        first: int = 1,
    ) -> None:
        """`first` is a node's first ordinal. Raises `LoadError` for too many requests."""
        if len(nodes) * len(kinds) > MOST_REQUESTS:
            what = f"{len(nodes) * len(kinds)} requests; at most {MOST_REQUESTS} fit one run"
            raise LoadError(f"{what}: lower --nodes, --rate or --duration")
        self.kinds = kinds
        self.nodes = nodes
        self.starts = starts
        self.networks = networks
        self.previous, self.ordinals = _history(nodes)
        self.ordinals += first - 1

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def last_start(self) -> float:
        """When the last procedure begins, s."""
        return float(self.starts[-1]) if len(self.starts) else 0.0


def _history(nodes: Nodes) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """For each procedure the node's one before it (or -1), and its ordinal among the node's."""
    order = np.argsort(nodes, kind="stable")
    numbers = np.arange(len(nodes))
    follows = np.empty(len(nodes), np.bool_)
    follows[:1] = False
    follows[1:] = nodes[order[1:]] == nodes[order[:-1]]
    previous = np.full(len(nodes), -1, np.intp)
    previous[order[follows]] = order[:-1][follows[1:]]
    first = np.maximum.accumulate(np.where(follows, 0, numbers))
    ordinals = np.empty(len(nodes), np.intp)
    ordinals[order] = numbers - first + 1
    return previous, ordinals


Pattern = Callable[[int, np.random.Generator], tuple[Nodes, Times]]
"""From the number of nodes: who begins, and when, in order of time."""


def at_once(nodes: int, random: np.random.Generator) -> tuple[Nodes, Times]:
    """Every node once, all at time 0."""
    del random
    return np.arange(nodes), np.zeros(nodes)


def simultaneous(window: float) -> Pattern:
    """Every node once, at any time within a window of seconds."""

    def pattern(nodes: int, random: np.random.Generator) -> tuple[Nodes, Times]:
        return random.permutation(nodes), np.sort(random.uniform(0.0, window, nodes))

    return pattern


def steady(rate: float, duration: float) -> Pattern:
    """So many a second for a duration, at equal distances; the nodes in turn, in a random order."""

    def pattern(nodes: int, random: np.random.Generator) -> tuple[Nodes, Times]:
        starts = np.arange(_count(rate * duration)) / rate
        return _in_turn(nodes, len(starts), random), starts

    return pattern


def poisson(rate: float, duration: float) -> Pattern:
    """So many a second on average, independent of each other; nodes as in `steady`."""

    def pattern(nodes: int, random: np.random.Generator) -> tuple[Nodes, Times]:
        _count(rate * duration)
        number = int(random.poisson(rate * duration))
        starts = np.sort(random.uniform(0.0, duration, number))
        return _in_turn(nodes, number, random), starts

    return pattern


def _count(requests: float) -> int:
    if requests > MOST_REQUESTS:
        what = f"{requests:.0f} requests; at most {MOST_REQUESTS} fit one run"
        raise LoadError(f"{what}: lower --rate or --duration")
    return int(requests)


def _in_turn(nodes: int, number: int, random: np.random.Generator) -> Nodes:
    if number == 0:
        raise LoadError("nobody would begin: raise --rate or --duration")
    return np.resize(random.permutation(nodes), number)


def from_scenario(
    events: Sequence[AttachmentEvent], names: Sequence[str], speed: float, end: float = math.inf
) -> tuple[Nodes, Times, Networks]:
    """The handovers of a scenario, `speed` times as fast: nodes, starts and networks.

    Each attachment but a node's first is one, up to `end` (s). `names` are the scenario's nodes in
    order.
    """
    numbers = {name: number for number, name in enumerate(names)}
    links: dict[str, list[str]] = {name: [] for name in names}
    last: dict[str, str] = {}
    found: list[tuple[int, float, str, str, bool]] = []
    for event in itertools.takewhile(lambda event: event.time <= end, events):
        held = links[event.node]
        if event.action == "detach":
            held.remove(event.network)
            continue
        before = last.get(event.node)
        if before not in (None, event.network):
            assert before is not None
            soft = before in held
            found.append((numbers[event.node], event.time, before, event.network, soft))
        last[event.node] = event.network
        if event.network not in held:
            held.append(event.network)
    if not found:
        raise LoadError("the scenario has no handover: no node attaches to a second network")
    nodes, times, before_, after, soft_ = zip(*found, strict=True)
    begin = times[0]
    starts = (np.array(times) - begin) / speed
    return np.array(nodes, np.intp), starts, Networks(before_, after, soft_)
