"""Which way packets take: the home address, the rules and the tables of the node.

Four rules, by preference, for each family that the node has a home address in:

    4910  from MOBILE     lookup 49700…  what leaves from a mobile address leaves by its interface,
                                         unless it is for a host behind this one
    4920  to NAME SERVER  lookup main    the DNS is asked from where the host is
    4930  lookup main suppress_prefixlength 0    to what is near, as ever
    4940  iif lo lookup 49628            all else that this host sends: from the home address

What the host forwards for others, of containers and guests, goes by main, as without a node.

The default route of table 49628 gives applications' packets the home address as source, and is
there when no uplink is. Its device sees no packet that is translated: that changes the addresses,
and with them the route, before. In IPv4 it is `lo`, where what is left over ends as a martian. In
IPv6 a route by `lo` is one of refusal; there it is an interface of its own, a bridge without ports.

What is wanted is computed from the picture, what is there is read from the kernel, and what is sent
is the difference: first what is added, tables before the rules that lead to them, then what is
removed, the other way round. Everything carries the protocol 77, so that a successor knows what a
daemon that was killed has left, and takes over what is still right.
"""

import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from pyroute2.netlink import nlmsg
from pyroute2.netlink.exceptions import NetlinkError

from mat.address import UNSPECIFIED, Address, format_address, from_ipv4, is_ipv4, prefix_of
from mat_real.uplinks import netlink
from mat_real.uplinks.netlink import Attributes, Fields, Requests
from mat_real.uplinks.picture import (
    EXACT,
    MAIN_TABLE,
    MobileAddress,
    Picture,
    address_of,
    in_128_bits,
)

PROTOCOL: Final = 77
"""Marks what this node has put into the kernel (RTA_PROTOCOL, FRA_PROTOCOL, IFA_PROTO)."""
HOME_TABLE: Final = 49628
MOBILE_TABLES: Final = 49700
"""The table of the first mobile address; the others follow."""
SIGNALLING_TABLE: Final = 49629
BEHIND_TABLE: Final = 49630
"""Of a mobile router; see `mat_real.uplinks.router`."""
SIGNALLING_RULE: Final = 4900
BEHIND_RULE: Final = 4905
MOBILE_RULE: Final = 4910
NAME_SERVER_RULE: Final = 4920
NEAR_RULE: Final = 4930
HOME_RULE: Final = 4940
SINK: Final = "mat-sink"
"""The device of the IPv6 default route."""

_LEAST_MTU: Final = 1280
"""Of the default route before there was an uplink: what every IPv6 link carries (RFC 8200)."""
_SINK_MTU: Final = 65535
_IPV6_METRIC: Final = 1024
_LOOPBACK: Final = 1
"""The index of `lo`, the first in every network namespace."""
_ONLINK: Final = 4
_LINK_SCOPE: Final = 253
_HOST_SCOPE: Final = 254
_UNICAST: Final = 1
_LOCAL: Final = 2
_LOOKUP: Final = 1
_NO_DAD: Final = 0x02
_NO_SUPPRESSION: Final = 0xFFFFFFFF
_UDP: Final = 17
_FLAG_UP: Final = 0x1
_FLAG_NO_ARP: Final = 0x80
_FLAG_MULTICAST: Final = 0x1000
_NO_LINK_LOCAL: Final = 1
"""IN6_ADDR_GEN_MODE_NONE."""


@final
@dataclass(frozen=True, slots=True)
class Home:
    """A home address, or the home prefix of a mobile router (length in the 128-bit form)."""

    address: Address
    prefix_length: int = EXACT


@final
@dataclass(frozen=True, slots=True)
class Rule:
    """A rule (ip-rule(8)) that looks up a table."""

    ipv4: bool
    preference: int
    table: int
    source: Address | None = None
    destination: Address | None = None
    suppress: int | None = None
    """Routes with prefixes up to this length do not count."""
    sent_here: bool = False
    """Only for what this host itself sends: the kernel says of it that it came in by `lo`."""
    source_length: int = EXACT
    destination_length: int = EXACT
    """Of the prefix, in bits of the 128-bit form."""
    port: int | None = None
    """Only for UDP to this port."""


@final
@dataclass(frozen=True, slots=True)
class Route:
    """A route (ip-route(8)) in one of the node's tables."""

    ipv4: bool
    table: int
    prefix: Address
    prefix_length: int
    index: int
    gateway: Address | None = None
    source: Address | None = None
    mtu: int | None = None
    local: bool = False
    """Whether what it is for has arrived: the host takes it as its own."""

    @property
    def place(self) -> tuple[object, ...]:
        """What only one route can have."""
        return self.ipv4, self.table, self.prefix, self.prefix_length


