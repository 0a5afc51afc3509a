"""The model around an IMS: service by type, the store, many IMS, their load, and the DNS."""

import random
import re
from pathlib import Path

import numpy as np
import pytest

from mat.address import Address
from mat.messages import HaNotify, HaQuery, ImsUpdate, MaAnswer, MaQuery
from mat_files.errors import ScenarioError
from mat_files.scenario import Scenario, load_scenario
from mat_sim.engine import Run, simulate
from mat_sim.engine._sketch import ERROR, Sketch
from tests.files.test_traces import write
from tests.sim.test_engine import (
    CN,
    CROWD,
    DNS,
    DNS_SERVICE,
    HARD,
    IMS_CN,
    IMS_MN,
    SEPARATE,
    A,
    B,
    Row,
    finished_world,
    handovers,
    parquet,
    records,
    run,
    scenario,
    sent,
)

STEADY = """format = 1
[scenario]
name = "steady"
duration = 10
[nodes]
count = 1
[[network]]
name = "A"
[traffic]
pairs = "none"
"""
UPDATE = 2 * (B + IMS_MN)
"""Round trip of an IMS Update, s."""


def steady(folder: Path, *overrides: str, more: str = "") -> Scenario:
    return load_scenario(write(folder / "s.toml", STEADY + more), overrides)


def loads(finished: Run) -> dict[str, Row]:
    """The last row of each IMS."""
    return {row["ims"]: row for row in records(finished.results.ims)}


def received(finished: Run) -> dict[str, int]:
    return {
        str(name): int(total)
        for name, total in finished.results.ims.groupby("ims")["received"].sum().items()
    }


# --- service --------------------------------------------------------------------------------------


def test_each_type_of_message_takes_its_time(tmp_path: Path) -> None:
    (row,) = handovers(
        run(
            tmp_path,
            HARD,
            "ims.0.services={update = 0.003, query = 0.002}",
            "ims.1.services={notify = 0.004, answer = 0.005}",
        )
    )
    assert row["register"] == pytest.approx(UPDATE + 0.003, abs=1e-9)
    notify = 2 * (B + IMS_CN) + 2 * (IMS_CN + IMS_MN) + 0.004 + 0.002 + 0.005
    assert row["notify"] == pytest.approx(notify, abs=1e-9)


def test_a_type_without_a_time_of_its_own_takes_that_of_all(tmp_path: Path) -> None:
    options = ("ims.0.service=0.001", "ims.0.services={query = 0.002}")
    (row,) = handovers(run(tmp_path, HARD, *options))
    assert row["register"] == pytest.approx(UPDATE + 0.001, abs=1e-9)


def test_every_type_that_an_ims_gets_may_have_a_time(tmp_path: Path) -> None:
    times = "{update = 1, query = 2, notify = 3, ha_query = 4, answer = 5}"
    world = finished_world(scenario(tmp_path, "0 m1 attach A", f"ims.0.services={times}"))
    here = Address(bytes(16))
    messages = (
        ImsUpdate(1, here, (), 1, 1),
        MaQuery(1, here),
        HaNotify(1, here, here),
        HaQuery(1, here),
        MaAnswer(1, 0, here, (), 1, 1),
    )
    assert [world._stations[0].time_for(message) for message in messages] == [1, 2, 3, 4, 5]


# --- the store ------------------------------------------------------------------------------------


def registered(finished: Run) -> list[float]:
    """Times from the arrival of an update at the IMS until it was durable."""
    return sorted(row["register"] - UPDATE for row in handovers(finished))


def test_each_update_is_stored_for_itself(tmp_path: Path) -> None:
    found = registered(run(tmp_path, CROWD, "ims.0.store=0.02"))
    assert found == pytest.approx([0.02] * 8, abs=1e-9)


def test_what_comes_during_a_commit_is_the_next_group(tmp_path: Path) -> None:
    """Eight at once: the first is alone, the others wait for it and go together."""
    found = registered(run(tmp_path, CROWD, "ims.0.store=0.02", "ims.0.group_commit=true"))
    assert found == pytest.approx([0.02] + [0.04] * 7, abs=1e-9)


