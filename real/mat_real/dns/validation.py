"""DNSSEC: is an answer what its zone's keys have signed, in a chain from a trust anchor?

The chain is built from its end. A signature names the zone that made it; that zone's DNSKEY set
must be signed by a key that a DS record vouches for; the DS set is signed by the zone above, and so
on up to a zone that has a trust anchor. Nothing else counts as authentic. What a full resolver
calls insecure, a zone whose parent proves that it is not signed, is refused like a forgery: who
asks for validation wants no answers without. So it need not be told apart, and no zone cut need be
searched for.

Validation costs the asker time, which the owner of a zone can drive up (CVE-2023-50387), so the
number of signatures tried, of keys with one tag, of records in a proof and of keys in a set is
bounded; what exceeds the bounds is refused.

RFC 4035, section 5; RFC 4509; RFC 5155; RFC 6840; RFC 9276.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias, cast, final

import dns.dnssec
import dns.name
import dns.rdata
from dns.dnssectypes import DSDigest
from dns.exception import DNSException
from dns.message import ANSWER, AUTHORITY, QueryMessage
from dns.name import Name
from dns.rdata import Rdata
from dns.rdataclass import IN
from dns.rdataset import Rdataset
from dns.rdatatype import RdataType, to_text
from dns.rdtypes.ANY.DNSKEY import DNSKEY
from dns.rdtypes.ANY.DS import DS
from dns.rdtypes.ANY.NSEC import NSEC
from dns.rdtypes.ANY.NSEC3 import NSEC3
from dns.rdtypes.ANY.RRSIG import RRSIG
from dns.rrset import RRset

from mat.parameters import DEFAULTS
from mat_real.dns._rdata import of_kind, rdatas
from mat_real.dns.denial import Nsec3Proof, NsecProof, Proof
from mat_real.dns.errors import BogusError, DnsError, ResolutionError

MAX_SIGNATURES: Final = 8
MAX_KEYS: Final = 16
MAX_SAME_TAG: Final = 2
MAX_PROOFS: Final = 12
MAX_ZONES: Final = 1000
"""Zones whose keys are remembered."""

_DIGESTS: Final = (DSDigest.SHA256, DSDigest.SHA384)  # SHA-1 proves too little (RFC 8624)
_ANCHOR: Final = "a trust anchor reads 'ZONE. IN DS …' or 'ZONE. IN DNSKEY …'"

Ask: TypeAlias = Callable[[Name, RdataType], Awaitable[QueryMessage]]
Anchors: TypeAlias = Mapping[Name, tuple[Rdata, ...]]
"""DS and DNSKEY records by zone."""


def parse_anchors(lines: Iterable[str]) -> Anchors:
    """Trust anchors from records of a zone file: `NAME [TTL] [IN] DS|DNSKEY …`, names absolute.

    Empty lines and comments (`;`) are passed over, so a file that dnssec-keygen, dnssec-dsfromkey
    or unbound-anchor wrote can be read as it is. Raises `ValueError`, naming the line.
    """
    anchors: dict[Name, tuple[Rdata, ...]] = {}
    for line in lines:
        fields = line.partition(";")[0].split()
        if fields:
            zone, record = _parse_anchor(fields, line)
            anchors[zone] = (*anchors.get(zone, ()), record)
    return anchors


def read_anchors(path: Path) -> tuple[str, ...]:
    """The lines of a file with trust anchors, for a configuration. Raises `DnsError`."""
    try:
        lines = tuple(path.read_text(encoding="ascii").splitlines())
        found = parse_anchors(lines)
    except OSError as error:
        raise DnsError(f"{path}: {error.strerror or error}; name a readable file") from error
    except ValueError as error:
        raise DnsError(f"{path}: {error}") from error
    if not found:
        raise DnsError(f"{path}: no trust anchor in it; {_ANCHOR}")
    return lines


def _parse_anchor(fields: list[str], line: str) -> tuple[Name, Rdata]:
    rest = fields[1:]
    while rest and (rest[0].isdigit() or rest[0].upper() == "IN"):
        rest = rest[1:]
    if not rest or rest[0].upper() not in ("DS", "DNSKEY") or not fields[0].endswith("."):
        raise ValueError(f"{line.strip()!r}: {_ANCHOR}")
    try:
        record = dns.rdata.from_text(IN, rest[0], " ".join(rest[1:]))
        return dns.name.from_text(fields[0]), record
    except (DNSException, ValueError) as error:
        raise ValueError(f"{line.strip()!r}: {error}; {_ANCHOR}") from error


@final
@dataclass(slots=True)
class _Zone:
    """A zone's keys, or why there are none, until a time on the clock."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    keys: Rdataset | None = None
    failure: ResolutionError | None = None
    expires: float = float("-inf")


