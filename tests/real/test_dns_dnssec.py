"""DNSSEC: signed zones on real servers, validated here or by Unbound, and tampered with on the way.

The parent 10.in-addr.arpa is signed and is the trust anchor. Beneath it: a signed child (1), one
that is not signed (2), one whose signatures have expired (3), one whose keys are not those that the
parent vouches for (4), and another signed one (6).
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import dns.asyncquery
import dns.dnssec
import dns.message
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from dns.flags import Flag
from dns.message import Message
from dns.rcode import Rcode
from dns.rdtypes.ANY.DNSKEY import DNSKEY

from mat.address import Address, parse_address
from mat.effects import NotFound
from mat.mapping_table import Servers
from mat.messages import Endpoint
from mat_real.dns import (
    Absent,
    BogusError,
    DnsError,
    Located,
    Resolver,
    ResolverConfig,
    Server,
    parse_anchors,
    read_anchors,
)
from tests.real.dns_fakes import proxy
from tests.real.dns_servers import (
    Signed,
    Zones,
    bind,
    denials,
    digests,
    knot,
    nsd,
    sign,
    unbound,
    zone_text,
)

PARENT: Final = "10.in-addr.arpa"
CHILD, UNSIGNED, EXPIRED, STRANGE, OTHER = (f"{i}.{PARENT}" for i in (1, 2, 3, 4, 6))
NSEC: Final = ("-x",)
NSEC3: Final = ("-3", "ab12")
OPT_OUT: Final = ("-3", "-", "-A")
AGES_AGO: Final = ("-s", "20200101000000", "-e", "20200201000000")

HOME: Final = parse_address("10.1.0.5")
OWN, WILD = "TYPE65338 \\# 8 0a01c1dcc0000201", "TYPE65338 \\# 8 0a01c1dcc0000202"
LINES: Final = (
    f"5.0 {OWN}",
    f"*.3 {WILD}",
    f"9.3 {OWN}",
    "8.0 PTR node.test.",
    "x.7.0 TXT below",
    "*.4 TXT elsewhere",
    f"7.4 {OWN}",
    "65.0 CNAME 65.64/26.0",
    f"65.64/26.0 {OWN}",
    "66.0 CNAME 66.64/26.0",
    "67.0 CNAME 5.0.6.10.in-addr.arpa.",
    "68.0 CNAME 5.0.2.10.in-addr.arpa.",
    "*.6 CNAME 5.0",
    "128 NS localhost.",
)


def at(address: str) -> Servers:
    return (Endpoint(parse_address(address), 49628),)


@dataclass
class Tree:
    """The zones of this module, signed in one way."""

    zones: dict[str, str]
    anchors: tuple[str, ...]
    child: Signed


def make_tree(directory: Path, *options: str) -> Tree:
    child = sign(directory / "child", CHILD, zone_text(CHILD, *LINES), *options)
    unsigned = zone_text(UNSIGNED, f"5.0 {OWN}")
    expired = sign(
        directory / "expired", EXPIRED, zone_text(EXPIRED, f"5.0 {OWN}"), "-P", *AGES_AGO, *options
    )
    strange = sign(directory / "strange", STRANGE, zone_text(STRANGE, f"5.0 {OWN}"), *options)
    other = sign(directory / "other", OTHER, zone_text(OTHER, f"5.0 {OWN}"), *options)
    delegated = [f"{i} NS localhost." for i in (1, 2, 3, 4, 6)]
    digests = [line for zone in (child, expired, other) for line in zone.digests]
    digests += [line.replace(OTHER, STRANGE) for line in other.digests]
    parent = sign(directory / "parent", PARENT, zone_text(PARENT, *delegated, *digests), *options)
    texts = {
        PARENT: parent.text,
        CHILD: child.text,
        UNSIGNED: unsigned,
        EXPIRED: expired.text,
        STRANGE: strange.text,
        OTHER: other.text,
        f"128.{CHILD}": zone_text(f"128.{CHILD}", f"5 {OWN}"),
    }
    return Tree(texts, parent.digests, child)


@pytest.fixture(scope="module", params=["nsec", "nsec3"])
def tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    options = {"nsec": NSEC, "nsec3": NSEC3}[request.param]
    return make_tree(tmp_path_factory.mktemp("keys"), *options)


@pytest.fixture(scope="module", params=["bind", "nsd", "knot"])
def primary(
    request: pytest.FixtureRequest, tree: Tree, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    start = {"bind": bind, "nsd": nsd, "knot": knot}[request.param]
    with start(tmp_path_factory.mktemp(request.param), Zones(tree.zones)) as server:
        yield server


@pytest.fixture(scope="module")
def validating(
    primary: Server, tree: Tree, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Unbound, which validates."""
    stubs = dict.fromkeys([".", *tree.zones], primary)
    with unbound(tmp_path_factory.mktemp("unbound"), stubs, anchors=tree.anchors) as server:
        yield server


