"""The engine: what a run measures is what its scenario says, to the last nanosecond."""

import os
import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
import pytest

from mat_files.errors import ScenarioError
from mat_files.mobility import mobility
from mat_files.results import Results
from mat_files.scenario import Scenario, load_scenario
from mat_files.schema import PARTS
from mat_sim.engine import Run, simulate
from mat_sim.engine._host import Host, Packet
from mat_sim.engine._pool import Pool
from mat_sim.engine._simulation import _World
from tests.files.test_traces import write

ROOT = Path(__file__).parents[2]
Row: TypeAlias = dict[str, Any]

# One-way delays to the core, s.
A, B, CN, IMS_MN, IMS_CN, DNS = 0.005, 0.010, 0.004, 0.006, 0.007, 0.008
DETECT, ASSOCIATE, ADDRESS, DNS_SERVICE, SPACING = 0.05, 0.1, 0.3, 0.001, 0.002
SETUP = DETECT + ASSOCIATE + ADDRESS
LEARN = B + CN + 2 * (CN + IMS_MN)
"""From the registration until the correspondent has learnt of it: steps 2' and 7."""

SEPARATE = f"""
[[ims]]
name = "IMS_MN"
serves = "mobile"
delay = {IMS_MN}
service = 0

[[ims]]
name = "IMS_CN"
serves = "correspondents"
delay = {IMS_CN}
service = 0
"""
SHARED = f"""
[[ims]]
name = "IMS"
delay = {IMS_MN}
service = 0
"""
SCENARIO = f"""format = 1

[scenario]
name = "test"
duration = 20

[movement]
events = "events.csv"

[nodes]
interfaces = 2

[[network]]
name = "A"
delay = {A}
detect = {DETECT}
association = {ASSOCIATE}
address = {ADDRESS}

[[network]]
name = "B"
delay = {B}
detect = {DETECT}
association = {ASSOCIATE}
address = {ADDRESS}

[[network]]
name = "C"
delay = {B}
detect = {DETECT}
association = {ASSOCIATE}
address = {ADDRESS}

[correspondents]
delay = {CN}

[dns]
delay = {DNS}
service = {DNS_SERVICE}

[traffic]
up = 100
down = 100
"""
HARD = "0 m1 attach A, 10 m1 detach A, 10 m1 attach B"
SOFT = "0 m1 attach A, 10 m1 attach B, 14 m1 detach A"
BACK = "0 m1 attach A, 10 m1 attach B, 15 m1 attach A"
CROWD = ", ".join(
    [f"0 m{n} attach A" for n in range(8)]
    + [f"10 m{n} {action}" for n in range(8) for action in ("detach A", "attach B")]
)
LEAVES = ", 18 m1 detach B"


def events(text: str) -> str:
    """Rows `t node action network [moa]`, separated by commas, as CSV."""
    rows = [[*row.split(), ""][:5] for row in text.split(",")]
    return "\n".join(["t,node,action,network,moa", *(",".join(row) for row in rows), ""])


def scenario(folder: Path, moves: str, *overrides: str, ims: str = SEPARATE) -> Scenario:
    write(folder / "events.csv", events(moves))
    return load_scenario(write(folder / "s.toml", SCENARIO + ims), overrides)


def run(folder: Path, moves: str, *overrides: str, ims: str = SEPARATE) -> Run:
    return simulate(scenario(folder, moves, *overrides, ims=ims))


def handovers(finished: Run) -> list[Row]:
    return records(finished.results.handovers)


def records(frame: pd.DataFrame) -> list[Row]:
    """Rows without their empty cells."""
    listed: Any = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{name: value for name, value in row.items() if value is not None} for row in listed]


def parts(row: Row) -> Row:
    return {name: row[name] for name in PARTS if name in row}


def sent(finished: Run, kind: str, sender: str, receiver: str, column: str = "sent") -> int:
    """A count of the table of messages; 0 where there is no row."""
    key = (kind, sender, receiver)
    return sum(
        int(row[column])
        for row in records(finished.results.messages)
        if (row["type"], row["from_role"], row["to_role"]) == key
    )


def data(finished: Run, column: str) -> int:
    rows = records(finished.results.messages)
    return sum(int(row[column]) for row in rows if row["type"] == "data")


# --- the sums -------------------------------------------------------------------------------------


