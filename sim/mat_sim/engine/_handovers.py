"""The table `handovers` in the making: columns of numbers, so that a million rows fit."""

from array import array
from collections.abc import Sequence
from typing import Any, Final, final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mat.address import Address, format_address, is_ipv4
from mat_files.frames import frame_of
from mat_files.schema import DIRECTIONS, HANDOVERS, PARTS
from mat_sim.engine._flow import Flow
from mat_sim.engine._handover import COMPLETED, NOT_YET, SUPERSEDED, UNFINISHED, Handover

_KINDS: Final = ("hard", "soft")
_OUTCOMES: Final = (COMPLETED, SUPERSEDED, UNFINISHED)
_NUMBERS: Final = (
    "time",
    *PARTS,
    "total",
    *(f"{what}_{way}" for way in DIRECTIONS for what in ("interruption", "lost")),
)


@final
class Handovers:
    """Handovers that are over, of nodes by their number."""

    __slots__ = (
        "_codes",
        "_from",
        "_nodes",
        "_numbers",
        "_ordinals",
        "_peers",
        "_sites",
        "_to",
    )

    def __init__(self) -> None:
        self._nodes = array("q")
        self._ordinals = array("q")
        self._peers = array("q")
        self._codes = array("B")
        self._numbers = array("d")
        self._sites: list[str | None] = []
        self._from: list[Address | None] = []
        self._to: list[Address | None] = []

    def add(self, node: int, handover: Handover, flows: Sequence[tuple[str, Flow]]) -> None:
        """A row; all deliveries that its interruption depends on have been made."""
        self._nodes.append(node)
        self._ordinals.append(handover.ordinal)
        self._peers.append(len(handover.peers))
        self._codes.append(_OUTCOMES.index(handover.outcome) * 2 + handover.soft)
        parts = handover.parts(flows)
        total = NOT_YET
        if handover.outcome == COMPLETED:
            total = sum(part for part in parts if part == part)  # noqa: PLR0124  # no NaN
        self._numbers.append(handover.began)
        self._numbers.extend(parts)
        self._numbers.append(total)
        for way in DIRECTIONS:
            self._numbers.extend(handover.measured(way, flows))
        to_link = handover.to_link
        self._sites.append(handover.from_link.network)
        self._sites.append(to_link.network if to_link is not None else None)
        self._from.append(handover.from_address)
        self._to.append(handover.address)

    def frame(self, run: int, names: Sequence[str]) -> pd.DataFrame:
        """The table, ordered by node and ordinal; `names` are the nodes', by number."""
        nodes, ordinals = _integers(self._nodes), _integers(self._ordinals)
        order = np.lexsort((ordinals, nodes))
        numbers = np.frombuffer(self._numbers).reshape(-1, len(_NUMBERS))[order]
        codes = np.frombuffer(self._codes, np.uint8)[order]
        listed: list[int] = order.tolist()
        columns: dict[str, Any] = {
            "run": np.full(len(order), run),
            "node": [names[node] for node in nodes[order].tolist()],
            "ordinal": ordinals[order],
            "from_network": [self._sites[2 * row] for row in listed],
            "to_network": [self._sites[2 * row + 1] for row in listed],
            "from_moa": [_text(self._from[row]) for row in listed],
            "to_moa": [_text(self._to[row]) for row in listed],
            "kind": [_KINDS[code & 1] for code in codes.tolist()],
            "peers": _integers(self._peers)[order],
            "outcome": [_OUTCOMES[code >> 1] for code in codes.tolist()],
        }
        columns |= {name: numbers[:, place] for place, name in enumerate(_NUMBERS)}
        return frame_of(HANDOVERS, columns)


def _integers(values: "array[int]") -> NDArray[np.int64]:
    return np.frombuffer(values, np.int64)


def _text(address: Address | None) -> str | None:
    if address is None:
        return None
    if is_ipv4(address):
        return f"{address[12]}.{address[13]}.{address[14]}.{address[15]}"
    return format_address(address)
