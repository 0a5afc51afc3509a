"""What a node's daemon costs while nothing moves: `python -m tests.bench.node_idle [SECONDS]`.

CPU seconds of the daemon (user and system, with the kernel's work on its behalf), as per cent of a
core, over SECONDS (60): without peers; with 1,000 peers in use, each of which is sent an echo
request every 10 s and answers; with 1,000 peers that nobody has spoken to for longer than
`peer_idle_time`. The peers are behind a mobile router, a real node, and one host with many
addresses; each has been looked up in the DNS, at its IMS, and been introduced to, as any other.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

from mat.parameters import DEFAULTS
from tests.real.ims_server import wait_until
from tests.real.node_world import World, address, world

PEERS = 1000
ROUND = 10.0
"""Seconds between two echo requests to the same peer."""
HOMES = {"mn": ("10.1.0.1", "fd10:1::1"), "cn": ("10.2.0.0/22", "fd10:2::1")}
MOBILE = "192.168.128.0/22"
"""What network c has delegated to the CN."""
ROUTER, GUEST = "10.2.3.253", "10.2.3.254"
BEHIND = ("0.0/23", "2.0/24", "3.0/25", "3.128/26", "3.192/27", "3.224/28")
"""The peers' part of the home prefix, by which it is one neighbour that has all of them."""

# Sends echo requests to so many addresses in turn, at a pace; reads what comes back.
_ECHO = """
import itertools, socket as s, struct, sys, time
peers, pace = int(sys.argv[1]), float(sys.argv[2])
one = s.socket(s.AF_INET, s.SOCK_RAW, s.IPPROTO_ICMP)
one.setblocking(False)
head = struct.pack("!BBHHH", 8, 0, 0, 77, 1)
words = sum(struct.unpack("!4H", head))
packet = struct.pack("!BBHHH", 8, 0, ~words & 0xFFFF, 77, 1)
begin = time.monotonic()
for turn in itertools.count():
    time.sleep(max(0.0, begin + turn * pace - time.monotonic()))
    peer = 1 + turn % peers
    try:
        one.sendto(packet, (f"10.2.{peer >> 8}.{peer & 255}", 0))
        while True: one.recv(2048)
    except OSError:
        pass
"""


def put_behind(made: World) -> None:
    """Make the CN a mobile router, and all of its home prefix one host behind it."""
    made.add_host("guest")
    there = made.hosts["guest"].path.name
    made.ip(
        "cn",
        f"link add name lan type veth peer name eth0 netns {there}",
        f"addr add {ROUTER}/22 dev lan",
        "link set lan up",
        *(f"route add 10.2.{prefix} via {GUEST}" for prefix in BEHIND),
        f"addr add {MOBILE.replace('.0/22', '.1')}/32 dev w0",
        f"route add unreachable {MOBILE}",
    )
    made.ip(
        "guest",
        "link set eth0 up",
        "link set lo up",
        f"addr add {GUEST}/22 dev eth0",
        f"route add default via {ROUTER}",
        *(f"route add local 10.2.{prefix} dev lo" for prefix in BEHIND),
    )
    made.ip("r", f"route add {MOBILE} via {address('c', 2)}")
    made.run("cn", "sysctl", "-qw", "net.ipv4.ip_forward=1")


def cpu(made: World, host: str) -> list[float]:
    """CPU seconds that a daemon has had so far, its own and the kernel's on its behalf."""
    stat = Path(f"/proc/{made.daemons[host].pid}/stat").read_text().rpartition(")")[2].split()
    return [int(ticks) / os.sysconf("SC_CLK_TCK") for ticks in stat[11:13]]


def measure(made: World, title: str, seconds: float) -> None:
    """Print what MN's daemon costs over a time."""
    before, begin, had = counts(made), time.monotonic(), cpu(made, "mn")
    time.sleep(seconds)
    took = time.monotonic() - begin
    user, system = ((b - a) / took for a, b in zip(had, cpu(made, "mn"), strict=True))
    after = counts(made)
    sys.stdout.write(
        f"{title:18} {user + system:6.2%} of a core (user {user:.2%}, system {system:.2%}); "
        f"{after['peers']} peers, {after['sent'] - before['sent']} messages, "
        f"{after['packets'] - before['packets']} packets by the kernel, "
        f"{after['queued'] - before['queued']} by the daemon\n"
    )
    sys.stdout.flush()


def counts(made: World) -> dict[str, int]:
    """What MN's daemon counts."""
    status = made.status("mn")
    packets = status["packets"]
    return {
        "peers": len(status["homes"][0]["peers"]),
        "sent": status["messages"]["sent"],
        "packets": packets["mapped"],
        "queued": packets["translated"] + packets["held"],
    }


def established(made: World) -> int:
    """How many peers have a mapping."""
    peers = made.status("mn")["homes"][0]["peers"]
    return sum(peer["state"] == "established" for peer in peers)


def main() -> None:
    """Measure all three, one after the other."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    with tempfile.TemporaryDirectory() as folder, world(Path(folder), HOMES) as made:
        made.attach("mn", "w0", "a", 2)
        put_behind(made)
        for host in HOMES:
            made.start_node(host)
        made.registers("mn", [address("a", 2)], [address("a", 2, ipv6=True)])
        time.sleep(5)
        measure(made, "no peers", seconds)
        pace = ROUND / PEERS
        echo = made.start("mn", sys.executable, "-c", _ECHO, str(PEERS), str(pace))
        wait_until(lambda: established(made) == PEERS)
        # Beyond the first round of periodic queries.
        time.sleep(DEFAULTS.peer_query_interval)
        measure(made, f"{PEERS} peers in use", seconds)
        echo.terminate()
        echo.wait()
        time.sleep(DEFAULTS.peer_idle_time + ROUND)
        measure(made, f"{PEERS} peers idle", seconds)


if __name__ == "__main__":
    main()
