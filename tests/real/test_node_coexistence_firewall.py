"""A stateful firewall and connection tracking on a node: one flow, however often hosts move."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.ims_server import wait_until
from tests.real.node_world import HOMES, IMS, World, address, world
from tests.real.privilege import needs_root

pytestmark = needs_root

HOME, CN = HOMES["mn"], HOMES["cn"]

# What comes in unasked is dropped, but ssh and pings of one peer, and the protocol's own messages.
FIREWALL = f"""
table inet firewall {{
    counter going {{ }}
    counter invalid {{ }}
    chain input {{
        type filter hook input priority filter; policy drop;
        iif lo accept
        ct state established counter name going accept
        ct state related accept
        ct state invalid counter name invalid drop
        udp dport 49628 accept
        icmpv6 type {{ nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert }} accept
        ip saddr {CN[0]} ip daddr {HOME[0]} tcp dport 22 accept
        ip6 saddr {CN[1]} ip6 daddr {HOME[1]} tcp dport 22 accept
        ip saddr {CN[0]} icmp type echo-request accept
    }}
    chain output {{
        type filter hook output priority filter; policy accept;
        ct state invalid counter name invalid drop
    }}
}}
"""


@pytest.fixture(params=["maps", "queue"])
def guarded(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """MN behind a firewall of its own, and CN; both registered."""
    with world(tmp_path) as made:
        (tmp_path / "firewall").write_text(FIREWALL)
        made.run("mn", "nft", "-f", str(tmp_path / "firewall"))
        made.attach("mn", "w0", "a", 2)
        for host in ("mn", "cn"):
            made.start_node(host, f'node.dataplane="{request.param}"')
        yield made


def counted(made: World, name: str) -> int:
    """Packets of a named counter of the firewall."""
    listed = made.run("mn", "nft", "-j", "list", "counter", "inet", "firewall", name)
    (counter,) = [one["counter"] for one in json.loads(listed)["nftables"] if "counter" in one]
    packets: int = counter["packets"]
    return packets


def tracked(made: World, family: int) -> list[tuple[str, ...]]:
    """The TCP connections that MN's kernel tracks: number, addresses and ports both ways."""
    version = "ipv6" if family else "ipv4"
    listed = made.run("mn", "conntrack", "-L", "-f", version, "-p", "tcp", "-o", "id")
    entries = [re.findall(r"(?:src|dst|sport|dport|id)=(\S+)", line) for line in listed.split("\n")]
    return sorted(tuple(entry) for entry in entries if entry)


@pytest.mark.parametrize("family", [0, 1])
def test_connections_are_one_entry_each_across_moves_of_both_ends(
    guarded: World, family: int
) -> None:
    for host in ("mn", "cn"):
        guarded.listen(host, 22, "::" if family else "0.0.0.0")
    ipv6 = family == 1
    with (
        guarded.talk("cn", HOME[family], 22, CN[family]) as inward,
        guarded.talk("mn", CN[family], 22) as outward,
    ):
        assert inward.greeting == CN[family]
        assert outward.greeting == HOME[family]
        before = tracked(guarded, family)
        pairs = [{source, destination} for source, destination, *_ in before]
        assert pairs == [{HOME[family], CN[family]}] * 2
        moves = [("mn", "w1", "b", 2), ("mn", "w0", "a", 3), ("cn", "w1", "d", 2)]
        for host, new, net, number in [*moves, ("mn", "w1", "b", 3)]:
            going = counted(guarded, "going")
            old = {"w0": "w1", "w1": "w0"}[new]
            flush, there = f"addr flush dev {old} scope global", address(net, number, ipv6=ipv6)
            guarded.ip(host, flush, *guarded.addresses(new, net, number))
            wait_until(lambda h=host, t=there: guarded.registered(h)[family] == [t])
            assert inward.goes_on()
            assert outward.goes_on()
            assert tracked(guarded, family) == before
            assert counted(guarded, "going") > going
    assert counted(guarded, "invalid") == 0


def test_what_the_firewall_forbids_stays_forbidden_by_whatever_address(guarded: World) -> None:
    for port in (22, 23):
        guarded.listen("mn", port)
    with guarded.talk("cn", HOME[0], 22) as allowed:
        assert allowed.greeting == CN[0]
    for to in (HOME[0], address("a", 2)):
        assert not connects(guarded, to, 23)


def test_answers_to_datagrams_from_a_mobile_address_pass_the_firewall(guarded: World) -> None:
    # A name server, and a neighbour, are asked from the mobile address, by a socket without one.
    asked = (
        "import dns.message, dns.query, sys\n"
        "query = dns.message.make_query('1.0.2.10.in-addr.arpa', 'TYPE65338')\n"
        "print(dns.query.udp(query, sys.argv[1], timeout=20).answer[0])\n"
    )
    assert "65338" in guarded.run("mn", sys.executable, "-c", asked, IMS)
    guarded.start("r", sys.executable, "-c", NEIGHBOUR, log="neighbour")
    wait_until(lambda: "listening" in (guarded.folder / "neighbour").read_text())
    for to in (address("a", 1), address("a", 1, ipv6=True)):
        assert guarded.run("mn", sys.executable, "-c", ASK, to).strip() in ASKED_FROM
    assert counted(guarded, "invalid") == 0


NEIGHBOUR = """
import socket as s
with s.socket(s.AF_INET6, s.SOCK_DGRAM) as one:
    one.bind(("::", 9999))
    print("listening", flush=True)
    while True:
        _, source = one.recvfrom(99)
        one.sendto(source[0].removeprefix("::ffff:").encode(), source)
"""
ASK = """
import socket as s, sys
with s.socket(s.AF_INET6 if ":" in sys.argv[1] else s.AF_INET, s.SOCK_DGRAM) as one:
    one.settimeout(20)
    one.sendto(b"who am I?", (sys.argv[1], 9999))
    print(one.recv(99).decode())
"""
ASKED_FROM = address("a", 2), address("a", 2, ipv6=True)


def connects(made: World, to: str, port: int) -> bool:
    """Whether CN gets a connection within three tries of its kernel (1 s, 2 s, 4 s)."""
    program = (
        "import socket as s, sys\n"
        "try: s.create_connection((sys.argv[1], int(sys.argv[2])), timeout=4)\n"
        "except TimeoutError: print('nothing')\n"
    )
    return made.run("cn", sys.executable, "-c", program, to, str(port)) == ""
