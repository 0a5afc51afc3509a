"""A run: build the world that a scenario describes, let it go, write down what happened."""

import gc
import ipaddress
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Final, final

import pandas as pd

from mat import __version__
from mat.address import Address
from mat.authentication import Key
from mat.messages import MAT_PORT, Endpoint
from mat.parameters import Parameters
from mat.server import MappingServer
from mat_files.errors import Problem, ScenarioError, trace_error
from mat_files.frames import frame_of
from mat_files.mobility import Mobility, mobility, movement_digest
from mat_files.results import Provenance, Results
from mat_files.scenario import Ims, Scenario
from mat_files.schema import IMS, MESSAGES, Schema
from mat_sim.engine._acquaintance import Acquaintance
from mat_sim.engine._clock import Clock
from mat_sim.engine._dormancy import Dormitory, Packing
from mat_sim.engine._feed import Feed
from mat_sim.engine._flow import DOWN, UP, Flow
from mat_sim.engine._handovers import Handovers
from mat_sim.engine._host import Host, Machines, Sending, key_of_host
from mat_sim.engine._network import Network, Site
from mat_sim.engine._pool import Pool, address_in
from mat_sim.engine._roamer import Access
from mat_sim.engine._station import Station
from mat_sim.engine._tally import Tally
from mat_sim.engine._timetable import Timetable, presence
from mat_sim.engine._wiring import Wiring
from mat_sim.engine._zones import Zones
from mat_sim.ladder import LadderMessage

_IMS_SPACE: Final = {
    4: ipaddress.ip_network("198.18.0.0/16"),
    6: ipaddress.ip_network("2001:db8:2::/48"),
}
"""Where the servers' addresses are: benchmarking and documentation space, no node's."""
_MOST_REPLICAS: Final = 256
_STEPS: Final = 200
"""Times that progress is reported."""

Progress = Callable[[float, float], None]
"""Called with the simulated time and its end, s."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What a simulation leaves: the tables, and one handover of each kind as ladder messages.

    `ladders` has the node's name with the messages; `participants` are the ladder's columns.
    `recording` has all messages where that was asked for; `happenings` counts events of the run.
    """

    results: Results
    ladders: dict[str, tuple[str, list[LadderMessage]]]
    participants: tuple[str, ...]
    recording: list[LadderMessage]
    happenings: int


def simulate(
    scenario: Scenario, progress: Progress | None = None, run: int = 0, *, record: bool = False
) -> Run:
    """Run a scenario once; equal scenario, seed and `run` give equal results.

    `record` keeps every message, for an animation. Raises `ScenarioError` where the movement cannot
    be read or does not fit.
    """
    with _without_collector():
        moves = mobility(scenario, run)
        _check(scenario, moves)
        world = _World(scenario, moves, run, record=record)
        steps = _STEPS if progress else 1
        for step in range(1, steps + 1):
            world.clock.run(moves.end * (step / steps))
            if progress:
                progress(world.clock.now, moves.end)
        return world.finished()


