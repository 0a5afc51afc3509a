"""A small world of namespaces with real daemons: MN, CN, a plain host, IMS with DNS, a router."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mat.authentication import Key
from mat_real.control import ask
from mat_real.key_file import parse_home
from mat_real.namespaces import NodeRef, namespaces
from tests.real.ims_server import MAIN, wait_until, write_keys

_worlds = itertools.count(1)

# A server that greets with the address that it sees, and sends back what it gets.
_ECHO = """
import socket as s, sys, threading as t
def serve(c, a):
    c.sendall(a[0].encode() + b"\\n")
    while d := c.recv(99): c.sendall(d)
family = s.AF_INET6 if ":" in sys.argv[1] else s.AF_INET
l = s.create_server((sys.argv[1], int(sys.argv[2])), family=family)
print("listening", flush=True)
while True: t.Thread(target=serve, args=l.accept(), daemon=True).start()
"""
# A client that says what it was greeted with, and then what comes back of each line.
_TALK = """
import socket as s, sys
source = (sys.argv[3], 0) if sys.argv[3] else None
c = s.create_connection((sys.argv[1], int(sys.argv[2])), 20, source).makefile("rw")
print(c.readline(), end="", flush=True)
for line in sys.stdin:
    c.write(line); c.flush(); print(c.readline(), end="", flush=True)
"""

HOMES = {"mn": ("10.1.0.1", "fd10:1::1"), "cn": ("10.2.0.1", "fd10:2::1")}
NETS = {"a": 1, "b": 2, "c": 3, "p": 4, "d": 5, "m": 6, "f": 7, "i": 9}
"""Access networks of MN (a, b), of CN (c, d), that of the plain host, that of the IMS.

Two are not there at first, for who adds more routers: m between routers, f far away.
"""
IMS = "192.168.9.2"
PLAIN = ("192.168.4.2", "fd00:4::2")


def address(net: str, host: int, *, ipv6: bool = False) -> str:
    """An address of a network."""
    return f"fd00:{NETS[net]}::{host:x}" if ipv6 else f"192.168.{NETS[net]}.{host}"


class Conversation:
    """A TCP connection of a client with the server of `World.listen`."""

    def __init__(self, client: subprocess.Popen[str]) -> None:
        self._client = client
        self.greeting = self._hear()
        """The client's address as the server sees it; empty if there was no connection."""
        self._said = 0

    def _hear(self) -> str:
        assert self._client.stdout is not None
        return self._client.stdout.readline().rstrip("\n")

    def goes_on(self) -> bool:
        """Whether what is said now is answered; the client gives up after 20 s."""
        self._said += 1
        assert self._client.stdin is not None
        self._client.stdin.write(f"line {self._said}\n")
        self._client.stdin.flush()
        return self._hear() == f"line {self._said}"

    def end(self) -> None:
        """Hang up."""
        self._client.kill()
        self._client.communicate()


