"""What a lab records, and the tables that come of it."""

import asyncio
import math
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from mat.address import Address, is_ipv4, parse_address
from mat.codec import Malformed, decode, encode
from mat.messages import MAT_PORT, Endpoint, ImsUpdate, MaQuery, Message
from mat_files.capture import (
    PROBE_PORT,
    Capture,
    Datagram,
    Story,
    datagram_of,
    probe_payload,
    read_capture,
    story_of,
    writing,
)
from mat_files.results import Results
from mat_files.scenario import Scenario, load_scenario
from mat_real.lab import Lab, LabError, Transmission, plan_of, probe, simple_plan, write_results
from mat_real.lab.recording import DATA, _Matching
from mat_real.lab.tables import _intervals
from mat_sim.engine import simulate
from tests.real.privilege import needs_root

SCENARIO = """
format = 1
[scenario]
name = "ladder"
duration = 8.0
[movement]
events = "moves.csv"
[nodes]
interfaces = 2
start_attached = true
[[network]]
name = "A"
delay = 0.006
detect = 0.01
association = 0.02
[[network]]
name = "B"
delay = 0.010
detect = 0.01
association = 0.02
[[network]]
name = "C"
delay = 0.010
detect = 0.01
association = 0.02
[[ims]]
name = "IMS_MN"
serves = "mobile"
delay = 0.005
[[ims]]
name = "IMS_CN"
serves = "correspondents"
delay = 0.002
[traffic]
up = 50
down = 50
"""
MOVES = """t,node,action,network
0,m1,attach,A
2.5,m1,attach,B
4.5,m1,detach,A
5.5,m1,detach,B
5.5,m1,attach,C
"""
Ladder = list[tuple[str, str, str]]
"""Messages by name, sender and receiver, in order of sending."""


def scenario(folder: Path) -> Scenario:
    (folder / "moves.csv").write_text(MOVES)
    (folder / "ladder.toml").write_text(SCENARIO)
    return load_scenario(folder / "ladder.toml")


@dataclass(frozen=True)
class Phase:
    """What follows from one change of m1's addresses, up to the next, in IPv4.

    Each message counts once, whatever is repeated on a slow machine; `said` has the first of each.
    """

    ladder: Ladder
    said: dict[tuple[str, str, str], Message]


def phases(capture: Capture) -> list[Phase]:
    """The phases of a capture; before the first there is nothing of m1."""
    begin, starts = capture.packets[0].time, list[float]()
    sent = dict[tuple[float, str, str], Message]()
    listed: tuple[Address, ...] = ()
    (home,) = (one for one, name in capture.names.items() if name == "m1" and is_ipv4(one))
    for packet in capture.packets:
        datagram = datagram_of(packet)
        if datagram is None or not packet.outward:
            continue
        if MAT_PORT in (datagram.source.port, datagram.destination.port):
            message, at = decode(datagram.payload), (packet.time - begin) / 1e9
            assert not isinstance(message, Malformed)
            receiver = capture.names[datagram.destination.address].partition("@")[0]
            sent[at, packet.place, receiver] = message
            if isinstance(message, ImsUpdate) and message.home_address == home:
                if message.mobile_addresses != listed:
                    starts.append(at)
                listed = message.mobile_addresses
    story = story_of(capture, family=4).signalling()
    ends = [*starts[1:], math.inf]
    return [phase(story.between(*span), sent) for span in zip(starts, ends, strict=True)]


def phase(story: Story, sent: dict[tuple[float, str, str], Message]) -> Phase:
    said: dict[tuple[str, str, str], Message] = {}
    for one in story.messages:
        line = one.text, one.from_, one.to
        # Of two uplinks of the lab's node each is asked now and then whether it works.
        if one.kind != "signal" or ("MA " in one.text and {one.from_, one.to} == {"m1", "IMS_MN"}):
            continue
        said.setdefault(line, sent[one.sent, one.from_, one.to])
    return Phase(list(said), said)


def meaning(message: Message, names: dict[Address, str]) -> dict[str, object]:
    """What a message says, addresses by their names, and without what is drawn or counted anew.

    That are sequence, nonce, version, freshness and MAC, what is left of a lifetime, and the order
    of two addresses; the lab's correspondents have an address at their site, the simulator's their
    home address.
    """
    found: dict[str, object] = {"kind": type(message)}
    for field in fields(message):
        value = getattr(message, field.name)
        if field.name.endswith(("address", "peer")):
            found[field.name] = names[value].removesuffix("@site")
        elif field.name.endswith("addresses"):
            found[field.name] = sorted(names[one].removesuffix("@site") for one in value)
        elif field.name in ("nonce", "version", "authentication"):
            found[field.name] = bool(value)
        elif field.name in ("code", "prefix_length", "draft_length"):
            found[field.name] = value
    return found


