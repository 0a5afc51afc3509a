"""DHCP messages as bytes (RFC 2131, options of RFC 2132), and the datagrams that carry them.

A client without an address sends and hears IP packets by a packet socket, so the headers of IP and
UDP are here too. From the network, only `ValueError` comes out of this module.
"""

import struct
from collections.abc import Iterator
from typing import Final

from mat.address import Address, from_ipv4, to_packed
from mat.checksum import internet_checksum
from mat.dhcp_messages import DhcpMessage, Kind, Option

CLIENT_PORT: Final = 68
SERVER_PORT: Final = 67

_REQUEST: Final = 1
_REPLY: Final = 2
_ETHERNET: Final = 1
_HEADER: Final = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s4s")
_COOKIE: Final = b"\x63\x82\x53\x63"
_SMALLEST: Final = 300
"""Bytes: some servers and relays drop less than BOOTP's size (RFC 1542, section 2.1)."""
_IP_HEADER: Final = struct.Struct("!BBHHHBBH4s4s")
_UDP_HEADER: Final = struct.Struct("!HHHH")
_UDP: Final = 17
_TTL: Final = 64
_FRAGMENT: Final = 0x3FFF


def encode(message: DhcpMessage) -> bytes:
    """The bytes of a client's message."""
    fixed = _HEADER.pack(
        _REQUEST,
        _ETHERNET,
        len(message.hardware_address),
        0,
        message.transaction,
        min(message.seconds, 0xFFFF),
        0,
        to_packed(message.client),
        to_packed(message.yours),
        bytes(4),
        bytes(4),
        message.hardware_address,
        b"",
        b"",
        _COOKIE,
    )
    options = {int(Option.MESSAGE_TYPE): bytes([message.kind]), **message.options}
    written = b"".join(bytes([code, len(value)]) + value for code, value in options.items())
    return (fixed + written + bytes([Option.END])).ljust(_SMALLEST, b"\0")


def decode(data: bytes) -> DhcpMessage:
    """A server's message. Raises `ValueError`."""
    if len(data) < _HEADER.size:
        raise ValueError("shorter than a DHCP message")
    (
        operation,
        hardware,
        length,
        _,
        transaction,
        seconds,
        _,
        client,
        yours,
        _,
        _,
        address,
        name,
        (file),
        cookie,
    ) = _HEADER.unpack_from(data)
    if operation != _REPLY or hardware != _ETHERNET or length > len(address) or cookie != _COOKIE:
        raise ValueError("not a DHCP server's message")
    options = _options(data[_HEADER.size :], file, name)
    kind = options.pop(Option.MESSAGE_TYPE, b"")
    if len(kind) != 1:
        raise ValueError("no message type")
    return DhcpMessage(
        Kind(kind[0]),
        transaction,
        address[:length],
        from_ipv4(client),
        from_ipv4(yours),
        seconds,
        options,
    )


def _options(field: bytes, file: bytes, name: bytes) -> dict[int, bytes]:
    """All options; those that go on elsewhere, or were split, joined (RFC 3396)."""
    found: dict[int, bytes] = {}
    _gather(found, field)
    overload = found.pop(Option.OVERLOAD, b"\0")
    if overload in {b"\1", b"\3"}:
        _gather(found, file)
    if overload in {b"\2", b"\3"}:
        _gather(found, name)
    return found


def _gather(found: dict[int, bytes], field: bytes) -> None:
    for code, value in _walk(field):
        found[code] = found.get(code, b"") + value


def _walk(field: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(field) and field[at] != Option.END:
        if field[at] == Option.PAD:
            at += 1
            continue
        end = at + 2 + field[at + 1] if at + 1 < len(field) else len(field) + 1
        if end > len(field):
            raise ValueError("an option ends behind the message")
        yield field[at], field[at + 2 : end]
        at = end


def wrap(payload: bytes, source: Address, destination: Address) -> bytes:
    """The IPv4 packet that carries a client's message."""
    addresses = to_packed(source), to_packed(destination)
    length = _UDP_HEADER.size + len(payload)
    pseudo = b"".join(addresses) + struct.pack("!HH", _UDP, length)
    unsummed = _UDP_HEADER.pack(CLIENT_PORT, SERVER_PORT, length, 0)
    summed = internet_checksum(pseudo + unsummed + payload) or 0xFFFF
    udp = _UDP_HEADER.pack(CLIENT_PORT, SERVER_PORT, length, summed)
    header = (0x45, 0, _IP_HEADER.size + length, 0, 0, _TTL, _UDP)
    ip_sum = internet_checksum(_IP_HEADER.pack(*header, 0, *addresses))
    return _IP_HEADER.pack(*header, ip_sum, *addresses) + udp + payload


def unwrap(packet: bytes) -> bytes:
    """What a packet to a client carries. Raises `ValueError`.

    The UDP checksum is not looked at: between virtual interfaces it is not there yet, since it is
    left to hardware.
    """
    if len(packet) < _IP_HEADER.size + _UDP_HEADER.size:
        raise ValueError("shorter than the headers of IP and UDP")
    first, _, total, _, fragment, _, protocol, _, _, _ = _IP_HEADER.unpack_from(packet)
    begin = (first & 15) * 4
    if first >> 4 != 4 or begin < _IP_HEADER.size or protocol != _UDP or fragment & _FRAGMENT:
        raise ValueError("not a whole UDP datagram of IPv4")
    if not begin + _UDP_HEADER.size <= total <= len(packet):
        raise ValueError("cut off")
    _, port, length, _ = _UDP_HEADER.unpack_from(packet, begin)
    if port != CLIENT_PORT or not _UDP_HEADER.size <= length <= total - begin:
        raise ValueError("not to a DHCP client")
    return packet[begin + _UDP_HEADER.size : begin + length]
