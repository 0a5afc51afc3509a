"""The IMS record: RDATA, both presentation forms, and everything that is none."""

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mat.address import parse_address
from mat.ims_record import (
    IMS_RECORD_TYPE,
    MAX_ADDRESSES,
    ImsRecord,
    RecordError,
    from_rdata,
    from_text,
    record,
    reverse_name,
)
from mat.messages import MAT_PORT

LETTERS: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
KNOWN: Final = [
    (record("192.0.2.1"), "10 49628 192.0.2.1", "0a01c1dcc0000201"),
    (
        record("192.0.2.1", "198.51.100.2", precedence=0, port=1),
        "0 1 192.0.2.1 198.51.100.2",
        "00010001c0000201c6336402",
    ),
    (
        record("2001:db8::1", precedence=255, port=65535),
        "255 65535 2001:db8::1",
        "ff02ffff20010db8000000000000000000000001",
    ),
    (
        ImsRecord(20, MAT_PORT, name="ims.example."),
        "20 49628 ims.example.",
        "1403c1dc03696d73076578616d706c6500",
    ),
]
LONG_LABEL: Final = "x" * 63


def generic(text: str) -> bytes:
    """RFC 3597, section 5: the token \\#, the length in decimal, then the RDATA in hexadecimal."""
    match = re.fullmatch(r"\\# ([0-9]+) ((?:[0-9a-f]{2})*)", text)
    assert match is not None
    rdata = bytes.fromhex(match[2])
    assert len(rdata) == int(match[1])
    return rdata


ports = st.integers(1, 65535)
precedences = st.integers(0, 255)
labels = st.text(LETTERS, min_size=1, max_size=63)
names = (
    st.lists(labels, min_size=1, max_size=6)
    .map(lambda parts: ".".join(parts) + ".")
    .filter(lambda name: len(name) <= 254)
)
ipv4 = st.ip_addresses(v=4).map(lambda address: parse_address(str(address)))
ipv6 = (
    st.ip_addresses(v=6)
    .filter(lambda address: address.packed[:12] != bytes(10) + b"\xff\xff")
    .map(lambda address: parse_address(str(address)))
)


def some(addresses: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(addresses, min_size=1, max_size=MAX_ADDRESSES).map(tuple)


records = st.one_of(
    st.builds(ImsRecord, precedences, ports, some(ipv4) | some(ipv6)),
    st.builds(ImsRecord, precedences, ports, name=names),
)


# ---- what is a record --------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "text", "rdata"), KNOWN, ids=[text for _, text, _ in KNOWN])
def test_known_record_in_each_of_its_forms(one: ImsRecord, text: str, rdata: str) -> None:
    assert one.to_rdata().hex() == rdata
    assert one.to_text() == text
    assert one.to_generic_text() == f"\\# {len(rdata) // 2} {rdata}"
    assert from_rdata(bytes.fromhex(rdata)) == from_text(text) == one


def test_type_is_of_the_private_range() -> None:
    assert 65280 <= IMS_RECORD_TYPE <= 65534


@given(records)
def test_every_record_survives_every_form(one: ImsRecord) -> None:
    assert from_rdata(one.to_rdata()) == one
    assert from_text(one.to_text()) == one
    assert from_rdata(generic(one.to_generic_text())) == one


def test_text_is_read_with_any_white_space_and_ipv4_in_either_form() -> None:
    assert from_text("  10\t49628   192.0.2.1 \n") == record("192.0.2.1")
    assert from_text("10 49628 ::ffff:192.0.2.1") == record("192.0.2.1")


def test_longest_names_fit() -> None:
    longest = ".".join([LONG_LABEL] * 3 + ["x" * 61]) + "."
    one = from_text(f"1 1 {longest}")
    assert len(one.to_rdata()) == 4 + 255
    assert from_rdata(one.to_rdata()) == one


# ---- what is none ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rdata", "helpful"),
    [
        ("", "0 bytes; it starts with 4"),
        ("0a01c1", "3 bytes; it starts with 4"),
        ("0a010000c0000201", "port 0 .* 1 to 65535"),
        ("0a00c1dcc0000201", "kind 0 .* 1 is IPv4, 2 is IPv6, 3 is a name"),
        ("0a04c1dcc0000201", "kind 4 "),
        ("0a01c1dc", "0 bytes of addresses; 1 to 8 times 4"),
        ("0a01c1dcc00002", "3 bytes of addresses"),
        ("0a01c1dcc000020101", "5 bytes of addresses"),
        ("0a01c1dc" + "c0000201" * 9, "36 bytes of addresses"),
        ("0a02c1dcc0000201", "4 bytes of addresses; 1 to 8 times 16"),
        ("0a02c1dc" + "20010db8000000000000000000000001" * 9, "144 bytes of addresses"),
        ("0a03c1dc", "empty, too long, or followed by more"),
        ("0a03c1dc00", "empty, too long, or followed by more"),
        ("0a03c1dc0161", "cut off or compressed"),
        ("0a03c1dc0561620000", "cut off or compressed"),
        ("0a03c1dcc00c", "cut off or compressed"),
        ("0a03c1dc" + "40" + "61" * 64 + "00", "cut off or compressed"),
        ("0a03c1dc0161000161", "followed by more"),
        ("0a03c1dc" + ("3f" + "61" * 63) * 4 + "00", "too long"),
        ("0a03c1dc012000", "octets that no host name has"),
        ("0a03c1dc012e00", "octets that no host name has"),
        ("0a03c1dc01e900", "octets that no host name has"),
        ("0a03c1dc017f00", "octets that no host name has"),
    ],
)
def test_malformed_rdata_says_what_is_wrong(rdata: str, helpful: str) -> None:
    with pytest.raises(RecordError, match=helpful):
        from_rdata(bytes.fromhex(rdata))


