"""A lab without root: the program again, in namespaces of its own in which it is root."""

import os
import subprocess
import sys
from typing import Final

from mat_real.lab.errors import LabError

_UNSHARE: Final = ("unshare", "--user", "--map-root-user", "--net", "--mount")
# The names of namespaces and the states of labs are kept in /run, where only root may write.
_PREPARE: Final = 'mount -t tmpfs tmpfs /run && exec "$@"'


def enter_user_namespace() -> None:
    """Be root in user, network and mount namespaces of one's own (user_namespaces(7)).

    Call it first of all: the program is executed again with the same arguments, and what it has
    done before is lost. For root this does nothing. Raises `LabError` where it is not allowed.
    """
    if os.geteuid() == 0:
        return
    tried = subprocess.run([*_UNSHARE, "true"], check=False, capture_output=True, text=True)
    if tried.returncode:
        what = f"user namespaces are not allowed here ({tried.stderr.strip()})"
        mend = "kernel.unprivileged_userns_clone, user.max_user_namespaces or AppArmor forbid them"
        raise LabError(f"{what}: {mend}; run as root instead")
    again = [sys.executable, *sys.orig_argv[1:]]
    # Where Debian keeps the programs that configure networks, and users have no path to.
    os.environ["PATH"] = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    os.execvp(_UNSHARE[0], [*_UNSHARE, "sh", "-c", _PREPARE, "sh", *again])  # noqa: S606  # meant
