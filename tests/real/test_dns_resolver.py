"""The resolver against servers that behave, and servers that do not, over real sockets."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, TypeVar

import dns.message
import dns.name
import dns.rdatatype
import dns.rrset
import pytest
from dns.flags import Flag
from dns.rcode import Rcode
from hypothesis import given, settings
from hypothesis import strategies as st

from mat.address import Address, parse_address
from mat.effects import NotFound
from mat.ims_record import ImsRecord, record
from mat.messages import Endpoint
from mat_real.dns import (
    Absent,
    DnsError,
    Located,
    ResolutionError,
    Resolver,
    ResolverConfig,
    Responder,
    Server,
    format_server,
    parse_server,
    system_servers,
)
from tests.real.dns_fakes import (
    LOOPS,
    alias_answer,
    answer_to,
    code,
    fake,
    rdata_answer,
    record_answer,
    serving,
    silence,
)
from tests.real.dns_servers import free_port

Value = TypeVar("Value")
Run = Callable[[Coroutine[Any, Any, Value]], Value]

ZONE = "1.10.in-addr.arpa"
HOME = parse_address("10.1.0.5")
IMS = record("192.0.2.1")
IMS_AT = (Endpoint(parse_address("192.0.2.1"), 49628),)


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Iterable[Run[Any]]:
    """Runs a coroutine on each of the event loops that are used."""
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield runner.run


class Clock:
    """A clock that stands still until told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def ask(*servers: Server, timeout: float = 0.2, attempts: int = 1, **more: Any) -> ResolverConfig:
    return ResolverConfig(servers=servers, timeout=timeout, attempts=attempts, **more)


def lab(*records: tuple[str, ImsRecord], **more: Any) -> Responder:
    return Responder([ZONE], records, **more)


# ---- what is found -----------------------------------------------------------------------------


def test_servers_come_in_order_of_precedence(run: Run[Any]) -> None:
    far, near = record("192.0.2.9", precedence=20), record("192.0.2.1", precedence=10, port=7)

    async def body() -> None:
        async with serving(lab(("10.1.0.5", far), ("10.1.0.5", near))) as server:
            found = await Resolver(ask(server)).servers(HOME)
        assert found == (
            Endpoint(parse_address("192.0.2.1"), 7),
            Endpoint(parse_address("192.0.2.9"), 49628),
        )

    run(body())


def test_an_ipv6_home_address_is_found(run: Run[Any]) -> None:
    async def body() -> None:
        responder = Responder(["8.b.d.0.1.0.0.2.ip6.arpa"], [("2001:db8:1::/48", IMS)])
        async with serving(responder) as server:
            found = await Resolver(ask(server)).servers(parse_address("2001:db8:1::5"))
        assert found == IMS_AT

    run(body())


@pytest.mark.parametrize(
    ("home", "expected"),
    [
        ("10.1.0.5", ["192.0.2.1", "2001:db8::1"]),
        ("2001:db8::5", ["2001:db8::1", "192.0.2.1"]),
    ],
)
def test_of_a_name_the_addresses_of_the_home_addresss_family_come_first(
    home: str, expected: list[str], run: Run[Any]
) -> None:
    async def body() -> None:
        responder = Responder(
            [ZONE, "8.b.d.0.1.0.0.2.ip6.arpa", "test"],
            [(home, ImsRecord(10, 49628, name="ims.test."))],
            hosts=[("ims.test", parse_address(a)) for a in sorted(expected)],
        )
        async with serving(responder) as server:
            found = await Resolver(ask(server)).servers(parse_address(home))
        assert found == tuple(Endpoint(parse_address(a), 49628) for a in expected)

    run(body())


def test_a_name_that_leads_nowhere_is_left_out_and_asked_for_again_soon(run: Run[Any]) -> None:
    nowhere = ImsRecord(1, 49628, name="none.test.")

    async def body() -> None:
        responder = Responder(
            [ZONE, "test"], [("10.1.0.5", nowhere), ("10.1.0.5", IMS)], ttl=3600, negative_ttl=30
        )
        async with serving(responder) as server:
            found = await Resolver(ask(server)).locate(HOME)
        assert isinstance(found, Located)
        assert found.servers == IMS_AT
        assert found.ttl == 30

    run(body())


