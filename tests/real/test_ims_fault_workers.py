"""Workers on bad days: errors nobody expected, floods, reloads at the wrong moment, a lost store.

Where something has to go wrong inside a worker, a `sitecustomize` module of the test's sees to it:
it is loaded by each worker process before any code of the server's, which is left as it is.
"""

import mmap
import os
import selectors
import shutil
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import count, cycle, islice
from pathlib import Path
from typing import final

import pytest

from mat.address import Address, format_address, parse_address
from mat.authentication import Key
from mat.codec import decode, encode
from mat.messages import (
    Answer,
    Code,
    Endpoint,
    HaAnswer,
    HaNotify,
    HaNotifyAck,
    HaQuery,
    MaAnswer,
    MaQuery,
    Request,
    Type,
)
from mat.registrations import pack
from mat_real.datagrams import DatagramSocket, bind
from mat_real.ims.tallies import Tallies
from mat_real.ims.worker import SLICE
from mat_real.store.journal import SLACK, Journal, create
from tests.real.ims_server import (
    START_LIMIT,
    Client,
    Server,
    addresses,
    answers,
    ask,
    configuration,
    free_port,
    key,
    running,
    started,
    update_of,
    wait_until,
    write_keys,
)
from tests.real.journals import registration
from tests.real.test_ims_pair import pair
from tests.real.test_ims_serve import pending_signals, thread_states

MN, CN = key(1, "10.1.0.1"), key(2, "10.1.0.2")
NODES = [key(number, f"10.1.0.{number}") for number in range(1, 61)]
HERE, THERE, YONDER = "198.51.100.1", "198.51.100.2", "198.51.100.3"
DIED = "a worker died and is started again"
REFUSES = "the store does not take updates"
WORKS = "the store takes updates again"
TWO = {"ims": {"workers": "2"}}
Tables = dict[str, dict[str, str]]

IN_WORKERS = """
import sys, time
from pathlib import Path
FOLDER = Path({folder!r})

def sprung(name):
    "Whether a trap was set; it springs once."
    try:
        (FOLDER / name).unlink()
    except FileNotFoundError:
        return False
    return True

def halt(name):
    "Stand still as long as there is a file of that name; there is another meanwhile that says so."
    while (FOLDER / name).exists():
        (FOLDER / ("at " + name)).touch()
        time.sleep(0.01)

if "mat_real.ims.worker_process" in sys.orig_argv:
{code}
"""


@contextmanager
def served(
    folder: Path,
    keys: Sequence[Key],
    tables: Tables | None = None,
    *,
    code: str = "",
    wrapper: Sequence[str] = (),
) -> Generator[Server]:
    """A server for as long as the block lasts; its workers run `code` before anything else."""
    write_keys(folder / "keys", keys)
    if code:
        place = folder / "shim"
        place.mkdir(exist_ok=True)
        indented = "\n".join(f"    {line}" for line in code.strip().splitlines())
        text = IN_WORKERS.format(folder=str(folder), code=indented)
        (place / "sitecustomize.py").write_text(text)
        search = os.pathsep.join((str(place), os.environ.get("PYTHONPATH", "")))
        wrapper = (*wrapper, "env", f"PYTHONPATH={search}")
    server = started(folder, tables=tables, wrapper=wrapper)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.kill()


def updated(node: Client, one: Key, moved: str, *, attempts: int = 60) -> Code:
    """The code of the reply to an update, which is sent again until there is one."""
    reply = node.update(one, [moved], lifetime=600, attempts=attempts)
    assert reply is not None
    return Code(reply.code)


def asked(node: Client, home: str) -> Code | list[str]:
    """The mobile addresses of a home address, or the code if there are none."""
    answer = node.query(home, attempts=60)
    assert answer is not None
    return addresses(answer) if answer.code == Code.SUCCEEDED else Code(answer.code)


# ---- workers apart -------------------------------------------------------------------------------


def tallies_of(server: Server) -> list[Tallies]:
    """The counters of each worker, which a server shows in sum: its shared memory."""
    descriptors = Path(f"/proc/{server.process.pid}/fd").iterdir()
    memory = next(one for one in descriptors if "mat-ims-tallies" in str(one.readlink()))
    with memory.open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    return [Tallies(mapped, number) for number in range(len(server.workers()))]


