"""CSV with a header: the native positions `t,node,x,y`, and the reader shared with events."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from mat_files.errors import trace_error
from mat_files.traces._text import lines, number
from mat_files.traces._trace import Row

POSITION_COLUMNS: Final = ("t", "node", "x", "y")


def records(
    path: Path, required: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and fields by name of every row below the header."""
    rows = lines(path)
    number_of_header, header = next(rows, (0, ""))
    names = _fields(path, number_of_header, header)
    _check_header(path, number_of_header, names, required, optional)
    for line, text in rows:
        values = _fields(path, line, text)
        if len(values) != len(names):
            what = f"has {len(values)} fields where the header names {len(names)}: {header}"
            raise trace_error(path, line, "", what)
        yield line, dict(zip(names, values, strict=True))


def _fields(path: Path, line: int, text: str) -> list[str]:
    try:
        return [value.strip() for row in csv.reader([text]) for value in row]
    except csv.Error as error:
        raise trace_error(
            path, line, "", f"is no CSV row ({error}); fields go between commas"
        ) from error


def _check_header(
    path: Path, line: int, names: Sequence[str], required: Sequence[str], optional: Sequence[str]
) -> None:
    if set(required) <= set(names) <= {*required, *optional} and len(set(names)) == len(names):
        return
    more = "".join(f"[,{name}]" for name in optional)
    what = f"is {','.join(names)!r}; must be {','.join(required)}{more}"
    raise trace_error(path, line, "header", what)


def read_positions(path: Path) -> Iterator[Row]:
    """The rows of a native positions file."""
    for line, record in records(path, POSITION_COLUMNS):
        if not record["node"]:
            raise trace_error(path, line, "node", "is empty; every row names a node")
        t, x, y = (number(path, line, name, record[name]) for name in ("t", "x", "y"))
        yield Row(t, record["node"], x, y, line)
