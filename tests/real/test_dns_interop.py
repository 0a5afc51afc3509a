"""The IMS record on BIND, NSD and Knot as Debian ships them, asked directly and through Unbound."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Final

import pytest

from mat.address import parse_address
from mat.effects import NotFound
from mat.ims_record import record
from mat.messages import Endpoint
from mat_real.dns import (
    Absent,
    Located,
    Resolver,
    ResolverConfig,
    Responder,
    Server,
    record_lines,
)
from tests.real.dns_fakes import serving
from tests.real.dns_servers import (
    IPV4_HOME,
    IPV4_ZONE,
    IPV6_HOME,
    IPV6_ZONE,
    Zones,
    bind,
    both_zones,
    knot,
    nsd,
    unbound,
    zone_text,
)

Starter = Callable[..., AbstractContextManager[Server]]

SERVERS: Final[dict[str, Starter]] = {"bind": bind, "nsd": nsd, "knot": knot}
MANY: Final = [record(f"2001:db8::{i:x}", precedence=i) for i in range(100)]

# RFC 2317: the owner of 10.1.0.64/26 has a zone of its own, and the octet's zone has aliases to it.
PART: Final = "64/26.0.1.10.in-addr.arpa"
CLASSLESS: Final = {
    IPV4_ZONE: zone_text(
        IPV4_ZONE,
        "65.0 CNAME 65.64/26.0",
        "66.0 CNAME 66.64/26.0",
        "67.0 CNAME 67.elsewhere.test.",
        "68.0 CNAME 68.64/26.0",
        "64/26.0 NS localhost.",
    ),
    PART: zone_text(PART, r"65 TYPE65338 \# 8 0a01c1dcc0000201", "68 PTR node.test."),
}
LARGE: Final = zone_text(
    IPV4_ZONE,
    *record_lines(parse_address("10.1.9.9"), MANY, 300),
    r"5.0 IN TYPE65338 \# 12 0a01c1dcc0000201c0000202",
)


@pytest.fixture(scope="module", params=SERVERS)
def primary(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Each authoritative server, with all zones of this module."""
    texts = {**both_zones(), **CLASSLESS, IPV4_ZONE: LARGE + _lines_of(CLASSLESS[IPV4_ZONE])}
    directory = tmp_path_factory.mktemp(request.param)
    with SERVERS[request.param](directory, Zones(texts)) as server:
        yield server


def _lines_of(text: str) -> str:
    return "".join(f"{line}\n" for line in text.splitlines()[4:])


@pytest.fixture(scope="module")
def recursive(primary: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Unbound, before each of them."""
    # The root too: it refuses what it does not have, so that nothing is waited for.
    stubs = {".": primary, IPV4_ZONE: primary, IPV6_ZONE: primary, PART: primary}
    with unbound(tmp_path_factory.mktemp("unbound"), stubs) as server:
        yield server


@pytest.fixture(params=["direct", "through unbound"])
def server(request: pytest.FixtureRequest, primary: Server, recursive: Server) -> Server:
    return primary if request.param == "direct" else recursive


def locate(server: Server, home: str) -> Located | Absent:
    resolver = Resolver(ResolverConfig(servers=(server,), timeout=10))
    return asyncio.run(resolver.locate(parse_address(home)))


def found(server: Server, home: str) -> Located:
    answer = locate(server, home)
    assert isinstance(answer, Located)
    return answer


def test_the_record_of_an_ipv4_home_address_is_found(server: Server) -> None:
    answer = found(server, IPV4_HOME)
    assert answer.servers == tuple(
        Endpoint(parse_address(a), 49628) for a in ("192.0.2.1", "192.0.2.2")
    )
    assert 0 < answer.ttl <= 300


def test_the_record_of_an_ipv6_home_address_is_found(server: Server) -> None:
    assert found(server, IPV6_HOME).servers == (Endpoint(parse_address("2001:db8::1"), 49628),)


@pytest.mark.parametrize("home", ["10.1.0.6", "10.1.77.6", "2001:db8:1::6"])
def test_a_home_address_without_a_record_is_not_a_mat_nodes(server: Server, home: str) -> None:
    answer = locate(server, home)
    assert isinstance(answer, Absent)
    assert 0 < answer.ttl <= 60


def test_a_set_too_large_for_udp_comes_over_tcp(server: Server) -> None:
    assert [r for r, _ in found(server, "10.1.9.9").records] == MANY


def test_the_alias_of_a_classless_delegation_is_followed(server: Server) -> None:
    answer = found(server, "10.1.0.65")
    assert answer.name == "65.64/26.0.1.10.in-addr.arpa."
    assert answer.servers == (Endpoint(parse_address("192.0.2.1"), 49628),)


def test_an_alias_to_a_name_without_a_record_is_a_host_without_mat(server: Server) -> None:
    answer = locate(server, "10.1.0.66")
    assert isinstance(answer, Absent)
    assert str(answer.name) == "66.64/26.0.1.10.in-addr.arpa."


@pytest.mark.parametrize("home", ["10.1.0.5", "10.1.0.6", "10.1.0.65", "10.1.0.66", "10.1.0.68"])
def test_a_recursive_server_is_asked_once(home: str, recursive: Server) -> None:
    """It follows aliases itself, and says of the last name what there is to say."""
    resolver = Resolver(ResolverConfig(servers=(recursive,), timeout=10))
    asyncio.run(resolver.servers(parse_address(home)))
    assert resolver.counters.queries == 1


def test_an_alias_that_leads_to_a_silent_zone_is_a_failure(server: Server) -> None:
    resolver = Resolver(ResolverConfig(servers=(server,), timeout=10))
    assert asyncio.run(resolver.servers(parse_address("10.1.0.67"))) is NotFound.FAILED


def test_unbound_takes_answers_of_the_embedded_responder(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Its aliases apart, which it does not serve, a whole laboratory of a million nodes."""
    homes = [f"10.{i}.{j}.{k}" for i, j, k in ((1, 0, 0), (1, 2, 3), (15, 255, 255))]

    async def body() -> None:
        lab = Responder(["10.in-addr.arpa"], [("10.0.0.0/12", record("192.0.2.1"))])
        async with serving(lab) as upstream:
            await asyncio.to_thread(_check, upstream)

    def _check(upstream: Server) -> None:
        stubs = {"10.in-addr.arpa": upstream}
        with unbound(tmp_path_factory.mktemp("unbound"), stubs) as server:
            for home in homes:
                assert found(server, home).servers == (Endpoint(parse_address("192.0.2.1"), 49628),)
            assert isinstance(locate(server, "10.16.0.1"), Absent)

    asyncio.run(body())
