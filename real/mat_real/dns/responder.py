"""A small authoritative DNS server for demonstrations and laboratories.

It serves reverse zones with the IMS records of single home addresses or of whole prefixes (each
name in the prefix has them, so that a laboratory of a million nodes needs one line), PTR records,
and the addresses of a few host names. It answers as RFC 1034, section 4.3.2, wants it: NXDOMAIN for
names that do not exist, an empty answer with SOA for those that lack the type or only lead to
others, REFUSED outside its zones. What it does not do: delegation, aliases, DNSSEC, transfers and
updates. For those there are BIND, Knot and NSD (docs/dns.md).
"""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from typing import Final, final

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rdata
import dns.rrset
from dns.exception import DNSException
from dns.message import Message
from dns.name import Name
from dns.rcode import Rcode
from dns.rdata import Rdata
from dns.rdataclass import IN
from dns.rdatatype import RdataType

from mat.address import (
    Address,
    format_address,
    from_ipv4,
    is_ipv4,
    parse_address,
    prefix_of,
)
from mat.ims_record import ImsRecord, reverse_name
from mat.messages import EXACT, Endpoint
from mat_real import datagrams
from mat_real.datagrams import DatagramSocket
from mat_real.dns.config import DNS_PORT
from mat_real.dns.errors import DnsError
from mat_real.dns.lookup import IMS
from mat_real.dns.upstream import PAYLOAD

MAX_STREAMS: Final = 64
"""TCP connections at a time; further ones are closed at once."""
IDLE_TIME: Final = 10.0
"""Seconds without a question after which a TCP connection is closed."""

_HEADER: Final = 12
_PORT_ATTEMPTS: Final = 10
_BATCH: Final = 32
_PLAIN_PAYLOAD: Final = 512  # without EDNS (RFC 1035, section 4.2.1)
_LONGEST: Final = 65535
_OCTETS: Final = {str(octet).encode(): octet for octet in range(256)}
_NIBBLES: Final = {f"{nibble:x}".encode(): nibble for nibble in range(16)}
_REVERSE_4: Final = dns.name.from_text("in-addr.arpa.")
_REVERSE_6: Final = dns.name.from_text("ip6.arpa.")

Prefix = tuple[Address, int]
_Records = dict[RdataType, list[Rdata]]