def test_parts_of_a_hard_handover_are_the_sums_of_the_delays(tmp_path: Path) -> None:
    (row,) = handovers(run(tmp_path, HARD))
    register = 2 * (B + IMS_MN)
    notify = 2 * (B + IMS_CN) + 2 * (IMS_CN + IMS_MN)
    # Held packets leave with step 4', after LEARN and the way back.
    first = LEARN + 2 * (B + CN) - notify
    expected = dict(
        zip(PARTS, (0, DETECT, ASSOCIATE, ADDRESS, register, notify, first), strict=True)
    )
    assert first > 0
    assert parts(row) == pytest.approx(expected, abs=1e-9)
    assert row["total"] == pytest.approx(sum(expected.values()), abs=1e-9)
    assert (row["kind"], row["outcome"], row["time"]) == ("hard", "completed", 10)
    assert (row["from_network"], row["to_network"], row["peers"]) == ("A", "B", 1)


def test_notify_is_shorter_by_a_round_trip_where_both_share_an_ims(tmp_path: Path) -> None:
    (row,) = handovers(run(tmp_path, HARD, ims=SHARED))
    assert row["register"] == pytest.approx(2 * (B + IMS_MN), abs=1e-9)
    assert row["notify"] == pytest.approx(2 * (B + IMS_MN), abs=1e-9)
    assert row["first_packet"] == pytest.approx(LEARN + 2 * (B + CN) - row["notify"], abs=1e-9)


@pytest.mark.parametrize("ttl", [0, 3600])
def test_the_ims_asks_the_dns_unless_the_answer_is_cached(tmp_path: Path, ttl: int) -> None:
    (row,) = handovers(run(tmp_path, HARD, f"dns.ttl={ttl}"))
    look_up = 2 * (IMS_CN + DNS) + DNS_SERVICE if ttl == 0 else 0
    notify = 2 * (B + IMS_CN) + 2 * (IMS_CN + IMS_MN) + look_up
    assert row["notify"] == pytest.approx(notify, abs=1e-9)


def test_service_times_add_up(tmp_path: Path) -> None:
    (row,) = handovers(run(tmp_path, HARD, "ims.0.service=0.001", "ims.1.service=0.002"))
    assert row["register"] == pytest.approx(2 * (B + IMS_MN) + 0.001, abs=1e-9)
    # The question of the correspondent (7) is served before that of IMS_CN (3) arrives.
    notify = 2 * (B + IMS_CN) + 2 * (IMS_CN + IMS_MN) + 2 * 0.002 + 0.001
    assert row["notify"] == pytest.approx(notify, abs=1e-9)


@pytest.mark.parametrize("kind", ["packets", "changes"])
def test_what_hosts_take_for_an_answer_adds_up(tmp_path: Path, kind: str) -> None:
    taken = 0.004
    options = (f"nodes.processing={taken}", f'traffic.events="{kind}"')
    (row,) = handovers(run(tmp_path, HARD, *options))
    notify = taken + 2 * (B + IMS_CN) + 2 * (IMS_CN + IMS_MN)
    assert row["register"] == pytest.approx(taken + 2 * (B + IMS_MN), abs=1e-9)
    assert row["notify"] == pytest.approx(notify, abs=1e-9)
    # The node tells the correspondent, that asks, and that confirms; packets themselves wait not.
    assert row["first_packet"] == pytest.approx(3 * taken + LEARN + 2 * (B + CN) - notify, abs=1e-9)


def test_a_host_says_things_in_the_order_that_it_has_to(tmp_path: Path) -> None:
    """Though each takes another time: of all that it hears at a time, the same."""
    options = ("nodes.processing={uniform = [0.001, 0.3]}", "traffic.up=50")
    given = scenario(tmp_path, f"{HARD}, 12 m1 detach B, 12 m1 attach C", *options)
    lines = [line for line in simulate(given, record=True).recording if line.kind == "signal"]
    times = [line.sent for line in lines if line.from_ == "m1"]
    assert times == sorted(times)
    assert len(set(times)) > 5
    update, *notices = [line for line in lines if line.from_ == "m1" and 10 < line.sent < 12][:3]
    assert 0.001 <= update.sent - 10 - SETUP <= 0.3
    assert [notice.to for notice in notices] == ["IMS_CN", "CN1"]
    assert notices[0].sent == notices[1].sent > update.sent


@pytest.mark.parametrize("resolver", [(), ("dns.resolver=0.001",)], ids=str)
def test_a_question_to_the_dns_takes_a_host_its_time_too(
    tmp_path: Path, resolver: tuple[str, ...]
) -> None:
    def asked(taken: float) -> tuple[float, float]:
        options = (f"nodes.processing={taken}", *resolver)
        given = scenario(tmp_path, "0 m1 attach A", *options)
        lines = [line for line in simulate(given, record=True).recording if line.kind == "dns"]
        first = next(line for line in lines if line.from_ == "m1")
        assert first.received is not None
        return first.sent, first.received

    quick, slow = asked(0), asked(0.03)
    assert slow == pytest.approx([time + 0.03 for time in quick], abs=1e-9)


