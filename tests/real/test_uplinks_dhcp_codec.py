"""DHCP messages and their packets, against scapy's independent reading and against garbage."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP

from mat.address import from_ipv4, parse_address
from mat.checksum import internet_checksum
from mat.dhcp_messages import ANY, BROADCAST, DhcpMessage, Kind, Option
from mat_real.uplinks.dhcp_codec import (
    decode,
    encode,
    unwrap,
    wrap,
)

HARDWARE = bytes.fromhex("020000000001")
ADDRESS = parse_address("10.1.0.7")


def reply(*options: object, **fields: Any) -> bytes:
    """A server's message, written by scapy."""
    common: dict[str, Any] = {"op": 2, "xid": 0x01020304, "chaddr": HARDWARE, "yiaddr": "10.1.0.7"}
    return bytes(BOOTP(**{**common, **fields}) / DHCP(options=list(options)))


def to_client(payload: bytes, **udp: Any) -> bytes:
    """A packet to a client, written by scapy."""
    ports: dict[str, Any] = {"sport": 67, "dport": 68, **udp}
    return bytes(IP(src="10.1.0.1", dst="10.1.0.7") / UDP(**ports) / payload)


def test_a_request_is_what_scapy_reads() -> None:
    message = DhcpMessage(
        Kind.REQUEST,
        0x01020304,
        HARDWARE,
        client=ADDRESS,
        seconds=3,
        options={
            Option.REQUESTED_ADDRESS: bytes([10, 1, 0, 7]),
            Option.CLIENT: b"\1" + HARDWARE,
            Option.RAPID_COMMIT: b"",
        },
    )
    packet = IP(wrap(encode(message), ANY, BROADCAST))
    assert (packet.src, packet.dst, packet.ttl) == ("0.0.0.0", "255.255.255.255", 64)
    assert (packet[UDP].sport, packet[UDP].dport) == (68, 67)
    bootp = packet[BOOTP]
    assert (bootp.op, bootp.xid, bootp.secs, bootp.flags) == (1, 0x01020304, 3, 0)
    assert (bootp.ciaddr, bootp.yiaddr, bootp.chaddr[:6]) == ("10.1.0.7", "0.0.0.0", HARDWARE)
    options: dict[str, Any] = dict(
        o[:2] for o in packet[DHCP].options if isinstance(o, tuple) and len(o) > 1
    )
    assert options["message-type"] == 3
    assert options["requested_addr"] == "10.1.0.7"
    assert options["client_id"] == b"\1" + HARDWARE
    assert len(packet[UDP].payload) >= 300


def test_checksums_are_those_that_scapy_computes() -> None:
    message = DhcpMessage(Kind.DISCOVER, 77, HARDWARE, options={Option.CLIENT: b"odd"})
    ours = wrap(encode(message), ADDRESS, BROADCAST)
    packet = IP(ours)
    sums = packet.chksum, packet[UDP].chksum
    del packet.chksum, packet[UDP].chksum
    again = IP(bytes(packet))
    assert sums == (again.chksum, again[UDP].chksum)


def test_a_reply_of_scapy_is_read() -> None:
    payload = reply(
        ("message-type", "ack"),
        ("server_id", "10.1.0.1"),
        ("lease_time", 600),
        ("subnet_mask", "255.255.255.0"),
        ("router", "10.1.0.1", "10.1.0.2"),
        "pad",
        ("name_server", "10.1.0.53"),
        "end",
    )
    message = decode(unwrap(to_client(payload)))
    assert message.kind is Kind.ACK
    assert (message.transaction, message.hardware_address) == (0x01020304, HARDWARE)
    assert message.yours == ADDRESS
    assert message.number(Option.LEASE_TIME, 4) == 600
    assert message.number(Option.INTERFACE_MTU, 2) is None
    routers = message.addresses(Option.ROUTER)
    assert routers == (parse_address("10.1.0.1"), parse_address("10.1.0.2"))
    assert message.addresses(Option.NAME_SERVER) == (parse_address("10.1.0.53"),)


def test_an_option_that_is_not_made_of_addresses_has_none() -> None:
    message = decode(reply(("message-type", "ack"), (3, bytes(5)), "end"))
    assert message.addresses(Option.ROUTER) == ()


