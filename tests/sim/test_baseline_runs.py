"""The other systems in the engine: the same scenario and tables, and their specifications' sums.

The delays are those of tests/sim/baselines_world.py, so that its sums and lists hold here too. One
way, in ms: node in A 5, in B 10, correspondent 7, server 20, each to the core. So node in
B–server 30, node in B–correspondent 17, server–correspondent 27.
"""

from pathlib import Path
from typing import Any, Final, get_args
from zlib import crc32

import pandas as pd
import pytest

from mat.address import parse_address
from mat_files.attachment import NumberedNames
from mat_files.errors import ScenarioError
from mat_files.library import find_scenario
from mat_files.results import Results
from mat_files.scenario import SYSTEM_FAMILIES, MobilitySystem, Scenario, load_scenario
from mat_sim.engine import Run, simulate
from tests.files.test_traces import write
from tests.sim.test_engine import events, handovers, parts, records, sent

MS: Final = 0.001
SYSTEMS: Final[tuple[MobilitySystem, ...]] = get_args(MobilitySystem)
OTHERS: Final = [system for system in SYSTEMS if system != "mat"]
ADDRESS: Final = 0.3
"""When the address in B is there, s after the link in A went."""
LEFT: Final = 10.0
SPACING: Final = 1 * MS
SCENARIO: Final = """format = 1

[scenario]
name = "test"
duration = 12

[movement]
events = "events.csv"

[nodes]
interfaces = 2

[[network]]
name = "A"
delay = 0.005
detect = 0
association = 0
address = 0.3

[[network]]
name = "B"
delay = 0.010
detect = 0
association = 0
address = 0.3

[correspondents]
delay = 0.007

[[ims]]
name = "IMS"
delay = 0.020
service = 0
forward = 0

[dns]
delay = 0.003

[traffic]
up = 1000
down = 1000
"""
HARD = "0 m1 attach A, 10 m1 detach A, 10 m1 attach B"
SOFT = "0 m1 attach A, 10 m1 attach B, 11 m1 detach A"
STILL = "0 m1 attach A"
PAIR = "0 m1 attach A, 0 m2 attach B"


def scenario(folder: Path, system: MobilitySystem, moves: str, *overrides: str) -> Scenario:
    write(folder / "events.csv", events(moves))
    family = SYSTEM_FAMILIES.get(system, 4)
    chosen = (f'scenario.system="{system}"', f"nodes.family={family}", *overrides)
    return load_scenario(write(folder / "s.toml", SCENARIO), chosen)


def run(folder: Path, system: MobilitySystem, moves: str, *overrides: str) -> Run:
    return simulate(scenario(folder, system, moves, *overrides))


def flows(finished: Run) -> dict[tuple[str, str], dict[str, Any]]:
    rows = records(finished.results.flows)
    return {(row["from_role"], row["to_role"]): row for row in rows}


def way(finished: Run, sender: str, receiver: str) -> tuple[float, float, float]:
    """Mean delay in ms, stretch, and header bytes a packet."""
    row = flows(finished)[sender, receiver]
    return row["delay_mean"] / MS, row["stretch_mean"], row["header_mean"]


def load(finished: Run, column: str) -> Any:
    return sum(row[column] for row in records(finished.results.ims))


# --- the sums -------------------------------------------------------------------------------------

# In ms: when the new address is registered and, after that, the peer told; from when on what is
# sent up and down arrives; and how long it then takes.
SUMS: Final[dict[MobilitySystem, tuple[int, int | None, int, int, int, int]]] = {
    "mobile-ipv4": (60, None, 0, 3, 17, 57),
    "mobile-ipv4-reverse-tunnel": (60, None, 60, 3, 57, 57),
    "mobile-ipv6": (60, 114 - 60, 0, 114 + 17, 57, 17),
    "mobile-ipv6-tunnel": (60, None, 0, 3, 57, 57),
    "lin6": (60, 0, 0, 60 + 17 + 54, 17, 17),
    "lin6-associated": (60, 0, 0, 17, 17, 17),
    "mobile-ppc": (60, 0, 17 + 17, 17, 17, 17),
}


