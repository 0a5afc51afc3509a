"""Router solicitations for mobile nodes when they get a carrier, as network managers send them.

The kernel solicits routers once in an interface's life, when it first becomes ready (RFC 4861,
section 6.3.7), and not again after a carrier was lost: without this a node would wait for the next
unsolicited advertisement, which may be minutes away. A thread watches the links of all mobile nodes
from inside of their namespaces. It solicits more than once, as an interface without a link-local
address yet, which takes up to two seconds, cannot.
"""

import os
import selectors
import socket
import threading
import time
from contextlib import suppress
from typing import Final, final

from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from mat_real.lab.inside import inside
from mat_real.namespaces import NodeRef

_LINK_GROUP: Final = 0x1  # RTMGRP_LINK
_LOWER_UP: Final = 0x10000  # IFF_LOWER_UP
_SOLICITATION: Final = bytes([133, 0, 0, 0, 0, 0, 0, 0])
"""The kernel fills in the checksum (RFC 3542, section 3.1)."""
_ALL_ROUTERS: Final = "ff02::2"
_AFTER: Final = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Seconds from the carrier to each solicitation."""
_HOP_LIMIT: Final = 255
_READ: Final = 65536


@final
class Solicitor:
    """Solicits routers wherever a carrier comes, until `stop`."""

    __slots__ = ("_hosts", "_selector", "_stop", "_thread")

    def __init__(self, nodes: list[NodeRef]) -> None:
        self._selector = selectors.DefaultSelector()
        self._hosts = [inside(node, _Host) for node in nodes]
        for host in self._hosts:
            self._selector.register(host.notices, selectors.EVENT_READ, host)
        read, self._stop = os.pipe()
        self._selector.register(read, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="solicitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and close what it watches."""
        os.close(self._stop)
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, int):
                os.close(key.fileobj)
        for host in self._hosts:
            host.close()
        self._selector.close()

    def _run(self) -> None:
        while True:
            waits = [due for host in self._hosts for due in host.due]
            wait = max(0.0, min(waits) - time.monotonic()) if waits else None
            for key, _ in self._selector.select(wait):
                if key.data is None:
                    return
                key.data.read()
            for host in self._hosts:
                host.solicit(time.monotonic())


@final
class _Host:
    """The links of one node; made inside of its namespace."""

    __slots__ = ("_solicitations", "_up", "due", "notices")

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
        self.notices = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self.notices.bind((0, _LINK_GROUP))
        self._solicitations = socket.socket(socket.AF_INET6, kind, socket.IPPROTO_ICMPV6)
        self._solicitations.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _HOP_LIMIT)
        self.due: dict[float, int] = {}
        """When to solicit, and on which interface, by index."""
        self._up: set[int] = set()

    def close(self) -> None:
        self.notices.close()
        self._solicitations.close()

    def read(self) -> None:
        """Take in what has changed."""
        now = time.monotonic()
        for message in MarshalRtnl().parse(self.notices.recv(_READ)):
            index, up = message["index"], bool(message["flags"] & _LOWER_UP)
            if up and index not in self._up:
                self._up.add(index)
                self.due |= {now + after: index for after in _AFTER}
            elif not up:
                self._up.discard(index)
                self.due = {due: other for due, other in self.due.items() if other != index}

    def solicit(self, now: float) -> None:
        """Send what is due."""
        for due in [due for due in self.due if due <= now]:
            index = self.due.pop(due)
            with suppress(OSError):
                self._solicitations.sendto(_SOLICITATION, (_ALL_ROUTERS, 0, 0, index))
