"""Dynamic update with TSIG against real BIND and Knot, and NSD, which does none."""

import asyncio
import base64
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import dns.message
import dns.query
import dns.rcode
import pytest
from dns.rcode import Rcode

from mat.address import parse_address
from mat.ims_record import record
from mat_real.dns import (
    Absent,
    DnsError,
    Key,
    Located,
    Published,
    Resolver,
    ResolverConfig,
    Responder,
    Server,
    publish,
    read_key,
    read_secret,
)
from tests.real.dns_fakes import proxy, serving
from tests.real.dns_servers import (
    HOST,
    IPV4_HOME,
    IPV4_ZONE,
    IPV6_HOME,
    IPV6_ZONE,
    RECORDS,
    Zones,
    bind,
    both_zones,
    free_port,
    knot,
    nsd,
    require,
    zone_text,
)

SECRET: Final = base64.b64encode(bytes(range(32))).decode()
HOME: Final = parse_address(IPV4_HOME)
ONE, TWO = record("192.0.2.77"), record("192.0.2.88", precedence=20)
SIX: Final = record("2001:db8::77")

BIND_KEYS: Final = f"""
key "ims" {{ algorithm hmac-sha256; secret "{SECRET}"; }};
key "strict" {{ algorithm hmac-sha512; secret "{SECRET}"; }};
"""
KNOT_KEYS: Final = f"""
key:
  - id: ims
    algorithm: hmac-sha256
    secret: {SECRET}
  - id: strict
    algorithm: hmac-sha512
    secret: {SECRET}
acl:
  - id: update
    key: ims
    action: update
"""
WILDCARD: Final = r"IN TYPE65338 \# 8 0a01c1dcc0000209"
OF_WILDCARD: Final = record("192.0.2.9")
ZONES: Final = {
    IPV4_ZONE: zone_text(
        *(IPV4_ZONE, "5.0 PTR node.test.", "65.0 CNAME 65.64/26.0", "64/26.0 NS localhost."),
        *(f"* {WILDCARD}", f"*.8 {WILDCARD}", "5.6 PTR node.test."),
    ),
    IPV6_ZONE: zone_text(IPV6_ZONE, RECORDS[IPV6_ZONE], f"*.f {WILDCARD}"),
    f"64/26.0.{IPV4_ZONE}": zone_text(f"64/26.0.{IPV4_ZONE}"),
}


