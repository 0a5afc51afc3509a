"""`mat sim sweep` and the replications of `mat sim run`, as a user meets them."""

import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from mat_files.library import find_scenario
from mat_files.results import Results
from mat_files.scenario import load_scenario
from mat_sim.cli import sim
from mat_sim.study import Sweep, estimate, parsed, simulate, sweep
from tests.files.test_traces import write
from tests.sim.study_helpers import (
    LONG,
    SHORT,
    WAIT_SECONDS,
    gone_at_the_end,
    runs_in,
    tree,
    wait_for,
)
from tests.sim.test_run_command import MAIN, environment

SETS = [part for text in SHORT.source.overrides for part in ("--set", text)]
VARY = ("--vary", "network.1.delay=0.01,0.02", "--vary", "nodes.interfaces=1")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(sim, list(map(str, arguments)))


def swept(*arguments: object) -> Result:
    return run("sweep", "first", *SETS, *VARY, "--processes", 1, *arguments)


# --- run ------------------------------------------------------------------------------------------


def test_replications_are_printed_with_their_intervals_and_written(tmp_path: Path) -> None:
    options = ("--runs", 3, "--processes", 1, "--of", "address:max", "--out", tmp_path)
    result = run("run", "first", *SETS, *options)
    assert result.exit_code == 0, result.output
    results = Results.read(tmp_path)
    assert results.provenance.runs == 3
    assert "Over 3 runs: mean and 95 % confidence interval" in result.stdout
    found = estimate(results, "address", "max")
    numbers = [f"{value * 1000:.5g}" for value in (found.value, found.low, found.high)]
    row = next(line for line in result.stdout.splitlines() if "address:max" in line)
    assert re.findall(r"[\w.:%]+", row) == ["address:max", "ms", *numbers, f"{found.relative:.1%}"]
    assert "interruption_down" in result.stdout
    simulate(SHORT, runs=3, processes=1).write(tmp_path / "same")
    written = tree(tmp_path / "same")
    assert {name: (tmp_path / name).read_bytes() for name in written} == written
    assert (tmp_path / "ladder.txt").read_text().startswith("A hard handover of m1")


def test_one_run_has_no_intervals() -> None:
    assert "confidence" not in run("run", "first", *SETS).stdout


def test_a_precision_ends_the_runs(tmp_path: Path) -> None:
    options = ("--precision", 0.2, "--of", "address", "--processes", 1, "--out", tmp_path)
    result = run("run", "first", *SETS, *options)
    assert result.exit_code == 0
    assert result.stderr == ""
    results = Results.read(tmp_path)
    assert results.provenance.runs >= 10
    assert estimate(results, "address").relative <= 0.2


def test_a_precision_that_is_not_reached_is_a_line() -> None:
    options = ("--precision", 1e-6, "--most-runs", 3, "--processes", 1)
    result = run("run", "first", *SETS, *options)
    assert result.exit_code == 0
    (line,) = result.stderr.splitlines()
    assert re.match(r"Warning: total after 3 runs is .*: ± \d+\.\d%; wanted were ± 0\.0%$", line)


# --- sweep ----------------------------------------------------------------------------------------


