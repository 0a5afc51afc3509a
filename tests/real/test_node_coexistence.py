"""A node beside Docker, libvirt and what else keeps rules of its own in the host's kernel.

Their rules, chains, routes and settings are compared as the kernel lists them, without the node's;
their containers talk through the node's host while it moves.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.ims_server import wait_until
from tests.real.node_world import HOMES, PLAIN, World, address, world
from tests.real.privilege import needs_root

pytestmark = needs_root

HOME, CN = HOMES["mn"][0], HOMES["cn"][0]
CONTAINER, GUEST = "172.17.0.2", "192.168.122.50"
PORT = 8080

# As Docker sets them up, with one container that publishes its port 80 as 8080.
DOCKER = f"""*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport {PORT} -j DNAT --to-destination {CONTAINER}:80
COMMIT
*filter
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d {CONTAINER}/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
"""
_GUESTS = "192.168.122.0/24"
LIBVIRT = f"""*nat
:LIBVIRT_PRT - [0:0]
-A POSTROUTING -j LIBVIRT_PRT
-A LIBVIRT_PRT -s {_GUESTS} -d 224.0.0.0/24 -j RETURN
-A LIBVIRT_PRT -s {_GUESTS} -d 255.255.255.255/32 -j RETURN
-A LIBVIRT_PRT -s {_GUESTS} ! -d {_GUESTS} -p tcp -j MASQUERADE --to-ports 1024-65535
-A LIBVIRT_PRT -s {_GUESTS} ! -d {_GUESTS} -p udp -j MASQUERADE --to-ports 1024-65535
-A LIBVIRT_PRT -s {_GUESTS} ! -d {_GUESTS} -j MASQUERADE
COMMIT
*filter
:LIBVIRT_FWI - [0:0]
:LIBVIRT_FWO - [0:0]
:LIBVIRT_FWX - [0:0]
:LIBVIRT_INP - [0:0]
:LIBVIRT_OUT - [0:0]
-A INPUT -j LIBVIRT_INP
-A FORWARD -j LIBVIRT_FWX
-A FORWARD -j LIBVIRT_FWI
-A FORWARD -j LIBVIRT_FWO
-A OUTPUT -j LIBVIRT_OUT
-A LIBVIRT_FWI -d {_GUESTS} -o virbr0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A LIBVIRT_FWI -o virbr0 -j REJECT --reject-with icmp-port-unreachable
-A LIBVIRT_FWO -s {_GUESTS} -i virbr0 -j ACCEPT
-A LIBVIRT_FWO -i virbr0 -j REJECT --reject-with icmp-port-unreachable
-A LIBVIRT_FWX -i virbr0 -o virbr0 -j ACCEPT
-A LIBVIRT_INP -i virbr0 -p udp -m udp --dport 53 -j ACCEPT
-A LIBVIRT_INP -i virbr0 -p udp -m udp --dport 67 -j ACCEPT
-A LIBVIRT_OUT -o virbr0 -p udp -m udp --dport 68 -j ACCEPT
COMMIT
"""


@pytest.fixture(params=["iptables-nft", "iptables-legacy"])
def beside(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """MN with Docker's and libvirt's rules, a container and a guest; not a node yet."""
    restore = f"{request.param}-restore"
    if shutil.which(restore) is None:
        pytest.skip(f"{restore} is not installed")
    with world(tmp_path) as made:
        made.run("mn", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        _bridge(made, "docker0", "box", CONTAINER)
        _bridge(made, "virbr0", "guest", GUEST)
        for name, rules in (("docker", DOCKER), ("libvirt", LIBVIRT)):
            (tmp_path / name).write_text(rules)
            made.run("mn", restore, "--noflush", str(tmp_path / name))
        made.attach("mn", "w0", "a", 2)
        for name in ("all", "w0", "w1"):
            strict = 0 if name == "all" else 1
            made.run("mn", "sysctl", "-qw", f"net.ipv4.conf.{name}.rp_filter={strict}")
        yield made


def _bridge(made: World, bridge: str, host: str, inside: str) -> None:
    """A bridge of MN with one host behind it."""
    there = made.add_host(host).path.name
    outside = inside.rpartition(".")[0] + ".1"
    made.ip(
        "mn",
        f"link add name {bridge} type bridge",
        f"addr add {outside}/24 dev {bridge}",
        f"link set {bridge} up",
        f"link add name v{host} master {bridge} type veth peer name eth0 netns {there}",
        f"link set v{host} up",
    )
    made.ip(
        host,
        f"addr add {inside}/24 dev eth0",
        "link set eth0 up",
        f"route add default via {outside}",
    )


def move(made: World, new: str, net: str, number: int = 2) -> None:
    """MN to its other uplink."""
    old = {"w0": "w1", "w1": "w0"}[new]
    made.ip("mn", f"addr flush dev {old} scope global", *made.addresses(new, net, number))
    if made.daemons["mn"].poll() is None:
        wait_until(lambda: made.registered("mn")[0] == [address(net, number)])


def start_nodes(made: World) -> None:
    made.start_node("mn")
    made.start_node("cn")


# ---- containers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", ["box", "guest"])
def test_a_container_behind_masquerade_talks_from_the_mobile_address(
    beside: World, inside: str
) -> None:
    beside.listen("plain", PORT)
    with beside.talk(inside, PLAIN[0], PORT) as before:
        assert before.greeting == address("a", 2)
        start_nodes(beside)
        # The host itself talks to the same server by its home address.
        with beside.talk("mn", PLAIN[0], PORT, HOME) as own:
            assert own.greeting == address("a", 2)
            assert before.goes_on()
            with beside.talk(inside, PLAIN[0], PORT) as during:
                assert during.greeting == address("a", 2)
                assert own.goes_on()
                assert during.goes_on()
                assert before.goes_on()
        assert beside.run(inside, "ping", "-c", "2", "-W", "10", PLAIN[0])
        move(beside, "w1", "b")
        with beside.talk(inside, PLAIN[0], PORT) as after:
            assert after.greeting == address("b", 2)
            assert after.goes_on()


def test_a_published_port_is_reached_at_the_home_address_across_moves(beside: World) -> None:
    beside.listen("box", 80)
    start_nodes(beside)
    with (
        beside.talk("cn", HOME, PORT, CN) as peer,
        beside.talk("plain", address("a", 2), PORT) as stranger,
    ):
        assert peer.greeting == CN
        assert stranger.greeting == PLAIN[0]
        move(beside, "w1", "b")
        assert peer.goes_on()
        with beside.talk("plain", address("b", 2), PORT) as another:
            assert another.goes_on()
        move(beside, "w0", "a", 3)
        assert peer.goes_on()


def test_a_container_talks_to_its_host_by_each_of_its_addresses(beside: World) -> None:
    start_nodes(beside)
    beside.listen("mn", PORT + 1)
    beside.listen("box", 80)
    for to in (HOME, address("a", 2), "172.17.0.1"):
        with beside.talk("box", to, PORT + 1) as inward:
            assert inward.greeting == CONTAINER
            assert inward.goes_on()
        assert beside.run("box", "ping", "-c", "1", "-W", "10", to)
    for source in ("", HOME):
        with beside.talk("mn", CONTAINER, 80, source) as outward:
            assert outward.greeting == (source or "172.17.0.1")


def test_a_container_has_no_mat_of_its_own(beside: World) -> None:
    start_nodes(beside)
    assert beside.run("mn", "ping", "-c", "1", "-W", "10", CN)
    # As any host without MAT: to a home address it goes where the network routes that.
    ping = ["ping", "-c", "1", "-W", "10", CN]
    with pytest.raises(subprocess.CalledProcessError) as failed:
        beside.run("box", *ping)
    assert f"From {address('a', 1)} icmp_seq=1 Destination Net Unreachable" in failed.value.stdout
    # And to where the peer is, as to any host.
    beside.listen("cn", PORT)
    with beside.talk("box", address("c", 2), PORT) as direct:
        # Whose packets the peer takes for the node's own.
        assert direct.greeting == HOME
        assert direct.goes_on()


# ---- other people's rules ------------------------------------------------------------------------


def test_all_that_is_masqueraded_on_an_uplink_leaves_home_addresses_alone(beside: World) -> None:
    for uplink in ("w0", "w1"):
        rule = ["-A", "POSTROUTING", "-o", uplink, "-j", "MASQUERADE"]
        beside.run("mn", "iptables", "-t", "nat", *rule)
    beside.run("mn", "iptables", "-A", "INPUT", "-m", "state", "--state", "INVALID", "-j", "DROP")
    start_nodes(beside)
    beside.listen("cn", PORT)
    beside.listen("plain", PORT)
    with beside.talk("mn", CN, PORT) as peer, beside.talk("mn", PLAIN[0], PORT) as stranger:
        assert peer.greeting == HOME
        assert stranger.greeting == address("a", 2)
        move(beside, "w1", "b")
        assert peer.goes_on()
        (entry,) = beside.run("mn", "conntrack", "-L", "-p", "tcp", "-d", CN).splitlines()
        assert entry.count(HOME) == entry.count(CN) == 2


def theirs(made: World) -> list[str]:
    """Rules, chains, routes and settings of the host as the kernel lists them, less the node's."""
    found = [_without_mat(made.run("mn", "nft", "-s", "list", "ruleset"))]
    legacy = filter(shutil.which, ("iptables-legacy-save", "ip6tables-legacy-save"))
    found += [_without_mat(made.run("mn", program)) for program in legacy]
    for family in ("-4", "-6"):
        for what in (["rule"], ["route", "show", "table", "all"]):
            lines = made.run("mn", "ip", "-d", family, *what).splitlines(keepends=True)
            kept = "".join(line for line in lines if "proto 77" not in line)
            # The kernel's own, for the home address and the device of its route.
            own = re.sub(rf".*(mat-sink|{HOME}|{HOMES['mn'][1]}).*\n", "", kept)
            found.append("".join(sorted(own.splitlines(keepends=True))))
    settings = ["-a", "--pattern", r"^net\.ipv[46]\.conf\.[a-z]*[0-9]?\.(rp|forw|accept|arp)"]
    return [*found, re.sub(r".*mat-sink.*\n", "", made.run("mn", "sysctl", *settings))]


