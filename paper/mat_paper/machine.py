"""On what was measured: processor, kernel, and the versions of what took part."""

import os
import platform
import re
import subprocess
import time
from pathlib import Path
from typing import Final

from mat import __version__

_VERSIONS: Final = {
    "iperf": ("iperf", "-v"),
    "ping": ("ping", "-V"),
    "dnsmasq": ("dnsmasq", "--version"),
    "nft": ("nft", "--version"),
}
_UNKNOWN: Final = "unknown"
_LOOK: Final = 0.5


def machine() -> dict[str, str]:
    """This machine and its programs, by what each is; what cannot be found out is `unknown`."""
    return {
        "processor": _field(Path("/proc/cpuinfo"), r"model name\s*: (.+)"),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{_memory():.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "system": _field(Path("/etc/os-release"), r'PRETTY_NAME="?([^"\n]+)'),
        "python": platform.python_version(),
        "mat": __version__,
        **{name: _version(command) for name, command in _VERSIONS.items()},
    }


def busy() -> float:
    """How many processors are busy now, with whatever it is; it looks for half a second.

    The load average would count what this evaluation itself did a minute ago.
    """
    begun, before = time.monotonic(), _busy_time()
    time.sleep(_LOOK)
    return (_busy_time() - before) / (time.monotonic() - begun)


def _busy_time() -> float:
    """Processor time since the machine was started, s, that was not idle (proc_stat(5))."""
    with Path("/proc/stat").open(encoding="ascii") as file:
        ticks = [int(word) for word in file.readline().split()[1:]]
    # The last two are in the first two, too; the fourth and fifth are idle, and waiting.
    return (sum(ticks[:8]) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _field(path: Path, pattern: str) -> str:
    try:
        found = re.search(pattern, path.read_text(encoding="utf-8"))
    except OSError:
        found = None
    return found[1].strip() if found else _UNKNOWN


def _version(command: tuple[str, ...]) -> str:
    """The first line of what a program says of itself; iperf says it as an error."""
    try:
        done = subprocess.run(  # noqa: S603  # one of the above
            command, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return _UNKNOWN
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0].strip() if lines else _UNKNOWN
