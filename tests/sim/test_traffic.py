"""Traffic: when packets leave, who talks to whom, and that doing without events changes nothing."""

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mat_files.distributions import Constant, Distribution, Exponential, Normal, Uniform
from mat_files.measure import interruption, losses
from mat_files.mobility import mobility
from mat_files.scenario import Scenario
from mat_sim.engine import Run, simulate
from mat_sim.engine._gauge import Gauge
from mat_sim.engine._host import Host
from mat_sim.engine._longest import longest
from mat_sim.engine._rhythm import OnOff, Poisson, Regular, Rhythm
from mat_sim.engine._simulation import _World
from tests.sim.test_engine import HARD, SOFT, handovers, run, scenario, sent

Moves: TypeAlias = list[tuple[float, int, str, str]]

# --- rhythms --------------------------------------------------------------------------------------


def rhythms(seed: int) -> Iterator[Rhythm]:
    yield Regular(0.3 + seed / 7, 0.02)
    yield Regular(1.25, 1 / 3)
    yield Poisson(0.5, 0.05, seed)
    yield OnOff(0.7, 0.03, Exponential(1), Exponential(2), Random(seed))
    yield OnOff(0.7, 0.5, Uniform(0, 1), Constant(0.1), Random(seed))
    yield OnOff(0.0, 0.25, Constant(1), Constant(0), Random(seed))


def one_by_one(rhythm: Rhythm, end: float) -> list[float]:
    times: list[float] = []
    while rhythm.next < end:
        times.append(rhythm.next)
        rhythm.advance()
        assert rhythm.number == len(times)
    return times


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", range(6))
def test_packets_at_once_are_those_one_by_one_to_the_last_bit(kind: int, seed: int) -> None:
    one, other, third = (list(rhythms(seed))[kind] for _ in range(3))
    expected = one_by_one(one, 100)
    random, stops = Random(seed), [0.0]
    while stops[-1] < 100:
        stops.append(min(100, stops[-1] + random.choice([0.01, 0.5, 7])))
    assert list(itertools.chain.from_iterable(map(other.until, stops))) == expected
    assert sum(map(third.skip, stops)) == len(expected)
    assert one.next == other.next == third.next
    assert one.number == other.number == third.number == len(expected)


def test_a_packet_at_the_very_time_is_still_to_come() -> None:
    rhythm = Regular(1.0, 0.5)
    assert rhythm.until(2.0) == [1.0, 1.5]
    assert rhythm.next == 2.0
    assert rhythm.skip(1.0) == 0
    assert rhythm.number == 2


def test_poisson_packets_have_exponential_distances() -> None:
    times = Poisson(0.0, 0.05, 4).until(1000)
    assert stats.kstest(np.diff(times), "expon", (0, 0.05)).pvalue > 0.01
    counts = np.histogram(times, 1000, (0, 1000))[0]
    assert counts.var() / counts.mean() == pytest.approx(1, abs=0.15)


def test_on_and_off_times_share_the_time_as_their_means_do() -> None:
    rhythm = OnOff(0.0, 0.02, Exponential(1), Exponential(3), Random(5))
    times = np.array(rhythm.until(20_000))
    # A packet at the begin of each time of sending, so half a spacing more than its length.
    assert len(times) == pytest.approx(20_000 / 4 * (1 + 0.01) / 0.02, rel=0.03)
    assert (np.diff(times) > 0.0201).sum() == pytest.approx(20_000 / 4, rel=0.05)


def test_a_rhythm_knows_its_pauses() -> None:
    regular, poisson = Regular(0, 0.1), Poisson(0, 0.1, 1)
    assert regular.steady_until(0.1) == math.inf
    assert regular.steady_until(0.09) == 0
    assert poisson.steady_until(4) == math.inf
    assert poisson.steady_until(3) == 0
    never = OnOff(0, 0.1, Constant(5), Uniform(1, 2), Random(1))
    assert never.steady_until(2.2) == math.inf
    assert never.steady_until(2) == 5


