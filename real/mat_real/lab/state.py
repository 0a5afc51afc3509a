"""Which labs there are on this machine, and what of a lab whose process is gone is still there.

Theory of operation. A lab has a name, `mat-lab-PID-N`, a folder of that name in /run/mat-lab, and
namespaces called after it. Its process holds a lock on the folder for as long as it lives, which
the kernel lets go of however it ends: so a folder that can be locked is a dead lab's, whatever
process has its pid by now. All that it left follows from its name: the namespaces whose names begin
with it, and the processes inside those. Who makes or removes such a folder holds a lock on the one
above.
"""

import fcntl
import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from mat_real.lab.errors import LabError
from mat_real.namespaces import NAMED, NodeRef

RUN: Final = Path("/run/mat-lab")
_FOLDER: Final = "folder"
_PATIENCE: Final = 5.0
"""Seconds for killed processes to be gone."""


@final
@dataclass(frozen=True, slots=True)
class Leftover:
    """What a lab left whose process is gone: namespaces, and its folder if that was temporary."""

    name: str
    namespaces: tuple[str, ...]
    folder: Path | None


@final
class Claim:
    """The name of a lab, taken until it is given up. Raises `LabError` if none can be had."""

    __slots__ = ("_descriptor", "name", "path")

    def __init__(self) -> None:
        with _folder_locked():
            for number in itertools.count(1):
                self.name = f"mat-lab-{os.getpid()}-{number}"
                self.path = RUN / self.name
                """The lab's folder of sockets, whose paths must be short."""
                with suppress(FileExistsError):
                    self.path.mkdir(0o755)
                    break
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def note_folder(self, folder: Path) -> None:
        """Note a folder that goes with the lab."""
        (self.path / _FOLDER).write_text(str(folder))

    def give_up(self) -> None:
        """The lab is gone, and nothing of it is left."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._descriptor)


@contextmanager
def _folder_locked() -> Generator[None]:
    try:
        RUN.mkdir(mode=0o755, exist_ok=True)
        descriptor = os.open(RUN, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        what = f"{RUN} cannot be used ({error.strerror}); a lab takes root"
        raise LabError(f"{what}, or mat_real.lab.enter_user_namespace()") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def leftovers() -> list[Leftover]:
    """What labs left whose processes are gone. Raises `LabError`."""
    if not RUN.is_dir():
        return []
    with _folder_locked():
        return [_left_by(path) for path in sorted(RUN.iterdir()) if _is_dead(path)]


def remove_leftovers() -> list[Leftover]:
    """End the processes and remove the namespaces of labs whose own process is gone.

    Returns what was removed. Raises `LabError`.
    """
    if not RUN.is_dir():
        return []
    removed: list[Leftover] = []
    with _folder_locked():
        for path in sorted(RUN.iterdir()):
            if _is_dead(path):
                removed.append(_left_by(path))
                _remove(removed[-1])
                shutil.rmtree(path)
    return removed


def _is_dead(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def _left_by(path: Path) -> Leftover:
    noted = path / _FOLDER
    folder = Path(noted.read_text()) if noted.exists() else None
    return Leftover(path.name, tuple(namespaces_of(path.name)), folder)


def _remove(left: Leftover) -> None:
    remove_namespaces(left.namespaces)
    if left.folder is not None:
        shutil.rmtree(left.folder, ignore_errors=True)


def namespaces_of(lab: str) -> list[str]:
    """The namespaces of a lab that there are."""
    if not NAMED.is_dir():
        return []
    return sorted(path.name for path in NAMED.iterdir() if path.name.startswith(f"{lab}-"))


def remove_namespaces(names: Sequence[str]) -> None:
    """End every process in these namespaces, and remove them. Raises `LabError`."""
    nodes = [NodeRef.parse(f"netns:{name}") for name in names]
    end = time.monotonic() + _PATIENCE
    while pids := processes_in(nodes):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > end:
            raise LabError(f"processes {pids} of {', '.join(names)} do not end")
        time.sleep(0.01)
    netns("delete", names)


def processes_in(nodes: Iterable[NodeRef]) -> list[int]:
    """The processes in these namespaces, but for this one."""
    wanted = {(found.st_dev, found.st_ino) for found in (node.path.stat() for node in nodes)}
    pids: list[int] = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdecimal():
                found = (folder / "ns/net").stat()
                if (found.st_dev, found.st_ino) in wanted:
                    pids.append(int(folder.name))
    return [pid for pid in pids if pid != os.getpid()]


def netns(what: str, names: Iterable[str]) -> None:
    """Add or delete namespaces by their names. Raises `LabError`."""
    lines = "".join(f"netns {what} {name}\n" for name in names)
    if lines:
        batch(["ip"], lines)


def batch(command: Sequence[str | Path], lines: str) -> None:
    """Run many commands of `ip` or `tc` in one process. Raises `LabError`."""
    done = subprocess.run(
        [*command, "-batch", "-"],
        input=lines,
        capture_output=True,
        text=True,
        check=False,
        # Ctrl-C is for the lab, which sees that everything is in order.
        start_new_session=True,
    )
    if done.returncode:
        raise LabError(f"{' '.join(map(str, command))}: {_explained(done.stderr, lines)}")


def _explained(complaint: str, lines: str) -> str:
    """What was said, with the command in place of its number."""
    first, _, rest = complaint.strip().partition("\n")
    number = rest.rpartition(":")[2].strip()
    if number.isdecimal() and int(number) <= lines.count("\n"):
        return f"{first} ({lines.splitlines()[int(number) - 1]})"
    return complaint.strip()
