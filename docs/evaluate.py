"""The figures of docs/evaluation.md: `python -m docs.evaluate DIR` puts those of a result there.

DIR is what `mat paper --out DIR` has written. What stands between `<!-- begin NAME -->` and
`<!-- end NAME -->` is replaced, and drawings are copied into docs/evaluation/. A part that the
result does not have stays as it is. Without DIR only what comes from the code is renewed.
"""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mat_paper import PARTS
from mat_paper import size as sizes
from mat_paper.record import Record
from mat_paper.report import about, drawings, section, write_report

FOLDER: Final = Path(__file__).parent
DOCUMENT: Final = FOLDER / "evaluation.md"
DRAWINGS: Final = FOLDER / "evaluation"
_MARK: Final = re.compile(r"(<!-- begin (\S+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)


def sizes_shown() -> dict[str, str]:
    """What of the document comes from the code."""
    folder = Path(sizes.__file__).parent / "sizes"
    return {
        f"size.{name}": f"```toml\n{(folder / f'{name}.toml').read_text(encoding='utf-8')}```\n"
        for name in ("short", "full")
    }


def result_shown(record: Record) -> dict[str, str]:
    """What of the document comes from a result."""
    return {"machine": f"{about(record)}\n"} | {
        part: f"{section(record, part)}\n{''.join(_pictures(part))}" for part in record.parts
    }


def _pictures(part: str) -> Iterator[str]:
    for title, name in drawings(part).items():
        # Ladders are there as text.
        if part != "ladders":
            yield f"\n![{title}](evaluation/{name})\n"


def refreshed(text: str, shown: dict[str, str]) -> str:
    """The document with these parts, and the others as they are."""
    return _MARK.sub(
        lambda match: match[1] + shown[match[2]] + match[3] if match[2] in shown else match[0],
        text,
    )


def names(text: str) -> list[str]:
    """The parts that a document has."""
    return [match[2] for match in _MARK.finditer(text)]


def main(arguments: list[str]) -> None:
    """Renew the document."""
    shown = sizes_shown()
    for directory in arguments:
        record = Record.read(Path(directory))
        write_report(record)
        shown |= result_shown(record)
        DRAWINGS.mkdir(exist_ok=True)
        for part in (part for part in PARTS if part in record.parts and part != "ladders"):
            for name in drawings(part).values():
                shutil.copyfile(record.directory / name, DRAWINGS / name)
    DOCUMENT.write_text(refreshed(DOCUMENT.read_text(encoding="utf-8"), shown), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
