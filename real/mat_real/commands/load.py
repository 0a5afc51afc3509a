"""`mat ims load`: the load test of mapping servers. Light to import."""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final, final

import click

from mat_files.command_line import scenario_argument
from mat_files.library import find_scenario
from mat_real.commands.key import DEFAULT_FILE, PATH

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.random import Generator as Generator_
    from rich.console import Console

    from mat_files.scenario import Scenario
    from mat_real.load.calibration import Calibration
    from mat_real.load.generator import Timing
    from mat_real.load.ledger import Ledger
    from mat_real.load.measures import Run
    from mat_real.load.patterns import Plan
    from mat_real.load.play import Player
    from mat_real.load.population import Population, Target

_WIDTH: Final = 132
"""Columns of the tables where the output is no terminal."""
_LATELY: Final = 0.2
"""Seconds: a loop that runs asks every few milliseconds whether it is to stop."""
_PATTERNS: Final[dict[str, tuple[str, ...]]] = {
    "simultaneous": ("window",),
    "steady": ("rate", "duration"),
    "poisson": ("rate", "duration"),
    "scenario": ("speed",),
}
"""The patterns, and the options that each takes."""
_PLURALS: Final = {"handover": "handovers", "update": "IMS Updates", "query": "MA Queries"}


@final
@dataclass(frozen=True, slots=True)
class _Options:
    """What was asked for on the command line."""

    pattern: str | None
    scenario: str | None
    servers: tuple[str, ...]
    keys: Path
    nodes: int | None
    messages: str
    window: float | None
    rate: float | None
    duration: float | None
    speed: float | None
    timeout: float
    give_up: float
    register: bool
    calibrate: bool
    sockets: int
    seed: int
    cpu: int | None
    out: Path | None

    def texts(self) -> list[str]:
        """All that shapes the load, as KEY=VALUE: what is written beside the results."""
        names = (
            *("pattern", "scenario", "nodes", "messages", "window", "rate", "duration", "speed"),
            *("timeout", "give_up", "register", "sockets"),
        )
        values = ((name, getattr(self, name)) for name in names)
        return [f"load.{name}={value}" for name, value in values if value is not None]


@click.command("load", short_help="Load test: nodes by the thousand against mapping servers.")
@click.argument("pattern", type=click.Choice(list(_PATTERNS)), required=False)
@scenario_argument(required=False)
@click.option(
    "--server",
    "servers",
    multiple=True,
    required=True,
    metavar="[PREFIX=]ADDRESS[:PORT]",
    help="IMS under test; with PREFIX that of these home addresses. May be given more than once.",
)
@click.option(
    "--keys",
    type=PATH,
    default=DEFAULT_FILE,
    show_default=True,
    help="Key file of the IMS; its keys are the nodes.",
)
@click.option(
    "--nodes", type=click.IntRange(min=1), help="Play the first so many keys. Default: all."
)
@click.option(
    "--messages",
    type=click.Choice(["handover", "update", "query"]),
    default="handover",
    show_default=True,
    help="What a node does when its time comes.",
)
@click.option("--window", type=click.FloatRange(0), help="simultaneous: s.  [default: 1]")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="steady, poisson: per s.")
@click.option("--duration", type=click.FloatRange(0, min_open=True), help="steady, poisson: s.")
@click.option(
    "--speed",
    type=click.FloatRange(0, min_open=True),
    help="scenario: so many times as fast.  [default: 1]",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.01, 32),
    default=1.0,
    show_default=True,
    help="Until the first retransmission, s; it doubles from there.",
)
@click.option(
    "--give-up",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    show_default=True,
    help="After the last start, s: what is not answered then is lost for good.",
)
@click.option(
    "--register/--no-register",
    default=True,
    show_default=True,
    help="Register all nodes first.",
)
@click.option("--calibrate", is_flag=True, help="Measure the service times too, for the simulator.")
@click.option(
    "--sockets",
    type=click.IntRange(1, 256),
    default=64,
    show_default=True,
    help="Source ports for each server.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Of who talks to whom, and of random times.",
)
@click.option("--cpu", type=click.IntRange(min=0), help="Run on this processor only.")
@click.option(
    "--out",
    type=PATH,
    help="Write Parquet, CSV, PNG and JSON into this directory.",
)
def load(**given: object) -> None:
    """Play nodes against one or more mapping servers (IMS) and say how they held.

    PATTERN says when nodes begin: simultaneous (all within a window), steady or poisson (at a
    rate), or scenario (when SCENARIO's nodes attach to networks; a file, or a name such as town).

    \b
    mat key new 10.1.0.0/16 --each --count 10000 --keys load.keys
    mat ims load simultaneous --server 127.0.0.1 --keys load.keys --out results
    mat ims load steady --messages query --rate 10000 --duration 5 \\
        --server 127.0.0.1 --keys load.keys
    mat ims load scenario town --speed 50 --server 127.0.0.1 --keys load.keys
    mat ims load --calibrate --server 127.0.0.1 --keys load.keys --out calibration

    A handover is an IMS Update and, when it was accepted, an HA Notify to the IMS of the node's
    peer and the peer's MA Query. Requests, authentication and retransmissions are the protocol's.
    Times are fixed beforehand: a slow server does not slow the load down. Only servers of your own:
    nothing is sent to any other address. docs/load.md says how to start one for a test, and how
    to read the figures.
    """
    options = _Options(**given)  # type: ignore[arg-type]  # click has checked them
    _check(options)
    with _translated_errors():
        _load(options)


