"""Reading a scenario file, with overrides."""

import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast, final

from pydantic import ValidationError

from mat_sim.errors import Problem, ScenarioError, shown
from mat_sim.scenario._check import findings
from mat_sim.scenario._explain import explain
from mat_sim.scenario._model import Scenario, Source
from mat_sim.scenario._toml import KeyPath, apply_override, dotted, key_lines, parse_override
from mat_sim.traces import detect_format


def load_scenario(
    path: Path,
    overrides: Sequence[str] = (),
    trace: Path | None = None,
    seed: int | None = None,
) -> Scenario:
    """The scenario in a file, after `KEY=VALUE` overrides.

    `trace` replaces the movement by another file (positions or events, recognised by content,
    relative to the working directory); `seed` replaces the seed. Raises `ScenarioError` with every
    problem found, as `FILE:LINE: field: what is wrong; what would be right`; a problem that an
    override caused names the override in place of file and line.
    """
    text = _read(path)
    places = _Places(path, text)
    document = _parse(path, text)
    every = (*overrides, *_shortcuts(document, trace, seed))
    _override(places, document, every)
    scenario = _validated(places, document)
    places.fail_on(findings(scenario))
    _files_exist(places, path, scenario)
    return scenario.read_from(Source(path, text, every))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        what = f"is not UTF-8 text ({error.reason}); a scenario is a TOML file"
        raise ScenarioError([Problem(str(path), "", what)]) from error
    except OSError as error:
        what = f"cannot be read ({error.strerror or error}); name a readable scenario file"
        raise ScenarioError([Problem(str(path), "", what)]) from error


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        place = re.search(r" \(at line (\d+), column (\d+)\)", message)
        line = int(place[1]) if place else text.count("\n") + 1
        what = f"not valid TOML: {re.sub(r' .at .*', '', message)}"
        what += f" (column {place[2]})" if place else " (at the end)"
        raise ScenarioError([Problem(f"{path}:{line}", "", what)]) from error
    except (ValueError, RecursionError) as error:  # numbers and nesting beyond what Python takes
        what = f"cannot be read ({error}); no scenario needs such a value"
        raise ScenarioError([Problem(str(path), "", what)]) from error


def _shortcuts(document: dict[str, Any], trace: Path | None, seed: int | None) -> list[str]:
    """`trace` and `seed` as overrides, so that they are recorded and reported alike."""
    texts: list[str] = []
    if trace is not None:
        events = detect_format(trace) == "events"
        texts = [f"movement={{{'events' if events else 'trace'} = {_quoted(trace.resolve())}}}"]
        gaps = cast(object, document.get("movement"))
        if isinstance(gaps, dict) and "gaps" in gaps:
            texts.append(f'movement.gaps="{cast(dict[str, object], gaps)["gaps"]}"')
    if seed is not None:
        texts.append(f"scenario.seed={seed}")
    return texts


def _quoted(path: Path) -> str:
    return "'" + str(path) + "'" if "'" not in str(path) else f'"{path}"'


def _override(places: "_Places", document: dict[str, Any], texts: Sequence[str]) -> None:
    problems: list[Problem] = []
    for text in texts:
        try:
            path, value = parse_override(text)
            apply_override(document, path, value)
        except ValueError as error:
            problems.append(Problem(f"--set {text}", "", str(error)))
        else:
            places.overridden[path] = f"--set {text}"
    if problems:
        raise ScenarioError(problems)


def _validated(places: "_Places", document: dict[str, Any]) -> Scenario:
    try:
        return Scenario.model_validate(document)
    except ValidationError as error:
        places.fail_on((item["loc"], explain(item)) for item in error.errors(include_url=False))
        raise AssertionError("a validation error lists at least one problem") from error


def _files_exist(places: "_Places", path: Path, scenario: Scenario) -> None:
    movement = scenario.movement
    named = (("trace", movement.trace), ("events", movement.events))
    places.fail_on(
        (("movement", key), f"is {shown(name)}; there is no such file beside the scenario")
        for key, name in named
        if name is not None and not (path.parent / name).is_file()
    )


@final
class _Places:
    """Where each field of a document came from: a line of the file, or an override."""

    __slots__ = ("_lines", "_path", "_text", "overridden")

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._text = text
        self._lines: dict[KeyPath, int] | None = None
        self.overridden: dict[KeyPath, str] = {}

    def fail_on(self, found: Iterable[tuple[KeyPath, str]]) -> None:
        """Raise `ScenarioError` with all that was found, if anything was, in order of place."""
        listed = sorted(((self._line(path), path, what) for path, what in found), key=_by_line)
        if listed:
            raise ScenarioError(
                Problem(self._where(line, path), dotted(path), what) for line, path, what in listed
            )

    def _line(self, path: KeyPath) -> int:
        """The line of the nearest enclosing key that the file has; 0 if there is none."""
        if self._lines is None:
            self._lines = key_lines(self._text)
        prefixes = (path[:end] for end in range(len(path), 0, -1))
        return next((self._lines[prefix] for prefix in prefixes if prefix in self._lines), 0)

    def _where(self, line: int, path: KeyPath) -> str:
        for end in range(len(path), 0, -1):
            if path[:end] in self.overridden:
                return self.overridden[path[:end]]
        inside = (text for key, text in self.overridden.items() if key[: len(path)] == path)
        if (text := next(inside, None)) is not None:
            return text
        return f"{self._path}:{line}" if line else str(self._path)


def _by_line(item: tuple[int, KeyPath, str]) -> int:
    return item[0]