Mode = Literal["off", "ad", "validate"]


def ask(server: Server, mode: Mode, anchors: tuple[str, ...] = ()) -> Resolver:
    return Resolver(
        ResolverConfig(servers=(server,), timeout=10, dnssec=mode, trust_anchors=anchors)
    )


def answers(resolver: Resolver, homes: Iterable[str]) -> dict[str, Any]:
    """What a resolver says of home addresses: servers, or what else there is to say."""

    async def body() -> dict[str, Any]:
        return {home: await resolver.servers(parse_address(home)) for home in homes}

    return asyncio.run(body())


PROVED: Final[dict[str, Servers | NotFound]] = {
    "10.1.0.5": at("192.0.2.1"),
    "10.1.3.7": at("192.0.2.2"),  # from a wildcard
    "10.1.3.9": at("192.0.2.1"),  # beside it
    "10.1.0.65": at("192.0.2.1"),  # an alias
    "10.1.0.67": at("192.0.2.1"),  # an alias into another zone
    "10.1.6.1": at("192.0.2.1"),  # an alias from a wildcard
    "10.6.0.5": at("192.0.2.1"),
    "10.1.4.7": at("192.0.2.1"),
    "10.1.0.6": NotFound.NOT_MAT,  # no such name
    "10.1.200.6": NotFound.NOT_MAT,
    "10.7.0.1": NotFound.NOT_MAT,  # nor such a zone
    "10.1.0.8": NotFound.NOT_MAT,  # has another type
    "10.1.0.7": NotFound.NOT_MAT,  # has only names beneath
    "10.1.4.1": NotFound.NOT_MAT,  # from a wildcard with another type
    "10.1.0.66": NotFound.NOT_MAT,  # an alias of nothing
}
UNPROVED: Final[dict[str, NotFound]] = {
    "10.2.0.5": NotFound.FAILED,  # not signed
    "10.2.0.6": NotFound.FAILED,
    "10.1.128.5": NotFound.FAILED,
    "10.1.0.68": NotFound.FAILED,  # an alias to what is not signed
    "10.3.0.5": NotFound.FAILED,  # expired
    "10.4.0.5": NotFound.FAILED,  # other keys
}


def test_what_is_signed_is_believed_and_what_is_not_is_refused(primary: Server, tree: Tree) -> None:
    resolver = ask(primary, "validate", tree.anchors)
    expected = PROVED | UNPROVED
    assert answers(resolver, expected) == expected
    assert resolver.counters.bogus == resolver.counters.failures == len(UNPROVED)


def test_the_same_holds_behind_a_validating_server(validating: Server, tree: Tree) -> None:
    expected = PROVED | UNPROVED
    assert answers(ask(validating, "validate", tree.anchors), expected) == expected


def test_the_bit_of_a_validating_server_is_believed(validating: Server) -> None:
    expected = PROVED | UNPROVED
    resolver = ask(validating, "ad")
    assert answers(resolver, expected) == expected
    # Those that Unbound found forged it does not answer at all; of the others it sets no bit.
    assert resolver.counters.bogus == 4
    assert resolver.counters.failures == len(UNPROVED)


