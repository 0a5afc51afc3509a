"""Replayed, forged, truncated, bit-flipped and random datagrams; and a flood of junk.

Each kind goes to a real server, `MAT_FAULT_DATAGRAMS` of it. The server's counters pace the sender,
so that no socket buffer overflows and they can be held to account for each single datagram.
"""

import logging
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Self

import pytest

from mat.address import parse_address
from mat.codec import encode
from mat.effects import EventKind
from mat.messages import Code, Endpoint, MaAnswer
from mat_real.datagrams import DatagramSocket, bind
from tests.real.flood import BACKLOG
from tests.real.ims_server import (
    Client,
    Server,
    addresses,
    free_port,
    key,
    running,
    update_of,
    wait_until,
)
from tests.real.node_driver import Lab

_log = logging.getLogger(__name__)
"""What was counted: `pytest --log-cli-level=INFO` shows it."""
EACH = int(os.environ.get("MAT_FAULT_DATAGRAMS", "20000"))
"""Datagrams of each kind."""
WINDOW = 4096
"""Datagrams that may be on their way."""
MOST_GROWTH = 20 << 20
"""Bytes that a worker may grow by, whatever it is sent."""
MN = key(1, "10.1.0.1")
NODES = [key(number, f"10.1.0.{number}") for number in range(1, 9)]
HERE = "198.51.100.1"


