"""The kernel's rules: nftables text of the table `mat`, iptables lines for the queue.

One table for each family, all in it made anew when the home address or the mode changes, in one
transaction with what is in the maps. The maps:

| map | key | value | counts packets |
| --- | --- | --- | --- |
| `local` | home address of the peer | own mobile address | yes |
| `mobile` | home address of the peer | its mobile address | |
| `home` | source, own mobile address | home address of the peer | yes |

The sets: `homes`, the own home address or prefix; `mobiles`, the own mobile addresses; `direct`,
the name servers; `pings`, what pings from mobile addresses wait for.

`local` and `mobile` have the same keys at all times, so that no packet is translated by half.

Priorities (linux/netfilter_ipv4.h): reassembly -400, `in` -310, raw with the queue's rule -300,
connection tracking -200, `out` -160, mangle with the queue's rule -150, NAT -100. A mark that is
still there after the queue's rule is one of a packet that nobody reads: in `left-in` it is cleared,
and in `left-out` too, if the packet may go; from a home address that is not a mobile one it cannot
get anywhere, but to a socket of this very host, by the default route to `lo`.

Only a packet of the plainest form is translated in the kernel. What has IPv4 options or IPv6
extension headers, a checksum that nftables does not know, or an ICMP error's quote goes to the
queue.

Reassembly has to be on, or else later fragments would be told apart by nothing: an application's
own flow on a mobile address by its ports, an unknown peer's datagram by its handle. Connection
tracking turns it on; where that is not in use, a `socket` match in the chain `MAT-IN` does, which
for that matter need never be reached.
"""

from dataclasses import dataclass
from typing import Final, final

from mat.address import Address, format_address, is_ipv4, prefix_of
from mat.messages import MAT_PORT
from mat_real.dataplane import Mode
from mat_real.dataplane.table import HOST

TABLE: Final = "mat"
MAPS: Final = ("local", "mobile", "home")
_FORWARD: Final = "MAT-FORWARD"
_PINGS: Final = "size 1024; flags dynamic,timeout; timeout 30s;"


@final
@dataclass(frozen=True, slots=True)
class Family:
    """What differs between the rules of IPv4 and IPv6."""

    name: str
    """Of nftables' family, and of the addresses in expressions."""
    iptables: str
    width: int
    """Bytes of an address."""
    icmp: str
    errors: str
    """ICMP types that quote a packet."""
    link_scope: str
    """ICMP types about the addresses of one link."""
    dhcp: str
    not_plain: tuple[str, ...]
    """Matches of packets that nftables cannot translate."""
    never: str
    """A match of packets in whose source is no node's address."""
    near: tuple[str, ...]
    """Matches of packets out to this host, to all on a link, or to none beyond it."""