@contextmanager
def a_client_each(server: Server) -> Generator[list[Client]]:
    """For each worker a client whose datagrams come to it."""
    tallies = tallies_of(server)
    found = dict[int, Client]()
    with ExitStack() as stack:
        while len(found) < len(tallies):
            client = stack.enter_context(Client(server.port))
            before = [one["received", "MA Query"] for one in tallies]
            assert client.query("10.1.0.1") is not None
            after = [one["received", "MA Query"] for one in tallies]
            (number,) = (at for at in range(len(tallies)) if after[at] > before[at])
            found.setdefault(number, client)
        yield [found[number] for number in range(len(tallies))]


@contextmanager
def stopped(*pids: int) -> Generator[None]:
    """Processes stand still."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: all(thread_states(pid) == {"T"} for pid in pids))
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


class Window:
    """Many requests of several clients under way at once. Each is sent once."""

    def __init__(self, clients: Sequence[Client], width: int) -> None:
        self._width = width
        self._next = cycle(clients)
        self._waiting: dict[bytes, Request] = {}
        self._selector = selectors.DefaultSelector()
        for one in clients:
            one.socket.setblocking(False)
            self._selector.register(one.socket, selectors.EVENT_READ)

    def __len__(self) -> int:
        """How many have no answer yet."""
        return len(self._waiting)

    def fill(self, requests: Iterator[Request]) -> None:
        """Send until so many are under way, or there are no more."""
        for request in islice(requests, self._width - len(self._waiting)):
            assert request.nonce is not None
            self._waiting[request.nonce] = request
            next(self._next).send(request)

    def read(self, patience: float = 0.0) -> Iterator[tuple[Request, Answer]]:
        """The answers that have come, with what they answer; waits for the first."""
        for selected, _ in self._selector.select(patience):
            found = decode(os.read(selected.fd, 2048))
            assert isinstance(found, Answer)
            assert found.nonce is not None
            request = self._waiting.pop(found.nonce, None)
            assert request is not None, "answered twice"
            assert answers(found, request)
            yield request, found

    def run(self, requests: Iterator[Request]) -> Iterator[tuple[Request, Answer]]:
        """Send all and yield the answers. Fails if one does not come."""
        self.fill(requests)
        while self._waiting:
            some = list(self.read(START_LIMIT))
            assert some, "no answer"
            yield from some
            self.fill(requests)

    def close(self) -> None:
        self._selector.close()


# ---- errors that nobody expected -----------------------------------------------------------------

POISON = parse_address("10.1.66.66")
"""What is asked about it is more than a worker can bear."""
POISONED = f"""
from mat.messages import MaQuery
from mat.server import MappingServer
import mat_real.keys
receive, found, load = MappingServer.receive, MappingServer.servers_found, mat_real.keys.load
def poisoned_receive(self, now, message, source):
    if isinstance(message, MaQuery) and message.home_address == {bytes(POISON)!r}:
        raise RuntimeError("poison in a slice")
    return receive(self, now, message, source)
def poisoned_found(self, now, home_address, result):
    if sprung("dns"):
        raise RuntimeError("poison in a task")
    return found(self, now, home_address, result)
def poisoned_load(path):
    if sprung("keys again"):
        raise RuntimeError("poison in a reload")
    return load(path)
MappingServer.receive, MappingServer.servers_found = poisoned_receive, poisoned_found
mat_real.keys.load = poisoned_load
"""


def alone(_: Server, node: Client) -> None:
    """A datagram for itself."""
    node.send(MaQuery(1, POISON, nonce=node.nonce()))


def in_the_backlog(server: Server, node: Client) -> None:
    """The last of more than is worked off at once."""
    with stopped(*server.workers()):
        for number in range(2 * SLICE):
            node.send(MaQuery(number, MN.home_address, nonce=node.nonce()))
        alone(server, node)


def in_a_look_up(server: Server, node: Client) -> None:
    """What the DNS says is handled long after the slice."""
    (server.folder / "dns").touch()
    node.send(HaNotify(1, parse_address("10.9.0.1"), MN.home_address, nonce=node.nonce()))


def in_a_reload(server: Server, _: Client) -> None:
    (server.folder / "keys again").touch()
    server.process.send_signal(signal.SIGHUP)


@pytest.mark.parametrize("poison", [alone, in_the_backlog, in_a_look_up, in_a_reload])
def test_a_worker_to_which_something_unexpected_happened_is_replaced(
    tmp_path: Path, poison: Callable[[Server, Client], None]
) -> None:
    with (
        served(tmp_path, [MN, CN], code=POISONED) as server,
        Client(server.port) as node,
        Client(server.port) as poisoner,
    ):
        assert updated(node, MN, HERE) == Code.SUCCEEDED
        (before,) = server.workers()
        poison(server, poisoner)
        wait_until(lambda: DIED in server.log())
        assert asked(node, "10.1.0.1") == [HERE]
        assert updated(node, CN, THERE) == Code.SUCCEEDED
        assert asked(node, "10.1.0.2") == [THERE]
        assert server.workers() not in ([], [before])
        (died,) = (line for line in server.log().splitlines() if DIED in line)
        assert "code=70" in died
        assert "the worker ends:" in server.log()
        assert "RuntimeError: poison in a" in server.log()
        assert server.stop() == 0


BAD_COMMIT = """
from mat_real.store.journal import Journal
append = Journal.append
def bad_append(self, *rest):
    if sprung("commit"):
        raise {error}
    return append(self, *rest)
