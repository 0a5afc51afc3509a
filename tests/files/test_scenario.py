"""The scenario format: what is read, and what is said about what cannot be read."""

import re
from ipaddress import ip_network
from pathlib import Path

import pytest

from mat_files import _document
from mat_files._toml import key_lines
from mat_files.distributions import Constant, Empirical, Exponential, Normal, Uniform
from mat_files.errors import ScenarioError
from mat_files.library import find_scenario, shipped_scenarios
from mat_files.mobility import mobility
from mat_files.scenario import Scenario, check_movement, load_scenario
from tests.files.test_traces import SCENARIOS, write

DOCS = Path(__file__).parents[2] / "docs"

MINIMAL = """format = 1

[scenario]
name = "small"
duration = 10

[nodes]
count = 5

[[network]]
name = "A"

[[network]]
name = "B"
"""


def load(tmp_path: Path, text: str, *overrides: str, **options: object) -> Scenario:
    path = write(tmp_path / "s.toml", text)
    return load_scenario(path, overrides, **options)  # type: ignore[arg-type]


def problems(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        load(tmp_path, text, *overrides)
    return str(caught.value).replace(str(tmp_path / "s.toml"), "FILE").splitlines()


# --- reading ---


def test_everything_has_a_default_but_name_and_networks(tmp_path: Path) -> None:
    scenario = load(tmp_path, MINIMAL)
    assert [network.name for network in scenario.networks] == ["A", "B"]
    assert [ims.name for ims in scenario.ims] == ["IMS"]
    assert scenario.served(scenario.ims[0]) == (
        ip_network("10.0.0.0/11"),
        ip_network("10.32.0.0/11"),
    )


def test_networks_without_a_pool_share_the_default_space(tmp_path: Path) -> None:
    pools = [network.pool for network in load(tmp_path, MINIMAL).networks]
    assert pools == [ip_network("10.128.0.0/10"), ip_network("10.192.0.0/10")]
    pools = [network.pool for network in load(tmp_path, MINIMAL, "nodes.family=6").networks]
    assert pools == [ip_network("2001:db8:8000::/34"), ip_network("2001:db8:c000::/34")]


def test_a_grid_is_columns_along_x_and_rows_along_y(tmp_path: Path) -> None:
    text = (
        MINIMAL + "[coverage.grid]\norigin = [5, 10]\nspacing = 100\ncolumns = 28\nrows = 2\n"
        'range = 80\ndelay = 0.25\npool = "172.16.0.0/12"\n'
    )
    grid = load(tmp_path, text).networks[2:]
    assert [network.name for network in (grid[0], grid[1], grid[26], grid[27], grid[28])] == [
        "A1",
        "B1",
        "AA1",
        "AB1",
        "A2",
    ]
    assert (grid[29].x, grid[29].y, grid[29].range) == (105, 110, 80)
    assert grid[29].delay == Constant(0.25)
    assert grid[1].pool == ip_network("172.16.64.0/18")
    assert len(grid) == 56


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0.01", Constant(0.01)),
        ("{constant = 1}", Constant(1)),
        ("{uniform = [0.005, 0.015]}", Uniform(0.005, 0.015)),
        ("{exponential = 0.01}", Exponential(0.01)),
        ("{normal = [0.01, 0.002]}", Normal(0.01, 0.002)),
        ("{quantiles = [0.001, 0.002, 0.01]}", Empirical((0.001, 0.002, 0.01))),
    ],
)
def test_times_are_distributions(tmp_path: Path, value: str, expected: object) -> None:
    assert load(tmp_path, MINIMAL, f"network.1.delay={value}").networks[1].delay == expected


def test_shipped_scenarios_are_found_by_bare_name() -> None:
    assert list(shipped_scenarios()) == ["first", "stadium", "town", "train"]
    assert find_scenario("town").samefile(SCENARIOS / "town.toml")


