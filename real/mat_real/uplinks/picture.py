"""What the kernel's tables say of the ways out: links, addresses, default routes.

Links and addresses are kept by folding events into them. Of routes, only a few of the main table
matter, and the kernel removes IPv4 routes without a word when a link goes down or an address is
removed: so events only say that the routes have to be read again.

Interfaces are known by name to whoever configures, by index to the kernel; an interface that
comes back has another index, and nothing here outlives the index that it was about.
"""

import math
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, final

from pyroute2.netlink import nlmsg

from mat.address import UNSPECIFIED, Address, from_ipv4, in_prefix, is_ipv4, is_unicast
from mat_real.uplinks.netlink import DELETE_ADDRESS, DELETE_LINK, NEW_ADDRESS, NEW_LINK

MAIN_TABLE: Final = 254
EXACT: Final = 128
"""Length of a prefix that is one address, in bits of the 128-bit form."""

_IFF_UP: Final = 0x1
_IFF_LOOPBACK: Final = 0x8
_IFF_POINTOPOINT: Final = 0x10
_IFF_LOWER_UP: Final = 0x10000
_WORKS: Final = ("UP", "UNKNOWN")

_SECONDARY: Final = 0x01
"""Of IPv4, not the first of its subnet; of IPv6, temporary (RFC 8981)."""
_OPTIMISTIC: Final = 0x04
"""Tentative as well, but to be used meanwhile (RFC 4429): the host has been set so."""
_DAD_FAILED: Final = 0x08
_PERMANENT: Final = 0x80
_DEPRECATED: Final = 0x20
_TENTATIVE: Final = 0x40

_UNIVERSE: Final = 0
_UNICAST: Final = 1
_DISCARDING: Final = frozenset({6, 7, 8})
"""Types of routes that lead nowhere: blackhole, unreachable, prohibit."""
_FOREVER: Final = 0xFFFFFFFF
_NO_METRIC: Final = 1 << 32
"""Of a way out that no route describes: after all that have one."""
_SAME_LEASE: Final = 1.0
"""Lifetimes come in whole seconds, rounded down: ends closer together than this are the same."""
_IPV6_SETTINGS: Final = Path("/proc/sys/net/ipv6/conf")


@final
@dataclass(frozen=True, slots=True)
class MobileAddress:
    """An address that this node can be reached at now, and how packets from it leave."""

    address: Address
    interface: str
    index: int
    gateway: Address | None
    """The next hop; None on a point-to-point link, and where everything is on the link."""
    prefix_length: int
    """Of the subnet, in bits of the 128-bit form."""
    until: float
    """End of the lease, in seconds of `boottime`; infinite if there is none."""
    mtu: int
    """Bytes."""


@final
@dataclass(frozen=True, slots=True)
class Link:
    """A network interface."""

    index: int
    name: str
    enabled: bool
    """The administrator wants it up."""
    works: bool
    """And it has a carrier."""
    mtu: int
    hardware_address: bytes
    loopback: bool
    point_to_point: bool


@final
@dataclass(frozen=True, slots=True)
class Assigned:
    """An address of an interface."""

    index: int
    address: Address
    prefix_length: int
    flags: int
    scope: int
    protocol: int
    """Who assigned it (IFA_PROTO, from Linux 5.18 on), 0 if nobody said."""
    until: float


@final
@dataclass(frozen=True, slots=True)
class Way:
    """A route of the main table: a default route, or one to what is on the link."""

    index: int
    ipv4: bool
    prefix: Address
    prefix_length: int
    gateway: Address | None
    metric: int
    mtu: int | None