def test_a_name_that_cannot_be_looked_up_is_left_out_and_tried_again_soon(run: Run[Any]) -> None:
    broken = ImsRecord(1, 49628, name="ims.elsewhere.")

    async def body() -> None:
        async with serving(lab(("10.1.0.5", broken), ("10.1.0.5", IMS), ttl=3600)) as server:
            found = await Resolver(ask(server)).locate(HOME)
        assert isinstance(found, Located)
        assert (found.servers, found.ttl) == (IMS_AT, 60)

    run(body())


def test_only_names_that_lead_nowhere_are_a_failure_and_not_a_host_without_mat(
    run: Run[Any],
) -> None:
    async def body() -> None:
        records = [("10.1.0.5", ImsRecord(1, 49628, name=name)) for name in ("a.test.", "b.else.")]
        async with serving(Responder([ZONE, "test"], records)) as server:
            assert await Resolver(ask(server)).servers(HOME) is NotFound.FAILED

    run(body())


def test_a_replica_is_named_once_and_no_more_are_used_than_a_node_measures(run: Run[Any]) -> None:
    records = [
        ("10.1.0.5", record(*(f"192.0.2.{8 * i + k}" for k in range(8)), precedence=i))
        for i in range(4)
    ]
    again = ("10.1.0.5", record("192.0.2.0", precedence=0, port=49628))

    async def body() -> None:
        async with serving(lab(*records, again)) as server:
            found = await Resolver(ask(server, timeout=5)).servers(HOME)
        assert isinstance(found, tuple)
        assert set(found) == {Endpoint(parse_address(f"192.0.2.{i}"), 49628) for i in range(16)}
        assert len(found) == 16

    run(body())


def test_what_is_no_unicast_address_is_no_replica(run: Run[Any]) -> None:
    async def body() -> None:
        bad = record("224.0.0.1", "0.0.0.0", "255.255.255.255", "127.0.0.1", "192.0.2.1")
        async with serving(lab(("10.1.0.5", bad))) as server:
            found = await Resolver(ask(server)).servers(HOME)
        expected = ("127.0.0.1", "192.0.2.1")
        assert found == tuple(Endpoint(parse_address(a), 49628) for a in expected)

    run(body())


def test_an_unreadable_record_is_left_out_and_counted(run: Run[Any]) -> None:
    cut_off, unknown_kind = IMS.to_rdata()[:-1], b"\x01\x09\xc1\xdc"

    async def body() -> None:
        async with fake(rdata_answer(cut_off, IMS.to_rdata(), unknown_kind)) as server:
            resolver = Resolver(ask(server.server))
            assert await resolver.servers(HOME) == IMS_AT
            assert resolver.counters.bad_records == 2

    run(body())


def test_nothing_but_unreadable_records_is_a_failure(run: Run[Any]) -> None:
    async def body() -> None:
        async with fake(rdata_answer(b"", b"\x00")) as server:
            assert await Resolver(ask(server.server)).servers(HOME) is NotFound.FAILED

    run(body())


def test_many_records_come_over_tcp(run: Run[Any]) -> None:
    records = [("10.1.0.5", record(f"2001:db8::{i:x}", precedence=i)) for i in range(100)]

    async def body() -> None:
        responder = lab(*records)
        async with serving(responder) as server:
            found = await Resolver(ask(server, timeout=5)).locate(HOME)
        assert isinstance(found, Located)
        assert [r for r, _ in found.records] == [r for _, r in records]

    run(body())


# ---- memory ------------------------------------------------------------------------------------


def test_an_answer_is_remembered_for_its_ttl(run: Run[Any]) -> None:
    async def body() -> None:
        clock = Clock()
        async with serving(lab(("10.1.0.5", IMS), ttl=120)) as server:
            resolver = Resolver(ask(server), clock=clock)
            assert resolver.cached(HOME) is None
            assert await resolver.servers(HOME) == IMS_AT
            clock.now += 119.9
            assert resolver.cached(HOME) == IMS_AT
            assert await resolver.servers(HOME) == IMS_AT
            assert (resolver.counters.queries, resolver.counters.cache_hits) == (1, 2)
            clock.now += 0.2
            assert resolver.cached(HOME) is None
            assert await resolver.servers(HOME) == IMS_AT
            assert resolver.counters.queries == 2

    run(body())


