"""The subcommands that entry points add, within this process."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mat_cli import command
from tests.cli.fake_plugins import install

FAKE = "fake_plugins_module:fake"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments, terminal_width=200, prog_name="mat")


def test_a_plugin_runs_with_its_arguments(folder: Path) -> None:
    install(folder, fake=FAKE)
    assert invoke("fake", "counted", "--count", "3").output == "3\n"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_module:command", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("fake_plugins_module:absent", "has no attribute 'absent'"),
        (
            "fake_plugins_module:not_a_command",
            "fake_plugins_module:not_a_command is not a click command",
        ),
    ],
)
def test_what_cannot_be_loaded_is_unavailable(folder: Path, value: str, reason: str) -> None:
    install(folder, lame=value)
    listing = invoke("--help")
    assert listing.exit_code == 0
    assert "(unavailable: " in listing.output
    assert reason in listing.output
    assert invoke("lame").exit_code == 1


def test_a_name_claimed_twice_belongs_to_nobody(folder: Path) -> None:
    install(folder, distribution="one", fake=FAKE)
    install(folder, distribution="two", fake="another_module:fake")
    result = invoke("fake", "leaves")
    assert result.exit_code == 1
    assert f"claimed by another_module:fake and by {FAKE}" in result.output


def test_a_plugin_does_not_replace_a_builtin(folder: Path) -> None:
    install(folder, completion=FAKE)
    result = invoke("completion", "bash")
    assert result.exit_code == 1
    assert f"claimed by {FAKE} and by mat itself" in result.output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str) -> None:
    result = invoke("completion", shell)
    assert result.exit_code == 0
    assert f"_MAT_COMPLETE={shell}_complete" in result.output


def test_completion_says_how_to_install_it() -> None:
    result = invoke("completion", "--help")
    assert '    eval "$(mat completion bash)"\n' in result.output
    assert "    mat completion fish | source\n" in result.output


def test_completion_offers_the_plugins(folder: Path) -> None:
    install(folder, fake=FAKE)
    words = {"_MAT_COMPLETE": "bash_complete", "COMP_WORDS": "mat fa", "COMP_CWORD": "1"}
    result = CliRunner().invoke(command, [], prog_name="mat", env=words)
    assert result.output == "plain,fake\n"