def test_a_file_is_found_by_its_path(tmp_path: Path) -> None:
    path = write(tmp_path / "s.toml", MINIMAL)
    assert find_scenario(str(path)) == path


def test_an_unknown_scenario_is_named_with_what_there_is() -> None:
    with pytest.raises(ScenarioError) as caught:
        find_scenario("twon")
    assert str(caught.value) == (
        "twon: no such file; did you mean town? scenarios that come with mat: first, stadium,"
        " town, train"
    )


def test_first_has_three_hard_handovers() -> None:
    found = mobility(load_scenario(SCENARIOS / "first.toml"))
    assert (found.nodes, found.end) == (("m1",), 40.0)
    assert [event.action for event in found.events].count("attach") == 4


def test_town_has_some_hundred_handovers_most_of_them_soft() -> None:
    found = mobility(load_scenario(SCENARIOS / "town.toml"))
    links: dict[str, set[str]] = {name: set() for name in found.nodes}
    begun: set[str] = set()
    soft = hard = 0
    for event in found.events:
        if event.action == "detach":
            links[event.node].remove(event.network)
            continue
        soft += bool(links[event.node])
        hard += not links[event.node] and event.node in begun
        begun.add(event.node)
        links[event.node].add(event.network)
    assert (len(found.nodes), soft, hard) == (134, 260, 13)


def test_one_interface_makes_every_handover_of_town_hard() -> None:
    scenario = load_scenario(SCENARIOS / "town.toml", ["nodes.interfaces=1"])
    assert {event.interface for event in mobility(scenario).events} == {0}


def test_count_takes_the_first_nodes_of_a_trace() -> None:
    scenario = load_scenario(SCENARIOS / "town.toml", ["nodes.count=3"])
    found = mobility(scenario)
    assert found.nodes == ("0", "1", "2")
    assert {event.node for event in found.events} == {"0", "1", "2"}


def test_more_nodes_than_the_trace_has_is_an_error() -> None:
    scenario = load_scenario(SCENARIOS / "town.toml", ["nodes.count=135"])
    with pytest.raises(
        ScenarioError, match=r"nodes\.count: is 135, but the movement has 134 nodes"
    ):
        mobility(scenario)


def test_without_movement_nodes_stand_on_the_networks_in_turn(tmp_path: Path) -> None:
    found = mobility(load(tmp_path, MINIMAL))
    assert found.nodes == ("MN1", "MN2", "MN3", "MN4", "MN5")
    assert [event.network for event in found.events] == ["A", "B", "A", "B", "A"]


# --- overrides ---


def test_an_override_changes_one_value(tmp_path: Path) -> None:
    scenario = load(tmp_path, MINIMAL, "network.1.range=300", "protocol.initial_timeout=2")
    assert [network.range for network in scenario.networks] == [500, 300]
    assert scenario.protocol == {"initial_timeout": 2}
    assert scenario.source.overrides == ("network.1.range=300", "protocol.initial_timeout=2")


def test_seed_and_trace_are_recorded_as_overrides(tmp_path: Path) -> None:
    trace = SCENARIOS / "town.fcd.xml.gz"
    scenario = load(tmp_path, MINIMAL, seed=7, trace=trace)
    assert scenario.scenario.seed == 7
    assert scenario.file(scenario.movement.trace or "") == trace
    assert scenario.source.overrides == (f"movement={{trace = '{trace}'}}", "scenario.seed=7")


