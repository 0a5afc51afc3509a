"""A netfilter queue (NFQUEUE), read by its netlink socket.

Theory of operation. The kernel gives each queued packet a number and sends it in one netlink
message; the packet stays in the kernel until a verdict with that number comes back, with the bytes
that are to take its place if they differ. A packet is whole: offloads are undone before it is
queued (no NFQA_CFG_F_GSO), so its checksums are complete, and a datagram that came or will leave
in fragments is one packet of up to 64 KiB. That is why no library is used: those at hand read 4 KiB
of a packet, and what is cut off cannot be put back.

The formats are those of linux/netfilter/nfnetlink_queue.h and netlink(7).
"""

import os
import socket
from collections.abc import Callable
from errno import EINVAL, EPROTONOSUPPORT
from pathlib import Path
from struct import Struct
from typing import Final, final

from mat_real.dataplane import DataplaneError

CAPACITY: Final = 8192
"""Packets that the kernel keeps for the queue; those held for the `Consumer` are among them."""
RECEIVE_BUFFER: Final = 8 << 20
"""Bytes of packets that may wait in the socket."""
BATCH: Final = 64
"""Packets handled before other work of the event loop gets its turn."""

PREROUTING: Final = 0
"""The hook (linux/netfilter.h) of packets that came in; others were sent by this host."""

_NETLINK_NETFILTER: Final = 12
_SOL_NETLINK: Final = 270
_NO_ENOBUFS: Final = 5
_FORCE_RECEIVE_BUFFER: Final = 33
_STATISTICS: Final = Path("/proc/thread-self/net/netfilter/nfnetlink_queue")

_PACKET, _VERDICT, _CONFIG = (3 << 8 | kind for kind in range(3))
_REQUEST, _ACK = 1, 4
_ERROR: Final = 2
_BIND, _COPY_PACKET = 1, 2
_DROP, _ACCEPT = (verdict.to_bytes(4) for verdict in range(2))
_CFG_COMMAND, _CFG_PARAMETERS, _CFG_LENGTH = 1, 2, 3
_VERDICT_HEADER, _PAYLOAD = 2, 10

_HEADER: Final = Struct("=IHHIIBB2s")
# A packet's first attribute is its header: number, protocol, hook (nfqnl_build_packet_message).
_FIRST: Final = Struct("=4xH18x4s2xB")
_ATTRIBUTE: Final = Struct("=HH")
_ATTRIBUTES_AT: Final = 32
# Verdicts: length, what is the same in all of a queue, verdict, number, payload's header.
_SAME: Final = Struct("=HHIIBB2sHH")
_SHORT: Final = Struct("=I20s4s4s")
_LONG: Final = Struct("=I20s4s4sHH")
_PADDING: Final = (b"", bytes(3), bytes(2), bytes(1))
_LOOK_EVERY: Final = 8
_ERRNO: Final = Struct("=16xi")
_SIZE: Final = 0x10000 + 1024

OnPacket = Callable[[bytes, int, bytes], None]
"""Takes a packet's number (as the kernel wrote it), its hook, and its bytes."""


