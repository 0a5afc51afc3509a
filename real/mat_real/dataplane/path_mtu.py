"""How long a packet to a peer's mobile address may be: found out for the kernel.

Theory of operation. A router that cannot forward a packet says how long it may be, and that is
translated, for the application's socket: the kernel then knows it of the peer's home address. What
the application sends whole is right from then on. A longer IPv6 datagram is cut where it is sent,
and comes to the queue in one piece; once it has been rewritten the kernel cuts it anew, for the
path to the mobile address, of which it has been told nothing.

A socket of the mobile address can be told. So a datagram that is too long by one byte goes the same
way, and what the router says of that is the kernel's to keep, for the path and for as long as it
keeps such things. Nothing that arrives makes believe: who sends forged errors causes one datagram,
which a wider path brings to the peer's node, and that drops it for its length (docs/protocol.md,
section 2). IPv4 needs none of this: routers cut there.
"""

import socket
import time
from contextlib import suppress
from typing import Final, final

from mat.address import Address, format_address
from mat.messages import MAT_PORT

LEAST: Final = 1280
"""Bytes that every path carries (RFC 8200); what says less is no news."""
_INTERVAL: Final = 0.1
"""Seconds between two datagrams: strangers may cause them."""
_HEADERS: Final = 48
_DO_NOT_FRAGMENT: Final = 62
"""IPV6_DONTFRAG of linux/in6.h."""


@final
class PathMtu:
    """Has the kernel find out about paths between mobile addresses."""

    __slots__ = ("_next", "_socket")

    def __init__(self) -> None:
        self._next = 0.0
        self._socket: socket.socket | None = None
        """The last one that asked, which the answer is for."""

    def ask(self, own: Address, peer: Address, mtu: int, link: int) -> None:
        """Send what is longer than `mtu`, in bytes, from one mobile address to another.

        `link` is what the link carries; to be told as much is no news.
        """
        now = time.monotonic()
        if not LEAST <= mtu < link or now < self._next:
            return
        self._next = now + _INTERVAL
        self.close()
        asking = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket = asking
        asking.setsockopt(socket.IPPROTO_IPV6, _DO_NOT_FRAGMENT, 1)
        # What cannot be sent, for it is too long for the link or known to be, need not be.
        with suppress(OSError):
            asking.bind((format_address(own), 0))
            asking.connect((format_address(peer), MAT_PORT))
            asking.send(bytes(mtu + 1 - _HEADERS))

    def close(self) -> None:
        """Expect no answer."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
