"""`mat ladder`: the message sequence of captures, of all hosts and of one place."""

import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from struct import pack

import pytest
from click.testing import CliRunner, Result

from mat.address import Address, parse_address
from mat.codec import encode
from mat.ims_record import record
from mat.messages import (
    MAT_PORT,
    Endpoint,
    HaNotify,
    HaNotifyAck,
    ImsUpdate,
    ImsUpdateReply,
    MaAnswer,
    MaQuery,
    Message,
)
from mat_files.capture import (
    DNS_PORT,
    ims_answer,
    ims_question,
    probe_payload,
    read_capture,
    story_of,
    udp_packet,
    writing,
)
from mat_files.ladder_command import ladder

NONCE = b"12345678"
SECOND = 10**9
M1, CN1, IMS_MN, IMS_CN, DNS, AT_A, AT_B = (
    parse_address(text)
    for text in (
        "10.1.0.1",
        "10.2.0.1",
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.53",
        "10.128.0.7",
        "10.129.0.7",
    )
)
NAMES = {
    M1: "m1",
    CN1: "CN1",
    IMS_MN: "IMS_MN",
    IMS_CN: "IMS_CN",
    DNS: "DNS",
    AT_A: "m1@A",
    AT_B: "m1@B",
}
HOSTS = {address: name.partition("@")[0] for address, name in NAMES.items()}
Sent = tuple[int, int | None, bytes]
"""When a packet left and arrived, ms."""


def said(source: Address, destination: Address, message: Message) -> bytes:
    ends = Endpoint(source, MAT_PORT), Endpoint(destination, MAT_PORT)
    return udp_packet(*ends, encode(message))


def data(source: Address, destination: Address, number: int = 0) -> bytes:
    ends = Endpoint(source, 49700), Endpoint(destination, 49700)
    return udp_packet(*ends, probe_payload(number, 0, 16))


def handover() -> list[Sent]:
    """What passes when m1 goes from A to B, and a reply that is lost."""
    update = ImsUpdate(1, M1, (AT_B,), 2 << 32, 180, nonce=NONCE)
    notify = HaNotify(2, M1, CN1, 2 << 32, nonce=NONCE)
    query, answer = MaQuery(3, M1, nonce=NONCE), MaAnswer(3, 0, M1, (AT_B,), 2 << 32, 180)
    port = Endpoint(CN1, 40000)
    return [
        (0, 5, said(AT_A, IMS_MN, ImsUpdate(9, M1, (AT_A,), 1 << 32, 180))),
        (20, 30, data(AT_A, CN1)),
        (25, None, data(CN1, AT_A)),
        (100, 105, said(AT_B, IMS_MN, update)),
        (106, None, said(IMS_MN, AT_B, ImsUpdateReply(1, 0, nonce=NONCE))),
        (300, 305, said(AT_B, IMS_MN, update)),
        (306, 311, said(IMS_MN, AT_B, ImsUpdateReply(1, 0, nonce=NONCE))),
        (311, 321, said(AT_B, CN1, notify)),
        (321, 322, udp_packet(port, Endpoint(DNS, DNS_PORT), ims_question(1, M1))),
        (
            323,
            324,
            udp_packet(Endpoint(DNS, DNS_PORT), port, ims_answer(1, M1, [record("192.0.2.1")], 60)),
        ),
        (324, 334, said(CN1, IMS_MN, query)),
        (334, 344, said(IMS_MN, CN1, answer)),
        (344, 354, said(CN1, AT_B, HaNotifyAck(2, 0, CN1, nonce=NONCE))),
        (354, 364, data(AT_B, CN1)),
        (355, 365, data(CN1, AT_B)),
        (356, 366, data(AT_B, CN1, 1)),
        (5000, 5010, data(AT_B, CN1, 2)),
    ]


HANDOVER = """\
  sent ms  m1                        IMS_MN                    DNS                       CN1
      0.0  |---- (1) IMS Update ---->|                         |                         |       5.0
     20.0  |=================================== data ===================================>|      30.0
     25.0  |x================================== data ====================================|      lost
    100.0  |---- (1) IMS Update ---->|                         |                         |     105.0
    106.0  |x (1) IMS Update Reply --|                         |                         |      lost
    300.0  |---- (1) IMS Update ---->|                         |                         |     305.0
    306.0  |< (1) IMS Update Reply --|                         |                         |     311.0
    311.0  |------------------------------ (2') HA Notify ------------------------------>|     321.0
    321.0  |                         |                         |<..... IMS of m1? .......|     322.0
    323.0  |                         |                         |...... IMS: IMS_MN .....>|     324.0
    324.0  |                         |<----------------- (7) MA Query -------------------|     334.0
    334.0  |                         |------------------ (7) MA Answer ----------------->|     344.0
    344.0  |<--------------------------- (4') HA Notify Ack -----------------------------|     354.0
    354.0  |================================== data x2 =================================>|     364.0
    355.0  |<================================== data ====================================|     365.0
           |                         |                         |                         |
"""


