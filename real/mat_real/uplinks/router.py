"""What a mobile router has besides what every node has (docs/protocol.md, section 8.7).

A network delegates a prefix to the router, as long as the home prefix and for as long as it stays:
the mobile prefix. How it comes to the router, by DHCPv6 (RFC 8415) or by agreement, is nobody's
business here; what counts is what stands in the kernel: a route of the main table that discards
what no other is for, as RFC 7084 asks for, says that a prefix is this host's, and an address from
it on an uplink says by which network. Any other address on an uplink is an ordinary one, its prefix
that of the link, where others live too: nothing that a router could register.

Packets from behind have addresses of the mobile prefix from before they are routed until they
leave, and packets to it only until they have come in. Three rules, for each mobile prefix:

    4900  to MOBILE PREFIX, UDP port 49628    lookup 49629    messages to any address of the prefix
                                                              are for this host
    4905  to MOBILE PREFIX      lookup 49630    an error that this host reports, and the reverse
                                                path: to where the home prefix is
    4910  from MOBILE PREFIX    lookup 49700…   as from its mobile address

What this host itself sends has the home address that it has on an interface behind which the home
prefix is, or on `lo`; without one, it has no home address, and leaves as from a host without MAT.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from mat.address import UNSPECIFIED, Address, from_ipv4, in_prefix, is_ipv4, prefix_of
from mat.messages import MAT_PORT
from mat_real.key_file import format_home
from mat_real.uplinks.picture import EXACT, MobileAddress, Picture, Way
from mat_real.uplinks.policy import (
    BEHIND_RULE,
    BEHIND_TABLE,
    MOBILE_RULE,
    SIGNALLING_RULE,
    SIGNALLING_TABLE,
    Home,
    Route,
    Rule,
    Wanted,
)

_LOOPBACK: Final = 1
_FORWARDING: Final = {True: "net.ipv4.ip_forward", False: "net.ipv6.conf.all.forwarding"}
_SETTINGS: Final = Path("/proc/sys")


def with_prefixes(
    home: Home, mobiles: Sequence[MobileAddress], picture: Picture
) -> tuple[MobileAddress, ...]:
    """The addresses that stand for a mobile prefix each; of a host, all."""
    if home.prefix_length == EXACT:
        return tuple(mobiles)
    return tuple(
        mobile
        for mobile in mobiles
        if picture.is_delegated(mobile.address, home.prefix_length)
        and not _is_of_the_link(mobile, picture)
    )


def _is_of_the_link(mobile: MobileAddress, picture: Picture) -> bool:
    """Whether the link has other hosts in the prefix of an address, whatever else covers it."""
    ways = picture.on_link(mobile.index, ipv4=is_ipv4(mobile.address))
    return any(
        way.prefix_length < EXACT and in_prefix(mobile.address, way.prefix, way.prefix_length)
        for way in ways
    )


def routed(home: Home, mobiles: Sequence[MobileAddress], picture: Picture, host: Wanted) -> Wanted:
    """What is wanted besides `host`, which is what a host with these addresses would want."""
    if home.prefix_length == EXACT:
        return Wanted(frozenset(), frozenset())
    ipv4, length = is_ipv4(home.address), home.prefix_length
    tables = {rule.source: rule.table for rule in host.rules if rule.source is not None}
    rules: set[Rule] = set()
    routes: set[Route] = set()
    behind = _behind(home, mobiles, picture)
    for mobile in with_prefixes(home, mobiles, picture):
        prefix = prefix_of(mobile.address, length)
        table = tables[mobile.address]
        rules |= {
            Rule(
                ipv4,
                SIGNALLING_RULE,
                SIGNALLING_TABLE,
                destination=prefix,
                destination_length=length,
                port=MAT_PORT,
            ),
            Rule(ipv4, MOBILE_RULE, table, source=prefix, source_length=length),
        }
        everything = (from_ipv4(bytes(4)), 96) if ipv4 else (UNSPECIFIED, 0)
        routes.add(Route(ipv4, SIGNALLING_TABLE, *everything, _LOOPBACK, local=True))
        if behind:
            to_it = Rule(
                ipv4, BEHIND_RULE, BEHIND_TABLE, destination=prefix, destination_length=length
            )
            rules.add(to_it)
            routes.add(Route(ipv4, BEHIND_TABLE, prefix, length, behind[0].index))
    return Wanted(frozenset(rules), frozenset(routes))


def interfaces_behind(
    home: Home, mobiles: Sequence[MobileAddress], picture: Picture
) -> Iterator[str]:
    """The interfaces that hosts with addresses of the home prefix are on."""
    if home.prefix_length != EXACT:
        for way in _behind(home, mobiles, picture):
            yield picture.links[way.index].name


def _behind(home: Home, mobiles: Sequence[MobileAddress], picture: Picture) -> list[Way]:
    ways = picture.behind(mobiles, ipv4=is_ipv4(home.address))
    within = [
        way
        for way in ways
        if way.prefix_length >= home.prefix_length
        and in_prefix(way.prefix, home.address, home.prefix_length)
    ]
    return sorted(within, key=lambda way: way.index)


# ---- what the administrator has to know ----------------------------------------------------------


def lacks(
    home: Home, mobiles: Sequence[MobileAddress], picture: Picture, forwards: bool
) -> Iterator[str]:
    """What keeps a mobile router from being one, and how to mend it; nothing of a host."""
    if home.prefix_length == EXACT:
        return
    ipv4, name = is_ipv4(home.address), format_home((home.address, home.prefix_length))
    if not forwards:
        setting = _FORWARDING[ipv4]
        yield (
            f"home prefix {name}: hosts behind this router reach nobody, since {setting} is 0; "
            f"set it to 1 (sysctl -w {setting}=1, and a file in /etc/sysctl.d)"
        )
    if mobiles and not with_prefixes(home, mobiles, picture):
        length = home.prefix_length - (96 if ipv4 else 0)
        at = " ".join(dict.fromkeys(mobile.interface for mobile in mobiles))
        yield (
            f"home prefix {name}: no network has delegated a mobile prefix, a /{length}; where "
            f"one has, tell by an unreachable route to it, and an address from it on the uplink "
            f"({at})"
        )
    if not _behind(home, mobiles, picture):
        yield (
            f"home prefix {name}: no interface leads to it; give one that is no uplink an address "
            "from it"
        )


def forwarding(homes: Iterable[Home]) -> dict[Address, bool]:
    """Whether the kernel forwards packets in the family of each home address, or prefix."""
    return {home.address: _is_on(_FORWARDING[is_ipv4(home.address)]) for home in homes}


def _is_on(setting: str) -> bool:
    try:
        return int((_SETTINGS / setting.replace(".", "/")).read_text()) != 0
    except FileNotFoundError:
        # The kernel was started without the family.
        return False
