"""Two hosts and a router between them, as namespaces, and a dataplane in a host.

Each host has one link to the router, with addresses of two networks on it, so that it can move from
one mobile address to the other, and its home address on `lo`; routes are as the daemon has them. A
third namespace, behind the first host, is for when that is a mobile router.

Offload of checksums is off on all links: what is wrong on the wire is dropped by who gets it.
"""

import asyncio
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Final, TypeVar, final

from mat.address import Address, format_address, parse_address
from mat.effects import Handle, Translation
from mat_real.dataplane import Counters, Dataplane, DataplaneError, Mode
from mat_real.dataplane.plane import NetfilterDataplane
from mat_real.namespaces import NodeRef, namespaces

LIMIT: Final = 10.0
"""Seconds after which what should have happened counts as not happening."""
HOME_TABLE: Final = "49628"
HOST: Final = 128
_ETHTOOL, _SET_TX_CHECKSUM = 0x8946, 0x17

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """The addresses of one family: of hosts, and of the router on their networks."""

    version: int
    homes: tuple[str, str]
    mobiles: tuple[tuple[str, str], tuple[str, str]]
    """For each host, on either of its networks."""
    gateways: tuple[tuple[str, str], tuple[str, str]]
    length: int
    behind: str
    """Home prefix of a network behind the first host."""
    behind_mobile: str
    """What stands for it on the wire."""
    behind_length: int

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET if self.version == 4 else socket.AF_INET6

    @property
    def mapped_length(self) -> int:
        """The length of the prefixes behind, in the 128-bit form."""
        return self.behind_length + (96 if self.version == 4 else 0)

    def prefix_behind(self) -> tuple[Address, Address]:
        """The home prefix of the network behind the first host, and its mobile prefix."""
        zero = "0" if self.version == 4 else ""
        home, mobile = self.behind.format(zero), self.behind_mobile.format(zero)
        return parse_address(home), parse_address(mobile)


IPV4: Final = Plan(
    4,
    ("10.1.0.1", "10.2.0.1"),
    (("192.0.2.10", "198.51.100.10"), ("203.0.113.10", "100.64.0.10")),
    (("192.0.2.1", "198.51.100.1"), ("203.0.113.1", "100.64.0.1")),
    24,
    "10.3.0.{}",
    "100.65.0.{}",
    24,
)
IPV6: Final = Plan(
    6,
    ("fd01::1", "fd02::1"),
    (("2001:db8:a::10", "2001:db8:b::10"), ("2001:db8:c::10", "2001:db8:d::10")),
    (("2001:db8:a::1", "2001:db8:b::1"), ("2001:db8:c::1", "2001:db8:d::1")),
    64,
    "fd03::{}",
    "2001:db8:e::{}",
    64,
)


def inside(node: NodeRef, action: Callable[[], T]) -> T:
    """Do something in a namespace: what it opens stays there. By a thread that ends after it."""
    done: list[T] = []
    failed: list[BaseException] = []

    def act() -> None:
        try:
            node.enter()
            done.append(action())
        except BaseException as error:  # noqa: BLE001 - raised again by who waits
            failed.append(error)

    thread = threading.Thread(target=act)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


@dataclass
class Host:
    """A host: its namespace and its addresses."""

    node: NodeRef
    plan: Plan
    index: int
    opened: list[socket.socket] = field(default_factory=list)

    @property
    def home(self) -> str:
        """Its home address."""
        return self.plan.homes[self.index]

    @property
    def mobiles(self) -> tuple[str, str]:
        """Its mobile addresses."""
        return self.plan.mobiles[self.index]

    def bound(
        self, kind: int, address: str = "", port: int = 0, protocol: int = 0
    ) -> socket.socket:
        """A socket in this host, bound to an address, its home address by default."""

        def make() -> socket.socket:
            made = socket.socket(self.plan.family, kind, protocol)
            made.settimeout(LIMIT)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if kind == socket.SOCK_STREAM:
                # Closed, it is gone: nothing is sent again in the middle of the next test.
                made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            made.bind((address or self.home, port))
            return made

        made = inside(self.node, make)
        self.opened.append(made)
        return made

    def listen(self, address: str = "", port: int = 0) -> socket.socket:
        """A listening socket."""
        made = self.bound(socket.SOCK_STREAM, address, port)
        made.listen()
        return made