def _check(options: _Options) -> None:
    """Whether the options go together. Raises `click.UsageError`."""
    if options.pattern is None and not options.calibrate:
        raise click.UsageError(f"a PATTERN is missing: {', '.join(_PATTERNS)}; or --calibrate")
    allowed = _PATTERNS.get(options.pattern or "", ())
    for name in ("window", "rate", "duration", "speed"):
        if getattr(options, name) is not None and name not in allowed:
            fitting = ", ".join(p for p, names in _PATTERNS.items() if name in names)
            what = f"not with {options.pattern}" if options.pattern else "and not alone"
            raise click.UsageError(f"--{name} goes with {fitting}, {what}")
        if name in ("rate", "duration") and name in allowed and getattr(options, name) is None:
            raise click.UsageError(f"--{name} is missing: {options.pattern} needs it")
    if (options.pattern == "scenario") != (options.scenario is not None):
        raise click.UsageError(
            "SCENARIO goes with the pattern scenario: mat ims load scenario town"
        )
    if options.calibrate and len(options.servers) > 1:
        raise click.UsageError("--calibrate measures one server: give one --server")
    if options.nodes is not None and options.pattern == "scenario":
        raise click.UsageError("--nodes goes with other patterns: a scenario has its own nodes")
    if options.calibrate and not options.register:
        raise click.UsageError("--calibrate needs registered nodes: leave out --no-register")


@contextmanager
def _translated_errors() -> "Generator[None]":
    """Bad input as an error of the command line: message, exit code 1, no traceback."""
    from mat_files.errors import InputError, ResultsError
    from mat_real.load.population import LoadError

    try:
        yield
    except (InputError, ResultsError, LoadError) as error:
        raise click.ClickException(str(error)) from error


def _load(options: _Options) -> None:
    from rich.console import Console

    from mat_files.results import check_directory

    if options.out is not None:
        check_directory(options.out)
    _pin(options.cpu)
    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        reconfigure(errors="replace")
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    with _interrupts() as interrupted:
        _Session(options, console, interrupted).run()
    if interrupted():
        raise KeyboardInterrupt


def _pin(cpu: int | None) -> None:
    if cpu is not None:
        try:
            os.sched_setaffinity(0, {cpu})
        except OSError as error:
            possible = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
            what = f"--cpu {cpu}: {error.strerror}; this process may run on {possible}"
            raise click.ClickException(what) from error