def test_a_trace_on_the_command_line_may_hold_events(tmp_path: Path) -> None:
    scenario = load(tmp_path, MINIMAL, trace=SCENARIOS / "first.csv")
    assert (scenario.movement.trace, scenario.movement.events is None) == (None, False)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("nodes.interfaces", "is not KEY=VALUE; write for example nodes.interfaces=1"),
        (
            "scenario.name=x y",
            "'x y' is no TOML value; text needs quotes: 'scenario.name=\"x y\"'",
        ),
        ("network.2.range=1", "network has 2 elements, counted from 0; there is no 2"),
        ("network.range=1", "network is an array; name an element, for example network.0.range"),
        ("nodes.0=1", "nodes is not an array here, so it has no element 0"),
        ("format.x=1", "format is a value, not a table; it has no key 'x'"),
        ("nodes.family=5", "nodes.family: is 5; must be 4 or 6"),
        ("nodes.familly=4", "nodes.familly: unknown key; did you mean family? possible here: "),
        ("network.0.delay={uniform=[2,1]}", "network.0.delay: uniform runs from 2 to 1; low must"),
        ('network.1={x=1,name="A"}', 'network.1.name: is "A" a second time; names must be unique'),
        ("nodes={}", 'nodes.count: is "trace", but movement names no file; give a number or a'),
    ],
)
def test_a_bad_override_is_named_instead_of_a_line(
    tmp_path: Path, override: str, message: str
) -> None:
    found = problems(tmp_path, MINIMAL, override)
    assert found[0].startswith(f"--set {override}: {message}")


# --- errors with their lines ---

WRONG = {
    'duration = "long"': 'FILE:5: scenario.duration: is "long"; must be a number',
    "duration = 0": "FILE:5: scenario.duration: is 0; must be greater than 0",
    "duration = inf": "FILE:5: scenario.duration: is inf; must be a finite number",
    "duration = true": "FILE:5: scenario.duration: is true; must be a number",
    "duration = 1\nseed = 1.5": "FILE:6: scenario.seed: is 1.5; must be a whole number",
    "duration = 1\nseed = -1": "FILE:6: scenario.seed: is -1; must be 0 or more",
    "duration = 1\ndescription = 4": "FILE:6: scenario.description: is 4; must be text in quotes",
    "duraton = 10": (
        "FILE:5: scenario.duraton: unknown key; did you mean duration? possible here: name,"
        " description, duration, system, seed, interval"
    ),
}


@pytest.mark.parametrize(("line", "message"), WRONG.items())
def test_a_bad_value_is_named_with_what_would_be_right(
    tmp_path: Path, line: str, message: str
) -> None:
    assert problems(tmp_path, MINIMAL.replace("duration = 10", line))[0] == message