@contextmanager
def _without_collector() -> Generator[None]:
    """The collector looks at every object again and again, and a run leaves hardly any cycles."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _check(scenario: Scenario, moves: Mobility) -> None:
    """What only shows once the movement is read."""
    family = scenario.nodes.family
    for row, moa in moves.events.moas.items():
        if moa.version != family:
            path = scenario.file(scenario.movement.events or "")
            what = f"is {moa}; must be an IPv{family} address, as nodes.family is {family}"
            raise trace_error(path, int(moves.events.line[row]), "moa", what)
    if moves.end <= 0:
        what = "is missing, and the movement ends at time 0; give the time to simulate"
        place = str(scenario.source.path or "scenario")
        raise ScenarioError([Problem(place, "scenario.duration", what)])


@final
class _World:
    """Everything that a scenario describes."""

    def __init__(self, scenario: Scenario, moves: Mobility, run: int, *, record: bool) -> None:
        self._scenario = scenario
        self._moves = moves
        self._run = run
        self._parameters = Parameters.with_overrides(scenario.protocol)
        self.clock = Clock(moves.end)
        self._tally = Tally(records=record)
        self._network = Network(self.clock, self._stream("network"))
        self._zones = Zones()
        self._wiring = Wiring(
            self._network,
            self._tally,
            dns=scenario.dns,
            zones=self._zones,
            random=self._stream("dns"),
        )
        self._hosts: list[Host] = []
        """By number."""
        self._handovers = Handovers()
        self._stations: list[Station] = []
        for place, ims in enumerate(scenario.ims):
            self._stations += self._build_ims(place, ims)
        endpoints = [station.endpoint for station in self._stations]
        self._machines = Machines(
            self._parameters,
            self._stream("nodes"),
            Dormitory(self.clock),
            Packing(endpoints, self._zones),
        )
        self._access = self._build_access()
        self._fixed = self._build_correspondents()
        self._mobile = self._build_mobile_nodes()
        self._build_traffic()
        networks = [self._access[name] for name in moves.events.networks]
        Feed(Timetable(moves.events), self._mobile, networks, self.clock)

    def _stream(self, name: str) -> Random:
        """A stream of randomness of its own: what one part draws does not move another's."""
        return Random(f"{self._scenario.scenario.seed}/{self._run}/{name}")

    # ---- building ------------------------------------------------------------------------------

    def _build_ims(self, place: int, ims: Ims) -> list[Station]:
        space = _IMS_SPACE[self._scenario.nodes.family]
        endpoints = [
            Endpoint(address_in(space, place * _MOST_REPLICAS + replica + 1), MAT_PORT)
            for replica in range(ims.replicas)
        ]
        own = Zones()
        for prefix in self._scenario.served(ims):
            length = prefix.prefixlen + (96 if prefix.version == 4 else 0)
            for zones in (own, self._zones):
                zones.add(address_in(prefix, 0), length, tuple(endpoints))
        return [
            self._build_station(ims, replica, endpoint, own)
            for replica, endpoint in enumerate(endpoints, 1)
        ]

    def _build_station(self, ims: Ims, replica: int, endpoint: Endpoint, own: Zones) -> Station:
        name = ims.name if replica == 1 else f"{ims.name}#{replica}"
        random = self._stream(name)
        machine = MappingServer(self._key, own.has, random, parameters=self._parameters)
        return Station(name, endpoint, ims, machine, wiring=self._wiring, random=random)

    def _build_access(self) -> dict[str, Access]:
        random = self._stream("attachment")
        return {
            network.name: Access(
                network,
                Pool(network.pool, network.lease),
                random,
                start_attached=self._scenario.nodes.start_attached,
            )
            for network in self._scenario.networks
            if network.pool is not None
        }

    def _build_host(self, name: str, role: str, home: Address) -> Host:
        host = Host(
            len(self._hosts),
            name,
            role,
            home,
            machines=self._machines,
            wiring=self._wiring,
            handovers=self._handovers,
        )
        self._hosts.append(host)
        return host

    def _key(self, number: int) -> Key | None:
        return key_of_host(number, self._hosts[number].home)

    def _build_correspondents(self) -> list[Host]:
        fixed, hosts = self._scenario.correspondents, list[Host]()
        site = Site(fixed.delay, fixed.loss)
        if fixed.network is not None:
            site = self._access[fixed.network].site
        for number in range(1, fixed.count + 1):
            home = address_in(self._scenario.correspondent_prefix, number)
            host = self._build_host(f"CN{number}", "CN", home)
            host.settle_at(site, home)
            hosts.append(host)
        return hosts

    def _build_mobile_nodes(self) -> list[Host]:
        prefix = self._scenario.mobile_prefix
        return [
            self._build_host(name, "MN", address_in(prefix, number))
            for number, name in enumerate(self._moves.nodes, 1)
        ]

    def _build_traffic(self) -> None:
        traffic = self._scenario.traffic
        mobile = self._mobile
        pairs: list[tuple[Host, Host]] = []
        if traffic.pairs == "correspondent":
            pairs = [(mn, self._fixed[i % len(self._fixed)]) for i, mn in enumerate(mobile)]
        elif traffic.pairs == "mobile":
            pairs = list(zip(mobile[::2], mobile[1::2], strict=False))
        if traffic.established:
            self._acquaint(pairs)
        random = self._stream("traffic")
        first, gone = presence(self._moves.events, len(mobile), self._moves.end)
        spans: dict[int, tuple[float, float]] = {}
        for host, begin, leaves in zip(mobile, first, gone, strict=True):
            host.leaves = leaves
            if traffic.up or traffic.down:
                spans[host.number] = begin, leaves
        for one, other in pairs:
            ends = [spans[host.number] for host in (one, other) if host.number in spans]
            begin = max((begin for begin, _ in ends), default=0.0)
            stops = min((leaves for _, leaves in ends), default=self._moves.end)
            for sender, receiver, rate in ((one, other, traffic.up), (other, one, traffic.down)):
                if rate:
                    flow = self._flow(sender, receiver, rate, stops)
                    phase = random.random() * flow.spacing
                    self.clock.at(begin + traffic.start + phase, Sending(sender, flow))

    def _acquaint(self, pairs: list[tuple[Host, Host]]) -> None:
        self._wiring.warm_until = self._scenario.dns.ttl
        acquaintance = Acquaintance(
            pairs,
            self._stations,
            self._zones,
            parameters=self._parameters,
            random=self._stream("acquaintance"),
        )
        self.clock.at(0.0, acquaintance)

    def _flow(self, sender: Host, receiver: Host, rate: float, stops: float) -> Flow:
        flow = Flow(
            sender=sender.name,
            receiver=receiver.name,
            source=sender.home,
            destination=receiver.home,
            spacing=1 / rate,
            size=self._scenario.traffic.size,
            stops=stops,
        )
        sender.flows = (*sender.flows, (UP, flow))
        receiver.flows = (*receiver.flows, (DOWN, flow))
        return flow

    # ---- results -------------------------------------------------------------------------------

    def finished(self) -> Run:
        """Close what is open and make the tables."""
        for host in self._mobile:
            host.end()
        results = Results(
            self._handovers.frame(self._run, [host.name for host in self._hosts]),
            _frame(MESSAGES, self._tally.rows(self._run)),
            _frame(IMS, (row for one in self._stations for row in one.rows(self._run))),
            self._provenance(),
        )
        names = [station.name for station in self._stations]
        fixed = [host.name for host in self._fixed]
        return Run(
            results,
            self._tally.finished_ladders(),
            (*self._moves.nodes, *reversed(names), *fixed),
            [line.finished() for line in self._tally.recording or ()],
            self.clock.happenings,
        )

    def _provenance(self) -> Provenance:
        scenario = self._scenario
        source = scenario.source
        digest = movement_digest(scenario)
        overrides = "\n".join(source.overrides)
        return Provenance(__version__, source.text, overrides, scenario.scenario.seed, digest)


def _frame(schema: Schema, rows: Iterable[dict[str, object]]) -> pd.DataFrame:
    listed = list(rows)
    return frame_of(schema, {c.name: [row.get(c.name) for row in listed] for c in schema.columns})