@pytest.mark.parametrize("system", SUMS)
def test_a_hard_handover_takes_the_sums_of_path_delays(
    tmp_path: Path, system: MobilitySystem
) -> None:
    (row,) = handovers(run(tmp_path, system, HARD))
    register, notify, up, down, way_up, way_down = SUMS[system]
    assert (row["kind"], row["outcome"], row["peers"]) == ("hard", "completed", 1)
    assert row["register"] == pytest.approx(register * MS, abs=1e-9)
    if notify is None:
        assert "notify" not in row
    else:
        assert row["notify"] == pytest.approx(notify * MS, abs=1e-9)
    # The last packet before left its link, or came to it, in the last millisecond.
    left = 12 * MS if system not in TUNNELLED_UP else 52 * MS
    assert row["interruption_up"] == pytest.approx(ADDRESS + (up + way_up) * MS - left, abs=SPACING)
    assert row["interruption_down"] == pytest.approx(ADDRESS + (down + way_down) * MS, abs=SPACING)
    told = (register + (notify or 0)) * MS
    first = max(up + way_up, down + way_down) * MS - told
    assert row["first_packet"] == pytest.approx(max(0, first), abs=SPACING)
    assert row["total"] == pytest.approx(sum(parts(row).values()), abs=1e-9)


TUNNELLED_UP: Final = ("mobile-ipv4-reverse-tunnel", "mobile-ipv6-tunnel")


@pytest.mark.parametrize("system", SUMS)
def test_a_hard_handover_loses_what_is_sent_until_then(
    tmp_path: Path, system: MobilitySystem
) -> None:
    (row,) = handovers(run(tmp_path, system, HARD))
    _, _, up, down, _, _ = SUMS[system]
    assert row["lost_up"] == pytest.approx((ADDRESS + up * MS) / SPACING, abs=1)
    # What was on its way when the link went is lost as well.
    way_down = 52 if system in {*TUNNELLED_UP, "mobile-ipv4"} else 12
    assert row["lost_down"] == pytest.approx((ADDRESS + (down + way_down) * MS) / SPACING, abs=1)


def test_without_mobility_nothing_arrives_after_a_move(tmp_path: Path) -> None:
    finished = run(tmp_path, "none", HARD)
    (row,) = handovers(finished)
    assert (row["outcome"], row["register"]) == ("unfinished", 0)
    assert "total" not in row
    assert row["interruption_down"] == pytest.approx(2, abs=2 * SPACING)
    assert row["lost_up"] == pytest.approx(2 / SPACING, abs=1)
    types = {record["type"] for record in records(finished.results.messages)}
    assert types == {"data", "DNS query", "DNS answer"}
    assert records(finished.results.ims) == []


def test_service_times_of_agents_add_up(tmp_path: Path) -> None:
    times = ("ims.0.service=0.004", "ims.0.forward=0.0005")
    finished = run(tmp_path, "mobile-ipv4", HARD, *times)
    (row,) = handovers(finished)
    assert row["register"] == pytest.approx((60 + 4) * MS, abs=0.5 * MS)
    still = run(tmp_path, "mobile-ipv4", STILL, *times, "traffic.start=2")
    assert way(still, "CN", "MN")[0] == pytest.approx(52 + 0.5, abs=1e-6)


@pytest.mark.parametrize("system", [system for system in OTHERS if system != "none"])
def test_a_soft_handover_completes(tmp_path: Path, system: MobilitySystem) -> None:
    finished = run(tmp_path, system, SOFT)
    (row,) = handovers(finished)
    assert (row["kind"], row["outcome"]) == ("soft", "completed")
    assert row["register"] == pytest.approx(SUMS[system][0] * MS, abs=1e-9)
    # By the old link from the Request's arrival until the Reply's: see docs/baselines.md.
    lost_up = 55 if system == "mobile-ipv4-reverse-tunnel" else 0
    assert (row["lost_up"], row["lost_down"]) == (pytest.approx(lost_up, abs=1), 0)