@final
class _Interrupt:
    """Ctrl-C as a question, so that it ends a run between two turns of its loop.

    Where nobody has asked lately, as while datagrams are prepared, it is the usual exception.
    """

    def __init__(self) -> None:
        self._pressed = False
        self._asked = 0.0

    def __call__(self) -> bool:
        """Whether Ctrl-C was pressed."""
        self._asked = time.monotonic()
        return self._pressed

    def press(self, _signal: int, _frame: FrameType | None) -> None:
        """The signal's handler."""
        if self._pressed or time.monotonic() > self._asked + _LATELY:
            raise KeyboardInterrupt
        self._pressed = True


@contextmanager
def _interrupts() -> "Generator[_Interrupt]":
    interrupt = _Interrupt()
    before = signal.signal(signal.SIGINT, interrupt.press)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)


def _target(text: str) -> "Target":
    from mat_real.load.population import parse_target

    try:
        return parse_target(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--server") from error


def _check_system(scenario: "Scenario") -> None:
    """Only MAT's messages can be sent; whose servers would answer others?"""
    from mat_files.errors import Problem, ScenarioError, shown

    system = scenario.scenario.system
    if system != "mat":
        what = f'is {shown(system)}; must be "mat", whose messages a load test sends'
        raise ScenarioError([Problem(str(scenario.source.path), "scenario.system", what)])


@final
class _Session:
    """One call of the command, step by step."""

    def __init__(
        self, options: _Options, console: "Console", interrupted: "Callable[[], bool]"
    ) -> None:
        self._options = options
        self._console = console
        self._interrupted = interrupted
        self._targets = [_target(text) for text in options.servers]
        self._scenario_text = ""
        self._stage = ""

    def run(self) -> None:
        """Prepare, register, calibrate, play, and say what came of it."""
        options = self._options
        population, what, plan = self._prepared()
        self._announce(population, what, plan)
        player = self._player(population)
        player.probe()
        if options.register:
            self._stage = "registering"
            player.register()
        calibration = self._calibrated(population) if options.calibrate else None
        run = None
        if plan is not None and not self._interrupted():
            self._stage = "playing"
            run = player.play(what, plan, self._timing())
        self._wipe()
        self._show(run, calibration)
        if options.out is not None and not self._interrupted():
            self._write(options.out, run, calibration)

    # ---- before --------------------------------------------------------------------------------

    def _prepared(self) -> "tuple[Population, str, Plan | None]":
        """The nodes, and what they will do, in words and as a plan."""
        import numpy as np

        from mat_real.load.patterns import CHAINS, Plan, poisson, simultaneous, steady

        options = self._options
        random = np.random.default_rng(options.seed)
        kinds, names = CHAINS[options.messages], _PLURALS[options.messages]
        if options.scenario is not None:
            return self._of_scenario(options.scenario, random)
        population = self._population(options.nodes, random)
        if options.pattern is None:
            return population, "", None
        if options.pattern == "simultaneous":
            window = 1.0 if options.window is None else options.window
            pattern = simultaneous(window)
            what = f"{names} of {len(population)} nodes within {window:g} s"
        else:
            assert options.rate is not None
            assert options.duration is not None
            pattern = (steady if options.pattern == "steady" else poisson)(
                options.rate, options.duration
            )
            what = f"{names} at {options.rate:g} a second for {options.duration:g} s"
            what += ", Poisson" if options.pattern == "poisson" else ""
        return population, what, Plan(kinds, *pattern(len(population), random))

    def _of_scenario(
        self, name: str, random: "Generator_"
    ) -> "tuple[Population, str, Plan | None]":
        from mat_files.mobility import mobility
        from mat_files.scenario import load_scenario
        from mat_real.load.patterns import CHAINS, Plan, from_scenario

        options = self._options
        scenario = load_scenario(find_scenario(name))
        _check_system(scenario)
        movement = mobility(scenario)
        speed = options.speed or 1.0
        nodes, starts, networks = from_scenario(
            movement.events, movement.nodes, speed, movement.end
        )
        self._scenario_text = scenario.source.text
        names = _PLURALS[options.messages]
        what = f"{names} of {scenario.scenario.name}'s {len(movement.nodes)} nodes"
        what += f", {speed:g} times as fast" if speed != 1 else ""
        population = self._population(len(movement.nodes), random)
        return population, what, Plan(CHAINS[options.messages], nodes, starts, networks=networks)

    def _population(self, count: int | None, random: "Generator_") -> "Population":
        from mat_real.keys import load as load_keys
        from mat_real.load.population import populate

        now = time.time()
        entries = load_keys(self._options.keys).entries()
        keys = (entry.key() for entry in entries if entry.until > now)
        return populate(keys, self._targets, count, random)

    def _announce(self, population: "Population", what: str, plan: "Plan | None") -> None:
        """Say what will be sent, and where, before anything is."""
        from mat_real.load.population import idle_targets, target_name

        options, idle = self._options, idle_targets(population, self._targets)
        for target in idle:
            warning = f"no node belongs to {target_name(target)}: it is sent nothing"
            why = "each home address goes to the --server with the longest PREFIX that it is in"
            click.echo(f"Warning: {warning}; {why}.", err=True)
        to = ", ".join(target_name(target) for target in self._targets if target not in idle)
        steps: list[str] = []
        if options.register:
            steps.append(f"{len(population)} registrations")
        if options.calibrate:
            steps.append("a calibration, about 15 s")
        if plan is not None:
            requests = len(plan) * len(plan.kinds)
            end = plan.last_start + options.give_up
            steps.append(f"{what}: {requests} requests, over after {end:.1f} s at most")
        self._console.print(
            f"To {to}: {'; then '.join(steps)}.", markup=False, highlight=False, soft_wrap=True
        )

    def _player(self, population: "Population") -> "Player":
        from mat_real.load.play import Player

        return Player(
            population,
            self._targets,
            sockets=self._options.sockets,
            seed=self._options.seed,
            stopped=self._interrupted,
            report=self._progress,
        )

    def _timing(self) -> "Timing":
        from mat_real.load.generator import Timing

        return Timing(self._options.timeout, self._options.give_up)

    # ---- meanwhile and after -------------------------------------------------------------------

    def _progress(self, ledger: "Ledger", now: float) -> None:
        """One line that is written over: a progress bar would take time from the load."""
        if sys.stderr.isatty():
            begun = f"{ledger.begun} of {len(ledger.plan)} begun, {ledger.open} requests open"
            sys.stderr.write(f"\r{self._stage}, {now:.0f} s: {begun}\x1b[K")
            sys.stderr.flush()

    def _wipe(self) -> None:
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _calibrated(self, population: "Population") -> "Calibration | None":
        from mat_real.load.calibration import calibrate

        self._stage = "calibrating"
        return calibrate(
            population, self._targets[0], stopped=self._interrupted, report=self._progress
        )

    def _show(self, run: "Run | None", calibration: "Calibration | None") -> None:
        if run is not None:
            from mat_real.load.report import print_summary

            print_summary(run, self._console)
        if calibration is not None:
            text = calibration.as_toml().decode()
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _write(self, out: Path, run: "Run | None", calibration: "Calibration | None") -> None:
        from mat_files.results import write_files

        files: dict[str, bytes] = {}
        if calibration is not None:
            files["calibration.json"] = calibration.as_json()
            files["calibration.toml"] = calibration.as_toml()
        if run is not None:
            from mat_real.load.report import figure
            from mat_real.load.tables import results, summary

            options = self._options.texts()
            files |= {"load.png": figure(run), "load.json": summary(run, options)}
            results(run, self._scenario_text, options).write(out, files)
        else:
            write_files(out, files)
        names = [*(["tables as Parquet and CSV"] if run is not None else []), *files]
        self._console.print(f"\nWritten to {out}: {', '.join(names)}.", soft_wrap=True)