@dataclass
class Net:
    """Two hosts, the router between them, and a namespace behind the first host."""

    plan: Plan
    a: Host
    b: Host
    router: NodeRef
    behind: NodeRef
    planes: list["Plane"] = field(default_factory=list)

    @property
    def nft(self) -> str:
        """The family, as nftables calls it."""
        return "ip" if self.plan.version == 4 else "ip6"

    @property
    def iptables(self) -> str:
        """The family's iptables."""
        return f"{self.nft}tables"

    def clean(self) -> None:
        """Have nothing left of a test: no processes, sockets, rules, or a narrow path."""
        for host in (self.a, self.b):
            for made in host.opened:
                made.close()
            host.opened.clear()
        for plane in self.planes:
            plane.process.kill()
            plane.process.wait()
            plane.unlink()
        self.planes.clear()
        for host in (self.a, self.b):
            host.node.run("nft", "flush", "ruleset")
            set_offload(host.node, "eth0", on=False)
        self.router.run("ip", "link", "set", "to-b", "mtu", "1500")
        for host in (self.a, self.b):
            # With the route goes what was learned of the way.
            for change in ("delete", "add"):
                _script(host.node, iter((_home_route(host, change), *_ways_out(host, change))))

    def narrow(self, mtu: int) -> None:
        """Make the router's link to the second host narrow."""
        self.router.run("ip", "link", "set", "to-b", "mtu", str(mtu))

    def listens_to_netlink(self, pid: int) -> bool:
        """Whether a process in the first host has a netlink socket that is in a group."""
        lines = self.a.node.run("cat", "/proc/net/netlink").splitlines()[1:]
        return any(line.split()[2] == str(pid) and int(line.split()[3], 16) for line in lines)

    @contextmanager
    def others_rules(self, host: Host) -> Generator[None]:
        """Tables as of container engines, firewalls and their users."""
        restore = f"""*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s {self.plan.behind.format(128)} -j MASQUERADE
COMMIT
*raw
-A PREROUTING -p udp --dport 9 -j DROP
COMMIT
*mangle
-A PREROUTING -p udp --dport 9 -j MARK --set-mark 7
-A OUTPUT -p udp --dport 9 -j MARK --set-mark 7
COMMIT
*filter
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
"""
        command = [f"{self.iptables}-restore"]
        loading = host.node.popen(command, stdin=subprocess.PIPE, text=True)
        loading.communicate(restore)
        assert loading.returncode == 0
        host.node.run("nft", "add table inet filter")
        host.node.run("nft", "add chain inet filter input { type filter hook input priority 0; }")
        host.node.run("nft", "add rule inet filter input udp dport 9 drop")
        yield

    @contextmanager
    def network_behind(self) -> Generator[Host]:
        """A network behind the first host, with a host in it; packets to it come to the first."""
        plan, router = self.plan, self.a.node
        ip, length = ("ip", f"-{plan.version}"), str(plan.behind_length)
        _, mobile = (format_address(prefix) for prefix in plan.prefix_behind())
        forwarding = "ipv4.ip_forward" if plan.version == 4 else "ipv6.conf.all.forwarding"
        try:
            _link(router, "eth9", self.behind, "eth0")
            router.run("sysctl", "-q", "-w", f"net.{forwarding}=1")
            nodad = ("nodad",) if plan.version == 6 else ()
            inner, first = plan.behind.format(9), plan.behind.format(1)
            router.run(*ip, "address", "add", f"{first}/{length}", "dev", "eth9", *nodad)
            self.behind.run(*ip, "address", "add", f"{inner}/{length}", "dev", "eth0", *nodad)
            self.behind.run(*ip, "route", "add", "default", "via", first)
            # By its own route: packets from behind leave with a source in the mobile prefix.
            rule = ("rule", "add", "pref", "4920", "from", f"{mobile}/{length}")
            router.run(*ip, *rule, "lookup", "49700")
            via = self.a.mobiles[0]
            self.router.run(*ip, "route", "add", f"{mobile}/{length}", "via", via)
            yield Host(self.behind, plan, 0, self.a.opened)
        finally:
            with suppress(subprocess.CalledProcessError):
                router.run("ip", "link", "delete", "eth9")
                self.router.run(*ip, "route", "delete", f"{mobile}/{length}")
                router.run(*ip, "rule", "delete", "pref", "4920", "from", f"{mobile}/{length}")
                router.run("sysctl", "-q", "-w", f"net.{forwarding}=0")

    def plane(self, host: Host, mode: Mode) -> "Plane":
        """A dataplane in a host, which knows its own addresses."""
        made = Plane(host.node, mode)
        self.planes.append(made)
        made.own(host.home, HOST, host.mobiles[:1])
        made.commit()
        return made

    def translation(
        self, host: Host, own: int = 0, peer: int = 0, *, announce: bool = False
    ) -> Translation:
        """How a host translates when it and the other are on these of their networks."""
        other = self.b if host is self.a else self.a
        local, mobile = parse_address(host.mobiles[own]), parse_address(other.mobiles[peer])
        home = parse_address(host.home)
        return Translation(
            parse_address(other.home),
            mobile,
            (mobile,),
            home,
            HOST,
            local,
            (local,),
            home if announce else None,
        )

    def planes_know(self, mode: Mode) -> tuple["Plane", "Plane"]:
        """Dataplanes in both hosts, each with the translation of the other."""
        both = self.plane(self.a, mode), self.plane(self.b, mode)
        for host, plane in zip((self.a, self.b), both, strict=True):
            plane.set(self.translation(host))
            plane.commit()
        return both


