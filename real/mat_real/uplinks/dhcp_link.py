"""A DHCP client on an interface: its sockets, its timer, and what the kernel is told."""

import asyncio
import ctypes
import math
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import SystemRandom
from typing import Final, assert_never, final

from pyroute2.netlink.exceptions import NetlinkError

from mat.address import Address, format_address, from_ipv4, to_packed
from mat.dhcp import Bind, DhcpClient, DhcpEffect, Lease, Transmit, Unbind
from mat.dhcp_messages import BROADCAST
from mat_real.uplinks import netlink
from mat_real.uplinks.dhcp_codec import (
    CLIENT_PORT,
    SERVER_PORT,
    decode,
    encode,
    unwrap,
    wrap,
)
from mat_real.uplinks.netlink import Attributes, Fields, Requests
from mat_real.uplinks.picture import MAIN_TABLE, Link, boottime
from mat_real.uplinks.policy import PROTOCOL

FIRST_METRIC: Final = 100
"""Of the default route by the most preferred interface; the next ones follow."""

_ETH_P_IP: Final = 0x0800
_SO_ATTACH_FILTER: Final = 26
_LARGEST: Final = 65535
_FOREVER: Final = 0xFFFFFFFF
_ONLINK: Final = 4
_UNICAST: Final = 1
_EVERYBODY: Final = b"\xff" * 6


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("if_true", ctypes.c_ubyte),
        ("if_false", ctypes.c_ubyte),
        ("value", ctypes.c_uint),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


# bpf(4), as tcpdump writes it: UDP, no later fragment, to the client's port; and nothing.
_TO_CLIENT: Final = (
    (0x30, 0, 0, 9),
    (0x15, 0, 6, socket.IPPROTO_UDP),
    (0x28, 0, 0, 6),
    (0x45, 4, 0, 0x1FFF),
    (0xB1, 0, 0, 0),
    (0x48, 0, 0, 2),
    (0x15, 0, 1, CLIENT_PORT),
    (0x06, 0, 0, _LARGEST),
    (0x06, 0, 0, 0),
)
_NOTHING: Final = ((0x06, 0, 0, 0),)


@final
@dataclass(frozen=True, slots=True)
class _Installed:
    """What the kernel was told, by this client or by a predecessor."""

    index: int
    address: Address
    prefix_length: int
    gateway: Address | None

    @property
    def place(self) -> tuple[object, ...]:
        """What only one address can have."""
        return self.index, self.address, self.prefix_length

    @property
    def fields(self) -> Fields:
        """The address in messages about it."""
        return {"prefixlen": self.prefix_length - 96, "index": self.index}


