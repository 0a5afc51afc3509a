"""Rewriting is translation, done quicker where it can be done at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mat.rewriting import rewriting
from mat.translation import translate
from tests.core.test_translation import (
    ANYTHING,
    HOME,
    MOBILE,
    Ends,
    Packet,
    fragments,
    packets,
    pairs,
)

PLAIN = [
    (version, kind)
    for version in (4, 6)
    for kind in ("TCP", "UDP", "UDP without checksum", "ICMP" if version == 4 else "ICMPv6")
]


@pytest.mark.parametrize(("version", "kind"), PLAIN)
@given(payload=st.binary(max_size=70), data=st.data())
def test_a_plain_packet_is_translated(
    version: int, kind: str, payload: bytes, data: st.DataObject
) -> None:
    before, after = data.draw(pairs(version)), data.draw(pairs(version))
    packet = Packet(version, kind, payload)
    rewritten = rewriting(*before, *after)(packet.build(before))
    # Addresses whose sum is the same leave the checksum alone; nobody needs to be quick there.
    assert rewritten == packet.build(after) or (rewritten is None and _sum(before) == _sum(after))


def _sum(pair: Ends) -> int:
    return sum(int.from_bytes(address) for address in pair) % 0xFFFF


@given(packets())
def test_every_packet_is_translated_as_elsewhere_or_not_at_all(packet: Packet) -> None:
    home, mobile = HOME[packet.version], MOBILE[packet.version]
    built = packet.build(home)
    assert rewriting(*home, *mobile)(built) in (None, translate(built, *mobile))


@given(ANYTHING)
def test_whatever_comes_is_translated_as_elsewhere_or_not_at_all(packet: bytes) -> None:
    version = 6 if packet[:1] >= b"\x60" else 4
    rewritten = rewriting(*HOME[version], *MOBILE[version])(packet)
    assert rewritten in (None, translate(packet, *MOBILE[version]))


@pytest.mark.parametrize("version", [4, 6])
def test_a_fragment_is_not_plain(version: int) -> None:
    packet = Packet(version, "UDP", bytes(70))
    for fragment in fragments(packet, HOME[version], 24):
        assert rewriting(*HOME[version], *MOBILE[version])(fragment) is None


@pytest.mark.parametrize("version", [4, 6])
def test_a_packet_of_other_addresses_is_not_of_this_pair(version: int) -> None:
    packet = Packet(version, "TCP").build(HOME[version].reversed)
    assert rewriting(*HOME[version], *MOBILE[version])(packet) is None