def test_the_store_delays_the_reply_but_holds_no_worker(tmp_path: Path) -> None:
    finished = run(tmp_path, HARD, "ims.0.store=0.02")
    (row,) = handovers(finished)
    assert row["register"] == pytest.approx(2 * (B + IMS_MN) + 0.02, abs=1e-9)
    assert {load["busy"] for load in records(finished.results.ims)} == {0}


def test_interruption_and_loss_of_a_hard_handover(tmp_path: Path) -> None:
    rate = 1 / SPACING
    finished = run(
        tmp_path, HARD, "scenario.duration=11", f"traffic.up={rate}", f"traffic.down={rate}"
    )
    (row,) = handovers(finished)
    registered = SETUP + 2 * (B + IMS_MN)
    learnt = registered + LEARN
    confirmed = learnt + CN + B
    # Up: the last packet through A arrives up to one spacing before A + CN.
    up = (confirmed + B + CN) - (A + CN)
    assert up - SPACING <= row["interruption_up"] < up
    # Down: the last packet through A arrives just before 10 s, the next leaves once B is learnt.
    down = learnt + CN + B
    assert down - SPACING <= row["interruption_down"] < down + SPACING
    held = 16
    assert row["lost_up"] == pytest.approx(confirmed * rate - held, abs=1)
    assert row["lost_down"] == pytest.approx((learnt + A + CN) * rate, abs=1)


# --- the messages ---------------------------------------------------------------------------------

Signal: TypeAlias = tuple[str | None, str, str, str]
HANDOVER: dict[str, list[Signal]] = {
    SEPARATE: [
        ("1", "IMS Update", "m1", "IMS_MN"),
        ("1", "IMS Update Reply", "IMS_MN", "m1"),
        ("2", "HA Notify", "m1", "IMS_CN"),
        ("2'", "HA Notify", "m1", "CN1"),
        ("7", "MA Query", "CN1", "IMS_MN"),
        ("3", "MA Query", "IMS_CN", "IMS_MN"),
        ("7", "MA Answer", "IMS_MN", "CN1"),
        ("3", "MA Answer", "IMS_MN", "IMS_CN"),
        ("4'", "HA Notify Ack", "CN1", "m1"),
        ("4", "HA Notify Ack", "IMS_CN", "m1"),
    ],
    SHARED: [
        ("1", "IMS Update", "m1", "IMS"),
        ("1", "IMS Update Reply", "IMS", "m1"),
        ("2", "HA Notify", "m1", "IMS"),
        ("2'", "HA Notify", "m1", "CN1"),
        ("7", "MA Query", "CN1", "IMS"),
        ("4", "HA Notify Ack", "IMS", "m1"),
        ("7", "MA Answer", "IMS", "CN1"),
        ("4'", "HA Notify Ack", "CN1", "m1"),
    ],
}


@pytest.mark.parametrize("moves", [HARD, SOFT], ids=["hard", "soft"])
@pytest.mark.parametrize("ims", [SEPARATE, SHARED], ids=["separate", "shared"])
def test_the_ladder_is_the_protocols_message_sequence(tmp_path: Path, moves: str, ims: str) -> None:
    finished = run(tmp_path, moves, ims=ims)
    ((node, messages),) = finished.ladders.values()
    assert node == "m1"
    ordered = sorted((m for m in messages if m.kind == "signal"), key=lambda m: m.sent)
    assert [(m.step, m.label, m.from_, m.to) for m in ordered] == HANDOVER[ims]
    assert all(m.received is not None for m in ordered)


def test_a_ladder_shows_the_first_handover_of_its_kind_only(tmp_path: Path) -> None:
    moves = (
        "0 m1 attach A, 0 m2 attach A, 0 m3 attach A, 8 m3 attach B, 10 m1 attach B,"
        "12 m2 detach A, 12 m2 attach B, 14 m1 detach A, 14 m1 detach B, 14 m1 attach C"
    )
    finished = run(tmp_path, moves)
    assert {kind: node for kind, (node, _) in finished.ladders.items()} == {
        "hard": "m2",
        "soft": "m3",
    }
    for node, messages in finished.ladders.values():
        assert {m.from_ for m in messages} <= {node, "CN1", "IMS_MN", "IMS_CN"}


def test_nothing_is_recorded_once_there_is_a_ladder_of_each_kind(tmp_path: Path) -> None:
    moves = f"{SOFT}, 15 m1 detach B, 15 m1 attach C, 19.9 m1 attach A"
    world = finished_world(scenario(tmp_path, moves))
    assert set(world._tally.ladders) == {"soft", "hard"}
    assert world._tally._watches == {}
    assert not world._tally.watching


