"""What addresses are called in captures: `m1` for a home address, `m1@A` for one in network A."""

from typing import Final

_AT: Final = "@"


def address_name(host: str, place: str = "") -> str:
    """The name of an address that a host has at a place; without a place, of its home address."""
    return f"{host}{_AT}{place}" if place else host


def host_of(name: str) -> str:
    """The host whose address is called so."""
    return name.partition(_AT)[0]
