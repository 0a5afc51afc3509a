"""Reading a scenario file, with overrides."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from mat_files.document import Document
from mat_files.errors import ScenarioError, shown
from mat_files.scenario._check import findings
from mat_files.scenario._model import Scenario, Source
from mat_files.traces import detect_format


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
    document = Document(path, "a scenario", ScenarioError)
    every = (*overrides, *_shortcuts(document.values, trace, seed))
    document.override(every)
    return _checked(document, Source(path, document.text, every))


def scenario_from(source: Source, place: Path | None) -> Scenario:
    """The scenario of a text and overrides that are at hand, checked as a file is.

    `place` is the file that problems with the text name, `None` where no file has that text.
    Raises `ScenarioError`.
    """
    document = Document(place, "a scenario", ScenarioError, text=source.text)
    document.override(source.overrides, option="")
    return _checked(document, source)


def _checked(document: Document, source: Source) -> Scenario:
    scenario = document.validated(Scenario).read_from(source)
    document.fail_on(findings(scenario))
    _files_exist(document, scenario)
    return scenario


def _shortcuts(document: dict[str, Any], trace: Path | None, seed: int | None) -> list[str]:
    """`trace` and `seed` as overrides, so that they are recorded and reported alike."""
    texts: list[str] = []
    if trace is not None:
        events = detect_format(trace) == "events"
        texts = [f"movement={{{'events' if events else 'trace'} = {_quoted(trace.resolve())}}}"]
        replaced = cast(object, document.get("movement"))
        if isinstance(replaced, dict):
            before = cast(dict[str, object], replaced)
            kept = [key for key in ("gaps", "step", "origin") if key in before]
            texts += [f"movement.{key}={shown(before[key])}" for key in kept]
    if seed is not None:
        texts.append(f"scenario.seed={seed}")
    return texts


def _quoted(path: Path) -> str:
    return "'" + str(path) + "'" if "'" not in str(path) else f'"{path}"'


def _files_exist(document: Document, scenario: Scenario) -> None:
    movement = scenario.movement
    named = (("trace", movement.trace), ("events", movement.events))
    document.fail_on(
        (("movement", key), f"is {shown(name)}; there is no such file beside the scenario")
        for key, name in named
        if name is not None and not _readable(scenario.file(name), key)
    )


def _readable(path: Path, key: str) -> bool:
    """A file, or, of tracks, a folder."""
    return path.is_file() or (key == "trace" and path.is_dir())
