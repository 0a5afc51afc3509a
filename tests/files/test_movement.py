"""Generated movement: random waypoint, a train, a crowd."""

import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mat_files.attachment import AttachmentEvents
from mat_files.coverage import coverage_events
from mat_files.errors import ScenarioError
from mat_files.library import find_scenario
from mat_files.mobility import Mobility, mobility, movement_digest, positions
from mat_files.movement import crowd_events
from mat_files.movement._random_waypoint import share_paused, walks
from mat_files.scenario import Crowd, RandomWaypoint, Scenario, Train, load_scenario
from mat_files.scenario._model import mean_distance
from mat_files.traces import Trace
from tests.files.test_scenario import load, problems

HEAD = """format = 1
[scenario]
name = "moving"
duration = 100
[nodes]
count = 60
[[network]]
name = "A"
[[network]]
name = "B"
x = 800.0
[[network]]
name = "C"
x = 1600.0
"""


def moving(tmp_path: Path, table: str, *overrides: str) -> Scenario:
    return load(tmp_path, f"{HEAD}[movement.{table}\n", *overrides)


def moved(tmp_path: Path, table: str, *overrides: str) -> Mobility:
    return mobility(moving(tmp_path, table, *overrides))


def by_node(events: AttachmentEvents) -> dict[str, list[tuple[float, str, str, int]]]:
    found: dict[str, list[tuple[float, str, str, int]]] = defaultdict(list)
    for event in events:
        found[event.node].append((event.time, event.action, event.network, event.interface))
    return found


# --- all ---