Journal.append = bad_append
"""


@pytest.mark.parametrize("error", ["RuntimeError('bad commit')", "MemoryError", "SystemExit(3)"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_commit_that_ends_as_nobody_expected_ends_the_worker_and_loses_nothing(
    tmp_path: Path, error: str, workers: int
) -> None:
    """With one worker it happens on the loop's thread, with two in the journal's writer."""
    tables = {"ims": {"workers": str(workers)}}
    with (
        served(tmp_path, [MN, CN], tables, code=BAD_COMMIT.format(error=error)) as server,
        Client(server.port) as node,
    ):
        assert updated(node, MN, HERE) == Code.SUCCEEDED
        (tmp_path / "commit").touch()
        assert updated(node, CN, THERE) == Code.SUCCEEDED
        assert not (tmp_path / "commit").exists()
        wait_until(lambda: DIED in server.log())
        wait_until(lambda: len(server.workers()) == workers)
        for _ in range(8):
            with Client(server.port) as other:
                assert asked(other, "10.1.0.1") == [HERE]
                assert asked(other, "10.1.0.2") == [THERE]
                assert updated(other, MN, HERE) == Code.SUCCEEDED
        assert sum(one["restarts"] for one in ask(server.control)["workers"]) == 1
        assert server.stop() == 0


# ---- a store that cannot be read -----------------------------------------------------------------


def test_while_the_journal_cannot_be_read_everything_has_to_be_tried_again(tmp_path: Path) -> None:
    """A row that nobody wrote: what it said is not known, and no worker says what it did before."""
    with served(tmp_path, [MN, CN], TWO) as server, a_client_each(server) as clients:
        for node in clients:
            assert updated(node, MN, HERE) == Code.SUCCEEDED
        with closing(sqlite3.connect(tmp_path / "ims.store", timeout=START_LIMIT)) as store, store:
            store.execute("INSERT INTO journal (entries, crc, data) VALUES (1, 0, x'00')")
        for node in clients:
            assert asked(node, "10.1.0.1") == Code.TRY_AGAIN
            assert asked(node, "10.1.0.2") == Code.TRY_AGAIN
            assert updated(node, MN, THERE) == Code.TRY_AGAIN
            found, told = node.identify(HERE), node.notify("10.1.0.1", "10.1.0.2")
            assert found is not None
            assert told is not None
            assert found.code == told.code == Code.TRY_AGAIN
        wait_until(lambda: server.log().count(f"{REFUSES}: the journal cannot be read (row ") == 2)
        with closing(sqlite3.connect(tmp_path / "ims.store", timeout=START_LIMIT)) as store, store:
            store.execute("DELETE FROM journal WHERE data = x'00'")
        for node in clients:
            assert asked(node, "10.1.0.1") == [HERE]
        assert updated(clients[0], MN, THERE) == Code.SUCCEEDED
        assert asked(clients[1], "10.1.0.1") == [THERE]
        wait_until(lambda: server.log().count(WORKS) == 2)
        assert sum(one["restarts"] for one in ask(server.control)["workers"]) == 0
        assert server.stop() == 0


def test_a_worker_that_finds_damage_where_the_other_wrote_does_not_answer_as_before(
    tmp_path: Path,
) -> None:
    with served(tmp_path, [MN, CN], TWO) as server, a_client_each(server) as (one, other):
        assert updated(one, MN, HERE) == Code.SUCCEEDED
        assert asked(other, "10.1.0.1") == [HERE]
        with stopped(server.workers()[1]):
            assert updated(one, MN, THERE) == Code.SUCCEEDED
            wal = tmp_path / "ims.store-wal"
            at = wal.read_bytes().rindex(parse_address(THERE))
            with wal.open("r+b") as file:
                file.seek(at)
                file.write(parse_address("198.51.100.66"))
        for _ in range(20):
            assert asked(other, "10.1.0.1") == Code.TRY_AGAIN
            assert updated(other, CN, THERE) == Code.TRY_AGAIN
            # Who wrote it knows it.
            assert asked(one, "10.1.0.1") == [THERE]
        wait_until(lambda: f"{REFUSES}: the journal cannot be read (row " in server.log())
        assert sum(one["restarts"] for one in ask(server.control)["workers"]) == 0


# ---- a flood over two addresses ------------------------------------------------------------------

BACKLOG = 2000
BURST = 1024


def junk(amount: int) -> list[bytes]:
    """Updates whose MAC a server has to compute, and refuses; no two with the same sequence."""
    update = encode(update_of(MN, [THERE], time.time_ns()))
    return [
        update[:4] + number.to_bytes(4, "big") + update[8:-16] + os.urandom(16)
        for number in range(amount)
    ]


class Flood:
    """Junk from one socket for each listening address."""

    def __init__(self, port: int, *servers: str) -> None:
        self._targets = [Endpoint(parse_address(server), port) for server in servers]
        self._sockets = [DatagramSocket(bind(one.address)) for one in self._targets]
        self._stock = cycle(junk(20 * BURST))

    def burst(self) -> None:
        """More to each address than a worker reads meanwhile."""
        for datagram in islice(self._stock, BURST):
            for source, target in zip(self._sockets, self._targets, strict=True):
                source.send(target, datagram)
        for source in self._sockets:
            source.flush()

    def close(self) -> None:
        for source in self._sockets:
            source.close()


def test_a_flood_over_two_addresses_fills_the_backlog_and_no_more(tmp_path: Path) -> None:
    tables = {"ims": {"backlog": str(BACKLOG), "receive_buffer": str(1 << 20)}}
    with (
        served(tmp_path, [MN, CN], tables) as server,
        closing(Flood(server.port, "127.0.0.1", "::1")) as flood,
        Client(server.port) as four,
        Client(server.port, "::1") as six,
    ):
        levels = list[int]()

        def flooded() -> bool:
            """Whether the backlog was full when a worker looked, again and again."""
            flood.burst()
            levels.append(ask(server.control)["workers"][0]["backlog"])
            return server.log().count("overloaded: the backlog is full") > 2

        wait_until(flooded)
        assert BACKLOG - SLICE <= max(levels) <= BACKLOG + SLICE
        assert ask(server.control)["overflowed"] > 0
        for node, one in ((four, MN), (six, CN)):
            assert updated(node, one, HERE) == Code.SUCCEEDED
            assert asked(node, "10.1.0.1") == [HERE]
        wait_until(lambda: ask(server.control)["workers"][0]["backlog"] == 0)
        assert server.stop() == 0


# ---- the kernel's buffer -------------------------------------------------------------------------

SMALLER = "the kernel grants a smaller socket buffer than wanted"
FORCE_RECEIVE_BUFFER = 33
"""SO_RCVBUFFORCE of socket(7)."""


def may_exceed(most: int) -> bool:
    """Whether this process may have a larger buffer than the kernel grants to anybody."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one:
        try:
            one.setsockopt(socket.SOL_SOCKET, FORCE_RECEIVE_BUFFER, most + 1)
        except PermissionError:
            return False
    return True