IPV4: Final = Family(
    name="ip",
    iptables="iptables",
    width=4,
    icmp="icmp",
    errors="3, 4, 11, 12",
    link_scope="5, 9, 10",
    dhcp="67, 68",
    # DCCP, AH, UDP-Lite, HIP.
    not_plain=("ip hdrlength != 5", "ip protocol { 33, 51, 136, 139 }"),
    never="ip saddr 0.0.0.0",
    near=("fib daddr type { local, broadcast, multicast }",),
)
IPV6: Final = Family(
    name="ip6",
    iptables="ip6tables",
    width=16,
    icmp="icmpv6",
    errors="1-4",
    link_scope="130-138, 141-143, 148, 149, 151-153",
    dhcp="546, 547",
    # Hop-by-hop, DCCP, routing, fragment, AH, destination options, mobility, UDP-Lite, HIP.
    not_plain=("ip6 nexthdr { 0, 33, 43, 44, 51, 60, 135, 136, 139 }",),
    never="ip6 saddr fe80::/10",
    # Not by `fib`: a default route to `lo` has to be of the type "local" in IPv6, for all of it.
    near=("ip6 daddr @homes", "ip6 daddr @mobiles", "ip6 daddr { ::1, fe80::/10, ff00::/8 }"),
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


# A socket that is bound to a mobile address, by `bind`, `connect` or `accept`, has its own packets.
# "wildcard" says nothing of a connection that is only begun, or has ended; "transparent" does.
_OWN_SOCKETS: Final = (
    "socket wildcard vmap { 0 : accept, 1 : return }",
    "socket transparent 0 accept",
)


def table(family: Family, home: Address, prefix_length: int, mode: Mode, mark: int) -> str:
    """Commands that make the table, or make its chains anew, and empty nothing else."""
    name = f"{family.name} {TABLE}"
    host = prefix_length == HOST
    translating = mode is Mode.MAPS and host
    chains = {
        "to-queue": ("", [f"meta mark set meta mark | {mark:#x}"]),
        "own-sockets": ("", _OWN_SOCKETS),
        "inward": ("", _inward(family, format_address(home) if translating else None)),
        "outward": ("", _outward(family, translating=translating)),
        "in": (_hook("filter", "prerouting", -310), _in(family)),
        "out": (_hook("route", "output", -160), _out(family)),
        "forwarded": (_hook("filter", "prerouting", -160), [] if host else _forwarded(family)),
        "left-in": (_hook("filter", "prerouting", -290), _clear(mark)),
        "left-forwarded": (_hook("filter", "prerouting", -140), _left(family, mark)),
        "left-out": (_hook("filter", "output", -140), _left(family, mark)),
    }
    lines = [f"add table {name}", *_containers(family)]
    for chain, (hook, rules) in chains.items():
        lines += [f"add chain {name} {chain}{hook}", f"flush chain {name} {chain}"]
        lines += [f"add rule {name} {chain} {rule}" for rule in rules]
    lines += [
        f"flush set {name} homes",
        f"add element {name} homes {{ {network(home, prefix_length)} }}",
    ]
    return "\n".join(lines) + "\n"


def _containers(family: Family) -> list[str]:
    """Sets, maps and counters."""
    ip, name = family.name, f"{family.name} {TABLE}"
    key = f"ipv{4 if family is IPV4 else 6}_addr"
    ping = f"typeof {ip} saddr . {ip} daddr . {family.icmp} id"
    return [
        f"add set {name} homes {{ type {key}; flags interval; }}",
        f"add set {name} mobiles {{ type {key}; flags interval; }}",
        f"add set {name} direct {{ type {key}; }}",
        f"add set {name} pings {{ {ping}; {_PINGS} }}",
        f"add map {name} local {{ type {key} : {key}; counter; }}",
        f"add map {name} mobile {{ type {key} : {key}; }}",
        f"add map {name} home {{ type {key} . {key} : {key}; counter; }}",
        f"add counter {name} mapped-in",
        f"add counter {name} mapped-out",
    ]


def _hook(kind: str, hook: str, priority: int) -> str:
    return f" {{ type {kind} hook {hook} priority {priority}; policy accept; }}"


def _in(family: Family) -> list[str]:
    return [f"{family.name} daddr @mobiles goto inward"]


def _inward(family: Family, home: str | None) -> list[str]:
    """Packets to an own mobile address. `home`: where the kernel translates, to what."""
    ip, icmp = family.name, family.icmp
    rules = [
        family.never + " accept",
        f"udp dport {{ {family.dhcp}, {MAT_PORT} }} accept",
        f"{icmp} type {{ {family.link_scope} }} accept",
        f"{icmp} type echo-reply {ip} saddr . {ip} daddr . {icmp} id @pings accept",
        f"{ip} daddr @homes {ip} saddr @direct accept",
        # At home, an application's socket on the home address is one on the mobile address too.
        f"{ip} daddr != @homes jump own-sockets",
        *_not_plain(family),
    ]
    if home is not None:
        source = f"{ip} saddr set {ip} saddr . {ip} daddr map @home"
        rules.append(f"{source} {ip} daddr set {home} counter name mapped-in accept")
    return [*rules, "goto to-queue"]


def _outward(family: Family, *, translating: bool) -> list[str]:
    """Packets from the home address."""
    ip = family.name
    # At home, what the node itself sends for MAT has the home address as source.
    at_home = f"{ip} saddr @mobiles"
    passing = (
        *family.near,
        f"{family.icmp} type {{ {family.link_scope} }}",
        f"{at_home} {ip} daddr @direct",
        f"{at_home} udp sport {MAT_PORT}",
    )
    rules = [*(f"{match} accept" for match in passing), *_not_plain(family)]
    if translating:
        source = f"{ip} saddr set {ip} daddr map @local"
        destination = f"{ip} daddr set {ip} daddr map @mobile"
        rules.append(f"{source} {destination} counter name mapped-out accept")
    return [*rules, "goto to-queue"]


def _not_plain(family: Family) -> list[str]:
    errors = f"{family.icmp} type {{ {family.errors} }}"
    return [f"{match} goto to-queue" for match in (*family.not_plain, errors)]


def _out(family: Family) -> list[str]:
    ip, icmp = family.name, family.icmp
    ping = f"{icmp} type echo-request {ip} saddr @mobiles"
    return [
        f"{ip} saddr @homes goto outward",
        # No socket tells whose an answer to a ping is.
        f"{ping} update @pings {{ {ip} daddr . {ip} saddr . {icmp} id }}",
    ]


def _forwarded(family: Family) -> list[str]:
    """Packets of hosts behind a mobile router."""
    ip = family.name
    return [f'iifname != "lo" {ip} saddr @homes {ip} daddr != @homes goto outward']


def _left(family: Family, mark: int) -> list[str]:
    """Packets out that nobody takes from the queue. At home they may go as they are."""
    ip = family.name
    lost = f"meta mark & {mark:#x} == {mark:#x} {ip} saddr @homes {ip} saddr != @mobiles"
    return [f"{lost} drop", *_clear(mark)]


def _clear(mark: int) -> list[str]:
    return [f"meta mark & {mark:#x} == {mark:#x} meta mark set meta mark & {~mark & 0xFFFFFFFF:#x}"]


def members(family: Family, name: str, addresses: list[str]) -> str:
    """Commands that make these addresses, or prefixes, the members of a set."""
    return f"flush set {family.name} {TABLE} {name}\n" + elements(family, "add", name, addresses)


def elements(family: Family, change: str, name: str, listed: list[str]) -> str:
    """A command that adds elements to a set or map, or deletes them; empty if there are none."""
    if not listed:
        return ""
    return f"{change} element {family.name} {TABLE} {name} {{ {', '.join(listed)} }}\n"


# ---- iptables ----------------------------------------------------------------------------------

_JUMPS: Final = (
    ("raw", "PREROUTING", "MAT-IN"),
    ("mangle", "PREROUTING", _FORWARD),
    ("mangle", "OUTPUT", "MAT-OUT"),
)


def to_queue(mark: int, queue: int) -> str:
    """Lines for `iptables-restore --noflush`: marked packets go to the queue, from own chains."""
    match = f"-m mark --mark {mark:#x}/{mark:#x}"
    lines: list[str] = []
    for name in ("raw", "mangle"):
        lines.append(f"*{name}")
        for _, hook, chain in _jumps_in(name):
            lines += [
                f":{chain} - [0:0]",
                f"-A {chain} {match} -j NFQUEUE --queue-num {queue} --queue-bypass",
                f"-I {hook} -j {chain}",
            ]
            if chain == "MAT-IN":
                lines.append(f"-A {chain} {match} -m socket")
        lines.append("COMMIT")
    return "\n".join(lines) + "\n"


def without_queue(saved: str) -> str:
    """Lines that take out what of `to_queue` is in the output of `iptables-save`."""
    have = set(saved.splitlines())
    declared = {line.split()[0][1:] for line in have if line.startswith(":MAT-")}
    lines: list[str] = []
    for name in ("raw", "mangle"):
        present = [(hook, chain) for _, hook, chain in _jumps_in(name) if chain in declared]
        if not present:
            continue
        lines.append(f"*{name}")
        for hook, chain in present:
            if f"-A {hook} -j {chain}" in have:
                lines.append(f"-D {hook} -j {chain}")
            lines += [f"-F {chain}", f"-X {chain}"]
        lines.append("COMMIT")
    return "\n".join(lines) + "\n" if lines else ""


def _jumps_in(name: str) -> list[tuple[str, str, str]]:
    return [jump for jump in _JUMPS if jump[0] == name]
