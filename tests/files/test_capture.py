"""Captures: what is written is read back, by tcpdump's and Wireshark's rules too."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from struct import pack

import pytest

from mat.address import parse_address
from mat.ims_record import record
from mat.messages import Endpoint
from mat_files.capture import (
    Capture,
    Pairing,
    datagram_of,
    ims_answer,
    ims_lookup,
    ims_question,
    ip_packet,
    probe_payload,
    read_capture,
    udp_packet,
    writing,
)
from mat_files.errors import CaptureError
from tests.files.wireshark import needs_tshark

M1, CN1 = (Endpoint(parse_address(a), 49700) for a in ("10.1.0.1", "10.2.0.1"))
M1_6, CN1_6 = (Endpoint(parse_address(a), 49700) for a in ("2001:db8:1::1", "2001:db8:2::1"))
PACKETS = [udp_packet(M1, CN1, b"four"), udp_packet(M1_6, CN1_6, b"six", M1_6.address)]
NANOSECOND = 1_700_000_000_123_456_789


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "some.pcapng"
    with writing(path) as writer:
        writer.name({M1.address: "m1", M1_6.address: "m1@A"})
        for number, packet in enumerate(PACKETS):
            size = len(packet)
            writer.packet(NANOSECOND + 2 * number, "m1", packet, size, outward=True)
            writer.packet(NANOSECOND + 2 * number + 1, "CN1", packet, size, outward=False)
    return path


def pcap(link: int, frames: Sequence[bytes], magic: int = 0xA1B2C3D4, order: str = "<") -> bytes:
    """A file as tcpdump writes it, a second from packet to packet."""
    head = pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 65535, link)
    records = (
        pack(f"{order}IIII", second, 7, len(frame), len(frame) + 3) + frame
        for second, frame in enumerate(frames)
    )
    return head + b"".join(records)


def test_what_is_written_is_read_back(written: Path) -> None:
    capture = read_capture(written)
    assert capture.of_hosts
    assert capture.cut == ""
    assert capture.names == {M1.address: "m1", M1_6.address: "m1@A"}
    assert [(one.time - NANOSECOND, one.place, one.outward) for one in capture.packets] == [
        (0, "m1", True),
        (1, "CN1", False),
        (2, "m1", True),
        (3, "CN1", False),
    ]
    assert [one.content for one in capture.packets[::2]] == PACKETS
    assert [one.size for one in capture.packets[::2]] == [len(packet) for packet in PACKETS]


def test_the_size_of_a_packet_is_kept_where_not_all_of_it_is(tmp_path: Path) -> None:
    with writing(tmp_path / "cut.pcapng") as writer:
        writer.packet(0, "m1", PACKETS[0][:30], len(PACKETS[0]), outward=True)
    (packet,) = read_capture(tmp_path / "cut.pcapng").packets
    assert (packet.content, packet.size) == (PACKETS[0][:30], len(PACKETS[0]))


@needs_tshark
def test_tshark_finds_no_fault_with_it(written: Path) -> None:
    checks = ["-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]
    names = ["frame.interface_name", "udp.checksum.status", "ip.checksum.status", "_ws.malformed"]
    wanted = [part for name in [*names, "frame.time_epoch"] for part in ("-e", name)]
    command = ["tshark", "-n", "-r", str(written), *checks, "-T", "fields", *wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[:4] for row in rows] == [
        ["m1", "1", "1", ""],
        ["CN1", "1", "1", ""],
        ["m1", "1", "", ""],
        ["CN1", "1", "", ""],
    ]
    assert rows[3][4] == "1700000000.123456792"


@needs_tshark
def test_it_is_still_one_of_hosts_after_a_filter_of_tshark(written: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.pcapng"
    command = ["tshark", "-n", "-r", str(written), "-Y", "ipv6", "-w", str(kept)]
    subprocess.run(command, capture_output=True, check=True)
    capture = read_capture(kept)
    assert capture.of_hosts
    assert [(one.place, one.content) for one in capture.packets] == [
        ("m1", PACKETS[1]),
        ("CN1", PACKETS[1]),
    ]


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not installed")
def test_other_forms_of_the_same_are_read(tmp_path: Path) -> None:
    # libpcap 1.10.3 reads one interface of bare IP packets, and finds fault with a second one.
    written = tmp_path / "one.pcapng"
    with writing(written) as writer:
        for packet in PACKETS:
            writer.packet(NANOSECOND, "m1", packet, len(packet), outward=True)
    for form in ("micro", "nano"):
        path = tmp_path / form
        command = ["tcpdump", f"--time-stamp-precision={form}", "-r", str(written), "-w", str(path)]
        subprocess.run(command, capture_output=True, check=True)
        capture = read_capture(path)
        assert not capture.of_hosts
        assert [one.content for one in capture.packets] == PACKETS
        finer = 1000 if form == "micro" else 1
        assert capture.packets[0].time == NANOSECOND // finer * finer


def test_ip_is_found_in_the_frames_of_each_link(tmp_path: Path) -> None:
    six = PACKETS[1]
    frames: dict[int, tuple[bytes, bool | None]] = {
        1: (bytes(12) + b"\x86\xdd" + six, None),
        101: (six, None),
        113: (pack("!HHH8sH", 4, 1, 6, b"", 0x86DD) + six, True),
        276: (pack("!HHIHBB8s", 0x86DD, 0, 1, 1, 0, 6, b"") + six, False),
    }
    tagged = bytes(12) + b"\x81\x00\x00\x07\x86\xdd" + six
    other = bytes(12) + b"\x08\x06" + six
    path = tmp_path / "link.pcap"
    for link, (frame, outward) in frames.items():
        path.write_bytes(pcap(link, [frame]))
        (packet,) = read_capture(path).packets
        assert (packet.content, packet.outward, packet.size) == (six, outward, len(six) + 3)
    path.write_bytes(pcap(1, [other, tagged, b"short"], 0xA1B23C4D, ">"))
    (packet,) = read_capture(path).packets
    assert (packet.content, packet.time) == (six, 10**9 + 7)


def test_a_file_that_is_cut_off_is_read_up_to_there(written: Path, tmp_path: Path) -> None:
    whole, path = written.read_bytes(), tmp_path / "cut"
    old = pcap(101, PACKETS)
    for content in (whole, old):
        found = list[Capture]()
        for end in range(24, len(content), 3):
            path.write_bytes(content[:end])
            found.append(read_capture(path))
        assert found[-1].cut.startswith("within ")
        assert len(found[-1].packets) == (3 if content is whole else 1)


def test_what_is_no_capture_is_refused(tmp_path: Path, written: Path) -> None:
    path = tmp_path / "x"
    with pytest.raises(CaptureError, match="x: cannot be read \\(No such file"):
        read_capture(path)
    for content in (b"", b"something else", b"\x1f\x8b\x08"):
        path.write_bytes(content)
        with pytest.raises(CaptureError, match=r"x: is no capture; .* pcap or pcapng"):
            read_capture(path)
    path.write_bytes(pcap(105, []))
    with pytest.raises(CaptureError, match="x: link type 105 is none that IP is looked for in"):
        read_capture(path)
    # A packet of an interface that there is not.
    damaged = bytearray(written.read_bytes())
    at = damaged.index(b"\x06\0\0\0", 100)
    damaged[at + 8] = 9
    path.write_bytes(damaged)
    with pytest.raises(CaptureError, match=f"x: is damaged at byte {at}"):
        read_capture(path)


def test_a_capture_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="cannot be written"), writing(tmp_path / "no" / "x"):
        pass
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(KeyError), writing(path):
        raise KeyError
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"old"]


def test_packets_are_opened_as_they_were_made() -> None:
    four, six = (ip_packet(packet) for packet in PACKETS)
    assert four is not None
    assert six is not None
    assert (four.source, four.destination, four.home_address) == (M1.address, CN1.address, None)
    assert (six.source, six.destination, six.home_address) == (
        M1_6.address,
        CN1_6.address,
        M1_6.address,
    )
    assert [one.ports for one in (four, six)] == [(49700, 49700)] * 2
    assert [one.payload for one in (four, six)] == [b"four", b"six"]
    later = bytearray(PACKETS[0])
    later[6:8] = b"\0\1"
    fragment = ip_packet(bytes(later))
    assert fragment is not None
    assert fragment.ports is None
    assert [ip_packet(packet) for packet in (b"", b"\x45" + bytes(18), b"\x60", b"\x70")] == [
        None
    ] * 4
    for packet in PACKETS:
        for end in range(len(packet)):
            ip_packet(packet[:end])


def test_a_datagram_is_the_same_wherever_its_checksum_is_worked_out() -> None:
    unfinished = bytearray(PACKETS[0])
    unfinished[26:28] = b"\x12\x34"
    one, other, third = map(ip_packet, (PACKETS[0], bytes(unfinished), udp_packet(M1, CN1, b"x")))
    assert one is not None
    assert other is not None
    assert third is not None
    assert one.content == other.content != third.content


def test_what_arrives_belongs_to_the_last_of_its_like_that_left() -> None:
    pairs = Pairing[int]()
    for departure in (1, 2):
        pairs.left("same", departure)
    assert [pairs.arrived(content) for content in ("same", "other", "same", "same")] == [
        2,
        None,
        1,
        None,
    ]


def test_questions_for_an_ims_and_answers_are_understood() -> None:
    asked = ims_lookup(ims_question(7, M1.address))
    assert asked is not None
    assert (asked.home_address, asked.answered) == (M1.address, False)
    records = [record("192.0.2.1"), record("2001:db8::1", precedence=3)]
    told = ims_lookup(ims_answer(7, M1_6.address, records, 300))
    assert told is not None
    assert (told.home_address, told.records, told.code) == (M1_6.address, tuple(records), 0)
    none = ims_lookup(ims_answer(7, M1_6.address, [], 300))
    assert none is not None
    assert (none.records, none.code) == ((), 3)


def test_other_messages_of_the_dns_are_not_about_an_ims() -> None:
    question, answer = ims_question(7, M1.address), ims_answer(7, M1.address, [], 300)
    other = question.replace((65338).to_bytes(2), (12).to_bytes(2))
    assert ims_lookup(other) is None
    for message in (question, answer):
        for end in range(len(message)):
            ims_lookup(message[:end])


def test_a_capture_of_a_datagram_gives_it_with_its_time(written: Path) -> None:
    found = [datagram_of(packet) for packet in read_capture(written).packets]
    assert all(one is not None for one in found)
    (first, second) = (one for one in found[:2] if one is not None)
    assert (first.payload, first.outward, second.outward) == (b"four", True, False)
    assert first.time == pytest.approx(NANOSECOND / 1e9, abs=1e-6)


def test_a_probe_is_as_long_as_it_is_to_be() -> None:
    assert [len(probe_payload(1, 2, size)) for size in (-3, 0, 5, 172)] == [0, 0, 5, 172]
