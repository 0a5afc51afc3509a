"""Which addresses nodes have, and since when: the kernel's own notices (rtnetlink(7))."""

import asyncio
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final, final

from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from mat_real.lab.inside import inside
from mat_real.lab.plan import IpAddress
from mat_real.namespaces import NodeRef

_ADDRESS_GROUPS: Final = 0x10 | 0x100  # RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_TENTATIVE: Final = 0x40  # IFA_F_TENTATIVE
_GLOBAL: Final = 0  # RT_SCOPE_UNIVERSE
_READ: Final = 65536


@final
@dataclass(frozen=True, slots=True)
class AddressChange:
    """At `time` (s of CLOCK_MONOTONIC) a node got an address, usable from then on, or lost it."""

    time: float
    node: str
    interface: str
    address: IpAddress
    present: bool


@final
class AddressWatch:
    """Notes every change of global addresses in namespaces, while it is open. Of one event loop."""

    __slots__ = ("_names", "_sockets", "changes")

    def __init__(self, nodes: dict[str, NodeRef]) -> None:
        """`nodes` by the names that changes bear."""
        self.changes: list[AddressChange] = []
        """What happened, in order."""
        self._names = {name: inside(node, _interfaces) for name, node in nodes.items()}
        self._sockets = {name: inside(node, _listener) for name, node in nodes.items()}
        for name, opened in self._sockets.items():
            asyncio.get_running_loop().add_reader(opened, self._read, name, opened)

    def close(self) -> None:
        """Take in what has happened by now, and watch no longer."""
        for name, opened in self._sockets.items():
            asyncio.get_running_loop().remove_reader(opened)
            with suppress(BlockingIOError):
                while True:
                    self._read(name, opened)
            opened.close()

    def _read(self, name: str, opened: socket.socket) -> None:
        now = time.monotonic()
        for message in MarshalRtnl().parse(opened.recv(_READ)):
            present = message["event"] == "RTM_NEWADDR"
            if message["scope"] == _GLOBAL and not (present and _flags(message) & _TENTATIVE):
                change = AddressChange(
                    now, name, self._names[name][message["index"]], _address(message), present
                )
                self.changes.append(change)


def _listener() -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
    opened = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
    opened.bind((0, _ADDRESS_GROUPS))
    return opened


def _interfaces() -> dict[int, str]:
    return dict(socket.if_nameindex())


def _flags(message: Any) -> int:
    # The header has only the first eight of them.
    return int(message.get("flags", 0))


def _address(message: Any) -> IpAddress:
    return ip_address(str(message.get("local") or message.get("address")))