@pytest.mark.parametrize(("ttl", "kept"), [(0, 5), (10**6, 600)])
def test_a_ttl_is_kept_within_bounds(ttl: int, kept: float, run: Run[Any]) -> None:
    async def body() -> None:
        clock = Clock()
        async with serving(lab(("10.1.0.5", IMS), ttl=ttl)) as server:
            resolver = Resolver(ask(server, minimum_ttl=5, maximum_ttl=600), clock=clock)
            await resolver.servers(HOME)
            clock.now += kept - 0.1
            assert resolver.cached(HOME) == IMS_AT
            clock.now += 0.2
            assert resolver.cached(HOME) is None

    run(body())


@pytest.mark.parametrize("home", ["10.1.0.6", "10.1.0.7"])
@pytest.mark.parametrize(("authority", "kept"), [(20, 20), (3600, 60)])
def test_that_there_is_no_record_is_remembered_for_a_minute_at_most(
    home: str, authority: int, kept: float, run: Run[Any]
) -> None:
    """Of 10.1.0.6 there is a PTR record, so the name exists; of 10.1.0.7 there is nothing."""
    address = parse_address(home)

    async def body() -> None:
        clock = Clock()
        pointers = [(parse_address("10.1.0.6"), "host.test")]
        responder = lab(("10.1.0.5", IMS), pointers=pointers, ttl=9999, negative_ttl=authority)
        async with serving(responder) as server:
            resolver = Resolver(ask(server), clock=clock)
            assert await resolver.servers(address) is NotFound.NOT_MAT
            clock.now += kept - 0.1
            assert resolver.cached(address) is NotFound.NOT_MAT
            clock.now += 0.2
            assert resolver.cached(address) is None
            assert (resolver.counters.negative, resolver.counters.failures) == (1, 0)

    run(body())


def negative(question: bytes) -> Iterable[bytes]:
    """An authority record with a TTL longer than the zone wants negative answers to be kept."""
    made = answer_to(question)
    text = "localhost. hostmaster.localhost. 1 3600 600 86400 20"
    made.authority.append(dns.rrset.from_text(ZONE + ".", 50, "IN", "SOA", text))
    return [made.to_wire()]


def test_the_zone_says_how_long_a_negative_answer_is_kept(run: Run[Any]) -> None:
    async def body() -> None:
        async with fake(negative) as server:
            found = await Resolver(ask(server.server)).locate(HOME)
        assert isinstance(found, Absent)
        assert found.ttl == 20

    run(body())


def test_without_the_zones_authority_a_negative_answer_is_hardly_remembered(run: Run[Any]) -> None:
    async def body() -> None:
        clock = Clock()
        async with fake(code(Rcode.NXDOMAIN)) as server:
            resolver = Resolver(ask(server.server), clock=clock)
            assert await resolver.servers(HOME) is NotFound.NOT_MAT
            clock.now += 1.1
            assert resolver.cached(HOME) is None

    run(body())


def test_a_failure_is_remembered_for_a_second(run: Run[Any]) -> None:
    async def body() -> None:
        clock = Clock()
        async with fake(code(Rcode.SERVFAIL)) as server:
            resolver = Resolver(ask(server.server), clock=clock)
            assert await resolver.servers(HOME) is NotFound.FAILED
            assert resolver.cached(HOME) is NotFound.FAILED
            clock.now += 1.1
            assert resolver.cached(HOME) is None
            server.respond = record_answer(IMS)
            assert await resolver.servers(HOME) == IMS_AT

    run(body())


def test_of_a_full_cache_what_was_used_longest_ago_goes(run: Run[Any]) -> None:
    first, second, third = (parse_address(f"10.1.0.{i}") for i in (1, 2, 3))

    async def body() -> None:
        async with serving(lab(("10.1.0.0/16", IMS))) as server:
            resolver = Resolver(ask(server, cache_limit=2))
            await resolver.servers(first)
            await resolver.servers(second)
            await resolver.servers(first)
            await resolver.servers(third)
            assert resolver.cached(second) is None
            assert resolver.cached(first) == resolver.cached(third) == IMS_AT

    run(body())