@pytest.mark.parametrize(("beyond", "bare", "warned"), [(1, 1, 1), (0, 1, 0), (1, 0, 0)])
def test_a_warning_says_when_the_kernel_grants_a_smaller_buffer_than_wanted(
    tmp_path: Path, beyond: int, bare: int, warned: int
) -> None:
    """At the limit all is well; beyond, it takes CAP_NET_ADMIN."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("capabilities can only be dropped by root, with setpriv")
    most = int(Path("/proc/sys/net/core/rmem_max").read_text())
    if not 1 << 16 <= most < 1 << 29:
        pytest.skip("net.core.rmem_max is not between what a server and a kernel take")
    if not bare and not may_exceed(most):
        pytest.skip("root has no CAP_NET_ADMIN here")
    wrapper = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"] * bare
    tables = {"ims": {"receive_buffer": str(most + beyond)}}
    with served(tmp_path, [MN], tables, wrapper=wrapper) as server, Client(server.port) as node:
        assert server.log().count(SMALLER) == warned
        assert (f"wanted={most + 1}" in server.log()) == warned
        assert updated(node, MN, HERE) == Code.SUCCEEDED
        assert server.stop() == 0


# ---- reloads -------------------------------------------------------------------------------------

ELSEWHERE = key(3, "10.3.0.1")
HALTS = {
    "before any of its code": 'halt("hold")',
    "with its keys read": """
