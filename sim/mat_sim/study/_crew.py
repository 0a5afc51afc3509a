"""Who does the runs: this process, processes on this machine, or the workers of a Dask cluster.

A run is a pure function of scenario, seed and number, so it does not matter who does it, how often
it is tried, or in which order results come: the study is the same, byte for byte. Work goes through
`concurrent.futures`, which Dask's client speaks too.

A worker may be lost: killed for lack of memory, a machine switched off. On this machine its run
goes to a new one in its place; a Dask scheduler gives it to another worker. A run that loses its
worker again and again would do so for ever; at the third time the study ends with a `StudyError`.

Worker processes must not outlive the study: each watches a pipe whose other end the study holds.
When that closes, for Ctrl-C or because the study itself was killed, they end at once. They are deaf
to Ctrl-C, which a terminal sends to all; and they start without the program's main module, so a
script needs no `if __name__ == "__main__"`.
"""

import os
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Generator
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Future,
    ProcessPoolExecutor,
    wait,
)
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any, Final, Protocol, Self, final

import mat
from mat_files.errors import ScenarioError
from mat_files.scenario import Scenario
from mat_sim.engine import Run, simulate
from mat_sim.study._errors import StudyError

_LOSSES: Final = 3
"""Losses of its worker at which a run is not tried again."""
_CONNECT_SECONDS: Final = 10


@final
@dataclass(frozen=True, slots=True)
class Job:
    """One run of one case."""

    case: int
    run: int
    scenario: Scenario


class Plan(Protocol):
    """What there is to do: which run comes next, and what becomes of a finished one."""

    def next_job(self) -> Job | None:
        """A run to begin now; `None` when nothing is left to begin, as far as is known."""
        ...

    def finished(self, job: Job, run: Run) -> None:
        """Take in a finished run."""
        ...

    def failed(self, job: Job, error: ScenarioError) -> ScenarioError:
        """What to raise where a run's scenario could not be run."""
        ...

    def under_way(self, share: float) -> None:
        """So much is done of the run that goes on in this process, 0 to 1."""
        ...


def work(scenario: Scenario, run: int) -> Run:
    """One run, in a worker."""
    return simulate(scenario, None, run)


def work_off(plan: Plan, processes: int, client: object = None) -> None:
    """Do all runs of a plan. Raises what a run raises, and `StudyError`."""
    if client is not None:
        with _cluster(client) as cluster:
            _dispatch(plan, cluster)
    elif processes == 1:
        _here(plan)
    else:
        with _Processes(processes) as pool:
            _dispatch(plan, pool)


def available_processes() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _here(plan: Plan) -> None:
    while (job := plan.next_job()) is not None:
        try:
            run = simulate(job.scenario, lambda now, end: plan.under_way(now / end), job.run)
        except ScenarioError as error:
            raise plan.failed(job, error) from error
        plan.finished(job, run)


class _Crew(Protocol):
    """Workers that take runs."""

    @property
    def lost(self) -> type[BaseException]:
        """What a run raises whose worker was lost."""
        ...

    @property
    def slots(self) -> int:
        """Runs to have under way, so that nobody waits."""
        ...

    def submit(self, job: Job) -> Future[Run]:
        """Begin a run."""
        ...


def _dispatch(plan: Plan, crew: _Crew) -> None:
    under_way: dict[Future[Run], Job] = {}
    again: deque[Job] = deque()
    losses: Counter[tuple[int, int]] = Counter()
    while True:
        slots = crew.slots
        while len(under_way) < slots and (job := _next(again, plan)) is not None:
            under_way[crew.submit(job)] = job
        if not under_way:
            return
        for future in wait(under_way, return_when=FIRST_COMPLETED).done:
            job = under_way.pop(future)
            try:
                run = future.result()
            except crew.lost as error:
                losses[job.case, job.run] += 1
                if losses[job.case, job.run] == _LOSSES:
                    raise _lost_again(job) from error
                again.append(job)
            except ScenarioError as error:
                raise plan.failed(job, error) from error
            except CancelledError as error:
                raise StudyError("the Dask cluster is gone, or took the runs back") from error
            else:
                plan.finished(job, _same_version(run))


def _next(again: deque[Job], plan: Plan) -> Job | None:
    return again.popleft() if again else plan.next_job()


def _lost_again(job: Job) -> StudyError:
    what = f"run {job.run} of {job.scenario.scenario.name} lost its worker {_LOSSES} times"
    return StudyError(
        f"{what}: it was killed, perhaps for lack of memory; with fewer processes each has more"
    )


