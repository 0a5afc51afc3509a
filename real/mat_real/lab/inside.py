"""Threads in network namespaces: setns(2) moves the calling thread alone.

What it opens there (sockets, files below /proc/sys/net) stays there whoever uses it afterwards.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, final

from mat_real.namespaces import NodeRef

_T = TypeVar("_T")


@final
class Resident:
    """A thread that lives in a namespace, and does there what it is handed, in order."""

    __slots__ = ("_thread",)

    def __init__(self, node: NodeRef) -> None:
        self._thread = ThreadPoolExecutor(1, f"in {node.text}", node.enter)

    def do(self, what: Callable[[], _T]) -> _T:
        """Call it in the namespace; its result, or what it raised."""
        return self._thread.submit(what).result()

    def leave(self) -> None:
        """End the thread."""
        self._thread.shutdown()


def inside(node: NodeRef, what: Callable[[], _T]) -> _T:
    """Call something in a namespace; its result, or what it raised."""
    resident = Resident(node)
    try:
        return resident.do(what)
    finally:
        resident.leave()
