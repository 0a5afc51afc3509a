"""Sockets of a load test: blocks of equal datagrams out, answers in, with few system calls.

Out. Requests of one type have one size, so a block of them goes to the kernel in one piece, and the
kernel cuts it into datagrams (UDP_SEGMENT, Linux 4.18). The server gets what it would get from so
many hosts; what is saved is the sender's way through the network stack, three quarters of the cost.
Where the kernel or the device cannot do it, datagrams leave one by one.

In. `recvmmsg` reads into the rows of one array. Each datagram brings the kernel's time of its
arrival (SO_TIMESTAMPNS), so that a response time does not contain how long this process took to
come round to reading, and reading can wait until there is something to read.

There are several sockets for each server, hence several source ports: a server whose workers share
its port (SO_REUSEPORT) deals datagrams out by source.
"""

import ctypes
import errno
import os
import select
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from mat.messages import Endpoint
from mat_real.datagrams import receive_many

SLOT: Final = 256
"""Bytes read of a datagram: more than the longest answer has, which is 192."""
CAPACITY: Final = 2048
"""Datagrams read at most before what they say is looked at."""

_AT_ONCE: Final = 128
"""Datagrams in one call of recvmmsg."""
_SEGMENTS: Final = 64
"""Datagrams in one block: UDP_MAX_SEGMENTS of the kernel."""
_UDP_SEGMENT: Final = 103
_RECEIVE_BUFFER_FORCED: Final = 33
_SEND_BUFFER_FORCED: Final = 32
_TIMESTAMP: Final = 35
_MEMORY_INFO: Final = 55
_MEMORY_INFO_WORDS: Final = 9
_CONTROL: Final = 32
"""Bytes of the control message with the time: a header of 16, seconds and nanoseconds."""
_NO_SEGMENTS: Final = (errno.EINVAL, errno.EIO, errno.ENOPROTOOPT, errno.EOPNOTSUPP)
_UNREACHABLE: Final = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH)

VECTOR: Final = np.dtype([("base", np.uintp), ("length", np.uintp)], align=True)
_MESSAGE: Final = np.dtype(
    [
        ("name", np.uintp),
        ("name_length", np.uintc),
        ("vectors", np.uintp),
        ("vector_count", np.uintp),
        ("control", np.uintp),
        ("control_length", np.uintp),
        ("flags", np.intc),
    ],
    align=True,
)
HEADER: Final = np.dtype([("message", _MESSAGE), ("length", np.uintc)], align=True)
"""`struct mmsghdr` of the C library."""


