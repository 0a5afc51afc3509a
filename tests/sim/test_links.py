"""Links with a rate and a queue: when packets arrive, which are dropped, and what theory says.

Where a test is of single packets, it plays the queue again by itself, packet by packet, from the
times at which they were sent (`Replay`), and compares all arrivals.
"""

import functools
import itertools
import math
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mat_files.distributions import Constant
from mat_files.ladder import LadderMessage
from mat_files.results import Results
from mat_files.scenario import (
    About,
    Correspondents,
    MobilitySystem,
    Network,
    Nodes,
    Scenario,
    Traffic,
)
from mat_sim.engine import Run, simulate
from mat_sim.engine._capacity import Transmitter
from mat_sim.engine._clock import NEVER, Clock
from mat_sim.engine._host import Host
from mat_sim.study import Statistic, steady_state
from mat_sim.theory import md1_wait, md1k_loss, queue_length
from tests.sim import test_baseline_runs as baselines
from tests.sim.test_engine import (
    CROWD,
    HARD,
    IMS_MN,
    SETUP,
    SHARED,
    SOFT,
    A,
    B,
    finished_world,
    handovers,
    records,
    run,
    scenario,
    sent,
)
from tests.sim.test_queueing import BATCHES, LENGTH, RUNS, Measured

MS = 0.001
SIZE = 1000
RATE = SIZE * 8 / MS
"""At which a packet takes a millisecond, bit/s."""
NEAR, FAR = 0.005, 0.020


def still(
    *,
    up: float = 0.0,
    down: float = 0.0,
    nodes: int = 1,
    network: Network | None = None,
    fixed: Correspondents | None = None,
    duration: float = 10.0,
    kind: Any = "cbr",
) -> Scenario:
    """Nodes that do not move, nor send anything but data: from A to a correspondent, and back."""
    return Scenario(
        format=1,
        scenario=About(name="link", duration=duration, system="none", interval=1.0),
        nodes=Nodes(count=nodes),
        network=(network or Network(name="A", delay=Constant(NEAR)),),
        correspondents=fixed or Correspondents(delay=Constant(FAR)),
        traffic=Traffic(up=up, down=down, size=SIZE, kind=kind),
    )


def limited(rate: float = RATE, queue: int = 100, loss: float = 0.0) -> Network:
    return Network(name="A", delay=Constant(NEAR), rate=rate, queue=queue, loss=loss)


def load(results: Results, link: str, direction: str, column: str) -> Any:
    """The sum of a column over the rows of one direction of a link."""
    rows = records(results.links)
    return sum(row[column] for row in rows if (row["link"], row["direction"]) == (link, direction))


# --- a transmitter --------------------------------------------------------------------------------


def transmitter(queue: int, end: float = 10.0) -> tuple[Clock, Transmitter]:
    clock = Clock(end)
    return clock, Transmitter(clock, RATE, queue, 1.0)


@pytest.mark.parametrize("queue", [0, 1, 3, 100])
def test_of_a_burst_one_is_sent_so_many_wait_and_the_rest_is_dropped(queue: int) -> None:
    _, link = transmitter(queue)
    ends = [link.send(SIZE) for _ in range(queue + 5)]
    assert ends[: queue + 1] == pytest.approx([(n + 1) * MS for n in range(queue + 1)], rel=1e-12)
    assert ends[queue + 1 :] == [NEVER] * 4
    (row, *_) = link.rows()
    assert (row["arrived"], row["dropped"]) == (queue + 5, 4)
    assert row["bytes"] == (queue + 1) * SIZE


def test_what_has_been_sent_to_the_last_bit_makes_room_at_that_moment() -> None:
    clock, link = transmitter(0)
    end = link.send(SIZE)
    clock.run(end / 2)
    assert link.send(SIZE) == NEVER
    clock.run(end)
    assert link.send(SIZE) == 2 * end


def test_packets_of_all_lengths_follow_each_other_without_a_gap() -> None:
    clock, link = transmitter(10)
    assert link.send(100) == pytest.approx(0.1 * MS)
    assert link.send(1500) == pytest.approx(1.6 * MS)
    clock.run(1 * MS)
    assert link.send(200) == pytest.approx(1.8 * MS)
    clock.run(5 * MS)
    assert link.send(200) == pytest.approx(5.2 * MS)


