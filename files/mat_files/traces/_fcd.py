"""SUMO floating car data: XML written by `sumo --fcd-output`, positions in metres.

With `--fcd-output.geo` x and y are longitude and latitude. Nothing in the data says so, but the
options in the comment above it do, and such a file is refused: read as metres, all would stand.

Format: https://sumo.dlr.de/docs/Simulation/Output/FCDOutput.html
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, final
from xml.parsers import expat

from mat_files.errors import TraceError, trace_error
from mat_files.traces._text import number
from mat_files.traces._trace import Row
from mat_files.traces._xml import fed, xml_parser

_MOVING: Final = frozenset({"vehicle", "person", "container"})
_DEGREES: Final = re.compile(r"<fcd-output\.geo\s+value=\"(?:true|1|yes|on|x|t)\"", re.IGNORECASE)
"""In the options that SUMO writes above its output; these are its words for true."""


@final
class _Elements:
    """Turns start tags into rows; `rows` is drained by the reader after every piece of input."""

    __slots__ = ("_parser", "_path", "_root", "_time", "rows")

    def __init__(self, path: Path, parser: expat.XMLParserType) -> None:
        self._path = path
        self._parser = parser
        self._root = ""
        self._time: float | None = None
        self.rows: list[Row] = []
        parser.StartElementHandler = self._start
        parser.CommentHandler = self._comment

    def _comment(self, text: str) -> None:
        if not self._root and _DEGREES.search(text):
            what = "is true, so x and y are degrees; must be false, for metres"
            raise self._error("fcd-output.geo", what)

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if not self._root:
            self._root = tag
            if tag != "fcd-export":
                raise self._error(f"<{tag}>", "is not SUMO FCD; the root must be <fcd-export>")
        elif tag == "timestep":
            self._time = self._number(tag, attributes, "time")
        elif tag in _MOVING:
            self._position(tag, attributes)

    def _position(self, tag: str, attributes: dict[str, str]) -> None:
        if self._time is None:
            raise self._error(f"<{tag}>", "stands outside <timestep>; it needs a time")
        node = self._text(tag, attributes, "id")
        x, y = (self._number(tag, attributes, name) for name in ("x", "y"))
        self.rows.append(Row(self._time, node, x, y, self._parser.CurrentLineNumber))

    def _text(self, tag: str, attributes: dict[str, str], name: str) -> str:
        if not (text := attributes.get(name)):
            raise self._error(name, f"is missing in <{tag}>; every <{tag}> must have it")
        return text

    def _number(self, tag: str, attributes: dict[str, str], name: str) -> float:
        text = self._text(tag, attributes, name)
        return number(self._path, self._parser.CurrentLineNumber, name, text)

    def _error(self, field: str, what: str) -> TraceError:
        return trace_error(self._path, self._parser.CurrentLineNumber, field, what)


def read_fcd(path: Path) -> Iterator[Row]:
    """The rows of an FCD file, ids kept, in the order of the file."""
    parser = xml_parser(path)
    elements = _Elements(path, parser)
    for _ in fed(path, parser):
        rows, elements.rows = elements.rows, []
        yield from rows