def finished_world(loaded: Scenario) -> _World:
    moves = mobility(loaded)
    world = _World(loaded, moves, 0, record=False)
    world.clock.run(moves.end)
    return world


# --- kinds and outcomes ---------------------------------------------------------------------------


def test_a_soft_handover_loses_nothing(tmp_path: Path) -> None:
    finished = run(tmp_path, SOFT)
    (row,) = handovers(finished)
    assert (row["kind"], row["outcome"], row["away"]) == ("soft", "completed", 0)
    assert (row["lost_up"], row["lost_down"], data(finished, "lost")) == (0, 0, 0)
    # All that shows is that the way through B is longer.
    assert row["interruption_up"] == pytest.approx(B - A, abs=1e-9)
    assert row["interruption_down"] == pytest.approx(B - A, abs=1e-9)


def test_a_handover_is_hard_where_the_old_link_goes_before_there_is_an_address(
    tmp_path: Path,
) -> None:
    (row,) = handovers(run(tmp_path, "0 m1 attach A, 10 m1 attach B, 10.3 m1 detach A"))
    assert (row["kind"], row["time"], row["away"]) == ("hard", 10, 0)
    assert (row["detect"], row["address"]) == pytest.approx((DETECT, ADDRESS), abs=1e-9)


def test_back_to_a_link_that_is_still_up(tmp_path: Path) -> None:
    there, back = handovers(run(tmp_path, BACK))
    assert set(parts(back)) == {"away", "register", "notify", "first_packet"}
    assert back["register"] == pytest.approx(2 * (A + IMS_MN), abs=1e-9)
    assert back["total"] == pytest.approx(sum(parts(back).values()), abs=1e-9)
    assert (back["kind"], back["outcome"], back["ordinal"]) == ("soft", "completed", 2)
    assert (back["from_moa"], back["to_moa"]) == (there["to_moa"], there["from_moa"])


def test_the_other_link_takes_over_when_the_loss_is_noticed(tmp_path: Path) -> None:
    moves = "0 m1 attach A, 10 m1 attach B, 15 m1 detach B"
    _, row = handovers(run(tmp_path, moves))
    assert set(parts(row)) == {"away", "detect", "register", "notify", "first_packet"}
    assert (row["away"], row["kind"], row["outcome"]) == (0, "hard", "completed")
    assert row["detect"] == pytest.approx(DETECT, abs=1e-9)
    assert row["register"] == pytest.approx(2 * (A + IMS_MN), abs=1e-9)


def test_a_link_half_set_up_counts_from_when_it_is_chosen(tmp_path: Path) -> None:
    moves = "0 m1 attach A, 10 m1 attach B, 10.2 m1 attach A, 10.3 m1 detach A"
    *_, row = handovers(run(tmp_path, moves))
    assert (row["from_network"], row["to_network"], row["time"]) == ("A", "B", 10.3)
    expected = {"away": 0, "detect": 0, "associate": 0, "address": 0.15}
    assert {k: row[k] for k in expected} == pytest.approx(expected, abs=1e-9)
    assert row["outcome"] == "completed"


def test_away_is_the_time_without_coverage(tmp_path: Path) -> None:
    moves = "0 m1 attach A, 10 m1 detach A, 12.5 m1 attach B"
    (row,) = handovers(run(tmp_path, moves))
    assert row["away"] == pytest.approx(2.5, abs=1e-9)
    assert row["detect"] == pytest.approx(DETECT, abs=1e-9)
    assert row["outcome"] == "completed"


def test_superseded_by_the_next_move(tmp_path: Path) -> None:
    moves = f"{HARD}, 10.2 m1 detach B, 10.2 m1 attach C"
    first, second = handovers(run(tmp_path, moves))
    assert parts(first) == pytest.approx({"away": 0, "detect": DETECT, "associate": ASSOCIATE})
    assert first["outcome"] == "superseded"
    assert not {"total", "to_moa"} & set(first)
    assert (first["ordinal"], second["ordinal"]) == (1, 2)
    assert (second["from_network"], second["outcome"]) == ("B", "completed")
    # The interruption ends with the next delivery, whichever handover brought it; the loss is told
    # up to where the second begins.
    assert first["interruption_down"] == second["interruption_down"] > 0.6
    assert first["lost_down"] == pytest.approx(0.2 * 100 + 1, abs=1)


def test_superseded_before_the_node_acted_on_it(tmp_path: Path) -> None:
    moves = "0 m1 attach A, 10 m1 detach A, 12 m1 attach B, 12.02 m1 detach B, 13 m1 attach C"
    first, second = handovers(run(tmp_path, moves))
    assert parts(first) == {"away": 2}
    assert second["away"] == pytest.approx(0.98, abs=1e-9)


