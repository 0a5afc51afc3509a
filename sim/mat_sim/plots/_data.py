"""What plots take: results or tables of handovers, as arrays of what exists, in a fitting unit."""

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

    from mat_files.results import Results

Values: TypeAlias = NDArray[np.float64]
Source: TypeAlias = "Results | pd.DataFrame"
"""Results, or their table `handovers`."""


def handovers_of(source: Source) -> Any:
    """The table of handovers."""
    return getattr(source, "handovers", source)


def values(column: Any) -> Values:
    """The values that exist."""
    array: Values = np.asarray(
        column.to_numpy(dtype=np.float64, na_value=np.nan)
        if hasattr(column, "to_numpy")
        else column,
        dtype=np.float64,
    )
    return array[~np.isnan(array)]


def by_column(frame: Any, column: str) -> Iterator[tuple[str, Any]]:
    """The rows of each value of a column, soft and hard first."""
    names: list[Any] = frame[column].dropna().unique().tolist()
    order = {"soft": -2, "hard": -1}
    for name in sorted(names, key=lambda name: order.get(name, 0)):
        yield str(name), frame[frame[column] == name]


def unit_of(samples: Iterable[Values]) -> tuple[float, str]:
    """A factor and a unit for times in seconds: ms, or s where the greatest has five digits."""
    greatest = max((float(each.max()) for each in samples if each.size), default=0.0)
    return (1.0, "s") if greatest >= 10 else (1000.0, "ms")


def half_band(count: int, confidence: float) -> float:
    """Half the height of the band that holds a whole distribution function with that confidence.

    The inequality of Dvoretzky, Kiefer and Wolfowitz with the constant of Massart (1990): it holds
    for every distribution and any number of samples.
    """
    return math.sqrt(math.log(2 / (1 - confidence)) / (2 * count))
