"""Delay, loss and rate of a lab's links: what was asked for is there, or the lab refuses."""

import contextlib
import math
import random
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mat_files.distributions import Constant, Exponential, Uniform
from mat_real.lab import Lab, LabError, Measured, Quality, simple_plan
from mat_real.lab.impairment import import_path, needs_process, qdiscs, wire_command
from mat_real.lab.inside import inside
from mat_real.lab.layout import AIR, CORE, Uplink
from mat_real.lab.measure import _differences, plausible
from mat_real.lab.wire import READY
from tests.real.privilege import needs_root

SLOW = Quality(Constant(0.010))
LOSSY = Quality(Constant(0.005), loss=0.1)
NARROW = Quality(rate=4e6)
ROOM = 5
QUEUED = Quality(Constant(0.010), rate=40e3, queue=ROOM)
BURST = 20
LINKS = {
    "slow": SLOW,
    "lossy": LOSSY,
    "narrow": NARROW,
    "varying": Quality(Uniform(0.002, 0.02)),
}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(simple_plan(LINKS, ims=["IMS"])) as made:
        yield made


def link(quality: Quality) -> Uplink:
    return Uplink("A", "A", "core", quality, 0)


@needs_root
def test_a_lab_is_measured_and_is_what_was_asked_for(lab: Lab) -> None:
    found = {one.link: one for one in lab.check()}
    assert 0.0198 < found["slow"].rtt < 0.024
    assert found["slow"].loss == 0
    assert 0.05 < found["lossy"].loss < 0.4
    assert found["narrow"].out == pytest.approx(4e6, rel=0.15)
    assert found["narrow"].back == pytest.approx(4e6, rel=0.15)
    assert 0.01 < found["varying"].rtt < 0.04
    assert found["varying"].jitter > 0.003 > found["slow"].jitter
    assert found["DNS"].rtt < 0.002
    assert lab.checked


@needs_root
def test_a_process_carries_large_transfers_whole(lab: Lab, tmp_path: Path) -> None:
    if lab.netem:
        pytest.skip("netem impairs the links here, no process")
    content = random.Random(1).randbytes(2 << 20)
    (tmp_path / "large").write_bytes(content)
    command = [sys.executable, "-u", "-m", "http.server", "-b", "198.51.100.1", "8000"]
    server = lab.start("slow", [*command, "-d", tmp_path], "http.log")
    server.wait_for("Serving HTTP")
    lab.run(CORE, "curl", "-so", tmp_path / "copy", "http://198.51.100.1:8000/large")
    assert (tmp_path / "copy").read_bytes() == content


@needs_root
def test_a_process_that_has_ended_is_noticed(lab: Lab) -> None:
    if lab.netem:
        pytest.skip("netem impairs the links here, no process")
    wire = lab.wire("varying")
    wire.stop()
    try:
        with pytest.raises(LabError, match=r"link varying: the process .* has ended"):
            lab.check()
        with pytest.raises(LabError, match="ended with 0 while it was needed"):
            lab.check_programs()
        assert " 0 dropped, 0 missed" in wire.text()
    finally:
        replace_wire(lab, "varying", LINKS["varying"])


def replace_wire(lab: Lab, name: str, quality: Quality) -> None:
    """Give a link a process for another quality."""
    (present,) = (one for one in lab.wired if one.name == name)
    lab.wire(name).stop()
    other = Uplink(name, present.inner, present.outer, quality, present.number)
    log = lab.wire(name).log
    lab._wires[name] = lab.start(AIR, wire_command(other), log, env=import_path())
    lab.wire(name).wait_for(READY)


@needs_root
@pytest.mark.parametrize(
    ("name", "quality", "complaint"),
    [
        ("slow", Quality(Constant(0.002)), r"link slow: a round trip of 20\.00 ms was asked for"),
        ("slow", Quality(Constant(0.03)), r"link slow: a round trip of 20\.00 ms was asked for"),
        ("lossy", Quality(Constant(0.005)), r"link lossy: a loss of 10\.00% each way .* and 0 of"),
        ("varying", Quality(Constant(0.011)), r"link varying: round trips whose middle half spans"),
    ],
)
def test_a_link_that_is_not_as_asked_for_is_refused(
    lab: Lab, name: str, quality: Quality, complaint: str
) -> None:
    if lab.netem:
        pytest.skip("netem impairs the links here, no process")
    replace_wire(lab, name, quality)
    try:
        with pytest.raises(LabError, match=complaint):
            lab.check()
    finally:
        replace_wire(lab, name, LINKS[name])


@needs_root
def test_a_queue_holds_what_it_has_room_for_and_in_order() -> None:
    """A packet takes 0.2 s, so all of a burst are there before the first is sent."""
    links = {
        "queued": QUEUED,
        "limited": Quality(Constant(0.01), rate=2e6, queue=100),
    }
    with Lab(simple_plan(links, mobile=(), fixed=(), plain=(), ims=["IMS"])) as lab:
        found = {one.link: one for one in lab.check()}
        assert found["limited"].out == pytest.approx(2e6, rel=0.15)
        assert found["limited"].back == pytest.approx(2e6, rel=0.15)
        assert found["queued"].out is None
        before = lab.wire_report("queued").dropped
        received = [burst(lab, "queued") for _ in range(2)]
        dropped = lab.wire_report("queued").dropped - before
    # A packet of the kernel's own, about who listens to which group, may take a place.
    assert max(map(len, received)) == ROOM + 1
    assert all(numbers == list(range(len(numbers))) for numbers in received)
    assert dropped >= sum(BURST - len(numbers) for numbers in received)