def test_the_load_lies_in_the_intervals_that_it_takes() -> None:
    clock, link = transmitter(10_000, end=3.5)
    for _ in range(1500):
        link.send(SIZE)
    clock.run(3.2)
    for _ in range(1000):
        link.send(SIZE)
    rows = list(link.rows())
    assert [(row["start"], row["interval"]) for row in rows] == [
        (0, 1),
        (1, 1),
        (2, 1),
        (3, pytest.approx(0.5)),
    ]
    assert [row["busy"] for row in rows] == pytest.approx([1, 0.5, 0, 0.6])
    # Of 1,500 at time 0, one leaves the queue every millisecond; of 1,000 at 3.2 s, 300 until 3.5.
    lengths = [1499 - 999 / 2, 499 * 500 / 2 / 1000, 0, (999 * 300 - 299 * 300 / 2) / 500]
    assert [row["queue_mean"] for row in rows] == pytest.approx(lengths)
    assert [row["arrived"] for row in rows] == [1500, 0, 0, 1000]
    assert [row["wait_max"] for row in rows] == [
        pytest.approx(1.499),
        None,
        None,
        pytest.approx(0.999),
    ]
    assert rows[0]["wait_mean"] == pytest.approx(1.499 / 2)


def test_a_link_that_nothing_comes_to_has_no_rows() -> None:
    results = simulate(still(up=5, network=limited())).results
    assert set(results.links["direction"]) == {"up"}
    assert len(results.links) == 10
    assert simulate(still(up=5)).results.links.empty


# --- packets in a run -----------------------------------------------------------------------------


class Replay:
    """A transmitter played again: packets in order of arrival, one at a time."""

    def __init__(self, rate: float, queue: int) -> None:
        self._rate = rate
        self._queue = queue
        self._here: deque[float] = deque()

    def leaves(self, arrival: float, size: int) -> float | None:
        """When a packet has been sent, or None if it is dropped."""
        while self._here and self._here[0] <= arrival:
            self._here.popleft()
        if len(self._here) > self._queue:
            return None
        begin = max([arrival, *self._here])
        self._here.append(begin + size * 8 / self._rate)
        return self._here[-1]


def arrivals(
    packets: Iterable[LadderMessage], hops: Sequence[tuple[Replay | None, float]]
) -> list[float | None]:
    """When packets arrive by hops of a transmitter and a delay each; None for those dropped."""
    times: list[float | None] = [one.sent for one in packets]
    for replay, delay in hops:
        times = [
            None
            if time is None
            else (time + delay if replay is None else _after(replay.leaves(time, SIZE), delay))
            for time in times
        ]
    return times


def _after(time: float | None, delay: float) -> float | None:
    return None if time is None else time + delay


def times_taken(finished: Run) -> list[float]:
    """How long packets took from leaving to arriving, s."""
    lines = (one for one in finished.recording if one.kind == "data")
    return [one.received - one.sent for one in lines if one.received is not None]


def data(finished: Run, *, to: str) -> list[LadderMessage]:
    """The packets to nodes whose names begin so, in order of sending."""
    found = (one for one in finished.recording if one.kind == "data" and one.to.startswith(to))
    return sorted(found, key=lambda one: one.sent)


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("limits", ["network", "correspondents", "both"])
def test_a_packet_takes_the_time_of_its_length_on_each_link_before_the_delay(
    direction: str, limits: str
) -> None:
    fixed = Correspondents(delay=Constant(FAR), rate=2 * RATE)
    made = still(
        up=1.0 if direction == "up" else 0.0,
        down=1.0 if direction == "down" else 0.0,
        network=limited() if limits != "correspondents" else None,
        fixed=fixed if limits != "network" else None,
    )
    finished = simulate(made, record=True)
    sending = {"network": MS, "correspondents": MS / 2, "both": 1.5 * MS}[limits]
    took = times_taken(finished)
    assert took == [pytest.approx(NEAR + FAR + sending, abs=1e-12)] * 9
    assert records(finished.results.flows)[0]["stretch_mean"] == 1


