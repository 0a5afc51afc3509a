"""DHCP as an exchange: the real client, on a way with a delay, before a server with a queue."""

from pathlib import Path

import pytest

from mat.dhcp import RETRANSMISSION
from mat_files.errors import ScenarioError
from mat_files.mobility import mobility
from mat_files.scenario import Scenario, load_scenario
from mat_files.streams import random_stream
from mat_sim.engine import Run, simulate
from mat_sim.engine._simulation import _World
from tests.files.test_traces import write
from tests.sim.test_engine import Row, events, handovers, sent
from tests.sim.test_traffic import assert_equal

WAY, SERVICE = 0.003, 0.002
"""One-way delay between node and server, and the server's time for a message, s."""
EXCHANGE = 2 * WAY + SERVICE
"""A question and its answer, s."""
SCENARIO = f"""format = 1

[scenario]
name = "test"
duration = 60

[movement]
events = "events.csv"

[nodes]
interfaces = 1

[[network]]
name = "A"

[network.dhcp]
delay = {WAY}
service = {SERVICE}

[[network]]
name = "B"

[network.dhcp]
delay = {WAY}
service = {SERVICE}

[[network]]
name = "STATIC"
address = 0.5

[traffic]
pairs = "none"
"""
AWAY = "0 m1 attach STATIC, 10 m1 detach STATIC, 10 m1 attach B"
OVER = "0 m1 attach A, 10 m1 detach A, 10 m1 attach B"
AGAIN = "0 m1 attach A, 10 m1 detach A, 12 m1 attach A"
BACK = f"{OVER}, 20 m1 detach B, 20 m1 attach A"


def crowd(nodes: int) -> str:
    """All come to B at once, none from a network with DHCP."""
    rows = [f"0 m{n} attach STATIC" for n in range(nodes)]
    rows += [f"10 m{n} {act}" for n in range(nodes) for act in ("detach STATIC", "attach B")]
    return ", ".join(rows)


def scenario(folder: Path, moves: str, *overrides: str) -> Scenario:
    write(folder / "events.csv", events(moves))
    return load_scenario(write(folder / "s.toml", SCENARIO), overrides)


def run(folder: Path, moves: str, *overrides: str) -> Run:
    return simulate(scenario(folder, moves, *overrides))


def addresses(finished: Run) -> list[float]:
    """How long each handover took from the association to the address, in order of nodes, s."""
    rows = handovers(finished)
    assert all("address" in row for row in rows)
    return [float(row["address"]) for row in rows]


def received(finished: Run, kind: str) -> int:
    """Messages of a DHCP server."""
    return sent(finished, f"DHCP {kind}", "DHCP", "MN")


def asked(finished: Run, kind: str, column: str = "sent") -> int:
    """Messages to a DHCP server."""
    return sent(finished, f"DHCP {kind}", "MN", "DHCP", column)


def exactly(seconds: float) -> object:
    return pytest.approx(seconds, abs=1e-9)


def when_configured(row: Row) -> float:
    """When a handover had its address, s."""
    parts = ("away", "detect", "associate", "address")
    return float(row["time"]) + sum(float(row[part]) for part in parts)


class Clients:
    """What all clients of a run draw, in the order that they do."""

    def __init__(self) -> None:
        self._random = random_stream(1, 0, "DHCP clients")

    def transaction(self) -> None:
        self._random.getrandbits(32)

    def pauses(self, *transmissions: int) -> list[float]:
        """Times until the next transmission, after so many before it, s."""
        return [RETRANSMISSION[n] * (1 + 0.1 * self._random.random()) for n in transmissions]


# ---- the sums ------------------------------------------------------------------------------------


def test_an_address_takes_two_exchanges(tmp_path: Path) -> None:
    finished = run(tmp_path, AWAY)
    assert addresses(finished) == [exactly(2 * EXCHANGE)]
    assert (asked(finished, "DISCOVER"), asked(finished, "REQUEST")) == (1, 1)
    assert (received(finished, "OFFER"), received(finished, "ACK")) == (1, 1)


