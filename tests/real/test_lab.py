"""A lab: who reaches whom, what attaching does, what runs in it."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mat_real.lab import Lab, LabError, simple_plan
from tests.real.ims_server import wait_until
from tests.real.privilege import needs_root

pytestmark = needs_root


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    # "l" might be taken for a word of ip(8)'s.
    with Lab(simple_plan(["A", "a-network-with-a-long-name", "l"])) as made:
        yield made


@pytest.fixture
def move(lab: Lab) -> Iterator[Callable[[str], None]]:
    """Attach MN's first interface to a network, and to none at the end."""

    def attach(network: str) -> None:
        lab.attach("MN", network)

    yield attach
    for (node, interface), network in list(lab.attached.items()):
        lab.detach(node, network, interface)


def addresses(lab: Lab, node: str, interface: str = "eth0") -> set[str]:
    (found,) = json.loads(lab.run(node, "ip", "-j", "addr", "show", "dev", interface))
    return {one["local"] for one in found["addr_info"] if "tentative" not in one}


def carrier(lab: Lab, node: str, interface: str = "eth0") -> bool:
    (found,) = json.loads(lab.run(node, "ip", "-j", "link", "show", "dev", interface))
    return "LOWER_UP" in found["flags"]


def reaches(lab: Lab, node: str, address: object, *options: str) -> bool:
    command = ["ping", "-c1", "-W1", *options, str(address)]
    with lab.ref(node).popen(command, stdout=subprocess.DEVNULL) as ping:
        return ping.wait() == 0