def test_every_packet_arrives_when_a_queue_played_again_says() -> None:
    """Five nodes share one way up, and a slower one on the other side, with room for 3."""
    slow = Correspondents(delay=Constant(FAR), rate=RATE / 1.2, queue=3)
    made = still(up=190, down=150, nodes=5, network=limited(queue=2), fixed=slow, kind="poisson")
    finished = simulate(made, record=True)
    for to, first, second in (
        ("CN", (RATE, 2, NEAR), (RATE / 1.2, 3, FAR)),
        ("MN", (RATE / 1.2, 3, FAR), (RATE, 2, NEAR)),
    ):
        packets = data(finished, to=to)
        hops = [(Replay(rate, queue), delay) for rate, queue, delay in (first, second)]
        expected = arrivals(packets, hops)
        received = [one.received for one in packets if one.sent < 9.9]
        assert received == [
            None if one is None else pytest.approx(one, abs=1e-9)
            for one in expected[: len(received)]
        ]
        assert 0.05 < received.count(None) / len(received) < 0.5
        came = [one for one in received if one is not None]
        assert came == sorted(came)


def test_a_rate_on_the_senders_side_takes_no_event() -> None:
    plain, queued, both = (
        simulate(still(up=100, network=network, fixed=fixed)).happenings
        for network, fixed in (
            (None, None),
            (limited(), None),
            (limited(), Correspondents(rate=RATE)),
        )
    )
    assert queued == plain
    assert both == pytest.approx(plain + 900, abs=5)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_lost_packets_have_taken_their_time_on_the_link(direction: str) -> None:
    made = still(
        up=500.0 if direction == "up" else 0.0,
        down=500.0 if direction == "down" else 0.0,
        network=limited(loss=0.2),
        duration=40,
    )
    results = simulate(made).results
    (flow,) = records(results.flows)
    # But for those before the look-up, and those that are on their way to the core at the end.
    assert load(results, "A", direction, "bytes") == pytest.approx(flow["sent"] * SIZE, abs=21e3)
    share = flow["lost"] / flow["sent"]
    assert share == pytest.approx(0.2, abs=3 * math.sqrt(0.2 * 0.8 / flow["sent"]))


def test_both_ends_on_one_network_take_its_link_up_and_down() -> None:
    made = still(up=10, network=limited(), fixed=Correspondents(network="A"))
    finished = simulate(made, record=True)
    took = times_taken(finished)
    assert took == [pytest.approx(2 * (NEAR + MS), abs=1e-12)] * 90
    for direction in ("up", "down"):
        assert load(finished.results, "A", direction, "arrived") == 90


# --- handovers ------------------------------------------------------------------------------------

STAYS = ", ".join(["0 m1 attach A", "0 m2 attach B", "10 m1 detach A", "10 m1 attach B"])
UPDATE, REPLY = 108 + 28, 52 + 28
"""Bytes of an IMS Update and its Reply, with UDP and IPv4 header."""


def test_a_handovers_message_waits_behind_data(tmp_path: Path) -> None:
    """The IMS Update meets a packet of a neighbour's, which takes 8 ms of every 10."""
    rate = 1_000_000.0
    overrides = (f"network.1.rate={rate}", "traffic.up=100", "traffic.down=0", "traffic.size=1000")
    waited: set[float] = set()
    for seed in range(1, 6):
        loaded = scenario(tmp_path, STAYS, *overrides, f"scenario.seed={seed}", ims=SHARED)
        finished = simulate(loaded, record=True)
        (row,) = handovers(finished)
        leaves = 10 + SETUP
        last = max(
            one.sent
            for one in finished.recording
            if one.from_ == "m2" and one.kind == "data" and one.sent <= leaves
        )
        wait = max(0.0, last + 8000 / rate - leaves)
        exchange = 2 * (B + IMS_MN) + (UPDATE + REPLY) * 8 / rate
        assert row["register"] == pytest.approx(wait + exchange, abs=1e-9)
        waited.add(wait)
    assert max(waited) > 0.001


def test_a_message_comes_to_the_queue_when_its_host_has_written_it(tmp_path: Path) -> None:
    """Data that left meanwhile is before it: at a packet every 4 ms, half a packet on average."""
    taken, rated = 0.006, ("network.1.rate=2e6", "traffic.up=250", "traffic.size=1000")

    def register(*more: str) -> float:
        (row,) = handovers(run(tmp_path, HARD, *rated, *more))
        return float(row["register"])

    # The packets have had their turn on the link, 4 ms each, and the next one is not there yet.
    assert register(f"nodes.processing={taken}") == pytest.approx(register() + taken, abs=0.0041)
    alone = ("traffic.up=0",)
    lag = register(*alone, f"nodes.processing={taken}") - register(*alone)
    assert lag == pytest.approx(taken, abs=1e-9)


