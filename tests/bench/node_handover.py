"""How long a hard handover interrupts traffic: `python -m tests.bench.node_handover [REPEATS]`.

The old uplink is taken down and its address flushed, then the second one is configured; probes go
every 20 ms in both directions (50 ms where both ends move). The gap is the longest time between two
arrivals; the probes' own interval is the least that it can be.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.real.node_world import World, address, world
from tests.real.probes import Stream

HOMES = {"mn": "10.1.0.1", "cn": "10.2.0.1"}
SECONDS = 5.0
MOVE_AT = 2.0


def gaps(made: World, interval: float, movers: dict[str, tuple[str, str]]) -> dict[str, float]:
    """Longest gaps, ms, of traffic from MN and from CN while the movers change networks."""
    probes = [sys.executable, "-m", "tests.real.probes"]
    receivers = [
        made.start(host, *probes, "receive", HOMES[host], str(SECONDS + 2), log=f"to-{host}")
        for host in HOMES
    ]
    time.sleep(1.0)
    senders = [
        made.start(host, *probes, "send", HOMES[peer], str(interval), str(SECONDS), HOMES[host])
        for host, peer in (("mn", "cn"), ("cn", "mn"))
    ]
    time.sleep(MOVE_AT)
    for host, (old, net) in movers.items():
        made.ip(
            host,
            f"link set {old} down",
            f"addr flush dev {old} scope global",
            *made.addresses("w1", net, 2),
        )
    for one in (*senders, *receivers):
        one.wait(60)
    from_mn, from_cn = Stream.read(made.folder / "to-cn"), Stream.read(made.folder / "to-mn")
    return {"from MN": from_mn.longest_gap() * 1e3, "from CN": from_cn.longest_gap() * 1e3}


def one_run(interval: float, both: bool) -> dict[str, float]:
    """A world of its own: the addresses of nobody have settled."""
    with tempfile.TemporaryDirectory() as folder, world(Path(folder)) as made:
        made.attach("mn", "w0", "a", 2)
        made.start_node("mn")
        made.start_node("cn")
        made.registers("mn", [address("a", 2)], [address("a", 2, ipv6=True)])
        movers = {"mn": ("w0", "b")}
        if both:
            movers["cn"] = ("w0", "d")
        return gaps(made, interval, movers)


def main() -> None:
    """Print medians and worst of so many runs."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    for title, interval, both in (("MN moves", 0.02, False), ("both move", 0.05, True)):
        found = [one_run(interval, both) for _ in range(repeats)]
        for direction in found[0]:
            values = sorted(one[direction] for one in found)
            sys.stdout.write(
                f"{title:9}  {direction}: median {statistics.median(values):6.1f} ms, "
                f"worst {values[-1]:6.1f} ms of {repeats}\n"
            )


if __name__ == "__main__":
    main()
