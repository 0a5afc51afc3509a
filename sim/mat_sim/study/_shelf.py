"""Where the results of single runs are kept until a study is done: in memory, or in a directory.

A directory is what an interrupted sweep resumes from:

```
OUT/sweep.json                         what the sweep is of, and its cases
OUT/case-1f0c22ab53d07e94/run-0000/    the tables of one run, as Parquet
```

A run's folder is written under another name, flushed and renamed, so it is there whole or not at
all, after a power cut too; what a killed program left under the other name is removed by the next
one. A case's folder is named by what the case changes, not by its number, so a sweep with more
cases or more runs finds what it has in common with the earlier one. One sweep at a time holds the
directory's lock.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol, cast, final

from mat_files.errors import ResultsError
from mat_files.results import Results, check_directory, write_files
from mat_sim.study._recipe import stamped

MANIFEST: Final = "sweep.json"
_LOCK: Final = ".lock"
_STAGE: Final = ".run"


class Shelf(Protocol):
    """Where the results of single runs are kept, by case and number of the run."""

    def kept(self, case: int) -> set[int]:
        """The runs of a case that are here."""
        ...

    def keep(self, case: int, run: int, results: Results) -> None:
        """Keep a run's results."""
        ...

    def results(self, case: int, run: int) -> Results:
        """The results of a run that is here."""
        ...


def joined(shelf: Shelf, case: int, first_run: int, runs: int) -> Results:
    """Runs of a case as one result."""
    parts = [shelf.results(case, run) for run in range(first_run, first_run + runs)]
    return stamped(Results.joined(parts, parts[0].provenance), first_run, runs)


@final
class Memory:
    """A shelf that lasts as long as the program."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int], Results] = {}

    def kept(self, case: int) -> set[int]:
        """As `Shelf` has it."""
        return {run for other, run in self._kept if other == case}

    def keep(self, case: int, run: int, results: Results) -> None:
        """As `Shelf` has it."""
        self._kept[case, run] = results

    def results(self, case: int, run: int) -> Results:
        """As `Shelf` has it."""
        return self._kept[case, run]


@final
class Folder:
    """A shelf in a directory; `names` are the cases' folders."""

    def __init__(self, directory: Path, names: Sequence[str]) -> None:
        self._directory = directory
        self._names = names

    def kept(self, case: int) -> set[int]:
        """As `Shelf` has it."""
        found = (self._directory / self._names[case]).glob("run-*")
        numbers = (path.name.removeprefix("run-") for path in found)
        return {int(number) for number in numbers if number.isdecimal()}

    def keep(self, case: int, run: int, results: Results) -> None:
        """As `Shelf` has it. Raises `ResultsError` where it cannot be written."""
        stage = self._directory / _STAGE
        results.write(stage, csv=False)
        place = self._place(case, run)
        try:
            place.parent.mkdir(exist_ok=True)
            for written in (*stage.iterdir(), stage):
                _flush(written)
            stage.rename(place)
            _flush(place.parent)
        except OSError as error:
            raise ResultsError(f"{place}: cannot be written ({error.strerror or error})") from error

    def results(self, case: int, run: int) -> Results:
        """As `Shelf` has it. Raises `ResultsError` where the files are damaged."""
        place = self._place(case, run)
        try:
            return Results.read(place)
        except ResultsError as error:
            raise ResultsError(f"{error}; remove {place}, and the run is done again") from error

    def _place(self, case: int, run: int) -> Path:
        return self._directory / self._names[case] / f"run-{run:04d}"


def _flush(path: Path) -> None:
    """Wait until a file, or what a directory names, is on the disk: it outlasts a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def folder_name(changes: Sequence[str]) -> str:
    """The folder of a case that has these overrides."""
    digest = hashlib.sha256("\n".join(changes).encode()).hexdigest()
    return f"case-{digest[:16]}"


@contextmanager
def reserved(directory: Path, of: Mapping[str, object]) -> Generator[None]:
    """The directory, for one sweep at a time, and for sweeps `of` one thing only.

    Raises `ResultsError` where another sweep is going on there, where there are results of another
    scenario or version, and where it cannot be written.
    """
    check_directory(directory)
    _check_same(directory, of)
    directory.mkdir(parents=True, exist_ok=True)
    lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResultsError(f"{directory}: another sweep is going on here; let it end") from None
        shutil.rmtree(directory / _STAGE, ignore_errors=True)
        yield
    finally:
        os.close(lock)


def write_manifest(directory: Path, content: Mapping[str, object]) -> None:
    """Write down what the directory has. Raises `ResultsError`."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_files(directory, {MANIFEST: text.encode()})


def read_manifest(directory: Path) -> dict[str, Any]:
    """What a directory has. Raises `ResultsError` where there is no sweep."""
    path = directory / MANIFEST
    try:
        content: object = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and {"of", "cases"} <= content.keys():
            return cast(dict[str, Any], content)
        reason = "it has no cases"
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or error)
    raise ResultsError(f"{path}: is no record of a sweep ({reason})")


def _check_same(directory: Path, of: Mapping[str, object]) -> None:
    if not (directory / MANIFEST).exists():
        return
    there: dict[str, object] = read_manifest(directory)["of"]
    differing = sorted(key for key in {*there, *of} if there.get(key) != of.get(key))
    if differing:
        what = f"{directory}: has a sweep that differs in {', '.join(differing)}"
        raise ResultsError(f"{what}; name another directory, or remove this one")