@final
@dataclass(frozen=True, slots=True)
class _Signed:
    """What a signature that held says: whose it is, and for how many seconds it can be believed."""

    zone: Name
    ttl: float
    labels: int


@final
class Validator:
    """Validates answers; remembers the keys of zones for as long as they may be."""

    __slots__ = ("_anchors", "_ask", "_clock", "_zones")

    def __init__(self, ask: Ask, anchors: Anchors, clock: Callable[[], float]) -> None:
        self._ask = ask
        self._anchors = anchors
        self._clock = clock
        self._zones: dict[Name, _Zone] = {}

    async def check(self, message: QueryMessage, rrset: RRset) -> float:
        """Seconds for which a set of the answer section can be believed.

        Raises `BogusError`, or `UnansweredError` where keys could not be had; so do all methods.
        """
        signed = await self._check_signed(message, ANSWER, rrset)
        labels = len(rrset.name) - 1
        if signed.labels == labels or rrset.name.is_wild():
            return signed.ttl
        encloser = rrset.name.split(signed.labels + 1)[1]
        proofs, ttl = await self._proofs(message, rrset.name)
        if not any(proof.excludes_closer(rrset.name, encloser) for proof in proofs):
            raise BogusError(f"{rrset.name}: made from a wildcard without proof that it may be")
        return min(signed.ttl, ttl)

    async def check_denial(self, message: QueryMessage, name: Name, rdtype: RdataType) -> float:
        """Seconds for which an answer that there is no such record can be believed."""
        proofs, ttl = await self._proofs(message, name)
        if not any(proof.denies(name, rdtype) for proof in proofs):
            raise BogusError(f"{name}: no proof that it has no {to_text(rdtype)} record")
        return ttl

    # ---- signatures ----------------------------------------------------------------------------

    async def _check_signed(self, message: QueryMessage, section: int, rrset: RRset) -> _Signed:
        """Find a signature over a set that holds."""
        what = f"{rrset.name} {to_text(rrset.rdtype)}"
        signatures = message.get_rrset(section, rrset.name, IN, RdataType.RRSIG, rrset.rdtype)
        reasons = ["is not signed"] if signatures is None else []
        for signature in of_kind(RRSIG, signatures)[:MAX_SIGNATURES]:
            zone = signature.signer
            if not _may_sign(zone, rrset):
                reasons.append(f"is signed by {zone}, which is not its zone")
                continue
            try:
                keys = await self._keys(zone)
                return _verify(rrset, signature, keys)
            except BogusError as error:
                reasons.append(str(error))
        raise BogusError(f"{what}: {'; '.join(dict.fromkeys(reasons))}")

    async def _proofs(self, message: QueryMessage, name: Name) -> tuple[list[Proof], float]:
        """The proofs of non-existence that an answer brings for a name, and their time to live."""
        nsec: dict[Name, list[tuple[Name, NSEC]]] = {}
        nsec3: dict[Name, list[tuple[Name, NSEC3]]] = {}
        ttl = float("inf")
        sets = [
            rrset
            for rrset in message.authority
            if rrset.rdtype in (RdataType.NSEC, RdataType.NSEC3)
        ]
        for rrset in sets[:MAX_PROOFS]:
            signed = await self._check_signed(message, AUTHORITY, rrset)
            expanded = signed.labels != len(rrset.name) - 1 - rrset.name.is_wild()
            if expanded or not name.is_subdomain(signed.zone):
                continue
            ttl = min(ttl, signed.ttl)
            for record in of_kind(NSEC, rrset):
                nsec.setdefault(signed.zone, []).append((rrset.name, record))
            for hashed in of_kind(NSEC3, rrset):
                nsec3.setdefault(signed.zone, []).append((rrset.name, hashed))
        proofs: list[Proof] = [NsecProof(zone, tuple(found)) for zone, found in nsec.items()]
        proofs += [Nsec3Proof.of(zone, found) for zone, found in nsec3.items()]
        return proofs, ttl

    # ---- keys ----------------------------------------------------------------------------------

    async def _keys(self, zone: Name) -> Rdataset:
        """A zone's authentic keys."""
        if not any(zone.is_subdomain(anchor) for anchor in self._anchors):
            raise BogusError(f"no trust anchor at or above {zone}")
        known = self._zones.pop(zone, None) or _Zone()
        self._zones[zone] = known
        if len(self._zones) > MAX_ZONES:
            del self._zones[next(iter(self._zones))]
        async with known.lock:
            if known.expires <= self._clock():
                await self._fetch(zone, known)
        if known.keys is None:
            raise _copy(known.failure)
        return known.keys

    async def _fetch(self, zone: Name, known: _Zone) -> None:
        known.keys = None
        try:
            known.keys, ttl = await self._chained_keys(zone)
        except ResolutionError as error:
            known.failure, ttl = error, DEFAULTS.failure_time
        known.expires = self._clock() + ttl

    async def _chained_keys(self, zone: Name) -> tuple[Rdataset, float]:
        """A zone's keys, and for how many seconds they can be believed."""
        anchors, chain_ttl = self._anchors.get(zone), float("inf")
        if anchors is None:
            anchors, chain_ttl = await self._delegation(zone)
        message = await self._ask(zone, RdataType.DNSKEY)
        rrset = message.get_rrset(ANSWER, zone, IN, RdataType.DNSKEY)
        if rrset is None:
            raise BogusError(f"{zone}: has no keys, though it should be signed")
        trusted = _trusted_keys(zone, rrset, anchors)
        signatures = message.get_rrset(ANSWER, zone, IN, RdataType.RRSIG, RdataType.DNSKEY)
        for signature in of_kind(RRSIG, signatures)[:MAX_SIGNATURES]:
            if signature.signer == zone:
                try:
                    return rrset, min(chain_ttl, _verify(rrset, signature, trusted).ttl)
                except BogusError:
                    continue
        raise BogusError(f"{zone}: its keys are not signed by one that is vouched for")

    async def _delegation(self, zone: Name) -> tuple[tuple[Rdata, ...], float]:
        """The DS records of a zone, from the zone above."""
        message = await self._ask(zone, RdataType.DS)
        rrset = message.get_rrset(ANSWER, zone, IN, RdataType.DS)
        if rrset is None:
            raise BogusError(f"{zone}: no DS record, so the zone is not signed")
        signed = await self._check_signed(message, ANSWER, rrset)
        return tuple(rdatas(rrset)), signed.ttl