from mat_real.store.journal import JournalStore
begin = JournalStore.__init__
def halting_begin(self, *args, **more):
    halt("hold")
    begin(self, *args, **more)
JournalStore.__init__ = halting_begin
""",
}


@pytest.mark.parametrize("when", HALTS)
def test_a_reload_while_a_worker_starts_reaches_it(tmp_path: Path, when: str) -> None:
    with (
        served(tmp_path, [MN], code=HALTS[when]) as server,
        Client(server.port) as node,
    ):
        assert updated(node, MN, HERE) == Code.SUCCEEDED
        (tmp_path / "hold").touch()
        os.kill(server.workers()[0], signal.SIGKILL)
        wait_until((tmp_path / "at hold").exists)
        write_keys(tmp_path / "keys", [ELSEWHERE])
        configuration(tmp_path, server.port, {"ims": {"zones": '["10.3.0.0/16"]'}})
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "reloaded" in server.log())
        (tmp_path / "hold").unlink()
        wait_until(lambda: updated(node, ELSEWHERE, THERE) == Code.SUCCEEDED)
        assert updated(node, MN, THERE) == Code.AUTHENTICATION_FAILED
        assert asked(node, "10.1.0.1") == Code.NOT_RESPONSIBLE
        # The signal did not meet a process that had nobody for it yet.
        assert ask(server.control)["workers"][0]["restarts"] == 1
        assert server.stop() == 0


UNDER_WAY = 3000
"""Requests: more than a worker takes up at once."""
TRUE_SIZE = 1280
"""Bytes that a small datagram takes of a buffer, the kernel's bookkeeping included; or less."""


def queries() -> Iterator[Request]:
    """By the express lane and beside it."""
    for number in count(1):
        nonce = number.to_bytes(8, "big")
        yield (
            MaQuery(number, MN.home_address, nonce=nonce),
            MaQuery(number, CN.home_address, nonce=nonce),
            HaQuery(number, parse_address(HERE), nonce=nonce),
        )[number % 3]


def is_right(answer: Answer) -> bool:
    """Whether this is what has to be answered to one of the `queries`."""
    if isinstance(answer, HaAnswer):
        return answer.home_addresses == (MN.home_address,)
    assert isinstance(answer, MaAnswer)
    if answer.home_address == CN.home_address:
        return answer.code == Code.NO_MAPPING
    return addresses(answer) == [HERE]


@pytest.mark.parametrize("workers", [1, 2])
def test_reloads_lose_none_of_many_requests_under_way(tmp_path: Path, workers: int) -> None:
    tables = {"ims": {"workers": str(workers)}}
    with served(tmp_path, [MN, NODES[19]], tables) as server, ExitStack() as stack:
        clients = [stack.enter_context(Client(server.port)) for _ in range(50)]
        assert updated(clients[0], MN, HERE) == Code.SUCCEEDED
        room = ask(server.control)["workers"][0]["receive_buffer"] // TRUE_SIZE
        under_way = min(UNDER_WAY, room)
        window = stack.enter_context(closing(Window(clients, under_way)))
        requests, pids = queries(), server.workers()
        for turn in range(1, 21):
            write_keys(tmp_path / "keys", [MN, NODES[turn]])
            with stopped(*pids):
                window.fill(requests)
                server.process.send_signal(signal.SIGHUP)
                wait_until(lambda: all("SIGHUP" in pending_signals(pid) for pid in pids))
            assert len(window) == under_way
            while ask(server.control)["reloads"] < turn:
                found = list(window.read(START_LIMIT))
                assert found, "no answer"
                assert all(is_right(answer) for _, answer in found)
                window.fill(requests)
        assert all(is_right(answer) for _, answer in window.run(iter(())))
        # The keys that are used are those that were read last.
        for client in clients:
            client.socket.setblocking(True)
            wait_until(lambda: updated(client, NODES[20], THERE) == Code.SUCCEEDED)  # noqa: B023
            assert updated(client, NODES[19], THERE) == Code.AUTHENTICATION_FAILED
        assert server.workers() == pids
        assert server.stop() == 0