def test_without_the_bit_nothing_is_believed(primary: Server) -> None:
    expected = dict.fromkeys(("10.1.0.5", "10.1.0.6", "10.1.0.65"), NotFound.FAILED)
    resolver = ask(primary, "ad")
    assert answers(resolver, expected) == expected
    assert resolver.counters.bogus == 3


def test_keys_are_asked_for_once_and_shared(primary: Server, tree: Tree) -> None:
    async def body() -> None:
        resolver = ask(primary, "validate", tree.anchors)
        homes = [parse_address(f"10.1.3.{i}") for i in range(100)]
        found = await asyncio.gather(*map(resolver.servers, homes))
        assert {at("192.0.2.1"), at("192.0.2.2")} == set(found)
        # DNSKEY of both zones, and the DS set between them.
        assert resolver.counters.queries == 100 + 3

    asyncio.run(body())


# ---- one tree is enough for the rest -----------------------------------------------------------


@pytest.fixture(scope="module", params=["nsec", "nsec3"])
def setting(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Tree]]:
    options = {"nsec": NSEC, "nsec3": NSEC3}[request.param]
    tree = make_tree(tmp_path_factory.mktemp("keys"), *options)
    with bind(tmp_path_factory.mktemp("bind"), Zones(tree.zones)) as server:
        yield server, tree


def locate(
    server: Server,
    tree: Tree,
    alter: Callable[[Message], Message] = lambda message: message,
    home: Address = HOME,
    anchors: tuple[str, ...] | None = None,
) -> Located | Absent:
    """Look a home address up with validation, and with somebody on the path."""

    async def body() -> Located | Absent:
        async with asyncio.timeout(60), proxy(server, alter) as middle:
            trusted = tree.anchors if anchors is None else anchors
            return await ask(middle, "validate", trusted).locate(home)

    return asyncio.run(body())


def test_a_chain_may_begin_at_the_zone_itself(setting: tuple[Server, Tree]) -> None:
    server, tree = setting
    found = locate(server, tree, anchors=tree.child.digests)
    assert isinstance(found, Located)
    assert found.servers == at("192.0.2.1")


def test_a_chain_may_begin_at_a_key(setting: tuple[Server, Tree]) -> None:
    server, tree = setting
    keys = [line for line in tree.child.text.splitlines() if "DNSKEY" in line]
    assert keys or "DNSKEY" in tree.child.text
    rrset = asyncio.run(fetch(server, CHILD, "DNSKEY")).answer[0]
    lines = tuple(f"{CHILD}. IN DNSKEY {rdata.to_text()}" for rdata in rrset)
    assert isinstance(locate(server, tree, anchors=lines), Located)


def test_outside_the_trust_anchors_nothing_is_believed(setting: tuple[Server, Tree]) -> None:
    server, tree = setting
    elsewhere = tuple(line.replace(PARENT, "11.in-addr.arpa") for line in tree.anchors)
    with pytest.raises(BogusError, match="no trust anchor at or above"):
        locate(server, tree, anchors=elsewhere)


def test_a_trust_anchor_of_another_key_is_of_no_use(setting: tuple[Server, Tree]) -> None:
    server, tree = setting
    wrong = tuple(line.replace(CHILD, PARENT) for line in tree.child.digests)
    with pytest.raises(BogusError, match="no key that its DS record or trust anchor vouches for"):
        locate(server, tree, anchors=wrong)


async def fetch(server: Server, name: str, rdtype: str) -> Message:
    """An answer as the server gives it to who validates."""
    query = dns.message.make_query(name, rdtype, want_dnssec=True, flags=Flag.RD | Flag.CD)
    return await dns.asyncquery.tcp(query, server[0], port=server[1])


# ---- forgery -----------------------------------------------------------------------------------


def asks_for_ims(message: Message) -> bool:
    return dns.rdatatype.to_text(message.question[0].rdtype) == "TYPE65338"


