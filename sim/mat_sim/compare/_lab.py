"""The namespace lab, which is a program of its own: simulator and lab share no code but files."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

_MAT: Final = (sys.executable, "-c", "from mat_cli import main; main()")
"""The command `mat` of this installation, wherever it has been put."""
_INTERRUPTED: Final = 130
_STDERR: Final = 2
"""Where what it says goes, as results are printed on standard output."""


class LabError(Exception):
    """The lab has not written results; it has said why."""


def play(arguments: Sequence[str]) -> None:
    """Do `mat lab run` with these arguments, to its end.

    Ctrl-C ends it too, and takes effect when it has removed everything. Raises `LabError`.
    """
    # Ctrl-C is for us, and is passed on once: in the terminal's group it would get it twice.
    process = subprocess.Popen(  # noqa: S603  # no shell, and the user's own words
        [*_MAT, "lab", "run", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=_STDERR,
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
        raise LabError(f"mat lab run has failed (exit code {code}), as said above")


def _interrupt(process: "subprocess.Popen[bytes]") -> None:
    """End it, and wait until it has removed what it made."""
    process.send_signal(signal.SIGINT)
    while process.poll() is None:
        try:
            process.wait()
        except KeyboardInterrupt:
            continue