# ---- what workers tell each other ----------------------------------------------------------------

ROUTERS = [
    Key(number, f"the secret of router {number}".encode(), parse_address(f"10.2.{number}.0"), 120)
    for number in (4, 5, 6)
]
FOREIGN = 600


def foreign(number: int) -> tuple[Address, Address]:
    """Home and mobile address of a node of the other IMS."""
    place = f"{4 + number % 3}.{number // 3}"
    return parse_address(f"10.2.{place}"), parse_address(f"198.51.{place}")


def notices(version: int, first: int) -> Iterator[Request]:
    """One of each node of the other IMS."""
    for number in range(FOREIGN):
        nonce = (first + number).to_bytes(8, "big")
        home, _ = foreign(number)
        yield HaNotify(first + number, home, MN.home_address, version, nonce=nonce)


def test_what_one_worker_learned_in_a_burst_all_workers_know(tmp_path: Path) -> None:
    """The others are told faster than they listen, and ask nobody again."""
    with pair(tmp_path, workers=3) as (ims_cn, ims_mn), Client(ims_mn.port) as mn:
        write_keys(ims_mn.folder / "keys", ROUTERS)
        ims_mn.process.send_signal(signal.SIGHUP)
        wait_until(lambda: ask(ims_mn.control)["reloads"] == 1)
        freshness = time.time_ns() * (1 << 32) // 10**9
        for router in ROUTERS:
            reply = mn.update(router, [f"198.51.{router.key_id}.0"], freshness, lifetime=600)
            assert reply is not None
            assert reply.code == Code.SUCCEEDED
        with a_client_each(ims_cn) as clients:
            with stopped(*ims_cn.workers()[1:]):
                told = notify_all(clients[0], freshness, 0)
                assert {ack.code for ack in told} == {Code.SUCCEEDED}
            assert ask(ims_cn.control)["asked_other_ims"] == FOREIGN
            for at, client in enumerate(clients):
                # What was learned last first: whoever has to be told by then has been told all.
                for number in reversed(range(FOREIGN)):
                    home, moved = foreign(number)
                    found = client.ask(HaQuery(number, moved, nonce=client.nonce()))
                    assert isinstance(found, HaAnswer)
                    assert found.home_addresses == (home,)
                again = notify_all(client, freshness, (at + 1) * FOREIGN)
                assert {ack.code for ack in again} == {Code.SUCCEEDED}
            wait_until(
                lambda: (
                    {one["foreign_mappings"] for one in ask(ims_cn.control)["workers"]} == {FOREIGN}
                )
            )
            assert ask(ims_cn.control)["asked_other_ims"] == FOREIGN
            assert ask(ims_mn.control)["requests"]["MA Query"]["received"] == FOREIGN


def notify_all(client: Client, version: int, first: int) -> list[HaNotifyAck]:
    """The acknowledgements of one notice of each node of the other IMS."""
    found = list[HaNotifyAck]()
    with closing(Window([client], 100)) as window:
        for _, answer in window.run(notices(version, first)):
            assert isinstance(answer, HaNotifyAck)
            found.append(answer)
    client.socket.setblocking(True)
    return found


# ---- cleaning ------------------------------------------------------------------------------------

MOVING, RESTING = NODES[:40], NODES[40:]


