"""Delay, loss and rate of the links to the core.

Rate is the kernel's token bucket filter (tc-tbf(8)) at both ends of a link, with a queue of 100 ms.
Delay and loss are netem's (tc-netem(8)) where the kernel has it and it can draw what is asked for:
a constant time, or one uniformly distributed. Otherwise, and where a queue is counted in packets, a
process carries the link's frames (`mat_real.lab.wire`).
"""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from mat_files.distributions import Constant, Uniform
from mat_real.lab import wire
from mat_real.lab.layout import Uplink
from mat_real.lab.plan import Quality

QUEUE_TIME: Final = 0.1
"""Seconds that a packet waits at most for a link with a rate."""
_BURST_TIME: Final = 0.002
_LEAST_BURST: Final = 5000
"""Bytes that may go at once: what the rate gives in `_BURST_TIME`, and three packets at least."""
_REPORT: Final = re.compile(
    r"(\d+) passed, (\d+) dropped, (\d+) missed\nat worst ([\d.]+) ms late\n"
)
_NETEM_QUEUE: Final = 100_000
"""Packets; netem drops what is more, which would be a loss that nobody asked for."""


@final
@dataclass(frozen=True, slots=True)
class WireReport:
    """What a link's process did: frames passed on, lost as asked for, and lost as it was too slow.

    `late` is by how much a frame was later than it was due at worst since the last report, s.
    """

    passed: int
    dropped: int
    missed: int
    late: float


def read_reports(text: str) -> list[WireReport]:
    """The reports in what a link's process has printed."""
    return [
        WireReport(int(passed), int(dropped), int(missed), float(late) / 1000)
        for passed, dropped, missed, late in _REPORT.findall(text)
    ]


def needs_process(quality: Quality, *, netem: bool) -> bool:
    """Whether a link takes a process, given whether the kernel has netem."""
    if quality.queue is not None:
        return True
    return quality.impaired and not (netem and isinstance(quality.delay, Constant | Uniform))


def qdiscs(link: Uplink, interface: str, *, netem: bool) -> Iterator[str]:
    """The `tc` commands for one end of a link; what leaves there is what they are about."""
    quality, parent = link.quality, "root"
    if quality.rate is not None and quality.queue is None:
        burst = max(_LEAST_BURST, round(quality.rate / 8 * _BURST_TIME))
        bucket = f"tbf rate {quality.rate:.0f}bit burst {burst} latency {QUEUE_TIME * 1000:g}ms"
        yield f"qdisc add dev {interface} root handle 1: {bucket}"
        parent = "parent 1:1"
    if quality.impaired and not needs_process(quality, netem=netem):
        yield f"qdisc add dev {interface} {parent} handle 10: netem {_netem(quality)}"


def _netem(quality: Quality) -> str:
    delay = quality.delay
    jitter = ""
    if isinstance(delay, Uniform):
        jitter = f" {_microseconds((delay.high - delay.low) / 2)}"
    time = f"delay {_microseconds(delay.mean)}{jitter}"
    loss = f" loss {quality.loss * 100:g}%" if quality.loss else ""
    return f"limit {_NETEM_QUEUE} {time}{loss}"


def _microseconds(time: float) -> str:
    return f"{time * 1e6:.0f}us"


def wire_command(link: Uplink) -> Sequence[str | Path]:
    """The command that carries a link's frames, to be run in `air`."""
    quality = link.quality
    options = [f"--delay=delay = {quality.delay}", f"--loss={quality.loss!r}"]
    if quality.queue is not None:
        options += [f"--rate={quality.rate!r}", f"--queue={quality.queue}"]
    return [sys.executable, "-P", wire.__file__, *link.wires, *options]


def import_path() -> dict[str, str]:
    """The environment in which that command finds what this process finds."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
