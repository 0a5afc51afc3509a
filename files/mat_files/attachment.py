"""Attachment events: which node attaches to and detaches from which network, and when.

They drive the simulator and the namespace lab alike. They come out of a movement trace and the
coverage model, or are written by hand in the native CSV `t,node,action,network[,interface][,moa]`.

Rules of the sequence, per node: a detach names a network that the node is attached to; an attach
needs a free interface; an attach to a network that the node is attached to already makes that one
the preferred network, without any new link. The network attached to last is the preferred one;
when it is lost, the one attached to before it is.

A crowd of a million nodes has some millions of events. So a sequence of them is kept in columns,
`AttachmentEvents`, which makes an `AttachmentEvent` only when one is asked for.
"""

import ipaddress
import math
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast, final, get_args, overload

import numpy as np
from numpy.typing import NDArray

from mat_files.errors import TraceError, trace_error
from mat_files.traces._csv import records
from mat_files.traces._text import number

Action: TypeAlias = Literal["attach", "detach"]
IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Rows: TypeAlias = NDArray[np.intp]

_PIECE: Final = 1 << 16
"""Events that iteration turns into Python values at a time."""

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


@final
class NumberedNames(Sequence[str]):
    """The names `MN1`, `MN2` … of generated nodes, each made when it is asked for."""

    __slots__ = ("_count",)

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return tuple(f"MN{number + 1}" for number in range(self._count)[index])
        return f"MN{range(self._count)[index] + 1}"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, NumberedNames):
            return self._count == other._count
        return tuple(self) == other

    __hash__ = None  # type: ignore[assignment]  # equal to tuples, which hash otherwise


@final
class AttachmentEvents(Sequence[AttachmentEvent]):
    """Attachment events in order of time, in read-only columns of equal length.

    `time` (f8) in seconds; `node` (i4) indexes the names in `nodes`, `network` (i4) those in
    `networks`; `attach` (bool) is false for a detach; `interface` (i1) is 0 or 1; `line` (i4) is
    where the event was read, 0 where it was computed. `moas` has the mobile addresses that a file
    prescribes, by the event's ordinal. Equal to any sequence of the same events.
    """

    __slots__ = (
        "attach",
        "interface",
        "line",
        "moas",
        "network",
        "networks",
        "node",
        "nodes",
        "time",
    )

    def __init__(
        self,
        nodes: Sequence[str],
        networks: Sequence[str],
        *,
        time: NDArray[Any],
        node: NDArray[Any],
        attach: NDArray[Any],
        network: NDArray[Any],
        interface: NDArray[Any] | None = None,
        line: NDArray[Any] | None = None,
        moas: Mapping[int, IpAddress] | None = None,
    ) -> None:
        self.nodes: Sequence[str] = nodes
        self.networks: tuple[str, ...] = tuple(networks)
        self.time: NDArray[np.float64] = _column(time, np.float64)
        self.node: NDArray[np.int32] = _column(node, np.int32)
        self.attach: NDArray[np.bool_] = _column(attach, np.bool_)
        self.network: NDArray[np.int32] = _column(network, np.int32)
        # A column of zeros takes no memory.
        zeros = np.broadcast_to(np.int8(0), self.time.shape)
        self.interface: NDArray[np.int8] = (
            zeros if interface is None else _column(interface, np.int8)
        )
        self.line: NDArray[np.int32] = (
            np.broadcast_to(np.int32(0), self.time.shape)
            if line is None
            else _column(line, np.int32)
        )
        self.moas: Mapping[int, IpAddress] = moas or {}

    @classmethod
    def of(
        cls, events: Sequence[AttachmentEvent], nodes: Sequence[str], networks: Sequence[str]
    ) -> "AttachmentEvents":
        """The columns of single events, whose names are among `nodes` and `networks`."""
        at = {name: index for index, name in enumerate(nodes)}
        on = {name: index for index, name in enumerate(networks)}
        return cls(
            nodes,
            networks,
            time=np.array([event.time for event in events], np.float64),
            node=np.array([at[event.node] for event in events], np.int32),
            attach=np.array([event.action == "attach" for event in events], np.bool_),
            network=np.array([on[event.network] for event in events], np.int32),
            interface=np.array([event.interface for event in events], np.int8),
            line=np.array([event.line for event in events], np.int32),
            moas={i: event.moa for i, event in enumerate(events) if event.moa is not None},
        )

    def __len__(self) -> int:
        return len(self.time)

    @overload
    def __getitem__(self, index: int) -> AttachmentEvent: ...
    @overload
    def __getitem__(self, index: slice) -> "AttachmentEvents": ...
    def __getitem__(self, index: int | slice) -> "AttachmentEvent | AttachmentEvents":
        if isinstance(index, slice):
            return self.chosen(np.arange(len(self))[index])
        row = range(len(self))[index]
        return next(self._made(row, row + 1))

    def __iter__(self) -> Iterator[AttachmentEvent]:
        for start in range(0, len(self), _PIECE):
            yield from self._made(start, start + _PIECE)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        items = cast(Sequence[object], other)
        return len(self) == len(items) and all(a == b for a, b in zip(self, items, strict=True))

    __hash__ = None  # type: ignore[assignment]  # compares like a list

    def chosen(self, rows: Rows, nodes: Sequence[str] | None = None) -> "AttachmentEvents":
        """The events with these ordinals, under the names `nodes` (default: all as before)."""
        moas = {
            new: self.moas[old]
            for new, old in enumerate(rows.tolist() if self.moas else ())
            if old in self.moas
        }
        return AttachmentEvents(
            self.nodes if nodes is None else nodes,
            self.networks,
            time=self.time[rows],
            node=self.node[rows],
            attach=self.attach[rows],
            network=self.network[rows],
            interface=self.interface[rows],
            line=self.line[rows],
            moas=moas,
        )

    def first_nodes(self, count: int) -> "AttachmentEvents":
        """The events of the first `count` nodes."""
        if count >= len(self.nodes):
            return self
        return self.chosen(np.flatnonzero(self.node < count), self.nodes[:count])

    def _made(self, start: int, stop: int) -> Iterator[AttachmentEvent]:
        rows = slice(start, stop)
        times: list[float] = self.time[rows].tolist()
        attaches: list[bool] = self.attach[rows].tolist()
        nodes, networks = _integers(self.node[rows]), _integers(self.network[rows])
        interfaces, lines = _integers(self.interface[rows]), _integers(self.line[rows])
        numbers = zip(nodes, networks, interfaces, lines, strict=True)
        columns = enumerate(zip(times, attaches, numbers, strict=True), start)
        for row, (time, attach, (node, network, interface, line)) in columns:
            action: Action = "attach" if attach else "detach"
            name, moa = self.networks[network], self.moas.get(row)
            yield AttachmentEvent(time, self.nodes[node], action, name, interface, moa, line)


