"""The native file of attachment events."""

from ipaddress import ip_address
from pathlib import Path

import numpy as np
import pytest

from mat_files.attachment import (
    AttachmentEvent,
    AttachmentEvents,
    NumberedNames,
    read_events,
)
from mat_files.errors import TraceError
from tests.files.test_traces import SCENARIOS, write

HEAD = "t,node,action,network\n"


def test_events_are_read_in_order(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", HEAD + "0,m,attach,A\n1.5,m,detach,A\n1.5,n,attach,B\n")
    assert read_events(path) == [
        AttachmentEvent(0, "m", "attach", "A"),
        AttachmentEvent(1.5, "m", "detach", "A"),
        AttachmentEvent(1.5, "n", "attach", "B"),
    ]
    assert read_events(path).nodes == ("m", "n")


def test_an_event_may_prescribe_the_address_and_the_interface(tmp_path: Path) -> None:
    text = (
        "t,node,action,network,interface,moa\n0,m,attach,A,1,192.0.2.7\n1,m,attach,B,,2001:db8::1\n"
    )
    first, second = read_events(write(tmp_path / "e.csv", text))
    assert (first.interface, first.moa) == (1, ip_address("192.0.2.7"))
    assert (second.interface, second.moa) == (0, ip_address("2001:db8::1"))


def test_an_attach_takes_the_lowest_free_interface(tmp_path: Path) -> None:
    text = HEAD + "0,m,attach,A\n1,m,attach,B\n2,m,detach,A\n3,m,attach,C\n4,m,attach,B\n"
    found = read_events(write(tmp_path / "e.csv", text))
    assert [event.interface for event in found] == [0, 1, 0, 0, 1]


def test_the_first_scenario_has_three_handovers() -> None:
    found = read_events(SCENARIOS / "first.csv", {"A", "B", "C"}, 1)
    assert [event.network for event in found if event.action == "attach"] == ["A", "B", "C", "A"]


# --- in columns ---

SINGLE = [
    AttachmentEvent(0, "m", "attach", "B", 1, ip_address("192.0.2.7"), 2),
    AttachmentEvent(1.5, "n", "attach", "A", 0, None, 3),
    AttachmentEvent(1.5, "m", "detach", "B", 1, ip_address("2001:db8::1"), 4),
]


def columns() -> AttachmentEvents:
    return AttachmentEvents.of(SINGLE, ["m", "n"], ["A", "B"])


def test_columns_hold_what_the_single_events_say() -> None:
    found = columns()
    assert list(found) == SINGLE
    assert found == SINGLE
    assert found != SINGLE[:2]
    assert [event.line for event in found] == [2, 3, 4]
    assert (found[-1], found[1]) == (SINGLE[2], SINGLE[1])
    assert list(reversed(found)) == SINGLE[::-1]
    assert SINGLE[1] in found
    with pytest.raises(IndexError):
        found[3]


def test_columns_index_the_names() -> None:
    found = columns()
    assert found.time.tolist() == [0, 1.5, 1.5]
    assert (found.node.tolist(), found.nodes) == ([0, 1, 0], ["m", "n"])
    assert (found.network.tolist(), found.networks) == ([1, 0, 1], ("A", "B"))
    assert found.attach.tolist() == [True, True, False]
    kinds = [
        column.dtype.str for column in (found.time, found.node, found.network, found.interface)
    ]
    assert kinds == ["<f8", "<i4", "<i4", "|i1"]


def test_columns_are_read_only() -> None:
    found = columns()
    for column in (
        found.time,
        found.node,
        found.attach,
        found.network,
        found.interface,
        found.line,
    ):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 0


def test_a_slice_keeps_addresses_with_their_events() -> None:
    found = columns()
    assert found[1:] == SINGLE[1:]
    assert found[::-2] == SINGLE[::-2]
    assert found[5:] == []


def test_the_events_of_the_first_nodes_are_theirs() -> None:
    found = columns().first_nodes(1)
    assert list(found) == [SINGLE[0], SINGLE[2]]
    assert list(found.nodes) == ["m"]


def test_iteration_goes_on_beyond_a_piece() -> None:
    size = 70_000
    node = np.arange(size, dtype=np.int32)
    zeros = np.zeros(size, np.int32)
    found = AttachmentEvents(
        NumberedNames(size), ["A"], time=node / 7, node=node, attach=node > 0, network=zeros
    )
    events = list(found)
    assert len(events) == size
    assert events[-1] == AttachmentEvent((size - 1) / 7, f"MN{size}", "attach", "A") == found[-1]


def test_names_of_generated_nodes_are_a_sequence() -> None:
    names = NumberedNames(12)
    assert list(names) == [f"MN{number}" for number in range(1, 13)]
    assert (names[-1], names[1:3], len(names)) == ("MN12", ("MN2", "MN3"), 12)
    assert names == tuple(f"MN{number}" for number in range(1, 13))
    assert names != NumberedNames(11)
    assert "MN13" not in names
    with pytest.raises(IndexError):
        names[12]


def test_a_networks_index_is_its_place_among_those_of_the_scenario(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", HEAD + "0,m,attach,B\n1,n,attach,A\n")
    assert read_events(path, ["A", "B", "C"]).network.tolist() == [1, 0]
    assert read_events(path, ["A", "B", "C"]).networks == ("A", "B", "C")
    assert read_events(path).networks == ("B", "A")


# --- bad input ---

BAD = {
    "action": ("0,m,leave,A", "2: action: is 'leave'; must be attach or detach"),
    "network": (
        "0,m,attach,Q",
        "2: network: is 'Q', which the scenario does not have; there are: A, B, C",
    ),
    "no-network": ("0,m,attach,", "2: network: is empty; every row names a network"),
    "time": ("x,m,attach,A", "2: t: is 'x'; must be a number"),
    "nan": ("nan,m,attach,A", "2: t: is nan; must be a finite number, 0 or more"),
    "unordered": (
        "1,m,attach,A\n0,n,attach,A",
        "3: t: is 0 after 1; rows must be in order of time",
    ),
    "node": ("1,,attach,A", "2: node: is empty; every row names a node"),
    "detach": (
        "0,m,attach,A\n1,m,detach,B",
        "3: action: 'm' is not attached to 'B' but to A; attach before detach",
    ),
    "interfaces": (
        "0,m,attach,A\n1,m,attach,B",
        "3: interface: 'm' is attached to A (interface 0) and has no free interface; detach first,",
    ),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD.keys())
def test_bad_events_are_named_by_file_line_and_field(
    tmp_path: Path, text: str, message: str
) -> None:
    path = write(tmp_path / "e.csv", HEAD + text + "\n")
    with pytest.raises(TraceError) as caught:
        read_events(path, {"A", "B", "C"}, 1)
    assert str(caught.value).startswith(f"{path}:{message}")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("moa", "10.0.0", "moa: is '10.0.0'; must be an IPv4 or IPv6 address"),
        ("interface", "2", "interface: is '2'; must be a number from 0 to 1"),
        ("color", "red", "header: is 't,node,action,network,color'; must be t,node,action,network"),
    ],
)
def test_bad_optional_columns_are_named(
    tmp_path: Path, column: str, value: str, message: str
) -> None:
    path = write(tmp_path / "e.csv", f"t,node,action,network,{column}\n0,m,attach,A,{value}\n")
    with pytest.raises(TraceError) as caught:
        read_events(path)
    assert message in str(caught.value)


def test_a_file_without_events_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", HEAD)
    with pytest.raises(TraceError, match="holds no event; at least one attach is needed"):
        read_events(path)
