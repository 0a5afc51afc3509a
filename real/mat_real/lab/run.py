"""A scenario from begin to end: what `mat lab run` does.

The lab is built, servers, MAT daemons and traffic are started, movement is played, results are
written. Movement takes as long as the scenario says, as all that is in the lab is real; what comes
before it takes as long as its programs take to start.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from mat_files.capture import check_place
from mat_files.mobility import Mobility, mobility
from mat_files.results import Results, check_directory
from mat_files.scenario import Scenario
from mat_real.lab.from_scenario import asks_dhcp, plan_of
from mat_real.lab.handovers import write_results
from mat_real.lab.lab import PROGRAMS, PROGRAMS_OF_NODES, Lab
from mat_real.lab.plan import Plan
from mat_real.lab.play import Played
from mat_real.lab.programs import require
from mat_real.lab.streams import Stream

Report = Callable[[float, float], None]
"""Called now and then while movement is played: seconds so far, and in all."""

_SERVERS_TIME: Final = 5.0
_DAEMON_TIME: Final = 1.0
_NETWORK_TIME: Final = 0.2
"""Seconds that starting takes on two cores: servers and links, each daemon, each network."""
_LOOK: Final = 0.5


@final
@dataclass(frozen=True, slots=True)
class Outlook:
    """What a scenario is in the lab: `networks`, `mobile` nodes and `fixed` ones, and seconds.

    `movement` is as long as the scenario says, `starting` about what comes before it.
    """

    networks: int
    mobile: int
    fixed: int
    movement: float
    starting: float


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it: handovers by outcome, and by how much a change of links was late, s."""

    handovers: Counter[str]
    late: float


@final
class ScenarioRun:
    """A scenario that is to be played in a lab.

    Raises `LabError` where the lab cannot do what it says, and `ScenarioError` for its movement.
    """

    def __init__(self, scenario: Scenario, capture: Path | None = None) -> None:
        """What is recorded goes into the file `capture` as well."""
        self.capture = capture
        self._scenario = scenario
        self._moves: Mobility = mobility(scenario)
        self._plan: Plan = plan_of(scenario, plain=(), moves=self._moves)

    def outlook(self) -> Outlook:
        """How large it is and how long it will take."""
        plan = self._plan
        mobile = sum(node.mobile for node in plan.nodes)
        starting = _SERVERS_TIME + _NETWORK_TIME * len(plan.networks)
        starting += _DAEMON_TIME * len(plan.nodes)
        fixed = len(plan.nodes) - mobile
        return Outlook(len(plan.networks), mobile, fixed, self._moves.end, starting)

    def play(self, out: Path, logs: Path, report: Report, *, dhcp: bool) -> Outcome:
        """Play it, and write the results into `out`; logs go to `logs`, an empty folder.

        Addresses come when the scenario says; with `dhcp`, or where the scenario has it, when DHCP
        brings them. Raises `LabError`, `CaptureError` and `ResultsError`.
        """
        dhcp = dhcp or asks_dhcp(self._scenario)
        require(PROGRAMS | PROGRAMS_OF_NODES)
        check_directory(out)
        if self.capture is not None:
            check_place(self.capture)
        names = [node.name for node in self._plan.nodes]
        mobile = [node.name for node in self._plan.nodes if node.mobile]
        with Lab(self._plan, logs) as lab:
            lab.record()
            lab.start_servers()
            lab.start_nodes(names, dhcp=dhcp)
            lab.check()
            streams = lab.start_traffic(self._scenario, held=self._moves)
            played = asyncio.run(self._play(lab, [] if dhcp else mobile, report))
            return self._finish(out, played, streams)

    async def _play(self, lab: Lab, configured: Sequence[str], report: Report) -> Played:
        ticking = asyncio.create_task(_tick(self._moves.end, report))
        try:
            return await lab.play(self._scenario, configured=configured, moves=self._moves)
        finally:
            ticking.cancel()

    def _finish(self, out: Path, played: Played, streams: Sequence[Stream]) -> Outcome:
        for stream in streams:
            stream.stop()
        write_results(out, self._scenario, self._plan, played, streams)
        if self.capture is not None:
            played.recording.write(self.capture)
        outcomes = Counter(map(str, Results.read(out).handovers["outcome"]))
        late = max((move.late for move in played.moves), default=0.0)
        return Outcome(outcomes, late)


async def _tick(end: float, report: Report) -> None:
    begin = time.monotonic()
    while True:
        report(min(end, time.monotonic() - begin), end)
        await asyncio.sleep(_LOOK)
