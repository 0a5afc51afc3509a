"""How much is measured: the sizes `short` and `full`, and how long each part takes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias, final

from pydantic import Field

from mat_files.document import Document, Table
from mat_files.errors import InputError

Name: TypeAlias = Literal["short", "full"]
_Count = Annotated[int, Field(ge=1)]

WAYS: Final = 3
"""What takes turns: without MAT, its fast path, its queue."""
_LAB: Final = 7.0
"""Seconds to start a lab with its servers, measure its links and end it again."""
_NODE: Final = 0.8
_PROGRAM: Final = 2.5
"""The same for each node, and for a program of the simulator."""
_SIMULATED: Final = 0.02
"""Seconds in which the simulator plays a cycle of handovers."""
_ROUND_TRIP: Final = 0.15e-3
"""Of a packet of a flood, on average over the ways."""
_IPERF: Final = 0.6
"""What iperf takes besides the time that it sends."""
CYCLE: Final = 3.0
CROWD: Final = 7.0
FIGURES: Final = 5.0
"""Seconds of a cycle of handovers, of a crowd's scenario, and of that of figures 2 and 3."""


class SizeError(InputError):
    """Settings that cannot be used; lists every problem found."""


@final
class PingSize(Table):
    """Round trips."""

    count: _Count
    """Packets of a flood."""
    rounds: _Count


@final
class UdpSize(Table):
    """UDP throughput."""

    seconds: Annotated[float, Field(ge=0.5)]
    rounds: _Count
    loads: Annotated[tuple[Annotated[float, Field(ge=1)], ...], Field(strict=False, min_length=1)]
    """Mbit/s offered."""


@final
class HandoverSize(Table):
    """Handovers in their parts."""

    cycles: _Count
    runs: _Count
    """Replications in the simulator."""


@final
class CrowdSize(Table):
    """Handovers at the same time."""

    nodes: Annotated[
        tuple[Annotated[int, Field(ge=1, le=100)], ...], Field(strict=False, min_length=1)
    ]
    rounds: _Count


@final
class Size(Table):
    """All of an evaluation."""

    ping: PingSize
    udp: UdpSize
    handover: HandoverSize
    crowd: CrowdSize

    def seconds(self, part: str) -> float:
        """About how long a part takes on a quiet machine with two cores."""
        if part == "ping":
            return _LAB + 6 * _NODE + self.ping.rounds * WAYS * self.ping.count * _ROUND_TRIP
        if part == "udp":
            each = self.udp.seconds + _IPERF
            return _LAB + 6 * _NODE + self.udp.rounds * WAYS * len(self.udp.loads) * each
        if part == "handover":
            length = _LAB + 4 * _NODE + CYCLE * (self.handover.cycles + 1)
            return length + WAYS * _SIMULATED * self.handover.runs * self.handover.cycles
        if part == "crowd":
            labs = (_LAB + _NODE * (nodes + 1) + CROWD for nodes in self.crowd.nodes)
            return self.crowd.rounds * sum(labs)
        return _LAB + 2 * _NODE + FIGURES + _PROGRAM


def load_size(name: Name, overrides: Sequence[str] = ()) -> Size:
    """A size by its name, with `KEY=VALUE` overrides. Raises `SizeError`."""
    document = Document(Path(__file__).parent / "sizes" / f"{name}.toml", "a size", SizeError)
    document.override(overrides)
    return document.validated(Size)


def duration(seconds: float) -> str:
    """About how long, in words: `45 s`, `12 min`, `1 h 20 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
