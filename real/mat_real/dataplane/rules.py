"""The kernel's rules, as nftables text and as messages: the table `mat` of each family.

What is in it, beside chains:

| | key | value | counts packets |
| --- | --- | --- | --- |
| map `out` | home address of the peer | own mobile address, mobile address of the peer | yes |
| map `in` | source, own mobile address | home address of the peer, own home address | yes |
| set `mobiles` | own mobile addresses, or prefixes | | |
| set `pings` | what answers to pings from mobile addresses look like | | |
| set `flows` | what belongs to flows on mobile addresses that no socket tells of | | |

A value is what the packet has as source and destination afterwards, so one look-up is all there is
to a translation. What most packets meet comes first: a TCP segment out is compared with three
values and looked up twice.

Priorities (linux/netfilter_ipv4.h): reassembly -400, `in` -310, connection tracking -200, `out` and
`forwarded` -160, NAT -100.

Hosts behind this one, containers and guests, are on interfaces that are no uplinks. To the home
address and to mobile ones they speak as they are, and are answered so (chains `from-inside`,
`to-inside`). What they send elsewhere, NAT gives a mobile address: such a flow is entered in
`flows` where its packets leave, after NAT, for as long as connection tracking keeps it (chain
`masquerading`). What NAT has translated on its way in (a published port) came to the home address;
the answer gets back that address after translation, or has had none, and is put right where it
leaves (chain `leaving`). All that would bring connection tracking into use and takes time, so it is
there only where the host forwards packets.

What the maps do not know goes to the queue. Where nobody reads that, packets in go on as they came,
and packets out from a home address that is not a mobile one end: they cannot get anywhere, but to a
socket of this very host, by the default route to `lo`.

Only a packet of the plainest form is translated in the kernel. What has IPv4 options or IPv6
extension headers, a checksum that nftables does not know, or an ICMP error's quote goes to the
queue.

Reassembly has to be on, or else later fragments would be told apart by nothing: an application's
own flow on a mobile address by its ports, an unknown peer's datagram by its handle. Connection
tracking turns it on; where that is not in use, a match in the chain `defrag` does, which for that
matter need never be reached.
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

from mat.address import Address, format_address, from_ipv4, is_ipv4, prefix_of
from mat.messages import MAT_PORT
from mat_real.dataplane import nfnetlink
from mat_real.dataplane.nfnetlink import Message
from mat_real.dataplane.table import HOST

TABLE: Final = "mat"
MAPS: Final = ("out", "in")
MOBILES: Final = "mobiles"
MAPPED_IN, MAPPED_OUT = "mapped-in", "mapped-out"
_TAG: Final = "made-of-"
_MOST_MEMBERS: Final = 256
"""Elements of a set: one of a known size is looked up in quicker."""
_MADE_LATER: Final = (
    *("queue-or-pass", "queue-or-drop", "defrag", "known-in", "known-out"),
    *("from-inside", "to-inside", "others-in"),
)
"""Chains whose rules `queueing`, `translating` and `beside` put in."""
_PINGS: Final = "size 1024; flags dynamic,timeout; timeout 30s;"
_FLOWS: Final = "size 65536; flags dynamic,timeout;"
_FLOW: Final = "{0} saddr . {0} daddr . meta l4proto . th sport . th dport"
_LIVES: Final = (("30m", "5d"), ("3m", "30m"), ("0s", "3m"))
"""Of a flow: what connection tracking gives it at least, and what it has here for that."""
_PORTS: Final = "{ 6, 17, 33, 132, 136 }"
"""Protocols with ports: TCP, UDP, DCCP, SCTP, UDP-Lite."""


@final
@dataclass(frozen=True, slots=True)
class Family:
    """What differs between the rules of IPv4 and IPv6."""

    name: str
    """Of nftables' family, and of the addresses in expressions."""
    number: int
    """Of nftables' family (linux/netfilter.h)."""
    width: int
    """Bytes of an address."""
    source: int
    """Where the source address is in the header; the destination follows."""
    checksum: int | None
    """Where the header's own checksum is."""
    upper: str
    """The expression for the upper layer's protocol."""
    icmp: str
    errors: str
    """ICMP types that quote a packet."""
    link_scope: str
    """ICMP types about the addresses of one link."""
    dhcp: str
    not_plain: tuple[str, ...]
    """Matches of packets, of the common protocols too, that nftables cannot translate."""
    others: str
    """Protocols that it cannot translate."""
    forwarding: str
    """The kernel's setting that says whether the host forwards packets, under /proc/sys/net."""
    never: str
    """A match of packets in whose source is no node's address."""
    near: str
    """A match of packets out to this host, to all on a link, or to none beyond it."""


