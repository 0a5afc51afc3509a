"""docs/wireshark.md: its ladder is what the command draws, its code runs, its fields are there."""

import re
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from mat_files.capture import writing
from mat_files.ladder_command import ladder
from mat_files.library import find_scenario
from mat_files.scenario import load_scenario
from mat_sim.engine import simulate
from tests.files.wireshark import fields, needs_tshark

PAGE = (Path(__file__).parents[2] / "docs" / "wireshark.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(python|text)\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The capture that the page speaks of, in the working directory."""
    monkeypatch.chdir(tmp_path)
    with writing(Path("first.pcapng")) as writer:
        simulate(load_scenario(find_scenario("first")), capture=writer)
    return tmp_path / "first.pcapng"


@pytest.mark.usefixtures("first")
def test_the_ladder_is_what_the_command_draws() -> None:
    (command,) = (line for line in PAGE.splitlines() if line.startswith("mat ladder first"))
    (wanted,) = (text for _, text in BLOCKS if "sent ms" in text)
    shown = CliRunner().invoke(ladder, command.split()[2:])
    assert shown.stdout == wanted


@pytest.mark.usefixtures("first")
def test_the_code_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = (text for kind, text in BLOCKS if kind == "python")
    exec(code, {})
    (wanted,) = (text for _, text in BLOCKS if "sent ms" in text)
    printed = capsys.readouterr().out.splitlines()
    # Of m1 alone: what IMS_CN and IMS_MN say to each other is about it, too.
    assert printed == wanted.splitlines()
    assert (tmp_path / "handover.svg").read_text().startswith("<svg")


@needs_tshark
def test_the_fields_are_those_of_the_dissector(first: Path) -> None:
    text = PAGE.replace("`mat.codec`", "").replace("mat.lua", "")
    named = set(re.findall(r"mat\.[a-z0-9_]+(?:\.[a-z0-9_]+)*", text)) - {"mat.expert"}
    assert len(named) > 20
    # tshark knows no field of another name.
    fields(first, sorted(named), "-c", "1")
    with pytest.raises(subprocess.CalledProcessError):
        fields(first, ["mat.other"], "-c", "1")