@dataclass
class World:
    """Five hosts, and the programs on them."""

    folder: Path
    hosts: dict[str, NodeRef]
    stack: ExitStack
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    homes: Mapping[str, Sequence[str]] = field(default_factory=lambda: HOMES)
    """Home addresses, or home prefixes, of the nodes."""
    before: str = ""
    """Python that daemons carry out before they begin, to have something go wrong."""

    # ---- hosts ---------------------------------------------------------------------------------

    def ip(self, host: str, *lines: str) -> None:
        """Commands of ip(8) in a namespace."""
        ref = self.hosts[host]
        self.folder.joinpath("batch").write_text("\n".join(lines) + "\n")
        ref.run("ip", "-batch", self.folder / "batch")

    def run(self, host: str, *command: str) -> str:
        """Run a program on a host to its end; what it printed."""
        return self.hosts[host].run(*command)

    def start(self, host: str, *command: str, log: str = "") -> subprocess.Popen[bytes]:
        """Start a program that ends with the world at the latest."""
        out: Any = subprocess.DEVNULL
        if log:
            out = self.stack.enter_context((self.folder / log).open("wb"))
        started = self.hosts[host].popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        self.stack.callback(_end, started)
        return started

    def add_host(self, name: str) -> NodeRef:
        """One more host, without links."""
        (ref,) = self.stack.enter_context(namespaces(f"{self.hosts['mn'].path.name}-{name}"))
        self.hosts[name] = ref
        return ref

    def listen(self, host: str, port: int, at: str = "0.0.0.0") -> None:
        """Start a server on a host that answers with what it gets; it listens."""
        log = f"listen-{host}-{port}-{at}"
        self.start(host, sys.executable, "-c", _ECHO, at, str(port), log=log)
        wait_until(lambda: "listening" in (self.folder / log).read_text())

    @contextmanager
    def talk(self, host: str, to: str, port: int, source: str = "") -> Generator[Conversation]:
        """A connection of a host with a server, as long as the block lasts."""
        words = [sys.executable, "-c", _TALK, to, str(port), source]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with (self.folder / "talk.log").open("a") as errors:
            client = self.hosts[host].popen(words, stderr=errors, **pipes)
        try:
            conversation = Conversation(client)
        except BaseException:
            client.kill()
            client.communicate()
            raise
        try:
            yield conversation
        finally:
            conversation.end()

    def attach(self, host: str, interface: str, net: str, number: int, metric: int = 100) -> None:
        """Give an interface addresses of a network in both families, and a way out."""
        self.ip(host, *self.addresses(interface, net, number, metric))

    @staticmethod
    def addresses(interface: str, net: str, number: int, metric: int = 100) -> list[str]:
        """The commands of `attach`."""
        four, six = address(net, number), address(net, number, ipv6=True)
        router, router6 = address(net, 1), address(net, 1, ipv6=True)
        return [
            f"addr add {four}/24 dev {interface}",
            f"addr add {six}/64 dev {interface} nodad",
            f"route replace default via {router} dev {interface} metric {metric}",
            f"route replace default via {router6} dev {interface} metric {metric}",
        ]

    def detach(self, host: str, interface: str) -> None:
        """Take its addresses from an interface."""
        self.ip(host, f"addr flush dev {interface} scope global")

    # ---- daemons -------------------------------------------------------------------------------

    def start_ims(self) -> None:
        """The IMS of both nodes, with the DNS."""
        keys = [
            Key(number, b"the secret of a node " + bytes((64 + number,)), *parse_home(home))
            for number, home in enumerate((h for both in self.homes.values() for h in both), 1)
        ]
        write_keys(self.folder / "keys", keys)
        for name, own in (("mn", keys[:2]), ("cn", keys[2:])):
            write_keys(self.folder / f"{name}.key", own)
        (self.folder / "ims.toml").write_text(
            f"""[ims]
zones = ["10.1.0.0/16", "10.2.0.0/16", "fd10:1::/32", "fd10:2::/32"]
keys = "keys"
control = "ims.sock"
[store]
path = "ims.store"
[dns]
servers = ["{IMS}"]
[responder]
listen = "{IMS}:53"
zones = ["10.in-addr.arpa", "168.192.in-addr.arpa", "0.1.d.f.ip6.arpa", "0.0.d.f.ip6.arpa"]
records = {{"10.1.0.0/16" = "10 49628 {IMS}", "10.2.0.0/16" = "10 49628 {IMS}",
  "fd10:1::/32" = "10 49628 {IMS}", "fd10:2::/32" = "10 49628 {IMS}"}}
""".replace("\n  ", " ")
        )
        config = str(self.folder / "ims.toml")
        self.daemons["ims"] = self._daemon("ims", "ims", "serve", "--config", config)
        self._wait_for("ims", lambda: bool(ask(self.folder / "ims.sock", "status")["workers"]))
        wait_until(lambda: "serving" in self.log("ims"))

    def start_node(self, host: str, *overrides: str) -> None:
        """The daemon of MN or CN, with the IMS up; it is running and registered."""
        self.launch_node(host, *overrides)
        self._wait_for(host, lambda: self.is_registered(host))

    def launch_node(self, host: str, *overrides: str) -> None:
        """The daemon of MN or CN, wherever it gets to."""
        config = self.folder / f"{host}.toml"
        config.write_text(
            f"""[node]
key = "{host}.key"
control = "{host}.sock"
[dns]
servers = ["{IMS}"]
"""
        )
        more = [word for override in overrides for word in ("--set", override)]
        self.daemons[host] = self._daemon(host, "node", "run", "--config", str(config), *more)

    def _daemon(self, host: str, *words: str) -> subprocess.Popen[bytes]:
        command = f"{self.before}\n{MAIN}"
        return self.start(host, sys.executable, "-c", command, *words, log=f"{host}.log")

    def _wait_for(self, host: str, condition: Callable[[], bool]) -> None:
        def ready() -> bool:
            if self.daemons[host].poll() is not None:
                raise AssertionError(self.log(host))
            try:
                return condition()
            except (OSError, ValueError):
                return False

        wait_until(ready)

    def status(self, host: str) -> dict[str, Any]:
        """What a node's daemon says of itself."""
        found: dict[str, Any] = ask(self.folder / f"{host}.sock", "status")
        return found

    def registered(self, host: str) -> list[list[str]]:
        """The registered mobile addresses of a node, by family."""
        return [home["registered"] for home in self.status(host)["homes"]]

    def registers(self, host: str, *addresses: Sequence[str]) -> None:
        """Wait until a node has registered these, by family."""
        wanted = [list(one) for one in addresses]
        wait_until(lambda: self.registered(host) == wanted)

    def is_registered(self, host: str) -> bool:
        """Whether all of a node's homes are registered at all of its addresses."""
        return all(
            home["registered"] == home["addresses"] != [] for home in self.status(host)["homes"]
        )

    def log(self, host: str) -> str:
        """What a daemon has logged so far."""
        return (self.folder / f"{host}.log").read_text()

    def kill(self, host: str) -> None:
        """Kill -9 a daemon."""
        self.daemons[host].kill()
        self.daemons[host].wait()

    def stop(self, host: str) -> int:
        """Stop a daemon as systemd would; the exit code."""
        self.daemons[host].send_signal(signal.SIGTERM)
        return self.daemons[host].wait(30)


