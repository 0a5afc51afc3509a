"""Paths that are narrower than the links at both ends, and errors on the way, over real daemons.

CN is far away, behind a link of 1300 bytes between two routers; MN is in network a.
"""

import errno
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from struct import Struct
from typing import NamedTuple

import pytest

from tests.real.ims_server import wait_until
from tests.real.node_world import HOMES, World, address, world
from tests.real.privilege import needs_root
from tests.real.two_hosts import inside

pytestmark = needs_root

PORT = 7070
NARROW = 1300
SIZE = 2_000_000
MN, CN = HOMES["mn"], HOMES["cn"]
FAMILIES = (socket.AF_INET, socket.AF_INET6)
LEVELS = (socket.IPPROTO_IP, socket.IPPROTO_IPV6)
DISCOVER, RECEIVE_ERRORS, MTU = (10, 23), (11, 25), (14, 24)
"""IP_MTU_DISCOVER, IP_RECVERR, IP_MTU, and the same of IPv6."""
DO = 2
NO_CHECK, NO_CHECK6_TX, NO_CHECK6_RX = 11, 101, 102
_ERROR = Struct("=IBBBxII")
_OFFENDER = ((Struct("=H2x4s"), 8), (Struct("=H6x16s"), 24))


@pytest.fixture(params=["maps", "queue"])
def narrow(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """MN in network a, CN far away; both registered."""
    with world(tmp_path) as made:
        far(made)
        made.attach("mn", "w0", "a", 2)
        for host in ("mn", "cn"):
            made.start_node(host, f'node.dataplane="{request.param}"')
        yield made


def far(made: World) -> None:
    """A second router, with the narrow link to the first, and CN in its network."""
    made.add_host("far")
    there, cn = (made.hosts[name].path.name for name in ("far", "cn"))
    (m1, m6), (f1, f6) = ([address(n, 1), address(n, 1, ipv6=True)] for n in ("m", "f"))
    m2, m26 = address("m", 2), address("m", 2, ipv6=True)
    made.ip(
        "r",
        f"link add name rm mtu {NARROW} type veth peer name back mtu {NARROW} netns {there}",
        f"addr add {m1}/24 dev rm",
        f"addr add {m6}/64 dev rm nodad",
        "link set rm up",
    )
    made.ip(
        "far",
        f"addr add {m2}/24 dev back",
        f"addr add {m26}/64 dev back nodad",
        "link set back up",
        f"link add name front type veth peer name w2 netns {cn}",
        f"addr add {f1}/24 dev front",
        f"addr add {f6}/64 dev front nodad",
        "link set front up",
        f"route add default via {m1}",
        f"route add default via {m6}",
    )
    made.ip("r", f"route add 192.168.7.0/24 via {m2}", f"route add fd00:7::/64 via {m26}")
    for setting in ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"):
        made.run("far", "sysctl", "-qw", setting)
    made.detach("cn", "w0")
    made.ip("cn", "link set w2 up")
    made.attach("cn", "w2", "f", 2)


def bound(made: World, host: str, family: int, kind: int, port: int = 0) -> socket.socket:
    """A socket of a host, bound to its home address."""

    def make() -> socket.socket:
        opened = socket.socket(FAMILIES[family], kind)
        opened.settimeout(20)
        opened.bind((HOMES[host][family], port))
        return opened

    return made.stack.enter_context(inside(made.hosts[host], make))


def pair(made: World, family: int, kind: int) -> tuple[socket.socket, socket.socket]:
    """A socket of MN that is connected to one of CN, and that of CN."""
    server, client = bound(made, "cn", family, kind, PORT), bound(made, "mn", family, kind)
    if kind == socket.SOCK_STREAM:
        server.listen()
        client.connect((CN[family], PORT))
        accepted, _ = server.accept()
        accepted.settimeout(20)
        return client, made.stack.enter_context(accepted)
    client.connect((CN[family], PORT))
    return client, server


def transfer(sender: socket.socket, receiver: socket.socket) -> None:
    """Bring a good deal from one end of a connection to the other."""
    data, left = memoryview(bytes(SIZE)), SIZE
    sender.settimeout(0)
    receiver.settimeout(20)
    while left:
        with suppress(BlockingIOError):
            data = data[sender.send(data) :] if data else data
        sender.settimeout(0)
        received = len(receiver.recv(1 << 18))
        assert received
        left -= received


def path_mtu(made: World, host: str, to: str) -> str:
    """What the host's routes say that packets to an address may have."""
    said = made.run(host, "ip", "route", "get", to)
    found = re.search(r" mtu (\d+)", said)
    return found[1] if found else ""


def ping(made: World, host: str, to: str, *options: str) -> bool:
    """Whether one ping is answered."""
    command = ["ping", "-c", "1", "-W", "2", *options, to]
    done = subprocess.run(
        ["nsenter", f"--net={made.hosts[host].path}", "--", *command],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def move(made: World, interface: str, net: str) -> None:
    """MN leaves its network for another: break before make."""
    old = {"w0": "w1", "w1": "w0"}[interface]
    made.ip("mn", f"addr flush dev {old} scope global", *made.addresses(interface, net, 2))
    made.registers("mn", [address(net, 2)], [address(net, 2, ipv6=True)])


# ---- narrow paths --------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [0, 1])
def test_a_connection_finds_out_how_narrow_the_path_is_in_both_directions(
    narrow: World, family: int
) -> None:
    client, server = pair(narrow, family, socket.SOCK_STREAM)
    transfer(server, client)
    assert path_mtu(narrow, "cn", MN[family]) == str(NARROW)
    transfer(client, server)
    assert path_mtu(narrow, "mn", CN[family]) == str(NARROW)
    assert client.getsockopt(LEVELS[family], MTU[family]) == NARROW


@pytest.mark.parametrize("family", [0, 1])
def test_a_connection_goes_on_in_networks_with_other_mtus(narrow: World, family: int) -> None:
    client, server = pair(narrow, family, socket.SOCK_STREAM)
    transfer(server, client)
    for link in ("rb", "w1"):
        narrow.run("r" if link == "rb" else "mn", "ip", "link", "set", link, "mtu", "1280")
    move(narrow, "w1", "b")
    transfer(server, client)
    transfer(client, server)
    assert path_mtu(narrow, "cn", MN[family]) == "1280"
    move(narrow, "w0", "a")
    transfer(server, client)
    transfer(client, server)


@pytest.mark.parametrize("family", [0, 1])
def test_a_connection_of_full_size_goes_on_where_the_path_gets_narrow(
    narrow: World, family: int
) -> None:
    narrow.detach("cn", "w2")
    narrow.attach("cn", "w0", "c", 2)
    narrow.registers("cn", [address("c", 2)], [address("c", 2, ipv6=True)])
    client, server = pair(narrow, family, socket.SOCK_STREAM)
    transfer(server, client)
    transfer(client, server)
    assert client.getsockopt(LEVELS[family], MTU[family]) == 1500
    narrow.detach("cn", "w0")
    narrow.attach("cn", "w2", "f", 2)
    narrow.registers("cn", [address("f", 2)], [address("f", 2, ipv6=True)])
    transfer(client, server)
    transfer(server, client)
    assert client.getsockopt(LEVELS[family], MTU[family]) == NARROW


@pytest.mark.parametrize("family", [0, 1])
def test_what_is_longer_than_the_path_allows_arrives_in_fragments(
    narrow: World, family: int
) -> None:
    for host, to in (("mn", CN), ("cn", MN)):
        # Of IPv6, the first may be what finds out how narrow the path is.
        wait_until(lambda host=host, to=to: ping(narrow, host, to[family], "-s", "4000"))
    client, server = pair(narrow, family, socket.SOCK_DGRAM)
    server.connect(client.getsockname()[:2])
    long = bytes(range(250)) * 32
    wait_until(lambda: arrives(client, server, long))
    wait_until(lambda: arrives(server, client, long))


def arrives(sender: socket.socket, receiver: socket.socket, data: bytes) -> bool:
    """Whether a datagram is received within a while, as it was sent."""
    sender.settimeout(20)
    receiver.settimeout(0.5)
    with suppress(TimeoutError, OSError):
        sender.send(data)
        return receiver.recv(1 << 16) == data
    return False


@pytest.mark.parametrize("family", [0, 1])
def test_datagrams_without_a_checksum_arrive_before_and_after_a_move(
    narrow: World, family: int
) -> None:
    client, server = pair(narrow, family, socket.SOCK_DGRAM)
    server.connect(client.getsockname()[:2])
    for end in (client, server):
        if family == 0:
            end.setsockopt(socket.SOL_SOCKET, NO_CHECK, 1)
        else:
            end.setsockopt(socket.IPPROTO_UDP, NO_CHECK6_TX, 1)
            end.setsockopt(socket.IPPROTO_UDP, NO_CHECK6_RX, 1)
    for net, interface in (("a", ""), ("b", "w1"), ("a", "w0")):
        if interface:
            move(narrow, interface, net)
        for data in (b"short", bytes(5000)):
            wait_until(lambda data=data: arrives(client, server, data))
            wait_until(lambda data=data: arrives(server, client, data))


def test_what_has_no_room_for_the_announcement_leaves_without_it(narrow: World) -> None:
    narrow.detach("cn", "w2")
    narrow.attach("cn", "w0", "c", 2)
    for host, link in (("r", "rb"), ("mn", "w1")):
        narrow.ip(host, f"link set {link} mtu 1400")
    # CN confirms nothing, and that is not noticed for a minute.
    messages = ("-i", "rb", "-o", "rc", "-p", "udp", "--dport", "49628")
    narrow.run("r", "ip6tables", "-A", "FORWARD", *messages, "-j", "DROP")
    narrow.stop("mn")
    narrow.start_node("mn", "protocol.initial_timeout=60", "protocol.minimum_timeout=60")
    client, server = pair(narrow, 1, socket.SOCK_DGRAM)
    wait_until(lambda: arrives(client, server, b"hello"))
    move(narrow, "w1", "b")
    for size in (1400, 1376):
        wait_until(lambda size=size: arrives(client, server, bytes(size - 48)))


# ---- errors --------------------------------------------------------------------------------------


class Refused(NamedTuple):
    """What a socket's error queue says (ip(7), IP_RECVERR)."""

    error: int
    offender: str
    destination: str
    mtu: int


def refused(sock: socket.socket, family: int, error: int, provoke: Callable[[], object]) -> Refused:
    """The first error of a kind that comes of something."""
    sock.setsockopt(LEVELS[family], RECEIVE_ERRORS[family], 1)
    found: list[Refused] = []

    def come() -> bool:
        with suppress(OSError):
            provoke()
        # With a time-out it would be waited for packets.
        sock.setblocking(False)
        with suppress(BlockingIOError):
            flags = socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT
            _, ancillary, _, name = sock.recvmsg(2000, 200, flags)
            found.append(_refused(ancillary[0][2], family, str(name[0])))
        return any(one.error == error for one in found)

    wait_until(come)
    return next(one for one in found if one.error == error)


def _refused(data: bytes, family: int, destination: str) -> Refused:
    error, _, _, _, info, _ = _ERROR.unpack_from(data)
    form, _ = _OFFENDER[family]
    known, packed = form.unpack_from(data, _ERROR.size)
    offender = socket.inet_ntop(FAMILIES[family], packed) if known else ""
    return Refused(error, offender, destination, info)


@pytest.mark.parametrize("family", [0, 1])
def test_an_application_learns_of_errors_about_home_addresses(narrow: World, family: int) -> None:
    client, server = pair(narrow, family, socket.SOCK_DGRAM)
    wait_until(lambda: arrives(client, server, b"hello"))
    for net, interface in (("a", ""), ("b", "w1")):
        if interface:
            move(narrow, interface, net)
            wait_until(lambda: arrives(client, server, b"hello"))
        nobody = bound(narrow, "mn", family, socket.SOCK_DGRAM)
        nobody.connect((CN[family], PORT + 1))
        # Of CN's own, CN is the offender by its home address.
        asks = partial(nobody.send, b"anybody?")
        seen = refused(nobody, family, errno.ECONNREFUSED, asks)
        assert seen == Refused(errno.ECONNREFUSED, CN[family], CN[family], 0)
    client.setsockopt(LEVELS[family], DISCOVER[family], DO)
    router = address("b", 1, ipv6=family == 1)
    seen = refused(client, family, errno.EMSGSIZE, lambda: client.send(bytes(1400)))
    assert seen == Refused(errno.EMSGSIZE, router, CN[family], NARROW)
    assert client.getsockopt(LEVELS[family], MTU[family]) == NARROW
    # The host is gone, and its neighbour finds that out.
    narrow.ip("cn", "link set w2 down")
    beyond = address("m", 2, ipv6=family == 1)
    seen = refused(client, family, errno.EHOSTUNREACH, lambda: client.send(b"anybody?"))
    assert seen == Refused(errno.EHOSTUNREACH, beyond, CN[family], 0)