IPV4: Final = Family(
    name="ip",
    number=2,
    width=4,
    source=12,
    checksum=10,
    upper="ip protocol",
    icmp="icmp",
    errors="3, 4, 11, 12",
    link_scope="5, 9, 10",
    dhcp="67, 68",
    # The first byte, of version and header length, where there are no options.
    not_plain=("@nh,0,8 != 0x45",),
    # DCCP, AH, UDP-Lite, HIP.
    others="33, 51, 136, 139",
    forwarding="ipv4/ip_forward",
    never="ip saddr 0.0.0.0",
    near="fib daddr type { local, broadcast, multicast }",
)
IPV6: Final = Family(
    name="ip6",
    number=10,
    width=16,
    source=8,
    checksum=None,
    upper="ip6 nexthdr",
    icmp="icmpv6",
    errors="1-4",
    link_scope="130-138, 141-143, 148, 149, 151-153",
    dhcp="546, 547",
    not_plain=(),
    # Hop-by-hop, DCCP, routing, fragment, AH, destination options, mobility, UDP-Lite, HIP.
    others="0, 33, 43, 44, 51, 60, 135, 136, 139",
    forwarding="ipv6/conf/all/forwarding",
    never="ip6 saddr fe80::/10",
    # Not by `fib`: a default route to `lo` has to be of the type "local" in IPv6, for all of it.
    near="ip6 daddr { ::1, fe80::/10, ff00::/8 }",
)
FAMILIES: Final = (IPV4, IPV6)


def family_of(address: Address) -> Family:
    """The family of an address."""
    return IPV4 if is_ipv4(address) else IPV6


def network(address: Address, length: int) -> str:
    """A prefix, of a length in the 128-bit form, as nftables writes it."""
    own_length = length - 96 if is_ipv4(address) else length
    return f"{format_address(prefix_of(address, length))}/{own_length}"


# ---- nftables ----------------------------------------------------------------------------------


def table(family: Family, home: Address, prefix_length: int) -> str:
    """Commands that make the table, in place of any of its name; its maps and sets are empty."""
    name = f"{family.name} {TABLE}"
    lines = [f"add table {name}", f"delete table {name}", f"add table {name}"]
    lines += _containers(family)
    hooks, chains = _Chains(family, home, prefix_length).all()
    # A rule can lead to a chain that is there only.
    lines += [f"add chain {name} {chain}" for chain in chains if chain not in hooks]
    return "\n".join(lines) + "\n" + _chains(family, hooks, chains)


def _containers(family: Family) -> list[str]:
    """Sets, maps and counters."""
    ip, name = family.name, f"{family.name} {TABLE}"
    key = f"ipv{4 if family is IPV4 else 6}_addr"
    pair = f"{key} . {key}"
    flow = f"{pair} . inet_proto . inet_service . inet_service"
    ping = f"typeof {ip} saddr . {ip} daddr . {family.icmp} id"
    return [
        f"add set {name} {MOBILES} {{ type {key}; size {_MOST_MEMBERS}; }}",
        f"add set {name} pings {{ {ping}; {_PINGS} }}",
        f"add set {name} flows {{ type {flow}; {_FLOWS} }}",
        f"add map {name} out {{ type {key} : {pair}; counter; }}",
        f"add map {name} in {{ type {pair} : {pair}; counter; }}",
        f"add counter {name} {MAPPED_IN}",
        f"add counter {name} {MAPPED_OUT}",
    ]


