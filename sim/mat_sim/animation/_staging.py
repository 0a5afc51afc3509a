"""From a scenario, its movement and its messages to a scene.

Where a node is comes from the movement (`mat_files.mobility.positions`). Where that has no places,
a node stands at a spot of its own in the network that it is on, and walks to the next while it
hands over. Where networks are comes from the scenario if nodes have places or the networks have
different ones; else they are laid out in a row or, from seven on, in a circle.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from mat_files.attachment import AttachmentEvent
from mat_files.ladder import LadderMessage
from mat_files.mobility import Mobility, positions
from mat_files.scenario import Scenario
from mat_files.traces import Trace
from mat_sim.animation._scene import Disc, Handover, Link, Node, Party, PartyKind, Point, Scene

if TYPE_CHECKING:
    import pandas as pd

_ROW: Final = 6
"""Networks that are laid out in a row; more make a circle."""
_MOST_DISCS: Final = 200
"""Networks that are all drawn, visited or not."""
_APART: Final = 2.3
"""Distance of neighbouring discs that are laid out, in radii."""
_WALK: Final = 0.5
"""Seconds that a node walks to another network where nothing says how long its handover took."""
_SAME: Final = 1e-3
"""Seconds within which an attachment and a handover's row mean the same."""
_STRAIGHT: Final = 0.5
"""Metres that a position may be off the straight line and still be left out."""
_PARTS: Final = ("detect", "associate", "address")

_Arrivals: TypeAlias = Mapping[tuple[str, str], Sequence[tuple[float, float]]]
"""By node and network: when the network was in reach and when its address was configured."""
_Path: TypeAlias = tuple[tuple[Point, ...], ...]
"""Where a node is, in uninterrupted pieces."""


def scene(
    scenario: Scenario,
    mobility: Mobility,
    messages: Sequence[LadderMessage],
    handovers: "pd.DataFrame | None" = None,
    *,
    begin: float = 0.0,
    end: float | None = None,
    run: int = 0,
) -> Scene:
    """The scene of a run of `scenario` from `begin` to `end` (s; `None`: to its end).

    `messages` is what the run recorded; `handovers` the table of that name, from which the scene
    knows when a handover began and ended and when an address was configured. `run` is the run's
    ordinal, which generated movement depends on. Raises `ScenarioError` where there is too much to
    show (`Scene.limited`), or the movement cannot be read.
    """
    last = mobility.end if end is None else min(end, mobility.end)
    shown = [message for message in messages if begin <= message.sent <= last]
    links = _links(mobility.events, _arrivals(handovers), mobility.end)
    trace = positions(scenario, run)
    discs = _shown(_discs(scenario, has_places=trace is not None), links)
    paths = _hopped(mobility.nodes, discs, links) if trace is None else _walked(trace, begin, last)
    found = _handovers(handovers, begin, last)
    return Scene(
        title=scenario.scenario.name,
        description=scenario.scenario.description,
        begin=begin,
        end=last,
        networks=discs,
        parties=_parties(scenario, mobility.nodes, shown),
        nodes=tuple(
            Node(name, paths.get(name, ()), tuple(links.get(name, ()))) for name in mobility.nodes
        ),
        messages=tuple(sorted(shown, key=lambda message: message.sent)),
        handovers=tuple(found),
    ).limited(str(scenario.source.path or "scenario"))


# ---- places --------------------------------------------------------------------------------------


def _discs(scenario: Scenario, *, has_places: bool) -> tuple[Disc, ...]:
    networks = scenario.networks
    if has_places or len({(n.x, n.y) for n in networks}) > 1:
        return tuple(Disc(n.name, n.x, n.y, n.range) for n in networks)
    places = _row(len(networks)) if len(networks) <= _ROW else _circle(len(networks))
    return tuple(Disc(n.name, x, y, 1.0) for n, (x, y) in zip(networks, places, strict=True))


def _shown(discs: tuple[Disc, ...], links: Mapping[str, Sequence[Link]]) -> tuple[Disc, ...]:
    """Of very many networks, those that somebody visits."""
    if len(discs) <= _MOST_DISCS:
        return discs
    visited = {link.network for of_node in links.values() for link in of_node}
    return tuple(disc for disc in discs if disc.name in visited)


def _row(count: int) -> list[tuple[float, float]]:
    return [(_APART * index, 0.0) for index in range(count)]


def _circle(count: int) -> list[tuple[float, float]]:
    """From the top, clockwise."""
    radius = _APART / (2 * math.sin(math.pi / count))
    turns = [2 * math.pi * index / count for index in range(count)]
    return [(radius * math.sin(turn), radius * math.cos(turn)) for turn in turns]


def _parties(
    scenario: Scenario, nodes: Iterable[str], messages: Iterable[LadderMessage]
) -> tuple[Party, ...]:
    """Servers, the DNS and the correspondents that a message comes from or goes to."""
    seen = dict.fromkeys(name for message in messages for name in (message.from_, message.to))
    for name in (*nodes, "?"):
        seen.pop(name, None)
    servers = [
        name if replica == 0 else f"{name}#{replica + 1}"
        for name, replicas in ((ims.name, ims.replicas) for ims in scenario.every_ims)
        for replica in range(replicas)
    ]
    fixed = [f"CN{number + 1}" for number in range(scenario.correspondents.count)]
    found = [_party("ims", name) for name in servers if name in seen]
    found += [_party("dns", name) for name in seen if name == "DNS"]
    known = {*servers, *fixed, "DNS"}
    found += [_party("other", name) for name in seen if name not in known]
    at = scenario.correspondents.network
    return (*found, *(Party(name, "correspondent", at) for name in fixed if name in seen))


