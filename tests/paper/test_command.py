"""`mat paper` as a user meets it, without measuring."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mat_paper import PARTS
from mat_paper.command import paper
from mat_paper.record import Record
from tests.paper.records import begun
from tests.real.privilege import needs_root


def run(*arguments: object) -> Result:
    return CliRunner().invoke(paper, list(map(str, arguments)))


def test_help_names_every_part_with_examples() -> None:
    said = run("--help").output
    assert all(f"\n    {part}" in said for part in PARTS)
    assert "mat paper --full" in said


def test_a_stored_result_is_printed_again(record: Record) -> None:
    done = run("--from", record.directory)
    assert done.exit_code == 0, done.output
    for words in ("0.412", "MAT, NFQUEUE alone", "soft, with overlap", "IMS_CN", "Linux 6.1"):
        assert words in done.output
    assert "![" not in done.output


def test_a_part_that_is_not_there_is_refused() -> None:
    done = run("pong")
    assert done.exit_code == 2
    assert "'pong' is not one of 'ping', 'udp'" in done.output


def test_what_is_stored_is_not_measured_with_it(record: Record) -> None:
    for more in (["ping"], ["--set", "ping.count=3"]):
        done = run("--from", record.directory, *more)
        assert done.exit_code == 2
        assert "--from prints what is there" in done.output


def test_a_directory_without_a_result_is_said_to_be_one(tmp_path: Path) -> None:
    done = run("--from", tmp_path)
    assert done.exit_code == 1
    assert "Error: " in done.output
    assert "holds no result of mat paper" in done.output
    begun(tmp_path / "begun")
    done = run("--from", tmp_path / "begun")
    assert done.exit_code == 1
    assert "no part of it is whole; go on with: mat paper --out" in done.output


def test_a_field_that_does_not_exist_is_named_before_anything_starts(tmp_path: Path) -> None:
    done = run("--out", tmp_path / "out", "--set", "udp.load=3")
    assert done.exit_code == 1
    assert "Error: --set udp.load=3: udp.load:" in done.output
    assert not (tmp_path / "out").exists()


@needs_root
def test_programs_that_are_missing_are_named_with_their_packages(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("ip", "tc", "nsenter", "dnsmasq", "nft"):
        (programs / name).symlink_to(shutil.which(name) or name)
    words = [sys.executable, "-c", "from mat_paper.command import paper; paper()"]
    done = subprocess.run(
        [*words, "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": str(programs)},
        check=False,
    )
    assert done.returncode == 1
    mend = "not on the path: iperf ping; mend it with: sudo apt install iperf iputils-ping"
    assert mend in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="for others, user namespaces come first")
def test_a_directory_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    if shutil.which("iperf") is None:
        pytest.skip("iperf is not installed")
    (tmp_path / "thesis.tex").touch()
    done = run("--out", tmp_path)
    assert done.exit_code == 1
    assert "is not empty, and holds no result of mat paper; name a new directory" in done.output