def of_hosts(path: Path, sent: list[Sent], names: dict[Address, str] | None = None) -> Path:
    """A capture in which all hosts are."""
    passed: list[tuple[int, str, bool, bytes]] = []
    for left, arrived, packet in sent:
        source, destination = (
            Address(bytes(10) + b"\xff\xff" + packet[i : i + 4]) for i in (12, 16)
        )
        passed.append((left, HOSTS[source], True, packet))
        if arrived is not None:
            passed.append((arrived, HOSTS[destination], False, packet))
    with writing(path) as writer:
        writer.name(NAMES if names is None else names)
        for at, host, outward, packet in sorted(passed, key=lambda one: one[0]):
            writer.packet(SECOND + at * 10**6, host, packet, len(packet), outward=outward)
    return path


def of_one_place(path: Path, sent: list[Sent], host: str) -> Path:
    """What tcpdump records of any interface of a host (LINKTYPE_LINUX_SLL2)."""
    records: list[tuple[int, bytes]] = []
    for left, arrived, packet in sent:
        source, destination = (
            Address(bytes(10) + b"\xff\xff" + packet[i : i + 4]) for i in (12, 16)
        )
        head = pack("!HHIHB", 0x0800, 0, 1, 1, 4 if HOSTS[source] == host else 0) + bytes(9)
        if HOSTS[source] == host:
            records.append((left, head + packet))
        elif HOSTS[destination] == host and arrived is not None:
            records.append((arrived, head + packet))
    content = pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 276)
    for at, frame in sorted(records, key=lambda one: one[0]):
        content += pack("<IIII", 1 + at // 1000, at % 1000 * 1000, len(frame), len(frame)) + frame
    path.write_bytes(content)
    return path


def mat_ladder(*arguments: str | Path) -> Result:
    return CliRunner().invoke(ladder, [str(one) for one in arguments])


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return of_hosts(tmp_path / "all.pcapng", handover())


def test_a_capture_of_all_hosts_is_drawn_with_what_was_lost(capture: Path) -> None:
    shown = mat_ladder(capture, "--ascii", "--between", "0", "1")
    assert shown.exit_code == 0
    assert shown.stdout == HANDOVER


PLACE = """\
  seen ms  10.1.0.1                  192.0.2.1                 10.2.0.1
      0.0  |---- (1) IMS Update ---->|                         |
     20.0  |====================== data ======================>|
    100.0  |---- (1) IMS Update ---->|                         |
    300.0  |---- (1) IMS Update ---->|                         |
    311.0  |< (1) IMS Update Reply --|                         |
    311.0  |----------------- (2') HA Notify ----------------->|
    354.0  |<-------------- (4') HA Notify Ack ----------------|
    354.0  |===================== data x3 ====================>|
    365.0  |<===================== data =======================|
           |                         |                         |
"""


def test_of_one_place_it_is_drawn_when_packets_passed_and_names_are_learnt(tmp_path: Path) -> None:
    shown = mat_ladder(of_one_place(tmp_path / "m1.pcap", handover(), "m1"), "--ascii")
    assert shown.exit_code == 0
    assert shown.stdout == PLACE


def test_hosts_without_names_are_called_by_their_home_address(tmp_path: Path) -> None:
    path = of_one_place(tmp_path / "cn.pcap", handover(), "CN1")
    story = story_of(read_capture(path))
    signals = [(one.from_, one.to, one.text) for one in story.messages if one.kind != "data"]
    assert signals == [
        # The notice came from an address that nobody had named yet: what follows has.
        ("10.1.0.1", "10.2.0.1", "(2') HA Notify"),
        ("10.2.0.1", "192.0.2.53", "IMS of 10.1.0.1?"),
        ("192.0.2.53", "10.2.0.1", "IMS: 192.0.2.1"),
        ("10.2.0.1", "192.0.2.1", "(7) MA Query"),
        ("192.0.2.1", "10.2.0.1", "(7) MA Answer"),
        ("10.2.0.1", "10.1.0.1", "(4') HA Notify Ack"),
    ]
    assert not any(one.watched for one in story.messages)


def test_who_asks_before_it_has_heard_of_the_other_takes_step_1(tmp_path: Path) -> None:
    asked = said(AT_A, IMS_CN, MaQuery(7, CN1, nonce=NONCE))
    told = said(IMS_CN, AT_A, MaAnswer(7, 0, CN1, (CN1,), 1 << 32, 180))
    path = of_hosts(tmp_path / "x.pcapng", [(0, 5, asked), (5, 10, told), *handover()[1:]])
    steps = [one.step for one in story_of(read_capture(path)).messages if "MA" in one.label]
    assert steps == ["1", "1", "7", "7"]


def test_what_left_in_the_last_second_may_still_arrive(tmp_path: Path) -> None:
    sent = [*handover()[:-1], (5000, None, data(AT_B, CN1, 2)), (5900, 5910, data(CN1, AT_B, 2))]
    story = story_of(read_capture(of_hosts(tmp_path / "x.pcapng", sent)))
    assert [one.lost for one in story.messages][-2:] == [False, False]
    assert sum(one.lost for one in story.messages) == 2


def test_options_leave_out_what_is_not_wanted(capture: Path) -> None:
    def lines(*options: str) -> list[str]:
        shown = mat_ladder(capture, "--ascii", *options)
        assert shown.exit_code == 0, shown.output
        return shown.stdout.splitlines()[1:-1]

    everything = lines()
    assert len(everything) == 15
    assert len(lines("--no-data")) == 11
    assert len(lines("--between", "0.3", "0.32")) == 3
    assert len(lines("--node", "DNS")) == 2
    # A reply does not say whom it is about, but its update did.
    assert len(lines("--node", "m1", "--no-data")) == 11
    assert lines("--family", "4") == everything
    assert max(map(len, lines("--width", "70"))) <= 70


def test_families_are_told_apart_by_what_messages_are_about(tmp_path: Path) -> None:
    home, moved = parse_address("2001:db8:1::1"), parse_address("2001:db8:a::7")
    update = ImsUpdate(77, home, (moved,), 2 << 32, 180, nonce=NONCE)
    extra = [
        (50, 55, said(AT_A, IMS_MN, update)),
        (56, 60, said(IMS_MN, AT_A, ImsUpdateReply(77, 0, nonce=NONCE))),
    ]
    path = of_hosts(tmp_path / "both.pcapng", [*handover(), *extra])
    six = story_of(read_capture(path), family=6)
    assert [one.label for one in six.messages] == ["IMS Update", "IMS Update Reply"]
    assert len(story_of(read_capture(path), family=4).messages) == len(handover())


def test_a_drawing_is_written_that_needs_nothing_else(capture: Path, tmp_path: Path) -> None:
    out = tmp_path / "handover.svg"
    shown = mat_ladder(capture, "--between", "0", "1", "-o", out)
    assert shown.stdout == f"Written to {out}.\n"
    root = ET.parse(out).getroot()
    space = "{http://www.w3.org/2000/svg}"
    texts = ["".join(one.itertext()) for one in root.iter(f"{space}text")]
    for wanted in ("m1", "IMS_MN", "(2') HA Notify", "data ×2", "lost", "sent ms", "354.0"):
        assert wanted in texts
    assert "http" not in out.read_text().replace("http://www.w3.org/2000/svg", "")
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for one in root.iter(f"{space}line"):
        assert 0 <= float(one.attrib["x1"]) <= width
        assert 0 <= float(one.attrib["y2"]) <= height
    text = tmp_path / "handover.txt"
    assert mat_ladder(capture, "--ascii", "--between", "0", "1", "-o", text).exit_code == 0
    assert text.read_text() == HANDOVER


def test_a_file_that_is_cut_off_is_drawn_up_to_there(capture: Path) -> None:
    capture.write_bytes(capture.read_bytes()[:-700])
    shown = mat_ladder(capture)
    assert shown.exit_code == 0
    assert "ends within what follows packet" in shown.stderr
    assert "IMS Update" in shown.stdout


def test_what_cannot_be_drawn_is_said(capture: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pcapng"
    with writing(other) as writer:
        packet = data(CN1, IMS_CN)
        writer.packet(0, "x", packet, len(packet), outward=True)
    text = tmp_path / "text"
    text.write_text("text")
    for arguments, code, wanted in (
        ((tmp_path / "none",), 1, "none: cannot be read (No such file"),
        ((text,), 1, "text: is no capture"),
        ((other,), 1, "nothing of MAT is in 1 IP packets: no UDP port 49628"),
        ((capture, "--node", "m2"), 1, "m2: not in the capture; nodes: CN1, m1"),
        ((capture, "--between", "1", "2"), 1, "nothing was sent then; the last of all at 5.000 s"),
        ((capture, "--between", "2", "1"), 2, "the end must be after the start"),
        ((capture, "-o", tmp_path / "no" / "x.svg"), 1, "cannot be written (No such file"),
    ):
        shown = mat_ladder(*arguments)
        assert shown.exit_code == code
        assert wanted in shown.stderr
        assert shown.stdout == ""


def test_malformed_messages_are_drawn_as_such(tmp_path: Path) -> None:
    broken = udp_packet(Endpoint(AT_A, MAT_PORT), Endpoint(IMS_MN, MAT_PORT), b"\x09" * 8)
    path = of_hosts(tmp_path / "x.pcapng", [(0, 5, broken), *handover()])
    assert story_of(read_capture(path)).messages[0].label == "malformed"


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_a_capture_is_drawn_alike_after_a_filter_of_tshark(capture: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.pcapng"
    command = ["tshark", "-n", "-r", str(capture), "-Y", "udp", "-w", str(kept)]
    subprocess.run(command, capture_output=True, check=True)
    shown = mat_ladder(kept, "--ascii", "--between", "0", "1")
    # Names of addresses are not kept, those of hosts are.
    assert shown.stdout == HANDOVER
