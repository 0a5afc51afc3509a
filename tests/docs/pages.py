"""The documentation as readers see it: pages, their blocks, and how each block is tested.

A block without a language is shell, and is run; one of Python is run too. Output, diagrams and the
like are `text`. All blocks of a page are one session, in one folder and one network namespace. What
a test needs to know besides stands in comments before the block, which readers do not see:

    <!-- test: not run, REASON -->              it cannot be; its mat commands are parsed
    <!-- test: by tests/real/test_lab.py -->    that test runs it; likewise
    <!-- test: s/--runs 10/--runs 2/ -->        run with this replaced, to be done sooner
    <!-- test: after
    code that is run before it, for what a reader has and a test has not
    -->
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = ("README.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")))
SHELL: Final = ""
"""The language of blocks that are run by a shell."""

_MARK: Final = re.compile(r"<!-- test: (.*?)\s*-->\n", re.DOTALL)
_BLOCK: Final = re.compile(
    r"(?P<marks>(?:<!-- test: (?:(?!-->).)*?-->\n)*)^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_REPLACEMENT: Final = re.compile(r"s([/|])(.+?)\1(.*?)\1")


class MarkError(Exception):
    """A comment that begins as a mark, and is none."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: where it is, what is in it, and what its marks say."""

    page: str
    line: int
    """Of the page, on which the text begins."""
    language: str
    text: str
    reason: str = ""
    """Why it is not run."""
    tested_by: str = ""
    """The test that runs it."""
    before: str = ""
    replacements: tuple[tuple[str, str], ...] = ()

    @property
    def place(self) -> str:
        """Page and line, as editors take it."""
        return f"{self.page}:{self.line}"

    @property
    def run_here(self) -> bool:
        """Whether it belongs to the page's session."""
        return self.language in {SHELL, "python"} and not (self.reason or self.tested_by)

    @property
    def code(self) -> str:
        """What is run."""
        text = self.text
        for old, new in self.replacements:
            if old not in text:
                raise MarkError(f"{self.place}: nothing to replace: {old}")
            text = text.replace(old, new)
        return text


def blocks(page: str) -> list[Block]:
    """All blocks of a page. Raises `MarkError`."""
    return list(_blocks(page, (ROOT / page).read_text(encoding="utf-8")))


def _blocks(page: str, text: str) -> Iterator[Block]:
    seen = 0
    for match in _BLOCK.finditer(text):
        marks = _MARK.findall(match["marks"])
        seen += len(marks)
        line = text.count("\n", 0, match.start("text")) + 1
        yield _marked(Block(page, line, match["language"], match["text"]), marks)
    if seen != text.count("<!-- test:"):
        raise MarkError(f"{page}: a mark that is not directly before a block")


def _marked(block: Block, marks: list[str]) -> Block:
    found: dict[str, str] = {}
    replacements: list[tuple[str, str]] = []
    for mark in marks:
        if replacement := _REPLACEMENT.fullmatch(mark):
            replacements.append((replacement[2], replacement[3]))
        elif mark.startswith("not run, "):
            found["reason"] = mark.removeprefix("not run, ")
        elif mark.startswith("by "):
            found["tested_by"] = mark.removeprefix("by ")
        elif mark.startswith("after\n"):
            found["before"] = mark.removeprefix("after\n") + "\n"
        else:
            raise MarkError(f"{block.place}: no such mark: {mark}")
    return Block(
        block.page,
        block.line,
        block.language,
        block.text,
        replacements=tuple(replacements),
        **found,
    )