# ---- many at a time ----------------------------------------------------------------------------


def test_questions_about_one_home_address_share_a_look_up(run: Run[Any]) -> None:
    async def body() -> None:
        async with serving(lab(("10.1.0.5", IMS))) as server:
            resolver = Resolver(ask(server))
            found = await asyncio.gather(*(resolver.servers(HOME) for _ in range(100)))
            assert found == [IMS_AT] * 100
            assert resolver.counters.queries == 1

    run(body())


def test_a_thousand_questions_use_no_more_sockets_than_allowed(run: Run[Any]) -> None:
    homes = [Address(HOME[:14] + i.to_bytes(2)) for i in range(1000)]

    async def body() -> None:
        async with fake(record_answer(IMS)) as server:
            server.delay = 0.005
            resolver = Resolver(ask(server.server, timeout=5, concurrency=20))
            asked = [asyncio.ensure_future(resolver.servers(home)) for home in homes]
            most = 0
            while not all(future.done() for future in asked):
                await asyncio.sleep(0)
                most = max(most, len(resolver._workers))
            assert [future.result() for future in asked] == [IMS_AT] * 1000
            assert most == 20
            assert not resolver._workers
            assert not resolver._pending

    run(body())


def test_who_gives_up_waiting_does_not_end_the_look_up_for_others(run: Run[Any]) -> None:
    async def body() -> None:
        async with fake(record_answer(IMS)) as server:
            server.delay = 0.05
            resolver = Resolver(ask(server.server, timeout=5))
            impatient = asyncio.ensure_future(resolver.servers(HOME))
            patient = asyncio.ensure_future(resolver.servers(HOME))
            await asyncio.sleep(0.01)
            impatient.cancel()
            assert await patient == IMS_AT
            assert impatient.cancelled()

    run(body())


def test_closing_ends_what_is_under_way_and_what_waits_for_its_turn(run: Run[Any]) -> None:
    homes = [parse_address(f"10.1.0.{i}") for i in range(5)]

    async def body() -> None:
        async with fake(silence) as server:
            resolver = Resolver(ask(server.server, timeout=30, concurrency=2))
            asked = [asyncio.ensure_future(resolver.servers(home)) for home in homes]
            await asyncio.sleep(0.01)
            await resolver.close()
            assert await asyncio.gather(*asked) == [NotFound.FAILED] * 5

    run(body())


# ---- servers that fail -------------------------------------------------------------------------


def test_when_a_server_is_silent_the_next_is_asked_and_from_then_on_first(run: Run[Any]) -> None:
    async def body() -> None:
        async with fake(silence) as dead, serving(lab(("10.1.0.0/16", IMS))) as alive:
            resolver = Resolver(ask(dead.server, alive))
            assert await resolver.servers(HOME) == IMS_AT
            assert await resolver.servers(parse_address("10.1.0.6")) == IMS_AT
            assert len(dead.seen) == 1
            assert (resolver.counters.queries, resolver.counters.timeouts) == (3, 1)

    run(body())


def test_a_silent_server_is_asked_as_often_as_configured(run: Run[Any]) -> None:
    async def body() -> None:
        async with fake(silence) as one, fake(silence) as other:
            resolver = Resolver(ask(one.server, other.server, timeout=0.05, attempts=3))
            assert await resolver.servers(HOME) is NotFound.FAILED
            assert len(one.seen) == len(other.seen) == 3
            counters = resolver.counters
            assert (counters.queries, counters.timeouts, counters.failures) == (6, 6, 1)

    run(body())


def test_a_port_that_nobody_listens_on_is_not_waited_for(run: Run[Any]) -> None:
    async def body() -> None:
        resolver = Resolver(ask(("127.0.0.1", free_port()), timeout=10))
        assert await resolver.servers(HOME) is NotFound.FAILED
        assert resolver.counters.timeouts == 0

    run(body())