def test_with_rapid_commit_it_takes_one(tmp_path: Path) -> None:
    finished = run(tmp_path, AWAY, "network.1.dhcp.rapid_commit=true")
    assert addresses(finished) == [exactly(EXCHANGE)]
    assert (asked(finished, "REQUEST"), received(finished, "OFFER")) == (0, 0)


def test_elsewhere_the_old_address_is_refused_and_then_it_takes_two_more(tmp_path: Path) -> None:
    finished = run(tmp_path, OVER)
    assert addresses(finished) == [exactly(3 * EXCHANGE)]
    assert received(finished, "NAK") == 1


def test_after_a_gap_in_one_network_one_exchange_gives_the_old_address(tmp_path: Path) -> None:
    finished = run(tmp_path, AGAIN)
    (row,) = handovers(finished)
    assert row["address"] == exactly(EXCHANGE)
    assert row["to_moa"] == row["from_moa"]
    assert asked(finished, "DISCOVER") == 0


def test_a_node_that_comes_back_gets_its_address_though_it_asks_for_the_last_one(
    tmp_path: Path,
) -> None:
    finished = run(tmp_path, BACK)
    first, second = handovers(finished)
    assert second["address"] == exactly(3 * EXCHANGE)
    assert second["to_moa"] == first["from_moa"]


def test_a_server_that_says_nothing_to_strangers_costs_the_first_pause(tmp_path: Path) -> None:
    finished = run(tmp_path, OVER, "network.1.dhcp.authoritative=false")
    clients = Clients()
    clients.transaction()  # in A: DISCOVER and REQUEST, at the begin
    clients.pauses(0, 0)
    clients.transaction()
    (pause,) = clients.pauses(0)
    assert addresses(finished) == [exactly(pause + 2 * EXCHANGE)]
    assert received(finished, "NAK") == 0


def test_a_question_that_is_lost_is_repeated_after_the_clients_pause(tmp_path: Path) -> None:
    """Of two at once, the one that finds neither worker nor place in the queue."""
    finished = run(tmp_path, crowd(2), "network.1.dhcp.queue=0")
    clients = Clients()
    clients.transaction()
    clients.pauses(0)
    clients.transaction()
    (pause,) = clients.pauses(0)
    assert addresses(finished) == [exactly(2 * EXCHANGE), exactly(pause + 2 * EXCHANGE)]
    assert asked(finished, "DISCOVER", "lost") == 1
    assert asked(finished, "DISCOVER", "retransmitted") == 1


def test_on_a_way_that_loses_everybody_gets_an_address_at_last(tmp_path: Path) -> None:
    """With a loss p each way, a question and its answer succeed (1 - p)² of the times."""
    loss, nodes = 0.3, 60
    finished = run(tmp_path, crowd(nodes), f"network.1.dhcp.loss={loss}", "scenario.duration=600")
    taken = addresses(finished)
    assert len(taken) == nodes
    assert min(taken) >= 2 * EXCHANGE - 1e-9
    questions = asked(finished, "DISCOVER")
    answered = questions - asked(finished, "DISCOVER", "retransmitted")
    assert 0.3 < answered / questions < 0.7  # 0.49 expected, and four standard errors
    lost = asked(finished, "DISCOVER", "lost")
    assert 0.1 < lost / questions < 0.5
    assert asked(finished, "DISCOVER", "delivered") == questions - lost


def test_a_probe_delays_the_offer_of_an_address_that_is_new_to_the_node(tmp_path: Path) -> None:
    """The questions that the node repeats meanwhile are not answered."""
    finished = run(tmp_path, f"{AWAY}, 30 m1 detach B, 30 m1 attach A", "network.1.dhcp.probe=1.5")
    assert addresses(finished) == [exactly(1.5 + 2 * EXCHANGE), exactly(3 * EXCHANGE)]
    assert asked(finished, "DISCOVER") > received(finished, "OFFER") == 2


