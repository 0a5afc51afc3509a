"""The embedded responder: what RFC 1034 wants of an authoritative server, over real sockets."""

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

import dns.asyncquery
import dns.edns
import dns.message
import dns.name
import dns.rdatatype
import dns.update
import pytest
from dns.flags import Flag
from dns.message import Message
from dns.rcode import Rcode
from hypothesis import given
from hypothesis import strategies as st

from mat.address import parse_address
from mat.ims_record import ImsRecord, from_rdata, record, reverse_name
from mat_real.dns import DnsError, Responder, Server, responder
from tests.real.dns_fakes import LOOPS, serving

ZONE = "1.10.in-addr.arpa"
ZONE_6 = "8.b.d.0.1.0.0.2.ip6.arpa"
NEAR, FAR, ALL = record("192.0.2.1"), record("192.0.2.2"), record("192.0.2.3")
MANY = [("10.1.9.9", record(f"2001:db8::{i:x}", precedence=i)) for i in range(100)]
LAB = Responder(
    [ZONE, ZONE_6, "lab.test."],
    [
        ("10.1.0.0/16", ALL),
        ("10.1.2.0/24", FAR),
        ("10.1.2.5", NEAR),
        ("2001:db8:1::/49", ALL),
        *MANY,
    ],
    hosts=[("ims.a.lab.test", parse_address("192.0.2.1"))],
    pointers=[(parse_address("10.1.2.5"), "node.lab.test")],
    negative_ttl=30,
)
SPARSE = Responder(
    [ZONE, "example"],
    [("10.1.2.5", NEAR), ("10.1.160.0/20", FAR)],
    hosts=[("ims.a.example", parse_address("192.0.2.1"))],
)


def question(name: str, rdtype: str = "TYPE65338", **more: Any) -> Message:
    return dns.message.make_query(name, rdtype, **more)


def answer(query: Message, server: Responder = LAB, *, stream: bool = False) -> Message:
    wire = server.answer(query.to_wire(), stream=stream)
    assert wire is not None
    made = dns.message.from_wire(wire)
    assert query.is_response(made)
    return made


def records_of(made: Message) -> list[ImsRecord]:
    return sorted(
        (from_rdata(rdata.to_wire()) for rrset in made.answer for rdata in rrset),
        key=lambda found: found.precedence,
    )


# ---- what names have ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("home", "expected"),
    [("10.1.2.5", NEAR), ("10.1.2.6", FAR), ("10.1.3.5", ALL), ("2001:db8:1:7fff::9", ALL)],
)
def test_of_several_prefixes_the_longest_counts(home: str, expected: ImsRecord) -> None:
    made = answer(question(reverse_name(parse_address(home))))
    assert records_of(made) == [expected]
    assert made.rcode() == Rcode.NOERROR
    assert made.flags & Flag.AA
    assert not made.flags & Flag.RA
    assert made.answer[0].ttl == 300


def test_names_match_whatever_their_case_and_come_back_as_asked() -> None:
    name = "9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.F.f.F.7.1.0.0.0.8.B.d.0.1.0.0.2.iP6.aRpA."
    query = question(name)
    wire = LAB.answer(query.to_wire())
    assert wire is not None
    assert wire[12:].startswith(query.to_wire()[12 : 12 + 74])
    made = dns.message.from_wire(wire)
    assert str(made.answer[0].name) == name
    assert records_of(made) == [ALL]


@pytest.mark.parametrize(
    ("name", "rdtype", "text"),
    [
        ("5.2.1.10.in-addr.arpa.", "PTR", "node.lab.test."),
        ("ims.a.lab.test.", "A", "192.0.2.1"),
        (ZONE + ".", "NS", "localhost."),
        (ZONE + ".", "SOA", "localhost. hostmaster.localhost. 1 3600 600 86400 30"),
    ],
)
def test_other_types_are_served_too(name: str, rdtype: str, text: str) -> None:
    (rrset,) = answer(question(name, rdtype)).answer
    assert [rdata.to_text() for rdata in rrset] == [text]


def test_a_question_for_any_type_gets_all() -> None:
    made = answer(question("5.2.1.10.in-addr.arpa.", "ANY"))
    assert {dns.rdatatype.to_text(rrset.rdtype) for rrset in made.answer} == {"PTR", "TYPE65338"}


@pytest.mark.parametrize(
    ("name", "rdtype"),
    [
        ("5.2.1.10.in-addr.arpa.", "A"),  # has other types
        ("2.1.10.in-addr.arpa.", "TYPE65338"),  # leads to others
        (ZONE + ".", "TYPE65338"),
        ("170.1.10.in-addr.arpa.", "TYPE65338"),  # within 10.1.160.0/20
        ("example.", "A"),
        ("a.example.", "A"),
        ("ims.a.example.", "AAAA"),
    ],
)
def test_a_name_without_the_type_exists_all_the_same(name: str, rdtype: str) -> None:
    made = answer(question(name, rdtype), SPARSE)
    assert made.rcode() == Rcode.NOERROR
    assert not made.answer
    (authority,) = made.authority
    assert authority.rdtype == dns.rdatatype.SOA
    assert authority.ttl == 60


