"""How a lab is wired: the `ip` commands of each namespace. Pure: nothing is run here.

    MN ── port ═ bridge ── router of A ──┐             one namespace for each host and router;
    MN ── port ═ bridge ── router of B ──┤             ports and bridges stand together in `air`,
                          CN, on a site ──┼── core      so that attaching is one change there
                      IMS_MN, IMS_CN, DNS ┘

`core` routes between all; each of its links is an interface there, named after what is at the other
end. A link is a veth pair. One that a process impairs (`mat_real.lab.wire`) is two pairs, whose
inner ends are in `air`, and the process between them.

Access routers drop packets whose source is not of their network, as RFC 2827 has it: a packet that
leaves with a home address is lost here, as it is outside.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, final

from mat_real.lab.plan import (
    CORE4,
    CORE6,
    SERVERS,
    SITE_GATEWAY,
    AccessNetwork,
    IpAddress,
    Node,
    Plan,
    Quality,
    Server,
)

CORE: Final = "core"
AIR: Final = "air"
_INTERFACE_NAME: Final = 15
"""Characters that the kernel takes (IFNAMSIZ)."""
_FAR: Final = "fe80::2"
"""Link-local address of who is at the other end of a link of the core router."""


@final
@dataclass(frozen=True, slots=True)
class Uplink:
    """A link to the core: who is at its other end, its interface there and in the core."""

    name: str
    inner: str
    outer: str
    quality: Quality
    number: int

    @property
    def macs(self) -> tuple[str, str]:
        """Hardware addresses of the interface in the core and of the other."""
        number = f"{self.number >> 8:02x}:{self.number & 0xFF:02x}"
        return f"02:00:00:10:{number}", f"02:00:00:11:{number}"

    @property
    def wires(self) -> tuple[str, str]:
        """The ends in `air` of a link that a process impairs: towards the core, and outwards."""
        return f"wire{self.number}.core", f"wire{self.number}.out"


def uplinks(plan: Plan) -> tuple[Uplink, ...]:
    """All links to the core."""
    sites = [node for node in plan.nodes if node.site is not None]
    ends: list[tuple[AccessNetwork | Server | Node, str]] = []
    ends += [(network, "core") for network in plan.networks]
    ends += [(server, "eth0") for server in (*plan.ims, plan.dns)]
    ends += [(node, "eth0") for node in sites]
    return tuple(
        Uplink(end.name, _interface(end.name, f"link{number}"), outer, end.quality, number)
        for number, (end, outer) in enumerate(ends)
    )


def _interface(name: str, otherwise: str) -> str:
    return name if len(name) <= _INTERFACE_NAME and name != "lo" else otherwise


def bridge(network: AccessNetwork) -> str:
    """The name of a network's bridge in `air`."""
    return f"net{network.number}"


def port(node: Node, interface: int) -> str:
    """The name in `air` of the other end of a node's interface."""
    kind = "mobile" if node.mobile else "fixed"
    return f"{kind}{node.number}.{interface}"


def names(plan: Plan) -> list[str]:
    """All namespaces."""
    return [CORE, AIR, *plan.everyone]


