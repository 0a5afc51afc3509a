"""A node on Linux, end to end: real daemons, real DNS, real programs over real links."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.generate import NODE_DOCUMENT, refreshed
from mat.authentication import Key
from mat_real.attach import attach
from mat_real.key_file import parse_home
from mat_real.namespaces import NodeRef
from tests.real.ims_server import MAIN, wait_until, write_keys
from tests.real.node_world import IMS, PLAIN, World, address, world
from tests.real.privilege import needs_root

pytestmark = needs_root

A, B = (address("a", 2), address("a", 2, ipv6=True)), (address("b", 2), address("b", 2, ipv6=True))
CN = ("10.2.0.1", "fd10:2::1")


@pytest.fixture(params=["maps", "queue"])
def two(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """MN in network a, and CN; both registered."""
    with world(tmp_path) as made:
        dataplane = f'node.dataplane="{request.param}"'
        made.attach("mn", "w0", "a", 2)
        made.start_node("mn", dataplane)
        made.start_node("cn", dataplane)
        made.registers("mn", *([one] for one in A))
        yield made


def ping(made: World, host: str, to: str, count: int = 3) -> int:
    """How many of so many pings are answered."""
    command = ["ping", "-c", str(count), "-i", "0.2", "-W", "3", to]
    done = subprocess.run(
        ["nsenter", f"--net={made.hosts[host].path}", "--", *command],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"(\d+) received", done.stdout)
    assert found is not None, done.stderr
    return int(found[1])


@pytest.mark.parametrize("family", [0, 1])
def test_nodes_reach_each_other_by_their_home_addresses(two: World, family: int) -> None:
    assert ping(two, "mn", CN[family]) == 3
    (peer,) = two.status("mn")["homes"][family]["peers"]
    assert peer["state"] == "established"
    assert peer["mobile"] == [address("c", 2, ipv6=family == 1)]


@pytest.mark.parametrize("family", [0, 1])
def test_a_host_without_mat_is_reached_as_ever(two: World, family: int) -> None:
    assert ping(two, "mn", PLAIN[family]) == 3
    assert ping(two, "plain", A[family]) == 3


@pytest.mark.parametrize("family", [0, 1])
def test_a_connection_survives_the_move_to_another_uplink_and_back(two: World, family: int) -> None:
    server = two.start("cn", "iperf3", "-s", "-1", "-B", CN[family])
    client = two.start("mn", "iperf3", "-c", CN[family], "-t", "6", "-J", log="iperf")
    wait_until(lambda: ping(two, "mn", CN[family], 1) == 1)
    two.attach("mn", "w1", "b", 2, metric=50)
    two.registers("mn", *([b, a] for a, b in zip(A, B, strict=True)))
    two.ip("mn", "link set w0 down")
    two.registers("mn", *([b] for b in B))
    two.ip("mn", "link set w0 up")
    two.detach("mn", "w0")
    two.attach("mn", "w0", "a", 3, metric=10)
    back = address("a", 3), address("a", 3, ipv6=True)
    two.registers("mn", *([a, b] for a, b in zip(back, B, strict=True)))
    assert client.wait(60) == 0, (two.folder / "iperf").read_text()
    assert server.wait(60) == 0


def test_status_and_rehome_speak_to_the_daemon(two: World) -> None:
    control = str(two.folder / "mn.sock")

    def mat(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", MAIN, "node", *words, "--control", control],
            capture_output=True,
            text=True,
            check=False,
        )

    assert "10.1.0.1: registered" in mat("status").stdout
    alone = mat("rehome")
    assert alone.returncode == 1
    assert "w0 is the only uplink" in alone.stderr
    two.attach("mn", "w1", "b", 2, metric=200)
    two.registers("mn", *([a, b] for a, b in zip(A, B, strict=True)))
    moved = mat("rehome")
    assert (moved.returncode, moved.stdout) == (0, "moving to w1\n")
    two.registers("mn", *([b, a] for a, b in zip(A, B, strict=True)))
    unknown = mat("rehome", "eth7")
    assert unknown.returncode == 1
    assert "eth7 is no uplink now; there are: w1 w0" in unknown.stderr


def test_everything_installed_goes_at_the_end(two: World) -> None:
    assert ping(two, "mn", CN[0]) == 3
    assert two.stop("mn") == 0
    left = two.run("mn", "nft", "list", "ruleset")
    assert "mat" not in left
    assert "4940" not in two.run("mn", "ip", "rule") + two.run("mn", "ip", "-6", "rule")
    assert "10.1.0.1" not in two.run("mn", "ip", "addr")
    assert not (two.folder / "mn.sock").exists()


def test_a_killed_daemon_leaves_connections_to_go_on_and_its_successor_takes_over(
    tmp_path: Path,
) -> None:
    with world(tmp_path) as made:
        made.attach("mn", "w0", "a", 2)
        made.start_node("mn")
        made.start_node("cn")
        made.registers("mn", *([one] for one in A))
        assert ping(made, "mn", CN[0]) == 3
        pings = made.start("mn", "ping", "-i", "0.05", "-c", "150", CN[0], log="pings")
        wait_until(lambda: "icmp_seq=10 " in (tmp_path / "pings").read_text())
        made.kill("mn")
        wait_until(lambda: "icmp_seq=40 " in (tmp_path / "pings").read_text())
        made.start_node("mn")
        made.registers("mn", *([one] for one in A))
        assert pings.wait(60) == 0
        assert " 0% packet loss" in (tmp_path / "pings").read_text()
        wait_until(lambda: made.status("mn")["homes"][0]["peers"][0]["state"] == "established")


def test_nodes_and_ims_attach_to_hosts_that_somebody_else_made(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.attach("mn", "w0", "a", 2)
        made.start_node("cn")
        made.stop("ims")
        inside = made.start("mn", "sleep", "600")
        host = NodeRef.parse(f"pid:{inside.pid}")
        wait_until(lambda: Path(f"/proc/{inside.pid}/comm").read_text() == "sleep\n")
        (tmp_path / "mn.toml").write_text(
            f'[node]\nkey = "mn.key"\ncontrol = "mn.sock"\n[dns]\nservers = ["{IMS}"]\n'
        )
        ims = attach(made.hosts["ims"], "ims", "--config", str(tmp_path / "ims.toml"))
        mn = attach(host, "mn", "--config", str(tmp_path / "mn.toml"))
        try:
            wait_until((tmp_path / "mn.sock").exists)
            made.registers("mn", *([one] for one in A))
            assert ping(made, "mn", CN[0]) == 3
        finally:
            for daemon in (mn, ims):
                daemon.terminate()
            ends = [daemon.wait(30) for daemon in (mn, ims)]
        assert ends == [0, 0]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "has no valid key"),
        ("1 10.1.0.1 {0}\n2 10.1.0.2 {0}\n", "a node has one home address of each family"),
        (None, "does not exist"),
    ],
)
def test_a_key_file_that_is_no_nodes_is_refused(
    tmp_path: Path, content: str | None, expected: str
) -> None:
    key = tmp_path / "node.key"
    if content is not None:
        key.touch(mode=0o600)
        key.write_text(content.format("c2VjcmV0IHNlY3JldCBzZWNyZXQ="))
    tried = subprocess.run(
        [sys.executable, "-c", MAIN, "node", "run", "--check", "--set", f'node.key="{key}"'],
        capture_output=True,
        text=True,
        check=False,
    )
    assert tried.returncode == 1
    assert expected in tried.stderr
    assert "Traceback" not in tried.stderr


def test_a_path_that_dies_behind_its_link_is_left_and_taken_again(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.attach("mn", "w0", "a", 2, metric=10)
        made.attach("mn", "w1", "b", 2, metric=20)
        made.start_node("mn")
        made.start_node("cn")
        made.registers("mn", *([a, b] for a, b in zip(A, B, strict=True)))
        made.run("r", "iptables", "-I", "FORWARD", "-i", "ra", "-j", "DROP")
        wait_until(lambda: made.registered("mn")[0] == [B[0]])
        assert ping(made, "mn", CN[0]) == 3
        # Of the other family's path nothing is known but good.
        assert made.registered("mn")[1] == [A[1], B[1]]
        made.run("r", "iptables", "-D", "FORWARD", "-i", "ra", "-j", "DROP")
        wait_until(lambda: made.registered("mn")[0] == [A[0], B[0]])


def test_the_documentation_has_the_configuration_as_it_is() -> None:
    text = NODE_DOCUMENT.read_text(encoding="utf-8")
    assert refreshed(text) == text


BROKEN = """
from mat_real.node.daemon import Daemon
def broken(*_): raise RuntimeError("on purpose")
Daemon._look_at_use = broken
import mat_real.node.daemon as daemon
daemon.USED_INTERVAL = 5.0
"""


def test_a_daemon_to_which_something_unexpected_happens_leaves_all_to_its_successor(
    tmp_path: Path,
) -> None:
    with world(tmp_path) as made:
        made.attach("mn", "w0", "a", 2)
        made.start_node("cn")
        made.before = BROKEN
        made.start_node("mn")
        assert ping(made, "mn", CN[0], 1) == 1
        assert made.daemons["mn"].wait(30) == 70
        assert "on purpose" in made.log("mn")
        assert ping(made, "mn", CN[0]) == 3
        made.before = ""
        made.start_node("mn")
        made.registers("mn", *([one] for one in A))
        assert ping(made, "mn", CN[0]) == 3


@pytest.mark.parametrize(
    ("hindrance", "words"),
    [
        ("no uplink", "10.1.0.1 is not connected"),
        ("wrong key", f"the IMS {IMS} port 49628 does not know key 1 of 10.1.0.1"),
        ("no IMS", f"the IMS {IMS} port 49628 does not answer about 10.1.0.1"),
    ],
)
def test_what_keeps_a_node_from_being_registered_is_said(
    tmp_path: Path, hindrance: str, words: str
) -> None:
    with world(tmp_path) as made:
        if hindrance == "wrong key":
            secret = b"some other secret, of another node"
            write_keys(tmp_path / "mn.key", [Key(1, secret, *parse_home("10.1.0.1"))])
        if hindrance != "no uplink":
            made.attach("mn", "w0", "a", 2)
        own = [f'node.ims=["{IMS}"]'] if hindrance == "no IMS" else []
        if own:
            made.stop("ims")
        made.launch_node("mn", *own)
        wait_until((tmp_path / "mn.sock").exists)
        wait_until(lambda: any(words in one for one in made.status("mn")["problems"]))
        assert words in made.log("mn")
