"""Fuzzes the translation of packets and the Mapping Update Option with arbitrary bytes.

    python tests/fuzz/fuzz_translation.py -max_total_time=60

Asserts that nothing raises, that translation keeps the length and can be undone, and that removing
a MUO undoes inserting it.
"""

import sys

import atheris

with atheris.instrument_imports(include=["mat"]):
    from mat.address import parse_address
    from mat.translation import (
        MUO_SIZE,
        Refusal,
        insert_muo,
        read_addresses,
        read_muo,
        remove_muo,
        translate,
    )

MOBILE = {
    4: (parse_address("10.1.2.3"), parse_address("172.16.200.4")),
    6: (parse_address("2001:db8:aaaa::1"), parse_address("2001:db8:bbbb::2")),
}
HOME_ADDRESS = parse_address("2001:db8:1::1")
IPV6_HEADER = 40


def with_right_length(packet: bytes) -> bytes:
    """The packet with the length field that its version wants, so that parsing gets past it."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 4:
        return packet[:2] + len(packet).to_bytes(2) + packet[4:]
    if version == 6 and len(packet) >= IPV6_HEADER:
        return packet[:4] + (len(packet) - IPV6_HEADER).to_bytes(2) + packet[6:]
    return packet


def check_translation(packet: bytes) -> None:
    """There and back: the same length, the same addresses, and the same bytes again."""
    pair = MOBILE[packet[0] >> 4 if packet and packet[0] >> 4 in MOBILE else 4]
    everywhere = (*pair, *pair)
    found = read_addresses(packet)
    there = translate(packet, *everywhere)
    if isinstance(found, Refusal) or isinstance(there, Refusal):
        assert there is found or found is Refusal.MUO_MALFORMED
        return
    assert len(there) == len(packet)
    back = translate(there, *found[:2], *found[3:5])
    assert isinstance(back, bytes)
    assert read_addresses(back) == found
    # 0xffff and zero are one number to a checksum: the first translation may write it anew.
    assert translate(back, *everywhere) == there
    assert back == packet or b"\xff\xff" in packet


def check_muo(packet: bytes) -> None:
    """Inserting and removing are inverses; reading finds what was inserted."""
    assert isinstance(read_muo(packet), bytes | Refusal | None)
    removed = remove_muo(packet)
    assert isinstance(removed, Refusal) or len(removed) in {len(packet), len(packet) - MUO_SIZE}
    inserted = insert_muo(packet, HOME_ADDRESS, 1500)
    if not isinstance(inserted, Refusal):
        assert read_muo(inserted) == HOME_ADDRESS
        assert remove_muo(inserted) == packet


def test_one_input(data: bytes) -> None:
    """Every input as it came and with its length field put right."""
    for packet in (data, with_right_length(data)):
        check_translation(packet)
        check_muo(packet)


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
