"""UDP with many datagrams to a system call (recvmmsg, sendmmsg).

A server that reads and writes one datagram at a time spends most of its time in the event loop:
one call of `recvmmsg` brings up to a batch, one of `sendmmsg` takes the answers away. Neither is in
the standard library, so they come from the C library by ctypes; what the kernel reads and writes is
laid out once, and afterwards only lengths and addresses change.

Sockets are of IPv6 and take IPv4 as mapped addresses (RFC 3493, section 3.7), which is the form
that `mat.address` has anyway. A socket bound to the wildcard address notes which own address each
datagram came to (RFC 3542, section 6.2) and answers from that one.
"""

import ctypes
import errno
import os
import socket
from struct import Struct
from typing import Final, final

from mat.address import UNSPECIFIED, Address, is_ipv4
from mat.codec import MAX_DATAGRAM
from mat.messages import Endpoint

SLOT: Final = 1280
"""Bytes for one datagram: enough to tell that one is longer than any message."""
BATCH: Final = 128
"""Datagrams in one system call. More gain nothing (docs/design.md), and wait for each other."""

assert SLOT > MAX_DATAGRAM


class _IoVector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _MessageHeader(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Header(ctypes.Structure):
    """`struct mmsghdr` of the C library."""

    _fields_ = (("message", _MessageHeader), ("length", ctypes.c_uint))


_libc = ctypes.CDLL(None, use_errno=True)
_recvmmsg = _libc.recvmmsg
_recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
_sendmmsg = _libc.sendmmsg
_sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)

_WORDS: Final = ctypes.sizeof(_IoVector) // ctypes.sizeof(ctypes.c_size_t)
_HEADER: Final = ctypes.sizeof(_Header)
_LENGTH_AT: Final = _Header.length.offset // 4
_LENGTH_STEP: Final = _HEADER // 4
_CONTROL_AT: Final = _MessageHeader.control_length.offset // ctypes.sizeof(ctypes.c_size_t)
_CONTROL_STEP: Final = _HEADER // ctypes.sizeof(ctypes.c_size_t)