def test_a_crowds_updates_find_the_queue_of_their_server_full(tmp_path: Path) -> None:
    """Eight at once: one is sent and two wait, so five are dropped, and sent again."""
    limit = ("ims.0.rate=50e3", "ims.0.link_queue=2", "traffic.pairs='none'")
    finished = run(tmp_path, CROWD, *limit, ims=SHARED)
    assert len(handovers(finished)) == 8
    lost = sent(finished, "IMS Update", "MN", "IMS", "lost")
    assert lost >= 5
    assert load(finished.results, "IMS", "down", "dropped") == lost
    assert load(finished.results, "IMS", "up", "dropped") == 0
    assert sent(finished, "IMS Update", "MN", "IMS", "retransmitted") >= lost
    assert all(row["outcome"] == "completed" for row in handovers(finished))


def test_packets_to_an_address_that_was_left_load_the_link_it_belongs_to(tmp_path: Path) -> None:
    overrides = ("network.0.rate=1e6", "scenario.interval=0.5")
    results = run(tmp_path, HARD, *overrides).results
    links = results.links[(results.links["link"] == "A") & (results.links["direction"] == "down")]
    after = int(links[links["start"] >= 10]["arrived"].sum())
    (row,) = records(results.handovers)
    # All that is lost goes there, but for what was on its last way to the node.
    assert row["lost_down"] - 2 <= after <= row["lost_down"] + 2
    assert after > 30


@pytest.mark.parametrize("moves", [HARD, SOFT])
def test_a_rate_without_end_is_as_none(tmp_path: Path, moves: str) -> None:
    huge = [f"{field}.rate=1e15" for field in ("network.0", "network.1", "correspondents", "ims.0")]
    one, other = (run(tmp_path, moves, *rates).results for rates in ((), huge))
    pd.testing.assert_frame_equal(one.handovers, other.handovers, check_exact=False, atol=1e-9)
    pd.testing.assert_frame_equal(one.messages, other.messages)
    pd.testing.assert_frame_equal(one.flows, other.flows, check_exact=False, atol=1e-9)


def test_who_is_established_knows_the_round_trip_that_others_measure(tmp_path: Path) -> None:
    rates = ("network.0.rate=50e3", "ims.0.rate=200e3", "traffic.up=0", "traffic.down=0")
    trips: list[float] = []
    for established in ("false", "true"):
        overrides = (*rates, "scenario.duration=5", f"traffic.established={established}")
        world = finished_world(scenario(tmp_path, "0 m1 attach A", *overrides, ims=SHARED))
        (node,) = (host for host in world._mobile if isinstance(host, Host))
        knowledge = node.machine.knowledge(world.clock.now)
        assert knowledge is not None
        ((_, trip),) = knowledge.own.round_trips
        trips.append(trip)
    assert trips[1] == pytest.approx(trips[0], rel=1e-9)
    bits = (UPDATE + REPLY) * 8
    assert trips[1] == pytest.approx(2 * (A + IMS_MN) + bits / 50e3 + bits / 200e3)


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "family"),
    [
        ("mat", 4),
        ("mat", 6),
        ("mobile-ipv4", 4),
        ("mobile-ipv6", 6),
        ("lin6", 6),
        ("mobile-ppc", 4),
    ],
)
def test_links_carry_what_the_messages_have_with_all_headers(
    tmp_path: Path, system: MobilitySystem, family: int
) -> None:
    rates = [f"network.{number}.rate=1e8" for number in range(2)]
    more = (*rates, f"nodes.family={family}", "traffic.up=50", "traffic.down=50")
    results = baselines.run(tmp_path, system, baselines.SOFT, *more).results
    of_node = results.messages[
        (results.messages["from_role"] == "MN") & (results.messages["type"] != "DNS query")
    ]
    links = results.links[results.links["direction"] == "up"]
    assert links["bytes"].sum() == of_node["ip_bytes"].sum()
    assert links["arrived"].sum() == of_node["sent"].sum()


REQUEST = ("Registration Request", "MN", "HA")


