"""What bad input raises: every problem found, each with its place.

A problem reads `FILE:LINE: field: what is wrong; what would be right`. Nothing else escapes from
reading a document or a trace.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast, final


@final
@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with an input: where, in which field, and what would be right."""

    where: str
    field: str
    what: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.field, self.what) if part)


class InputError(Exception):
    """Input that cannot be used; `problems` lists all that was found."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type[Self], tuple[tuple[Problem, ...]]]:
        """As exceptions travel between processes: made again from the problems."""
        return type(self), (self.problems,)


class ScenarioError(InputError):
    """A scenario, trace or option that cannot be used."""


class TraceError(ScenarioError):
    """A movement trace or a file of attachment events that cannot be used."""


class ResultsError(Exception):
    """Results that cannot be written or read where they should be."""


class CaptureError(Exception):
    """A file that is no capture, or one that cannot be read or written."""


def trace_error(path: Path, line: int, field: str, what: str) -> TraceError:
    """The `TraceError` for one place in a file; line 0 stands for the file as a whole."""
    where = f"{path}:{line}" if line else str(path)
    return TraceError([Problem(where, field, what)])


def shown(value: object) -> str:
    """A parsed TOML value as its file might write it, for messages."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, cast(list[Any], value)))}]"
    if isinstance(value, Mapping):
        items = cast(Mapping[str, Any], value).items()
        return "{" + ", ".join(f"{key} = {shown(item)}" for key, item in items) + "}"
    return str(value)
