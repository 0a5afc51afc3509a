"""The uplinks of a node: which addresses it can be reached at, and the routes that follow."""

import asyncio
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from errno import ENETDOWN, EPERM
from pathlib import Path
from typing import Any, Final, final

from pyroute2.netlink import nlmsg

from mat.address import Address, is_ipv4
from mat_real.uplinks import netlink, router
from mat_real.uplinks.dhcp_link import FIRST_METRIC, DhcpInterface
from mat_real.uplinks.netlink import Events, Requests
from mat_real.uplinks.picture import (
    MAIN_TABLE,
    MobileAddress,
    Picture,
    boottime,
    delegated_by,
    ways_of,
)
from mat_real.uplinks.policy import PROTOCOL, Home, Installed, Policy, Wanted, wanted
from mat_real.uplinks.reverse_path import ReversePath

_FAMILIES: Final = frozenset({socket.AF_INET, socket.AF_INET6})
_LINK_EVENTS: Final = frozenset({netlink.NEW_LINK, netlink.DELETE_LINK})
_ADDRESS_EVENTS: Final = frozenset({netlink.NEW_ADDRESS, netlink.DELETE_ADDRESS})


class UplinksError(Exception):
    """The kernel does not permit what a node needs; says what, and how to mend it."""


@final
class Uplinks:
    """Watches the links, keeps rules and tables as they should be, runs the DHCP clients.

    `homes` are those of the node, at most one of each family. `interfaces` names the uplinks, best
    first; by default all interfaces are, by the metric of their routes. `dhcp` names those that get
    their addresses from here; others get them from whoever assigns them. `changed` is called when
    the mobile addresses, the name servers of leases or the problems have changed; by then the
    kernel's rules and routes are in line. All of it happens on the thread of the running loop, in
    the network namespace that this thread is in when `open` is called. `memory` is a file for what
    a successor has to know after a kill (`mat_real.uplinks.reverse_path`).
    """

    def __init__(
        self,
        homes: Sequence[Home],
        changed: Callable[[], None],
        *,
        interfaces: Sequence[str] = (),
        dhcp: Sequence[str] = (),
        memory: Path | None = None,
    ) -> None:
        """Raises `ValueError` for two homes of a family."""
        if len({is_ipv4(home.address) for home in homes}) != len(homes):
            raise ValueError("a node has at most one home address of each family")
        self._homes = tuple(homes)
        self._families = {
            socket.AF_INET if is_ipv4(home.address) else socket.AF_INET6 for home in homes
        }
        self._changed = changed
        self._interfaces = tuple(interfaces)
        self._dhcp_names = tuple(dhcp)
        self._dhcp: list[DhcpInterface] = []
        self._picture = Picture()
        self._memory = memory
        self._asked: tuple[Address, ...] = ()
        self._mobile: dict[bool, tuple[MobileAddress, ...]] = {True: (), False: ()}
        self._usable = self._mobile
        self._name_servers: tuple[Address, ...] = ()
        self._problems: tuple[str, ...] = ()
        self._refusals: list[str] = []
        self._routes_are_stale = False
        self._settling: asyncio.Handle | None = None
        self._told = self._state

    # ---- what a node may look at ---------------------------------------------------------------

    def mobile_addresses(self, *, ipv4: bool) -> tuple[MobileAddress, ...]:
        """The addresses of a family that are usable now, best first.

        Of a mobile router, those that stand for a mobile prefix.
        """
        return self._usable[ipv4]

    @property
    def name_servers(self) -> tuple[Address, ...]:
        """The name servers of the leases, best uplink first."""
        return self._name_servers

    @property
    def problems(self) -> tuple[str, ...]:
        """What was refused, in words for the administrator; empty if nothing."""
        return self._problems

    def lacks(self) -> list[str]:
        """What a mobile router lacks at the moment, in words for the administrator."""
        forwards = router.forwarding(self._homes)
        return [
            lack
            for home in self._homes
            for lack in router.lacks(
                home, self._mobile[is_ipv4(home.address)], self._picture, forwards[home.address]
            )
        ]

    # ---- beginning and end ---------------------------------------------------------------------

    def open(self) -> None:
        """Take over what a predecessor left, put the kernel in line and begin to watch.

        Raises `UplinksError`.
        """
        self._loop = asyncio.get_running_loop()
        self._requests = Requests()
        self._events = Events()
        self._policy = Policy(self._requests, self._refusals.append)
        self._reverse_path = ReversePath(self._memory)
        self._read_all()
        self._dhcp = [self._client_of(n) for n in sorted(self._dhcp_names, key=self._metric)]
        self._tell_dhcp()
        # A predecessor may have had a home address of another family.
        self._policy.apply((), self._policy.installed(_FAMILIES - self._families))
        self._bring_in_line()
        if self._problems:
            refusals = self._problems
            self.close()
            raise UplinksError(_explained(refusals, dhcp=bool(self._dhcp_names)))
        self._told = self._state
        self._loop.add_reader(self._events.fileno(), self._readable)

    def close(self, *, keep: bool = False) -> None:
        """Remove everything that was installed, unless it is kept for a successor."""
        self._loop.remove_reader(self._events.fileno())
        self._read_events()
        if self._settling is not None:
            self._settling.cancel()
        if not keep:
            self._policy.apply((), self._policy.installed(_FAMILIES))
        for interface in self._dhcp:
            interface.close(keep=keep)
        if not keep:
            self._policy.release_homes(self._homes, self._picture)
            self._reverse_path.restore()
        self._events.close()
        self._requests.close()

    def use_name_servers(self, servers: Iterable[Address]) -> None:
        """The name servers that the node asks: they are asked from where the host is.

        To be called while this is open.
        """
        asked = tuple(servers)
        if asked != self._asked:
            self._asked = asked
            self._bring_in_line()
            # Events that were met on the way have still to be told.
            self._settle_soon()

    # ---- events --------------------------------------------------------------------------------

    def _readable(self) -> None:
        if self._read_events():
            self._settle_soon()

    def _refused(self, what: str) -> None:
        """A DHCP client could not do what it had to."""
        self._refusals.append(what)
        self._settle_soon()

    def _settle_soon(self) -> None:
        # What one change causes comes in several messages; a turn later they are all here.
        if self._settling is None:
            self._settling = self._loop.call_soon(self._settle)

    def _read_events(self) -> bool:
        """Take in what has come; whether any of it matters."""
        matters = False
        for message in self._events.pending():
            if message is None:
                self._read_all()
                matters = True
            else:
                matters = self._take(message) or matters
        return matters

    def _take(self, message: nlmsg) -> bool:
        kind = message["header"]["type"]
        if kind in _LINK_EVENTS | _ADDRESS_EVENTS:
            if self._picture.fold(message, boottime()):
                self._routes_are_stale = True
            if kind in _LINK_EVENTS:
                self._tell_dhcp()
            return True
        if kind in {netlink.NEW_ROUTE, netlink.DELETE_ROUTE} and _is_way(message):
            self._routes_are_stale = True
            return True
        return self._is_loss(message)

    def _is_loss(self, message: nlmsg) -> bool:
        """Whether somebody else has removed a rule or a route of the node's."""
        header = message["header"]
        if header["pid"] == self._requests.port:
            return False
        if header["type"] == netlink.DELETE_ROUTE:
            return bool(message["proto"] == PROTOCOL)
        return bool(
            header["type"] == netlink.DELETE_RULE and message.get_attr("FRA_PROTOCOL") == PROTOCOL
        )

    def _tell_dhcp(self) -> None:
        for interface in self._dhcp:
            interface.link_is(self._picture.link_named(interface.name))

    def _settle(self) -> None:
        self._settling = None
        self._bring_in_line()
        if self._told != self._state:
            self._told = self._state
            self._changed()

    @property
    def _state(self) -> tuple[object, ...]:
        """What `changed` is about."""
        return self._usable, self._name_servers, self._problems

    # ---- the kernel ----------------------------------------------------------------------------

    def _read_all(self) -> None:
        now = boottime()
        fresh = Picture()
        for kind in (netlink.GET_LINK, netlink.GET_ADDRESS):
            for message in self._requests.dump(kind, {}):
                fresh.fold(message, now)
        fresh.doubt_as(self._picture)
        self._picture = fresh
        self._read_routes()
        self._tell_dhcp()

    def _read_routes(self) -> None:
        self._routes_are_stale = False
        routes = [
            route
            for family in _FAMILIES
            for route in self._requests.dump(
                netlink.GET_ROUTE, {"family": family}, {"RTA_TABLE": MAIN_TABLE}
            )
        ]
        self._picture.ways = [way for route in routes for way in ways_of(route)]
        self._picture.delegated = [d for route in routes if (d := delegated_by(route)) is not None]

    def _hold(self) -> None:
        self._policy.hold_homes(self._homes, self._picture)
        self._policy.hold_sink(self._picture, needed=socket.AF_INET6 in self._families)

    def _bring_in_line(self) -> None:
        """Look at the picture, and make rules and routes what follows from it."""
        self._hold()
        # What that caused is told already, and the picture has to have it.
        self._read_events()
        if self._routes_are_stale:
            self._read_routes()
        self._mobile = {ipv4: self._mobile_addresses(ipv4=ipv4) for ipv4 in (True, False)}
        self._usable = dict(self._mobile)
        for home in self._homes:
            of_family = self._mobile[is_ipv4(home.address)]
            usable = router.with_prefixes(home, of_family, self._picture)
            self._usable[is_ipv4(home.address)] = usable
        leases = [lease for d in self._dhcp if (lease := d.lease) is not None]
        self._name_servers = tuple(dict.fromkeys(s for each in leases for s in each.name_servers))
        installed = self._policy.installed(self._families)
        self._policy.apply(
            [each for home in self._homes for each in self._wanted(home, installed)], installed
        )
        used = {mobile.interface for mobile in self._mobile[True]} | self._behind()
        strict = self._reverse_path.loosen(used) if socket.AF_INET in self._families else []
        self._problems = (*dict.fromkeys(self._refusals), *strict)
        self._refusals.clear()

    def _wanted(self, home: Home, installed: Installed) -> tuple[Wanted, Wanted]:
        mobiles = self._mobile[is_ipv4(home.address)]
        host = wanted(home, mobiles, self._asked, self._picture, installed)
        return host, router.routed(home, mobiles, self._picture, host)

    def _behind(self) -> set[str]:
        """Interfaces on which packets turn out to be from a mobile prefix, as they are routed."""
        return {
            name
            for home in self._homes
            if is_ipv4(home.address)
            for name in router.interfaces_behind(home, self._mobile[True], self._picture)
        }

    def _mobile_addresses(self, *, ipv4: bool) -> tuple[MobileAddress, ...]:
        return self._picture.mobile_addresses(
            ipv4=ipv4,
            preference=self._interfaces,
            homes=[(home.address, home.prefix_length) for home in self._homes],
        )

    def _metric(self, name: str) -> int:
        """Of the default route by an interface: by preference, or by place among the clients."""
        order = [*self._interfaces, *(n for n in self._dhcp_names if n not in self._interfaces)]
        return FIRST_METRIC + order.index(name)

    def _client_of(self, name: str) -> DhcpInterface:
        """The DHCP client of an interface, which knows what a predecessor left there."""
        made = DhcpInterface(name, self._metric(name), self._requests, self._refused)
        link = self._picture.link_named(name)
        for left in self._picture.addresses.values():
            if link and left.index == link.index and left.protocol == PROTOCOL:
                made.take_over(left.index, left.address, left.prefix_length)
        return made


def _is_way(route: nlmsg) -> bool:
    table: Any = route.get_attr("RTA_TABLE")
    return bool(table == MAIN_TABLE and (ways_of(route) or delegated_by(route)))


def _explained(refusals: Sequence[str], *, dhcp: bool) -> str:
    """What to do about what the kernel refused."""
    if any(os.strerror(ENETDOWN) in each or "is not up" in each for each in refusals):
        return f"{refusals[0]}: is lo up? If not: ip link set lo up"
    if not any(os.strerror(EPERM) in each for each in refusals):
        return "; ".join(refusals)
    also = "; for node.dhcp, CAP_NET_RAW too" if dhcp else ""
    return f"{refusals[0]}. That takes root, or CAP_NET_ADMIN{also}"
