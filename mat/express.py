"""The express lane of an IMS: its commonest requests, from bytes to bytes.

Nearly all that an IMS is sent are requests of the form that nodes send (nonce, extensions in one
order, padding), about one home address with a live mapping. Decoding such a request into a message,
carrying it through the machine and encoding the answer costs several times what the look-up does,
or the authentication. The lane does all of it in one step, and leaves whatever is not exactly of
that form, or not plainly a success, to `mat.server.MappingServer`.

The lane decides nothing by itself: whenever it takes a request, the machine would have stored and
sent the same bytes, which property tests hold it to (docs/protocol.md, sections 3 to 6 and 8).
"""

import hmac
from struct import Struct
from typing import Final, NamedTuple, final

from mat.address import IPV4_PREFIX, Address, is_ipv4, is_unicast
from mat.authentication import Key, KeyRing, mac_of
from mat.codec import FLAG_EXTENSIONS, MAC_SIZE, Extension
from mat.messages import EXACT, MAX_MOBILE_ADDRESSES, MOST_FRESHNESS, REQUEST_SIZE, Code, Type
from mat.registrations import RECORD, RegistrationTable
from mat.server import Responsible

_NONCE: Final = Extension.NONCE << 24 | 3 << 16
_VERSION: Final = Extension.VERSION << 24 | 4 << 16
_PADDING: Final = Extension.PADDING << 24 | 6 << 16
"""Fills an MA Query up to 64 bytes behind the nonce; behind a version four words less do."""
_SHORT_PADDING: Final = Extension.PADDING << 24 | 2 << 16
_ADDRESS: Final = 16
_AUTHENTICATION: Final = Extension.AUTHENTICATION << 24 | 8 << 16


def _head(kind: Type, words: int) -> int:
    """The first word of a message: type, code 0, extensions follow, length."""
    return kind << 24 | FLAG_EXTENSIONS << 8 | words


# ---- MA Query and HA Notify ----------------------------------------------------------------------

_QUERY: Final = Struct("!II16sII8sI")
"""Head, sequence, home address, timestamp, nonce extension, the extension behind it."""
_QUERY_HEAD: Final = _head(Type.MA_QUERY, 7)
_VERSION_AND_PADDING: Final = Struct("!QII")
_NOTIFY: Final = Struct("!II16s16sII8sIQI")
"""Head, sequence, home address, peer, timestamp, nonce extension, version extension."""
_NOTIFY_HEAD: Final = _head(Type.HA_NOTIFY, 11)
_ANSWERS: Final[tuple[Struct, ...]] = tuple(
    Struct(f"!II16s{16 * count}sIII8sIQI") for count in range(MAX_MOBILE_ADDRESSES + 1)
)
_NOTIFY_SIZE: Final = _NOTIFY.size
_ANSWER_HEAD: Final = _head(Type.MA_ANSWER, 8)
"""Each address adds 4 words."""
_ACK_HEAD: Final = _head(Type.HA_NOTIFY_ACK, 8)

_read_query = _QUERY.unpack_from
_read_notify = _NOTIFY.unpack_from
_read_record = RECORD.unpack_from
_RECORD_SIZE: Final = RECORD.size


def _is_version(datagram: bytes, extension: int, timestamp: int) -> bool:
    """Whether a well-formed version extension and the right padding follow the nonce."""
    if extension != _VERSION:
        return False
    version, _, padding = _VERSION_AND_PADDING.unpack_from(datagram, 44)
    return padding == _SHORT_PADDING and (not version or version >> 32 == timestamp)


def _vouched(record: bytes | None, version: int, now: float) -> bool:
    """Whether the mover's live mapping is at least of the version that it notified."""
    if record is None:
        return False
    stored, _, registered_at, lifetime, prefix_length, _ = _read_record(record)
    live: bool = registered_at + lifetime > now
    return live and stored >= version and prefix_length == EXACT


# ---- IMS Update ----------------------------------------------------------------------------------


class Admitted(NamedTuple):
    """An authentic, acceptable IMS Update for a single home address, on its way to the store.

    `record` is the packed registration. It is not yet judged against what is stored.
    """

    key: Key
    record: bytes
    freshness: int
    sequence: int
    nonce: bytes


class _Form(NamedTuple):
    """One form of IMS Update: how to read it, and whether it has a version of its own."""

    read: Struct
    addresses: int
    versioned: bool


def _forms() -> dict[int, _Form]:
    """All forms, by size and first word."""
    forms: dict[int, _Form] = {}
    for count in range(1, MAX_MOBILE_ADDRESSES + 1):
        for versioned in (False, True):
            version = "IQI" if versioned else ""
            read = Struct(f"!II16s{16 * count}sIII8s{version}IIQ16s")
            form = _Form(read, count, versioned)
            forms[read.size << 32 | _head(Type.IMS_UPDATE, 8 + 4 * count)] = form
    return forms


_FORMS: Final = _forms()
_REPLY: Final = Struct("!III8sIIQ")
_REPLY_HEAD: Final = _head(Type.IMS_UPDATE_REPLY, 2)


