"""The kinds of handover that are evaluated, and who moves when.

One node for each kind, in one scenario, so that one lab plays all. With DHCP, a node of the lab
with two interfaces prefers the first, so a soft handover goes to that; how the node gets back to
where the next begins is not evaluated. Only moves to B count, so that all have the same ways.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

from mat_paper.size import CYCLE

FIRST: Final = 3.0
"""When the first cycle begins, s: everybody communicates by then."""
OVERLAP: Final = 0.8
TARGET: Final = "B"
_Event = tuple[float, str, str, str, int]


@final
@dataclass(frozen=True, slots=True)
class Variant:
    """A kind of handover: its `node`, its name in words, and the `kind` of its rows in tables."""

    node: str
    name: str
    kind: str


VARIANTS: Final = (
    Variant("overlap", "soft, with overlap", "soft"),
    Variant("edge", "hard, without overlap", "hard"),
    Variant("single", "hard, one interface", "hard"),
)


def events(cycles: int) -> str:
    """The file of attachment events of so many cycles."""
    rows = sorted(
        [*_first(), *(event for cycle in range(cycles) for event in _cycle(FIRST + CYCLE * cycle))],
        # What leaves goes before what comes.
        key=lambda row: (row[0], row[2] == "attach"),
    )
    lines = (f"{t:.3f},{node},{act},{network},{port}\n" for t, node, act, network, port in rows)
    return "t,node,action,network,interface\n" + "".join(lines)


def duration(cycles: int) -> float:
    """How long that is, s."""
    return FIRST + CYCLE * cycles


def _first() -> Iterator[_Event]:
    yield 0.0, "overlap", "attach", "A", 1
    yield 0.0, "edge", "attach", "A", 0
    yield 0.0, "single", "attach", "A", 0


def _cycle(begin: float) -> Iterator[_Event]:
    half = begin + CYCLE / 2
    yield begin, "overlap", "attach", TARGET, 0
    yield begin + OVERLAP, "overlap", "detach", "A", 1
    yield half, "overlap", "detach", TARGET, 0
    yield half, "overlap", "attach", "A", 1
    for node, late, ports in (("edge", 0.3, (0, 1)), ("single", 0.6, (0, 0))):
        yield begin + late, node, "detach", "A", ports[0]
        yield begin + late, node, "attach", TARGET, ports[1]
        yield half + late, node, "detach", TARGET, ports[1]
        yield half + late, node, "attach", "A", ports[0]