def test_an_update_waits_for_what_is_left_of_the_commit_before(tmp_path: Path) -> None:
    moves = "0 m1 attach A, 0 m2 attach A, 0 m3 attach A, 10 m1 detach A, 10 m1 attach B,"
    moves += "10.005 m2 detach A, 10.005 m2 attach B, 10.021 m3 detach A, 10.021 m3 attach B"
    found = registered(run(tmp_path, moves, "ims.0.store=0.02", "ims.0.group_commit=true"))
    assert found == pytest.approx([0.02, 0.02 + 0.015, 0.02 + 0.019], abs=1e-9)


def test_a_response_lasts_until_the_update_is_durable(tmp_path: Path) -> None:
    options = ("ims.0.service=0.001", "ims.0.store=0.02", "traffic.pairs='none'")
    finished = run(tmp_path, "0 m1 attach A", "scenario.interval=20", *options)
    assert loads(finished)["IMS_MN"]["response_mean"] == pytest.approx(0.021, abs=1e-9)


def test_a_response_that_another_ims_takes_part_in_is_not_counted(tmp_path: Path) -> None:
    options = ("ims.1.service=0.001", "ims.1.services={answer = 0.005}")
    finished = run(tmp_path, HARD, "scenario.interval=20", *options)
    row = loads(finished)["IMS_CN"]
    assert sent(finished, "HA Notify Ack", "IMS_CN", "MN") == 2
    assert row["response_mean"] == pytest.approx(0.001, abs=1e-9)


# --- many IMS -------------------------------------------------------------------------------------


def shared(count: int, *options: str) -> str:
    return "\n".join(['[[ims]]\nname = "IMS"', f"count = {count}", *options, ""])


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("count", [1, 3, 4, 16])
def test_several_ims_share_the_nodes_equally(tmp_path: Path, count: int, family: int) -> None:
    moves = ", ".join(f"0 m{n} attach A" for n in range(48))
    ims = shared(count, 'serves = "mobile"') + '[[ims]]\nname = "CNS"\nserves = "correspondents"\n'
    options = ("traffic.pairs='none'", f"nodes.family={family}")
    finished = run(tmp_path, moves, *options, ims=ims)
    held = {name: row["mappings"] for name, row in loads(finished).items() if name != "CNS"}
    names = [f"IMS{n}" for n in range(1, count + 1)] if count > 1 else ["IMS"]
    assert held == dict.fromkeys(names, 48 // count)


@pytest.mark.parametrize("count", [2, 4])
def test_handovers_between_nodes_of_several_ims_are_completed(tmp_path: Path, count: int) -> None:
    options = ("traffic.pairs='mobile'", "correspondents.count=0")
    finished = run(tmp_path, CROWD, *options, ims=shared(count))
    assert [row["outcome"] for row in handovers(finished)] == ["completed"] * 8
    between = [
        row
        for row in records(finished.results.messages)
        if row["type"] == "MA Query" and row["from_role"].startswith("IMS")
    ]
    assert between, "somebody's peer is at another IMS"


def test_pairs_have_the_same_ims_as_often_as_chance_has_it(tmp_path: Path) -> None:
    """Neither always nor never, although nodes talk to each other in turn."""
    moves = ", ".join(f"0 m{n} attach A" for n in range(1000))
    loaded = scenario(tmp_path, moves, "traffic.pairs='none'", ims=shared(4))
    world = finished_world(loaded.changed({"scenario.duration": 0.001}))
    homes = [world._zones.find(host.home) for host in world._mobile]
    same = sum(one == other for one, other in zip(homes[::2], homes[1::2], strict=True))
    assert 90 < same < 160


def test_each_of_several_ims_may_have_replicas(tmp_path: Path) -> None:
    finished = run(tmp_path, HARD, ims=shared(2, "replicas = 2"))
    assert set(loads(finished)) == {"IMS1", "IMS1#2", "IMS2", "IMS2#2"}
    assert [row["outcome"] for row in handovers(finished)] == ["completed"]


@pytest.mark.parametrize(
    ("ims", "options", "expected"),
    [
        (
            shared(2, 'serves = ["10.0.0.0/12", "10.16.0.0/12", "correspondents"]'),
            (),
            "FILE:LINE: ims.0.count: is 2, but serves names prefixes, among which nodes are not",
        ),
        (
            shared(2, 'serves = "mobile"') + '[[ims]]\nname = "IMS2"\nserves = "correspondents"\n',
            (),
            'FILE:LINE: ims: make a second "IMS2", by name and count; set another name',
        ),
        (shared(65), (), "FILE:LINE: ims.0.count: is 65; must be 64 or less"),
        (
            shared(8),
            ("nodes.home_prefix='10.0.0.0/26'", "nodes.count=41"),
            "--set nodes.home_prefix='10.0.0.0/26': nodes.home_prefix: is 10.0.0.0/26, too small",
        ),
    ],
)
def test_what_several_ims_cannot_share_is_an_error(
    tmp_path: Path, ims: str, options: tuple[str, ...], expected: str
) -> None:
    with pytest.raises(ScenarioError) as caught:
        scenario(tmp_path, HARD, *options, ims=ims)
    assert re.sub(r".*s\.toml:\d+", "FILE:LINE", str(caught.value)).startswith(expected)


# --- rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("duration", "interval"), [(0.3, 0.1), (5, 0.1), (20, 0.2), (40, 0.5), (600, 10), (1e6, 10)]
)
def test_the_interval_follows_the_duration(
    tmp_path: Path, duration: float, interval: float
) -> None:
    assert steady(tmp_path).interval(duration) == interval
    assert steady(tmp_path, "scenario.interval=0.25").interval(duration) == 0.25


