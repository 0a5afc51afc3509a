"""Recognising a trace's format and reading it."""

from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

from mat_files.errors import trace_error
from mat_files.traces._csv import read_positions
from mat_files.traces._fcd import read_fcd
from mat_files.traces._ns2 import read_ns2
from mat_files.traces._text import opened
from mat_files.traces._trace import Gaps, Trace, collect

Format: TypeAlias = Literal["fcd", "ns2", "positions", "events"]
"""SUMO FCD XML; ns-2 setdest; native positions; native attachment events."""

FORMATS: Final[tuple[Format, ...]] = get_args(Format)
_HEAD: Final = 4096
_READERS: Final = {"fcd": read_fcd, "ns2": read_ns2, "positions": read_positions}


def detect_format(path: Path) -> Format:
    """The format of a file, from its beginning (names deceive, the first line does not)."""
    with opened(path) as stream:
        head = stream.read(_HEAD).decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    text = [line.strip() for line in head.splitlines()]
    first = next((line for line in text if line and not line.startswith("#")), "")
    columns = {name.strip() for name in first.split(",")}
    if first.startswith("<"):
        return "fcd"
    if {"t", "node", "action"} <= columns:
        return "events"
    if {"t", "node", "x"} <= columns:
        return "positions"
    if first.startswith("$") or any(line.startswith(("$node_", "$ns_")) for line in text):
        return "ns2"
    what = (
        f"begins with {first[:40]!r}, which is no known format; expected SUMO FCD XML, ns-2"
        " setdest, or CSV with the header t,node,x,y or t,node,action,network"
    )
    raise trace_error(path, 0, "format", what)


def read_trace(path: Path, form: Format | None = None, gaps: Gaps = "error") -> Trace:
    """The movement in a file, its format recognised where `form` is `None`.

    Raises `TraceError`, and nothing else, with file, line, field, what is wrong and what would be
    right.
    """
    form = form or detect_format(path)
    if form == "events":
        what = "holds attachment events, no positions; name it as movement.events"
        raise trace_error(path, 0, "format", what)
    return collect(path, _READERS[form](path), gaps)