@final
class _Chains:
    """The chains of one family, for one home address or prefix."""

    __slots__ = ("_family", "_from_home", "_from_mobile", "_host", "_ip", "_to_home", "_to_mobile")

    def __init__(self, family: Family, home: Address, prefix_length: int) -> None:
        self._family, self._ip = family, family.name
        self._host = prefix_length == HOST
        own = network(home, prefix_length)
        self._from_home, self._to_home = f"{self._ip} saddr {own}", f"{self._ip} daddr {own}"
        mask = "" if self._host else f" & {_mask(family, prefix_length)}"
        self._from_mobile = f"{self._ip} saddr{mask} @mobiles"
        self._to_mobile = f"{self._ip} daddr{mask} @mobiles"

    def all(self) -> tuple[dict[str, str], dict[str, list[str]]]:
        """Where chains are hooked in, and the rules of each."""
        hooks = {
            "in": "filter hook prerouting priority -310",
            "out": "route hook output priority -160",
        }
        chains = {name: list[str]() for name in _MADE_LATER} | self._inward() | self._outward()
        if not self._host:
            hooks["forwarded"] = "filter hook prerouting priority -160"
            chains["forwarded"] = self._forwarded()
        return hooks, chains

    def _inward(self) -> dict[str, list[str]]:
        """Packets to an own mobile address."""
        ip, icmp, plain = self._ip, self._family.icmp, self._plain("in")
        # At home, an application's socket on the home address is one on the mobile address too.
        away = self._to_home.replace("daddr", "daddr !=")
        sockets = f"{away} socket transparent <= 1 jump own-sockets"
        known = ["jump known-in", "goto in-queue"]
        inside = ["jump from-inside"] if self._host else []
        return {
            "in": [f"{self._to_mobile} goto inward"],
            "inward": self._by_protocol("in"),
            "in-tcp": [*plain, "jump others-in", sockets, *known],
            "in-udp": [
                f"udp dport {{ {self._family.dhcp}, {MAT_PORT} }} accept",
                *plain,
                f"{_flow(ip)} accept",
                sockets,
                *known,
            ],
            "in-icmp": [
                self._by_type("in-errors"),
                f"{icmp} type echo-reply {ip} saddr . {ip} daddr . {icmp} id @pings accept",
                *plain,
                *known,
            ],
            "in-errors": [sockets, "goto in-queue"],
            "in-other": [*plain, "jump others-in", *known],
            # One that an application bound to a mobile address, by `bind`, `connect` or `accept`,
            # has its own packets. What is said of a connection that is only begun, or has ended,
            # is "transparent", not "wildcard".
            "own-sockets": ["socket wildcard 1 return", "accept"],
            "in-queue": [f"{self._family.never} accept", *inside, "goto queue-or-pass"],
        }

    def _outward(self) -> dict[str, list[str]]:
        """Packets from the home address."""
        plain = self._plain("out")
        known = ["jump known-out", "goto out-queue"]
        return {
            "out": self._out(),
            "outward": self._by_protocol("out"),
            "out-tcp": [*plain, *known],
            # At home, what the node itself sends for MAT has the home address as source.
            "out-udp": [f"udp sport {MAT_PORT} {self._from_mobile} accept", *plain, *known],
            "out-icmp": [self._by_type("out-queue"), *plain, *known],
            "out-other": [*plain, *known],
            # At home, packets may go as they are.
            "out-queue": [
                *(f"{match} accept" for match in self._near()),
                *(["jump to-inside"] if self._host else []),
                f"{self._from_mobile} goto queue-or-pass",
                "goto queue-or-drop",
            ],
        }

    def _out(self) -> list[str]:
        ip, icmp = self._ip, self._family.icmp
        flow = f"{ip} daddr . {ip} saddr . meta l4proto . udp dport . udp sport"
        # What a mobile router could not forward has an address of the mobile prefix already.
        errors = f"{icmp} type {{ {self._family.errors} }} {self._to_mobile} goto queue-or-pass"
        ping = f"{icmp} type echo-request {self._from_mobile}"
        datagram = f"udp sport != {MAT_PORT} {self._from_mobile}"
        return [
            *([] if self._host else [errors]),
            f"{self._from_home} goto outward",
            # No socket tells whose an answer to a ping is.
            f"{ping} update @pings {{ {ip} daddr . {ip} saddr . {icmp} id }}",
            # Nor, if the socket has no address, whose an answer to a datagram is.
            f"{datagram} update @flows {{ {flow} timeout 3m }}",
        ]

    def _near(self) -> list[str]:
        """Matches of packets out that stay with this host, on its links, or behind it."""
        own = [] if self._family is IPV4 and self._host else [self._to_home]
        return [*own, self._family.near, *([self._to_mobile] if self._family is IPV6 else [])]

    def _by_protocol(self, way: str) -> list[str]:
        upper = self._family.upper
        known = (("tcp", "tcp"), ("udp", "udp"), (self._family.icmp, "icmp"))
        return [
            *(f"{upper} {protocol} goto {way}-{chain}" for protocol, chain in known),
            f"{upper} {{ {self._family.others} }} goto {way}-queue",
            f"goto {way}-other",
        ]

    def _by_type(self, errors: str) -> str:
        """What becomes of ICMP messages that are not like other packets."""
        where = dict.fromkeys(self._family.link_scope.split(", "), "accept")
        where |= dict.fromkeys(self._family.errors.split(", "), f"goto {errors}")
        listed = ", ".join(f"{kind} : {verdict}" for kind, verdict in where.items())
        return f"{self._family.icmp} type vmap {{ {listed} }}"

    def _plain(self, way: str) -> list[str]:
        return [f"{match} goto {way}-queue" for match in self._family.not_plain]

    def _forwarded(self) -> list[str]:
        """Packets of hosts behind a mobile router."""
        elsewhere = self._to_home.replace("daddr", "daddr !=")
        return [f'iifname != "lo" {self._from_home} {elsewhere} goto outward']


