"""What was sent between the hosts of a lab, when, and whether it arrived.

Theory of operation. One process (`mat_real.lab.recorder`) records the signalling, the DNS and the
probes in all hosts: a datagram is there twice, once where it left and once where it arrived, with
the kernel's times of one clock. What left is a transmission; what arrives with the same ends and
the same content is its delivery (`mat_files.capture.Pairing`). A transmission that does not arrive
is lost, unless it left in the last `UNDER_WAY` seconds.
"""

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from mat.address import Address, is_ipv4, parse_address
from mat.codec import Malformed, decode
from mat.messages import (
    MAT_PORT,
    NAMES,
    HaAnswer,
    HaNotify,
    HaQuery,
    ImsUpdate,
    ImsUpdateReply,
    MaQuery,
    Message,
)
from mat_files.capture import (
    DNS_PORT,
    Datagram,
    Packet,
    Pairing,
    address_name,
    datagram_of,
    host_of,
    read_capture,
    writing,
)
from mat_real.lab import probe
from mat_real.lab.errors import LabError
from mat_real.lab.plan import Plan

if TYPE_CHECKING:
    from mat_real.lab.programs import Program

FILE: Final = "recorded.pcap"
"""In the folder of each host."""
UNDER_WAY: Final = 1.0
"""Seconds after which nothing is under way any more."""
_OPTIONS_FIRST: Final = "ip6[6] = 60"
"""Packets with a MUO: what is behind it no filter looks at."""
WANTED: Final = (
    f"udp port {MAT_PORT} or udp port {DNS_PORT} or"
    f" udp portrange {probe.PORT}-{probe.PORT + probe.MOST - 1} or (ip6 and {_OPTIONS_FIRST})"
)
DATA: Final = "data"
_IPV4_REVERSE: Final = b"\x07in-addr\x04arpa"


@final
@dataclass(slots=True)
class Transmission:
    """A datagram that left `sender` at `sent`, and arrived at `receiver` or was lost.

    Times in s of CLOCK_MONOTONIC. `kind` is a message's name, DNS query or answer, or data; of an
    address that nobody has, the sender counts as the receiver, as in the simulator. `ipv4` says
    which of MAT's two families it is about, whatever IP carries it.
    """

    sent: float
    kind: str
    sender: str
    receiver: str
    datagram: Datagram
    message: Message | None
    ipv4: bool
    repeated: bool = False
    received: float | None = None


@final
class Recording:
    """A recording of all hosts of a lab, by `Lab.record`. It ends with the lab."""

    def __init__(
        self, plan: Plan, program: "Program", files: dict[str, Path], *, whole: bool
    ) -> None:
        """`files` by host; `whole` if it began before anything was registered."""
        self.plan = plan
        self.whole = whole
        self._program = program
        self._files = files
        # Packets bear the time of day; all else here is in CLOCK_MONOTONIC.
        self._offset = time.time() - time.monotonic()

    def check(self) -> None:
        """Raise `LabError` if packets were missed: what is counted would be too little."""
        count = self._program.text().count(_MISSED)
        self._program.process.send_signal(signal.SIGUSR1)
        self._program.wait_until(lambda text: text.count(_MISSED) > count, "a report")
        missed = int(self._program.text().split()[-2])
        if missed:
            what = f"the recording missed {missed} packets"
            raise LabError(f"{what}: this machine is too slow for so much traffic; take less")

    def transmissions(self) -> list[Transmission]:
        """All that was sent so far, in order of time. Raises `LabError` if packets were missed."""
        self.check()
        found = _Matching(self.plan)
        for host, packet in self._packets():
            datagram = datagram_of(packet)
            if datagram is not None:
                found.add(datagram.time - self._offset, host, datagram)
        return found.transmissions

    def write(self, path: Path) -> None:
        """Write what was recorded so far in all hosts into one capture, with names of addresses.

        Raises `LabError` if packets were missed, and `CaptureError` if it cannot be written.
        """
        self.check()
        with writing(path) as writer:
            for host in self._files:
                writer.host(host)
            writer.name(address_names(self.plan))
            for host, packet in self._packets():
                outward = bool(packet.outward)
                writer.packet(packet.time, host, packet.content, packet.size, outward=outward)

    def _packets(self) -> list[tuple[str, Packet]]:
        """All that was recorded, in order of time, with the hosts that it passed."""
        captures = {host: read_capture(path) for host, path in self._files.items()}
        passed = [(host, packet) for host, one in captures.items() for packet in one.packets]
        return sorted(passed, key=lambda one: one[1].time)


