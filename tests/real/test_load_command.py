"""`mat ims load` as a user meets it: what it prints and writes, and what it says of mistakes."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from mat.authentication import Key
from mat_files.results import EXTRA_FILES, Results
from mat_files.schema import SCHEMAS
from mat_real.commands.load import load
from mat_real.key_file import Entry
from tests.real.privilege import needs_root
from tests.real.tiny_ims import TinyIms, some_keys

ROOT = Path(__file__).parents[2]
TABLES = {f"{schema.name}.{kind}" for schema in SCHEMAS for kind in ("parquet", "csv")}
LOAD = {"load.png", "load.json"}
CALIBRATION = {"calibration.json", "calibration.toml"}
KEYS = some_keys(150)


def key_file(folder: Path, keys: list[Key] = KEYS) -> Path:
    lines = [
        Entry(key.key_id, key.home_address, key.prefix_length, key.secret).line() for key in keys
    ]
    path = folder / "keys"
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return key_file(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def ims() -> Iterator[TinyIms]:
    with TinyIms(KEYS) as server:
        yield server


def address(ims: TinyIms) -> str:
    return f"127.0.0.1:{ims.endpoint.port}"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(load, [str(argument) for argument in arguments])


def environment() -> dict[str, str]:
    folders = [ROOT, *(ROOT / name for name in ("files", "real", "cli"))]
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# ---- what comes out ------------------------------------------------------------------------------


def test_a_simultaneous_handover_says_before_what_it_sends_and_after_how_it_went(
    ims: TinyIms, keys: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a" / "b"
    options = ("--server", address(ims), "--keys", keys, "--nodes", 100, "--window", 0.2)
    result = run("simultaneous", *options, "--out", out)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == (
        f"To {address(ims)}: 100 registrations; then handovers of 100 nodes within 0.2 s:"
        " 300 requests, over after 30.2 s at most."
    )
    text = result.stdout
    assert "handovers of 100 nodes within 0.2 s: 100 of 100 done, 0 lost for good" in text
    assert lines[-1] == f"Written to {out}: tables as Parquet and CSV, load.png, load.json."
    assert names(out) == TABLES | LOAD
    read = Results.read(out)
    assert len(read.handovers) == 100
    assert "load.pattern=simultaneous" in read.provenance.overrides.splitlines()
    assert json.loads((out / "load.json").read_text())["nodes"] == 100


def test_the_end_that_is_announced_is_rounded(ims: TinyIms, keys: Path) -> None:
    result = run("simultaneous", "--server", address(ims), "--keys", keys, "--window", 0.123)
    assert "over after 30.1 s at most" in result.stdout


@pytest.mark.parametrize("pattern", ["steady", "poisson"])
@pytest.mark.parametrize(
    ("messages", "what"),
    [("query", "MA Queries"), ("update", "IMS Updates"), ("handover", "handovers")],
)
def test_patterns_and_messages_go_together(
    ims: TinyIms, keys: Path, pattern: str, messages: str, what: str
) -> None:
    options = ("--messages", messages, "--rate", 200, "--duration", 0.3, "--keys", keys)
    result = run(pattern, *options, "--server", address(ims))
    assert result.exit_code == 0
    poisson = ", Poisson" if pattern == "poisson" else ""
    form = rf"{what} at 200 a second for 0\.3 s{poisson}: (\d+) of (\d+) done"
    found = re.search(form, result.stdout)
    assert found is not None
    assert 20 < int(found[1]) == int(found[2]) < 120
    assert pattern == "poisson" or int(found[1]) == 60


@pytest.mark.parametrize(("messages", "rows"), [("handover", 20), ("update", 20), ("query", 0)])
def test_the_table_of_handovers_has_what_the_page_on_results_says(
    ims: TinyIms, keys: Path, tmp_path: Path, messages: str, rows: int
) -> None:
    page = " ".join((ROOT / "docs" / "results.md").read_text(encoding="utf-8").split())
    assert "`kind` is `hard` in every pattern but `scenario`" in page
    assert "with `--messages query` nobody moves, and the table is empty" in page
    options = ("--messages", messages, "--nodes", 20, "--window", 0.1, "--keys", keys)
    result = run("simultaneous", *options, "--server", address(ims), "--out", tmp_path)
    assert result.exit_code == 0
    handovers = Results.read(tmp_path).handovers
    assert len(handovers) == rows
    assert set(handovers["kind"]) == ({"hard"} if rows else set())
    assert handovers["notify"].isna().all() == (messages != "handover")


def test_a_scenario_is_played_with_its_nodes_and_networks(
    ims: TinyIms, keys: Path, tmp_path: Path
) -> None:
    options = ("--speed", 400, "--server", address(ims), "--keys", keys, "--out", tmp_path)
    result = run("scenario", "town", *options)
    assert result.exit_code == 0
    assert "handovers of town's 134 nodes, 400 times as fast" in result.stdout
    read = Results.read(tmp_path)
    assert len(read.handovers) == 273
    assert set(read.handovers["kind"]) == {"soft", "hard"}
    assert "A1" in set(read.handovers["from_network"])
    assert read.provenance.scenario.startswith("# 134 vehicles")


def test_a_scenario_of_another_system_is_refused(keys: Path, tmp_path: Path) -> None:
    path = scenario_file(tmp_path, system="mobile-ipv4")
    result = run("scenario", path, "--server", "127.0.0.1:9", "--keys", keys)
    assert result.exit_code == 1
    what = 'scenario.system: is "mobile-ipv4"; must be "mat", whose messages a load test sends'
    assert result.stderr == f"Error: {path}: {what}\n"


def test_a_scenario_is_played_up_to_its_duration(ims: TinyIms, keys: Path, tmp_path: Path) -> None:
    path = scenario_file(tmp_path, system="mat")
    options = ("--server", address(ims), "--keys", keys, "--speed", 100, "--out", tmp_path / "out")
    assert run("scenario", path, *options).exit_code == 0
    assert list(Results.read(tmp_path / "out").handovers["to_network"]) == ["B"]


def scenario_file(folder: Path, *, system: str) -> Path:
    """One node that changes network twice, the second time when the scenario is over."""
    (folder / "moves.csv").write_text(
        "t,node,action,network\n0,a,attach,A\n1,a,detach,A\n1,a,attach,B\n"
        "9,a,detach,B\n9,a,attach,A\n"
    )
    path = folder / "scenario.toml"
    path.write_text(
        f'format = 1\n[scenario]\nname = "moves"\nduration = 5\nsystem = "{system}"\n'
        "[movement]\nevents = 'moves.csv'\n[[network]]\nname = 'A'\n[[network]]\nname = 'B'\n"
    )
    return path


def test_nodes_need_not_be_registered_again(ims: TinyIms, keys: Path) -> None:
    options = ("--server", address(ims), "--keys", keys, "--window", 0.1, "--messages", "query")
    assert run("simultaneous", *options).exit_code == 0
    before = ims.heard
    result = run("simultaneous", *options, "--no-register")
    assert "150 of 150 done" in result.stdout
    assert "registrations" not in result.stdout
    assert ims.heard == before + 1 + 150, "the probe, and the load"


def test_a_calibration_alone_writes_its_files_and_leaves_others(
    ims: TinyIms, keys: Path, tmp_path: Path
) -> None:
    (tmp_path / "load.png").write_text("of an earlier run")
    result = run("--calibrate", "--server", address(ims), "--keys", keys, "--out", tmp_path)
    assert result.exit_code == 0
    assert names(tmp_path) == CALIBRATION | {"load.png"}
    written = (tmp_path / "calibration.toml").read_text()
    assert written in result.stdout
    assert "service = {quantiles = [" in written


def test_all_files_that_a_load_test_writes_are_ones_that_an_earlier_run_is_cleared_of() -> None:
    assert set(EXTRA_FILES) > LOAD | CALIBRATION


def test_a_processor_can_be_chosen(ims: TinyIms, keys: Path) -> None:
    before = os.sched_getaffinity(0)
    options = ("--server", address(ims), "--keys", keys, "--window", 0.1)
    try:
        assert run("simultaneous", *options, "--cpu", min(before)).exit_code == 0
        assert os.sched_getaffinity(0) == {min(before)}
    finally:
        os.sched_setaffinity(0, before)
    result = run("simultaneous", *options, "--cpu", 4000)
    assert result.exit_code == 1
    assert "--cpu 4000: Invalid argument; this process may run on" in result.stderr


# ---- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ("", "a PATTERN is missing: simultaneous, steady, poisson, scenario; or --calibrate"),
        ("steady --duration 1", "--rate is missing: steady needs it"),
        ("poisson --rate 1", "--duration is missing: poisson needs it"),
        ("simultaneous --rate 5", "--rate goes with steady, poisson, not with simultaneous"),
        ("steady --rate 1 --duration 1 --window 1", "--window goes with simultaneous, not with"),
        ("scenario", "SCENARIO goes with the pattern scenario"),
        ("simultaneous town", "SCENARIO goes with the pattern scenario"),
        ("scenario town --nodes 3", "--nodes goes with other patterns"),
        ("--calibrate --rate 5", "--rate goes with steady, poisson, and not alone"),
        ("--calibrate --server 127.0.0.2", "--calibrate measures one server"),
        ("--calibrate --no-register", "--calibrate needs registered nodes"),
        ("volley", "'volley' is not one of"),
        ("simultaneous --server ims.example", "'ims.example' is not an address"),
        ("simultaneous --server 10.0.0.1/8=127.0.0.1", "'10.0.0.1/8' is no prefix"),
    ],
)
def test_wrong_usage_says_what_is_right(keys: Path, arguments: str, what: str) -> None:
    result = run(*shlex.split(arguments), "--server", "127.0.0.1:9", "--keys", keys)
    assert result.exit_code == 2
    assert what in " ".join(result.stderr.split())


def test_a_server_must_be_named() -> None:
    result = run("simultaneous")
    assert result.exit_code == 2
    assert "Missing option '--server'" in result.stderr


def refused(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    return result.stderr.removeprefix("Error: ").rstrip()


def test_errors_of_the_load_test_are_messages(ims: TinyIms, keys: Path, tmp_path: Path) -> None:
    here = ("--server", address(ims), "--keys", keys)
    assert "keys of 150 single home addresses, for 200 nodes; lower --nodes" in refused(
        "simultaneous", *here, "--nodes", 200
    )
    assert "nobody would begin" in refused("steady", *here, "--rate", 1, "--duration", 0.5)
    assert "at most" in refused("steady", *here, "--rate", 1e6, "--duration", 1e3)
    assert "twon: no such file; did you mean town?" in refused("scenario", "twon", *here)
    assert "does not exist" in refused(
        "simultaneous", "--server", address(ims), "--keys", tmp_path / "none"
    )
    (tmp_path / "out").write_text("a file")
    assert "results cannot be written here" in refused(
        "simultaneous", *here, "--out", tmp_path / "out"
    )
    assert "replicas are not played" in refused("simultaneous", *here, "--server", "127.0.0.1")
    assert ims.heard == 0, "nothing is sent before all is known to be right"


def test_a_server_without_nodes_is_named_and_sent_nothing(ims: TinyIms, keys: Path) -> None:
    servers = ("--server", f"10.0.0.0/11={address(ims)}", "--server", "127.0.0.1:9")
    result = run("simultaneous", *servers, "--keys", keys, "--window", 0.1)
    assert result.exit_code == 0
    assert result.stderr == (
        "Warning: no node belongs to 127.0.0.1:9: it is sent nothing; each home address goes to the"
        " --server with the longest PREFIX that it is in.\n"
    )
    assert result.stdout.startswith(f"To {address(ims)}: 150 registrations;")


@needs_root
def test_a_key_file_that_may_not_be_read_is_named_as_by_mat_key(tmp_path: Path) -> None:
    path = key_file(tmp_path)
    os.chown(path, 1234, 1234)
    # Root without the right to read everything: another user may not be let in where Python is.
    bare = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    options = ["simultaneous", "--server", "::1", "--keys", str(path)]
    result = subprocess.run(
        [*bare, sys.executable, "-c", MAIN, "load", *options],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr == (
        f"Error: {path}: cannot be read (Permission denied); name a readable key file\n"
    )


# ---- Ctrl-C and help -----------------------------------------------------------------------------

MAT = "from mat_cli import main; main()"
MAIN = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
MAIN += "from mat_cli.command import command, main; from mat_real.commands.load import load;"
MAIN += "command.add_command(load); main()"
"""As `mat load`, also where the tests run in the background, with Ctrl-C ignored."""


def test_ctrl_c_prints_what_there_is_and_exits_130(
    ims: TinyIms, keys: Path, tmp_path: Path
) -> None:
    options = ["steady", "--rate", "100", "--duration", "100", "--messages", "query"]
    options += ["--server", address(ims), "--keys", str(keys), "--out", str(tmp_path / "out")]
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, "load", *options],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        enough = len(KEYS) + 50
        while ims.heard < enough and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.strip() == "Interrupted."
    found = re.search(r": (\d+) of (\d+) done, (\d+) lost for good, (\d+) not begun", out)
    assert found is not None
    done, begun, lost, left = map(int, found.groups())
    assert 40 < done <= begun < 2000
    assert (done + lost, begun + left) == (begun, 10_000)
    assert "Interrupted: what was open then counts as lost." in out
    assert not (tmp_path / "out").exists()


PAGE = (ROOT / "docs" / "load.md").read_text(encoding="utf-8")
BLOCKS: list[str] = re.findall(r"^```\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def examples(text: str) -> list[str]:
    joined = re.sub(r" *\\\n *", " ", text)
    return re.findall(r"^ *(mat (?:key|ims) .*)$", joined, re.MULTILINE)


def test_the_examples_of_the_help_and_of_the_document_are_the_same() -> None:
    shown = examples(load.get_help(click.Context(load, info_name="mat ims load")))
    assert len(shown) == 5
    written = [line for block in BLOCKS for line in examples(block)]
    assert shown == [line for line in written if not line.startswith("mat ims serve ")]


def test_importing_the_command_imports_nothing_heavy() -> None:
    heavy = ("numpy", "pandas", "pydantic", "matplotlib", "pyarrow", "rich", "dns", "asyncio")
    code = "import sys, mat_real.commands.load; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    ).stdout.split()
    assert "mat_real.commands.load" in loaded
    assert not [name for name in loaded if name.partition(".")[0] in heavy]