@final
class Volley:
    """Connected sockets to servers, and room for what comes back.

    After `receive`, the first rows of `octets` (and of `words`, the same memory in 32 bits as they
    came), `sizes` and `arrivals` (s, as `time.monotonic` counts) describe what was read.
    """

    def __init__(self, servers: Sequence[Endpoint], sockets: int, buffer: int = 16 << 20) -> None:
        """`sockets` for each server, with kernel buffers of `buffer` bytes.

        Without the privilege to exceed it, the kernel grants at most net.core.rmem_max. Raises
        `OSError` if a server cannot be reached from here.
        """
        self.octets: NDArray[np.uint8] = np.zeros((CAPACITY, SLOT), np.uint8)
        self.words: NDArray[np.uint32] = self.octets.view(np.uint32)
        self.arrivals: NDArray[np.float64] = np.zeros(CAPACITY)
        self._control: NDArray[np.int64] = np.zeros((CAPACITY, _CONTROL // 8), np.int64)
        self._vectors, self._headers = self._laid_out()
        self.unsent = 0
        """Datagrams that the kernel did not take: no room, or no route."""
        self.unreachable = 0
        """ICMP errors: nobody listens there, or there is no way."""
        self._segments = True
        self._epoll = select.epoll()
        self._sockets: list[list[socket.socket]] = []
        try:
            for server in servers:
                self._sockets.append([])
                for _ in range(sockets):
                    self._open(server, self._sockets[-1], buffer)
        except OSError:
            self.close()
            raise

    @property
    def sizes(self) -> NDArray[np.uint32]:
        """Bytes of each datagram read, `SLOT` for one that is longer."""
        sizes: NDArray[np.uint32] = self._headers["length"]
        return sizes

    def _laid_out(self) -> tuple[NDArray[np.void], NDArray[np.void]]:
        """The kernel's description of our memory: the slots never move."""
        slots = np.arange(CAPACITY, dtype=np.uintp)
        vectors = np.zeros(CAPACITY, VECTOR)
        vectors["base"] = self.octets.ctypes.data + slots * SLOT
        vectors["length"] = SLOT
        headers = np.zeros(CAPACITY, HEADER)
        messages = headers["message"]
        messages["vectors"] = vectors.ctypes.data + slots * VECTOR.itemsize
        messages["vector_count"] = 1
        messages["control"] = self._control.ctypes.data + slots * _CONTROL
        return vectors, headers

    def _open(self, server: Endpoint, others: list[socket.socket], buffer: int) -> None:
        opened = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        others.append(opened)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        opened.setsockopt(socket.SOL_SOCKET, _TIMESTAMP, 1)
        for option, forced in (
            (socket.SO_RCVBUF, _RECEIVE_BUFFER_FORCED),
            (socket.SO_SNDBUF, _SEND_BUFFER_FORCED),
        ):
            try:
                opened.setsockopt(socket.SOL_SOCKET, forced, buffer)
            except PermissionError:
                opened.setsockopt(socket.SOL_SOCKET, option, buffer)
        opened.connect((socket.inet_ntop(socket.AF_INET6, server.address), server.port))
        self._epoll.register(opened, select.EPOLLIN)

    def close(self) -> None:
        """Close all sockets."""
        self._epoll.close()
        for opened in self._sockets:
            for each in opened:
                each.close()

    @property
    def dropped(self) -> int:
        """Answers that the kernel had no room for: this process did not read in time."""
        return sum(_drops(each) for opened in self._sockets for each in opened)

    # ---- out -----------------------------------------------------------------------------------

    def send(self, server: int, rows: NDArray[Any], turns: NDArray[np.intp]) -> None:
        """Send datagrams, one a row, to a server; `turns` of them says from which of its sockets.

        What has an equal turn has an equal source port: as a node does, a repetition comes from
        where the request came from.
        """
        size, opened = rows.dtype.itemsize, self._sockets[server]
        numbers = turns % len(opened)
        order = np.argsort(numbers, kind="stable")
        data = rows[order].view(np.uint8).data
        ends = np.append(np.flatnonzero(np.diff(numbers[order])) + 1, len(rows)) * size
        start = 0
        for end in ends.tolist():
            sender = opened[int(numbers[order[start // size]])]
            for first in range(start, end, _SEGMENTS * size):
                self._send_block(sender, data[first : min(first + _SEGMENTS * size, end)], size)
            start = end

    def _send_block(self, sender: socket.socket, data: memoryview, size: int) -> None:
        if len(data) > size and self._segments and self._send_whole(sender, data, size):
            return
        for start in range(0, len(data), size):
            self._send_one(sender, data[start : start + size])

    def _send_whole(self, sender: socket.socket, data: memoryview, size: int) -> bool:
        """Whether the kernel has taken a block to cut it."""
        segment = (socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("=H", size))
        try:
            sender.sendmsg([data], [segment])
        except OSError as error:
            self._segments = error.errno not in _NO_SEGMENTS
            self.unreachable += error.errno in _UNREACHABLE
            return False
        return True

    def _send_one(self, sender: socket.socket, datagram: memoryview) -> None:
        try:
            sender.send(datagram)
        except OSError as error:
            if error.errno not in _UNREACHABLE:
                self.unsent += 1
                return
            # That was about something sent earlier; it is reported once, in place of sending.
            self.unreachable += 1
            with suppress(OSError):
                sender.send(datagram)

    # ---- in ------------------------------------------------------------------------------------

    def receive(self) -> int:
        """Read what has arrived, up to `CAPACITY`; the number of datagrams."""
        self._headers["message"]["control_length"] = _CONTROL
        count = 0
        for number, _ in self._epoll.poll(0):
            while count < CAPACITY:
                wanted = min(_AT_ONCE, CAPACITY - count)
                read = self._read(number, count, wanted)
                count += read
                if read < wanted:
                    break
        if count:
            # The kernel stamps with the time of day, which may be set; the difference is of now.
            seconds, nanoseconds = self._control[:count, 2], self._control[:count, 3]
            ahead = time.clock_gettime_ns(time.CLOCK_REALTIME) - time.monotonic_ns()
            self.arrivals[:count] = (seconds * 1_000_000_000 + nanoseconds - ahead) * 1e-9
        return count

    def _read(self, number: int, start: int, wanted: int) -> int:
        at = self._headers.ctypes.data + start * HEADER.itemsize
        count: int = receive_many(number, at, wanted, socket.MSG_DONTWAIT, None)
        if count >= 0:
            return count
        code = ctypes.get_errno()
        if code in _UNREACHABLE:
            self.unreachable += 1
        elif code not in (errno.EAGAIN, errno.EINTR):
            raise OSError(code, os.strerror(code))
        return 0


def _drops(opened: socket.socket) -> int:
    info = opened.getsockopt(socket.SOL_SOCKET, _MEMORY_INFO, 4 * _MEMORY_INFO_WORDS)
    return int(struct.unpack(f"={_MEMORY_INFO_WORDS}I", info)[-1])