def test_a_sweep_is_printed_and_written(tmp_path: Path) -> None:
    result = swept("--runs", 3, "--of", "total", "--of", "total:0.9", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert "total:0.9, ms: mean and 95 % confidence interval" in result.stdout
    sweep(
        SHORT,
        {"network.1.delay": [0.01, 0.02], "nodes.interfaces": [1]},
        runs=3,
        out=tmp_path / "same",
        processes=1,
    )
    same = tree(tmp_path / "same")
    assert {name: (tmp_path / name).read_bytes() for name in same} == same
    summary = pd.read_csv(tmp_path / "summary.csv")
    assert list(summary["statistic"]) == ["total"] * 2 + ["total:0.9"] * 2
    assert set(summary["unit"]) == {"s"}
    found = Sweep.read(tmp_path)
    for row in summary.to_dict("records"):
        expected = estimate(found.results(row["case"]), parsed(row["statistic"]))
        assert (row["value"], row["low"]) == pytest.approx((expected.value, expected.low))
    shown = f"{summary['value'][1] * 1000:.5g}"
    assert re.search(rf"│ 1 +│ 0\.02 +│ 1 +│ +3 │ +{shown} │", result.stdout)


def test_the_same_command_again_runs_nothing(tmp_path: Path) -> None:
    first = swept("--out", tmp_path)
    before = {path: path.stat().st_ino for path in tmp_path.glob("case-*/run-*")}
    assert len(before) == 2
    assert swept("--out", tmp_path).stdout == first.stdout
    assert before == {path: path.stat().st_ino for path in tmp_path.glob("case-*/run-*")}


def test_ctrl_c_leaves_a_directory_to_go_on_from(tmp_path: Path) -> None:
    sets = [part for text in LONG.source.overrides for part in ("--set", text)]
    out = tmp_path / "out"
    options = ["--vary", "network.1.delay=0.01,0.02", "--processes", "2", "--out", str(out)]
    command = [sys.executable, "-c", MAIN, "sim", "sweep", "first", *sets, *options]
    with (
        subprocess.Popen(
            [*command, "--runs", "200"],
            env=environment(tmp_path),
            text=True,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
        gone_at_the_end(process),
    ):
        wait_for(lambda: len(runs_in(out)) >= 2, "no runs")
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 130
    assert stdout == ""
    told = re.fullmatch(
        r"(\d+) runs are in (.*)\. The same command goes on from there\.\n\nInterrupted\.\n", stderr
    )
    assert told is not None, stderr
    assert told[2] == str(out)
    assert 0 < int(told[1]) <= len(runs_in(out)) < 400
    before = {path: path.stat().st_ino for path in runs_in(out)}
    result = run("sweep", "first", *sets, *options, "--runs", 2)
    assert result.exit_code == 0
    assert all(path.stat().st_ino == inode for path, inode in before.items())
    assert len(runs_in(out)) >= 4


# --- mistakes -------------------------------------------------------------------------------------


def refused(code: int, *arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    return result.stderr.rpartition("Error: ")[2].rstrip()


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ("nodes.interfaces", "--vary nodes.interfaces: is not KEY=V1,V2; write for example"),
        ("nodes.interfaces=", "is not KEY=V1,V2"),
        ("=1,2", "is not KEY=V1,V2"),
        ("traffic.pairs=mobile", "'mobile' are no TOML values; text needs quotes: 'traffic.pairs="),
    ],
)
def test_values_that_are_none(tmp_path: Path, vary: str, message: str) -> None:
    assert message in refused(2, "sweep", "first", "--vary", vary, "--out", tmp_path / "o")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("command", ["run", "sweep"])
@pytest.mark.parametrize(
    ("of", "message"),
    [
        ("totl", "--of: 'totl': handovers has no column totl; there are: "),
        ("total:most", "--of: 'most' is no statistic; there are: mean, median"),
    ],
)
def test_a_statistic_that_is_none(tmp_path: Path, command: str, of: str, message: str) -> None:
    more = VARY if command == "sweep" else ()
    said = refused(2, command, "first", *more, "--of", of, "--out", tmp_path / "o")
    assert said.startswith(message)


def test_a_value_that_cannot_be(tmp_path: Path) -> None:
    vary = ("--vary", "nodes.interfaces=1,3")
    said = refused(1, "sweep", "first", *vary, "--out", tmp_path / "o")
    assert said == "nodes.interfaces=3: nodes.interfaces: is 3; must be 2 or less"


def test_a_case_twice(tmp_path: Path) -> None:
    vary = ("--vary", "nodes.interfaces=1,1")
    said = refused(1, "sweep", "first", *vary, "--out", tmp_path / "o")
    assert said == "the case nodes.interfaces=1 is there twice"


def test_a_directory_of_another_sweep(tmp_path: Path) -> None:
    assert swept("--out", tmp_path).exit_code == 0
    said = refused(1, "sweep", "first", *SETS, *VARY, "--seed", 5, "--out", tmp_path)
    assert said.startswith(f"{tmp_path}: has a sweep that differs in overrides; name another")


def test_a_cluster_that_is_not_there(tmp_path: Path) -> None:
    said = refused(1, "sweep", "first", *VARY, "--out", tmp_path / "o", "--dask", "nonsense://x")
    assert said.startswith("nonsense://x: no Dask scheduler answers there")


def test_a_sweep_needs_a_directory_and_something_to_vary() -> None:
    assert "--out" in refused(2, "sweep", "first", *VARY)
    assert "--vary" in refused(2, "sweep", "first", "--out", "o")


def test_every_value_that_the_help_shows_is_one_of_its_scenario() -> None:
    text = run("sweep", "--help").output
    shown = re.findall(r"mat sim sweep (\w+) (.*)", text)
    assert len(shown) >= 5
    for name, options in shown:
        for key, values in re.findall(r"--vary '?([\w.]+)=((?:[^\s'{]|{[^}]*})+)", options):
            for value in tomllib.loads(f"v = [{values}]")["v"]:
                said = str(value).replace(":", " =").replace("'", "")
                load_scenario(find_scenario(name), [f"{key}={said}"])


def test_the_directory_may_not_be_a_file(tmp_path: Path) -> None:
    write(tmp_path / "file", "kept")
    said = refused(1, "sweep", "first", *VARY, "--out", tmp_path / "file")
    assert "results cannot be written here" in said
