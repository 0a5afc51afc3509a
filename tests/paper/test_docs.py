"""docs/evaluation.md has figures that come from results, not from hands."""

import re

from docs.evaluate import DOCUMENT, names, refreshed, result_shown, sizes_shown
from mat_paper import PARTS
from mat_paper.record import Record

TEXT = DOCUMENT.read_text(encoding="utf-8")


def test_the_document_has_a_place_for_each_part() -> None:
    assert names(TEXT) == ["machine", *PARTS, "size.short", "size.full"]


def test_the_sizes_are_those_of_the_code() -> None:
    assert refreshed(TEXT, sizes_shown()) == TEXT


def test_every_part_has_figures_of_the_present_form(record: Record) -> None:
    made = refreshed(TEXT, result_shown(record))
    assert heads(made) == heads(TEXT)
    assert "Intel Atom N280" in TEXT


def heads(text: str) -> list[str]:
    """The heads of all tables, in order."""
    return re.findall(r"^(\|.*\|)\n\| ---", text, re.MULTILINE)


def test_a_result_takes_the_place_of_the_one_before(record: Record) -> None:
    made = refreshed(TEXT, result_shown(record))
    assert "| kernel | Linux 6.1 |" in made
    assert "| MAT, fast path |" in made
    assert refreshed(made, result_shown(record)) == made
    prose = re.compile(r"<!-- begin (\S+) -->\n.*?<!-- end \1 -->", re.DOTALL)
    assert prose.sub("", made) == prose.sub("", TEXT)


def test_pictures_in_the_document_are_there() -> None:
    pictures = re.findall(r"!\[[^]]*\]\((\S+)\)", TEXT)
    assert len(pictures) == len(PARTS) - 1
    assert all((DOCUMENT.parent / path).exists() for path in pictures)
