"""A real `mat ims serve`, and nodes that talk to it with real datagrams."""

import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeGuard

from mat.address import Address, format_address, parse_address
from mat.authentication import Key, is_authentic, sign
from mat.codec import Malformed, decode, encode
from mat.messages import (
    Answer,
    HaNotify,
    HaNotifyAck,
    HaQuery,
    ImsUpdate,
    ImsUpdateReply,
    MaAnswer,
    MaQuery,
    Message,
    Request,
)
from mat_real.control import ask as ask_daemon
from mat_real.key_file import Entry

START_LIMIT = 30.0
"""Seconds for a server to be ready, on a machine where much else goes on."""
MAIN = "from mat_cli import main; main()"
_sequences = itertools.count(1)
_ports = random.SystemRandom()


def free_port() -> int:
    """A port, UDP and TCP, that nobody uses, and that the kernel gives nobody who asks for any."""
    while True:
        port = _ports.randrange(10_000, 32_768)
        with (
            socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as datagrams,
            socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as streams,
            suppress(OSError),
        ):
            datagrams.bind(("::", port))
            streams.bind(("::", port))
            return port


def key(number: int, home: str) -> Key:
    """A key that is the same in each run."""
    return Key(number, f"the secret of key number {number:08d}".encode(), parse_address(home))


def write_keys(path: Path, keys: Iterable[Key]) -> None:
    """A key file, in place of what is there."""
    text = "".join(
        Entry(one.key_id, one.home_address, one.prefix_length, one.secret).line() + "\n"
        for one in keys
    )
    path.touch(mode=0o600)
    path.write_text(text)


def ask(control: Path) -> dict[str, Any]:
    """What `mat ims status` shows of the server behind a control socket."""
    found: dict[str, Any] = ask_daemon(control, "status")
    return found