@pytest.mark.parametrize(
    "time", [Constant(0.1), Uniform(0.1, 0.3), Exponential(0.1), Normal(0.1, 0.05)]
)
def test_no_draw_is_longer_than_the_longest(time: Distribution) -> None:
    random = Random(1)
    assert max(time.sample(random) for _ in range(100_000)) <= longest(time) <= 40 * time.mean


# --- measures -------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_a_gauge_measures_what_the_definition_says(seed: int) -> None:
    random = Random(seed)
    sent = [0.1 * n + 0.03 for n in range(100)]
    delay = Uniform(0, random.choice([0.05, 0.5]))
    lost = random.choice([0, 0.1, 0.5, 1])
    begin = random.uniform(0, 8)
    end = random.uniform(begin, 10)
    delivered = [math.nan if random.random() < lost else one + delay.sample(random) for one in sent]
    arrivals = sorted(one for one in delivered if math.isfinite(one))
    # A handover begins or ends with a delivery.
    if arrivals and random.random() < 0.5:
        begin = random.choice(arrivals)
    if arrivals and random.random() < 0.5:
        end = random.choice(arrivals)
    begin, end = min(begin, end), max(begin, end)
    gauge = gauged(sent, delivered, begin, end)
    assert gauge.interruption(0.1) == interruption(np.array(delivered), begin, end, 0.1)
    assert gauge.lost == losses(np.array(sent), np.array(delivered), begin, end)


def gauged(sent: list[float], delivered: list[float], begin: float, end: float) -> Gauge:
    """Played in order of time; of one moment, the begin first and the end last."""
    came = [(time, number) for number, time in enumerate(delivered) if math.isfinite(time)]
    before = sorted(one for one in came if one[0] < begin)
    last = before[-1][0] if before else math.nan
    gauge = Gauge(begin, last, 1 + max((number for _, number in before), default=-1))
    rest = sorted(one for one in came if one[0] >= begin)
    for time, number in (one for one in rest if one[0] <= end):
        gauge.delivered(time, number)
    gauge.close(end, sum(one <= end for one in sent))
    for time, number in (one for one in rest if one[0] > end):
        gauge.delivered(time, number)
    return gauge


# --- who talks to whom ----------------------------------------------------------------------------

CROWD = ", ".join(f"0 m{n} attach {'AB'[n % 2]}" for n in range(12))


def peers_of(folder: Path, *overrides: str) -> dict[str, list[str]]:
    """Whom each host sends to."""
    described = scenario(folder, CROWD, "scenario.duration=2", *overrides)
    world = _World(described, mobility(described), 0, record=False)
    return {
        host.name: [flow.receiver for way, flow in host.flows if way == "up"]
        for host in world._hosts
        if host.flows
    }


def test_several_correspondents_each_are_those_from_its_own_on(tmp_path: Path) -> None:
    found = peers_of(tmp_path, "correspondents.count=5", "traffic.peers=3")
    assert found["m0"] == ["CN1", "CN2", "CN3"]
    assert found["m3"] == ["CN4", "CN5", "CN1"]
    assert found["CN1"] == ["m0", "m3", "m4", "m5", "m8", "m9", "m10"]


def test_random_peers_are_different_and_each_pair_counts_once(tmp_path: Path) -> None:
    options = ("traffic.pairs='random'", "traffic.peers=4", "traffic.among='mobile'")
    found = peers_of(tmp_path, *options)
    assert set(found) == {f"m{n}" for n in range(12)}
    for name, peers in found.items():
        assert name not in peers
        assert len(peers) == len(set(peers)) >= 4
        assert all(name in found[peer] for peer in peers)
    assert found != peers_of(tmp_path, *options, "scenario.seed=2")


def test_who_draws_all_gets_all(tmp_path: Path) -> None:
    options = ("traffic.pairs='random'", "traffic.peers=11", "traffic.among='mobile'")
    assert all(len(peers) == 11 for peers in peers_of(tmp_path, *options).values())