def _without_mat(saved: str) -> str:
    saved = re.sub(r"\[\d+:\d+\]|^#.*\n", "", saved, flags=re.MULTILINE)
    return re.sub(r"^table ip6? mat \{\n(.*\n)*?\}\n", "", saved, flags=re.MULTILINE)


def test_what_others_have_in_the_kernel_is_the_same_before_during_and_after(beside: World) -> None:
    firewall = "table inet theirs { chain c { type filter hook input priority 0; ct state new; }; }"
    beside.run("mn", "nft", firewall)
    beside.ip("mn", "rule add pref 1000 to 10.99.0.0/16 lookup 7", "route add 10.99.0.0/16 dev w0")

    def at(net: str) -> list[str]:
        move(beside, {"a": "w0", "b": "w1"}[net], net)
        return theirs(beside)

    # Whose routes differ with the network are the tests' own; the same moves without a node.
    there, before = at_rest(beside, "b"), at_rest(beside, "a")
    assert "DOCKER-USER" in "".join(before)
    beside.start_node("mn")
    during = theirs(beside)
    assert _but_reverse_path(during) == _but_reverse_path(before)
    assert "rp_filter = 2" in during[-1]
    assert _but_reverse_path(at("b")) == _but_reverse_path(there)
    assert beside.stop("mn") == 0
    assert theirs(beside) == there
    beside.start_node("mn")
    beside.kill("mn")
    assert _but_reverse_path(theirs(beside)) == _but_reverse_path(there)
    beside.start_node("mn")
    assert _but_reverse_path(at("a")) == _but_reverse_path(before)
    assert beside.stop("mn") == 0
    assert theirs(beside) == before


def at_rest(made: World, net: str) -> list[str]:
    new, old = {"a": ("w0", "w1"), "b": ("w1", "w0")}[net]
    made.ip("mn", f"addr flush dev {old} scope global", *made.addresses(new, net, 2))
    wait_until(lambda: not made.run("mn", "ip", "-6", "addr", "show", "tentative"))
    return theirs(made)


def _but_reverse_path(found: list[str]) -> list[str]:
    return [re.sub(r"conf\.w[01]\.rp_filter = .", "", one) for one in found]
