"""One of the systems that MAT is compared with, on a scenario that was written for MAT.

The agents of a system take the places of the IMS that serve mobile nodes, with their delays,
workers, queues and service times: home agents, mapping agents, or, of one alone, a dynamic DNS. An
IMS that serves correspondents only has no counterpart, for these stay at home.
"""

from collections.abc import Callable, Iterator
from random import Random
from typing import assert_never, final

from mat.address import Address
from mat_files.scenario import Ims, Scenario
from mat_sim.baselines import (
    Home,
    Lin6,
    MobileIpv4,
    MobileIpv6,
    MobilePpc,
    NoMobility,
    System,
    lin6,
    mobile_ipv4,
    mobile_ipv6,
)
from mat_sim.engine._agent import Agent
from mat_sim.engine._baseline_host import BaselineHost
from mat_sim.engine._carriage import Carriage
from mat_sim.engine._handovers import Handovers
from mat_sim.engine._network import Network
from mat_sim.engine._pool import address_in
from mat_sim.engine._tally import Tally


@final
class Baseline:
    """Hosts and agents of a scenario's system; `place` gives the address of its n-th IMS."""

    __slots__ = ("_carriage", "agents")

    def __init__(
        self,
        scenario: Scenario,
        place: Callable[[int], Address],
        network: Network,
        tally: Tally,
        *,
        stream: Callable[[str], Random],
        interval: float,
    ) -> None:
        models = {place(number): ims for number, ims in enumerate(scenario.every_ims)}
        system = _system(scenario, list(_homes(scenario, models)))
        self._carriage = Carriage(system, network, tally, dns=scenario.dns, random=stream("dns"))
        self.agents = [
            Agent(
                models[address],
                machine,
                carriage=self._carriage,
                random=stream(models[address].name),
                interval=interval,
            )
            for address, machine in system.servers.items()
        ]

    def host(
        self, number: int, name: str, role: str, home: Address, *, handovers: Handovers
    ) -> BaselineHost:
        """A mobile node, or a correspondent, which never moves."""
        return BaselineHost(
            number,
            name,
            role,
            home,
            moves=role == "MN",
            carriage=self._carriage,
            handovers=handovers,
        )


def _homes(scenario: Scenario, models: dict[Address, Ims]) -> Iterator[Home]:
    """The prefixes of mobile nodes, each with the address of its server."""
    mobile = scenario.mobile_prefix
    for address, ims in models.items():
        for prefix in scenario.served(ims):
            if prefix.version == mobile.version and prefix.overlaps(mobile):
                length = prefix.prefixlen + (96 if prefix.version == 4 else 0)
                yield Home(address_in(prefix, 0), length, address)


def _system(scenario: Scenario, homes: list[Home]) -> System:
    match scenario.scenario.system:
        case "mobile-ipv4":
            return MobileIpv4(homes)
        case "mobile-ipv4-reverse-tunnel":
            return MobileIpv4(homes, mobile_ipv4.Parameters(reverse_tunnel=True))
        case "mobile-ipv6":
            return MobileIpv6(homes)
        case "mobile-ipv6-tunnel":
            return MobileIpv6(homes, mobile_ipv6.Parameters(route_optimisation=False))
        case "lin6":
            return Lin6(homes)
        case "lin6-associated":
            return Lin6(homes, lin6.Parameters(security_associations=True))
        case "mobile-ppc":
            return MobilePpc(homes[0].server)
        case "none":
            return NoMobility(scenario.nodes.family)
        case "mat":
            raise AssertionError("MAT is not compared with itself")
        case _ as other:
            assert_never(other)
