"""The node's own DHCP client against dnsmasq, on links that come, go and change."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from mat.address import format_address, parse_address
from mat_real.namespaces import NodeRef
from mat_real.uplinks.picture import boottime
from tests.real.privilege import needs_root
from tests.real.uplinks_lab import (
    HOME4,
    Network,
    Watched,
    await_that,
    capture,
    dnsmasq,
    everything,
    lab,
    monitoring,
    program,
    rules,
    watching,
)

pytestmark = needs_root

ONE, OTHER = "10.1.0.1/24", "10.2.0.1/24"


class Served:
    """A network with a DHCP server, and what that has logged."""

    def __init__(self, network: Network, log: Path) -> None:
        self.network = network
        self._log = log

    def said(self, what: str) -> int:
        return self._log.read_text().count(what)


@contextmanager
def served(
    network: Network, directory: Path, *options: str, first: int = 10, last: int = 99
) -> Iterator[Served]:
    """A DHCP server in a network, which knows who may be there."""
    subnet = network.router.rpartition(".")[0]
    common = [
        f"--dhcp-range={subnet}.{first},{subnet}.{last},255.255.255.0,10m",
        f"--dhcp-option=option:dns-server,{subnet}.53,{subnet}.54",
        "--dhcp-authoritative",
    ]
    with dnsmasq(network, directory, *common, *options):
        yield Served(network, directory / f"dnsmasq-{network.node.path.name}.log")


def move(node_end: str, old: Network, new: Network) -> None:
    """Carry the far end of a node's cable to another network."""
    old.node.run("ip", "link", "set", node_end, "down")
    if new is not old:
        moved = f"m{node_end}"
        target = new.node.path.name
        old.node.run("ip", "link", "set", node_end, "name", moved, "netns", target)
        new.node.run("ip", "link", "set", moved, "name", node_end, "master", "br0")
    new.node.run("ip", "link", "set", node_end, "up")


def in_use(node: NodeRef, interface: str = "eth0") -> list[str]:
    """The IPv4 addresses of an interface."""
    shown = json.loads(node.run("ip", "-j", "-4", "addr", "show", interface))
    return [address["local"] for entry in shown for address in entry.get("addr_info", [])]


def test_an_interface_gets_address_route_and_name_servers(tmp_path: Path) -> None:
    with lab(ONE) as (node, (network,)), served(network, tmp_path) as server:
        before = everything(node)
        with watching(node, dhcp=["eth0"]) as watched:
            now = boottime()
            network.plug(node, "eth0")
            watched.until(lambda: watched.addresses() != [], "an address")
            mobile = watched.first()
            assert in_use(node) == [format_address(mobile.address)]
            assert mobile.gateway == parse_address("10.1.0.1")
            assert mobile.prefix_length == 120
            assert now + 590 < mobile.until <= boottime() + 600
            servers = watched.call(lambda: watched.uplinks.name_servers)
            assert servers == (parse_address("10.1.0.53"), parse_address("10.1.0.54"))
            (route,) = json.loads(node.run("ip", "-j", "route", "show", "default"))
            assert (route["gateway"], route["metric"]) == ("10.1.0.1", 100)
            assert [rule["priority"] for rule in rules(node)] == [4910, 4930, 4940]
            assert watched.changes == 1
        assert in_use(node) == []
        node.run("ip", "link", "del", "eth0")
        assert everything(node) == before
        assert server.said("DHCPRELEASE") == 0


def test_an_interface_that_is_not_named_is_left_alone(tmp_path: Path) -> None:
    with (
        lab(ONE, OTHER) as (node, (one, other)),
        served(one, tmp_path),
        served(other, tmp_path) as unused,
        watching(node, dhcp=["eth0"]) as watched,
    ):
        other.plug(node, "eth1")
        one.plug(node, "eth0")
        watched.until(lambda: watched.addresses() != [], "an address")
        assert in_use(node, "eth1") == []
        assert unused.said("DHCPDISCOVER") == 0


