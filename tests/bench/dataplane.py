"""The node's dataplanes beside no MAT at all: `python -m tests.bench.dataplane`. Takes root.

Two hosts and a router in namespaces, on links that leave checksums and segmentation to the other
end, as hardware would. The four ways take turns, so that whatever else the machine does falls on
all of them alike; of each figure the median over the rounds is printed. About three minutes.

Packets are translated at both hosts, so a round trip is translated four times; "queue, one end" has
the maps at the other host. Between two machines each would have processors of its own.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from mat.address import Address, from_ipv4, parse_address
from mat.effects import Handle, Translation
from mat_paper.ping import parse as parse_ping
from mat_real.dataplane import Mode
from mat_real.dataplane.plane import NetfilterDataplane
from tests.real.two_hosts import HOST, IPV4, Net, inside, set_offload, two_hosts, until

ROUNDS: Final = 3
SECONDS: Final = 2
ATTEMPTS: Final = 5
LOADS: Final = (100, 200, 400, 800, 1600)
"""Mbit/s of UDP, in datagrams of 1,470 bytes."""
PEERS: Final = (1, 1000)
UPDATES: Final = 30


@dataclass(frozen=True)
class Way:
    """What translates in each of the hosts; nothing if there is no mode."""

    name: str
    modes: tuple[Mode, Mode] | None


WAYS: Final = (
    Way("no MAT", None),
    Way("maps", (Mode.MAPS, Mode.MAPS)),
    Way("queue, one end", (Mode.QUEUE, Mode.MAPS)),
    Way("queue", (Mode.QUEUE, Mode.QUEUE)),
)


@dataclass
class Figures:
    """Of one way in one round."""

    rtt: float
    """Microseconds."""
    tcp: float
    """Gbit/s."""
    udp: list[tuple[float, float]]
    """Mbit/s that arrived, and per cent lost, of each load."""


# ---- packets -----------------------------------------------------------------------------------


@contextmanager
def on(net: Net, way: Way) -> Generator[tuple[str, str]]:
    """The addresses that applications of both hosts use."""
    if way.modes is None:
        yield net.a.mobiles[0], net.b.mobiles[0]
        return
    for host, mode in zip((net.a, net.b), way.modes, strict=True):
        plane = net.plane(host, mode)
        plane.set(net.translation(host))
        plane.commit()
    yield net.a.home, net.b.home
    for plane in net.planes:
        plane.close()
    net.planes.clear()


def measure(net: Net, way: Way) -> Figures:
    """One round of one way."""
    with on(net, way) as (source, destination):
        server = net.b.node.popen(["iperf3", "-s", "-B", destination], stdout=subprocess.DEVNULL)
        try:
            until(lambda: "5201" in net.b.node.run("ss", "-Hltn"))
            return Figures(
                ping(net, source, destination),
                tcp(net, source, destination),
                [udp(net, source, destination, load) for load in LOADS],
            )
        finally:
            server.kill()
            server.wait()


def ping(net: Net, source: str, destination: str) -> float:
    """Microseconds of a round trip, on average over a flood."""
    options = ("-q", "-f", "-w", str(SECONDS), "-s", "36", "-I", source)
    printed = net.a.node.run("ping", *options, destination)
    _, _, _, mean, _ = parse_ping(printed)
    return mean * 1e6


def iperf(net: Net, source: str, destination: str, *options: str) -> dict[str, dict[str, float]]:
    """What iperf3 says at the end.

    Its first datagram may be among those that are lost, and then it gives up: it gets new attempts.
    """
    base = ("iperf3", "--json", "-t", str(SECONDS), "-B", source, "-c", destination)
    said = {}
    for _ in range(ATTEMPTS):
        said = json.loads(net.a.node.run(*base, *options))
        if "error" not in said:
            ended: dict[str, dict[str, float]] = said["end"]
            return ended
    raise RuntimeError(f"iperf3: {said['error']}")


def tcp(net: Net, source: str, destination: str) -> float:
    """Gbit/s that arrived."""
    return iperf(net, source, destination)["sum_received"]["bits_per_second"] / 1e9


def udp(net: Net, source: str, destination: str, load: int) -> tuple[float, float]:
    """Mbit/s that arrived, and per cent lost, of `load` Mbit/s."""
    ended = iperf(net, source, destination, "-u", "-b", f"{load}M", "-l", "1470")["sum"]
    lost = ended["lost_percent"]
    return ended["bits_per_second"] / 1e6 * (1 - lost / 100), lost


# ---- updates -----------------------------------------------------------------------------------


class _Nobody:
    """A consumer that no packet comes to."""

    def packet_out(self, handle: Handle, source: Address, destination: Address) -> None: ...

    def packet_in(
        self, handle: Handle, source: Address, destination: Address, announced: Address | None
    ) -> None: ...


def translations(net: Net, count: int, step: int) -> list[Translation]:
    """Of so many peers; another step, other mobile addresses."""
    local, home = parse_address(net.a.mobiles[step]), parse_address(net.a.home)
    found: list[Translation] = []
    for number in range(count):
        peer = from_ipv4(bytes((10, 5, *number.to_bytes(2))))
        mobile = from_ipv4(bytes((172, 16 + step, *number.to_bytes(2))))
        found.append(Translation(peer, mobile, (mobile,), home, HOST, local, (local,)))
    return found


async def updates(net: Net) -> list[tuple[str, float]]:
    """Milliseconds of a commit, at the median, and of reading who was used."""
    plane = NetfilterDataplane(_Nobody())
    plane.own(parse_address(net.a.home), HOST, [parse_address(m) for m in net.a.mobiles])
    found: list[tuple[str, float]] = []

    steps = [translations(net, max(PEERS), step) for step in range(2)]

    def change(count: int, step: int) -> None:
        for translation in steps[step % 2][:count]:
            plane.set(translation)
        plane.commit()

    for count in PEERS:
        change(max(PEERS), 0)
        each = median(partial(change, count))
        found.append((f"commit, {count} of {max(PEERS)} peers changed", each))
    found.append((f"used(), {max(PEERS)} peers", median(lambda _: plane.used())))
    plane.close()
    return found


def median(action: Callable[[int], object]) -> float:
    """Milliseconds."""
    times: list[float] = []
    for turn in range(1, UPDATES + 1):
        begun = time.perf_counter()
        action(turn)
        times.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(times)


# ---- the table ---------------------------------------------------------------------------------


def middle(rounds: list[Figures]) -> Figures:
    """The median of each figure."""
    first = rounds[0]
    loads = range(len(first.udp))
    return replace(
        first,
        rtt=statistics.median(figures.rtt for figures in rounds),
        tcp=statistics.median(figures.tcp for figures in rounds),
        udp=[
            (
                statistics.median(figures.udp[load][0] for figures in rounds),
                statistics.median(figures.udp[load][1] for figures in rounds),
            )
            for load in loads
        ],
    )


def table(found: dict[str, Figures]) -> str:
    """Figures of all ways, with ratios to the first."""
    plain = next(iter(found.values()))
    heads = "".join(f"  UDP {load} (lost)" for load in LOADS)
    lines = [f"{'':15}   RTT µs  (added)   TCP Gbit/s  (ratio){heads}"]
    for name, figures in found.items():
        line = f"{name:15} {figures.rtt:8.1f} {figures.rtt - plain.rtt:+8.1f}"
        line += f" {figures.tcp:12.2f} {figures.tcp / plain.tcp:8.3f}"
        for load, (arrived, lost) in zip(LOADS, figures.udp, strict=True):
            width = len(f"  UDP {load} (lost)")
            line += f"{arrived:.0f} ({lost:.1f} %)".rjust(width)
        lines.append(line)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and print."""
    rounds: dict[str, list[Figures]] = {way.name: [] for way in WAYS}
    with two_hosts(IPV4, "bench") as net:
        for node, device in (
            (net.a.node, "eth0"),
            (net.b.node, "eth0"),
            (net.router, "to-a"),
            (net.router, "to-b"),
        ):
            set_offload(node, device, on=True)
        for _ in range(ROUNDS):
            for way in WAYS:
                rounds[way.name].append(measure(net, way))
        changed = inside(net.a.node, lambda: asyncio.run(updates(net)))
    sys.stdout.write(table({name: middle(each) for name, each in rounds.items()}))
    for what, milliseconds in changed:
        sys.stdout.write(f"{what}: {milliseconds:.2f} ms\n")


if __name__ == "__main__":
    main()
