"""BonnMotion's native movement files: one node per line, `t x y t x y …`, or `t x y z …`.

A node is at (x, y) at time t and moves in a straight line between waypoints; before the first and
after the last one it stands there, as BonnMotion itself has it. Lines that begin with `#` are
comments; `#3D` says that there are heights. Without it, the number of values tells: all lines can
be divided into threes or into fours; where they can be into both, it is threes if the times then
increase. Heights are not used: coverage is a matter of the plane.
Format: BonnMotion, A Mobility Scenario Generation and Analysis Tool, University of Osnabrück.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mat_files.errors import TraceError, trace_error
from mat_files.traces._paths import LARGEST, Stretch, sampled
from mat_files.traces._text import comments, lines, number
from mat_files.traces._trace import FloatArray, Trace

_FIELDS: Final = {3: ("t", "x", "y"), 4: ("t", "x", "y", "z")}

Line: TypeAlias = tuple[int, FloatArray]
"""Where it was read, and its values."""


def looks_like_bonnmotion(line: str) -> bool:
    """Whether a file's first line of data begins with the three numbers of a waypoint."""
    values = line.split()[:3]
    return len(values) == 3 and all(map(_is_number, values))


def read_bonnmotion(path: Path, step: float) -> Trace:
    """The movement of a file, nodes named by their ordinals from 0, as BonnMotion does."""
    found = [(line, _values(path, line, text)) for line, text in lines(path)]
    if not found:
        raise trace_error(path, 0, "", "holds no node; every line is one")
    size = _size(path, found)
    tables = [(line, values.reshape(-1, size)) for line, values in found]
    for line, table in tables:
        _check(path, line, table, _FIELDS[size])
    end = max(float(table[-1, 0]) for _, table in tables)
    if (end / step + 1) * len(tables) > LARGEST:
        latest = next(line for line, table in tables if table[-1, 0] == end)
        what = f"the movement ends at t = {end:g}; {LARGEST} positions are the most"
        raise trace_error(path, latest, "t", f"{what}, so shorten it or set a longer movement.step")
    stretches = [
        _stretch(path, line, node, table, end) for node, (line, table) in enumerate(tables)
    ]
    return sampled([str(node) for node in range(len(stretches))], stretches, step)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _values(path: Path, line: int, text: str) -> FloatArray:
    try:
        return np.array([float(value) for value in text.split()])
    except ValueError:
        places = enumerate(text.split(), 1)
        return np.array([number(path, line, f"value {i}", value) for i, value in places])


def _size(path: Path, found: Sequence[Line]) -> int:
    """Values per waypoint, 3 or 4."""
    if any(text.replace(" ", "").upper() == "#3D" for text in comments(path)):
        possible = [4]
    else:
        possible = [3, 4]
    for line, values in found:
        fitting = [size for size in possible if len(values) % size == 0]
        if not fitting:
            raise trace_error(path, line, "", _misfit(possible, len(values)))
        possible = fitting
    if len(possible) == 2 and not all(_increasing(values[::3]) for _, values in found):
        return 4
    return possible[0]


def _misfit(possible: Sequence[int], count: int) -> str:
    forms = " or ".join(f"'{' '.join(_FIELDS[size])}'" for size in possible)
    return f"has {count} values, which waypoints of {forms} do not make; mend the line"


def _increasing(times: FloatArray) -> bool:
    return bool(np.all(np.diff(times) >= 0))


def _check(path: Path, line: int, table: NDArray[np.float64], fields: Sequence[str]) -> None:
    if (bad := np.argwhere(~np.isfinite(table))).size:
        row, column = int(bad[0, 0]), int(bad[0, 1])
        what = f"is {table[row, column]} in waypoint {row + 1}; must be a finite number"
        raise trace_error(path, line, fields[column], what)
    time = table[:, 0]
    if time[0] < 0:
        raise trace_error(path, line, "t", f"is {time[0]:g}; time starts at 0")
    for later in np.flatnonzero(np.diff(time) <= 0) + 1:
        if (table[later] != table[later - 1]).any():
            raise _unordered(path, line, int(later), float(time[later - 1]), float(time[later]))


def _unordered(path: Path, line: int, row: int, before: float, now: float) -> TraceError:
    if before == now:
        what = f"is {now:g} in waypoints {row} and {row + 1}, at two places; one place per time"
    else:
        what = f"is {now:g} in waypoint {row + 1}, after {before:g}; waypoints are in order of time"
    return trace_error(path, line, "t", what)


def _stretch(path: Path, line: int, node: int, table: NDArray[np.float64], end: float) -> Stretch:
    """From 0 to the end of all movement, standing before its first and after its last waypoint."""
    once = np.append(True, np.diff(table[:, 0]) > 0)
    time, x, y = table[once, :3].T
    if time[0] > 0:
        time, x, y = np.append(0.0, time), np.append(x[0], x), np.append(y[0], y)
    if time[-1] < end:
        time, x, y = np.append(time, end), np.append(x, x[-1]), np.append(y, y[-1])
    return Stretch(node, time, x, y, path, line)