@pytest.mark.parametrize("peers", [1, 3])
def test_popularity_is_zipfs(tmp_path: Path, peers: int) -> None:
    """With one peer each, shares are known; with three, the popular are still the popular."""
    counts: Counter[str] = Counter()
    for seed in range(100):
        found = peers_of(
            tmp_path,
            "traffic.pairs='random'",
            f"traffic.peers={peers}",
            "traffic.among='correspondents'",
            "traffic.popularity=1",
            "correspondents.count=8",
            f"scenario.seed={seed}",
        )
        counts.update(peer for name, listed in found.items() if name[0] == "m" for peer in listed)
    assert sum(counts.values()) == 1200 * peers
    ranked = [counts[f"CN{n}"] for n in range(1, 9)]
    if peers == 1:
        expected = np.array([1 / n for n in range(1, 9)])
        assert stats.chisquare(ranked, expected * 1200 / expected.sum()).pvalue > 0.01
    assert ranked[0] > ranked[1] > ranked[3] > ranked[7]


@pytest.mark.parametrize("kind", ["cbr", "poisson", "onoff"])
def test_flows_are_as_heavy_as_their_rates_say(tmp_path: Path, kind: str) -> None:
    finished = run(
        tmp_path, CROWD, "scenario.duration=200", f"traffic.kind='{kind}'", "traffic.down=50",
        "traffic.events='changes'",
    )  # fmt: skip
    rows = finished.results.flows.set_index(["from_role", "to_role"])["sent"]
    share = 1.004 / (1.004 + 1.587) if kind == "onoff" else 1
    assert rows["MN", "CN"] / 12 / 199 == pytest.approx(100 * share, rel=0.1)
    assert rows["CN", "MN"] / 12 / 199 == pytest.approx(50 * share, rel=0.1)


@pytest.mark.parametrize("pairs", ["correspondent", "mobile", "random"])
def test_who_is_established_knows_all_its_peers(tmp_path: Path, pairs: str) -> None:
    options = ["traffic.established=true", f"traffic.pairs='{pairs}'", "correspondents.count=4"]
    if pairs != "mobile":
        options.append("traffic.peers=3")
    described = scenario(tmp_path, CROWD, "scenario.duration=5", *options)
    world = _World(described, mobility(described), 0, record=False)
    world.clock.run(0.001)
    for host in (host for host in world._hosts if host.flows):
        assert isinstance(host, Host)
        peers = {flow.peer(way) for way, flow in host.flows}
        assert set(host.partners) == peers
        assert {peer.home_address for peer in host.machine.peers()} == peers


@pytest.mark.parametrize("pairs", ["correspondent", "mobile", "random"])
def test_established_pairs_know_each_other_whoever_they_are(tmp_path: Path, pairs: str) -> None:
    options = [
        "traffic.established=true",
        "dns.ttl=3600",
        "traffic.start=0",
        f"traffic.pairs='{pairs}'",
    ]
    if pairs != "mobile":
        options += ["traffic.peers=3", "correspondents.count=4"]
    finished = run(tmp_path, CROWD, "scenario.duration=5", *options)
    rows = finished.results.flows
    # In flight at the end are at most two of each flow.
    assert ((rows["lost"] <= 2 * 12 * 3) & (rows["sent"] > 1000)).all()
    assert "HA Query" not in set(finished.results.messages["type"])


# --- without events: exactly the same -------------------------------------------------------------


def both(folder: Path, moves: str, *overrides: str, ims: str | None = None) -> tuple[Run, Run]:
    other = {} if ims is None else {"ims": ims}
    one, two = (
        run(folder, moves, *overrides, f"traffic.events='{events}'", **other)
        for events in ("packets", "changes")
    )
    return one, two


def assert_equal(one: Run, other: Run, about: str = "") -> None:
    """All results are the same; sums in another order in their first digits."""
    for table in ("handovers", "messages", "ims", "links"):
        pd.testing.assert_frame_equal(
            getattr(one.results, table),
            getattr(other.results, table),
            check_exact=True,
            obj=f"{table} {about}",
        )
    pd.testing.assert_frame_equal(one.results.flows, other.results.flows, rtol=1e-9, atol=0)


