"""`mat sim run` as a user meets it: what it prints and writes, and what it says of mistakes."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from mat_files.ladder import WIDTH
from mat_files.library import find_scenario
from mat_files.results import Results
from mat_files.scenario import load_scenario
from mat_files.schema import SCHEMAS
from mat_sim.cli import sim
from tests.cli.fake_plugins import install
from tests.files.test_traces import write

ROOT = Path(__file__).parents[2]
FILES = {f"{schema.name}.{kind}" for schema in SCHEMAS for kind in ("parquet", "csv")}
EVERYTHING = FILES | {"handovers.png", "ladder.txt"}
SHORT = ("--set", "scenario.duration=12")
EVENTS = """t,node,action,network
0,car,attach,A
4,car,attach,B
6,car,detach,A
8,car,detach,B
8,car,attach,C
"""
POSITIONS = """t,node,x,y
0,bus,0,0
1,bus,10,0
2,bus,20,0
"""
MAIN = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
MAIN += "from mat_cli import main; main()"
"""As `mat`, also where the tests run in the background, with Ctrl-C ignored."""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(sim, ["run", *map(str, arguments)])


def refused(*arguments: object) -> str:
    """The message of a run that must fail, on standard error alone."""
    result = run(*arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    return result.stderr.removeprefix("Error: ").rstrip()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def environment(folder: Path, **more: str) -> dict[str, str]:
    """For a process that finds `mat sim`, whether or not the project is installed."""
    install(folder, sim="mat_sim.cli:sim")
    folders = [ROOT, *(ROOT / name for name in ("files", "sim", "real", "cli")), folder]
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))} | more


# --- what comes out -------------------------------------------------------------------------------


def test_tables_and_ladder_are_printed() -> None:
    result = run("first")
    assert result.exit_code == 0
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    titles = ["Handovers", "Time per handover, ms", "Messages", "IMS"]
    assert [line.strip() for line in lines if line.strip() in titles] == titles
    assert "A hard handover of m1 (steps as in the paper's figure 3" in result.stdout
    for step in ("(1) IMS Update", "(2) HA Notify", "(2') HA Notify", "(3) MA Query"):
        assert step in result.stdout
    assert "Written" not in result.stdout
    assert max(map(len, lines)) <= WIDTH
    assert lines[0].strip() == "Handovers"


def test_files_are_written(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    result = run("first", "--out", out)
    assert result.exit_code == 0
    assert names(out) == EVERYTHING
    assert "Written to" in result.stdout
    written = (out / "ladder.txt").read_text(encoding="utf-8")
    assert written.startswith("A hard handover of m1")
    assert "(4) HA Notify Ack" in written
    assert (out / "handovers.png").read_bytes().startswith(b"\x89PNG")
    results = Results.read(out)
    assert list(results.handovers["outcome"]) == ["completed"] * 3
    assert results.provenance.seed == 1


def test_files_of_an_earlier_run_are_replaced_and_others_kept(tmp_path: Path) -> None:
    write(tmp_path / "notes.txt", "mine")
    write(tmp_path / "handovers.csv", "old")
    assert run("first", "--out", tmp_path, *SHORT).exit_code == 0
    assert names(tmp_path) == EVERYTHING | {"notes.txt"}
    assert (tmp_path / "handovers.csv").read_text() != "old"


def test_seed_and_set_take_effect_and_are_recorded(tmp_path: Path) -> None:
    options = ("--seed", 7, "--set", "network.1.address=0.5", *SHORT)
    assert run("first", *options, "--out", tmp_path).exit_code == 0
    results = Results.read(tmp_path)
    assert list(results.handovers["address"]) == pytest.approx([0.5])
    assert results.provenance.seed == 7
    assert results.provenance.overrides.splitlines() == [
        "network.1.address=0.5",
        "scenario.duration=12",
        "scenario.seed=7",
    ]


@pytest.mark.parametrize("content", [EVENTS, POSITIONS], ids=["events", "positions"])
def test_another_movement(tmp_path: Path, content: str) -> None:
    trace = write(tmp_path / "moves.csv", content)
    out = tmp_path / "out"
    options = ("--set", "nodes.interfaces=2", *SHORT)
    assert run("first", "--trace", trace, *options, "--out", out).exit_code == 0
    results = Results.read(out)
    kinds = ["soft", "hard"] if content == EVENTS else []
    assert list(results.handovers["kind"]) == kinds
    assert results.provenance.trace


def test_without_a_handover_it_says_so(tmp_path: Path) -> None:
    trace = write(tmp_path / "still.csv", POSITIONS)
    result = run("first", "--trace", trace)
    assert result.exit_code == 0
    assert "No handover was completed." in result.stdout


# --- mistakes -------------------------------------------------------------------------------------


def test_a_missing_scenario() -> None:
    assert refused("twon") == (
        "twon: no such file; did you mean town? scenarios that come with mat: first, stadium,"
        " town, train"
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("nodes.interfaces=3", "nodes.interfaces: is 3; must be 2 or less"),
        ("nodes.interface=1", "nodes.interface: unknown key; did you mean interfaces?"),
        ("nodes.interfaces", "KEY=VALUE"),
        ("network.9.delay=1", "network"),
        ("protocol.settle_tim=1", "protocol.settle_tim: no such parameter; did you mean settle_"),
    ],
)
def test_a_bad_override(tmp_path: Path, override: str, message: str) -> None:
    out = tmp_path / "out"
    said = refused("first", "--set", override, "--out", out)
    assert said.startswith(f"--set {override}: ")
    assert message in said
    assert not out.exists()


def test_a_trace_that_is_not_there(tmp_path: Path) -> None:
    assert str(tmp_path / "no.csv") in refused("first", "--trace", tmp_path / "no.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (EVENTS.replace("attach,B", "attach,X"), ":3: network: is 'X', which the scenario does"),
        (EVENTS.replace("4,car", "x,car"), ":3: t: is 'x'"),
        ("hello\n", "moves.csv"),
    ],
)
def test_a_bad_trace(tmp_path: Path, content: str, message: str) -> None:
    trace = write(tmp_path / "moves.csv", content)
    out = tmp_path / "out"
    said = refused("first", "--trace", trace, "--set", "nodes.interfaces=2", "--out", out)
    assert str(trace) in said
    assert message in said
    assert not out.exists()


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nothing"])
def test_results_that_cannot_be_written(tmp_path: Path, place: str) -> None:
    write(tmp_path / "file", "kept")
    said = refused("first", "--out", tmp_path / place)
    assert said.startswith(f"{tmp_path / place}: results cannot be written here (")
    assert said.endswith("name a directory that can be written")
    assert names(tmp_path) == {"file"}
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("option", [("--seed", "-1"), ("--seed", "x")])
def test_wrong_usage(option: tuple[str, str]) -> None:
    result = run("first", *option)
    assert result.exit_code == 2
    assert option[0] in result.stderr


# --- as a process ---------------------------------------------------------------------------------


def test_the_command_as_a_process(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = subprocess.run(
        [sys.executable, "-m", "mat_cli", "sim", "run", "first", "--out", out],
        env=environment(tmp_path, PYTHONIOENCODING="utf-8", COLUMNS="40"),
        capture_output=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert names(out) == EVERYTHING
    text = result.stdout.decode()
    assert "┃ kind ┃" in text
    assert "▶│" in text
    assert "…" not in text, "cells cut short"
    lines = [line for line in text.splitlines() if not line.startswith("Written to")]
    assert max(map(len, lines)) <= WIDTH


def test_output_where_the_encoding_has_only_ascii(tmp_path: Path) -> None:
    """A soft handover and a hard one that lacks a part: some cells hold a dash."""
    moves = EVENTS.replace("8,car,detach,B\n8,car,attach,C\n", "")
    moves += "8,café,attach,A\n9,café,detach,A\n9.5,café,attach,B\n"
    out = tmp_path / "out"
    trace = write(tmp_path / "moves.csv", moves)
    options = ["--trace", trace, "--set", "nodes.interfaces=2", *SHORT, "--out", out]
    result = subprocess.run(
        list(map(str, [sys.executable, "-m", "mat_cli", "sim", "run", "first", *options])),
        env=environment(tmp_path, PYTHONIOENCODING="ascii"),
        capture_output=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"| kind |" in result.stdout
    assert b"  ? |" in result.stdout, "a dash"
    assert b"caf? (steps" in result.stdout
    assert b"- (1) IMS Update -" in result.stdout
    assert names(out) == EVERYTHING
    assert "café".encode() in (out / "ladder.txt").read_bytes()


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    write(tmp_path / "handovers.csv", "of an earlier run")
    before = names(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, "sim", "run", "town", "--out", tmp_path / "new" / "out"],
        env=environment(tmp_path) | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(4)
    assert process.poll() is None, "the run was over too soon"
    os.kill(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "Interrupted."
    assert "Traceback" not in stderr
    assert stdout == ""
    assert not (tmp_path / "new").exists()
    assert before <= names(tmp_path)
    assert (tmp_path / "handovers.csv").read_text() == "of an earlier run"


def test_every_override_that_the_help_shows_is_one_of_its_scenario() -> None:
    text = CliRunner().invoke(sim, ["run", "--help"]).output
    shown = re.findall(r"mat sim run (\w+) --set (\S+)", text)
    assert len(shown) >= 2
    for name, override in shown:
        load_scenario(find_scenario(name), shlex.split(override))


def test_full_disk_behind_the_output_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MAIN, "sim", "run", "first"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=environment(tmp_path),
        )
    assert (done.returncode, done.stderr) == (
        1,
        "Error: standard output: No space left on device\n",
    )


@pytest.mark.parametrize("command", ["run", "sweep", "animate", "compare"])
def test_completion_offers_the_shipped_scenarios_and_else_files(command: str) -> None:
    for typed, offered in (("to", ["plain town"]), ("my", ["file my"])):
        items = ShellComplete(sim, {}, "sim", "_SIM").get_completions([command], typed)
        assert [f"{item.type} {item.value}" for item in items] == offered