def _same_version(run: Run) -> Run:
    version = run.results.provenance.version
    if version != mat.__version__:
        what = f"a worker has mat {version}, and this is {mat.__version__}"
        raise StudyError(f"{what}; install the same version everywhere")
    return run


# --- processes on this machine --------------------------------------------------------------------


@final
class _Process:
    """A worker process, made anew when it is lost."""

    def __init__(self) -> None:
        self._under_way: Future[Run] | None = None
        self._begin()

    def _begin(self) -> None:
        context = get_context("spawn")  # a fork of a process with threads may hang
        followed, self._leash = context.Pipe(duplex=False)
        # A pool of one starts its process before it has a thread that could find it broken, and
        # hand over pipes that it is closing; and who is lost takes no other's run along.
        self._pool = ProcessPoolExecutor(
            1, mp_context=context, initializer=_follow, initargs=(followed,)
        )

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing to do."""
        return self._under_way is None or self._under_way.done()

    def submit(self, job: Job) -> Future[Run]:
        """Begin a run."""
        try:
            self._under_way = self._submitted(job)
        except BrokenExecutor:
            self.end()
            self._begin()
            self._under_way = self._submitted(job)
        return self._under_way

    def _submitted(self, job: Job) -> Future[Run]:
        with _apart():
            return self._pool.submit(work, job.scenario, job.run)

    def end(self) -> None:
        """It is not needed any more."""
        self._leash.close()
        self._pool.shutdown(cancel_futures=True)


@final
class _Processes:
    """Worker processes of this machine, each with a run at a time."""

    def __init__(self, count: int) -> None:
        self._processes = [_Process() for _ in range(count)]

    lost = BrokenExecutor

    @property
    def slots(self) -> int:
        """As many runs as there are processes."""
        return len(self._processes)

    def submit(self, job: Job) -> Future[Run]:
        """Begin a run in a process that is idle."""
        return next(one for one in self._processes if one.is_idle).submit(job)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._processes:
            one.end()


@contextmanager
def _apart() -> Generator[None]:
    """While processes start: they inherit no Ctrl-C, and see no main module to import."""
    main = sys.modules["__main__"]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _follow(leash: Connection) -> None:
    """In a worker: end with the study, whatever is being done."""

    def watch() -> None:
        leash.poll(None)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# --- a Dask cluster -------------------------------------------------------------------------------


@final
class _Cluster:
    """The workers of a Dask cluster, as many as there are at the time."""

    def __init__(self, client: Any, lost: type[BaseException]) -> None:
        self.lost = lost
        self._client = client
        # Not pure: Dask would take equal runs of two studies for one.
        self.executor: Any = client.get_executor(pure=False)

    @property
    def slots(self) -> int:
        """Two runs for each thread of a worker, so that the next one is there."""
        threads: dict[str, int] = self._client.nthreads()
        return 2 * max(1, sum(threads.values()))

    def submit(self, job: Job) -> Future[Run]:
        """Begin a run."""
        begun: Future[Run] = self.executor.submit(work, job.scenario, job.run)
        return begun


@contextmanager
def _cluster(client: object) -> Generator[_Cluster]:
    """The cluster of a `distributed.Client`, or of the scheduler at an address."""
    distributed = _distributed()
    if isinstance(client, str):
        with _connected(distributed, client) as connected, _cluster(connected) as cluster:
            yield cluster
        return
    if not isinstance(client, distributed.Client):
        what = f"client is {client!r}; must be a dask.distributed Client or a scheduler's address"
        raise StudyError(f"{what}, such as tcp://192.0.2.1:8786")
    known: Any = client
    try:
        known.wait_for_workers(1, timeout=_CONNECT_SECONDS)
    except TimeoutError:
        raise StudyError(
            "the Dask cluster has no workers; start some: dask worker ADDRESS"
        ) from None
    cluster = _Cluster(known, distributed.KilledWorker)
    try:
        yield cluster
    finally:
        cluster.executor.shutdown(wait=False)


def _distributed() -> Any:
    try:
        return import_module("distributed")
    except ModuleNotFoundError as error:
        what = "a Dask cluster needs the package distributed"
        raise StudyError(f"{what}: pip install 'mat-mobility[cluster]'") from error


@contextmanager
def _connected(distributed: Any, address: str) -> Generator[object]:
    try:
        client: Any = distributed.Client(address, timeout=_CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        what = f"{address}: no Dask scheduler answers there ({error})"
        raise StudyError(f"{what}; its address is in what dask scheduler prints") from error
    with client:
        yield client
