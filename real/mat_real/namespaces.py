"""Network namespaces: which one is meant, and how to be in it.

A node is a network namespace, whoever made it: `ip netns`, a container, an emulator. Only the
network namespace is entered; files, users and processes stay those of the caller
(network_namespaces(7), setns(2)).
"""

import os
import re
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from pyroute2 import netns

NAMED: Final = Path("/run/netns")
"""Where `ip netns` keeps the namespaces that have names."""
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")


class NamespaceError(Exception):
    """A namespace is not there, or may not be entered; says which and how to mend it."""


@final
@dataclass(frozen=True, slots=True)
class NodeRef:
    """A node, by its network namespace. `text` is how it was named."""

    text: str
    path: Path
    """A file that stands for the namespace (namespaces(7))."""

    @classmethod
    def parse(cls, text: str) -> "NodeRef":
        """From `netns:NAME`, `pid:NUMBER` or `path:FILE`. Raises `ValueError`."""
        kind, _, what = text.partition(":")
        if kind == "netns" and _NAME.fullmatch(what) and what not in {".", ".."}:
            return cls(text, NAMED / what)
        if kind == "pid" and what.isdecimal():
            return cls(text, Path("/proc") / what / "ns/net")
        if kind == "path" and what:
            return cls(text, Path(what))
        raise ValueError(f"{text!r} is no node: say netns:NAME, pid:NUMBER or path:FILE")

    def enter(self) -> None:
        """Put the calling thread into the namespace, for good. Raises `NamespaceError`.

        Call it before other threads are started: they inherit it.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            what = f"{self.text}: there is no such namespace ({self.path}: {error.strerror})"
            raise NamespaceError(f"{what}; `ip netns list` shows those with names") from error
        try:
            netns.setns(descriptor)
        except OSError as error:
            what = f"{self.text}: cannot be entered ({error.strerror})"
            raise NamespaceError(f"{what}; that takes root, or CAP_SYS_ADMIN") from error
        finally:
            os.close(descriptor)

    def popen(self, command: Sequence[str | Path], **how: Any) -> subprocess.Popen[Any]:
        """Start a program in the namespace; `how` as for `subprocess.Popen`.

        The process started is the program itself: its pid may be signalled.
        """
        return subprocess.Popen(["nsenter", f"--net={self.path}", "--", *command], **how)

    def run(self, *command: str | Path) -> str:
        """Run a program in the namespace to its end; what it printed.

        Raises `subprocess.CalledProcessError`.
        """
        entered = ["nsenter", f"--net={self.path}", "--", *command]
        try:
            return subprocess.run(entered, check=True, capture_output=True, text=True).stdout
        except subprocess.CalledProcessError as error:
            error.add_note(error.stderr)
            raise


def create(name: str) -> NodeRef:
    """Make a named namespace with its loopback up. Raises `NamespaceError`."""
    node = NodeRef.parse(f"netns:{name}")
    try:
        _ip_netns("add", name)
    except subprocess.CalledProcessError as error:
        what = f"namespace {name} cannot be made ({error.stderr.strip()})"
        raise NamespaceError(f"{what}; that takes root, and a name that is free") from error
    node.run("ip", "link", "set", "lo", "up")
    return node


def remove(node: NodeRef) -> None:
    """Remove a named namespace; what is in it goes when the last process has left.

    Raises `subprocess.CalledProcessError`.
    """
    _ip_netns("delete", node.path.name)


def _ip_netns(what: str, name: str) -> None:
    subprocess.run(["ip", "netns", what, name], check=True, capture_output=True, text=True)


@contextmanager
def namespaces(*names: str) -> Generator[list[NodeRef]]:
    """Namespaces for as long as the block lasts."""
    made: list[NodeRef] = []
    try:
        made.extend(map(create, names))
        yield made
    finally:
        for node in reversed(made):
            remove(node)
