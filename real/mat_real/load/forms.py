"""Requests and replies as rows of arrays, byte for byte what `mat.codec` makes of the messages.

A form is a numpy layout over one datagram. Its template was encoded by the codec; what differs from
one request to the next (sequence, nonce, addresses, version, freshness) is filled in for a whole
block at once, and the MAC is computed over the result (docs/protocol.md, sections 3, 5 and 6).
"""

import enum
import hmac
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mat.address import UNSPECIFIED
from mat.codec import MAC_SIZE, encode
from mat.messages import (
    NONCE_SIZE,
    Authentication,
    HaNotify,
    ImsUpdate,
    ImsUpdateReply,
    MaQuery,
    Message,
    Type,
)

Rows = NDArray[np.void]
Sequences = NDArray[np.uint32]
Numbers = NDArray[np.uint64]
"""Nonces as they lie in memory; versions and freshness as numbers."""
Addresses = NDArray[np.void]
"""Of 16 bytes each."""


class Kind(enum.IntEnum):
    """What is asked, by the type of its message."""

    UPDATE = Type.IMS_UPDATE
    QUERY = Type.MA_QUERY
    NOTIFY = Type.HA_NOTIFY


_ADDRESS: Final = "V16"
_NONCE: Final = bytes(range(NONCE_SIZE))
_VERSION: Final = 1 << 32 | 1
_FRESHNESS: Final = 2 << 32

_HEADER: Final = [
    ("type", "u1"),
    ("code", "u1"),
    ("flags", "u1"),
    ("length", "u1"),
    ("sequence", ">u4"),
]
_NONCE_EXTENSION: Final = [("nonce_head", "V4"), ("nonce", "u8")]
_VERSION_EXTENSION: Final = [("version_head", "V4"), ("version", ">u8"), ("age", ">u4")]
_AUTHENTICATION_EXTENSION: Final = [
    ("authentication_head", "V4"),
    ("key_id", ">u4"),
    ("freshness", ">u8"),
    ("mac", f"V{MAC_SIZE}"),
]
_UPDATE_BODY: Final = [
    ("home", _ADDRESS),
    ("mobile", _ADDRESS),
    ("timestamp", ">u4"),
    ("lifetime", ">u4"),
]

UPDATE: Final = np.dtype([*_HEADER, *_UPDATE_BODY, *_NONCE_EXTENSION, *_AUTHENTICATION_EXTENSION])
"""The first transmission of an IMS Update: version and freshness are equal."""
UPDATE_AGAIN: Final = np.dtype(
    [
        *_HEADER,
        *_UPDATE_BODY,
        *_NONCE_EXTENSION,
        *_VERSION_EXTENSION,
        *_AUTHENTICATION_EXTENSION,
    ]
)
"""A retransmission: fresher than its version."""
QUERY: Final = np.dtype(
    [*_HEADER, ("home", _ADDRESS), ("timestamp", ">u4"), *_NONCE_EXTENSION, ("padding", "V24")]
)
"""MA Query of a node that knows nothing yet."""
QUERY_OF_VERSION: Final = np.dtype(
    [
        *_HEADER,
        ("home", _ADDRESS),
        ("timestamp", ">u4"),
        *_NONCE_EXTENSION,
        *_VERSION_EXTENSION,
        ("padding", "V8"),
    ]
)
"""MA Query of a node that was told of a version."""
NOTIFY: Final = np.dtype(
    [
        *_HEADER,
        ("home", _ADDRESS),
        ("peer", _ADDRESS),
        ("timestamp", ">u4"),
        *_NONCE_EXTENSION,
        *_VERSION_EXTENSION,
    ]
)
REPLY: Final = np.dtype([*_HEADER, *_NONCE_EXTENSION, *_AUTHENTICATION_EXTENSION])
"""IMS Update Reply."""


def _template(form: np.dtype[np.void], message: Message) -> np.void:
    encoded = np.frombuffer(encode(message), form)
    row: np.void = encoded[0]
    assert len(encoded) == 1
    return row


def _update(version: int) -> ImsUpdate:
    signed = Authentication(0, _FRESHNESS)
    return ImsUpdate(
        0, UNSPECIFIED, (UNSPECIFIED,), version, 0, nonce=_NONCE, authentication=signed
    )