def _integers(column: NDArray[Any]) -> list[int]:
    return cast(list[int], column.tolist())


def _column(values: NDArray[Any], dtype: type[Any]) -> NDArray[Any]:
    column = np.asarray(values, dtype).view()
    column.flags.writeable = False
    return column


def read_events(
    path: Path, networks: Collection[str] | None = None, interfaces: int = 2
) -> AttachmentEvents:
    """The events of a native CSV, interfaces filled in, checked against the rules above.

    `networks` are the names that exist (`None`: any); `interfaces` is the number per node. Raises
    `TraceError` with file, line and field.
    """
    reader = _EventReader(path, networks, interfaces)
    for line, record in records(path, REQUIRED, OPTIONAL):
        reader.read(line, record)
    return reader.events()


@final
class _EventReader:
    """Reads events one by one, remembering who is attached where."""

    def __init__(self, path: Path, networks: Collection[str] | None, interfaces: int) -> None:
        self._path = path
        self._any_network = networks is None
        self._interfaces = interfaces
        self._last = 0.0
        self._attached: list[dict[str, int]] = []
        self._nodes: dict[str, int] = {}
        self._networks = {name: index for index, name in enumerate(networks or ())}
        self._moas: dict[int, IpAddress] = {}
        self._times = array("d")
        self._columns = [array("i") for _ in range(5)]

    def read(self, line: int, record: dict[str, str]) -> None:
        """One row, checked and kept."""
        time = self._time(line, record["t"])
        name = record["node"]
        if not name:
            raise self._error(line, "node", "is empty; every row names a node")
        action = self._action(line, record["action"])
        network = self._network(line, record["network"])
        wanted = self._wanted(line, record.get("interface", ""))
        if (moa := self._moa(line, record.get("moa", ""))) is not None:
            self._moas[len(self._times)] = moa
        node = self._nodes.setdefault(name, len(self._nodes))
        if node == len(self._attached):
            self._attached.append({})
        links = self._attached[node]
        if action == "attach":
            interface = self._attach(line, name, network, wanted, links)
        else:
            interface = self._detach(line, name, network, links)
        self._times.append(time)
        row = (node, action == "attach", self._networks[network], interface, line)
        for column, value in zip(self._columns, row, strict=True):
            column.append(value)

    def events(self) -> AttachmentEvents:
        """All rows read. A file without any is an error."""
        if not self._times:
            raise trace_error(self._path, 0, "", "holds no event; at least one attach is needed")
        node, attach, network, interface, line = (np.array(column) for column in self._columns)
        return AttachmentEvents(
            tuple(self._nodes),
            tuple(self._networks),
            time=np.array(self._times),
            node=node,
            attach=attach,
            network=network,
            interface=interface,
            line=line,
            moas=self._moas,
        )

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
        if self._any_network:
            self._networks.setdefault(text, len(self._networks))
        elif text not in self._networks:
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
