"""A run: build the world that a scenario describes, let it go, write down what happened."""

import gc
import ipaddress
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Final, final

from mat import __version__
from mat.address import Address
from mat.authentication import Key
from mat.messages import MAT_PORT, Endpoint
from mat.parameters import Parameters
from mat.server import MappingServer
from mat_files.capture import CaptureWriter
from mat_files.distributions import Distribution
from mat_files.errors import Problem, ScenarioError, trace_error
from mat_files.frames import frame_of_rows
from mat_files.ladder import LadderMessage
from mat_files.mobility import Mobility, mobility, movement_digest
from mat_files.results import Provenance, Results
from mat_files.scenario import Dhcp, Ims, IpNetwork, Scenario
from mat_files.schema import FLOWS, IMS, LINKS, MESSAGES
from mat_files.streams import random_stream
from mat_sim.engine._acquaintance import Acquaintance
from mat_sim.engine._agent import Agent
from mat_sim.engine._background import FIRST_KEY, Background
from mat_sim.engine._baseline import Baseline
from mat_sim.engine._clock import Clock
from mat_sim.engine._dhcp import DhcpServer
from mat_sim.engine._dormancy import Packing
from mat_sim.engine._draw import Draw
from mat_sim.engine._feed import Feed
from mat_sim.engine._flows import rows as flow_rows
from mat_sim.engine._frames import handover_frame
from mat_sim.engine._handovers import Handovers
from mat_sim.engine._host import Host, Machines, key_of_host
from mat_sim.engine._network import Network, Site
from mat_sim.engine._pairs import Pair, pairs_of
from mat_sim.engine._pool import Homes, Pool, address_in
from mat_sim.engine._roamer import Access, Processing, Roamer
from mat_sim.engine._station import Station
from mat_sim.engine._tally import Tally
from mat_sim.engine._tap import Tap
from mat_sim.engine._timetable import Timetable
from mat_sim.engine._traffic import Flows
from mat_sim.engine._wiring import NameServers, Wiring
from mat_sim.engine._zones import Zones
from mat_sim.memory import check_memory

_IMS_SPACE: Final = {
    4: ipaddress.ip_network("198.18.0.0/16"),
    6: ipaddress.ip_network("2001:db8:2::/48"),
}
"""Where the servers' addresses are: benchmarking and documentation space, no node's."""
_BACKGROUND_SPACE: Final = {
    4: ipaddress.ip_network("198.19.0.0/16"),
    6: ipaddress.ip_network("2001:db8:3::/48"),
}
"""Where the requests of `[background]` come from, likewise."""
_MOST_REPLICAS: Final = 256
_FIXED: Final = "correspondents"
"""Kind and name of the link of their site."""
_NAME_SERVERS: Final = 255 * _MOST_REPLICAS
"""The number in that space of the DNS's address; those of resolvers at sites follow."""
_STEPS: Final = 200
"""Times that progress is reported."""

Progress = Callable[[float, float], None]
"""Called with the simulated time and its end, s."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What a simulation leaves: the tables, and one handover of each kind as ladder messages.

    `ladders` has the node's name with the messages; `nodes` are the names of mobile nodes, `fixed`
    those of servers and correspondents. `recording` has all messages where that was asked for;
    `happenings` counts events of the run.
    """

    results: Results
    ladders: dict[str, tuple[str, list[LadderMessage]]]
    nodes: Sequence[str]
    fixed: tuple[str, ...]
    recording: list[LadderMessage]
    happenings: int

    @property
    def participants(self) -> tuple[str, ...]:
        """All names, as the columns of a ladder are ordered: made when asked for."""
        return (*self.nodes, *self.fixed)


def simulate(
    scenario: Scenario,
    progress: Progress | None = None,
    run: int = 0,
    *,
    record: bool = False,
    capture: CaptureWriter | None = None,
) -> Run:
    """Run a scenario once; equal scenario, seed and `run` give equal results.

    `record` keeps every message, for an animation; `capture` gets every packet, at time 0 of 1970
    and what follows. Raises `ScenarioError` where the movement cannot be read or does not fit,
    where the run would not fit into memory, and for a capture of another system than MAT.
    """
    check_memory(scenario)
    if capture is not None:
        _check_capture(scenario)
    tap = Tap(capture, scenario.dns.ttl) if capture is not None else None
    with _without_collector():
        return _simulated(scenario, progress, run, record=record, tap=tap)


def _simulated(
    scenario: Scenario, progress: Progress | None, run: int, *, record: bool, tap: Tap | None
) -> Run:
    moves = mobility(scenario, run)
    _check(scenario, moves)
    world = _World(scenario, moves, run, record=record, tap=tap)
    steps = _STEPS if progress else 1
    for step in range(1, steps + 1):
        world.clock.run(moves.end * (step / steps))
        if progress:
            progress(world.clock.now, moves.end)
    if tap is not None:
        tap.end()
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


