"""A scenario played in a lab: what is done when, what probes see, what tables come of it."""

import asyncio
import subprocess
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mat_files.mobility import mobility
from mat_files.results import Results
from mat_files.scenario import Scenario, load_scenario
from mat_real.lab import Flow, Lab, LabError, Move, handover_rows, plan_of, write_results
from mat_real.lab.handovers import _handovers
from mat_real.lab.play import steps
from mat_real.lab.watch import AddressChange, AddressWatch
from tests.real.ims_server import wait_until
from tests.real.privilege import needs_root

SCENARIO = """
format = 1
[scenario]
name = "small"
duration = 2.4
[movement]
events = "moves.csv"
[nodes]
interfaces = 2
start_attached = true
[[network]]
name = "A"
delay = 0.002
detect = 0.01
association = 0.02
address = 0.04
[[network]]
name = "B"
detect = 0.05
association = 0.1
address = 0.1
delay = 0.001
[traffic]
up = 100
down = 50
"""
MOVES = """t,node,action,network
0,m1,attach,A
0.5,m1,attach,B
1.2,m1,detach,A
1.6,m1,detach,B
1.8,m1,attach,A
"""


def scenario(folder: Path, moves: str = MOVES, *overrides: str) -> Scenario:
    (folder / "moves.csv").write_text(moves)
    (folder / "small.toml").write_text(SCENARIO)
    return load_scenario(folder / "small.toml", overrides)


def planned(folder: Path, moves: str, *overrides: str) -> list[tuple[float, str, str]]:
    read = scenario(folder, "t,node,action,network\n" + moves, *overrides)
    done = steps(read, mobility(read).events)
    return [(round(step.time, 3), step.act, step.network) for step in done]


def test_a_carrier_comes_after_detection_and_association_but_at_first_at_once(
    tmp_path: Path,
) -> None:
    moves = "0,m1,attach,A\n1,m1,detach,A\n1,m1,attach,B\n"
    assert planned(tmp_path, moves) == [
        (0, "attach", "A"),
        (0, "configure", "A"),
        (1, "detach", "A"),
        (1.15, "attach", "B"),
        (1.25, "configure", "B"),
    ]
    first = planned(tmp_path, moves, "nodes.start_attached=false")[:2]
    assert first == [(0.03, "attach", "A"), (0.07, "configure", "A")]


def test_a_network_that_is_left_before_its_carrier_came_gives_none(tmp_path: Path) -> None:
    moves = "0,m1,attach,A\n1,m1,attach,B\n1.1,m1,detach,B\n2,m1,attach,B\n2.2,m1,detach,B\n"
    assert planned(tmp_path, moves)[2:] == [(2.15, "attach", "B"), (2.2, "detach", "B")]


def test_of_what_is_due_at_the_same_time_a_link_goes_before_another_comes(tmp_path: Path) -> None:
    moves = "0,m1,attach,A\n1,m1,detach,A\n1,m1,attach,B\n"
    times = [f"network.1.{name}=0" for name in ("detect", "association", "address")]
    assert planned(tmp_path, moves, *times)[2:] == [
        (1, "detach", "A"),
        (1, "attach", "B"),
        (1, "configure", "B"),
    ]


def test_to_attach_where_one_is_attached_prefers_and_never_before_the_carrier(
    tmp_path: Path,
) -> None:
    moves = "0,m1,attach,A\n1,m1,attach,B\n1.1,m1,attach,A\n1.12,m1,attach,B\n"
    assert planned(tmp_path, moves)[2:] == [
        (1.1, "prefer", "A"),
        (1.15, "attach", "B"),
        (1.15, "prefer", "B"),
        (1.25, "configure", "B"),
    ]


def test_equal_seeds_draw_equal_times(tmp_path: Path) -> None:
    moves = "0,m1,attach,A\n1,m1,attach,B\n"
    drawn = "network.1.association={uniform = [0.1, 0.9]}"
    one, two = (planned(tmp_path, moves, drawn) for _ in range(2))
    assert one == two
    assert one != planned(tmp_path, moves, drawn, "scenario.seed=2")


def moved(*texts: str) -> Iterator[Move]:
    for text in texts:
        time, act, network = text.split()
        assert act in ("attach", "detach", "prefer")
        yield Move(float(time), "m1", act, network, 0, reach=float(time) - 0.1)  # type: ignore[arg-type]


def test_handovers_follow_from_what_was_attached_and_detached() -> None:
    moves = moved(
        "1 attach A", "5 attach B", "6 detach A", "7 detach B", "9 attach C", "10 attach A",
        "10.5 prefer A",
        "11 prefer C", "12 detach C", "13 detach A", "14 attach A", "15 detach A", "15.05 attach B",
    )  # fmt: skip
    found = [(one.old, one.new, one.begin, one.limit) for one in _handovers(list(moves))]
    assert found == [
        ("A", "B", 4.9, 7),
        ("B", "C", 7, 9.9),
        ("C", "A", 9.9, 10.9),
        ("A", "C", 10.9, 12),
        ("C", "A", 12, 13),
        ("A", "B", 14.950000000000001, float("inf")),
    ]


