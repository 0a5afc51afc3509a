"""TOML documents, read with every problem in its place: scenarios, server configuration.

Reading goes in steps (text, TOML syntax, overrides, the fields one by one); each step reports all
that it finds wrong, as `FILE:LINE: field: what is wrong; what would be right`. A problem that an
override caused names the override in place of file and line.
"""

import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, final

from pydantic import BaseModel, ConfigDict, ValidationError

from mat_files._explain import explain
from mat_files._toml import KeyPath, apply_override, dotted, key_lines, parse_override
from mat_files.errors import InputError, Problem


class Table(BaseModel):
    """A table of a document: unknown keys are errors, and so are NaN and infinity."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


Model = TypeVar("Model", bound=Table)


@final
class Document:
    """A TOML file, parsed; `values` may be changed by overrides until it is `validated`."""

    __slots__ = ("_error", "_lines", "_overridden", "_path", "_what", "text", "values")

    def __init__(
        self, path: Path | None, what: str, error: type[InputError], text: str | None = None
    ) -> None:
        """Read and parse the file; `what` says what it is, as in "a scenario".

        Without a file the document is empty, and overrides make it. With `text`, that is what the
        file holds, whatever it holds by now. Raises `error`, as all methods do.
        """
        self._path = path
        self._what = what
        self._error = error
        self._lines: dict[KeyPath, int] | None = None
        self._overridden: dict[KeyPath, str] = {}
        if text is None:
            text = self._read(path) if path is not None else ""
        self.text = text
        self.values = self._parse()

    def override(self, texts: Sequence[str], option: str = "--set ") -> None:
        """Apply `KEY=VALUE` overrides; `option` is what a problem's place begins with."""
        problems: list[Problem] = []
        for text in texts:
            try:
                path, value = parse_override(text)
                apply_override(self.values, path, value)
            except ValueError as error:
                problems.append(Problem(f"{option}{text}", "", str(error)))
            else:
                self._overridden[path] = f"{option}{text}"
        if problems:
            raise self._error(problems)

    def validated(self, model: type[Model]) -> Model:
        """The document as an instance of its model."""
        try:
            return model.model_validate(self.values)
        except ValidationError as error:
            found = error.errors(include_url=False)
            inside = {item["loc"][:-1] for item in found}
            # An array with a bad element counts as too short: the element is not there.
            told = (
                item for item in found if item["type"] != "too_short" or item["loc"] not in inside
            )
            self.fail_on((item["loc"], explain(item, model)) for item in told)
            raise AssertionError("a validation error lists at least one problem") from error

    def fail_on(self, found: Iterable[tuple[KeyPath, str]]) -> None:
        """Raise the error with all that was found, if anything was, in order of place."""
        listed = sorted(((self._line(path), path, what) for path, what in found), key=_by_line)
        if listed:
            raise self._error(
                Problem(self._where(line, path), dotted(path), what) for line, path, what in listed
            )

    def _read(self, path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            what = f"is not UTF-8 text ({error.reason}); {self._what} is a TOML file"
            raise self._error([Problem(str(path), "", what)]) from error
        except OSError as error:
            # "a scenario" is the file that is wanted: "a readable scenario file".
            kind = self._what.partition(" ")[2]
            what = f"cannot be read ({error.strerror or error}); name a readable {kind} file"
            raise self._error([Problem(str(path), "", what)]) from error

    def _parse(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            message = str(error)
            place = re.search(r" \(at line (\d+), column (\d+)\)", message)
            line = int(place[1]) if place else self.text.count("\n") + 1
            what = f"not valid TOML: {re.sub(r' .at .*', '', message)}"
            what += f" (column {place[2]})" if place else " (at the end)"
            raise self._error([Problem(f"{self._path}:{line}", "", what)]) from error
        except (ValueError, RecursionError) as error:  # numbers and nesting beyond Python's
            kind = self._what.partition(" ")[2]
            what = f"cannot be read ({error}); no {kind} needs such a value"
            raise self._error([Problem(str(self._path), "", what)]) from error

    def _line(self, path: KeyPath) -> int:
        """The line of the nearest enclosing key that the file has; 0 if there is none."""
        if self._lines is None:
            self._lines = key_lines(self.text)
        prefixes = (path[:end] for end in range(len(path), 0, -1))
        return next((self._lines[prefix] for prefix in prefixes if prefix in self._lines), 0)

    def _where(self, line: int, path: KeyPath) -> str:
        for end in range(len(path), 0, -1):
            if path[:end] in self._overridden:
                return self._overridden[path[:end]]
        inside = (text for key, text in self._overridden.items() if key[: len(path)] == path)
        if (text := next(inside, None)) is not None:
            return text
        place = str(self._path) if self._path is not None else ""
        return f"{place}:{line}" if place and line else place


def _by_line(item: tuple[int, KeyPath, str]) -> int:
    return item[0]