def test_after_a_flap_the_same_address_is_asked_for_and_used_once_the_server_agrees(
    tmp_path: Path,
) -> None:
    with (
        lab(ONE) as (node, (network,)),
        served(network, tmp_path) as server,
        watching(node, dhcp=["eth0"]) as watched,
    ):
        end = network.plug(node, "eth0")
        watched.until(lambda: watched.addresses() != [], "an address")
        address = watched.addresses()
        discovers = server.said("DHCPDISCOVER(br0)")
        network.node.run("ip", "link", "set", end, "down")
        watched.until_addresses()
        assert in_use(node) == []
        network.node.run("ip", "link", "set", end, "up")
        watched.until_addresses(*address)
        assert server.said("DHCPDISCOVER(br0)") == discovers


def test_in_another_network_the_old_address_is_refused_and_a_new_one_used(tmp_path: Path) -> None:
    with (
        lab(ONE, OTHER) as (node, (one, other)),
        served(one, tmp_path) as left,
        served(other, tmp_path) as new,
        watching(node, dhcp=["eth0"]) as watched,
    ):
        end = one.plug(node, "eth0")
        watched.until(lambda: watched.addresses() != [], "an address")
        move(end, one, other)
        watched.until(lambda: "10.2.0." in str(watched.addresses()), "another address")
        assert new.said("DHCPNAK") == 1
        assert in_use(node) == watched.addresses()
        assert left.said("DHCPRELEASE") == 0
        # Between the two there was none: the old one was never used in the new network.
        assert [len(known) for known in watched.history] == [1, 0, 1]


def test_a_server_that_is_silent_about_strangers_costs_one_retransmission(tmp_path: Path) -> None:
    with lab(ONE, OTHER) as (node, (one, other)), served(one, tmp_path):
        silent = ["--dhcp-range=10.2.0.10,10.2.0.99,255.255.255.0,10m"]
        with dnsmasq(other, tmp_path, *silent), watching(node, dhcp=["eth0"]) as watched:
            end = one.plug(node, "eth0")
            watched.until(lambda: watched.addresses() != [], "an address")
            move(end, one, other)
            watched.until(lambda: "10.2.0." in str(watched.addresses()), "another address")


def test_a_server_that_binds_at_once_is_taken_at_its_word(tmp_path: Path) -> None:
    with (
        lab(ONE) as (node, (network,)),
        served(network, tmp_path, "--dhcp-rapid-commit") as server,
        watching(node, dhcp=["eth0"]) as watched,
    ):
        network.plug(node, "eth0")
        watched.until(lambda: watched.addresses() != [], "an address")
        assert server.said("DHCPREQUEST") == 0
        assert server.said("DHCPOFFER") == 0


def test_a_server_that_comes_later_is_found(tmp_path: Path) -> None:
    with lab(ONE) as (node, (network,)), watching(node, dhcp=["eth0"]) as watched:
        network.plug(node, "eth0")
        with served(network, tmp_path):
            watched.until(lambda: watched.addresses() != [], "an address")


def hasten(watched: Watched, rebind: float | None = None, until: float | None = None) -> None:
    """Bring what the client waits for to now: leases of dnsmasq last for two minutes at least."""

    def bring() -> None:
        (interface,) = watched.uplinks._dhcp
        client = interface._client
        assert client.lease is not None
        client.lease = replace(
            client.lease,
            rebind=client.lease.rebind if rebind is None else rebind,
            until=client.lease.until if until is None else until,
        )
        client.deadline = 0.0
        interface._expired()

    watched.call(bring)


def test_a_lease_is_renewed_by_its_server_and_the_address_stays(tmp_path: Path) -> None:
    with (
        lab(ONE) as (node, (network,)),
        served(network, tmp_path) as server,
        watching(node, dhcp=["eth0"]) as watched,
        capture(network.node, "br0", "udp port 67 or icmp") as said,
    ):
        network.plug(node, "eth0")
        watched.until(lambda: watched.addresses() != [], "an address")
        first = watched.first()
        requests = server.said("DHCPREQUEST(br0)")
        # The end of the lease is told in whole seconds.
        await_that(lambda: boottime() > first.until - 598, "two seconds")
        hasten(watched)
        watched.until(lambda: watched.first().until > first.until, "renewal")
        address = format_address(first.address)
        await_that(lambda: f"{address}.68 > 10.1.0.1.67" in said(), "a request to the server")
        assert server.said("DHCPREQUEST(br0)") == requests + 1
        assert watched.first().address == first.address
        assert all(len(known) == 1 for known in watched.history)
        # Nobody hears the answer on the port but the packet socket, and the kernel knows of it.
        assert "unreachable" not in said()


