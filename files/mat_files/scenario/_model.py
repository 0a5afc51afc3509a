"""The scenario format: what is simulated, as TOML (docs/scenario.md is the reference).

The simulator, the namespace lab and the load test read the same files. Every field has its unit
here and in the document, SI throughout: seconds, metres, bytes, packets per second.
"""

import ipaddress
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeAlias, cast, final

from pydantic import Field, PlainValidator, PrivateAttr

from mat_files._explain import Unit
from mat_files.distributions import Constant, Distribution
from mat_files.distributions import parse as parse_distribution
from mat_files.document import Table
from mat_files.errors import shown
from mat_files.traces import Gaps

IpNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

FORMAT: Final = 1
"""Version of the scenario format. It changes when a file would come to mean something else."""


def _prefix(value: object) -> IpNetwork:
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value
    try:
        return ipaddress.ip_network(value if isinstance(value, str) else "")
    except ValueError as error:
        reason = "host bits are set" if "host bits" in str(error) else "is no prefix"
        raise ValueError(f"is {shown(value)}: {reason}; write for example 10.0.0.0/16") from None


def _count(value: object) -> int | Literal["trace"]:
    if value == "trace":
        return "trace"
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise ValueError(f'is {shown(value)}; must be "trace" or a whole number greater than 0')


Party: TypeAlias = Literal["mobile", "correspondents", "all"]
PARTIES: Final[tuple[Party, ...]] = ("mobile", "correspondents", "all")


def _served_by(value: object) -> Party | IpNetwork:
    for party in PARTIES:
        if value == party:
            return party
    try:
        return _prefix(value)
    except ValueError:
        what = f'is {shown(value)}; must be "mobile", "correspondents", "all" or a prefix'
        raise ValueError(what) from None


def _serves(value: object) -> tuple[Party | IpNetwork, ...]:
    items = cast(Sequence[object], value) if isinstance(value, list | tuple) else (value,)
    if not items:
        raise ValueError('is empty; must name "mobile", "correspondents", "all" or prefixes')
    return tuple(_served_by(item) for item in items)


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$")]
Metres = Annotated[float, Unit("m")]
Length = Annotated[float, Field(gt=0), Unit("m")]
Seconds = Annotated[float, Field(gt=0), Unit("s")]
Time = Annotated[Distribution, PlainValidator(parse_distribution), Unit("s")]
Probability = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(ge=0), Unit("packets/s")]
Prefix = Annotated[IpNetwork, PlainValidator(_prefix)]


class About(Table):
    """What the scenario is, how long it runs, and its randomness."""

    name: Name
    """Short name, which results carry."""
    description: str = ""
    """A sentence or two for the reader."""
    duration: Seconds | None = None
    """Simulated time. Default: to the end of the movement; needed where nothing moves."""
    seed: Annotated[int, Field(ge=0)] = 1
    """Seed of everything random. Equal seed, equal results."""


class Movement(Table):
    """Who is where, or who attaches where: one of the two files, relative to the scenario."""

    trace: Annotated[str, Field(min_length=1)] | None = None
    """File of positions: SUMO FCD, ns-2 setdest or CSV `t,node,x,y`; may be gzipped."""
    events: Annotated[str, Field(min_length=1)] | None = None
    """File of attachment events, CSV `t,node,action,network[,interface][,moa]`."""
    format: Literal["auto", "fcd", "ns2", "positions"] = "auto"
    """Format of `trace`; "auto" recognises it."""
    gaps: Gaps = "error"
    """A node missing in the middle of a trace: an error, or "absent" (it leaves and returns)."""


class Access(Table):
    """What an access network is like for the nodes on it."""

    delay: Time = Constant(0.005)
    """One-way delay between a node on this network and the core."""
    loss: Probability = 0.0
    """Probability that a packet is lost between a node and the core, each way."""
    detect: Time = Constant(0.05)
    """Time until a node acts on what changed: its link lost, or this network in reach."""
    association: Time = Constant(0.1)
    """Time of the layer-2 association, after detection."""
    address: Time = Constant(0.3)
    """Time from the association until an address is configured, such as DHCP takes."""
    lease: Seconds = 3600.0
    """Lifetime of an address given out. A mapping ends 5 s earlier: below 15 s, some lapse."""


class Network(Access):
    """One access network. Place and range matter only where positions drive the attachment."""

    name: Name
    """Unique; events and results refer to it."""
    x: Metres = 0.0
    """Centre of the covered disc."""
    y: Metres = 0.0
    """Centre of the covered disc."""
    range: Length = 500.0
    """Radius of the covered disc."""
    pool: Prefix | None = None
    """Addresses given to visitors. Default: an equal part of 10.128.0.0/9 or 2001:db8:8000::/33."""