def other_address(message: Message) -> Message:
    """The record leads to the attacker."""
    if asks_for_ims(message):
        rrset = message.answer[0]
        forged = bytes.fromhex("0a01c1dccb007142")
        rdata = dns.rdata.from_wire(rrset.rdclass, rrset.rdtype, forged, 0, len(forged))
        message.answer[0] = dns.rrset.from_rdata(rrset.name, rrset.ttl, rdata)
    return message


def no_signatures(message: Message) -> Message:
    message.answer = [r for r in message.answer if r.rdtype != dns.rdatatype.RRSIG]
    return message


def no_such_name(message: Message) -> Message:
    """The record is kept back, without a proof that there is none."""
    if asks_for_ims(message):
        message.answer = []
        message.set_rcode(Rcode.NXDOMAIN)
        authority = "localhost. hostmaster.localhost. 1 3600 600 86400 60"
        message.authority = [dns.rrset.from_text(CHILD + ".", 60, "IN", "SOA", authority)]
    return message


def no_keys(message: Message) -> Message:
    if message.question[0].rdtype == dns.rdatatype.DNSKEY:
        message.answer = []
    return message


def no_delegation(message: Message) -> Message:
    """The zone is made out to be unsigned."""
    if message.question[0].rdtype == dns.rdatatype.DS:
        message.answer = []
    return message


def other_name_as_signer(message: Message) -> Message:
    """The record stands where the signer has no say."""
    if asks_for_ims(message):
        for i, rrset in enumerate(message.answer):
            if rrset.rdtype == dns.rdatatype.RRSIG:
                moved = [r.replace(signer=dns.name.from_text("2." + PARENT)) for r in rrset]
                message.answer[i] = dns.rrset.from_rdata_list(rrset.name, rrset.ttl, moved)
    return message


def delegation_by_itself(message: Message) -> Message:
    """The zone vouches for itself."""
    if message.question[0].rdtype == dns.rdatatype.DS:
        for i, rrset in enumerate(message.answer):
            if rrset.rdtype == dns.rdatatype.RRSIG:
                own = [r.replace(signer=rrset.name) for r in rrset]
                message.answer[i] = dns.rrset.from_rdata_list(rrset.name, rrset.ttl, own)
    return message


def other_records_by_alias(message: Message) -> Message:
    """All records are genuine, but the alias, which nobody has signed."""
    if asks_for_ims(message):
        name, target = message.question[0].name, dns.name.from_text("9.3." + CHILD)
        genuine = [
            dns.rrset.from_rdata_list(target, rrset.ttl, list(rrset)) for rrset in message.answer
        ]
        message.answer = [dns.rrset.from_text(name, 300, "IN", "CNAME", str(target)), *genuine]
    return message


def too_many_signatures(message: Message) -> Message:
    """As in CVE-2023-50387: work for who validates, before the signature that holds."""
    for i, rrset in enumerate(message.answer):
        if rrset.rdtype == dns.rdatatype.RRSIG and asks_for_ims(message):
            (good, *_) = rrset
            bad = [good.replace(signature=k.to_bytes(64)) for k in range(20)]
            message.answer[i] = dns.rrset.from_rdata_list(rrset.name, rrset.ttl, [*bad, good])
    return message


def too_many_keys(message: Message) -> Message:
    """As in CVE-2023-50387: work for who validates."""
    if message.question[0].rdtype == dns.rdatatype.DNSKEY:
        (first, *_) = keys = message.answer[0]
        for i in range(40):
            keys.add(first.replace(key=i.to_bytes(64)))
    return message


FORGERIES: Final = [
    (other_address, "its signature does not hold"),
    (no_signatures, "is not signed"),
    (no_such_name, "no proof that it has no TYPE65338 record"),
    (no_keys, "has no keys, though it should be signed"),
    (no_delegation, "no DS record, so the zone is not signed"),
    (other_name_as_signer, "which is not its zone"),
    (delegation_by_itself, "is signed by 1.10.in-addr.arpa., which is not its zone"),
    (other_records_by_alias, "5.0.1.10.in-addr.arpa. CNAME: is not signed"),
    (too_many_signatures, "its signature does not hold"),
    (too_many_keys, "more keys than anybody needs"),
]