TABLES = {
    "[dns]\ndelay = -1": "dns.delay: is -1; must be a number of seconds, {uniform = [low, high]},",
    '[dns]\ndelay = "1s"': 'dns.delay: is "1s"; must be a number of seconds, {uniform = [low,',
    "[dns]\ndelay = {unform = [1, 2]}": "dns.delay: is {unform = [1, 2]}; must be a number of",
    "[dns]\ndelay = {exponential = 0}": "dns.delay: exponential has mean 0; the mean must be",
    "[dns]\ndelay = {normal = [1, 0]}": "dns.delay: normal has standard deviation 0; write the",
    "[traffic]\npairs = 'all'": "traffic.pairs: is \"all\"; must be 'correspondent', 'mobile',",
    "[traffic]\npeers = 2": "traffic.peers: is 2; must be 1 or less, as correspondents",
    "[traffic]\npairs = 'mobile'\npeers = 2": "traffic.peers: is 2; must be 1 or less, as",
    "[traffic]\npairs = 'random'\npeers = 9\namong = 'mobile'": "traffic.peers: is 9; must be 4 or",
    "[traffic]\npairs = 'random'\namong = 'correspondents'\n[correspondents]\ncount = 0": (
        'traffic.among: is "correspondents", and there is nobody, as correspondents.count is 0; set'
    ),
    "[traffic]\nkind = 'onoff'\non = 0": "traffic.on: is 0; must be greater than 0, or there is",
    "[traffic]\npopularity = 3": "traffic.popularity: is 3; must be 2 or less",
    "[movement.random_waypoint]\nsize = [9, 9]\ngroup = 9999999": (
        "movement.random_waypoint.group: is 9999999; must be 1000000 or less"
    ),
    "[movement.random_waypoint]\nsize = [9, 9]\norigin = [1e17, 0]": (
        "movement.random_waypoint.origin: is [1e+17, 0.0]; must be [x, y], both from -1e+09 to"
    ),
    "[[network]]\nname = 'C'\nlease = 0.5": "network.2.lease: is 0.5; must be 1 or more",
    "[[ims]]\nname = 'I'\nreplicas = 65": "ims.0.replicas: is 65; must be 64 or less",
    "[movement]\ngaps = 1": "movement.gaps: is 1; must be 'error' or 'absent'",
    "[movement]\ntrace = 'none.xml'": 'movement.trace: is "none.xml"; there is no such file',
    "[protocol]\nx = 'y'": 'protocol.x: is "y"; must be a number',
    "[correspondents]\nloss = 1": "correspondents.loss: is 1; must be less than 1",
    "[correspondents]\nrate = 0": "correspondents.rate: is 0; must be greater than 0",
    "[correspondents]\nqueue = 5": "correspondents.queue: is 5, but there is no rate, so nothing"
    " waits; set a rate in bit/s, or leave queue out",
    "[[network]]\nname = 'C'\nrate = -1": "network.2.rate: is -1; must be greater than 0",
    "[[network]]\nname = 'C'\nrate = inf": "network.2.rate: is inf; must be",
    "[[network]]\nname = 'C'\nrate = '1 Mbit/s'": 'network.2.rate: is "1 Mbit/s"; must be a number',
    "[[network]]\nname = 'C'\nrate = 1e6\nqueue = -1": "network.2.queue: is -1; must be 0 or more",
    "[[network]]\nname = 'C'\nqueue = 100": "network.2.queue: is 100, but there is no rate, so",
    "[[ims]]\nname = 'I'\nlink_queue = 9": "ims.0.link_queue: is 9, but there is no rate, so",
    "[coverage.grid]\nspacing = 1\ncolumns = 1\nrows = 1\nrange = 1\nqueue = 3": (
        "coverage.grid.queue: is 3, but there is no rate, so nothing"
    ),
    "[correspondents]\nnetwork = 'Q'": 'correspondents.network: is "Q", which is no network; there'
    " are: A, B",
    "[correspondents]\ncount = 0": 'traffic.pairs: is "correspondent", but correspondents.count is',
    "[coverage]\ngrid = 3": "coverage.grid: is 3; must be a table",
    "[coverage.grid]\nspacing = 1": "coverage.grid.columns: is missing; it must be given: Networks",
    "[[network]]\nname = 'A'": 'network.2.name: is "A" a second time; names must be unique',
    "[[network]]\nname = 'a b'": 'network.2.name: is "a b"; must match ^[A-Za-z0-9]',
    "[[network]]\nx = 1": "network.2.name: is missing; it must be given: Unique; events and",
    "[[network]]\nname = 'C'\npool = '10.1.0.1/24'": 'network.2.pool: is "10.1.0.1/24": host bits',
    "[[network]]\nname = 'C'\npool = '10.1'": 'network.2.pool: is "10.1": is no prefix; write for',
    "[[network]]\nname = 'C'\npool = '10.0.1.0/24'": "network.2.pool: is 10.0.1.0/24, which over"
    "laps 10.0.0.0/11; prefixes must be separate",
    "[[network]]\nname = 'C'\npool = '192.0.2.0/30'": "network.2.pool: is 192.0.2.0/30, too small"
    " for 5 nodes; give a shorter prefix",
    "[[network]]\nname = 'C'\npool = '2001:db8::/64'": "network.2.pool: is 2001:db8::/64, an IPv6"
    " prefix; nodes.family is 4",
    "[[ims]]\nname = 'I'\nserves = 'mobile'": "ims: none serves the correspondents (10.32.0.0/11)"
    " entirely; add it to one's serves",
    "[[ims]]\nname = 'I'\nserves = ['all', 'x']": 'ims.0.serves: is "x"; must be "mobile",',
    "[[ims]]\nname = 'I'\nserves = []": "ims.0.serves: is empty; must name",
    "[[ims]]\nname = 'I'\n[[ims]]\nname = 'J'": "ims.1.serves: is 10.0.0.0/11, which overlaps",
    "[[ims]]\nname = 'I'\nservice = 1\nworkers = 0": "ims.0.workers: is 0; must be 1 or more",
    "[ims]\nname = 'I'": 'ims: is {name = "I"}; must be an array; of tables, with [[double',
}