@pytest.mark.parametrize("rcode", [Rcode.SERVFAIL, Rcode.REFUSED, Rcode.NOTIMP, Rcode.FORMERR])
def test_when_a_server_answers_with_an_error_the_next_is_asked(rcode: Rcode, run: Run[Any]) -> None:
    async def body() -> None:
        async with fake(code(rcode)) as bad, serving(lab(("10.1.0.5", IMS))) as good:
            resolver = Resolver(ask(bad.server, good, attempts=2))
            assert await resolver.servers(HOME) == IMS_AT
            assert len(bad.seen) == 1
            with pytest.raises(ResolutionError, match=rcode.name):
                await Resolver(ask(bad.server, attempts=3)).locate(HOME)
            assert len(bad.seen) == 2

    run(body())


def referral(question: bytes) -> Iterable[bytes]:
    made = answer_to(question)
    made.flags &= ~(Flag.AA | Flag.RA)
    made.authority.append(dns.rrset.from_text(ZONE + ".", 300, "IN", "NS", "ns.test."))
    return [made.to_wire()]


def test_a_referral_is_no_answer(run: Run[Any]) -> None:
    async def body() -> None:
        async with fake(referral) as bad, serving(lab(("10.1.0.5", IMS))) as good:
            assert await Resolver(ask(bad.server, good)).servers(HOME) == IMS_AT
            assert await Resolver(ask(bad.server)).servers(HOME) is NotFound.FAILED

    run(body())


def test_aliases_in_a_circle_are_a_failure(run: Run[Any]) -> None:
    async def body() -> None:
        async with fake(alias_answer("5.0.1.10.in-addr.arpa.")) as server:
            assert await Resolver(ask(server.server)).servers(HOME) is NotFound.FAILED
        names = (f"x{i}.test." for i in itertools.count())

        def one_more(question: bytes) -> Iterable[bytes]:
            return alias_answer(next(names))(question)

        async with fake(one_more) as server:
            assert await Resolver(ask(server.server)).servers(HOME) is NotFound.FAILED
            assert len(server.seen) == 8

    run(body())


def test_an_alias_into_another_zone_is_asked_for_there(run: Run[Any]) -> None:
    """The first answer ends with the alias, and names only the alias's own zone."""

    def respond(question: bytes) -> Iterable[bytes]:
        made = answer_to(question)
        name = made.question[0].name
        if str(name) == "ims.test.":
            return record_answer(IMS)(question)
        made.answer.append(dns.rrset.from_text(name, 300, "IN", "CNAME", "ims.test."))
        text = "localhost. hostmaster.localhost. 1 3600 600 86400 20"
        made.authority.append(dns.rrset.from_text(ZONE + ".", 50, "IN", "SOA", text))
        return [made.to_wire()]

    async def body() -> None:
        async with fake(respond) as server:
            assert await Resolver(ask(server.server)).servers(HOME) == IMS_AT

    run(body())


# ---- garbage -----------------------------------------------------------------------------------

FORGED = record("203.0.113.66")


def wrong_id(question: bytes) -> bytes:
    (good,) = record_answer(FORGED)(question)
    return bytes((good[0] ^ 1,)) + good[1:]


def wrong_question(question: bytes) -> bytes:
    other = dns.message.make_query("6.0.1.10.in-addr.arpa.", "TYPE65338")
    other.id = int.from_bytes(question[:2])
    (good,) = record_answer(FORGED)(other.to_wire())
    return good


def no_answer_at_all(question: bytes) -> bytes:
    return question


def cut_off(question: bytes) -> bytes:
    (good,) = record_answer(FORGED)(question)
    return good[:-3]


def random_bytes(_: bytes) -> bytes:
    return bytes(range(7, 77))


GARBAGE = [wrong_id, wrong_question, no_answer_at_all, cut_off, random_bytes]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_before_the_answer_is_passed_over(
    garbage: Callable[[bytes], bytes], run: Run[Any]
) -> None:
    async def body() -> None:
        async with fake(lambda q: [garbage(q), *record_answer(IMS)(q)]) as server:
            assert await Resolver(ask(server.server)).servers(HOME) == IMS_AT

    run(body())


