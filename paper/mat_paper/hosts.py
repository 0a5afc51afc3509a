"""Two hosts across a router, as in the paper's figure 4, three times over.

MN is on an access network, whose router leads to the core, and CN on a site of its own there: two
routers in between, where the paper has one. Links are veth without a rate, and leave checksums and
segmentation to the other end, as hardware would. All three pairs are there at the same time, to
take turns: hosts without MAT, whose applications use the addresses that they have; MAT nodes whose
kernel translates (maps); MAT nodes that translate each packet themselves (queue). MAT's
applications use home addresses, and both hosts have other mobile addresses, so a round trip is
translated four times.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CalledProcessError
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, final, get_args

from mat_paper import PaperError

if TYPE_CHECKING:
    from mat_real.lab import Lab

Way: TypeAlias = Literal["without", "maps", "queue"]
WAYS: Final[tuple[Way, ...]] = get_args(Way)
WAY_NAMES: Final[dict[str, str]] = {
    "without": "without MAT",
    "maps": "MAT, fast path",
    "queue": "MAT, NFQUEUE alone",
}
PROGRAMS: Final = {"iperf": "iperf", "ping": "iputils-ping"}
"""What is measured with, and the packages of Debian that bring it."""
_NETWORK: Final = "A"
_PATIENCE: Final = 30
"""Seconds until a pair has to have found each other."""


@final
@dataclass(frozen=True, slots=True)
class Pair:
    """Two hosts, and the address by which the first one's applications know the other."""

    mover: str
    peer: str
    address: str


@final
class Hosts:
    """The pairs of all ways, in a lab that is there."""

    def __init__(self, lab: "Lab") -> None:
        self.lab = lab
        self._pairs = {way: _pair(lab, way) for way in WAYS}

    def pair(self, way: Way) -> Pair:
        """The pair of one way."""
        return self._pairs[way]

    def run(self, way: Way, *command: str) -> str:
        """Run a program on MN, whatever it ends with; what it printed.

        What needs the address of CN has `{}` in its place.
        """
        pair = self._pairs[way]
        try:
            return self.lab.run(pair.mover, *(word.format(pair.address) for word in command))
        except CalledProcessError as error:
            return str(error.stdout or "")

    def acquaint(self) -> None:
        """Have all pairs exchange a packet: then they know each other. Raises `PaperError`."""
        for way in WAYS:
            printed = self.run(way, "ping", "-q", "-c", "1", "-w", str(_PATIENCE), "{}")
            if " 1 received" not in printed:
                pair = self._pairs[way]
                what = f"{pair.mover} ({WAY_NAMES[way]}) has no answer from {pair.address}"
                raise PaperError(f"{what} after {_PATIENCE} s; the logs are in {self.lab.folder}")


@contextmanager
def hosts(logs: Path) -> Generator[Hosts]:
    """The lab with all pairs, which know each other. Raises `LabError` and `PaperError`."""
    from mat_real.lab import Lab, simple_plan

    plan = simple_plan(
        [_NETWORK],
        mobile=[_mover(way) for way in WAYS],
        fixed=[_peer(way) for way in WAYS if way != "without"],
        plain=[_peer("without")],
        interfaces=1,
    )
    with Lab(plan, logs) as lab:
        lab.start_servers()
        for way in WAYS:
            if way != "without":
                lab.start_nodes((_mover(way), _peer(way)), dhcp=False, dataplane=way)
            lab.attach(_mover(way), _NETWORK)
            lab.configure(_mover(way))
        made = Hosts(lab)
        made.acquaint()
        yield made


def turns(round_number: int) -> Iterator[Way]:
    """All ways, in another order in each round: none is always measured after the same other."""
    first = round_number % len(WAYS)
    yield from (*WAYS[first:], *WAYS[:first])


def _pair(lab: "Lab", way: Way) -> Pair:
    peer = lab.plan.node(_peer(way))
    if peer.home is not None:
        return Pair(_mover(way), peer.name, str(peer.home.ipv4))
    assert peer.site is not None
    return Pair(_mover(way), peer.name, str(peer.site.host(1).ipv4))


def _mover(way: Way) -> str:
    return f"MN-{way}"


def _peer(way: Way) -> str:
    return f"CN-{way}"