@pytest.mark.parametrize(("duration", "interval"), [(5, 0.1), (10.07, 0.25), (3, 7), (0.7, 0.1)])
def test_rows_cover_the_run_without_gap(tmp_path: Path, duration: float, interval: float) -> None:
    times = (f"scenario.duration={duration}", f"scenario.interval={interval}")
    load = ("background.nodes=100", "background.query=2")
    rows = records(simulate(steady(tmp_path, *times, *load)).results.ims)
    ends = [row["start"] + row["interval"] for row in rows]
    assert [row["start"] for row in rows[1:]] == pytest.approx(ends[:-1])
    assert ends[-1] == pytest.approx(duration)
    assert {row["mappings"] for row in rows[2:]} <= {101, 102}
    busy = sum(row["busy"] * row["interval"] for row in rows)
    assert busy == pytest.approx(sum(row["received"] for row in rows) * 5e-5, abs=1e-4)


def test_a_queue_that_stands_is_counted_in_every_interval(tmp_path: Path) -> None:
    options = ("ims.0.service=30", "scenario.interval=1", "protocol.initial_timeout=30")
    finished = run(tmp_path, CROWD, *options, "traffic.pairs='none'")
    rows = [row for row in records(finished.results.ims) if row["ims"] == "IMS_MN"]
    assert [row["queue_max"] for row in rows[2:10]] == [7] * 8
    assert [row["queue_mean"] for row in rows[2:10]] == pytest.approx([7.0] * 8)
    assert rows[-1]["queue_mean"] == pytest.approx(rows[-1]["queue_max"])
    assert rows[-1]["queue_max"] > 7


def test_too_many_rows_are_an_error(tmp_path: Path) -> None:
    options = ("scenario.duration=1e6", "scenario.interval=0.01")
    with pytest.raises(ScenarioError, match="makes 100000000 rows for each IMS; at most 1000000"):
        steady(tmp_path, *options)


@pytest.mark.parametrize("count", [1, 2, 100, 20_000])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99, 1.0])
def test_a_quantile_is_off_by_a_hundredth_at_most(count: int, share: float) -> None:
    stream = random.Random(count)
    values = [stream.lognormvariate(-7, 3) for _ in range(count)]
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    right = float(np.quantile(values, share, method="lower"))
    assert sketch.quantile(share) == pytest.approx(right, rel=1.0001 * ERROR)
    assert (sketch.count, sketch.greatest) == (count, max(values))
    assert sketch.mean == pytest.approx(np.mean(values))


def test_waits_of_nothing_have_quantiles_of_nothing() -> None:
    sketch = Sketch()
    assert (sketch.mean, sketch.quantile(0.5)) == (None, None)
    for value in (0.0, 0.0, 0.0, 1.0):
        sketch.add(value)
    assert sketch.quantile(0.5) == 0
    assert sketch.quantile(1.0) == pytest.approx(1.0, rel=ERROR)


# --- the load of others ---------------------------------------------------------------------------

BUSY = ("background.nodes=1000", "background.query=0.3", "background.update=0.2")


