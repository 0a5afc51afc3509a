"""A run that would not fit into memory says so before it starts."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from mat_files.errors import ScenarioError
from mat_files.scenario import Scenario
from mat_sim.cli import sim
from mat_sim.engine import simulate as run_once
from mat_sim.memory import bytes_free, bytes_needed, check_memory
from mat_sim.study import simulate

CROWD = """format = 1

[scenario]
name = "crowd"
duration = 30

[nodes]
count = 1000000000
family = 6

[movement.crowd]

[[network]]
name = "A"

[[network]]
name = "B"

[traffic]
pairs = "mobile"
up = 0
down = 0
established = true
"""


@pytest.fixture
def crowd(tmp_path: Path) -> Scenario:
    path = tmp_path / "crowd.toml"
    path.write_text(CROWD)
    return Scenario.load(path)


def test_a_billion_nodes_are_refused_before_their_movement_is_made(crowd: Scenario) -> None:
    with pytest.raises(ScenarioError, match=r"nodes\.count: is 1000000000: that takes about \d"):
        run_once(crowd)


def test_the_command_line_says_so_too(crowd: Scenario) -> None:
    result = CliRunner().invoke(sim, ["run", str(crowd.source.path)])
    assert result.exit_code == 1
    assert "GB are free; give fewer nodes" in result.output


def test_clients_of_dhcp_count(crowd: Scenario) -> None:
    without = crowd.changed({"nodes.family": 4, "nodes.count": 1000})
    assert bytes_needed(without.changed({"network.1.dhcp": {}})) > bytes_needed(without)


def test_what_fits_once_need_not_fit_in_two_processes(crowd: Scenario) -> None:
    free = bytes_free()
    assert free is not None
    per_node = bytes_needed(crowd.changed({"nodes.count": 1000})) / 1000
    once = crowd.changed({"nodes.count": int(0.7 * free / per_node)})
    check_memory(once)
    with pytest.raises(ScenarioError, match=r"in each of 2 processes at a time.*or processes"):
        simulate(once, runs=2, processes=2)


def test_packets_count_where_each_is_an_event(crowd: Scenario) -> None:
    busy = crowd.changed({"nodes.count": 1000, "traffic.up": 100.0})
    sleeping = busy.changed({"traffic.events": "changes"})
    assert bytes_needed(busy) - bytes_needed(sleeping) == 1000 * 100 * 30 * 16
    too_many = busy.changed({"nodes.count": 10**8})
    with pytest.raises(ScenarioError, match=r'or traffic.events = "changes"'):
        check_memory(too_many)


def test_machines_that_are_never_put_away_count_for_more(crowd: Scenario) -> None:
    alone = {"nodes.count": 1000, "traffic.established": False, "traffic.pairs": "none"}
    resting = crowd.changed(alone)
    other = crowd.changed({**alone, "scenario.system": "mobile-ipv6"})
    assert bytes_needed(other) > 2 * bytes_needed(resting) > 0
