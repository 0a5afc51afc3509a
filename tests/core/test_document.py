"""docs/protocol.md says what the code does, where generated and where written by hand."""

import re

import pytest

from docs.generate import DOCUMENT, refreshed
from mat.codec import SKIPPABLE, Extension
from mat.ims_record import IMS_RECORD_TYPE
from mat.messages import (
    AMPLIFICATION_LIMIT,
    MAT_PORT,
    MAX_MOBILE_ADDRESSES,
    REQUEST_SIZE,
    Code,
    Type,
)
from mat.states import PEER, REGISTRATION, PeerState, RegistrationState
from tests.core.test_state_machine import CONVERGENCE

TEXT = DOCUMENT.read_text(encoding="utf-8")


def test_generated_parts_are_current() -> None:
    assert refreshed(TEXT) == TEXT, "run: python -m docs.generate"


@pytest.mark.parametrize(
    "statement",
    [
        f"port **{MAT_PORT}**",
        f"type **{IMS_RECORD_TYPE}**",
        f"**{AMPLIFICATION_LIMIT} times** the query",
        f"padded to {REQUEST_SIZE} bytes",
        f"**n** is at most {MAX_MOBILE_ADDRESSES}",
        f"type {SKIPPABLE} or above",
        f"most **{CONVERGENCE:g} s**",
    ],
)
def test_number_in_the_text_is_that_of_the_code(statement: str) -> None:
    assert statement in " ".join(TEXT.split())


@pytest.mark.parametrize("member", [*Type, *Code, *Extension], ids=lambda m: m.name)
def test_table_lists_every_type_code_and_extension(member: Type | Code | Extension) -> None:
    name = member.name.lower().replace("_", " ")
    assert re.search(rf"^\| {member.value} \| {name} ", TEXT, re.MULTILINE | re.IGNORECASE)


def test_every_state_can_be_reached_and_left() -> None:
    for table, states in ((PEER, PeerState), (REGISTRATION, RegistrationState)):
        assert {old for old, _ in table} == set(states)
        assert set(table.values()) == set(states)