@final
class Responder:
    """Serves zones from memory. Names are absolute, with or without the final dot."""

    __slots__ = (
        "_apexes",
        "_ims",
        "_inner",
        "_lengths",
        "_listener",
        "_names",
        "_negative_ttl",
        "_streams",
        "_ttl",
        "_udp",
    )

    def __init__(
        self,
        zones: Iterable[str],
        records: Iterable[tuple[str, ImsRecord]] = (),
        *,
        hosts: Iterable[tuple[str, Address]] = (),
        pointers: Iterable[tuple[Address, str]] = (),
        ttl: int = 300,
        negative_ttl: int = 60,
    ) -> None:
        """Take what is to be served; nothing is opened yet.

        `records` are pairs of a home address or prefix, as text, and an IMS record: several for
        one prefix are a set, and of several prefixes the longest counts. `hosts` are pairs of a
        name and one of its addresses, `pointers` of an address and its name. TTLs are in seconds.
        Raises `DnsError` for what is no name or prefix, or lies in none of the zones.
        """
        self._ttl = ttl
        self._negative_ttl = negative_ttl
        self._apexes = {_name(zone) for zone in zones}
        self._names: dict[Name, _Records] = {}
        self._inner: set[Name] = set()
        """Names that lead to others, whether they have records or not."""
        self._ims: dict[Prefix, list[Rdata]] = {}
        for apex in self._apexes:
            self._add(
                apex,
                RdataType.SOA,
                f"localhost. hostmaster.localhost. 1 3600 600 86400 {negative_ttl}",
            )
            self._add(apex, RdataType.NS, "localhost.")
        for text, record in records:
            self._add_ims(text, record)
        for name, address in hosts:
            self._add(
                _name(name),
                RdataType.A if is_ipv4(address) else RdataType.AAAA,
                format_address(address),
            )
        for address, name in pointers:
            self._add(_name(reverse_name(address)), RdataType.PTR, str(_name(name)))
        self._lengths = sorted({length for _, length in self._ims}, reverse=True)
        self._udp: DatagramSocket | None = None
        self._listener: asyncio.Server | None = None
        self._streams: set[asyncio.Task[None]] = set()

    # ---- what there is -------------------------------------------------------------------------

    def _add(self, name: Name, rdtype: RdataType, text: str) -> None:
        self._check_zone(name, str(name))
        rdatas = self._names.setdefault(name, {}).setdefault(rdtype, [])
        rdatas.append(dns.rdata.from_text(IN, rdtype, text))
        self._add_inner(name)

    def _add_ims(self, text: str, record: ImsRecord) -> None:
        address, length = _parse_prefix(text)
        name = _covering_name(address, length)
        self._check_zone(name, text)
        rdata = record.to_rdata()
        self._ims.setdefault((address, length), []).append(
            dns.rdata.from_wire(IN, IMS, rdata, 0, len(rdata))
        )
        self._inner.add(name)
        self._add_inner(name)

    def _add_inner(self, name: Name) -> None:
        while name not in self._apexes:
            name = name.parent()
            self._inner.add(name)

    def _check_zone(self, name: Name, what: str) -> None:
        if self._zone_of(name) is None:
            zones = ", ".join(sorted(map(str, self._apexes))) or "no zone at all"
            raise DnsError(f"{what}: its name {name} is in none of the zones ({zones}); add one")

    def _zone_of(self, name: Name) -> Name | None:
        """The zone that a name is in: the innermost that is served here."""
        while name not in self._apexes:
            if name == dns.name.root:
                return None
            name = name.parent()
        return name

    def _records_at(self, name: Name) -> _Records | None:
        """All records of a name; None if it does not exist."""
        records = self._names.get(name, {})
        prefix = _prefix_named(name)
        covering = self._covering(prefix) if prefix is not None else None
        if covering is not None and prefix is not None and prefix[1] == EXACT:
            return records | {IMS: covering}
        exists = records or name in self._inner or covering is not None
        return records if exists else None

    def _covering(self, prefix: Prefix) -> list[Rdata] | None:
        """The IMS records of the longest prefix that a prefix lies in."""
        address, length = prefix
        for candidate in self._lengths:
            if candidate <= length:
                found = self._ims.get((prefix_of(address, candidate), candidate))
                if found is not None:
                    return found
        return None

    # ---- answers -------------------------------------------------------------------------------

    def answer(self, wire: bytes, *, stream: bool = False) -> bytes | None:
        """The answer to a message, whatever it is; None if it deserves none.

        Over UDP an answer is no longer than the question's EDNS allows, at most `PAYLOAD` bytes;
        what does not fit is left out and the answer marked as truncated.
        """
        if len(wire) < _HEADER or wire[2] & 0x80:
            return None  # no header, or itself an answer: two servers must not talk to each other
        try:
            query = dns.message.from_wire(wire, keyring=False)
            response = self._respond(query)
        except DNSException:
            return _format_error(wire)
        limit = _LONGEST if stream else _payload(query)
        return response.to_wire(max_size=limit, prefer_truncation=True)

    def _respond(self, query: Message) -> Message:
        if query.opcode() != dns.opcode.QUERY:
            return _refusal(query, Rcode.NOTIMP)
        if query.edns > 0:
            return _refusal(query, Rcode.BADVERS)
        if len(query.question) != 1:
            return _refusal(query, Rcode.FORMERR)
        question = query.question[0]
        apex = self._zone_of(question.name)
        if (
            question.rdclass != IN
            or apex is None
            or question.rdtype in (RdataType.AXFR, RdataType.IXFR)
        ):
            return _refusal(query, Rcode.REFUSED)
        response = _response(query)
        response.flags |= dns.flags.AA
        records = self._records_at(question.name)
        if records is None:
            response.set_rcode(Rcode.NXDOMAIN)
        for rdtype, rdatas in (records or {}).items():
            if question.rdtype in (rdtype, RdataType.ANY):
                rrset = dns.rrset.from_rdata_list(question.name, self._ttl, rdatas)
                response.answer.append(rrset)
        if not response.answer:
            authority = self._names[apex][RdataType.SOA]
            rrset = dns.rrset.from_rdata_list(apex, self._negative_ttl, authority)
            response.authority.append(rrset)
        return response

    # ---- sockets -------------------------------------------------------------------------------

    async def start(self, address: str = "127.0.0.1", port: int = DNS_PORT) -> Endpoint:
        """Serve over UDP and TCP; port 0 takes a free one. Returns where. Raises `DnsError`."""
        where = parse_address(address)
        try:
            listener, self._udp = _bind(where, port)
        except OSError as error:
            what = f"{address} port {port}: {error.strerror or error}"
            raise DnsError(f"{what}; choose another address or port") from error
        loop = asyncio.get_running_loop()
        loop.add_reader(self._udp.fileno(), self._serve_datagrams, self._udp)
        self._listener = await asyncio.start_server(self._serve_stream, sock=listener)
        return self._udp.local

    async def close(self) -> None:
        """Stop serving; open connections are cut off."""
        if self._udp is not None:
            asyncio.get_running_loop().remove_reader(self._udp.fileno())
            self._udp.close()
            self._udp = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        streams = list(self._streams)
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)

    def _serve_datagrams(self, udp: DatagramSocket) -> None:
        for wire, peer in udp.receive():
            answer = self.answer(wire)
            if answer is not None:
                udp.reply(peer, answer)
        udp.flush()

    async def _serve_stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            while len(self._streams) <= MAX_STREAMS and (wire := await _read(reader)):
                answer = self.answer(wire, stream=True)
                if answer is None:
                    break
                writer.write(len(answer).to_bytes(2) + answer)
                await writer.drain()
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # the other side has gone, says nothing, or this server closes
        finally:
            self._streams.discard(task)
            writer.close()


