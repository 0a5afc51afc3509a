"""Redis servers of one's own, for tests and benchmarks: on loopback, ended by their pid."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

BOUND = 30.0
"""Seconds after which waiting for a server is a failure."""


def require_redis() -> None:
    """Skip the test where there is no Redis server to start."""
    for program in ("redis-server", "redis-cli"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def await_that(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is so. Raises `TimeoutError`."""
    end = time.monotonic() + BOUND
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not happen within {BOUND} s")
        time.sleep(0.01)


def free_port() -> int:
    """A port that is free, as is the one 10,000 above it, where a cluster's servers talk."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            if port + 10_000 > 65_535:
                continue
            try:
                other.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port


DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


class RedisServer:
    """One redis-server, which can be killed and started again on the same port and data."""

    def __init__(self, directory: Path, *options: str, password: str | None = None) -> None:
        self.directory = directory
        self.port = free_port()
        self._options = options
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the server, and wait until it has read its data."""
        self.directory.mkdir(exist_ok=True)
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", str(self.directory), "--save", "", "--repl-diskless-sync-delay", "0"]
        command += self._options
        if self._password is not None:
            command += ["--requirepass", self._password]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        await_that(self._answers, f"start of {' '.join(command)}")

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError((self.directory / "log").read_text())
        try:
            return bool(self.do("PING"))
        except redis.ConnectionError:
            return False

    def do(self, *command: str | bytes, then: tuple[str, ...] = ()) -> Any:
        """One command, or two in a row, over a connection of its own; the reply to the last."""
        with redis.Redis(port=self.port, password=self._password, protocol=2) as client:
            reply: Any = None
            for one in (command, then) if then else (command,):
                reply = client.execute_command(*one)
            return reply

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End the server as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(BOUND)
            self._process = None

    def lose_data(self) -> None:
        """What a new disk would look like."""
        shutil.rmtree(self.directory)


@contextmanager
def redis_server(
    directory: Path, *options: str, password: str | None = None
) -> Iterator[RedisServer]:
    """A running server; durable unless the options say otherwise."""
    require_redis()
    server = RedisServer(directory, *(options or DURABLE), password=password)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextmanager
def redis_cluster(directory: Path, *, replicas: int = 0) -> Iterator[list[RedisServer]]:
    """A running Redis Cluster of three masters, each with so many replicas."""
    require_redis()
    directory.mkdir(exist_ok=True)
    options = [*DURABLE, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]
    options += ["--cluster-require-full-coverage", "no"]
    servers = [RedisServer(directory / str(i), *options) for i in range(3 + 3 * replicas)]
    try:
        for server in servers:
            server.start()
        places = [f"127.0.0.1:{server.port}" for server in servers]
        command = ["redis-cli", "--cluster", "create", *places, "--cluster-yes"]
        command += ["--cluster-replicas", str(replicas)]
        subprocess.run(command, check=True, capture_output=True, timeout=BOUND)
        for server in servers:
            await_that(partial(_complete, server, replicas), "agreement of the cluster")
        yield servers
    finally:
        for server in servers:
            server.kill()


def _complete(server: RedisServer, replicas: int) -> bool:
    """Whether a server knows all masters, each with its replicas."""
    state = server.do("CLUSTER INFO")["cluster_state"]
    rows = server.do("CLUSTER SLOTS")
    return state == "ok" and [len(row) for row in rows] == [2 + 1 + replicas] * 3