@pytest.mark.parametrize("garbage", GARBAGE)
def test_nothing_but_garbage_is_a_failure(garbage: Callable[[bytes], bytes], run: Run[Any]) -> None:
    async def body() -> None:
        async with fake(lambda q: [garbage(q)]) as server:
            assert await Resolver(ask(server.server)).servers(HOME) is NotFound.FAILED

    run(body())


def test_another_network_means_other_servers_asked_from_another_address(run: Run[Any]) -> None:
    async def body() -> None:
        async with fake(silence) as former, fake(record_answer(IMS)) as here:
            resolver = Resolver(ask(former.server))
            assert await resolver.servers(HOME) is NotFound.FAILED
            resolver.use_servers((here.server,), ("::1", "127.0.0.7"))
            # That the former server was silent says nothing of this one.
            assert await resolver.servers(HOME) == IMS_AT
            assert [host for host, _ in here.places] == ["127.0.0.7"]

    run(body())


def test_an_answer_from_another_socket_is_not_taken(run: Run[Any]) -> None:
    async def body() -> None:
        async with fake(silence) as asked, fake(silence) as stranger:

            def answer_from_elsewhere(question: bytes) -> Iterable[bytes]:
                stranger.send(list(record_answer(FORGED)(question)), asked.places[-1])
                return ()

            asked.respond = answer_from_elsewhere
            assert await Resolver(ask(asked.server)).servers(HOME) is NotFound.FAILED

    run(body())


def truncated(question: bytes) -> Iterable[bytes]:
    made = answer_to(question)
    made.flags |= Flag.TC
    return [made.to_wire()]


def framed(answer: bytes) -> bytes:
    return len(answer).to_bytes(2) + answer


@pytest.mark.parametrize(
    "stream",
    [
        lambda _: b"",
        lambda _: b"\x00",
        lambda _: b"\xff\xffshort",
        lambda question: framed(wrong_id(question)),
        lambda question: framed(wrong_question(question)),
        lambda question: framed(cut_off(question)),
        lambda question: framed(random_bytes(question)),
    ],
)
def test_garbage_over_tcp_is_a_failure_and_the_next_server_is_asked(
    stream: Callable[[bytes], bytes], run: Run[Any]
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        writer.write(stream(question))
        writer.close()
        await writer.wait_closed()

    async def body() -> None:
        port = free_port()
        listener = await asyncio.start_server(serve, "127.0.0.1", port)
        async with fake(truncated, port) as bad, serving(lab(("10.1.0.5", IMS))) as good:
            assert await Resolver(ask(bad.server, timeout=5)).servers(HOME) is NotFound.FAILED
            assert await Resolver(ask(bad.server, good, timeout=5)).servers(HOME) == IMS_AT
        listener.close()

    run(body())


def test_silence_over_tcp_is_waited_for_as_long_as_over_udp(run: Run[Any]) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()
        over.set()

    over = asyncio.Event()

    async def body() -> None:
        port = free_port()
        listener = await asyncio.start_server(serve, "127.0.0.1", port)
        async with fake(truncated, port) as bad:
            resolver = Resolver(ask(bad.server, timeout=0.1))
            assert await resolver.servers(HOME) is NotFound.FAILED
            assert resolver.counters.timeouts == 1
            await over.wait()
        listener.close()

    run(body())


def test_every_question_has_a_port_and_an_id_of_its_own(run: Run[Any]) -> None:
    homes = [parse_address(f"10.1.0.{i}") for i in range(50)]

    async def body() -> None:
        async with fake(record_answer(IMS)) as server:
            server.delay = 0.05
            resolver = Resolver(ask(server.server, timeout=5))
            await asyncio.gather(*map(resolver.servers, homes))
            assert len(set(server.places)) == 50
            assert len({question[:2] for question in server.seen}) > 40

    run(body())


@settings(max_examples=60)
@given(st.binary(max_size=200), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255))))
def test_whatever_comes_back_nothing_escapes(tail: bytes, changes: list[tuple[int, int]]) -> None:
    """A header that fits with anything behind it; and an answer with some octets changed."""

    def respond(question: bytes) -> Iterable[bytes]:
        (good,) = record_answer(IMS)(question)
        changed = bytearray(good)
        for at, octet in changes:
            changed[2 + at % (len(good) - 2)] = octet
        return [good[:12] + tail, bytes(changed)]

    async def body() -> None:
        async with fake(respond) as server:
            with contextlib.suppress(ResolutionError):
                await Resolver(ask(server.server, timeout=0.02)).locate(HOME)

    asyncio.run(body())


