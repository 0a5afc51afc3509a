"""Typed access to what dnspython leaves untyped."""

from collections.abc import Iterable
from typing import TypeVar, cast

from dns.rdata import Rdata

_Record = TypeVar("_Record", bound=Rdata)


def rdatas(rrset: object) -> list[Rdata]:
    """The records of a set; none of None."""
    return list(cast(Iterable[Rdata], rrset or ()))


def of_kind(kind: type[_Record], rrset: object) -> list[_Record]:
    """The records of a set that are of a class; none of None."""
    return [record for record in rdatas(rrset) if isinstance(record, kind)]