def _flow(ip: str) -> str:
    """A match of packets that come in, of flows of `flows`."""
    return f"{_FLOW.format(ip)} @flows"


def _mask(family: Family, prefix_length: int) -> str:
    ones = prefix_length - (128 - 8 * family.width)
    zeros = 8 * family.width - ones
    packed = ((1 << ones) - 1 << zeros).to_bytes(family.width)
    return format_address(from_ipv4(packed) if family is IPV4 else Address(packed))


def beside(
    family: Family, home: Address, uplinks: Sequence[tuple[str, Address]], *, forwarding: bool
) -> str:
    """Commands about hosts behind this one.

    `uplinks` are interfaces with mobile addresses, the best first; all other interfaces lead to
    such hosts. `forwarding`: whether this host gives them a way out.
    """
    ip = family.name
    first: dict[str, Address] = {}
    for interface, address in uplinks:
        first.setdefault(f'"{interface}"', address)
    # By the last two leaves what has no way yet.
    beyond = ", ".join([*first, '"lo"', '"mat-sink"'])
    chains = {"to-inside": [f"oifname != {{ {beyond} }} accept"], "from-inside": list[str]()}
    if first:
        chains["from-inside"] = [f"iifname != {{ {', '.join(first)} }} accept"]
    hooks: dict[str, str] = {}
    if forwarding:
        hooks = {
            "masquerading": "filter hook postrouting priority 110",
            "leaving": "filter hook postrouting priority 110",
            "own-source": "nat hook postrouting priority 99",
        }
        own = format_address(home)
        chains |= {
            # A reset ends a flow; nothing else would leave that could say so.
            "others-in": [
                f"tcp flags rst {_flow(ip)} update @flows {{ {_FLOW.format(ip)} timeout 10s }}",
                f"{_flow(ip)} accept",
            ],
            "masquerading": _masquerading(family, own),
            "leaving": _leaving(family, own, first),
            # A home address stays what it is, though all that leaves be masqueraded.
            "own-source": [f"ct original {ip} saddr {own} snat to {own}"],
        }
    return _chains(family, hooks, chains)