@final
class Picture:
    """Links, addresses, ways out and delegated prefixes as of the last event."""

    def __init__(self) -> None:
        self.links: dict[int, Link] = {}
        self.addresses: dict[tuple[int, Address, int], Assigned] = {}
        self.ways: list[Way] = []
        self.delegated: list[tuple[Address, int]] = []
        """Prefixes, with their lengths, that networks have delegated to this host."""
        self.doubtful: set[tuple[int, Address, int]] = set()
        """Addresses that outlived a loss of the carrier, and were not announced again since."""

    def fold(self, message: nlmsg, now: float) -> bool:
        """Take an event in; whether routes may have gone with it that no event will tell of."""
        kind = message["header"]["type"]
        if kind == NEW_LINK:
            return self._link(message)
        if kind == DELETE_LINK:
            return self._without_link(message)
        if kind == NEW_ADDRESS:
            self._address(_assigned(message, now))
            return False
        if kind == DELETE_ADDRESS:
            gone = _assigned(message, now)
            self.addresses.pop(_at(gone), None)
            self.doubtful.discard(_at(gone))
            return True
        return False

    def link_named(self, name: str) -> Link | None:
        """The interface that has this name now."""
        return next((link for link in self.links.values() if link.name == name), None)

    def _link(self, message: nlmsg) -> bool:
        # Wireless drivers tell of what only they know without saying the rest.
        if message.get_attr("IFLA_OPERSTATE") is None:
            return False
        before = self.links.get(message["index"])
        self.links[message["index"]] = now = _link(message)
        if not now.works:
            self._doubt(now.index)
        return before is None or before.enabled != now.enabled

    def _doubt(self, index: int) -> None:
        """The next network may be another: what a router of this one announced may not do there."""
        self.doubtful |= {
            at
            for at, assigned in self.addresses.items()
            if assigned.index == index
            and not is_ipv4(assigned.address)
            and not assigned.flags & _PERMANENT
        }

    def doubt_as(self, earlier: "Picture") -> None:
        """Doubt what an earlier picture did, as far as it is there still."""
        self.doubtful |= earlier.doubtful & self.addresses.keys()

    def _without_link(self, message: nlmsg) -> bool:
        # A bridge says so, in its own family, of a port that leaves it.
        if message["family"] != socket.AF_UNSPEC:
            return False
        index = message["index"]
        self.links.pop(index, None)
        self.addresses = {at: a for at, a in self.addresses.items() if a.index != index}
        return True

    def _address(self, assigned: Assigned) -> None:
        at = _at(assigned)
        self.doubtful.discard(at)
        before = self.addresses.get(at)
        if before is not None and abs(before.until - assigned.until) < _SAME_LEASE:
            assigned = replace(assigned, until=before.until)
        self.addresses[at] = assigned

    def mobile_addresses(
        self, *, ipv4: bool, preference: Sequence[str], homes: Iterable[tuple[Address, int]]
    ) -> tuple[MobileAddress, ...]:
        """The addresses that are usable now, best first.

        `preference` names the interfaces to use, best first; if it is empty, all are. Addresses
        within `homes`, prefixes with their lengths, are none to be mobile with.
        """
        homes = tuple(homes)
        ranked = [
            (rank, self._mobile(assigned, self.links[assigned.index], way))
            for assigned in self.addresses.values()
            if is_ipv4(assigned.address) == ipv4
            and self._is_usable(assigned, preference)
            and not self._is_outdated(assigned)
            and not any(in_prefix(assigned.address, *home) for home in homes)
            and (way := self._way_out(assigned.index, ipv4=ipv4)) is not None
            and (rank := self._rank(assigned, way, preference))
        ]
        best: dict[Address, MobileAddress] = {}
        for _, mobile in sorted(ranked, key=lambda pair: pair[0]):
            best.setdefault(mobile.address, mobile)
        return tuple(best.values())

    def _is_usable(self, assigned: Assigned, preference: Sequence[str]) -> bool:
        link = self.links.get(assigned.index)
        return (
            link is not None
            and link.works
            and not link.loopback
            and (not preference or link.name in preference)
            and assigned.scope == _UNIVERSE
            and is_unicast(assigned.address)
            and not _is_unproven(assigned.flags)
        )

    def _is_outdated(self, assigned: Assigned) -> bool:
        """Whether an address is of the network before, as that of the present one is there."""
        return _at(assigned) in self.doubtful and any(
            other.index == assigned.index
            and not is_ipv4(other.address)
            and other.scope == _UNIVERSE
            and not other.flags & _PERMANENT
            and at not in self.doubtful
            and not _is_unproven(other.flags)
            for at, other in self.addresses.items()
        )

    def _way_out(self, index: int, *, ipv4: bool) -> Way | None:
        """The default route by an interface, if there is one, or if it needs none."""
        defaults = [
            way
            for way in self.ways
            if way.index == index and way.ipv4 == ipv4 and is_default(way.prefix_length, ipv4=ipv4)
        ]
        if defaults:
            return min(defaults, key=lambda way: way.metric)
        if self.links[index].point_to_point:
            return Way(index, ipv4, UNSPECIFIED, 0, None, _NO_METRIC, None)
        return None

    def _rank(self, assigned: Assigned, way: Way, preference: Sequence[str]) -> tuple[Any, ...]:
        name = self.links[assigned.index].name
        return (
            bool(assigned.flags & _DEPRECATED),
            _at(assigned) in self.doubtful,
            # While there is another, there is time to wait for what comes of it.
            bool(assigned.flags & _OPTIMISTIC),
            preference.index(name) if preference else 0,
            way.metric,
            assigned.index,
            bool(assigned.flags & _SECONDARY),
        )

    def _mobile(self, assigned: Assigned, link: Link, way: Way) -> MobileAddress:
        mtu = link.mtu if is_ipv4(assigned.address) else min(link.mtu, _ipv6_mtu(link))
        return MobileAddress(
            assigned.address,
            link.name,
            link.index,
            way.gateway,
            assigned.prefix_length,
            assigned.until,
            min(mtu, way.mtu or mtu),
        )

    def on_link(self, index: int, *, ipv4: bool) -> list[Way]:
        """What is reached over an interface without a next hop."""
        return [
            way
            for way in self.ways
            if way.index == index
            and way.ipv4 == ipv4
            and way.gateway is None
            and not is_default(way.prefix_length, ipv4=ipv4)
        ]

    def is_delegated(self, address: Address, length: int) -> bool:
        """Whether the prefix of this length around an address is this host's to give away."""
        return any(
            within <= length and in_prefix(address, prefix, within)
            for prefix, within in self.delegated
        )

    def address_within(self, prefix: Address, length: int) -> Address | None:
        """An address that this host has in a prefix, always the same of several."""
        found = [
            (assigned.index, assigned.address)
            for assigned in self.addresses.values()
            if in_prefix(assigned.address, prefix, length) and not _is_unproven(assigned.flags)
        ]
        return min(found)[1] if found else None

    def behind(self, mobiles: Sequence[MobileAddress], *, ipv4: bool) -> list[Way]:
        """What is reached without a next hop over interfaces that are no uplinks.

        Containers and guests, on bridges. Tunnels (point-to-point) are another way to what is
        outside, not one to what is behind.
        """
        uplinks = {mobile.index for mobile in mobiles}
        inside = [
            link
            for link in self.links.values()
            if not link.loopback and not link.point_to_point and link.index not in uplinks
        ]
        return [way for link in inside for way in self.on_link(link.index, ipv4=ipv4)]


