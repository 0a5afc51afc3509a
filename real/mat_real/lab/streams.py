"""Streams of probes between two nodes, and what they say about interruption and loss.

Interruption and loss are those of `mat_files.measure`, as in the simulator.
"""

import signal
import sys
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, final

import numpy as np

from mat_files.measure import FloatArray, interruption, losses
from mat_files.scenario import Scenario
from mat_real.lab import probe
from mat_real.lab.errors import LabError
from mat_real.lab.plan import IpAddress, Node, Plan
from mat_real.lab.programs import Program, stop_all

if TYPE_CHECKING:
    from mat_real.lab.lab import Lab

Family: TypeAlias = Literal[4, 6]
Direction: TypeAlias = Literal["up", "down"]


@final
@dataclass(frozen=True, slots=True)
class Flow:
    """Packets of one direction: when each was sent, and when it was delivered, None if never, s.

    In order of sending; `spacing` is the regular time between two, s.
    """

    sent: tuple[float, ...]
    delivered: tuple[float | None, ...]
    spacing: float

    def interruption(self, begin: float, end: float) -> float:
        """The longest time without a delivery from `begin` to `end`, less the spacing, s."""
        return interruption(_array(self.delivered), begin, end, self.spacing)

    def losses(self, begin: float, end: float) -> int:
        """Packets never delivered, from the last one delivered before `begin` up to `end`."""
        return losses(_array(self.sent), _array(self.delivered), begin, end)

    def first_delivery(self, sent_from: float) -> float | None:
        """When the first packet sent from this time on was delivered; None if none was, s."""
        at = bisect_left(self.sent, sent_from)
        times = [time for time in self.delivered[at:] if time is not None]
        return min(times, default=None)


def _array(times: Sequence[float | None]) -> FloatArray:
    return np.array([np.nan if time is None else time for time in times], dtype=np.float64)


@final
class Stream:
    """Probes between a node and a peer, both ways, until `stop`."""

    __slots__ = ("_ends", "_logs", "_spacing", "home", "node", "peer", "port")

    def __init__(self, lab: "Lab", node: str, peer: str, options: "StreamOptions") -> None:
        """Started by `Lab.probe`."""
        self.node = node
        self.peer = peer
        self.home = options.home
        """Whether it goes between home addresses."""
        self._spacing: dict[Direction, float] = {"up": options.up, "down": options.down}
        number = next(lab.ports)
        if number >= probe.MOST:
            raise LabError(f"a lab has up to {probe.MOST} streams: probe fewer pairs")
        self.port = port = probe.PORT + number
        there = options.to if options.to is not None else _address(lab.plan.node(peer), options)
        self._logs = {
            name: lab.folder_of(name) / f"probes-{node}-{peer}-{port}.log" for name in (node, peer)
        }
        shared = [f"--family={options.family}", f"--port={port}", f"--size={options.size}"]
        # The peer is there before the first probe comes; without a home address to send to, it
        # answers to where the probes come from.
        back = _home(lab.plan.node(node), options)
        ends = ((peer, options.down, back), (node, options.up, str(there)))
        if options.start is not None:
            shared.append(f"--start={options.start}")
        self._ends: list[Program] = []
        for name, interval, to in ends:
            command = [
                sys.executable,
                "-S",
                "-P",
                probe.__file__,
                *shared,
                f"--interval={interval}",
            ]
            command += [f"--log={self._logs[name]}", *([f"--peer={to}"] if to else [])]
            self._ends.append(lab.start(name, command, f"probe-{port}.out"))
            self._ends[-1].wait_for(probe.READY)

    def release(self) -> None:
        """Let it begin, if that was to wait for this."""
        for end in self._ends:
            end.process.send_signal(signal.SIGUSR1)

    def stop(self) -> None:
        """End both ends."""
        stop_all(self._ends)

    def flow(self, direction: Direction) -> Flow:
        """What was sent and delivered in one direction: up is from the node to the peer."""
        sender, _ = self._logs_of(direction)
        sent = {int(fields[1]): float(fields[2]) for fields in _lines(sender, "s")}
        delivered = self.deliveries(direction)
        numbers: Sequence[int] = sorted(sent)
        return Flow(
            tuple(sent[number] for number in numbers),
            tuple(delivered.get(number) for number in numbers),
            self._spacing[direction],
        )

    def deliveries(self, direction: Direction) -> dict[int, float]:
        """When the packets of one direction that arrived were delivered, s, by their numbers."""
        _, receiver = self._logs_of(direction)
        return {int(fields[1]): float(fields[3]) for fields in _lines(receiver, "r")}

    def _logs_of(self, direction: Direction) -> tuple[Path, Path]:
        near, far = self._logs[self.node], self._logs[self.peer]
        return (near, far) if direction == "up" else (far, near)


@final
@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How probes are sent: every `up` and `down` seconds, 0 for not at all, `size` with headers.

    They go to the peer's home address and, if `home`, to the node's; else to the address that the
    peer has without MAT, or `to`. They begin at once, or `start` seconds after `release`.
    """

    up: float = 0.02
    down: float = 0.02
    size: int = 200
    family: Family = 4
    home: bool = True
    to: IpAddress | None = None
    start: float | None = None


def _home(node: Node, options: StreamOptions) -> str | None:
    if not options.home:
        return None
    if node.home is None:
        raise LabError(f"{node.name} has no home address: probe with home=False")
    return str(node.home.of(options.family))


def _address(peer: Node, options: StreamOptions) -> str:
    if (home := _home(peer, options)) is not None:
        return home
    if peer.site is None:
        raise LabError(f"{peer.name} has no address that stays but its home address: give to=…")
    return str(peer.site.host(1).of(options.family))


_FIELDS: Final = {"s": 3, "r": 4}


def _lines(path: Path, kind: str) -> list[list[str]]:
    """The whole lines of a kind in a log that may be written at this moment."""
    text = path.read_text().rpartition("\n")[0] if path.exists() else ""
    lines = [line.split() for line in text.splitlines()]
    return [fields for fields in lines if fields[0] == kind and len(fields) == _FIELDS[kind]]


def traffic(
    lab: "Lab", scenario: Scenario, arrivals: Mapping[str, float] | None, *, home: bool
) -> Iterator[Stream]:
    """Start the streams of a scenario's traffic (docs/scenario.md).

    `arrivals` says when nodes attach first: then streams begin as the scenario says, counted from
    their release.
    """
    wanted, family = scenario.traffic, scenario.nodes.family
    up, down = (1 / rate if rate else 0.0 for rate in (wanted.up, wanted.down))
    for node, peer in _pairs(lab.plan, scenario):
        start = None if arrivals is None else arrivals[node] + wanted.start
        options = StreamOptions(up, down, wanted.size, family, home, start=start)
        yield Stream(lab, node, peer, options)


def _pairs(plan: Plan, scenario: Scenario) -> Iterator[tuple[str, str]]:
    mobile = [node.name for node in plan.nodes if node.mobile]
    fixed = [node.name for node in plan.nodes if not node.mobile and node.home is not None]
    if scenario.traffic.pairs == "mobile":
        yield from zip(mobile[::2], mobile[1::2], strict=False)
    elif scenario.traffic.pairs == "correspondent":
        yield from ((node, fixed[i % len(fixed)]) for i, node in enumerate(mobile))