@pytest.fixture(scope="module", params=["bind", "knot"])
def primary(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp(request.param)
    if request.param == "bind":
        zones = Zones(ZONES, extra="update-policy { grant ims zonesub ANY; };", top=BIND_KEYS)
        with bind(directory, zones) as server:
            yield server
    else:
        with knot(directory, Zones(ZONES, extra="    acl: update\n", top=KNOT_KEYS)) as server:
            yield server


def key(name: str = "ims", secret: bytes = bytes(range(32)), algorithm: str = "hmac-sha256") -> Key:
    return Key(name, secret, algorithm)


def put(home: str, *records: Any, server: Server, **more: Any) -> Published:
    more.setdefault("key", key())
    return asyncio.run(publish(parse_address(home), records, server=server, **more))


def locate(home: str, server: Server) -> Located | Absent:
    return asyncio.run(Resolver(ResolverConfig(servers=(server,))).locate(parse_address(home)))


# ---- what is served afterwards -----------------------------------------------------------------


@pytest.mark.parametrize(("home", "new"), [(IPV4_HOME, ONE), (IPV6_HOME, SIX)])
def test_a_record_is_set_replaced_and_deleted(home: str, new: Any, primary: Server) -> None:
    outcome = put(home, new, TWO, server=primary, ttl=77)
    assert set(outcome.records) == {new, TWO}
    assert (outcome.ttl, outcome.server) == (77, primary)
    assert outcome.zone == (IPV6_ZONE if ":" in home else IPV4_ZONE) + "."
    found = locate(home, primary)
    assert isinstance(found, Located)
    assert [r for r, _ in found.records] == [new, TWO]
    assert found.ttl == 77

    assert put(home, TWO, server=primary).records == (TWO,)
    found = locate(home, primary)
    assert isinstance(found, Located)
    assert [r for r, _ in found.records] == [TWO]

    outcome = put(home, server=primary)
    assert (outcome.records, outcome.ttl) == ((), 0)
    assert isinstance(locate(home, primary), Absent)


def test_other_types_at_the_name_stay(primary: Server) -> None:
    put(IPV4_HOME, ONE, server=primary)
    put(IPV4_HOME, server=primary)
    query = dns.message.make_query("5.0.1.10.in-addr.arpa.", "PTR")
    (rrset,) = dns.query.udp(query, primary[0], port=primary[1], timeout=10).answer
    assert [rdata.to_text() for rdata in rrset] == ["node.test."]


def test_behind_an_alias_the_record_goes_where_it_leads(primary: Server) -> None:
    outcome = put("10.1.0.65", ONE, server=primary)
    assert outcome.name == "65.64/26.0.1.10.in-addr.arpa."
    assert outcome.zone == "64/26.0.1.10.in-addr.arpa."
    found = locate("10.1.0.65", primary)
    assert isinstance(found, Located)
    assert [r for r, _ in found.records] == [ONE]


def test_the_zone_can_be_named(primary: Server) -> None:
    assert put(IPV4_HOME, ONE, server=primary, zone=IPV4_ZONE).records == (ONE,)


# ---- wildcards ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("home", "neighbours", "uncovered"),
    [
        ("10.1.9.5", ["10.1.9.6"], f"9.{IPV4_ZONE}."),
        (
            "2001:db8:1:f123::5",
            ["2001:db8:1:f123::6", "2001:db8:1:f1ff::1"],
            f"1.f.{IPV6_ZONE}.",
        ),
    ],
)
def test_what_a_record_takes_from_a_wildcard_is_found_out_and_given_back(
    home: str, neighbours: list[str], uncovered: str, primary: Server
) -> None:
    assert all(isinstance(locate(near, primary), Located) for near in neighbours)
    assert put(home, ONE, server=primary).uncovered == uncovered
    assert all(isinstance(locate(near, primary), Absent) for near in neighbours)
    assert put(home, TWO, server=primary).uncovered == "", "it took nothing more"
    outcome = put(home, server=primary)
    assert (outcome.wildcard, outcome.records, outcome.ttl) == (True, (OF_WILDCARD,), 300)
    assert all(isinstance(locate(near, primary), Located) for near in neighbours)


@pytest.mark.parametrize(
    "home",
    [
        pytest.param("10.1.8.5", id="a wildcard for its parent"),
        pytest.param("10.1.6.9", id="no wildcard answers there"),
    ],
)
def test_a_record_that_takes_nothing_from_a_wildcard_is_not_said_to(
    home: str, primary: Server
) -> None:
    assert put(home, ONE, server=primary).uncovered == ""
    put(home, server=primary)


def test_a_deleted_record_is_gone_even_if_it_was_as_the_wildcards(primary: Server) -> None:
    put("10.1.8.5", OF_WILDCARD, server=primary)
    assert put("10.1.8.5", server=primary).wildcard
    assert put("10.1.8.5", server=primary).wildcard, "there was none"


# ---- inline signing ----------------------------------------------------------------------------


def test_a_server_that_signs_before_it_serves_is_given_time(tmp_path: Path) -> None:
    """Many updates at a time, so that most are served only after a first look."""

    async def body(server: Server) -> None:
        homes = [parse_address(f"10.1.7.{last}") for last in range(1, 51)]
        for records in ([ONE], []):
            updates = (publish(home, records, key=key(), server=server) for home in homes)
            outcomes = await asyncio.gather(*updates)
            assert {outcome.records for outcome in outcomes} == {tuple(records)}

    extra = "dnssec-policy default; inline-signing yes; update-policy { grant ims zonesub ANY; };"
    texts = {IPV4_ZONE: zone_text(IPV4_ZONE)}
    with bind(tmp_path, Zones(texts, extra=extra, top=BIND_KEYS)) as server:
        asyncio.run(body(server))


