"""Pairs that know each other when a run begins, as if they had talked for hours.

To get there by messages would take a large population longer than the study itself. What machines,
stores and caches hold is what the exchanges of figure 2 would have left, at an age that is random:
a crowd that began together would refresh together.
"""

from array import array
from collections.abc import Iterable
from random import Random
from typing import Final, final

from mat.address import is_ipv4
from mat.mapping_table import Mapping, Servers
from mat.messages import EXACT, Endpoint
from mat.parameters import Parameters
from mat.registrations import Registration, key_of, pack
from mat.resumption import Knowledge, KnownPeer, OwnMapping
from mat_sim.engine._clock import Happening
from mat_sim.engine._host import Host
from mat_sim.engine._network import Site
from mat_sim.engine._station import Station
from mat_sim.engine._tally import headers
from mat_sim.engine._zones import Zones

_VERSION: Final = 1
"""Of every mapping that stands at the begin."""
_EXCHANGE: Final = 108 + 52
"""Bytes of an IMS Update with one address and of its Reply (docs/protocol.md, 3 and 5)."""


@final
class _Known:
    """A host on the way to knowing all its peers."""

    __slots__ = ("host", "missing", "own", "peers")

    def __init__(self, host: Host, own: OwnMapping, missing: int) -> None:
        self.host = host
        self.own = own
        self.missing = missing
        """Peers that are still to come."""
        self.peers: list[KnownPeer] = []

    def meet(self, peer: KnownPeer) -> bool:
        """One more; whether that was the last."""
        self.peers.append(peer)
        self.missing -= 1
        return not self.missing


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
        pairs = [pair for pair in self._pairs if all(map(_has_address, pair))]
        missing = array("i", [0]) * (
            1 + max((host.number for pair in pairs for host in pair), default=0)
        )
        for pair in pairs:
            for host in pair:
                missing[host.number] += 1
        known: dict[int, _Known] = {}
        for one, other in pairs:
            caller, called = (self._known(host, known, missing) for host in (one, other))
            for this, that in ((called, caller), (caller, called)):
                if this.meet(self._met(that.host, that.own, caller=this is caller)):
                    this.host.resume(Knowledge(this.own, tuple(this.peers)))
                    del known[this.host.number]
        for one, other in self._pairs:
            one.begin()
            other.begin()
        self._pairs = []

    def _known(self, host: Host, known: dict[int, _Known], missing: "array[int]") -> _Known:
        found = known.get(host.number)
        if found is None:
            own = self._register(host)
            found = known[host.number] = _Known(host, own, missing[host.number])
        return found

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
            self._stations[server].hold(key, record)
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
            trips = tuple((server, _round_trip(site, self._stations[server])) for server in servers)
            self._trips[site, servers] = trips
        return trips

    def _met(self, peer: Host, own: OwnMapping, *, caller: bool) -> KnownPeer:
        begun = own.expires - self._lifetime
        mapping = Mapping(peer.home, EXACT, own.addresses, own.version, begun, own.expires)
        query = self._random.random() * self._parameters.peer_query_interval
        return KnownPeer(own.servers, mapping, query, 0.0, caller, confirmed=True)


def _round_trip(site: Site, station: Station) -> float:
    """Mean time from an IMS Update to its Reply where nothing waits, s."""
    size = _EXCHANGE + 2 * headers(4 if is_ipv4(station.endpoint.address) else 6)
    there = station.site
    sending = site.sending_time(size) + there.sending_time(size)
    return 2 * (site.mean_delay + there.mean_delay) + station.mean_service + sending


def _has_address(host: Host) -> bool:
    link = host.first_link()
    return link is not None and link.address is not None
