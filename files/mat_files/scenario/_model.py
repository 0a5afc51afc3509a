"""The scenario format: what is simulated, as TOML (docs/scenario.md is the reference).

The simulator, the namespace lab and the load test read the same files. Every field has its unit
here and in the document, SI throughout: seconds, metres, bytes, packets per second.
"""

import ipaddress
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeAlias, cast, final

from pydantic import Field, PlainValidator, PrivateAttr

from mat_files._explain import Unit
from mat_files.distributions import Constant, Distribution, Exponential
from mat_files.distributions import parse as parse_distribution
from mat_files.document import Table
from mat_files.errors import Problem, ScenarioError, shown
from mat_files.traces import SAMPLE_STEP, Gaps

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
BitRate = Annotated[float, Field(gt=0), Unit("bit/s")]
Places = Annotated[int, Field(ge=0, le=1_000_000), Unit("packets")]
Frequency = Annotated[float, Field(ge=0), Unit("1/s")]
Prefix = Annotated[IpNetwork, PlainValidator(_prefix)]
Moment = Annotated[float, Field(ge=0, le=1e9), Unit("s")]
Point = Annotated[tuple[float, float], Field(strict=False)]
QUEUE: Final = 100
"""Packets that may wait for a link that has a rate."""
MOST_IMS: Final = 64
"""Servers that share the nodes, and replicas of one."""
MobilitySystem: TypeAlias = Literal[
    "mat",
    "mobile-ipv4",
    "mobile-ipv4-reverse-tunnel",
    "mobile-ipv6",
    "mobile-ipv6-tunnel",
    "lin6",
    "lin6-associated",
    "mobile-ppc",
    "none",
]
SYSTEM_FAMILIES: Final[dict[MobilitySystem, Literal[4, 6]]] = {
    "mobile-ipv4": 4,
    "mobile-ipv4-reverse-tunnel": 4,
    "mobile-ipv6": 6,
    "mobile-ipv6-tunnel": 6,
    "lin6": 6,
    "lin6-associated": 6,
    "mobile-ppc": 4,
}
"""IP version of the systems that are made for one."""
GENERATED: Final = ("random_waypoint", "train", "crowd")
"""Movement by a model instead of a file."""


class About(Table):
    """What the scenario is, how long it runs, and its randomness."""

    name: Name
    """Short name, which results carry."""
    description: str = ""
    """A sentence or two for the reader."""
    duration: Seconds | None = None
    """Simulated time. Default: to the end of the movement; needed where nothing moves."""
    system: MobilitySystem = "mat"
    """What hosts and servers follow: MAT, or one of the other systems of docs/baselines.md."""
    seed: Annotated[int, Field(ge=0)] = 1
    """Seed of everything random. Equal seed, equal results."""
    interval: Annotated[float, Field(ge=0.001), Unit("s")] | None = None
    """Length of a row of the tables `ims` and `links`. Default: 10 s, or for 50 rows at least."""


