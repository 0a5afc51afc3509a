"""What travels: datagrams with their length on the wire, in a tunnel or not.

A datagram carries a signalling message, an application's data, or another datagram (a tunnel). Only
its length and what the receiver can read in it are modelled; there are no bytes. Lengths include
every header from IP upwards, are those of unfragmented packets, and leave out the link layer.
"""

from dataclasses import dataclass
from typing import ClassVar, Final, TypeAlias, final

from mat.address import Address

IPV4_HEADER: Final = 20
IPV6_HEADER: Final = 40
UDP_HEADER: Final = 8
IPV4_TUNNEL: Final = 20
"""IP in IP (RFC 2003, section 3.1)."""
IPV6_TUNNEL: Final = 40
"""IPv6 in IPv6 (RFC 2473, section 3) without a tunnel encapsulation limit."""
HOME_ADDRESS_OPTION: Final = 24
"""A destination options header with the home address option (RFC 6275, section 6.3)."""
ROUTING_HEADER: Final = 24
"""A type 2 routing header (RFC 6275, section 6.4)."""


@dataclass(frozen=True, slots=True)
class Message:
    """A signalling message. `name` is the specification's."""

    name: ClassVar[str]

    @property
    def refuses(self) -> bool:
        """Whether it is an answer that says no."""
        return False


@final
@dataclass(frozen=True, slots=True)
class Data:
    """A packet of an application.

    `source` and `destination` are the home addresses of the two hosts, which name them in every
    system; `size` is its length in bytes with one IP header. `handle` is the driver's.
    """

    name: ClassVar[str] = "data"

    handle: object
    source: Address
    destination: Address
    size: int
    socket: tuple[Address, Address] | None = None
    """The sender's connection, own address and peer's, in systems where applications see them."""
    refuses: ClassVar[bool] = False


@final
@dataclass(frozen=True, slots=True)
class Datagram:
    """An IP packet on the wire; `size` is its length in bytes, all headers included.

    The two home addresses are what else the receiver can read: from the home address option and the
    type 2 routing header, or from the lower half of a LIN6 address.
    """

    source: Address
    destination: Address
    payload: "Payload"
    size: int
    home_source: Address | None = None
    home_destination: Address | None = None

    @property
    def content(self) -> "Message | Data":
        """What it carries, out of all tunnels."""
        payload = self.payload
        return payload.content if isinstance(payload, Datagram) else payload

    @property
    def name(self) -> str:
        """The type of what it carries: a message's name, or "data"."""
        return self.content.name

    @property
    def is_data(self) -> bool:
        """Whether it carries an application's data: not signalling."""
        return isinstance(self.content, Data)

    @property
    def sender(self) -> Address:
        """Whom the receiver takes for the sender: the home address, if the packet tells it."""
        return self.home_source or self.source

    def tunnelled(self, source: Address, destination: Address, header: int) -> "Datagram":
        """It in a tunnel that adds `header` bytes."""
        return Datagram(source, destination, self, self.size + header)


Payload: TypeAlias = Message | Data | Datagram