@final
@dataclass(frozen=True, slots=True)
class Wanted:
    """Rules and routes."""

    rules: frozenset[Rule]
    routes: frozenset[Route]


@final
@dataclass(slots=True)
class Installed:
    """What of the node's is in the kernel."""

    rules: set[Rule]
    routes: set[Route]

    def table_of(self, mobile: Address) -> int | None:
        """The table that a mobile address has."""
        of = (r.table for r in self.rules if r.source == mobile and r.source_length == EXACT)
        return next(of, None)

    def mtu(self, *, ipv4: bool) -> int | None:
        """The MTU of the default route from the home address."""
        home = (r.mtu for r in self.routes if r.table == HOME_TABLE and r.ipv4 == ipv4)
        return next(home, None)


def wanted(
    home: Home,
    mobiles: Sequence[MobileAddress],
    name_servers: Iterable[Address],
    picture: Picture,
    installed: Installed,
) -> Wanted:
    """The rules and routes of one family, while these are the mobile addresses.

    A mobile address keeps the table that it has.
    """
    ipv4 = is_ipv4(home.address)
    rules = {Rule(ipv4, NEAR_RULE, MAIN_TABLE, suppress=0)}
    routes: set[Route] = set()
    source = _source(home, picture)
    if source is not None:
        rules.add(Rule(ipv4, HOME_RULE, HOME_TABLE, sent_here=True))
        routes.add(_home_route(source, mobiles, picture, installed))
    for server in name_servers:
        if is_ipv4(server) == ipv4:
            rules.add(Rule(ipv4, NAME_SERVER_RULE, MAIN_TABLE, destination=server))
    for mobile, table in _tables(mobiles, installed):
        rules.add(Rule(ipv4, MOBILE_RULE, table, source=mobile.address))
        everything = from_ipv4(bytes(4)) if ipv4 else UNSPECIFIED
        length = 96 if ipv4 else 0
        routes.add(Route(ipv4, table, everything, length, mobile.index, mobile.gateway))
        near = [*picture.on_link(mobile.index, ipv4=ipv4), *picture.behind(mobiles, ipv4=ipv4)]
        # Of two interfaces to the same prefix, the address's own.
        first = {(way.prefix, way.prefix_length): way.index for way in reversed(near)}
        routes |= {Route(ipv4, table, *prefix, index) for prefix, index in first.items()}
    return Wanted(frozenset(rules), frozenset(routes))


def _tables(
    mobiles: Sequence[MobileAddress], installed: Installed
) -> Iterable[tuple[MobileAddress, int]]:
    kept = {m.address: installed.table_of(m.address) for m in mobiles}
    taken = set(kept.values())
    free = (n for n in range(MOBILE_TABLES, MOBILE_TABLES + 2 * len(mobiles)) if n not in taken)
    return [(m, table if (table := kept[m.address]) is not None else next(free)) for m in mobiles]


def _source(home: Home, picture: Picture) -> Address | None:
    """The home address of the host itself: a mobile router may have one, in its prefix."""
    if home.prefix_length == EXACT:
        return home.address
    return picture.address_within(home.address, home.prefix_length)


def _home_route(
    source: Address, mobiles: Sequence[MobileAddress], picture: Picture, installed: Installed
) -> Route:
    ipv4 = is_ipv4(source)
    sink = None if ipv4 else picture.link_named(SINK)
    return Route(
        ipv4,
        HOME_TABLE,
        from_ipv4(bytes(4)) if ipv4 else UNSPECIFIED,
        96 if ipv4 else 0,
        _LOOPBACK if sink is None else sink.index,
        source=source,
        mtu=min((m.mtu for m in mobiles), default=installed.mtu(ipv4=ipv4) or _LEAST_MTU),
    )


