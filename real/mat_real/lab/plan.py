"""What a lab consists of, and which address everything in it has. Pure: nothing is built here.

A plan follows from names and their order alone, so the same names give the same addresses in every
run. All are private addresses (RFC 1918) or set aside for documentation (RFC 5737, RFC 3849):

    home addresses   zone h           10.h.0.0/16                2001:db8:h::/48
    access networks  n, from 0        10.(128+n).0.0/16          2001:db8:8000:n::/64
    servers          IMS s, from 1    192.0.2.s                  2001:db8:7f00:2::s
                     DNS              192.0.2.53                 2001:db8:7f00:2::53
                     the core router  192.0.2.254                fe80::1 on each of its links
    access routers   n, from 0        198.51.100.(n+1)           2001:db8:7f00:51::(n+1)
    sites            k, from 1        172.16.k.1/24              2001:db8:7f10:k::1/64

Zone 1 is that of the mobile nodes, zone 2 that of the correspondents; the node numbered k, from 1,
has the home address with host number k. On an access network the router has host number 1, guests
get 2 to 15 by DHCP, and interface i of mobile node k gets 14 + 2k + i; correspondents on a network
follow. In IPv6, mobile addresses come from the hardware address (RFC 4862), and the addresses of
servers and routers spell the decimal number. Where a scenario has prefixes, those count.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, Literal, TypeAlias, TypeVar, final

from mat_files.distributions import Constant, Distribution
from mat_real.lab.errors import LabError

IpNetwork: TypeAlias = IPv4Network | IPv6Network
IpAddress: TypeAlias = IPv4Address | IPv6Address
Part = TypeVar("Part", "AccessNetwork", "Node")

NO_DELAY: Final = Constant(0.0)

CORE4: Final = IPv4Address("192.0.2.254")
CORE6: Final = IPv6Address("fe80::1")
SERVERS: Final = (IPv4Network("192.0.2.0/24"), IPv6Network("2001:db8:7f00:2::/64"))
ROUTERS: Final = (IPv4Network("198.51.100.0/24"), IPv6Network("2001:db8:7f00:51::/64"))
SITES: Final = (IPv4Network("172.16.0.0/16"), IPv6Network("2001:db8:7f10::/48"))
SITE_GATEWAY: Final = 254
"""Host number of the core router on a site."""
ACCESS6: Final = IPv6Network("2001:db8:8000::/48")
FIRST_GUEST: Final = 2
FIRST_NODE: Final = 16
"""Host number, on an access network, of the first address that is not for guests."""


@final
@dataclass(frozen=True, slots=True)
class Quality:
    """What a link to the core is like, each way.

    `delay` in seconds, one way, drawn anew for each packet, so that packets overtake each other
    where it varies, as in the simulator; `loss` the probability that a packet is lost; `rate` in
    bit/s, None for as fast as it goes. `queue` are the packets that wait for that, beside the one
    that is sent, before others are dropped; None for as many as wait 100 ms at most.
    """

    delay: Distribution = NO_DELAY
    loss: float = 0.0
    rate: float | None = None
    queue: int | None = None

    @property
    def impaired(self) -> bool:
        """Whether packets are delayed or lost."""
        return self.loss > 0 or self.delay != NO_DELAY


@final
@dataclass(frozen=True, slots=True)
class Pair:
    """An address of each family."""

    ipv4: IPv4Address
    ipv6: IPv6Address

    def __iter__(self) -> Iterator[IpAddress]:
        yield self.ipv4
        yield self.ipv6

    def of(self, family: Literal[4, 6]) -> IpAddress:
        """The one of a family."""
        return self.ipv4 if family == 4 else self.ipv6


@final
@dataclass(frozen=True, slots=True)
class Zone:
    """A home prefix of each family."""

    ipv4: IPv4Network
    ipv6: IPv6Network

    def host(self, number: int) -> Pair:
        """The addresses with this host number."""
        return Pair(self.ipv4[number], self.ipv6[number])

    def __iter__(self) -> Iterator[IpNetwork]:
        yield self.ipv4
        yield self.ipv6


@final
@dataclass(frozen=True, slots=True)
class AccessNetwork:
    """A network that nodes attach to: a bridge, and a router with DHCP and router advertisements.

    `number` from 0; `pool` are the addresses on it, `uplink` those of the router on its link to the
    core; `lease` in seconds. Its DHCP server is `authoritative`, or silent to who is unknown to it;
    with `rapid_commit` it gives an address in two messages.
    """

    name: str
    number: int
    pool: Zone
    uplink: Pair
    quality: Quality = Quality()
    lease: float = 3600.0
    authoritative: bool = True
    rapid_commit: bool = False

    @property
    def gateway(self) -> Pair:
        """The router's addresses on the network."""
        return self.pool.host(1)