def _copy(failure: ResolutionError | None) -> ResolutionError:
    """A failure to raise once more: a raised exception collects the traceback of each raise."""
    assert failure is not None
    return type(failure)(str(failure))


def _may_sign(zone: Name, rrset: RRset) -> bool:
    """Whether a set can be of a zone; a DS set is of the zone above its name."""
    return rrset.name.is_subdomain(zone) and not (
        rrset.rdtype == RdataType.DS and rrset.name == zone
    )


def _verify(rrset: RRset, signature: RRSIG, keys: Rdataset) -> _Signed:
    now = time.time()
    try:
        cast(Any, dns.dnssec).validate_rrsig(rrset, signature, {signature.signer: keys}, now=now)
    except (DNSException, ValueError) as error:
        raise BogusError(f"its signature does not hold ({error})") from error
    ttl = min(rrset.ttl, signature.original_ttl, signature.expiration - now)
    return _Signed(signature.signer, ttl, signature.labels)


def _trusted_keys(zone: Name, rrset: RRset, anchors: Iterable[Rdata]) -> Rdataset:
    """Those of a zone's keys that DS records or trust anchors vouch for."""
    keys = of_kind(DNSKEY, rrset)
    tags = Counter((dns.dnssec.key_id(key), key.algorithm) for key in keys)
    if len(keys) > MAX_KEYS or any(count > MAX_SAME_TAG for count in tags.values()):
        raise BogusError(f"{zone}: more keys than anybody needs")
    trusted = Rdataset(IN, RdataType.DNSKEY)
    for key in keys:
        if _vouched_for(zone, key, anchors):
            trusted.add(key)
    if not trusted:
        raise BogusError(f"{zone}: no key that its DS record or trust anchor vouches for")
    return trusted


def _vouched_for(zone: Name, key: DNSKEY, anchors: Iterable[Rdata]) -> bool:
    return any(
        record == key or (isinstance(record, DS) and _is_digest_of(record, zone, key))
        for record in anchors
    )


def _is_digest_of(digest: DS, zone: Name, key: DNSKEY) -> bool:
    if digest.digest_type not in _DIGESTS or digest.key_tag != dns.dnssec.key_id(key):
        return False
    made = dns.dnssec.make_ds(zone, key, DSDigest(digest.digest_type), validating=True)
    return bool(made == digest)