def test_a_background_requests_at_its_rates(tmp_path: Path) -> None:
    finished = simulate(steady(tmp_path, *BUSY, "background.notify=0.1"))
    for kind, rate in (("MA Query", 300), ("IMS Update", 200), ("HA Notify", 100)):
        count = sent(finished, kind, "background", "IMS")
        assert abs(count - 10 * rate) < 4 * (10 * rate) ** 0.5
    assert sum(row["refused"] for row in records(finished.results.ims)) == 0
    assert loads(finished)["IMS"]["mappings"] == 1002


def test_requests_of_a_background_are_answered_by_the_real_machine(tmp_path: Path) -> None:
    finished = simulate(steady(tmp_path, *BUSY, "background.notify=0.1"))
    pairs = {
        "MA Query": "MA Answer",
        "IMS Update": "IMS Update Reply",
        "HA Notify": "HA Notify Ack",
    }
    for request, answer in pairs.items():
        asked = sent(finished, request, "background", "IMS", "delivered")
        assert asked - 20 <= sent(finished, answer, "IMS", "background") <= asked


def test_an_update_of_a_background_is_a_move(tmp_path: Path) -> None:
    world = finished_world(steady(tmp_path, "background.nodes=5", "background.update=1"))
    background, store = world._background, world._stations[0].store
    assert background is not None
    for node, home in enumerate(background._homes):
        held = store.by_home(home)
        assert held is not None
        assert held.version in (background._versions[node], background._versions[node] - 1)
        assert held.version > 1


def test_every_replica_hears_of_an_update_and_one_of_a_query(tmp_path: Path) -> None:
    finished = simulate(steady(tmp_path, *BUSY, "ims.0.replicas=2", more='[[ims]]\nname = "I"\n'))
    one, other = (sent(finished, "IMS Update", "background", name) for name in ("I", "I#2"))
    assert one == other > 1800
    asked = [sent(finished, "MA Query", "background", name) for name in ("I", "I#2")]
    assert sum(asked) == pytest.approx(3000, abs=220)
    assert min(asked) > 1300


def test_notices_between_two_ims_make_them_ask_each_other(tmp_path: Path) -> None:
    options = ("background.nodes=1000", "background.notify=0.1", "ims.0.count=2")
    finished = simulate(steady(tmp_path, *options, more='[[ims]]\nname = "I"\n'))
    noticed = sent(finished, "HA Notify", "background", "I1")
    asked = sent(finished, "MA Query", "I1", "I2")
    assert asked == pytest.approx(noticed / 2, rel=0.2)
    assert sum(row["refused"] for row in records(finished.results.ims)) == 0


def test_a_background_is_shared_among_several_ims(tmp_path: Path) -> None:
    finished = simulate(steady(tmp_path, *BUSY, more=shared(4)))
    arrived = received(finished)
    assert sorted(arrived) == ["IMS1", "IMS2", "IMS3", "IMS4"]
    assert all(abs(count - 1250) < 160 for count in arrived.values())
    held = [row["mappings"] for row in loads(finished).values()]
    assert sum(held) == 1002
    assert min(held) >= 250


def test_a_background_delays_the_handovers_of_others(tmp_path: Path) -> None:
    load = ("background.nodes=1000", "background.query=0.97", "ims.0.service=0.001")
    starts = [f"0 m{n} attach A" for n in range(8)]
    moves = ", ".join([*starts, *(f"{10 + n} m{n} attach B" for n in range(8))])
    alone = handovers(run(tmp_path, moves, "ims.0.service=0.001"))
    beside = handovers(run(tmp_path, moves, *load))
    assert [row["from_moa"] for row in beside] == [row["from_moa"] for row in alone]
    assert sum(r["register"] for r in beside) > sum(r["register"] for r in alone) + 8 * 0.001


