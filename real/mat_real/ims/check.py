"""What `mat ims serve --check` looks at beside the configuration's own words."""

from collections.abc import Iterator

from mat.address import format_address
from mat_real.control import check_place as check_control
from mat_real.ims.config import Configuration
from mat_real.ims.supervisor import made_responder
from mat_real.ims.zones import zones
from mat_real.keys import KeyRing
from mat_real.store.journal import check_place as check_journal


def look_through(configuration: Configuration, ring: KeyRing) -> Iterator[str]:
    """What would keep the server from starting is raised, what is merely odd is returned.

    A server that runs on the same files is no obstacle. Raises `ControlError`, `StoreError` and
    `DnsError`.
    """
    config = configuration.config
    if config.responder is not None:
        made_responder(config.responder)
    check_control(configuration.beside(config.ims.control), "ims.control")
    if config.store.kind == "journal":
        check_journal(configuration.beside(config.store.path))
    yield from _homes_of_others(configuration, ring)


def _homes_of_others(configuration: Configuration, ring: KeyRing) -> Iterator[str]:
    """Whether there are keys with which nobody can register here."""
    ims = configuration.config.ims
    responsible = zones(ims.zones)
    others = [home for home, _ in ring.homes() if not responsible(home)]
    if others:
        example = format_address(others[0])
        what = f"{configuration.beside(ims.keys)}: the keys of {len(others)} homes are for none of"
        yield f"{what} ims.zones, as that of {example}; their updates will be refused (code 4)"
