"""Captures of the simulator: every packet of a run, and the run as it is without them."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from mat.codec import decode
from mat.messages import MAT_PORT, NAMES
from mat_files.capture import (
    Capture,
    IpPacket,
    Packet,
    ims_lookup,
    ip_packet,
    read_capture,
    story_of,
    writing,
)
from mat_files.errors import ScenarioError
from mat_files.ladder import LadderMessage
from mat_files.scenario import Scenario, load_scenario
from mat_sim.cli import sim
from mat_sim.engine import Run, simulate
from tests.files.test_traces import write
from tests.files.wireshark import fields, needs_tshark

SCENARIO = """format = 1
[scenario]
name = "test"
duration = 12
[movement]
events = "events.csv"
[nodes]
interfaces = 2
[[network]]
name = "A"
delay = 0.005
loss = 0.05
[[network]]
name = "B"
delay = 0.008
[[ims]]
name = "IMS_MN"
serves = "mobile"
delay = 0.006
[[ims]]
name = "IMS_CN"
serves = "correspondents"
delay = 0.007
[dns]
delay = 0.008
ttl = 2
[traffic]
up = 40
down = 30
"""
EVENTS = """t,node,action,network
0,m1,attach,A
0,m2,attach,B
3,m1,attach,B
4,m1,detach,A
6,m1,detach,B
6,m1,attach,A
"""


def scenario(folder: Path, *overrides: str) -> Scenario:
    write(folder / "events.csv", EVENTS)
    return load_scenario(write(folder / "test.toml", SCENARIO), overrides)


def captured(read: Scenario, path: Path) -> tuple[Run, Capture]:
    with writing(path) as writer:
        run = simulate(read, capture=writer)
    return run, read_capture(path)


def opened(packet: Packet) -> IpPacket:
    found = ip_packet(packet.content)
    assert found is not None
    return found


def kind(ip: IpPacket) -> str:
    """What the results call it."""
    ports = ip.ports or ()
    if MAT_PORT in ports:
        return NAMES[type(decode(ip.payload))]
    lookup = ims_lookup(ip.payload)
    if lookup is not None:
        return "DNS answer" if lookup.answered else "DNS query"
    return "data"


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("nodes.family=6",),
        ("dns.resolver=0.001",),
        ("traffic.established=true",),
        # What is asked then is answered behind the end.
        ("scenario.duration=0.01",),
        ("nodes.processing=0.004", "dns.resolver=0.001"),
        ("network.0.rate=2e5", "network.0.queue=1", "ims.0.rate=1e5", "nodes.processing=0.004"),
    ],
    ids=str,
)
def test_everything_that_is_counted_is_in_the_capture(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    run, capture = captured(scenario(tmp_path, *overrides), tmp_path / "x.pcapng")
    seen: dict[tuple[str, bool], int] = Counter()
    size: Counter[str] = Counter()
    for packet in capture.packets:
        seen[kind(opened(packet)), bool(packet.outward)] += 1
        size[kind(opened(packet))] += packet.size if packet.outward else 0
    rows = run.results.messages.groupby("type")[["sent", "delivered", "ip_bytes"]].sum()
    for name, row in rows.iterrows():
        assert isinstance(name, str)
        if name == "data":
            # What a host sends without any link is counted, and on no wire.
            assert row["sent"] >= seen[name, True] > row["delivered"] == seen[name, False]
        else:
            assert (row["sent"], row["delivered"]) == (seen[name, True], seen[name, False]), name
        if not name.startswith("DNS"):
            assert size[name] <= row["ip_bytes"]
            assert name == "data" or size[name] == row["ip_bytes"]
    assert {name for name, _ in seen} == set(rows.index)


def test_a_run_is_the_same_with_a_capture_and_without(tmp_path: Path) -> None:
    read = scenario(tmp_path)
    with_it, _ = captured(read, tmp_path / "x.pcapng")
    without = simulate(read)
    assert with_it.ladders == without.ladders
    for table in ("handovers", "messages", "ims", "flows"):
        assert getattr(with_it.results, table).equals(getattr(without.results, table))


def test_all_addresses_have_names(tmp_path: Path) -> None:
    _, capture = captured(scenario(tmp_path, "dns.resolver=0.001"), tmp_path / "x.pcapng")
    seen = {end for one in map(opened, capture.packets) for end in (one.source, one.destination)}
    assert {capture.names[address] for address in seen} >= {"m1@A", "DNS", "resolver 1"}


def test_equal_runs_give_equal_captures(tmp_path: Path) -> None:
    for name in ("one", "other"):
        captured(scenario(tmp_path), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_flows_that_need_no_events_are_in_it_all_the_same(tmp_path: Path) -> None:
    read = scenario(tmp_path, 'traffic.events="changes"')
    _, capture = captured(read, tmp_path / "x.pcapng")
    data = [one for one in capture.packets if one.outward and kind(opened(one)) == "data"]
    assert len(data) > 0.7 * (2 * 12 - 5) * 70


Drawn = tuple[float, str, str, str, str | None, float]


def signals(messages: Sequence[LadderMessage], begin: float = 0.0) -> list[Drawn]:
    """The signalling of a ladder whose times count from `begin`, s; in order, to a microsecond."""
    return sorted(
        (
            round(begin + one.sent, 6),
            one.from_,
            one.to,
            one.label,
            one.step,
            round(begin + (one.received or 0), 6),
        )
        for one in messages
        if one.kind == "signal"
    )


@pytest.mark.parametrize(
    "overrides",
    [
        ("nodes.family=4",),
        ("nodes.family=6",),
        ("nodes.processing=0.004", "network.0.rate=1e6", "network.1.rate=1e6"),
    ],
    ids=str,
)
def test_the_ladder_of_a_capture_is_the_ladder_of_the_run(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    run, capture = captured(
        scenario(tmp_path, "network.0.loss=0", *overrides), tmp_path / "x.pcapng"
    )
    drawn = signals(story_of(capture, ["m1"]).messages, capture.packets[0].time / 1e9)
    assert set(run.ladders) == {"soft", "hard"}
    for node, messages in run.ladders.values():
        assert node == "m1"
        wanted = signals(messages)
        begin, end = wanted[0][0], wanted[-1][0]
        assert wanted == [one for one in drawn if begin <= one[0] <= end]


@needs_tshark
def test_tshark_understands_every_message_of_a_run(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    captured(scenario(tmp_path, "nodes.family=6"), path)
    names = ["mat.type", "mat.malformed", "udp.checksum.status", "mat.muo.hoa", "mat.ims.port"]
    shown = fields(path, names, "-o", "udp.check_checksum:TRUE")
    assert {value for row in shown for value in row.get("mat.type", [])} >= {"1", "2", "3", "4"}
    assert all(row["udp.checksum.status"] == ["1"] for row in shown)
    assert not any("mat.malformed" in row for row in shown)
    for name in ("mat.muo.hoa", "mat.ims.port"):
        assert any(name in row for row in shown)


def test_other_systems_have_no_packets_to_capture(tmp_path: Path) -> None:
    read = scenario(tmp_path, 'scenario.system="mobile-ipv4"')
    with pytest.raises(ScenarioError, match=r'scenario.system: is "mobile-ipv4"; there are'):
        captured(read, tmp_path / "x.pcapng")
    assert not (tmp_path / "x.pcapng").exists()


def test_the_command_writes_the_first_run(tmp_path: Path) -> None:
    scenario(tmp_path)
    path = tmp_path / "x.pcapng"
    arguments = ["run", str(tmp_path / "test.toml"), "--first-run", "3", "--pcapng", str(path)]
    shown = CliRunner().invoke(sim, arguments)
    assert shown.exit_code == 0, shown.output
    assert f"Written to {path}: all packets of run 3." in shown.stdout
    with writing(tmp_path / "y.pcapng") as writer:
        simulate(load_scenario(tmp_path / "test.toml"), run=3, capture=writer)
    assert path.read_bytes() == (tmp_path / "y.pcapng").read_bytes()


def test_a_file_that_cannot_be_written_is_refused_before_the_run(tmp_path: Path) -> None:
    scenario(tmp_path)
    path = tmp_path / "no" / "x.pcapng"
    shown = CliRunner().invoke(sim, ["run", str(tmp_path / "test.toml"), "--pcapng", str(path)])
    assert shown.exit_code == 1
    assert f"{path}: cannot be written" in shown.stderr
    assert shown.stdout == ""