@final
@dataclass(frozen=True, slots=True)
class Node:
    """A host. `home` are its home addresses, None for one without MAT.

    A mobile node has `interfaces` named eth0, eth1, …, to attach to access networks. A node that is
    not `mobile` is on the access network `network` for good, or, without one, on a site of its own,
    the prefixes `site`, with a link to the core of its own `quality`.
    """

    name: str
    number: int
    mobile: bool
    interfaces: int = 1
    home: Pair | None = None
    network: str | None = None
    site: Zone | None = None
    quality: Quality = Quality()

    def mac(self, interface: int) -> str:
        """The hardware address of an interface."""
        kind = 1 if self.mobile else 2
        return f"02:00:00:{kind:02x}:{self.number:02x}:{interface:02x}"


@final
@dataclass(frozen=True, slots=True)
class Server:
    """A host that serves: an IMS with the zones it is responsible for, or the DNS without any."""

    name: str
    address: Pair
    zones: tuple[IpNetwork, ...] = ()
    quality: Quality = Quality()
    workers: int = 1


@final
@dataclass(frozen=True, eq=False)
class Plan:
    """All of a lab. `reserved` are mobile addresses that a scenario prescribes."""

    networks: tuple[AccessNetwork, ...]
    nodes: tuple[Node, ...]
    ims: tuple[Server, ...]
    dns: Server
    ttl: int = 300
    """Seconds for which the DNS's answers may be kept."""
    protocol: Mapping[str, float] = field(default_factory=dict[str, float])
    """Protocol parameters by name, for all programs."""
    reserved: Mapping[tuple[str, int, str], IpAddress] = field(
        default_factory=dict[tuple[str, int, str], IpAddress]
    )

    @cached_property
    def everyone(self) -> dict[str, Node | Server | AccessNetwork]:
        """All hosts and routers by name, but for the core router."""
        parts: tuple[Node | Server | AccessNetwork, ...]
        parts = (*self.networks, *self.ims, self.dns, *self.nodes)
        return {one.name: one for one in parts}

    def network(self, name: str) -> AccessNetwork:
        """An access network by name. Raises `LabError`."""
        return _named("access network", self.networks, name)

    def node(self, name: str) -> Node:
        """A node by name. Raises `LabError`."""
        return _named("node", self.nodes, name)

    def moa(self, node: str, network: str, interface: int = 0) -> Pair:
        """The mobile addresses that a node gets on an access network. Raises `LabError`."""
        host, access = self.node(node), self.network(network)
        planned = access.pool.host(self._host_number(host, interface))
        slaac = _slaac(access.pool.ipv6, host.mac(interface))
        wanted = self.reserved.get((node, interface, network))
        return Pair(wanted if isinstance(wanted, IPv4Address) else planned.ipv4, slaac)

    def _host_number(self, node: Node, interface: int) -> int:
        before = 0 if node.mobile else sum(one.mobile for one in self.nodes)
        return FIRST_NODE + 2 * (before + node.number - 1) + interface

    def served_by(self, home: IpAddress) -> Server:
        """The IMS of a home address. Raises `LabError`."""
        for server in self.ims:
            if any(home.version == zone.version and home in zone for zone in server.zones):
                return server
        raise LabError(f"no IMS of this lab serves {home}")


def _named(kind: str, among: Sequence[Part], name: str) -> Part:
    for one in among:
        if one.name == name:
            return one
    known = ", ".join(one.name for one in among) or "none"
    raise LabError(f"{name!r} is no {kind} of this lab; there are: {known}")


def _slaac(prefix: IPv6Network, mac: str) -> IPv6Address:
    """The address that a host makes of its hardware address (RFC 4291, appendix A)."""
    octets = bytearray.fromhex(mac.replace(":", ""))
    octets[0] ^= 2
    return prefix[int.from_bytes(octets[:3] + b"\xff\xfe" + octets[3:])]
