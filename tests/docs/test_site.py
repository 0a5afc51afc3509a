"""The documentation as a site: complete, without broken links, with nothing from other hosts."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

import pytest

from docs.generate import COMMAND_DOCUMENT, refreshed
from tests.docs.commands import check, mat_commands
from tests.docs.pages import PAGES, ROOT

DOCS: Final = ROOT / "docs"
FOREIGN: Final = re.compile(r"""@import|url\(\s*['"]?(?:https?:)?//""")
LINK: Final = re.compile(r"\]\((?!https?://)([^)#]+)(?:#[^)]*)?\)")


class Fetched(HTMLParser):
    """What a browser fetches to show a page, other than by a click."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of every address but those of anchors."""
        if tag != "a":
            self.addresses += [value for name, value in attrs if name in {"src", "href"} and value]


def test_the_site_builds_without_a_warning_and_shows_itself_without_a_network(
    tmp_path: Path,
) -> None:
    pytest.importorskip("sphinx", reason="needs the packages of requirements/docs.txt")
    build = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going"]
    done = subprocess.run(
        [*build, "-d", tmp_path / "doctrees", "docs", tmp_path / "site"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert {f"docs/{page.stem}.md" for page in pages} >= {*PAGES} - {"README.md", "docs/README.md"}
    for page in pages:
        fetched = Fetched()
        fetched.feed(page.read_text(encoding="utf-8"))
        assert fetched.addresses
        assert [a for a in fetched.addresses if re.match(r"(\w+:)?//", a)] == [], page.name
    for sheet in (tmp_path / "site").rglob("*.css"):
        assert FOREIGN.search(sheet.read_text(encoding="utf-8")) is None, sheet.name
    api = (tmp_path / "site" / "api.html").read_text(encoding="utf-8")
    for name in ("mat_sim.study.simulate", "mat_real.lab.Lab", "mat.node.MobileNode", "attach"):
        assert name.rpartition(".")[2] in api


def test_every_page_is_in_the_navigation_once() -> None:
    linked = re.findall(r"^- \[[^]]+\]\(([^)#]+)\)", (DOCS / "index.md").read_text(), re.MULTILINE)
    pages = {page.name for page in DOCS.glob("*.md")} - {"README.md", "index.md"}
    assert set(linked) == pages, "give a new page a line in docs/index.md"
    assert len(linked) == len(pages)


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in DOCS.glob("*.md"))])
def test_relative_links_lead_somewhere_in_the_repository(page: str) -> None:
    folder = (ROOT / page).parent
    links = LINK.findall((ROOT / page).read_text(encoding="utf-8"))
    assert [link for link in links if not (folder / link).exists()] == []


def test_the_commands_are_those_that_mat_has_now() -> None:
    text = COMMAND_DOCUMENT.read_text(encoding="utf-8")
    assert refreshed(text) == text, "run: python -m docs.generate"


def test_the_examples_in_the_help_are_commands() -> None:
    text = COMMAND_DOCUMENT.read_text(encoding="utf-8")
    examples = re.findall(r"^ {2,}(mat .+?)(?: {3,}.*)?$", text.replace("\\\n", ""), re.MULTILINE)
    assert len(examples) > 50
    for example in examples:
        for arguments in mat_commands(example):
            check(arguments, whole=False)
