"""The lab of a scenario."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from typing import final

from mat_files.attachment import AttachmentEvent
from mat_files.distributions import Distribution
from mat_files.mobility import Mobility, mobility
from mat_files.scenario import Ims, Network, Scenario
from mat_real.lab.checks import checked
from mat_real.lab.errors import LabError
from mat_real.lab.plan import AccessNetwork, IpAddress, IpNetwork, Plan, Quality, Server, Zone
from mat_real.lab.simple import (
    DNS,
    FIXED_ZONE,
    MOBILE_ZONE,
    access_network,
    default_zone,
    fixed_nodes,
    mobile_nodes,
    server_address,
)


def plan_of(
    scenario: Scenario,
    *,
    rates: Mapping[str, float] | None = None,
    plain: Sequence[str] = ("PLAIN",),
    moves: Mobility | None = None,
) -> Plan:
    """The lab of a scenario, with hosts without MAT besides.

    `rates` in bit/s are those of access networks by name, in place of the scenario's. `moves`
    spares reading the movement again. Raises `LabError` where the lab cannot do what the scenario
    says, and `ScenarioError` for its movement.
    """
    return _FromScenario(scenario, rates or {}, moves or mobility(scenario)).plan(plain)


@final
@dataclass(frozen=True, slots=True)
class _FromScenario:
    """How a scenario becomes a plan."""

    scenario: Scenario
    rates: Mapping[str, float]
    moves: Mobility

    def plan(self, plain: Sequence[str]) -> Plan:
        self._check()
        scenario, fixed = self.scenario, self.scenario.correspondents
        names = [f"CN{number + 1}" for number in range(fixed.count)]
        mobile_zone = _zone(scenario.mobile_prefix, MOBILE_ZONE)
        fixed_zone = _zone(scenario.correspondent_prefix, FIXED_ZONE)
        link = _quality(fixed.delay, fixed.loss, fixed.rate, fixed.queue)
        plan = Plan(
            networks=tuple(self._networks()),
            nodes=(
                *mobile_nodes(self.moves.nodes, mobile_zone, scenario.nodes.interfaces),
                *fixed_nodes([*names, *plain], fixed_zone, len(names), fixed.network, link),
            ),
            ims=tuple(self._ims(mobile_zone, fixed_zone)),
            dns=Server("DNS", server_address(DNS), quality=Quality(scenario.dns.delay)),
            ttl=round(scenario.dns.ttl),
            protocol=scenario.protocol,
            reserved=_reservations(self.moves.events),
        )
        return checked(plan)

    def _check(self) -> None:
        if unknown := sorted(set(self.rates) - {one.name for one in self.scenario.networks}):
            raise LabError(f"a rate is given for {', '.join(unknown)}, which is no access network")
        if unplayed := list(_unplayed(self.scenario)):
            raise LabError("\n".join(f"the lab cannot play {what}" for what in unplayed))
        for ims in self.scenario.ims:
            if ims.replicas > 1:
                what = f"IMS {ims.name} has {ims.replicas} replicas; the lab runs one server an IMS"
                raise LabError(f"{what}: set replicas = 1")
            if ims.count > 1:
                what = f"IMS {ims.name} is {ims.count} servers that share nodes; the lab runs one"
                raise LabError(f"{what} for each [[ims]]: set count = 1")

    def _networks(self) -> Iterator[AccessNetwork]:
        for number, network in enumerate(self.scenario.networks):
            quality = _quality(network.delay, network.loss, network.rate, network.queue)
            if network.name in self.rates:
                quality = Quality(network.delay, network.loss, self.rates[network.name])
            made = access_network(network.name, number, network.pool, quality, network.lease)
            if (dhcp := network.dhcp) is not None:
                made = replace(
                    made, authoritative=dhcp.authoritative, rapid_commit=dhcp.rapid_commit
                )
            yield made

    def _ims(self, mobile: Zone, fixed: Zone) -> Iterator[Server]:
        for number, ims in enumerate(self.scenario.ims, 1):
            zones = tuple(itertools.chain.from_iterable(_zones(ims, mobile, fixed)))
            quality = _quality(ims.delay, ims.loss, ims.rate, ims.link_queue)
            yield Server(ims.name, server_address(number), zones, quality, ims.workers)


def _quality(delay: Distribution, loss: float, rate: float | None, queue: int) -> Quality:
    return Quality(delay, loss, rate, queue if rate is not None else None)


def _unplayed(scenario: Scenario) -> Iterator[str]:
    """What a scenario has that the lab does not, and how to do without."""
    about, traffic = scenario.scenario, scenario.traffic
    if about.system != "mat":
        yield f'scenario.system = "{about.system}": its programs are MAT\'s; set it to "mat"'
    if traffic.pairs == "random":
        yield 'traffic.pairs = "random": set it to "correspondent", "mobile" or "none"'
    if traffic.peers > 1:
        yield f"traffic.peers = {traffic.peers}: set it to 1"
    if traffic.kind != "cbr":
        yield f'traffic.kind = "{traffic.kind}", only packets at equal distances: set it to "cbr"'
    fixed = scenario.correspondents
    if fixed.rate is not None and fixed.network is None and fixed.count > 1:
        what = "correspondents.rate, which they share, as each has a link of its own"
        yield f"{what}: set correspondents.count = 1 or correspondents.network"
    if scenario.background.nodes:
        yield "a background load: set background.nodes = 0"
    if scenario.dns.resolver is not None:
        yield "resolvers at the sites: leave dns.resolver out"
    for network in scenario.networks:
        yield from (f"{network.name}: {what}" for what in _unplayed_dhcp(network))
    if 0 < sum(map(_by_dhcp, scenario.networks)) < len(scenario.networks):
        yield "networks with dhcp beside some without: give it to all, or to none"


def asks_dhcp(scenario: Scenario) -> bool:
    """Whether nodes get their addresses by DHCP, as the scenario has it."""
    return any(map(_by_dhcp, scenario.networks))


def _by_dhcp(network: Network) -> bool:
    return network.dhcp is not None


def _unplayed_dhcp(network: Network) -> Iterator[str]:
    dhcp = network.dhcp
    if dhcp is None:
        return
    if dhcp.delay.mean > 0:
        yield f"dhcp.delay = {dhcp.delay}, its servers are on the link: set it to 0"
    if dhcp.loss:
        yield f"dhcp.loss = {dhcp.loss:g}, nothing is lost on its links to nodes: set it to 0"
    if dhcp.probe is not None:
        yield "dhcp.probe, its servers do not: leave it out"


def _zone(prefix: IpNetwork, number: int) -> Zone:
    """A scenario has home addresses of one family; those of the other follow from the plan."""
    derived = default_zone(number)
    if isinstance(prefix, IPv4Network):
        return Zone(prefix, derived.ipv6)
    return Zone(derived.ipv4, prefix)


def _zones(ims: Ims, mobile: Zone, fixed: Zone) -> Iterator[Iterable[IpNetwork]]:
    for served in ims.serves:
        if isinstance(served, str):
            yield mobile if served in ("mobile", "all") else ()
            yield fixed if served in ("correspondents", "all") else ()
        else:
            yield (served,)


def _reservations(
    events: Iterable[AttachmentEvent],
) -> dict[tuple[str, int, str], IpAddress]:
    found: dict[tuple[str, int, str], IpAddress] = {}
    for event in events:
        if event.moa is None:
            continue
        key = event.node, event.interface, event.network
        if found.setdefault(key, event.moa) != event.moa:
            what = f"{event.node} gets {found[key]} on {event.network}, and later {event.moa}"
            raise LabError(f"{what}; in the lab it is the same each time: give one moa")
    return found
