"""Telling systemd how a service fares (sd_notify(3)), where systemd started it."""

import os
import socket
from contextlib import suppress


def notify(state: str) -> None:
    """Say `READY=1`, `STOPPING=1` and the like. Without systemd nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one, suppress(OSError):
        one.connect("\0" + address[1:] if address.startswith("@") else address)
        one.send(state.encode())