@pytest.mark.parametrize(
    "name",
    [
        "6.2.1.10.in-addr.arpa.",
        "3.1.10.in-addr.arpa.",
        "1.176.1.10.in-addr.arpa.",
        "x.5.2.1.10.in-addr.arpa.",
        "1.5.2.1.10.in-addr.arpa.",
        "05.2.1.10.in-addr.arpa.",
        "256.2.1.10.in-addr.arpa.",
        "nothing.example.",
    ],
)
def test_any_other_name_in_a_zone_does_not_exist(name: str) -> None:
    made = answer(question(name), SPARSE)
    assert made.rcode() == Rcode.NXDOMAIN
    assert made.flags & Flag.AA
    assert not made.answer
    assert made.authority[0].rdtype == dns.rdatatype.SOA


@pytest.mark.parametrize("name", ["5.2.2.10.in-addr.arpa.", "in-addr.arpa.", ".", "other."])
def test_outside_its_zones_it_refuses(name: str) -> None:
    made = answer(question(name))
    assert made.rcode() == Rcode.REFUSED
    assert not made.flags & Flag.AA


def test_it_neither_transfers_nor_updates_nor_serves_other_classes() -> None:
    assert answer(question(ZONE + ".", "AXFR"), stream=True).rcode() == Rcode.REFUSED
    for name in ("version.bind.", "5.2.1.10.in-addr.arpa."):
        assert answer(question(name, rdclass="CH")).rcode() == Rcode.REFUSED
    update = dns.update.UpdateMessage(ZONE + ".")
    update.add("5", 300, "A", "192.0.2.1")
    assert answer(update).rcode() == Rcode.NOTIMP


def test_an_unknown_version_of_edns_is_refused() -> None:
    assert answer(question("5.2.1.10.in-addr.arpa.", use_edns=1)).rcode() == Rcode.BADVERS


# ---- sizes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edns", "limit"),
    [(None, 512), (600, 600), (100, 512), (4096, 1232)],
)
def test_over_udp_an_answer_fits_and_says_that_it_was_cut(edns: int | None, limit: int) -> None:
    query = question("9.9.1.10.in-addr.arpa.", payload=edns)
    wire = LAB.answer(query.to_wire())
    assert wire is not None
    assert len(wire) <= limit
    assert dns.message.from_wire(wire).flags & Flag.TC


def test_over_tcp_an_answer_is_whole() -> None:
    made = answer(question("9.9.1.10.in-addr.arpa."), stream=True)
    assert not made.flags & Flag.TC
    assert records_of(made) == [r for _, r in MANY]


# ---- garbage -----------------------------------------------------------------------------------


def test_what_has_no_header_or_is_itself_an_answer_gets_none() -> None:
    assert LAB.answer(b"") is None
    assert LAB.answer(bytes(11)) is None
    wire = LAB.answer(question("5.2.1.10.in-addr.arpa.").to_wire())
    assert wire is not None
    assert LAB.answer(wire) is None


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_what_cannot_be_read_is_a_format_error(cut: int) -> None:
    wire = question("5.2.1.10.in-addr.arpa.").to_wire()[:-cut]
    made = LAB.answer(wire)
    assert made is not None
    parsed = dns.message.from_wire(made)
    assert parsed.id == int.from_bytes(wire[:2])
    assert parsed.rcode() == Rcode.FORMERR


def test_other_than_one_question_is_a_format_error() -> None:
    query = question("5.2.1.10.in-addr.arpa.")
    query.question *= 2
    made = LAB.answer(query.to_wire())
    assert made is not None
    assert dns.message.from_wire(made).rcode() == Rcode.FORMERR


@given(st.binary(max_size=600))
def test_random_bytes_never_crash_it(wire: bytes) -> None:
    _check_survival(wire)


@given(
    st.sampled_from(["5.2.1.10.in-addr.arpa.", "9.9.1.10.in-addr.arpa.", "x.lab.test."]),
    st.lists(st.tuples(st.integers(0, 100), st.integers(0, 255)), max_size=6),
)
def test_changed_questions_never_crash_it(name: str, changes: list[tuple[int, int]]) -> None:
    options = [dns.edns.GenericOption(dns.edns.OptionType.make(65001), b"x" * 9)]
    wire = bytearray(question(name, use_edns=0, payload=1232, options=options).to_wire())
    for at, octet in changes:
        wire[at % len(wire)] = octet
    _check_survival(bytes(wire))


def _check_survival(wire: bytes) -> None:
    for stream in (False, True):
        made = LAB.answer(wire, stream=stream)
        if made is not None:
            assert made[:2] == wire[:2]
            assert made[2] & 0x80
            assert stream or len(made) <= 1232


# ---- sockets -----------------------------------------------------------------------------------

