"""The coverage model: when a node hands over, on which interface, and in which order."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from mat_files.attachment import AttachmentEvent
from mat_files.coverage import coverage_events
from mat_files.traces import Trace, read_trace
from tests.files.test_traces import SCENARIOS, needed, write


@dataclass(frozen=True)
class Cell:
    name: str
    x: float
    y: float
    range: float


A, B, C = Cell("A", 0, 0, 60), Cell("B", 100, 0, 60), Cell("C", 200, 0, 60)


def along_x(tmp_path: Path, *positions: float) -> Trace:
    text = "t,node,x,y\n" + "".join(f"{t},m,{x},0\n" for t, x in enumerate(positions))
    return read_trace(write(tmp_path / "line.csv", text))


def events(
    trace: Trace, *cells: Cell, hysteresis: float = 5, interfaces: int = 1
) -> list[tuple[float, str, str, int]]:
    found = coverage_events(trace, cells, hysteresis=hysteresis, interfaces=interfaces)
    return [(e.time, e.action, e.network, e.interface) for e in found]


def test_one_interface_leaves_the_old_network_before_it_joins_the_new(tmp_path: Path) -> None:
    assert events(along_x(tmp_path, 0, 50, 53, 100), A, B) == [
        (0, "attach", "A", 0),
        (2, "detach", "A", 0),
        (2, "attach", "B", 0),
        (3, "detach", "B", 0),
    ]


def test_two_interfaces_join_the_new_network_while_the_old_one_is_in_range(tmp_path: Path) -> None:
    assert events(along_x(tmp_path, 0, 50, 53, 61, 100), A, B, interfaces=2) == [
        (0, "attach", "A", 0),
        (2, "attach", "B", 1),
        (3, "detach", "A", 0),
        (4, "detach", "B", 1),
    ]


def test_a_network_must_be_nearer_by_more_than_the_hysteresis(tmp_path: Path) -> None:
    trace = along_x(tmp_path, 0, 52, 52.5, 52.6, 100)
    assert events(trace, A, B)[1] == (3, "detach", "A", 0)
    assert events(trace, A, B, hysteresis=0)[1] == (1, "detach", "A", 0)


def test_the_rim_is_covered_and_beyond_it_the_link_is_lost(tmp_path: Path) -> None:
    assert events(along_x(tmp_path, 0, 60, 60.1, 60.2), A) == [
        (0, "attach", "A", 0),
        (2, "detach", "A", 0),
    ]


def test_without_overlap_two_interfaces_hand_over_hard(tmp_path: Path) -> None:
    near, far = Cell("A", 0, 0, 49), Cell("B", 100, 0, 49)
    assert events(along_x(tmp_path, 0, 50, 52, 100), near, far, interfaces=2) == [
        (0, "attach", "A", 0),
        (1, "detach", "A", 0),
        (2, "attach", "B", 0),
        (3, "detach", "B", 0),
    ]


def test_turning_back_prefers_the_old_link_again_without_a_new_one(tmp_path: Path) -> None:
    assert events(along_x(tmp_path, 0, 55, 45, 0), A, B, interfaces=2) == [
        (0, "attach", "A", 0),
        (1, "attach", "B", 1),
        (2, "attach", "A", 0),
        (3, "detach", "B", 1),
        (3, "detach", "A", 0),
    ]


def test_a_lost_link_leaves_the_other_preferred_before_it_goes(tmp_path: Path) -> None:
    assert events(along_x(tmp_path, 0, 55, 45, 61, 62), A, B, interfaces=2, hysteresis=5)[3:5] == [
        (3, "attach", "B", 1),
        (3, "detach", "A", 0),
    ]


def test_a_third_network_takes_the_interface_of_the_first(tmp_path: Path) -> None:
    wide = [Cell(cell.name, cell.x, cell.y, 300) for cell in (A, B, C)]
    assert events(along_x(tmp_path, 0, 60, 160, 200), *wide, interfaces=2) == [
        (0, "attach", "A", 0),
        (1, "attach", "B", 1),
        (2, "detach", "A", 0),
        (2, "attach", "C", 0),
        (3, "detach", "B", 1),
        (3, "detach", "C", 0),
    ]


def test_equal_distances_go_to_the_network_listed_first(tmp_path: Path) -> None:
    trace = along_x(tmp_path, 50, 50)
    assert events(trace, A, B)[0] == (0, "attach", "A", 0)
    assert events(trace, B, A)[0] == (0, "attach", "B", 0)


def test_an_absence_ends_every_link(tmp_path: Path) -> None:
    text = "t,node,x,y\n0,m,0,0\n1,m,0,0\n2,m,0,0\n9,m,0,0\n10,m,0,0\n"
    trace = read_trace(write(tmp_path / "gap.csv", text), gaps="absent")
    assert [(t, action) for t, action, _, _ in events(trace, A)] == [
        (0, "attach"),
        (2, "detach"),
        (9, "attach"),
        (10, "detach"),
    ]


def test_events_at_one_time_are_in_the_nodes_order_of_appearance(tmp_path: Path) -> None:
    text = "t,node,x,y\n0,z,0,0\n0,a,0,0\n1,z,0,0\n1,a,0,0\n"
    trace = read_trace(write(tmp_path / "two.csv", text))
    found = coverage_events(trace, [A], hysteresis=0, interfaces=1)
    assert [event.node for event in found] == ["z", "a", "z", "a"]


def test_without_networks_nothing_happens(tmp_path: Path) -> None:
    assert events(along_x(tmp_path, 0, 50)) == []


def grid(trace: Trace, spacing: float, reach: float) -> list[Cell]:
    left, low = float(trace.x.min()), float(trace.y.min())
    return [
        Cell(f"{column}-{row}", left + column * spacing, low + row * spacing, reach)
        for column in range(4)
        for row in range(4)
    ]


def same_events(fcd: Path, ns2: Path, interfaces: int) -> Sequence[AttachmentEvent]:
    """The events of the FCD file, once they are seen to be those of the ns-2 file."""
    first, second = read_trace(fcd), read_trace(ns2)
    number = {name: str(index) for index, name in enumerate(first.nodes)}
    cells = grid(first, 700, 520)
    left, right = (
        coverage_events(trace, cells, hysteresis=40, interfaces=interfaces)
        for trace in (first, second)
    )
    assert [(e.time, number[e.node], e.action, e.network, e.interface) for e in left] == [
        (e.time, e.node, e.action, e.network, e.interface) for e in right
    ]
    return left


@pytest.mark.parametrize("interfaces", [1, 2])
def test_town_gives_the_same_events_from_fcd_and_ns2(interfaces: int) -> None:
    found = same_events(
        SCENARIOS / "town.fcd.xml.gz", Path(__file__).parent / "town.ns2.gz", interfaces
    )
    assert len({event.node for event in found}) == 134


@pytest.mark.parametrize("interfaces", [1, 2])
def test_manhattan_gives_the_same_events_from_fcd_and_ns2(interfaces: int) -> None:
    found = same_events(needed("manhattan.fcd.xml.gz"), needed("manhattan.ns2.gz"), interfaces)
    assert len({event.node for event in found}) == 201


@pytest.mark.parametrize("interfaces", [1, 2])
def test_no_node_ever_holds_more_links_than_interfaces(interfaces: int) -> None:
    trace = read_trace(SCENARIOS / "town.fcd.xml.gz")
    cells = grid(trace, 500, 600)
    links: dict[str, dict[int, str]] = {name: {} for name in trace.nodes}
    for event in coverage_events(trace, cells, hysteresis=10, interfaces=interfaces):
        held = links[event.node]
        if event.action == "attach":
            assert held.get(event.interface, event.network) == event.network
            held[event.interface] = event.network
        else:
            assert held.pop(event.interface) == event.network
        assert len(held) <= interfaces
    assert not any(links.values())