@pytest.mark.parametrize(("forge", "reason"), FORGERIES)
def test_a_forgery_is_refused(
    forge: Callable[[Message], Message], reason: str, setting: tuple[Server, Tree]
) -> None:
    server, tree = setting
    assert isinstance(locate(server, tree), Located)
    with pytest.raises(BogusError, match=reason):
        locate(server, tree, forge)


def replayed(authority: Message, rcode: Rcode) -> Callable[[Message], Message]:
    """An answer that there is nothing, with what was signed for another question."""

    def alter(message: Message) -> Message:
        if asks_for_ims(message):
            message.answer = []
            message.authority = authority.authority
            message.set_rcode(rcode)
        return message

    return alter


@pytest.mark.parametrize(
    "name",
    [
        "6.0.1.10.in-addr.arpa.",  # of a name that does not exist
        "8.0.1.10.in-addr.arpa.",  # of a name with another type
        "1.4.1.10.in-addr.arpa.",  # of a wildcard with another type
        "7.0.1.10.in-addr.arpa.",  # of a name with names beneath
        "1.7.10.in-addr.arpa.",  # of the parent, of a name that does not exist
        "128.1.10.in-addr.arpa.",  # at a delegation
    ],
)
@pytest.mark.parametrize("rcode", [Rcode.NXDOMAIN, Rcode.NOERROR])
@pytest.mark.parametrize("home", ["10.1.0.5", "10.1.3.9", "10.1.0.65"])
def test_the_proof_for_another_name_proves_nothing(
    name: str, rcode: Rcode, home: str, setting: tuple[Server, Tree]
) -> None:
    server, tree = setting
    authority = asyncio.run(fetch(server, name, "TYPE65338"))
    with pytest.raises(BogusError, match="no proof"):
        locate(server, tree, replayed(authority, rcode), parse_address(home))


def test_the_parents_side_of_a_delegation_does_not_deny_what_is_beneath(
    setting: tuple[Server, Tree],
) -> None:
    """RFC 6840, section 4.1: its NSEC records span all names of the child, which it knows not."""
    server, tree = setting
    authority = dns.message.QueryMessage()
    authority.authority = denials(tree.zones[PARENT], PARENT)
    # All that the parent has signed about names that do not exist, and it is enough for its own.
    lie = replayed(authority, Rcode.NXDOMAIN)
    assert isinstance(locate(server, tree, lie, parse_address("10.7.0.1")), Absent)
    for home in ("10.1.0.5", "10.2.0.5", "10.2.0.6"):
        with pytest.raises(BogusError, match="no proof"):
            locate(server, tree, lie, parse_address(home))


def test_a_wildcard_does_not_stand_in_for_a_name_that_has_a_record(
    setting: tuple[Server, Tree],
) -> None:
    """Signature and records are genuine; what is missing is a proof that the name has no own."""
    server, tree = setting
    name = dns.name.from_text("9.3.1.10.in-addr.arpa.")
    genuine = asyncio.run(fetch(server, "7.3.1.10.in-addr.arpa.", "TYPE65338"))

    def alter(message: Message) -> Message:
        if asks_for_ims(message):
            message.answer = [
                dns.rrset.from_rdata_list(name, rrset.ttl, list(rrset)) for rrset in genuine.answer
            ]
            message.authority = genuine.authority
        return message

    with pytest.raises(BogusError, match="made from a wildcard without proof"):
        locate(server, tree, alter, parse_address("10.1.3.9"))


def test_a_wildcards_own_record_does_not_deny_a_name_beside_it(tmp_path: Path) -> None:
    """A signature over a wildcard holds for every name it covers, that of its NSEC record too."""
    tree = make_tree(tmp_path / "keys", *NSEC)
    with bind(tmp_path / "bind", Zones(tree.zones)) as server:
        wildcard = dns.name.from_text("*.4." + CHILD)
        authority = dns.message.QueryMessage()
        for rrset in denials(tree.zones[CHILD], CHILD):
            if rrset.name == wildcard:
                moved = dns.name.from_text("7.4." + CHILD)
                made = dns.rrset.from_rdata_list(moved, 60, list(rrset))
                authority.authority.append(made)
        assert len(authority.authority) == 2
        with pytest.raises(BogusError, match="no proof"):
            locate(server, tree, replayed(authority, Rcode.NOERROR), parse_address("10.1.4.7"))


@pytest.mark.parametrize("algorithm", [5, 8, 13, 14, 15, 16, 200])
def test_a_key_that_is_none_proves_nothing(algorithm: int, setting: tuple[Server, Tree]) -> None:
    """Its owner may write anything into it, and vouch for it."""
    server, tree = setting
    text = f"257 3 {algorithm} AA=="
    broken = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.DNSKEY, text)
    assert isinstance(broken, DNSKEY)

    def alter(message: Message) -> Message:
        if message.question[0].rdtype == dns.rdatatype.DNSKEY:
            keys, signatures = message.answer
            made = [
                s.replace(algorithm=algorithm, key_tag=dns.dnssec.key_id(broken))
                for s in signatures
            ]
            message.answer = [
                dns.rrset.from_rdata_list(keys.name, 300, [broken]),
                dns.rrset.from_rdata_list(keys.name, 300, made),
            ]
        return message

    with pytest.raises(BogusError, match="its keys are not signed by one that is vouched for"):
        locate(server, tree, alter, anchors=(f"{CHILD}. IN DNSKEY {text}",))


def test_the_proofs_of_another_zone_prove_nothing(setting: tuple[Server, Tree]) -> None:
    server, tree = setting
    authority = dns.message.QueryMessage()
    authority.authority = denials(tree.zones[OTHER], OTHER)
    for home in ("10.1.0.5", "10.1.0.6", "10.7.0.1"):
        with pytest.raises(BogusError, match="no proof"):
            locate(server, tree, replayed(authority, Rcode.NXDOMAIN), parse_address(home))


def test_no_more_proofs_are_looked_at_than_an_answer_needs(setting: tuple[Server, Tree]) -> None:
    server, tree = setting
    home = parse_address("10.1.0.6")
    needed = asyncio.run(fetch(server, "6.0.1.10.in-addr.arpa.", "TYPE65338"))
    assert isinstance(locate(server, tree, home=home), Absent)
    names = {rrset.name for rrset in needed.authority}
    authority = dns.message.QueryMessage()
    authority.authority = [r for r in denials(tree.zones[CHILD], CHILD) if r.name not in names]
    authority.authority += needed.authority
    with pytest.raises(BogusError, match="no proof"):
        locate(server, tree, replayed(authority, Rcode.NXDOMAIN), home)


def test_a_digest_by_sha_1_vouches_for_nothing(tmp_path: Path) -> None:
    signed = sign(tmp_path / "keys", CHILD, zone_text(CHILD, *LINES))
    weak = digests(tmp_path / "keys", CHILD, "SHA-1")
    with bind(tmp_path / "bind", Zones({CHILD: signed.text})) as server:
        tree = Tree({}, weak, signed)
        with pytest.raises(BogusError, match="no key that its DS record"):
            locate(server, tree)
        assert isinstance(locate(server, tree, anchors=(*weak, *signed.digests)), Located)


def test_a_server_that_is_wrong_about_authenticity_is_of_use_all_the_same(
    setting: tuple[Server, Tree], tmp_path: Path
) -> None:
    """It validates from other trust anchors; we ask it to pass on what it does not believe."""
    server, tree = setting
    wrong = tuple(line.replace(CHILD, PARENT) for line in tree.child.digests)
    stubs = dict.fromkeys([".", *tree.zones], server)
    with unbound(tmp_path / "unbound", stubs, anchors=wrong) as confused:
        assert answers(ask(confused, "off"), ["10.1.0.5"]) == {"10.1.0.5": NotFound.FAILED}
        found = answers(ask(confused, "validate", tree.anchors), ["10.1.0.5"])
    assert found == {"10.1.0.5": at("192.0.2.1")}


def test_opt_out_proves_nothing(tmp_path: Path) -> None:
    """Where NSEC3 records leave room for unsigned zones, a name that is missing may be one."""
    tree = make_tree(tmp_path / "keys", *OPT_OUT)
    with bind(tmp_path / "bind", Zones(tree.zones)) as server:
        assert isinstance(locate(server, tree), Located)
        for home in ("10.1.0.6", "10.7.0.1"):
            with pytest.raises(BogusError, match="no proof"):
                locate(server, tree, home=parse_address(home))


def test_more_hash_iterations_than_reasonable_prove_nothing(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "keys", "-3", "ab", "-H", "101")
    with bind(tmp_path / "bind", Zones(tree.zones)) as server:
        assert isinstance(locate(server, tree), Located)
        with pytest.raises(BogusError, match="no proof"):
            locate(server, tree, home=parse_address("10.1.0.6"))


def test_a_negative_answer_is_kept_no_longer_than_its_proof_holds(
    setting: tuple[Server, Tree],
) -> None:
    server, tree = setting

    def shorten(message: Message) -> Message:
        for rrset in message.authority:
            if rrset.rdtype in (dns.rdatatype.NSEC, dns.rdatatype.NSEC3):
                rrset.ttl = 7
        return message

    absent = locate(server, tree, shorten, parse_address("10.1.0.6"))
    assert isinstance(absent, Absent)
    assert absent.ttl == 7


def test_a_time_to_live_does_not_exceed_the_one_that_was_signed(
    setting: tuple[Server, Tree],
) -> None:
    server, tree = setting

    def lengthen(message: Message) -> Message:
        for rrset in message.answer:
            rrset.ttl = 100_000
        return message

    found = locate(server, tree, lengthen)
    assert isinstance(found, Located)
    assert found.ttl == 300


# ---- trust anchors -----------------------------------------------------------------------------


def test_trust_anchors_are_read_as_the_tools_write_them() -> None:
    anchors = parse_anchors(
        [
            "; the root, as unbound-anchor and dns-root-data have it",
            "",
            ". IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D",
            ".\t3600\tIN\tDNSKEY\t257 3 13 AAAA BBBB ; keytag 1",
            "1.10.in-addr.arpa. DS 1 13 2 " + "ab" * 32,
        ]
    )
    assert {str(zone): len(records) for zone, records in anchors.items()} == {
        ".": 2,
        "1.10.in-addr.arpa.": 1,
    }


@pytest.mark.parametrize(
    "line",
    [
        "10.in-addr.arpa IN DS 1 13 2 abcd",
        "10.in-addr.arpa. IN DS",
        "10.in-addr.arpa. IN DS 1 13 2 xyz",
        "10.in-addr.arpa. IN A 192.0.2.1",
        "10.in-addr.arpa.",
        "a..b. IN DS 1 13 2 abcd",
    ],
)
def test_what_is_no_trust_anchor_is_named(line: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a trust anchor reads") as raised:
        parse_anchors([line])
    assert line in str(raised.value)
    path = tmp_path / "anchors"
    path.write_text(line)
    with pytest.raises(DnsError, match=str(path)):
        read_anchors(path)


def test_a_file_without_a_trust_anchor_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "anchors"
    with pytest.raises(DnsError, match=f"{path}: No such file"):
        read_anchors(path)
    path.write_text("; nothing\n")
    with pytest.raises(DnsError, match=f"{path}: no trust anchor in it"):
        read_anchors(path)
    path.write_bytes(b"\xff")
    with pytest.raises(DnsError, match=str(path)):
        read_anchors(path)