def test_unfinished_at_the_end_of_the_run(tmp_path: Path) -> None:
    (row,) = handovers(run(tmp_path, HARD, "scenario.duration=10.2"))
    assert row["outcome"] == "unfinished"
    assert set(parts(row)) == {"away", "detect", "associate"}
    assert row["interruption_down"] == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize(
    "moves",
    [
        f"{HARD}, 10.2 m1 detach B",
        "0 m1 attach A, 10 m1 attach B, 10.2 m1 detach B, 10.2 m1 detach A",
    ],
    ids=["one link", "two links"],
)
def test_unfinished_where_the_node_leaves(tmp_path: Path, moves: str) -> None:
    (row,) = handovers(run(tmp_path, moves))
    assert (row["outcome"], row["to_network"]) == ("unfinished", "B")
    assert row["interruption_up"] <= 0.2


def test_a_node_that_only_leaves_makes_no_handover(tmp_path: Path) -> None:
    assert handovers(run(tmp_path, "0 m1 attach A, 10 m1 detach A")) == []
    assert handovers(run(tmp_path, BACK + ", 18 m1 detach A, 18 m1 detach B"))[2:] == []


def test_events_after_the_end_do_not_happen(tmp_path: Path) -> None:
    assert handovers(run(tmp_path, HARD, "scenario.duration=10")) == []


def test_attaching_again_to_the_preferred_network_is_nothing(tmp_path: Path) -> None:
    assert handovers(run(tmp_path, "0 m1 attach A, 5 m1 attach A")) == []


# --- addresses ------------------------------------------------------------------------------------


def test_leases_are_renewed_while_the_link_is_up(tmp_path: Path) -> None:
    world = finished_world(scenario(tmp_path, "0 m1 attach A", "network.0.lease=16"))
    (host,) = world._mobile
    (link,) = host._links
    assert 20 < link.lease <= 36
    assert data(world.finished(), "delivered") > 2 * 100 * 18.9


def test_the_same_address_again_while_the_lease_lasts(tmp_path: Path) -> None:
    moves = "0 m1 attach A, 10 m1 detach A, 12 m1 attach A"
    (row,) = handovers(run(tmp_path, moves))
    assert row["from_moa"] == row["to_moa"]
    # The mapping that the IMS holds is right, but only a Reply says so.
    assert row["register"] == pytest.approx(2 * (A + IMS_MN), abs=1e-9)
    assert row["outcome"] == "completed"


def test_another_address_once_the_lease_is_over(tmp_path: Path) -> None:
    moves = "0 m1 attach A, 10 m1 detach A, 18 m1 attach A"
    (row,) = handovers(run(tmp_path, moves, "network.0.lease=6"))
    assert row["from_moa"] != row["to_moa"]


def test_an_address_that_went_to_another_node_does_not_come_back() -> None:
    pool = small_pool()
    first, until = pool.lease(0.0, 1)
    assert until == 10
    pool.left(1, first)
    assert pool.lease(11.0, 2, first) == (first, 21.0)
    assert pool.lease(12.0, 1)[0] != first


def test_an_address_that_a_node_wanted_is_not_given_to_the_next() -> None:
    pool = small_pool()
    first, _ = small_pool().lease(0.0, 1)
    pool.lease(0.0, 1, first)
    assert pool.lease(0.0, 2)[0] != first


def test_a_full_pool_gives_out_only_what_is_free() -> None:
    pool = small_pool()
    held = [pool.lease(0.0, n)[0] for n in range(4)]
    ended, _ = pool.lease(-20.0, 4)
    assert len({*held, ended}) == 5
    assert pool.lease(1.0, 5)[0] == ended


def small_pool() -> Pool:
    """Five addresses, ten seconds."""
    return Pool(ip_network("10.9.0.0/29"), 10.0)


def test_addresses_of_the_events_are_used(tmp_path: Path) -> None:
    moves = "0 m1 attach A 10.128.0.77, 10 m1 detach A, 10 m1 attach B 10.192.1.2"
    (row,) = handovers(run(tmp_path, moves))
    assert (row["from_moa"], row["to_moa"]) == ("10.128.0.77", "10.192.1.2")


def test_an_address_of_the_wrong_family_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"events\.csv:3: moa: is 2001:db8::9; must be an IPv4"):
        run(tmp_path, "0 m1 attach A, 10 m1 attach B 2001:db8::9")


