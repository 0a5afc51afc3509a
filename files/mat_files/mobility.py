"""From a scenario's movement to the attachment events that drive a run.

Movement that is read from a file is the same in every run. Movement that is generated takes its
randomness from the scenario's seed and the ordinal of the run, in a stream of its own: equal seed
and run, equal movement, whatever else the scenario says of servers and traffic.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final, TypedDict, assert_never, final

import numpy as np

from mat_files.attachment import AttachmentEvents, NumberedNames, read_events
from mat_files.coverage import coverage_events
from mat_files.errors import Problem, ScenarioError
from mat_files.movement import (
    crowd_events,
    random_waypoint_events,
    random_waypoint_trace,
    train_events,
    train_trace,
)
from mat_files.scenario import Crowd, RandomWaypoint, Scenario, Train, check_movement
from mat_files.streams import array_stream
from mat_files.traces import LARGEST, Trace, read_trace, trace_files

_STREAM: Final = "movement"
"""Name of the stream of randomness."""


@final
@dataclass(frozen=True, slots=True)
class Mobility:
    """Who attaches where and when, the nodes in order of appearance, and the time it all ends.

    `end` in seconds: the scenario's duration, or else the time of the last row.
    """

    events: AttachmentEvents
    nodes: Sequence[str]
    end: float

    def presence(self) -> tuple[list[float], list[float]]:
        """For each node, its first attachment and the time from which it is gone for good, s.

        A node that is never anywhere is there from `end` on; one that stays is gone at `end`.
        """
        events, count = self.events, len(self.nodes)
        first = np.full(count, self.end)
        attaches = events.attach
        # Of several assignments to one place the last one stays: the first event is put in last.
        first[events.node[attaches][::-1]] = events.time[attaches][::-1]
        last = np.zeros(count)
        last[events.node] = events.time
        pairs = events.node.astype(np.int64) * len(events.networks) + events.network
        _, ends = np.unique(pairs[::-1], return_index=True)
        held = np.zeros(count, np.bool_)
        finally_attached = attaches[::-1][ends]
        held[events.node[::-1][ends][finally_attached]] = True
        ever = np.zeros(count, np.bool_)
        ever[events.node] = True
        gone = np.where(held | ~ever, self.end, last)
        return first.tolist(), gone.tolist()


def mobility(scenario: Scenario, run: int = 0) -> Mobility:
    """Read, generate or compute the attachment events of a scenario.

    `run` is the ordinal of the replication, from 0: generated movement is independent from run to
    run. Without any movement nothing moves: nodes MN1, MN2 … attach at time 0, one network after
    the other. Raises `ScenarioError`.
    """
    movement = scenario.movement
    if movement.events or movement.trace:
        found = _from_file(_File.of(scenario))
    elif model := movement.random_waypoint or movement.train or movement.crowd:
        found = _generated(scenario, model, array_stream(scenario.scenario.seed, run, _STREAM))
    else:
        found = _standing(scenario)
    check_movement(scenario, len(found.nodes), found.end)
    return found


def positions(scenario: Scenario, run: int = 0) -> Trace | None:
    """Where the nodes of `mobility` are over time; `None` where nobody has a place.

    That is what a trace says (SUMO FCD, ns-2, BonnMotion, GPX, CSV), or the model random waypoint
    or train, looked at every `movement.step` up to the end. Attachment events, a crowd, and nodes
    that do not move have no places. The trace's `frame()` is a DataFrame of all of it. Raises
    `ScenarioError`, also where that would be more positions than memory should hold.
    """
    movement = scenario.movement
    if movement.trace:
        trace = _whole_trace(scenario, movement.trace)
        return trace.first_nodes(_chosen(scenario, len(trace.nodes)))
    model = movement.random_waypoint or movement.train
    if model is None:
        return None
    count, step, end = _count(scenario), movement.step, _end(scenario, 0.0)
    _check_positions(scenario, count * (math.ceil(end / step) + 1))
    random = array_stream(scenario.scenario.seed, run, _STREAM)
    if isinstance(model, Train):
        return train_trace(model, scenario.networks, count, random, step=step, end=end)
    return random_waypoint_trace(model, count, random, step=step, end=end)


def _check_positions(scenario: Scenario, number: int) -> None:
    if number > LARGEST:
        what = f"makes {number:,} positions, and {LARGEST:,} are the most; make it longer"
        place = str(scenario.source.path or "scenario")
        raise ScenarioError(
            [Problem(place, "movement.step", f"{what}, or nodes.count or scenario.duration less")]
        )


def movement_digest(scenario: Scenario) -> str:
    """SHA-256 of the file or files that the movement is read from; empty if there is none.

    Raises `ScenarioError` where a file cannot be read.
    """
    name = scenario.movement.trace or scenario.movement.events
    if not name:
        return ""
    digest = hashlib.sha256()
    for path in trace_files(scenario.file(name)):
        try:
            digest.update(path.read_bytes())
        except OSError as error:
            what = f"cannot be read ({error.strerror or error}); name a readable file"
            raise ScenarioError([Problem(str(path), "", what)]) from error
    return digest.hexdigest()


@final
@dataclass(frozen=True, slots=True)
class _File:
    """A movement that is read, and all that it depends on: equal ones are the same movement."""

    scenario: Scenario = field(compare=False)
    parts: tuple[object, ...]
    stamps: tuple[tuple[Path, int, int], ...]
    """Names of files, lengths, and when each was changed last."""

    @classmethod
    def of(cls, scenario: Scenario) -> "_File":
        """What the scenario names, as it is now."""
        about = scenario.scenario
        parts = (scenario.movement, scenario.coverage, scenario.networks, scenario.nodes)
        name = scenario.movement.events or scenario.movement.trace or ""
        return cls(scenario, (*parts, about.duration), tuple(_stamps(scenario.file(name))))


def _stamps(path: Path) -> Iterator[tuple[Path, int, int]]:
    for file in trace_files(path):
        # What is not there any more is for the reader to say.
        with suppress(OSError):
            status = file.stat()
            yield file.absolute(), status.st_size, status.st_mtime_ns


@lru_cache(maxsize=1)
def _from_file(file: _File) -> Mobility:
    """The replications of a study have one movement, which a process reads once."""
    scenario, movement = file.scenario, file.scenario.movement
    if movement.events:
        return _from_events(scenario, movement.events)
    assert movement.trace
    return _from_trace(scenario, movement.trace)


def _from_events(scenario: Scenario, name: str) -> Mobility:
    networks = [network.name for network in scenario.networks]
    events = read_events(scenario.file(name), networks, scenario.nodes.interfaces)
    kept = events.first_nodes(_chosen(scenario, len(events.nodes)))
    return Mobility(kept, kept.nodes, _end(scenario, float(events.time[-1])))


def _from_trace(scenario: Scenario, name: str) -> Mobility:
    trace = _whole_trace(scenario, name)
    kept = trace.first_nodes(_chosen(scenario, len(trace.nodes)))
    events = coverage_events(kept, scenario.networks, **_rules(scenario))
    return Mobility(events, kept.nodes, _end(scenario, float(trace.time[-1])))


def _whole_trace(scenario: Scenario, name: str) -> Trace:
    movement = scenario.movement
    form = None if movement.format == "auto" else movement.format
    path = scenario.file(name)
    return read_trace(path, form, movement.gaps, step=movement.step, origin=movement.origin)


class _Rules(TypedDict):
    hysteresis: float
    interfaces: int


def _rules(scenario: Scenario) -> _Rules:
    """How nodes choose among networks."""
    return {
        "hysteresis": scenario.coverage.hysteresis,
        "interfaces": scenario.nodes.interfaces,
    }


def _generated(
    scenario: Scenario, model: RandomWaypoint | Train | Crowd, random: np.random.Generator
) -> Mobility:
    count, networks, rules = _count(scenario), scenario.networks, _rules(scenario)
    end = _end(scenario, 0.0)
    match model:
        case RandomWaypoint():
            step = scenario.movement.step
            events = random_waypoint_events(
                model, networks, count, random, step=step, end=end, **rules
            )
        case Train():
            events = train_events(model, networks, count, random, **rules)
        case Crowd():
            events = crowd_events(model, [network.name for network in networks], count, random)
        case _:
            assert_never(model)
    return Mobility(events, events.nodes, end)


def _standing(scenario: Scenario) -> Mobility:
    count = _count(scenario)
    node = np.arange(count, dtype=np.int32)
    names = [network.name for network in scenario.networks]
    events = AttachmentEvents(
        NumberedNames(count),
        names,
        time=np.zeros(count),
        node=node,
        attach=np.ones(count, np.bool_),
        network=node % len(names),
    )
    return Mobility(events, events.nodes, _end(scenario, 0.0))


def _count(scenario: Scenario) -> int:
    count = scenario.nodes.count
    assert count != "trace", "the scenario's check refuses this"
    return count


def _chosen(scenario: Scenario, there: int) -> int:
    """How many nodes of a movement that has so many take part: the first `nodes.count`."""
    count = scenario.nodes.count
    if count == "trace":
        return there
    if count > there:
        place = str(scenario.source.path or "scenario")
        what = f'is {count}, but the movement has {there} nodes; give at most that or "trace"'
        raise ScenarioError([Problem(place, "nodes.count", what)])
    return count


def _end(scenario: Scenario, last: float) -> float:
    return scenario.scenario.duration or last
