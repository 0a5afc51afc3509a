"""MAT in hosts that somebody else made: one daemon in the network namespace of each.

    mn = attach(NodeRef.parse("pid:4711"), "mn", "--config", "mn.toml")

An emulator needs no more than to say where a host's namespace is; nothing here knows which
emulator that is. Only the network namespace is entered: files are those of the caller.
"""

import subprocess
import sys
from typing import Any, Final, Literal, get_args

from mat_real.namespaces import NodeRef

Role = Literal["mn", "cn", "ims", "dns"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
"""What a host can be. An MN and a CN run the same daemon: every node plays both parts."""


def attach(node: NodeRef, role: Role, *options: str, **how: Any) -> subprocess.Popen[Any]:
    """Start the daemon of a role in a namespace.

    `options` are those of `mat node run`, `mat ims serve` or `mat dns serve`, `how` is for
    `subprocess.Popen`. The process is the daemon itself: SIGTERM ends it, and takes away what it
    installed.
    """
    command = [sys.executable, "-m", "mat_cli", "attach", "--ns", node.text, "--role", role]
    return subprocess.Popen([*command, *options], **how)