# ---- what goes wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (key(secret=bytes(32)), r"BADSIG: its secret for this key is another one"),
        (key(name="nobody"), r"BADKEY: it knows no key of this name and algorithm"),
        (key(algorithm="hmac-sha512"), r"BADKEY: it knows no key of this name"),
        (
            key(name="strict", algorithm="hmac-sha512"),
            r"(REFUSED: it refuses updates of this zone|BADKEY: .* Knot says so too of a key)",
        ),
    ],
)
def test_a_key_that_the_server_does_not_take_is_explained(
    wrong: Key, reason: str, primary: Server
) -> None:
    before = locate(IPV6_HOME, primary)
    with pytest.raises(DnsError, match=reason):
        put(IPV6_HOME, SIX, server=primary, key=wrong)
    after = locate(IPV6_HOME, primary)
    assert type(before) is type(after)


def test_a_name_outside_the_zone_is_explained(primary: Server) -> None:
    with pytest.raises(DnsError, match="NOTZONE: the name does not lie in the zone"):
        put(IPV4_HOME, ONE, server=primary, zone=IPV6_ZONE)


def test_a_zone_that_the_server_does_not_have_is_explained(primary: Server) -> None:
    with pytest.raises(DnsError, match="NOTAUTH: it is not authoritative for the zone"):
        put(IPV4_HOME, ONE, server=primary, zone="10.in-addr.arpa")
    with pytest.raises(DnsError, match=r"REFUSED; --zone and --server say which zone"):
        put("10.99.0.5", ONE, server=primary)


def test_a_server_without_dynamic_update_is_explained(tmp_path: Path) -> None:
    with nsd(tmp_path, Zones(both_zones())) as server, pytest.raises(DnsError) as raised:
        put(IPV4_HOME, ONE, server=server)
    assert "does no dynamic updates (NSD never does)" in str(raised.value)


def test_a_server_that_is_not_there_is_explained() -> None:
    nowhere = (HOST, free_port())
    config = ResolverConfig(servers=(nowhere,), timeout=1, attempts=1)
    with pytest.raises(DnsError, match=r"cannot be reached .*--zone and --server"):
        asyncio.run(publish(HOME, [ONE], key=key(), config=config))


def test_without_a_server_the_update_goes_to_the_primary_that_the_zone_names() -> None:
    """Nobody listens there; what counts is where the update would have gone."""

    async def body() -> None:
        there = [("localhost", parse_address("127.0.0.253"))]
        async with serving(Responder([IPV4_ZONE, "localhost"], hosts=there)) as server:
            config = ResolverConfig(servers=(server,), timeout=1)
            with pytest.raises(DnsError, match=r"^127\.0\.0\.253:53, zone 1\.10\.in-addr\.arpa\."):
                await publish(HOME, [ONE], key=key(), config=config)

    asyncio.run(body())


@dataclass
class Liar:
    """A server that answers questions like a zone's primary, and updates as told."""

    code: Rcode = Rcode.NOERROR
    tsig_error: int = 0
    key: Key | None = field(default_factory=key)
    silent: bool = False
    confused: bool = False
    finished: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        finally:
            writer.close()
            await writer.wait_closed()
            self.finished.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        update = dns.message.from_wire(wire, keyring=key())
        made = dns.message.make_response(update, tsig_error=self.tsig_error)
        made.set_rcode(self.code)
        if self.key is None:
            made.tsig = None
        elif self.tsig_error == 0:
            made.use_tsig(self.key)
        if self.confused:
            made.id ^= 1
        if not self.silent:
            writer.write(made.to_wire(prepend_length=True))
            await writer.drain()
        await reader.read()


