"""What `mat ims status` shows: the supervisor's snapshot."""

from collections.abc import Sequence
from typing import Any, Final

from mat import __version__
from mat.address import format_address
from mat_real.ims.config import ServerConfig
from mat_real.ims.tallies import BOUNDS, CODES, GAUGES, REQUESTS, Tallies

_QUANTILES: Final = (0.5, 0.99, 0.999)


def snapshot(
    config: ServerConfig,
    processes: Sequence[dict[str, object]],
    tallies: Sequence[Tallies],
    uptime: float,
) -> dict[str, object]:
    """Everything that the status shows, as JSON has it. Times in seconds."""

    def total(*name: str) -> int:
        return sum(one[name] for one in tallies)

    requests = {
        name: {
            "received": total("received", name),
            "answers": {code: total("answers", name, code) for code in CODES},
            "response": _quantiles(name, tallies),
        }
        for name in REQUESTS
    }
    workers = [
        {**process, **{name: _gauge(one, name, config) for name in GAUGES}}
        for process, one in zip(processes, tallies, strict=True)
    ]
    malformed = sum(one.total("malformed") for one in tallies)
    return {
        "version": __version__,
        "uptime": round(uptime, 1),
        "listen": [f"[{format_address(a)}]:{port}" for a, port in config.ims.listen],
        "zones": [_zone_text(*zone) for zone in config.ims.zones],
        "store": config.store.kind,
        "workers": workers,
        "requests": requests,
        "asked_other_ims": total("sent", "MA Query"),
        "malformed": malformed,
        "unauthentic": total("events", "unauthentic"),
        "store_unavailable": total("store_unavailable"),
        "overflowed": total("overflowed"),
        "repeated": total("repeated"),
        "reloads": max(one["reloads",] for one in tallies),
    }


def _gauge(tallies: Tallies, name: str, config: ServerConfig) -> int | None:
    """A gauge; None for what nobody here counts: mappings in Redis."""
    if name == "mappings" and config.store.kind == "redis":
        return None
    return tallies["gauge", name]


def _zone_text(address: Any, length: int) -> str:
    text = format_address(address)
    return f"{text}/{length - 96 if '.' in text else length}"


def _quantiles(request: str, tallies: Sequence[Tallies]) -> dict[str, float | None]:
    """Upper bounds, s, of the buckets that the quantiles lie in.

    None without answers, or above the last bound.
    """
    counts = [
        sum(one["response", request, str(bucket)] for one in tallies)
        for bucket in range(len(BOUNDS) + 1)
    ]
    bounds = (*BOUNDS, None)
    whole, found = sum(counts), dict[str, float | None]()
    for quantile in _QUANTILES:
        reached, bound = 0, None
        for count, upper in zip(counts, bounds, strict=True):
            reached += count
            if whole and reached >= quantile * whole:
                bound = upper
                break
        found[f"p{quantile * 100:g}"] = bound
    return found