def worn_out(path: Path, entries: int) -> None:
    """A journal of which nearly all is in vain: some of the nodes have moved again and again."""
    create(path, 0, "another-boot 0.0")
    with closing(Journal(path)) as journal:
        register(journal, NODES, 1)
        for freshness in range(2, entries // len(MOVING)):
            register(journal, MOVING, freshness)


def register(journal: Journal, nodes: Sequence[Key], freshness: int) -> None:
    """A commit with a registration of each node."""
    now = time.time()
    rows = [
        registration(format_address(one.home_address), freshness, [HERE], at=now, lifetime=600)
        for one in nodes
    ]
    data = b"".join(one.home_address + pack(one) for one in rows)
    journal.append(data, len(rows), None)


def entries_in(path: Path) -> int:
    """Registrations in a journal, live or not."""
    with closing(sqlite3.connect(path, timeout=START_LIMIT)) as store:
        ((found,),) = store.execute("SELECT total(entries) FROM journal")
    return int(found)


class Journey:
    """Where the nodes are, and a journal that is cleaned while they move."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places = dict.fromkeys(NODES, HERE)
        self._movers = cycle(MOVING)

    def clean(self, node: Client, moved: str, enough: int) -> None:
        """Have the worker of a client commit until there are no more entries than that."""
        for _ in range(len(MOVING)):
            one = next(self._movers)
            assert updated(node, one, moved) == Code.SUCCEEDED
            self._places[one] = moved
            if entries_in(self._path) <= enough:
                return
        raise AssertionError("the journal is not cleaned")

    def known_to(self, node: Client) -> bool:
        """Whether all nodes are found where they are."""
        homes = {one: addresses(node.query(one.home_address)) for one in NODES}
        return homes == {one: [moved] for one, moved in self._places.items()}


def test_each_worker_cleans_the_journal_and_the_death_of_one_stops_nothing(tmp_path: Path) -> None:
    path, limit = tmp_path / "ims.store", SLACK + 2 * len(NODES)
    worn_out(path, 14_000)
    journey = Journey(path)
    with served(tmp_path, NODES, TWO) as server:
        with a_client_each(server) as (first, second):
            with stopped(server.workers()[0]):
                journey.clean(second, THERE, 13_000)
            # What was moved and removed meanwhile is known to the one that stood still.
            assert journey.known_to(first)
            dying = server.workers()[1]
            os.kill(dying, signal.SIGKILL)
            assert entries_in(path) > limit
            journey.clean(first, YONDER, limit)
            wait_until(lambda: len(server.workers()) == 2 and dying not in server.workers())
        with a_client_each(server) as clients:
            assert all(journey.known_to(client) for client in clients)
        assert server.stop() == 0
    with served(tmp_path, NODES, TWO) as server, Client(server.port) as node:
        assert journey.known_to(node)
        assert server.stop() == 0


# ---- what would starve, go on half-dead, or write where nobody reads -----------------------------

UDP_SEGMENT = 103
OVERLOADED = "overloaded: the backlog is full"
SMALL = {"backlog": str(BACKLOG), "receive_buffer": str(1 << 20)}


@final
class Repetition:
    """One datagram, again and again: it takes no room, and the kernel makes many of one block."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", port))
        one = bytes((Type.MA_QUERY, 0, 0, 2, 0, 0, 0, 1, 0))
        self._socket.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, len(one))
        self._block = 128 * one

    def burst(self) -> None:
        for _ in range(100):
            with suppress(ConnectionRefusedError):
                self._socket.send(self._block)

    def close(self) -> None:
        self._socket.close()


@contextmanager
def pouring(flood: Flood | Repetition) -> Generator[None]:
    """Junk without end, in a thread of its own."""
    stop = threading.Event()

    def pour() -> None:
        while not stop.is_set():
            flood.burst()

    thread = threading.Thread(target=pour)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


# ---- A: the first socket with more than the backlog holds starves all others ---------------------


def test_a_flood_of_one_address_does_not_keep_the_other_from_being_served(tmp_path: Path) -> None:
    with (
        served(tmp_path, [MN, CN], {"ims": SMALL}) as server,
        closing(Flood(server.port, "127.0.0.1")) as flood,
        Client(server.port, "::1") as six,
        pouring(flood),
    ):
        wait_until(lambda: server.log().count(OVERLOADED) > 1)
        assert updated(six, CN, HERE) == Code.SUCCEEDED


def test_a_flood_of_one_request_repeated_keeps_nobody_out_and_ends_no_stop(tmp_path: Path) -> None:
    with (
        served(tmp_path, [MN, CN]) as server,
        closing(Repetition(server.port)) as flood,
        Client(server.port, "::1") as six,
        pouring(flood),
    ):
        time.sleep(1.0)
        assert updated(six, CN, HERE) == Code.SUCCEEDED
        assert server.stop() == 0


