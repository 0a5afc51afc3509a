"""A mobile router, end to end: hosts behind it know nothing of MAT, and keep their connections."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.ims_server import wait_until
from tests.real.node_world import NETS, PLAIN, World, address, world
from tests.real.privilege import needs_root

pytestmark = needs_root

HOMES = {"mn": ("10.1.5.0/24", "fd10:1:0:5::/64"), "cn": ("10.2.0.1", "fd10:2::1")}
ROUTERS = HOMES | {"cn": ("10.2.5.0/24", "fd10:2:0:5::/64")}
PORT = 7007


def home(host: str, number: int) -> tuple[str, str]:
    """The addresses of a host of a home prefix, in both families."""
    four, six = ROUTERS[host]
    return four.replace("0/24", str(number)), six.replace("/64", f"{number:x}")


def mobile(net: str, number: int = 1) -> tuple[str, str]:
    """The addresses of a mobile prefix that a network delegates, in both families."""
    return f"192.168.{100 + NETS[net]}.{number}", f"fd00:{100 + NETS[net]}::{number:x}"


def delegate(made: World, net: str, to: int = 2) -> None:
    """Have the router of a network send its mobile prefix to the host with this number."""
    four, six = (prefix.removesuffix("1") for prefix in mobile(net))
    made.ip(
        "r",
        f"route add {four}0/24 via {address(net, to)}",
        f"route add {six}/64 via {address(net, to, ipv6=True)}",
    )


def arrive(interface: str, net: str, metric: int = 100) -> list[str]:
    """Commands by which a router has addresses of a network, and the prefix delegated there."""
    four, six = mobile(net)
    return [
        *World.addresses(interface, net, 2, metric),
        f"addr add {four}/32 dev {interface}",
        f"addr add {six}/128 dev {interface} nodad",
        f"route replace unreachable {four.removesuffix('1')}0/24",
        f"route replace unreachable {six.removesuffix('1')}/64",
    ]


def leave(interface: str, net: str) -> list[str]:
    """Commands by which a router gives up what it had from a network."""
    four, six = mobile(net)
    return [
        f"addr flush dev {interface} scope global",
        f"route del unreachable {four.removesuffix('1')}0/24",
        f"route del unreachable {six.removesuffix('1')}/64",
    ]


def put_behind(made: World, router: str, name: str) -> None:
    """A host behind a router, number 7 of the home prefix; the router is number 1."""
    made.add_host(name)
    there = made.hosts[name].path.name
    (one, one6), (seven, seven6) = home(router, 1), home(router, 7)
    made.ip(
        router,
        f"link add name lan type veth peer name eth0 netns {there}",
        f"addr add {one}/24 dev lan",
        f"addr add {one6}/64 dev lan nodad",
        "link set lan up",
    )
    made.ip(
        name,
        "link set eth0 up",
        f"addr add {seven}/24 dev eth0",
        f"addr add {seven6}/64 dev eth0 nodad",
        f"route add default via {one}",
        f"route add default via {one6}",
    )


def forward(made: World, host: str) -> None:
    """Have a host forward packets."""
    for setting in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        made.run(host, "sysctl", "-qw", f"{setting}=1")


def start_router(made: World, host: str, net: str, behind: str) -> None:
    """Make a host a mobile router, in a network, with a host behind it; it is registered."""
    put_behind(made, host, behind)
    forward(made, host)
    made.detach(host, "w0")
    made.ip(host, *arrive("w0", net))
    delegate(made, net)
    made.start_node(host)


def prefixes(net: str) -> list[list[str]]:
    """What a router registers in a network."""
    four, six = mobile(net)
    return [[four.removesuffix("1") + "0"], [six.removesuffix("1")]]


@pytest.fixture
def van(tmp_path: Path) -> Iterator[World]:
    """A mobile router in network a, a host behind it, `guest`, and CN."""
    with world(tmp_path, HOMES) as made:
        for net in ("a", "b"):
            # Not every network passes what is from the first address of a prefix.
            for program, first in zip(("iptables", "ip6tables"), prefixes(net), strict=True):
                made.run("r", program, "-A", "FORWARD", "-s", *first, "-j", "DROP")
        start_router(made, "mn", "a", "guest")
        delegate(made, "b")
        made.start_node("cn")
        yield made


def said(made: World, host: str, *command: str) -> str:
    """What a program says that may fail."""
    done = subprocess.run(
        ["nsenter", f"--net={made.hosts[host].path}", "--", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout


def ping(made: World, host: str, to: str, *options: str) -> int:
    """How many of three pings are answered."""
    answer = said(made, host, "ping", "-c", "3", "-i", "0.2", "-W", "3", *options, to)
    found = re.search(r"(\d+) received", answer)
    assert found is not None, answer
    return int(found[1])


@pytest.mark.parametrize("family", [0, 1])
def test_a_host_behind_a_mobile_router_and_a_node_reach_each_other(van: World, family: int) -> None:
    assert ping(van, "guest", HOMES["cn"][family]) == 3
    assert ping(van, "cn", home("mn", 7)[family]) == 3
    wait_until(lambda: van.registered("mn") == prefixes("a"))
    (peer,) = van.status("cn")["homes"][family]["peers"]
    assert peer["mobile"] == [mobile("a", 7)[family]]


ANY = ("0.0.0.0", "::")


def soft(made: World, host: str, old: str, new: str) -> None:
    """Make before break: to network `new` with the other uplink, then away from `old`."""
    made.ip(host, *arrive("w1", new, metric=50))
    wait_until(lambda: made.registered(host)[0][:1] == prefixes(new)[0])
    wait_until(lambda: made.registered(host)[1][:1] == prefixes(new)[1])
    made.ip(host, *leave("w0", old))
    wait_until(lambda: made.registered(host) == prefixes(new))


def hard(made: World, host: str, interface: str, old: str, new: str) -> None:
    """Break before make: away from `old`, then to `new`, by the other uplink or the same."""
    used = {"w0": "w1", "w1": "w0"}[interface]
    made.ip(host, *leave(used, old), *arrive(interface, new))
    wait_until(lambda: made.registered(host) == prefixes(new))


@pytest.mark.parametrize("family", [0, 1])
def test_connections_from_behind_survive_the_routers_moves(van: World, family: int) -> None:
    cn, guest = HOMES["cn"][family], home("mn", 7)[family]
    van.listen("cn", PORT, ANY[family])
    van.listen("guest", PORT, ANY[family])
    with van.talk("guest", cn, PORT) as out, van.talk("cn", guest, PORT) as inward:
        assert (out.greeting, inward.greeting) == (guest, cn)
        assert out.goes_on()
        assert inward.goes_on()
        soft(van, "mn", "a", "b")
        assert out.goes_on()
        assert inward.goes_on()
        hard(van, "mn", "w0", "b", "a")
        assert inward.goes_on()
        assert out.goes_on()
        van.ip("cn", "addr flush dev w0 scope global", *van.addresses("w1", "d", 2))
        assert out.goes_on()
        assert inward.goes_on()


@pytest.mark.parametrize("family", [0, 1])
def test_no_ping_from_behind_is_lost_in_a_soft_move(van: World, family: int) -> None:
    cn = HOMES["cn"][family]
    assert ping(van, "guest", cn) == 3
    pings = van.start("guest", "ping", "-i", "0.05", "-c", "100", cn, log="pings")
    wait_until(lambda: "icmp_seq=10 " in (van.folder / "pings").read_text())
    soft(van, "mn", "a", "b")
    assert pings.wait(60) == 0
    assert " 0% packet loss" in (van.folder / "pings").read_text()


@pytest.mark.parametrize("family", [0, 1])
def test_hosts_behind_two_routers_that_move_at_once_go_on_talking(
    tmp_path: Path, family: int
) -> None:
    with world(tmp_path, ROUTERS) as made:
        for host, first, second, behind in (("mn", "a", "b", "guest"), ("cn", "c", "d", "other")):
            start_router(made, host, first, behind)
            delegate(made, second)
        made.listen("other", PORT, ANY[family])
        with made.talk("guest", home("cn", 7)[family], PORT) as talk:
            assert talk.greeting == home("mn", 7)[family]
            assert talk.goes_on()
            soft(made, "mn", "a", "b")
            soft(made, "cn", "c", "d")
            assert talk.goes_on()
            made.ip("mn", *leave("w1", "b"), *arrive("w0", "a"))
            made.ip("cn", *leave("w1", "d"), *arrive("w0", "c"))
            assert talk.goes_on()
            assert ping(made, "other", home("mn", 7)[family]) == 3


@pytest.mark.parametrize("family", [0, 1])
def test_the_router_itself_has_a_home_address_by_which_it_is_reached(
    van: World, family: int
) -> None:
    cn, router = HOMES["cn"][family], home("mn", 1)[family]
    van.listen("cn", PORT, ANY[family])
    with van.talk("mn", cn, PORT) as talk:
        assert talk.greeting == router
        soft(van, "mn", "a", "b")
        assert talk.goes_on()
    assert ping(van, "cn", router) == 3
    assert ping(van, "mn", home("mn", 7)[family]) == 3
    assert ping(van, "guest", router) == 3


@pytest.mark.parametrize("family", [0, 1])
def test_a_host_without_mat_and_one_behind_a_router_reach_each_other(
    van: World, family: int
) -> None:
    van.listen("plain", PORT, ANY[family])
    with van.talk("guest", PLAIN[family], PORT) as talk:
        # For others the host is where the router is.
        assert talk.greeting == mobile("a", 7)[family]
        assert talk.goes_on()
    assert ping(van, "plain", mobile("a", 7)[family]) == 3


@pytest.mark.parametrize("family", [0, 1])
def test_a_host_behind_learns_what_the_router_cannot_forward(van: World, family: int) -> None:
    cn, router = HOMES["cn"][family], home("mn", 1)[family]
    assert ping(van, "guest", cn) == 3
    expired = said(van, "guest", "ping", "-c", "1", "-W", "3", "-t", "1", cn)
    assert f"From {router} icmp_seq=1 Time" in expired
    van.ip("r", "link set ra mtu 1300")
    van.ip("mn", "link set w0 mtu 1300")
    large = said(van, "guest", "ping", "-c", "1", "-W", "3", "-M", "do", "-s", "1400", cn)
    assert f"From {router} icmp_seq=1" in large
    assert "1300" in large
    assert "mtu 1300" in van.run("guest", "ip", "route", "get", cn)
    # CN has to find out as well.
    wait_until(lambda: ping(van, "guest", cn, "-s", "4000") == 3)


def test_hosts_behind_get_out_though_the_reverse_path_is_checked(tmp_path: Path) -> None:
    with world(tmp_path, HOMES) as made:
        for name in ("all", "default", "w0", "w1"):
            made.run("mn", "sysctl", "-qw", f"net.ipv4.conf.{name}.rp_filter=1")
        start_router(made, "mn", "a", "guest")
        # A second network behind, of some addresses of the prefix.
        there = made.add_host("yard").path.name
        made.ip(
            "mn",
            f"link add name yard type veth peer name eth0 netns {there}",
            "addr add 10.1.5.129/25 dev yard",
            "link set yard up",
        )
        made.ip(
            "yard",
            "link set eth0 up",
            "addr add 10.1.5.200/25 dev eth0",
            "route add default via 10.1.5.129",
        )
        made.start_node("cn")
        for host, number in (("guest", 7), ("yard", 200)):
            assert ping(made, host, HOMES["cn"][0]) == 3
            assert ping(made, "cn", home("mn", number)[0]) == 3


def test_the_router_says_what_it_lacks_until_it_has_it(tmp_path: Path) -> None:
    with world(tmp_path, HOMES) as made:
        made.attach("mn", "w0", "a", 2)
        # A discarding route to all that is private delegates nothing.
        made.ip("mn", "route add blackhole 192.168.0.0/16", "route add blackhole fd00::/16")
        made.launch_node("mn")

        def problems() -> str:
            return "\n".join(made.status("mn")["problems"])

        wait_until(lambda: (tmp_path / "mn.sock").exists() and "mobile prefix" in problems())
        for prefix, length in zip(HOMES["mn"], (24, 64), strict=True):
            lacks = f"home prefix {prefix}: no network has delegated a mobile prefix, a /{length}"
            assert lacks in problems()
            assert f"home prefix {prefix}: no interface leads to it" in problems()
        assert "net.ipv4.ip_forward is 0; set it to 1" in problems()
        assert "net.ipv6.conf.all.forwarding is 0; set it to 1" in problems()
        assert "net.ipv4.ip_forward is 0" in made.log("mn")
        assert [home["state"] for home in made.status("mn")["homes"]] == ["detached"] * 2
        forward(made, "mn")
        put_behind(made, "mn", "guest")
        delegate(made, "a")
        made.detach("mn", "w0")
        made.ip("mn", *arrive("w0", "a"))
        wait_until(lambda: made.registered("mn") == prefixes("a"))
        wait_until(lambda: problems() == "")


def test_all_that_makes_the_host_a_mobile_router_goes_at_the_end(van: World) -> None:
    assert ping(van, "guest", HOMES["cn"][0]) == 3
    assert van.stop("mn") == 0
    for family in ("-4", "-6"):
        assert "proto 77" not in van.run("mn", "ip", family, "rule")
        assert "proto 77" not in van.run("mn", "ip", family, "route", "show", "table", "all")
    assert "mat" not in van.run("mn", "nft", "list", "ruleset")


def test_a_successor_of_a_killed_router_goes_on_with_its_connections(van: World) -> None:
    van.listen("cn", PORT)
    with van.talk("guest", HOMES["cn"][0], PORT) as talk:
        assert talk.goes_on()
        van.kill("mn")
        van.start_node("mn")
        assert talk.goes_on()