RATES = [0.02, 0.1, 1, 3, 10, 50, 100]


def movement(random: Random, nodes: int, duration: float, interfaces: int) -> str:
    """Any that makes sense: links lost, regained, changed, in any order and at any time."""
    rows: Moves = []
    for node in range(nodes):
        rows += walk(random, node, duration, interfaces)
    rows.sort(key=lambda row: row[0])
    return ", ".join(f"{time} m{node} {action} {network}" for time, node, action, network in rows)


def walk(random: Random, node: int, duration: float, interfaces: int) -> Moves:
    time, held = random.choice([0.0, 0.0, 0.5, 2.0]), [random.choice("ABC")]
    rows: Moves = [(time, node, "attach", held[0])]
    while True:
        step = random.choice([0.0, 0.2, 0.7, 3.0, 8.0, 20.0, 70.0])
        time = round(time + step + random.random(), 3)
        if time >= duration:
            return rows
        network = random.choice("ABC")
        if network in held and random.random() < 0.5:
            held.remove(network)
            rows.append((time, node, "detach", network))
            continue
        if network not in held and len(held) == interfaces:
            rows.append((time, node, "detach", held.pop(0)))
        if network in held:
            held.remove(network)
        held.append(network)
        rows.append((time, node, "attach", network))


def situation(seed: int) -> tuple[str, list[str]]:
    random = Random(seed)
    interfaces, duration = random.choice([1, 2]), random.choice([20, 60, 150])
    moves = movement(random, random.randint(1, 4), duration, interfaces)
    pairs = random.choice(["correspondent", "mobile", "random"])
    values: dict[str, Any] = {
        "scenario.duration": duration,
        "scenario.seed": seed,
        "nodes.interfaces": interfaces,
        "nodes.family": random.choice([4, 4, 6]),
        "correspondents.count": random.choice([3, 4]),
        "ims.0.service": random.choice([0, 0.001]),
        "traffic.pairs": f"'{pairs}'",
        "traffic.peers": 1 if pairs == "mobile" else random.choice([1, 2, 3]),
        "traffic.kind": random.choice(["'cbr'", "'cbr'", "'poisson'", "'onoff'"]),
        "traffic.up": random.choice([0, *RATES]),
        "traffic.down": random.choice([0, *RATES]),
        "traffic.established": random.choice(["true", "false"]),
    }
    rarely = {
        "protocol.peer_idle_time": 5,
        "protocol.registration_lifetime": 30,
        "network.0.lease": 20,
        "correspondents.network": "'A'",
        "traffic.off": "{exponential = 20}",
        "network.0.rate": random.choice([60_000, 1_000_000]),
        "network.2.rate": random.choice([60_000, 1_000_000]),
        "ims.0.rate": 20_000,
        "correspondents.rate": 500_000,
    }
    values |= {key: value for key, value in rarely.items() if random.random() < 0.2}
    return moves, [f"{key}={value}" for key, value in values.items()]


@pytest.mark.parametrize("seeds", [range(start, start + 10) for start in range(0, 60, 10)])
def test_results_without_events_are_those_with_events(tmp_path: Path, seeds: range) -> None:
    for seed in seeds:
        moves, overrides = situation(seed)
        one, other = both(tmp_path, moves, *overrides)
        assert_equal(one, other, about=f"seed {seed}")


@pytest.mark.parametrize("kind", ["cbr", "poisson", "onoff"])
@pytest.mark.parametrize("moves", [HARD, SOFT], ids=["hard", "soft"])
def test_a_long_run_takes_as_many_events_as_there_are_changes(
    tmp_path: Path, moves: str, kind: str
) -> None:
    one, other = both(
        tmp_path, moves, "scenario.duration=300", f"traffic.kind='{kind}'", "traffic.up=200"
    )
    assert_equal(one, other)
    assert one.happenings > 30 * other.happenings


