"""Messages to datagrams and back (docs/protocol.md, sections 3 to 5).

A datagram is header, body and, where flag X says so, extensions. Length counts header and body
only: that part is the draft's, byte for byte, and a reader that knows no extensions can stop
there. One small encoder and one small decoder a type, over shared pieces.

Decoding never raises. What cannot be read comes back as a `Malformed` reason; unknown flags,
skippable extensions and codes are read over as section 5 of the document defines.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final, NamedTuple

from mat.address import Address, prefix_of
from mat.messages import (
    EXACT,
    MAX_MOBILE_ADDRESSES,
    REQUEST_SIZE,
    Authentication,
    HaAnswer,
    HaNotify,
    HaNotifyAck,
    HaQuery,
    ImsUpdate,
    ImsUpdateReply,
    MaAnswer,
    MaQuery,
    Message,
    Type,
)

FLAG_EXTENSIONS: Final = 0x80
"""X: extensions follow the part that Length counts."""
MAX_DATAGRAM: Final = 1232
"""Longest datagram read: what every IPv6 path carries (1280) less IPv6 and UDP headers."""
MAC_SIZE: Final = 16

_HEADER: Final = Struct("!BBBBI")
_WORD_FIELD: Final = Struct("!I")
_TWO_WORDS: Final = Struct("!II")
_VERSION: Final = Struct("!BBHQI")
_NONCE: Final = Struct("!BBH8s")
_AUTHENTICATION: Final = Struct("!BBHIQ16s")
_WORD: Final = 4
_ADDRESS: Final = 16
_HEADER_WORDS: Final = 2
_MAPPING_BODY: Final = 24
"""Bytes of a mapping body around its addresses: the key before, two words behind."""
_LAST_DRAFT_TYPE: Final = Type.MA_ANSWER


class Extension(enum.IntEnum):
    """Extension types. From `SKIPPABLE` on, an unknown one is skipped; below, it is refused."""

    NONCE = 1
    VERSION = 2
    PREFIX = 3
    PADDING = 4
    AUTHENTICATION = 5


SKIPPABLE: Final = 128


class Malformed(enum.Enum):
    """Why a datagram is not a message."""

    SHORT = "shorter than the header"
    LONG = "longer than any message"
    TYPE = "unknown type"
    LENGTH = "Length and the size of the datagram disagree"
    BODY = "Length does not fit the body of this type"
    ADDRESSES = "more addresses than a mapping holds"
    EXTENSION = "extension cut off, of impossible length, repeated or out of place"
    UNKNOWN_EXTENSION = "unknown extension that must be understood"
    PREFIX = "prefix length over 128, or the prefix has host bits"
    TIMESTAMP = "timestamp at odds with the version or the freshness"


@dataclass(slots=True)
class _Extensions:
    nonce: bytes = b""
    version: int = 0
    age: int = 0
    prefix_length: int = EXACT
    authentication: Authentication | None = None


# ---- values to bytes ---------------------------------------------------------------------------


def encode(message: Message) -> bytes:
    """The datagram of a message; for one that was signed or received, the very bytes."""
    return message.wire if message.wire is not None else _ENCODERS[type(message)](message)


def size_of(message: Message) -> int:
    """The length of the datagram of a message, in bytes, mostly without making it."""
    if message.wire is not None:
        return len(message.wire)
    if isinstance(message, (MaAnswer, HaNotifyAck)):
        size = _HEADER.size + _MAPPING_BODY + _ADDRESS * len(message.mobile_addresses)
        if message.nonce:
            size += _NONCE.size + _VERSION.size
        return size + (_WORD if message.prefix_length != EXACT else 0)
    if message.nonce and isinstance(message, MaQuery):
        return REQUEST_SIZE
    if message.nonce and isinstance(message, HaNotify):
        # Longer than what a query is padded to.
        size = _HEADER.size + 2 * _ADDRESS + _WORD + _NONCE.size + _VERSION.size
        return size + (_WORD if message.prefix_length != EXACT else 0)
    return len(encode(message))


def _assemble(message: Message, kind: int, code: int, body: bytes, extensions: bytes) -> bytes:
    words = len(body) // _WORD + (0 if message.draft_length else _HEADER_WORDS)
    flags = FLAG_EXTENSIONS if extensions else 0
    return _HEADER.pack(kind, code, flags, words, message.sequence) + body + extensions


def _mapping_body(key: bytes, addresses: tuple[Address, ...], version: int, lifetime: int) -> bytes:
    return key + b"".join(addresses) + _TWO_WORDS.pack(version >> 32 & 0xFFFFFFFF, lifetime)


def _nonce(nonce: bytes) -> bytes:
    return _NONCE.pack(Extension.NONCE, 3, 0, nonce) if nonce else b""


def _version(version: int, age: int) -> bytes:
    return _VERSION.pack(Extension.VERSION, 4, 0, version, min(age, 0xFFFFFFFF))


def _prefix(length: int) -> bytes:
    return bytes((Extension.PREFIX, 1, length, 0)) if length != EXACT else b""


def _padded(body: bytes, extensions: bytes) -> bytes:
    """`extensions` of a query, grown until the whole has `REQUEST_SIZE` bytes (draft: as it is)."""
    missing = REQUEST_SIZE - _HEADER.size - len(body) - len(extensions)
    if not extensions or missing <= 0:
        return extensions
    return extensions + bytes((Extension.PADDING, missing // _WORD)) + bytes(missing - 2)


def _signature(authentication: Authentication | None) -> bytes:
    if authentication is None:
        return b""
    return _AUTHENTICATION.pack(
        Extension.AUTHENTICATION,
        8,
        0,
        authentication.key_id,
        authentication.freshness,
        authentication.mac,
    )


def _encode_ims_update(message: ImsUpdate) -> bytes:
    body = _mapping_body(
        message.home_address, message.mobile_addresses, message.version, message.lifetime
    )
    extensions = _nonce(message.nonce) + _prefix(message.prefix_length)
    signature = message.authentication
    if signature is not None and signature.freshness != message.version:
        extensions += _version(message.version, 0)
    return _assemble(message, Type.IMS_UPDATE, 0, body, extensions + _signature(signature))


def _encode_ims_update_reply(message: ImsUpdateReply) -> bytes:
    extensions = _nonce(message.nonce) + _signature(message.authentication)
    return _assemble(message, Type.IMS_UPDATE_REPLY, message.code, b"", extensions)


def _encode_ma_query(message: MaQuery) -> bytes:
    body = message.home_address + _WORD_FIELD.pack(message.version >> 32)
    extensions = _nonce(message.nonce)
    if extensions and message.version:
        extensions += _version(message.version, 0)
    return _assemble(message, Type.MA_QUERY, 0, body, _padded(body, extensions))


def _encode_answer(
    message: MaAnswer | HaNotifyAck, kind: int, key: Address, addresses: tuple[Address, ...]
) -> bytes:
    body = _mapping_body(key, addresses, message.version, message.lifetime)
    extensions = _nonce(message.nonce)
    if extensions:
        extensions += _version(message.version, message.age)
    return _assemble(message, kind, message.code, body, extensions + _prefix(message.prefix_length))


def _encode_ma_answer(message: MaAnswer) -> bytes:
    return _encode_answer(message, Type.MA_ANSWER, message.home_address, message.mobile_addresses)


def _encode_ha_notify(message: HaNotify) -> bytes:
    body = message.home_address + message.peer + _WORD_FIELD.pack(message.version >> 32)
    extensions = _nonce(message.nonce) + _version(message.version, 0)
    extensions += _prefix(message.prefix_length)
    return _assemble(message, Type.HA_NOTIFY, 0, body, _padded(body, extensions))


def _encode_ha_notify_ack(message: HaNotifyAck) -> bytes:
    addresses = message.mobile_addresses
    return _encode_answer(message, Type.HA_NOTIFY_ACK, message.home_address, addresses)


def _encode_ha_query(message: HaQuery) -> bytes:
    body = message.mobile_address + bytes(_WORD)
    return _assemble(message, Type.HA_QUERY, 0, body, _padded(body, _nonce(message.nonce)))


def _encode_ha_answer(message: HaAnswer) -> bytes:
    body = _mapping_body(
        message.mobile_address, message.home_addresses, message.version, message.lifetime
    )
    extensions = _nonce(message.nonce) + _version(message.version, message.age)
    return _assemble(message, Type.HA_ANSWER, message.code, body, extensions)


_ENCODERS: Final[dict[type, Callable[[Any], bytes]]] = {
    ImsUpdate: _encode_ims_update,
    ImsUpdateReply: _encode_ims_update_reply,
    MaQuery: _encode_ma_query,
    MaAnswer: _encode_ma_answer,
    HaNotify: _encode_ha_notify,
    HaNotifyAck: _encode_ha_notify_ack,
    HaQuery: _encode_ha_query,
    HaAnswer: _encode_ha_answer,
}


# ---- bytes to values ---------------------------------------------------------------------------


def decode(datagram: bytes) -> Message | Malformed:
    """The message in a datagram, or why there is none. `wire` of the message is the datagram."""
    size = len(datagram)
    if size < _HEADER.size:
        return Malformed.SHORT
    if size > MAX_DATAGRAM:
        return Malformed.LONG
    kind, code, flags, words, sequence = _HEADER.unpack_from(datagram)
    decoder = _DECODERS.get(kind)
    if decoder is None:
        return Malformed.TYPE
    end = words * _WORD
    draft_length = False
    extensions = _Extensions()
    if flags & FLAG_EXTENSIONS:
        if not _HEADER.size <= end <= size:
            return Malformed.LENGTH
        refused = _read_extensions(extensions, datagram, end)
        if refused is not None:
            return refused
    elif end != size:
        draft_length = kind <= _LAST_DRAFT_TYPE and end + _HEADER.size == size
        if not draft_length:
            return Malformed.LENGTH
        end = size
    message = decoder(datagram[_HEADER.size : end], code, sequence, extensions)
    if not isinstance(message, Malformed):
        message.nonce = extensions.nonce
        message.draft_length = draft_length
        message.wire = datagram
    return message


def _read_extensions(found: _Extensions, datagram: bytes, start: int) -> Malformed | None:
    """Everything from `start` on: extensions in any order, authentication last, none twice."""
    seen = 0
    size = len(datagram)
    while start < size:
        if size - start < _WORD:
            return Malformed.EXTENSION
        kind, words = datagram[start], datagram[start + 1]
        end = start + words * _WORD
        if words == 0 or end > size or seen >> kind & 1:
            return Malformed.EXTENSION
        seen |= 1 << kind
        refused = _read_extension(found, kind, datagram[start:end], last=end == size)
        if refused is not None:
            return refused
        start = end
    return None


def _read_extension(found: _Extensions, kind: int, data: bytes, *, last: bool) -> Malformed | None:
    size = len(data)
    if kind == Extension.NONCE and size == _NONCE.size:
        found.nonce = data[4:]
    elif kind == Extension.VERSION and size == _VERSION.size:
        found.version, found.age = _VERSION.unpack(data)[3:]
    elif kind == Extension.PREFIX and size == _WORD:
        found.prefix_length = data[2]
        if found.prefix_length > EXACT:
            return Malformed.PREFIX
    elif kind == Extension.AUTHENTICATION and size == _AUTHENTICATION.size and last:
        found.authentication = Authentication(*_AUTHENTICATION.unpack(data)[3:])
    elif kind == Extension.PADDING or kind >= SKIPPABLE:
        return None
    else:
        return Malformed.EXTENSION if kind in _KNOWN else Malformed.UNKNOWN_EXTENSION
    return None


_KNOWN: Final = frozenset(int(kind) for kind in Extension)


def _full_version(timestamp: int, version: int) -> int | None:
    """The 64-bit version behind a 32-bit timestamp; None where the two contradict each other."""
    if not version:
        return timestamp << 32
    return version if version >> 32 == timestamp else None


class _MappingBody(NamedTuple):
    key: Address
    addresses: tuple[Address, ...]
    version: int
    lifetime: int


def _read_mapping_body(body: bytes, version: int, prefix_length: int) -> _MappingBody | Malformed:
    """Key, addresses, timestamp and lifetime: the shape that four types share."""
    count, rest = divmod(len(body) - _MAPPING_BODY, _ADDRESS)
    if count < 0 or rest:
        return Malformed.BODY
    if count > MAX_MOBILE_ADDRESSES:
        return Malformed.ADDRESSES
    end = (count + 1) * _ADDRESS
    key, *addresses = (Address(body[i : i + _ADDRESS]) for i in range(0, end, _ADDRESS))
    if prefix_length != EXACT and any(prefix_of(a, prefix_length) != a for a in (key, *addresses)):
        return Malformed.PREFIX
    timestamp, lifetime = _TWO_WORDS.unpack_from(body, end)
    full = _full_version(timestamp, version)
    return Malformed.TIMESTAMP if full is None else _MappingBody(key, (*addresses,), full, lifetime)


def _decode_ims_update(
    body: bytes, _code: int, sequence: int, extensions: _Extensions
) -> ImsUpdate | Malformed:
    signature = extensions.authentication
    version = extensions.version or (signature.freshness if signature else 0)
    read = _read_mapping_body(body, version, extensions.prefix_length)
    if isinstance(read, Malformed):
        return read
    return ImsUpdate(sequence, *read, extensions.prefix_length, signature)


def _decode_ims_update_reply(
    body: bytes, code: int, sequence: int, extensions: _Extensions
) -> ImsUpdateReply | Malformed:
    if body:
        return Malformed.BODY
    return ImsUpdateReply(sequence, code, extensions.authentication)


def _decode_ma_query(
    body: bytes, _code: int, sequence: int, extensions: _Extensions
) -> MaQuery | Malformed:
    if len(body) != _ADDRESS + _WORD:
        return Malformed.BODY
    version = _full_version(_WORD_FIELD.unpack_from(body, _ADDRESS)[0], extensions.version)
    if version is None:
        return Malformed.TIMESTAMP
    return MaQuery(sequence, Address(body[:_ADDRESS]), version)


def _decode_ma_answer(
    body: bytes, code: int, sequence: int, extensions: _Extensions
) -> MaAnswer | Malformed:
    read = _read_mapping_body(body, extensions.version, extensions.prefix_length)
    if isinstance(read, Malformed):
        return read
    return MaAnswer(sequence, code, *read, extensions.age, extensions.prefix_length)


def _decode_ha_notify(
    body: bytes, _code: int, sequence: int, extensions: _Extensions
) -> HaNotify | Malformed:
    if len(body) != 2 * _ADDRESS + _WORD:
        return Malformed.BODY
    home_address, peer = Address(body[:_ADDRESS]), Address(body[_ADDRESS : 2 * _ADDRESS])
    if prefix_of(home_address, extensions.prefix_length) != home_address:
        return Malformed.PREFIX
    version = _full_version(_WORD_FIELD.unpack_from(body, 2 * _ADDRESS)[0], extensions.version)
    if version is None:
        return Malformed.TIMESTAMP
    return HaNotify(sequence, home_address, peer, version, extensions.prefix_length)


def _decode_ha_notify_ack(
    body: bytes, code: int, sequence: int, extensions: _Extensions
) -> HaNotifyAck | Malformed:
    read = _read_mapping_body(body, extensions.version, extensions.prefix_length)
    if isinstance(read, Malformed):
        return read
    return HaNotifyAck(sequence, code, *read, extensions.age, extensions.prefix_length)


def _decode_ha_query(
    body: bytes, _code: int, sequence: int, _extensions: _Extensions
) -> HaQuery | Malformed:
    if len(body) != _ADDRESS + _WORD:
        return Malformed.BODY
    return HaQuery(sequence, Address(body[:_ADDRESS]))


def _decode_ha_answer(
    body: bytes, code: int, sequence: int, extensions: _Extensions
) -> HaAnswer | Malformed:
    read = _read_mapping_body(body, extensions.version, EXACT)
    if isinstance(read, Malformed):
        return read
    return HaAnswer(sequence, code, *read, extensions.age)


_Decoder = Callable[[bytes, int, int, _Extensions], Message | Malformed]

_DECODERS: Final[dict[int, _Decoder]] = {
    Type.IMS_UPDATE: _decode_ims_update,
    Type.IMS_UPDATE_REPLY: _decode_ims_update_reply,
    Type.MA_QUERY: _decode_ma_query,
    Type.MA_ANSWER: _decode_ma_answer,
    Type.HA_NOTIFY: _decode_ha_notify,
    Type.HA_NOTIFY_ACK: _decode_ha_notify_ack,
    Type.HA_QUERY: _decode_ha_query,
    Type.HA_ANSWER: _decode_ha_answer,
}
