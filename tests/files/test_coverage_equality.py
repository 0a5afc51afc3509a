"""The coverage model leaves out rows of which nothing can come: what it finds is the same."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mat_files.coverage import coverage_events
from mat_files.traces import Trace, read_trace
from tests.files.straightforward_coverage import straightforward_events
from tests.files.test_coverage import Cell
from tests.files.test_traces import SCENARIOS

# Whole metres, so that nodes stand on rims, and halfway between two networks.
PLACES = st.integers(-150, 150).map(float)
CELLS = st.lists(
    st.tuples(PLACES, PLACES, st.integers(1, 200).map(float)), min_size=1, max_size=6
).map(lambda found: [Cell(f"N{i}", x, y, reach) for i, (x, y, reach) in enumerate(found)])


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    """Up to four nodes that walk in steps of any size; some leave and return."""
    seed = draw(st.integers(0, 1 << 32))
    pace = draw(st.sampled_from([0.3, 3.0, 30.0, 300.0]))
    walk = random.Random(seed)
    rows: list[tuple[float, int, float, float]] = []
    for node in range(draw(st.integers(1, 4))):
        x, y = walk.uniform(-150, 150), walk.uniform(-150, 150)
        for tick in range(walk.randint(1, 60)):
            if walk.random() < 0.05:
                continue
            x, y = x + walk.uniform(-pace, pace), y + walk.uniform(-pace, pace)
            if walk.random() < 0.2:
                x, y = float(round(x)), float(round(y))
            rows.append((float(tick), node, x, y))
    rows = sorted(rows) or [(0.0, 0, 0.0, 0.0)]
    time, node_, x_, y_ = zip(*rows, strict=True)
    names = tuple(f"n{number}" for number in range(max(node_) + 1))
    return Trace(np.array(time), np.array(node_), np.array(x_), np.array(y_), names, 1.0)


@settings(max_examples=400, deadline=None)
@given(traces(), CELLS, st.sampled_from([0.0, 1.0, 20.0, 200.0]), st.sampled_from([1, 2]))
def test_events_are_those_of_the_straightforward_model(
    trace: Trace, cells: list[Cell], hysteresis: float, interfaces: int
) -> None:
    found = coverage_events(trace, cells, hysteresis=hysteresis, interfaces=interfaces)
    plain = straightforward_events(trace, cells, hysteresis=hysteresis, interfaces=interfaces)
    assert list(found) == plain


@pytest.mark.parametrize("interfaces", [1, 2])
def test_the_town_gives_the_events_of_the_straightforward_model(interfaces: int) -> None:
    trace = read_trace(SCENARIOS / "town.fcd.xml.gz")
    cells = [Cell(f"{i}-{j}", i * 500.0, j * 500.0, 400) for i in range(6) for j in range(7)]
    found = coverage_events(trace, cells, hysteresis=15, interfaces=interfaces)
    assert list(found) == straightforward_events(trace, cells, hysteresis=15, interfaces=interfaces)


def test_positions_beyond_all_measure_are_merely_far_away(tmp_path: Path) -> None:
    path = tmp_path / "far.csv"
    path.write_text("t,node,x,y\n0,m,0,0\n1,m,1e308,-1e308\n2,m,-1e308,1e308\n3,m,0,0\n4,m,0,0\n")
    found = coverage_events(read_trace(path), [Cell("A", 0, 0, 10)], hysteresis=0, interfaces=1)
    assert [(event.time, event.action) for event in found] == [
        (0, "attach"),
        (1, "detach"),
        (3, "attach"),
        (4, "detach"),
    ]
