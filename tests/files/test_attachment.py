"""The native file of attachment events."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from mat_files.attachment import AttachmentEvent, node_names, read_events
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
    assert node_names(read_events(path)) == ("m", "n")


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
