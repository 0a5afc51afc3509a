"""The express lane of an IMS: the commonest look-up, from bytes to bytes.

Nearly all that an IMS is asked are MA Queries of one form (nonce, perhaps a version, padded to
`REQUEST_SIZE`) for a home address with a live mapping. Decoding such a query into a message,
answering it and encoding the answer costs several times what the look-up does. `answer` does all of
it in one step, and leaves to `mat.server.MappingServer` whatever is not exactly of that form.

The lane decides nothing by itself: whenever it answers, the machine would have sent the same bytes,
which a property test holds it to (docs/protocol.md, sections 3, 5 and 8.2).
"""

from struct import Struct
from typing import Final

from mat.codec import FLAG_EXTENSIONS, Extension
from mat.messages import EXACT, MAX_MOBILE_ADDRESSES, REQUEST_SIZE, Type
from mat.registrations import RECORD, RegistrationTable

_QUERY: Final = Struct("!II16sII8sI")
"""Head, sequence, home address, timestamp, nonce extension, the extension behind it."""
_VERSION_AND_PADDING: Final = Struct("!QII")
_HEAD: Final = Type.MA_QUERY << 24 | FLAG_EXTENSIONS << 8 | 7
"""MA Query, code 0, extensions follow, 7 words of header and body."""
_NONCE: Final = Extension.NONCE << 24 | 3 << 16
_VERSION: Final = Extension.VERSION << 24 | 4 << 16
_PADDING: Final = Extension.PADDING << 24 | 6 << 16
"""Fills up to 64 bytes behind the nonce; behind a version four words less do."""
_SHORT_PADDING: Final = Extension.PADDING << 24 | 2 << 16
_ANSWERS: Final[tuple[Struct, ...]] = tuple(
    Struct(f"!II16s{16 * count}sIII8sIQI") for count in range(MAX_MOBILE_ADDRESSES + 1)
)
_ANSWER_HEADS: Final = tuple(
    Type.MA_ANSWER << 24 | FLAG_EXTENSIONS << 8 | 8 + 4 * count
    for count in range(MAX_MOBILE_ADDRESSES + 1)
)

_read_query = _QUERY.unpack_from
_read_record = RECORD.unpack_from
_RECORD_SIZE: Final = RECORD.size


def answer(  # noqa: PLR0917  # keywords would cost a tenth of it
    incoming: bytearray,
    start: int,
    size: int,
    table: RegistrationTable,
    now: float,
    outgoing: bytearray,
    place: int,
) -> int:
    """Answer the datagram of `size` bytes at `start` into `outgoing` at `place`.

    Returns the size of the answer, or 0 for a datagram that is the machine's to look at. The caller
    has made sure that every home address in `table` is one that this IMS is responsible for.
    """
    if size != REQUEST_SIZE:
        return 0
    head, sequence, home, timestamp, extension, nonce, last = _read_query(incoming, start)
    if head != _HEAD or extension != _NONCE:
        return 0
    if last != _PADDING and not _is_version(incoming, start, last, timestamp):
        return 0
    record = table.get(home)
    if record is None:
        return 0
    version, _, registered_at, lifetime, prefix_length, count = _read_record(record)
    remaining = registered_at + lifetime - now
    if remaining <= 0 or not count or prefix_length != EXACT:
        return 0
    age = int((now - registered_at) * 1000)
    layout = _ANSWERS[count]
    layout.pack_into(
        outgoing,
        place,
        _ANSWER_HEADS[count],
        sequence,
        home,
        record[_RECORD_SIZE:],
        version >> 32,
        int(remaining),
        _NONCE,
        nonce,
        _VERSION,
        version,
        max(0, age),
    )
    size_of_answer: int = layout.size
    return size_of_answer


def _is_version(incoming: bytearray, start: int, extension: int, timestamp: int) -> bool:
    """Whether a well-formed version extension and the right padding follow the nonce."""
    if extension != _VERSION:
        return False
    version, _, padding = _VERSION_AND_PADDING.unpack_from(incoming, start + 44)
    return padding == _SHORT_PADDING and (not version or version >> 32 == timestamp)
