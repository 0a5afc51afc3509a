"""Plans from names and their order: `simple_plan`, and the parts that other plans are made of."""

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from typing import Final

from mat_real.lab.checks import checked
from mat_real.lab.errors import LabError
from mat_real.lab.plan import (
    ACCESS6,
    ROUTERS,
    SERVERS,
    SITES,
    AccessNetwork,
    IpNetwork,
    Node,
    Pair,
    Plan,
    Quality,
    Server,
    Zone,
)

MOBILE_ZONE, FIXED_ZONE = 1, 2
DNS: Final = 53
"""Numbers of the zones, and of the DNS among the servers."""
PERFECT: Final = Quality()


def simple_plan(
    networks: Mapping[str, Quality] | Sequence[str] = ("A", "B", "C"),
    *,
    mobile: Sequence[str] = ("MN",),
    fixed: Sequence[str] = ("CN",),
    plain: Sequence[str] = ("PLAIN",),
    ims: Sequence[str] = ("IMS_MN", "IMS_CN"),
    interfaces: int = 2,
    lease: float = 3600.0,
) -> Plan:
    """A lab of names: access networks, mobile nodes, fixed correspondents, hosts without MAT.

    Of two `ims`, the first serves the mobile nodes and the second the others; one alone serves all.
    `lease` in seconds. Raises `LabError`.
    """
    links = networks if isinstance(networks, Mapping) else dict.fromkeys(networks, PERFECT)
    zones = (default_zone(MOBILE_ZONE), default_zone(FIXED_ZONE))
    if len(ims) not in (1, 2):
        raise LabError(f"{len(ims)} IMS: a simple lab has one for all, or one for each zone")
    served = [tuple(zones[0]), tuple(zones[1])] if len(ims) == 2 else [(*zones[0], *zones[1])]
    plan = Plan(
        networks=tuple(
            access_network(name, number, None, quality, lease)
            for number, (name, quality) in enumerate(links.items())
        ),
        nodes=(
            *mobile_nodes(mobile, zones[0], interfaces),
            *fixed_nodes([*fixed, *plain], zones[1], len(fixed)),
        ),
        ims=tuple(
            Server(name, server_address(number), zone)
            for number, (name, zone) in enumerate(zip(ims, served, strict=True), 1)
        ),
        dns=Server("DNS", server_address(DNS)),
    )
    return checked(plan)


def default_zone(number: int) -> Zone:
    """The home prefixes of a zone."""
    return Zone(
        IPv4Network((10 << 24 | number << 16, 16)),
        IPv6Network((int(IPv6Address("2001:db8::")) | number << 80, 48)),
    )


def access_network(
    name: str, number: int, pool: IpNetwork | None, quality: Quality, lease: float
) -> AccessNetwork:
    """An access network by its number from 0; a `pool` replaces the derived one of its family."""
    ipv4 = IPv4Network((10 << 24 | (128 + number) % 256 << 16, 16))
    ipv6 = IPv6Network((int(ACCESS6.network_address) | number << 64, 64))
    if isinstance(pool, IPv4Network):
        ipv4 = pool
    elif isinstance(pool, IPv6Network):
        # Router advertisements and SLAAC want a /64.
        ipv6 = next(pool.subnets(new_prefix=64)) if pool.prefixlen < 64 else pool
    return AccessNetwork(
        name, number, Zone(ipv4, ipv6), _spelled(ROUTERS, number + 1), quality, lease
    )


def mobile_nodes(names: Sequence[str], zone: Zone, interfaces: int) -> Iterator[Node]:
    """Mobile nodes of one or two interfaces."""
    for number, name in enumerate(names, 1):
        yield Node(name, number, mobile=True, interfaces=interfaces, home=zone.host(number))


def fixed_nodes(
    names: Sequence[str],
    zone: Zone,
    with_mat: int,
    network: str | None = None,
    quality: Quality = PERFECT,
) -> Iterator[Node]:
    """Nodes that do not move, the first `with_mat` of them with home addresses."""
    for number, name in enumerate(names, 1):
        home = zone.host(number) if number <= with_mat else None
        here = network if number <= with_mat else None
        site = _site(number) if here is None else None
        link = quality if number <= with_mat else PERFECT
        yield Node(name, number, mobile=False, home=home, network=here, site=site, quality=link)


def _site(number: int) -> Zone:
    ipv4, ipv6 = SITES
    return Zone(
        IPv4Network((int(ipv4.network_address) | number << 8, 24)),
        IPv6Network((int(ipv6.network_address) | number << 64, 64)),
    )


def server_address(number: int) -> Pair:
    """The addresses of a server by its number from 1."""
    return _spelled(SERVERS, number)


def _spelled(prefixes: tuple[IPv4Network, IPv6Network], number: int) -> Pair:
    ipv4, ipv6 = prefixes
    return Pair(ipv4[number], ipv6[int(str(number), 16)])