def test_a_name_of_odd_characters_is_asked_for_as_it_is(run: Run[Any]) -> None:
    """A backslash or a quote means something in the text of a name, and nothing in the DNS."""
    odd = ImsRecord(10, 49628, name='a\\.b"(;@$.test.')
    asked: list[dns.name.Name] = []

    def respond(question: bytes) -> Iterable[bytes]:
        query = dns.message.from_wire(question)
        if query.question[0].rdtype == dns.rdatatype.RdataType.make(65338):
            return record_answer(odd)(question)
        asked.append(query.question[0].name)
        return code(Rcode.NXDOMAIN)(question)

    async def body() -> None:
        async with fake(respond) as server:
            with pytest.raises(ResolutionError, match="leads to an address"):
                await Resolver(ask(server.server)).locate(HOME)
        assert asked == [dns.name.Name([b"a\\", b'b"(;@$', b"test", b""])] * 2

    run(body())


def test_no_more_names_are_looked_up_than_anybody_needs(run: Run[Any]) -> None:
    """Else one look-up could be made to cause thousands (CVE-2020-12662)."""
    records = [ImsRecord(i, 49628, name=f"n{i}.test.") for i in range(20)]

    async def body() -> None:
        lookups = Responder([ZONE, "test"], [("10.1.0.5", r) for r in records])
        async with serving(lookups) as server:
            resolver = Resolver(ask(server))
            assert await resolver.servers(HOME) is NotFound.FAILED
            assert resolver.counters.queries == 1 + 2 * 8

    run(body())


# ---- configuration -----------------------------------------------------------------------------


def test_without_servers_those_of_the_system_are_read(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("# comment\nsearch test\nnameserver 192.0.2.53\nnameserver 2001:db8::53\n")
    assert system_servers(path) == (("192.0.2.53", 53), ("2001:db8::53", 53))


@pytest.mark.parametrize("text", ["", "nameserver\n", "nameserver localhost\n"])
def test_a_system_without_servers_is_an_error_that_says_so(text: str, tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(text)
    with pytest.raises(DnsError, match=f"{path}: no DNS server"):
        system_servers(path)


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("192.0.2.53", ("192.0.2.53", 53)),
        ("192.0.2.53:5353", ("192.0.2.53", 5353)),
        ("2001:db8::53", ("2001:db8::53", 53)),
        ("[2001:db8::53]", ("2001:db8::53", 53)),
        ("[2001:db8::53]:5353", ("2001:db8::53", 5353)),
    ],
)
def test_a_server_is_an_address_with_or_without_a_port(text: str, server: Server) -> None:
    assert parse_server(text) == server
    assert parse_server(format_server(server)) == server


@pytest.mark.parametrize(
    "text",
    ["", "ns.test", "192.0.2.53:", "192.0.2.53:0", "192.0.2.53:65536", "[::1]x", "[::1", "1"],
)
def test_anything_else_is_no_server(text: str) -> None:
    with pytest.raises(ValueError, match=r"needed|port"):
        parse_server(text)


@pytest.mark.parametrize(
    "fields",
    [
        {"servers": (("ns.test", 53),)},
        {"servers": (("192.0.2.53", 0),)},
        {"timeout": 0.0},
        {"attempts": 0},
        {"cache_limit": 0},
        {"concurrency": 0},
        {"minimum_ttl": 10.0, "maximum_ttl": 5.0},
        {"negative_ttl": 61.0},
        {"dnssec": "validate"},
        {"trust_anchors": ("10.in-addr.arpa. IN A 192.0.2.1",)},
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"port|must|needs|address|anchor"):
        ResolverConfig(**fields)