def test_a_gap_in_coverage_takes_no_events_either(tmp_path: Path) -> None:
    """Up, the node's machine holds packets; down, they go nowhere."""
    moves = "0 m1 attach A, 10 m1 detach A, 200 m1 attach B, 400 m1 detach B"
    one, other = both(tmp_path, moves, "scenario.duration=410")
    assert_equal(one, other)
    (row,) = handovers(other)
    assert row["lost_up"] > 15_000
    assert row["lost_down"] > 15_000
    assert one.happenings > 30 * other.happenings


def test_nodes_that_know_nobody_and_have_no_address_drop_without_events(tmp_path: Path) -> None:
    moves = "0 m1 attach A, 0 m2 attach A, 0.5 m1 detach A, 300 m1 attach A"
    options = ("scenario.duration=301", "nodes.interfaces=1", "traffic.start=3", "traffic.down=0")
    one, other = both(tmp_path, moves, *options)
    assert_equal(one, other)
    assert other.happenings < one.happenings / 50


def test_correspondents_with_many_peers_do_as_they_would_with_events(tmp_path: Path) -> None:
    """More than are told of one by one: nodes move, pause and come back."""
    moves = CROWD + ", " + ", ".join(
        f"{10 + n} m{n} {action}" for n in range(12) for action in ("detach A", "attach C")
        if n % 2 == 0
    )  # fmt: skip
    moves = ", ".join(sorted(moves.split(", "), key=lambda row: float(row.split()[0])))
    options = ("scenario.duration=150", "nodes.interfaces=1", "protocol.registration_lifetime=40")
    one, other = both(tmp_path, moves, *options, "ims.0.service=0.002", "ims.1.service=0.002")
    assert_equal(one, other)


@pytest.mark.parametrize("seed", range(3))
def test_peers_are_told_in_the_order_of_packets_that_were_held(tmp_path: Path, seed: int) -> None:
    """Which one is first makes a difference of a service time for each."""
    moves = movement(Random(seed), 4, 60, 1)
    one, other = both(
        tmp_path, moves, "scenario.duration=60", "traffic.peers=3", "correspondents.count=4",
        "correspondents.network='A'", "nodes.interfaces=1", "ims.0.service=0.003",
        "ims.1.service=0.003", "traffic.down=10", f"scenario.seed={seed}",
    )  # fmt: skip
    assert_equal(one, other)


def test_after_a_long_pause_packets_that_are_held_are_use_again(tmp_path: Path) -> None:
    """That puts off the next question about the peer, by a time that all draw from one stream."""
    moves = "0 m1 attach A, 0 m2 attach A, 30 m1 detach A, 120 m1 attach B"
    one, other = both(
        tmp_path, moves, "scenario.duration=150", "traffic.kind='onoff'", "traffic.on=3",
        "traffic.off={uniform = [2, 12]}", "protocol.peer_idle_time=5", "traffic.down=0",
        "protocol.registration_lifetime=600", "scenario.interval=0.1",
    )  # fmt: skip
    assert_equal(one, other)


def test_packets_to_a_peer_that_is_never_found_ask_for_it_again_and_again(tmp_path: Path) -> None:
    one, other = both(tmp_path, HARD, "scenario.duration=200", "ims.1.delay=100", "traffic.down=0")
    assert_equal(one, other)
    assert sent(other, "MA Query", "MN", "IMS_CN") > 10
    assert one.happenings > 5 * other.happenings


def test_a_ladder_diagram_shows_the_packets_all_the_same(tmp_path: Path) -> None:
    one, other = both(tmp_path, HARD, "scenario.duration=30")
    assert one.ladders == other.ladders
    assert any(line.kind == "data" for line in other.ladders["hard"][1])


def test_a_recording_has_every_packet(tmp_path: Path) -> None:
    recorded = [
        simulate(scenario(tmp_path, HARD, f"traffic.events='{events}'"), record=True).recording
        for events in ("packets", "changes")
    ]
    assert recorded[0] == recorded[1]


