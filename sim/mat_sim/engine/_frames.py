"""The tables of a run as DataFrames."""

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mat.address import Address, format_address, is_ipv4
from mat_files.frames import frame_of
from mat_files.schema import HANDOVERS
from mat_sim.engine._handovers import KINDS, NUMBERS, OUTCOMES, Handovers


def handover_frame(handovers: Handovers, run: int, names: Sequence[str]) -> pd.DataFrame:
    """The table, ordered by node and ordinal; `names` are the nodes', by number."""
    nodes, ordinals = _integers(handovers.nodes), _integers(handovers.ordinals)
    order = np.lexsort((ordinals, nodes))
    numbers = np.frombuffer(handovers.numbers).reshape(-1, len(NUMBERS))
    codes = np.frombuffer(handovers.codes, np.uint8)[order]
    listed: list[int] = order.tolist()
    columns: dict[str, Any] = {
        "run": np.full(len(order), run),
        "node": [names[node] for node in nodes[order].tolist()],
        "ordinal": ordinals[order],
        "from_network": [handovers.sites[2 * row] for row in listed],
        "to_network": [handovers.sites[2 * row + 1] for row in listed],
        "from_moa": [_text(handovers.from_addresses[row]) for row in listed],
        "to_moa": [_text(handovers.to_addresses[row]) for row in listed],
        "kind": [KINDS[code & 1] for code in codes.tolist()],
        "peers": _integers(handovers.peers)[order],
        "outcome": [OUTCOMES[code >> 1] for code in codes.tolist()],
    }
    columns |= {name: numbers[:, place][order] for place, name in enumerate(NUMBERS)}
    return frame_of(HANDOVERS, columns)


def _integers(values: "array[int]") -> NDArray[np.int64]:
    return np.frombuffer(values, np.int64)


def _text(address: Address | None) -> str | None:
    if address is None:
        return None
    if is_ipv4(address):
        return f"{address[12]}.{address[13]}.{address[14]}.{address[15]}"
    return format_address(address)