def length(message: Message) -> int:
    """Of the datagram, without the version of an update that is sent a moment after its making."""
    size = len(encode(message))
    if isinstance(message, ImsUpdate) and message.authentication is not None:
        size -= 16 if message.authentication.freshness != message.version else 0
    return size


def without(ladder: Ladder, host: str) -> Ladder:
    """What a host takes no part in: the order of what two hosts do at the same time is chance."""
    return [line for line in ladder if host not in line]


@needs_root
def test_captures_of_lab_and_simulator_have_the_same_ladder_and_the_same_messages(
    tmp_path: Path,
) -> None:
    read = scenario(tmp_path)
    with writing(tmp_path / "simulator.pcapng") as writer:
        simulate(read, capture=writer)
    with Lab(plan_of(read)) as lab:
        lab.record()
        counter = ["tcpdump", "-Z", "root", "-U", "--immediate-mode", "-ni", "any", "udp"]
        counting = lab.start("IMS_MN", [*counter, "-w", tmp_path / "ims.pcap"])
        counting.wait_for("listening on")
        lab.start_servers()
        nodes = [lab.start_node(name) for name in ("m1", "CN1")]
        streams = lab.start_traffic(read)
        played = asyncio.run(lab.play(read))
        for stream in streams:
            stream.stop()
        for node in nodes:
            node.stop()
        write_results(tmp_path / "out", read, lab.plan, played, streams)
        counting.stop()
        transmissions = played.recording.transmissions()
        played.recording.write(tmp_path / "lab.pcapng")
    check_equal(*(read_capture(tmp_path / f"{name}.pcapng") for name in ("lab", "simulator")))
    check_count(tmp_path / "ims.pcap", transmissions)
    results = Results.read(tmp_path / "out")
    check_tables(results)
    check_flows(results, seconds=8)


def check_flows(results: Results, seconds: int) -> None:
    """Whether applications sent what the scenario says, and got what was not lost, straight."""
    rows = records(results.flows)
    assert [(row["from_role"], row["to_role"]) for row in rows] == [("CN", "MN"), ("MN", "CN")]
    for row in rows:
        assert abs(row["sent"] - 50 * seconds) <= 10
        assert row["sent"] == row["delivered"] + row["lost"]
        # Of 6 or 10 ms to the core and 5 on, and what the hosts take.
        assert 0.011 <= row["delay_mean"] < 0.5
        assert (row["stretch_mean"], row["header_mean"]) == (1.0, 0.0)
    for way, row in zip(("down", "up"), rows, strict=True):
        assert row["lost"] >= results.handovers[f"lost_{way}"].sum()


def check_equal(lab: Capture, simulator: Capture) -> None:
    """Whether the phases are alike: the start, two of the soft handover, one of the hard."""
    found, wanted = phases(lab), phases(simulator)
    assert len(found) == len(wanted) == 4
    # At the start the lab's correspondents, who have a mobile address, do more (docs/compare.md).
    for one, other in zip(found[1:], wanted[1:], strict=True):
        for host in ("CN1", "IMS_CN"):
            assert without(one.ladder, host) == without(other.ladder, host)
        assert one.said.keys() == other.said.keys()
        for line in one.said:
            ours, theirs = one.said[line], other.said[line]
            assert meaning(ours, lab.names) == meaning(theirs, simulator.names)
            assert length(ours) == length(theirs)


def check_count(path: Path, transmissions: Sequence[Transmission]) -> None:
    """Whether tcpdump has counted the same at IMS_MN."""
    read = subprocess.run(["tcpdump", "-nr", path], capture_output=True, text=True, check=True)
    ways = Counter(line.split()[2] for line in read.stdout.splitlines() if f".{MAT_PORT}" in line)
    signals = [one for one in transmissions if one.message is not None]
    assert ways["Out"] == sum(one.sender == "IMS_MN" for one in signals)
    assert ways["In"] == sum(
        one.receiver == "IMS_MN" and one.received is not None for one in signals
    )


def check_tables(results: Results) -> None:
    """Whether the tables agree with one another, and have what the simulator's have."""
    handovers = results.handovers
    assert list(handovers["kind"]) == ["soft", "hard"]
    assert list(handovers["outcome"]) == ["completed", "completed"]
    for part in ("register", "notify", "first_packet", "total"):
        assert min(handovers[part]) >= 0, part
    # Round trips with the IMS of both take no less than the links' delays.
    assert min(handovers["register"]) >= 0.022
    assert min(handovers["notify"]) >= 0.030
    messages, ims = records(results.messages), records(results.ims)
    rows = {(row["type"], row["from_role"], row["to_role"]): row for row in messages}
    assert {kind for kind, _, _ in rows} >= {"IMS Update", "HA Notify", "DNS query", DATA}
    assert rows["HA Notify", "MN", "IMS_CN"]["sent"] >= 3
    assert rows["HA Notify Ack", "CN", "MN"]["delivered"] >= 3
    assert rows[DATA, "CN", "MN"]["lost"] > 0
    assert all(row["delivered"] + row["lost"] <= row["sent"] for row in messages)
    assert {row["ims"]: row["mappings"] for row in ims} == {"IMS_MN": 1, "IMS_CN": 1}
    for one in ims:
        signals = [row for row in messages if not row["type"].startswith("DNS")]
        to_it = [row["delivered"] for row in signals if row["to_role"] == one["ims"]]
        answers = [row for row in signals if row["type"].endswith(("Reply", "Answer", "Ack"))]
        assert one["received"] == sum(to_it)
        assert one["answered"] == sum(r["sent"] for r in answers if r["from_role"] == one["ims"])
        assert one["refused"] <= one["answered"]


