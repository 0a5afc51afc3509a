"""The counters of all workers as Prometheus metrics, over HTTP."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from mat.address import Address, format_address
from mat.codec import Malformed
from mat.effects import EventKind
from mat_real.ims.tallies import BOUNDS, CODES, DNS, GAUGES, REQUESTS, TYPES, Name, Tallies

_SIMPLE: Final = (
    ("overflowed", "Times that a socket was not read because the backlog was full"),
    ("repeated", "Datagrams that took the place of the request they repeat, which still waited"),
    ("undelivered", "Datagrams that the kernel did not take"),
    ("store_unavailable", "Requests for which the store was not available"),
)
_GAUGE_HELP: Final = {
    "backlog": "Datagrams that wait to be worked off",
    "store_pending": "Requests that wait for the store",
    "mappings": "Mappings held in memory",
    "foreign_mappings": "Mappings kept of nodes of other IMS",
    "inquiries": "HA Notify procedures in progress",
    "keys": "Keys in the key file",
    "receive_buffer": "Bytes for datagrams that the kernel granted the smallest socket",
}


@final
class Counters(Collector):
    """Reads the shared counters whenever somebody asks."""

    def __init__(self, tallies: Sequence[Tallies]) -> None:
        self._tallies = tallies

    def _sum(self, *name: str) -> int:
        return sum(one[name] for one in self._tallies)

    def _labelled(
        self, family: str, text: str, labels: Sequence[str], names: Sequence[Name]
    ) -> CounterMetricFamily:
        metric = CounterMetricFamily(f"mat_ims_{family}", text, labels=labels)
        for name in names:
            metric.add_metric(name, self._sum(family, *name))
        return metric

    def collect(self) -> Iterator[Metric]:
        """All families, summed over the workers; gauges for each worker."""
        types = [(name,) for name in TYPES]
        yield self._labelled("received", "Messages that were read", ["type"], types)
        yield self._labelled("sent", "Messages that were sent", ["type"], types)
        codes = [(name, code) for name in REQUESTS for code in CODES]
        yield self._labelled("answers", "Requests answered", ["request", "code"], codes)
        reasons = [(reason.name.lower(),) for reason in Malformed]
        yield self._labelled("malformed", "Datagrams that are no messages", ["reason"], reasons)
        kinds = [(kind.name.lower(),) for kind in EventKind]
        yield self._labelled("events", "What happened in the protocol", ["kind"], kinds)
        yield self._labelled("dns", "Look-ups in the DNS", ["what"], [(name,) for name in DNS])
        for name, text in _SIMPLE:
            yield CounterMetricFamily(f"mat_ims_{name}", text, value=self._sum(name))
        # Each worker counts its own.
        reloads = max(one["reloads",] for one in self._tallies)
        text = "Times that keys and zones were read again"
        yield CounterMetricFamily("mat_ims_reloads", text, value=reloads)
        yield self._responses()
        yield from self._gauges()

    def _responses(self) -> HistogramMetricFamily:
        metric = HistogramMetricFamily(
            "mat_ims_response_seconds", "From reading a request to its answer", labels=["request"]
        )
        for name in REQUESTS:
            total, buckets = 0, list[tuple[str, float]]()
            for place, bound in enumerate((*map(str, BOUNDS), "+Inf")):
                total += self._sum("response", name, str(place))
                buckets.append((bound, total))
            spent = self._sum("response_microseconds", name) * 1e-6
            metric.add_metric([name], buckets, sum_value=spent)
        return metric

    def _gauges(self) -> Iterator[GaugeMetricFamily]:
        for name in GAUGES:
            metric = GaugeMetricFamily(f"mat_ims_{name}", _GAUGE_HELP[name], labels=["worker"])
            for number, one in enumerate(self._tallies):
                metric.add_metric([str(number)], one["gauge", name])
            yield metric


def serve_metrics(address: Address, port: int, tallies: Sequence[Tallies]) -> Callable[[], None]:
    """Serve /metrics; the function that stops it. Raises `OSError`."""
    registry = CollectorRegistry()
    registry.register(Counters(tallies))
    server, thread = start_http_server(port, format_address(address), registry)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