@contextmanager
def world(folder: Path, homes: Mapping[str, Sequence[str]] = HOMES) -> Generator[World]:
    """Hosts and links, and the IMS running; CN is attached, MN is not."""
    prefix = f"mat-w{next(_worlds)}-{os.getpid()}"
    names = ("mn", "cn", "plain", "ims", "r")
    with ExitStack() as stack:
        refs = stack.enter_context(namespaces(*(f"{prefix}-{name}" for name in names)))
        made = World(folder, dict(zip(names, refs, strict=True)), stack, homes=homes)
        _link(made)
        made.start_ims()
        yield made


def _link(made: World) -> None:
    """One veth for each network, and the router's addresses."""
    links = {"a": ("mn", "w0"), "b": ("mn", "w1"), "c": ("cn", "w0"), "p": ("plain", "w0")}
    links |= {"d": ("cn", "w1"), "i": ("ims", "w0")}
    router = made.hosts["r"]
    for net, (host, interface) in links.items():
        there = made.hosts[host].path.name
        made.ip(
            "r",
            f"link add name r{net} type veth peer name {interface} netns {there}",
            f"addr add {address(net, 1)}/24 dev r{net}",
            f"addr add {address(net, 1, ipv6=True)}/64 dev r{net} nodad",
            f"link set r{net} up",
        )
        made.ip(host, f"link set {interface} up")
    for setting in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        router.run("sysctl", "-qw", f"{setting}=1")
    for host, net in (("cn", "c"), ("plain", "p"), ("ims", "i")):
        made.attach(host, "w0", net, 2)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
            return
        process.kill()
        process.wait()


def eventually(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether a condition comes true within so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
