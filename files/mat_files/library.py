"""The scenarios that come with the package, by bare name: `mat sim run town`.

In the repository they lie in sim/scenarios; a wheel carries them inside this package.
This module imports nothing heavy, as shell completion uses it.
"""

import difflib
from pathlib import Path
from typing import Final

from mat_files.errors import Problem, ScenarioError

_HERE: Final = Path(__file__).resolve().parent
_PLACES: Final = (_HERE / "scenarios", _HERE.parents[1] / "sim" / "scenarios")


def shipped_scenarios() -> dict[str, Path]:
    """Name and file of every scenario that comes with the package, by name."""
    folder = next((place for place in _PLACES if (place / "first.toml").is_file()), None)
    return {file.stem: file for file in sorted(folder.glob("*.toml"))} if folder else {}


def find_scenario(name: str) -> Path:
    """The file that `name` means: a path if there is such a file, else a shipped scenario.

    Raises `ScenarioError` if it is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_scenarios()
    if name in shipped:
        return shipped[name]
    close = difflib.get_close_matches(path.stem, shipped, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    what = f"no such file; {hint}scenarios that come with mat: {', '.join(shipped) or 'none'}"
    raise ScenarioError([Problem(name, "", what)])
