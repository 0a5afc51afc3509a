"""Pairs that know each other when a run begins, as if they had talked for hours.

To get there by messages would take a large population longer than the study itself. What machines,
stores and caches hold is what the exchanges of figure 2 would have left, at an age that is random:
a crowd that began together would refresh together.
"""

from collections.abc import Iterable
from random import Random
from typing import Final, final

from mat.mapping_table import Mapping, Servers
from mat.messages import EXACT, Endpoint
from mat.parameters import Parameters
from mat.registrations import Registration, key_of, pack
from mat.resumption import Knowledge, KnownPeer, OwnMapping
from mat_sim.engine._clock import Happening
from mat_sim.engine._host import Host
from mat_sim.engine._network import Site
from mat_sim.engine._station import Station
from mat_sim.engine._zones import Zones

_VERSION: Final = 1
"""Of every mapping that stands at the begin."""


@final
class _Fixed:
    """A correspondent, which has any number of peers."""

    __slots__ = ("host", "own", "peers")

    def __init__(self, host: Host, own: OwnMapping) -> None:
        self.host = host
        self.own = own
        self.peers: list[KnownPeer] = []


@final
class Acquaintance(Happening):
    """Introduces pairs to each other at time 0, those that are attached by then."""

    __slots__ = ("_lifetime", "_pairs", "_parameters", "_random", "_stations", "_trips", "_zones")

    def __init__(
        self,
        pairs: list[tuple[Host, Host]],
        stations: Iterable[Station],
        zones: Zones,
        *,
        parameters: Parameters,
        random: Random,
    ) -> None:
        """Every host of `pairs` is held back until then."""
        self._pairs = pairs
        self._stations = {station.endpoint: station for station in stations}
        self._zones = zones
        self._parameters = parameters
        self._random = random
        self._lifetime = int(min(parameters.registration_lifetime, parameters.maximum_lifetime))
        self._trips: dict[tuple[Site, Servers], tuple[tuple[Endpoint, float], ...]] = {}
        for pair in pairs:
            for host in pair:
                host.held_back = True

    def happen(self) -> None:
        """Whoever has an address by now."""
        fixed: dict[int, _Fixed] = {}
        for one, other in self._pairs:
            if one.first_link() is None or other.first_link() is None:
                continue
            own = self._register(one)
            if other.role == one.role:
                theirs = self._register(other)
                other.resume(Knowledge(theirs, (self._met(one, own, caller=False),)))
            else:
                known = fixed.get(other.number)
                if known is None:
                    known = fixed[other.number] = _Fixed(other, self._register(other))
                theirs = known.own
                known.peers.append(self._met(one, own, caller=False))
            one.resume(Knowledge(own, (self._met(other, theirs, caller=True),)))
        for known in fixed.values():
            known.host.resume(Knowledge(known.own, tuple(known.peers)))
        for one, other in self._pairs:
            one.begin()
            other.begin()
        self._pairs = []

    def _register(self, host: Host) -> OwnMapping:
        """The host's mapping stands at every replica of its IMS, for some time already."""
        link, servers = host.first_link(), self._zones.servers(host.home)
        assert link is not None
        assert link.address is not None
        interval = self._lifetime * self._parameters.refresh_share
        age = self._random.random() * interval
        registration = Registration(
            host.home, EXACT, (link.address,), _VERSION, _VERSION, -age, self._lifetime
        )
        key, record = key_of(host.home, EXACT), pack(registration)
        for server in servers:
            self._stations[server].store.put(key, record)
        return OwnMapping(
            (link.address,),
            (-self._parameters.settle_time,),
            (link.lease,),
            servers,
            version=_VERSION,
            freshness=_VERSION,
            expires=self._lifetime - age,
            refresh=interval - age,
            round_trips=self._round_trips(link.site, servers),
        )

    def _round_trips(self, site: Site, servers: Servers) -> tuple[tuple[Endpoint, float], ...]:
        """What a node has measured on average: one tuple for all of a place."""
        trips = self._trips.get((site, servers))
        if trips is None:
            stations = [self._stations[server] for server in servers]
            trips = tuple(
                (one.endpoint, 2 * (site.mean_delay + one.site.mean_delay) + one.mean_service)
                for one in stations
            )
            self._trips[site, servers] = trips
        return trips

    def _met(self, peer: Host, own: OwnMapping, *, caller: bool) -> KnownPeer:
        begun = own.expires - self._lifetime
        mapping = Mapping(peer.home, EXACT, own.addresses, own.version, begun, own.expires)
        query = self._random.random() * self._parameters.peer_query_interval
        return KnownPeer(own.servers, mapping, query, 0.0, caller, confirmed=True)