def _acceptable(moved: bytes, ipv4: bool) -> bool:
    """Whether these are distinct unicast addresses of one family."""
    if len(moved) == _ADDRESS:
        return moved.startswith(IPV4_PREFIX) is ipv4 and is_unicast(Address(moved))
    addresses = {Address(moved[at : at + _ADDRESS]) for at in range(0, len(moved), _ADDRESS)}
    fit = all(is_ipv4(address) is ipv4 and is_unicast(address) for address in addresses)
    return fit and _ADDRESS * len(addresses) == len(moved)


def acknowledge(update: Admitted, code: Code = Code.SUCCEEDED) -> bytes:
    """The IMS Update Reply to an admitted update: that it is stored, or to try again."""
    key = update.key
    covered = _REPLY.pack(
        _REPLY_HEAD | code << 16,
        update.sequence,
        _NONCE,
        update.nonce,
        _AUTHENTICATION,
        key.key_id,
        update.freshness,
    )
    return covered + mac_of(key, covered)


# ---- the lane ------------------------------------------------------------------------------------


@final
class ExpressLane:
    """The lane over one table of registrations. See the head of the module."""

    __slots__ = ("_keys", "_longest", "_responsible", "table")

    def __init__(
        self, table: RegistrationTable, keys: KeyRing, responsible: Responsible, longest: int
    ) -> None:
        """`keys` and `responsible` are the machine's; `longest` is the longest lifetime, s."""
        self.table = table
        self._keys = keys
        self._responsible = responsible
        self._longest = longest

    def adopt(self, keys: KeyRing, responsible: Responsible) -> None:
        """Go on with other keys and zones, as the machine does."""
        self._keys = keys
        self._responsible = responsible

    def answer(self, datagram: bytes, now: float, outgoing: bytearray, place: int) -> int:
        """Answer an MA Query, or an HA Notify between two nodes of this IMS, into `outgoing`.

        Returns the size of the answer, or 0 for a datagram that is the machine's to look at.
        """
        asked = self._asked(datagram, now)
        if asked is None:
            return 0
        head, home, sequence, nonce = asked
        record = self.table.get(home)
        if record is None or not self._responsible(home):
            return 0
        count: int
        version, _, registered_at, lifetime, prefix_length, count = _read_record(record)
        remaining = registered_at + lifetime - now
        if remaining <= 0 or not count or prefix_length != EXACT:
            return 0
        layout = _ANSWERS[count]
        layout.pack_into(
            outgoing,
            place,
            head + 4 * count,
            sequence,
            home,
            record[_RECORD_SIZE:],
            version >> 32,
            int(remaining),
            _NONCE,
            nonce,
            _VERSION,
            version,
            max(0, int((now - registered_at) * 1000)),
        )
        return layout.size

    def _asked(self, datagram: bytes, now: float) -> tuple[int, Address, int, bytes] | None:
        """First word of the answer, whose mapping it carries, sequence and nonce."""
        size = len(datagram)
        if size == REQUEST_SIZE:
            head, sequence, home, timestamp, extension, nonce, last = _read_query(datagram)
            if head != _QUERY_HEAD or extension != _NONCE:
                return None
            if last != _PADDING and not _is_version(datagram, last, timestamp):
                return None
            return _ANSWER_HEAD, home, sequence, nonce
        if size != _NOTIFY_SIZE:
            return None
        head, sequence, mover, home, timestamp, extension, nonce, last, version, _ = _read_notify(
            datagram
        )
        if head != _NOTIFY_HEAD or extension != _NONCE or last != _VERSION:
            return None
        if version and version >> 32 != timestamp:
            return None
        if is_ipv4(mover) != is_ipv4(home) or not is_unicast(mover):
            return None
        vouched = _vouched(self.table.get(mover), version or timestamp << 32, now)
        return (_ACK_HEAD, home, sequence, nonce) if vouched and self._responsible(mover) else None

    def admit(self, datagram: bytes, now: float) -> Admitted | None:
        """An IMS Update that the machine would hand to its store; None for all other datagrams."""
        form = _FORMS.get(len(datagram) << 32 | int.from_bytes(datagram[:4]))
        if form is None:
            return None
        fields = form.read.unpack(datagram)
        _, sequence, home, moved, timestamp, lifetime, extension, nonce = fields[:8]
        last, key_id, freshness, mac = fields[-4:]
        if extension != _NONCE or last != _AUTHENTICATION or not lifetime:
            return None
        version = freshness
        if form.versioned:
            if fields[8] != _VERSION or not fields[9]:
                return None
            version = fields[9]
        if version >> 32 != timestamp or not version <= freshness < MOST_FRESHNESS:
            return None
        key = self._keys(key_id)
        if key is None or home != key.home_address or key.prefix_length != EXACT:
            return None
        if not self._responsible(home) or not _acceptable(moved, is_ipv4(home)):
            return None
        if not hmac.compare_digest(mac_of(key, datagram[:-MAC_SIZE]), mac):
            return None
        granted = min(lifetime, self._longest)
        record = RECORD.pack(version, freshness, now, granted, EXACT, form.addresses) + moved
        return Admitted(key, record, freshness, sequence, nonce)
