"""A movement trace in memory, and the checks that every trace passes whatever its format."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from mat_files.errors import trace_error

if TYPE_CHECKING:
    import pandas as pd

Gaps: TypeAlias = Literal["error", "absent"]
FloatArray: TypeAlias = NDArray[np.float64]
IndexArray: TypeAlias = NDArray[np.int64]

GAP_FACTOR: Final = 1.5
"""A node's next row later than this many steps is a gap: half a step of tolerance for rounding."""


class Row(NamedTuple):
    """One position: time (s), node, x and y (m), and the line it was read from."""

    time: float
    node: str
    x: float
    y: float
    line: int


@final
@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Positions in the order of the file: columns of equal length, nodes as indices.

    `time` in seconds, never decreasing; `x`, `y` in metres; `node[i]` indexes `nodes`, which holds
    the names in order of appearance. `step` is the usual time between two rows of a node, in
    seconds; a longer pause of a node means that it was absent.
    """

    time: FloatArray
    node: IndexArray
    x: FloatArray
    y: FloatArray
    nodes: tuple[str, ...]
    step: float

    def visits(self) -> list[tuple[int, IndexArray]]:
        """Node index and row indices of every uninterrupted presence, by node, then by time."""
        order = np.argsort(self.node, kind="stable")
        pause = np.diff(self.time[order]) > GAP_FACTOR * self.step
        cuts = np.flatnonzero((np.diff(self.node[order]) != 0) | pause) + 1
        return [(int(self.node[rows[0]]), rows) for rows in np.split(order, cuts)]

    def presence(self) -> dict[str, list[tuple[float, float]]]:
        """First and last time (s) of every uninterrupted presence of each node."""
        spans: dict[str, list[tuple[float, float]]] = {name: [] for name in self.nodes}
        for node, rows in self.visits():
            spans[self.nodes[node]].append((float(self.time[rows[0]]), float(self.time[rows[-1]])))
        return spans

    def first_nodes(self, count: int) -> "Trace":
        """The trace of the first `count` nodes that appear."""
        keep = self.node < count
        columns = (self.time[keep], self.node[keep], self.x[keep], self.y[keep])
        return Trace(*columns, self.nodes[:count], self.step)

    def frame(self) -> "pd.DataFrame":
        """The trace as a DataFrame with the columns t (s), node (text), x and y (m)."""
        import pandas as pd

        names = pd.Categorical.from_codes(self.node, categories=pd.Index(list(self.nodes)))
        return pd.DataFrame({"t": self.time, "node": names, "x": self.x, "y": self.y})


def collect(path: Path, rows: Iterable[Row], gaps: Gaps) -> Trace:
    """The checked trace of the rows of one file.

    Raises `TraceError` for the first row that is not finite, out of order or repeated, or, unless
    `gaps` is "absent", that comes after a gap.
    """
    index: dict[str, int] = {}
    node, line = array("q"), array("q")
    time, x, y = array("d"), array("d"), array("d")
    for row in rows:
        node.append(index.setdefault(row.node, len(index)))
        time.append(row.time)
        x.append(row.x)
        y.append(row.y)
        line.append(row.line)
    if not node:
        raise trace_error(path, 0, "", "holds no position; a trace needs at least one row")
    columns = (np.array(time), np.array(node, dtype=np.int64), np.array(x), np.array(y))
    check = _Check(path, np.array(line), tuple(index), *columns)
    check.finite()
    check.ordered()
    return Trace(*columns, tuple(index), check.steps(gaps))


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Check:
    path: Path
    line: NDArray[np.int64]
    nodes: tuple[str, ...]
    time: FloatArray
    node: IndexArray
    x: FloatArray
    y: FloatArray

    def finite(self) -> None:
        for field, column in (("t", self.time), ("x", self.x), ("y", self.y)):
            bad = np.flatnonzero(~np.isfinite(column))
            if bad.size:
                what = f"is {column[bad[0]]}; must be a finite number"
                raise trace_error(self.path, int(self.line[bad[0]]), field, what)

    def ordered(self) -> None:
        back = np.flatnonzero(np.diff(self.time) < 0)
        if back.size:
            row = int(back[0]) + 1
            earlier, later = self.time[row], self.time[row - 1]
            what = f"is {earlier:g} after {later:g}; rows must be in order of time"
            raise trace_error(self.path, int(self.line[row]), "t", what)
        if self.time[0] < 0:
            what = f"is {self.time[0]:g}; time starts at 0"
            raise trace_error(self.path, int(self.line[0]), "t", what)

    def steps(self, gaps: Gaps) -> float:
        """The trace's step: the median time between two rows of a node (1 s if none has two)."""
        order = np.argsort(self.node, kind="stable")
        same = np.diff(self.node[order]) == 0
        pause = np.diff(self.time[order])
        repeated = np.flatnonzero(same & (pause == 0))
        if repeated.size:
            raise self._repeated(int(order[repeated[0] + 1]))
        step = float(np.median(pause[same])) if same.any() else 1.0
        long = np.flatnonzero(same & (pause > GAP_FACTOR * step))
        if long.size and gaps == "error":
            raise self._gap(int(order[long[0]]), int(order[long[0] + 1]), step)
        return step

    def _repeated(self, row: int) -> Exception:
        name = self.nodes[int(self.node[row])]
        what = f"{name!r} has two rows at t = {self.time[row]:g}; one position per node and time"
        return trace_error(self.path, int(self.line[row]), "node", what)

    def _gap(self, before: int, after: int, step: float) -> Exception:
        name = self.nodes[int(self.node[after])]
        what = (
            f"{name!r} is missing between t = {self.time[before]:g} and {self.time[after]:g} while"
            f' rows come every {step:g} s; add the rows, or set movement.gaps = "absent"'
        )
        return trace_error(self.path, int(self.line[after]), "t", what)