def _check_capture(scenario: Scenario) -> None:
    if scenario.scenario.system != "mat":
        what = f'is "{scenario.scenario.system}"; there are packets to capture of "mat" alone'
        place = str(scenario.source.path or "scenario")
        raise ScenarioError([Problem(place, "scenario.system", what)])


@final
class _World:
    """Everything that a scenario describes."""

    def __init__(
        self, scenario: Scenario, moves: Mobility, run: int, *, record: bool, tap: Tap | None = None
    ) -> None:
        self._scenario = scenario
        self._moves = moves
        self._run = run
        self._parameters = Parameters.with_overrides(scenario.protocol)
        self.clock = Clock(moves.end)
        self._tap = tap
        self._tally = Tally(records=record, every_packet=tap is not None)
        self._interval = scenario.interval(self.clock.end)
        self._network = Network(self.clock, self._stream("network"), self._interval, tap)
        self._zones = Zones()
        self._wiring = Wiring(
            self._network,
            self._tally,
            dns=scenario.dns,
            zones=self._zones,
            random=self._stream("dns"),
            names=self._name_servers(),
        )
        self._hosts: list[Roamer] = []
        """By number."""
        self._processing = self._takes_time(scenario.nodes.processing)
        self._handovers = Handovers()
        self._stations: list[Station] = []
        self._baseline: Baseline | None = None
        if scenario.scenario.system == "mat":
            for place, ims in enumerate(scenario.every_ims):
                self._stations += self._build_ims(place, ims)
        else:
            self._baseline = self._build_baseline()
        endpoints = [station.endpoint for station in self._stations]
        packing = Packing(endpoints, self._zones)
        self._machines = Machines(self._parameters, self._stream("nodes"), packing)
        self._access = self._build_access()
        self._fixed = self._build_correspondents()
        homes = self._homes(scenario.mobile_prefix, "homes")
        self._mobile = self._build_mobile_nodes(homes)
        self._background = self._build_background(homes)
        self._build_traffic()
        networks = [self._access[name] for name in moves.events.networks]
        Feed(Timetable(moves.events), self._mobile, networks, self.clock)

    def _stream(self, name: str) -> Random:
        """A stream of randomness of its own: what one part draws does not move another's."""
        return random_stream(self._scenario.scenario.seed, self._run, name)

    # ---- building ------------------------------------------------------------------------------

    def _name_servers(self) -> NameServers:
        space = _IMS_SPACE[self._scenario.nodes.family]
        return NameServers(lambda number: address_in(space, _NAME_SERVERS + number))

    def _build_baseline(self) -> Baseline:
        space = _IMS_SPACE[self._scenario.nodes.family]
        return Baseline(
            self._scenario,
            lambda place: address_in(space, place * _MOST_REPLICAS + 1),
            self._network,
            self._tally,
            stream=self._stream,
            interval=self._interval,
        )

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
        return Station(
            name,
            endpoint,
            ims,
            machine,
            wiring=self._wiring,
            random=random,
            interval=self._interval,
        )

    def _build_access(self) -> dict[str, Access]:
        random, start_attached = self._stream("attachment"), self._scenario.nodes.start_attached
        streams = self._stream("DHCP servers"), self._stream("DHCP clients")
        access: dict[str, Access] = {}
        for network in self._scenario.networks:
            assert network.pool is not None
            pool = Pool(network.pool, network.lease)
            server = self._build_dhcp(network.dhcp, pool, *streams)
            access[network.name] = Access(
                network,
                pool,
                random,
                network=self._network,
                dhcp=server,
                start_attached=start_attached,
            )
        return access

    def _build_dhcp(
        self, model: Dhcp | None, pool: Pool, random: Random, clients: Random
    ) -> DhcpServer | None:
        if model is None:
            return None
        return DhcpServer(model, pool, self.clock, self._tally, random=random, clients=clients)

    def _takes_time(self, time: Distribution) -> Processing | None:
        return Processing(Draw(time), self._stream("processing")) if time.mean else None

    def _build_host(self, name: str, role: str, home: Address) -> Roamer:
        number, handovers = len(self._hosts), self._handovers
        if self._tap is not None:
            self._tap.home(home, name)
        if self._baseline is not None:
            host: Roamer = self._baseline.host(number, name, role, home, handovers=handovers)
        else:
            machines, wiring = self._machines, self._wiring
            host = Host(
                number, name, role, home, machines=machines, wiring=wiring, handovers=handovers
            )
        host.processing = self._processing
        self._hosts.append(host)
        return host

    def _key(self, number: int) -> Key | None:
        if self._background is not None and number >= FIRST_KEY:
            return self._background.key(number)
        return key_of_host(number, self._hosts[number].home)

    def _build_correspondents(self) -> list[Roamer]:
        fixed, hosts = self._scenario.correspondents, list[Roamer]()
        if fixed.network is not None:
            site = self._access[fixed.network].site
        else:
            capacity = self._network.capacity(_FIXED, _FIXED, fixed.rate, fixed.queue)
            site = Site(fixed.delay, fixed.loss, capacity=capacity)
        homes = self._homes(self._scenario.correspondent_prefix, "homes of correspondents")
        for number, home in enumerate(homes.give(fixed.count), 1):
            host = self._build_host(f"CN{number}", "CN", home)
            host.settle_at(site, home)
            hosts.append(host)
        return hosts

    def _homes(self, prefix: IpNetwork, stream: str) -> Homes:
        return Homes(self._scenario.shares(prefix), self._stream(stream))

    def _build_mobile_nodes(self, homes: Homes) -> list[Roamer]:
        names = self._moves.nodes
        return [
            self._build_host(name, "MN", home)
            for name, home in zip(names, homes.give(len(names)), strict=True)
        ]

    def _build_background(self, homes: Homes) -> Background | None:
        load = self._scenario.background
        if not load.nodes:
            return None
        background = Background(
            load,
            address_in(_BACKGROUND_SPACE[self._scenario.nodes.family], 1),
            homes.give(load.nodes),
            wiring=self._wiring,
            zones=self._zones,
            random=self._stream("background"),
        )
        background.register(self._stations)
        return background

    def _build_traffic(self) -> None:
        traffic = self._scenario.traffic
        pairs = pairs_of(traffic, self._mobile, self._fixed, self._stream("pairs"))
        if traffic.established:
            self._acquaint(pairs)
        first, gone = self._moves.presence()
        for host, leaves in zip(self._mobile, gone, strict=True):
            host.leaves = leaves
        if not traffic.up and not traffic.down:
            return
        flows = Flows(
            traffic,
            self._network,
            self._tally,
            parameters=self._parameters,
            random=self._stream("traffic"),
            quiet=self._stream("quiet traffic"),
        )
        numbers = (host.number for host in self._mobile)
        spans = dict(zip(numbers, zip(first, gone, strict=True), strict=True))
        flows.make(pairs, spans, self._moves.end)

    def _acquaint(self, strangers: list[Pair]) -> None:
        pairs = [
            (one, other)
            for one, other in strangers
            if isinstance(one, Host) and isinstance(other, Host)
        ]
        self._wiring.warm_until = self._scenario.dns.ttl
        acquaintance = Acquaintance(
            pairs,
            self._stations,
            self._zones,
            parameters=self._parameters,
            random=self._stream("acquaintance"),
        )
        self.clock.at(0.0, acquaintance)

    @property
    def _servers(self) -> Sequence[Station | Agent]:
        return self._stations if self._baseline is None else self._baseline.agents

    # ---- results -------------------------------------------------------------------------------

    def finished(self) -> Run:
        """Close what is open and make the tables; the world is gone after that."""
        for host in self._hosts:
            for _, flow in host.flows:
                flow.settle()
        for host in self._mobile:
            host.end()
        ims = frame_of_rows(IMS, (row for one in self._servers for row in one.rows(self._run)))
        flows = frame_of_rows(FLOWS, flow_rows(self._hosts, self._run))
        links = frame_of_rows(
            LINKS, (row for c in self._network.capacities for row in c.rows(self._run))
        )
        names = [host.name for host in self._hosts]
        servers = [server.name for server in self._servers]
        fixed = [host.name for host in self._fixed]
        self._dissolve()
        results = Results(
            handover_frame(self._handovers, self._run, names),
            frame_of_rows(MESSAGES, self._tally.rows(self._run, self._scenario.nodes.family)),
            ims,
            self._provenance(),
            flows,
            links,
        )
        return Run(
            results,
            self._tally.finished_ladders(),
            self._moves.nodes,
            (*reversed(servers), *fixed),
            [line.finished() for line in self._tally.recording or ()],
            self.clock.happenings,
        )

    def _dissolve(self) -> None:
        """Let go of all nodes and servers: without links and calendar they are in no cycles.

        Their memory is there for the tables, and the collector need not look for it.
        """
        self.clock.clear()
        self._network.clear()
        for host in self._hosts:
            host.dissolve()
        self._hosts, self._mobile, self._fixed, self._stations = [], [], [], []

    def _provenance(self) -> Provenance:
        scenario = self._scenario
        source = scenario.source
        digest = movement_digest(scenario)
        overrides = "\n".join(source.overrides)
        return Provenance(__version__, source.text, overrides, scenario.scenario.seed, digest)
