"""What `mat ims serve --check` looks at beside the configuration's own words."""

import os
from collections.abc import Iterator
from pathlib import Path

from mat.address import format_address
from mat_real.ims.config import Configuration
from mat_real.ims.supervisor import ServerError, made_responder
from mat_real.ims.zones import zones
from mat_real.key_file import numbered_entries, open_key_file
from mat_real.store import StoreError


def look_through(configuration: Configuration) -> Iterator[str]:
    """What would keep the server from starting is raised, what is merely odd is returned.

    Raises `ServerError`, `StoreError`, `DnsError`, and `InputError` for the key file.
    """
    config = configuration.config
    if config.responder is not None:
        made_responder(config.responder)
    control = configuration.beside(config.ims.control)
    if not _can_be_made(control):
        what = f"{control}: cannot be made; set ims.control to a path in a directory that exists"
        raise ServerError(f"{what} and can be written")
    store = configuration.beside(config.store.path)
    if config.store.kind == "journal" and not _can_be_made(store):
        what = f"{store}: cannot be made; see that its directory exists"
        raise StoreError(f"{what} and can be written")
    yield from _homes_of_others(configuration)


def _can_be_made(path: Path) -> bool:
    """Whether this process may make, or use, a file of that name."""
    return os.access(path if path.exists() else path.parent, os.W_OK)


def _homes_of_others(configuration: Configuration) -> Iterator[str]:
    """Whether there are keys with which nobody can register here."""
    ims = configuration.config.ims
    responsible, path = zones(ims.zones), configuration.beside(ims.keys)
    with open_key_file(path) as file:
        homes = (entry.home_address for _, entry in numbered_entries(file, path))
        others = [home for home in homes if not responsible(home)]
    if others:
        example = format_address(others[0])
        what = f"{path}: {len(others)} keys are for homes outside ims.zones, as {example}"
        yield f"{what}; their updates will be refused (code 4)"