def _at(assigned: Assigned) -> tuple[int, Address, int]:
    """What an address is known by."""
    return assigned.index, assigned.address, assigned.prefix_length


def _is_unproven(flags: int) -> bool:
    """Whether an address may turn out to be another host's, and is not to be used until then."""
    return bool(flags & _DAD_FAILED or (flags & _TENTATIVE and not flags & _OPTIMISTIC))


def boottime() -> float:
    """Seconds on a clock that goes on while the host sleeps, as its leases do."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def is_default(prefix_length: int, *, ipv4: bool) -> bool:
    """Whether a prefix of this length (128-bit form) is all of its family."""
    return prefix_length == (96 if ipv4 else 0)


def address_of(text: str) -> Address:
    """The address as the codec writes it."""
    if ":" in text:
        return Address(socket.inet_pton(socket.AF_INET6, text))
    return from_ipv4(socket.inet_pton(socket.AF_INET, text))


def in_128_bits(length: int, family: int) -> int:
    """A prefix length of the family, in bits of the 128-bit form."""
    return length + 96 if family == socket.AF_INET else length


def ways_of(route: nlmsg) -> list[Way]:
    """The ways of a route that matter here: by default, or on the link; none of other routes."""
    family = route["family"]
    ipv4 = family == socket.AF_INET
    text = route.get_attr("RTA_DST")
    everything = from_ipv4(bytes(4)) if ipv4 else UNSPECIFIED
    prefix = everything if text is None else address_of(text)
    length = in_128_bits(route["dst_len"], family)
    metrics: Any = route.get_attr("RTA_METRICS")
    metric: int = route.get_attr("RTA_PRIORITY") or 0
    mtu: int | None = None if metrics is None else metrics.get_attr("RTAX_MTU")
    return [
        Way(index, ipv4, prefix, length, gateway, metric, mtu)
        for index, gateway in _next_hops(route)
        if gateway is None or is_default(length, ipv4=ipv4)
    ]


def delegated_by(route: nlmsg) -> tuple[Address, int] | None:
    """The prefix of a route that discards what no more specific one is for; None of others.

    Whoever is delegated a prefix has to have one (RFC 7084, WPD-5), and those who ask for prefixes
    put it there: systemd-networkd, dhcpcd, netifd. No other trace in the kernel says so.
    """
    text = route.get_attr("RTA_DST")
    if route["type"] not in _DISCARDING or text is None:
        return None
    return address_of(text), in_128_bits(route["dst_len"], route["family"])


def _next_hops(route: nlmsg) -> list[tuple[int, Address | None]]:
    # A next hop of the other family (RTA_VIA) is left out: a table for one family could not say it.
    if route["type"] != _UNICAST or route.get_attr("RTA_VIA") is not None:
        return []
    several: Any = route.get_attr("RTA_MULTIPATH")
    if several is not None:
        return [(hop["oif"], _gateway(hop)) for hop in several]
    index: int | None = route.get_attr("RTA_OIF")
    return [] if index is None else [(index, _gateway(route))]


def _gateway(hop: nlmsg) -> Address | None:
    text: str | None = hop.get_attr("RTA_GATEWAY")
    return None if text is None else address_of(text)


def _link(message: nlmsg) -> Link:
    flags = message["flags"]
    enabled = bool(flags & _IFF_UP)
    return Link(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        enabled=enabled,
        works=enabled
        and bool(flags & _IFF_LOWER_UP)
        and message.get_attr("IFLA_OPERSTATE") in _WORKS,
        mtu=message.get_attr("IFLA_MTU"),
        hardware_address=_hardware_address(message.get_attr("IFLA_ADDRESS")),
        loopback=bool(flags & _IFF_LOOPBACK),
        point_to_point=bool(flags & _IFF_POINTOPOINT),
    )


def _hardware_address(text: object) -> bytes:
    """The octets of an Ethernet address; none where an interface has no such address."""
    octets = text.split(":") if isinstance(text, str) else []
    return bytes.fromhex("".join(octets)) if len(octets) == 6 else b""


def _assigned(message: nlmsg, now: float) -> Assigned:
    valid = _FOREVER
    lifetimes = message.get_attr("IFA_CACHEINFO")
    if lifetimes is not None:
        valid = lifetimes["ifa_valid"]
    flags = message.get_attr("IFA_FLAGS")
    return Assigned(
        index=message["index"],
        # On a point-to-point link IFA_ADDRESS is the other end.
        address=address_of(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")),
        prefix_length=in_128_bits(message["prefixlen"], message["family"]),
        flags=message["flags"] if flags is None else flags,
        scope=message["scope"],
        protocol=message.get_attr("IFA_PROTO") or 0,
        until=math.inf if valid == _FOREVER else now + valid,
    )


def _ipv6_mtu(link: Link) -> int:
    """The MTU that a router advertised (RFC 4861, section 4.6.4), which no event tells."""
    try:
        return int((_IPV6_SETTINGS / link.name / "mtu").read_text())
    except (OSError, ValueError):
        return link.mtu
