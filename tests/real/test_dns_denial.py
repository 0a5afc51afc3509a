"""Proofs of non-existence, against zones that dnssec-signzone made and a plain reading of them.

Each proof gets every NSEC or NSEC3 record of the zone: more can nobody replay. So what it denies
must not be there; and what is not there it must be able to deny, but beneath unsigned delegations.
"""

from pathlib import Path
from typing import Final

import dns.name
import dns.rdatatype
import pytest
from dns.name import Name
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.NSEC import NSEC
from dns.rdtypes.ANY.NSEC3 import NSEC3
from hypothesis import given, settings
from hypothesis import strategies as st

from mat_real.dns.denial import Nsec3Proof, NsecProof, Proof
from tests.real.dns_servers import denials, sign, zone_text

APEX: Final = "1.10.in-addr.arpa"
ZONE: Final = dns.name.from_text(APEX)
IMS: Final = RdataType.make(65338)
RECORDS: Final = {
    "5.0": {IMS},
    "6.0": {RdataType.PTR},
    "7.0": {RdataType.CNAME},
    "a.b.8.0": {IMS},
    "*.3": {IMS},
    "9.3": {RdataType.PTR},
    "*.4": {RdataType.PTR},
    "x.*.5": {IMS},
    "*.6": {RdataType.CNAME},
    "128": {RdataType.NS},
    "d.1": {RdataType.DNAME},
}
CONTENT: Final = {
    IMS: r"\# 8 0a01c1dcc0000201",
    RdataType.PTR: "node.test.",
    RdataType.CNAME: "other.test.",
    RdataType.NS: "localhost.",
    RdataType.DNAME: "other.test.",
}
OPTIONS: Final = {"nsec": ("-x",), "nsec3": ("-3", "ab12"), "opt-out": ("-3", "-", "-A")}
LABELS: Final = ["0", "1", "3", "4", "5", "6", "7", "8", "9", "128", "200", "*", "a", "b", "d", "x"]


@pytest.fixture(scope="module")
def proofs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Proof]:
    directory = tmp_path_factory.mktemp("zones")
    return {kind: _proof(directory / kind, options) for kind, options in OPTIONS.items()}


def _proof(directory: Path, options: tuple[str, ...]) -> Proof:
    lines = [
        f"{name} {dns.rdatatype.to_text(rdtype)} {CONTENT[rdtype]}"
        for name, types in RECORDS.items()
        for rdtype in types
    ]
    signed = sign(directory, APEX, zone_text(APEX, *lines), *options)
    nsec: list[tuple[Name, NSEC]] = []
    nsec3: list[tuple[Name, NSEC3]] = []
    for rrset in denials(signed.text, APEX):
        for rdata in rrset:
            if isinstance(rdata, NSEC):
                nsec.append((rrset.name, rdata))
            elif isinstance(rdata, NSEC3):
                nsec3.append((rrset.name, rdata))
    return Nsec3Proof.of(ZONE, nsec3) if nsec3 else NsecProof(ZONE, tuple(nsec))


# ---- the zone, read plainly --------------------------------------------------------------------

TYPES: Final = {dns.name.from_text(f"{name}.{APEX}"): types for name, types in RECORDS.items()}
EXISTING: Final = {
    ancestor
    for name in (*TYPES, ZONE)
    for depth in range(len(ZONE), len(name) + 1)
    for ancestor in [name.split(depth)[1]]
}


def is_hidden(name: Name) -> bool:
    """Whether a name lies beneath a delegation or a DNAME record, or at a delegation."""
    for owner, types in TYPES.items():
        if RdataType.NS in types and name.is_subdomain(owner):
            return True
        if RdataType.DNAME in types and name.is_subdomain(owner) and name != owner:
            return True
    return False


def types_at(name: Name) -> set[RdataType]:
    """What a question for a name finds, by itself or by a wildcard (RFC 4592)."""
    if name in EXISTING:
        return TYPES.get(name, set())
    while name not in EXISTING:
        name = name.parent()
    return TYPES.get(dns.name.from_text("*", name), set())


