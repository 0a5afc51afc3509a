"""What a worker counts, in memory that it shares with the supervisor.

Counters are 64-bit words of a shared mapping, one row a worker, so that counting costs an addition
and the supervisor reads them without asking: metrics and `mat ims status` work while all workers
are busy, and what a worker counted outlives it.
"""

import math
import mmap
from collections.abc import Iterator
from typing import Final, final

from mat.codec import Malformed
from mat.effects import EventKind
from mat.messages import NAMES, Code, Type

TYPES: Final = tuple(NAMES.values())
"""Message types by name; a type's number is its place here plus 1."""
REQUESTS: Final = ("IMS Update", "MA Query", "HA Notify", "HA Query")
CODES: Final = tuple(code.name.lower() for code in Code)
BOUNDS: Final = tuple(2.0**exponent * 1e-6 for exponent in range(5, 25))
"""Upper bounds of the response time histogram, s: 32 µs to 17 s, each twice the one before."""
GAUGES: Final = (
    "backlog",
    "store_pending",
    "mappings",
    "foreign_mappings",
    "inquiries",
    "keys",
    "receive_buffer",
)
DNS: Final = (
    "queries",
    "cache_hits",
    "negative",
    "timeouts",
    "failures",
    "bogus",
    "bad_records",
)

Name = tuple[str, ...]
"""Family and labels of one counter, such as ("answers", "MA Answer", "succeeded")."""


def _names() -> Iterator[Name]:
    yield from (("received", name) for name in TYPES)
    yield from (("answers", name, code) for name in REQUESTS for code in CODES)
    yield from (("sent", name) for name in TYPES)
    yield from (("malformed", reason.name.lower()) for reason in Malformed)
    yield from (("events", kind.name.lower()) for kind in EventKind)
    for name in REQUESTS:
        yield from (("response", name, str(bucket)) for bucket in range(len(BOUNDS) + 1))
        yield ("response_microseconds", name)
    yield from (("dns", name) for name in DNS)
    yield from (("gauge", name) for name in GAUGES)
    yield from (("overflowed",), ("repeated",), ("undelivered",), ("store_unavailable",))
    yield ("reloads",)


LAYOUT: Final = tuple(_names())
INDEX: Final = {name: at for at, name in enumerate(LAYOUT)}
_ROW: Final = 8 * len(LAYOUT)

RECEIVED: Final = INDEX["received", TYPES[0]] - 1
"""Add a type's number."""
SENT: Final = INDEX["sent", TYPES[0]] - 1
MALFORMED: Final = {reason: INDEX["malformed", reason.name.lower()] for reason in Malformed}
EVENTS: Final = {kind: INDEX["events", kind.name.lower()] for kind in EventKind}
ANSWERS: Final = {
    kind: INDEX["answers", request, CODES[0]]
    for kind, request in (
        (Type.IMS_UPDATE_REPLY, "IMS Update"),
        (Type.MA_ANSWER, "MA Query"),
        (Type.HA_NOTIFY_ACK, "HA Notify"),
        (Type.HA_ANSWER, "HA Query"),
    )
}
"""Of each type of answer, where the counters of its codes begin."""


def size(workers: int) -> int:
    """Bytes of the shared memory for a number of workers."""
    return workers * _ROW


@final
class Tallies:
    """The counters of one worker; `words` may be indexed by `INDEX`."""

    __slots__ = ("words",)

    def __init__(self, memory: mmap.mmap, worker: int) -> None:
        self.words = memoryview(memory)[worker * _ROW : (worker + 1) * _ROW].cast("Q")

    def __getitem__(self, name: Name) -> int:
        return self.words[INDEX[name]]

    def total(self, family: str) -> int:
        """All counters of a family together."""
        return sum(self.words[at] for name, at in INDEX.items() if name[0] == family)

    def add(self, name: Name, amount: int = 1) -> None:
        """Count, where speed does not matter."""
        self.words[INDEX[name]] += amount

    def set(self, name: Name, value: int) -> None:
        """Set a gauge."""
        self.words[INDEX[name]] = value

    def clear_gauges(self) -> None:
        """Set all gauges to 0: nobody is there whom they would be about."""
        for name in GAUGES:
            self.set(("gauge", name), 0)

    def responded(self, request: str, seconds: float, count: int = 1) -> None:
        """`count` requests of a type were answered after so many seconds."""
        micros = math.ceil(seconds * 1e6)
        bucket = min(max(0, (micros - 1).bit_length() - 5), len(BOUNDS))
        words = self.words
        words[_RESPONSE[request] + bucket] += count
        words[_MICROSECONDS[request]] += micros * count


_RESPONSE: Final = {name: INDEX["response", name, "0"] for name in REQUESTS}
_MICROSECONDS: Final = {name: INDEX["response_microseconds", name] for name in REQUESTS}
