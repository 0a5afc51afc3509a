"""Questions for IMS records and their answers, as DNS messages (RFC 1035, RFC 6891).

As the driver for Linux asks, and as its server answers: with EDNS, recursion desired. Nothing else
of the DNS is of interest here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from typing import Final, final

from mat.address import Address, from_ipv4
from mat.ims_record import IMS_RECORD_TYPE, ImsRecord, RecordError, from_rdata, reverse_name

DNS_PORT: Final = 53
_HEADER: Final = Struct("!HHHHHH")
_QUESTION: Final = Struct("!HH")
_RECORD: Final = Struct("!HHHIH")
_INTERNET: Final = 1
_RECURSION_DESIRED: Final = 0x0100
_ANSWER: Final = 0x8000
_AUTHORITATIVE: Final = 0x0400
_NO_SUCH_NAME: Final = 3
_CODE: Final = 0xF
_QUESTION_NAME: Final = 0xC00C
"""A pointer to the name of the question (RFC 1035, section 4.1.4)."""
_POINTER: Final = 0xC0
_OPTIONS: Final = bytes((0, 0, 41, 1232 >> 8, 1232 & 0xFF, 0, 0, 0, 0, 0, 0))
"""EDNS: answers of up to 1232 bytes."""


@final
@dataclass(frozen=True, slots=True)
class ImsLookup:
    """A question for the IMS of `home_address`, or with `answered` what came of it."""

    home_address: Address
    answered: bool
    records: tuple[ImsRecord, ...] = ()
    code: int = 0


def ims_question(number: int, home_address: Address) -> bytes:
    """The message that asks for the IMS record of a home address; `number` is its id."""
    head = _HEADER.pack(number, _RECURSION_DESIRED, 1, 0, 0, 1)
    return head + _asked(home_address) + _OPTIONS


def ims_answer(
    number: int, home_address: Address, records: Sequence[ImsRecord], lifetime: int
) -> bytes:
    """The answer to it; `lifetime` in seconds. Without records, there is no such name."""
    flags = _ANSWER | _AUTHORITATIVE | _RECURSION_DESIRED | (0 if records else _NO_SUCH_NAME)
    found = b"".join(_record(one.to_rdata(), lifetime) for one in records)
    head = _HEADER.pack(number, flags, 1, len(records), 0, 1)
    return head + _asked(home_address) + found + _OPTIONS


def _asked(home_address: Address) -> bytes:
    labels = reverse_name(home_address).rstrip(".").split(".")
    name = b"".join(bytes((len(label),)) + label.encode() for label in labels) + b"\0"
    return name + _QUESTION.pack(IMS_RECORD_TYPE, _INTERNET)


def _record(rdata: bytes, lifetime: int) -> bytes:
    return _RECORD.pack(_QUESTION_NAME, IMS_RECORD_TYPE, _INTERNET, lifetime, len(rdata)) + rdata


def ims_lookup(message: bytes) -> ImsLookup | None:
    """What a DNS message says of an IMS record; None for one about anything else."""
    try:
        return _read(message)
    except (IndexError, ValueError):
        return None


def _read(message: bytes) -> ImsLookup | None:
    if len(message) < _HEADER.size:
        return None
    _, flags, questions, answers, _, _ = _HEADER.unpack_from(message)
    labels, at = _name(message, _HEADER.size)
    kind, at = int.from_bytes(message[at : at + 2]), at + _QUESTION.size
    home = _home(labels)
    if questions != 1 or kind != IMS_RECORD_TYPE or home is None:
        return None
    if not flags & _ANSWER:
        return ImsLookup(home, answered=False)
    records: list[ImsRecord] = []
    for _ in range(answers):
        _, at = _name(message, at)
        kind, size = int.from_bytes(message[at : at + 2]), int.from_bytes(message[at + 8 : at + 10])
        at += 10 + size
        if kind == IMS_RECORD_TYPE:
            try:
                records.append(from_rdata(message[at - size : at]))
            except RecordError:
                continue
    return ImsLookup(home, answered=True, records=tuple(records), code=flags & _CODE)


def _name(message: bytes, at: int) -> tuple[list[str], int]:
    """The labels of a name, as far as they stand here, and where it ends."""
    labels: list[str] = []
    while message[at]:
        if message[at] >= _POINTER:
            return labels, at + 2
        size = message[at]
        labels.append(message[at + 1 : at + 1 + size].decode("ascii"))
        at += 1 + size
    return labels, at + 1


def _home(labels: list[str]) -> Address | None:
    """The address that a reverse name is of."""
    match [label.lower() for label in labels]:
        case [*octets, "in-addr", "arpa"] if len(octets) == 4:
            return from_ipv4(IPv4Address(".".join(reversed(octets))).packed)
        case [*digits, "ip6", "arpa"] if len(digits) == 32:
            groups = "".join(reversed(digits))
            parts = (groups[i : i + 4] for i in range(0, 32, 4))
            return Address(IPv6Address(":".join(parts)).packed)
        case _:
            return None