@final
class PacketQueue:
    """One queue, bound. Every packet it reads needs one verdict."""

    __slots__ = (
        "_buffer",
        "_busy",
        "_calls",
        "_head",
        "_id",
        "_receive",
        "_send",
        "_socket",
        "_view",
        "number",
    )

    def __init__(self, number: int) -> None:
        """Bind the queue. Raises `DataplaneError` when it is taken, or not allowed."""
        self.number = number
        self._id = number.to_bytes(2)
        self._head = _SAME.pack(_VERDICT, _REQUEST, 0, 0, 0, 0, self._id, 12, _VERDICT_HEADER)
        self._busy = False
        self._calls = 0
        self._buffer = bytearray(_SIZE)
        self._view = memoryview(self._buffer)
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        except OSError as error:
            raise _explained(number, error) from error
        self._receive, self._send = self._socket.recv_into, self._socket.send
        try:
            self._bind()
        except OSError as error:
            self._socket.close()
            raise _explained(number, error) from error

    def _bind(self) -> None:
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _NO_ENOBUFS, 1)
        self._configure(_CFG_COMMAND, bytes((_BIND, 0, 0, 0)))
        self._configure(_CFG_PARAMETERS, bytes((0, 0, 0, 0, _COPY_PACKET)))
        self._configure(_CFG_LENGTH, CAPACITY.to_bytes(4))
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _FORCE_RECEIVE_BUFFER, RECEIVE_BUFFER)
        except PermissionError:
            # In a user namespace nobody may exceed net.core.rmem_max.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self._socket.setblocking(False)

    def _configure(self, attribute: int, value: bytes) -> None:
        """Send one setting and wait for its acknowledgement; raises `OSError`."""
        body = _ATTRIBUTE.pack(4 + len(value), attribute) + value + bytes(-len(value) % 4)
        size = _HEADER.size + len(body)
        flags = _REQUEST | _ACK
        self._socket.send(_HEADER.pack(size, _CONFIG, flags, 0, 0, 0, 0, self._id) + body)
        while True:
            answer = self._socket.recv(_SIZE)
            if answer[4] | answer[5] << 8 == _ERROR:
                break
            # The queue is bound, and rules may be standing: a packet can come first.
            self.drop(_FIRST.unpack_from(answer)[1])
        (code,) = _ERRNO.unpack_from(answer)
        if code:
            raise OSError(-code, os.strerror(-code))

    def fileno(self) -> int:
        """The file descriptor, for an event loop."""
        return self._socket.fileno()

    def close(self) -> None:
        """Unbind; what is still in the queue is dropped by the kernel."""
        self._socket.close()

    def read(self, on_packet: OnPacket) -> None:
        """Hand what has arrived to a callback, `BATCH` packets at most.

        To find the socket empty costs as much as half a packet. So after one packet it is only
        looked for another if there was one last time, and now and then.
        """
        self._calls += 1
        most = BATCH if self._busy or self._calls % _LOOK_EVERY == 0 else 1
        for count in range(most):
            try:
                size = self._receive(self._buffer)
            except BlockingIOError:
                self._busy = count > 1
                return
            self._hand_over(size, on_packet)
        self._busy = most > 1

    def _hand_over(self, size: int, on_packet: OnPacket) -> None:
        buffer, unpack = self._buffer, _ATTRIBUTE.unpack_from
        message, number, hook = _FIRST.unpack_from(buffer)
        if message != _PACKET:
            return
        at = _ATTRIBUTES_AT
        while at < size:
            length, kind = unpack(buffer, at)
            if kind == _PAYLOAD:
                on_packet(number, hook, self._view[at + 4 : at + length].tobytes())
                return
            at += length + 3 & ~3

    def accept(self, number: bytes, packet: bytes | None = None) -> None:
        """Let a packet go on, with these bytes if they are not its own."""
        if packet is None:
            self._send(_SHORT.pack(_SHORT.size, self._head, _ACCEPT, number))
            return
        length = len(packet)
        size = _LONG.size + (length + 3 & ~3)
        head = _LONG.pack(size, self._head, _ACCEPT, number, length + 4, _PAYLOAD)
        self._send(head + packet + _PADDING[length & 3])

    def drop(self, number: bytes) -> None:
        """Discard a packet."""
        self._send(_SHORT.pack(_SHORT.size, self._head, _DROP, number))

    def overflowed(self) -> int:
        """Packets that the kernel dropped because the queue or its socket was full."""
        columns = _statistics(self.number)
        return int(columns[5]) + int(columns[6]) if columns else 0


def _statistics(number: int) -> list[str]:
    """What the kernel says of a queue: number, port of the reader and so on; empty if unbound.

    Empty for another user than root, too.
    """
    try:
        lines = map(str.split, _STATISTICS.read_text().splitlines())
    except PermissionError:
        # It is root's: a user with CAP_NET_ADMIN has a queue, but is not told of it.
        return []
    return next((columns for columns in lines if int(columns[0]) == number), list[str]())


def _explained(number: int, error: OSError) -> DataplaneError:
    what = f"queue {number} cannot be bound ({error.strerror})"
    if error.errno in (EPROTONOSUPPORT, EINVAL):
        return DataplaneError(f"{what}: the kernel needs CONFIG_NETFILTER_NETLINK_QUEUE")
    # What another program reads is not permitted either.
    if os.geteuid() == 0 and _statistics(number):
        mend = "another program reads it; end that, or choose another queue"
        return DataplaneError(f"{what}: {mend}")
    return DataplaneError(f"{what}: that takes root, or CAP_NET_ADMIN")