@pytest.fixture
def misdelivered(monkeypatch: pytest.MonkeyPatch) -> list[Packet]:
    """Packets that the protocol handed to a socket which does not take them."""
    refused: list[Packet] = []
    deliver = Host._deliver

    def watched(host: Host, packet: Packet, translation: Any) -> None:
        seen = translation.inward(packet.source, packet.destination)
        if (
            seen != (packet.flow.source, packet.flow.destination)
            or host.name != packet.flow.receiver
        ):
            refused.append(packet)
        deliver(host, packet, translation)

    monkeypatch.setattr(Host, "_deliver", watched)
    return refused


@pytest.mark.parametrize("correspondents", [1, 2])
def test_an_address_given_to_another_node_takes_no_packet_along(
    tmp_path: Path, misdelivered: list[Packet], correspondents: int
) -> None:
    """m1 gives up an address of B, m2 gets it, with packets for m1 still under way to it."""
    again = "10.192.0.9"
    moves = (
        f"0 m1 attach A, 0 m2 attach A, 5 m1 detach A, 5 m1 attach B {again}, 12 m1 detach B,"
        f"12 m1 attach C, 12.01 m2 detach A, 12.01 m2 attach B {again}"
    )
    finished = run(
        tmp_path,
        moves,
        f"correspondents.count={correspondents}",
        "network.1.lease=30",
        "network.1.detect=0.001",
        "network.1.association=0.001",
        "network.1.address=0.001",
    )
    assert misdelivered == []
    rows = handovers(finished)
    assert {row["outcome"] for row in rows} == {"completed"}
    assert [row["to_moa"] for row in rows if row["to_network"] == "B"] == [again, again]


# --- other scenarios ------------------------------------------------------------------------------


@pytest.mark.parametrize("moves", [HARD, SOFT], ids=["hard", "soft"])
def test_ipv6_tells_peers_with_the_packets_themselves(tmp_path: Path, moves: str) -> None:
    finished = run(tmp_path, moves, "nodes.family=6")
    (row,) = handovers(finished)
    assert row["outcome"] == "completed"
    assert set(parts(row)) == set(PARTS) - {"notify"}
    assert row["total"] == pytest.approx(sum(parts(row).values()), abs=1e-9)
    assert row["to_moa"].startswith("2001:db8:")
    assert sent(finished, "HA Notify", "MN", "IMS_CN") == 0
    assert row["lost_down"] == 0 if moves == SOFT else row["lost_down"] > 0


def test_all_replicas_hold_all_mappings(tmp_path: Path) -> None:
    finished = run(tmp_path, HARD, "ims.0.replicas=2")
    (row,) = handovers(finished)
    assert row["outcome"] == "completed"
    last = {load["ims"]: load["mappings"] for load in records(finished.results.ims)}
    assert last == {"IMS_MN": 1, "IMS_MN#2": 1, "IMS_CN": 1}
    for replica in ("IMS_MN", "IMS_MN#2"):
        assert sent(finished, "IMS Update", "MN", replica) == 2


def test_mobile_nodes_talk_to_each_other(tmp_path: Path) -> None:
    moves = (
        "0 m1 attach A, 0 m2 attach B, 10 m1 detach A, 10 m1 attach C,"
        "10.1 m2 detach B, 10.1 m2 attach A"
    )
    finished = run(tmp_path, moves, "traffic.pairs='mobile'", "correspondents.count=0")
    rows = handovers(finished)
    assert [(row["node"], row["outcome"], row["peers"]) for row in rows] == [
        ("m1", "completed", 1),
        ("m2", "completed", 1),
    ]
    assert sent(finished, "data", "MN", "MN", "delivered") > 2 * 100 * 15


def test_without_traffic_there_is_no_first_packet(tmp_path: Path) -> None:
    (row,) = handovers(run(tmp_path, HARD, "traffic.pairs='none'"))
    assert set(parts(row)) == set(PARTS) - {"notify", "first_packet"}
    assert (row["outcome"], row["peers"]) == ("completed", 0)
    assert not {name for name in row if name.startswith(("interruption", "lost"))}


def test_traffic_that_begins_later_is_not_of_the_handover(tmp_path: Path) -> None:
    (row,) = handovers(run(tmp_path, HARD, "traffic.start=15"))
    assert (row["outcome"], row["peers"]) == ("completed", 0)
    assert not {name for name in row if name.startswith(("interruption", "lost", "first"))}


def test_a_peer_that_has_left_is_no_peer(tmp_path: Path) -> None:
    moves = "0 m1 attach A, 0 m2 attach A, 8 m2 detach A, 10 m1 detach A, 10 m1 attach B"
    (row,) = handovers(run(tmp_path, moves, "traffic.pairs='mobile'"))
    assert (row["outcome"], row["peers"]) == ("completed", 0)