_MISSED: Final = " missed\n"


@final
class _Matching:
    """Finds for each datagram that arrived where it left."""

    def __init__(self, plan: Plan) -> None:
        self.transmissions: list[Transmission] = []
        self._owners = _Owners(plan)
        self._pairs = Pairing[Transmission]()
        self._asked: dict[tuple[str, int], Message] = {}
        """Requests, by who sent them and their sequence."""

    def add(self, at: float, host: str, datagram: Datagram) -> None:
        """The next datagram, in order of time."""
        ends = (*datagram.source[:2], *datagram.destination[:2], datagram.payload)
        if datagram.outward:
            one = self._sent(at, host, datagram)
            if one is not None:
                self.transmissions.append(one)
                self._pairs.left(ends, one)
            return
        arrived = self._pairs.arrived(ends)
        if arrived is not None:
            arrived.received, arrived.receiver = at, host

    def _sent(self, at: float, host: str, datagram: Datagram) -> Transmission | None:
        owner = self._owners.of(datagram.destination.address) or host
        ports = {datagram.source.port, datagram.destination.port}
        if MAT_PORT in ports:
            return self._message(at, host, owner, datagram)
        if DNS_PORT in ports:
            kind = "DNS query" if datagram.destination.port == DNS_PORT else "DNS answer"
            ipv4 = _IPV4_REVERSE in datagram.payload
            return Transmission(at, kind, host, owner, datagram, None, ipv4)
        if probe.number_of(datagram.payload) is None:
            return None
        ipv4 = is_ipv4(datagram.destination.address)
        return Transmission(at, DATA, host, owner, datagram, None, ipv4)

    def _message(self, at: float, host: str, owner: str, datagram: Datagram) -> Transmission | None:
        message = decode(datagram.payload)
        if isinstance(message, Malformed):
            return None
        repeated = False
        if isinstance(message, ImsUpdate | MaQuery | HaNotify | HaQuery):
            repeated = (host, message.sequence) in self._asked
            self._asked.setdefault((host, message.sequence), message)
        about = self._about(message, owner)
        ipv4 = is_ipv4(about or datagram.destination.address)
        kind = NAMES[type(message)]
        return Transmission(at, kind, host, owner, datagram, message, ipv4, repeated)

    def _about(self, message: Message, asker: str) -> Address | None:
        """The address that a message is about; a Reply is about that of its update."""
        if isinstance(message, ImsUpdateReply):
            update = self._asked.get((asker, message.sequence))
            return update.home_address if isinstance(update, ImsUpdate) else None
        if isinstance(message, HaQuery | HaAnswer):
            return message.mobile_address
        return message.home_address


@final
class _Owners:
    """Which host an address belongs to, wherever it is."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def of(self, address: Address) -> str | None:
        """The host that has this address or may get it; None if there is none."""
        return self._names.get(address)

    @cached_property
    def _names(self) -> dict[Address, str]:
        return {one: host_of(name) for one, name in address_names(self._plan).items()}


def address_names(plan: Plan) -> dict[Address, str]:
    """What addresses are called in captures: m1 at home, m1@A in network A, m1@site at a site."""
    return {parse_address(str(address)): name for name, address in _named(plan)}


def _named(plan: Plan) -> Iterator[tuple[str, object]]:
    for server in (*plan.ims, plan.dns):
        yield from ((server.name, address) for address in server.address)
    for node in plan.nodes:
        yield from ((node.name, address) for address in node.home or ())
        if node.site is not None:
            yield from ((address_name(node.name, "site"), address) for address in node.site.host(1))
            continue
        networks = [node.network] if node.network else [one.name for one in plan.networks]
        for network in networks:
            for interface in range(node.interfaces):
                moa = plan.moa(node.name, network, interface)
                yield from ((address_name(node.name, network), address) for address in moa)
