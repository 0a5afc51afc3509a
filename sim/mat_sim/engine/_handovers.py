"""The table `handovers` in the making: columns of numbers, so that a million rows fit."""

from array import array
from collections.abc import Sequence
from typing import Final, final

from mat.address import Address
from mat_files.schema import DIRECTIONS, PARTS
from mat_sim.engine._flow import Flow
from mat_sim.engine._handover import COMPLETED, NOT_YET, SUPERSEDED, UNFINISHED, Handover, is_known

KINDS: Final = ("hard", "soft")
"""By the lowest bit of a row's code."""
OUTCOMES: Final = (COMPLETED, SUPERSEDED, UNFINISHED)
"""By the bits above it."""
NUMBERS: Final = (
    "time",
    *PARTS,
    "total",
    *(f"{what}_{way}" for way in DIRECTIONS for what in ("interruption", "lost")),
)
_NOT_MEASURED: Final = (NOT_YET,) * (2 * len(DIRECTIONS))
"""Interruption and loss where there is no traffic."""


@final
class Handovers:
    """Handovers that are over, of nodes by their number."""

    __slots__ = (
        "codes",
        "from_addresses",
        "nodes",
        "numbers",
        "ordinals",
        "peers",
        "sites",
        "to_addresses",
    )

    def __init__(self) -> None:
        self.nodes = array("q")
        self.ordinals = array("q")
        self.peers = array("q")
        self.codes = array("B")
        self.numbers = array("d")
        self.sites: list[str | None] = []
        self.from_addresses: list[Address | None] = []
        self.to_addresses: list[Address | None] = []

    def add(self, node: int, handover: Handover, flows: Sequence[tuple[str, Flow]]) -> None:
        """A row; all deliveries that its interruption depends on have been made."""
        self.nodes.append(node)
        self.ordinals.append(handover.ordinal)
        self.peers.append(len(handover.peers))
        self.codes.append(OUTCOMES.index(handover.outcome) * 2 + handover.soft)
        parts = handover.parts(flows)
        total = NOT_YET
        if handover.outcome == COMPLETED:
            total = sum(part for part in parts if is_known(part))
        self.numbers.append(handover.began)
        self.numbers.extend(parts)
        self.numbers.append(total)
        for way in DIRECTIONS if flows else ():
            self.numbers.extend(handover.measured(way, flows))
        if not flows:
            self.numbers.extend(_NOT_MEASURED)
        to_link = handover.to_link
        self.sites.append(handover.from_link.network)
        self.sites.append(to_link.network if to_link is not None else None)
        self.from_addresses.append(handover.from_address)
        self.to_addresses.append(handover.address)