def test_traffic_in_one_direction(tmp_path: Path) -> None:
    (row,) = handovers(run(tmp_path, HARD, "traffic.up=0"))
    assert {"interruption_down", "lost_down"} <= set(row)
    assert not {"interruption_up", "lost_up"} & set(row)
    assert row["outcome"] == "completed"


@pytest.mark.parametrize(("attached", "updates"), [("true", 1), ("false", 0)])
def test_first_attachment(tmp_path: Path, attached: str, updates: int) -> None:
    options = (f"nodes.start_attached={attached}", "scenario.duration=0.4")
    finished = run(tmp_path, "0 m1 attach A", *options)
    assert sent(finished, "IMS Update", "MN", "IMS_MN") == updates
    assert handovers(finished) == []


def test_correspondents_may_be_on_an_access_network(tmp_path: Path) -> None:
    (row,) = handovers(run(tmp_path, HARD, "correspondents.network='C'"))
    confirmed = B + B + 2 * (B + IMS_MN) + 2 * (B + B)
    assert row["first_packet"] == pytest.approx(confirmed - row["notify"], abs=1e-9)


def test_a_movement_that_ends_at_once_needs_a_duration(tmp_path: Path) -> None:
    text = (SCENARIO + SEPARATE).replace("duration = 20\n", "")
    write(tmp_path / "events.csv", events("0 m1 attach A"))
    loaded = load_scenario(write(tmp_path / "s.toml", text))
    with pytest.raises(ScenarioError, match=r"s\.toml: scenario\.duration: is missing"):
        simulate(loaded)


# --- counting -------------------------------------------------------------------------------------


def test_a_full_queue_drops_and_handovers_still_complete(tmp_path: Path) -> None:
    service = 0.02
    options = ("ims.0.queue=1", f"ims.0.service={service}", "scenario.duration=30")
    finished = run(tmp_path, CROWD, *options)
    loads = [load for load in records(finished.results.ims) if load["ims"] == "IMS_MN"]
    dropped = sum(load["dropped"] for load in loads)
    assert dropped > 0
    assert all(0 <= load["busy"] <= 1 and load["queue_max"] <= 1 for load in loads)
    assert all(load["wait_max"] <= service + 1e-9 for load in loads if "wait_max" in load)
    served = sum(load["received"] for load in loads) - dropped
    busy = sum(load["busy"] * load["interval"] for load in loads)
    assert busy == pytest.approx(served * service, abs=1e-9)
    rows = handovers(finished)
    assert [row["outcome"] for row in rows] == ["completed"] * 8
    assert max(row["register"] for row in rows) > 0.2, "somebody had to repeat the Update"
    assert sent(finished, "IMS Update", "MN", "IMS_MN", "retransmitted") > 0


def test_two_workers_serve_two_at_once(tmp_path: Path) -> None:
    moves = "0 m1 attach A, 0 m2 attach A, 10 m1 detach A, 10 m1 attach B"
    moves += ", 10 m2 detach A, 10 m2 attach B"
    for workers, wait in ((1, 0.01), (2, 0.0)):
        options = (f"ims.0.workers={workers}", "ims.0.service=0.01", "traffic.pairs='none'")
        finished = run(tmp_path, moves, *options)
        registers = sorted(row["register"] for row in handovers(finished))
        expected = 2 * (B + IMS_MN) + 0.01
        assert registers == pytest.approx([expected, expected + wait], abs=1e-9)


def test_nobody_is_busy_after_the_end(tmp_path: Path) -> None:
    options = (
        "ims.0.service=3",
        "scenario.duration=12",
        "scenario.interval=10",
        "protocol.initial_timeout=30",
    )
    finished = run(tmp_path, "11 m1 attach A", *options)
    last = [load for load in records(finished.results.ims) if load["ims"] == "IMS_MN"][-1]
    assert (last["start"], last["interval"]) == (10, 2)
    update_arrives = 2 * (A + DNS) + DNS_SERVICE + A + IMS_MN
    assert last["busy"] == pytest.approx((1 - update_arrives) / 2, abs=1e-9)


@pytest.mark.parametrize("loss", [0, 0.1])
def test_every_message_is_accounted_for(tmp_path: Path, loss: float) -> None:
    """All have left by 18 s, so at 30 s nothing is under way."""
    moves = CROWD + "".join(f", 18 m{n} detach B" for n in range(8))
    options = [f"network.{n}.loss={loss}" for n in range(3)]
    finished = run(tmp_path, moves, "scenario.duration=30", *options)
    rows = records(finished.results.messages)
    assert [row for row in rows if row["delivered"] + row["lost"] != row["sent"]] == []
    assert sum(row["lost"] for row in rows) > 0
    received = finished.results.ims.groupby("ims")["received"].sum().to_dict()
    for name in ("IMS_MN", "IMS_CN"):
        arrived = [row for row in rows if row["to_role"] == name and row["from_role"] != "DNS"]
        assert received[name] == sum(row["delivered"] for row in arrived)
    repeated = sum(row["retransmitted"] for row in rows)
    assert repeated > 0 if loss else repeated == 0


