"""Whether a plan can be built."""

import itertools
import re
from typing import Final

from mat_real.lab.errors import LabError
from mat_real.lab.plan import (
    FIRST_NODE,
    ROUTERS,
    SERVERS,
    SITES,
    AccessNetwork,
    IpNetwork,
    Node,
    Plan,
    Server,
)

MOST_NETWORKS: Final = 120
"""Access networks of a lab; each is a namespace and a DHCP server."""
MOST_NODES: Final = 200
"""Nodes of a lab, of each kind."""
SHORTEST_LEASE: Final = 120.0
"""Seconds; dnsmasq gives no shorter one."""
MOST_IMS: Final = 52
"""Servers besides the DNS, whose number is the next."""
RESERVED: Final = ("core", "air")
"""Names of what every lab has: the core router, and the bridges that nodes attach to."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")


def checked(plan: Plan) -> Plan:
    """The plan, if it can be built. Raises `LabError`."""
    _check_sizes(plan)
    _check_networks(plan)
    _check_names(plan)
    _check_prefixes(plan)
    _check_reserved(plan)
    return plan


def _check_sizes(plan: Plan) -> None:
    if not 1 <= len(plan.networks) <= MOST_NETWORKS:
        what = f"{len(plan.networks)} access networks; a lab has 1 to {MOST_NETWORKS}"
        raise LabError(f"{what}, each with a namespace and a DHCP server")
    for kind in (True, False):
        if (count := sum(one.mobile is kind for one in plan.nodes)) > MOST_NODES:
            what = f"{count} nodes; a lab has {MOST_NODES} mobile and as many fixed ones"
            raise LabError(f"{what}: set nodes.count or correspondents.count")
    if len(plan.ims) > MOST_IMS:
        raise LabError(f"{len(plan.ims)} IMS; a lab has up to {MOST_IMS}")
    if any(not 1 <= node.interfaces <= 2 for node in plan.nodes):
        raise LabError("a mobile node has one or two interfaces")


def _check_networks(plan: Plan) -> None:
    for network in plan.networks:
        if network.lease < SHORTEST_LEASE:
            what = f"network {network.name}: lease is {network.lease:g} s"
            raise LabError(f"{what}; the DHCP server gives none below {SHORTEST_LEASE:g} s")
        if network.pool.ipv6.prefixlen != 64:
            what = f"network {network.name}: {network.pool.ipv6} is longer than the /64"
            raise LabError(f"{what} that router advertisements need; give a /64")
        if network.pool.ipv4.num_addresses < FIRST_NODE + 2 * len(plan.nodes) + 2:
            what = f"network {network.name}: {network.pool.ipv4} is too small"
            raise LabError(f"{what} for {len(plan.nodes)} nodes of two interfaces and guests")


def _check_reserved(plan: Plan) -> None:
    for (node, _, name), moa in plan.reserved.items():
        pool = plan.network(name).pool
        if moa not in (pool.ipv4 if moa.version == 4 else pool.ipv6):
            raise LabError(f"{node} gets {moa} on {name}, which is not in {pool.ipv4}")
        if moa.version == 6:
            what = f"{node} gets {moa} on {name}; in the lab IPv6 addresses come by SLAAC"
            raise LabError(f"{what}: leave moa out")


def _check_names(plan: Plan) -> None:
    parts: tuple[AccessNetwork | Server | Node, ...]
    parts = (*plan.networks, *plan.ims, plan.dns, *plan.nodes)
    names = [one.name for one in parts]
    taken = [*names, *RESERVED]
    for name in dict.fromkeys(names):
        if taken.count(name) > 1:
            raise LabError(f"{name!r} is the name of two things in this lab; names are unique")
        if not _NAME.fullmatch(name):
            raise LabError(f"{name!r} is no name: up to 32 letters, digits, '_', '.' and '-'")


def _check_prefixes(plan: Plan) -> None:
    """Neighbours in sorted order suffice: of two prefixes that overlap, one contains the other."""
    used: list[tuple[IpNetwork, str]] = [
        *((prefix, "the lab's servers") for prefix in SERVERS),
        *((prefix, "the lab's routers") for prefix in ROUTERS),
        *((prefix, "the lab's sites") for prefix in SITES),
        *((prefix, f"network {one.name}") for one in plan.networks for prefix in one.pool),
        *((prefix, f"home addresses of {one.name}") for one in plan.ims for prefix in one.zones),
    ]
    ordered = sorted(used, key=lambda item: (item[0].version, item[0]))
    for (first, one), (second, other) in itertools.pairwise(ordered):
        if first.version == second.version and first.overlaps(second):
            raise LabError(f"{first} ({one}) and {second} ({other}) overlap; they must be separate")
