"""A tap: every packet of a run goes into a capture, as it would be on the wire of a real network.

Who carries something says when it leaves and when it arrives. Of a question to the DNS the model
knows how long it takes, so its packets are told beforehand, and written when their time has come.
Nothing is drawn at random here: signalling is the same with a tap and without.
"""

from heapq import heappop, heappush
from math import inf
from typing import Final, final

from mat.address import Address
from mat.effects import NotFound
from mat.ims_record import ImsRecord
from mat.mapping_table import Servers
from mat.messages import Endpoint
from mat_files.capture import (
    DNS_PORT,
    CaptureWriter,
    address_name,
    ims_answer,
    ims_question,
    udp_packet,
)

_FIRST_PORT: Final = 49152
_PORTS: Final = 16384
"""Of the dynamic range, which questions to the DNS leave from."""
_PRECEDENCE: Final = 10


@final
class Tap:
    """Writes down what leaves and what arrives, in order of time."""

    __slots__ = ("_homes", "_later", "_lifetime", "_questions", "_told", "_writer")

    def __init__(self, writer: CaptureWriter, lifetime: float) -> None:
        """`lifetime` is for how long the DNS's answers may be kept, s."""
        self._writer = writer
        self._lifetime = int(lifetime)
        self._homes: set[Address] = set()
        self._questions = 0
        self._told = 0
        self._later: list[tuple[float, int, str, bool, bytes]] = []
        """What was told before its time, s: when, in which order, where, which way, what."""

    def home(self, address: Address, name: str) -> None:
        """A host's home address."""
        self._homes.add(address)
        self._writer.name({address: name})

    def address(self, address: Address, name: str, network: str) -> None:
        """An address that a party has from now on, at an access network or elsewhere ("")."""
        if address not in self._homes:
            self._writer.name({address: address_name(name, network)})

    def packet(self, now: float, host: str, content: bytes, *, outward: bool) -> None:
        """A packet leaves a host, or reaches it."""
        self._catch_up(now)
        self._write(now, host, content, outward=outward)

    def end(self) -> None:
        """Write what was told and not written yet."""
        self._catch_up(inf)

    def _catch_up(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            at, _, host, outward, content = heappop(self._later)
            self._write(at, host, content, outward=outward)

    def _write(self, now: float, host: str, content: bytes, *, outward: bool) -> None:
        self._writer.packet(round(now * 1e9), host, content, len(content), outward=outward)

    # ---- the DNS -------------------------------------------------------------------------------

    def enquiry(self, asker: "Correspondent", server: "Correspondent", home: Address) -> "Enquiry":
        """Somebody wants to know the IMS of a home address."""
        self.address(server.address, server.name, "")
        self._questions += 1
        return Enquiry(self, self._questions, asker, server, home)

    def tell(self, host: str, at: float, content: bytes, *, outward: bool) -> None:
        """A packet will leave a host at a time, or reach it, s."""
        self._told += 1
        heappush(self._later, (at, self._told, host, outward, content))

    def answer(self, number: int, home: Address, result: Servers | NotFound) -> bytes:
        """What the DNS says of a home address."""
        records = [] if isinstance(result, NotFound) else [_record(one) for one in result]
        return ims_answer(number, home, records, self._lifetime)


@final
class Correspondent:
    """A host that asks or is asked, and the address by which it does."""

    __slots__ = ("address", "name")

    def __init__(self, name: str, address: Address) -> None:
        self.name = name
        self.address = address


@final
class Enquiry:
    """A question to a DNS server and its answer."""

    __slots__ = ("_asker", "_home", "_number", "_port", "_server", "_tap")

    def __init__(
        self, tap: Tap, number: int, asker: Correspondent, server: Correspondent, home: Address
    ) -> None:
        self._tap = tap
        self._number = number & 0xFFFF
        self._port = _FIRST_PORT + number % _PORTS
        self._asker = asker
        self._server = server
        self._home = home

    def asked(self, leaves: float, comes: float) -> None:
        """When the question leaves, and when it comes to the server, s."""
        ends = self._ends()
        content = udp_packet(ends[0], ends[1], ims_question(self._number, self._home))
        self._tap.tell(self._asker.name, leaves, content, outward=True)
        self._tap.tell(self._server.name, comes, content, outward=False)

    def answered(self, leaves: float, comes: float, result: Servers | NotFound) -> None:
        """When the answer leaves the server, and when it comes to the asker, s."""
        ends = self._ends()
        answer = self._tap.answer(self._number, self._home, result)
        content = udp_packet(ends[1], ends[0], answer)
        self._tap.tell(self._server.name, leaves, content, outward=True)
        self._tap.tell(self._asker.name, comes, content, outward=False)

    def _ends(self) -> tuple[Endpoint, Endpoint]:
        asker, server = self._asker.address, self._server.address
        return Endpoint(asker, self._port), Endpoint(server, DNS_PORT)


def _record(server: Endpoint) -> ImsRecord:
    return ImsRecord(_PRECEDENCE, server.port, (server.address,))