def test_options_go_on_in_other_fields_and_split_ones_are_joined() -> None:
    file = bytes([6, 4, 10, 1, 0, 53, 255]).ljust(128, b"\0")
    name = bytes([6, 4, 10, 1, 0, 54, 255]).ljust(64, b"\0")
    payload = reply(("message-type", "offer"), (52, b"\3"), "end", file=file, sname=name)
    servers = decode(payload).addresses(Option.NAME_SERVER)
    assert servers == (from_ipv4(bytes([10, 1, 0, 53])), from_ipv4(bytes([10, 1, 0, 54])))
    payload = reply(("message-type", "offer"), "end", file=file, sname=name)
    assert decode(payload).addresses(Option.NAME_SERVER) == ()


GOOD = reply(("message-type", "offer"), "end")


@pytest.mark.parametrize(
    ("payload", "because"),
    [
        (GOOD[:239], "shorter than a DHCP message"),
        (b"\1" + GOOD[1:], "not a DHCP server's message"),
        (GOOD[:236] + b"\0\0\0\0" + GOOD[240:], "not a DHCP server's message"),
        (GOOD[:2] + b"\x11" + GOOD[3:], "not a DHCP server's message"),
        (GOOD[:1] + b"\x06" + GOOD[2:], "not a DHCP server's message"),
        (reply("end"), "no message type"),
        (reply((53, b"\x63"), "end"), "99 is not a valid Kind"),
        (GOOD[:240] + b"\x35\x01", "an option ends behind the message"),
        (GOOD[:240] + b"\x35", "an option ends behind the message"),
    ],
    ids=[
        "short",
        "request",
        "cookie",
        "length",
        "hardware",
        "no type",
        "odd type",
        "cut",
        "cut length",
    ],
)
def test_what_is_no_reply_is_refused(payload: bytes, because: str) -> None:
    with pytest.raises(ValueError, match=because):
        decode(payload)


PACKET = to_client(GOOD)


@pytest.mark.parametrize(
    ("packet", "because"),
    [
        (PACKET[:27], "shorter than the headers"),
        (to_client(GOOD, dport=69), "not to a DHCP client"),
        (to_client(GOOD, len=7), "not to a DHCP client"),
        (to_client(GOOD, len=2000), "not to a DHCP client"),
        (PACKET[:-1], "cut off"),
        (PACKET[:2] + b"\0\x1b" + PACKET[4:], "cut off"),
        (b"\x44" + PACKET[1:], "not a whole UDP datagram"),
        (b"\x65" + PACKET[1:], "not a whole UDP datagram"),
        (PACKET[:6] + b"\x20\x00" + PACKET[8:], "not a whole UDP datagram"),
        (PACKET[:9] + b"\x06" + PACKET[10:], "not a whole UDP datagram"),
    ],
    ids=["short", "port", "udp", "udp+", "cut", "ip", "header", "version", "fragment", "TCP"],
)
def test_what_is_no_packet_to_a_client_is_refused(packet: bytes, because: str) -> None:
    with pytest.raises(ValueError, match=because):
        unwrap(packet)


def test_what_ethernet_pads_short_packets_with_is_no_part_of_them() -> None:
    assert unwrap(to_client(GOOD) + bytes(10)) == GOOD


@given(st.binary(max_size=400))
def test_garbage_is_refused_with_a_value_error_only(data: bytes) -> None:
    for attempt in (lambda: decode(data), lambda: unwrap(data), lambda: decode(GOOD[:240] + data)):
        try:
            attempt()
        except ValueError:
            continue


@given(st.integers(0, 200), st.binary(min_size=1, max_size=3))
def test_a_damaged_reply_is_read_or_refused(at: int, damage: bytes) -> None:
    packet = to_client(GOOD)
    try:
        decode(unwrap(packet[:at] + damage + packet[at + len(damage) :]))
    except ValueError:
        return


def test_a_carry_of_a_carry_is_added_too() -> None:
    assert internet_checksum(b"\xff\xff\xff\xff\x00\x01") == 0xFFFE


@given(st.binary(max_size=101))
def test_data_with_its_checksum_sums_up_to_nothing(data: bytes) -> None:
    even = data + b"\0" * (len(data) % 2)
    assert internet_checksum(even + internet_checksum(data).to_bytes(2)) == 0
