"""Files with secrets, replaced in one step: locked, written beside, on disk, renamed.

Whatever happens before the rename (Ctrl-C, a full disk, a crash) leaves the old file as it was.
"""

import fcntl
import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

from mat_real.key_file import fail, quoted

_BLOCK: Final = 1 << 20
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def locked(directory: Path) -> Generator[None]:
    """Keep other writers of this directory's files waiting. Raises `KeyFileError`.

    The lock is on the directory because, other than a file in it, that is there before the first
    change and is the same after each.
    """
    try:
        descriptor = os.open(directory, _DIRECTORY)
    except FileNotFoundError:
        # Not 700: a server that runs as another user reads its configuration there.
        fail(directory, f"does not exist; run: install -d -m 755 {quoted(directory)}")
    except OSError as error:
        fail(directory, f"is no directory that can be opened ({error.strerror})")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@final
class Draft:
    """The new content of a file, readable only by its owner, until it is committed or dropped.

    It is written to `beside` and renamed. Where that is `path` itself, there is no older file to
    keep, and none is overwritten. Every failure is a `KeyFileError`. As a context, it drops what
    was not committed.
    """

    __slots__ = ("_beside", "_committed", "_file", "_owner", "_path")

    def __init__(self, path: Path, beside: Path, owner: int | None = None) -> None:
        """Make the file `beside`; it will belong to the user `owner`, or to who runs."""
        self._path = path
        self._beside = beside
        self._owner = owner
        self._committed = False
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        with self._explained():
            self._file = os.fdopen(os.open(beside, flags, 0o600), "wb", _BLOCK)

    def write(self, lines: Iterable[bytes]) -> None:
        """Add lines."""
        with self._explained():
            self._file.writelines(lines)

    def save(self) -> None:
        """Bring all of it to the disk: what can go wrong with a draft has gone wrong by then."""
        with self._explained():
            if self._owner not in (None, os.geteuid()):
                os.fchown(self._file.fileno(), self._owner, -1)
            self._file.flush()
            os.fsync(self._file.fileno())

    def commit(self) -> None:
        """Put the saved draft in the place of the file; after this it survives a crash."""
        with self._explained():
            if self._beside != self._path:
                self._beside.replace(self._path)
            self._committed = True
            _sync(self._path.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            # Closing tries once more to write what could not be written.
            self._file.close()
        if not self._committed:
            with suppress(OSError):
                self._beside.unlink()

    @contextmanager
    def _explained(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            state = "is written" if self._committed else "is as it was"
            fail(self._path, f"cannot be written ({error.strerror}); the file {state}")


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, _DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
