"""Which home addresses an IMS is responsible for: those of its zones, that is, home prefixes."""

from collections.abc import Iterable

from mat.address import Address, in_prefix
from mat.server import Responsible

Zone = tuple[Address, int]
"""A home prefix: its address and its length in the 128-bit form."""


def zones(served: Iterable[Zone]) -> Responsible:
    """A function that tells whether a home address is in one of the zones.

    Reverse zones are cut at octets, so nearly always a slice is looked up in a set, which costs a
    third of the arithmetic that other lengths need.
    """
    by_octets: dict[int, set[bytes]] = {}
    others: list[Zone] = []
    for prefix, length in served:
        if length % 8:
            others.append((prefix, length))
        else:
            by_octets.setdefault(length // 8, set()).add(prefix[: length // 8])
    sets = tuple((octets, frozenset(prefixes)) for octets, prefixes in by_octets.items())

    def responsible(home_address: Address) -> bool:
        for octets, prefixes in sets:
            if home_address[:octets] in prefixes:
                return True
        return any(in_prefix(home_address, prefix, length) for prefix, length in others)

    return responsible