def test_a_node_that_gets_its_old_address_again_has_been_registered_all_the_time(
    tmp_path: Path,
) -> None:
    moves = ", ".join(
        [f"0 m{n} attach A" for n in range(8)]
        + [f"10 m{n} {action}" for n in range(8) for action in ("detach A", "attach A")]
    )
    # Where the new link acts before the loss of the old one is noticed, nothing has changed.
    times = ("network.0.detect={uniform = [0, 0.2]}", "network.0.address=0")
    slow = ("traffic.up=100", "traffic.down=100")
    rows = handovers(run(tmp_path, "mobile-ipv4", moves, *times, *slow))
    assert [(row["outcome"], row["register"]) for row in rows] == [("completed", 0)] * 8


def test_a_node_that_comes_home_needs_its_home_agent_no_more(tmp_path: Path) -> None:
    home = "10.0.0.1"
    finished = run(tmp_path, "mobile-ipv4", f"{HARD} {home}", "scenario.interval=1")
    (row,) = handovers(finished)
    assert (row["outcome"], row["to_moa"]) == ("completed", home)
    held = [load["mappings"] for load in records(finished.results.ims)]
    assert held == [1] * 10 + [0, 0]
    packets = [load["forwarded"] for load in records(finished.results.ims)]
    assert packets[5] == pytest.approx(1000, abs=1)
    assert packets[11] == 0


# In ms: look-ups of the node and of the correspondent take 17 and 21, a question to a mapping
# agent 54.
@pytest.mark.parametrize(
    ("system", "way", "wait"),
    [
        ("mobile-ppc", "up", 17),
        ("mobile-ppc", "down", 21),
        ("none", "up", 17),
        ("none", "down", 21),
        ("lin6", "up", 0),
        ("lin6", "down", 21 + 54),
    ],
)
def test_the_first_packet_waits_until_the_peer_is_found(
    tmp_path: Path, system: MobilitySystem, way: str, wait: int
) -> None:
    only = {f"traffic.{one}={10 if one == way else 0}" for one in ("up", "down")}
    finished = run(tmp_path, system, STILL, *sorted(only))
    ((_, row),) = flows(finished).items()
    assert (row["lost"], row["stretch_mean"]) == (0, 1)
    waited = (row["delay_mean"] - 12 * MS) * row["delivered"]
    assert waited == pytest.approx(wait * MS, abs=1e-9)


# Without mobility the correspondent goes on sending to the old address; with Mobile PPC until it
# hears of the new one.
@pytest.mark.parametrize(("system", "astray"), [("none", 1000), ("mobile-ppc", 300 + 17 + 12)])
def test_an_address_given_to_another_node_takes_no_packet_along(
    tmp_path: Path, system: MobilitySystem, astray: int
) -> None:
    again = "10.128.0.77"
    moves = (
        f"0 m1 attach A {again}, 0 m2 attach B, 10 m1 detach A, 10 m1 attach B,"
        f" 10 m2 attach A {again}"
    )
    options = ("network.0.address=0", "correspondents.count=2", "traffic.up=0")
    finished = run(tmp_path, system, moves, *options, "scenario.duration=11")
    delivered = flows(finished)["CN", "MN"]["delivered"]
    arrived = sent(finished, "data", "CN", "MN", "delivered")
    assert arrived - delivered == pytest.approx(astray, abs=2)


# --- the messages ---------------------------------------------------------------------------------

