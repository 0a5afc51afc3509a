"""Two sets of results side by side: what agrees, what is shown and written, exit codes."""

import csv
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mat_files.results import Results
from mat_files.scenario import load_scenario
from mat_sim.cli import sim
from mat_sim.compare import Line, Tolerance, compare, figure
from mat_sim.study import simulate
from tests.files.test_results import PROVENANCE, handover

SCENARIO = """
format = 1
[scenario]
name = "pair"
duration = 12.0
[movement]
events = "moves.csv"
[nodes]
interfaces = 2
[[network]]
name = "A"
[[network]]
name = "B"
delay = 0.010
[traffic]
up = 100
down = 100
"""
MOVES = """t,node,action,network
0,m1,attach,A
3,m1,attach,B
5,m1,detach,A
8,m1,detach,B
8,m1,attach,A
"""
SLOWER = "network.1.delay=0.040"
LATER = "network.0.address=0.9"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scenario and results of it: `same`, and `shifted` where network B is farther away."""
    made = tmp_path_factory.mktemp("compare")
    (made / "pair.toml").write_text(SCENARIO)
    (made / "moves.csv").write_text(MOVES)
    for name, overrides in (("same", ()), ("shifted", (SLOWER, LATER))):
        simulate(load_scenario(made / "pair.toml", overrides)).write(made / name)
    return made


def run(*arguments: object) -> Result:
    return CliRunner().invoke(sim, ["compare", *map(str, arguments)])


def lines(one: Path, other: Path, **options: Any) -> dict[tuple[str, str], Line]:
    compared = compare(Results.read(one), Results.read(other), **options)
    return {(line.kind, line.column): line for line in compared.lines}


def completed(**columns: object) -> Results:
    return Results.build(PROVENANCE, [handover(outcome="completed", **columns)], [], [])


def only_line(one: Results, other: Results, tolerance: Tolerance | None = None) -> Line:
    (line,) = compare(one, other, tolerance=tolerance).lines
    return line


# ---- what agrees ---------------------------------------------------------------------------------


def test_equal_results_agree_in_everything(folder: Path) -> None:
    found = lines(folder / "same", folder / "same")
    assert {kind for kind, _ in found} == {"soft", "hard"}
    assert {"register", "notify", "total", "interruption_up", "lost_down"} <= {c for _, c in found}
    assert all(line.agrees and line.difference == 0 for line in found.values())


def test_what_was_shifted_differs_by_so_much_and_the_rest_agrees(folder: Path) -> None:
    found = lines(folder / "same", folder / "shifted")
    # The soft handover leads to B: a round trip with the IMS is 60 ms longer.
    soft = found["soft", "register"]
    assert soft.difference == pytest.approx(0.060)
    assert soft.allowed == pytest.approx(0.1 * soft.second.median)
    assert soft.agrees is False
    hard = found["hard", "address"]
    assert (hard.first.median, hard.second.median) == pytest.approx((0.3, 0.9))
    assert hard.agrees is False
    for kind, column in (("hard", "register"), ("soft", "address"), ("hard", "detect")):
        assert found[kind, column].agrees, column


@pytest.mark.parametrize(
    ("first", "second", "agrees"),
    [(0.100, 0.111, True), (0.100, 0.112, False), (0.001, 0.0029, True), (0.001, 0.0031, False)],
)
def test_ten_percent_of_the_greater_or_two_milliseconds_are_allowed(
    first: float, second: float, *, agrees: bool
) -> None:
    for one, other in ((first, second), (second, first)):
        line = only_line(completed(register=one), completed(register=other))
        assert line.agrees is agrees
        assert line.difference == pytest.approx(other - one)


def test_of_packets_one_more_is_allowed() -> None:
    for lost, agrees in ((1, True), (2, False)):
        line = only_line(completed(lost_up=0), completed(lost_up=lost))
        assert (line.unit, line.agrees) == ("packets", agrees)


def test_the_tolerance_may_be_another() -> None:
    one, other = completed(total=1.0), completed(total=1.2)
    assert only_line(one, other).agrees is False
    assert only_line(one, other, Tolerance(0.2)).agrees


def test_what_one_side_lacks_is_neither_right_nor_wrong() -> None:
    line = only_line(completed(register=0.1), completed())
    assert line.agrees is None
    assert (line.first.count, line.second.count) == (1, 0)


def flow(run: int, receiver: str, **columns: object) -> dict[str, object]:
    return {"run": run, "from_role": "MN", "to_role": receiver} | columns


def test_flows_are_those_of_a_run_with_the_mean_delay_of_what_was_delivered(
    tmp_path: Path,
) -> None:
    two = [
        flow(0, "CN", sent=100, delivered=90, lost=10, delay_mean=0.02),
        flow(1, "CN", sent=300, delivered=30, lost=270, delay_mean=0.06),
    ]
    one = [flow(0, "CN", sent=50, delivered=0, lost=50), flow(0, "MN", sent=1, delivered=0, lost=1)]
    first = Results.build(replace(PROVENANCE, runs=2), [], [], [], two)
    second = Results.build(PROVENANCE, [], [], [], one)
    found = {each.to_role: each for each in compare(first, second).traffic}
    assert (found["CN"].sent, found["CN"].lost) == ((200, 50), (140, 50))
    mine, other = found["CN"].delay
    assert mine == pytest.approx(0.03)
    assert math.isnan(other)
    assert [*found["MN"].sent] == [0, 1]
    for name, results in (("one", first), ("other", second)):
        results.write(tmp_path / name)
    options = ("--first", tmp_path / "one", "--second", tmp_path / "other")
    output = run(*options, "--out", tmp_path / "out").output
    assert re.search(r"MN +│ CN +│ +200 │ +50 │ +140 │ +50 │ +30.0 │ +– ", output)
    with (tmp_path / "out" / "comparison-flows.csv").open() as stream:
        written = list(csv.DictReader(stream))
    assert float(written[0].pop("first_delay_mean")) == pytest.approx(0.03)
    assert list(written[0].values()) == ["MN", "CN", "200.0", "50.0", "140.0", "50.0", ""]


def test_handovers_that_were_not_completed_are_counted_and_not_compared() -> None:
    rows = [handover(outcome="completed", total=1.0), handover(ordinal=2, total=9.0)]
    mixed = Results.build(PROVENANCE, rows, [], [])
    assert only_line(completed(total=1.0), mixed).second.median == 1.0
    found = compare(completed(total=1.0), mixed).outcomes
    assert set(found) == {("hard", "completed", 1, 1), ("hard", "unfinished", 0, 1)}


def test_messages_are_counted_per_run(folder: Path) -> None:
    twice = simulate(folder / "pair.toml", runs=2, processes=1)
    counts = compare(Results.read(folder / "same"), twice).counts
    assert {count.type for count in counts} >= {"IMS Update", "HA Notify", "data"}
    assert all(count.sent[0] == count.sent[1] > 0 for count in counts if count.type != "data")


# ---- the command ---------------------------------------------------------------------------------


def test_two_directories_are_compared_under_their_names(folder: Path) -> None:
    result = run("--first", folder / "same", "--second", folder / "shifted")
    assert result.exit_code == 0, result.output
    row = next(line for line in result.output.splitlines() if "register" in line)
    assert row.split()[-2] == "NO"
    assert "same" in result.output
    assert "shifted" in result.output
    assert all(len(line) <= 100 for line in result.output.splitlines())


def test_only_with_a_tolerance_a_difference_is_a_failure(folder: Path) -> None:
    pair = ("--first", folder / "same", "--second", folder / "shifted")
    equal = ("--first", folder / "same", "--second", folder / "same")
    assert run(*pair, "--tolerance", "0.1").exit_code == 1
    assert run(*pair, "--tolerance", "0.9").exit_code == 0
    assert run(*equal, "--tolerance", "0").exit_code == 0


def test_nothing_to_compare_is_a_failure_where_agreement_is_asked_for(tmp_path: Path) -> None:
    Results.build(PROVENANCE, [], [], []).write(tmp_path)
    pair = ("--first", tmp_path, "--second", tmp_path)
    assert run(*pair).exit_code == 0
    assert run(*pair, "--tolerance", "0.1").exit_code == 1


def test_a_scenario_is_simulated_and_put_beside_the_labs_results(
    folder: Path, tmp_path: Path
) -> None:
    scenario, out = folder / "pair.toml", tmp_path / "out"
    result = run(scenario, "--lab", folder / "same", "--out", out, "--tolerance", "0")
    assert result.exit_code == 0, result.output
    assert "Warning" not in result.output
    assert {path.name for path in out.iterdir()} == {
        *("comparison.csv", "comparison-messages.csv", "comparison-flows.csv"),
        *("comparison.pdf", "comparison.png"),
        "simulator",
    }
    with (out / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["agrees"] for row in rows} == {"yes"}
    total = next(row for row in rows if (row["kind"], row["column"]) == ("hard", "total"))
    found = Results.read(out / "simulator").handovers.query("kind == 'hard'")["total"]
    assert float(total["first_median"]) == pytest.approx(found.median())
    assert (out / "comparison.pdf").read_bytes().startswith(b"%PDF")
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_results_of_another_scenario_are_compared_with_a_warning(folder: Path) -> None:
    found = run(folder / "pair.toml", "--lab", folder / "shifted", "--seed", "5")
    assert found.exit_code == 0
    what = f"Warning: {folder / 'shifted'} was made with another --set, seed; compared all the same"
    assert what in found.stderr


def test_what_the_lab_adds_is_taken_off(folder: Path, tmp_path: Path) -> None:
    results = Results.read(folder / "same")
    slower = results.handovers.copy()
    slower[["register", "total"]] += 0.025
    # Of an interruption nobody knows how much of it is the lab's: it is not judged.
    slower["interruption_up"] += 0.5
    replace(results, handovers=slower).write(tmp_path / "lab")
    scenario, lab = folder / "pair.toml", tmp_path / "lab"
    refused = run(scenario, "--lab", lab, "--net")
    assert refused.exit_code == 1
    assert "shares.csv: cannot be read" in refused.stderr
    assert "leave --net out" in refused.stderr
    shares = [f"m1,{n},{k},register,0.020,0.005" for n, k in ((1, "soft"), (2, "hard"))]
    lines = "\n".join(["node,ordinal,kind,part,programs,links", *shares, ""])
    (lab / "shares.csv").write_text(lines)
    assert run(scenario, "--lab", lab, "--tolerance", "0.01").exit_code == 1
    assert run(scenario, "--lab", lab, "--tolerance", "0.01", "--net").exit_code == 0
    (lab / "shares.csv").write_text("a,b\n1,2\n")
    assert (
        "has no node, ordinal, part, programs, links" in run(scenario, "--lab", lab, "--net").stderr
    )


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        ((), 2, "give a SCENARIO, or two directories"),
        (("--first", "."), 2, "give a SCENARIO, or two directories"),
        (("first", "--first", "."), 2, "give either"),
        (("first", "--lab", "nowhere"), 2, "'nowhere' does not exist"),
        (("frist", "--lab", "."), 1, "did you mean first?"),
        (("first", "--lab", "/"), 1, "cannot be read as results"),
        (("--first", "/", "--second", "/"), 1, "cannot be read as results"),
    ],
)
def test_what_cannot_be_compared_is_said(arguments: tuple[str, ...], code: int, what: str) -> None:
    result = run(*arguments)
    assert result.exit_code == code
    assert what in result.stderr


def test_the_figure_has_a_picture_for_each_part_that_is_not_the_same_throughout(
    folder: Path,
) -> None:
    found = compare(Results.read(folder / "same"), Results.read(folder / "shifted"))
    drawn: Any = figure(found)
    titles = [axes.get_title() for axes in drawn.axes if axes.get_title()]
    assert {"soft: register (IMS Update)", "soft: total", "hard: address"} <= set(titles)
    assert not {"hard: detect", "soft: without coverage"} & set(titles)