class Plane:
    """A dataplane in a process of its own, in a namespace; methods as in `Dataplane`.

    A `Handle` is the number of the event that brought it.
    """

    def __init__(self, node: NodeRef, mode: Mode) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", __name__, node.text, mode.value, str(theirs.fileno())]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), env=environment)
        theirs.close()
        self._link = Connection(ours.detach())
        try:
            self._answer()
        except DataplaneError:
            self.end()
            raise

    def _answer(self) -> Any:
        assert self._link.poll(LIMIT), "the dataplane does not answer"
        answer = self._link.recv()
        if isinstance(answer, DataplaneError):
            raise answer
        return answer

    def _call(self, name: str, *arguments: object, **options: object) -> Any:
        self._link.send((name, arguments, options))
        return self._answer()

    def set(self, translation: Translation) -> None:
        self._call("set", translation)

    def clear(self, home: str) -> None:
        self._call("clear", parse_address(home))

    def own(self, home: str, length: int, mobile: tuple[str, ...]) -> None:
        self._call("own", parse_address(home), length, tuple(map(parse_address, mobile)))

    def commit(self) -> None:
        self._call("commit")

    def release(self, event: int, translation: Translation) -> None:
        self._call("release", event, translation)

    def drop(self, event: int) -> None:
        self._call("drop", event)

    def used(self) -> list[Address]:
        found: list[Address] = self._call("used")
        return found

    def standing(self) -> list[Translation]:
        found: list[Translation] = self._call("standing")
        return found

    def counters(self) -> Counters:
        found: Counters = self._call("counters")
        return found

    def set_mtu(self, size: int) -> None:
        self._call("set_mtu", size)

    def close(self, *, keep: bool = False) -> None:
        """Close the dataplane and end the process."""
        self._call("close", keep=keep)
        self.end()

    def kill(self) -> None:
        """End the process as nothing can be done about."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        """End the process; what it put into the kernel stays."""
        self._link.close()
        self.process.wait()

    def unlink(self) -> None:
        """Close this end of the link."""
        self._link.close()

    def events(self, count: int) -> list[tuple[str, Address, Address, Address | None]]:
        """The packets that the consumer was given, as soon as there are so many."""
        found: list[tuple[str, Address, Address, Address | None]] = []

        def enough() -> bool:
            found[:] = self._call("events")
            return len(found) >= count

        until(enough)
        return found


@final
class Seen:
    """A packet on the wire."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._version = data[0] >> 4

    @property
    def source(self) -> str:
        """Where it is from, on the wire."""
        return self._addresses(0)[0]

    @property
    def destination(self) -> str:
        """Where it goes, on the wire."""
        return self._addresses(0)[1]

    @property
    def quoted(self) -> tuple[str, str]:
        """The addresses of the packet that it quotes."""
        return self._addresses(28 if self._version == 4 else 48)

    def _addresses(self, at: int) -> tuple[str, str]:
        family, first, width = (
            (socket.AF_INET, 12, 4) if self._version == 4 else (socket.AF_INET6, 8, 16)
        )
        source = self.data[at + first : at + first + width]
        destination = self.data[at + first + width : at + first + 2 * width]
        return socket.inet_ntop(family, source), socket.inet_ntop(family, destination)

    @property
    def checksums_are_right(self) -> bool:
        """Whether all of them are as scapy computes them."""
        from scapy.layers.inet import ICMP, IP, TCP, UDP
        from scapy.layers.inet6 import IPv6, _ICMPv6

        packet = (IP if self._version == 4 else IPv6)(self.data)
        layer: Any = packet
        while layer:
            if isinstance(layer, (IP, TCP, UDP, ICMP)):
                del layer.chksum
            elif isinstance(layer, _ICMPv6):
                del layer.cksum
            # What an error quotes is cut short; only the error's own sum covers it.
            layer = None if isinstance(layer, (ICMP, _ICMPv6)) else layer.payload
        return bytes(packet) == self.data


