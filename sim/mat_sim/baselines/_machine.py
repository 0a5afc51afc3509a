"""The interface that all systems have in common.

A `System` makes the machines: hosts, mobile and fixed, and servers. A driver

- tells a host its addresses, the preferred one first, whenever they change;
- hands a datagram that arrives to `receive` of the host or server that it arrives at: a server of
  that address, else the server that `System.catcher` names (a home agent standing in for a host
  that is away), else the host that holds the address;
- hands an application's packet to `packet_out` of its host;
- calls `handle_timer` when `deadline` has come;
- carries out the effects, in order.

Beside these inputs there are three questions that change nothing, for traffic that is not played
packet by packet: `way_out`, `way_on` and `way_in`; `path` puts them together.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias, final

from mat.address import Address, in_prefix
from mat_sim.baselines._datagram import Data, Datagram


class Reason(enum.Enum):
    """Why data does not get on."""

    NO_ADDRESS = "the sender has no address, or none that it may use"
    NOT_REGISTERED = "the sender has not heard from its server yet"
    UNRESOLVED = "where the peer is could not be found out"
    QUEUE_FULL = "too many packets wait for the peer's address"
    NO_BINDING = "the home agent knows of no care-of address, or of another one"
    UNREACHABLE = "nobody holds the destination address"
    NOT_ACCEPTED = "the receiver does not take it for its own: no connection has these addresses"
    BROKEN = "the connection was given up"


@final
@dataclass(frozen=True, slots=True)
class Transmit:
    """Send a datagram over the link that has the address `leaves_from`.

    That is not the datagram's source where a mobile node sends from its home address (triangular
    routing): a network that filters what its hosts send as source drops it. `repeat` marks a
    retransmission.
    """

    datagram: Datagram
    leaves_from: Address
    repeat: bool = False


@final
@dataclass(frozen=True, slots=True)
class Deliver:
    """Hand data to the application."""

    data: Data


@final
@dataclass(frozen=True, slots=True)
class Discard:
    """Data is lost here."""

    data: Data
    reason: Reason


@final
@dataclass(frozen=True, slots=True)
class Lookup:
    """Ask the DNS about a host; `System.answer` says what, `Host.found` takes the answer."""

    home_address: Address


Effect: TypeAlias = Transmit | Deliver | Discard | Lookup


class Home(NamedTuple):
    """Home addresses with their server: a prefix, counted in 128 bits, and the server's address."""

    prefix: Address
    length: int
    server: Address


def home_server(homes: Sequence[Home], address: Address) -> Address | None:
    """The server of an address: that of the longest prefix it is in."""
    fitting = [home for home in homes if in_prefix(address, home.prefix, home.length)]
    return max(fitting, key=lambda home: home.length).server if fitting else None


class Host(Protocol):
    """A mobile node or a correspondent; one that never moves has its home address for good."""

    home_address: Address
    addresses: tuple[Address, ...]

    @property
    def deadline(self) -> float | None:
        """When to call `handle_timer`, s; None: not at all."""
        ...

    @property
    def registered(self) -> bool:
        """Whether its server, if it has one, has confirmed the preferred address."""
        ...

    def informed(self, now: float, peers: Sequence[Address]) -> bool:
        """Whether all these peers have been told of the preferred address, if peers are told."""
        ...

    def addresses_changed(self, now: float, addresses: Sequence[Address]) -> list[Effect]:
        """These are the host's addresses from now on, the preferred one first."""
        ...

    def receive(self, now: float, datagram: Datagram) -> list[Effect]:
        """A datagram has arrived at one of the host's addresses."""
        ...

    def packet_out(self, now: float, data: Data) -> list[Effect]:
        """An application sends a packet."""
        ...

    def found(self, now: float, home_address: Address, address: Address | None) -> list[Effect]:
        """The DNS has answered."""
        ...

    def handle_timer(self, now: float) -> list[Effect]:
        """The deadline has come; an early call is harmless."""
        ...

    def way_out(self, now: float, data: Data) -> Transmit | Reason:
        """How data would leave now."""
        ...

    def way_in(self, now: float, datagram: Datagram) -> Data | Reason:
        """What the application would get of a datagram that carries data."""
        ...


class Server(Protocol):
    """A server; a driver puts a queue and a service time before `receive`.

    `Datagram.is_data` tells packets to forward from signalling, which may take another time.
    """

    address: Address
    role: str
    """As in results: HA, MA, DDNS."""
    forwards: bool
    """Whether it sends on what is for others."""

    @property
    def deadline(self) -> float | None:
        """When to call `handle_timer`, s; None: not at all."""
        ...

    def receive(self, now: float, datagram: Datagram) -> list[Effect]:
        """A datagram has arrived, for the server or for a host that it stands in for."""
        ...

    def handle_timer(self, now: float) -> list[Effect]:
        """The deadline has come."""
        ...

    def way_on(self, now: float, datagram: Datagram) -> Transmit | Reason:
        """How data that has come here would be passed on now."""
        ...

    def entries(self, now: float) -> int:
        """How many hosts it has the whereabouts of."""
        ...


class System(Protocol):
    """One system: makes hosts, and has the servers."""

    name: str
    family: Literal[4, 6]
    tells_peers: bool
    """Whether a host that has moved tells its peers (`Host.informed`)."""
    servers: Mapping[Address, Server]

    def host(self, home_address: Address, *, moves: bool = True) -> Host:
        """A host; `moves` is False for one that stays at its home address."""
        ...

    def catcher(self, now: float, destination: Address) -> Address | None:
        """The server that gets what is sent to this address now, if it is not its holder."""
        ...

    def answer(self, now: float, home_address: Address) -> Address | None:
        """What the DNS answers to a `Lookup`; None: it has no such record."""
        ...