Signal = tuple[str, str, str]
HANDOVER: Final[dict[MobilitySystem, dict[Signal, int]]] = {
    "mobile-ipv4": {
        ("Registration Request", "MN", "HA"): 74,
        ("Registration Reply", "HA", "MN"): 70,
    },
    "mobile-ipv6": {
        ("Binding Update", "MN", "HA"): 120,
        ("Home Test Init", "MN", "HA"): 140,
        ("Care-of Test Init", "MN", "CN"): 56,
        ("Care-of Test", "CN", "MN"): 64,
        ("Binding Acknowledgement", "HA", "MN"): 104,
        ("Home Test Init", "HA", "CN"): 56,
        ("Home Test", "CN", "HA"): 64,
        ("Home Test", "HA", "MN"): 156,
        ("Binding Update", "MN", "CN"): 96,
    },
    "lin6": {
        ("Mapping Update Request", "MN", "MA"): 104,
        ("Mapping Update Reply", "MA", "MN"): 80,
        ("Mapping Refresh", "MN", "CN"): 64,
        ("MA Query", "CN", "MA"): 80,
        ("MA Reply", "MA", "CN"): 80,
    },
    "lin6-associated": {
        ("Mapping Update Request", "MN", "MA"): 104,
        ("Mapping Update Request", "MN", "CN"): 104,
        ("Mapping Update Reply", "CN", "MN"): 80,
        ("Mapping Update Reply", "MA", "MN"): 80,
    },
    "mobile-ppc": {
        ("CU Request", "MN", "CN"): 80,
        ("DNS UPDATE", "MN", "DDNS"): 162,
        ("CU Response", "CN", "MN"): 48,
        ("DNS UPDATE response", "DDNS", "MN"): 134,
    },
}


def signalling(finished: Run) -> dict[Signal, tuple[int, int]]:
    """Number and bytes of all messages but data, by type and hop."""
    return {
        (row["type"], row["from_role"], row["to_role"]): (row["sent"], row["ip_bytes"])
        for row in records(finished.results.messages)
        if row["type"] not in ("data", "DNS query", "DNS answer")
    }


@pytest.mark.parametrize("system", HANDOVER)
def test_a_handover_takes_the_specifications_messages(
    tmp_path: Path, system: MobilitySystem
) -> None:
    before = signalling(run(tmp_path, system, STILL))
    after = signalling(run(tmp_path, system, HARD))
    added = {
        key: tuple(a - b for a, b in zip(found, before.get(key, (0, 0)), strict=True))
        for key, found in after.items()
    }
    assert {key: one for key, one in added.items() if one != (0, 0)} == {
        key: (1, size) for key, size in HANDOVER[system].items()
    }


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("loss", [0, 0.05])
def test_every_datagram_is_accounted_for(
    tmp_path: Path, system: MobilitySystem, loss: float
) -> None:
    """The node leaves at 11, so that nothing is under way at 40, when all requests have ended."""
    moves = HARD + ", 11 m1 detach B"
    options = (f"network.0.loss={loss}", f"network.1.loss={loss}", "scenario.duration=40")
    finished = run(tmp_path, system, moves, *options)
    rows = records(finished.results.messages)
    assert [row for row in rows if row["delivered"] + row["lost"] != row["sent"]] == []
    servers = {"HA", "MA", "DDNS", "IMS"}
    arrived = [row for row in rows if row["to_role"] in servers and row["from_role"] != "DNS"]
    assert load(finished, "received") == sum(row["delivered"] for row in arrived)
    repeated = sum(row["retransmitted"] for row in rows if row["type"] != "data")
    assert repeated == 0 or loss > 0


def test_what_goes_to_a_home_that_nobody_is_at_counts_as_sent_to_the_node(tmp_path: Path) -> None:
    finished = run(tmp_path, "mobile-ipv4", STILL, "traffic.start=0", "scenario.duration=1")
    # The first request is at the home agent after 25 ms; until then nobody catches packets.
    unclaimed = sent(finished, "data", "CN", "MN")
    assert unclaimed == pytest.approx(25, abs=1)
    assert sent(finished, "data", "CN", "MN", "lost") == unclaimed
    assert sent(finished, "data", "CN", "HA") == pytest.approx(975, abs=1)


def test_bytes_of_all_systems_are_told_from_the_ip_header_on(tmp_path: Path) -> None:
    finished = run(tmp_path, "mat", HARD)
    for row in records(finished.results.messages):
        header = 0 if row["type"] == "data" else 28
        assert row["ip_bytes"] == row["bytes"] + row["sent"] * header