def test_what_is_under_way_at_the_end_is_neither_delivered_nor_lost(tmp_path: Path) -> None:
    finished = run(tmp_path, "0 m1 attach A", "correspondents.delay=0.5", "traffic.down=0")
    assert data(finished, "lost") == 0
    assert data(finished, "sent") - data(finished, "delivered") == pytest.approx(50, abs=2)


# --- determinism ----------------------------------------------------------------------------------

RANDOM = (
    "network.0.delay={exponential = 0.01}",
    "network.1.address={uniform = [0.1, 0.6]}",
    "network.1.loss=0.05",
    "ims.0.service={exponential = 0.001}",
)


def parquet(results: Results, folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in results.write(folder)}


def test_equal_seeds_give_equal_bytes(tmp_path: Path) -> None:
    loaded = scenario(tmp_path, CROWD, *RANDOM)
    first = parquet(simulate(loaded).results, tmp_path / "1")
    second = parquet(simulate(loaded, lambda _now, _end: None).results, tmp_path / "2")
    assert len(first) == 10
    assert first == second
    other = simulate(scenario(tmp_path, CROWD, *RANDOM, "scenario.seed=2"))
    assert not other.results.handovers.equals(simulate(loaded).results.handovers)
    assert (
        not simulate(loaded, run=1)
        .results.handovers["total"]
        .equals(simulate(loaded).results.handovers["total"])
    )


def test_the_order_of_hashes_does_not_matter(tmp_path: Path) -> None:
    scenario(tmp_path, CROWD)
    program = (
        "import sys; from pathlib import Path; from mat_sim.engine import simulate;"
        "from mat_files.scenario import load_scenario;"
        f"loaded = load_scenario(Path('s.toml'), {RANDOM!r});"
        "simulate(loaded).results.write(Path(sys.argv[1]))"
    )
    path = os.pathsep.join(map(str, (ROOT, ROOT / "sim", ROOT / "files")))
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": path}
        command = [sys.executable, "-c", program, seed]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / s).iterdir()} for s in ("1", "2"))
    assert len(one) == 10
    assert one == two


def test_progress_is_reported_up_to_the_end(tmp_path: Path) -> None:
    reports: list[tuple[float, float]] = []
    simulate(
        scenario(tmp_path, HARD, "scenario.duration=10.7"),
        lambda now, end: reports.append((now, end)),
    )
    assert reports[-1] == (10.7, 10.7)
    assert [now for now, _ in reports] == sorted(now for now, _ in reports)


# --- parameters of the protocol -------------------------------------------------------------------


def test_protocol_parameters_take_effect(tmp_path: Path) -> None:
    still = "0 m1 attach A"
    default = run(tmp_path, still)
    often = run(tmp_path, still, "protocol.registration_lifetime=6")
    assert sent(default, "IMS Update", "MN", "IMS_MN") == 1
    assert 9 <= sent(often, "IMS Update", "MN", "IMS_MN") <= 12
    queries = run(tmp_path, still, "protocol.peer_query_interval=2")
    before = sent(default, "MA Query", "MN", "IMS_CN")
    assert sent(queries, "MA Query", "MN", "IMS_CN") >= before + 8


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("registration_lifetim=9", "no such parameter; did you mean registration_lifetime?"),
        ("zzz=1", "no such parameter; docs/protocol.md lists them"),
        ("settle_time=0", "is 0; must be greater than 0"),
        ("settle_time=-1.5", "is -1.5; must be greater than 0"),
        ("hold_total=2.5", "is 2.5; must be a whole number"),
    ],
)
def test_a_wrong_protocol_parameter_is_named(tmp_path: Path, override: str, expected: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        scenario(tmp_path, HARD, f"protocol.{override}")
    name = override.partition("=")[0]
    assert str(caught.value).startswith(f"--set protocol.{override}: protocol.{name}: {expected}")


def test_a_wrong_protocol_parameter_has_a_line(tmp_path: Path) -> None:
    text = SCENARIO + SEPARATE + "[protocol]\nhold_totl = 3\n"
    line = text.count("\n")
    write(tmp_path / "events.csv", events(HARD))
    with pytest.raises(ScenarioError, match=rf"s\.toml:{line}: protocol\.hold_totl: no such"):
        load_scenario(write(tmp_path / "s.toml", text))
