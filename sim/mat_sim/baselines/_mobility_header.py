"""The messages of Mobile IPv6 and their lengths on the wire (RFC 6275, section 6.1).

Signalling with the home agent is protected by IPsec ESP (RFC 6275, section 5.1; RFC 4877): in
transport mode, authenticated and not encrypted, around Binding Update and Acknowledgement; in
tunnel mode, encrypted, around Home Test Init and Home Test between node and home agent (section
10.4.6). The algorithms are an assumption: HMAC-SHA1-96, and AES-CBC where encrypted.
"""

from dataclasses import dataclass
from typing import ClassVar, Final, final

from mat.address import Address
from mat_sim.baselines._datagram import IPV6_HEADER, Message

_ESP_HEADER: Final = 8
_ESP_TRAILER: Final = 2
_ICV: Final = 12
_AES_BLOCK: Final = 16

TEST_INIT: Final = IPV6_HEADER + 16
TEST: Final = IPV6_HEADER + 24
BINDING_ERROR: Final = IPV6_HEADER + 24
CORRESPONDENT_UPDATE: Final = IPV6_HEADER + 32
"""12, nonce indices 6, authorization data 14; without the home address option."""
CORRESPONDENT_ACKNOWLEDGEMENT: Final = IPV6_HEADER + 32
"""12, padding 6, authorization data 14; without a routing header."""


def _up_to(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def authenticated(payload: int) -> int:
    """Bytes of ESP with authentication only, `payload` included (RFC 4303, section 2)."""
    return _ESP_HEADER + _up_to(payload + _ESP_TRAILER, 4) + _ICV


def encrypted(payload: int) -> int:
    """Bytes of ESP with AES-CBC and authentication, `payload` included (RFC 3602, section 3)."""
    return _ESP_HEADER + _AES_BLOCK + _up_to(payload + _ESP_TRAILER, _AES_BLOCK) + _ICV


HOME_UPDATE: Final = IPV6_HEADER + authenticated(32)
"""12, padding 2, alternate care-of address 18; without the home address option."""
HOME_ACKNOWLEDGEMENT: Final = IPV6_HEADER + authenticated(16)
"""Without a routing header."""


@final
@dataclass(frozen=True, slots=True)
class BindingUpdate(Message):
    """Node → home agent or correspondent (section 6.1.7). Lifetime 0: I am at home."""

    name: ClassVar[str] = "Binding Update"

    home_address: Address
    care_of: Address
    lifetime: float
    sequence: int
    to_home_agent: bool
    acknowledge: bool


@final
@dataclass(frozen=True, slots=True)
class BindingAcknowledgement(Message):
    """The answer to a Binding Update (section 6.1.8)."""

    name: ClassVar[str] = "Binding Acknowledgement"

    status: int
    lifetime: float
    sequence: int

    @property
    def refuses(self) -> bool:
        """Whether the update was rejected: a status of 128 or more."""
        return self.status >= 128


@final
@dataclass(frozen=True, slots=True)
class HomeTestInit(Message):
    """Node → correspondent, through the home agent (section 6.1.3)."""

    name: ClassVar[str] = "Home Test Init"

    cookie: int


@final
@dataclass(frozen=True, slots=True)
class CareOfTestInit(Message):
    """Node → correspondent, from the care-of address (section 6.1.4)."""

    name: ClassVar[str] = "Care-of Test Init"

    cookie: int


@final
@dataclass(frozen=True, slots=True)
class HomeTest(Message):
    """Correspondent → home address (section 6.1.5)."""

    name: ClassVar[str] = "Home Test"

    cookie: int


@final
@dataclass(frozen=True, slots=True)
class CareOfTest(Message):
    """Correspondent → care-of address (section 6.1.6)."""

    name: ClassVar[str] = "Care-of Test"

    cookie: int


@final
@dataclass(frozen=True, slots=True)
class BindingError(Message):
    """Correspondent → care-of address: I know of no such binding (section 6.1.9)."""

    name: ClassVar[str] = "Binding Error"

    home_address: Address