@dataclass
class Server:
    """One server under test: its folder, its configuration, its process."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]
    tables: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def control(self) -> Path:
        """The control socket."""
        return self.folder / "ims.sock"

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        return [one["pid"] for one in ask(self.control)["workers"] if one["pid"]]

    def kill(self) -> None:
        """Kill -9 the supervisor and all workers, as a power cut would."""
        pid = self.process.pid
        # Stopped, it starts no other worker meanwhile.
        os.kill(pid, signal.SIGSTOP)
        workers = list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
        for one in (*workers, pid):
            os.kill(one, signal.SIGKILL)
        self.process.wait()
        wait_until(lambda: not any(alive(one) for one in workers))

    def stop(self) -> int:
        """Stop it as systemd would; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(START_LIMIT)

    def log(self) -> str:
        """What it has logged so far."""
        return (self.folder / "log").read_text()


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie. Its files are open until its last thread ends."""
    try:
        threads = [task / "stat" for task in Path(f"/proc/{pid}/task").iterdir()]
        return any(one.read_text().rpartition(")")[2].split()[0] not in "ZX" for one in threads)
    except (FileNotFoundError, ProcessLookupError):
        # One of its threads has ended just now: look again.
        return alive(pid) if Path(f"/proc/{pid}").exists() else False


def wait_until(condition: object, limit: float = START_LIMIT) -> None:
    """Wait for a condition to hold; fails if it does not within the limit."""
    assert callable(condition)
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "the condition was not met in time"
        time.sleep(0.01)


def configuration(folder: Path, port: int, tables: dict[str, dict[str, str]] | None = None) -> Path:
    """Write a configuration; `tables` adds to it and replaces parts of it, values being TOML."""
    wanted: dict[str, dict[str, str]] = {
        "ims": {
            "zones": '["10.1.0.0/16", "2001:db8:1::/48"]',
            "listen": f'["127.0.0.1:{port}", "[::1]:{port}"]',
            "keys": '"keys"',
            "control": '"ims.sock"',
        },
        "store": {"path": '"ims.store"'},
        "dns": {"servers": '["127.0.0.1:9"]', "timeout": "0.2", "attempts": "1"},
    }
    for table, values in (tables or {}).items():
        wanted.setdefault(table, {}).update(values)
    lines = [
        line
        for table, values in wanted.items()
        for line in (f"[{table}]", *(f"{name} = {value}" for name, value in values.items()))
    ]
    path = folder / "ims.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def started(
    folder: Path,
    port: int = 0,
    tables: dict[str, dict[str, str]] | None = None,
    wrapper: Sequence[str] = (),
) -> Server:
    """A server, ready to answer. The key file is `folder`/keys; `wrapper` goes before the command.

    Fails with the server's log if it does not get ready.
    """
    port = port or free_port()
    config = configuration(folder, port, tables)
    where = folder / "notify"
    where.unlink(missing_ok=True)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified,
        (folder / "log").open("ab") as log,
    ):
        notified.bind(str(where))
        notified.settimeout(START_LIMIT)
        process = subprocess.Popen(
            [*wrapper, sys.executable, "-c", MAIN, "ims", "serve", "--config", str(config)],
            stderr=log,
            env=os.environ | {"NOTIFY_SOCKET": str(where)},
        )
        server = Server(folder, port, process, tables or {})
        notified.settimeout(0.1)
        end = time.monotonic() + START_LIMIT
        while True:
            try:
                assert notified.recv(64) == b"READY=1"
            except TimeoutError:
                assert process.poll() is None, server.log()
                assert time.monotonic() < end, server.log()
            else:
                return server


def serve(config: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """A server that is expected to refuse."""
    return subprocess.run(
        [sys.executable, "-c", MAIN, "ims", "serve", "--config", str(config), *more],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def running(
    folder: Path,
    keys: Sequence[Key],
    tables: dict[str, dict[str, str]] | None = None,
) -> Generator[Server]:
    """A server with a key file, for as long as the block lasts."""
    write_keys(folder / "keys", keys)
    server = started(folder, tables=tables)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait()


class Client:
    """A host that sends requests to a server, repeats them, and reads the answers."""

    def __init__(self, port: int, server: str = "127.0.0.1") -> None:
        self.server = server, port
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self._random = random.Random(port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def nonce(self) -> bytes:
        return self._random.randbytes(8)

    def ask(self, message: Request, *, attempts: int = 20, time_out: float = 0.5) -> Answer | None:
        """The answer to a request, which is sent again until there is one; None if none comes."""
        for _ in range(attempts):
            self.send(message)
            found = self.answer(message, time_out)
            if found is not None:
                return found
        return None

    def send(self, message: Request) -> None:
        """Send a request once; `answer` waits for what comes of it."""
        self.socket.sendto(encode(message), self.server)

    def answer(self, message: Request, time_out: float = START_LIMIT) -> Answer | None:
        """The answer to a request that was sent; None if none comes in time."""
        end = time.monotonic() + time_out
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                found = decode(self.socket.recv(2048))
            except (TimeoutError, ConnectionRefusedError):
                break
            if answers(found, message):
                return found
        return None

    def update(
        self,
        node: Key,
        moved: Iterable[str],
        freshness: int = 0,
        *,
        version: int = 0,
        lifetime: int = 180,
        attempts: int = 20,
    ) -> ImsUpdateReply | None:
        """The Reply to an IMS Update of a node, after a check of its MAC."""
        freshness = freshness or time.time_ns() * (1 << 32) // 10**9
        message = update_of(node, moved, freshness, version=version, lifetime=lifetime)
        reply = self.ask(message, attempts=attempts)
        if reply is None:
            return None
        assert isinstance(reply, ImsUpdateReply)
        assert reply.authentication is None or is_authentic(reply, node)
        return reply

    def query(self, home: str | Address, *, attempts: int = 20) -> MaAnswer | None:
        """The MA Answer about a home address."""
        address = parse_address(home) if isinstance(home, str) else home
        found = self.ask(MaQuery(next(_sequences), address, nonce=self.nonce()), attempts=attempts)
        assert found is None or isinstance(found, MaAnswer)
        return found

    def notify(self, mover: str, peer: str, version: int = 0) -> HaNotifyAck | None:
        """The HA Notify Ack to a notice."""
        message = HaNotify(
            next(_sequences),
            parse_address(mover),
            parse_address(peer),
            version,
            nonce=self.nonce(),
        )
        found = self.ask(message)
        assert found is None or isinstance(found, HaNotifyAck)
        return found

    def identify(self, moved: str) -> Answer | None:
        """The HA Answer about a mobile address."""
        return self.ask(HaQuery(next(_sequences), parse_address(moved), nonce=self.nonce()))


def update_of(
    node: Key, moved: Iterable[str], freshness: int, *, version: int = 0, lifetime: int = 180
) -> ImsUpdate:
    """A signed IMS Update."""
    message = ImsUpdate(
        next(_sequences),
        node.home_address,
        tuple(map(parse_address, moved)),
        version or freshness,
        lifetime,
        node.prefix_length,
        nonce=next(_sequences).to_bytes(8, "big"),
    )
    sign(message, node, freshness)
    return message


def answers(found: Message | Malformed, message: Request) -> TypeGuard[Answer]:
    """Whether a message is an answer to this request."""
    if isinstance(found, Malformed) or not isinstance(found, Answer):
        return False
    return (found.sequence, found.nonce) == (message.sequence, message.nonce)


def addresses(answer: Answer | None) -> list[str]:
    """The mobile addresses in an answer, as text."""
    assert isinstance(answer, MaAnswer | HaNotifyAck)
    return [format_address(address) for address in answer.mobile_addresses]
