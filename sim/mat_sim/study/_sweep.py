"""`sweep`: a scenario with values varied, each case replicated.

Every case is simulated with the same seed, and its streams have the same names
(`mat_files.streams`): cases differ by what was varied, and their difference is known better than
each of them alone.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import final

import pandas as pd

import mat
from mat_files.mobility import movement_digest
from mat_files.results import Results, write_files
from mat_files.scenario import Scenario, inline, plain
from mat_files.schema import SCHEMA_VERSION
from mat_sim.study._cases import Cases, precision_of, resolved
from mat_sim.study._errors import StudyError
from mat_sim.study._estimate import Reduction, Statistic, TableName, Values
from mat_sim.study._intervals import CONFIDENCE, student_t
from mat_sim.study._progress import progress_bar
from mat_sim.study._shelf import (
    Folder,
    Memory,
    Shelf,
    folder_name,
    joined,
    read_manifest,
    reserved,
    write_manifest,
)
from mat_sim.study._stopping import Precision


@final
@dataclass(frozen=True, slots=True)
class Case:
    """What one case changes, by dotted key, and how many runs of it there are."""

    changes: Mapping[str, object]
    runs: int


@final
class Sweep:
    """The results of a sweep. Tables have the columns of `docs/results.md`, after the case's own.

    The case's own are `case`, its number from 0, and a column for each key that was varied. With a
    directory, tables are read when they are asked for.
    """

    def __init__(self, cases: Sequence[Case], shelf: Shelf, first_run: int) -> None:
        self._cases = tuple(cases)
        self._shelf = shelf
        self._first = first_run

    @classmethod
    def read(cls, directory: str | Path) -> "Sweep":
        """The sweep in a directory, finished or not: runs that are missing are left out.

        A case counts up to its first missing run. Raises `ResultsError`.
        """
        place = Path(directory)
        content = read_manifest(place)
        shelf = Folder(place, [case["folder"] for case in content["cases"]])
        first: int = content["first_run"]
        cases = [
            Case(case["values"], _unbroken(shelf.kept(number), first, case["runs"]))
            for number, case in enumerate(content["cases"])
        ]
        return cls(cases, shelf, first)

    @cached_property
    def cases(self) -> pd.DataFrame:
        """One row per case: number, varied values, runs."""
        rows = [
            {**self._columns(number), "runs": case.runs} for number, case in enumerate(self._cases)
        ]
        return pd.DataFrame(rows)

    @cached_property
    def handovers(self) -> pd.DataFrame:
        """Every handover of every run of every case."""
        return self._table("handovers")

    @cached_property
    def messages(self) -> pd.DataFrame:
        """Messages by type and hop, of every run of every case."""
        return self._table("messages")

    @cached_property
    def ims(self) -> pd.DataFrame:
        """The load of every IMS by interval, of every run of every case."""
        return self._table("ims")

    @cached_property
    def flows(self) -> pd.DataFrame:
        """The flows of data, of every run of every case."""
        return self._table("flows")

    @cached_property
    def links(self) -> pd.DataFrame:
        """The load of links that have a rate, of every run of every case."""
        return self._table("links")

    def results(self, case: int) -> Results:
        """All runs of one case, as `simulate` returns them."""
        return joined(self._shelf, case, self._first, self._cases[case].runs)

    def estimate(
        self,
        of: str | Statistic = "total",
        by: Reduction | float | Callable[[Values], float] = "mean",
        *,
        table: TableName = "handovers",
        where: str | None = None,
        confidence: float = CONFIDENCE,
    ) -> pd.DataFrame:
        """The expectation of a statistic in each case, one row per case, with its interval.

        Beside the case's columns: `value`, `low` and `high` in the statistic's unit, and `runs`,
        the number of runs behind them. `low` and `high` are NaN with fewer than two runs.
        """
        statistic = of if isinstance(of, Statistic) else Statistic(of, by, table, where)
        rows: list[dict[str, object]] = []
        for number, case in enumerate(self._cases):
            values = [statistic.per_run(part)[0] for part in self._parts(number, case)]
            found = student_t(values, confidence)
            interval = {"value": found.value, "low": found.low, "high": found.high}
            rows.append({**self._columns(number), **interval, "runs": found.count})
        return pd.DataFrame(rows)

    def _parts(self, number: int, case: Case) -> Iterable[Results]:
        for run in range(self._first, self._first + case.runs):
            yield self._shelf.results(number, run)

    def _table(self, name: TableName) -> pd.DataFrame:
        frames: list[pd.DataFrame] = []
        for number, case in enumerate(self._cases):
            for part in self._parts(number, case):
                frame: pd.DataFrame = getattr(part, name)
                own = pd.DataFrame(self._columns(number), index=frame.index)
                frames.append(pd.concat([own, frame], axis="columns"))
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def _columns(self, number: int) -> dict[str, object]:
        """The case's number and values; a table or array is written as TOML has it."""
        keys = dict.fromkeys(key for case in self._cases for key in case.changes)
        values = self._cases[number].changes
        shown = {key: _shown(values[key]) if key in values else None for key in keys}
        return {"case": number, **shown}