def test_a_ladder_shows_what_goes_between_agent_and_correspondent_for_the_node(
    tmp_path: Path,
) -> None:
    finished = run(tmp_path, "mobile-ipv6", HARD)
    node, messages = finished.ladders["hard"]
    assert node == "m1"
    ordered = sorted((m for m in messages if m.kind == "signal"), key=lambda m: m.sent)
    names = {"m1": "MN", "IMS": "HA", "CN1": "CN"}
    hops = [(m.label, names[m.from_], names[m.to]) for m in ordered]
    assert sorted(hops) == sorted(HANDOVER["mobile-ipv6"])
    assert finished.participants == ("m1", "IMS", "CN1")


def test_a_run_makes_names_of_generated_nodes_only_when_they_are_asked_for() -> None:
    scenario = load_scenario(find_scenario("stadium"), ["nodes.count=3", "correspondents.count=1"])
    finished = simulate(scenario)
    assert isinstance(finished.nodes, NumberedNames)
    assert finished.participants == ("MN1", "MN2", "MN3", "IMS_CN", "IMS_MN", "CN1")


# --- the load of agents ---------------------------------------------------------------------------


def test_a_home_agents_load_is_in_the_table(tmp_path: Path) -> None:
    times = ("ims.0.service=0.002", "ims.0.forward=0.0001")
    finished = run(tmp_path, "mobile-ipv4", HARD, *times)
    requests = sent(finished, "Registration Request", "MN", "HA", "delivered")
    packets = sent(finished, "data", "HA", "MN")
    assert requests == 2
    assert packets > 10_000
    assert load(finished, "answered") == requests
    assert load(finished, "forwarded") == packets
    assert load(finished, "refused") == 0
    busy = sum(row["busy"] * row["interval"] for row in records(finished.results.ims))
    assert busy == pytest.approx(requests * 2 * MS + packets * 0.1 * MS, abs=0.1 * MS)
    assert {row["mappings"] for row in records(finished.results.ims)} == {1}
    assert {row["ims"] for row in records(finished.results.ims)} == {"IMS"}


def test_a_home_agent_that_cannot_keep_up_drops_data(tmp_path: Path) -> None:
    options = ("ims.0.forward=0.002", "ims.0.queue=20")
    finished = run(tmp_path, "mobile-ipv4", STILL, *options)
    row = flows(finished)["CN", "MN"]
    assert load(finished, "dropped") == pytest.approx(row["sent"] / 2, rel=0.05)
    assert row["delay_mean"] == pytest.approx((52 + 21 * 2) * MS, rel=0.02)


def test_a_mapping_that_does_not_exist_counts_as_refused(tmp_path: Path) -> None:
    pairs = "traffic.pairs='mobile'"
    assert load(run(tmp_path, "lin6", PAIR, pairs), "refused") == 0
    # The peer is registered 360 ms after it came; until then it is asked for every 50 ms or so.
    options = (pairs, "traffic.start=0", "nodes.start_attached=false")
    finished = run(tmp_path, "lin6", "0 m1 attach A, 5 m2 attach B", *options)
    assert load(finished, "refused") == pytest.approx(6, abs=1)
    assert load(finished, "forwarded") == 0


def test_what_serves_correspondents_only_has_no_agent(tmp_path: Path) -> None:
    text = SCENARIO.replace('name = "IMS"\n', 'name = "IMS"\nserves = "mobile"\n')
    text += '\n[[ims]]\nname = "OTHER"\nserves = "correspondents"\n'
    write(tmp_path / "events.csv", events(STILL))
    loaded = load_scenario(write(tmp_path / "s.toml", text), ('scenario.system="mobile-ipv4"',))
    finished = simulate(loaded)
    assert {row["ims"] for row in records(finished.results.ims)} == {"IMS"}