_TEMPLATES: Final[dict[np.dtype[np.void], np.void]] = {
    form: _template(form, message)
    for form, message in (
        (UPDATE, _update(_FRESHNESS)),
        (UPDATE_AGAIN, _update(_VERSION)),
        (QUERY, MaQuery(0, UNSPECIFIED, nonce=_NONCE)),
        (QUERY_OF_VERSION, MaQuery(0, UNSPECIFIED, _VERSION, nonce=_NONCE)),
        (NOTIFY, HaNotify(0, UNSPECIFIED, UNSPECIFIED, _VERSION, nonce=_NONCE)),
        (REPLY, ImsUpdateReply(0, 0, Authentication(0, 0), nonce=_NONCE)),
    )
}


def first_updates(
    sequences: Sequences,
    nonces: Numbers,
    *,
    homes: Addresses,
    mobiles: Addresses,
    versions: Numbers,
    key_ids: Sequences,
    lifetime: int,
) -> Rows:
    """IMS Updates with a freshness equal to their version, not signed yet."""
    rows = _rows(UPDATE, sequences, nonces)
    rows["home"], rows["mobile"], rows["lifetime"] = homes, mobiles, lifetime
    rows["timestamp"] = _timestamps(versions)
    rows["key_id"], rows["freshness"] = key_ids, versions
    return rows


def updates_again(first: Rows, versions: Numbers, freshness: Numbers) -> Rows:
    """The same IMS Updates with a greater freshness, not signed yet."""
    rows = _rows(UPDATE_AGAIN, first["sequence"], first["nonce"])
    for name in ("home", "mobile", "lifetime", "key_id"):
        rows[name] = first[name]
    rows["timestamp"], rows["version"] = _timestamps(versions), versions
    rows["freshness"] = freshness
    return rows


def queries(sequences: Sequences, nonces: Numbers, homes: Addresses) -> Rows:
    """MA Queries of nodes that know nothing of these home addresses."""
    rows = _rows(QUERY, sequences, nonces)
    rows["home"] = homes
    return rows


def queries_of_version(
    sequences: Sequences, nonces: Numbers, homes: Addresses, versions: Numbers
) -> Rows:
    """MA Queries of nodes that were told of these versions."""
    rows = _rows(QUERY_OF_VERSION, sequences, nonces)
    rows["home"] = homes
    rows["timestamp"], rows["version"] = _timestamps(versions), versions
    return rows


def notices(
    sequences: Sequences, nonces: Numbers, homes: Addresses, peers: Addresses, versions: Numbers
) -> Rows:
    """HA Notifies of these mappings, for the IMS of the peers."""
    rows = _rows(NOTIFY, sequences, nonces)
    rows["home"], rows["peer"] = homes, peers
    rows["timestamp"], rows["version"] = _timestamps(versions), versions
    return rows


def _rows(form: np.dtype[np.void], sequences: Sequences, nonces: Numbers) -> Rows:
    rows = np.empty(len(sequences), form)
    rows[:] = _TEMPLATES[form]
    rows["sequence"], rows["nonce"] = sequences, nonces
    return rows


def _timestamps(versions: Numbers) -> NDArray[np.uint64]:
    return versions >> np.uint64(32)


def sign(rows: Rows, secrets: Sequence[bytes]) -> None:
    """Put the MACs on IMS Updates or Replies; `secrets` are the keys' in the order of the rows."""
    rows["mac"] = np.frombuffer(b"".join(_macs(rows, secrets)), rows.dtype["mac"])


def authentic(rows: Rows, secrets: Sequence[bytes]) -> NDArray[np.bool_]:
    """Which of the rows carry the right MAC."""
    right = np.frombuffer(b"".join(_macs(rows, secrets)), rows.dtype["mac"])
    return np.asarray(rows["mac"] == right)


def _macs(rows: Rows, secrets: Sequence[bytes]) -> list[bytes]:
    data, size = rows.tobytes(), rows.dtype.itemsize
    covered = size - MAC_SIZE
    places = range(0, len(data), size)
    return [
        hmac.digest(secret, data[start : start + covered], "sha256")[:MAC_SIZE]
        for secret, start in zip(secrets, places, strict=True)
    ]