class Grid(Access):
    """Access networks in columns and rows, named A1, B1 … in the first row, A2, B2 … above it."""

    origin: Annotated[tuple[float, float], Field(strict=False), Unit("m")] = (0.0, 0.0)
    """Centre of A1."""
    spacing: Length
    """Distance between neighbouring centres, in both directions."""
    columns: Annotated[int, Field(ge=1, le=500)]
    """Networks along x."""
    rows: Annotated[int, Field(ge=1, le=500)]
    """Networks along y."""
    range: Length
    """Radius of each covered disc; above 0.71 × spacing there are no holes."""
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{0,16}$")] = ""
    """Put before every name."""
    pool: Prefix | None = None
    """Divided equally among the grid's networks. Default: as for a network."""


class CoverageModel(Table):
    """How nodes choose among the networks in range."""

    hysteresis: Annotated[float, Field(ge=0), Unit("m")] = 25.0
    """A network is better when it is nearer than the present one by more than this."""
    grid: Grid | None = None
    """Networks laid out on a grid, in addition to those listed."""


class Nodes(Table):
    """The mobile nodes."""

    count: Annotated[int | Literal["trace"], PlainValidator(_count)] = "trace"
    """How many: all of the movement, or its first so many. A number where nothing moves."""
    interfaces: Annotated[int, Field(ge=1, le=2)] = 2
    """Interfaces per node: 1 makes every handover hard, 2 makes it soft where ranges overlap."""
    family: Literal[4, 6] = 4
    """IP version."""
    home_prefix: Prefix | None = None
    """Home addresses. Default: 10.0.0.0/11 or 2001:db8::/48."""
    start_attached: bool = True
    """First attachment of a node: already there and registered, or like any other."""


class Correspondents(Table):
    """Fixed nodes at home, which mobile nodes talk to."""

    count: Annotated[int, Field(ge=0)] = 1
    """How many; named CN1, CN2 …"""
    network: str | None = None
    """Name of the access network they are on. Default: a site of their own, without any."""
    delay: Time = Constant(0.005)
    """One-way delay between their site and the core. Not used where `network` is set."""
    loss: Probability = 0.0
    """Probability that a packet is lost between site and core. Not used with `network`."""
    home_prefix: Prefix | None = None
    """Home addresses. Default: 10.32.0.0/11 or 2001:db8:1::/48."""


class Ims(Table):
    """One IP address mapping server, as a queueing station around the real machine."""

    name: Name
    """Unique; results and ladder diagrams refer to it."""
    serves: Annotated[tuple[Party | IpNetwork, ...], PlainValidator(_serves)] = ("all",)
    """Home addresses it is responsible for: "mobile", "correspondents", "all", or prefixes."""
    delay: Time = Constant(0.005)
    """One-way delay between the server and the core."""
    loss: Probability = 0.0
    """Probability that a packet is lost between server and core, each way."""
    service: Time = Constant(0.00005)
    """Time a worker spends on one message."""
    workers: Annotated[int, Field(ge=1)] = 1
    """Messages worked on at once."""
    queue: Annotated[int, Field(ge=0), Unit("messages")] = 1000
    """Messages that may wait; the next one is dropped."""
    store: Time = Constant(0.0)
    """Time until an update is durable, spent without holding a worker."""
    replicas: Annotated[int, Field(ge=1)] = 1
    """Servers with these properties, each with its own address and the same mappings."""


class Dns(Table):
    """The name service that knows each home address's IMS."""

    delay: Time = Constant(0.005)
    """One-way delay between the resolver and the core."""
    service: Time = Constant(0.001)
    """Time to answer a look-up that is not in the asker's cache."""
    ttl: Annotated[float, Field(ge=0), Unit("s")] = 3600.0
    """How long an answer may be kept."""


class Traffic(Table):
    """Data packets, at a constant rate, between pairs of nodes."""

    pairs: Literal["correspondent", "mobile", "none"] = "correspondent"
    """Mobile node i with correspondent i modulo their number; mobile nodes 1–2, 3–4 …; nobody."""
    up: Rate = 20.0
    """From the mobile node (the first of a mobile pair) to its peer."""
    down: Rate = 20.0
    """From the peer to the mobile node."""
    size: Annotated[int, Field(ge=28, le=65535), Unit("bytes")] = 200
    """Length of a packet, IP header included."""
    start: Annotated[float, Field(ge=0), Unit("s")] = 1.0
    """Begin, counted from the mobile node's first attachment."""
    established: bool = False
    """Pairs attached at time 0 know each other: registered, mappings exchanged, DNS cached."""


@final
@dataclass(frozen=True, slots=True)
class Source:
    """Where a scenario came from, for error messages and for reproducing a result."""

    path: Path | None
    text: str
    overrides: tuple[str, ...]


