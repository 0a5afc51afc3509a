"""A load test from its begin to its end: is it an IMS, registering the nodes, the load itself."""

from collections.abc import Callable, Sequence
from typing import Final, final

import numpy as np

from mat.address import format_address
from mat.messages import Code
from mat_real.load.forms import Kind
from mat_real.load.generator import LoadGenerator, Report, Stopped, Timing
from mat_real.load.ledger import Fate, Ledger, Note
from mat_real.load.measures import Run, codes
from mat_real.load.patterns import Plan, at_once
from mat_real.load.population import LoadError, Population, Target, target_name
from mat_real.load.volley import Volley

REGISTERING: Final = 200
"""Nodes registered at once before a run: what the smallest usual socket buffer holds. When these
were answered twice and none of them was accepted, none will be."""
_PROBE: Final = Timing(timeout=0.5, give_up=5.0)


def never() -> bool:
    """Nobody ends a stage early."""
    return False


def nothing(_ledger: Ledger, _now: float) -> None:
    """Nobody is told how it goes."""


@final
class Player:
    """Plays nodes against servers. `stopped` ends a stage early; `report` is told how it goes."""

    def __init__(
        self,
        population: Population,
        targets: Sequence[Target],
        *,
        sockets: int = 64,
        seed: int = 1,
        stopped: Callable[[], bool] = never,
        report: Report = nothing,
    ) -> None:
        self.population = population
        self.targets = targets
        self._sockets = sockets
        self._seed = seed
        self._stopped = stopped
        self._report = report

    def play(self, what: str, plan: Plan, timing: Timing) -> Run:
        """Carry out a plan; `what` says in words what it is."""
        return self._play(what, plan, timing, lambda _: self._stopped())

    def _play(
        self,
        what: str,
        plan: Plan,
        timing: Timing,
        stopped: Stopped,
        volley: Volley | None = None,
    ) -> Run:
        volley = volley or self._volley()
        try:
            generator = LoadGenerator(self.population, plan, volley, timing)
            ledger = generator.run(stopped, self._report)
            dropped = volley.dropped
        finally:
            volley.close()
        return Run(
            what,
            self._seed,
            self.targets,
            self.population,
            ledger,
            ledger.verify(self.population),
            dropped,
            volley.unsent,
            volley.unreachable,
            interrupted=self._stopped(),
        )

    def _volley(self) -> Volley:
        try:
            return Volley([target.endpoint for target in self.targets], self._sockets)
        except OSError as error:
            names = ", ".join(map(target_name, self.targets))
            raise LoadError(f"{names}: cannot be reached from here ({error.strerror})") from error

    def probe(self) -> None:
        """Ask each server for one of its nodes. Raises `LoadError` unless all answer."""
        servers, nodes = np.unique(self.population.servers, return_index=True)
        plan = Plan((Kind.QUERY,), nodes, np.zeros(len(nodes)))
        volley = self._volley()

        def decided(ledger: Ledger) -> bool:
            return volley.unreachable > 0 or ledger.heard >= len(plan) or self._stopped()

        run = self._play("probe", plan, _PROBE, decided, volley)
        numbers: list[int] = servers.tolist()
        for request, server in enumerate(numbers):
            self._judge(run, self.targets[server], request)

    def _judge(self, run: Run, target: Target, request: int) -> None:
        if run.interrupted or run.ledger.fates[request] in (Fate.DONE, Fate.FAILED):
            return
        name = target_name(target)
        noted = run.ledger.noted(Note.REFUSED)
        said: set[int] = set(noted.codes[noted.requests == request].tolist())
        if Code.NOT_RESPONSIBLE in said:
            node = int(run.ledger.plan.nodes[request])
            home = format_address(self.population.keys[node].home_address)
            what = f"{name} does not hold the mapping of {home} (code 4)"
            raise LoadError(f"{what}; give the address of the IMS that does")
        if run.unreachable:
            raise LoadError(f"nobody listens at {name}; is the server running, with this port?")
        if not said:
            what = f"no answer from {name} within {_PROBE.give_up:g} s"
            raise LoadError(f"{what}; is it an IMS, and does every firewall let UDP through?")

    def register(self) -> Run:
        """Register all nodes, some hundred at a time. Raises `LoadError` if one could not be."""
        nodes, starts = at_once(len(self.population), np.random.default_rng(self._seed))
        plan = Plan((Kind.UPDATE,), nodes, starts, first=0)

        def hopeless(ledger: Ledger) -> bool:
            everyone = min(len(plan), REGISTERING)
            return self._stopped() or (ledger.done == 0 and ledger.heard >= 2 * everyone)

        run = self._play("registration", plan, Timing(outstanding=REGISTERING), hopeless)
        missing = int(np.count_nonzero(run.ledger.fates != Fate.DONE))
        if missing and not run.interrupted:
            what = f"{missing} of {len(plan)} nodes could not be registered"
            raise LoadError(f"{what}: {_why(run)}")
        return run


def _why(run: Run) -> str:
    """The commonest reason why nodes were not registered."""
    if run.forged:
        return "the MAC of the Reply is wrong; does the server have other keys for these ids?"
    by_code = codes(run.ledger)[Kind.UPDATE]
    if not by_code:
        return f"no answer for {Timing().give_up:g} s"
    code = max(by_code, key=lambda code: by_code[code])
    reasons: dict[int, str] = {
        Code.AUTHENTICATION_FAILED: "it does not know these keys; give it this key file",
        Code.STALE: "it has seen a greater freshness; a clock is wrong",
        Code.NOT_RESPONSIBLE: "it does not hold these home addresses, or the keys are not theirs",
        Code.TRY_AGAIN: "its store does not answer",
    }
    return f"code {code}, {reasons.get(code, 'which should not be')}"
