"""Networks of namespaces for the uplinks: a node, and routers that it can be plugged into."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, Self

import pytest
import uvloop

from mat.address import format_address, parse_address
from mat_real.namespaces import NodeRef, namespaces
from mat_real.uplinks import Home, MobileAddress, Uplinks

BOUND = 30.0
"""Seconds after which waiting is a failure."""
HOME4 = Home(parse_address("198.51.100.7"))
HOME6 = Home(parse_address("2001:db8:77::7"))


@dataclass
class Network:
    """A router in a namespace of its own, with a bridge that nodes are plugged into."""

    node: NodeRef
    address: str
    """Of the router, with the prefix length."""
    plugs: int = 0

    @property
    def router(self) -> str:
        return self.address.partition("/")[0]

    def plug(self, into: NodeRef, name: str) -> str:
        """Give a node an interface in this network; the name of the router's end."""
        self.plugs += 1
        end = f"p{self.plugs}"
        peer = ["peer", "name", end, "netns", self.node.path.name]
        into.run("ip", "link", "add", name, "type", "veth", *peer)
        self.node.run("ip", "link", "set", end, "master", "br0", "up")
        into.run("ip", "link", "set", name, "up")
        return end


@contextmanager
def lab(*addresses: str) -> Iterator[tuple[NodeRef, list[Network]]]:
    """A node, and a network for each address of a router."""
    names = [f"mat-uplinks{n}-{os.getpid()}" for n in range(len(addresses) + 1)]
    with namespaces(*names) as (node, *routers):
        networks = [Network(r, a) for r, a in zip(routers, addresses, strict=True)]
        for network in networks:
            run = network.node.run
            run("ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
            run("ip", "addr", "add", network.address, "dev", "br0", "nodad")
            run("ip", "link", "set", "br0", "up")
        yield node, networks


@contextmanager
def dnsmasq(network: Network, directory: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A DHCP server, or one that advertises a router, in a network."""
    require("dnsmasq")
    directory.mkdir(exist_ok=True)
    log = directory / f"dnsmasq-{network.node.path.name}.log"
    command = [
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--port=0",
        "--no-ping",
        "--log-dhcp",
        "--user=root",
        "--interface=br0",
        "--bind-interfaces",
        f"--pid-file={directory / 'pid'}-{network.node.path.name}",
        f"--dhcp-leasefile={directory / 'leases'}-{network.node.path.name}",
        f"--log-facility={log}",
        *options,
    ]
    process = network.node.popen(command)
    try:
        await_that(lambda: log.exists() and "started" in log.read_text(), "start of dnsmasq")
        yield process
    finally:
        process.kill()
        process.wait()


def require(program: str) -> None:
    """Skip the test where a program is missing."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


def await_that(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is so. Raises `TimeoutError`."""
    end = time.monotonic() + BOUND
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not happen within {BOUND} s")
        time.sleep(0.01)


@dataclass
class Watched:
    """Uplinks on a loop of their own, on a thread in the node's namespace."""

    node: NodeRef
    homes: Sequence[Home]
    options: dict[str, Any]
    loop: asyncio.AbstractEventLoop = field(default_factory=uvloop.new_event_loop)
    changes: int = 0
    history: list[list[str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """All that were ever told; there should be none."""

    def __post_init__(self) -> None:
        self.uplinks = Uplinks(self.homes, self._changed, **self.options)
        self._condition = threading.Condition()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        self.node.enter()
        self.loop.run_forever()

    def _changed(self) -> None:
        with self._condition:
            self.changes += 1
            self.history.append(texts(self.uplinks.mobile_addresses(ipv4=True)))
            self.problems += self.uplinks.problems
            self._condition.notify_all()

    def call(self, function: Callable[[], Any]) -> Any:
        """Call something on the loop's thread; what it returns."""

        async def called() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(called(), self.loop).result(BOUND)

    def addresses(self, *, ipv4: bool = True) -> list[str]:
        return texts(self.call(lambda: self.uplinks.mobile_addresses(ipv4=ipv4)))

    def first(self, *, ipv4: bool = True) -> MobileAddress:
        mobile: MobileAddress = self.call(lambda: self.uplinks.mobile_addresses(ipv4=ipv4))[0]
        return mobile

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait, from change to change, until something is so. Raises `TimeoutError`."""
        end = time.monotonic() + BOUND
        while True:
            seen = self.changes
            if condition():
                return
            with self._condition:
                left = end - time.monotonic()
                arrived = self._condition.wait_for(partial(self._beyond, seen), left)
            if not arrived:
                raise TimeoutError(f"{what} did not happen within {BOUND} s: {self.history}")

    def _beyond(self, seen: int) -> bool:
        return self.changes != seen

    def until_addresses(self, *expected: str, ipv4: bool = True) -> None:
        self.until(lambda: self.addresses(ipv4=ipv4) == list(expected), f"addresses {expected}")

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self.call(self.uplinks.open)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.problems += self.call(lambda: self.uplinks.problems)
            self.call(self.uplinks.close)
        finally:
            self._stop()
        assert not self.problems, self.problems

    def _stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


def watching(
    node: NodeRef,
    *homes: Home,
    interfaces: Sequence[str] = (),
    dhcp: Sequence[str] = (),
    loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop,
) -> Watched:
    """Uplinks in a node, from the beginning to the end of a `with` block."""
    options = {"interfaces": interfaces, "dhcp": dhcp}
    return Watched(node, homes or (HOME4,), options, loop())


def texts(addresses: Sequence[MobileAddress]) -> list[str]:
    return [format_address(mobile.address) for mobile in addresses]


# ---- what iproute2 says --------------------------------------------------------------------------


def rules(node: NodeRef, family: str = "-4") -> list[dict[str, Any]]:
    """The rules of protocol 77, without what all have."""
    found = json.loads(node.run("ip", "-j", "-N", family, "rule"))
    return [
        {key: value for key, value in rule.items() if key != "protocol"}
        for rule in found
        if rule.get("protocol") == "77"
    ]


def routes(node: NodeRef, family: str = "-4") -> dict[str, list[dict[str, Any]]]:
    """The routes of protocol 77, by table."""
    shown = node.run("ip", "-j", "-N", "-d", family, "route", "show", "table", "all", "proto", "77")
    tables: dict[str, list[dict[str, Any]]] = {}
    for route in json.loads(shown or "[]"):
        tables.setdefault(route.get("table", "254"), []).append(route)
    return tables


def everything(node: NodeRef) -> list[str]:
    """All addresses, rules and routes, as text without times."""
    commands = [
        ["ip", "-o", "link", "show"],
        ["ip", "-o", "addr", "show"],
        ["ip", "rule"],
        ["ip", "-6", "rule"],
        ["ip", "route", "show", "table", "all"],
        ["ip", "-6", "route", "show", "table", "all"],
    ]
    return [node.run(*command) for command in commands]


@contextmanager
def capture(node: NodeRef, interface: str, what: str) -> Iterator[Callable[[], str]]:
    """What passes an interface, as tcpdump says it, from when it listens."""
    require("tcpdump")
    with saying(node, "tcpdump", "-n", "-l", "-i", interface, what) as said:
        await_that(lambda: "listening on" in said(), "start of tcpdump")
        yield said


@contextmanager
def saying(node: NodeRef, *command: str | Path) -> Iterator[Callable[[], str]]:
    """A program in a node, and what it has said so far; ended with the block."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process: subprocess.Popen[str] = node.popen(command, **pipes)
    said, lines = process.stdout, list[str]()
    assert said is not None
    reader = threading.Thread(target=lambda: lines.extend(said))
    reader.start()
    try:
        yield lambda: "".join(lines)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()
        reader.join()
        said.close()


@contextmanager
def monitoring(node: NodeRef, *what: str) -> Iterator[Callable[[], str]]:
    """What changes in a node, as `ip monitor` says it; each call waits until all is said."""

    def mark(number: int) -> str:
        address = f"127.0.1.{number}"
        node.run("ip", "addr", "add", f"{address}/32", "dev", "lo")
        node.run("ip", "addr", "del", f"{address}/32", "dev", "lo")
        return f"Deleted 1: lo    inet {address}/32"

    with saying(node, "ip", "monitor", "address", *what) as said:
        await_that(lambda: mark(1) in said(), "start of ip monitor")
        await_that(lambda: mark(2) in said(), "all that was before")
        begun = said().rindex("127.0.1.2")

        def since() -> str:
            await_that(lambda: mark(3) in said(), "all that has changed")
            lines = said()[begun:].splitlines()
            return "\n".join(line for line in lines if "127.0.1." not in line)

        yield since


@dataclass
class Program:
    """`uplinks_daemon` in a node."""

    process: subprocess.Popen[str]
    output: IO[str]
    errors: IO[str]

    def complaints(self) -> str:
        """All that it has said on the standard error until its end."""
        return self.errors.read()

    def said(self) -> dict[str, Any]:
        """What it says next: its addresses and problems."""
        line = self.output.readline()
        assert line, self.complaints()
        told: dict[str, Any] = json.loads(line)
        return told

    def until_addresses(self, *expected: str) -> None:
        while self.said()["addresses"] != list(expected):
            pass

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def program(node: NodeRef, *dhcp: str, before: Sequence[str] = ()) -> Iterator[Program]:
    """The uplinks as a process of their own; `before` is what it is started through."""
    here = Path(__file__).parents[2]
    path = os.pathsep.join([str(here), str(here / "real")])
    command = [*before, sys.executable, "-m", "tests.real.uplinks_daemon", "198.51.100.7", *dhcp]
    process: subprocess.Popen[str] = node.popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=here,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        yield Program(process, process.stdout, process.stderr)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
        process.stdout.close()
        process.stderr.close()
