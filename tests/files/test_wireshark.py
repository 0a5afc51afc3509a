"""The dissector for Wireshark says of each message what the codec says, and of nonsense too."""

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from mat.address import Address, format_address, parse_address
from mat.codec import Malformed, decode, encode
from mat.ims_record import ImsRecord, RecordError, from_rdata, record
from mat.messages import (
    EXACT,
    MAT_PORT,
    Authentication,
    Endpoint,
    HaAnswer,
    HaNotify,
    HaQuery,
    ImsUpdate,
    ImsUpdateReply,
    MaAnswer,
    MaQuery,
    Message,
    Type,
)
from mat.translation import MUO_IDENTIFIER, Refusal, read_muo
from mat_files.capture import ims_answer, udp_packet, writing
from tests.files.wireshark import HERE, THERE, fields, message_capture, needs_tshark, tshark

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "messages.json").read_text()
)
DATAGRAMS = [bytes.fromhex(vector["datagram"]) for vector in VECTORS]
FIELDS = [
    "mat.type",
    "mat.code",
    "mat.flags",
    "mat.flags.extensions",
    "mat.length",
    "mat.sequence",
    "mat.hoa",
    "mat.moa",
    "mat.peer",
    "mat.timestamp",
    "mat.lifetime",
    "mat.nonce",
    "mat.version",
    "mat.age",
    "mat.prefix_length",
    "mat.auth.key_id",
    "mat.auth.freshness",
    "mat.auth.mac",
    "mat.draft_length",
    "mat.malformed",
]
pytestmark = needs_tshark


def number(cell: list[str] | None) -> int | None:
    return None if cell is None else int(cell[0], 0)


def check(shown: dict[str, list[str]], message: Message, datagram: bytes) -> None:
    """Whether the dissector shows what the codec decodes."""
    assert "mat.malformed" not in shown
    assert number(shown["mat.type"]) == Type[_screaming(type(message).__name__)]
    assert number(shown["mat.code"]) == datagram[1]
    assert number(shown["mat.flags"]) == datagram[2]
    assert shown["mat.flags.extensions"] == ["1" if datagram[2] & 0x80 else "0"]
    assert number(shown["mat.length"]) == datagram[3]
    assert number(shown["mat.sequence"]) == message.sequence
    homes, mobiles = addresses(message)
    assert shown.get("mat.hoa", []) == homes
    assert shown.get("mat.moa", []) == mobiles
    peer = [format_address(message.peer)] if isinstance(message, HaNotify) else []
    assert shown.get("mat.peer", []) == peer
    assert "".join(shown.get("mat.nonce", [])).replace(":", "") == message.nonce.hex()
    assert ("mat.draft_length" in shown) is message.draft_length
    check_mapping(shown, message)
    if isinstance(message, ImsUpdate | ImsUpdateReply):
        check_authentication(shown, message.authentication)


def _screaming(name: str) -> str:
    return "".join(f"_{c}" if c.isupper() else c.upper() for c in name).lstrip("_")


def addresses(message: Message) -> tuple[list[str], list[str]]:
    """Home and mobile addresses as text, in order."""
    match message:
        case ImsUpdateReply():
            return [], []
        case HaQuery():
            return [], [format_address(message.mobile_address)]
        case HaAnswer():
            homes = [format_address(one) for one in message.home_addresses]
            return homes, [format_address(message.mobile_address)]
        case _:
            mobiles: tuple[Address, ...] = getattr(message, "mobile_addresses", ())
            home = format_address(message.home_address)
            return [home], [format_address(one) for one in mobiles]


def check_mapping(shown: dict[str, list[str]], message: Message) -> None:
    version = getattr(message, "version", None)
    if version is None:
        assert "mat.timestamp" not in shown
    else:
        assert number(shown["mat.timestamp"]) == version >> 32
        written = number(shown.get("mat.version"))
        if not written and isinstance(message, ImsUpdate):
            written = number(shown.get("mat.auth.freshness"))
        assert version == (written or version >> 32 << 32)
    assert number(shown.get("mat.lifetime")) == getattr(message, "lifetime", None)
    if "mat.age" in shown and not isinstance(message, ImsUpdate):
        assert number(shown["mat.age"]) == getattr(message, "age", 0)
    length = getattr(message, "prefix_length", None)
    if length is not None:
        assert number(shown.get("mat.prefix_length", [str(EXACT)])) == length


def check_authentication(
    shown: dict[str, list[str]], authentication: Authentication | None
) -> None:
    if authentication is None:
        assert "mat.auth.mac" not in shown
        return
    assert number(shown["mat.auth.key_id"]) == authentication.key_id
    assert number(shown["mat.auth.freshness"]) == authentication.freshness
    assert shown["mat.auth.mac"][0].replace(":", "") == authentication.mac.hex()