def burst(lab: Lab, name: str) -> list[int]:
    """Send numbered packets to a router all at once; those that arrive, until none does."""
    target = ("198.51.100.1", 4000)
    here, there = inside(lab.ref(name), datagrams), inside(lab.ref(CORE), datagrams)
    received: list[int] = []
    with here, there:
        here.bind(target)
        here.settimeout(1.0)
        for number in range(BURST):
            there.sendto(number.to_bytes(1) * 1000, target)
        with contextlib.suppress(TimeoutError):
            while True:
                received.append(here.recv(2000)[0])
    return received


def datagrams() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def test_a_queue_that_is_counted_in_packets_takes_a_process() -> None:
    queued = Quality(rate=1e6, queue=9)
    assert needs_process(queued, netem=True)
    assert not list(qdiscs(link(queued), "eth0", netem=True))
    assert wire_command(link(queued))[-2:] == ["--rate=1000000.0", "--queue=9"]


@needs_root
def test_a_rate_that_is_gone_is_noticed_when_it_is_read_back(lab: Lab) -> None:
    lab.run(CORE, "tc", "qdisc", "del", "dev", "narrow", "root")
    try:
        with pytest.raises(LabError, match=r"narrow in core was given 'qdisc add .* tbf rate 4000"):
            lab.check()
    finally:
        lab._batch("tc", CORE, list(qdiscs(link(NARROW), "narrow", netem=False)))


def test_what_was_measured_is_judged_by_what_was_asked_for() -> None:
    for quality, found, complaint in (
        (NARROW, Measured("A", 0.0001, 0, 0, 40, 4.4e6, 3.7e6), ""),
        (NARROW, Measured("A", 0.0001, 0, 0, 40, 4e6, 3.2e6), "4 Mbit/s back .* 3.2 Mbit/s"),
        (NARROW, Measured("A", 0.0001, 0, 0, 40, 9e6, 4e6), "4 Mbit/s out .* 9 Mbit/s"),
        (SLOW, Measured("A", 0.0215, 0.001, 0, 40), ""),
        (SLOW, Measured("A", 0.0245, 0, 0, 40), "20.00 ms was asked for, and 24.50 ms"),
        (SLOW, Measured("A", 0.0197, 0, 0, 40), "20.00 ms was asked for, and 19.70 ms"),
        (SLOW, Measured("A", 0.0215, 0.005, 0, 40), "spans 0.00 ms .* and 5.00 ms is there"),
        (SLOW, Measured("A", 0.02, 0, 0.025, 40), "0.00% each way .* and 1 of 40"),
        (QUEUED, Measured("A", 0.054, 0.004, 0, 40), ""),
        (QUEUED, Measured("A", 0.0201, 0, 0, 40), "53.60 ms was asked for, and 20.10 ms"),
        (Quality(), Measured("A", math.inf, math.inf, 1, 40), "0.00 ms was .* and inf ms"),
        (Quality(Exponential(0.01)), Measured("A", 0.027, 0.015, 0, 40), ""),
        (Quality(Exponential(0.01)), Measured("A", 0.005, 0.015, 0, 40), "and 5.00 ms is there"),
        (Quality(Exponential(0.01)), Measured("A", 0.02, 0.005, 0, 40), "middle half .* 5.00 ms"),
        (Quality(Exponential(0.01)), Measured("A", 0.02, 0.05, 0, 40), "middle half .* 50.00 ms"),
    ):
        said = "\n".join(_differences(link(quality), found))
        assert bool(said) is bool(complaint), said
        assert re.search(complaint, said)


def test_losses_are_implausible_where_they_come_about_once_in_a_million_times() -> None:
    assert plausible(0, 1000, 0)
    assert not plausible(1, 1000, 0)
    assert plausible(285, 1500, 0.19)
    assert not plausible(200, 1500, 0.19)
    assert not plausible(380, 1500, 0.19)
    assert not plausible(0, 1500, 0.01)
    assert plausible(0, 1500, 0.002)


def test_netem_draws_what_it_can_and_a_process_the_rest() -> None:
    uniform = Quality(Uniform(0.01, 0.03), 0.05, 1e6)
    assert list(qdiscs(link(uniform), "eth0", netem=True)) == [
        "qdisc add dev eth0 root handle 1: tbf rate 1000000bit burst 5000 latency 100ms",
        "qdisc add dev eth0 parent 1:1 handle 10: netem limit 100000 delay 20000us 10000us loss 5%",
    ]
    assert len(list(qdiscs(link(uniform), "eth0", netem=False))) == 1
    assert not needs_process(uniform, netem=True)
    assert needs_process(uniform, netem=False)
    assert needs_process(Quality(Exponential(0.01)), netem=True)
    assert not needs_process(NARROW, netem=False)
    assert list(qdiscs(link(SLOW), "e", netem=True)) == [
        "qdisc add dev e root handle 10: netem limit 100000 delay 10000us"
    ]


@needs_root
def test_a_link_without_a_process_has_none_to_name(lab: Lab) -> None:
    with pytest.raises(LabError, match="no process impairs the link of 'narrow'"):
        lab.wire("narrow")