TABLES = {
    "random_waypoint": "random_waypoint]\nsize = [1600, 400]\norigin = [0, -200]\nspeed = [5, 30]",
    "train": 'train]\nspacing = "random"',
    "crowd": "crowd]",
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_equal_seed_and_run_give_equal_movement_and_others_another(
    tmp_path: Path, table: str
) -> None:
    scenario = moving(tmp_path, table)
    first = mobility(scenario).events
    assert first == mobility(scenario, run=0).events
    assert first != mobility(scenario, run=1).events
    assert first != mobility(moving(tmp_path, table, "scenario.seed=2")).events
    assert first == mobility(moving(tmp_path, table, "traffic.up=1", "dns.ttl=9")).events


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
@pytest.mark.parametrize("interfaces", [1, 2])
def test_no_node_holds_more_links_than_interfaces(
    tmp_path: Path, table: str, interfaces: int
) -> None:
    found = moved(tmp_path, table, f"nodes.interfaces={interfaces}")
    assert (np.diff(found.events.time) >= 0).all()
    for events in by_node(found.events).values():
        held: dict[int, str] = {}
        for _, action, network, interface in events:
            if action == "attach":
                assert held.get(interface, network) == network
                held[interface] = network
            else:
                assert held.pop(interface) == network
            assert len(held) <= interfaces


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_nodes_are_numbered_and_stay_to_the_end(tmp_path: Path, table: str) -> None:
    found = moved(tmp_path, table)
    assert (found.nodes[0], found.nodes[-1], len(found.nodes)) == ("MN1", "MN60", 60)
    assert found.end == 100
    for events in by_node(found.events).values():
        left = Counter[str]()
        for _, action, network, _ in events:
            left[network] = 1 if action == "attach" else 0
        assert left.total() >= 1 or table.startswith("random")


def test_a_movement_that_is_read_is_the_same_in_every_run(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("t,node,action,network\n0,m,attach,A\n1,m,attach,B\n")
    text = HEAD.replace("count = 60", "") + '[movement]\nevents = "e.csv"\n'
    scenario = load(tmp_path, text)
    assert mobility(scenario).events == mobility(scenario, run=7).events
    assert len(movement_digest(scenario)) == 64
    assert movement_digest(moving(tmp_path, "crowd]")) == ""


READ = HEAD.replace("count = 60", "") + '[movement]\ntrace = "t.csv"\n'
ROWS = "t,node,x,y\n0,m,0,0\n1,m,700,0\n2,m,1500,0\n"


def test_a_movement_is_read_once_and_again_when_anything_it_depends_on_is_another(
    tmp_path: Path,
) -> None:
    (tmp_path / "t.csv").write_text(ROWS)
    found = mobility(load(tmp_path, READ))
    assert mobility(load(tmp_path, READ), run=1) is found
    assert mobility(load(tmp_path, READ, "dns.delay=0.02"), run=2) is found
    for override in (
        "coverage.hysteresis=400",
        "network.1.range=10",
        "nodes.interfaces=1",
        "scenario.duration=50",
    ):
        found = mobility(load(tmp_path, READ))
        assert mobility(load(tmp_path, READ, override)) is not found
    before = mobility(load(tmp_path, READ))
    (tmp_path / "t.csv").write_text(ROWS + "3,m,1501,0\n3,n,0,0\n")
    assert list(before.nodes) == ["m"]
    assert list(mobility(load(tmp_path, READ)).nodes) == ["m", "n"]


def test_who_is_there_from_when_until_when(tmp_path: Path) -> None:
    """One that goes and comes, one that leaves, one that is never in reach, one that stays."""
    (tmp_path / "t.csv").write_text(
        "t,node,x,y\n0,back,0,0\n0,gone,0,0\n0,far,0,9e5\n1,back,5e5,0\n1,far,1,9e5\n"
        "1,gone,1,0\n2,back,0,0\n2,far,2,9e5\n2,gone,2,0\n3,back,0,0\n3,stays,0,0\n3,far,3,9e5\n"
        "4,back,0,0\n4,stays,0,0\n4,far,4,9e5\n"
    )
    moves = mobility(load(tmp_path, READ, "movement.gaps='absent'"))
    presence = dict(zip(moves.nodes, zip(*moves.presence(), strict=True), strict=True))
    ends = {event.node: event for event in moves.events}
    for node, (first, gone) in presence.items():
        own = [event for event in moves.events if event.node == node]
        assert first == next((event.time for event in own), moves.end)
        stays = not own or ends[node].action == "attach"
        assert gone == (moves.end if stays else own[-1].time)
    assert presence["far"] == (moves.end, moves.end)
    assert presence["gone"][0] == 0
    assert presence["gone"][1] < moves.end


def test_the_digest_of_a_folder_is_that_of_its_tracks(tmp_path: Path) -> None:
    folder = tmp_path / "walk"
    folder.mkdir()
    (folder / "a.gpx").write_text("<gpx/>")
    scenario = load(tmp_path, HEAD.replace("count = 60", "") + '[movement]\ntrace = "walk"\n')
    first = movement_digest(scenario)
    (folder / "b.gpx").write_text("<gpx></gpx>")
    assert movement_digest(scenario) != first


def test_the_train_and_the_stadium_that_come_with_mat_move_everybody() -> None:
    train = mobility(load_scenario(find_scenario("train")))
    assert Counter(train.events.attach.tolist()) == {True: 3000, False: 2000}
    stadium = mobility(load_scenario(find_scenario("stadium")))
    assert Counter(stadium.events.attach.tolist()) == {True: 200_000, False: 100_000}
    for found, begin, end in ((train, 20, 80), (stadium, 30, 50)):
        changes = found.events.time[~found.events.attach]
        assert begin <= changes.min() <= changes.max() <= end <= found.end


def test_another_trace_is_read_with_the_step_and_the_origin_of_the_scenario(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.movements").write_text("0 0 0 3 0 0\n")
    text = HEAD.replace("count = 60", "") + '[movement]\ntrace = "x"\nstep = 0.5\norigin = [5, 6]\n'
    scenario = load(tmp_path, text, trace=tmp_path / "a.movements")
    assert (scenario.movement.step, scenario.movement.origin) == (0.5, (5, 6))


# --- positions ---


@pytest.mark.parametrize(
    ("table", "overrides"),
    [
        (TABLES["random_waypoint"], ()),
        (TABLES["random_waypoint"] + "\ngroup = 7\nradius = 100", ("movement.step=0.7",)),
        (TABLES["train"], ("movement.step=0.01", "nodes.count=3")),
    ],
    ids=["alone", "group", "train"],
)
@pytest.mark.parametrize("run", [0, 1])
def test_positions_are_those_that_the_events_follow_from(
    tmp_path: Path, table: str, overrides: tuple[str, ...], run: int
) -> None:
    scenario = moving(tmp_path, table, "nodes.interfaces=1", *overrides)
    trace = positions(scenario, run)
    assert trace is not None
    found = coverage_events(trace, scenario.networks, hysteresis=25.0, interfaces=1)
    step = trace.step
    one, other = (
        [(e.time, e.node, e.action, e.network) for e in events if 0 < e.time < 100 - step]
        for events in (found, mobility(scenario, run).events)
    )
    assert len(one) > 5
    assert [row[1:] for row in sorted(one)] == [row[1:] for row in sorted(other)]
    times = ([row[0] for row in sorted(rows)] for rows in (one, other))
    assert next(times) == pytest.approx(next(times), abs=0.021)


@pytest.mark.parametrize(("step", "last"), [(1.0, 100.0), (0.7, 100.1), (0.3, 100.2)])
@pytest.mark.parametrize("table", ["random_waypoint", "train"])
def test_positions_are_looked_at_every_step_up_to_the_end(
    tmp_path: Path, table: str, step: float, last: float
) -> None:
    trace = positions(moving(tmp_path, TABLES[table], f"movement.step={step}"))
    assert trace is not None
    assert (trace.nodes[0], trace.nodes[-1], len(trace.nodes)) == ("MN1", "MN60", 60)
    assert trace.time[-1] == pytest.approx(last)
    frame = trace.frame()
    assert len(frame) == 60 * (round(last / step) + 1)
    assert [len(rows) for _, rows in trace.visits()] == [round(last / step) + 1] * 60


def test_passengers_are_in_a_row_behind_the_head_which_follows_the_route(tmp_path: Path) -> None:
    table = "train]\nroute = [[0, 0], [300, 0], [300, 400]]\nspeed = 10\nlength = 100"
    trace = positions(moving(tmp_path, table, "nodes.count=3"))
    assert trace is not None
    at = {
        time: list(zip(rows.x.round(6), rows.y.round(6), strict=True))
        for time, rows in trace.frame().groupby("t")
    }
    assert at[0] == at[10] == [(0, 0), (-50, 0), (-100, 0)]
    assert at[44] == [(300, 40), (290, 0), (240, 0)]
    assert at[80] == at[100] == [(300, 400), (300, 350), (300, 300)]


def test_positions_of_a_trace_are_its_own_of_the_nodes_that_take_part(tmp_path: Path) -> None:
    (tmp_path / "w.csv").write_text("t,node,x,y\n0,a,1,2\n1,a,3,4\n1,b,5,6\n2,b,7,8\n")
    text = HEAD.replace("count = 60", "count = 1") + '[movement]\ntrace = "w.csv"\n'
    trace = positions(load(tmp_path, text))
    assert trace is not None
    assert trace.frame().to_numpy().tolist() == [[0, "a", 1, 2], [1, "a", 3, 4]]


def test_who_has_no_place_has_no_positions(tmp_path: Path) -> None:
    assert positions(moving(tmp_path, "crowd]")) is None
    assert positions(load_scenario(find_scenario("first"))) is None
    assert positions(load(tmp_path, HEAD)) is None


def test_more_positions_than_memory_should_hold_are_refused(tmp_path: Path) -> None:
    scenario = moving(tmp_path, TABLES["random_waypoint"], "nodes.count=1_000_000")
    with pytest.raises(ScenarioError) as caught:
        positions(scenario)
    assert str(caught.value) == (
        f"{scenario.source.path}: movement.step: makes 101,000,000 positions, and 100,000,000 are"
        " the most; make it longer, or nodes.count or scenario.duration less"
    )


# --- random waypoint ---

FIELD = RandomWaypoint(size=(4000.0, 4000.0), speed=(1.0, 20.0), pause=(0.0, 0.0))


def places(model: RandomWaypoint, end: float, count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Positions per node (row) and second (column)."""
    parts = list(walks(model, count, np.random.default_rng(5), step=1.0, end=end))
    x, y = (
        np.concatenate([getattr(part, axis).reshape(len(part.node), -1) for part in parts])
        for axis in ("x", "y")
    )
    assert x.shape == (count, math.floor(end) + 2)
    return x, y


def speeds(x: np.ndarray, y: np.ndarray, at: int) -> np.ndarray:
    return np.array(np.hypot(x[:, at + 1] - x[:, at], y[:, at + 1] - y[:, at]))


def test_the_mean_distance_in_a_square_is_the_known_one() -> None:
    assert mean_distance(1, 1) == pytest.approx(0.521405433, abs=1e-8)
    assert mean_distance(3000, 1) == pytest.approx(1000, rel=1e-3)


@pytest.mark.parametrize("at", [0, 300, 1500])
def test_the_mean_speed_is_the_stationary_one_from_the_beginning(at: int) -> None:
    """(b - a) / ln(b / a) is 6.34 m/s; a start from fresh draws would show 10.5 m/s."""
    stationary = 19 / math.log(20)
    found = speeds(*places(FIELD, 1500), at).mean()
    assert found == pytest.approx(stationary, rel=0.04)


@pytest.mark.parametrize("at", [0, 300, 1500])
def test_who_walks_is_more_often_in_the_middle_from_the_beginning(at: int) -> None:
    x, y = places(FIELD, 1500)
    middle = (abs(x[:, at] - 2000) < 1000) & (abs(y[:, at] - 2000) < 1000)
    # About (∫ 6u(1-u) du from 1/4 to 3/4)² = 0.473, the usual approximation; even would be 0.25.
    assert middle.mean() == pytest.approx(0.46, abs=0.035)


@pytest.mark.parametrize("at", [0, 300, 1500])
def test_the_share_that_pauses_is_the_stationary_one_from_the_beginning(at: int) -> None:
    model = FIELD.model_copy(update={"pause": (100.0, 500.0)})
    expected = 300 / (300 + 4000 * 0.521405 * math.log(20) / 19)
    assert share_paused(model) == pytest.approx(expected, rel=1e-5)
    still = speeds(*places(model, 1500), at) == 0
    assert still.mean() == pytest.approx(expected, abs=0.03)


def test_what_is_left_of_a_pause_is_distributed_as_seen_at_any_time() -> None:
    """E[rest] = E[pause²] / 2 E[pause], more than half of a mean pause."""
    model = FIELD.model_copy(update={"pause": (0.0, 400.0)})
    x, y = places(model, 500)
    still = np.hypot(np.diff(x), np.diff(y)) == 0
    waiting = still[still[:, 0]]
    rest = np.where(waiting.all(axis=1), 500, waiting.argmin(axis=1))
    assert rest.mean() == pytest.approx(400 / 3, rel=0.06)


def test_nodes_keep_to_the_area_and_the_speed() -> None:
    model = RandomWaypoint(origin=(-500.0, 100.0), size=(300.0, 50.0), speed=(2.0, 3.0))
    x, y = places(model, 400, count=200)
    assert x.min() >= -500
    assert x.max() <= -200
    assert y.min() >= 100
    assert y.max() <= 150
    assert np.hypot(np.diff(x), np.diff(y)).max() <= 3 + 1e-9


def test_the_nodes_of_a_group_keep_together() -> None:
    model = FIELD.model_copy(update={"group": 5, "radius": 20.0})
    x, y = places(model, 600, count=23)
    for first in range(0, 23, 5):
        together = x[first : first + 5], y[first : first + 5]
        assert max(np.ptp(axis, axis=0).max() for axis in together) <= 40
    assert np.ptp(x, axis=0).min() > 100


def test_nodes_look_around_at_the_step(tmp_path: Path) -> None:
    found = moved(tmp_path, TABLES["random_waypoint"] + "\n[movement]\nstep = 2.5")
    assert len(found.events) > 60
    assert set((found.events.time % 2.5).tolist()) == {0.0}


def test_a_node_that_wanders_keeps_its_link_at_the_end(tmp_path: Path) -> None:
    inside = "random_waypoint]\nsize = [300, 300]\norigin = [-150, -150]"
    found = by_node(moved(tmp_path, inside).events)
    assert [len(found[f"MN{number}"]) for number in range(1, 61)] == [1] * 60


# --- train ---


def test_passengers_cross_a_border_one_after_the_other(tmp_path: Path) -> None:
    found = moved(tmp_path, "train]\nspeed = 50\nlength = 295", "coverage.hysteresis=100")
    joins = [
        t
        for t, event in zip(found.events.time, found.events, strict=True)
        if (event.action, event.network) == ("attach", "B")
    ]
    # The head is nearer to B by 100 m at x = 450, 9 s after it departs; then one every 5 m.
    assert joins[0] == pytest.approx(10 + 9, abs=0.011)
    assert np.diff(joins) == pytest.approx([0.1] * 59, abs=1e-9)


def straightforward_train(
    train: Train, cells: list[object], behind: float, interfaces: int
) -> list[tuple[float, str, str, int]]:
    """One passenger's events by its own positions, every 10 ms, from a length before the route."""
    way = math.dist(*train.route)
    time = np.arange(int((train.length + way) / train.speed / 0.01) + 2, dtype=np.float64) * 0.01
    (x0, y0), (x1, y1) = train.route
    share = (time * train.speed - train.length) / way
    trace = Trace(
        time,
        np.zeros(len(time), np.int64),
        x0 + share * (x1 - x0),
        y0 + share * (y1 - y0),
        ("m",),
        0.01,
    )
    events = coverage_events(trace, cells, hysteresis=30, interfaces=interfaces)  # type: ignore[arg-type]
    begin = (train.length - behind) / train.speed
    last = (train.length + way - behind) / train.speed
    return [
        (train.departure + event.time - begin, event.action, event.network, event.interface)
        for event in events
        if event.time <= last and event.time < trace.time[-1]
    ]


@pytest.mark.parametrize("route", ["[[-650, 30], [1500, -60]]", "[[900, 0], [2600, 90]]"])
@pytest.mark.parametrize("interfaces", [1, 2])
def test_a_passenger_has_the_events_of_its_own_way(
    tmp_path: Path, interfaces: int, route: str
) -> None:
    table = f"train]\nroute = {route}\nlength = 600\nspeed = 35\ndeparture = 3"
    scenario = moving(
        tmp_path,
        table,
        f"nodes.interfaces={interfaces}",
        "coverage.hysteresis=30",
        "nodes.count=13",
    )
    train, found = scenario.movement.train, by_node(mobility(scenario).events)
    assert train is not None
    for number in range(13):
        expected = straightforward_train(train, [*scenario.networks], number * 50.0, interfaces)
        later = [event for event in expected if event[0] > 3]
        held: dict[str, int] = {}
        for _, action, network, interface in expected[: len(expected) - len(later)]:
            held.pop(network, None)
            if action == "attach":
                held[network] = interface
        events = found[f"MN{number + 1}"]
        assert events[: len(held)] == [(0, "attach", name, i) for name, i in held.items()]
        assert [event[1:] for event in events[len(held) :]] == [event[1:] for event in later]
        times = [event[0] for event in events[len(held) :]]
        assert times == pytest.approx([event[0] for event in later], abs=0.011)


def test_a_train_that_has_arrived_stands(tmp_path: Path) -> None:
    found = moved(tmp_path, "train]\nroute = [[0, 0], [800, 0]]\nlength = 700")
    last = by_node(found.events)
    assert last["MN1"][-1][2] == "A"  # left behind, after B had been joined
    assert [event[2] for event in last["MN60"]] == ["A"]
    assert max(found.events.time) <= 10 + 800 / 40


# --- crowd ---


@given(
    st.integers(1, 40),
    st.sampled_from(["uniform", "normal", "even"]),
    st.sampled_from([0.0, 0.5, 30.0]),
    st.sampled_from([0.0, 4.0]),
    st.sampled_from(
        [(("A",), ("B", "C")), (("A", "B"), ("C",)), (("A", "B"), ("B", "C", "A", "A"))]
    ),
)
@settings(deadline=None)
def test_everybody_changes_once_within_the_window(
    count: int,
    spread: str,
    overlap: float,
    window: float,
    sides: tuple[tuple[str, ...], tuple[str, ...]],
) -> None:
    leave, join = sides
    crowd = Crowd.model_validate(
        {
            "leave": leave,
            "join": join,
            "start": 7.0,
            "window": window,
            "spread": spread,
            "overlap": overlap,
        }
    )
    events = crowd_events(crowd, ["A", "B", "C"], count, np.random.default_rng(count))
    assert len(events) == 3 * count
    assert (np.diff(events.time) >= 0).all()
    found = by_node(events)
    for node in range(count):
        old, new = leave[node % len(leave)], join[node % len(join)]
        first, second, third = found[f"MN{node + 1}"]
        assert list(first) == [0, "attach", old, 0]
        assert 7 <= second[0] <= 7 + window
        soft = [("attach", new, 1), ("detach", old, 0)]
        hard = [("detach", old, 0), ("attach", new, 0)]
        assert [second[1:], third[1:]] == (soft if overlap > 0 else hard)
        assert third[0] == second[0] + overlap


def changes(tmp_path: Path, spread: str, count: int = 20000) -> np.ndarray:
    table = f'crowd]\nstart = 20\nwindow = 60\nspread = "{spread}"'
    events = moved(tmp_path, table, f"nodes.count={count}").events
    return events.time[~events.attach]


def test_the_changes_of_a_crowd_are_spread_as_said(tmp_path: Path) -> None:
    uniform, normal, even = (changes(tmp_path, spread) for spread in ("uniform", "normal", "even"))
    assert uniform.std() == pytest.approx(60 / math.sqrt(12), rel=0.02)
    assert normal.mean() == pytest.approx(50, abs=0.3)
    assert normal.std() == pytest.approx(10 * 0.9866, rel=0.02)  # cut off at 3 deviations
    assert np.diff(even) == pytest.approx([60 / 20000] * 19999, abs=1e-9)
    assert (uniform.min() >= 20, uniform.max() <= 80) == (True, True)


def test_by_default_a_crowd_goes_from_the_first_network_to_the_others(tmp_path: Path) -> None:
    found = by_node(moved(tmp_path, "crowd]").events)
    assert [[event[2] for event in found[name]] for name in ("MN1", "MN2")] == [
        ["A", "A", "B"],
        ["A", "A", "C"],
    ]


def test_a_million_nodes_are_columns_and_no_objects(tmp_path: Path) -> None:
    found = moved(tmp_path, "crowd]", "nodes.count=1000000")
    assert len(found.events) == 3_000_000
    assert found.nodes[999_999] == "MN1000000"
    columns = (found.events.time, found.events.node, found.events.attach, found.events.network)
    assert sum(column.nbytes for column in columns) == 3_000_000 * 17
    assert found.events.interface.strides == (0,)
    assert found.events[2_999_999].action == "attach"


# --- bad input ---

BAD = {
    "size": (
        "random_waypoint]\nsize = [0, 5]",
        (
            "FILE:16: movement.random_waypoint.size: is [0.0, 5.0]; must be [width, height], both"
            " from 1 to 10000000"
        ),
    ),
    "size-missing": (
        "random_waypoint]",
        (
            "FILE:15: movement.random_waypoint.size: is missing; it must be given: Width and height"
            " of the area [m]"
        ),
    ),
    "speed": (
        "random_waypoint]\nsize = [9, 9]\nspeed = [0, 2]",
        (
            "FILE:17: movement.random_waypoint.speed: is [0.0, 2.0]; must be [least, greatest],"
            " from 0.001 to 100000"
        ),
    ),
    "speed-order": (
        "random_waypoint]\nsize = [9, 9]\nspeed = [3, 2]",
        (
            "FILE:17: movement.random_waypoint.speed: is [3.0, 2.0]; must be [least, greatest],"
            " from 0.001 to 100000"
        ),
    ),
    "pause": (
        "random_waypoint]\nsize = [9, 9]\npause = [-1, 2]",
        (
            "FILE:17: movement.random_waypoint.pause: is [-1.0, 2.0]; must be [least, greatest],"
            " from 0 to 100000"
        ),
    ),
    "walks": (
        "random_waypoint]\nsize = [1, 1]\nspeed = [90000, 90000]\npause = [0, 0]",
        (
            "FILE:17: movement.random_waypoint.speed: makes some 17261040 walks of a node in 100 s;"
            " at most 1000000 are possible, so set a slower speed or a longer pause"
        ),
    ),
    "step": (
        "random_waypoint]\nsize = [9, 9]\n[movement]\nstep = 0.000001",
        (
            "FILE:18: movement.step: makes 100000000 looks around in 100 s; at most 10000000 are"
            " possible, so set a longer step"
        ),
    ),
    "two": (
        "random_waypoint]\nsize = [9, 9]\n[movement.crowd]",
        "FILE:17: movement.crowd: is given beside random_waypoint; give one of the two",
    ),
    "file-too": (
        'crowd]\n[movement]\ntrace = "x"',
        "FILE:15: movement.crowd: is given beside trace; give one of the two",
    ),
    "route": (
        "train]\nroute = [[1, 2]]",
        "FILE:16: movement.train.route: has 1 points; must be [x, y] points, two at least",
    ),
    "route-form": (
        "train]\nroute = [[1, 2], [3]]",
        "FILE:16: movement.train.route.1.1: has too few elements",
    ),
    "route-stays": (
        "train]\nroute = [[1, 2], [1, 2]]",
        (
            "FILE:16: movement.train.route: stays at a point; must be [x, y] points, each away from"
            " the one before"
        ),
    ),
    "route-long": (
        "train]\nroute = [[0, 0], [1e308, -1e308]]",
        "FILE:16: movement.train.route: is 1.41421e+308 m long; must be 10000000 m or less",
    ),
    "train-speed": (
        "train]\nspeed = 0",
        "FILE:16: movement.train.speed: is 0; must be 0.01 or more",
    ),
    "leave": (
        'crowd]\nleave = ["A", "Q"]',
        'FILE:16: movement.crowd.leave.1: is "Q", which is no network; there are: A, B, C',
    ),
    "stay": (
        'crowd]\nleave = ["A", "B"]\njoin = ["C", "C", "C", "B"]',
        (
            "FILE:17: movement.crowd.join: lets node 4 go from B to where it is; networks are left"
            " and joined in turn"
        ),
    ),
    "nowhere": (
        'crowd]\nleave = ["A", "B", "C"]',
        (
            "FILE:15: movement.crowd.join: is missing, and nodes begin on all networks; name where"
            " they go"
        ),
    ),
    "spread": (
        'crowd]\nspread = "wide"',
        "FILE:16: movement.crowd.spread: is \"wide\"; must be 'uniform', 'normal' or 'even'",
    ),
    "key": (
        "crowd]\nwindw = 3",
        (
            "FILE:16: movement.crowd.windw: unknown key; did you mean window? possible here: leave,"
            " join, start, window, spread, overlap"
        ),
    ),
    "origin": (
        "crowd]\n[movement]\norigin = [91, 0]",
        "FILE:17: movement.origin: is [91.0, 0.0]; must be [latitude, longitude] in degrees",
    ),
}


@pytest.mark.parametrize(("table", "message"), BAD.values(), ids=BAD.keys())
def test_bad_movement_is_named_by_file_line_and_field(
    tmp_path: Path, table: str, message: str
) -> None:
    assert problems(tmp_path, f"{HEAD}[movement.{table}\n") == [message]


def test_an_overlap_needs_two_interfaces(tmp_path: Path) -> None:
    text = f"{HEAD}[movement.crowd]\noverlap = 2\n"
    assert problems(tmp_path, text, "nodes.interfaces=1") == [
        (
            "FILE:16: movement.crowd.overlap: is 2; must be 0 as nodes have one interface, or set"
            " nodes.interfaces = 2"
        )
    ]


def test_generated_movement_needs_a_duration_and_a_number_of_nodes(tmp_path: Path) -> None:
    text = HEAD.replace("duration = 100", "").replace("count = 60", "") + "[movement.train]\n"
    assert problems(tmp_path, text) == [
        "FILE:2: scenario.duration: is missing; it must be given where movement is generated",
        'FILE:5: nodes.count: is "trace", but movement names no file; give a number or a file',
    ]


def test_a_train_needs_networks_in_a_row_or_a_route(tmp_path: Path) -> None:
    text = HEAD.replace("800.0", "0.0") + "[movement.train]\n"
    assert problems(tmp_path, text) == [
        (
            "FILE:15: movement.train.route: is missing, with networks at one place; must be [x, y]"
            " points, each away from the one before"
        )
    ]