def test_each_message_is_shown_with_the_values_that_the_codec_decodes(tmp_path: Path) -> None:
    for family in (4, 6):
        message_capture(tmp_path / "all.pcapng", DATAGRAMS, family)
        shown = fields(tmp_path / "all.pcapng", FIELDS)
        assert len(shown) == len(VECTORS)
        for row, datagram, vector in zip(shown, DATAGRAMS, VECTORS, strict=True):
            message = decode(datagram)
            assert not isinstance(message, Malformed), vector["name"]
            check(row, message, datagram)


def test_what_is_cut_off_is_refused_with_the_reason_that_the_codec_gives(tmp_path: Path) -> None:
    cut = [datagram[:end] for datagram in DATAGRAMS for end in range(1, len(datagram))]
    agree(tmp_path, cut)


def agree(folder: Path, datagrams: list[bytes]) -> None:
    """Whether codec and dissector find the same fault, or the same values."""
    message_capture(folder / "some.pcapng", datagrams)
    shown = fields(folder / "some.pcapng", FIELDS)
    assert len(shown) == len(datagrams)
    for row, datagram in zip(shown, datagrams, strict=True):
        message = decode(datagram)
        if isinstance(message, Malformed):
            assert row.get("mat.malformed", [""])[0] in message.value, datagram.hex()
            assert "mat.malformed" in row, datagram.hex()
        else:
            check(row, message, datagram)


def test_nonsense_is_read_or_refused_as_the_codec_does(tmp_path: Path) -> None:
    random = Random(1)
    agree(tmp_path, [damaged(random, random.choice(DATAGRAMS)) for _ in range(3000)])


def test_what_is_too_much_is_refused_as_the_codec_does(tmp_path: Path) -> None:
    home, crowd = M1, tuple(Address(bytes(14) + bytes((9, n))) for n in range(9))
    tail = b"".join(bytes((200 + n, 255)) + bytes(1018) for n in range(2))
    agree(
        tmp_path,
        [
            encode(MaAnswer(1, 0, home, crowd[:8], 1 << 32, 9)),
            encode(MaAnswer(1, 0, home, crowd, 1 << 32, 9)),
            encode(HaAnswer(1, 0, home, crowd, 1 << 32, 9, nonce=b"12345678")),
            encode(MaQuery(1, home, nonce=b"12345678")) + tail[:1168],
            encode(MaQuery(1, home, nonce=b"12345678")) + tail[:1172],
            encode(MaQuery(1, home, nonce=b"12345678")) + tail,
        ],
    )


def damaged(random: Random, datagram: bytes) -> bytes:
    """A datagram with a few other bytes, mostly where it matters, or with something behind it."""
    changed = bytearray(datagram)
    for _ in range(random.randint(0, 2)):
        at = random.choice((random.randrange(len(changed)), random.randrange(4)))
        changed[at] = random.choice((0, 1, 2, 4, 8, 128, 255, random.randrange(256)))
    tails = (b"", bytes((200, 1, 0, 0)), bytes((9, 1, 0, 0)), bytes((3, 1, 120, 0)), bytes(4))
    return bytes(changed) + random.choice(tails)


def test_addresses_are_written_as_everywhere(tmp_path: Path) -> None:
    random = Random(3)
    groups = [[random.choice((0, 0, 0, 1, 0xA0, 0xFFFF)) for _ in range(8)] for _ in range(300)]
    made = [Address(b"".join(group.to_bytes(2) for group in one)) for one in groups]
    message_capture(tmp_path / "some.pcapng", (encode(HaQuery(1, one)) for one in made))
    shown = fields(tmp_path / "some.pcapng", ["mat.moa"])
    assert [row["mat.moa"] for row in shown] == [[format_address(one)] for one in made]


def test_a_message_that_was_not_recorded_to_its_end_is_shown_as_far_as_it_goes(
    tmp_path: Path,
) -> None:
    path = tmp_path / "cut.pcapng"
    packets = [udp_packet(HERE[4], THERE[4], datagram) for datagram in DATAGRAMS]
    cut = [(whole[:end], len(whole)) for whole in packets for end in range(29, len(whole))]
    with writing(path) as writer:
        for content, size in cut:
            writer.packet(0, "here", content, size, outward=True)
    shown = fields(path, ["mat.type", "mat.malformed", "mat.expert.cut"])
    assert all("mat.expert.cut" in row and "mat.malformed" not in row for row in shown)
    for row, (content, _) in zip(shown, cut, strict=True):
        assert row.get("mat.type") == ([str(content[28])] if len(content) >= 36 else None)


# ---- records and options -----------------------------------------------------------------------