def recorded(path: Path) -> list[str]:
    """The packets of a recording, a line each."""
    command = ["tcpdump", "-nr", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_hosts_servers_and_routers_reach_each_other_in_both_families(lab: Lab) -> None:
    plan = lab.plan
    for address in (
        *plan.dns.address,
        *plan.ims[0].address,
        *plan.network("A").gateway,
        *plan.networks[1].gateway,
        "172.16.2.1",
        "2001:db8:7f10:2::1",
    ):
        assert reaches(lab, "CN", address), address


def test_attaching_gives_a_carrier_and_detaching_takes_it(
    lab: Lab, move: Callable[[str], None]
) -> None:
    assert not carrier(lab, "MN")
    move("A")
    wait_until(lambda: carrier(lab, "MN"))
    assert not carrier(lab, "MN", "eth1")
    assert lab.attached == {("MN", 0): "A"}
    lab.detach("MN", "A")
    wait_until(lambda: not carrier(lab, "MN"))
    assert [(one.act, one.network) for one in lab.moves[-2:]] == [
        ("attach", "A"),
        ("detach", "A"),
    ]
    assert lab.moves[-2].time < lab.moves[-1].time


def test_dhcp_and_router_advertisements_give_the_planned_addresses(
    lab: Lab, move: Callable[[str], None]
) -> None:
    for name in ("A", "a-network-with-a-long-name"):
        move(name)
        folder = lab.folder_of("MN") / name
        folder.mkdir()
        client = [sys.executable, "-m", "pyroute2.dhcp.cli", "eth0"]
        dhcp = lab.start("MN", client, f"dhcp-{name}.log", cwd=folder)
        moa = {str(address) for address in lab.plan.moa("MN", name)}
        wait_until(lambda moa=moa: moa <= addresses(lab, "MN"))
        wait_until(lambda: "default" in lab.run("MN", "ip", "route"))
        assert reaches(lab, "MN", "192.0.2.1")
        # It does not heed SIGTERM.
        dhcp.stop(limit=0.1)
        lab.run("MN", "ip", "addr", "flush", "dev", "eth0", "scope", "global")
        lab.detach("MN", name)


def test_an_interface_can_be_configured_without_dhcp_and_nothing_of_the_old_network_stays(
    lab: Lab, move: Callable[[str], None]
) -> None:
    move("A")
    lab.run("MN", "ip", "addr", "add", "10.9.9.9/24", "dev", "eth0")
    lab.configure("MN")
    assert reaches(lab, "MN", "192.0.2.1")
    assert "10.9.9.9" not in addresses(lab, "MN")
    lab.detach("MN", "A")
    assert {one for one in addresses(lab, "MN") if not one.startswith("fe80")} == set()
    assert "default" not in lab.run("MN", "ip", "route")
    move("a-network-with-a-long-name")
    moa = lab.configure("MN")
    assert reaches(lab, "MN", "192.0.2.1")
    assert reaches(lab, "MN", "2001:db8:7f00:2::1")
    assert reaches(lab, "PLAIN", moa.ipv4)
    assert str(lab.plan.moa("MN", "A").ipv4) not in addresses(lab, "MN")


def test_an_access_router_drops_what_leaves_with_a_home_address(
    lab: Lab, move: Callable[[str], None], tmp_path: Path
) -> None:
    move("A")
    lab.configure("MN")
    lab.run("MN", "ip", "addr", "add", "10.1.0.1/32", "dev", "lo")
    # The router would drop the question who it is, too, if it bore the home address.
    assert reaches(lab, "MN", "192.0.2.1")
    for number in (0, 1):
        path = tmp_path / f"{number}.pcap"
        recording = lab.capture("core", path, interface="A", what="icmp and src 10.1.0.1")
        assert not reaches(lab, "MN", "192.0.2.1", "-I", "10.1.0.1")
        recording.stop()
        assert len(recorded(path)) == number
        lab.run("A", "sysctl", "-w", "net.ipv4.conf.lan.rp_filter=0")


def test_a_node_solicits_routers_whenever_it_gets_a_carrier(
    lab: Lab, move: Callable[[str], None]
) -> None:
    log = lab.folder_of("A") / "dnsmasq.log"

    def solicited() -> int:
        return log.read_text().count("RTR-SOLICIT")

    for _ in range(3):
        before = solicited()
        move("A")
        wait_until(lambda before=before: solicited() > before)
        lab.detach("MN", "A")


def test_moves_that_cannot_be_are_refused(lab: Lab, move: Callable[[str], None]) -> None:
    move("A")
    with pytest.raises(LabError, match="interface 0 is attached to A; detach it first"):
        lab.attach("MN", "a-network-with-a-long-name")
    with pytest.raises(LabError, match=r"MN is not attached to a-network.*; it is attached to: A"):
        lab.detach("MN", "a-network-with-a-long-name")
    with pytest.raises(LabError, match="MN has no interface 2; it has 2, counted from 0"):
        lab.attach("MN", "A", 2)
    with pytest.raises(LabError, match="CN is no mobile node"):
        lab.attach("CN", "A")
    with pytest.raises(LabError, match="'Z' is no access network"):
        lab.attach("MN", "Z", 1)
    assert lab.attached == {("MN", 0): "A"}


def test_a_program_runs_in_its_node_and_its_log_is_kept(tmp_path: Path) -> None:
    with Lab(simple_plan(["A"]), tmp_path / "kept") as lab:
        program = lab.start("CN", ["sh", "-c", "ip -br addr; exec sleep 600"], "addresses.log")
        program.wait_for("172.16.1.1/24")
        assert program.running()
        with pytest.raises(LabError, match=r"false in netns:.* ended with 1 before it printed 'x'"):
            lab.start("CN", ["false"]).wait_for("x")
    assert program.process.returncode == -15
    assert "172.16.1.1/24" in (tmp_path / "kept" / "CN" / "addresses.log").read_text()


def test_the_dns_of_a_lab_knows_the_ims_and_these_know_the_keys_of_the_nodes() -> None:
    with Lab(simple_plan(["A"])) as lab:
        lab.start_servers()
        mat = [sys.executable, "-c", "from mat_cli import main; main()"]
        for home, ims in (("10.1.0.1", 0), ("2001:db8:1::1", 0), ("10.2.0.1", 1)):
            found = lab.run("CN", *mat, "dns", "lookup", home, "--server", "192.0.2.53")
            known = [str(one) for one in lab.plan.ims[ims].address if str(one) in found]
            assert known == [str(lab.plan.ims[ims].address.of(6 if ":" in home else 4))]
        status = lab.run(
            "IMS_MN", *mat, "ims", "status", "--json", "--control", lab.control("IMS_MN")
        )
        assert json.loads(status)["workers"][0]["keys"] == 2
        lines = lab.node_config("MN").with_name("node.key").read_text().splitlines()
        assert [line.split()[1] for line in lines] == ["10.1.0.1", "2001:db8:1::1"]
        with pytest.raises(LabError, match="PLAIN is a host without MAT"):
            lab.node_config("PLAIN")