@st.composite
def names(draw: st.DrawFn) -> Name:
    """A name of the zone, a part of one, or one beneath it that may not exist."""
    known = draw(st.sampled_from([*RECORDS, "200"])).split(".")
    beneath = draw(st.lists(st.sampled_from(LABELS), max_size=2))
    return relative([*beneath, *known[draw(st.integers(0, len(known) - 1)) :]])


NAMES: Final = names()


def relative(labels: list[str]) -> Name:
    return dns.name.from_text(".".join([*labels, APEX]))


@settings(max_examples=400)
@given(NAMES)
def test_a_proof_denies_what_is_not_there_and_nothing_else(
    proofs: dict[str, Proof], name: Name
) -> None:
    there = is_hidden(name) or bool(types_at(name) & {IMS, RdataType.CNAME})
    for kind, proof in proofs.items():
        denied = proof.denies(name, IMS)
        if there or kind != "opt-out":
            assert denied is not there, kind


@settings(max_examples=1000)
@given(NAMES, st.integers(0, 2**24 - 1))
def test_whatever_is_kept_back_nothing_that_is_there_is_denied(
    proofs: dict[str, Proof], name: Name, kept: int
) -> None:
    if not is_hidden(name) and not types_at(name) & {IMS, RdataType.CNAME}:
        return
    for kind, proof in proofs.items():
        records = [record for i, record in enumerate(proof.records) if kept >> i & 1]
        assert not type(proof)(ZONE, tuple(records)).denies(name, IMS), kind  # type: ignore[arg-type]


@settings(max_examples=400)
@given(NAMES)
def test_a_wildcard_may_stand_in_for_names_that_do_not_exist_only(
    proofs: dict[str, Proof], name: Name
) -> None:
    if is_hidden(name):
        return
    encloser = name
    while encloser not in EXISTING:
        encloser = encloser.parent()
    for kind, proof in proofs.items():
        for depth in range(len(ZONE), len(name)):
            candidate = name.split(depth)[1]
            excluded = proof.excludes_closer(name, candidate)
            if candidate != encloser:
                assert not excluded or is_below(candidate, encloser), kind
            elif kind != "opt-out":
                assert excluded, kind


def is_below(name: Name, ancestor: Name) -> bool:
    return name != ancestor and name.is_subdomain(ancestor)


def test_with_opt_out_only_what_has_a_record_of_its_own_is_denied(proofs: dict[str, Proof]) -> None:
    assert proofs["opt-out"].denies(relative(["6", "0"]), IMS)
    assert not proofs["opt-out"].denies(relative(["9", "9"]), IMS)


@pytest.mark.parametrize("kind", OPTIONS)
def test_no_records_prove_nothing(kind: str, proofs: dict[str, Proof]) -> None:
    empty = type(proofs[kind])(ZONE, ())
    assert not empty.denies(relative(["9", "9"]), IMS)
    assert not empty.excludes_closer(relative(["9", "9"]), ZONE)


def test_records_of_two_chains_prove_nothing(tmp_path: Path) -> None:
    """A zone that changes its salt has two chains; a mixture of them could prove anything."""
    first, second = (_proof(tmp_path / salt, ("-3", salt)) for salt in ("aa", "bb"))
    assert isinstance(first, Nsec3Proof)
    assert isinstance(second, Nsec3Proof)
    name = relative(["9", "9"])
    assert first.denies(name, IMS)
    assert second.denies(name, IMS)
    both = [
        (dns.name.from_text(_label(digest), ZONE), record)
        for digest, record in (*first.records, *second.records)
    ]
    assert not Nsec3Proof.of(ZONE, both).denies(name, IMS)


def _label(digest: bytes) -> str:
    from base64 import b32hexencode

    return b32hexencode(digest).decode()


@pytest.mark.parametrize("label", ["short", "x" * 32, "v" * 24])
def test_an_owner_that_is_no_hash_is_passed_over(label: str, tmp_path: Path) -> None:
    proof = _proof(tmp_path, ("-3", "-"))
    assert isinstance(proof, Nsec3Proof)
    record = proof.records[0][1]
    assert not Nsec3Proof.of(ZONE, [(dns.name.from_text(label, ZONE), record)]).denies(
        relative(["5", "0"]), RdataType.TXT
    )
