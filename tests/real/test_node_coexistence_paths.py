"""A path that dies while its link stays up is noticed by what does not pass any more."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mat_real.node.probing import GLANCE
from tests.real.ims_server import wait_until
from tests.real.node_world import HOMES, World, address, world
from tests.real.privilege import needs_root

pytestmark = needs_root

HOME = {host: homes[0] for host, homes in HOMES.items()}
A, B = address("a", 2), address("b", 2)
PROBES = [sys.executable, "-m", "tests.real.probes"]
PORT = 8080

# No question but those that packets give rise to.
ONLY_IF_SUSPICIOUS = "import mat_real.node.probing as p; p.INTERVAL = 1e6"
QUESTIONS = "udp sport != 49628 udp dport 49628 ip saddr { 192.168.1.2, 192.168.2.2 }"
"""MN's, on their way: the node's own signalling leaves from its port."""


@pytest.fixture
def two(tmp_path: Path) -> Iterator[World]:
    """MN with uplinks in networks a and b, which asks nothing of itself; and CN."""
    with world(tmp_path) as made:
        made.attach("mn", "w0", "a", 2, metric=10)
        made.attach("mn", "w1", "b", 2, metric=20)
        rule = f"{QUESTIONS} counter"
        made.run(
            "r",
            "nft",
            f"table ip t {{ chain c {{ type filter hook forward priority 0; {rule}; }}; }}",
        )
        made.start_node("cn")
        made.before = ONLY_IF_SUSPICIOUS
        made.start_node("mn")
        yield made


def cut(made: World) -> None:
    """Network a is cut off, behind its router."""
    for way in ("-i", "-o"):
        made.run("r", "iptables", "-I", "FORWARD", way, "ra", "-j", "DROP")


def questions(made: World) -> int:
    listed = made.run("r", "nft", "list", "table", "ip", "t")
    return int(listed.split("packets ")[1].split()[0])


def test_a_dead_path_is_noticed_after_the_other_uplink_was_away(two: World) -> None:
    two.listen("cn", PORT)
    a, b = ([net, address(name, 2, ipv6=True)] for net, name in ((A, "a"), (B, "b")))
    two.registers("mn", *map(list, zip(a, b, strict=True)))
    two.ip("mn", "link set w1 down", "addr flush dev w1")
    two.registers("mn", *([one] for one in a))
    # Long enough for a look at what passes, which finds nowhere else to go.
    time.sleep(2 * GLANCE)
    two.ip("mn", "link set w1 up", *two.addresses("w1", "b", 2, 20))
    two.registers("mn", *map(list, zip(a, b, strict=True)))
    with two.talk("mn", HOME["cn"], PORT) as kept:
        assert kept.goes_on()
        cut(two)
        assert kept.goes_on()


def test_a_silent_answer_gives_a_dead_path_away(two: World) -> None:
    two.listen("cn", PORT)
    with two.talk("mn", HOME["cn"], PORT) as kept:
        assert kept.goes_on()
        cut(two)
        assert kept.goes_on()
        assert two.registered("mn")[0] == [B]


def test_a_stream_that_comes_no_more_gives_a_dead_path_away(two: World) -> None:
    two.start("mn", *PROBES, "receive", HOME["mn"], "60", log="stream")
    two.start("cn", *PROBES, "send", HOME["mn"], "0.02", "60", HOME["cn"])
    stream = two.folder / "stream"
    wait_until(lambda: stream.read_text().count("\n") > 100)
    cut(two)
    wait_until(lambda: two.registered("mn")[0] == [B])
    so_far = stream.read_text().count("\n")
    wait_until(lambda: stream.read_text().count("\n") > so_far + 50)


def test_a_host_that_only_sends_asks_once(two: World) -> None:
    two.start("mn", *PROBES, "send", HOME["cn"], "0.02", "60", HOME["mn"])
    # One question over each path when the silence begins.
    wait_until(lambda: questions(two) >= 2)
    two.start("cn", *PROBES, "receive", HOME["cn"], "5", log="stream").wait(60)
    assert questions(two) == 2
    assert two.registered("mn")[0] == [A, B]