# --- without events: the same in distribution -----------------------------------------------------


def many_handovers(events: str, folder: Path, *overrides: str) -> Run:
    """30 nodes go to and fro, 20 times each, never two at a time."""
    rows = [f"0 m{n} attach A" for n in range(30)]
    for turn, node in itertools.product(range(20), range(30)):
        here, there = "AB" if turn % 2 == 0 else "BA"
        time = round(10 + 12 * turn + 0.31 * node, 2)
        rows += [f"{time} m{node} detach {here}", f"{time} m{node} attach {there}"]
    rows.sort(key=lambda row: float(row.split()[0]))
    return run(
        folder, ", ".join(rows), "scenario.duration=262", "nodes.interfaces=1",
        f"traffic.events='{events}'", *overrides, "traffic.up=50", "traffic.down=50",
    )  # fmt: skip


CHANCE = {
    "delay": ["network.0.delay={exponential = 0.02}", "network.1.delay={uniform = [0.001, 0.08]}"],
    "normal": [
        "network.0.delay={normal = [0.03, 0.02]}",
        "correspondents.delay={exponential=0.01}",
    ],
    "loss": ["network.0.loss=0.03", "network.1.loss=0.1"],
    "both": ["network.0.delay={exponential = 0.02}", "network.1.loss=0.2"],
}


@pytest.mark.parametrize("chance", CHANCE)
def test_with_chance_results_are_the_same_in_distribution(tmp_path: Path, chance: str) -> None:
    one, other = (
        many_handovers(events, tmp_path, *CHANCE[chance]) for events in ("packets", "changes")
    )
    for column in ("interruption_up", "interruption_down", "lost_up", "lost_down", "first_packet"):
        a, b = (finished.results.handovers[column].dropna() for finished in (one, other))
        assert stats.ks_2samp(a, b).pvalue > 0.01, column
    flows, others = (finished.results.flows for finished in (one, other))
    assert list(flows["sent"]) == list(others["sent"])
    assert list(flows["delay_mean"]) == pytest.approx(list(others["delay_mean"]), rel=0.02)
    # Most are lost in interruptions, whose lengths differ between seeds by as much as this.
    assert list(flows["lost"]) == pytest.approx(list(others["lost"]), rel=0.1)
    assert one.happenings > 10 * other.happenings


@pytest.mark.parametrize("events", ["packets", "changes"])
def test_chance_on_a_link_is_as_the_scenario_says(tmp_path: Path, events: str) -> None:
    """Counted in bulk or one by one, within three standard errors of what theory says."""
    loss, mean = 0.1, 0.02
    finished = run(
        tmp_path, ", ".join(f"0 m{n} attach A" for n in range(10)), "scenario.duration=200",
        f"network.0.loss={loss}", f"network.0.delay={{exponential = {mean}}}",
        "traffic.established=true", "traffic.start=0", f"traffic.events='{events}'",
        "traffic.up=20", "traffic.down=20", "protocol.registration_lifetime=600",
    )  # fmt: skip
    for sent_, lost in finished.results.flows[["sent", "lost"]].to_numpy().tolist():
        # Up to two packets of each flow are under way at the end.
        assert abs(lost - loss * sent_) < 3 * math.sqrt(sent_ * loss * (1 - loss)) + 20
    for delivered, delay in finished.results.flows[["delivered", "delay_mean"]].to_numpy().tolist():
        assert abs(delay - (mean + 0.004)) < 3 * mean / math.sqrt(delivered)


def test_equal_seeds_give_equal_results_without_events(tmp_path: Path) -> None:
    one, other = (many_handovers("changes", tmp_path, *CHANCE["both"]) for _ in range(2))
    assert_equal(one, other)


def test_every_run_of_a_scenario_draws_anew(tmp_path: Path) -> None:
    described: Scenario = scenario(
        tmp_path, HARD, "traffic.kind='poisson'", "traffic.events='changes'"
    )
    first, second = (simulate(described, run=number).results.flows["sent"] for number in (0, 1))
    assert (first != second).any()