_NAME: Final = Struct("=HH4x16sI")  # sockaddr_in6: family, port, (flow), address, (scope)
_PACKET_INFO: Final = Struct("@Nii16sI")  # cmsghdr and in6_pktinfo
_PACKET_INFO_SPACE: Final = -(-_PACKET_INFO.size // 8) * 8
_LOCAL_AT: Final = _PACKET_INFO.size - 20


def _address_of(memory: bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


@final
class _Batch:
    """Memory for a batch of datagrams, as the kernel wants it: data, addresses and headers."""

    __slots__ = ("at", "control", "data", "headers", "lengths", "names", "sizes", "template")

    def __init__(self, count: int, *, packet_info: bool) -> None:
        self.data = bytearray(count * SLOT)
        self.names = bytearray(count * _NAME.size)
        self.control = bytearray(count * _PACKET_INFO_SPACE)
        vectors = bytearray(count * ctypes.sizeof(_IoVector))
        self.headers = bytearray(count * _HEADER)
        data, names, control = map(_address_of, (self.data, self.names, self.control))
        at_vectors = _address_of(vectors)
        for i in range(count):
            header = _Header.from_buffer(self.headers, i * _HEADER).message
            header.name, header.name_length = names + i * _NAME.size, _NAME.size
            header.vectors = at_vectors + i * ctypes.sizeof(_IoVector)
            header.vector_count = 1
            if packet_info:
                header.control = control + i * _PACKET_INFO_SPACE
                header.control_length = _PACKET_INFO_SPACE
            vector = _IoVector.from_buffer(vectors, i * ctypes.sizeof(_IoVector))
            vector.base, vector.length = data + i * SLOT, SLOT
            _PACKET_INFO.pack_into(
                self.control,
                i * _PACKET_INFO_SPACE,
                _PACKET_INFO.size,
                socket.IPPROTO_IPV6,
                socket.IPV6_PKTINFO,
                bytes(16),
                0,
            )
        self.template = bytes(self.headers)
        self.at = _address_of(self.headers)
        self.lengths = memoryview(self.headers).cast("I")
        self.sizes = memoryview(vectors).cast("P")


@final
class DatagramSocket:
    """A UDP socket, not blocking, that reads and writes batches.

    Reading: `receive` fills slots 0 to n - 1; `datagram`, `source` and the memory `incoming` (slot
    i begins at i * `SLOT`) hold until the next call. Writing: `reply`, `send` or, in place,
    `outgoing` with `replied`; what they collect leaves with `flush`, or when a batch is full.
    """

    __slots__ = (
        "_in",
        "_out",
        "_packet_info",
        "_pending",
        "batch",
        "incoming",
        "outgoing",
        "socket",
        "undelivered",
    )

    def __init__(
        self,
        address: Address = UNSPECIFIED,
        port: int = 0,
        *,
        reuse_port: bool = False,
        batch: int = BATCH,
        buffer: int = 4 << 20,
    ) -> None:
        """Bind to an address of either family and a port, 0 for any.

        `buffer` is the wanted size of the socket's buffers in bytes; without the privilege to
        exceed it, the kernel grants at most net.core.rmem_max. Raises `OSError`.
        """
        self.batch = batch
        self.socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._packet_info = address == UNSPECIFIED and port != 0
        try:
            self._configure(reuse_port=reuse_port, buffer=buffer)
            text = socket.inet_ntop(socket.AF_INET6, address)
            self.socket.bind((text, port))
        except OSError:
            self.socket.close()
            raise
        self._in = _Batch(batch, packet_info=self._packet_info)
        self._out = _Batch(batch, packet_info=self._packet_info)
        self.incoming = self._in.data
        self.outgoing = self._out.data
        self._pending = 0
        self.undelivered = 0
        """Datagrams that the kernel did not take: no route, no room, or not allowed."""

    def _configure(self, *, reuse_port: bool, buffer: int) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if reuse_port:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if self._packet_info:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        for option, forced in ((socket.SO_RCVBUF, 33), (socket.SO_SNDBUF, 32)):
            try:
                self.socket.setsockopt(socket.SOL_SOCKET, forced, buffer)
            except PermissionError:
                self.socket.setsockopt(socket.SOL_SOCKET, option, buffer)

    @property
    def endpoint(self) -> Endpoint:
        """Where this socket is bound."""
        host, port = self.socket.getsockname()[:2]
        return Endpoint(Address(socket.inet_pton(socket.AF_INET6, host)), port)

    @property
    def receive_buffer(self) -> int:
        """Bytes that the kernel granted for datagrams not yet read, its own bookkeeping included."""
        return self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    def fileno(self) -> int:
        """The file descriptor, for an event loop."""
        return self.socket.fileno()

    def close(self) -> None:
        """Close the socket; what was not flushed is lost."""
        self.socket.close()

    # ---- reading -------------------------------------------------------------------------------

    def receive(self) -> int:
        """Read what has arrived, up to a batch; the number of datagrams, 0 for none."""
        batch = self._in
        batch.headers[:] = batch.template
        while True:
            count: int = _recvmmsg(
                self.socket.fileno(), batch.at, self.batch, socket.MSG_DONTWAIT, None
            )
            if count >= 0:
                return count
            code = ctypes.get_errno()
            if code in (errno.EAGAIN, errno.EWOULDBLOCK):
                return 0
            # An ICMP error about something sent earlier is reported once and cleared by that.
            if code not in (errno.EINTR, errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH):
                raise OSError(code, os.strerror(code))

    def length(self, slot: int) -> int:
        """Bytes in a slot; `SLOT` for a datagram that long or longer."""
        return self._in.lengths[slot * _LENGTH_STEP + _LENGTH_AT]

    def datagram(self, slot: int) -> bytes:
        """The datagram in a slot."""
        start = slot * SLOT
        return bytes(self.incoming[start : start + self.length(slot)])

    def source(self, slot: int) -> Endpoint:
        """Where the datagram in a slot came from."""
        start = slot * _NAME.size
        names = self._in.names
        address = Address(bytes(names[start + 8 : start + 24]))
        port = names[start + 2] << 8 | names[start + 3]
        return Endpoint(address, port, self._local(slot) if self._packet_info else None)

    def _local(self, slot: int) -> Address:
        start = slot * _PACKET_INFO_SPACE + _LOCAL_AT
        return Address(bytes(self._in.control[start : start + 16]))

    # ---- writing -------------------------------------------------------------------------------

    def reply(self, slot: int, data: bytes) -> None:
        """Answer the datagram in a slot."""
        start = self._pending * SLOT
        self.outgoing[start : start + len(data)] = data
        self.replied(slot, len(data))

    def place(self) -> int:
        """Where in `outgoing` the next datagram begins; write it there, then call `replied`."""
        return self._pending * SLOT

    def replied(self, slot: int, size: int) -> None:
        """The datagram at `place` has `size` bytes and answers the one in a slot."""
        k = self._pending
        size_of_name = _NAME.size
        self._out.names[k * size_of_name : (k + 1) * size_of_name] = self._in.names[
            slot * size_of_name : (slot + 1) * size_of_name
        ]
        if self._packet_info:
            start, origin = (
                k * _PACKET_INFO_SPACE + _LOCAL_AT,
                slot * _PACKET_INFO_SPACE + _LOCAL_AT,
            )
            self._out.control[start : start + 16] = self._in.control[origin : origin + 16]
        self._add(size)

    def send(self, destination: Endpoint, data: bytes, source: Address | None = None) -> None:
        """Send to an endpoint; from `source`, or else from the address that `destination` names."""
        k = self._pending
        _NAME.pack_into(
            self._out.names,
            k * _NAME.size,
            socket.AF_INET6,
            socket.htons(destination.port),
            destination.address,
            0,
        )
        if self._packet_info:
            start = k * _PACKET_INFO_SPACE + _LOCAL_AT
            local = source or destination.local or _any_like(destination.address)
            self._out.control[start : start + 16] = local
        start = k * SLOT
        self.outgoing[start : start + len(data)] = data
        self._add(len(data))

    def _add(self, size: int) -> None:
        self._out.sizes[self._pending * _WORDS + 1] = size
        self._pending += 1
        if self._pending == self.batch:
            self.flush()

    def flush(self) -> None:
        """Hand everything collected to the kernel. What it does not take is lost, and counted."""
        start, end = 0, self._pending
        self._pending = 0
        while start < end:
            at = self._out.at + start * _HEADER
            sent: int = _sendmmsg(self.socket.fileno(), at, end - start, 0)
            if sent < 0 and ctypes.get_errno() in (errno.EAGAIN, errno.ENOBUFS):
                self.undelivered += end - start
                return
            if sent < 0 and ctypes.get_errno() != errno.EINTR:
                # The first of these cannot be sent; the others may.
                self.undelivered += 1
                sent = 1
            start += max(0, sent)


def _any_like(address: Address) -> Address:
    """The wildcard of an address's family: the kernel chooses the source."""
    return Address(bytes(10) + b"\xff\xff" + bytes(4)) if is_ipv4(address) else UNSPECIFIED