@pytest.mark.parametrize(("table", "message"), TABLES.items())
def test_bad_tables_are_named_by_field(tmp_path: Path, table: str, message: str) -> None:
    line, found = problems(tmp_path, MINIMAL + table)[0].split(": ", 1)
    assert found.startswith(message)
    assert re.fullmatch(r"FILE(:\d+)?", line)


def test_several_ims_may_serve_a_home_prefix_between_them(tmp_path: Path) -> None:
    text = MINIMAL + (
        "[[ims]]\nname = 'I'\nserves = ['10.0.0.0/12', 'correspondents']\n"
        "[[ims]]\nname = 'J'\nserves = '10.16.0.0/12'\n"
    )
    assert len(load(tmp_path, text).ims) == 2
    with pytest.raises(ScenarioError, match="none serves the mobile nodes"):
        load(tmp_path, text, "ims.1.serves='10.16.0.0/13'")


def test_a_population_known_late_is_checked_then(tmp_path: Path) -> None:
    scenario = load(tmp_path, MINIMAL, "nodes.home_prefix='192.168.0.0/24'")
    check_movement(scenario, 253, 10.0)
    with pytest.raises(ScenarioError, match=r"nodes\.home_prefix: .* too small for 254 nodes"):
        check_movement(scenario, 254, 10.0)


def test_times_counted_from_1970_are_refused_before_the_run(tmp_path: Path) -> None:
    write(tmp_path / "epoch.csv", "t,node,x,y\n1600000000,a,0,0\n1600000001,a,0,0\n")
    text = MINIMAL.replace("duration = 10\n", "").replace("count = 5\n", "")
    scenario = load(tmp_path, text, "movement.trace='epoch.csv'")
    with pytest.raises(ScenarioError) as caught:
        mobility(scenario)
    assert str(caught.value).replace(str(tmp_path), "DIR") == (
        "DIR/s.toml: scenario.duration: is missing, and the movement ends at t = 1.6e+09,"
        " which makes 160000000 rows for each IMS; at most 1000000 are possible; count time from"
        " its begin, not from 1970"
    )


def test_a_run_of_years_is_refused_for_its_rows(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"duration: is 1e\+09, which makes 100000000 rows"):
        load(tmp_path, MINIMAL, "scenario.duration=1e9")


def test_a_grid_may_not_repeat_a_listed_name(tmp_path: Path) -> None:
    text = MINIMAL.replace('name = "A"', 'name = "A1"')
    text += "[coverage.grid]\nspacing = 1\ncolumns = 1\nrows = 1\nrange = 1\n"
    assert problems(tmp_path, text) == [
        'FILE:15: coverage.grid: makes a network "A1", which is listed too; set another prefix'
    ]


def test_without_movement_duration_and_count_are_needed(tmp_path: Path) -> None:
    text = MINIMAL.replace("duration = 10\n", "").replace("count = 5\n", "")
    assert problems(tmp_path, text) == [
        "FILE:3: scenario.duration: is missing; it must be given where nothing moves",
        'FILE:6: nodes.count: is "trace", but movement names no file; give a number or a file',
    ]


def test_trace_and_events_together_are_an_error(tmp_path: Path) -> None:
    text = MINIMAL + "[movement]\ntrace = 'x'\nevents = 'y'\n"
    assert problems(tmp_path, text)[0] == (
        "FILE:17: movement.events: is given beside trace; give one of the two"
    )