@final
class Wire:
    """What passes a device, of IP and with a payload; neighbour discovery and the like aside."""

    def __init__(self, node: NodeRef, device: str) -> None:
        def make() -> socket.socket:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
            made.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)
            made.bind((device, 3))
            made.setblocking(False)
            return made

        self._socket = inside(node, make)
        self._seen: list[Seen] = []

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def seen(self) -> list[Seen]:
        """The packets so far."""
        with suppress(BlockingIOError):
            while True:
                data, (_, protocol, *_rest) = self._socket.recvfrom(1 << 17)
                if protocol in (0x0800, 0x86DD) and not _is_of_the_link(data):
                    self._seen.append(Seen(data))
        return self._seen

    def packets(self, count: int) -> list[Seen]:
        """The packets so far, as soon as there are so many."""
        until(lambda: len(self.seen()) >= count)
        return self._seen


def _is_of_the_link(data: bytes) -> bool:
    """Neighbour and router discovery, and multicast of the link."""
    if data[0] >> 4 == 4:
        return data[16] >= 224
    return data[24] == 0xFF or (data[6] == 58 and 130 <= data[40] <= 153) or data[6] == 0


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; fails if it does not come about."""
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "the condition was not met in time"
        time.sleep(0.01)


# ---- the namespaces ----------------------------------------------------------------------------


@contextmanager
def two_hosts(plan: Plan, what: str = "dataplane") -> Generator[Net]:
    """The namespaces, for as long as the block lasts."""
    names = [f"mat-{what}-{os.getpid()}-{part}" for part in ("a", "b", "r", "c")]
    with namespaces(*names) as (a, b, router, behind):
        net = Net(plan, Host(a, plan, 0), Host(b, plan, 1), router, behind)
        for node in (a, b, router, behind):
            _script(node, _quiet())
        for host, port in ((net.a, "to-a"), (net.b, "to-b")):
            _link(host.node, "eth0", router, port)
            _script(router, _router(plan, host.index, port))
            _script(host.node, _host(host))
        try:
            yield net
        finally:
            net.clean()


def _script(node: NodeRef, lines: Iterator[str]) -> None:
    node.run("sh", "-e", "-c", "\n".join(lines))


def _quiet() -> Iterator[str]:
    yield "sysctl -q -w net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0"
    yield "sysctl -q -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0"


def _link(one: NodeRef, name: str, other: NodeRef, other_name: str) -> None:
    """A link between two namespaces; without offload of checksums."""
    one.run(
        *("ip", "link", "add", name, "type", "veth"),
        *("peer", "name", other_name, "netns", other.path.name),
    )
    for node, device in ((one, name), (other, other_name)):
        node.run("ip", "link", "set", device, "up")
        set_offload(node, device, on=False)


def set_offload(node: NodeRef, device: str, *, on: bool) -> None:
    """Have a device's checksums computed by the kernel, or left to the hardware."""
    value = bytearray(struct.pack("=II", _SET_TX_CHECKSUM, on))
    address, _ = struct.pack("P", _address(value)), value

    def change() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, _ETHTOOL, struct.pack("16s", device.encode()) + address + bytes(8))

    inside(node, change)