@pytest.mark.parametrize("system", ["mobile-ipv4", "mobile-ipv6", "lin6"])
def test_several_agents_share_the_nodes(tmp_path: Path, system: MobilitySystem) -> None:
    moves = ", ".join(f"0 m{n} attach A" for n in range(6))
    slow = ("traffic.up=1", "traffic.down=1")
    finished = run(tmp_path, system, moves, "ims.0.count=2", *slow)
    last = {row["ims"]: row["mappings"] for row in records(finished.results.ims)}
    assert len(last) == 2
    assert sum(last.values()) == 6
    assert min(last.values()) > 0


# --- ways -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "up", "down"),
    [
        ("mat", (12, 1, 0), (12, 1, 0)),
        ("mobile-ipv4", (12, 1, 0), (52, 52 / 12, 20)),
        ("mobile-ipv4-reverse-tunnel", (52, 52 / 12, 20), (52, 52 / 12, 20)),
        ("mobile-ipv6-tunnel", (52, 52 / 12, 40), (52, 52 / 12, 40)),
        ("lin6", (12, 1, 0), (12, 1, 0)),
        ("mobile-ppc", (12, 1, 0), (12, 1, 0)),
        ("none", (12, 1, 0), (12, 1, 0)),
    ],
)
def test_delay_stretch_and_headers_of_the_way(
    tmp_path: Path,
    system: MobilitySystem,
    up: tuple[float, float, float],
    down: tuple[float, float, float],
) -> None:
    finished = run(tmp_path, system, STILL, "traffic.start=3", "scenario.duration=5")
    row = flows(finished)["MN", "CN"]
    assert row["sent"] == pytest.approx(2000, abs=1)
    # The first packets of a flow wait where the peer has to be found first.
    wait = {"mat": 1, "lin6": 1, "mobile-ppc": 0.2, "none": 0.2}.get(system, 1e-6)
    for found, expected in (
        (way(finished, "MN", "CN"), up),
        (way(finished, "CN", "MN"), down),
    ):
        assert found[0] == pytest.approx(expected[0], abs=wait)
        assert found[1:] == pytest.approx(expected[1:])


def test_packets_that_never_arrive_are_lost(tmp_path: Path) -> None:
    row = flows(run(tmp_path, "mobile-ipv4", HARD))["CN", "MN"]
    assert row["lost"] == row["sent"] - row["delivered"] > 300


def test_a_straight_way_that_takes_no_time_has_no_stretch(tmp_path: Path) -> None:
    near = ("network.0.delay=0", "correspondents.delay=0")
    finished = run(tmp_path, "mobile-ipv4", STILL, *near)
    assert "stretch_mean" not in flows(finished)["CN", "MN"]
    assert flows(finished)["MN", "CN"]["stretch_mean"] == 1


def test_an_optimised_route_is_straight_and_bears_a_header(tmp_path: Path) -> None:
    finished = run(tmp_path, "mobile-ipv6", STILL, "scenario.duration=102")
    # The first packets go through the tunnel: for some 104 ms of 100 s, both ways.
    for sender, receiver in (("MN", "CN"), ("CN", "MN")):
        delay, stretch, headers = way(finished, sender, receiver)
        assert delay == pytest.approx(12, abs=0.1)
        assert stretch == pytest.approx(1, abs=0.01)
        assert headers == pytest.approx(24, abs=0.1)


def test_two_tunnels_between_nodes_of_one_home_agent_add_up(tmp_path: Path) -> None:
    finished = run(tmp_path, "mobile-ipv4-reverse-tunnel", PAIR, "traffic.pairs='mobile'")
    ((roles, row),) = flows(finished).items()
    assert roles == ("MN", "MN")
    assert row["header_mean"] == 40
    assert row["stretch_mean"] == pytest.approx((25 + 30) / 15)
    assert row["delivered"] == pytest.approx(2 * 11_000, abs=120)


