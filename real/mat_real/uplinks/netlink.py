"""rtnetlink(7): requests, and what the kernel tells of itself.

The kernel carries a request out inside the system call that brings it, and has the answer ready
when that returns. So a request here is an ordinary call, and waits for nothing that an event loop
could use the time for. Events come on a socket of their own, by `add_reader`.

The sockets are plain ones, around pyroute2's codec: pyroute2's own asyncio sockets are datagram
endpoints of the loop, which uvloop has for IP only, and end when their buffer has overflowed.
"""

import errno
import socket
from collections.abc import Callable, Iterator
from typing import Final, final

from pyroute2.netlink import nlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.marshal import MarshalRtnl
from pyroute2.netlink.rtnl.rtmsg import rtmsg

NEW_LINK: Final = 16
DELETE_LINK: Final = 17
GET_LINK: Final = 18
NEW_ADDRESS: Final = 20
DELETE_ADDRESS: Final = 21
GET_ADDRESS: Final = 22
NEW_ROUTE: Final = 24
DELETE_ROUTE: Final = 25
GET_ROUTE: Final = 26
NEW_RULE: Final = 32
DELETE_RULE: Final = 33
GET_RULE: Final = 34
"""Message types of linux/rtnetlink.h."""

REQUEST: Final = 0x1
ACKNOWLEDGE: Final = 0x4
INTERRUPTED: Final = 0x10
DUMP: Final = 0x300
REPLACE: Final = 0x100
EXCLUSIVE: Final = 0x200
CREATE: Final = 0x400
"""Flags of linux/netlink.h."""

_ERROR: Final = 2
_DONE: Final = 3
_SOL_NETLINK: Final = 270
_EXT_ACK: Final = 11
_STRICT_CHECK: Final = 12
_DATAGRAM: Final = 65536
_EVENT_BUFFER: Final = 1 << 20
_DUMP_ATTEMPTS: Final = 10

# Groups of linux/rtnetlink.h, as bits: links; addresses, routes and rules of IPv4 and of IPv6.
_GROUPS: Final = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x40000

_CLASSES: Final[dict[int, Callable[[], nlmsg]]] = {
    GET_LINK: ifinfmsg,
    GET_ADDRESS: ifaddrmsg,
    GET_ROUTE: rtmsg,
    GET_RULE: fibmsg,
    NEW_LINK: ifinfmsg,
    DELETE_LINK: ifinfmsg,
    NEW_ADDRESS: ifaddrmsg,
    DELETE_ADDRESS: ifaddrmsg,
    NEW_ROUTE: rtmsg,
    DELETE_ROUTE: rtmsg,
    NEW_RULE: fibmsg,
    DELETE_RULE: fibmsg,
}
# It is so already, or the interface is gone, and an event says so.
_NO_ERROR: Final = {
    NEW_LINK: (errno.EEXIST, errno.ENODEV),
    NEW_ADDRESS: (errno.EEXIST, errno.ENODEV),
    NEW_ROUTE: (errno.EEXIST, errno.ENODEV),
    NEW_RULE: (errno.EEXIST,),
    DELETE_LINK: (errno.ENODEV,),
    DELETE_ADDRESS: (errno.EADDRNOTAVAIL, errno.ENODEV),
    DELETE_ROUTE: (errno.ESRCH, errno.ENODEV),
    DELETE_RULE: (errno.ENOENT,),
}

# A table is made with its first route; a kernel may have been started without IPv6.
_NONE_THERE: Final = (errno.ENOENT, errno.EAFNOSUPPORT)

Attributes = dict[str, object]
Fields = dict[str, int]


@final
class Requests:
    """Asks the kernel, and tells it."""

    def __init__(self) -> None:
        self._socket = _netlink_socket(0)
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _STRICT_CHECK, 1)
        self._codec = MarshalRtnl()
        self._sequence = 0
        self.port: int = self._socket.getsockname()[0]
        """What events that these requests cause are marked with."""

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def dump(self, kind: int, fields: Fields, attributes: Attributes | None = None) -> list[nlmsg]:
        """All objects of a kind that match. Raises `NetlinkError`."""
        for _ in range(_DUMP_ATTEMPTS):
            self._send(kind, DUMP, attributes or {}, fields)
            try:
                found, whole = self._collect()
            except NetlinkError as error:
                if error.code in _NONE_THERE:
                    return []
                raise
            if whole:
                return found
        raise NetlinkError(errno.EINTR, "what is to be read changes faster than it can be read")

    def change(self, kind: int, flags: int, fields: Fields, attributes: Attributes) -> None:
        """Make, change or remove something. Raises `NetlinkError`.

        That it is so already is no error, nor that its interface is gone: an event says that.
        """
        self._send(kind, ACKNOWLEDGE | flags, attributes, fields)
        try:
            self._collect()
        except NetlinkError as error:
            if error.code not in _NO_ERROR[kind]:
                raise

    def _send(self, kind: int, flags: int, attributes: Attributes, fields: Fields) -> None:
        message = _CLASSES[kind]()
        self._sequence += 1
        message["header"].update(
            type=kind, flags=REQUEST | flags, sequence_number=self._sequence, pid=0
        )
        message.update(fields)
        message["attrs"] = [list(item) for item in attributes.items()]
        message.encode()
        self._socket.send(message.data)

    def _collect(self) -> tuple[list[nlmsg], bool]:
        """What answers the last request, and whether nothing changed underneath."""
        found: list[nlmsg] = []
        whole = True
        while True:
            for message in self._codec.parse(self._socket.recv(_DATAGRAM)):
                header = message["header"]
                if header["sequence_number"] != self._sequence:
                    continue
                if header["error"] is not None:
                    raise header["error"]
                whole = whole and not header["flags"] & INTERRUPTED
                if header["type"] in {_DONE, _ERROR}:
                    return found, whole
                found.append(message)


@final
class Events:
    """What changes in the kernel's tables of links, addresses, routes and rules."""

    def __init__(self) -> None:
        self._socket = _netlink_socket(_GROUPS)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _EVENT_BUFFER)
        self._codec = MarshalRtnl()

    def fileno(self) -> int:
        """The socket, to be watched for being readable."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def pending(self) -> Iterator[nlmsg | None]:
        """Everything that has come; None where the kernel had to leave something out."""
        while True:
            try:
                datagram = self._socket.recv(_DATAGRAM)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                yield None
            else:
                yield from self._codec.parse(datagram)


def _netlink_socket(groups: int) -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    made.bind((0, groups))
    return made
