"""The time of an IMS: seconds that never go back, whatever happens to the host's clock.

Lifetimes and ages are differences, so the host's idea of the date does not matter to them, but a
step of it would: an hour back, and expired mappings would be alive again. So the clock is the time
since boot (CLOCK_BOOTTIME, which goes on in suspend) plus an offset. The offset is kept in the
store: as long as the machine is not booted anew, a restarted server counts on as though it had not
stopped. After a boot the offset is taken from the host's clock, but never so that the newest
registration in the store would lie in the future.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def boot() -> str:
    """What tells this boot of the machine from any other."""
    return _BOOT_ID.read_text(encoding="ascii").strip()


def remembered(kept: str, newest: float) -> str:
    """The clock to go on with, from what the store has kept (`BOOT OFFSET`, or nothing yet).

    `newest` is when the newest registration was registered.
    """
    parts = kept.split()
    here = boot()
    if len(parts) == 2 and parts[0] == here:
        return kept
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    return f"{here} {max(time.time(), newest) - since_boot!r}"


def clock(kept: str) -> Callable[[], float]:
    """The clock that `remembered` describes: a function that gives the time in seconds."""
    offset = float(kept.split()[1])
    boottime, read = time.CLOCK_BOOTTIME, time.clock_gettime

    def now() -> float:
        return read(boottime) + offset

    return now