@final
class DhcpInterface:
    """Keeps an interface supplied with an address, a default route and name servers.

    `refused` is told, in words, what the kernel does not permit.
    """

    def __init__(
        self, name: str, metric: int, requests: Requests, refused: Callable[[str], None]
    ) -> None:
        self.name = name
        self._metric = metric
        self._requests = requests
        self._refused = refused
        self._client = DhcpClient(SystemRandom())
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._link: Link | None = None
        self._packets: socket.socket | None = None
        self._datagrams: socket.socket | None = None
        self._installed: _Installed | None = None

    @property
    def lease(self) -> Lease | None:
        """What the interface has by DHCP."""
        return self._client.lease

    def take_over(self, index: int, address: Address, prefix_length: int) -> None:
        """The interface has this address from a predecessor: keep it if a server agrees."""
        self._client = DhcpClient(SystemRandom(), address)
        self._installed = _Installed(index, address, prefix_length, None)

    def link_is(self, link: Link | None) -> None:
        """The interface is so now, or is not there."""
        before, self._link = self._link, link
        if link is None or not link.works or not link.hardware_address:
            self._down()
        elif self._packets is None:
            self._up(link)
        elif before is None or _another(before, link):
            self._down()
            self._up(link)

    def close(self, *, keep: bool) -> None:
        """Stop; unless it is kept for a successor, the address goes, but is not released."""
        if keep:
            self._installed = None
        self._down()

    # ---- the client's inputs -------------------------------------------------------------------

    def _up(self, link: Link) -> None:
        try:
            self._packets = _packet_socket(link.name)
        except OSError as error:
            # It may be gone already; whoever lacks CAP_NET_RAW has to know.
            self._refused(f"interface {self.name}: DHCP has no packet socket: {error.strerror}")
            return
        self._loop.add_reader(self._packets.fileno(), self._readable)
        self._do(self._client.carrier_came(boottime(), link.hardware_address))

    def _down(self) -> None:
        if self._packets is not None:
            self._loop.remove_reader(self._packets.fileno())
            self._packets.close()
            self._packets = None
        self._do(self._client.carrier_went())

    def _readable(self) -> None:
        while self._packets is not None:
            try:
                packet = self._packets.recv(_LARGEST)
            except OSError:
                # Nothing more, or the interface went down: then an event says so.
                return
            with suppress(ValueError):
                message = decode(unwrap(packet))
                self._do(self._client.receive(boottime(), message))

    def _expired(self) -> None:
        self._do(self._client.handle_timer(boottime()))

    # ---- its effects ---------------------------------------------------------------------------

    def _do(self, effects: Sequence[DhcpEffect]) -> None:
        for effect in effects:
            match effect:
                case Transmit():
                    self._transmit(effect)
                case Bind(lease):
                    self._bind(lease)
                case Unbind():
                    self._unbind()
                case _:
                    assert_never(effect)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._client.deadline is not None:
            pause = max(0.0, self._client.deadline - boottime())
            self._timer = self._loop.call_later(pause, self._expired)

    def _transmit(self, what: Transmit) -> None:
        payload = encode(what.message)
        # What cannot be sent now is sent again in its time.
        with suppress(OSError):
            if what.destination != BROADCAST:
                if self._datagrams is not None:
                    server = format_address(what.destination), SERVER_PORT
                    self._datagrams.sendto(payload, server)
            elif self._packets is not None:
                packet = wrap(payload, what.source, BROADCAST)
                self._packets.sendto(packet, (self.name, _ETH_P_IP, 0, 0, _EVERYBODY))

    def _bind(self, lease: Lease) -> None:
        assert self._link is not None
        now = _Installed(self._link.index, lease.address, lease.prefix_length, lease.gateway)
        before = self._installed
        if before is not None and before.place != now.place:
            # First, since the kernel removes with an address those that it got later in the subnet.
            self._unbind()
            before = None
        self._tell_address(now, lease)
        self._tell_route(netlink.NEW_ROUTE, now, lease.mtu)
        if before is not None and before.gateway != now.gateway:
            self._tell_route(netlink.DELETE_ROUTE, before)
        self._installed = now
        if self._datagrams is None:
            self._datagrams = _datagram_socket(self.name, lease.address)

    def _unbind(self) -> None:
        self._close_datagrams()
        before, self._installed = self._installed, None
        if before is not None:
            self._tell_route(netlink.DELETE_ROUTE, before)
            # Other routes that prefer the address as source go with it.
            self._tell_removal(before)

    def _close_datagrams(self) -> None:
        if self._datagrams is not None:
            self._datagrams.close()
            self._datagrams = None

    # ---- what the kernel is told ---------------------------------------------------------------

    def _tell_address(self, now: _Installed, lease: Lease) -> None:
        valid = _seconds_left(lease.until)
        lifetimes = {"ifa_preferred": valid, "ifa_valid": valid, "cstamp": 0, "tstamp": 0}
        attributes: Attributes = {
            "IFA_LOCAL": format_address(now.address),
            "IFA_ADDRESS": format_address(now.address),
            "IFA_BROADCAST": format_address(_broadcast(lease)),
            "IFA_CACHEINFO": lifetimes,
            "IFA_RT_PRIORITY": self._metric,
            "IFA_PROTO": PROTOCOL,
        }
        self._tell(netlink.NEW_ADDRESS, now.fields, attributes)

    def _tell_removal(self, before: _Installed) -> None:
        attributes: Attributes = {"IFA_LOCAL": format_address(before.address)}
        self._tell(netlink.DELETE_ADDRESS, before.fields, attributes)

    def _tell_route(self, kind: int, of: _Installed, mtu: int | None = None) -> None:
        if of.gateway is None:
            return
        attributes: Attributes = {
            "RTA_TABLE": MAIN_TABLE,
            "RTA_OIF": of.index,
            "RTA_GATEWAY": format_address(of.gateway),
            "RTA_PREFSRC": format_address(of.address),
            "RTA_PRIORITY": self._metric,
        }
        if mtu is not None:
            attributes["RTA_METRICS"] = {"attrs": [["RTAX_MTU", mtu]]}
        self._tell(kind, {"proto": PROTOCOL, "type": _UNICAST, "flags": _ONLINK}, attributes)

    def _tell(self, kind: int, fields: Fields, attributes: Attributes) -> None:
        flags = netlink.CREATE if kind in {netlink.NEW_ADDRESS, netlink.NEW_ROUTE} else 0
        if kind == netlink.NEW_ADDRESS:
            flags |= netlink.REPLACE
        try:
            self._requests.change(kind, flags, {"family": socket.AF_INET, **fields}, attributes)
        except NetlinkError as error:
            self._refused(f"interface {self.name}: the kernel refused a lease: {error.args[-1]}")


def _another(before: Link, now: Link) -> bool:
    """Whether the name stands for another interface, or one with another Ethernet address."""
    return (before.index, before.hardware_address) != (now.index, now.hardware_address)


def _seconds_left(until: float) -> int:
    """As the kernel counts; at least one, since with none the address would be removed."""
    return _FOREVER if until == math.inf else max(1, int(until - boottime()))


def _broadcast(lease: Lease) -> Address:
    hosts = (1 << 128 - lease.prefix_length) - 1
    return from_ipv4((int.from_bytes(to_packed(lease.address)) | hosts).to_bytes(4))


def _packet_socket(name: str) -> socket.socket:
    """Hears IP packets to the client's port, whatever addresses the interface has."""
    # Without a protocol it hears nothing until it is bound, with the filter in place.
    made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
    _attach(made, _TO_CLIENT)
    made.bind((name, _ETH_P_IP))
    return made


def _datagram_socket(name: str, address: Address) -> socket.socket | None:
    """Sends to the server that gave the address, by the kernel's routes.

    It hears nothing: the packet socket does. While it is there, the kernel does not tell the server
    that nobody listens on the port.
    """
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        _attach(made, _NOTHING)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode())
        made.bind((format_address(address), CLIENT_PORT))
    except OSError:
        # Another client has the port, or the address is gone again: all servers are asked later.
        made.close()
        return None
    return made


def _attach(to: socket.socket, program: Sequence[tuple[int, int, int, int]]) -> None:
    instructions = (_Instruction * len(program))(*(_Instruction(*each) for each in program))
    filtering = _Program(len(program), instructions)
    to.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(filtering))
