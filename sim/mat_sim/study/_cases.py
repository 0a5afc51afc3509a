"""The plan of a study: the runs of all its cases, and where finished ones are kept.

Cases take their turns in order; a run that may turn out not to be needed (`_stopping.py`) is begun
only when nobody has another. A finished run is kept as soon as it is known to be needed, so that
what is kept does not depend on who was how fast.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import final

from mat_files.errors import Problem, ScenarioError
from mat_files.results import Results
from mat_files.scenario import Scenario
from mat_sim.engine import Run
from mat_sim.memory import check_memory
from mat_sim.study._crew import Job, available_processes, work_off
from mat_sim.study._errors import PrecisionNotReached
from mat_sim.study._progress import Report
from mat_sim.study._recipe import stamped
from mat_sim.study._shelf import Shelf
from mat_sim.study._stopping import Precision, Replications


@final
class Cases:
    """The runs to do for a list of scenarios, `labels` being their names in messages."""

    def __init__(
        self,
        scenarios: Sequence[Scenario],
        labels: Sequence[str],
        shelf: Shelf,
        *,
        first_run: int = 0,
        runs: int = 1,
        precision: Precision | None = None,
        report: Report,
        watch: Callable[[Job, Run], None] | None = None,
    ) -> None:
        if runs < 1:
            raise ValueError(f"runs is {runs}; must be 1 or more")
        self._scenarios = scenarios
        self._labels = labels
        self._shelf = shelf
        self._first = first_run
        self._precision = precision
        self._report = report
        self._watch = watch
        self._held: dict[tuple[int, int], Results] = {}
        self._replications = [Replications(runs, precision) for _ in scenarios]
        self._done = 0
        for case in range(len(scenarios)):
            self._resume(case)

    @property
    def counts(self) -> list[int]:
        """The number of runs of each case, once all is done."""
        return [replications.expected for replications in self._replications]

    def work_off(self, processes: int | None, client: object) -> None:
        """Do all runs that are missing. Raises what a run raises, and `StudyError`."""
        if processes is not None and processes < 1:
            raise ValueError(f"processes is {processes}; must be 1 or more")
        self._tell(0.0)
        missing = sum(self.counts) - self._done
        if missing or self._precision is not None:
            at_once = missing if self._precision is None else max(missing, available_processes())
            used = processes or min(available_processes(), at_once)
            if client is None:
                self._check_memory(used)
            work_off(self, used, client)
        self._warn()

    def _check_memory(self, processes: int) -> None:
        for case, scenario in enumerate(self._scenarios):
            try:
                check_memory(scenario, processes)
            except ScenarioError as error:
                raise self.failed(Job(case, self._first, scenario), error) from error

    def next_job(self) -> Job | None:
        """As `Plan` has it."""
        for surely in (True, False):
            for case, replications in enumerate(self._replications):
                run = replications.next_run(surely=surely)
                if run is not None:
                    return Job(case, self._first + run, self._scenarios[case])
        return None

    def finished(self, job: Job, run: Run) -> None:
        """As `Plan` has it."""
        if self._watch is not None:
            self._watch(job, run)
        results = stamped(run.results, job.run, 1)
        self._held[job.case, job.run - self._first] = results
        self._replications[job.case].finished(job.run - self._first, self._value(results))
        self._sort_out(job.case)
        self._tell(0.0)

    def under_way(self, share: float) -> None:
        """As `Plan` has it."""
        self._tell(share)

    def failed(self, job: Job, error: ScenarioError) -> ScenarioError:
        """As `Plan` has it: the error, with the case that it is one of."""
        label = self._labels[job.case]
        if not label:
            return error
        return ScenarioError(
            Problem(f"{label}: {problem.where}", problem.field, problem.what)
            for problem in error.problems
        )

    def _resume(self, case: int) -> None:
        for run in sorted(self._shelf.kept(case)):
            if self._replications[case].possible(run - self._first):
                value = self._value(self._shelf.results(case, run)) if self._precision else 0.0
                self._replications[case].finished(run - self._first, value)
                self._done += 1

    def _value(self, results: Results) -> float:
        return self._precision.of.per_run(results)[0] if self._precision else 0.0

    def _sort_out(self, case: int) -> None:
        """Keep what is needed by now, drop what is not."""
        for held, run in [key for key in self._held if key[0] == case]:
            needed = self._replications[case].needed(run)
            if needed is not None:
                results = self._held.pop((held, run))
                if needed:
                    self._shelf.keep(case, self._first + run, results)
                    self._done += 1

    def _tell(self, share: float) -> None:
        self._report(self._done + share, sum(self.counts))

    def _warn(self) -> None:
        for label, replications in zip(self._labels, self._replications, strict=True):
            if not replications.reached:
                assert self._precision is not None
                found = replications.estimate()
                what = f"{label}: " if label else ""
                what += f"{self._precision.of.name} after {found.count} runs is {found}:"
                what += f" ± {found.relative:.1%}; wanted were ± {self._precision.relative:.1%}"
                warnings.warn(what, PrecisionNotReached, stacklevel=4)


def precision_of(precision: float | Precision | None) -> Precision | None:
    """A number as the relative precision of the mean total."""
    if precision is None or isinstance(precision, Precision):
        return precision
    return Precision(precision)


def resolved(scenario: str | Scenario | object, seed: int | None) -> Scenario:
    """The scenario that is meant by a name, a path or itself, checked, with another seed if given.

    Raises `ScenarioError`.
    """
    loaded = scenario if isinstance(scenario, Scenario) else Scenario.load(str(scenario))
    return loaded.changed({} if seed is None else {"scenario.seed": seed})
