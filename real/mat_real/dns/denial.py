"""What NSEC and NSEC3 records prove: that a name has no records of a type, or does not exist.

All records that come in here are authentic and of one zone; what is left to see is whether they say
enough. There is no IMS record at a name if a record at the name itself does not list the type, or
if the name does not exist and neither does a wildcard that would stand in for it (or that one does
not have the type). Three ways to be fooled are closed: a record of the parent's side of a zone cut
or at a DNAME says nothing about the names beneath (RFC 6840, section 4.1); an NSEC3 record with
opt-out leaves room for unsigned delegations, so it denies nothing here; and more hash iterations
than `MAX_ITERATIONS` are not worked off (RFC 9276, section 3.2).

RFC 4035, section 5.4; RFC 5155, section 8; RFC 6840, section 4.
"""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, final

import dns.name
from dns.dnssec import nsec3_hash
from dns.name import Name
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.NSEC import NSEC
from dns.rdtypes.ANY.NSEC3 import NSEC3

MAX_ITERATIONS: Final = 100
_SHA1: Final = 1
_OPT_OUT: Final = 1


@final
@dataclass(frozen=True, slots=True)
class NsecProof:
    """The NSEC records of an answer, by owner."""

    zone: Name
    records: tuple[tuple[Name, NSEC], ...]

    def denies(self, name: Name, rdtype: RdataType) -> bool:
        """Whether they prove that `name` has no records of a type, by itself or by a wildcard."""
        at_name = self._at(name)
        if at_name is not None:
            return _lacks(at_name, rdtype) and not _is_cut(at_name)
        covering = self._covering(name)
        if covering is None:
            return False
        owner, record = covering
        if _next(record).is_subdomain(name):
            return True  # an empty non-terminal: it has names beneath, and no records
        wildcard = _wildcard(_encloser(name, owner, _next(record)))
        at_wildcard = self._at(wildcard)
        if at_wildcard is not None:
            return _lacks(at_wildcard, rdtype) and not _is_cut(at_wildcard)
        return self._covering(wildcard) is not None

    def excludes_closer(self, name: Name, encloser: Name) -> bool:
        """Whether nothing closer to `name` exists than the wildcard beneath `encloser`."""
        covering = self._covering(name)
        if covering is None or _next(covering[1]).is_subdomain(name):
            return False
        return bool(_encloser(name, covering[0], _next(covering[1])) == encloser)

    def _at(self, name: Name) -> NSEC | None:
        return next((record for owner, record in self.records if owner == name), None)

    def _covering(self, name: Name) -> tuple[Name, NSEC] | None:
        for owner, record in self.records:
            following = _next(record)
            inside = owner < name and (name < following or following == self.zone)
            if inside and not (name.is_subdomain(owner) and _hides_below(record)):
                return owner, record
        return None


@final
@dataclass(frozen=True, slots=True)
class Nsec3Proof:
    """The NSEC3 records of an answer with usable parameters, by the hash in their owner."""

    zone: Name
    records: tuple[tuple[bytes, NSEC3], ...]

    @classmethod
    def of(cls, zone: Name, records: Iterable[tuple[Name, NSEC3]]) -> "Nsec3Proof":
        """Those that can be used; none if they are of different chains."""
        usable = [
            (digest, record)
            for owner, record in records
            if _is_usable(record) and (digest := _digest_in(owner, zone)) is not None
        ]
        parameters = {(record.salt, record.iterations) for _, record in usable}
        return cls(zone, tuple(usable) if len(parameters) == 1 else ())

    def denies(self, name: Name, rdtype: RdataType) -> bool:
        """Whether they prove that `name` has no records of a type, by itself or by a wildcard."""
        at_name = self._at(name)
        if at_name is not None:
            return _lacks(at_name, rdtype) and not _is_cut(at_name)
        encloser = self._closest_encloser(name)
        if encloser is None or not self.excludes_closer(name, encloser):
            return False
        wildcard = _wildcard(encloser)
        at_wildcard = self._at(wildcard)
        if at_wildcard is not None:
            return _lacks(at_wildcard, rdtype) and not _is_cut(at_wildcard)
        return self._covers(wildcard)

    def excludes_closer(self, name: Name, encloser: Name) -> bool:
        """Whether the name that is one label longer than `encloser` does not exist."""
        return self._covers(name.split(len(encloser) + 1)[1])

    def _closest_encloser(self, name: Name) -> Name | None:
        """The longest ancestor of a name that exists, if names can stand beneath it."""
        while name != self.zone:
            name = name.parent()
            record = self._at(name)
            if record is not None:
                return None if _hides_below(record) else name
        return None

    def _at(self, name: Name) -> NSEC3 | None:
        digest = self._hash(name)
        return next((record for owner, record in self.records if owner == digest), None)

    def _covers(self, name: Name) -> bool:
        digest = self._hash(name)
        return any(
            _is_between(owner, digest, record.next) and not record.flags & _OPT_OUT
            for owner, record in self.records
        )

    def _hash(self, name: Name) -> bytes:
        if not self.records:
            return b""
        record = self.records[0][1]
        text = nsec3_hash(name, record.salt, record.iterations, record.algorithm)
        return base64.b32hexdecode(text)


Proof = NsecProof | Nsec3Proof


def _is_usable(record: NSEC3) -> bool:
    """RFC 5155, section 8.1 and 8.2: unknown algorithms and flags are left out."""
    return bool(
        record.algorithm == _SHA1
        and record.flags & ~_OPT_OUT == 0
        and record.iterations <= MAX_ITERATIONS
    )


def _digest_in(owner: Name, zone: Name) -> bytes | None:
    """The hash that an NSEC3 record's owner consists of, if it is one."""
    try:
        return base64.b32hexdecode(owner.labels[0].upper()) if owner.parent() == zone else None
    except ValueError:
        return None


def _is_between(owner: bytes, digest: bytes, following: bytes) -> bool:
    """Whether a hash lies in the gap behind `owner`; the last gap goes round to the first."""
    if owner < following:
        return owner < digest < following
    return digest > owner or digest < following


def _encloser(name: Name, owner: Name, following: Name) -> Name:
    """The closest encloser: the longest ancestor that a name shares with either side of its gap."""
    shared = max(name.fullcompare(other)[2] for other in (owner, following))
    return name.split(shared)[1]


def _next(record: NSEC) -> Name:
    following = record.next
    assert isinstance(following, Name)
    return following


def _wildcard(encloser: Name) -> Name:
    return dns.name.Name((b"*", *encloser.labels))


def _lists(record: NSEC | NSEC3, rdtype: RdataType) -> bool:
    window, bit = divmod(rdtype, 256)
    for number, bitmap in record.windows:
        if number == window:
            return bit // 8 < len(bitmap) and bool(bitmap[bit // 8] & 0x80 >> bit % 8)
    return False


def _lacks(record: NSEC | NSEC3, rdtype: RdataType) -> bool:
    return not _lists(record, rdtype) and not _lists(record, RdataType.CNAME)


def _is_cut(record: NSEC | NSEC3) -> bool:
    """Whether it is the parent's at a zone cut: what the child has at that name it cannot know."""
    return _lists(record, RdataType.NS) and not _lists(record, RdataType.SOA)


def _hides_below(record: NSEC | NSEC3) -> bool:
    return _is_cut(record) or _lists(record, RdataType.DNAME)
