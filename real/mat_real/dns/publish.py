"""Setting a home address's IMS records by dynamic update (RFC 2136), signed with TSIG (RFC 8945).

One update message deletes the set of IMS records at the name and adds the new ones: the server
applies both or neither, and touches no other type. If the name is an alias (RFC 2317), the records
go where it leads. Afterwards the server is asked what it serves, and that is what is reported; a
server that signs the zone first (inline signing) serves it a little later, and is asked again.

Wildcards. A record makes its name exist, and all names between it and what existed before; below
those, a wildcard further up answers no longer (RFC 4592, section 2.2.2). Conversely, where a record
was deleted, a wildcard may answer. To see what wildcards do, a name is asked for that nobody has,
beside the record's: before the update, and after it upwards, to learn how far the wildcard has
withdrawn.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, final

import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.tsig
from dns.exception import DNSException
from dns.name import Name
from dns.rcode import Rcode
from dns.rdataclass import IN
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.SOA import SOA
from dns.tsig import Key
from dns.update import UpdateMessage

from mat.address import Address
from mat.ims_record import ImsRecord, RecordError, from_rdata, reverse_name
from mat_real.dns._rdata import of_kind, rdatas
from mat_real.dns.config import DNS_PORT, ResolverConfig, Server, format_server
from mat_real.dns.errors import DnsError, ResolutionError
from mat_real.dns.lookup import IMS, Absent, Found, Lookup
from mat_real.dns.upstream import ResolverCounters

_PATIENCE: Final = 5.0
"""Seconds after an update within which the server is to serve it."""
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
_NOBODY: Final = dns.name.from_text("_nobody", None)
"""A label that no name of an address has, so that only a wildcard answers for it."""

_WHAT_TO_DO: Final = {
    Rcode.REFUSED: "it refuses updates of this zone with this key; in BIND the zone needs"
    " update-policy or allow-update for the key, in Knot an acl with the key and 'action: update'",
    Rcode.NOTAUTH: "it is not authoritative for the zone, or does not accept the key; check --zone"
    " and --server, and that the server knows the key",
    Rcode.NOTZONE: "the name does not lie in the zone; check --zone",
    Rcode.NOTIMP: "it does no dynamic updates (NSD never does); change the zone file, or update"
    " its primary",
    Rcode.FORMERR: "it did not understand the update; is it a DNS server with RFC 2136?",
    Rcode.SERVFAIL: "it could not carry out the update; its log says why (often it may not write"
    " the zone's file or journal)",
}
_KEY_TROUBLE: Final[dict[type[Exception], str]] = {
    dns.tsig.PeerBadKey: "BADKEY: it knows no key of this name and algorithm, which must be"
    " spelled as in its configuration; Knot says so too of a key that no acl of the zone names",
    dns.tsig.PeerBadSignature: "BADSIG: its secret for this key is another one;"
    " copy the key file anew",
    dns.tsig.PeerBadTime: "BADTIME: its clock and this host's differ by more than 5 minutes;"
    " set the one that is wrong",
    dns.tsig.PeerBadTruncation: "BADTRUNC: it wants the whole MAC; use another algorithm",
    dns.tsig.BadSignature: "its answer is signed with another secret; do not trust it",
    dns.tsig.BadTime: "its answer is more than 5 minutes old or early; set the clocks",
}


@final
@dataclass(frozen=True, slots=True)
class Published:
    """What a server serves after an update; `ttl` is in seconds, 0 where there are no records."""

    name: str
    zone: str
    server: Server
    records: tuple[ImsRecord, ...]
    ttl: int
    wildcard: bool = False
    """The name's own records are deleted, and what is served is a wildcard's."""
    uncovered: str = ""
    """The name below which a wildcard answered before the update and no longer does, if any."""


async def publish(
    home_address: Address,
    records: Sequence[ImsRecord],
    *,
    key: Key,
    ttl: int = 300,
    zone: str = "",
    server: Server | None = None,
    config: ResolverConfig | None = None,
) -> Published:
    """Replace the IMS records of a home address by these; by none: delete them.

    Where `zone` or `server` are not given, the DNS says which zone the name is in and what its
    primary is (the SOA record); `config` says which DNS, that of the system if None. Raises
    `DnsError`, whose message says what to do.
    """
    config = config or ResolverConfig(servers=(server,) if server else ())
    place = await _place(home_address, zone, server, config)
    there = Lookup(replace(config, servers=(place.server,)), ResolverCounters(), _no_time)
    covered = bool(records) and await _is_covered(place, there)
    update = UpdateMessage(place.zone, keyring=key)
    update.delete(place.name, IMS)
    for record in records:
        rdata = record.to_rdata()
        update.add(place.name, ttl, dns.rdata.from_wire(IN, IMS, rdata, 0, len(rdata)))
    await _send(update, place, key, config)
    published = await _settled(place, records, there)
    return replace(published, uncovered=await _uncovered(place, there)) if covered else published


@final
@dataclass(frozen=True, slots=True)
class _Place:
    """Where a record goes."""

    name: Name
    zone: Name
    server: Server


async def _place(
    home_address: Address, zone: str, server: Server | None, config: ResolverConfig
) -> _Place:
    lookup = Lookup(config, ResolverCounters(), _no_time)
    name = dns.name.from_text(reverse_name(home_address))
    try:
        name, apex = await _zone_of(lookup, name)
        if zone:
            apex = _absolute(zone)
        return _Place(name, apex, server or await _primary(lookup, apex))
    except ResolutionError as error:
        advice = "" if zone and server else "; --zone and --server say which zone, and where"
        raise DnsError(f"{error}{advice}") from error


def _no_time() -> float:
    return 0.0


async def _zone_of(lookup: Lookup, name: Name) -> tuple[Name, Name]:
    """The name behind all aliases, and the zone that it is in."""
    found = await lookup.resolve(name, RdataType.SOA)
    if isinstance(found, Found):
        return found.rrset.name, found.rrset.name
    if found.zone is None:
        raise ResolutionError(f"{found.name}: the DNS does not say what zone it is in")
    return found.name, found.zone


async def _primary(lookup: Lookup, zone: Name) -> Server:
    """The primary server of a zone, as its SOA record names it."""
    found = await lookup.resolve(zone, RdataType.SOA)
    if isinstance(found, Absent):
        raise ResolutionError(f"{zone} is no zone")
    primary = of_kind(SOA, found.rrset)[0].mname
    for rdtype in (RdataType.AAAA, RdataType.A):
        addresses = await lookup.resolve(primary, rdtype)
        if isinstance(addresses, Found):
            return rdatas(addresses.rrset)[0].to_text(), DNS_PORT
    raise ResolutionError(f"{zone}: its primary server {primary} has no address")


def _absolute(zone: str) -> Name:
    try:
        return dns.name.from_text(zone)
    except DNSException as error:
        raise DnsError(f"zone {zone!r}: {error}") from error


async def _send(update: UpdateMessage, place: _Place, key: Key, config: ResolverConfig) -> None:
    """Send an update and see that the server has carried it out."""
    where = f"{format_server(place.server)}, zone {place.zone}, key {key.name}"
    try:
        async with asyncio.timeout(config.timeout):
            wire = await _exchange(update.to_wire(prepend_length=True), place.server)
    except TimeoutError:
        raise DnsError(f"{where}: no answer within {config.timeout:g} s; check --server") from None
    except (OSError, EOFError) as error:
        raise DnsError(f"{where}: cannot be reached ({error}); check --server") from error
    try:
        code = _verified_code(wire, update, key)
    except (DNSException, ValueError) as error:
        trouble = _KEY_TROUBLE.get(type(error), f"its answer cannot be used ({error})")
        raise DnsError(f"{where}: {trouble}") from error
    if code != Rcode.NOERROR:
        advice = _WHAT_TO_DO.get(code, "see its log")
        raise DnsError(f"{where}: {dns.rcode.to_text(code)}: {advice}")


async def _exchange(wire: bytes, server: Server) -> bytes:
    """Send a message over TCP, with its length before it, and read the answer."""
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(wire)
        size = int.from_bytes(await reader.readexactly(2))
        return await reader.readexactly(size)
    finally:
        writer.close()


def _verified_code(wire: bytes, update: UpdateMessage, key: Key) -> Rcode:
    """What the server answered. An error may come unsigned (RFC 8945, 5.3), a success may not."""
    answer = dns.message.from_wire(wire, keyring=False)
    if not update.is_response(answer):
        raise ValueError("it answers another question")
    code = Rcode(answer.rcode())
    if answer.had_tsig:
        dns.message.from_wire(wire, keyring=key, request_mac=update.mac)
    elif code == Rcode.NOERROR:
        raise ValueError("it is not signed, so anybody may have made it")
    return code


async def _settled(place: _Place, wanted: Sequence[ImsRecord], there: Lookup) -> Published:
    """What the server serves, once that is what was sent. Raises `DnsError` if it never is."""
    clock = asyncio.get_running_loop().time
    end, pause = clock() + _PATIENCE, _FIRST_PAUSE
    while True:
        try:
            return await _served(place, wanted, there)
        except DnsError:
            if clock() + pause > end:
                raise
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


async def _served(place: _Place, wanted: Sequence[ImsRecord], there: Lookup) -> Published:
    """What the server serves now. Raises `DnsError` if that is not what was sent."""
    try:
        found = await there.resolve(place.name, IMS)
        wildcard = not wanted and await _is_of_wildcard(found, place, there)
    except ResolutionError as error:
        raise DnsError(f"the update was accepted, but then: {error}") from error
    try:
        records = tuple(map(from_rdata, _contents(found)))
    except RecordError as error:
        raise DnsError(f"{place.name}: the server serves something else: {error}") from error
    if set(records) != set(wanted) and not wildcard:
        raise DnsError(
            f"{place.name}: {format_server(place.server)} accepted the update, but serves"
            f" {[record.to_text() for record in records]}; is it the zone's primary?"
        )
    ttl = found.rrset.ttl if isinstance(found, Found) else 0
    return Published(str(place.name), str(place.zone), place.server, records, ttl, wildcard)


def _contents(found: Found | Absent) -> list[bytes]:
    """The records that were found, as they are on the wire."""
    served = rdatas(found.rrset) if isinstance(found, Found) else []
    return [rdata.to_wire() or b"" for rdata in served]


# ---- wildcards ---------------------------------------------------------------------------------


async def _by_wildcard(parent: Name, there: Lookup) -> set[bytes]:
    """What a wildcard answers below a name, to all that do not exist. Raises `ResolutionError`."""
    return set(_contents(await there.resolve(_NOBODY.concatenate(parent), IMS)))


async def _is_of_wildcard(found: Found | Absent, place: _Place, there: Lookup) -> bool:
    """Whether what was found at a name is what its neighbours are answered that do not exist."""
    contents = set(_contents(found))
    return bool(contents) and contents == await _by_wildcard(place.name.parent(), there)


async def _is_covered(place: _Place, there: Lookup) -> bool:
    """Whether a wildcard answers for the neighbours of a name."""
    try:
        return bool(await _by_wildcard(place.name.parent(), there))
    except ResolutionError:
        return False  # of a server that does not answer, the update will tell


async def _uncovered(place: _Place, there: Lookup) -> str:
    """The highest name below which no wildcard answers now, on the way up to one that does."""
    highest, name = "", place.name
    try:
        while name != place.zone:
            name = name.parent()
            if await _by_wildcard(name, there):
                break
            highest = str(name)
    except ResolutionError:
        return ""
    return highest