@final
class Layout:
    """The commands; `full` are the namespaces' names by those of the plan.

    `wired` are the names at the other ends of the links that a process impairs.
    """

    def __init__(self, plan: Plan, full: dict[str, str], wired: Collection[str]) -> None:
        self._plan = plan
        self._full = full
        self._wired = wired
        self._uplinks = uplinks(plan)

    def batches(self) -> Iterator[tuple[str, list[str]]]:
        """Commands of `ip`, one batch a namespace, to be run in this order."""
        yield CORE, list(self._core_links())
        yield AIR, list(self._air())
        yield CORE, list(self._core())
        for network in self._plan.networks:
            yield network.name, [*_router(network), *self._core_of(network.name, CORE4)]
        for server in (*self._plan.ims, self._plan.dns):
            yield server.name, [*_server(server), *self._core_of(server.name, CORE4)]
        for node in self._plan.nodes:
            core = []
            if node.site is not None:
                core = list(self._core_of(node.name, node.site.ipv4[SITE_GATEWAY]))
            yield node.name, [*self._node(node), *core]

    def _core_of(self, name: str, address: IpAddress) -> Iterator[str]:
        """The core router as a neighbour."""
        (link,) = (link for link in self._uplinks if link.name == name)
        yield from _neighbours(link.outer, link.macs[0], address, CORE6)

    def _core_links(self) -> Iterator[str]:
        for link in self._uplinks:
            here, there = link.macs
            if link.name in self._wired:
                yield self._veth(f"{link.inner} address {here}", link.wires[0], AIR)
            else:
                yield self._veth(
                    f"{link.inner} address {here}", f"{link.outer} address {there}", link.name
                )

    def _veth(self, here: str, there: str, namespace: str) -> str:
        return f"link add name {here} type veth peer name {there} netns {self._full[namespace]}"

    def _air(self) -> Iterator[str]:
        yield "link set dev lo up"
        for link in self._uplinks:
            if link.name in self._wired:
                inner, outer = link.wires
                yield self._veth(outer, f"{link.outer} address {link.macs[1]}", link.name)
                yield from (f"link set dev {end} up" for end in (inner, outer))
        for network in self._plan.networks:
            yield from self._bridge(network)
        for node in self._plan.nodes:
            if node.site is None:
                for interface in range(node.interfaces):
                    near = port(node, interface)
                    end = f"eth{interface} address {node.mac(interface)}"
                    yield self._veth(near, end, node.name)
            if node.network is not None:
                there = bridge(self._plan.network(node.network))
                yield f"link set dev {port(node, 0)} master {there} up"

    def _bridge(self, network: AccessNetwork) -> Iterator[str]:
        name, end = bridge(network), f"router{network.number}"
        yield f"link add name {name} type bridge forward_delay 0 mcast_snooping 0"
        yield self._veth(end, "lan", network.name)
        yield f"link set dev {end} master {name} up"
        yield f"link set dev {name} up"

    def _core(self) -> Iterator[str]:
        yield "link set dev lo up"
        yield f"addr add {SERVERS[1][0x254]}/128 dev lo"
        for link in self._uplinks:
            yield f"addr add {CORE4}/32 dev {link.inner}"
            yield f"addr add {CORE6}/64 dev {link.inner} nodad"
            yield f"link set dev {link.inner} up"
            end = self._plan.everyone[link.name]
            yield from self._core_routes(link.inner, end)
            yield from _neighbours(link.inner, link.macs[1], address_of(end), _FAR)

    def _core_routes(self, interface: str, end: AccessNetwork | Server | Node) -> Iterator[str]:
        if isinstance(end, Server):
            yield f"route add {end.address.ipv4} dev {interface}"
            yield f"route add {end.address.ipv6} via {_FAR} dev {interface}"
        elif isinstance(end, AccessNetwork):
            yield f"route add {end.uplink.ipv4} dev {interface}"
            yield f"route add {end.pool.ipv4} via {end.uplink.ipv4} dev {interface}"
            yield f"route add {end.uplink.ipv6} via {_FAR} dev {interface}"
            yield f"route add {end.pool.ipv6} via {_FAR} dev {interface}"
        elif end.site is not None:
            yield f"addr add {end.site.ipv4[SITE_GATEWAY]}/24 dev {interface}"
            yield f"route add {end.site.ipv6} via {_FAR} dev {interface}"

    def _node(self, node: Node) -> Iterator[str]:
        yield "link set dev lo up"
        if node.site is not None:
            yield from _addresses("eth0", f"{node.site.ipv4[1]}/24", f"{node.site.ipv6[1]}/64")
            yield from _default("eth0", str(node.site.ipv4[SITE_GATEWAY]))
        elif node.network is not None:
            network = self._plan.network(node.network)
            moa, length = self._plan.moa(node.name, network.name), network.pool.ipv4.prefixlen
            yield from _addresses("eth0", f"{moa.ipv4}/{length}", f"{moa.ipv6}/64")
            yield from _default("eth0", str(network.gateway.ipv4))
        else:
            yield from (f"link set dev eth{interface} up" for interface in range(node.interfaces))


def address_of(end: AccessNetwork | Server | Node) -> IpAddress:
    """The IPv4 address at the other end of a link to the core."""
    if isinstance(end, AccessNetwork):
        return end.uplink.ipv4
    if isinstance(end, Server):
        return end.address.ipv4
    assert end.site is not None
    return end.site.ipv4[1]


def _neighbours(interface: str, mac: str, *addresses: IpAddress | str) -> Iterator[str]:
    """Known for good: looking for them would add the link's delay, or a second if it is lost."""
    for address in addresses:
        yield f"neigh add {address} lladdr {mac} dev {interface} nud permanent"


def _router(network: AccessNetwork) -> Iterator[str]:
    length = network.pool.ipv4.prefixlen
    yield "link set dev lo up"
    yield from _addresses("lan", f"{network.gateway.ipv4}/{length}", f"{network.gateway.ipv6}/64")
    yield f"addr add {CORE6}/64 dev lan nodad"
    yield from _end("core", f"{network.uplink.ipv4}/32", f"{network.uplink.ipv6}/128")


def _server(server: Server) -> Iterator[str]:
    yield "link set dev lo up"
    yield from _end("eth0", f"{server.address.ipv4}/32", f"{server.address.ipv6}/128")


def _end(interface: str, ipv4: str, ipv6: str) -> Iterator[str]:
    """The other end of a link of the core router that is no subnet of its own."""
    yield from _addresses(interface, ipv4, ipv6)
    yield f"route add {CORE4} dev {interface}"
    yield from _default(interface, str(CORE4))


def _addresses(interface: str, *addresses: str) -> Iterator[str]:
    for address in (*addresses, f"{_FAR}/64"):
        nodad = " nodad" if ":" in address else ""
        yield f"addr add {address} dev {interface}{nodad}"
    yield f"link set dev {interface} up"


def _default(interface: str, gateway: str) -> Iterator[str]:
    yield f"route add default via {gateway} dev {interface}"
    yield f"route add default via {CORE6} dev {interface}"


def sysctls(plan: Plan, name: str) -> Sequence[tuple[str, str]]:
    """Files below /proc/sys/net and what to write, in a namespace that has no interfaces yet."""
    no_dad = ("ipv6/conf/default/accept_dad", "0")
    if name == AIR:
        # Else the kernel would send router solicitations into the wires.
        return [("ipv6/conf/default/disable_ipv6", "1"), ("ipv6/conf/all/disable_ipv6", "1")]
    end = plan.everyone.get(name)
    if end is None or isinstance(end, AccessNetwork):
        strict = "1" if isinstance(end, AccessNetwork) else "0"
        return [
            no_dad,
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", strict),
        ]
    no_filter = [("ipv4/conf/all/rp_filter", "0"), ("ipv4/conf/default/rp_filter", "0")]
    if isinstance(end, Node) and end.mobile:
        return no_filter
    return [*no_filter, no_dad, ("ipv6/conf/default/accept_ra", "0")]
