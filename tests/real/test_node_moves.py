"""A thousand moves in a row: connections stay whole, and nothing piles up in daemon and kernel."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mat_real.control import ask
from tests.real.ims_server import wait_until
from tests.real.node_world import HOMES, World, address, world
from tests.real.privilege import needs_root

pytestmark = needs_root

MOVES = 1000
SETTLED = 10
"""Moves after which everything that comes to stay is there."""
HARD_EVERY = 50
BOTH_EVERY = 7
PORT = 5001
PILED_UP = MOVES // 10
"""Objects of a type, or entries of collections, by which something grows with the moves."""
GROWTH = 4096
"""KiB of memory that a daemon may take during all the moves: 4 KiB a move."""

NETS = {"mn": "ab", "cn": "cd"}
"""The networks of the uplinks w0 and w1."""

# On SIGUSR2 a daemon writes how many objects of each type it has, and entries of collections.
CENSUS = """
import collections, gc, json, os, pathlib, signal
def census(*_):
    gc.collect()
    there = gc.get_objects()
    counted = collections.Counter(type(one).__name__ for one in there)
    kinds = (dict, set, list, collections.deque)
    counted["entries"] = sum(len(one) for one in there if type(one) in kinds and one is not there)
    draft = pathlib.Path({folder!r}, f"census-{{os.getpid()}}.new")
    draft.write_text(json.dumps(counted))
    draft.rename(draft.with_suffix(""))
signal.signal(signal.SIGUSR2, census)
"""


@dataclass
class Stream:
    """A connection from MN to CN in one family, full both ways."""

    made: World
    family: int
    client: subprocess.Popen[str]
    server: subprocess.Popen[bytes]

    def end(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Have it end; what both ends say of it."""
        said, _ = self.client.communicate(timeout=90)
        assert self.client.returncode == 0
        assert self.server.wait(90) == 0, self._log()
        return json.loads(said), json.loads(self._log())

    def _log(self) -> str:
        return (self.made.folder / f"duplex-{self.family}").read_text()


@contextmanager
def stream(made: World, family: int) -> Iterator[Stream]:
    """A connection in a family, as long as the block lasts."""
    words = [sys.executable, "-m", "tests.real.duplex"]
    at = [HOMES["cn"][family], str(PORT)]
    files = {host: made.folder / f"{host}-{family}" for host in HOMES}
    server = made.start("cn", *words, "listen", *at, str(files["cn"]), log=f"duplex-{family}")
    wait_until(files["cn"].exists)
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    client = made.hosts["mn"].popen([*words, "connect", *at, str(files["mn"])], **pipes)
    try:
        wait_until(files["mn"].exists)
        yield Stream(made, family, client, server)
    finally:
        client.kill()
        client.communicate()


class Mover:
    """Moves hosts between their two uplinks, and waits until the peer knows."""

    def __init__(self, made: World) -> None:
        self._made = made
        self._at = dict.fromkeys(NETS, 0)
        self._numbers = {host: [2, 2] for host in NETS}

    def soft(self, *hosts: str) -> None:
        """Rehome to the other uplink; several hosts at once."""
        for host in hosts:
            self._at[host] = 1 - self._at[host]
            self._rehome(host)
        self.is_known(*hosts)

    def hard(self, *hosts: str) -> None:
        """Lose everything, and only then get the other uplink, with an address of its own."""
        for host in hosts:
            before, self._at[host] = self._at[host], 1 - self._at[host]
            self._reattach(host, f"link set w{before} down")
        self.is_known(*hosts)
        for host in hosts:
            self._made.ip(host, f"link set w{1 - self._at[host]} up")
            self._attach_other(host)

    def replace(self, host: str) -> None:
        """Another address on the uplink in use, with nothing else to go to meanwhile."""
        self._reattach(host)
        self.is_known(host)
        self._attach_other(host)

    def is_known(self, *hosts: str) -> None:
        """Wait until the peers of these hosts send to where they are."""
        wait_until(lambda: all(self._knows(host) for host in hosts))

    def _rehome(self, host: str) -> None:
        answer = ask(self._made.folder / f"{host}.sock", "rehome", f"w{self._at[host]}")
        assert answer == {"to": f"w{self._at[host]}"}

    def _reattach(self, host: str, *first: str) -> None:
        """Take away all addresses, and give the present uplink a new one."""
        at = self._at[host]
        self._numbers[host][at] += 1
        flush = [f"addr flush dev w{uplink} scope global" for uplink in (0, 1)]
        self._made.ip(host, *first, *flush, *self._addresses(host, at))

    def _attach_other(self, host: str) -> None:
        """Give the other uplink its addresses back; the present one remains the first."""
        self._rehome(host)
        self._made.ip(host, *self._addresses(host, 1 - self._at[host]))
        wait_until(lambda: all(len(each) == 2 for each in self._made.registered(host)))

    def _addresses(self, host: str, uplink: int) -> list[str]:
        net, number = NETS[host][uplink], self._numbers[host][uplink]
        return self._made.addresses(f"w{uplink}", net, number, metric=100 + 100 * uplink)

    def _knows(self, host: str) -> bool:
        peer = {"mn": "cn", "cn": "mn"}[host]
        net, number = NETS[host][self._at[host]], self._numbers[host][self._at[host]]
        homes = self._made.status(peer)["homes"]
        found = [of["mobile"][:1] for home in homes for of in home["peers"]]
        return found == [[address(net, number)], [address(net, number, ipv6=True)]]


