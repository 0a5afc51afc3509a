"""A scenario's movement, carried out in real time.

What a scenario says about layer 2 is done by the lab: an attachment gives the interface its carrier
when `detect` and `association`, drawn anew each time, have passed since the event; only a node's
first is there at once, if `nodes.start_attached`. The carrier goes when the event says so. From
there on everything is real: what notices it, DHCP, MAT. For hosts that have neither a DHCP client
nor MAT the lab configures the addresses, when `address` has passed besides.

To attach to a network while attached to it makes it the preferred one (docs/scenario.md). No node
can see that; hosts that the lab configures get their default route there.
"""

import asyncio
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, TypeAlias, final

from mat_files.attachment import AttachmentEvent
from mat_files.mobility import Mobility, mobility
from mat_files.scenario import Network, Scenario
from mat_real.lab.impairment import WireReport
from mat_real.lab.moves import Act, Move
from mat_real.lab.recording import Recording
from mat_real.lab.watch import AddressChange, AddressWatch

if TYPE_CHECKING:
    from mat_real.lab.lab import Lab

_Place: TypeAlias = tuple[str, str]
"""A node and a network."""


@final
@dataclass(frozen=True, slots=True)
class Step:
    """Something to do at `time`, s from the begin of the scenario.

    `reach` is when the network came in reach, `detect` and `associate` what passed since, and
    `address` what passes until an address is configured, s.
    """

    time: float
    node: str
    act: Act
    network: str
    interface: int
    reach: float
    detect: float | None = None
    associate: float | None = None
    address: float | None = None


@final
@dataclass(frozen=True, slots=True)
class Played:
    """What was played from `begin` to `end`, s of CLOCK_MONOTONIC: moves, changes of addresses.

    `wires` says of the links that processes impair how well these kept up, by name; `recording` is
    what was sent meanwhile, to be read while the lab is there.
    """

    begin: float
    end: float
    speed: float
    moves: tuple[Move, ...]
    addresses: tuple[AddressChange, ...]
    wires: dict[str, WireReport]
    recording: Recording


def steps(scenario: Scenario, events: Iterable[AttachmentEvent]) -> list[Step]:
    """What to do, in order of time, times drawn from the scenario's seed.

    Of what is due at the same time, a link goes before another comes.
    """
    return sorted(_Steps(scenario).of(events), key=lambda step: step.time)


@final
class _Steps:
    """Turns events into steps, remembering which node attaches where."""

    def __init__(self, scenario: Scenario) -> None:
        self._networks = {network.name: network for network in scenario.networks}
        self._at_once = scenario.nodes.start_attached
        self._random = Random(scenario.scenario.seed)
        self._seen: set[str] = set()
        self._up: dict[_Place, float] = {}
        """When each present link comes up."""

    def of(self, events: Iterable[AttachmentEvent]) -> Iterator[Step]:
        """Each node's steps of one attachment together, when it is known how it ended."""
        pending: dict[_Place, list[Step]] = {}
        for event in events:
            place = event.node, event.network
            if event.action == "detach":
                began = self._up.pop(place)
                # What has not come about by then never does.
                yield from (step for step in pending.pop(place) if step.time < event.time)
                if began < event.time:
                    yield _step(event, event.time, "detach")
            elif place in self._up:
                pending[place].append(_step(event, max(event.time, self._up[place]), "prefer"))
            else:
                pending[place] = list(self._attach(event, self._networks[event.network]))
        for left in pending.values():
            yield from left

    def _attach(self, event: AttachmentEvent, network: Network) -> Iterator[Step]:
        first = event.node not in self._seen
        self._seen.add(event.node)
        detect = associate = address = 0.0
        if not (first and self._at_once):
            detect = network.detect.sample(self._random)
            associate = network.association.sample(self._random)
            address = network.address.sample(self._random)
        up = event.time + detect + associate
        self._up[event.node, event.network] = up
        yield _step(event, up, "attach", detect, associate, address)
        yield _step(event, up + address, "configure")


def _step(event: AttachmentEvent, at: float, act: Act, *parts: float) -> Step:
    return Step(at, event.node, act, event.network, event.interface, event.time, *parts)


async def play(
    lab: "Lab",
    scenario: Scenario,
    *,
    speed: float = 1.0,
    configured: Collection[str] = (),
    moves: Mobility | None = None,
) -> Played:
    """Carry out a scenario's attachment events; see `Lab.play`."""
    moves = moves or mobility(scenario)
    if not lab.checked:
        lab.check()
    recording = lab.record()
    watch = AddressWatch({node.name: lab.ref(node.name) for node in lab.plan.nodes if node.mobile})
    for link in lab.wired:
        lab.wire_report(link.name)
    before, begin = len(lab.moves), time.monotonic()
    while lab.held:
        lab.held.pop().release()
    try:
        for step in steps(scenario, moves.events):
            if step.act not in ("configure", "prefer") or step.node in configured:
                await _sleep_until(begin + step.time / speed)
                _do(lab, step, begin, speed, configures=step.node in configured)
        await _sleep_until(begin + moves.end / speed)
    finally:
        watch.close()
    lab.check_programs()
    end = time.monotonic()
    wires = {link.name: lab.wire_report(link.name) for link in lab.wired}
    moved, addresses = tuple(lab.moves[before:]), tuple(watch.changes)
    return Played(begin, end, speed, moved, addresses, wires, recording)


def _do(lab: "Lab", step: Step, begin: float, speed: float, *, configures: bool) -> None:
    due, reach = begin + step.time / speed, begin + step.reach / speed
    planned = step.detect, step.associate, step.address if configures else None
    parts = [None if part is None else part / speed for part in planned]
    if step.act == "configure":
        lab.configure(step.node, step.interface)
    elif step.act == "prefer":
        lab.prefer(step.node, step.network)
    elif step.act == "attach":
        lab.attach(step.node, step.network, step.interface)
    else:
        lab.detach(step.node, step.network, step.interface)
    if step.act != "configure":
        lab.moves[-1] = lab.moves[-1].planned(due, reach, *parts)


async def _sleep_until(due: float) -> None:
    loop = asyncio.get_running_loop()
    reached = loop.create_future()
    # The loop's clock is CLOCK_MONOTONIC too.
    loop.call_at(due, reached.set_result, None)
    await reached