Exchange = Callable[[Message, Server], Awaitable[Message]]


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Iterable[Callable[[Coroutine[Any, Any, None]], None]]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield runner.run


async def udp(query: Message, server: Server) -> Message:
    return await dns.asyncquery.udp(query, server[0], port=server[1], timeout=5)


async def tcp(query: Message, server: Server) -> Message:
    return await dns.asyncquery.tcp(query, server[0], port=server[1], timeout=5)


@pytest.mark.parametrize("exchange", [udp, tcp])
def test_it_answers_over_udp_and_tcp_on_the_same_port(
    exchange: Exchange, run: Callable[..., None]
) -> None:
    async def body() -> None:
        async with serving(LAB) as server:
            made = await exchange(question("5.2.1.10.in-addr.arpa."), server)
            assert records_of(made) == [NEAR]

    run(body())


def test_it_listens_on_ipv6_and_answers_from_the_address_asked(run: Callable[..., None]) -> None:
    async def body() -> None:
        endpoint = await LAB.start("::", 0)
        try:
            for host in ("::1", "127.0.0.1", "127.0.0.7"):
                for exchange in (udp, tcp):
                    made = await exchange(question("5.2.1.10.in-addr.arpa."), (host, endpoint.port))
                    assert records_of(made) == [NEAR]
        finally:
            await LAB.close()

    run(body())


def test_a_tcp_connection_carries_many_questions_and_ends_with_garbage(
    run: Callable[..., None],
) -> None:
    async def body() -> None:
        async with serving(LAB) as (host, port):
            reader, writer = await asyncio.open_connection(host, port)
            for _ in range(3):
                query = question("5.2.1.10.in-addr.arpa.")
                writer.write(query.to_wire(prepend_length=True))
                size = int.from_bytes(await reader.readexactly(2))
                made = dns.message.from_wire(await reader.readexactly(size))
                assert query.is_response(made)
            writer.write(b"\x00\x05abcde")
            assert await reader.read() == b""
            writer.close()

    run(body())


def test_closing_ends_open_connections_and_frees_the_port(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responder, "IDLE_TIME", 3600.0)

    async def body() -> None:
        async with asyncio.timeout(30):
            await connect_and_close()

    async def connect_and_close() -> None:
        async with serving(LAB) as (host, port):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(question("5.2.1.10.in-addr.arpa.").to_wire(prepend_length=True))
            await reader.readexactly(2)
        await reader.read()
        writer.close()
        again = await LAB.start(host, port)
        assert again.port == port
        await LAB.close()

    run(body())


def test_a_port_that_is_taken_is_an_error_that_says_so(run: Callable[..., None]) -> None:
    async def body() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            what = f"127.0.0.1 port {port}: Address already in use; choose another address or port"
            with pytest.raises(DnsError, match=f"^{what}$"):
                await LAB.start("127.0.0.1", port)

    run(body())


# ---- what is refused at the start --------------------------------------------------------------


@pytest.mark.parametrize(
    ("zones", "text"),
    [
        ([], "10.1.0.0/16"),
        (["2.10.in-addr.arpa"], "10.1.0.0/16"),
        ([ZONE], "10.0.0.0/8"),
        (["16.10.in-addr.arpa"], "10.16.0.0/12"),
    ],
)
def test_a_record_outside_the_zones_is_an_error(zones: list[str], text: str) -> None:
    with pytest.raises(DnsError, match=r"is in none of the zones"):
        Responder(zones, [(text, NEAR)])


@pytest.mark.parametrize("text", ["", "10.1.0.0/33", "10.1.0.1/16", "ten"])
def test_what_is_no_prefix_is_an_error(text: str) -> None:
    with pytest.raises(DnsError, match=r"home address or prefix is needed"):
        Responder([ZONE], [(text, NEAR)])


def test_what_is_no_name_is_an_error() -> None:
    with pytest.raises(DnsError, match=r"name 'a\.\.b'"):
        Responder(["a..b"])


def test_every_home_address_of_a_prefix_has_the_record() -> None:
    """Prefixes that end inside a label too; a second implementation says who is within."""
    rng = random.Random(1)
    for length in (8, 11, 16, 19, 24, 29, 32):
        top = rng.randrange(1 << length) << (32 - length)
        network = socket.inet_ntoa((top & 0x00FFFFFF | 10 << 24).to_bytes(4))
        server = Responder(["10.in-addr.arpa"], [(f"{network}/{length}", NEAR)])
        for _ in range(200):
            flip = 1 << rng.randrange(24) if rng.random() < 0.5 else 0
            base = int.from_bytes(socket.inet_aton(network)) | rng.randrange(1 << (32 - length))
            home = base ^ flip
            inside = home >> (32 - length) == int.from_bytes(socket.inet_aton(network)) >> (
                32 - length
            )
            name = reverse_name(parse_address(socket.inet_ntoa(home.to_bytes(4))))
            made = answer(question(name), server)
            assert bool(made.answer) is inside