def test_every_problem_of_a_file_is_reported_in_order(tmp_path: Path) -> None:
    text = """format = 2
[scenario]
nam = "x"
[nodes]
interfaces = 3
count = "many"
[[network]]
name = "A"
[[network]]
name = "B"
delay = [
  1,
  2,
]
"""
    assert [line[:56] for line in problems(tmp_path, text)] == [
        "FILE:1: format: is 2; must be 1",
        "FILE:2: scenario.name: is missing; it must be given: Sho",
        "FILE:3: scenario.nam: unknown key; did you mean name? po",
        "FILE:5: nodes.interfaces: is 3; must be 2 or less",
        'FILE:6: nodes.count: is "many"; must be "trace" or a who',
        "FILE:11: network.1.delay: is [1, 2]; must be a number of",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("format = 1\nx 3\n", "FILE:2: not valid TOML: Expected '=' after a key"),
        ("format = 1\nformat = 1\n", "FILE:2: not valid TOML: Cannot overwrite a value"),
        ('format = 1\nx = """never closed\n', "FILE:3: not valid TOML: "),
    ],
)
def test_a_toml_error_has_its_line(tmp_path: Path, text: str, message: str) -> None:
    assert problems(tmp_path, text)[0].startswith(message)


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 5000])
def test_a_value_beyond_reason_is_a_scenario_error(tmp_path: Path, value: str) -> None:
    assert problems(tmp_path, f"x = {value}")[0].startswith("FILE: cannot be read (")


def test_a_missing_scenario_is_a_scenario_error(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"no\.toml: cannot be read \(No such file"):
        load_scenario(tmp_path / "no.toml")


def test_a_scenario_that_is_no_text_is_a_scenario_error(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ScenarioError, match="is not UTF-8 text"):
        load_scenario(path)


# --- the locator ---


def test_keys_are_located_through_everything_that_toml_has() -> None:
    text = '''# comment [not.a.table]
a = """
b = 1
""" # "
'c d'.e = [ # [
  1, "]", # ]
]
[t] # x
"quoted" = {in = 'line', x = [1]}
[[t.list]]
x = 1
[[t.list]]
[t.list.sub]
y = "\\"#"
z = \'\'\'it\'s\'\'\'
[other]
k.l = 1
k.m = 2
'''
    assert key_lines(text) == {
        ("a",): 2,
        ("c d",): 5,
        ("c d", "e"): 5,
        ("t",): 8,
        ("t", "quoted"): 9,
        ("t", "list"): 10,
        ("t", "list", 0): 10,
        ("t", "list", 0, "x"): 11,
        ("t", "list", 1): 12,
        ("t", "list", 1, "sub"): 13,
        ("t", "list", 1, "sub", "y"): 14,
        ("t", "list", 1, "sub", "z"): 15,
        ("other",): 16,
        ("other", "k"): 17,
        ("other", "k", "l"): 17,
        ("other", "k", "m"): 18,
    }


# --- the documentation ---


@pytest.mark.parametrize("name", ["scenario.md", "results.md"])
def test_the_documents_tables_are_those_of_the_code(name: str) -> None:
    text = (DOCS / name).read_text(encoding="utf-8")
    hint = "run: cd files && python -m mat_files._document ../docs/scenario.md ../docs/results.md"
    assert _document.refreshed(text) == text, hint


def test_the_documents_example_is_a_valid_scenario(tmp_path: Path) -> None:
    text = (DOCS / "scenario.md").read_text(encoding="utf-8")
    example = text.split("```toml\n", 1)[1].split("```", 1)[0]
    write(tmp_path / "first.csv", (SCENARIOS / "first.csv").read_text(encoding="utf-8"))
    assert mobility(load(tmp_path, example)).nodes == ("m1",)
