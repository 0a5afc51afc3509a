"""The `mat` command as a process: what is printed where, and the exit codes."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import mat
from tests.cli.fake_plugins import install

ROOT = Path(__file__).parents[2]
FAKE = "fake_plugins_module:fake"


def run(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `mat` with the arguments; `path` is a further folder to import from."""
    return subprocess.run(
        [sys.executable, "-m", "mat_cli", *arguments],
        env=environment(path),
        capture_output=True,
        text=True,
        check=False,
    )


def environment(path: Path | None) -> dict[str, str]:
    folders = [
        *(ROOT / name for name in ("", "files", "sim", "real", "cli")),
        *([path] if path else []),
    ]
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))}


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    return install(tmp_path, fake=FAKE)


def test_help_lists_the_subcommands(plugins: Path) -> None:
    result = run("--help", path=plugins)
    assert result.returncode == 0
    assert "completion  Print a completion script" in result.stdout
    assert "fake        A group from elsewhere." in result.stdout
    assert result.stderr == ""


def test_help_imports_nothing_heavy() -> None:
    heavy = ["pandas", "numpy", "matplotlib", "simpy", "pydantic", "pyarrow", "rich", "asyncio"]
    program = (
        "import sys; from mat_cli import command; command.main(['--help'], standalone_mode=False);"
        f"print('heavy:', [name for name in {heavy} if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(None),
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines()[-1] == "heavy: []"


def test_version() -> None:
    result = run("--version")
    assert result.returncode == 0
    assert result.stdout.startswith(f"mat {mat.__version__} (Python 3.")


def test_installed_metadata_has_the_version_of_the_core() -> None:
    assert version("mat-mobility") == mat.__version__


def test_the_installed_script_is_the_command() -> None:
    script = Path(sys.executable).with_name("mat")
    result = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == run("--version").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["--no-such-option"],
        ["fake", "counted"],
        ["fake", "counted", "--count", "x"],
    ],
)
def test_wrong_usage_exits_with_2(plugins: Path, arguments: list[str]) -> None:
    result = run(*arguments, path=plugins)
    assert result.returncode == 2
    assert result.stdout == ""
    assert "Usage: mat" in result.stderr
    assert "Error: " in result.stderr


def test_an_error_of_the_user_is_one_line_without_traceback(plugins: Path) -> None:
    result = run("fake", "refused", path=plugins)
    assert result.returncode == 1
    assert result.stderr == "Error: scenario.toml: line 3: 'speed' must be positive\n"


def test_a_file_that_cannot_be_used_is_named(plugins: Path) -> None:
    result = run("fake", "read", "/no/such/file", path=plugins)
    assert result.returncode == 1
    assert result.stderr == "Error: /no/such/file: No such file or directory\n"


def test_a_bug_keeps_its_traceback(plugins: Path) -> None:
    result = run("fake", "bug", path=plugins)
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "RuntimeError: a bug" in result.stderr


def test_ctrl_c_says_so_and_exits_with_130(plugins: Path) -> None:
    result = run("fake", "interrupted", path=plugins)
    assert result.returncode == 130
    assert result.stderr.strip() == "Interrupted."


def test_a_command_leaves_with_its_own_exit_code(plugins: Path) -> None:
    assert run("fake", "leaves", path=plugins).returncode == 5


def test_what_a_command_returns_is_no_exit_code(plugins: Path) -> None:
    assert run("fake", "returns", path=plugins).returncode == 0


@pytest.mark.parametrize("arguments", [["fake", "flood"], ["--help"]])
def test_a_reader_that_goes_away_is_no_error(plugins: Path, arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed_pipe:
        result = subprocess.run(
            [sys.executable, "-m", "mat_cli", *arguments],
            env=environment(plugins),
            stdout=closed_pipe,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert result.stderr == ""
    assert result.returncode == 1


def test_a_broken_plugin_shows_in_the_help_and_fails_when_called(tmp_path: Path) -> None:
    path = install(tmp_path, fake=FAKE, lame="broken_module:lame")
    listing = run("--help", path=path)
    assert listing.returncode == 0
    reason = "ModuleNotFoundError: No module named 'a_package_that_nobody_has'"
    assert f"lame (unavailable: {reason})" in " ".join(listing.stdout.split())
    assert "fake        A group from elsewhere." in listing.stdout

    for arguments in (["lame"], ["lame", "--help"], ["lame", "run", "x", "--out=y"]):
        result = run(*arguments, path=path)
        assert result.returncode == 1
        assert result.stderr == f"Error: the subcommand 'lame' is unavailable: {reason}\n"
