"""What the simulator is given as measured in the lab: how long it takes until an address is there.

That is DHCP's, and not for MAT to say. Everything else in a scenario is the same for both, so the
parts register, notify and first packet are the simulator's own word.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from mat_paper import PaperError

_QUANTILES: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Least, quartiles and greatest."""
_NETWORKS: Final = 2
"""Of each scenario."""


def address_times(handovers: Any) -> Iterator[str]:
    """Overrides of a scenario by which addresses take as long as in these rows of the lab.

    Raises `PaperError` where there is none.
    """
    taken = handovers["address"].to_numpy(dtype=np.float64, na_value=np.nan)
    taken = taken[~np.isnan(taken)]
    if not taken.size:
        raise PaperError("no handover of the lab came to an address: its tables say what happened")
    quantiles = [round(float(value), 6) for value in np.quantile(taken, _QUANTILES)]
    text = f"{{quantiles=[{', '.join(map(str, quantiles))}]}}"
    for number in range(_NETWORKS):
        yield f"network.{number}.address={text}"
