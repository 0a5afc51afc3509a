"""Subcommands of `mat` as programs of their own: another package at work, without its import."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import IO, Any, Final

_MAT: Final = (sys.executable, "-c", "from mat_cli import main; main()")
"""The command `mat` of this installation, wherever it has been put."""
_INTERRUPTED: Final = 130
_STDERR: Final = 2


class ProgramError(Exception):
    """A subcommand has failed; it has said why."""


def run_mat(arguments: Sequence[str], output: IO[Any] | None = None) -> None:
    """Do `mat` with these arguments, to its end.

    What it prints goes to `output`, or else, as results are printed on standard output, to standard
    error. Ctrl-C ends it too, and takes effect when it has removed what it made. Raises
    `ProgramError`.
    """
    # Ctrl-C is for us, and is passed on once: in the terminal's group it would get it twice.
    process = subprocess.Popen(  # noqa: S603  # no shell, and the user's own words
        [*_MAT, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=_STDERR if output is None else output,
        stderr=None if output is None else subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        code = process.wait()
    except KeyboardInterrupt:
        _interrupt(process)
        raise
    if code == _INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        raise ProgramError(f"mat {' '.join(arguments[:2])} has failed (exit code {code})")


def _interrupt(process: "subprocess.Popen[bytes]") -> None:
    """End it, and wait until it has removed what it made."""
    process.send_signal(signal.SIGINT)
    while process.poll() is None:
        try:
            process.wait()
        except KeyboardInterrupt:
            continue
