"""Writes messages.json anew: run it only when the wire format is meant to change.

python -m tests.vectors.record
"""

import dataclasses
import json
from pathlib import Path

from mat.address import Address, format_address, parse_address
from mat.authentication import Key, sign
from mat.codec import encode
from mat.messages import (
    EXACT,
    Authentication,
    Code,
    HaAnswer,
    HaNotify,
    HaNotifyAck,
    HaQuery,
    ImsUpdate,
    ImsUpdateReply,
    MaAnswer,
    MaQuery,
    Message,
)

FILE = Path(__file__).parent / "messages.json"
SECRET = bytes(range(32))
NONCE = bytes.fromhex("a1a2a3a4a5a6a7a8")
VERSION = 0x6563_7BC0_8000_0001
FAMILIES = {
    "ipv4": ("10.1.0.1", "10.2.0.1", ("198.51.100.7", "203.0.113.9")),
    "ipv6": ("2001:db8:1::1", "2001:db8:2::1", ("2001:db8:a::7", "2001:db8:b::9")),
}


def messages() -> dict[str, Message]:
    """One of each message, family and code, by a name that says which."""
    made: dict[str, Message] = {}
    for family, (home_text, peer_text, moved_texts) in FAMILIES.items():
        home, peer = parse_address(home_text), parse_address(peer_text)
        moved = tuple(parse_address(text) for text in moved_texts)
        made |= {f"{family} {name}": m for name, m in _requests(home, peer, moved).items()}
        for code in Code:
            made |= {f"{family} {n} {code.name}": m for n, m in _answers(home, moved, code).items()}
    made |= _prefixes()
    return made


def _requests(home: Address, peer: Address, moved: tuple[Address, ...]) -> dict[str, Message]:
    update = ImsUpdate(0x01020304, home, moved, VERSION, 180, nonce=NONCE)
    sign(update, Key(7, SECRET, home), VERSION)
    again = ImsUpdate(0x01020304, home, moved, VERSION, 179, nonce=NONCE)
    sign(again, Key(7, SECRET, home), VERSION + 5)
    withdrawal = ImsUpdate(0x01020304, home, (), VERSION, 0, nonce=NONCE)
    sign(withdrawal, Key(7, SECRET, home), VERSION)
    return {
        "IMS Update": update,
        "IMS Update retransmitted": again,
        "IMS Update withdrawal": withdrawal,
        "IMS Update of the draft": ImsUpdate(1, home, moved, 0x65637BC0 << 32, 180),
        "MA Query": MaQuery(0x01020304, home, 0, nonce=NONCE),
        "MA Query for a version": MaQuery(0x01020304, home, VERSION, nonce=NONCE),
        "MA Query of the draft": MaQuery(1, home, 0x65637BC0 << 32),
        "MA Query of the draft, Length without header": MaQuery(1, home, 0, draft_length=True),
        "HA Notify": HaNotify(0x01020304, home, peer, VERSION, nonce=NONCE),
        "HA Query": HaQuery(0x01020304, moved[0], nonce=NONCE),
    }


def _answers(home: Address, moved: tuple[Address, ...], code: Code) -> dict[str, Message]:
    good = code is Code.SUCCEEDED
    shown = moved if good else ()
    version, lifetime, age = (VERSION, 175, 5250) if good else (0, 0, 0)
    reply = ImsUpdateReply(0x01020304, code, nonce=NONCE)
    if code is not Code.AUTHENTICATION_FAILED:
        sign(reply, Key(7, SECRET, home), VERSION)
    draft_version = version >> 32 << 32
    return {
        "IMS Update Reply": reply,
        "MA Answer": MaAnswer(0x01020304, code, home, shown, version, lifetime, age, nonce=NONCE),
        "MA Answer of the draft": MaAnswer(1, code, home, shown, draft_version, lifetime),
        "HA Notify Ack": HaNotifyAck(
            0x01020304, code, home, shown, version, lifetime, age, nonce=NONCE
        ),
        "HA Answer": HaAnswer(
            0x01020304, code, moved[0], (home,) if good else (), version, lifetime, age, nonce=NONCE
        ),
    }


def _prefixes() -> dict[str, Message]:
    home, moved = parse_address("10.9.4.0"), (parse_address("198.51.100.0"),)
    key = Key(9, SECRET, home, EXACT - 8)
    update = ImsUpdate(5, home, moved, VERSION, 180, EXACT - 8, nonce=NONCE)
    sign(update, key, VERSION)
    return {
        "MoPre IMS Update": update,
        "MoPre MA Answer": MaAnswer(5, 0, home, moved, VERSION, 9, 1, EXACT - 8, nonce=NONCE),
        "MoPre HA Notify": HaNotify(5, home, home, VERSION, EXACT - 8, nonce=NONCE),
    }


def described(message: Message) -> dict[str, object]:
    """The fields of a message in words that JSON has."""
    fields: dict[str, object] = {"message": type(message).__name__}
    for field in dataclasses.fields(message):
        if field.name != "wire":
            fields[field.name] = _plain(getattr(message, field.name))
    return fields


def _plain(value: object) -> object:
    if isinstance(value, Authentication):
        return {"key_id": value.key_id, "freshness": value.freshness, "mac": value.mac.hex()}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, bytes):
        return format_address(Address(value)) if len(value) == 16 else value.hex()
    return int(value) if isinstance(value, Code) else value


def main() -> None:
    """Record all vectors."""
    vectors = [
        {"name": name, "datagram": encode(message).hex(), **described(message)}
        for name, message in messages().items()
    ]
    FILE.write_text(json.dumps(vectors, indent=1) + "\n")


if __name__ == "__main__":
    main()