class Scenario(Table):
    """A whole scenario file. `load_scenario` reads one; in a program it can be built directly."""

    format: Literal[1]  # FORMAT
    """Version of the format."""
    scenario: About
    movement: Movement = Movement()
    coverage: CoverageModel = CoverageModel()
    network: Annotated[tuple[Network, ...], Field(strict=False)] = ()
    nodes: Nodes = Nodes()
    correspondents: Correspondents = Correspondents()
    ims: Annotated[tuple[Ims, ...], Field(strict=False)] = (Ims(name="IMS"),)
    dns: Dns = Dns()
    traffic: Traffic = Traffic()
    protocol: dict[str, float] = Field(default_factory=dict)
    """Protocol parameters by name (docs/protocol.md), in place of their defaults."""

    _source: Source = PrivateAttr(default=Source(None, "", ()))

    @property
    def source(self) -> Source:
        """File, text and overrides; empty for a scenario built in a program."""
        return self._source

    def read_from(self, source: Source) -> Self:
        """This scenario, with the record of where it came from."""
        self._source = source
        return self

    @cached_property
    def networks(self) -> tuple[Network, ...]:
        """All access networks, the listed ones first, each with its pool."""
        networks = (*self.network, *_grid_networks(self.coverage.grid))
        space = _DEFAULT_SPACE[self.nodes.family]
        parts = iter(_split(space, max(1, len(networks))))
        return tuple(
            network if network.pool else network.model_copy(update={"pool": part})
            for network, part in zip(networks, parts, strict=False)
        )

    @property
    def mobile_prefix(self) -> IpNetwork:
        """Home prefix of the mobile nodes."""
        return self.nodes.home_prefix or _DEFAULT_HOME[self.nodes.family]

    @property
    def correspondent_prefix(self) -> IpNetwork:
        """Home prefix of the correspondents."""
        return self.correspondents.home_prefix or _DEFAULT_CORRESPONDENT[self.nodes.family]

    def served(self, ims: Ims) -> tuple[IpNetwork, ...]:
        """The prefixes of home addresses that `ims` is responsible for."""
        mobile, fixed = self.mobile_prefix, self.correspondent_prefix
        prefixes: dict[str, tuple[IpNetwork, ...]] = {
            "mobile": (mobile,),
            "correspondents": (fixed,),
            "all": (mobile, fixed),
        }
        named = [prefixes[item] if isinstance(item, str) else (item,) for item in ims.serves]
        return tuple(dict.fromkeys(itertools.chain.from_iterable(named)))

    def file(self, name: str) -> Path:
        """The path of a file that the scenario names, relative to the scenario's own place."""
        path = self._source.path
        return path.parent / name if path else Path(name)


_DEFAULT_HOME: Final[dict[int, IpNetwork]] = {
    4: ipaddress.ip_network("10.0.0.0/11"),
    6: ipaddress.ip_network("2001:db8::/48"),
}
_DEFAULT_CORRESPONDENT: Final[dict[int, IpNetwork]] = {
    4: ipaddress.ip_network("10.32.0.0/11"),
    6: ipaddress.ip_network("2001:db8:1::/48"),
}
_DEFAULT_SPACE: Final[dict[int, IpNetwork]] = {
    4: ipaddress.ip_network("10.128.0.0/9"),
    6: ipaddress.ip_network("2001:db8:8000::/33"),
}


def _split(space: IpNetwork, parts: int) -> Sequence[IpNetwork]:
    """`space` in at least `parts` equal prefixes, lowest first; fewer where it is too small."""
    bits = min((parts - 1).bit_length(), space.max_prefixlen - space.prefixlen)
    return list(itertools.islice(space.subnets(prefixlen_diff=bits), parts))


def _grid_networks(grid: Grid | None) -> list[Network]:
    if grid is None:
        return []
    places = [(row, column) for row in range(grid.rows) for column in range(grid.columns)]
    pools: Sequence[IpNetwork | None] = [None] * len(places)
    if grid.pool is not None:
        pools = _split(grid.pool, len(places))
    shared = {name: getattr(grid, name) for name in Access.model_fields}
    return [
        Network.model_construct(
            name=f"{grid.prefix}{column_letters(column)}{row + 1}",
            x=grid.origin[0] + column * grid.spacing,
            y=grid.origin[1] + row * grid.spacing,
            range=grid.range,
            pool=pool,
            **shared,
        )
        for (row, column), pool in zip(places, pools, strict=False)
    ]


def column_letters(column: int) -> str:
    """A, B … Z, AA, AB … for 0, 1 …, as spreadsheets name columns."""
    letters = ""
    column += 1
    while column:
        column, rest = divmod(column - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters
