"""Programs in the nodes of a lab: started, watched, ended by their pid."""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, final

from mat_real.lab.errors import LabError
from mat_real.namespaces import NodeRef

STOP_TIME: Final = 8.0
"""Seconds that a program has to end after SIGTERM; an IMS takes up to 5."""
START_TIME: Final = 30.0
_LOOK: Final = 0.005
_TAIL: Final = 2000
"""Characters of a log that an error shows."""


def require(packages: Mapping[str, str]) -> None:
    """See that programs are there; `packages` says which package of Debian brings each.

    Raises `LabError` with all that are missing.
    """
    missing = [name for name in packages if shutil.which(name) is None]
    if missing:
        install = " ".join(sorted({packages[name] for name in missing}))
        what = f"not installed, or not on the path: {' '.join(missing)}"
        raise LabError(f"{what}; mend it with: sudo apt install {install}")


@final
class Program:
    """A program in a node. What it prints goes to `log`."""

    __slots__ = ("_begin", "command", "log", "node", "process")

    def __init__(self, node: NodeRef, command: Sequence[str | Path], log: Path, **how: Any) -> None:
        """Start it; `how` as for `subprocess.Popen`. Its output goes behind what is in the log."""
        self.node = node
        self.command = tuple(map(str, command))
        self.log = log
        with log.open("ab") as output:
            self._begin = output.tell()
            self.process: subprocess.Popen[bytes] = node.popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for the lab, which ends its programs in order.
                start_new_session=True,
                **how,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.poll() is None

    def text(self) -> str:
        """What it has printed so far."""
        with self.log.open("rb") as output:
            output.seek(self._begin)
            return output.read().decode(errors="replace")

    def wait_for(self, text: str, limit: float = START_TIME) -> None:
        """Wait until it has printed this.

        Raises `LabError`, with what it did print, if it ends before, or has not in `limit` seconds.
        """
        self.wait_until(lambda printed: text in printed, repr(text), limit)

    def wait_until(
        self, wanted: Callable[[str], bool], what: str, limit: float = START_TIME
    ) -> None:
        """Wait until what it has printed is as wanted; `what` that is, for messages.

        Raises `LabError` as `wait_for` does.
        """
        end = time.monotonic() + limit
        while not wanted(self.text()):
            self.check(f"before it printed {what}")
            if time.monotonic() > end:
                raise LabError(f"{self.described()}: no {what} in {limit:g} s\n{self._tail()}")
            time.sleep(_LOOK)

    def check(self, when: str) -> None:
        """Raise `LabError`, with what it printed, if it has ended."""
        if not self.running():
            code = self.process.returncode
            raise LabError(f"{self.described()} ended with {code} {when}\n{self._tail()}")

    def wait(self, limit: float) -> int:
        """Wait for its end; the exit code. Raises `LabError` if it goes on for `limit` seconds."""
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.described()} has not ended in {limit:g} s") from None

    def stop(self, limit: float = STOP_TIME) -> int:
        """End it by SIGTERM, or, after `limit` seconds, SIGKILL; the exit code."""
        stop_all([self], limit)
        return self.process.returncode

    def described(self) -> str:
        """Which program this is, for messages."""
        return f"{Path(self.command[0]).name} in {self.node.text}"

    def _tail(self) -> str:
        return self.text()[-_TAIL:].strip()


def stop_all(programs: Iterable[Program], limit: float = STOP_TIME) -> None:
    """End programs together, each as `Program.stop` does, the last one started first."""
    running = [one for one in programs if one.running()][::-1]
    for one in running:
        # It may have ended just now, which is as well.
        with suppress(ProcessLookupError):
            one.process.send_signal(signal.SIGTERM)
    end = time.monotonic() + limit
    for one in running:
        try:
            one.process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()
