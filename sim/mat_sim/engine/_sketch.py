"""Quantiles of many values in little memory.

Values are counted in cells whose bounds grow geometrically, so that the middle of a cell is never
further from a value in it than a share of that value. Two values in three decades take some 350
cells, however many they are.

Source: C. Masson, J. E. Rim, H. K. Lee, "DDSketch: a fast and fully-mergeable quantile sketch with
relative-error guarantees", VLDB 2019.
"""

from math import ceil, log
from typing import Final, final

ERROR: Final = 0.01
"""A quantile is off by at most this share of itself."""
LEAST: Final = 1e-9
"""What is below counts as 0."""
_GROWTH: Final = (1 + ERROR) / (1 - ERROR)
_LOG_GROWTH: Final = log(_GROWTH)


@final
class Sketch:
    """Times of 0 or more, s: their number, mean, greatest, and quantiles."""

    __slots__ = ("_cells", "_nothing", "_sum", "count", "greatest")

    def __init__(self) -> None:
        self.count = 0
        self.greatest = 0.0
        self._sum = 0.0
        self._nothing = 0
        """Values that count as 0."""
        self._cells: dict[int, int] = {}

    def add(self, value: float) -> None:
        """Count a value."""
        self.count += 1
        self._sum += value
        self.greatest = max(self.greatest, value)
        if value < LEAST:
            self._nothing += 1
        else:
            cell = ceil(log(value) / _LOG_GROWTH)
            self._cells[cell] = self._cells.get(cell, 0) + 1

    @property
    def mean(self) -> float | None:
        """The mean, exactly; None without values."""
        return self._sum / self.count if self.count else None

    def quantile(self, share: float) -> float | None:
        """The value that this share of the values is not above, within `ERROR` of itself."""
        if not self.count:
            return None
        rank = share * (self.count - 1)
        below = self._nothing
        if rank < below:
            return 0.0
        for cell in sorted(self._cells):
            below += self._cells[cell]
            if rank < below:
                return min(self.greatest, 2 * _GROWTH**cell / (_GROWTH + 1))
        return self.greatest
