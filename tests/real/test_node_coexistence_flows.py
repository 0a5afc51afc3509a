"""What does not use home addresses goes on beside what does, and hosts of both families at once."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.real.ims_server import wait_until
from tests.real.node_world import HOMES, PLAIN, World, address, world
from tests.real.privilege import needs_root

pytestmark = needs_root

HOME, CN = HOMES["mn"], HOMES["cn"]
A, B, C = ((address(net, 2), address(net, 2, ipv6=True)) for net in "abc")
PORT, WIDE = 8080, 8081
ANY = ("0.0.0.0", "::")

# Both of one datagram each way: `udp.py listen AT PORT`, `udp.py ask FROM PORT TO PORT`.
DATAGRAM = """
import socket as s, sys
what, at, port, *to = sys.argv[1:]
with s.socket(s.AF_INET6 if ":" in at else s.AF_INET, s.SOCK_DGRAM) as one:
    one.bind((at, int(port)))
    print("listening", flush=True)
    if what == "listen":
        while True:
            data, source = one.recvfrom(99)
            one.sendto(source[0].encode(), source)
    one.connect((to[0], int(to[1])))
    one.settimeout(20)
    one.send(b"who am I?")
    print(one.recv(99).decode())
"""


@pytest.fixture(params=["maps", "queue"])
def two(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """MN in network a, CN in c; both registered."""
    with world(tmp_path) as made:
        made.attach("mn", "w0", "a", 2)
        for host in ("mn", "cn"):
            made.start_node(host, f'node.dataplane="{request.param}"')
        yield made


def listen_udp(made: World, host: str, at: str, port: int) -> None:
    log = f"udp-{host}-{port}-{at}"
    made.start(host, sys.executable, "-c", DATAGRAM, "listen", at, str(port), log=log)
    wait_until(lambda: "listening" in (made.folder / log).read_text())


def ask_udp(made: World, host: str, source: tuple[str, int], to: tuple[str, int]) -> str:
    """The address that a listener has seen."""
    words = ["ask", source[0], str(source[1]), to[0], str(to[1])]
    return made.run(host, sys.executable, "-c", DATAGRAM, *words).split()[-1]


def pings(made: World, host: str, *words: str) -> bool:
    try:
        made.run(host, "ping", "-c", "2", "-i", "0.2", "-W", "10", *words)
    except subprocess.CalledProcessError:
        return False
    return True


@pytest.mark.parametrize("family", [0, 1])
def test_programs_on_mobile_addresses_and_on_home_addresses_do_not_disturb_each_other(
    two: World, family: int
) -> None:
    mobile = {"mn": A[family], "cn": C[family]}
    home = {"mn": HOME[family], "cn": CN[family]}
    other = {"mn": "cn", "cn": "mn"}
    with ExitStack() as stack:
        open_ones = []
        for host in other:
            two.listen(host, WIDE, ANY[family])
            two.listen(host, PORT, mobile[host])
            listen_udp(two, host, mobile[host], PORT)
        for host, peer in other.items():
            by_home = stack.enter_context(two.talk(host, home[peer], WIDE))
            assert by_home.greeting == home[host]
            by_mobile = stack.enter_context(two.talk(host, mobile[peer], PORT, mobile[host]))
            assert by_mobile.greeting == mobile[host]
            open_ones += [by_home, by_mobile]
        for host, peer in other.items():
            source, to = (mobile[host], 0), (mobile[peer], PORT)
            assert ask_udp(two, host, source, to) == mobile[host]
            assert pings(two, host, "-I", mobile[host], mobile[peer])
            assert pings(two, host, home[peer])
        assert all(one.goes_on() for one in open_ones)


@pytest.mark.parametrize("family", [0, 1])
def test_a_program_on_a_mobile_address_loses_it_and_one_on_the_home_address_does_not(
    two: World, family: int
) -> None:
    two.listen("cn", WIDE, ANY[family])
    two.listen("cn", PORT, C[family])
    with two.talk("mn", CN[family], WIDE) as kept:
        two.attach("mn", "w1", "b", 2, metric=200)
        two.registers("mn", *([a, b] for a, b in zip(A, B, strict=True)))
        with two.talk("mn", C[family], PORT, B[family]) as staying:
            # By its own uplink, whichever is the best; the other goes.
            assert staying.greeting == B[family]
            two.detach("mn", "w0")
            two.registers("mn", *([b] for b in B))
            assert staying.goes_on()
            assert kept.goes_on()


@pytest.mark.parametrize("family", [0, 1])
def test_services_of_hosts_without_mat_are_used_as_ever(two: World, family: int) -> None:
    two.listen("plain", PORT, ANY[family])
    listen_udp(two, "plain", PLAIN[family], 123)
    with two.talk("mn", PLAIN[family], PORT) as before:
        assert before.greeting == A[family]
        # As a time daemon asks: from the port that it asks at.
        assert ask_udp(two, "mn", (ANY[family], 123), (PLAIN[family], 123)) == A[family]
        two.attach("mn", "w1", "b", 2, metric=50)
        two.detach("mn", "w0")
        two.registers("mn", *([b] for b in B))
        with two.talk("mn", PLAIN[family], PORT) as after:
            assert after.greeting == B[family]
        assert ask_udp(two, "mn", (ANY[family], 123), (PLAIN[family], 123)) == B[family]


def test_a_lease_is_renewed_while_the_node_talks(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        log = tmp_path / "dnsmasq.log"
        options = ["--port=0", "--no-ping", "--log-dhcp", "--user=root", "--bind-interfaces"]
        options += [f"--log-facility={log}", f"--dhcp-leasefile={tmp_path}/leases"]
        options += ["--interface=ra", "--conf-file=/dev/null", f"--pid-file={tmp_path}/pid"]
        # Dnsmasq leases for two minutes at least, and has them renewed when it is told to.
        options += ["--dhcp-range=192.168.1.100,192.168.1.100,2m", "--dhcp-option-force=58,3"]
        made.start("r", "dnsmasq", "--keep-in-foreground", *options)
        wait_until(lambda: log.exists() and "started" in log.read_text())
        made.start_node("cn")
        # The other family has its address by hand.
        made.ip("mn", *made.addresses("w0", "a", 2)[1::2])
        made.start_node("mn", 'node.dhcp=["w0"]', 'node.interfaces=["w0"]')
        leased = "192.168.1.100"
        assert made.registered("mn")[0] == [leased]
        made.listen("cn", WIDE)
        with made.talk("mn", CN[0], WIDE) as kept:
            so_far = log.read_text().count(f"DHCPACK(ra) {leased}")
            wait_until(lambda: log.read_text().count(f"DHCPACK(ra) {leased}") > so_far + 1)
            assert kept.goes_on()
        assert "DHCPNAK" not in log.read_text()
        assert made.registered("mn")[0] == [leased]


# ---- both families -------------------------------------------------------------------------------


def test_each_family_moves_by_itself_and_both_at_once(two: World) -> None:
    for family in (0, 1):
        two.listen("cn", WIDE, ANY[family])
    with two.talk("mn", CN[0], WIDE) as four, two.talk("mn", CN[1], WIDE) as six:
        assert (four.greeting, six.greeting) == HOME

        def both_go_on() -> bool:
            return four.goes_on() and six.goes_on()

        # IPv4 alone to network b, with IPv6 still in a.
        of_four, of_six = (two.addresses("w1", "b", 2)[family::2] for family in (0, 1))
        two.ip("mn", f"addr del {A[0]}/24 dev w0", *of_four)
        two.registers("mn", [B[0]], [A[1]])
        assert both_go_on()
        # IPv6 after it.
        two.ip("mn", f"addr del {A[1]}/64 dev w0", *of_six)
        two.registers("mn", [B[0]], [B[1]])
        assert both_go_on()
        # Both at once, and the peer as well.
        two.ip("mn", "addr flush dev w1 scope global", *two.addresses("w0", "a", 3))
        two.ip("cn", "addr flush dev w0 scope global", *two.addresses("w1", "d", 2))
        two.registers("mn", [address("a", 3)], [address("a", 3, ipv6=True)])
        two.registers("cn", [address("d", 2)], [address("d", 2, ipv6=True)])
        assert both_go_on()
        # A network without IPv6 is one in which IPv6 waits.
        two.ip("mn", f"addr del {address('a', 3, ipv6=True)}/64 dev w0")
        wait_until(lambda: two.status("mn")["homes"][1]["addresses"] == [])
        assert four.goes_on()
        two.ip("mn", *two.addresses("w1", "b", 3)[1::2])
        two.registers("mn", [address("a", 3)], [address("b", 3, ipv6=True)])
        assert both_go_on()
