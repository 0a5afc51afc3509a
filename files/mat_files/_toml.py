"""Where a key stands in a TOML text, and how a `--set` override changes the parsed document.

tomllib gives values without positions. The locator below reads a text that tomllib has accepted a
second time, only for headers and keys, and skips values; keys inside inline tables and elements of
arrays have the line of the key that holds them.
"""

import re
import tomllib
from collections.abc import Sequence
from typing import Any, Final, TypeAlias, cast, final

KeyPath: TypeAlias = tuple[str | int, ...]

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE: Final = re.compile(r"[ \t]*")
_STRING: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}(?!")'
    r"|'''.*?'{3,5}(?!')"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line of every key and table header, by path; `text` is valid TOML."""
    return _Locator(text).lines


@final
class _Locator:
    __slots__ = ("_arrays", "_at", "_table", "_text", "lines")

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._table: KeyPath = ()
        self._arrays: dict[KeyPath, int] = {}
        self.lines: dict[KeyPath, int] = {}
        self._skip(_BLANK)
        while self._at < len(text):
            self._statement()
            self._skip(_BLANK)

    def _statement(self) -> None:
        line = self._text.count("\n", 0, self._at) + 1
        if self._text.startswith("[[", self._at):
            self._at += 2
            self._enter(self._key(), line, array=True)
            self._at += 2
        elif self._text.startswith("[", self._at):
            self._at += 1
            self._enter(self._key(), line, array=False)
            self._at += 1
        else:
            key = self._key()
            for end in range(1, len(key) + 1):
                self.lines.setdefault(self._table + key[:end], line)
            self._value()

    def _enter(self, key: KeyPath, line: int, *, array: bool) -> None:
        """Make the table named by a header the current one; a known array means its last table."""
        path: KeyPath = ()
        for part in key[:-1]:
            path += (part,)
            path += (self._arrays[path],) if path in self._arrays else ()
        path += key[-1:]
        if array:
            self._arrays[path] = self._arrays.get(path, -1) + 1
            self.lines.setdefault(path, line)
            path += (self._arrays[path],)
        self._table = path
        self.lines.setdefault(path, line)

    def _key(self) -> KeyPath:
        parts: list[str] = []
        while True:
            self._skip(_SPACE)
            if match := _STRING.match(self._text, self._at):
                parts.append(match[0][1:-1])
            elif match := _BARE.match(self._text, self._at):
                parts.append(match[0])
            else:
                return tuple(parts)
            self._at = match.end()
            self._skip(_SPACE)
            if not self._text.startswith(".", self._at):
                return tuple(parts)
            self._at += 1

    def _value(self) -> None:
        """Move past `= value`: to the line's end, or further where brackets are open."""
        depth = 0
        while self._at < len(self._text):
            character = self._text[self._at]
            if character == "#":
                self._skip(_BLANK)
                if not depth:
                    return
            elif match := _STRING.match(self._text, self._at):
                self._at = match.end()
            elif character == "\n" and not depth:
                return
            else:
                depth += (character in "[{") - (character in "]}")
                self._at += 1

    def _skip(self, pattern: re.Pattern[str]) -> None:
        if match := pattern.match(self._text, self._at):
            self._at = match.end()


def parse_override(text: str) -> tuple[KeyPath, Any]:
    """Path and value of `key=value`, the value being TOML.

    Raises `ValueError` saying what is wrong and what would be right.
    """
    key, equals, value = text.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        raise ValueError("is not KEY=VALUE; write for example nodes.interfaces=1")
    path = tuple(int(part) if part.isdecimal() else part for part in parts)
    try:
        return path, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        what = f"{value.strip()!r} is no TOML value; text needs quotes: '{key}=\"{value.strip()}\"'"
        raise ValueError(what) from None
    except RecursionError as error:
        raise ValueError(f"cannot be read ({error}); no scenario needs such a value") from None


def apply_override(document: dict[str, Any], path: KeyPath, value: object) -> None:
    """Set the value at `path`, making tables that are not there.

    Raises `ValueError` where the path leads through something that is no table or array.
    """
    place: Any = document
    for depth, part in enumerate(path[:-1]):
        place = _step(place, part, path[:depth])
    _assign(place, path[-1], value, path[:-1])


def _step(place: object, part: str | int, before: KeyPath) -> Any:
    if isinstance(part, int):
        return _elements(place, part, before)[part]
    return _table(place, part, before).setdefault(part, {})


def _assign(place: object, part: str | int, value: object, before: KeyPath) -> None:
    if isinstance(part, int):
        _elements(place, part, before)[part] = value
    else:
        _table(place, part, before)[part] = value


def _elements(place: object, index: int, before: KeyPath) -> list[Any]:
    name = dotted(before)
    if not isinstance(place, list):
        raise ValueError(f"{name} is not an array here, so it has no element {index}")
    array = cast(list[Any], place)  # type: ignore[redundant-cast]  # pyright needs it
    if index >= len(array):
        raise ValueError(f"{name} has {len(array)} elements, counted from 0; there is no {index}")
    return array


def _table(place: object, part: str, before: KeyPath) -> dict[str, Any]:
    if isinstance(place, list):
        example = dotted((*before, 0, part))
        raise ValueError(f"{dotted(before)} is an array; name an element, for example {example}")
    if not isinstance(place, dict):
        raise ValueError(f"{dotted(before)} is a value, not a table; it has no key {part!r}")
    return cast(dict[str, Any], place)


def dotted(path: Sequence[str | int]) -> str:
    """A path as text: `network.0.range`."""
    return ".".join(map(str, path))
