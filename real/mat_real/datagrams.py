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

_NAME: Final = Struct("=HH4x16sI4x")  # sockaddr_in6 (family, port, flow, address, scope), padded
_PACKET_INFO: Final = Struct("@Nii16sI4x")  # cmsghdr and in6_pktinfo, padded
_BLOCK: Final = _NAME.size + _PACKET_INFO.size
"""Bytes of a slot's addresses: the other end's, and the own one that the datagram came to."""
_LOCAL_AT: Final = _BLOCK - 24
_PEER: Final = _BLOCK - 8
"""What of it an answer needs: all but the interface, which routing chooses."""
_ANY: Final = bytes(16)
_ANY_IPV4: Final = bytes(10) + b"\xff\xff" + bytes(4)
_FORCE_SEND_BUFFER, _FORCE_RECEIVE_BUFFER = 32, 33

Peer = bytes
"""Where a datagram came from and to, as the kernel wrote it: what `reply` needs, and `endpoint`."""


def _address_of(memory: bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


@final
class _Batch:
    """Memory for a batch of datagrams, as the kernel wants it: data, addresses and headers."""

    __slots__ = ("at", "blocks", "data", "headers", "lengths", "sizes", "template")

    def __init__(self, count: int, *, packet_info: bool) -> None:
        self.data = bytearray(count * SLOT)
        self.blocks = bytearray(count * _BLOCK)
        self.headers = bytearray(count * _HEADER)
        vectors = bytearray(count * ctypes.sizeof(_IoVector))
        data, blocks, at_vectors = map(_address_of, (self.data, self.blocks, vectors))
        for i in range(count):
            header = _Header.from_buffer(self.headers, i * _HEADER).message
            header.name, header.name_length = blocks + i * _BLOCK, _NAME.size - 4
            header.vectors = at_vectors + i * ctypes.sizeof(_IoVector)
            header.vector_count = 1
            if packet_info:
                header.control = blocks + i * _BLOCK + _NAME.size
                header.control_length = _PACKET_INFO.size
            vector = _IoVector.from_buffer(vectors, i * ctypes.sizeof(_IoVector))
            vector.base, vector.length = data + i * SLOT, SLOT
        self.template = bytes(self.headers)
        self.at = _address_of(self.headers)
        self.lengths = memoryview(self.headers).cast("I")
        self.sizes = memoryview(vectors).cast("P")


def bind(
    address: Address = UNSPECIFIED,
    port: int = 0,
    *,
    reuse_port: bool = False,
    buffer: int = 4 << 20,
) -> socket.socket:
    """A UDP socket, not blocking, bound to an address of either family and a port, 0 for any.

    `buffer` is the wanted size of the kernel's buffers in bytes; without the privilege to exceed
    it, the kernel grants at most net.core.rmem_max. Raises `OSError`.
    """
    made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if reuse_port:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for option, forced in (
            (socket.SO_RCVBUF, _FORCE_RECEIVE_BUFFER),
            (socket.SO_SNDBUF, _FORCE_SEND_BUFFER),
        ):
            try:
                made.setsockopt(socket.SOL_SOCKET, forced, buffer)
            except PermissionError:
                made.setsockopt(socket.SOL_SOCKET, option, buffer)
        made.bind((socket.inet_ntop(socket.AF_INET6, address), port))
    except OSError:
        made.close()
        raise
    return made


def receive_buffer(bound: socket.socket) -> int:
    """Bytes that the kernel granted a socket for datagrams not yet read, as `bind` wants them.

    It says twice as many: it adds as much for its own bookkeeping (socket(7)).
    """
    return bound.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2


@final
class DatagramSocket:
    """A UDP socket that reads and writes batches.

    Writing: `reply`, `send` or, in place, `outgoing` with `replied`; what they collect leaves with
    `flush`, or when a batch is full.
    """

    __slots__ = (
        "_in",
        "_out",
        "_packet_info",
        "_pending",
        "_socket",
        "batch",
        "local",
        "outgoing",
        "undelivered",
    )

    def __init__(self, bound: socket.socket, *, batch: int = BATCH) -> None:
        """Take over a socket made by `bind`."""
        self._socket = bound
        self.batch = batch
        host, port, *_ = bound.getsockname()
        self.local = Endpoint(Address(socket.inet_pton(socket.AF_INET6, host)), port)
        """Where this socket is bound."""
        self._packet_info = self.local.address in (_ANY, _ANY_IPV4)
        if self._packet_info:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        self._in = _Batch(batch, packet_info=self._packet_info)
        self._out = _Batch(batch, packet_info=self._packet_info)
        self.outgoing = self._out.data
        self._pending = 0
        self.undelivered = 0
        """Datagrams that the kernel did not take: no route, no room, or not allowed."""

    @property
    def receive_buffer(self) -> int:
        """Bytes that the kernel granted for datagrams not yet read, as `bind` wants them."""
        return receive_buffer(self._socket)

    def fileno(self) -> int:
        """The file descriptor, for an event loop."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket; what was not flushed is lost."""
        self._socket.close()

    # ---- reading -------------------------------------------------------------------------------

    def receive(self) -> list[tuple[bytes, Peer]]:
        """Datagrams that have arrived, at most a batch; none if there is none.

        One longer than any message is cut to `SLOT` bytes, which is longer still.
        """
        count = self._read()
        data, blocks, lengths = self._in.data, self._in.blocks, self._in.lengths
        return [
            (
                bytes(data[i * SLOT : i * SLOT + lengths[i * _LENGTH_STEP + _LENGTH_AT]]),
                bytes(blocks[i * _BLOCK : i * _BLOCK + _PEER]),
            )
            for i in range(count)
        ]

    def _read(self) -> int:
        batch = self._in
        batch.headers[:] = batch.template
        while True:
            count: int = _recvmmsg(
                self._socket.fileno(), batch.at, self.batch, socket.MSG_DONTWAIT, None
            )
            if count >= 0:
                return count
            code = ctypes.get_errno()
            if code in (errno.EAGAIN, errno.EWOULDBLOCK):
                return 0
            if code != errno.EINTR:
                raise OSError(code, os.strerror(code))

    def endpoint(self, peer: Peer) -> Endpoint:
        """Where a datagram came from, with the own address that it came to."""
        local = self.local.address
        if self._packet_info:
            local = Address(peer[_LOCAL_AT : _LOCAL_AT + 16])
        return Endpoint(Address(peer[8:24]), peer[2] << 8 | peer[3], local)

    # ---- writing -------------------------------------------------------------------------------

    def reply(self, peer: Peer, data: bytes) -> None:
        """Answer a datagram."""
        start = self._pending * SLOT
        self.outgoing[start : start + len(data)] = data
        self.replied(peer, len(data))

    def place(self) -> int:
        """Where in `outgoing` the next datagram begins; write it there, then call `replied`."""
        return self._pending * SLOT

    def replied(self, peer: Peer, size: int) -> None:
        """The datagram at `place` has `size` bytes and answers one that came from `peer`."""
        start = self._pending * _BLOCK
        self._out.blocks[start : start + _PEER] = peer
        self._add(size)

    def send(self, destination: Endpoint, data: bytes, source: Address | None = None) -> None:
        """Send to an endpoint; from `source`, or else from the address that `destination` names."""
        start = self._pending * _BLOCK
        address, port, local = destination
        _NAME.pack_into(self._out.blocks, start, socket.AF_INET6, socket.htons(port), address, 0)
        if self._packet_info:
            _PACKET_INFO.pack_into(
                self._out.blocks,
                start + _NAME.size,
                _PACKET_INFO.size - 4,
                socket.IPPROTO_IPV6,
                socket.IPV6_PKTINFO,
                source or local or (_ANY_IPV4 if is_ipv4(address) else _ANY),
                0,
            )
        start = self._pending * SLOT
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
            sent: int = _sendmmsg(self._socket.fileno(), at, end - start, 0)
            if sent < 0 and ctypes.get_errno() in (errno.EAGAIN, errno.ENOBUFS):
                self.undelivered += end - start
                return
            if sent < 0 and ctypes.get_errno() != errno.EINTR:
                # The first of these cannot be sent; the others may.
                self.undelivered += 1
                sent = 1
            start += max(0, sent)


receive_many: Final = _recvmmsg
"""`recvmmsg` of the C library, for who lays its memory out otherwise: `mat_real.load`."""
