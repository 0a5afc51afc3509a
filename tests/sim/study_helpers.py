"""What the tests of studies share: a small scenario, and folders as bytes."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mat_files.scenario import Scenario

WAIT_SECONDS = 120
SHORT = Scenario.load("first").changed(
    {"scenario.duration": 12.0, "network.1.address": {"uniform": [0.2, 0.6]}}
)
"""Done in some hundredths of a second."""
LONG = SHORT.changed({"traffic.up": 600.0, "traffic.down": 600.0})
"""Takes so long that something can be done meanwhile."""


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its relative name."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def runs_in(folder: Path) -> list[Path]:
    """The runs that a sweep has written so far."""
    return sorted(folder.glob("case-*/run-*"))


def wait_for(what: Callable[[], object], why: str) -> None:
    """Wait until something is so; raise where it does not come to be."""
    end = time.monotonic() + WAIT_SECONDS
    while not what():
        if time.monotonic() > end:
            raise TimeoutError(why)
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    """The processes that a process has begun."""
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def alive(pid: int) -> bool:
    """Whether a process runs: zombies do not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def meanwhile(action: Callable[[], None]) -> Generator[None]:
    """Do something in a thread while the body runs; what it raises, is raised at the end."""
    raised: list[BaseException] = []

    def act() -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001  # raised again below
            raised.append(error)

    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if raised:
        raise raised[0]


@contextmanager
def gone_at_the_end(process: "subprocess.Popen[Any]") -> Generator[None]:
    """Whatever fails, nothing stays of a process that leads a session of its own."""
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def kill(pid: int) -> None:
    """End one process at once, unless it has ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
