"""The animation's file: what a scene of a scenario holds, how it is written, what is too much."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mat_files.errors import ScenarioError
from mat_files.ladder import LadderMessage
from mat_files.library import find_scenario
from mat_files.mobility import mobility, positions
from mat_files.results import Results
from mat_files.scenario import Scenario, load_scenario
from mat_sim.animation import (
    MOST_DATA,
    MOST_NODES,
    MOST_POINTS,
    MOST_SIGNALS,
    Animation,
    Link,
    Node,
    Scene,
    scene,
)
from mat_sim.animation import animate as animated
from mat_sim.animation.command import animate
from tests.files.test_results import PROVENANCE, handover
from tests.sim.scenes import SCENE

FIRST = [
    LadderMessage(5.0, 5.01, "m1", "CN1", "data", None, "data"),
    LadderMessage(10.45, 10.465, "m1", "IMS_MN", "IMS Update", "1"),
    LadderMessage(10.465, 10.48, "IMS_MN", "m1", "IMS Update Reply", "1"),
    LadderMessage(10.5, None, "m1", "?", "MA Query", "7"),
]


def handovers(*rows: dict[str, object]) -> Any:
    return Results.build(PROVENANCE, rows, [], []).handovers


def first(*overrides: str) -> Scenario:
    return load_scenario(find_scenario("first"), overrides)


def embedded(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="scene">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def links(made: Scene) -> tuple[Link, ...]:
    """The links of the only node, times to a microsecond."""
    (node,) = made.nodes
    return tuple(replace(link, ready=round(link.ready, 6)) for link in node.links)


# ---- from a scenario -----------------------------------------------------------------------------


def test_networks_without_places_stand_in_a_row_and_do_not_overlap() -> None:
    made = scene(first(), mobility(first()), FIRST)
    assert [disc.name for disc in made.networks] == ["A", "B", "C"]
    assert {disc.y for disc in made.networks} == {0.0}
    gaps = [b.x - a.x for a, b in zip(made.networks, made.networks[1:], strict=False)]
    assert all(gap > 2 * made.networks[0].radius for gap in gaps)


def test_many_networks_without_places_stand_in_a_circle(tmp_path: Path) -> None:
    names = "".join(f'[[network]]\nname = "N{i}"\n' for i in range(9))
    path = tmp_path / "ring.toml"
    path.write_text(
        f'format = 1\n[scenario]\nname = "ring"\nduration = 1.0\n[nodes]\ncount = 2\n{names}'
    )
    ring = load_scenario(path)
    discs = scene(ring, mobility(ring), []).networks
    around = {round((disc.x**2 + disc.y**2) ** 0.5, 6) for disc in discs}
    assert len(around) == 1
    apart = [
        ((a.x - b.x) ** 2 + (a.y - b.y) ** 2) ** 0.5 for a in discs for b in discs if a is not b
    ]
    assert min(apart) > 2 * discs[0].radius


def test_servers_and_correspondents_are_those_that_messages_name() -> None:
    made = scene(first(), mobility(first()), FIRST)
    assert [(party.name, party.kind) for party in made.parties] == [
        ("IMS_MN", "ims"),
        ("CN1", "correspondent"),
    ]


def test_a_link_is_of_use_when_the_handovers_table_says_that_its_address_was_configured() -> None:
    row = handover(
        node="m1",
        to_network="B",
        time=10.0,
        away=0.0,
        detect=0.05,
        associate=0.1,
        address=0.3,
        total=0.5,
        outcome="completed",
    )
    never = handover(node="m1", ordinal=2, to_network="C", time=20.0, away=0.5)
    made = scene(first(), mobility(first()), FIRST, handovers(row, never))
    assert links(made) == (
        Link("A", 0.0, 0.0, 10.0),
        Link("B", 10.0, 10.45, 20.0),
        Link("C", 20.5, 30.0, 30.0),
        Link("A", 30.0, 30.0, 40.0),
    )
    assert [(h.begin, h.end) for h in made.handovers] == [(10.0, pytest.approx(10.5)), (20.0, None)]


def test_a_node_without_a_trace_walks_from_network_to_network_during_its_handover() -> None:
    row = handover(
        node="m1", to_network="B", time=10.0, away=0.0, detect=0.1, associate=0.1, address=0.3
    )
    made = scene(first(), mobility(first()), FIRST, handovers(row))
    (path,) = made.nodes[0].path
    places = {disc.name: disc for disc in made.networks}
    at = {time: (x, y) for time, x, y in path}
    assert at[10.0] == at[0.0]
    leaves, arrives = at[10.0], at[10.5]
    assert arrives[0] - leaves[0] == pytest.approx(places["B"].x - places["A"].x)
    for time, name in ((5.0, "A"), (15.0, "B"), (35.0, "A")):
        before = max(t for t in at if t <= time)
        assert abs(at[before][0] - places[name].x) < places[name].radius


def test_a_network_preferred_again_is_used_at_once_without_a_new_address(tmp_path: Path) -> None:
    (tmp_path / "back.csv").write_text(
        "t,node,action,network\n0,m,attach,A\n1,m,attach,B\n2,m,attach,A\n3,m,detach,B\n"
    )
    path = tmp_path / "back.toml"
    path.write_text(
        'format = 1\n[scenario]\nname = "back"\nduration = 4.0\n[movement]\nevents = "back.csv"\n'
        '[[network]]\nname = "A"\n[[network]]\nname = "B"\n'
    )
    back = load_scenario(path)
    row = handover(
        node="m", to_network="B", time=1.0, away=0.0, detect=0.1, associate=0.1, address=0.1
    )
    assert links(scene(back, mobility(back), [], handovers(row))) == (
        Link("A", 0.0, 0.0, 2.0),
        Link("B", 1.0, 1.3, 3.0),
        Link("A", 2.0, 2.0, 4.0),
    )


def test_a_trace_gives_the_places_and_straight_walks_need_few_of_them(tmp_path: Path) -> None:
    rows = [f"{t},car,{10 * t},{0 if t < 50 else 5 * (t - 50)}" for t in range(101)]
    (tmp_path / "car.csv").write_text("\n".join(["t,node,x,y", *rows]))
    path = tmp_path / "car.toml"
    path.write_text(
        'format = 1\n[scenario]\nname = "car"\n[movement]\ntrace = "car.csv"\n'
        '[[network]]\nname = "A"\nx = 500.0\nrange = 2000.0\n'
    )
    car = load_scenario(path)
    made = scene(car, mobility(car), [])
    assert made.nodes[0].path == (((0.0, 0.0, 0.0), (50.0, 500.0, 0.0), (100.0, 1000.0, 250.0)),)
    assert [(disc.x, disc.radius) for disc in made.networks] == [(500.0, 2000.0)]


CAR = (
    'format = 1\n[scenario]\nname = "car"\n[movement]\ntrace = "car.csv"\ngaps = "absent"\n'
    '[[network]]\nname = "A"\nx = 500.0\nrange = 2000.0\n'
)


def test_of_a_part_of_the_time_only_the_way_in_it_is_kept(tmp_path: Path) -> None:
    rows = [f"{t},a,{t * t},0" for t in range(51)] + [f"{t},b,0,{t}" for t in range(60, 81)]
    (tmp_path / "car.csv").write_text("\n".join(["t,node,x,y", *rows]))
    path = tmp_path / "car.toml"
    path.write_text(CAR)
    car = load_scenario(path)
    made = scene(car, mobility(car), [], begin=20.5, end=22.0)
    assert [node.path for node in made.nodes] == [
        (((20.0, 400.0, 0.0), (21.0, 441.0, 0.0), (22.0, 484.0, 0.0)),),
        (),
    ]
    made = scene(car, mobility(car), [], begin=55.0, end=58.0)
    assert [node.path for node in made.nodes] == [(), ()]


def test_generated_movement_is_shown_as_that_of_its_run(tmp_path: Path) -> None:
    path = tmp_path / "walk.toml"
    path.write_text(
        'format = 1\n[scenario]\nname = "walk"\nduration = 30\n[nodes]\ncount = 2\n'
        "[movement.random_waypoint]\nsize = [500, 500]\n"
        '[[network]]\nname = "A"\nx = 7.0\nrange = 900.0\n'
    )
    walk = load_scenario(path)
    for run in (0, 3):
        made = scene(walk, mobility(walk, run), [], run=run)
        trace = positions(walk, run)
        assert trace is not None
        begins = [(float(x), float(y)) for x, y in zip(trace.x[:2], trace.y[:2], strict=True)]
        assert [node.path[0][0][1:] for node in made.nodes] == begins
        assert [(disc.x, disc.radius) for disc in made.networks] == [(7.0, 900.0)]


def test_a_part_of_the_time_has_the_messages_and_handovers_of_that_part() -> None:
    rows = [handover(ordinal=n, time=10.0 * n) for n in (1, 2, 3)]
    made = scene(first(), mobility(first()), FIRST, handovers(*rows), begin=10.0, end=25.0)
    assert (made.begin, made.end) == (10.0, 25.0)
    assert [message.sent for message in made.messages] == [10.45, 10.465, 10.5]
    assert [h.begin for h in made.handovers] == [10.0, 20.0]


# ---- limits --------------------------------------------------------------------------------------


def test_too_many_nodes_are_refused_with_what_to_do() -> None:
    crowd = replace(SCENE, nodes=tuple(Node(f"m{i}", ()) for i in range(MOST_NODES + 1)))
    with pytest.raises(ScenarioError, match=r"has 301 mobile nodes; .* 300; .*nodes\.count=300"):
        Animation(crowd)


def test_too_much_signalling_is_refused_with_what_to_do() -> None:
    message = LadderMessage(1.0, 1.01, "m1", "IMS_MN", "IMS Update", "1")
    with pytest.raises(ScenarioError, match=r"20,001 messages of signalling; .*--from and --until"):
        replace(SCENE, messages=(message,) * (MOST_SIGNALS + 1)).limited()


def test_too_many_positions_are_refused_with_what_to_do() -> None:
    long = Node("m1", (((0.0, 0.0, 0.0),) * (MOST_POINTS + 1),))
    with pytest.raises(ScenarioError, match=r"200,001 positions; .*--from and --until"):
        replace(SCENE, nodes=(long,)).limited()


def test_of_too_many_data_packets_every_flow_keeps_an_equal_share_and_the_page_says_so() -> None:
    up = [LadderMessage(i / 1e4, None, "m1", "CN1", "data", None, "data") for i in range(MOST_DATA)]
    down = [LadderMessage(i / 10, None, "CN1", "m1", "data", None, "data") for i in range(30)]
    thinned = replace(SCENE, messages=(*up, *down, *SCENE.messages[1:])).limited()
    kept = [message for message in thinned.messages if message.kind == "data"]
    assert sum(message.from_ == "CN1" for message in kept) == 15
    assert len(kept) == MOST_DATA // 2 + 15
    assert thinned.limited() == thinned
    assert thinned.note == "Of the data packets, one in 2 is drawn."
    assert [m for m in thinned.messages if m.kind != "data"] == list(SCENE.messages[1:])
    assert thinned.note in Animation(thinned).html


def test_flows_that_do_not_divide_evenly_are_thinned_once_and_enough() -> None:
    flows = [
        LadderMessage(float(i), None, f"m{flow}", "CN1", "data", None, "data")
        for flow in range(150)
        for i in range(133)
    ]
    thinned = replace(SCENE, messages=tuple(flows)).limited()
    assert len(thinned.messages) <= MOST_DATA
    assert thinned.note == "Of the data packets, one in 3 is drawn."
    assert thinned.limited() == thinned


# ---- the file ------------------------------------------------------------------------------------


def test_the_page_holds_the_scene_and_equal_scenes_make_equal_bytes() -> None:
    page = Animation(SCENE).html
    assert page == Animation(SCENE).html
    data = embedded(page)
    assert data["nodes"][0]["path"] == [[0, 0.3, -0.5, 2, 0.3, -0.5, 2.4, 3.3, -0.5, 4, 3.3, -0.5]]
    assert data["nodes"][0]["links"] == [[0, 0, 0, 2], [1, 2, 2.4, 4]]
    assert data["labels"] == [
        "data",
        "IMS Update",
        "IMS Update Reply",
        "HA Notify",
        "IMS?",
        "MA Query",
    ]
    assert data["messages"][1] == [2.4, 2.41, 0, 1, 1, "signal", "1"]
    assert data["messages"][3] == [2.42, None, 0, 2, 3, "signal", "2"]
    assert data["handovers"] == [[0, "hard", 2.0, 2.5, "completed"]]


def test_the_page_names_nothing_outside_of_itself() -> None:
    page = Animation(SCENE).html
    assert not re.findall(r"https?:|//[a-z]+\.|@import|url\(", page)
    assert re.findall(r'(?:src|href)="([^"]*)"', page) == ["data:,"]


def test_names_cannot_break_out_of_the_page() -> None:
    evil = '</script><script>alert(1)</script><!-- & "'
    page = Animation(
        replace(SCENE, title=evil, nodes=(Node(evil, ()),), description=evil, messages=())
    ).html
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    assert "<!--" not in page
    assert embedded(page)["nodes"][0]["name"] == evil


def test_in_a_notebook_the_page_is_in_a_frame_of_its_own() -> None:
    shown = Animation(SCENE)._repr_html_()
    found = re.search(r'srcdoc="([^"]*)" sandbox="allow-scripts"', shown)
    assert found is not None
    assert unescape(found[1]) == Animation(SCENE).html


# ---- the command ---------------------------------------------------------------------------------


def test_the_command_writes_an_animation_of_a_scenario(tmp_path: Path) -> None:
    out = tmp_path / "first.html"
    result = CliRunner().invoke(animate, ["first", "--out", str(out), "--from", "9"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"Written to {out}; mobile nodes: 1, messages: ")
    data = embedded(out.read_text())
    assert data["begin"] == 9.0
    assert [network[0] for network in data["networks"]] == ["A", "B", "C"]
    assert {"IMS Update", "HA Notify", "MA Query", "data"} <= set(data["labels"])
    assert len(data["handovers"]) == 3
    registered = [m for m in data["messages"] if data["labels"][m[4]] == "IMS Update"]
    assert len(registered) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nowhere"], 1, "no such file"),
        (["first", "--from", "40"], 2, "--from is 40, but the animation ends at 40 s"),
        (["first", "--from", "5", "--until", "4"], 2, "ends at 4 s"),
        (["first", "--set", "nodes.interfaces=3"], 1, "must be 2 or less"),
    ],
)
def test_the_command_says_what_is_wrong(
    tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    result = CliRunner().invoke(animate, [*arguments, "--out", str(tmp_path / "a.html")])
    assert result.exit_code == code
    assert said in result.output
    assert not (tmp_path / "a.html").exists()


def test_the_command_says_before_the_run_that_a_scenario_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "crowd.toml"
    path.write_text(
        'format = 1\n[scenario]\nname = "crowd"\nduration = 3600\n[nodes]\ncount = 100000\n'
        '[movement.random_waypoint]\nsize = [500, 500]\n[[network]]\nname = "A"\n'
    )
    out = ["--out", str(tmp_path / "a.html")]
    result = CliRunner().invoke(animate, [str(path), *out])
    assert result.exit_code == 1
    assert "has 100,000 mobile nodes; an animation holds 300" in result.output


def test_the_command_says_that_a_directory_is_missing(tmp_path: Path) -> None:
    out = tmp_path / "nowhere" / "a.html"
    result = CliRunner().invoke(animate, ["first", "--out", str(out)])
    assert result.exit_code == 1
    assert f"there is no directory {out.parent}" in result.output


def test_a_bar_shows_how_far_the_run_is(capfd: pytest.CaptureFixture[str]) -> None:
    quiet = animated("first", begin=9.5, end=12.0)
    assert capfd.readouterr() == ("", "")
    assert animated("first", begin=9.5, end=12.0, progress=True).html == quiet.html
    assert re.search(r"simulating first.*100%", capfd.readouterr().err)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, mat_sim.animation.command, mat_sim.animation; print(sorted({'pandas', 'numpy',"
        " 'pydantic', 'simpy', 'json', 'matplotlib'} & set(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2] / "sim",
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.strip() == "[]"


def test_a_scene_of_nothing_is_still_a_page() -> None:
    empty = Scene("empty", 0.0, 1.0, SCENE.networks, (), (), ())
    assert embedded(Animation(empty).html)["messages"] == []


def test_one_call_makes_what_the_command_writes(tmp_path: Path) -> None:
    out = tmp_path / "first.html"
    options = ["first", "--from", "9.5", "--until", "12", "--out", str(out)]
    assert CliRunner().invoke(animate, options).exit_code == 0
    assert animated("first", begin=9.5, end=12.0).html == out.read_text(encoding="utf-8")
