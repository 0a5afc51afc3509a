"""Table 4: floods of echo requests, `ping -s 36 -f -c 100000`, of each way in turn."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mat_paper import PaperError
from mat_paper.hosts import WAY_NAMES, Hosts, Way, hosts, turns
from mat_paper.published import PING_PAYLOAD
from mat_paper.record import Ping, Record, missing

Report = Callable[[int, int], None]
"""Called with how many measurements there are, and how many there will be."""

_COUNTS: Final = re.compile(r"(\d+) packets transmitted, (\d+) received")
_TIMES: Final = re.compile(r"= ([\d.]+)/([\d.]+)/([\d.]+)/[\d.]+ ms")


def parse(printed: str) -> tuple[int, int, float, float, float]:
    """What iputils' ping says at its end: sent, received; least, mean and greatest time, s.

    Raises `PaperError` where nothing was answered.
    """
    counts, times = _COUNTS.search(printed), _TIMES.search(printed)
    if counts is None or times is None:
        said = printed.strip() or "nothing"
        raise PaperError(f"ping was not answered; it printed: {said}")
    least, mean, greatest = (round(float(one) / 1000, 9) for one in times.groups())
    return int(counts[1]), int(counts[2]), least, mean, greatest


def measure(record: Record, logs: Path, report: Report) -> None:
    """Measure what is missing. Raises `PaperError` and `LabError`."""
    size = record.size.ping
    wanted = [(number, way) for number in range(size.rounds) for way in turns(number)]
    left = missing(wanted, ((row.round, row.way) for row in record.rows(Ping)))
    if not left:
        return
    with hosts(logs) as there:
        for number, way in left:
            report(len(wanted) - len(left), len(wanted))
            record.add(Ping(number, way, *_flood(there, way, size.count)))
            left = left[1:]
        report(len(wanted), len(wanted))


def _flood(there: Hosts, way: Way, count: int) -> tuple[int, int, float, float, float]:
    options = ("-q", "-s", str(PING_PAYLOAD), "-f", "-c", str(count))
    try:
        return parse(there.run(way, "ping", *options, "{}"))
    except PaperError as error:
        raise PaperError(f"{WAY_NAMES[way]}: {error}") from error
