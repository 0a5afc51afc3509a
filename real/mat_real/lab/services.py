"""Configurations of what runs in a lab: DHCP and router advertisements, DNS, IMS, MAT nodes."""

import ipaddress
import sys
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final, Literal, TypeAlias, cast

from mat.messages import MAT_PORT
from mat_real.lab.plan import (
    FIRST_GUEST,
    FIRST_NODE,
    AccessNetwork,
    IpAddress,
    IpNetwork,
    Node,
    Plan,
    Server,
)

DHCP_READY: Final = "sockets bound exclusively"
"""What the DHCP server logs when it serves."""
DNS_READY: Final = "Serving on"
IMS_READY: Final = "serving"
Dataplane: TypeAlias = Literal["maps", "queue"]
"""What translates in a node: the kernel, or the daemon itself (docs/node.md)."""
NODE_READY: Final = "running"
MAT: Final = (sys.executable, "-c", "from mat_cli import main; main()")
"""The command `mat` of this installation, wherever it has been put."""


def dnsmasq(plan: Plan, network: AccessNetwork, folder: Path) -> str:
    """The configuration of a network's DHCP server, which sends router advertisements too."""
    pool, lease = network.pool, round(network.lease)
    first, last = pool.ipv4[FIRST_GUEST], pool.ipv4[FIRST_NODE - 1]
    return "\n".join(
        [
            "port=0",
            "interface=lan",
            "bind-interfaces",
            "no-ping",
            *(["dhcp-authoritative"] if network.authoritative else []),
            *(["dhcp-rapid-commit"] if network.rapid_commit else []),
            f"dhcp-leasefile={folder / f'{network.name}.leases'}",
            f"dhcp-range={first},{last},{pool.ipv4.netmask},{lease}",
            f"dhcp-option=option:router,{network.gateway.ipv4}",
            f"dhcp-option=option:dns-server,{plan.dns.address.ipv4}",
            "enable-ra",
            f"dhcp-range={pool.ipv6.network_address},ra-only,64,{lease}",
            f"dhcp-option=option6:dns-server,[{plan.dns.address.ipv6}]",
            *(f"dhcp-host={mac},{moa}" for mac, moa in _reservations(plan, network)),
            "",
        ]
    )


def _reservations(plan: Plan, network: AccessNetwork) -> Iterable[tuple[str, IPv4Address]]:
    for node in plan.nodes:
        for interface in range(node.interfaces if node.mobile else 0):
            yield node.mac(interface), plan.moa(node.name, network.name, interface).ipv4


def dns_command(plan: Plan) -> list[str]:
    """The command that serves the IMS records of all home addresses."""
    zones = {reverse_zone(zone) for server in plan.ims for zone in server.zones}
    # Two addresses would count as two replicas, and each be sent every update.
    records = [
        f"--record={zone}=10 {MAT_PORT} {server.address.of(zone.version)}"
        for server in plan.ims
        for zone in server.zones
    ]
    options = [f"--zone={zone}" for zone in sorted(zones)]
    listen = f"--listen=[::]:{DNS_PORT}"
    return [*MAT, "dns", "serve", *options, *records, listen, f"--ttl={plan.ttl}"]


DNS_PORT: Final = 53


def reverse_zone(prefix: IpNetwork) -> str:
    """The smallest zone of reverse names, in whole labels, that has all of a prefix in it."""
    bits, suffix = (8, "in-addr.arpa") if prefix.version == 4 else (4, "ip6.arpa")
    labels = ipaddress.ip_address(prefix.network_address).reverse_pointer.split(".")[:-2]
    kept = labels[len(labels) - prefix.prefixlen // bits :]
    return ".".join([*kept, suffix])


def ims_config(plan: Plan, server: Server, control: Path) -> str:
    """The configuration of an IMS; key file and store are beside it."""
    return _document(
        {
            "ims": {
                "zones": [str(zone) for zone in server.zones],
                "listen": [str(server.address.ipv4), f"[{server.address.ipv6}]"],
                "keys": "keys",
                "workers": server.workers,
                "control": str(control),
            },
            "store": {"path": "ims.store"},
            "dns": {"servers": _dns_servers(plan)},
            "protocol": plan.protocol,
        }
    )


def node_config(
    plan: Plan, node: Node, control: Path, *, dhcp: bool, dataplane: Dataplane = "maps"
) -> str:
    """The configuration of a MAT node; its key is beside it.

    Without `dhcp`, whoever configures its addresses says by the metrics of routes which is best.
    """
    interfaces = [f"eth{interface}" for interface in range(node.interfaces)]
    return _document(
        {
            "node": {
                "key": "node.key",
                "interfaces": interfaces if node.mobile and dhcp else [],
                "dhcp": interfaces if node.mobile and dhcp else [],
                "dataplane": dataplane,
                "control": str(control),
            },
            "dns": {"servers": _dns_servers(plan)},
            "protocol": plan.protocol,
        }
    )


def _dns_servers(plan: Plan) -> list[str]:
    return [_bracketed(address) for address in plan.dns.address]


def _bracketed(address: IpAddress) -> str:
    return str(address) if address.version == 4 else f"[{address}]"


def _document(tables: Mapping[str, Mapping[str, object]]) -> str:
    lines: list[str] = []
    for table, values in tables.items():
        lines += [f"[{table}]", *(f"{name} = {_toml(value)}" for name, value in values.items()), ""]
    return "\n".join(lines)


def _toml(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, cast(list[object], value)))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)
