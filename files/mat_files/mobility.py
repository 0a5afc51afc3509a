"""From a scenario's movement to the attachment events that drive a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from mat_files.attachment import AttachmentEvent, node_names, read_events
from mat_files.coverage import coverage_events
from mat_files.errors import Problem, ScenarioError
from mat_files.scenario import Scenario, check_population
from mat_files.traces import Trace, read_trace


@final
@dataclass(frozen=True, slots=True)
class Mobility:
    """Who attaches where and when, the nodes in order of appearance, and the time it all ends.

    `end` in seconds: the scenario's duration, or else the time of the last row.
    """

    events: Sequence[AttachmentEvent]
    nodes: tuple[str, ...]
    end: float


def mobility(scenario: Scenario) -> Mobility:
    """Read or compute the attachment events of a scenario.

    Without a movement file nothing moves: nodes MN1, MN2 … attach at time 0, one network after the
    other. Raises `ScenarioError`.
    """
    if scenario.movement.events:
        found = _from_events(scenario, scenario.movement.events)
    elif scenario.movement.trace:
        found = _from_trace(scenario, scenario.movement.trace)
    else:
        found = _standing(scenario)
    check_population(scenario, len(found.nodes))
    return found


def _from_events(scenario: Scenario, name: str) -> Mobility:
    networks = {network.name for network in scenario.networks}
    events = read_events(scenario.file(name), networks, scenario.nodes.interfaces)
    nodes = _chosen(scenario, node_names(events))
    kept = set(nodes)
    end = _end(scenario, events[-1].time)
    return Mobility([event for event in events if event.node in kept], nodes, end)


def _from_trace(scenario: Scenario, name: str) -> Mobility:
    movement = scenario.movement
    form = None if movement.format == "auto" else movement.format
    trace = read_trace(scenario.file(name), form, movement.gaps)
    nodes = _chosen(scenario, trace.nodes)
    events = _covered(scenario, trace.first_nodes(len(nodes)))
    return Mobility(events, nodes, _end(scenario, float(trace.time[-1])))


def _covered(scenario: Scenario, trace: Trace) -> list[AttachmentEvent]:
    return coverage_events(
        trace,
        scenario.networks,
        hysteresis=scenario.coverage.hysteresis,
        interfaces=scenario.nodes.interfaces,
    )


def _standing(scenario: Scenario) -> Mobility:
    count = scenario.nodes.count
    assert count != "trace", "the scenario's check refuses this"
    nodes = tuple(f"MN{number + 1}" for number in range(count))
    names = [network.name for network in scenario.networks]
    events = [
        AttachmentEvent(0.0, node, "attach", names[index % len(names)])
        for index, node in enumerate(nodes)
    ]
    return Mobility(events, nodes, _end(scenario, 0.0))


def _chosen(scenario: Scenario, names: tuple[str, ...]) -> tuple[str, ...]:
    """The first `nodes.count` names of a movement."""
    count = scenario.nodes.count
    if count == "trace":
        return names
    if count > len(names):
        place = str(scenario.source.path or "scenario")
        what = f'is {count}, but the movement has {len(names)} nodes; give at most that or "trace"'
        raise ScenarioError([Problem(place, "nodes.count", what)])
    return names[:count]


def _end(scenario: Scenario, last: float) -> float:
    return scenario.scenario.duration or last
