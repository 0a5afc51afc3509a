"""The control socket of a daemon: one request a connection, and its answer, both JSON.

Who may connect is said by the file's mode: the owner's processes and root (umask(2), unix(7)).
"""

import asyncio
import json
import socket
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast

TIME_OUT: Final = 5.0
"""Seconds for a daemon to answer."""

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
        with suppress(OSError, ValueError):
            words = json.loads(await reader.readline())
            writer.write(json.dumps(answer(words)).encode())
            await writer.drain()
        writer.close()

    _clear(path, field)
    try:
        return await asyncio.start_unix_server(tell, path)
    except OSError as error:
        what = f"{path}: cannot be made ({error.strerror})"
        mend = f"set {field} to a path in a directory that exists and can be written"
        raise ControlError(f"{what}; {mend}") from error


def _clear(path: Path, field: str) -> None:
    """Remove a socket that a dead daemon left. Raises `ControlError` for anything else."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            what = "is there already, and is no socket"
            raise ControlError(f"{path}: {what}; set {field} to a path of its own")
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(str(path))
    except FileNotFoundError:
        return
    except OSError:
        with suppress(OSError):
            path.unlink()
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
    return cast(Any, json.loads(b"".join(parts)))