@final
class Policy:
    """Makes the kernel's rules and routes what they should be.

    What the kernel refuses is told to `refused`, in words for the administrator.
    """

    def __init__(self, requests: Requests, refused: Callable[[str], None]) -> None:
        self._requests = requests
        self._refused = refused
        self._added: set[Address] = set()

    # ---- home addresses and the sink -----------------------------------------------------------

    def hold_homes(self, homes: Iterable[Home], picture: Picture) -> None:
        """Have the home addresses on `lo`, no others, and the device for IPv6."""
        hosts = {home.address for home in homes if home.prefix_length == EXACT}
        there = {a.address: a for a in picture.addresses.values() if a.index == _LOOPBACK}
        for address in hosts - there.keys():
            self._added.add(address)
            self._home_address(netlink.NEW_ADDRESS, address)
        for address, assigned in there.items():
            if assigned.protocol == PROTOCOL and address not in hosts:
                self._home_address(netlink.DELETE_ADDRESS, address)

    def hold_sink(self, picture: Picture, *, needed: bool) -> None:
        """Have the interface that the IPv6 default route leads to."""
        there = picture.link_named(SINK)
        if not needed and there is not None:
            self._send(f"interface {SINK}", netlink.DELETE_LINK, 0, {"index": there.index}, {})
        if needed and there is None:
            kind = {"attrs": [["IFLA_INFO_KIND", "bridge"]]}
            self._tell_sink(netlink.CREATE, {}, {"IFLA_MTU": _SINK_MTU, "IFLA_LINKINFO": kind})
        if needed and (there is None or not there.enabled):
            # Before it is up, since with that it would get a link-local address.
            none = {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", _NO_LINK_LOCAL]]}
            self._tell_sink(0, {}, {"IFLA_AF_SPEC": {"attrs": [["AF_INET6", none]]}})
            # It looks for no neighbours, so what is left over is lost at once and without an error.
            quiet = _FLAG_UP | _FLAG_NO_ARP
            self._tell_sink(0, {"flags": quiet, "change": quiet | _FLAG_MULTICAST}, {})

    def _tell_sink(self, flags: int, fields: Fields, attributes: Attributes) -> None:
        named: Attributes = {"IFLA_IFNAME": SINK, **attributes}
        self._send(f"interface {SINK}", netlink.NEW_LINK, flags, fields, named)

    def release_homes(self, homes: Iterable[Home], picture: Picture) -> None:
        """Remove the home addresses that are the node's own, and the device."""
        there = {a.address: a for a in picture.addresses.values() if a.index == _LOOPBACK}
        for address in {home.address for home in homes} & there.keys():
            if there[address].protocol == PROTOCOL or address in self._added:
                self._home_address(netlink.DELETE_ADDRESS, address)
        self.hold_sink(picture, needed=False)

    def _home_address(self, kind: int, address: Address) -> None:
        text = format_address(address)
        attributes: Attributes = {
            "IFA_LOCAL": text,
            "IFA_ADDRESS": text,
            # Without it an IPv6 address is tentative for a moment, even on lo.
            "IFA_FLAGS": _NO_DAD,
            "IFA_PROTO": PROTOCOL,
        }
        fields = {
            "family": _family(ipv4=is_ipv4(address)),
            "prefixlen": 32 if is_ipv4(address) else 128,
            "index": _LOOPBACK,
        }
        flags = netlink.CREATE | netlink.EXCLUSIVE if kind == netlink.NEW_ADDRESS else 0
        self._send(f"home address {text} on lo", kind, flags, fields, attributes)

    # ---- rules and routes ----------------------------------------------------------------------

    def installed(self, families: Iterable[int]) -> Installed:
        """The rules and routes in the kernel that are a node's, whoever put them there."""
        found = Installed(set(), set())
        for family in families:
            for rule in self._requests.dump(netlink.GET_RULE, {"family": family}):
                if rule.get_attr("FRA_PROTOCOL") == PROTOCOL:
                    found.rules.add(_rule(rule))
            for route in self._requests.dump(
                netlink.GET_ROUTE, {"family": family, "proto": PROTOCOL}
            ):
                if _table(route) >= HOME_TABLE:
                    found.routes.add(_route(route))
        return found

    def apply(self, wanted: Iterable[Wanted], installed: Installed) -> None:
        """Send what is wanted and not installed, and take away what is installed and not wanted."""
        rules = {rule for each in wanted for rule in each.rules}
        routes = {route for each in wanted for route in each.routes}
        for route in sorted(routes - installed.routes, key=_before):
            self.put(route)
        for rule in rules - installed.rules:
            self._rule(netlink.NEW_RULE, rule)
        for rule in installed.rules - rules:
            self._rule(netlink.DELETE_RULE, rule)
        places = {route.place for route in routes}
        for route in installed.routes - routes:
            if route.place not in places:
                self._route(netlink.DELETE_ROUTE, route)

    def put(self, route: Route) -> None:
        """Have a route, in place of another to the same prefix."""
        self._route(netlink.NEW_ROUTE, route)

    def _rule(self, kind: int, rule: Rule) -> None:
        shorter = 96 if rule.ipv4 else 0
        attributes: Attributes = {
            "FRA_PRIORITY": rule.preference,
            "FRA_TABLE": rule.table,
            "FRA_PROTOCOL": PROTOCOL,
        }
        if rule.source is not None:
            attributes["FRA_SRC"] = format_address(rule.source)
        if rule.destination is not None:
            attributes["FRA_DST"] = format_address(rule.destination)
        if rule.suppress is not None:
            attributes["FRA_SUPPRESS_PREFIXLEN"] = rule.suppress
        if rule.sent_here:
            attributes["FRA_IIFNAME"] = "lo"
        if rule.port is not None:
            attributes["FRA_IP_PROTO"] = _UDP
            attributes["FRA_DPORT_RANGE"] = f"{rule.port}:{rule.port}"
        fields = {
            "family": _family(ipv4=rule.ipv4),
            "src_len": rule.source_length - shorter if rule.source is not None else 0,
            "dst_len": rule.destination_length - shorter if rule.destination is not None else 0,
            "action": _LOOKUP,
        }
        flags = netlink.CREATE | netlink.EXCLUSIVE if kind == netlink.NEW_RULE else 0
        self._send(f"rule {rule.preference}", kind, flags, fields, attributes)

    def _route(self, kind: int, route: Route) -> None:
        attributes: Attributes = {"RTA_TABLE": route.table, "RTA_OIF": route.index}
        length = route.prefix_length - 96 if route.ipv4 else route.prefix_length
        if length:
            attributes["RTA_DST"] = format_address(route.prefix)
        if not route.ipv4:
            attributes["RTA_PRIORITY"] = _IPV6_METRIC
        if route.gateway is not None:
            attributes["RTA_GATEWAY"] = format_address(route.gateway)
        if route.source is not None:
            attributes["RTA_PREFSRC"] = format_address(route.source)
        if route.mtu is not None:
            attributes["RTA_METRICS"] = {"attrs": [["RTAX_MTU", route.mtu]]}
        fields = {
            "family": _family(ipv4=route.ipv4),
            "dst_len": length,
            "proto": PROTOCOL,
            "type": _LOCAL if route.local else _UNICAST,
            "scope": _scope(route),
            "flags": 0 if route.gateway is None else _ONLINK,
        }
        flags = netlink.CREATE | netlink.REPLACE if kind == netlink.NEW_ROUTE else 0
        self._send(f"route in table {route.table}", kind, flags, fields, attributes)

    def _send(
        self, what: str, kind: int, flags: int, fields: Fields, attributes: Attributes
    ) -> None:
        try:
            self._requests.change(kind, flags, fields, attributes)
        except NetlinkError as error:
            self._refused(f"{what}: the kernel refused it: {error.args[-1]}")


def _scope(route: Route) -> int:
    if route.local:
        return _HOST_SCOPE
    return _LINK_SCOPE if route.ipv4 and route.gateway is None else 0


def _before(route: Route) -> tuple[int, int]:
    """What is on the link comes before what is reached by way of it."""
    return route.table, -route.prefix_length


def _family(*, ipv4: bool) -> int:
    return socket.AF_INET if ipv4 else socket.AF_INET6


def _address(message: nlmsg, attribute: str) -> Address | None:
    text: Any = message.get_attr(attribute)
    return None if text is None else address_of(text)


def _table(route: nlmsg) -> int:
    table: int = route.get_attr("RTA_TABLE")
    return table


def _rule(message: nlmsg) -> Rule:
    suppress = message.get_attr("FRA_SUPPRESS_PREFIXLEN")
    source, destination = _address(message, "FRA_SRC"), _address(message, "FRA_DST")
    ports: str | None = message.get_attr("FRA_DPORT_RANGE")
    return Rule(
        message["family"] == socket.AF_INET,
        message.get_attr("FRA_PRIORITY") or 0,
        message.get_attr("FRA_TABLE") or 0,
        source,
        destination,
        None if suppress in {None, _NO_SUPPRESSION} else suppress,
        message.get_attr("FRA_IIFNAME") == "lo",
        EXACT if source is None else in_128_bits(message["src_len"], message["family"]),
        EXACT if destination is None else in_128_bits(message["dst_len"], message["family"]),
        None if ports is None else int(ports.partition(":")[0]),
    )


def _route(message: nlmsg) -> Route:
    ipv4 = message["family"] == socket.AF_INET
    metrics: Any = message.get_attr("RTA_METRICS")
    length = in_128_bits(message["dst_len"], message["family"])
    prefix = _address(message, "RTA_DST") or (from_ipv4(bytes(4)) if ipv4 else UNSPECIFIED)
    return Route(
        ipv4,
        _table(message),
        prefix_of(prefix, length),
        length,
        message.get_attr("RTA_OIF") or 0,
        _address(message, "RTA_GATEWAY"),
        _address(message, "RTA_PREFSRC"),
        None if metrics is None else metrics.get_attr("RTAX_MTU"),
        message["type"] == _LOCAL,
    )