class Counted:
    """A server, with its counters from /metrics, and what was sent to it."""

    def __init__(self, server: Server, metrics: int) -> None:
        self.server = server
        self._url = f"http://127.0.0.1:{metrics}/metrics"
        (self.worker,) = server.workers()
        self._sockets = [DatagramSocket(bind(parse_address("127.0.0.1"), 0)) for _ in range(8)]
        self._target = Endpoint(parse_address("127.0.0.1"), server.port)

    def counters(self) -> dict[str, int]:
        """All counters by name, labels included."""
        with urllib.request.urlopen(self._url) as page:
            lines = [line.rpartition(" ") for line in page.read().decode().splitlines()]
        return {name: int(float(value)) for name, _, value in lines if not name.startswith("#")}

    def seen(self) -> int:
        """Datagrams that the server has an account of."""
        wanted = ("mat_ims_received_total", "mat_ims_malformed_total", "mat_ims_repeated_total")
        return sum(value for name, value in self.counters().items() if name.startswith(wanted))

    def send(self, datagrams: Iterator[bytes]) -> int:
        """Send them all, never more than the window ahead of the server; how many there were."""
        before, sent = self.seen(), 0
        while True:
            batch = list(islice(datagrams, WINDOW // 2))
            for sender, datagram in zip(cycle(self._sockets), batch, strict=False):
                sender.send(self._target, datagram)
            for sender in self._sockets:
                sender.flush()
            sent += len(batch)
            ahead = WINDOW // 2 if batch else 0
            wait_until(lambda: self.seen() - before >= sent - ahead)  # noqa: B023
            if not batch:
                assert not any(sender.undelivered for sender in self._sockets)
                assert self.seen() - before == sent
                return sent

    def memory(self) -> int:
        """Resident bytes of the worker."""
        pages = int(Path(f"/proc/{self.worker}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def close(self) -> None:
        for sender in self._sockets:
            sender.close()


@pytest.fixture
def counted(tmp_path: Path) -> Generator[Counted]:
    port = free_port()
    with running(tmp_path, NODES, {"metrics": {"listen": f'"127.0.0.1:{port}"'}}) as server:
        made = Counted(server, port)
        yield made
        made.close()


# ---- what is sent --------------------------------------------------------------------------------


def fresh_updates(chance: random.Random) -> Iterator[bytes]:
    """Updates that the server would accept as they are, to addresses that nobody has."""
    freshness = (time.time_ns() + 10**12) * (1 << 32) // 10**9
    for _ in range(64):
        freshness += 1
        yield encode(update_of(MN, [f"192.0.2.{chance.randrange(1, 255)}"], freshness))


def forged(chance: random.Random) -> Iterator[bytes]:
    """The MAC, or the key, is not that of the node."""
    stolen = [key(number, "10.1.0.1") for number in range(2, 9)]
    while True:
        update = next(fresh_updates(chance))
        yield update[:4] + chance.randbytes(4) + update[8:-16] + chance.randbytes(16)
        freshness = (time.time_ns() + 10**12) * (1 << 32) // 10**9
        yield encode(update_of(chance.choice(stolen), ["192.0.2.1"], freshness))


def truncated(chance: random.Random) -> Iterator[bytes]:
    """Cut off anywhere."""
    while True:
        for update in fresh_updates(chance):
            yield update[: chance.randrange(len(update))]


def flipped(chance: random.Random) -> Iterator[bytes]:
    """One bit is not what it was."""
    while True:
        for update in fresh_updates(chance):
            bits = int.from_bytes(update, "big") ^ 1 << chance.randrange(8 * len(update))
            yield bits.to_bytes(len(update), "big")


def noise(chance: random.Random) -> Iterator[bytes]:
    """Anything; half of it with the beginning of a message."""
    while True:
        yield chance.randbytes(chance.randrange(1400))
        rest = chance.randbytes(4 * chance.randrange(1, 40))
        words = chance.randrange(2, 2 + len(rest) // 4 + 1)
        kind, flags = chance.randrange(1, 9), chance.choice((0, 0x80))
        yield bytes((kind, 0, flags, words)) + rest


def answers(change: dict[str, int], code: str) -> int:
    """Updates that were answered with a code."""
    return change.get(f'mat_ims_answers_total{{code="{code}",request="IMS Update"}}', 0)


def events(change: dict[str, int], kind: EventKind) -> int:
    return change.get(f'mat_ims_events_total{{kind="{kind.name.lower()}"}}', 0)


@contextmanager
def unmoved(counted: Counted) -> Generator[Callable[[], dict[str, int]]]:
    """The MN's mapping is the same afterwards, and as old as it has to be; memory is flat.

    Hands out a function that says what has been counted meanwhile.
    """
    with Client(counted.server.port) as node:
        registered = node.update(MN, [HERE], lifetime=600)
        assert registered is not None
        assert registered.authentication is not None
        since, before = time.monotonic(), counted.counters()

        def change() -> dict[str, int]:
            now = counted.counters()
            return {name: value - before.get(name, 0) for name, value in now.items()}

        yield change
        asked = time.monotonic()
        answer = node.query("10.1.0.1")
        assert isinstance(answer, MaAnswer)
        assert addresses(answer) == [HERE]
        assert answer.version == registered.authentication.freshness
        # Had any of them been taken for a refresh, its age would have begun anew.
        assert answer.age / 1000 >= asked - since - 0.001
        stale = node.update(MN, ["192.0.2.1"], registered.authentication.freshness)
        assert stale is not None
        assert stale.code == Code.STALE
        assert stale.authentication is not None
        assert stale.authentication.freshness == registered.authentication.freshness


KINDS = {"forged": forged, "truncated": truncated, "bit-flipped": flipped, "random": noise}


@pytest.mark.parametrize("kind", KINDS)
def test_none_of_a_kind_is_accepted_and_each_is_counted(counted: Counted, kind: str) -> None:
    datagrams = KINDS[kind](random.Random(kind))
    with unmoved(counted) as change:
        counted.send(islice(datagrams, EACH // 5))
        warm = counted.memory()
        counted.send(islice(datagrams, EACH - EACH // 5))
        grown = counted.memory() - warm
        found = change()
        assert grown < MOST_GROWTH
        unauthentic = events(found, EventKind.UNAUTHENTIC)
        assert answers(found, "authentication_failed") == unauthentic
        others = answers(found, "not_responsible")
        assert answers(found, "succeeded") == answers(found, "stale") == 0
        malformed = sum(v for n, v in found.items() if n.startswith("mat_ims_malformed"))
        repeated, overflowed = found["mat_ims_repeated_total"], found["mat_ims_overflowed_total"]
        received = sum(v for n, v in found.items() if n.startswith("mat_ims_received"))
        assert malformed + received + repeated == EACH
        assert overflowed == 0
        if kind == "forged":
            # A key is good for one home address; what it says of another's is refused.
            assert (malformed, unauthentic + others) == (0, EACH - repeated)
        else:
            assert (malformed > EACH // 10, others) == (True, 0)
        _log.info(
            "%s: %d malformed, %d unauthentic, %d of other keys, %d other messages, %d repeated;"
            " %d KiB more",
            kind,
            malformed,
            unauthentic,
            others,
            received - unauthentic - others,
            repeated,
            grown >> 10,
        )


def test_no_replay_is_accepted_and_each_is_counted(counted: Counted) -> None:
    chance = random.Random("replayed")
    freshness = time.time_ns() * (1 << 32) // 10**9
    recorded = list[bytes]()
    with Client(counted.server.port) as node:
        for turn in range(2000):
            update = update_of(MN, [f"203.0.113.{turn % 200 + 1}"], freshness + turn)
            assert node.ask(update) is not None
            recorded.append(encode(update))
        with unmoved(counted) as change:
            counted.send(chance.choice(recorded) for _ in range(EACH // 5))
            warm = counted.memory()
            counted.send(chance.choice(recorded) for _ in range(EACH - EACH // 5))
            grown = counted.memory() - warm
            found = change()
            assert grown < MOST_GROWTH
            repeated = found["mat_ims_repeated_total"]
            assert answers(found, "succeeded") == 0
            assert answers(found, "stale") == EACH - repeated
            assert events(found, EventKind.STALE) == EACH - repeated
            _log.info(
                "replayed: %d stale, %d repeated; %d KiB more",
                EACH - repeated,
                repeated,
                grown >> 10,
            )


def test_the_newest_update_replayed_is_answered_again_and_not_applied(counted: Counted) -> None:
    """As for a node that did not get the Reply: code 0, and the mapping's age goes on."""
    with Client(counted.server.port) as node:
        freshness = time.time_ns() * (1 << 32) // 10**9
        update = update_of(MN, [HERE], freshness)
        assert node.ask(update) is not None
        since, before = time.monotonic(), counted.counters()
        counted.send(encode(update) for _ in range(EACH))
        asked = time.monotonic()
        answer = node.query("10.1.0.1")
        assert isinstance(answer, MaAnswer)
        assert (addresses(answer), answer.version) == ([HERE], freshness)
        assert answer.age / 1000 >= asked - since - 0.001
        found = {name: v - before.get(name, 0) for name, v in counted.counters().items()}
        assert answers(found, "succeeded") == EACH - found["mat_ims_repeated_total"]


# ---- a flood -------------------------------------------------------------------------------------


class Flood:
    """A process that floods a server; the number of its datagrams is known once it has ended."""

    def __init__(self, server: Server) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.real.flood", str(server.port), str(server.control)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self.sent = 0

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"flooding\n"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdout is not None
        self._process.send_signal(signal.SIGTERM)
        self.sent = int(self._process.stdout.readline() or 0)
        self._process.stdout.close()
        self._process.wait()
        assert self.sent, "the flood ended early"


def dropped(server: Server) -> int:
    """Datagrams that the kernel had no room for, at all sockets of a server's port."""
    rows = [line.split() for line in Path("/proc/net/udp6").read_text().splitlines()[1:]]
    return sum(int(row[-1]) for row in rows if int(row[1].rpartition(":")[2], 16) == server.port)


def test_nodes_register_through_a_flood_of_twice_what_the_server_reads(tmp_path: Path) -> None:
    metrics = free_port()
    tables = {
        "ims": {"backlog": str(BACKLOG), "receive_buffer": str(1 << 20)},
        "metrics": {"listen": f'"127.0.0.1:{metrics}"'},
    }
    with (
        running(tmp_path, NODES, tables) as server,
        Lab(("127.0.0.1", server.port)) as lab,
        closing(Counted(server, metrics)) as counted,
    ):
        with Flood(server) as flood:
            wait_until(lambda: dropped(server) > 0, limit=120)
            began, lost = time.monotonic(), dropped(server)
            hosts = [lab.host(one, f"198.51.100.{one.key_id}") for one in NODES[:4]]
            lab.run_until(lambda: all(host.registered for host in hosts), limit=200)
            for host, one in zip(hosts, NODES, strict=False):
                host.move(f"203.0.113.{one.key_id}")
            lab.run_until(lambda: all(host.registered for host in hosts), limit=200)
            seconds = time.monotonic() - began
            # They have not slipped through a pause.
            lab.run_until(lambda: dropped(server) > lost)
            lost = dropped(server) - lost
        _log.info(
            "%d nodes registered and moved in %.1f s, with %d retransmissions, while %d datagrams"
            " were lost; the flood sent %d, of which %d were read",
            len(hosts),
            seconds,
            sum(host.events[EventKind.RETRANSMITTED] for host in hosts),
            lost,
            flood.sent,
            counted.seen(),
        )
        with Client(server.port) as client:
            for host, one in zip(hosts, NODES[:4], strict=True):
                answer = client.query(one.home_address, attempts=240)
                assert addresses(answer) == host.registered
