"""Replications: equal bytes wherever they are made, and made again from what results say."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

import mat
from mat_files.errors import ResultsError, ScenarioError
from mat_files.library import find_scenario
from mat_files.results import Results
from mat_files.scenario import About, Network, Nodes, Scenario
from mat_sim import engine
from mat_sim.study import (
    Precision,
    PrecisionNotReached,
    Statistic,
    StudyError,
    estimate,
    reproduce,
    simulate,
    sweep,
)
from tests.files.test_traces import write
from tests.sim.study_helpers import (
    LONG,
    SHORT,
    WAIT_SECONDS,
    alive,
    children,
    gone_at_the_end,
    kill,
    meanwhile,
    runs_in,
    tree,
    wait_for,
)
from tests.sim.test_run_command import MAIN, environment

BUILT = Scenario(
    format=1,
    scenario=About(name="built", duration=4.0),
    network=(Network(name="A"), Network(name="B")),
    nodes=Nodes(count=3),
)
SCRIPT = """
from tests.sim.study_helpers import LONG
from mat_sim import simulate
print(len(simulate(LONG, runs=RUNS, processes=2).handovers))
"""


def written(results: Results, folder: Path) -> dict[str, bytes]:
    results.write(folder)
    return tree(folder)


# --- replications ---------------------------------------------------------------------------------


def test_replications_are_the_engines_runs_in_order() -> None:
    results = simulate(SHORT, runs=3, processes=1)
    alone = [engine.simulate(SHORT, None, run).results for run in range(3)]
    for name in ("handovers", "messages", "ims", "flows", "links"):
        expected = pd.concat([getattr(part, name) for part in alone], ignore_index=True)
        pd.testing.assert_frame_equal(getattr(results, name), expected)
    assert results.handovers["run"].unique().tolist() == [0, 1, 2]
    assert len(set(results.handovers["address"])) == 3


def test_bytes_are_equal_on_any_number_of_processes(tmp_path: Path) -> None:
    one, two, three = (
        written(simulate(SHORT, runs=5, processes=processes), tmp_path / str(processes))
        for processes in (1, 2, 3)
    )
    assert one == two == three
    assert {name.rpartition(".")[2] for name in one} == {"parquet", "csv"}


def test_later_runs_go_on_from_earlier_ones() -> None:
    whole, begin = simulate(SHORT, runs=4, processes=1), simulate(SHORT, runs=2, processes=1)
    end = simulate(SHORT, runs=2, first_run=2, processes=1)
    joined = pd.concat([begin.handovers, end.handovers], ignore_index=True)
    pd.testing.assert_frame_equal(joined, whole.handovers)
    assert (end.provenance.first_run, end.provenance.runs) == (2, 2)


def test_a_seed_takes_the_place_of_the_scenarios() -> None:
    results = simulate("first", seed=7)
    assert results.provenance.seed == 7
    assert results.provenance.overrides == "scenario.seed=7"
    assert not results.handovers.equals(simulate("first").handovers)


def test_a_path_a_name_and_a_scenario_are_the_same() -> None:
    path = find_scenario("first")
    for scenario in (path, str(path), Scenario.load("first")):
        results = simulate(scenario)
        pd.testing.assert_frame_equal(results.handovers, simulate("first").handovers)
        assert results.provenance == simulate("first").provenance


@pytest.mark.parametrize("processes", [1, 2])
def test_there_are_as_many_runs_as_the_precision_takes(tmp_path: Path, processes: int) -> None:
    precision = Precision(0.1, Statistic("address"), least=3)
    results = simulate("first", precision=precision, processes=processes)
    runs = results.provenance.runs
    assert runs > 3
    assert estimate(results, "address").relative <= 0.1
    short = simulate("first", runs=runs - 1, processes=1)
    assert estimate(short, "address").relative > 0.1
    same = simulate("first", runs=runs, processes=1)
    assert written(results, tmp_path / "a") == written(same, tmp_path / "b")


def test_a_precision_that_is_not_reached_is_said() -> None:
    with pytest.warns(PrecisionNotReached, match=r"^total after 4 runs is .*; wanted were ± 0.0%"):
        results = simulate("first", precision=Precision(1e-6, least=2, most=4), processes=1)
    assert results.provenance.runs == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runs": 0}, "runs is 0; must be 1 or more"),
        ({"processes": 0}, "processes is 0; must be 1 or more"),
        ({"precision": -1}, "precision is -1; must be greater than 0"),
    ],
)
def test_what_is_no_number_of_runs_is_said(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate(SHORT, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_of_a_run_comes_as_it_is(processes: int, tmp_path: Path) -> None:
    events = write(tmp_path / "moves.csv", "t,node,action,network\n0,m,attach,A\n5,m,attach,X\n")
    broken = SHORT.changed({"movement": {"events": str(events)}})
    with pytest.raises(ScenarioError) as caught:
        simulate(broken, runs=2, processes=processes)
    assert str(caught.value).startswith(f"{events}:3: network: is 'X'")


def test_a_built_scenario_is_checked() -> None:
    with pytest.raises(ScenarioError, match=r"nodes\.count"):
        simulate(BUILT.model_copy(update={"nodes": Nodes()}))


def test_progress_is_silent_where_nobody_looks(capfd: pytest.CaptureFixture[str]) -> None:
    simulate(SHORT, runs=2, processes=1)
    assert capfd.readouterr() == ("", "")


def test_progress_is_shown_where_it_is_wanted(capfd: pytest.CaptureFixture[str]) -> None:
    simulate(SHORT, runs=2, processes=1, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "simulating first" in err


@final
class Listening(NotebookClient):
    """Runs a notebook and keeps what is displayed and replaced meanwhile."""

    def __init__(self, notebook: nbformat.NotebookNode) -> None:
        super().__init__(notebook, timeout=WAIT_SECONDS, kernel_name="python3")
        self.displayed: list[str] = []

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        if msg["msg_type"] in ("display_data", "update_display_data"):
            self.displayed.append(msg["content"]["data"].get("text/html", ""))
        return super().process_message(msg, cell, cell_index)


def test_in_jupyter_there_is_a_bar_and_nothing_is_left_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    code = "from mat_sim import simulate\nlen(simulate('first', runs=3, processes=1).handovers)"
    cell = {"cell_type": "code", "metadata": {}, "source": code, "outputs": []}
    content = {"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": [cell]}
    read: Any = nbformat.reads
    notebook = read(json.dumps(content), as_version=4)
    client = Listening(notebook)
    client.execute()
    bars = [text for text in client.displayed if "<progress" in text]
    assert 'max="3" value="1"' in " ".join(bars)
    assert any("simulating first, 1 of 3 runs" in text for text in bars)
    left = [output.get("data", output) for output in notebook.cells[0].outputs]
    assert [data.get("text/html") for data in left] == ["", None]
    assert left[1]["text/plain"] == "9"


# --- workers --------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    cases = [{"network.1.delay": 0.02}]

    def strike() -> None:
        wait_for(lambda: len(runs_in(tmp_path / "a")) >= 2, "no runs")
        assert len(runs_in(tmp_path / "a")) < 10
        kill(workers()[0])

    with meanwhile(strike):
        sweep(LONG, cases, runs=10, out=tmp_path / "a", processes=2)
    sweep(LONG, cases, runs=10, out=tmp_path / "b", processes=1)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def workers() -> list[int]:
    """The worker processes of this process that run already."""
    return [pid for pid in children(os.getpid()) if b"spawn_main" in command_line(pid)]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def blocked(pid: int, number: signal.Signals) -> bool:
    """Whether a process is deaf to a signal."""
    (mask,) = re.findall(r"SigBlk:\s(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(mask, 16) >> (number - 1) & 1)


def threads(pid: int) -> int:
    """How many a process has; 0 where there is none."""
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir()))
    except FileNotFoundError:
        return 0


def test_workers_that_are_killed_again_and_again_end_the_study() -> None:
    over = False

    def strike() -> None:
        while not over:
            for pid in workers():
                if alive(pid):
                    kill(pid)

    with meanwhile(strike):
        try:
            with pytest.raises(
                StudyError, match=r"run \d of first lost its worker 3 times: it was"
            ):
                simulate(LONG, runs=4, processes=2)
        finally:
            over = True


def begun(tmp_path: Path, runs: int) -> "subprocess.Popen[str]":
    """A script without a guard for its main module, whose study has two workers."""
    script = write(tmp_path / "script.py", SCRIPT.replace("RUNS", str(runs)))
    head = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import runpy;"
    return subprocess.Popen(
        [sys.executable, "-c", f"{head} runpy.run_path({str(script)!r}, run_name='__main__')"],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_script_needs_no_guard_for_its_main_module(tmp_path: Path) -> None:
    script = write(tmp_path / "script.py", SCRIPT.replace("RUNS", "2"))
    done = subprocess.run(
        [sys.executable, script],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
        timeout=WAIT_SECONDS,
    )
    assert (done.stdout, done.stderr) == ("2\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_the_study(tmp_path: Path, number: signal.Signals) -> None:
    with begun(tmp_path, 10_000) as process, gone_at_the_end(process):
        pids: list[int] = []

        def working() -> bool:
            pids[:] = [pid for pid in children(process.pid) if b"spawn_main" in command_line(pid)]
            # A worker that is still being told what to do would say that its teller has gone.
            return len(pids) == 2 and all(threads(pid) > 1 for pid in pids)

        wait_for(working, "no workers")
        assert all(blocked(pid, signal.SIGINT) for pid in pids)
        # Ctrl-C goes to all processes of a terminal.
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        _, err = process.communicate(timeout=WAIT_SECONDS)
        assert process.returncode != 0
        if number == signal.SIGINT:
            assert err.count("Traceback") == 1
            assert err.splitlines()[-1] == "KeyboardInterrupt"
        wait_for(lambda: not any(map(alive, pids)), "a worker is still there")


# --- made again -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["first", SHORT, BUILT], ids=["name", "changed", "built"])
def test_results_are_made_again_from_what_they_say(
    tmp_path: Path, scenario: str | Scenario
) -> None:
    results = simulate(scenario, runs=2, first_run=1, seed=5, processes=1)
    original = written(results, tmp_path / "a")
    again = reproduce(Results.read(tmp_path / "a"), processes=1)
    assert written(again, tmp_path / "b") == original


@pytest.mark.parametrize("scenario", ["first", SHORT, BUILT], ids=["name", "changed", "built"])
def test_the_command_and_the_lines_of_a_recipe_give_equal_bytes(
    tmp_path: Path, scenario: str | Scenario
) -> None:
    results = simulate(scenario, runs=2, first_run=1, seed=5, processes=1)
    original = written(results, tmp_path / "OUT")
    recipe = Results.read(tmp_path / "OUT").provenance.recipe
    write(tmp_path / "scenario.toml", results.provenance.scenario)
    command, code = re.findall(r"(?m)(?:^    .*\n?)+", recipe)
    assert command.split()[:3] == ["mat", "sim", "run"]
    assert ("scenario.toml" in command) == (scenario is BUILT)
    arguments = [sys.executable, "-c", MAIN, *shlex.split(command)[1:]]
    variables = environment(tmp_path)
    for program in (arguments, [sys.executable, "-c", re.sub(r"(?m)^    ", "", code)]):
        subprocess.run(
            program,
            cwd=tmp_path,
            env=variables,
            check=True,
            capture_output=True,
            timeout=WAIT_SECONDS,
        )
        again = tree(tmp_path / "again")
        assert {name: again[name] for name in original} == original
        for path in (tmp_path / "again").iterdir():
            path.unlink()


def test_a_movement_file_is_found_in_the_folder_that_is_named(tmp_path: Path) -> None:
    scenario = find_scenario("first")
    place = tmp_path / "place"
    place.mkdir()
    moves = "t,node,action,network\n0,m,attach,A\n5,m,detach,A\n5,m,attach,B\n"
    write(place / "first.csv", moves)
    write(place / "mine.toml", scenario.read_text())
    results = simulate(place / "mine.toml")
    assert "mat sim run scenario.toml --out again" in results.provenance.recipe
    pd.testing.assert_frame_equal(reproduce(results, folder=place).handovers, results.handovers)
    with pytest.raises(ResultsError, match=r"SHA-256 \w+ is not in .* other contents\); name its"):
        reproduce(results)
    (place / "first.csv").unlink()
    with pytest.raises(ResultsError, match="there is no such file beside the scenario"):
        reproduce(results, folder=place)


def test_a_copied_scenario_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("first.toml", "first.csv"):
        write(tmp_path / name, (find_scenario("first").parent / name).read_text())
    copied = written(simulate(tmp_path / "first.toml"), tmp_path / "a")
    assert copied == written(simulate("first"), tmp_path / "b")


def test_results_of_another_version_are_made_again_with_a_warning() -> None:
    results = simulate(SHORT)
    old = replace(results, provenance=replace(results.provenance, version="0.0.1"))
    with pytest.warns(UserWarning, match=f"of mat 0.0.1, and this is {mat.__version__}"):
        reproduce(old)


def test_what_was_not_simulated_is_not_made_again() -> None:
    results = simulate(SHORT)
    measured = replace(results, provenance=replace(results.provenance, recipe=""))
    with pytest.raises(ResultsError, match="carry no recipe"):
        reproduce(measured)
