"""How long an IMS works on a message, seen from outside, in the form that the simulator takes.

What a worker's throughput depends on is the mean service time when it always has work, and that is
the time between two answers of a worker that is kept busy (*saturated*): requests from one source
port, so that one worker gets them all, and so many under way that it never waits. But servers work
in batches, so how the times scatter cannot be seen there. It is seen when one request is under way
at a time (*alone*): the round trip, less that of a server which does nothing (`echo`), over the
same way. That contains being woken up, which a busy server is not; so the distribution has its
shape from the one and its mean from the other.

An IMS Update is answered when it is durable, and a store may take long over that without holding
the worker. Its service time therefore has the shape of an MA Query's. What it takes when alone,
beyond its service time made longer as that of an MA Query is, is given as the time of the store.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from mat import __version__
from mat.address import format_address, is_ipv4
from mat.messages import Endpoint
from mat_files.distributions import Empirical
from mat_real.load import echo
from mat_real.load.forms import Kind
from mat_real.load.generator import Report, Timing
from mat_real.load.ledger import Fate, Ledger
from mat_real.load.measures import NAMES_OF_KINDS
from mat_real.load.patterns import Plan
from mat_real.load.play import Player, never, nothing
from mat_real.load.population import LoadError, Population, Target, target_name

KINDS: Final = (Kind.UPDATE, Kind.NOTIFY, Kind.QUERY)
_SERVICES: Final = {Kind.UPDATE: "update", Kind.NOTIFY: "notify", Kind.QUERY: "query"}
"""Names in the table `services` of an [[ims]]."""
POINTS: Final = 101
"""Quantiles of a distribution."""
LAST: Final = 0.999
"""The share that the last quantile stands for: the maximum is mostly the machine's noise."""

ALONE: Final = 2000
"""Requests under way one at a time."""
_SATURATED: Final = 20_000
"""Requests of the saturated stage, or what takes `_SATURATED_TIME`, if that is less."""
_SATURATED_TIME: Final = 3.0
_FEWEST: Final = 1000
_OUTSTANDING: Final = 256
"""Requests under way when saturated: more than a worker answers in a turn of our loop."""
_GIVE_UP: Final = 5.0
_EDGES: Final = (0.1, 0.9)
"""Shares of the answers between which throughput is measured."""

Times = NDArray[np.float64]


@final
@dataclass(frozen=True, slots=True)
class Stage:
    """What was measured of one kind of message."""

    alone: Times
    """Round trips with one request under way, s, in order."""
    rate: float
    """Answers per second of one worker that is kept busy."""
    answered: int
    """Answers that the rate was measured over."""


@final
@dataclass(frozen=True, slots=True)
class Calibration:
    """The service times of one worker of a server, s."""

    server: str
    path: str
    """How the time of the way was found."""
    way: float
    """The time of the way, s."""
    stages: dict[Kind, Stage]

    def service(self, kind: Kind) -> Empirical:
        """The time that a worker spends on a message of this kind."""
        shape = self.stages[Kind.QUERY if kind is Kind.UPDATE else kind]
        return _scaled(np.maximum(shape.alone - self.way, 0.0), 1 / self.stages[kind].rate)

    def mixed(self) -> Empirical:
        """The same for a message of any kind, each as frequent as the others."""
        parts = [self.service(kind) for kind in KINDS]
        quantiles = [part.quantiles for part in parts]
        levels = np.linspace(0, 1, 10 * POINTS)
        pooled = [np.interp(levels, np.linspace(0, 1, len(p)), p) for p in quantiles]
        mean = sum(part.mean for part in parts) / len(parts)
        return _scaled(np.sort(np.concatenate(pooled)), mean)

    def store(self) -> Empirical:
        """The time until an update is durable, spent without holding a worker."""
        update, query = self.stages[Kind.UPDATE], self.stages[Kind.QUERY]
        slower = (float(np.median(query.alone)) - self.way) * query.rate
        work = self.way + max(slower, 1.0) / update.rate
        return Empirical(tuple(map(_rounded, _points(np.maximum(update.alone - work, 0.0)))))

    def as_json(self) -> bytes:
        """The file `calibration.json` (docs/load.md)."""
        content = {
            "format": 1,
            "version": __version__,
            "server": self.server,
            "way": {"how": self.path, "median": _rounded(self.way)},
            "messages": {
                NAMES_OF_KINDS[kind]: {
                    "service": _described(self.service(kind)),
                    "alone": {
                        "samples": len(stage.alone),
                        "round_trip": [_rounded(value) for value in _points(stage.alone)],
                    },
                    "saturated": {"answers": stage.answered, "rate": round(stage.rate, 1)},
                }
                for kind, stage in self.stages.items()
            },
            "mixed": _described(self.mixed()),
            "store": _described(self.store()),
        }
        return (json.dumps(content, indent=1) + "\n").encode()

    def as_toml(self) -> bytes:
        """The file `calibration.toml`: lines for an [[ims]] of a scenario."""
        lines = [
            f"# One worker of {self.server}, measured by mat ims load --calibrate ({__version__}).",
            "# For an [[ims]] of a scenario; service is of equal shares of the three types.",
            f"service = {self.mixed()}",
            *(f"services.{_SERVICES[kind]} = {self.service(kind)}" for kind in KINDS),
            f"store = {self.store()}",
            "",
        ]
        return "\n".join(lines).encode()