@pytest.mark.parametrize(
    ("text", "helpful"),
    [
        ("", "'': precedence, port, then addresses or a name are needed"),
        ("10", "precedence, port, then"),
        ("10 49628", "precedence, port, then"),
        ("256 49628 192.0.2.1", "precedence '256': a whole number from 0 to 255"),
        ("-1 49628 192.0.2.1", "precedence '-1'"),
        ("1.5 49628 192.0.2.1", "precedence '1.5'"),
        ("١ 49628 192.0.2.1", "precedence '١'"),
        ("² 49628 192.0.2.1", "precedence '²'"),
        ("10 0 192.0.2.1", "port '0': a whole number from 1 to 65535"),
        ("10 65536 192.0.2.1", "port '65536'"),
        ("10 http 192.0.2.1", "port 'http'"),
        ("10 49628 ims.example", "'ims.example' is not an address: .*; a name ends with a dot"),
        ("10 49628 192.0.2.256", "'192.0.2.256' is not an address"),
        ("10 49628 fe80::1%eth0", "has a zone"),
        ("10 49628 192.0.2.1 ims.example.", "'ims.example.' is not an address"),
        ("10 49628 192.0.2.1 2001:db8::1", "up to 8 addresses of a family"),
        ("10 49628" + " 192.0.2.1" * 9, "up to 8 addresses of a family"),
        ("10 49628 .", "name '.': ASCII labels of 1 to 63 characters"),
        ("10 49628 a..b.", "name 'a..b.': ASCII labels"),
        ("10 49628 .a.", "name '.a.': ASCII labels"),
        ("10 49628 bücher.example.", "name 'bücher.example.': ASCII labels"),
        (f"10 49628 {LONG_LABEL}x.", "labels of 1 to 63"),
        ("10 49628 " + f"{LONG_LABEL}." * 4, "longer than 255 bytes"),
    ],
)
def test_malformed_text_says_what_is_wrong(text: str, helpful: str) -> None:
    with pytest.raises(RecordError, match=helpful):
        from_text(text)


Form = TypeVar("Form", bytes, str)


def record_or_reason(parse: Callable[[Form], ImsRecord], form: Form) -> ImsRecord | str:
    """The record in a form, or the message of its `RecordError`; anything else goes through."""
    try:
        return parse(form)
    except RecordError as error:
        reason = str(error)
    assert reason
    return reason


heads = st.builds(
    lambda precedence, kind, port: bytes((precedence, kind)) + port.to_bytes(2),
    precedences,
    st.integers(0, 4),
    st.integers(0, 65535),
)
wire_labels = st.binary(max_size=70).map(lambda label: bytes((len(label),)) + label)
wire_names = st.lists(wire_labels, max_size=5).map(b"".join)


@given(st.one_of(st.binary(max_size=300), st.builds(bytes.__add__, heads, st.binary(max_size=140))))
def test_any_rdata_is_a_record_or_a_record_error(rdata: bytes) -> None:
    one = record_or_reason(from_rdata, rdata)
    if isinstance(one, ImsRecord):
        assert 1 <= one.port <= 65535
        assert (1 <= len(one.addresses) <= MAX_ADDRESSES) != bool(one.name)


@given(heads, wire_names)
def test_any_name_in_rdata_is_refused_or_comes_out_as_it_went_in(head: bytes, name: bytes) -> None:
    rdata = head[:1] + b"\x03" + head[2:] + name
    one = record_or_reason(from_rdata, rdata)
    if isinstance(one, ImsRecord):
        assert one.to_rdata() == rdata
        assert from_text(one.to_text()) == one


words = st.one_of(
    st.text(max_size=12),
    st.from_regex(r"[0-9]{1,6}", fullmatch=True),
    st.ip_addresses().map(str),
    names,
)


@given(st.one_of(st.text(max_size=80), st.lists(words, max_size=12).map(" ".join)))
def test_any_text_is_a_record_or_a_record_error(text: str) -> None:
    one = record_or_reason(from_text, text)
    if isinstance(one, ImsRecord):
        assert len(one.to_rdata()) > 4


# ---- where it stands ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("home", "name"),
    [
        ("10.1.0.255", "255.0.1.10.in-addr.arpa."),
        ("::ffff:10.1.0.255", "255.0.1.10.in-addr.arpa."),
        (
            "2001:db8::567:89ab",
            "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.",
        ),
    ],
)
def test_reverse_name_is_that_of_the_ptr_record(home: str, name: str) -> None:
    assert reverse_name(parse_address(home)) == name


@given(st.ip_addresses())
def test_reverse_name_agrees_with_ipaddress(address: IPv4Address | IPv6Address) -> None:
    mapped = isinstance(address, IPv6Address) and address.ipv4_mapped is not None
    expected = f"{address.reverse_pointer}."
    assert reverse_name(parse_address(str(address))) == expected or mapped
