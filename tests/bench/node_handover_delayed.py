"""A hard handover over slow links: `python -m tests.bench.node_handover_delayed [REPEATS] [MS]`.

In the lab of `mat_real.lab`, every two hosts are MS (20) apart, one way: half of it on the link of
each to the core. MN has one interface. Its carrier goes to another network, and it gets an address
and a route there by hand, so that the time has no DHCP, no duplicate address detection and no scan
in it: what is left, the change of the links itself, is told apart. Probes go every 5 ms both ways.

The bound is that of docs/protocol.md, section 8.3, from the moment the address is there until a
packet from it, or to it, has arrived; the silence of what MN sends begins one delay after it has
left, so there the last delay of the bound does not count. The turns are what hosts take between a
message's arrival and what follows from it, by the recording of the lab.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from pyroute2 import IPRoute

from mat_files.distributions import Constant
from mat_real.lab import Flow, Lab, Plan, Quality, Transmission, simple_plan
from mat_real.lab.inside import Resident
from mat_real.lab.watch import AddressWatch
from tests.real.ims_server import wait_until

INTERVAL = 0.005
AFTER = 3.0
"""Seconds for the handover to be over."""
EXCHANGES_OF_A_GAP = 6
"""One-way delays in the bound: to IMS_MN and back, to CN, to IMS_MN and back, to MN."""
CHAIN = (
    ("IMS Update", "MN"),
    ("IMS Update Reply", "IMS_MN"),
    ("HA Notify", "MN"),
    ("MA Query", "CN"),
    ("MA Answer", "IMS_MN"),
    ("HA Notify Ack", "CN"),
)
"""The messages that the interruption waits for, and who sends each."""


def plan(delay: float) -> Plan:
    """Networks A and B, and all hosts so many seconds apart."""
    quality = Quality(Constant(delay / 2))
    made = simple_plan({"A": quality, "B": quality}, interfaces=1, plain=())
    return replace(
        made,
        nodes=tuple(one if one.mobile else replace(one, quality=quality) for one in made.nodes),
        ims=tuple(replace(one, quality=quality) for one in made.ims),
        dns=replace(made.dns, quality=quality),
    )


class Mover:
    """MN's addresses and routes, set by single messages to the kernel."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._inside = Resident(lab.ref("MN"))
        self._netlink = self._inside.do(IPRoute)
        (self._index,) = self._inside.do(lambda: self._netlink.link_lookup(ifname="eth0"))

    def arrive(self, network: str) -> None:
        """Give MN a link to a network, an address there and a default route."""
        self._lab.attach("MN", network)
        moa, there = self._lab.plan.moa("MN", network), self._lab.plan.network(network)
        address = {"address": str(moa.ipv4), "prefixlen": there.pool.ipv4.prefixlen}
        route = {"dst": "default", "gateway": str(there.gateway.ipv4), "oif": self._index}
        self._inside.do(lambda: self._netlink.addr("add", index=self._index, **address))
        self._inside.do(lambda: self._netlink.route("replace", **route))

    def leave(self, network: str) -> None:
        """Take the link, then the address."""
        self._lab.detach("MN", network)
        moa = self._lab.plan.moa("MN", network).ipv4
        length = self._lab.plan.network(network).pool.ipv4.prefixlen
        gone = {"address": str(moa), "prefixlen": length}
        self._inside.do(lambda: self._netlink.addr("del", index=self._index, **gone))

    def close(self) -> None:
        """End the thread."""
        self._inside.do(self._netlink.close)
        self._inside.leave()


async def move(lab: Lab, mover: Mover) -> tuple[float, float]:
    """Carry MN from A to B; when its link went, and when the kernel had its new address, s."""
    watch = AddressWatch({"MN": lab.ref("MN")})
    begin = time.monotonic()
    await asyncio.to_thread(mover.leave, "A")
    await asyncio.to_thread(mover.arrive, "B")
    await asyncio.sleep(AFTER)
    watch.close()
    wanted = lab.plan.moa("MN", "B").ipv4
    return begin, next(one.time for one in watch.changes if one.present and one.address == wanted)


def one_run(delay: float) -> dict[str, float]:
    """What one handover took, s; in a lab of its own, where no address has settled."""
    with Lab(plan(delay)) as lab:
        lab.check()
        lab.record()
        lab.start_servers()
        for node in ("MN", "CN"):
            lab.start_node(node, dhcp=False)
        mover = Mover(lab)
        mover.arrive("A")
        stream = lab.probe("MN", "CN", up=INTERVAL, down=INTERVAL)
        wait_until(lambda: _carries(stream.flow("up")) and _carries(stream.flow("down")))
        begin, configured = asyncio.run(move(lab, mover))
        stream.stop()
        mover.close()
        change = configured - begin
        found = {"change of links": change}
        for name, flow in (("from MN", stream.flow("up")), ("from CN", stream.flow("down"))):
            gap = longest_gap(flow, begin)
            found[f"gap {name}"] = gap
            found[f"gap {name}, from the address on"] = gap - change
        return found | turns(lab.record().transmissions(), configured)


def _carries(flow: Flow) -> bool:
    return sum(at is not None for at in flow.delivered[-100:]) > 50


def longest_gap(flow: Flow, since: float) -> float:
    """The longest time between two arrivals, the first one not long before a moment, s."""
    times = sorted(at for at in flow.delivered if at is not None and at > since - 0.5)
    return max(after - before for before, after in pairwise(times))


def turns(transmissions: Sequence[Transmission], since: float) -> dict[str, float]:
    """How long each host in the chain took to send what the arrival before made it send, s."""
    found: dict[str, float] = {}
    came = since
    for kind, sender in CHAIN:
        one = next(
            t
            for t in transmissions
            if (t.kind, t.sender) == (kind, sender) and t.sent >= came and _in_chain(t)
        )
        assert one.received is not None, kind
        found[f"turn: {sender} sends {kind}"] = one.sent - came
        came = one.received
    return found


def _in_chain(one: Transmission) -> bool:
    """Step 2' and 7, not 2 and 3, which take no part."""
    return one.ipv4 and (one.kind != "HA Notify" or one.receiver == "CN")


def main() -> None:
    """Print medians and worst of so many runs beside the bound."""
    repeats, milliseconds = (int(one) for one in (*sys.argv[1:], *("5", "20")[len(sys.argv) - 1 :]))
    runs = [one_run(milliseconds / 1e3) for _ in range(repeats)]
    bound = EXCHANGES_OF_A_GAP * milliseconds
    sys.stdout.write(
        f"{milliseconds} ms one way; the message exchange takes {bound} ms at least from the"
        f" address on, {bound + milliseconds} ms until what MN sends has arrived\n"
    )
    for name in runs[0]:
        values = [one[name] * 1e3 for one in runs]
        middle, worst = statistics.median(values), max(values)
        beyond = ""
        if name.startswith("gap"):
            beyond = f"; beyond the bound: {middle - bound:6.1f} ms, {worst - bound:6.1f} ms"
        line = f"{name:36} median {middle:6.1f} ms, worst {worst:6.1f} ms{beyond}\n"
        sys.stdout.write(line)


if __name__ == "__main__":
    main()