def test_interruption_and_loss_count_what_never_arrived() -> None:
    flow = Flow((0.0, 0.1, 0.2, 0.3), (0.05, None, None, 0.35), 0.1)
    assert flow.interruption(0.04, 0.3) == pytest.approx(0.2)
    assert flow.losses(0.1, 0.3) == 2


def test_the_first_delivery_is_that_of_a_packet_sent_from_then_on() -> None:
    flow = Flow((1.0, 2.0, 3.0, 4.0), (2.5, None, 3.9, 3.8 + 0.3), 1.0)
    assert flow.first_delivery(1.5) == 3.9
    assert flow.first_delivery(3.5) == 4.1
    assert flow.first_delivery(5) is None


@needs_root
def test_a_played_scenario_becomes_a_table_of_handovers(tmp_path: Path) -> None:
    read = scenario(tmp_path)
    with Lab(plan_of(read)) as lab:
        stream = lab.probe("m1", "PLAIN", up=0.01, down=0.02, home=False)
        played = asyncio.run(lab.play(read, configured=["m1"]))
        wait_until(lambda: stream.flow("up").first_delivery(played.end - 0.2) is not None)
        stream.stop()
        assert lab.checked
        written = write_results(tmp_path / "out", read, lab.plan, played, [stream])
        rows = handover_rows(read, lab.plan, played, [stream])
        up, down = stream.flow("up"), stream.flow("down")
    assert [(move.act, move.network) for move in played.moves] == [
        ("attach", "A"),
        ("attach", "B"),
        ("detach", "A"),
        ("detach", "B"),
        ("attach", "A"),
    ]
    assert all(move.due is not None and move.time >= move.due for move in played.moves)
    assert {"A", "B", "CN1"} <= set(played.wires) or lab.netem
    assert all(wire.passed > 0 and wire.missed == 0 for wire in played.wires.values())
    there = [one.present for one in played.addresses if str(one.address) == "10.128.0.16"]
    assert there == [True, False, True]
    check_rows(rows)
    assert len(up.sent) > 200
    assert len(down.sent) > 100
    begin = bisect_left(up.sent, played.begin)
    first = next(i for i in range(begin, len(up.sent)) if up.delivered[i] is not None)
    assert None not in up.delivered[first : first + 10]
    results = Results.read(tmp_path / "out")
    assert list(results.handovers["kind"]) == ["soft", "hard"]
    assert results.provenance.scenario == SCENARIO
    assert results.provenance.trace
    assert (tmp_path / "out" / "moves.csv") in written
    lines = (tmp_path / "out" / "moves.csv").read_text().splitlines()
    assert lines[0] == "t,late,node,action,network,interface"
    assert len(lines) == 6


def check_rows(rows: Sequence[dict[str, object]]) -> None:
    """Whether these are the rows of `MOVES`."""
    soft, hard = rows
    assert (soft["from_network"], soft["to_network"], soft["ordinal"]) == ("A", "B", 1)
    assert (soft["from_moa"], soft["to_moa"]) == ("10.128.0.16", "10.192.0.17")
    assert (hard["from_network"], hard["to_network"], hard["ordinal"]) == ("B", "A", 2)
    assert (soft["kind"], hard["kind"]) == ("soft", "hard")
    assert soft["outcome"] == hard["outcome"] == "completed"
    assert soft["time"] == pytest.approx(0.5)
    assert soft["peers"] == 1
    for row in rows:
        parts = ("away", "detect", "associate", "address", "first_packet")
        values = [row[part] for part in parts]
        assert all(isinstance(value, float) and value >= 0 for value in values)
        assert row["total"] == pytest.approx(sum(v for v in values if isinstance(v, float)))
    assert isinstance(hard["away"], float)
    assert hard["away"] <= 0.2
    for name in ("interruption_up", "interruption_down", "lost_up", "lost_down"):
        assert hard[name] > 0  # type: ignore[operator]


@needs_root
def test_addresses_that_change_at_the_last_moment_are_seen(tmp_path: Path) -> None:
    async def change(lab: Lab) -> list[AddressChange]:
        watch = AddressWatch({"CN1": lab.ref("CN1")})
        lab.run("CN1", "ip", "addr", "add", "10.9.9.9/24", "dev", "eth0")
        lab.run("CN1", "ip", "addr", "del", "10.9.9.9/24", "dev", "eth0")
        watch.close()
        return watch.changes

    with Lab(plan_of(scenario(tmp_path))) as lab:
        changes = asyncio.run(change(lab))
    assert [(str(one.address), one.present) for one in changes] == [
        ("10.9.9.9", True),
        ("10.9.9.9", False),
    ]


