"""Time to translate one packet and to read its addresses, for packets as the paper measured with.

Run with `pytest tests/bench/bench_translation.py`; a node that forwards 30,000 packets a second
spends 33 µs on each in all.
"""

from typing import Final, NamedTuple

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

from mat.address import Address, parse_address
from mat.rewriting import rewriting
from mat.translation import Refusal, insert_muo, read_addresses, translate

HOME: Final = {4: ("192.0.2.1", "198.51.100.2"), 6: ("2001:db8:1::1", "2001:db8:2::2")}
MOBILE: Final = {
    4: (parse_address("10.1.2.3"), parse_address("172.16.200.4")),
    6: (parse_address("2001:db8:aaaa::1"), parse_address("2001:db8:bbbb::2")),
}


class Sample(NamedTuple):
    """A packet and the addresses to give it."""

    packet: bytes
    addresses: tuple[Address, ...]


def ipv4(upper: Packet) -> bytes:
    source, destination = HOME[4]
    return bytes(IP(src=source, dst=destination) / upper)


def ipv6(upper: Packet) -> bytes:
    source, destination = HOME[6]
    return bytes(IPv6(src=source, dst=destination) / upper)


QUOTED: Final = ipv4(UDP(sport=5060, dport=53) / Raw(bytes(20)))
TCP_IPV6: Final = ipv6(TCP(sport=5060, dport=80) / Raw(bytes(1400)))
SAMPLES: Final = {
    "64-byte ICMP echo": Sample(ipv4(ICMP() / Raw(bytes(36))), MOBILE[4]),
    "1470-byte UDP": Sample(ipv4(UDP() / Raw(bytes(1470))), MOBILE[4]),
    "TCP over IPv6": Sample(TCP_IPV6, MOBILE[6]),
    "ICMP error": Sample(ipv4(ICMP(type=3, code=3) / Raw(QUOTED)), MOBILE[4] + MOBILE[4]),
}
EACH: Final = pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES.keys())


@EACH
def test_translate(benchmark: BenchmarkFixture, sample: Sample) -> None:
    translated = benchmark(translate, sample.packet, *sample.addresses)
    assert isinstance(translated, bytes)


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "ICMP error"])
def test_rewriting(benchmark: BenchmarkFixture, name: str) -> None:
    packet, addresses = SAMPLES[name]
    before = read_addresses(packet)
    assert not isinstance(before, Refusal)
    rewritten = benchmark(rewriting(*before[:2], *addresses), packet)
    assert rewritten == translate(packet, *addresses)


@EACH
def test_read_addresses(benchmark: BenchmarkFixture, sample: Sample) -> None:
    found = benchmark(read_addresses, sample.packet)
    assert isinstance(found, tuple)


def test_insert_muo(benchmark: BenchmarkFixture) -> None:
    inserted = benchmark(insert_muo, TCP_IPV6, parse_address(HOME[6][0]), 1500)
    assert isinstance(inserted, bytes)