RECORDS = [
    record("192.0.2.1"),
    record("192.0.2.1", "198.51.100.255", precedence=0, port=1),
    record(*(f"2001:db8::{i}:0:0:{i}" for i in range(8)), precedence=255, port=65535),
    ImsRecord(10, 49628, name="ims.example.net."),
]


def answers(path: Path, all_data: list[bytes]) -> list[dict[str, list[str]]]:
    """What is shown of answers of the DNS with these data of records, one each."""
    home, dns = parse_address("10.1.0.1"), Endpoint(parse_address("192.0.2.53"), 53)
    plain = ims_answer(1, home, [record("192.0.2.1")], 300)
    rdata = record("192.0.2.1").to_rdata()
    with writing(path) as writer:
        for data in all_data:
            sized = len(data).to_bytes(2) + data
            answer = plain.replace(len(rdata).to_bytes(2) + rdata, sized)
            packet = udp_packet(dns, Endpoint(home, 40000), answer)
            writer.packet(0, "here", packet, len(packet), outward=False)
    names = ("precedence", "kind", "port", "address", "name", "malformed")
    return fields(path, [f"mat.ims.{name}" for name in names])


def test_ims_records_in_the_dns_are_shown(tmp_path: Path) -> None:
    shown = answers(tmp_path / "dns.pcapng", [one.to_rdata() for one in RECORDS])
    for row, one in zip(shown, RECORDS, strict=True):
        assert number(row["mat.ims.precedence"]) == one.precedence
        assert number(row["mat.ims.port"]) == one.port
        assert row.get("mat.ims.address", []) == [format_address(a) for a in one.addresses]
        assert row.get("mat.ims.name", [""]) == [one.name]
        assert "mat.ims.malformed" not in row


def test_an_ims_record_that_cannot_be_read_is_called_malformed(tmp_path: Path) -> None:
    random, several = Random(2), [bytes((10, 1, 0, 0, 192, 0, 2, 1)), bytes((10, 4, 1, 1, 9))]
    for _ in range(400):
        changed = bytearray(random.choice(RECORDS).to_rdata())
        at = random.choice((1, 1, 2, 3, 4, random.randrange(len(changed))))
        changed[at] = random.randrange(5)
        several.append(bytes(changed[: random.choice((len(changed), len(changed) - 1, 1, 4))]))
    for row, data in zip(answers(tmp_path / "dns.pcapng", several), several, strict=True):
        try:
            from_rdata(data)
        except RecordError:
            assert "mat.ims.malformed" in row, data.hex()
        else:
            assert "mat.ims.malformed" not in row, data.hex()


def test_a_muo_is_shown_and_another_experiment_is_not(tmp_path: Path) -> None:
    path, home = tmp_path / "muo.pcapng", parse_address("2001:db8:1::1")
    with_muo = udp_packet(HERE[6], THERE[6], b"data", home)
    packets = [
        with_muo,
        with_muo.replace(MUO_IDENTIFIER, b"AM", 1),
        with_muo.replace(home, parse_address("10.1.0.1"), 1),
        in_company(with_muo),
    ]
    with writing(path) as writer:
        for packet in packets:
            writer.packet(0, "here", packet, len(packet), outward=True)
    first, second, third, fourth = fields(
        path, ["mat.muo.hoa", "mat.muo.flags", "mat.muo.malformed"]
    )
    assert first == {"mat.muo.hoa": ["2001:db8:1::1"], "mat.muo.flags": ["0x0000"]}
    assert second == {}
    assert set(third) == set(fourth) == {"mat.muo.malformed"}


def in_company(packet: bytes) -> bytes:
    """The packet with another option beside the MUO."""
    header, padding = packet[40:64], bytes((1, 6)) + bytes(6)
    longer = (int.from_bytes(packet[4:6]) + 8).to_bytes(2)
    grown = packet[:4] + longer + packet[6:40] + header[:1] + b"\3" + header[2:]
    assert read_muo(grown + padding + packet[64:]) is Refusal.MUO_MALFORMED
    return grown + padding + packet[64:]


# ---- the conversation --------------------------------------------------------------------------

M1, CN1 = parse_address("10.1.0.1"), parse_address("10.2.0.1")
AT_A, AT_B = (Endpoint(parse_address(a), MAT_PORT) for a in ("10.128.0.7", "10.129.0.7"))
IMS = Endpoint(parse_address("192.0.2.1"), MAT_PORT)
PEER = Endpoint(CN1, 5000)


