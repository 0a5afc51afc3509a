"""Figure 5: what arrives of UDP, by iperf 2, at loads that are stepped up, of each way in turn.

`iperf -s -u` at CN, and `iperf -c CN -u -t 10 -b LOAD` at MN. In the paper's version 2.0.4 an M was
2^20 bits; here a load is given in bits.
"""

import itertools
import re
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from mat_paper import PaperError
from mat_paper.hosts import WAY_NAMES, WAYS, Hosts, Way, hosts, turns
from mat_paper.ping import Report
from mat_paper.published import UDP_DATAGRAM
from mat_paper.record import Record, Udp, missing

_ATTEMPTS: Final = 3
"""Of a run whose server's report was lost, as may be at loads that lose nearly everything."""
_LISTENS: Final = "Server listening"
_SENT: Final = re.compile(r"0\.0+-([\d.]+) sec .*\n\[ *\d+\] Sent (\d+) datagrams")
_ARRIVED: Final = re.compile(
    r"Server Report:\n.*\n\[ *\d+\] +[\d.]+- *([\d.]+) sec .* (\d+)/ *(\d+) \([^)]*\)"
)


@final
@dataclass(frozen=True, slots=True)
class Heard:
    """What iperf said: bit/s sent and arrived, datagrams lost, and all datagrams."""

    sent: float
    arrived: float
    lost: int
    datagrams: int


def parse(printed: str) -> Heard:
    """What iperf's client says, the server's report included.

    Rates follow from the datagrams and the times, which are printed to more digits. Raises
    `PaperError` where the server has not reported.
    """
    sent, arrived = _SENT.search(printed), _ARRIVED.search(printed)
    if sent is None or arrived is None:
        said = printed.strip() or "nothing"
        raise PaperError(f"iperf's server has not reported; the client printed: {said}")
    lost, datagrams = int(arrived[2]), int(arrived[3])
    bits = 8 * UDP_DATAGRAM
    return Heard(
        round(bits * int(sent[2]) / float(sent[1])),
        round(bits * (datagrams - lost) / float(arrived[1])),
        lost,
        datagrams,
    )


def measure(record: Record, logs: Path, report: Report) -> None:
    """Measure what is missing. Raises `PaperError` and `LabError`."""
    size = record.size.udp
    loads = [load * 1e6 for load in size.loads]
    wanted = [
        (number, load, way)
        for number, load in itertools.product(range(size.rounds), loads)
        for way in turns(number)
    ]
    left = missing(wanted, ((row.round, row.load, row.way) for row in record.rows(Udp)))
    if not left:
        return
    with hosts(logs) as there, _servers(there):
        for number, load, way in left:
            report(len(wanted) - len(left), len(wanted))
            heard = _run(there, way, load, size.seconds)
            row = Udp(number, way, load, heard.sent, heard.arrived, heard.lost, heard.datagrams)
            record.add(row)
            left = left[1:]
        report(len(wanted), len(wanted))


@contextmanager
def _servers(there: Hosts) -> Generator[None]:
    """`iperf -s -u` at each CN."""
    with ExitStack() as stack:
        for way in WAYS:
            server = there.lab.start(there.pair(way).peer, ["iperf", "-s", "-u"])
            stack.callback(server.stop)
            server.wait_for(_LISTENS)
        yield


def _run(there: Hosts, way: Way, load: float, seconds: float) -> Heard:
    options = ("-u", "-t", f"{seconds:g}", "-b", f"{load:.0f}", "-l", str(UDP_DATAGRAM), "-f", "k")
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return parse(there.run(way, "iperf", "-c", "{}", *options))
        except PaperError as error:
            if attempt == _ATTEMPTS:
                what = f"{WAY_NAMES[way]}, {load / 1e6:g} Mbit/s, {_ATTEMPTS} attempts"
                raise PaperError(f"{what}: {error}") from error
    raise AssertionError("the last attempt returns or raises")
