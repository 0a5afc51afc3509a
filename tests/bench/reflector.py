"""Answers MA Queries as fast as Python can, many to a system call: a server that costs nothing.

    python -m tests.bench.reflector [CPU]

Prints its port; ends with its standard input. The load generator's own benchmark talks to it.
"""

import ctypes
import os
import socket
import sys
import threading

import numpy as np

from mat.address import Address, parse_address
from mat.codec import encode
from mat.messages import MaAnswer
from mat_real.datagrams import bind
from mat_real.load.volley import HEADER, VECTOR

BATCH = 256
SLOT = 256
_NAME = 28
MSG_WAITFORONE = 0x10000
_ANSWER = MaAnswer(
    0, 0, Address(bytes(16)), (parse_address("100.64.0.1"),), 1 << 32, 180, nonce=bytes(8)
)
_libc = ctypes.CDLL(None)


class _Memory:
    """A batch of datagrams in rows of `size` bytes, laid out for the kernel."""

    def __init__(self, size: int, names: np.ndarray) -> None:
        places = np.arange(BATCH, dtype=np.uintp)
        self.rows = np.zeros((BATCH, size), np.uint8)
        self._vectors = np.zeros(BATCH, VECTOR)
        self._vectors["base"] = self.rows.ctypes.data + places * size
        self._vectors["length"] = size
        self.headers = np.zeros(BATCH, HEADER)
        messages = self.headers["message"]
        messages["vectors"] = self._vectors.ctypes.data + places * VECTOR.itemsize
        messages["vector_count"] = 1
        messages["name"] = names.ctypes.data + places * _NAME
        messages["name_length"] = _NAME

    def at(self, row: int) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.headers.ctypes.data + row * HEADER.itemsize)


def reflect(bound: socket.socket) -> None:
    """Answer for ever."""
    names = np.zeros((BATCH, _NAME), np.uint8)
    answer = np.frombuffer(encode(_ANSWER), np.uint8)
    queries, answers = _Memory(SLOT, names), _Memory(len(answer), names)
    answers.rows[:] = answer
    bound.setblocking(True)
    while True:
        queries.headers["message"]["name_length"] = _NAME
        count = _libc.recvmmsg(bound.fileno(), queries.at(0), BATCH, MSG_WAITFORONE, None)
        answers.rows[:count, 4:24] = queries.rows[:count, 4:24]
        answers.rows[:count, 52:60] = queries.rows[:count, 32:40]
        sent = 0
        while sent < count:
            sent += max(1, _libc.sendmmsg(bound.fileno(), answers.at(sent), count - sent, 0))


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        os.sched_setaffinity(0, {int(sys.argv[1])})
    threading.Thread(target=_end_with_input, daemon=True).start()
    listening = bind(parse_address("127.0.0.1"), buffer=64 << 20)
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    reflect(listening)
