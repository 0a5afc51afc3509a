"""Whether a run fits into memory, said before it starts and not after an hour.

The sizes are measured (docs/design.md, Simulator) and rounded up; what a run needs follows mostly
from its nodes, and from packets where each of them is an event.
"""

from pathlib import Path
from typing import Final

from mat_files.errors import Problem, ScenarioError
from mat_files.scenario import Scenario

_RESTING: Final = 3_800
"""Bytes of a node whose machine is put away while nothing is under way; its row of results
included."""
_BUSY: Final = 14_000
"""Bytes of a node with traffic, its flows' state included."""
_DHCP: Final = 1_500
"""Bytes of a node's DHCP client and its lease, besides."""
_PACKET: Final = 16
"""Bytes of what is remembered of one packet."""
_MEMINFO: Final = Path("/proc/meminfo")
_GIGA: Final = 1e9


def bytes_needed(scenario: Scenario) -> float:
    """About how much memory a run takes, bytes; 0 where the number of nodes is only in a file."""
    count, traffic = scenario.nodes.count, scenario.traffic
    if count == "trace":
        return 0.0
    clients = _DHCP if any(network.dhcp is not None for network in scenario.networks) else 0
    if traffic.pairs == "none" or not (traffic.up or traffic.down):
        return count * (clients + (_RESTING if scenario.scenario.system == "mat" else _BUSY))
    packets = 0.0
    if traffic.events == "packets":
        rate = (traffic.up + traffic.down) * traffic.peers
        packets = rate * (scenario.scenario.duration or 0.0)
    return count * (clients + _BUSY + packets * _PACKET)


def bytes_free() -> float | None:
    """Memory that programs could have now, bytes; None where the system does not say."""
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    free = next((line for line in lines if line.startswith("MemAvailable:")), None)
    return float(free.split()[1]) * 1024 if free is not None else None


def check_memory(scenario: Scenario, processes: int = 1) -> None:
    """Raise `ScenarioError` where runs in so many processes at a time would not fit."""
    needed, free = bytes_needed(scenario) * processes, bytes_free()
    if free is None or needed <= free:
        return
    at_once = f" in each of {processes} processes at a time" if processes > 1 else ""
    what = (
        f"is {scenario.nodes.count}: that takes about {needed / processes / _GIGA:,.1f} GB"
        f"{at_once}, where {free / _GIGA:,.1f} GB are free; give fewer nodes"
    )
    if processes > 1:
        what += " or processes"
    if scenario.traffic.events == "packets" and scenario.traffic.pairs != "none":
        what += ', or traffic.events = "changes"'
    place = str(scenario.source.path or "scenario")
    raise ScenarioError([Problem(place, "nodes.count", what)])