def test_a_lease_may_be_prolonged_by_any_server(tmp_path: Path) -> None:
    with (
        lab(ONE) as (node, (network,)),
        served(network, tmp_path),
        watching(node, dhcp=["eth0"]) as watched,
        capture(network.node, "br0", "udp port 67") as said,
    ):
        network.plug(node, "eth0")
        watched.until(lambda: watched.addresses() != [], "an address")
        first = watched.first()
        await_that(lambda: boottime() > first.until - 598, "two seconds")
        hasten(watched, rebind=0.0)
        watched.until(lambda: watched.first().until > first.until, "renewal")
        address = format_address(first.address)
        await_that(lambda: f"{address}.68 > 255.255.255.255.67" in said(), "a request to all")


def test_an_address_that_a_server_refuses_to_prolong_is_replaced(tmp_path: Path) -> None:
    with lab(ONE) as (node, (network,)), watching(node, dhcp=["eth0"]) as watched:
        with served(network, tmp_path / "one"):
            network.plug(node, "eth0")
            watched.until(lambda: watched.addresses() != [], "an address")
            (old,) = watched.addresses()
        with served(network, tmp_path / "two", first=100, last=199) as server:
            hasten(watched)
            watched.until(lambda: watched.addresses() not in ([], [old]), "another address")
            assert server.said("DHCPNAK(br0)") == 1
            assert in_use(node) == watched.addresses()


def test_an_address_ends_with_its_lease_while_no_server_answers(tmp_path: Path) -> None:
    with lab(ONE) as (node, (network,)), watching(node, dhcp=["eth0"]) as watched:
        with served(network, tmp_path):
            network.plug(node, "eth0")
            watched.until(lambda: watched.addresses() != [], "an address")
        hasten(watched)
        hasten(watched, rebind=0.0)
        assert in_use(node) == watched.addresses()
        hasten(watched, rebind=0.0, until=0.0)
        watched.until_addresses()
        assert in_use(node) == []
        assert node.run("ip", "route", "show", "default") == ""


def test_two_uplinks_have_routes_by_preference(tmp_path: Path) -> None:
    with (
        lab(ONE, OTHER) as (node, (one, other)),
        served(one, tmp_path),
        served(other, tmp_path),
        watching(node, interfaces=["eth1", "eth0"], dhcp=["eth0", "eth1"]) as watched,
    ):
        one.plug(node, "eth0")
        other.plug(node, "eth1")
        watched.until(lambda: len(watched.addresses()) == 2, "two addresses")
        found = json.loads(node.run("ip", "-j", "route", "show", "default"))
        assert [(r["dev"], r["metric"]) for r in found] == [("eth1", 100), ("eth0", 101)]
        assert [a[:5] for a in watched.addresses()] == ["10.2.", "10.1."]
        servers = watched.call(lambda: watched.uplinks.name_servers)
        assert [format_address(s)[:5] for s in servers] == ["10.2.", "10.2.", "10.1.", "10.1."]


def test_an_interface_that_is_made_anew_gets_an_address_anew(tmp_path: Path) -> None:
    with (
        lab(ONE) as (node, (network,)),
        served(network, tmp_path),
        watching(node, dhcp=["eth0"]) as watched,
    ):
        network.plug(node, "eth0")
        watched.until(lambda: watched.addresses() != [], "an address")
        index = watched.first().index
        node.run("ip", "link", "del", "eth0")
        watched.until_addresses()
        node.run("ip", "tuntap", "add", "tun9", "mode", "tun")
        network.plug(node, "eth0")
        watched.until(lambda: watched.addresses() != [], "another address")
        assert watched.first().index != index


