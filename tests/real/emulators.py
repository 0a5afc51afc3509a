"""What tests of the adapters in real/emulators share: `mat` as a program, and places of their own.

Emulators give fixed names to what they make and clean up machine-wide when something goes wrong.
In namespaces of its own one may: networks, processes and mounts of the machine are out of reach.
"""

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Final

import pytest

EMULATORS: Final = Path(__file__).parents[2] / "real/emulators"
SANDBOX: Final = (
    *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
    # The loopback of the new network is down.
    *("sh", "-c", 'ip link set lo up && exec "$@"', "sh"),
)
"""Before a command: it has networks, processes and mounts of its own, and all end with it."""
NAMES: Final = ("sh", "-c", 'mount -t tmpfs tmpfs /run && exec "$@"', "sh")
"""After `SANDBOX`: names of network namespaces of its own, too."""


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip a test where a program is not installed."""
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {' '.join(missing)}")


def mat_program(path: Path) -> Path:
    """Write `mat` as a program that other Pythons and shells can start."""
    path.parent.mkdir(parents=True, exist_ok=True)
    places = os.pathsep.join(place for place in sys.path if place)
    path.write_text(f"#!/bin/sh\nPYTHONPATH='{places}' exec '{sys.executable}' -m mat_cli \"$@\"\n")
    path.chmod(0o755)
    return path


def survived(said: str) -> bool:
    """Whether a download came in before and after the move, over the same connections."""
    before, after = (
        re.findall(r"^  (10\.1\.0\.1:\d+ → 10\.\d\.0\.\d:5201)$", part, re.MULTILINE)
        for part in said.split("TCP before:")[1].split("TCP after:")
    )
    intervals = re.findall(r"sec +[1-9][0-9.]* MBytes", said)
    return before == after != [] and len(intervals) >= 6
