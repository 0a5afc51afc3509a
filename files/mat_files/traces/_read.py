"""Recognising a trace's format and reading it."""

import re
from pathlib import Path
from typing import Final, Literal, TypeAlias, assert_never, get_args

from mat_files.errors import trace_error
from mat_files.traces._bonnmotion import looks_like_bonnmotion, read_bonnmotion
from mat_files.traces._csv import read_positions
from mat_files.traces._fcd import read_fcd
from mat_files.traces._gpx import Origin, read_gpx
from mat_files.traces._ns2 import read_ns2
from mat_files.traces._text import opened
from mat_files.traces._trace import Gaps, Trace, collect

Format: TypeAlias = Literal["fcd", "ns2", "bonnmotion", "gpx", "positions", "events"]
"""SUMO FCD XML; ns-2 setdest; BonnMotion; GPX; native positions; native attachment events."""

FORMATS: Final[tuple[Format, ...]] = get_args(Format)
SAMPLE_STEP: Final = 1.0
"""Seconds between the positions taken from paths, the step of SUMO's files."""

_HEAD: Final = 4096
_XML_COMMENT: Final = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_XML_ELEMENT: Final = re.compile(r"<(?:[\w.-]+:)?([\w.-]+)")


def detect_format(path: Path) -> Format:
    """The format of a file, from its beginning (names deceive, the first line does not).

    A folder is one of GPX files.
    """
    if path.is_dir():
        return "gpx"
    with opened(path) as stream:
        head = stream.read(_HEAD).decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    text = [line.strip() for line in head.splitlines()]
    first = next((line for line in text if line and not line.startswith("#")), "")
    columns = {name.strip() for name in first.split(",")}
    if first.startswith("<"):
        return _xml_format(head)
    if {"t", "node", "action"} <= columns:
        return "events"
    if {"t", "node", "x"} <= columns:
        return "positions"
    if first.startswith("$") or any(line.startswith(("$node_", "$ns_")) for line in text):
        return "ns2"
    if looks_like_bonnmotion(first):
        return "bonnmotion"
    expected = (
        "expected SUMO FCD XML, GPX, ns-2 setdest, BonnMotion, or CSV with the header t,node,x,y or"
        " t,node,action,network"
    )
    if not first and len(head) < _HEAD:
        raise trace_error(path, 0, "", f"holds nothing but blank lines and comments; {expected}")
    what = f"begins with {first[:40]!r}, which is no known format; {expected}"
    raise trace_error(path, 0, "format", what)


def _xml_format(head: str) -> Format:
    root = _XML_ELEMENT.search(_XML_COMMENT.sub("", head))
    return "gpx" if root and root[1] == "gpx" else "fcd"


def read_trace(
    path: Path,
    form: Format | None = None,
    gaps: Gaps = "error",
    *,
    step: float = SAMPLE_STEP,
    origin: Origin | None = None,
) -> Trace:
    """The movement in a file, its format recognised where `form` is `None`.

    `step` is the time (s) between the positions taken from paths: ns-2's walks, BonnMotion and GPX.
    `origin` (latitude and longitude, degrees) is where GPX's x and y are 0; by default its first
    point. Of a folder, the GPX files in it are read in order of their names.

    Raises `TraceError`, and nothing else, with file, line, field, what is wrong and what would be
    right.
    """
    form = form or detect_format(path)
    match form:
        case "events":
            what = "holds attachment events, no positions; name it as movement.events"
            raise trace_error(path, 0, "format", what)
        case "gpx":
            return read_gpx(trace_files(path), step, gaps, origin)
        case "bonnmotion":
            return read_bonnmotion(path, step)
        case "ns2":
            return collect(path, read_ns2(path, step), gaps)
        case "fcd":
            return collect(path, read_fcd(path), gaps)
        case "positions":
            return collect(path, read_positions(path), gaps)
        case _:
            assert_never(form)


def trace_files(path: Path) -> tuple[Path, ...]:
    """The files that a trace is read from: itself, or the GPX files of a folder, by name."""
    if not path.is_dir():
        return (path,)
    found = sorted(file for file in path.iterdir() if file.name.endswith((".gpx", ".gpx.gz")))
    if not found:
        what = "is a directory without any .gpx file; name a trace, or a folder of GPX tracks"
        raise trace_error(path, 0, "", what)
    return tuple(found)
