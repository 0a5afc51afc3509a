"""Attachment events: which node attaches to and detaches from which network, and when.

They drive the simulator and the namespace lab alike. They come out of a movement trace and the
coverage model, or are written by hand in the native CSV `t,node,action,network[,interface][,moa]`.

Rules of the sequence, per node: a detach names a network that the node is attached to; an attach
needs a free interface; an attach to a network that the node is attached to already makes that one
the preferred network, without any new link. The network attached to last is the preferred one;
when it is lost, the one attached to before it is.
"""

import ipaddress
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias, cast, final, get_args

from mat_files.errors import TraceError, trace_error
from mat_files.traces._csv import records
from mat_files.traces._text import number

Action: TypeAlias = Literal["attach", "detach"]
IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

REQUIRED: Final = ("t", "node", "action", "network")
OPTIONAL: Final = ("interface", "moa")


@final
@dataclass(frozen=True, slots=True)
class AttachmentEvent:
    """At `time` (s) the link of `node` to `network` comes up or goes down on `interface` (0, 1).

    `moa` is the mobile address that the node gets there, where the file prescribes one; otherwise
    the network's pool provides it. `line` is where the event was read, 0 where it was computed.
    """

    time: float
    node: str
    action: Action
    network: str
    interface: int = 0
    moa: IpAddress | None = None
    line: int = field(default=0, compare=False)


def read_events(
    path: Path, networks: Collection[str] | None = None, interfaces: int = 2
) -> list[AttachmentEvent]:
    """The events of a native CSV, interfaces filled in, checked against the rules above.

    `networks` are the names that exist (`None`: any); `interfaces` is the number per node. Raises
    `TraceError` with file, line and field.
    """
    reader = _EventReader(path, networks, interfaces)
    events = [reader.event(line, record) for line, record in records(path, REQUIRED, OPTIONAL)]
    if not events:
        raise trace_error(path, 0, "", "holds no event; at least one attach is needed")
    return events


def node_names(events: Sequence[AttachmentEvent]) -> tuple[str, ...]:
    """The nodes in order of appearance."""
    return tuple(dict.fromkeys(event.node for event in events))


@final
class _EventReader:
    """Reads events one by one, remembering who is attached where."""

    __slots__ = ("_attached", "_interfaces", "_last", "_networks", "_path")

    def __init__(self, path: Path, networks: Collection[str] | None, interfaces: int) -> None:
        self._path = path
        self._networks = networks
        self._interfaces = interfaces
        self._last = 0.0
        self._attached: dict[str, dict[str, int]] = {}

    def event(self, line: int, record: dict[str, str]) -> AttachmentEvent:
        time = self._time(line, record["t"])
        node = record["node"]
        if not node:
            raise self._error(line, "node", "is empty; every row names a node")
        action = self._action(line, record["action"])
        network = self._network(line, record["network"])
        wanted = self._wanted(line, record.get("interface", ""))
        moa = self._moa(line, record.get("moa", ""))
        links = self._attached.setdefault(node, {})
        if action == "attach":
            interface = self._attach(line, node, network, wanted, links)
        else:
            interface = self._detach(line, node, network, links)
        return AttachmentEvent(time, node, action, network, interface, moa, line)

    def _time(self, line: int, text: str) -> float:
        time = number(self._path, line, "t", text)
        if not math.isfinite(time) or time < 0:
            raise self._error(line, "t", f"is {text}; must be a finite number, 0 or more")
        if time < self._last:
            what = f"is {time:g} after {self._last:g}; rows must be in order of time"
            raise self._error(line, "t", what)
        self._last = time
        return time

    def _action(self, line: int, text: str) -> Action:
        if text not in get_args(Action):
            raise self._error(line, "action", f"is {text!r}; must be attach or detach")
        return cast(Action, text)

    def _network(self, line: int, text: str) -> str:
        if not text:
            raise self._error(line, "network", "is empty; every row names a network")
        if self._networks is not None and text not in self._networks:
            known = ", ".join(sorted(self._networks)) or "none"
            what = f"is {text!r}, which the scenario does not have; there are: {known}"
            raise self._error(line, "network", what)
        return text

    def _wanted(self, line: int, text: str) -> int | None:
        if not text:
            return None
        if text not in map(str, range(self._interfaces)):
            what = f"is {text!r}; must be a number from 0 to {self._interfaces - 1}"
            raise self._error(line, "interface", what)
        return int(text)

    def _moa(self, line: int, text: str) -> IpAddress | None:
        try:
            return ipaddress.ip_address(text) if text else None
        except ValueError:
            what = f"is {text!r}; must be an IPv4 or IPv6 address"
            raise self._error(line, "moa", what) from None

    def _attach(
        self, line: int, node: str, network: str, wanted: int | None, links: dict[str, int]
    ) -> int:
        if network in links:
            return links[network]
        free = [i for i in range(self._interfaces) if i not in links.values()]
        if not free or (wanted is not None and wanted not in free):
            raise self._error(line, "interface", self._occupied(node, links))
        links[network] = free[0] if wanted is None else wanted
        return links[network]

    def _occupied(self, node: str, links: dict[str, int]) -> str:
        held = " and ".join(f"{name} (interface {i})" for name, i in links.items())
        more = ", or set nodes.interfaces = 2" if self._interfaces == 1 else ""
        return f"{node!r} is attached to {held} and has no free interface; detach first{more}"

    def _detach(self, line: int, node: str, network: str, links: dict[str, int]) -> int:
        if network not in links:
            held = " and ".join(links) or "no network"
            what = f"{node!r} is not attached to {network!r} but to {held}; attach before detach"
            raise self._error(line, "action", what)
        return links.pop(network)

    def _error(self, line: int, field: str, what: str) -> TraceError:
        return trace_error(self._path, line, field, what)