def _masquerading(family: Family, own: str) -> list[str]:
    """Enter the flows that NAT gives mobile addresses."""
    ip, reply = family.name, f"ct reply {family.name}"
    theirs = f"ct status snat ct original {ip} saddr != {own} {reply} daddr @mobiles"
    flow = f"{reply} saddr . {reply} daddr . meta l4proto . ct reply proto-src . ct reply proto-dst"
    ping = f"{family.icmp} type echo-request"
    return [
        *(
            f"{theirs} meta l4proto {_PORTS} ct expiration >= {least} "
            f"update @flows {{ {flow} timeout {life} }} accept"
            for least, life in _LIVES
        ),
        f"{theirs} {ping} update @pings {{ {ip} daddr . {ip} saddr . {family.icmp} id }}",
    ]


def _leaving(family: Family, own: str, uplinks: Mapping[str, Address]) -> list[str]:
    """Packets with the home address where none should be any more: NAT put it there."""
    ip = family.name
    addresses = ", ".join(f"{name} : {format_address(at)}" for name, at in uplinks.items())
    # The destination is translated already where it is not known.
    source = [f"{ip} saddr set oifname map {{ {addresses} }}"] if uplinks else []
    near = [family.near, *([f"{ip} daddr {own}", f"{ip} daddr @mobiles"] if family is IPV6 else [])]
    return [
        f"{ip} saddr != {own} accept",
        f"{ip} saddr @mobiles accept",
        *(f"{match} accept" for match in near),
        "jump known-out",
        *source,
    ]


def _chains(family: Family, hooks: Mapping[str, str], chains: Mapping[str, Sequence[str]]) -> str:
    """Commands that give chains, which may be there, these rules and no others."""
    name = f"{family.name} {TABLE}"
    lines: list[str] = []
    for chain, rules in chains.items():
        hook = f" {{ type {hooks[chain]}; policy accept; }}" if chain in hooks else ""
        lines += [f"add chain {name} {chain}{hook}", f"flush chain {name} {chain}"]
        lines += [f"add rule {name} {chain} {rule}" for rule in rules]
    return "\n".join(lines) + "\n"


def tag(text: str, rules: Iterable[Message]) -> str:
    """The name of a counter that says of what a table was made, so that a successor can keep it.

    Making a table anew, there is a moment at which nothing is translated.
    """
    made_of = b"".join([text.encode(), *(rule.body for rule in rules)])
    return f"{_TAG}{zlib.crc32(made_of):08x}"


def is_tag(counter: str) -> bool:
    """Whether this is the name of such a counter."""
    return counter.startswith(_TAG)


def tagging(family: Family, tag: str) -> str:
    """A command that puts a tag on a table."""
    return f"add counter {family.name} {TABLE} {tag}\n"


def queueing(family: Family, queue: int) -> list[Message]:
    """The rules that send packets to the queue, and have fragments put together before."""
    chains = {
        "queue-or-pass": nfnetlink.enqueue(queue, bypass=True),
        "queue-or-drop": nfnetlink.enqueue(queue, bypass=False),
        "defrag": nfnetlink.reassembled(),
    }
    return [
        nfnetlink.rule(family.number, TABLE, chain, [expression])
        for chain, expression in chains.items()
    ]


def translating(family: Family) -> list[Message]:
    """The rules that translate packets to known peers and from them, and let them go on."""
    width = family.width
    return [
        _translation(family, "out", family.source + width, width),
        _translation(family, "in", family.source, 2 * width),
    ]


def _translation(family: Family, name: str, offset: int, length: int) -> Message:
    expressions = (
        nfnetlink.load(offset, length),
        nfnetlink.look_up(name),
        nfnetlink.store(family.source, 2 * family.width, family.checksum),
        nfnetlink.count(f"mapped-{name}"),
        nfnetlink.accept(),
    )
    return nfnetlink.rule(family.number, TABLE, f"known-{name}", expressions)