class RandomWaypoint(Table):
    """Nodes wander: each walks straight to a place chosen at random, pauses, and walks on."""

    origin: Annotated[Point, Unit("m")] = (0.0, 0.0)
    """Lower left corner of the area."""
    size: Annotated[Point, Unit("m")]
    """Width and height of the area."""
    speed: Annotated[Point, Unit("m/s")] = (0.5, 2.0)
    """Least and greatest, above 0; each walk's is drawn evenly between."""
    pause: Annotated[Point, Unit("s")] = (0.0, 30.0)
    """Least and greatest; each is drawn evenly between."""
    group: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Nodes that wander together, each within the radius of a common point."""
    radius: Annotated[float, Field(ge=1, le=1e6), Unit("m")] = 25.0
    """Farthest, in x and in y, that nodes of a group are from their point. Not used without."""

    @property
    def mean_walk(self) -> float:
        """Mean time from one place to the next, s."""
        low, high = self.speed
        mean_inverse = math.log(high / low) / (high - low) if high > low else 1 / low
        return mean_distance(*self.size) * mean_inverse

    @property
    def mean_pause(self) -> float:
        """Mean time of a pause, s."""
        return sum(self.pause) / 2

    @property
    def around(self) -> "RandomWaypoint":
        """How the nodes of a group wander around their point."""
        size = (2 * self.radius, 2 * self.radius)
        return self.model_copy(
            update={"origin": (-self.radius, -self.radius), "size": size, "group": 1}
        )


class Train(Table):
    """Passengers on a train cross the borders of networks one after the other."""

    route: Annotated[tuple[Point, ...], Field(strict=False), Unit("m")] = ()
    """Points it passes, straight in between. Default: the networks' centres, in their order."""
    speed: Annotated[float, Field(ge=0.01, le=1e5), Unit("m/s")] = 40.0
    """Constant from departure to arrival."""
    length: Annotated[float, Field(ge=0, le=1e6), Unit("m")] = 200.0
    """From the first passenger to the last; the first begins at the first point of the route."""
    spacing: Literal["even", "random"] = "even"
    """Passengers along the train: at equal distances, or anywhere with equal probability."""
    departure: Moment = 10.0
    """Until then it stands."""

    def points(self, centres: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
        """The route's points (m), where the networks have these centres."""
        return self.route or tuple(centres)


class Crowd(Table):
    """Everybody leaves one network for another within a short time."""

    leave: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Networks that nodes begin on, in turn. Default: the first network."""
    join: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Networks that they go to, in turn. Default: all that nobody begins on."""
    start: Moment = 10.0
    """Begin of the window."""
    window: Moment = 10.0
    """Time within which all change; 0: all at once."""
    spread: Literal["uniform", "normal", "even"] = "uniform"
    """Changes within the window: at random, at random around its middle, or at equal distances."""
    overlap: Moment = 0.0
    """Time that the old link lasts when the new network is there; needs two interfaces."""

    def sides(self, networks: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The networks that nodes leave and join, in turn, of those that there are."""
        leave = self.leave or tuple(networks[:1])
        return leave, self.join or tuple(name for name in networks if name not in leave)


class Movement(Table):
    """Who is where, or who attaches where: a file, relative to the scenario, or a model."""

    trace: Annotated[str, Field(min_length=1)] | None = None
    """File of positions: SUMO FCD, ns-2, BonnMotion, CSV `t,node,x,y`, GPX or a folder of GPX."""
    events: Annotated[str, Field(min_length=1)] | None = None
    """File of attachment events, CSV `t,node,action,network[,interface][,moa]`."""
    format: Literal["auto", "fcd", "ns2", "bonnmotion", "gpx", "positions"] = "auto"
    """Format of `trace`; "auto" recognises it."""
    gaps: Gaps = "error"
    """A node missing in the middle of a trace: an error, or "absent" (it leaves and returns)."""
    step: Seconds = SAMPLE_STEP
    """Time between two looks around on paths: ns-2 walks, BonnMotion, GPX, random waypoint."""
    origin: Annotated[Point, Unit("°")] | None = None
    """Latitude and longitude of x = y = 0 for GPX. Default: its first point."""
    random_waypoint: RandomWaypoint | None = None
    """Nodes wander over an area."""
    train: Train | None = None
    """Nodes ride on a train."""
    crowd: Crowd | None = None
    """Nodes change network within a short time."""

    @property
    def given(self) -> list[str]:
        """What the movement comes from, by the names of the fields; one, unless nothing moves."""
        sources = ("trace", "events", *GENERATED)
        return [name for name in sources if getattr(self, name) is not None]


class Dhcp(Table):
    """The DHCP server of an access network: addresses come of an exchange with it.

    The client is that of mat's nodes (`mat.dhcp`): RFC 2131, with retransmission after 0.1 s.
    """

    delay: Time = Constant(0.0)
    """One-way delay between a node and the server: on the link, or by a relay."""
    loss: Probability = 0.0
    """Probability that a message is lost between the two, each way."""
    service: Time = Constant(0.0005)
    """Time a worker spends on one message."""
    workers: Annotated[int, Field(ge=1)] = 1
    """Messages worked on at once."""
    queue: Annotated[int, Field(ge=0), Unit("messages")] = 1000
    """Messages that may wait; the next one is dropped."""
    probe: Time | None = None
    """How long it looks whether an address that is new to a node is in use. Default: not at all."""
    authoritative: bool = True
    """What a node had elsewhere and asks for: refused (NAK), or not answered."""
    rapid_commit: bool = False
    """Whether it gives an address in two messages in place of four (RFC 4039)."""


class Access(Table):
    """What an access network is like for the nodes on it."""

    delay: Time = Constant(0.005)
    """One-way delay between a node on this network and the core."""
    loss: Probability = 0.0
    """Probability that a packet is lost between a node and the core, each way."""
    rate: BitRate | None = None
    """Rate of the link to the core, which all nodes share, each way. Default: without limit."""
    queue: Places = QUEUE
    """Packets that wait for that, each way, beside the one that is sent; more are dropped."""
    detect: Time = Constant(0.05)
    """Time until a node acts on what changed: its link lost, or this network in reach."""
    association: Time = Constant(0.1)
    """Time of the layer-2 association, after detection."""
    address: Time = Constant(0.3)
    """Time from the association until an address is configured, such as DHCP takes."""
    dhcp: Dhcp | None = None
    """In place of that time, an exchange with a DHCP server."""
    lease: Annotated[float, Field(ge=1), Unit("s")] = 3600.0
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
    processing: Time = Constant(0.0)
    """Time from what a host hears to what it says to that; of mobile nodes and correspondents."""


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
    rate: BitRate | None = None
    """Rate of the link between site and core, each way. Not used with `network`."""
    queue: Places = QUEUE
    """Packets that wait for that, each way, beside the one that is sent; more are dropped."""
    home_prefix: Prefix | None = None
    """Home addresses. Default: 10.32.0.0/11 or 2001:db8:1::/48."""


class Services(Table):
    """Times of an IMS's worker by type of message, in place of `service`."""

    update: Time | None = None
    """IMS Update: authentication and reply; `store` comes besides."""
    query: Time | None = None
    """MA Query."""
    notify: Time | None = None
    """HA Notify."""
    ha_query: Time | None = None
    """HA Query."""
    answer: Time | None = None
    """MA Answer of another IMS, and the HA Notify Ack that it makes possible."""


class Ims(Table):
    """One IP address mapping server, as a queueing station around the real machine."""

    name: Name
    """Unique; results and ladder diagrams refer to it."""
    count: Annotated[int, Field(ge=1, le=MOST_IMS)] = 1
    """IMS with these properties, named with a number from 1, that share the nodes equally."""
    serves: Annotated[tuple[Party | IpNetwork, ...], PlainValidator(_serves)] = ("all",)
    """Home addresses it is responsible for: "mobile", "correspondents", "all", or prefixes."""
    delay: Time = Constant(0.005)
    """One-way delay between the server and the core."""
    loss: Probability = 0.0
    """Probability that a packet is lost between server and core, each way."""
    rate: BitRate | None = None
    """Rate of the link between server and core, each way. Default: without limit."""
    link_queue: Places = QUEUE
    """Packets that wait for that, each way, beside the one that is sent; more are dropped."""
    service: Time = Constant(0.00005)
    """Time a worker spends on one message."""
    services: Services | None = None
    """The same by type of message."""
    forward: Time = Constant(0.000001)
    """Time a worker spends on a packet that it sends on, where it is a home agent."""
    workers: Annotated[int, Field(ge=1)] = 1
    """Messages worked on at once."""
    queue: Annotated[int, Field(ge=0), Unit("messages")] = 1000
    """Messages that may wait; the next one is dropped."""
    store: Time = Constant(0.0)
    """Time until an update is durable, spent without holding a worker."""
    group_commit: bool = False
    """One commit at a time, of `store`: updates that come during one are the next, together."""
    replicas: Annotated[int, Field(ge=1, le=MOST_IMS)] = 1
    """Servers with these properties, each with its own address and the same mappings."""


class Dns(Table):
    """The name service that knows each home address's IMS."""

    delay: Time = Constant(0.005)
    """One-way delay between the resolver and the core."""
    service: Time = Constant(0.001)
    """Time to answer a look-up that is not in the asker's cache."""
    ttl: Annotated[float, Field(ge=0), Unit("s")] = 3600.0
    """How long an answer may be kept."""
    resolver: Time | None = None
    """One-way delay to a caching resolver at the asker's own site. Default: there is none."""


class Load(Table):
    """Nodes that are not simulated one by one, but whose requests load the IMS.

    Each makes requests at random times, independent of the others: together Poisson processes.
    """

    nodes: Annotated[int, Field(ge=0)] = 0
    """How many: registered mobile nodes with home addresses like the others."""
    update: Frequency = 0.0
    """IMS Updates of one node, to every replica of its IMS."""
    query: Frequency = 0.0
    """MA Queries for one node, to its IMS."""
    notify: Frequency = 0.0
    """HA Notify of one node for a peer among them, to the peer's IMS."""
    delay: Time = Constant(0.005)
    """One-way delay between these nodes and the core."""

    @property
    def rate(self) -> float:
        """All requests, 1/s."""
        return self.nodes * (self.update + self.query + self.notify)


class Traffic(Table):
    """Data packets between pairs of nodes."""

    pairs: Literal["correspondent", "mobile", "random", "none"] = "correspondent"
    """Mobile node i with correspondent i modulo their number; mobile nodes 1–2, 3–4 …; whom each
    mobile node draws; nobody."""
    peers: Annotated[int, Field(ge=1)] = 1
    """Peers per mobile node: the correspondents from number i on, or so many drawn."""
    among: Literal["correspondents", "mobile", "both"] = "both"
    """Where peers are drawn, from whom: all correspondents, all other mobile nodes, or both."""
    popularity: Annotated[float, Field(ge=0, le=2)] = 0.0
    """There, Zipf's exponent: the n-th (correspondents first) is drawn in proportion to n^−it."""
    kind: Literal["cbr", "poisson", "onoff"] = "cbr"
    """Packets at equal distances; at random; or at equal distances for a time, then none, …"""
    on: Time = Exponential(1.004)
    """Of "onoff", how long there are packets. The defaults are those of speech (ITU-T P.59)."""
    off: Time = Exponential(1.587)
    """Of "onoff", how long there are none."""
    up: Rate = 20.0
    """From the mobile node (the first of a mobile pair) to its peer, while there are packets."""
    down: Rate = 20.0
    """From the peer to the mobile node."""
    size: Annotated[int, Field(ge=28, le=65535), Unit("bytes")] = 200
    """Length of a packet, IP header included."""
    start: Annotated[float, Field(ge=0), Unit("s")] = 1.0
    """Begin, counted from the mobile node's first attachment."""
    established: bool = False
    """Pairs attached at time 0 know each other: registered, mappings exchanged, DNS cached."""
    events: Literal["packets", "changes"] = "packets"
    """Every packet is an event; or only those are whose fate a change leaves uncertain (below)."""


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
    background: Load = Load()
    traffic: Traffic = Traffic()
    protocol: dict[str, float] = Field(default_factory=dict)
    """Protocol parameters by name (docs/protocol.md), in place of their defaults."""

    _source: Source = PrivateAttr(default=Source(None, "", ()))

    @classmethod
    def load(cls, name: str | Path) -> "Scenario":
        """The scenario in a file, or the one that comes with mat under that name.

        Raises `ScenarioError`.
        """
        from mat_files.library import find_scenario
        from mat_files.scenario._load import load_scenario

        return load_scenario(find_scenario(str(name)))

    def changed(self, values: Mapping[str, object]) -> "Scenario":
        """This scenario with other values, by dotted key: `{"nodes.interfaces": 1}`.

        Keys are those of `--set`: elements of an array by their number from 0. A value is what the
        file would hold, or an instance of this package's classes. Raises `ScenarioError`, which
        names the key that is at fault.
        """
        from mat_files.scenario._load import scenario_from

        source = self.source
        every = (*source.overrides, *(_override(key, value) for key, value in values.items()))
        place = source.path if self._source.text else None
        return scenario_from(Source(source.path, source.text, every), place)

    @property
    def source(self) -> Source:
        """File, text and overrides; the text is made here where a program built the scenario."""
        return self._source if self._source.text else Source(self._source.path, self.toml(), ())

    def toml(self) -> str:
        """This scenario as the text of a TOML file; defaults are left out."""
        from mat_files.scenario._write import toml

        return toml(self)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy; one with another value has no longer the text that it was read from."""
        copy = super().model_copy(update=update, deep=deep)
        if update:
            values: Any = copy.__dict__
            values.pop("networks", None)
            copy.read_from(Source(self._source.path, "", ()))
        return copy

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

    @property
    def every_ims(self) -> tuple[Ims, ...]:
        """The IMS one by one: one with a `count` is as many, each with its share of the nodes."""
        return tuple(itertools.chain.from_iterable(map(self._one_by_one, self.ims)))

    def _one_by_one(self, ims: Ims) -> Sequence[Ims]:
        if ims.count == 1:
            return (ims,)
        parts = [list(_in_turn(prefix, ims.count)) for prefix in self.served(ims)]
        return [
            ims.model_copy(
                update={
                    "name": f"{ims.name}{number + 1}",
                    "count": 1,
                    "serves": tuple(prefix for part in parts for prefix in part[number]),
                }
            )
            for number in range(ims.count)
        ]

    def shares(self, home: IpNetwork) -> tuple[IpNetwork, ...]:
        """The parts of a home prefix that nodes have addresses in, equally many in each."""
        counts = [ims.count for ims in self.ims if home in self.served(ims)]
        return tuple(_split(home, counts[0])) if counts else (home,)

    def interval(self, end: float) -> float:
        """The length of a row of the tables `ims` and `links` in a run that ends then, s."""
        fitting = [length for length in _INTERVALS if length * _FEWEST_ROWS <= end]
        return self.scenario.interval or max(fitting, default=_INTERVALS[0])

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


def _override(key: str, value: object) -> str:
    """`key=value` with the value as TOML. Raises `ScenarioError`."""
    from mat_files.scenario._write import inline

    try:
        return f"{key}={inline(value)}"
    except ValueError as error:
        raise ScenarioError([Problem("", key, str(error))]) from None


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


_INTERVALS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_FEWEST_ROWS: Final = 50


def _in_turn(space: IpNetwork, count: int) -> Iterator[Sequence[IpNetwork]]:
    """What each of `count` servers gets of `space`: all of it, in parts that are dealt in turn."""
    bits = min((count - 1).bit_length(), space.max_prefixlen - space.prefixlen)
    parts: Sequence[IpNetwork] = list(space.subnets(prefixlen_diff=bits))
    return (parts[number::count] for number in range(count))


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


def mean_distance(width: float, height: float) -> float:
    """Mean distance of two points drawn evenly from a rectangle, m.

    B. Ghosh, Random distances within a rectangle and between two rectangles, Bulletin of the
    Calcutta Mathematical Society 43, 1951.
    """
    a, b = width, height
    d = math.hypot(a, b)
    straight = a**3 / b**2 + b**3 / a**2 + d * (3 - (a / b) ** 2 - (b / a) ** 2)
    return straight / 15 + (b**2 / a * math.acosh(d / b) + a**2 / b * math.acosh(d / a)) / 6


def column_letters(column: int) -> str:
    """A, B … Z, AA, AB … for 0, 1 …, as spreadsheets name columns."""
    letters = ""
    column += 1
    while column:
        column, rest = divmod(column - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters
