"""What DHCP messages say (RFC 2131, options of RFC 2132); a driver has their bytes."""

import enum
from dataclasses import dataclass, field
from typing import Final, final

from mat.address import Address, from_ipv4

BROADCAST: Final = from_ipv4(b"\xff\xff\xff\xff")
ANY: Final = from_ipv4(bytes(4))


@final
class Kind(enum.IntEnum):
    """DHCP message types (RFC 2132, section 9.6)."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


@final
class Option(enum.IntEnum):
    """Options that this client sends or reads."""

    PAD = 0
    SUBNET_MASK = 1
    ROUTER = 3
    NAME_SERVER = 6
    INTERFACE_MTU = 26
    REQUESTED_ADDRESS = 50
    LEASE_TIME = 51
    OVERLOAD = 52
    MESSAGE_TYPE = 53
    SERVER = 54
    WANTED = 55
    MAXIMUM_SIZE = 57
    RENEWAL_TIME = 58
    REBINDING_TIME = 59
    CLIENT = 61
    RAPID_COMMIT = 80
    END = 255


@final
@dataclass(frozen=True, slots=True)
class DhcpMessage:
    """A message of a client, or of a server."""

    kind: Kind
    transaction: int
    hardware_address: bytes
    client: Address = ANY
    """ciaddr: the address that the client has."""
    yours: Address = ANY
    """yiaddr: the address that the server gives."""
    seconds: int = 0
    """Since the client began."""
    options: dict[int, bytes] = field(default_factory=dict[int, bytes])
    """All but the message type."""

    def addresses(self, option: Option) -> tuple[Address, ...]:
        """The addresses in an option; none if it is not there, or not made of addresses."""
        value = self.options.get(option, b"")
        if len(value) % 4:
            return ()
        return tuple(from_ipv4(value[at : at + 4]) for at in range(0, len(value), 4))

    def number(self, option: Option, size: int) -> int | None:
        """The number of `size` bytes in an option; None if it is not there, or not that long."""
        value = self.options.get(option, b"")
        return int.from_bytes(value) if len(value) == size else None
