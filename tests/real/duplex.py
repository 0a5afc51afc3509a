"""One TCP connection, full both ways: `python -m tests.real.duplex listen|connect ADDRESS PORT`.

Both ends send numbers in order, 8 bytes each, at a fixed pace, and read those of the other. When
its standard input ends, the connecting end has sent all; the listening one follows when it has read
that. Each then writes, as JSON, the connection as it saw it, and what it has sent and read: bytes
and SHA-256. A number out of order, or a connection that breaks, is an error.
"""

import hashlib
import json
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

NUMBERS = 128
INTERVAL = 0.005
PATIENCE = 60.0
"""Seconds until a connection that says nothing counts as broken."""


class _Sum:
    """What went in one direction."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.size = 0

    def add(self, data: bytes) -> None:
        self._hash.update(data)
        self.size += len(data)

    def report(self) -> list[Any]:
        return [self.size, self._hash.hexdigest()]


def _block(number: int) -> bytes:
    """So many numbers, from this one on."""
    return b"".join(each.to_bytes(8) for each in range(number, number + NUMBERS))


def _send(one: socket.socket, ended: Callable[[float], bool], into: _Sum) -> None:
    """Send until it is said to have ended; that is asked with the time to wait for it."""
    number = 0
    while not ended(INTERVAL):
        block = _block(number)
        one.sendall(block)
        into.add(block)
        number += NUMBERS
    one.shutdown(socket.SHUT_WR)


def _read(one: socket.socket, into: _Sum, progress: Path) -> None:
    """Read to the end; how far it has come stands in a file."""
    expected, number = b"", 0
    while data := one.recv(1 << 16):
        into.add(data)
        while len(expected) < len(data):
            expected += _block(number)
            number += NUMBERS
        if not expected.startswith(data):
            raise SystemExit(f"other bytes than were sent, within {into.size}")
        expected = expected[len(data) :]
        progress.write_text(str(into.size))


def _exchange(one: socket.socket, progress: Path, end: threading.Event) -> dict[str, Any]:
    sent, read = _Sum(), _Sum()
    one.settimeout(PATIENCE)
    pair = [one.getsockname()[:2], one.getpeername()[:2]]
    sender = threading.Thread(target=_send, args=(one, end.wait, sent), daemon=True)
    sender.start()
    _read(one, read, progress)
    end.set()
    sender.join(PATIENCE)
    return {"pair": pair, "sent": sent.report(), "read": read.report()}


def _await_end(end: threading.Event) -> None:
    sys.stdin.read()
    end.set()


def main(kind: str, address: str, port: int, progress: Path) -> None:
    """Be one end."""
    end = threading.Event()
    if kind == "listen":
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.create_server((address, port), family=family) as server:
            progress.write_text("0")
            one, _ = server.accept()
    else:
        one = socket.create_connection((address, port), PATIENCE)
        threading.Thread(target=_await_end, args=(end,), daemon=True).start()
    with one:
        sys.stdout.write(json.dumps(_exchange(one, progress, end)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