@pytest.fixture
def conversation(tmp_path: Path) -> Path:
    """m1 registers and moves; its update is sent twice, and data flows before, between, behind."""
    path = tmp_path / "conversation.pcapng"
    first = ImsUpdate(1, M1, (AT_A.address,), 1 << 32, 180)
    second = ImsUpdate(2, M1, (AT_B.address,), 2 << 32, 180)
    reply = ImsUpdateReply(2, 0)
    data = [udp_packet(Endpoint(at.address, 5000), PEER, b"data") for at in (AT_A, AT_B)]
    back = udp_packet(PEER, Endpoint(AT_B.address, 5000), b"data")
    packets = [
        ("m1", "CN1", data[0]),
        ("m1", "IMS", udp_packet(AT_A, IMS, encode(first))),
        ("m1", "CN1", data[0]),
        ("m1", "IMS", udp_packet(AT_B, IMS, encode(second))),
        ("m1", "IMS", udp_packet(AT_B, IMS, encode(second))),
        ("IMS", "m1", udp_packet(IMS, AT_B, encode(reply))),
        ("m1", "CN1", data[1]),
        ("CN1", "m1", back),
    ]
    with writing(path) as writer:
        writer.name({M1: "m1", AT_B.address: "m1@B"})
        for place, (sender, receiver, packet) in enumerate(packets):
            sent, size = place * 10**7, len(packet)
            writer.packet(sent, sender, packet, size, outward=True)
            writer.packet(sent + 10**6, receiver, packet, size, outward=False)
    return path


def test_a_mobile_address_has_its_home_address_from_when_a_message_has_told(
    conversation: Path,
) -> None:
    for passes in ((), ("-2",)):
        shown = fields(conversation, ["mat.source_hoa", "mat.destination_hoa"], *passes)
        sources = [row.get("mat.source_hoa", [""])[0] for row in shown[::2]]
        # Of the data before the first update nobody knew yet whose it was.
        assert sources == ["", *["10.1.0.1"] * 4, "", "10.1.0.1", ""]
        homes = [row.get("mat.destination_hoa", [""])[0] for row in shown[::2]]
        assert homes == ["", "", "", "", "", "10.1.0.1", "", "10.1.0.1"]


def test_answers_and_requests_refer_to_each_other_and_repetitions_are_marked(
    conversation: Path,
) -> None:
    names = ("response_in", "response_to", "response_time", "retransmission_of")
    # Two passes, the first of them with fields, as when Wireshark loads a file.
    shown = fields(conversation, [f"mat.{name}" for name in names], "-2", "-Y", "frame")
    # Frames in pairs: what left somewhere, and what arrived elsewhere.
    assert shown[8] == {"mat.response_in": ["12"], "mat.retransmission_of": ["7"]}
    assert shown[9] == {"mat.response_in": ["11"], "mat.retransmission_of": ["8"]}
    assert shown[10] == {"mat.response_to": ["10"], "mat.response_time": ["0.009000000"]}
    assert shown[11] == {"mat.response_to": ["9"], "mat.response_time": ["0.011000000"]}
    assert shown[2] == {}
    once = fields(conversation, [f"mat.{name}" for name in names])
    assert [set(row) for row in once[8:12]] == [
        {"mat.retransmission_of"},
        {"mat.retransmission_of"},
        {"mat.response_to", "mat.response_time"},
        {"mat.response_to", "mat.response_time"},
    ]


def test_filters_find_a_node_its_addresses_and_networks(conversation: Path) -> None:
    def found(wanted: str) -> int:
        return len(tshark(conversation, "-Y", wanted).splitlines())

    assert found('mat.node == "10.1.0.1"') == 14
    assert found('mat.moa == "10.129.0.7"') == 4
    assert found("mat.moa.ipv4 == 10.128.0.0/16") == 2
    assert found("mat.type == 2 && mat.code == 0") == 2
    assert found("mat.expert.retransmission") == 2


def test_names_are_shown_where_names_are_resolved(conversation: Path) -> None:
    text = tshark(conversation, "-V", "-N", "n", resolve=True)
    assert "HoA: 10.1.0.1 (m1)" in text
    assert "HoA of the source: 10.1.0.1 (m1)" in text
    assert "MoA: 10.129.0.7 (m1@B)" in text
    summary = tshark(conversation, "-N", "n", "-Y", "mat.type == 1", resolve=True)
    assert "IMS Update m1 at m1@B" in summary


def test_prefix_mappings_name_the_hosts_behind_a_router(tmp_path: Path) -> None:
    path = tmp_path / "router.pcapng"
    home, moved = parse_address("10.9.4.0"), parse_address("198.51.100.0")
    told = MaAnswer(1, 0, home, (moved,), 5 << 32, 180, 0, EXACT - 9, nonce=b"12345678")
    guest = Endpoint(parse_address("198.51.101.33"), 5000)
    packets = [udp_packet(IMS, PEER, encode(told)), udp_packet(guest, PEER, b"data")]
    with writing(path) as writer:
        for packet in packets:
            writer.packet(0, "CN1", packet, len(packet), outward=False)
    assert fields(path, ["mat.source_hoa"])[1] == {"mat.source_hoa": ["10.9.5.33"]}