def test_an_address_that_the_node_has_had_is_not_probed_again(tmp_path: Path) -> None:
    moves = f"{AWAY}, 30 m1 detach B, 30 m1 attach A, 40 m1 detach A, 40 m1 attach B"
    finished = run(tmp_path, moves, "network.1.dhcp.probe=1.5", "network.1.dhcp.authoritative=true")
    assert addresses(finished)[2] == exactly(3 * EXCHANGE)


def test_an_answer_to_who_has_left_meanwhile_is_lost(tmp_path: Path) -> None:
    moves = "0 m1 attach STATIC, 10 m1 detach STATIC, 10 m1 attach B, 10.2 m1 detach B"
    finished = run(tmp_path, moves, "network.1.dhcp.delay=0.04")
    assert asked(finished, "DISCOVER", "delivered") == 1
    assert sent(finished, "DHCP OFFER", "DHCP", "MN", "lost") == 1


# ---- a crowd -------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_of_a_crowd_the_nth_waits_for_those_before_it(tmp_path: Path, workers: int) -> None:
    nodes = 20
    options = ("network.1.dhcp.rapid_commit=true", f"network.1.dhcp.workers={workers}")
    finished = run(tmp_path, crowd(nodes), *options)
    turns = [1 + n // workers for n in range(nodes)]
    assert addresses(finished) == [exactly(2 * WAY + turn * SERVICE) for turn in turns]


def test_a_server_that_is_too_slow_for_a_crowd_drops_and_serves_it_in_the_end(
    tmp_path: Path,
) -> None:
    nodes = 40
    options = ("network.1.dhcp.service=0.05", "network.1.dhcp.queue=5")
    finished = run(tmp_path, crowd(nodes), *options)
    taken = addresses(finished)
    assert len(taken) == nodes
    assert asked(finished, "DISCOVER", "lost") > nodes
    assert max(taken) > 2 * nodes * 0.05


def test_where_all_addresses_are_taken_a_node_waits_until_a_lease_has_ended(
    tmp_path: Path,
) -> None:
    """Five addresses for six nodes: one that leaves at 12 keeps its own for the lease."""
    moves = f"{crowd(6)}, 12 m0 detach B, 12 m0 attach STATIC"
    pool = 'network.1.pool="10.64.0.0/29"'
    finished = run(tmp_path, moves, pool, "network.1.lease=20")
    rows = [row for row in handovers(finished) if row["to_network"] == "B"]
    early, (late,) = rows[:-1], rows[-1:]
    assert [row["node"] for row in early] == ["m0", "m1", "m2", "m3", "m4"]
    assert len({row["to_moa"] for row in early}) == 5
    assert late["to_moa"] == early[0]["to_moa"]
    configured = when_configured(late)
    assert configured > 10 + 20
    assert configured < 10 + 20 + RETRANSMISSION[-1]


def test_without_an_address_for_all_those_attached_at_the_begin_some_ask_on(
    tmp_path: Path,
) -> None:
    moves = ", ".join(f"0 m{n} attach B" for n in range(7))
    finished = run(tmp_path, moves, 'network.1.pool="10.64.0.0/29"')
    assert handovers(finished) == []
    assert asked(finished, "DISCOVER") > 2 * 5
    assert received(finished, "OFFER") == 0


def test_pairs_that_know_each_other_are_those_that_got_addresses(tmp_path: Path) -> None:
    moves = ", ".join(f"0 m{n} attach B" for n in range(7))
    traffic = ('traffic.pairs="correspondent"', "traffic.established=true", "scenario.duration=9")
    finished = run(tmp_path, moves, 'network.1.pool="10.64.0.0/29"', *traffic)
    assert received(finished, "OFFER") == 0
    assert sent(finished, "data", "MN", "CN", "delivered") > 0


# ---- leases --------------------------------------------------------------------------------------


def test_a_lease_is_prolonged_at_half_its_time(tmp_path: Path) -> None:
    finished = run(tmp_path, AWAY, "network.1.lease=20")
    # At 20, 30, 40 and 50, where each is asked for at half of the one before.
    assert asked(finished, "REQUEST") == 1 + 4
    assert received(finished, "ACK") == 1 + 4
    assert len(handovers(finished)) == 1


def test_a_lease_that_cannot_be_prolonged_ends_and_the_node_is_heard_of_again(
    tmp_path: Path,
) -> None:
    """In B nearly every message is lost, so leases of 10 s run out."""
    options = ("network.1.dhcp.loss=0.6", "network.1.lease=10", "scenario.duration=600")
    finished = run(tmp_path, AWAY, *options)
    starts_anew = asked(finished, "DISCOVER") - asked(finished, "DISCOVER", "retransmitted")
    assert starts_anew > 2
    assert received(finished, "ACK") > 2
    assert sent(finished, "IMS Update", "MN", "IMS") > starts_anew


def test_at_the_end_of_its_lease_an_address_leads_nowhere(tmp_path: Path) -> None:
    options = ("network.1.dhcp.loss=0.9999", "network.1.lease=10")
    given = scenario(tmp_path, "0 m1 attach B", *options)
    world = _World(given, mobility(given), 0, record=False)
    world.clock.run(9.9)
    (link,) = world._mobile[0]._links
    address = link.address
    assert address is not None
    assert world._network.link_of(address) is link
    world.clock.run(10.1)
    assert link.up
    assert link.address is None
    assert world._network.link_of(address) is None
    # What is still sent there goes over the network's link, and counts as sent to who had it.
    assert world._network.site_of(address) is link.site
    assert world._network.last_holder(address) is link.party


@pytest.mark.parametrize("rate", [(), ("network.1.rate=1e6",)], ids=str)
def test_flows_without_events_notice_that_a_lease_has_ended(
    tmp_path: Path, rate: tuple[str, ...]
) -> None:
    traffic = ('traffic.pairs="correspondent"', "traffic.up=20", "traffic.down=50")
    bad = ("network.1.dhcp.loss=0.6", "network.1.lease=10", "nodes.processing=0.004", *rate)
    moves = f"{AWAY}, 90 m1 detach B, 90 m1 attach A"
    one, other = (
        run(tmp_path, moves, "scenario.duration=120", *traffic, *bad, f'traffic.events="{kind}"')
        for kind in ("packets", "changes")
    )
    assert asked(one, "DISCOVER") - asked(one, "DISCOVER", "retransmitted") > 2
    assert_equal(one, other)


def test_who_is_attached_from_the_begin_has_its_address_without_a_message(
    tmp_path: Path,
) -> None:
    finished = run(tmp_path, "0 m1 attach A", "scenario.duration=20")
    assert asked(finished, "DISCOVER") == 0
    assert sent(finished, "IMS Update", "MN", "IMS") == 1


def test_an_address_just_before_those_of_a_network_is_refused_like_any_other(
    tmp_path: Path,
) -> None:
    moves = "0 m1 attach A 10.159.255.255, 10 m1 detach A, 10 m1 attach B"
    finished = run(tmp_path, moves)
    assert handovers(finished)[0]["to_moa"].startswith("10.160.0.")
    assert received(finished, "NAK") == 1
    assert addresses(finished) == [exactly(3 * EXCHANGE)]


def test_an_address_that_the_events_prescribe_is_what_the_server_offers(tmp_path: Path) -> None:
    moves = f"{AWAY} 10.129.7.7, 20 m1 detach B, 20 m1 attach A, 30 m1 detach A, 30 m1 attach B"
    finished = run(tmp_path, moves)
    given = [row["to_moa"] for row in handovers(finished)]
    assert given[0] == given[2] == "10.129.7.7" != given[1]


# ---- whatever the nodes follow -------------------------------------------------------------------


def test_a_node_with_two_interfaces_asks_by_each(tmp_path: Path) -> None:
    moves = "0 m1 attach A, 10 m1 attach B, 20 m1 detach A, 30 m1 attach A, 40 m1 detach B"
    finished = run(tmp_path, moves, "nodes.interfaces=2")
    rows = handovers(finished)
    assert [row["kind"] for row in rows] == ["soft", "soft"]
    # The second interface had no address before; the first asks for the one that it had.
    assert addresses(finished) == [exactly(2 * EXCHANGE), exactly(EXCHANGE)]


@pytest.mark.parametrize("system", ["mobile-ipv4", "mobile-ppc", "none"])
def test_other_systems_get_their_addresses_alike(tmp_path: Path, system: str) -> None:
    ours = run(tmp_path, BACK)
    other = run(tmp_path, BACK, f'scenario.system="{system}"')
    assert addresses(other) == addresses(ours)


def test_equal_seeds_give_equal_runs_and_others_do_not(tmp_path: Path) -> None:
    given = scenario(tmp_path, crowd(20), "network.1.dhcp.loss=0.3")
    one, again = simulate(given).results, simulate(given).results
    other = simulate(given, run=1).results
    assert one.handovers.equals(again.handovers)
    assert one.messages.equals(again.messages)
    assert not one.handovers.equals(other.handovers)


def test_where_addresses_take_a_time_the_exchange_beside_changes_nothing(tmp_path: Path) -> None:
    moves = "0 m1 attach STATIC, 10 m1 detach STATIC, 20 m1 attach STATIC"
    options = ("network.2.association={uniform = [0.1, 0.4]}", "network.2.address=0.25")
    with_dhcp = run(tmp_path, moves, *options).results
    (row,) = handovers(run(tmp_path, moves, *options))
    assert row["address"] == exactly(0.25)
    text = SCENARIO.replace("[network.dhcp]", "").replace(f"service = {SERVICE}", "")
    write(tmp_path / "s.toml", text)
    without = simulate(load_scenario(tmp_path / "s.toml", options)).results
    assert with_dhcp.handovers.equals(without.handovers)


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("network.0.address=0.3", "network.0.address: is given beside dhcp"),
        ("nodes.family=6", "network.0.dhcp: is DHCP for IPv4, and nodes.family is 6"),
        ("network.1.lease=10.5", "network.1.lease: is 10.5; must be a whole number"),
        ("network.1.dhcp.servise=1", "network.1.dhcp.servise: unknown key; did you mean service?"),
        ("network.1.dhcp.loss=1", "network.1.dhcp.loss: is 1; must be less than 1"),
        ("network.1.dhcp.workers=0", "network.1.dhcp.workers: is 0; must be 1 or more"),
        ("network.1.dhcp=true", "network.1.dhcp: is true"),
        ('network.1.pool="10.64.0.0/31"', "10.64.0.0/31, too small for 1 nodes"),
        (
            "coverage.grid={spacing=10, columns=1, rows=1, range=9, address=1, dhcp={}}",
            "coverage.grid.address: is given beside dhcp",
        ),
    ],
)
def test_what_makes_no_sense_is_named(tmp_path: Path, override: str, problem: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        run(tmp_path, OVER, override)
    assert problem in str(caught.value)


def test_a_problem_has_the_file_and_the_line(tmp_path: Path) -> None:
    write(tmp_path / "events.csv", events(OVER))
    text = SCENARIO.replace('name = "A"', 'name = "A"\naddress = 0.3')
    path = write(tmp_path / "s.toml", text)
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    line = text.splitlines().index("address = 0.3") + 1
    assert str(caught.value).startswith(f"{path}:{line}: network.0.address: is given beside dhcp")