def sweep(
    scenario: str | Path | Scenario,
    vary: Mapping[str, Iterable[object]] | Sequence[Mapping[str, object]],
    *,
    runs: int = 1,
    precision: float | Precision | None = None,
    seed: int | None = None,
    first_run: int = 0,
    out: str | Path | None = None,
    processes: int | None = None,
    client: object = None,
    progress: bool | None = None,
) -> Sweep:
    """Simulate a scenario in several cases, `runs` times each.

    `vary` has the values of each dotted key, and all combinations are cases; or it is a list of
    cases, each with the values that it changes. What a value may be is said at `Scenario.changed`.

    With `out`, each run is written into that directory as soon as it is there. The same call goes
    on where it was interrupted, by Ctrl-C or in any other way, and does only what is missing; more
    values or more runs may be asked for. Another scenario, seed or version is refused. The other
    arguments are those of `simulate`; `precision` is reached in each case.

    Raises `ScenarioError`, `ResultsError` for a directory that cannot be used, and `StudyError` for
    a case that is there twice and where the workers cannot go on.
    """
    base = resolved(scenario, seed)
    changes = _combinations(vary) if isinstance(vary, Mapping) else [dict(case) for case in vary]
    scenarios = [base.changed(case) for case in changes]
    study = _Study(base, changes, scenarios, first_run=first_run)
    title = f"sweeping {base.scenario.name}"
    with progress_bar(title, progress) as report:

        def done(shelf: Shelf) -> list[int]:
            cases = Cases(
                scenarios,
                study.labels,
                shelf,
                first_run=first_run,
                runs=runs,
                precision=precision_of(precision),
                report=report,
            )
            cases.work_off(processes, client)
            return cases.counts

        return study.kept_in(Path(out), runs, done) if out is not None else study.in_memory(done)


@final
class _Study:
    """The cases of a sweep and what identifies them."""

    def __init__(
        self,
        base: Scenario,
        changes: Sequence[dict[str, object]],
        scenarios: Sequence[Scenario],
        *,
        first_run: int,
    ) -> None:
        if not changes:
            raise ValueError("a sweep needs at least one case; vary has none")
        self._base = base
        self._changes = changes
        self._first = first_run
        said = len(base.source.overrides)
        texts = [scenario.source.overrides[said:] for scenario in scenarios]
        self.labels = [" ".join(text) or "as it is" for text in texts]
        self._folders = [folder_name(text) for text in texts]
        if len(set(self._folders)) < len(texts):
            twice = next(label for label in self.labels if self.labels.count(label) > 1)
            raise StudyError(f"the case {twice} is there twice")

    def in_memory(self, done: Callable[[Shelf], list[int]]) -> Sweep:
        shelf = Memory()
        return Sweep(self._cases(done(shelf)), shelf, self._first)

    def kept_in(self, out: Path, runs: int, done: Callable[[Shelf], list[int]]) -> Sweep:
        shelf = Folder(out, self._folders)
        of = _identity(self._base)
        with reserved(out, of):
            self._write(out, of, [runs] * len(self._changes))
            counts = done(shelf)
            self._write(out, of, counts)
            found = Sweep(self._cases(counts), shelf, self._first)
            table = found.cases.assign(folder=self._folders)
            text = table.to_csv(index=False, lineterminator="\n")
            write_files(out, {"cases.csv": text.encode()})
        return found

    def _write(self, out: Path, of: Mapping[str, object], runs: Sequence[int]) -> None:
        cases = [
            {"folder": folder, "runs": count, "values": _plain(values)}
            for folder, count, values in zip(self._folders, runs, self._changes, strict=True)
        ]
        write_manifest(out, {"of": of, "first_run": self._first, "cases": cases})

    def _cases(self, counts: Sequence[int]) -> list[Case]:
        pairs = zip(self._changes, counts, strict=True)
        return [Case(_plain(values), count) for values, count in pairs]


def _combinations(vary: Mapping[str, Iterable[object]]) -> list[dict[str, object]]:
    """All combinations, the last key changing fastest."""
    for key, values in vary.items():
        if isinstance(values, str | Mapping) or not hasattr(values, "__iter__"):
            raise ValueError(
                f"{key}: {values!r} is not a list of values; write {key!r}: [{values!r}]"
            )
    products = itertools.product(*(list(values) for values in vary.values()))
    return [dict(zip(vary, values, strict=True)) for values in products] if vary else []


def _identity(base: Scenario) -> dict[str, object]:
    """What all results of a directory have in common."""
    return {
        "version": mat.__version__,
        "schema_version": SCHEMA_VERSION,
        "scenario": base.source.text,
        "overrides": list(base.source.overrides),
        "movement file": movement_digest(base),
    }


def _plain(values: Mapping[str, object]) -> dict[str, object]:
    """The values as TOML and JSON have them."""
    return {key: plain(value) for key, value in values.items()}


def _shown(value: object) -> object:
    return inline(value) if not isinstance(value, str | int | float) else value


def _unbroken(kept: set[int], first: int, most: int) -> int:
    """How many runs there are before the first that is missing."""
    numbers = itertools.takewhile(kept.__contains__, range(first, first + most))
    return sum(1 for _ in numbers)
