"""A run: build the world that a scenario describes, let it go, write down what happened."""

import hashlib
import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, final

from mat import __version__
from mat.address import Address, in_prefix, parse_address
from mat.authentication import Key
from mat.effects import NotFound
from mat.mapping_table import Servers
from mat.messages import EXACT, MAT_PORT, Endpoint
from mat.node import MobileNode
from mat.parameters import Parameters
from mat.server import MappingServer
from mat_files.attachment import AttachmentEvent
from mat_files.errors import Problem, ScenarioError, trace_error
from mat_files.mobility import Mobility, mobility
from mat_files.results import Provenance, Results
from mat_files.scenario import Ims, Scenario
from mat_sim.engine._clock import Clock
from mat_sim.engine._flow import DOWN, UP, Flow
from mat_sim.engine._handover import UNFINISHED
from mat_sim.engine._host import Host
from mat_sim.engine._network import Link, Network
from mat_sim.engine._pool import Pool, address_in
from mat_sim.engine._station import Station
from mat_sim.engine._tally import Tally
from mat_sim.engine._wiring import Wiring
from mat_sim.ladder import LadderMessage

_IMS_SPACE: Final = {
    4: ipaddress.ip_network("198.18.0.0/16"),
    6: ipaddress.ip_network("2001:db8:2::/48"),
}
"""Where the servers' addresses are: benchmarking and documentation space, no node's."""
_STEPS: Final = 200
"""Times that progress is reported."""

Progress = Callable[[float, float], None]
"""Called with the simulated time and its end, s."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What a simulation leaves: the tables, and one handover of each kind as ladder messages.

    `ladders` has the node's name with the messages; `participants` are the ladder's columns.
    """

    results: Results
    ladders: dict[str, tuple[str, list[LadderMessage]]]
    participants: tuple[str, ...]


def simulate(scenario: Scenario, progress: Progress | None = None, run: int = 0) -> Run:
    """Run a scenario once; equal scenario, seed and `run` give equal results.

    Raises `ScenarioError` where the movement cannot be read or does not fit.
    """
    moves = mobility(scenario)
    _check(scenario, moves)
    world = _World(scenario, moves, run)
    steps = _STEPS if progress else 1
    for step in range(1, steps + 1):
        world.clock.run(moves.end * (step / steps))
        if progress:
            progress(world.clock.now, moves.end)
    return world.finished()


def _check(scenario: Scenario, moves: Mobility) -> None:
    """What only shows once the movement is read."""
    family = scenario.nodes.family
    for event in moves.events:
        if event.moa is not None and event.moa.version != family:
            path = scenario.file(scenario.movement.events or "")
            what = f"is {event.moa}; must be an IPv{family} address, as nodes.family is {family}"
            raise trace_error(path, event.line, "moa", what)
    if moves.end <= 0:
        what = "is missing, and the movement ends at time 0; give the time to simulate"
        place = str(scenario.source.path or "scenario")
        raise ScenarioError([Problem(place, "scenario.duration", what)])


