"""Every command in the documentation works: each block is run, or parsed where it cannot be run."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import click
import pytest

from tests.docs.commands import check, commands, mat_commands
from tests.docs.pages import PAGES, ROOT, SHELL, Block, MarkError, blocks
from tests.real.emulators import NAMES, SANDBOX
from tests.real.privilege import needs_root

BLOCKS: Final = [block for page in PAGES for block in blocks(page)]
SESSIONS: Final = list(dict.fromkeys(block.page for block in BLOCKS if block.run_here))
SHELL_BLOCKS: Final = [block for block in BLOCKS if block.language == SHELL]
TEXT: Final = {"text", "mermaid", "{eval-rst}"}
"""Languages of what nobody runs: output and pictures; tests of the site look at the last two."""
SERVERS: Final = {"named", "knot", "unbound"}
"""Configurations of DNS servers: tests/real/test_dns_docs.py starts them."""
MENTION: Final = re.compile(r"(?<!`)`((?:sudo )?(?:\.venv/bin/)?mat [^`]+)`(?!`)")
TOOLS: Final = re.compile(r"`[^`]*\b(?:pytest|python(?: -m)?) (tests[./]\S+?)[` ]")
LIMIT: Final = 400.0
"""Seconds for a page, on a machine where much else goes on."""
BASE: Final = {"git", "make", "python3-venv"}
"""Packages that CI has before it installs any."""


def place(block: Block) -> str:
    return block.place


@needs_root
@pytest.mark.parametrize("page", SESSIONS)
def test_what_a_page_says_works(page: str, tmp_path: Path) -> None:
    """Apart from all else here: servers of several pages want the same port."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare (util-linux)")
    folder = tmp_path / "mat-mobility"
    folder.mkdir()
    session = [sys.executable, "-W", "error", "-m", "tests.docs.session", page]
    done = subprocess.run(
        [*SANDBOX, *NAMES, *session],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def environment() -> dict[str, str]:
    """That of the tests, with the packages of this checkout for every program."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    places = [ROOT / name for name in project["tool"]["pytest"]["ini_options"]["pythonpath"]]
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, places))}


@pytest.mark.parametrize("block", SHELL_BLOCKS, ids=place)
def test_every_mat_command_has_the_options_it_is_given(block: Block) -> None:
    for arguments in mat_commands(block.text):
        check(arguments)


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_sentences_name_are_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    sentences = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for mention in MENTION.findall(sentences):
        for arguments in mat_commands(mention.replace("…", "").replace("|", " ")):
            check(arguments, whole=False)
    for named in TOOLS.findall(text):
        path = named if "/" in named else named.replace(".", "/") + ".py"
        assert (ROOT / path).is_file(), f"{page} names {named}"


def test_a_command_that_mat_does_not_have_is_noticed() -> None:
    (found,) = mat_commands("sudo .venv/bin/mat key new 10.1.0.1 --key keys | cat")
    with pytest.raises(click.UsageError):
        check(found)
    with pytest.raises(click.UsageError):
        check(["ims", "server"])


@pytest.mark.parametrize("block", BLOCKS, ids=place)
def test_every_block_is_run_or_of_a_kind_that_is_known(block: Block) -> None:
    if block.language == "toml":
        tomllib.loads(block.text)
    elif block.language not in {SHELL, "python"}:
        assert block.language in TEXT | SERVERS, f"a language of its own, or `text`: {block.place}"
    if block.tested_by:
        test = (ROOT / block.tested_by).read_text(encoding="utf-8")
        assert block.page in test, f"{block.tested_by} says nothing of {block.page}"


def test_few_blocks_are_not_run() -> None:
    assert len([block for block in BLOCKS if block.reason]) <= 5


def test_debian_packages_that_pages_name_are_installed_by_ci() -> None:
    programs = (ROOT / "tests" / "real" / "programs.txt").read_text()
    known = {line.split()[1] for line in programs.splitlines() if line[:1] not in {"", "#"}} | BASE
    named = {
        package
        for block in SHELL_BLOCKS
        for words in commands(block.text)
        if words[:3] == ["sudo", "apt", "install"]
        for package in words[3:]
        if not package.startswith("-")
    }
    assert named
    assert named - known == set()


def test_a_mark_that_says_nothing_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tests.docs.pages.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("<!-- test: never -->\n```\nmat\n```\n")
    with pytest.raises(MarkError, match=r"page\.md:3: no such mark: never"):
        blocks("page.md")
    page.write_text("<!-- test: not run, no time -->\n\n```\nmat\n```\n")
    with pytest.raises(MarkError, match="not directly before a block"):
        blocks("page.md")