def test_equal_seeds_give_equal_bytes_with_a_background(tmp_path: Path) -> None:
    loaded = steady(tmp_path, *BUSY, "background.notify=0.1", more=shared(3, "replicas = 2"))
    first = parquet(simulate(loaded).results, tmp_path / "1")
    assert first == parquet(simulate(loaded).results, tmp_path / "2")
    assert not simulate(loaded, run=1).results.ims.equals(simulate(loaded).results.ims)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            ("background.nodes=5",),
            "background: has nodes that request nothing; give update, query or notify",
        ),
        (
            ("background.nodes=1", "background.notify=1"),
            "background.nodes: is 1, who has no peer to notify; must be 2 or more",
        ),
        (
            ("background.nodes=3000000", "background.query=1"),
            "nodes.home_prefix: is 10.0.0.0/11, too small for 3000001 nodes; give a shorter prefix",
        ),
        (("background.query=-1",), "background.query: is -1; must be 0 or more"),
    ],
)
def test_a_background_that_cannot_be_is_an_error(
    tmp_path: Path, options: tuple[str, ...], expected: str
) -> None:
    with pytest.raises(ScenarioError) as caught:
        steady(tmp_path, *options)
    assert expected in str(caught.value)


# --- the DNS --------------------------------------------------------------------------------------

RESOLVER = 0.001


def asked(finished: Run, asker: str) -> list[float]:
    """How long the DNS, or a resolver, took for each question of somebody."""
    return [
        message.received - message.sent
        for message in finished.recording
        if message.kind == "dns" and message.from_ == asker and message.received is not None
    ]


def test_a_resolver_tells_at_once_what_it_has_told_before(tmp_path: Path) -> None:
    moves = "0 m1 attach A, 5 m2 attach A, 8 m3 attach B"
    loaded = scenario(tmp_path, moves, f"dns.resolver={RESOLVER}", "nodes.start_attached=true")
    finished = simulate(loaded, record=True)
    miss, hit = 2 * RESOLVER + 2 * (A + DNS) + DNS_SERVICE, 2 * RESOLVER
    assert asked(finished, "m1") == pytest.approx([miss, miss], abs=1e-9)
    assert asked(finished, "m2") == pytest.approx([miss, hit], abs=1e-9)
    other = 2 * RESOLVER + 2 * (B + DNS) + DNS_SERVICE
    assert asked(finished, "m3") == pytest.approx([other, other], abs=1e-9)
    assert sent(finished, "DNS query", "MN", "resolver") == 6
    asking = ("MN", "CN", "IMS_MN", "IMS_CN")
    questions = sum(sent(finished, "DNS query", who, "resolver") for who in asking)
    assert sent(finished, "DNS query", "resolver", "DNS") == questions - 1
    assert sent(finished, "DNS answer", "DNS", "resolver") == questions - 1
    assert sent(finished, "DNS query", "MN", "DNS") == 0


def test_without_a_resolver_everybody_asks_the_dns(tmp_path: Path) -> None:
    finished = simulate(scenario(tmp_path, "0 m1 attach A, 5 m2 attach A"), record=True)
    assert asked(finished, "m2") == pytest.approx([2 * (A + DNS) + DNS_SERVICE] * 2, abs=1e-9)
    assert sent(finished, "DNS query", "MN", "DNS") == 4


def test_who_is_told_by_a_resolver_keeps_the_answer_as_long_as_that(tmp_path: Path) -> None:
    moves = "0 m1 attach A, 5 m2 attach A"
    world = finished_world(scenario(tmp_path, moves, f"dns.resolver={RESOLVER}", "dns.ttl=100"))
    (cn,) = world._fixed
    first, second = (host.cached[cn.home] for host in world._mobile if host.cached is not None)
    assert first == second < 102


def test_an_ims_has_a_resolver_too(tmp_path: Path) -> None:
    (row,) = handovers(run(tmp_path, HARD, "dns.ttl=0", f"dns.resolver={RESOLVER}"))
    look_up = 2 * RESOLVER + 2 * (IMS_CN + DNS) + DNS_SERVICE
    notify = 2 * (B + IMS_CN) + 2 * (IMS_CN + IMS_MN) + look_up
    assert row["notify"] == pytest.approx(notify, abs=1e-9)


def test_correspondents_share_a_resolver(tmp_path: Path) -> None:
    moves = "0 m1 attach A, 0 m2 attach B, 9 m1 detach A, 9 m1 attach B"
    options = ("correspondents.count=2", f"dns.resolver={RESOLVER}")
    finished = simulate(scenario(tmp_path, moves, *options, ims=SEPARATE), record=True)
    lengths = [*asked(finished, "CN1"), *asked(finished, "CN2")]
    miss = 2 * RESOLVER + 2 * (CN + DNS) + DNS_SERVICE
    assert lengths == pytest.approx([miss] * len(lengths), abs=1e-9)