def records(frame: Any) -> list[dict[str, Any]]:
    """The rows of a table."""
    found: list[dict[str, Any]] = frame.to_dict("records")
    return found


# ---- what leaves and what arrives ----------------------------------------------------------------


@pytest.fixture
def matching(tmp_path: Path) -> _Matching:
    return _Matching(plan_of(scenario(tmp_path)))


def passing(payload: bytes, *, outward: bool) -> Datagram:
    """A datagram from m1 in network A to IMS_MN."""
    here, there = (Endpoint(parse_address(a), MAT_PORT) for a in ("10.128.0.16", "192.0.2.1"))
    return Datagram(0.0, outward, here, there, payload, 0)


def test_what_arrives_is_the_last_of_its_like_that_left(matching: _Matching) -> None:
    query = encode(MaQuery(7, parse_address("10.0.0.1"), nonce=b"12345678"))
    for at in (1.0, 2.0):
        matching.add(at, "m1", passing(query, outward=True))
    matching.add(2.1, "IMS_MN", passing(query, outward=False))
    first, second = matching.transmissions
    assert (first.received, first.repeated) == (None, False)
    assert (second.received, second.repeated) == (2.1, True)
    assert (second.kind, second.sender, second.receiver) == ("MA Query", "m1", "IMS_MN")
    assert second.ipv4


def test_data_of_the_simulators_captures_are_probes_as_the_lab_knows_them() -> None:
    payload = probe_payload(7, 1_500_000_000, 172)
    assert (probe.number_of(payload), probe.sent_at(payload)) == (7, 1.5)
    assert PROBE_PORT == probe.PORT


def test_the_little_by_which_a_run_ends_late_is_part_of_its_last_interval() -> None:
    assert [_intervals(length) for length in (0.05, 9.0, 10.002, 10.2, 40.03)] == [1, 1, 1, 2, 4]


def test_what_is_no_message_is_not_counted(matching: _Matching) -> None:
    matching.add(1.0, "m1", passing(b"nonsense", outward=True))
    assert matching.transmissions == []


# ---- files of recordings -------------------------------------------------------------------------


@needs_root
def test_datagrams_are_read_back_whole_behind_destination_options_and_from_half_a_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "lo.pcap"
    with Lab(simple_plan(["A"])) as lab:
        recording = lab.capture("MN", path, what="udp port 9 or ip6 proto 60")
        lab.run("MN", sys.executable, "-c", SENDER)
        assert recording.stop() == 0
    found = [datagram for one in read_capture(path).packets if (datagram := datagram_of(one))]
    sent = [one for one in found if one.destination.port == 9]
    assert [(one.payload, one.size) for one in sent] == [(b"four", 32), (b"six", 59)]
    path.write_bytes(path.read_bytes()[:-1])
    assert [len(one.content) for one in read_capture(path).packets] == [32]


SENDER = """
import socket as s
s.socket(s.AF_INET, s.SOCK_DGRAM).sendto(b"four", ("127.0.0.1", 9))
one = s.socket(s.AF_INET6, s.SOCK_DGRAM)
one.setsockopt(s.IPPROTO_IPV6, s.IPV6_DSTOPTS, bytes([0, 0, 1, 4, 0, 0, 0, 0]))
one.sendto(b"six", ("::1", 9))
"""


@needs_root
def test_a_filter_that_is_none_is_refused(tmp_path: Path) -> None:
    with Lab(simple_plan(["A"])) as lab, pytest.raises(LabError, match="syntax error"):
        lab.capture("MN", tmp_path / "x.pcap", what="this is no filter")


FLOOD = """
import socket as s
one = s.socket(s.AF_INET, s.SOCK_DGRAM)
for _ in range(20000): one.sendto(b"x" * 1000, ("192.0.2.53", 53))
"""


@needs_root
def test_tables_are_refused_when_packets_were_missed_that_they_would_count() -> None:
    with Lab(simple_plan(["A"])) as lab:
        recording = lab.record()
        recording.check()
        program = recording._program
        program.process.send_signal(signal.SIGSTOP)
        try:
            lab.run("CN", sys.executable, "-c", FLOOD)
        finally:
            program.process.send_signal(signal.SIGCONT)
        with pytest.raises(LabError, match=r"the recording missed \d+ packets: .* too slow"):
            recording.transmissions()