def _address(memory: bytearray) -> int:
    import ctypes

    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _router(plan: Plan, index: int, port: str) -> Iterator[str]:
    forwarding = "ipv4.ip_forward" if plan.version == 4 else "ipv6.conf.all.forwarding"
    yield f"sysctl -q -w net.{forwarding}=1"
    for gateway in plan.gateways[index]:
        yield f"ip -{plan.version} address add {gateway}/{plan.length} dev {port}{_nodad(plan)}"


def _nodad(plan: Plan) -> str:
    return "" if plan.version == 4 else " nodad"


def _host(host: Host) -> Iterator[str]:
    """Addresses, and the daemon's routes."""
    plan = host.plan
    ip = f"ip -{plan.version}"
    yield f"{ip} address add {host.home}/{32 if plan.version == 4 else 128} dev lo{_nodad(plan)}"
    for number, address in enumerate(host.mobiles):
        yield f"{ip} address add {address}/{plan.length} dev eth0{_nodad(plan)}"
        yield f"{ip} rule add pref 4920 from {address} lookup {49700 + number}"
    yield from _ways_out(host, "add")
    yield f"{ip} rule add pref 4930 lookup main suppress_prefixlength 0"
    yield _home_route(host, "add")
    yield f"{ip} rule add pref 4940 iif lo lookup {HOME_TABLE}"


def _ways_out(host: Host, change: str) -> Iterator[str]:
    """The default routes from the mobile addresses."""
    for number, gateway in enumerate(host.plan.gateways[host.index]):
        route = f"default via {gateway} dev eth0 table {49700 + number}"
        yield f"ip -{host.plan.version} route {change} {route}"


def _home_route(host: Host, change: str) -> str:
    """Always a route, from the home address. In IPv6 one to `lo` has to be of the type local."""
    version, kind = host.plan.version, "" if host.plan.version == 4 else "local "
    route = f"{kind}default dev lo src {host.home} mtu 1500 table {HOME_TABLE}"
    return f"ip -{version} route {change} {route}"


# ---- the process of a dataplane ----------------------------------------------------------------


class _Recorder:
    """A consumer that holds everything."""

    def __init__(self) -> None:
        self.handles: list[Handle] = []
        self.events: list[tuple[str, Address, Address, Address | None]] = []

    def packet_out(self, handle: Handle, source: Address, destination: Address) -> None:
        self.handles.append(handle)
        self.events.append(("out", source, destination, None))

    def packet_in(
        self, handle: Handle, source: Address, destination: Address, announced: Address | None
    ) -> None:
        self.handles.append(handle)
        self.events.append(("in", source, destination, announced))


class _Server:
    """Does what comes over the link."""

    def __init__(self, link: Connection, mode: Mode) -> None:
        self._link = link
        self._consumer = _Recorder()
        self._plane: Dataplane = NetfilterDataplane(self._consumer, mode)
        self.over = asyncio.Event()

    def step(self) -> None:
        try:
            name, arguments, options = self._link.recv()
        except EOFError:
            self.over.set()
            return
        try:
            self._link.send(self._do(name, *arguments, **options))
        except DataplaneError as error:
            self._link.send(error)

    def _do(self, name: str, *arguments: Any, **options: Any) -> Any:
        if name == "events":
            return self._consumer.events
        if name == "set_mtu":
            self._plane.mtu = arguments[0]
            return None
        if name in ("release", "drop"):
            arguments = (self._consumer.handles[arguments[0]], *arguments[1:])
        return getattr(self._plane, name)(*arguments, **options)


async def _serve(link: Connection, mode: Mode) -> None:
    try:
        server = _Server(link, mode)
    except DataplaneError as error:
        link.send(error)
        return
    link.send(None)
    asyncio.get_running_loop().add_reader(link.fileno(), server.step)
    await server.over.wait()


def main(node: str, mode: str, descriptor: str) -> None:
    """Be the dataplane of a namespace, until the other end of the link is closed."""
    import uvloop

    NodeRef.parse(node).enter()
    uvloop.run(_serve(Connection(int(descriptor)), Mode(mode)))


if __name__ == "__main__":
    main(*sys.argv[1:])
