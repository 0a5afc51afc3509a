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
    scenario = document.validated(Scenario)
    document.fail_on(findings(scenario))
    _files_exist(document, path, scenario)
    return scenario.read_from(Source(path, document.text, every))


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


def _files_exist(document: Document, path: Path, scenario: Scenario) -> None:
    movement = scenario.movement
    named = (("trace", movement.trace), ("events", movement.events))
    document.fail_on(
        (("movement", key), f"is {shown(name)}; there is no such file beside the scenario")
        for key, name in named
        if name is not None and not (path.parent / name).is_file()
    )
