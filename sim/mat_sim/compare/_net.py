"""Results of the lab without what the lab itself adds: its programs' time, and its links' excess.

The lab writes that beside its results, for each handover and part (docs/lab.md, Results).
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pandas as pd

from mat_files.errors import ResultsError
from mat_files.results import Results

FILE: Final = "shares.csv"
_KEYS: Final = ["node", "ordinal"]
_COLUMNS: Final = (*_KEYS, "part", "programs", "links")


def net(results: Results, directory: Path) -> Results:
    """These results, from this directory, with parts and `total` less that share.

    Raises `ResultsError` where the directory does not say what it is.
    """
    shares = _shares(directory / FILE)
    handovers: Any = results.handovers.copy()
    rows = pd.MultiIndex.from_frame(handovers[_KEYS].astype({"ordinal": "int64"}))
    for part, table in shares.groupby("part"):
        taken = table.set_index(_KEYS)["added"].reindex(rows, fill_value=0.0).to_numpy()
        handovers[part] = handovers[part] - taken
        handovers["total"] = handovers["total"] - taken
    return replace(results, handovers=handovers)


def _shares(path: Path) -> Any:
    try:
        table: Any = pd.read_csv(path, dtype={"node": "str"})
        missing = [name for name in _COLUMNS if name not in table]
    except (OSError, ValueError) as error:
        what = f"{path}: cannot be read ({error}); only `mat lab run` writes it: leave --net out"
        raise ResultsError(what) from error
    if missing:
        raise ResultsError(f"{path}: has no {', '.join(missing)}; leave --net out")
    return table.assign(added=table["programs"] + table["links"])