def test_a_flood_does_not_keep_the_answers_of_another_ims_out(tmp_path: Path) -> None:
    """The notice comes to an address without a flood; what the other IMS answers counts here."""
    dns, there, here = free_port(), tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    port = free_port()
    of_other = {
        "ims": {"zones": '["10.3.0.0/16"]', "listen": f'["127.0.0.1:{port}"]'},
        "responder": {
            "listen": f'"127.0.0.1:{dns}"',
            "zones": '["3.10.in-addr.arpa"]',
            "records": f'{{"10.3.0.0/16" = "10 {port} 127.0.0.1"}}',
        },
    }
    tables = {"ims": SMALL, "dns": {"servers": f'["127.0.0.1:{dns}"]'}}
    with (
        running(there, [ELSEWHERE], of_other),
        Client(port) as other,
        served(here, [MN, CN], tables) as server,
        closing(Flood(server.port, "127.0.0.1")) as flood,
        Client(server.port, "::1") as six,
    ):
        assert updated(other, ELSEWHERE, THERE) == Code.SUCCEEDED
        assert updated(six, MN, HERE) == Code.SUCCEEDED
        with pouring(flood):
            wait_until(lambda: server.log().count(OVERLOADED) > 1)
            told = six.notify("10.3.0.1", "10.1.0.1")
        assert told is not None
        assert told.code == Code.SUCCEEDED
        assert addresses(told) == [HERE]


# ---- B: a worker goes on half-dead when the journal's thread has ended ---------------------------

DYING_WRITER = """
from mat_real.store.journal import JournalStore
begin = JournalStore.__init__
def mortal_begin(self, path, answered, entered, call_soon, **more):
    def mortal_call_soon(done):
        if sprung("writer"):
            raise MemoryError
        return call_soon(done)
    begin(self, path, answered, entered, mortal_call_soon, **more)
JournalStore.__init__ = mortal_begin
"""


def test_a_worker_whose_writer_has_died_does_not_stay(tmp_path: Path) -> None:
    with served(tmp_path, [MN, CN], TWO, code=DYING_WRITER) as server, Client(server.port) as node:
        assert updated(node, MN, HERE) == Code.SUCCEEDED
        (tmp_path / "writer").touch()
        assert updated(node, CN, THERE) == Code.SUCCEEDED
        assert asked(node, "10.1.0.1") == [HERE]
        assert DIED in server.log()


# ---- C: a store that is moved away or replaced while the server runs -----------------------------


def move_away(folder: Path) -> None:
    away = folder / "away"
    away.mkdir()
    for end in ("", "-wal", "-shm"):
        (folder / f"ims.store{end}").rename(away / f"ims.store{end}")


def test_workers_on_two_files_do_not_answer_differently(tmp_path: Path) -> None:
    """A copy is put in the journal's place, and a worker that starts opens that."""
    with served(tmp_path, [MN, CN], TWO) as server, a_client_each(server) as (one, other):
        assert updated(one, MN, HERE) == Code.SUCCEEDED
        assert asked(other, "10.1.0.1") == [HERE]
        move_away(tmp_path)
        for end in ("", "-wal"):
            copy = (tmp_path / "away" / f"ims.store{end}").read_bytes()
            (tmp_path / f"ims.store{end}").write_bytes(copy)
        os.kill(server.workers()[0], signal.SIGKILL)
        wait_until(lambda: DIED in server.log())
        assert updated(one, MN, THERE) == Code.SUCCEEDED
        assert asked(other, "10.1.0.1") in ([THERE], Code.TRY_AGAIN)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_goes_to_a_file_that_was_moved_away_is_not_acknowledged(
    tmp_path: Path, workers: int
) -> None:
    tables = {"ims": {"workers": str(workers)}}
    with served(tmp_path, [MN, CN], tables) as server, Client(server.port) as node:
        assert updated(node, MN, HERE) == Code.SUCCEEDED
        move_away(tmp_path)
        assert updated(node, MN, THERE) == Code.TRY_AGAIN
        wait_until(lambda: REFUSES in server.log())
        for file in (tmp_path / "away").iterdir():
            file.rename(tmp_path / file.name)
        assert updated(node, MN, THERE) == Code.SUCCEEDED
        assert asked(node, "10.1.0.1") == [THERE]