def test_a_tunnel_takes_its_header_from_the_link(tmp_path: Path) -> None:
    """Mobile IPv4: the home agent sends on with 20 bytes more what the correspondent sends."""
    rates = ("network.1.rate=1e6", "ims.0.rate=1e6", "traffic.up=0", "traffic.down=100")
    finished = baselines.run(tmp_path, "mobile-ipv4", baselines.HARD, *rates)
    links, size = finished.results, 200
    forwarded = baselines.load(finished, "forwarded")
    assert forwarded == pytest.approx(1100, abs=50)
    answers = sent(finished, "Registration Reply", "HA", "MN", "ip_bytes")
    assert load(links, "IMS", "up", "bytes") == forwarded * (size + 20) + answers
    requests = [
        sent(finished, "Registration Request", "MN", "HA", column)
        for column in ("sent", "ip_bytes")
    ]
    packets = load(links, "IMS", "down", "arrived") - requests[0]
    assert load(links, "IMS", "down", "bytes") == packets * size + requests[1]


# --- theory ---------------------------------------------------------------------------------------


def test_the_loss_of_md1k_is_that_of_its_embedded_chain() -> None:
    for load_, room in itertools.product((0.3, 0.8, 1.0, 1.7), (1, 2, 3, 6)):
        assert md1k_loss(load_ / MS, MS, room) == pytest.approx(_chain(load_, room), rel=1e-9)
    assert md1k_loss(500, MS, 1) == pytest.approx(1 / 3)


def _chain(load_: float, room: int) -> float:
    """By what a departure leaves behind, of 0 to K − 1 (Kleinrock, 5.3)."""
    came = [math.exp(-load_) * load_**n / math.factorial(n) for n in range(room)]
    left = [1.0]
    for state in range(room - 1):
        before = left[0] * came[state] + sum(
            left[one] * came[state - one + 1] for one in range(1, state + 1)
        )
        left.append((left[state] - before) / came[0])
    empty = left[0] / sum(left)
    return 1 - 1 / (empty + load_)


@functools.cache
def batches(utilisation: float, queue: int, direction: str) -> dict[str, Measured]:
    """Columns of the table after a warm-up, of Poisson traffic of packets of one length."""
    made = still(
        up=utilisation / MS if direction == "up" else 0.0,
        down=utilisation / MS if direction == "down" else 0.0,
        network=limited(queue=queue),
        duration=(1 + BATCHES) * LENGTH,
        kind="poisson",
    ).changed({"scenario.interval": LENGTH})
    tables = [simulate(made, run=number).results.links.iloc[1:] for number in range(RUNS)]
    joined = pd.concat(tables)
    assert len(joined) == RUNS * BATCHES
    names = ("arrived", "dropped", "busy", "wait_mean", "queue_mean")
    return {name: Measured(tuple(map(float, joined[name]))) for name in names}


@pytest.mark.parametrize("direction", ["up", "down"])
def test_waits_for_a_link_are_those_of_md1(direction: str) -> None:
    found = batches(0.7, 100_000, direction)
    assert found["wait_mean"].agrees(md1_wait(0.7 / MS, MS), within=0.25)
    assert found["busy"].agrees(0.7, within=0.03)
    for arrived, waited, length in zip(
        *(found[name].batches for name in ("arrived", "wait_mean", "queue_mean")), strict=True
    ):
        assert length == pytest.approx(queue_length(arrived / LENGTH, waited), rel=0.02)


@pytest.mark.parametrize(
    ("utilisation", "queue", "direction"), [(0.9, 3, "up"), (0.9, 3, "down"), (1.3, 5, "up")]
)
def test_a_queue_drops_what_md1k_loses(utilisation: float, queue: int, direction: str) -> None:
    found = batches(utilisation, queue, direction)
    pairs = zip(found["dropped"].batches, found["arrived"].batches, strict=True)
    share = Measured(tuple(lost / all_ for lost, all_ in pairs))
    assert share.agrees(md1k_loss(utilisation / MS, MS, 1 + queue), within=0.12)


# --- studies --------------------------------------------------------------------------------------


def test_statistics_are_of_links_too() -> None:
    made = still(up=100, down=100, network=limited(), duration=60, kind="poisson")
    results = simulate(made).results
    up = "link == 'A' and direction == 'up'"
    (busy,) = Statistic("busy", table="links", where=up).per_run(results)
    assert busy == pytest.approx(0.1, rel=0.1)
    found = steady_state(results, "wait_mean", table="links", where=up)
    assert found.estimate.value == pytest.approx(md1_wait(100, MS), rel=0.5)
    with pytest.raises(ValueError, match=r"several links; choose one with where=.link == 'A' and"):
        steady_state(results, "wait_mean", table="links")
