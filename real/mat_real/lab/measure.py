"""Whether a lab is what was asked for: read back from the kernel, and measured.

An emulation that silently lacks the delay it was asked for makes wrong results. So every link to
the core is looked at before a run: its ends are up, its queueing disciplines are those that were
set, or its process runs; `ping` finds the round trip that the delay makes, how much it varies, and,
counted, the loss; `iperf3` finds the rate, where one is set. What is not as asked for is refused,
all at once.

Refused is what differs, three times in a row, by more than the machine's own disturbances
(`_SLACK` and 10 % of the time, 15 % of the rate), what would come of the asked-for values less than
once in a million runs, and a variation of less than half or more than twice what it should be. So a
loss below some 0.5 % is set, but not told from none at all. A rate with a queue of less than 50
packets is set, but not measured.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean, median, pvariance, quantiles
from typing import TYPE_CHECKING, Any, Final, final

from mat_files.distributions import Constant
from mat_real.lab.errors import LabError
from mat_real.lab.impairment import needs_process, qdiscs
from mat_real.lab.layout import CORE, Uplink, address_of
from mat_real.lab.plan import CORE4
from mat_real.lab.programs import Program

if TYPE_CHECKING:
    from mat_real.lab.lab import Lab

_ATTEMPTS: Final = 3
"""Measurements of a link before it is refused: the first may have been disturbed."""
_PINGS: Final = 40
_MOST_PINGS: Final = 1500
_EXPECTED_LOSSES: Final = 30
_INTERVAL: Final = 0.01
_SHORT_INTERVAL: Final = 0.001
_PING: Final = 98 * 8
"""Bits of a ping on the link, and of them the part of the rate that they may take."""
_PING_SHARE: Final = 0.2
_SLACK: Final = 0.002
"""Seconds by which a round trip may be longer on a machine that does other things too."""
_IMPLAUSIBLE: Final = 1e-6
_DEVIATIONS: Final = 5.0
"""Standard deviations that are as implausible."""
_PACKET: Final = 84 * 8
"""Bits of its IP packet, which are what counts for the rate of a process."""
_ROOM: Final = 50
"""Packets that must find room for a rate to be measured: the stream comes in bursts."""
_RATE_TOLERANCE: Final = 0.15
_OVERLOAD: Final = 1.25
_PAYLOAD: Final = 1200
_HEADERS: Final = 42  # Ethernet, IPv4, UDP
_TIME_OF_PING: Final = re.compile(r"icmp_seq=.* time=([\d.]+) ms")


@final
@dataclass(frozen=True, slots=True)
class Measured:
    """What was found of a link to the core.

    `rtt` is the mean round trip in seconds, `jitter` what its middle half spans; `loss` the part
    of the round trips that were lost, of `pings`; `out` and `back` the rates towards the core and
    from it, bit/s, None if not measured.
    """

    link: str
    rtt: float
    jitter: float
    loss: float
    pings: int
    out: float | None = None
    back: float | None = None


def check(lab: "Lab", links: tuple[Uplink, ...]) -> list[Measured]:
    """Read back and measure all links. Raises `LabError` with all that is not as asked for."""
    wrong = [what for link in links for what in _read_back(lab, link)]
    if wrong:
        raise LabError("\n".join(wrong))
    found: dict[str, Measured] = {}
    doubtful = links
    for _ in range(_ATTEMPTS):
        found |= _measure(lab, doubtful)
        doubtful = tuple(link for link in doubtful if _said(link, found))
    if doubtful:
        raise LabError("\n".join(what for link in doubtful for what in _said(link, found)))
    return [found[link.name] for link in links]


def _measure(lab: "Lab", links: tuple[Uplink, ...]) -> dict[str, Measured]:
    running = [(link, *_start_ping(lab, link)) for link in links]
    return {link.name: _measured(lab, link, ping, count) for link, ping, count in running}


def _said(link: Uplink, found: Mapping[str, Measured]) -> list[str]:
    return [f"link {link.name}: {what}" for what in _differences(link, found[link.name])]


# ---- reading back --------------------------------------------------------------------------------


def _read_back(lab: "Lab", link: Uplink) -> Iterator[str]:
    for name, interface in ((CORE, link.inner), (link.name, link.outer)):
        (found,) = json.loads(lab.run(name, "ip", "-j", "link", "show", "dev", interface))
        if not {"UP", "LOWER_UP"} <= set(found["flags"]):
            yield f"{interface} in {name} was set up, and is {found['operstate']}"
        present = json.loads(lab.run(name, "tc", "-j", "qdisc", "show", "dev", interface))
        for asked in qdiscs(link, interface, netem=lab.netem):
            if not any(_matches(link, asked, one) for one in present):
                yield f"{interface} in {name} was given {asked!r}, and has {present}"
    if needs_process(link.quality, netem=lab.netem) and not lab.wire(link.name).running():
        yield f"link {link.name}: the process that delays its packets has ended"


def _matches(link: Uplink, asked: str, present: dict[str, Any]) -> bool:
    """Whether a queueing discipline that is there is the one that was asked for."""
    kind = present["kind"]
    if f" {kind} " not in asked:
        return False
    quality, options = link.quality, present["options"]
    if kind == "tbf":
        return _near(options["rate"] * 8, quality.rate or 0.0)
    delay = options.get("delay", {}).get("delay", 0.0)
    loss = options.get("loss-random", {}).get("loss", 0.0)
    return _near(delay, quality.delay.mean) and _near(loss, quality.loss)


def _near(found: float, asked: float) -> bool:
    return math.isclose(found, asked, rel_tol=0.01, abs_tol=1e-6)


# ---- measuring -----------------------------------------------------------------------------------


def _start_ping(lab: "Lab", link: Uplink) -> tuple[Program, int]:
    quality = link.quality
    count, interval = _PINGS, _INTERVAL
    if quality.loss:
        count = min(_MOST_PINGS, max(_PINGS, round(_EXPECTED_LOSSES / _round_trip(quality.loss))))
        interval = _SHORT_INTERVAL
    if quality.rate is not None:
        interval = max(interval, _PING / (_PING_SHARE * quality.rate))
    options = ["-n", f"-c{count}", f"-i{interval:.4f}", "-W1"]
    command = ["ping", *options, str(address_of(lab.plan.everyone[link.name]))]
    return lab.start(CORE, command, f"ping-{link.name}.log"), count


def _round_trip(loss: float) -> float:
    """The probability that one of two packets is lost."""
    return 1 - (1 - loss) ** 2


def _measured(lab: "Lab", link: Uplink, ping: Program, count: int) -> Measured:
    ping.wait(120.0)
    counted = [float(time) / 1000 for time in _TIME_OF_PING.findall(ping.text())]
    rtt = fmean(counted) if counted else math.inf
    spread = _middle_half(counted) if len(counted) > 1 else math.inf
    quality = link.quality
    rates: tuple[float | None, float | None] = (None, None)
    if quality.rate is not None and (quality.queue is None or quality.queue >= _ROOM):
        rates = _rates(lab, link, quality.rate)
    return Measured(link.name, rtt, spread, 1 - len(counted) / count, count, *rates)


def _middle_half(times: Sequence[float]) -> float:
    """What the middle half of some times spans: the interquartile range."""
    first, _, third = quantiles(times)
    return third - first


def _rates(lab: "Lab", link: Uplink, rate: float) -> tuple[float, float]:
    """The rates out and back, bit/s: what arrives of a stream that is faster."""
    end = str(address_of(lab.plan.everyone[link.name]))
    return _rate(lab, link.name, CORE, end, rate), _rate(lab, CORE, link.name, str(CORE4), rate)


def _rate(lab: "Lab", source: str, sink: str, address: str, rate: float) -> float:
    """What arrives at `sink` of a stream that is sent from `source`, at `address`, bit/s."""
    server = lab.start(source, ["iperf3", "-s", "--forceflush"], "iperf3.log")
    server.wait_for("Server listening")
    options = ["-R", "-u", f"-b{rate * _OVERLOAD:.0f}", f"-l{_PAYLOAD}", "-t1", "-i0.1", "-J"]
    try:
        return _received(json.loads(lab.run(sink, "iperf3", "-c", address, *options)))
    finally:
        server.stop()


def _received(report: dict[str, Any]) -> float:
    """What the receiver of a stream got each tenth of a second, bit/s, in the middle of these."""
    tenths = [interval["sum"] for interval in report["intervals"] if not interval["sum"]["omitted"]]
    rates = [one["bytes"] * 8 / one["seconds"] for one in tenths]
    return float(median(rates)) * (_PAYLOAD + _HEADERS) / _PAYLOAD


# ---- judging -------------------------------------------------------------------------------------


def _differences(link: Uplink, found: Measured) -> Iterator[str]:
    quality = link.quality
    asked, tolerance = _round_trip_time(link, max(1, round(found.pings * (1 - found.loss))))
    if not asked - tolerance[0] <= found.rtt <= asked + tolerance[1]:
        what = f"a round trip of {asked * 1000:.2f} ms was asked for"
        yield f"{what}, and {found.rtt * 1000:.2f} ms is there"
    else:
        yield from _varies_otherwise(link, found)
    lost = round(found.loss * found.pings)
    if not plausible(lost, found.pings, _round_trip(quality.loss)):
        what = f"a loss of {quality.loss:.2%} each way was asked for"
        yield f"{what}, and {lost} of {found.pings} round trips were lost"
    for name, rate in (("out", found.out), ("back", found.back)):
        if rate is None or quality.rate is None:
            continue
        if abs(rate / (1 - quality.loss) / quality.rate - 1) > _RATE_TOLERANCE:
            what = f"{quality.rate / 1e6:.3g} Mbit/s {name} was asked for"
            yield f"{what}, and {rate / 1e6:.3g} Mbit/s is there"


def _varies_otherwise(link: Uplink, found: Measured) -> Iterator[str]:
    delay, sending, random = link.quality.delay, _sending_time(link), Random(0)
    drawn = [sending + delay.sample(random) + delay.sample(random) for _ in range(2000)]
    asked = _middle_half(drawn)
    if not asked / 2 <= found.jitter <= 2 * asked + 0.1 * fmean(drawn) + _SLACK:
        what = f"round trips whose middle half spans {asked * 1000:.2f} ms were asked for"
        yield f"{what}, and {found.jitter * 1000:.2f} ms is there"


def _round_trip_time(link: Uplink, pings: int) -> tuple[float, tuple[float, float]]:
    """The mean round trip that a link is to have, and by how much it may be less and more, s."""
    delay, random = link.quality.delay, Random(0)
    mean = _sending_time(link) + 2 * delay.mean
    spread = 0.0
    if not isinstance(delay, Constant):
        variance = 2 * pvariance([delay.sample(random) for _ in range(2000)])
        spread = _DEVIATIONS * math.sqrt(variance / pings)
    return mean, (spread + 0.01 * mean, spread + 0.1 * mean + _SLACK)


def _sending_time(link: Uplink) -> float:
    """What a process takes to send a ping there and back at the link's rate, s."""
    quality = link.quality
    if quality.rate is None or quality.queue is None:
        return 0.0  # The kernel lets some packets go at once.
    return 2 * _PACKET / quality.rate


def plausible(lost: int, sent: int, probability: float) -> bool:
    """Whether so many losses are to be expected, more often than once in a million times.

    Each of `sent` packets is lost with the same `probability`, independently.
    """
    if probability == 0:
        return lost == 0
    at_most = sum(_binomial(k, sent, probability) for k in range(lost + 1))
    at_least = 1 - at_most + _binomial(lost, sent, probability)
    return min(at_most, at_least) > _IMPLAUSIBLE / 2


def _binomial(k: int, n: int, p: float) -> float:
    """The probability of k among n, each with probability p."""
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(ways + k * math.log(p) + (n - k) * math.log1p(-p))