def installed(made: World, host: str) -> dict[str, Any]:
    """How much of a node's is in the kernel, and what its process has open."""
    process = Path(f"/proc/{made.daemons[host].pid}")
    found: dict[str, Any] = {
        "files": len(list((process / "fd").iterdir())),
        "threads": len(list((process / "task").iterdir())),
        "peers": [len(home["peers"]) for home in made.status(host)["homes"]],
        "nft": _nftables(json.loads(made.run(host, "nft", "-j", "list", "ruleset"))["nftables"]),
    }
    for family in ("-4", "-6"):
        routes = made.run(host, "ip", "-j", family, "route", "show", "table", "all", "proto", "77")
        # By table: those of mobile addresses are used anew.
        found[f"routes {family}"] = Counter(one["table"] for one in json.loads(routes))
        for what in (["rule"], ["addr", "show", "dev", "lo"]):
            found[f"{what[0]} {family}"] = made.run(host, "ip", family, *what).count("\n")
    return found


def _nftables(listed: list[dict[str, Any]]) -> Counter[str]:
    """How many rules, and elements of each set and map but those that expire."""
    counted = Counter("rules" for one in listed if "rule" in one)
    for one in listed:
        held = one.get("set") or one.get("map")
        if held and "timeout" not in held.get("flags", []):
            counted[f"{held['family']} {held['name']}"] = len(held.get("elem", []))
    return counted


def at_rest(made: World, host: str) -> dict[str, Any]:
    """What is installed when nothing changes any more."""
    found: dict[str, Any] = {}

    def rests() -> bool:
        nonlocal found
        before, found = found, installed(made, host)
        time.sleep(0.3)
        return before == found

    wait_until(rests)
    return found


def census(made: World, host: str) -> Counter[str]:
    """How many objects of each type a daemon has, and how many entries they have."""
    pid = made.daemons[host].pid
    counted = made.folder / f"census-{pid}"
    counted.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR2)
    wait_until(counted.exists)
    return Counter(json.loads(counted.read_text()))


def resident(made: World, host: str) -> int:
    """KiB of memory that a daemon has."""
    status = Path(f"/proc/{made.daemons[host].pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


@pytest.fixture
def mover(tmp_path: Path) -> Iterator[tuple[World, Mover]]:
    """MN and CN on two uplinks each, both registered."""
    with world(tmp_path) as made:
        made.before = CENSUS.format(folder=str(tmp_path))
        made.detach("cn", "w0")
        for host, nets in NETS.items():
            for uplink, net in enumerate(nets):
                made.attach(host, f"w{uplink}", net, 2, metric=100 + 100 * uplink)
            # So many messages to one peer as nobody else sends.
            made.start_node(host, "protocol.peer_message_rate=100")
        yield made, Mover(made)


def move(mover: Mover, number: int) -> None:
    """The kinds of moves in turn."""
    if number % HARD_EVERY == 0:
        kinds = (
            lambda: mover.hard("mn"),
            lambda: mover.replace("mn"),
            lambda: mover.hard("cn"),
            lambda: mover.hard("mn", "cn"),
        )
        kinds[number // HARD_EVERY % len(kinds)]()
    elif number % BOTH_EVERY == 0:
        mover.soft("mn", "cn")
    else:
        mover.soft("mn")


def test_a_thousand_moves_leave_connections_whole_and_nothing_behind(
    mover: tuple[World, Mover],
) -> None:
    made, moving = mover
    with stream(made, 0) as four, stream(made, 1) as six:
        moving.is_known("mn", "cn")
        for number in range(1, SETTLED + 1):
            move(moving, number)
        there = {host: at_rest(made, host) for host in NETS}
        objects = {host: census(made, host) for host in NETS}
        memory = {host: resident(made, host) for host in NETS}
        for number in range(SETTLED + 1, MOVES + 1):
            move(moving, number)
        for host in NETS:
            assert at_rest(made, host) == there[host]
            grown = census(made, host) - objects[host]
            assert {kind: n for kind, n in grown.items() if n > PILED_UP} == {}
            assert resident(made, host) - memory[host] < GROWTH
        for each in (four, six):
            mn, cn = each.end()
            home = HOMES["mn"][each.family], HOMES["cn"][each.family]
            assert (mn["pair"][0][0], mn["pair"][1]) == (home[0], [home[1], PORT])
            assert mn["pair"] == cn["pair"][::-1]
            assert (mn["sent"], cn["sent"]) == (cn["read"], mn["read"])
            assert min(mn["read"][0], cn["read"][0]) > MOVES
