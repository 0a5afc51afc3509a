"""Uplinks in namespaces: what counts as a mobile address, and the rules and tables that follow."""

import asyncio
import ipaddress
import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from mat.address import parse_address
from mat_real.namespaces import NodeRef
from mat_real.uplinks import Home, Uplinks
from mat_real.uplinks.picture import boottime
from tests.real.privilege import needs_root
from tests.real.uplinks_lab import (
    BOUND,
    HOME4,
    HOME6,
    Network,
    await_that,
    capture,
    dnsmasq,
    everything,
    lab,
    monitoring,
    program,
    routes,
    rules,
    saying,
    watching,
)

pytestmark = needs_root

SOURCE_OF = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as asking:
    asking.connect((sys.argv[1], 9))
    print(asking.getsockname()[0])
"""


def configure(node: NodeRef, name: str, network: Network, host: int, metric: int = 0) -> str:
    """Give an interface an address and a default route by hand; the address."""
    router = ipaddress.ip_interface(network.address)
    address = str(router.network[host])
    node.run("ip", "addr", "add", f"{address}/{router.network.prefixlen}", "dev", name, "nodad")
    # IPv4 has room for one default route of a metric.
    metric = metric or 1000 + router.network.network_address.packed[1]
    route = ["default", "via", network.router, "dev", name, "metric", str(metric)]
    node.run("ip", "route", "add", *route)
    return address


def source_of(node: NodeRef, destination: str) -> str:
    """The source that the kernel gives a program that connects to somewhere."""
    return node.run(sys.executable, "-c", SOURCE_OF, destination).strip()


def setting(node: NodeRef, name: str, value: str | None = None) -> str:
    """A kernel setting of the node, after it was set if a value is given."""
    path = "/proc/sys/net/" + name
    if value is not None:
        node.run("sh", "-c", f"echo {value} > {path}")
    return node.run("cat", path).strip()


# ---- what counts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_an_address_by_hand_counts_once_there_is_a_way_out(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with lab("10.1.0.1/24") as (node, (network,)), watching(node, loop=loop) as watched:
        network.plug(node, "eth0")
        node.run("ip", "addr", "add", "10.1.0.5/24", "dev", "eth0")
        assert watched.addresses() == []
        node.run("ip", "route", "add", "default", "via", "10.1.0.1")
        watched.until_addresses("10.1.0.5")
        mobile = watched.first()
        assert mobile.gateway == parse_address("10.1.0.1")
        assert (mobile.interface, mobile.prefix_length, mobile.mtu) == ("eth0", 120, 1500)
        assert mobile.until == math.inf


def test_what_is_there_already_is_found_at_the_beginning() -> None:
    with lab("10.1.0.1/24") as (node, (network,)):
        network.plug(node, "eth0")
        address = configure(node, "eth0", network, 5)
        # Carrier and operational state follow the other end by a moment.
        await_that(lambda: "state UP" in node.run("ip", "link", "show", "eth0"), "carrier")
        with watching(node) as watched:
            assert watched.addresses() == [address]


def test_loss_of_carrier_takes_the_address_out_and_its_return_brings_it_back() -> None:
    with lab("10.1.0.1/24") as (node, (network,)), watching(node) as watched:
        end = network.plug(node, "eth0")
        address = configure(node, "eth0", network, 5)
        watched.until_addresses(address)
        network.node.run("ip", "link", "set", end, "down")
        watched.until_addresses()
        assert address in node.run("ip", "addr", "show", "eth0")
        assert [rule["priority"] for rule in rules(node)] == [4930, 4940]
        # While there is no uplink, packets are made as large as for the last one.
        assert routes(node)["49628"][0]["metrics"] == [{"mtu": 1500}]
        network.node.run("ip", "link", "set", end, "up")
        watched.until_addresses(address)
        assert [rule["priority"] for rule in rules(node)] == [4910, 4930, 4940]


def test_routes_that_the_kernel_drops_without_a_word_when_a_link_goes_down_are_missed() -> None:
    with lab("10.1.0.1/24") as (node, (network,)), watching(node) as watched:
        # Routes of IPv6 and to the subnet, which are told of, would bring it to light.
        setting(node, "ipv6/conf/default/disable_ipv6", "1")
        network.plug(node, "eth0")
        address = "10.1.0.5"
        default = ["default", "via", "10.1.0.1", "dev", "eth0", "onlink"]
        node.run("ip", "addr", "add", "10.1.0.5/24", "dev", "eth0", "noprefixroute")
        node.run("ip", "route", "add", *default)
        watched.until_addresses(address)
        node.run("ip", "link", "set", "eth0", "down")
        watched.until_addresses()
        node.run("ip", "link", "set", "eth0", "up")
        await_that(lambda: "state UP" in node.run("ip", "link", "show", "eth0"), "carrier")
        assert watched.addresses() == []
        node.run("ip", "route", "add", *default)
        watched.until_addresses(address)
        assert len(routes(node)["49700"]) == 1


def test_routes_that_go_with_the_last_address_are_missed() -> None:
    with lab("10.1.0.1/24") as (node, (network,)), watching(node) as watched:
        network.plug(node, "eth0")
        # With a route to its subnet, which is told of, that would bring it to light.
        node.run("ip", "addr", "add", "10.1.0.5/24", "dev", "eth0", "noprefixroute")
        node.run("ip", "route", "add", "default", "via", "10.1.0.1", "dev", "eth0", "onlink")
        watched.until_addresses("10.1.0.5")
        node.run("ip", "addr", "del", "10.1.0.5/24", "dev", "eth0")
        watched.until_addresses()
        node.run("ip", "addr", "add", "10.1.0.6/24", "dev", "eth0", "noprefixroute")
        assert watched.addresses() == []
        node.run("ip", "route", "add", "default", "via", "10.1.0.1", "dev", "eth0", "onlink")
        watched.until_addresses("10.1.0.6")
        assert len(watched.history) == 3


def test_an_interface_that_leaves_a_bridge_is_still_there() -> None:
    with lab("10.1.0.1/24") as (node, (network,)), watching(node) as watched:
        network.plug(node, "eth0")
        configure(node, "eth0", network, 5)
        watched.until_addresses("10.1.0.5")
        node.run("ip", "link", "add", "br9", "type", "bridge")
        node.run("ip", "link", "set", "eth0", "master", "br9")
        node.run("ip", "link", "set", "eth0", "nomaster")
        node.run("ip", "link", "set", "eth0", "mtu", "1400")
        watched.until(lambda: watched.first().mtu == 1400, "another MTU")
        assert watched.addresses() == ["10.1.0.5"]
        assert [] not in watched.history


def test_an_interface_that_comes_back_with_another_index_is_the_same_uplink() -> None:
    with (
        lab("10.1.0.1/24", "10.2.0.1/24") as (node, (one, other)),
        watching(node, interfaces=["eth0", "eth1"]) as watched,
    ):
        one.plug(node, "eth0")
        first = configure(node, "eth0", one, 5)
        watched.until_addresses(first)
        index = watched.first().index
        node.run("ip", "link", "del", "eth0")
        watched.until_addresses()
        other.plug(node, "eth1")
        second = configure(node, "eth1", other, 5)
        one.plug(node, "eth0")
        first = configure(node, "eth0", one, 6)
        watched.until_addresses(first, second)
        assert watched.first().index != index
        assert {r["dev"] for r in routes(node)["49701"]} == {"eth0"}


def test_uplinks_come_in_the_order_of_their_routes_metrics() -> None:
    with lab("10.1.0.1/24", "10.2.0.1/24") as (node, (one, other)), watching(node) as watched:
        one.plug(node, "eth0")
        other.plug(node, "eth1")
        first, second = configure(node, "eth0", one, 5, 200), configure(node, "eth1", other, 5, 100)
        watched.until_addresses(second, first)


def test_a_list_of_interfaces_decides_which_and_in_which_order() -> None:
    three = "10.1.0.1/24", "10.2.0.1/24", "10.3.0.1/24"
    with lab(*three) as (node, networks), watching(node, interfaces=["eth2", "eth0"]) as watched:
        for name, network in zip(("eth0", "eth1", "eth2"), networks, strict=True):
            network.plug(node, name)
            configure(node, name, network, 5)
        watched.until_addresses("10.3.0.5", "10.1.0.5")


def test_an_interface_may_be_renamed_into_an_uplink() -> None:
    with lab("10.1.0.1/24") as (node, (network,)), watching(node, interfaces=["up0"]) as watched:
        network.plug(node, "eth0")
        address = configure(node, "eth0", network, 5)
        assert watched.addresses() == []
        node.run("ip", "link", "set", "eth0", "name", "up0")
        watched.until_addresses(address)


def test_an_address_that_is_replaced_leaves_the_table_of_the_other_alone() -> None:
    with (
        lab("10.1.0.1/24", "10.2.0.1/24") as (node, (one, other)),
        watching(node, interfaces=["eth0", "eth1"]) as watched,
    ):
        one.plug(node, "eth0")
        other.plug(node, "eth1")
        configure(node, "eth0", one, 5)
        watched.until_addresses("10.1.0.5")
        configure(node, "eth1", other, 5)
        watched.until_addresses("10.1.0.5", "10.2.0.5")
        node.run("ip", "addr", "add", "10.1.0.6/24", "dev", "eth0")
        node.run("ip", "addr", "del", "10.2.0.5/24", "dev", "eth1")
        watched.until_addresses("10.1.0.5", "10.1.0.6")
        node.run("ip", "addr", "del", "10.1.0.5/24", "dev", "eth0")
        # Its secondary address goes with it: it was in the same subnet.
        watched.until_addresses()
        configured = ["10.1.0.7/24", "dev", "eth0"]
        node.run("ip", "addr", "add", *configured)
        node.run("ip", "route", "add", "default", "via", "10.1.0.1")
        watched.until_addresses("10.1.0.7")


def test_a_mobile_address_keeps_its_table_while_others_come_and_go() -> None:
    with (
        lab("10.1.0.1/24", "10.2.0.1/24") as (node, (one, other)),
        watching(node, interfaces=["eth0", "eth1"]) as watched,
    ):
        other.plug(node, "eth1")
        configure(node, "eth1", other, 5)
        watched.until_addresses("10.2.0.5")
        one.plug(node, "eth0")
        configure(node, "eth0", one, 5)
        watched.until_addresses("10.1.0.5", "10.2.0.5")
        tables = {r["src"]: r["table"] for r in rules(node) if r["priority"] == 4910}
        assert tables == {"10.2.0.5": "49700", "10.1.0.5": "49701"}
        node.run("ip", "link", "del", "eth1")
        watched.until_addresses("10.1.0.5")
        assert "49700" not in routes(node)
        assert rules(node)[0] == {
            "priority": 4910,
            "src": "10.1.0.5",
            "table": "49701",
        }


def test_the_end_of_a_lease_is_known_and_takes_the_address_out() -> None:
    with lab("10.1.0.1/24") as (node, (network,)), watching(node) as watched:
        network.plug(node, "eth0")
        address = configure(node, "eth0", network, 5)
        watched.until_addresses(address)
        now = boottime()
        replaced = ["10.1.0.5/24", "dev", "eth0", "valid_lft", "2", "preferred_lft", "2"]
        node.run("ip", "addr", "replace", *replaced)
        watched.until(lambda: watched.first().until < math.inf, "a lease")
        assert now < watched.first().until <= boottime() + 2
        watched.until_addresses()


def test_an_address_that_is_deprecated_comes_last() -> None:
    with (
        lab("10.1.0.1/24", "10.2.0.1/24") as (node, (one, other)),
        watching(node, interfaces=["eth0", "eth1"]) as watched,
    ):
        one.plug(node, "eth0")
        other.plug(node, "eth1")
        configure(node, "eth0", one, 5)
        configure(node, "eth1", other, 5)
        watched.until_addresses("10.1.0.5", "10.2.0.5")
        changed = ["10.1.0.5/24", "dev", "eth0", "preferred_lft", "0"]
        node.run("ip", "addr", "change", *changed)
        watched.until_addresses("10.2.0.5", "10.1.0.5")


def test_an_address_that_another_host_has_never_counts() -> None:
    with lab("2001:db8:1::1/64") as (node, (network,)), watching(node, HOME6) as watched:
        network.plug(node, "eth0")
        node.run("ip", "route", "add", "default", "via", "fe80::1", "dev", "eth0")
        node.run("ip", "addr", "add", "2001:db8:1::1/64", "dev", "eth0")
        await_that(lambda: "dadfailed" in node.run("ip", "addr", "show", "eth0"), "a conflict")
        node.run("ip", "addr", "add", "2001:db8:1::5/64", "dev", "eth0")
        watched.until_addresses("2001:db8:1::5", ipv4=False)
        assert "5/64 scope global tentative" not in node.run("ip", "addr", "show", "eth0")


def test_the_home_address_is_no_mobile_address_wherever_it_is() -> None:
    with lab("198.51.100.1/24") as (node, (network,)), watching(node) as watched:
        network.plug(node, "eth0")
        configure(node, "eth0", network, 7)
        address = configure_second(node)
        watched.until_addresses(address)


def configure_second(node: NodeRef) -> str:
    node.run("ip", "addr", "add", "198.51.100.8/24", "dev", "eth0")
    return "198.51.100.8"


def test_a_mobile_routers_addresses_are_those_of_prefixes_that_are_delegated_to_it() -> None:
    prefix = Home(parse_address("198.51.100.0"), 120)
    with (
        lab("198.51.100.1/24", "10.1.0.1/24") as (node, (behind, network)),
        watching(node, prefix) as watched,
    ):
        behind.plug(node, "lan0")
        configure(node, "lan0", behind, 7)
        network.plug(node, "eth0")
        configure(node, "eth0", network, 5)
        node.run("ip", "addr", "add", "10.8.0.1/32", "dev", "eth0")
        assert watched.addresses() == []
        node.run("ip", "route", "add", "unreachable", "10.8.0.0/16")
        watched.until_addresses("10.8.0.1")
        assert "198.51.100" not in node.run("ip", "addr", "show", "lo")
        node.run("ip", "route", "del", "unreachable", "10.8.0.0/16")
        watched.until_addresses()


def test_a_point_to_point_link_needs_no_gateway() -> None:
    with lab() as (node, _), watching(node) as watched:
        node.run("ip", "tuntap", "add", "tun0", "mode", "tun")
        node.run("ip", "addr", "add", "10.9.0.5", "peer", "10.9.0.1", "dev", "tun0")
        node.run("ip", "link", "set", "tun0", "up")
        assert watched.addresses() == []
        opened = ["import fcntl, struct, time", "f = open('/dev/net/tun', 'r+b', buffering=0)"]
        attach = "fcntl.ioctl(f, 0x400454ca, struct.pack('16sH22x', b'tun0', 0x1001))"
        holding = "; ".join([*opened, attach, "time.sleep(60)"])
        with saying(node, sys.executable, "-c", holding):
            watched.until_addresses("10.9.0.5")
            assert watched.first().gateway is None
            assert {r["dst"] for r in routes(node)["49700"]} == {"default", "10.9.0.1"}


def test_router_advertisements_give_stable_addresses_before_temporary_ones(tmp_path: Path) -> None:
    options = ["--enable-ra", "--ra-param=br0,mtu:1400,10", "--dhcp-range=2001:db8:1::,ra-only,10m"]
    with (
        lab("2001:db8:1::1/64") as (node, (network,)),
        watching(node, HOME6) as watched,
        dnsmasq(network, tmp_path, *options),
    ):
        setting(node, "ipv6/conf/default/use_tempaddr", "2")
        network.plug(node, "eth0")
        watched.until(lambda: len(watched.addresses(ipv4=False)) == 2, "two addresses")
        first, second = watched.addresses(ipv4=False)
        assert "ff:fe" in first
        assert "ff:fe" not in second
        mobile = watched.first(ipv4=False)
        assert mobile.gateway is not None
        assert mobile.gateway.startswith(b"\xfe\x80")
        assert mobile.until < math.inf
        assert mobile.mtu == 1400


# ---- rules and tables ----------------------------------------------------------------------------


def test_rules_and_tables_of_ipv4_are_these() -> None:
    with (
        lab("10.1.0.1/24", "10.2.0.1/24") as (node, (one, other)),
        watching(node, interfaces=["eth0", "eth1"]) as watched,
    ):
        one.plug(node, "eth0")
        other.plug(node, "eth1")
        node.run("ip", "link", "set", "eth1", "mtu", "1400")
        configure(node, "eth0", one, 5)
        watched.until_addresses("10.1.0.5")
        configure(node, "eth1", other, 5)
        watched.until_addresses("10.1.0.5", "10.2.0.5")
        servers = [parse_address(a) for a in ("10.1.0.53", "2001:db8::53")]
        watched.call(lambda: watched.uplinks.use_name_servers(servers))
        assert rules(node) == [
            {"priority": 4910, "src": "10.1.0.5", "table": "49700"},
            {"priority": 4910, "src": "10.2.0.5", "table": "49701"},
            {"priority": 4920, "src": "all", "dst": "10.1.0.53", "table": "254"},
            {"priority": 4930, "src": "all", "table": "254", "suppress_prefixlen": 0},
            {"priority": 4940, "src": "all", "iif": "lo", "table": "49628"},
        ]
        near, onward = {"type": "1", "scope": "253", "flags": []}, {"type": "1", "scope": "0"}
        by_router = {**onward, "flags": ["onlink"], "dst": "default"}
        home = {**near, "dst": "default", "dev": "lo", "prefsrc": "198.51.100.7"}
        assert routes(node) == {
            "49628": [{**home, "table": "49628", "metrics": [{"mtu": 1400}]}],
            "49700": [
                {**by_router, "gateway": "10.1.0.1", "dev": "eth0", "table": "49700"},
                {**near, "dst": "10.1.0.0/24", "dev": "eth0", "table": "49700"},
            ],
            "49701": [
                {**by_router, "gateway": "10.2.0.1", "dev": "eth1", "table": "49701"},
                {**near, "dst": "10.2.0.0/24", "dev": "eth1", "table": "49701"},
            ],
        }
        assert rules(node, "-6") == []
        assert routes(node, "-6") == {}
        watched.call(lambda: watched.uplinks.use_name_servers([]))
        assert [rule["priority"] for rule in rules(node)] == [4910, 4910, 4930, 4940]


def test_rules_and_tables_of_ipv6_are_these() -> None:
    with lab("2001:db8:1::1/64") as (node, (network,)), watching(node, HOME6) as watched:
        network.plug(node, "eth0")
        # The kernel sets this anew when the carrier comes.
        await_that(lambda: "state UP" in node.run("ip", "link", "show", "eth0"), "carrier")
        setting(node, "ipv6/conf/eth0/mtu", "1350")
        address = configure(node, "eth0", network, 5)
        watched.until_addresses(address, ipv4=False)
        servers = [parse_address(a) for a in ("10.1.0.53", "2001:db8::53")]
        watched.call(lambda: watched.uplinks.use_name_servers(servers))
        assert rules(node, "-6") == [
            {"priority": 4910, "src": address, "table": "49700"},
            {"priority": 4920, "src": "all", "dst": "2001:db8::53", "table": "254"},
            {"priority": 4930, "src": "all", "table": "254", "suppress_prefixlen": 0},
            {"priority": 4940, "src": "all", "iif": "lo", "table": "49628"},
        ]
        common = {"type": "1", "scope": "0", "metric": 1024, "pref": "medium"}
        home = {"dst": "default", "dev": "mat-sink", "prefsrc": "2001:db8:77::7", "flags": []}
        mobile = {**common, "dev": "eth0", "table": "49700"}
        found = routes(node, "-6")
        assert found["49628"] == [{**common, **home, "table": "49628", "metrics": [{"mtu": 1350}]}]
        assert sorted(found["49700"], key=lambda route: route["dst"]) == [
            {**mobile, "dst": "2001:db8:1::/64", "flags": []},
            {**mobile, "dst": "default", "gateway": "2001:db8:1::1", "flags": ["onlink"]},
            {**mobile, "dst": "fe80::/64", "flags": []},
        ]
        assert rules(node) == []


def test_everything_is_removed_at_the_end() -> None:
    with lab("10.1.0.1/24") as (node, (network,)):
        network.plug(node, "eth0")
        configure(node, "eth0", network, 5)
        node.run("ip", "addr", "add", "2001:db8:1::5/64", "dev", "eth0", "nodad")
        await_that(lambda: "tentative" not in node.run("ip", "addr"), "detection of conflicts")
        before = everything(node)
        with watching(node, HOME4, HOME6) as watched:
            servers = [parse_address("10.1.0.53")]
            watched.call(lambda: watched.uplinks.use_name_servers(servers))
            assert "198.51.100.7" in node.run("ip", "addr", "show", "lo")
            assert everything(node) != before
        assert everything(node) == before


@pytest.mark.parametrize(
    ("home", "router", "elsewhere", "server"),
    [
        (HOME4, "10.1.0.1/24", "192.0.2.9", "192.0.2.53"),
        (HOME6, "2001:db8:1::1/64", "2001:db8:9::9", "2001:db8:9::53"),
    ],
    ids=["IPv4", "IPv6"],
)
def test_programs_speak_from_home_but_to_neighbours_and_name_servers(
    home: Home, router: str, elsewhere: str, server: str
) -> None:
    ipv4 = home is HOME4
    own = "198.51.100.7" if ipv4 else "2001:db8:77::7"
    with lab(router) as (node, (network,)), watching(node, home) as watched:
        assert source_of(node, elsewhere) == own
        network.plug(node, "eth0")
        address = configure(node, "eth0", network, 5)
        watched.until_addresses(address, ipv4=ipv4)
        watched.call(lambda: watched.uplinks.use_name_servers([parse_address(server)]))
        assert source_of(node, elsewhere) == own
        assert source_of(node, server) == address
        assert source_of(node, network.router) == address


def test_packets_from_a_mobile_address_leave_by_its_interface() -> None:
    with lab("10.1.0.1/24", "10.2.0.1/24") as (node, (one, other)), watching(node) as watched:
        one.plug(node, "eth0")
        other.plug(node, "eth1")
        first, second = configure(node, "eth0", one, 5, 10), configure(node, "eth1", other, 5, 20)
        watched.until_addresses(first, second)
        with (
            capture(one.node, "br0", "icmp") as by_one,
            capture(other.node, "br0", "icmp") as by_other,
        ):
            for address in (first, second):
                with saying(node, "ping", "-c", "1", "-W", "1", "-I", address, "192.0.2.9") as said:
                    await_that(lambda: "packet" in said(), "a ping")
            await_that(lambda: f"{first} > 192.0.2.9" in by_one(), "a packet by the one")
            await_that(lambda: f"{second} > 192.0.2.9" in by_other(), "a packet by the other")
            assert second not in by_one()
            assert first not in by_other()


def test_what_another_program_removes_is_put_back() -> None:
    with lab("10.1.0.1/24") as (node, (network,)), watching(node, HOME4, HOME6) as watched:
        network.plug(node, "eth0")
        configure(node, "eth0", network, 5)
        watched.until_addresses("10.1.0.5")
        as_it_was = rules(node), routes(node), rules(node, "-6"), routes(node, "-6")

        def is_back() -> bool:
            return as_it_was == (rules(node), routes(node), rules(node, "-6"), routes(node, "-6"))

        for removal in (
            ["rule", "del", "pref", "4930"],
            ["-6", "rule", "del", "pref", "4940"],
            ["route", "flush", "table", "49700"],
            ["-6", "route", "flush", "table", "49628"],
            ["addr", "del", "198.51.100.7/32", "dev", "lo"],
            ["link", "del", "mat-sink"],
        ):
            node.run("ip", *removal)
            await_that(is_back, f"return of what ip {' '.join(removal)} removed")


# ---- a predecessor -------------------------------------------------------------------------------


def test_a_successor_takes_over_what_a_killed_daemon_left_and_changes_nothing() -> None:
    with lab("10.1.0.1/24") as (node, (network,)):
        network.plug(node, "eth0")
        configure(node, "eth0", network, 5)
        with program(node) as killed:
            killed.until_addresses("10.1.0.5")
            killed.kill()
        left = everything(node)
        with monitoring(node, "rule", "route") as changes, watching(node) as watched:
            assert watched.addresses() == ["10.1.0.5"]
            assert "dev" not in changes()
            assert "lookup" not in changes()
            assert everything(node) == left
        assert rules(node) == []
        assert "198.51.100.7" not in node.run("ip", "addr", "show", "lo")


def test_what_a_predecessor_left_and_is_not_right_any_more_is_removed() -> None:
    with lab("10.1.0.1/24", "10.2.0.1/24") as (node, (one, other)):
        one.plug(node, "eth0")
        configure(node, "eth0", one, 5)
        with program(node) as killed:
            killed.until_addresses("10.1.0.5")
            killed.kill()
        node.run("ip", "link", "del", "eth0")
        other.plug(node, "eth1")
        configure(node, "eth1", other, 5)
        with watching(node, Home(parse_address("198.51.100.8"))) as watched:
            watched.until_addresses("10.2.0.5")
            sources = [rule["src"] for rule in rules(node)]
            assert sources == ["10.2.0.5", "all", "all"]
            on_loopback = node.run("ip", "addr", "show", "lo")
            assert "198.51.100.8" in on_loopback
            assert "198.51.100.7" not in on_loopback


def test_what_is_left_of_a_family_that_has_no_home_any_more_is_removed() -> None:
    with (
        lab() as (node, _),
        watching(node, HOME4, HOME6) as watched,
    ):
        watched.call(lambda: watched.uplinks.close(keep=True))
        watched.uplinks = Uplinks([HOME4], lambda: None)
        watched.call(watched.uplinks.open)
        assert rules(node, "-6") == []
        assert "mat-sink" not in node.run("ip", "link")
        assert len(rules(node)) == 2


def test_what_is_kept_for_a_successor_stays() -> None:
    with lab("10.1.0.1/24") as (node, (network,)):
        network.plug(node, "eth0")
        configure(node, "eth0", network, 5)
        with watching(node, HOME4, HOME6) as watched:
            watched.until_addresses("10.1.0.5")
            as_it_was = everything(node)
            watched.call(lambda: watched.uplinks.close(keep=True))
            assert everything(node) == as_it_was
            watched.call(watched.uplinks.open)


# ---- the reverse path ----------------------------------------------------------------------------


@pytest.mark.parametrize(("every", "own"), [("0", "1"), ("1", "0"), ("1", "1")])
def test_strict_checking_of_the_reverse_path_is_made_loose_and_restored(
    every: str, own: str
) -> None:
    with lab("10.1.0.1/24") as (node, (network,)):
        network.plug(node, "eth0")
        setting(node, "ipv4/conf/all/rp_filter", every)
        setting(node, "ipv4/conf/eth0/rp_filter", own)
        setting(node, "ipv4/conf/lo/rp_filter", own)
        with watching(node) as watched:
            configure(node, "eth0", network, 5)
            watched.until_addresses("10.1.0.5")
            assert setting(node, "ipv4/conf/eth0/rp_filter") == "2"
            assert setting(node, "ipv4/conf/all/rp_filter") == every
            assert setting(node, "ipv4/conf/lo/rp_filter") == own
            assert watched.uplinks.problems == ()
        assert setting(node, "ipv4/conf/eth0/rp_filter") == own


@pytest.mark.parametrize(("every", "own"), [("0", "0"), ("2", "1"), ("0", "2")])
def test_checking_that_is_not_strict_is_left_alone(every: str, own: str) -> None:
    with lab("10.1.0.1/24") as (node, (network,)):
        network.plug(node, "eth0")
        setting(node, "ipv4/conf/all/rp_filter", every)
        setting(node, "ipv4/conf/eth0/rp_filter", own)
        with watching(node) as watched:
            configure(node, "eth0", network, 5)
            watched.until_addresses("10.1.0.5")
            assert setting(node, "ipv4/conf/eth0/rp_filter") == own


def test_checking_that_may_not_be_made_loose_is_a_problem_that_is_told() -> None:
    read_only = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys"
    before = ["unshare", "--mount", "sh", "-c", f'{read_only} && exec "$@"', "sh"]
    with lab("10.1.0.1/24") as (node, (network,)):
        network.plug(node, "eth0")
        setting(node, "ipv4/conf/eth0/rp_filter", "1")
        with program(node, before=before) as running:
            assert running.said() == {"addresses": [], "problems": []}
            configure(node, "eth0", network, 5)
            (problem,) = running.said()["problems"]
            assert "interface eth0" in problem
            assert "Read-only file system" in problem
            assert "set net.ipv4.conf.eth0.rp_filter to 2" in problem


# ---- the watching itself -------------------------------------------------------------------------


def test_nothing_is_scheduled_while_nothing_happens() -> None:
    with (
        lab("10.1.0.1/24") as (node, (network,)),
        watching(node, HOME4, HOME6, loop=asyncio.new_event_loop) as watched,
    ):
        network.plug(node, "eth0")
        configure(node, "eth0", network, 5)
        watched.until_addresses("10.1.0.5")
        assert vars(watched.loop)["_scheduled"] == []


def test_a_change_is_told_once_and_what_changes_nothing_not_at_all() -> None:
    with lab("10.1.0.1/24") as (node, (network,)), watching(node) as watched:
        network.plug(node, "eth0")
        configure(node, "eth0", network, 5)
        watched.until_addresses("10.1.0.5")
        assert watched.changes == 1
        node.run("ip", "route", "add", "192.0.2.0/24", "via", "10.1.0.1")
        node.run("ip", "addr", "add", "127.0.0.9/8", "dev", "lo")
        node.run("ip", "addr", "replace", "10.1.0.5/24", "dev", "eth0")
        node.run("ip", "link", "set", "eth0", "mtu", "1400")
        watched.until(lambda: watched.first().mtu == 1400, "another MTU")
        assert watched.changes == 2


def test_a_change_that_is_met_while_name_servers_are_set_is_told_all_the_same() -> None:
    with lab("10.1.0.1/24") as (node, (network,)), watching(node) as watched:
        # Its events later on would bring it to light.
        setting(node, "ipv6/conf/default/disable_ipv6", "1")
        network.plug(node, "eth0")

        def at_once() -> None:
            configure(node, "eth0", network, 5)
            watched.uplinks.use_name_servers([parse_address("10.1.0.53")])

        await_that(lambda: "state UP" in node.run("ip", "link", "show", "eth0"), "carrier")
        watched.call(at_once)
        watched.until(lambda: watched.changes == 1, "the change")
        assert watched.addresses() == ["10.1.0.5"]


def test_events_that_the_kernel_had_to_leave_out_are_made_up_for(tmp_path: Path) -> None:
    with lab("10.1.0.1/24") as (node, (network,)), watching(node) as watched:
        network.plug(node, "eth0")
        configure(node, "eth0", network, 5)
        watched.until_addresses("10.1.0.5")
        batch = tmp_path / "batch"
        noise = [f"addr {do} 127.1.{n}.1/32 dev lo\n" for n in range(250) for do in ("add", "del")]
        batch.write_text("".join(noise * 8) + "addr add 10.1.0.6/24 dev eth0\n")

        def not_listening() -> None:
            node.run("ip", "-batch", str(batch))
            node.run("ip", "addr", "del", "10.1.0.5/24", "dev", "eth0")
            node.run("ip", "addr", "add", "10.1.0.8/24", "dev", "eth0")
            node.run("ip", "route", "add", "default", "via", "10.1.0.1")

        watched.call(not_listening)
        watched.until_addresses("10.1.0.8")
        assert watched.changes == 2


def test_what_is_as_it_should_be_is_not_sent_again() -> None:
    with lab("10.1.0.1/24") as (node, (network,)), watching(node) as watched:
        network.plug(node, "eth0")
        configure(node, "eth0", network, 5)
        watched.until_addresses("10.1.0.5")

        def requests() -> int:
            before: int = watched.uplinks._requests._sequence
            watched.uplinks._bring_in_line()
            return watched.uplinks._requests._sequence - before

        # The rules and the routes are read.
        assert watched.call(requests) == 2


def test_two_homes_of_a_family_are_refused() -> None:
    with pytest.raises(ValueError, match="at most one home address of each family"):
        Uplinks([HOME4, Home(parse_address("198.51.100.8"))], lambda: None)


def test_without_the_right_to_change_the_network_it_says_so_and_ends() -> None:
    without = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    with lab() as (node, _):
        before = everything(node)
        with program(node, before=without) as refused:
            assert refused.process.wait(BOUND) == 1
            said = refused.complaints()
        assert "home address 198.51.100.7 on lo: the kernel refused it: Operation not" in said
        assert "That takes root, or CAP_NET_ADMIN" in said
        assert "Traceback" not in said
        assert everything(node) == before