@needs_root
def test_without_an_address_a_handover_is_not_completed(tmp_path: Path) -> None:
    read = scenario(tmp_path, MOVES, "scenario.duration=2.0")
    with Lab(plan_of(read)) as lab:
        # IPv4, and nobody configures it.
        played = asyncio.run(lab.play(read, speed=2.0))
        rows = handover_rows(read, lab.plan, played, [])
    assert [row["outcome"] for row in rows] == ["superseded", "unfinished"]
    assert [row["to_moa"] for row in rows] == [None, None]
    assert [row["total"] for row in rows] == [None, None]
    assert "interruption_up" not in rows[0]
    assert rows[0]["time"] == pytest.approx(0.25)


@needs_root
def test_the_lab_does_not_play_on_what_it_was_not_asked_for(tmp_path: Path) -> None:
    read = scenario(tmp_path)
    with Lab(plan_of(read)) as lab:
        lab.run("core", "ip", "link", "set", "CN1", "down")
        with pytest.raises(LabError, match="CN1 in core was set up, and is DOWN"):
            asyncio.run(lab.play(read))
        assert not lab.moves


@needs_root
def test_a_preferred_network_gets_the_traffic(tmp_path: Path) -> None:
    read = scenario(tmp_path)
    with Lab(plan_of(read)) as lab:
        for interface, network in enumerate("AB"):
            lab.attach("m1", network, interface)
            lab.configure("m1", interface)
        assert "dev eth1" in lab.run("m1", "ip", "route", "get", "192.0.2.1")
        lab.prefer("m1", "A")
        assert "dev eth0" in lab.run("m1", "ip", "route", "get", "192.0.2.1")
        assert "dev eth0" in lab.run("m1", "ip", "-6", "route", "get", "2001:db8:7f00:2::1")
        lab.detach("m1", "A")
        assert "dev eth1" in lab.run("m1", "ip", "route", "get", "192.0.2.1")
        assert "dev eth1" in lab.run("m1", "ip", "-6", "route", "get", "2001:db8:7f00:2::1")
        with pytest.raises(LabError, match="has not configured m1 on A"):
            lab.prefer("m1", "A")


@needs_root
def test_a_recording_is_whole_when_it_has_stopped(tmp_path: Path) -> None:
    with Lab(plan_of(scenario(tmp_path))) as lab:
        path = tmp_path / "core.pcap"
        recording = lab.capture("core", path, interface="CN1", what="icmp")
        lab.run("CN1", "ping", "-c5", "-i0.01", "192.0.2.1")
        assert recording.stop() == 0
        until_end = lab.capture("core", tmp_path / "all.pcap")
        lab.run("CN1", "ping", "-c1", "192.0.2.1")
        assert until_end.running()
    for file, count in ((path, 10), (tmp_path / "all.pcap", 2)):
        read = subprocess.run(
            ["tcpdump", "-nr", file], capture_output=True, text=True, check=True
        ).stdout
        assert sum("ICMP echo" in line for line in read.splitlines()) >= count


@needs_root
def test_the_traffic_of_a_scenario_goes_between_home_addresses(tmp_path: Path) -> None:
    read = scenario(tmp_path)
    with Lab(plan_of(read)) as lab:
        # As MAT would make it look: home addresses that lead somewhere.
        lab.attach("m1", "A")
        lab.configure("m1")
        for node, home, via in (("m1", "10.0.0.1", "198.51.100.1"), ("CN1", "10.32.0.1", None)):
            lab.run(node, "ip", "addr", "add", f"{home}/32", "dev", "lo")
            gateway = ["via", via, "dev", "A"] if via else ["via", "172.16.1.1", "dev", "CN1"]
            lab.run("core", "ip", "route", "add", f"{home}/32", *gateway)
        lab.run("A", "ip", "route", "add", "10.0.0.1/32", "via", "10.128.0.16")
        (stream,) = lab.start_traffic(read)
        assert (stream.node, stream.peer) == ("m1", "CN1")
        wait_until(lambda: sum(t is not None for t in stream.flow("up").delivered) > 50)
        wait_until(lambda: sum(t is not None for t in stream.flow("down").delivered) > 25)
        stream.stop()
        assert stream.flow("up").spacing == 0.01
        with pytest.raises(LabError, match="PLAIN has no home address"):
            lab.probe("m1", "PLAIN")
        with pytest.raises(LabError, match="m1 has no address that stays"):
            lab.probe("CN1", "m1", home=False)


@needs_root
def test_mat_nodes_are_programs_of_a_lab_and_keep_talking_while_one_moves(tmp_path: Path) -> None:
    read = scenario(tmp_path, MOVES, "nodes.interfaces=2")
    with Lab(plan_of(read)) as lab:
        lab.start_servers()
        for node in ("m1", "CN1"):
            lab.start_node(node)
        (stream,) = lab.start_traffic(read)
        played = asyncio.run(lab.play(read))
        wait_until(lambda: stream.flow("down").first_delivery(played.end - 0.2) is not None)
        stream.stop()
        rows = handover_rows(read, lab.plan, played, [stream])
    assert [row["to_moa"] for row in rows] == ["10.192.0.17", "10.128.0.16"]
    assert [row["kind"] for row in rows] == ["soft", "hard"]
