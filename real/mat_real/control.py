"""The control socket of a daemon: one request a connection, and its answer, both JSON.

Who may connect is said by the file's mode: the owner's processes and root (umask(2), unix(7)).
"""

import asyncio
import json
import os
import socket
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeGuard, cast

TIME_OUT: Final = 5.0
"""Seconds for a daemon to answer."""

LONGEST: Final = 107
"""Bytes of a socket's path (unix(7))."""

Answer = Callable[[Sequence[str]], object]
"""From the words of a request to what is answered, as JSON has it."""


class ControlError(Exception):
    """The control socket cannot be made; says why and how to mend it."""


async def listen(path: Path, answer: Answer, field: str) -> asyncio.Server:
    """Answer requests on a Unix socket until the server is closed.

    `field` is what the configuration calls the path. Raises `ControlError`.
    """

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Who goes without waiting, or says what nobody understands, gets nothing.
        words: object = None
        with suppress(OSError, ValueError):
            words = json.loads(await reader.readline())
        try:
            if _is_words(words):
                writer.write(json.dumps(answer(words)).encode())
                with suppress(OSError):
                    await writer.drain()
        finally:
            writer.close()

    _clear(path, field)
    try:
        return await asyncio.start_unix_server(tell, path)
    except OSError as error:
        # Python's own error for a path that is too long has no number.
        what = f"{path}: cannot be made ({error.strerror or error})"
        raise ControlError(f"{what}; {_mend(field)}") from error


def _is_words(said: object) -> TypeGuard[list[str]]:
    return isinstance(said, list) and all(
        isinstance(word, str) for word in cast("list[object]", said)
    )


def check_place(path: Path, field: str) -> None:
    """See whether a socket could be made there, or made anew. Raises `ControlError`."""
    with suppress(FileNotFoundError):
        _refuse_other_files(path, field)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ControlError(f"{path}: cannot be made; {_mend(field)}")
    if len(os.fsencode(path)) > LONGEST:
        raise ControlError(f"{path}: is longer than {LONGEST} bytes; {_mend(field)}")


def _refuse_other_files(path: Path, field: str) -> None:
    if not stat.S_ISSOCK(path.lstat().st_mode):
        what = "is there already, and is no socket"
        raise ControlError(f"{path}: {what}; set {field} to a path of its own")


def _mend(field: str) -> str:
    return f"set {field} to a short path in a directory that exists and can be written"


def _clear(path: Path, field: str) -> None:
    """Remove a socket that a dead daemon left. Raises `ControlError` for anything else."""
    try:
        _refuse_other_files(path, field)
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(str(path))
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        with suppress(OSError):
            path.unlink()
    except OSError as error:
        what = f"cannot be used ({error.strerror or error})"
        raise ControlError(f"{path}: {what}; set {field} to a path of its own") from error
    else:
        what = f"is that of one that runs; stop that one, or set {field} to another path"
        raise ControlError(f"{path}: {what}")


def ask(path: Path, *words: str) -> Any:
    """What the daemon behind a control socket answers. Raises `OSError`, `ValueError`."""
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(TIME_OUT)
        one.connect(str(path))
        one.sendall(json.dumps(words).encode() + b"\n")
        parts = list(iter(lambda: one.recv(65536), b""))
    found: Any = json.loads(b"".join(parts))
    return found
