"""From a home address to its IMS: what the DNS says, without memory (docs/protocol.md, section 7).

The name is that of the HoA's PTR record; it may be an alias (RFC 2317: how a part of an octet's
zone is delegated), which is followed. IMS records that cannot be read are left out, so that a new
kind of record beside the old ones harms nobody; where none is left, the look-up has failed. An
answer counts as negative only if a server says so: NXDOMAIN, or NOERROR without such a record
(RFC 2308).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, final

import dns.flags
import dns.name
import dns.rcode
from dns.message import ANSWER, QueryMessage
from dns.name import Name
from dns.rdataclass import IN
from dns.rdatatype import RdataType, to_text
from dns.rdtypes.ANY.CNAME import CNAME
from dns.rdtypes.ANY.SOA import SOA
from dns.rrset import RRset

from mat.address import Address, is_ipv4, is_unicast, parse_address
from mat.ims_record import IMS_RECORD_TYPE, ImsRecord, RecordError, from_rdata, reverse_name
from mat.mapping_table import Servers
from mat.messages import Endpoint
from mat.parameters import DEFAULTS
from mat_real.dns._rdata import of_kind, rdatas
from mat_real.dns.config import ResolverConfig
from mat_real.dns.errors import BogusError, ResolutionError
from mat_real.dns.upstream import ResolverCounters, Upstream
from mat_real.dns.validation import Validator, parse_anchors

IMS: Final = RdataType.make(IMS_RECORD_TYPE)
MAX_ALIASES: Final = 8
MAX_NAMES: Final = 8
"""IMS records with a name that are looked up, of one home address."""
MAX_SERVERS: Final = 16
"""Replicas of one home address that are used: as many as a node measures (section 10)."""


@final
@dataclass(frozen=True, slots=True)
class Located:
    """The IMS records of a home address, the preferred first, each with the replicas it names.

    `name` is where they stand, behind all aliases; `ttl` is in seconds.
    """

    name: str
    records: tuple[tuple[ImsRecord, Servers], ...]
    ttl: float

    @property
    def servers(self) -> Servers:
        """The replicas in order of preference, each once."""
        found = dict.fromkeys(server for _, servers in self.records for server in servers)
        return tuple(found)[:MAX_SERVERS]


@final
@dataclass(frozen=True, slots=True)
class Absent:
    """No such record, as the DNS says for `ttl` seconds; `zone` is who says so, if it told."""

    name: Name
    ttl: float
    zone: Name | None


@final
@dataclass(frozen=True, slots=True)
class Found:
    """A set of records; the owner is behind all aliases."""

    rrset: RRset
    ttl: float


@final
class Lookup:
    """Look-ups in the DNS as a `ResolverConfig` says."""

    __slots__ = ("_counters", "_mode", "_validator", "upstream")

    def __init__(
        self, config: ResolverConfig, counters: ResolverCounters, clock: Callable[[], float]
    ) -> None:
        """Raises `DnsError` if there are no servers to ask."""
        self.upstream = Upstream(config, counters)
        self._counters = counters
        self._mode = config.dnssec
        self._validator = Validator(self.upstream.ask, parse_anchors(config.trust_anchors), clock)

    async def locate(self, home_address: Address) -> Located | Absent:
        """The IMS records of a home address. Raises `ResolutionError`."""
        found = await self.resolve(dns.name.from_text(reverse_name(home_address)), IMS)
        if isinstance(found, Absent):
            return found
        ttl = found.ttl
        failure = ResolutionError(f"{found.rrset.name}: no IMS record of it leads to an address")
        placed: list[tuple[ImsRecord, Servers]] = []
        for record in self._readable(found.rrset):
            try:
                servers, servers_ttl = await self._replicas(record, is_ipv4(home_address))
            except ResolutionError as error:
                failure, servers, servers_ttl = error, (), DEFAULTS.non_mat_time
            ttl = min(ttl, servers_ttl)
            placed.append((record, servers))
        if not any(servers for _, servers in placed):
            raise failure
        return Located(str(found.rrset.name), tuple(placed), ttl)

    async def resolve(self, name: Name, rdtype: RdataType) -> Found | Absent:
        """The records of a type at a name or behind its alias. Raises `ResolutionError`."""
        ttl = float("inf")
        for _ in range(MAX_ALIASES):
            message = await self.upstream.ask(name, rdtype)
            asked = name
            aliases = _aliases(message, name, rdtype)
            if len(aliases) == MAX_ALIASES:
                break
            for alias in aliases:
                ttl = min(ttl, await self._believed(message, alias))
                name = _target(alias)
            rrset = message.get_rrset(ANSWER, name, IN, rdtype)
            if rrset is not None:
                return Found(rrset, min(ttl, await self._believed(message, rrset)))
            zone = _authority(message, name)
            if name == asked or zone is not None or message.rcode() == dns.rcode.NXDOMAIN:
                return await self._absent(message, name, rdtype, ttl)
        raise ResolutionError(f"{name} {to_text(rdtype)}: more than {MAX_ALIASES} aliases in a row")

    async def _absent(
        self, message: QueryMessage, name: Name, rdtype: RdataType, ttl: float
    ) -> Absent:
        zone = _authority(message, name)
        # Without the zone's SOA record nobody says for how long (RFC 2308, section 5).
        ttl = min(ttl, DEFAULTS.failure_time if zone is None else _negative_ttl(zone))
        if self._mode == "validate":
            ttl = min(ttl, await self._validator.check_denial(message, name, rdtype))
        else:
            self._check_bit(message)
        return Absent(name, ttl, zone.name if zone is not None else None)

    async def _believed(self, message: QueryMessage, rrset: RRset) -> float:
        """Seconds for which a set can be believed. Raises `BogusError`."""
        if self._mode == "validate":
            return await self._validator.check(message, rrset)
        self._check_bit(message)
        return rrset.ttl

    def _check_bit(self, message: QueryMessage) -> None:
        if self._mode == "ad" and not message.flags & dns.flags.AD:
            what = message.question[0]
            raise BogusError(
                f"{what.name} {to_text(what.rdtype)}: the server does not vouch for it (no AD bit)"
            )

    def _readable(self, rrset: RRset) -> list[ImsRecord]:
        """The records of a set, the preferred first."""
        records: list[ImsRecord] = []
        reason = ""
        for rdata in rdatas(rrset):
            try:
                records.append(from_rdata(rdata.to_wire() or b""))
            except RecordError as error:
                self._counters.bad_records += 1
                reason = str(error)
        if not records:
            raise ResolutionError(f"{rrset.name}: no IMS record that can be read ({reason})")
        records.sort(key=lambda record: record.precedence)
        surplus = [record for record in records if record.name][MAX_NAMES:]
        return [record for record in records if record not in surplus]

    async def _replicas(self, record: ImsRecord, ipv4_first: bool) -> tuple[Servers, float]:
        """Where a record's replicas are, and for how many seconds that holds.

        Of a name's addresses, those of the home address's family come first: the asker has that.
        A name that leads nowhere is asked for again as soon as a missing record would be.
        """
        if not record.name:
            return _endpoints(record.addresses, record.port), float("inf")
        name = _name_of(record)
        addresses: list[Address] = []
        failures: list[ResolutionError] = []
        there, nowhere = [float("inf")], [DEFAULTS.non_mat_time]
        for rdtype in (RdataType.A, RdataType.AAAA)[:: 1 if ipv4_first else -1]:
            try:
                found = await self.resolve(name, rdtype)
            except ResolutionError as error:
                failures.append(error)
                there.append(DEFAULTS.non_mat_time)
                continue
            if isinstance(found, Absent):
                nowhere.append(found.ttl)
            else:
                there.append(found.ttl)
                addresses += [parse_address(rdata.to_text()) for rdata in rdatas(found.rrset)]
        if failures and not addresses:
            raise failures[0]
        return _endpoints(addresses, record.port), min(there if addresses else nowhere)


def _name_of(record: ImsRecord) -> Name:
    """The name in a record; not by way of text, in which some octets mean something else."""
    return Name([label.encode("ascii") for label in record.name.split(".")])


def _aliases(message: QueryMessage, name: Name, rdtype: RdataType) -> list[RRset]:
    """The aliases that lead from a name to its records within an answer, in order."""
    aliases: list[RRset] = []
    while len(aliases) < MAX_ALIASES and message.get_rrset(ANSWER, name, IN, rdtype) is None:
        alias = message.get_rrset(ANSWER, name, IN, RdataType.CNAME)
        if alias is None:
            break
        aliases.append(alias)
        name = _target(alias)
    return aliases


def _target(alias: RRset) -> Name:
    return of_kind(CNAME, alias)[0].target


def _authority(message: QueryMessage, name: Name) -> RRset | None:
    """The SOA record of a zone that a name is in, from the authority section."""
    return next(
        (
            rrset
            for rrset in message.authority
            if rrset.rdtype == RdataType.SOA and name.is_subdomain(rrset.name)
        ),
        None,
    )


def _negative_ttl(authority: RRset) -> float:
    """RFC 2308, section 5."""
    return min(authority.ttl, of_kind(SOA, authority)[0].minimum)


def _endpoints(addresses: Iterable[Address], port: int) -> Servers:
    """Where a replica can be; an address of many or of none cannot be one's."""
    return tuple(Endpoint(a, port) for a in addresses if is_unicast(a) or _is_loopback(a))


def _is_loopback(address: Address) -> bool:
    """Loopback serves laboratories on one machine."""
    return address[12] == 127 if is_ipv4(address) else address == Address(bytes(15) + b"\x01")
