"""Sweeps: cases and their tables; interrupted ones go on, and only what is missing is run."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mat_files.distributions import Exponential
from mat_files.errors import ResultsError, ScenarioError
from mat_files.results import Results
from mat_sim.study import (
    Precision,
    PrecisionNotReached,
    Statistic,
    StudyError,
    Sweep,
    estimate,
    simulate,
    student_t,
    sweep,
)
from mat_sim.study._shelf import folder_name
from tests.sim.study_helpers import (
    LONG,
    SHORT,
    WAIT_SECONDS,
    alive,
    children,
    gone_at_the_end,
    kill,
    runs_in,
    tree,
    wait_for,
)
from tests.sim.test_run_command import environment

DELAYS: dict[str, list[object]] = {
    "network.1.delay": [0.01, 0.02],
    "network.0.delay": [0.001, Exponential(0.003)],
}
FIRST = "exponential = 0.003"
PROGRAM = """
import sys
from tests.sim.study_helpers import LONG
from mat_sim import sweep
sweep(LONG, {"network.1.delay": [0.01, 0.02]}, runs=8, out=sys.argv[1], processes=2)
"""


def results_of(folder: Path) -> dict[str, bytes]:
    """What a sweep wrote, without what says which parts of it were asked for last."""
    return {name: content for name, content in tree(folder).items() if "/" in name}


# --- cases and tables -----------------------------------------------------------------------------


def test_cases_are_all_combinations() -> None:
    found = sweep(SHORT, DELAYS, processes=1)
    assert found.cases.to_dict("records") == [
        {"case": 0, "network.1.delay": 0.01, "network.0.delay": 0.001, "runs": 1},
        {"case": 1, "network.1.delay": 0.01, "network.0.delay": f"{{{FIRST}}}", "runs": 1},
        {"case": 2, "network.1.delay": 0.02, "network.0.delay": 0.001, "runs": 1},
        {"case": 3, "network.1.delay": 0.02, "network.0.delay": f"{{{FIRST}}}", "runs": 1},
    ]


def test_cases_may_be_listed() -> None:
    cases: list[dict[str, object]] = [{}, {"network.1.delay": 0.02}, {"nodes.interfaces": 2}]
    found = sweep(SHORT, cases, processes=1)
    assert found.cases["network.1.delay"].tolist() == pytest.approx(
        [np.nan, 0.02, np.nan], nan_ok=True
    )
    assert found.results(0).handovers.equals(simulate(SHORT).handovers)


def test_a_case_is_what_simulate_gives(tmp_path: Path) -> None:
    found = sweep(SHORT, DELAYS, runs=2, processes=1)
    changed = SHORT.changed({"network.1.delay": 0.02, "network.0.delay": 0.001})
    found.results(2).write(tmp_path / "a")
    simulate(changed, runs=2, processes=1).write(tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_tables_have_the_cases_columns_first() -> None:
    found = sweep(SHORT, {"network.1.delay": np.array([0.01, 0.02])}, runs=2, processes=1)
    for name in ("handovers", "messages", "ims", "flows", "links"):
        table: pd.DataFrame = getattr(found, name)
        assert list(table.columns[:3]) == ["case", "network.1.delay", "run"]
        parts = [getattr(found.results(case), name) for case in range(2)]
        expected = pd.concat(parts, ignore_index=True)
        pd.testing.assert_frame_equal(table.drop(columns=["case", "network.1.delay"]), expected)
        own = [
            column
            for part, at in zip(parts, (0.01, 0.02), strict=True)
            for column in [at] * len(part)
        ]
        assert table["network.1.delay"].tolist() == own


def test_an_estimate_has_a_row_for_each_case() -> None:
    found = sweep(SHORT, {"network.1.delay": [0.01, 0.02]}, runs=3, processes=1)
    table = found.estimate("total", 0.99, confidence=0.9)
    assert list(table.columns) == ["case", "network.1.delay", "value", "low", "high", "runs"]
    for case, row in enumerate(table.to_dict("records")):
        alone = estimate(found.results(case), "total", 0.99, confidence=0.9)
        assert (row["value"], row["low"], row["high"]) == (alone.value, alone.low, alone.high)
        assert row["runs"] == 3


def test_cases_have_the_same_randomness() -> None:
    found = sweep(SHORT, {"network.1.delay": [0.01, 0.02]}, runs=4, processes=1)
    one, two = (Statistic("total").per_run(found.results(case)) for case in (0, 1))
    difference = student_t(np.subtract(two, one))
    assert difference.half_width < student_t(one).half_width / 10


def test_each_case_has_the_runs_that_its_precision_takes(tmp_path: Path) -> None:
    precision = Precision(0.04, Statistic("address"), least=2, most=40)
    vary: dict[str, list[object]] = {"network.1.address": [0.3, {"uniform": [0.2, 0.25]}]}
    trees = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        found = sweep(SHORT, vary, precision=precision, out=out, processes=processes)
        steady, random = found.cases["runs"]
        assert steady == 2 < random
        assert found.estimate("address")["runs"].tolist() == [steady, random]
        trees.append(tree(out))
    assert trees[0] == trees[1]


def test_a_case_that_did_not_reach_the_precision_is_named() -> None:
    precision = Precision(1e-6, least=2, most=3)
    with pytest.warns(PrecisionNotReached, match=r"^network.1.delay=0.01: total after 3 runs"):
        sweep(SHORT, {"network.1.delay": [0.01]}, precision=precision, processes=1)


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ({}, "a sweep needs at least one case"),
        ([], "a sweep needs at least one case"),
        ({"nodes.interfaces": []}, "a sweep needs at least one case"),
        ({"nodes.interfaces": 1}, r"nodes.interfaces: 1 is not a list of values; write .*: \[1\]"),
        ({"scenario.name": "abc"}, "scenario.name: 'abc' is not a list of values"),
    ],
)
def test_what_is_no_list_of_cases_is_said(vary: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sweep(SHORT, vary)


def test_a_case_twice_is_said() -> None:
    with pytest.raises(StudyError, match=r"the case nodes\.interfaces=1 is there twice"):
        sweep(SHORT, {"nodes.interfaces": [1, 1]})


def test_cases_have_folders_of_their_own_however_many_there_are() -> None:
    count = 400_000
    assert len({folder_name([f"nodes.count={n}"]) for n in range(count)}) == count


def test_a_run_is_on_the_disk_before_it_has_its_name(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    log = tmp_path / "calls"
    script = "import sys; from mat_sim import sweep; sweep('first', [{}], out=sys.argv[1])"
    command = ["strace", "-f", "-y", "-o", str(log), "-e", "trace=fsync,/^rename"]
    program = [sys.executable, "-c", script, str(tmp_path / "out")]
    watched = [*command, *program]
    there = environment(tmp_path)
    done = subprocess.run(watched, env=there, capture_output=True, text=True, check=False)
    if "ptrace" in done.stderr:
        pytest.skip(f"strace may not watch here: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    calls = log.read_text().splitlines()
    renamed = next(i for i, call in enumerate(calls) if "rename" in call and "run-0000" in call)
    flushed = "\n".join(call for call in calls[:renamed] if "fsync" in call)
    for table in ("handovers", "messages", "ims", "flows"):
        assert f"/.run/{table}.parquet>" in flushed


def test_a_value_that_cannot_be_is_said_before_anything_is_run(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"^nodes.interfaces=3: .*: is 3; must be 2 or less"):
        sweep(SHORT, {"nodes.interfaces": [1, 3]}, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_case_that_cannot_be_run_is_named() -> None:
    with pytest.raises(ScenarioError, match=r"^nodes.count=2: .*: nodes.count: is 2, but the move"):
        sweep(SHORT, {"nodes.count": [1, 2]}, processes=1)


# --- directories ----------------------------------------------------------------------------------


def test_a_directory_has_each_run_and_is_read_again(tmp_path: Path) -> None:
    found = sweep(SHORT, DELAYS, runs=2, out=tmp_path, processes=1)
    assert len(runs_in(tmp_path)) == 8
    again = Sweep.read(tmp_path)
    memory = sweep(SHORT, DELAYS, runs=2, processes=1)
    for other in (again, memory):
        pd.testing.assert_frame_equal(other.handovers, found.handovers)
        pd.testing.assert_frame_equal(other.cases, found.cases)
        pd.testing.assert_frame_equal(other.estimate("total"), found.estimate("total"))
    cases = pd.read_csv(tmp_path / "cases.csv")
    one = Results.read(tmp_path / cases["folder"][3] / "run-0001")
    assert one.provenance.overrides.endswith(f"network.1.delay=0.02\nnetwork.0.delay={{{FIRST}}}")
    assert "--first-run 1" in one.provenance.recipe


def test_directories_are_equal_on_any_number_of_processes(tmp_path: Path) -> None:
    for processes in (1, 2, 3):
        sweep(SHORT, DELAYS, runs=2, out=tmp_path / str(processes), processes=processes)
    one, two, three = (tree(tmp_path / str(processes)) for processes in (1, 2, 3))
    assert one == two == three


def untouched(folder: Path) -> Callable[[], bool]:
    """Whether the runs that are there now are still the same files later."""
    before = {path: path.stat().st_ino for path in folder.glob("case-*/run-*/*")}
    assert before
    return lambda: all(path.stat().st_ino == inode for path, inode in before.items())


def test_only_missing_runs_are_run(tmp_path: Path) -> None:
    sweep(SHORT, DELAYS, runs=3, out=tmp_path / "whole", processes=1)
    sweep(SHORT, DELAYS, runs=3, out=tmp_path / "holes", processes=1)
    for place in (runs_in(tmp_path / "holes")[2], runs_in(tmp_path / "holes")[7]):
        for path in place.iterdir():
            path.unlink()
        place.rmdir()
    kept = untouched(tmp_path / "holes")
    sweep(SHORT, DELAYS, runs=3, out=tmp_path / "holes", processes=1)
    assert kept()
    assert tree(tmp_path / "holes") == tree(tmp_path / "whole")


def test_more_runs_and_more_values_go_on_from_what_is_there(tmp_path: Path) -> None:
    sweep(SHORT, {"network.1.delay": [0.02]}, runs=1, out=tmp_path / "a", processes=1)
    kept = untouched(tmp_path / "a")
    more = {"network.1.delay": [0.01, 0.02]}
    found = sweep(SHORT, more, runs=2, out=tmp_path / "a", processes=1)
    sweep(SHORT, more, runs=2, out=tmp_path / "b", processes=1)
    assert kept()
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert found.cases["runs"].tolist() == [2, 2]
    fewer = sweep(SHORT, more, runs=1, out=tmp_path / "a", processes=1)
    assert fewer.handovers["run"].unique().tolist() == [0]


@pytest.mark.parametrize("runs", [(1, 4), (0, 0)])
def test_a_precision_goes_on_from_runs_that_are_there(
    tmp_path: Path, runs: tuple[int, int]
) -> None:
    precision = Precision(0.2, Statistic("address"), least=3)
    vary = {"nodes.interfaces": [1]}
    sweep(SHORT, vary, precision=precision, out=tmp_path / "a", processes=1)
    if runs[1]:
        sweep(SHORT, vary, runs=runs[1], out=tmp_path / "b", processes=1)
    found = sweep(SHORT, vary, precision=precision, out=tmp_path / "b", processes=1)
    assert found.cases["runs"].tolist() == Sweep.read(tmp_path / "a").cases["runs"].tolist()
    pd.testing.assert_frame_equal(found.handovers, Sweep.read(tmp_path / "a").handovers)


@pytest.mark.parametrize(
    ("other", "differing"),
    [
        ({"seed": 9}, "overrides"),
        ({"scenario": "first"}, "overrides"),
        ({"scenario": "town"}, "movement file, overrides, scenario"),
    ],
)
def test_another_scenario_in_the_directory_is_refused(
    tmp_path: Path, other: dict[str, Any], differing: str
) -> None:
    vary = {"nodes.interfaces": [1]}
    sweep(SHORT, vary, out=tmp_path, processes=1)
    before = tree(tmp_path)
    scenario = other.pop("scenario", SHORT)
    with pytest.raises(ResultsError) as caught:
        sweep(scenario, vary, out=tmp_path, processes=1, **other)
    what = f"{tmp_path}: has a sweep that differs in {differing}; name another directory"
    assert str(caught.value).startswith(what)
    assert tree(tmp_path) == before


def test_another_version_in_the_directory_is_refused(tmp_path: Path) -> None:
    sweep(SHORT, {"nodes.interfaces": [1]}, out=tmp_path, processes=1)
    record = json.loads((tmp_path / "sweep.json").read_text())
    record["of"]["version"] = "0.0.1"
    (tmp_path / "sweep.json").write_text(json.dumps(record))
    with pytest.raises(ResultsError, match="differs in version; name another directory"):
        sweep(SHORT, {"nodes.interfaces": [1]}, out=tmp_path, processes=1)


def test_a_damaged_run_is_named(tmp_path: Path) -> None:
    found = sweep(SHORT, {"nodes.interfaces": [1]}, out=tmp_path, processes=1)
    place = runs_in(tmp_path)[0]
    (place / "ims.parquet").write_bytes(b"PAR1")
    with pytest.raises(ResultsError, match=f"remove {place}, and the run is done again"):
        assert found.ims is None


@pytest.mark.parametrize("content", [None, "{", "[]", '{"of": 1}'])
def test_a_directory_without_a_sweep_is_not_read(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(ResultsError, match=r"sweep\.json: is no record of a sweep"):
        Sweep.read(tmp_path)


def test_a_directory_that_cannot_be_written_is_said_before_anything_is_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ResultsError, match="results cannot be written here"):
        sweep(SHORT, {"nodes.interfaces": [1]}, out=tmp_path / "file")


def test_a_killed_sweep_goes_on_and_meanwhile_it_has_the_directory_for_itself(
    tmp_path: Path,
) -> None:
    vary = {"network.1.delay": [0.01, 0.02]}
    out = tmp_path / "out"
    command = [sys.executable, "-c", PROGRAM, str(out)]
    with (
        subprocess.Popen(command, env=environment(tmp_path), start_new_session=True) as process,
        gone_at_the_end(process),
    ):
        wait_for(lambda: len(runs_in(out)) >= 2, "no runs")
        with pytest.raises(ResultsError, match="another sweep is going on here"):
            sweep(LONG, vary, runs=8, out=out)
        workers = children(process.pid)
        kill(process.pid)
        process.wait(timeout=WAIT_SECONDS)
    wait_for(lambda: not any(map(alive, workers)), "a worker is still there")
    done = len(runs_in(out))
    assert 2 <= done < 16
    assert 0 < Sweep.read(out).cases["runs"].sum() <= done
    kept = untouched(out)
    half = out / ".run" / ".writing-half"  # as if it had been killed while it wrote
    half.mkdir(parents=True)
    (half / "handovers.parquet").write_bytes(b"half")
    sweep(LONG, vary, runs=8, out=out, processes=2)
    assert kept()
    sweep(LONG, vary, runs=8, out=tmp_path / "whole", processes=1)
    assert tree(out) == tree(tmp_path / "whole")