def _described(distribution: Empirical) -> dict[str, object]:
    return {"mean": distribution.mean, "quantiles": distribution.quantiles}


def _points(times: Times) -> list[float]:
    """The quantiles of a sample, the last standing for `LAST`."""
    levels = np.minimum(np.linspace(0, 1, POINTS), LAST)
    points: list[float] = np.quantile(times, levels).tolist()
    return points


def _scaled(times: Times, mean: float) -> Empirical:
    """The distribution of a sample, stretched to a mean."""
    points = Empirical(tuple(_points(times)))
    factor = mean / points.mean if points.mean else 0.0
    scaled = [_rounded(value * factor) for value in points.quantiles]
    return Empirical(tuple(scaled) if factor else (mean, mean))


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def calibrate(
    population: Population,
    target: Target,
    *,
    alone: int = ALONE,
    stopped: Callable[[], bool] = never,
    report: Report = nothing,
) -> Calibration | None:
    """Measure a server whose nodes are registered; None if it was stopped.

    `alone` is how many requests of each kind are under way one at a time. Raises `LoadError` where
    the server does not answer well enough.
    """
    player = Player(population, [target], sockets=1, stopped=stopped, report=report)
    try:
        return _calibrated(player, target, alone)
    except _StoppedError:
        return None


class _StoppedError(Exception):
    pass


def _calibrated(player: Player, target: Target, alone: int) -> Calibration:
    random, population = np.random.default_rng(), player.population
    stages: dict[Kind, Stage] = {}
    for kind in KINDS:
        trips = _round_trips(_stage(player, kind, alone, 1, random))
        number = int(np.clip(_SATURATED_TIME / float(np.median(trips)), _FEWEST, _SATURATED))
        busy = _stage(player, kind, number, min(_OUTSTANDING, len(population)), random)
        stages[kind] = Stage(trips, *_rate(busy))
    path, way = _way(population, target, stages, alone, random)
    return Calibration(target_name(target), path, way, stages)


def _stage(
    player: Player, kind: Kind, number: int, outstanding: int, random: np.random.Generator
) -> Ledger:
    nodes = np.resize(random.permutation(len(player.population)), number)
    plan = Plan((kind,), nodes, np.zeros(number))
    timing = Timing(give_up=_GIVE_UP, outstanding=outstanding)
    run = player.play("calibration", plan, timing)
    if run.interrupted:
        raise _StoppedError
    ledger = run.ledger
    done = int(np.count_nonzero(ledger.fates == Fate.DONE))
    if done < 0.9 * ledger.begun or done < 2:
        what = f"only {done} of {ledger.begun} {NAMES_OF_KINDS[kind]} were answered rightly"
        raise LoadError(f"{what}: that is no base for a calibration")
    return ledger


def _round_trips(ledger: Ledger) -> Times:
    """Of the requests that needed one transmission only."""
    good = (ledger.fates == Fate.DONE) & (ledger.attempts == 1)
    trips: Times = (ledger.answered - ledger.sent)[good]
    return trips


def _rate(ledger: Ledger) -> tuple[float, int]:
    """Answers per second in the middle of a stage, and how many they were."""
    times = np.sort(ledger.answered[ledger.fates == Fate.DONE])
    first, last = (int(share * (len(times) - 1)) for share in _EDGES)
    return (last - first) / float(times[last] - times[first]), last - first


# ---- the way -------------------------------------------------------------------------------------


def _way(
    population: Population,
    target: Target,
    stages: dict[Kind, Stage],
    alone: int,
    random: np.random.Generator,
) -> tuple[str, float]:
    """How the time of the way was found, and the time, s."""
    address = target.endpoint.address
    if not _is_loopback(target):
        least = min(float(stage.alone.min()) for stage in stages.values())
        return "least round trip to the server", least
    with _echo(format_address(address)) as port:
        there = Player(population, [Target(Endpoint(address, port))], sockets=1)
        trips = _round_trips(_stage(there, Kind.QUERY, alone, 1, random))
    return "median round trip to a server on loopback that does nothing", float(np.median(trips))


def _is_loopback(target: Target) -> bool:
    address = target.endpoint.address
    return address[12] == 127 if is_ipv4(address) else address == bytes(15) + b"\x01"


@contextmanager
def _echo(address: str) -> Generator[int]:
    """The port of an echo on an own address; its process ends with the context."""
    command = [sys.executable, "-I", str(Path(echo.__file__)), address]
    piped = subprocess.PIPE
    with subprocess.Popen(command, stdin=piped, stdout=piped) as process:  # noqa: S603  # our own
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