@pytest.mark.parametrize("moves", [STILL, SOFT])
def test_mapping_update_options_are_header_overhead(tmp_path: Path, moves: str) -> None:
    finished = run(tmp_path, "mat", moves, "nodes.family=6", "traffic.down=0")
    row = flows(finished)["MN", "CN"]
    (wire,) = (
        one
        for one in records(finished.results.messages)
        if (one["type"], one["from_role"]) == ("data", "MN")
    )
    assert row["stretch_mean"] == 1
    announced = (wire["bytes"] - 200 * wire["sent"]) / 24
    # What the receiver drops, as it holds too much already, came with an option.
    kept = announced - (wire["delivered"] - row["delivered"])
    assert 24 * kept == pytest.approx(row["header_mean"] * row["delivered"])
    assert kept > 30


# --- the same scenario under all ------------------------------------------------------------------


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_shipped_scenario_runs_under_every_system(system: MobilitySystem) -> None:
    family = SYSTEM_FAMILIES.get(system, 4)
    chosen = Scenario.load("first").changed({"scenario.system": system, "nodes.family": family})
    results = simulate(chosen).results
    outcomes = results.handovers["outcome"].tolist()
    # Without mobility flows go on when the node is back in A, with the very same address.
    moved = "superseded" if system == "none" else "completed"
    assert outcomes == [moved, moved, "completed"]
    assert results.provenance.overrides.startswith(f'scenario.system="{system}"')


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_town_of_vehicles_runs_under_every_system(system: MobilitySystem) -> None:
    values = {
        "scenario.system": system,
        "nodes.family": SYSTEM_FAMILIES.get(system, 4),
        "scenario.duration": 120.0,
        "traffic.up": 1.0,
        "traffic.down": 1.0,
    }
    results = simulate(Scenario.load("town").changed(values)).results
    completed = (results.handovers["outcome"] == "completed").mean()
    assert len(results.handovers) > 50
    assert completed > 0.5 if system != "none" else completed < 0.5


RANDOM: Final = (
    "network.0.delay={exponential = 0.01}",
    "network.1.address={uniform = [0.1, 0.6]}",
    "network.1.loss=0.05",
    "ims.0.service={exponential = 0.001}",
    "ims.0.forward={exponential = 0.0001}",
    "traffic.up=50",
    "traffic.down=50",
)


@pytest.mark.parametrize("system", OTHERS)
def test_equal_seeds_give_equal_bytes(tmp_path: Path, system: MobilitySystem) -> None:
    loaded = scenario(tmp_path, system, HARD, *RANDOM)
    first = parquet(simulate(loaded).results, tmp_path / "1")
    assert first == parquet(simulate(loaded).results, tmp_path / "2")
    assert "flows.parquet" in first
    assert first != parquet(simulate(loaded, run=1).results, tmp_path / "3")


def parquet(results: Results, folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in results.write(folder)}


def test_results_of_several_systems_have_the_same_columns(tmp_path: Path) -> None:
    tables: list[list[pd.DataFrame]] = []
    for system in SYSTEMS:
        results = run(tmp_path, system, HARD, "traffic.up=20", "traffic.down=20").results
        tables.append([results.handovers, results.messages, results.ims, results.flows])
    for same in zip(*tables, strict=True):
        assert len({tuple(frame.columns) for frame in same}) == 1
        assert len({tuple(map(str, frame.dtypes)) for frame in same}) == 1


# --- what is refused ------------------------------------------------------------------------------


def refused(folder: Path, system: str, text: str = SCENARIO, *overrides: str) -> str:
    write(folder / "events.csv", events(STILL))
    named = text.replace('name = "test"\n', f'name = "test"\nsystem = "{system}"\n')
    path = write(folder / "s.toml", named)
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path, overrides)
    return str(caught.value).replace(str(folder) + "/", "")


@pytest.mark.parametrize("system", SYSTEM_FAMILIES)
def test_a_system_of_the_other_ip_version_is_refused(
    tmp_path: Path, system: MobilitySystem
) -> None:
    own = SYSTEM_FAMILIES[system]
    other = 10 - own
    text = SCENARIO.replace("[nodes]\n", f"[nodes]\nfamily = {other}\n")
    what = f'is "{system}", which is for IPv{own}; nodes.family is {other}'
    assert refused(tmp_path, system, text) == f"s.toml:5: scenario.system: {what}"


