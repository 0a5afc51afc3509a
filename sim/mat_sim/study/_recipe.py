"""How to make a result again: in words that the result carries, and by a function that does it.

A result has the whole scenario as text, the overrides, the seed and the numbers of its runs. What
it has not is the movement file, only its SHA-256; so that file must be at hand.
"""

import shlex
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import mat
from mat_files.errors import ResultsError, ScenarioError
from mat_files.library import shipped_scenarios
from mat_files.mobility import movement_digest
from mat_files.results import Provenance, Results
from mat_files.scenario import Scenario, Source, scenario_from

_FILE: Final = "scenario.toml"
"""What a recipe calls a scenario that does not come with mat."""


def stamped(results: Results, first_run: int, runs: int) -> Results:
    """Results with the record of which replications they have, and the recipe."""
    provenance = replace(results.provenance, first_run=first_run, runs=runs)
    recipe = _recipe(provenance)
    return replace(results, provenance=replace(provenance, recipe=recipe))


def stored_scenario(provenance: Provenance, folder: Path | None = None) -> Scenario:
    """The scenario that results came from, with its movement file found again.

    The file is looked for in `folder`; by default in the working directory and among the scenarios
    that come with mat. Raises `ResultsError` where it is not there or has other contents.
    """
    if not provenance.recipe:
        raise ResultsError("these results carry no recipe; they are not those of simulate or sweep")
    overrides = tuple(provenance.overrides.split("\n")) if provenance.overrides else ()
    places = list(_places(folder)) if provenance.trace else [None]
    problem = ""
    for place in places:
        path = place / _FILE if place is not None else None
        try:
            scenario = scenario_from(Source(path, provenance.scenario, overrides), None)
        except ScenarioError as error:
            problem = str(error)
            continue
        if movement_digest(scenario) == provenance.trace:
            return scenario
        problem = "the movement file there has other contents"
    listed = ", ".join(str(place) for place in places if place is not None)
    what = f"the movement file with the SHA-256 {provenance.trace} is not in {listed} ({problem})"
    raise ResultsError(f"{what}; name its folder" if provenance.trace else problem)


def warn_of_other_version(provenance: Provenance) -> None:
    """Say so where another version of mat made the results."""
    if provenance.version != mat.__version__:
        what = f"these results are of mat {provenance.version}, and this is {mat.__version__}"
        warnings.warn(f"{what}: what comes out may differ", stacklevel=3)


def _places(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield folder
        return
    yield Path()
    yield from dict.fromkeys(path.parent for path in shipped_scenarios().values())


def _recipe(provenance: Provenance) -> str:
    """Words, a command and lines of Python that make the results again."""
    name = _shipped_name(provenance)
    runs = _runs(provenance)
    words = f"Results of mat {provenance.version}, {runs}, seed {provenance.seed}."
    words += " Equal bytes come, with the same version, from"
    command = [f"    mat sim run {name or _FILE}", *_options(provenance), "--out again"]
    lines = [words, " ".join(command)]
    if not name:
        lines.append(f"where {_FILE} has the text under mat.scenario" + _beside(provenance))
    lines += [
        "or, in Python, with OUT as the directory of these results, from",
        "    from pathlib import Path",
        "    from mat_sim import Results, reproduce",
        '    reproduce(Results.read(Path("OUT"))).write(Path("again"))',
    ]
    return "\n".join(lines)


def _runs(provenance: Provenance) -> str:
    first, last = provenance.first_run, provenance.first_run + provenance.runs - 1
    return f"run {first}" if first == last else f"runs {first} to {last}"


def _options(provenance: Provenance) -> Iterator[str]:
    for override in filter(None, provenance.overrides.split("\n")):
        yield f"--set {shlex.quote(override)}"
    if provenance.first_run:
        yield f"--first-run {provenance.first_run}"
    if provenance.runs != 1:
        yield f"--runs {provenance.runs}"


def _beside(provenance: Provenance) -> str:
    if not provenance.trace:
        return ","
    return f" and lies beside its movement file (SHA-256 {provenance.trace}),"


def _shipped_name(provenance: Provenance) -> str | None:
    """The name under which the scenario comes with mat, if it does."""
    for name, path in shipped_scenarios().items():
        if path.read_text(encoding="utf-8") == provenance.scenario:
            overrides = tuple(filter(None, provenance.overrides.split("\n")))
            source = Source(path, provenance.scenario, overrides)
            if movement_digest(scenario_from(source, path)) == provenance.trace:
                return name
    return None