async def _read(reader: asyncio.StreamReader) -> bytes:
    """One message from a connection. Raises TimeoutError (an OSError) and EOFError."""
    async with asyncio.timeout(IDLE_TIME):
        size = int.from_bytes(await reader.readexactly(2))
        return await reader.readexactly(size)


def _bind(address: Address, port: int) -> tuple[socket.socket, DatagramSocket]:
    """Sockets for TCP and UDP on the same port. Raises `OSError`."""
    for attempt in range(_PORT_ATTEMPTS):
        listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((socket.inet_ntop(socket.AF_INET6, address), port))
            udp = datagrams.bind(address, listener.getsockname()[1])
            return listener, DatagramSocket(udp, batch=_BATCH)
        except OSError:
            listener.close()
            # A port that is free for TCP may be taken for UDP.
            if port != 0 or attempt + 1 == _PORT_ATTEMPTS:
                raise
    raise AssertionError("the last attempt returns or raises")


def _response(query: Message) -> Message:
    return dns.message.make_response(query, our_payload=PAYLOAD)


def _refusal(query: Message, code: Rcode) -> Message:
    response = _response(query)
    response.set_rcode(code)
    return response


def _format_error(wire: bytes) -> bytes:
    """An answer to what cannot be read: its id, opcode and RD, and FORMERR."""
    return wire[:2] + bytes((0x80 | wire[2] & 0x79, Rcode.FORMERR)) + bytes(8)


def _payload(query: Message) -> int:
    """The longest answer over UDP that a question allows."""
    asked = query.payload if query.edns >= 0 else _PLAIN_PAYLOAD
    return max(_PLAIN_PAYLOAD, min(asked, PAYLOAD))


def _name(text: str) -> Name:
    try:
        return dns.name.from_text(text)
    except DNSException as error:
        raise DnsError(f"name {text!r}: {error}") from error


def _parse_prefix(text: str) -> Prefix:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise DnsError(f"{error}; a home address or prefix is needed, like 10.1.0.0/16") from error
    packed = network.network_address.packed
    if network.version == 4:
        return from_ipv4(packed), EXACT - 32 + network.prefixlen
    return Address(packed), network.prefixlen


def _covering_name(address: Address, length: int) -> Name:
    """The longest name in the reverse zones that all names of a prefix lie beneath or at."""
    labels = dns.name.from_text(reverse_name(address)).labels
    step, bits = (8, EXACT - length) if is_ipv4(address) else (4, EXACT - length)
    return dns.name.Name(labels[-(-bits // step) :])


def _prefix_named(name: Name) -> Prefix | None:
    """The prefix that a name in the reverse zones stands for, the inverse of `reverse_name`."""
    if name.is_subdomain(_REVERSE_4):
        packed, length = _number_named(name.labels[: -len(_REVERSE_4)], _OCTETS, 8, 32)
        return (from_ipv4(packed), EXACT - 32 + length) if packed else None
    if name.is_subdomain(_REVERSE_6):
        packed, length = _number_named(name.labels[: -len(_REVERSE_6)], _NIBBLES, 4, 128)
        return (Address(packed), length) if packed else None
    return None


def _number_named(
    labels: tuple[bytes, ...], digits: dict[bytes, int], step: int, size: int
) -> tuple[bytes, int]:
    """The bytes of an address whose first bits labels spell, and how many; no bytes if none do."""
    value = 0
    for label in reversed(labels):
        digit = digits.get(label.lower())
        if digit is None:
            return b"", 0
        value = value << step | digit
    length = step * len(labels)
    return (value << size - length).to_bytes(size // 8) if length <= size else b"", length