def test_a_system_that_there_is_not_is_refused(tmp_path: Path) -> None:
    found = refused(tmp_path, "mobile-ipv5")
    assert found.startswith('s.toml:5: scenario.system: is "mobile-ipv5"; must be ')
    assert all(system in found for system in SYSTEMS)


def test_pairs_that_know_each_other_are_of_mat_only(tmp_path: Path) -> None:
    text = SCENARIO + "established = true\n"
    what = 'is true; must be false, as scenario.system is "mobile-ppc"'
    line = text.count("\n") + 1
    expected = f"s.toml:{line}: traffic.established: {what}"
    assert refused(tmp_path, "mobile-ppc", text) == expected


def test_replicas_are_of_mat_only(tmp_path: Path) -> None:
    text = SCENARIO.replace("forward = 0\n", "forward = 0\nreplicas = 2\n")
    what = 'is 2; must be 1, as scenario.system is "none", whose servers have none'
    line = text[: text.index("replicas")].count("\n") + 2
    assert refused(tmp_path, "none", text) == f"s.toml:{line}: ims.0.replicas: {what}"


@pytest.mark.parametrize("system", ["mobile-ipv4", "mobile-ipv6", "lin6"])
def test_what_hosts_take_for_an_answer_is_added_to_messages_and_not_to_data(
    tmp_path: Path, system: MobilitySystem
) -> None:
    one = run(tmp_path, system, HARD)
    other = run(tmp_path, system, HARD, "nodes.processing=0.003")
    (quick,), (slow,) = handovers(one), handovers(other)
    assert slow["register"] == pytest.approx(quick["register"] + 3 * MS, abs=1e-9)
    if system == "mobile-ipv4":
        assert way(one, "CN", "MN") == pytest.approx(way(other, "CN", "MN"), abs=0.01)


def test_a_question_to_the_dns_takes_a_host_of_another_system_its_time_too(
    tmp_path: Path,
) -> None:
    def asked(taken: float) -> tuple[float, float]:
        given = scenario(tmp_path, "mobile-ppc", STILL, f"nodes.processing={taken}")
        lines = [line for line in simulate(given, record=True).recording if line.kind == "dns"]
        assert lines[0].received is not None
        return lines[0].sent, lines[0].received

    assert asked(30 * MS) == pytest.approx([time + 30 * MS for time in asked(0)], abs=1e-9)


# --- several workers ------------------------------------------------------------------------------


def together(nodes: int) -> str:
    """All go from A to B at once."""
    rows = [f"0 m{n} attach A" for n in range(nodes)]
    rows += [f"10 m{n} {act}" for n in range(nodes) for act in ("detach A", "attach B")]
    return ", ".join(rows)


def test_messages_of_a_node_do_not_overtake_one_another_in_a_home_agent(tmp_path: Path) -> None:
    """What is tunnelled before the Binding Update is known would be dropped, and come 1 s later."""
    options = ("ims.0.workers=4", "ims.0.service={uniform = [0.0001, 0.01]}", "traffic.up=5")
    finished = run(tmp_path, "mobile-ipv6", together(30), *options, "traffic.down=5")
    rows = handovers(finished)
    assert [row["outcome"] for row in rows] == ["completed"] * 30
    assert max(row["notify"] for row in rows) < 1


def test_each_worker_of_an_agent_has_its_own_queue_by_source_and_destination(
    tmp_path: Path,
) -> None:
    nodes, workers, service = 12, 3, 10 * MS
    options = (f"ims.0.workers={workers}", f"ims.0.service={service}", 'traffic.pairs="none"')
    finished = run(tmp_path, "mobile-ipv4", together(nodes), *options)
    agent, ahead = parse_address("198.18.0.1"), [0] * workers
    for row in handovers(finished):
        worker = crc32(parse_address(row["to_moa"]) + agent) % workers
        ahead[worker] += 1
        assert row["register"] == pytest.approx(60 * MS + ahead[worker] * service, abs=1e-9)
    assert min(ahead) > 0
