"""Keys for the nodes of a lab: in the file of their IMS, and in that of each node."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from mat.address import Address, from_ipv4
from mat.messages import EXACT
from mat_real.key_changes import new_keys
from mat_real.key_file import Home
from mat_real.lab.plan import IpAddress, Plan, Server


def issue_keys(plan: Plan, folder_of: Callable[[str], Path]) -> None:
    """Make a key for each home address that an IMS serves; `folder_of` a name its files are in."""
    lines: dict[str, list[str]] = {}
    for server in plan.ims:
        homes = [
            (node.name, home)
            for node in plan.nodes
            for home in node.home or ()
            if _serves(server, home)
        ]
        made = new_keys(folder_of(server.name) / "keys", [_home(h) for _, h in homes], time.time())
        for (name, _), line in zip(homes, made.lines, strict=True):
            lines.setdefault(name, []).append(line)
    for name, keys in lines.items():
        path = folder_of(name) / "node.key"
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.writelines(f"{key}\n" for key in keys)


def _serves(server: Server, home: IpAddress) -> bool:
    return any(zone.version == home.version and home in zone for zone in server.zones)


def _home(home: IpAddress) -> Home:
    packed = home.packed
    return (from_ipv4(packed) if len(packed) == 4 else Address(packed)), EXACT