def test_the_mtu_of_a_network_is_that_of_the_routes(tmp_path: Path) -> None:
    with (
        lab(ONE) as (node, (network,)),
        served(network, tmp_path, "--dhcp-option=option:mtu,1380"),
        watching(node, dhcp=["eth0"]) as watched,
    ):
        network.plug(node, "eth0")
        watched.until(lambda: watched.addresses() != [], "an address")
        assert watched.first().mtu == 1380
        (route,) = json.loads(node.run("ip", "-j", "route", "show", "table", "49628"))
        assert route["metrics"] == [{"mtu": 1380}]


def test_a_lease_without_end_has_none(tmp_path: Path) -> None:
    forever = "--dhcp-range=10.1.0.10,10.1.0.99,255.255.255.0,infinite"
    with (
        lab(ONE) as (node, (network,)),
        dnsmasq(network, tmp_path, forever),
        watching(node, dhcp=["eth0"]) as watched,
    ):
        network.plug(node, "eth0")
        watched.until(lambda: watched.addresses() != [], "an address")
        assert watched.first().until == math.inf


def test_a_successor_asks_for_the_address_that_a_killed_daemon_left_and_keeps_it(
    tmp_path: Path,
) -> None:
    with lab(ONE) as (node, (network,)), served(network, tmp_path) as server:
        with program(node, "eth0") as killed:
            assert killed.said()["addresses"] == []
            network.plug(node, "eth0")
            (address,) = killed.said()["addresses"]
            killed.kill()
        assert in_use(node) == [address]
        discovers = server.said("DHCPDISCOVER(br0)")
        with monitoring(node) as changes, watching(node, dhcp=["eth0"]) as watched:
            assert watched.addresses() == [address]
            await_that(lambda: f"inet {address}" in changes(), "the lease made longer")
            assert "Deleted" not in changes()
            assert server.said("DHCPDISCOVER(br0)") == discovers
        assert in_use(node) == []


def test_what_a_killed_daemon_left_goes_once_there_is_another_address(tmp_path: Path) -> None:
    with lab(ONE) as (node, (network,)):
        with served(network, tmp_path / "one"), program(node, "eth0") as killed:
            assert killed.said()["addresses"] == []
            network.plug(node, "eth0")
            (old,) = killed.said()["addresses"]
            killed.kill()
        silent = "--dhcp-range=10.1.0.100,10.1.0.199,255.255.255.0,10m"
        with dnsmasq(network, tmp_path, silent), watching(node, dhcp=["eth0"]) as watched:
            watched.until(lambda: watched.addresses() not in ([], [old]), "another address")
            assert old not in in_use(node)
            assert in_use(node) == watched.addresses()


def test_an_interface_that_changes_its_ethernet_address_is_another_client(tmp_path: Path) -> None:
    with (
        lab(ONE) as (node, (network,)),
        served(network, tmp_path) as server,
        watching(node, dhcp=["eth0"]) as watched,
    ):
        network.plug(node, "eth0")
        watched.until(lambda: watched.addresses() != [], "an address")
        node.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:99")
        await_that(lambda: server.said("02:00:00:00:00:99") > 0, "a question of the other")
        watched.until(lambda: watched.addresses() != [], "an address of the other")


def test_no_files_are_written(tmp_path: Path) -> None:
    here = Path(__file__).parents[2]
    before = sorted(path.name for path in here.iterdir())
    with lab(ONE) as (node, (network,)), served(network, tmp_path), program(node, "eth0") as run:
        assert run.said()["addresses"] == []
        network.plug(node, "eth0")
        assert len(run.said()["addresses"]) == 1
        assert sorted(path.name for path in here.iterdir()) == before


def test_home_is_no_source_for_what_the_client_sends(tmp_path: Path) -> None:
    with (
        lab(ONE) as (node, (network,)),
        served(network, tmp_path),
        watching(node, HOME4, dhcp=["eth0"]) as watched,
        capture(network.node, "br0", "udp port 67") as said,
    ):
        network.plug(node, "eth0")
        watched.until(lambda: watched.addresses() != [], "an address")
        await_that(lambda: "0.0.0.0.68 > 255.255.255.255.67" in said(), "a broadcast")
        assert "198.51.100.7" not in said()