@pytest.mark.parametrize(
    ("liar", "reason"),
    [
        (Liar(tsig_error=dns.rcode.BADTIME), "BADTIME: its clock and this host's differ"),
        (Liar(tsig_error=dns.rcode.BADTRUNC), "BADTRUNC: it wants the whole MAC"),
        (Liar(code=Rcode.SERVFAIL), "SERVFAIL: it could not carry out the update"),
        (Liar(code=Rcode.NXRRSET), "NXRRSET: see its log"),
        (Liar(key=None), "it is not signed, so anybody may have made it"),
        (Liar(key=key(secret=bytes(32))), "its answer is signed with another secret"),
        (Liar(confused=True), "it answers another question"),
        (Liar(silent=True), r"no answer within 0\.2 s; check --server"),
        (Liar(), r"accepted the update, but serves \['10 49628 192\.0\.2\.1 192\.0\.2\.2'\]"),
    ],
)
def test_what_a_server_answers_to_an_update_is_checked(
    liar: Liar, reason: str, tmp_path: Path
) -> None:
    """Questions go to a real server by UDP, the update, by TCP, to one that lies."""

    async def body(real: Server) -> None:
        async with proxy(real, lambda message: message, free_port()) as front:
            updates = await asyncio.start_server(liar.serve, *front)
            config = ResolverConfig(servers=(front,), timeout=0.2)
            with pytest.raises(DnsError, match=reason):
                await publish(HOME, [ONE], key=key(), server=front, config=config)
            await liar.finished.wait()
            updates.close()

    with bind(tmp_path, Zones(both_zones())) as server:
        asyncio.run(body(server))


# ---- keys --------------------------------------------------------------------------------------


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        f'key "ims.test" {{\n\talgorithm hmac-sha256;\n\tsecret "{SECRET}";\n}};\n',
        f"key ims.test. {{ secret {SECRET}; algorithm HMAC-SHA256; }};",
        f"""// key "no" {{
        # key "no" {{
        /* key "no" {{ */ key "ims.test"
        {{ algorithm hmac-sha256.; secret "{SECRET}"; }}""",
    ],
)
def test_a_key_file_is_read_as_bind_reads_it(text: str, tmp_path: Path) -> None:
    assert read_key(written(tmp_path / "key", text)) == key("ims.test")


def test_a_secret_with_slashes_is_no_comment(tmp_path: Path) -> None:
    secret = base64.b64encode(b"\xff" * 33).decode()
    text = f'key "a" {{ algorithm hmac-sha256; secret "{secret}"; }};'
    assert read_key(written(tmp_path / "key", text)).secret == b"\xff" * 33


def test_what_tsig_keygen_writes_is_read(tmp_path: Path) -> None:
    require("tsig-keygen")
    for algorithm in ("hmac-sha256", "hmac-sha512"):
        command = ["tsig-keygen", "-a", algorithm, "ims-key"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = read_key(written(tmp_path / "key", text))
        assert (str(found.name), str(found.algorithm)) == ("ims-key.", algorithm + ".")


def test_a_secret_can_stand_alone(tmp_path: Path) -> None:
    path = written(tmp_path / "secret", SECRET[:20] + "\n" + SECRET[20:] + "\n")
    assert read_secret(path, "ims", "hmac-sha256") == key()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "0 keys; one is needed"),
        (SECRET, "0 keys; one is needed"),
        ('key "a" { } key "b" { }', "2 keys; one is needed"),
        ('key "a" { };', "key a without algorithm and secret"),
        ('key "a" { algorithm hmac-sha256; };', "key a without secret"),
        (f'key "a" {{ algorithm hmac-md5; secret "{SECRET}"; }};', "algorithm 'hmac-md5'; there"),
        ('key "a" { algorithm hmac-sha256; secret "c2Vj?cmV0"; };', "the secret is not Base64"),
        ('key "a" { algorithm hmac-sha256; secret ""; };', "the secret is not Base64"),
        (f'key "a..b" {{ algorithm hmac-sha256; secret "{SECRET}"; }};', "key name 'a..b'"),
        ("é", "byte 0 is not ASCII"),
    ],
)
def test_what_is_no_key_is_named_without_its_secret(text: str, reason: str, tmp_path: Path) -> None:
    path = written(tmp_path / "key", text)
    with pytest.raises(DnsError) as raised:
        read_key(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert reason in str(raised.value)
    assert SECRET not in str(raised.value)


def test_a_key_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DnsError, match="No such file or directory; name a readable key file"):
        read_key(tmp_path / "none")