@final
class _World:
    """Everything that a scenario describes."""

    def __init__(self, scenario: Scenario, moves: Mobility, run: int) -> None:
        self._scenario = scenario
        self._moves = moves
        self._run = run
        self._parameters = Parameters.with_overrides(scenario.protocol)
        self.clock = Clock()
        self._tally = Tally()
        self._network = Network(self.clock, self._stream("network"))
        self._wiring = Wiring(
            self.clock,
            self._network,
            self._tally,
            dns=scenario.dns,
            zones=self._zone,
            random=self._stream("dns"),
        )
        self._keys: dict[int, Key] = {}
        self._zones: list[tuple[Address, int, Servers]] = []
        self._stations = [station for ims in scenario.ims for station in self._build_ims(ims)]
        self._fixed = self._build_correspondents()
        self._pools = {
            network.name: Pool(
                network.pool, network.lease, start_attached=scenario.nodes.start_attached
            )
            for network in scenario.networks
            if network.pool is not None
        }
        self._mobile = self._build_mobile_nodes()
        self._build_traffic()
        self._schedule(moves.events)

    def _stream(self, name: str) -> Random:
        """A stream of randomness of its own: what one part draws does not move another's."""
        return Random(f"{self._scenario.scenario.seed}/{self._run}/{name}")

    # ---- building ------------------------------------------------------------------------------

    def _build_ims(self, ims: Ims) -> Iterable[Station]:
        prefixes = [
            (address_in(prefix, 0), prefix.prefixlen + (96 if prefix.version == 4 else 0))
            for prefix in self._scenario.served(ims)
        ]

        def responsible(home: Address) -> bool:
            return any(in_prefix(home, prefix, length) for prefix, length in prefixes)

        stations: list[Station] = []
        space = _IMS_SPACE[self._scenario.nodes.family]
        for replica in range(ims.replicas):
            name = ims.name if replica == 0 else f"{ims.name}#{replica + 1}"
            endpoint = Endpoint(address_in(space, len(self._zones) * 256 + replica + 1), MAT_PORT)
            random = self._stream(name)
            machine = MappingServer(
                self._keys.get, responsible, random, parameters=self._parameters
            )
            station = Station(
                name,
                endpoint,
                ims,
                machine,
                clock=self.clock,
                wiring=self._wiring,
                random=random,
                ends=self._moves.end,
            )
            self._network.connect(Link(station, ims.delay, ims.loss), endpoint.address)
            stations.append(station)
        servers = tuple(station.endpoint for station in stations)
        self._zones += [(prefix, length, servers) for prefix, length in prefixes]
        return stations

    def _zone(self, home: Address) -> Servers | NotFound:
        fitting = [zone for zone in self._zones if in_prefix(home, zone[0], zone[1])]
        longest = max(fitting, key=lambda zone: zone[1], default=None)
        return longest[2] if longest else NotFound.NOT_MAT

    def _build_host(self, name: str, role: str, home: Address) -> Host:
        number = len(self._keys) + 1
        key = Key(number, number.to_bytes(16, "big"), home, EXACT)
        self._keys[number] = key
        random = self._stream(name)
        machine = MobileNode(key, random, parameters=self._parameters)
        return Host(name, role, machine, clock=self.clock, wiring=self._wiring, random=random)

    def _build_correspondents(self) -> list[Host]:
        fixed, hosts = self._scenario.correspondents, list[Host]()
        place = next((n for n in self._scenario.networks if n.name == fixed.network), None)
        for number in range(1, fixed.count + 1):
            home = address_in(self._scenario.correspondent_prefix, number)
            host = self._build_host(f"CN{number}", "CN", home)
            site = place or fixed
            host.settle_at(Link(host, site.delay, site.loss, fixed.network or ""), home)
            hosts.append(host)
        return hosts

    def _build_mobile_nodes(self) -> dict[str, Host]:
        prefix = self._scenario.mobile_prefix
        return {
            name: self._build_host(name, "MN", address_in(prefix, number))
            for number, name in enumerate(self._moves.nodes, 1)
        }

    def _build_traffic(self) -> None:
        traffic = self._scenario.traffic
        mobile = list(self._mobile.values())
        pairs: list[tuple[Host, Host]] = []
        if traffic.pairs == "correspondent":
            pairs = [(mn, self._fixed[i % len(self._fixed)]) for i, mn in enumerate(mobile)]
        elif traffic.pairs == "mobile":
            pairs = list(zip(mobile[::2], mobile[1::2], strict=False))
        random = self._stream("traffic")
        spans = _presence(self._moves.events, self._moves.end)
        for name, (_, leaves) in spans.items():
            self._mobile[name].leaves = leaves
        for one, other in pairs:
            begin = max(spans[host.name][0] for host in (one, other) if host.name in spans)
            stops = min(spans[host.name][1] for host in (one, other) if host.name in spans)
            for sender, receiver, rate in ((one, other, traffic.up), (other, one, traffic.down)):
                if rate:
                    flow = self._flow(sender, receiver, rate, stops)
                    phase = random.random() * flow.spacing
                    self.clock.at(begin + traffic.start + phase, sender.tick, flow)

    def _flow(self, sender: Host, receiver: Host, rate: float, stops: float) -> Flow:
        source, destination = sender.machine.home_address, receiver.machine.home_address
        size = self._scenario.traffic.size
        flow = Flow(
            sender=sender.name,
            receiver=receiver.name,
            source=source,
            destination=destination,
            spacing=1 / rate,
            size=size,
            stops=stops,
        )
        sender.flows.append((UP, flow))
        receiver.flows.append((DOWN, flow))
        return flow

    def _schedule(self, events: Sequence[AttachmentEvent]) -> None:
        networks = {network.name: network for network in self._scenario.networks}
        random = self._stream("attachment")
        for event in events:
            host, access = self._mobile[event.node], networks[event.network]
            if event.time > self._moves.end:
                continue
            if event.action == "attach":
                wanted = parse_address(str(event.moa)) if event.moa else None
                pool = self._pools[event.network]
                self.clock.at(event.time, host.attach, access, pool, event.interface, wanted)
            else:
                notice = access.detect
                self.clock.at(
                    event.time, host.detach, event.network, lambda d=notice: d.sample(random)
                )

    # ---- results -------------------------------------------------------------------------------

    def finished(self) -> Run:
        """Close what is open and make the tables."""
        for host in self._mobile.values():
            host.end(UNFINISHED)
        end = self._moves.end
        rows = [
            handover.row(self._run, host.name, host.flows)
            for host in self._mobile.values()
            for handover in host.handovers
        ]
        ims = [row for station in self._stations for row in station.rows(self._run, end)]
        results = Results.build(self._provenance(), rows, self._tally.rows(self._run), ims)
        names = [station.name for station in self._stations]
        fixed = [host.name for host in self._fixed]
        return Run(results, self._ladders(), (*self._mobile, *reversed(names), *fixed))

    def _ladders(self) -> dict[str, tuple[str, list[LadderMessage]]]:
        """Of each kind of handover, the first that was completed."""
        watches = self._tally.ladders
        return {kind: (watch.name, watch.finished()) for kind, watch in watches.items()}

    def _provenance(self) -> Provenance:
        scenario = self._scenario
        source = scenario.source
        named = scenario.movement.trace or scenario.movement.events
        digest = hashlib.sha256(scenario.file(named).read_bytes()).hexdigest() if named else ""
        overrides = "\n".join(source.overrides)
        return Provenance(__version__, source.text, overrides, scenario.scenario.seed, digest)


def _presence(events: Sequence[AttachmentEvent], end: float) -> dict[str, tuple[float, float]]:
    """For each mobile node, its first attachment and the time from which it is gone for good, s."""
    first: dict[str, float] = {}
    attached: dict[str, int] = {}
    gone: dict[str, float] = {}
    networks: dict[str, set[str]] = {}
    for event in events:
        first.setdefault(event.node, event.time)
        held = networks.setdefault(event.node, set())
        if event.action == "attach":
            held.add(event.network)
            gone.pop(event.node, None)
        else:
            held.discard(event.network)
            if not held:
                gone[event.node] = event.time
        attached[event.node] = len(held)
    return {node: (begin, gone.get(node, end)) for node, begin in first.items()}