def _party(kind: PartyKind, name: str) -> Party:
    return Party(name, kind)


# ---- links ---------------------------------------------------------------------------------------


def _arrivals(handovers: "pd.DataFrame | None") -> _Arrivals:
    """When each handover's new network was in reach and had given an address (infinite: never)."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    if handovers is None:
        return found
    columns = ["node", "to_network", "time", "away", *_PARTS]
    for node, network, time, away, *parts in handovers[columns].to_numpy().tolist():
        reach = time + (0.0 if math.isnan(away) else away)
        ready = reach + sum(parts)
        at = math.inf if math.isnan(ready) else ready
        found.setdefault((node, network), []).append((reach, at))
    return found


def _links(
    events: Sequence[AttachmentEvent], arrivals: _Arrivals, end: float
) -> dict[str, list[Link]]:
    """Each node's links. One that becomes the preferred one again is a new link, ready at once."""
    held: dict[tuple[str, str], tuple[float, float]] = {}
    found: dict[str, list[Link]] = {}

    def close(key: tuple[str, str], now: float) -> bool:
        if key not in held:
            return False
        start, ready = held.pop(key)
        node, network = key
        found.setdefault(node, []).append(Link(network, start, min(ready, now), now))
        return True

    for event in events:
        key = (event.node, event.network)
        again = close(key, event.time)
        if event.action == "attach":
            ready = event.time if again else _ready(arrivals.get(key, ()), event.time)
            held[key] = (event.time, ready)
    for key in list(held):
        close(key, end)
    return {node: sorted(links, key=lambda link: link.start) for node, links in found.items()}


def _ready(arrivals: Sequence[tuple[float, float]], attached: float) -> float:
    return next((ready for reach, ready in arrivals if abs(reach - attached) < _SAME), attached)


def _handovers(handovers: "pd.DataFrame | None", begin: float, end: float) -> list[Handover]:
    if handovers is None:
        return []
    columns = ["node", "kind", "time", "total", "outcome"]
    rows = handovers[columns].sort_values("time", kind="stable").to_numpy().tolist()
    return [
        Handover(node, kind, time, None if math.isnan(total) else time + total, outcome)
        for node, kind, time, total, outcome in rows
        if begin <= time <= end
    ]


# ---- movement ------------------------------------------------------------------------------------


def _walked(trace: Trace, begin: float, end: float) -> dict[str, _Path]:
    """Where each node of a trace is from `begin` to `end`."""
    paths: dict[str, _Path] = {}
    for node, rows in trace.visits():
        times = trace.time[rows]
        first = max(0, int(np.searchsorted(times, begin, side="right")) - 1)
        beyond = int(np.searchsorted(times, end, side="left")) + 1
        if times[-1] >= begin and times[0] <= end:
            name = trace.nodes[node]
            paths[name] = (*paths.get(name, ()), _piece(trace, rows[first:beyond].tolist()))
    return paths


def _piece(trace: Trace, rows: Sequence[int]) -> tuple[Point, ...]:
    """The rows that straight walks at even speed between them reproduce."""
    points = np.column_stack((trace.time[rows], trace.x[rows], trace.y[rows]))
    kept = np.zeros(len(points), dtype=bool)
    kept[[0, -1]] = True
    spans = [(0, len(points) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        inner = points[first + 1 : last]
        share = (inner[:, :1] - points[first, 0]) / (points[last, 0] - points[first, 0])
        line = points[first, 1:] + share * (points[last, 1:] - points[first, 1:])
        off = np.hypot(*(inner[:, 1:] - line).T)
        worst = int(off.argmax())
        if off[worst] > _STRAIGHT:
            middle = first + 1 + worst
            kept[middle] = True
            spans += [(first, middle), (middle, last)]
    return tuple((time, x, y) for time, x, y in points[kept].tolist())


def _spot(index: int, count: int) -> tuple[float, float]:
    """A node's own place in any disc, in radii: a sunflower's seeds, the middle left free."""
    distance = 0.3 + 0.5 * math.sqrt((index + 0.5) / count)
    turn = index * math.pi * (3 - math.sqrt(5)) - math.pi / 3
    return distance * math.cos(turn), distance * math.sin(turn)


def _hopped(
    nodes: Sequence[str], discs: Sequence[Disc], links: Mapping[str, Sequence[Link]]
) -> dict[str, _Path]:
    """Where nodes without places are shown, by their links."""
    places = {disc.name: disc for disc in discs}
    return {
        name: _hops(links.get(name, ()), places, _spot(index, len(nodes)))
        for index, name in enumerate(nodes)
    }


def _hops(links: Sequence[Link], discs: Mapping[str, Disc], spot: tuple[float, float]) -> _Path:
    """From network to network, walking while a handover lasts."""
    points: list[Point] = []
    leaves = 0.0
    for link in links:
        disc = discs[link.network]
        x, y = disc.x + spot[0] * disc.radius, disc.y + spot[1] * disc.radius
        arrives = link.start
        if points:
            away = max(points[-1][0], min(leaves, link.start))
            points.append((away, *points[-1][1:]))
            arrives = max(away, link.ready if link.ready > away else link.start + _WALK)
        points.append((arrives, x, y))
        leaves = link.end
    if points:
        points.append((max(leaves, points[-1][0]), *points[-1][1:]))
    return (tuple(points),) if points else ()
