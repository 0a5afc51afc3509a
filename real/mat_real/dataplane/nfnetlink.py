"""Elements and rules of nftables by netlink.

libnftables makes the tables, from a text that people can read. What changes at a move is done here,
because packets wait for it, and elements take a fraction of the time that they take as text. So are
the rules that the language cannot say: to write source and destination at once, from one value of a
map, and keep the checksums right; and those by a target and a match of iptables (nft_compat), which
kernels without nftables' own `queue` have too.

The formats are those of linux/netfilter/nf_tables.h and netlink(7).
"""

import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from errno import EMSGSIZE, ENOENT
from struct import Struct, pack
from typing import Final, NamedTuple, final

from mat_real.dataplane import DataplaneError

SEND_BUFFER: Final = 16 << 20
"""Bytes that one transaction may have: those of some 100,000 elements."""
_RECEIVE: Final = 1 << 17
_TIMEOUT: Final = 5.0
_AT_ONCE: Final = 500
"""Elements in a message, whose list of them may have 64 KiB."""

_NETLINK_NETFILTER: Final = 12
_FORCE_SEND_BUFFER: Final = 32
_SOL_NETLINK: Final = 270
_CAP_ACK: Final = 10
_REQUEST, _ACK, _DUMP, _CREATE = 1, 4, 0x300, 0x400
_ERROR, _DONE = 2, 3
_BATCH_BEGIN, _BATCH_END = 16, 17
_NFTABLES: Final = 10
_NEW_RULE, _GET_RULES, _NEW_ELEMENTS, _GET_ELEMENTS, _DELETE_ELEMENTS, _GET_OBJECTS = (
    _NFTABLES << 8 | kind for kind in (6, 7, 12, 13, 14, 19)
)
_FIRST, _MIDDLE, _LAST = range(3)
"""Sequence numbers in a transaction: its errors are reported in the order of its messages."""
_NUMBERS: Final = 3
_LARGEST: Final = 0x7FFF_FFFF
_INTERRUPTED: Final = 0x10
_ATTEMPTS: Final = 5

_HEADER: Final = Struct("=IHHIIBxH")
_ANSWER: Final = Struct("=IHHIIi")
_ATTRIBUTE: Final = Struct("=HH")
_NESTED: Final = 0x8000
_KIND: Final = 0x3FFF

# Attributes: of lists; of tables and what is in them; of elements, expressions and counters.
_ITEM: Final = 1
_TABLE, _SET, _ELEMENTS = 1, 2, 3
_CHAIN, _EXPRESSIONS = 2, 4
_KEY, _DATA, _EXPRESSION = 1, 2, 7
_VALUE: Final = 1
_NAME, _CONTENT = 1, 2
_PACKETS: Final = 2
_OBJECT_NAME, _OBJECT_CONTENT = 2, 4
# Of rules.
_VERDICT, _REGISTER = 0, 1
_NETWORK: Final = 1
_INTERNET_CHECKSUM: Final = 1
_UPPER_LAYERS_TOO: Final = 1
_COUNTER: Final = 1
_ACCEPT: Final = 1


class Element(NamedTuple):
    """An element of a map, or of a set, where the value is empty."""

    key: bytes
    value: bytes
    packets: int
    """As counted; 0 where nothing counts."""


class Message(NamedTuple):
    """What is asked of nftables."""

    kind: int
    family: int
    body: bytes

    def packed(self, sequence: int, flags: int) -> bytes:
        """The bytes of a request."""
        size = _HEADER.size + len(self.body)
        return (
            _HEADER.pack(size, self.kind, _REQUEST | flags, sequence, 0, self.family, 0) + self.body
        )


class _Answer(NamedTuple):
    kind: int
    flags: int
    sequence: int
    code: int
    """An error, of those that end a request; else 0."""
    attributes: bytes


@final
class Netlink:
    """A socket to the nftables of the network namespace that it was made in."""

    __slots__ = ("_sequence", "_socket")

    def __init__(self) -> None:
        self._sequence = 0
        """Of the request under way; what has a lower one answers an earlier request."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        self._socket.settimeout(_TIMEOUT)
        # An error need not bring back the message that caused it.
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _FORCE_SEND_BUFFER, SEND_BUFFER)
        except PermissionError:
            # In a user namespace nobody may exceed net.core.wmem_max.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)

    def close(self) -> None:
        """End; what is in the kernel stays."""
        self._socket.close()

    def change(self, changes: Sequence[Message]) -> None:
        """Make all of these changes, or none of them. Raises `DataplaneError`.

        Where they are too much for one transaction, it is several, in this order.
        """
        if not changes:
            return
        try:
            self._transact(changes)
        except OSError as error:
            if error.errno != EMSGSIZE or len(changes) == 1:
                raise _refused(error) from error
            half = len(changes) // 2
            self.change(changes[:half])
            self.change(changes[half:])

    def _transact(self, changes: Sequence[Message]) -> None:
        begin = self._next()
        *others, last = changes
        batch = [
            _boundary(_BATCH_BEGIN, begin + _FIRST),
            *(each.packed(begin + _MIDDLE, _CREATE) for each in others),
            last.packed(begin + _LAST, _CREATE | _ACK),
            _boundary(_BATCH_END, begin + _LAST),
        ]
        self._socket.send(b"".join(batch))
        # An error of the whole has the number of the first.
        first, ended = 0, False
        while not ended:
            for answer in self._answers(begin):
                first = first or answer.code
                ended = answer.sequence != begin + _MIDDLE
        if first:
            raise OSError(-first, os.strerror(-first))

    def elements(self, family: int, table: str, name: str) -> list[Element] | None:
        """What is in a map or set; None if there is none of that name. Raises `DataplaneError`."""
        query = Message(_GET_ELEMENTS, family, _text(_TABLE, table) + _text(_SET, name))
        try:
            return [each for answer in self._dump(query) for each in _elements_in(answer)]
        except OSError as error:
            if error.errno == ENOENT:
                return None
            raise _refused(error) from error

    def counters(self, family: int, table: str) -> dict[str, int]:
        """Packets that a table's counters have counted; none without the table."""
        query = Message(_GET_OBJECTS, family, _text(_TABLE, table))
        try:
            return dict(map(_counter_in, self._dump(query)))
        except OSError as error:
            raise _refused(error) from error

    def has_rules(self, family: int, table: str) -> bool:
        """Whether there is a table of that name, with any rules. Raises `DataplaneError`."""
        query = Message(_GET_RULES, family, _text(_TABLE, table))
        try:
            return bool(self._dump(query))
        except OSError as error:
            if error.errno == ENOENT:
                return False
            raise _refused(error) from error

    def _dump(self, query: Message) -> list[bytes]:
        """The attributes of every answer. If something changes meanwhile, it is asked anew."""
        found: list[bytes] = []
        for _ in range(_ATTEMPTS):
            found, interrupted = self._dump_once(query)
            if not interrupted:
                break
        return found

    def _dump_once(self, query: Message) -> tuple[list[bytes], bool]:
        begin = self._next()
        self._socket.send(query.packed(begin, _DUMP))
        found: list[bytes] = []
        interrupted = False
        while True:
            for answer in self._answers(begin):
                interrupted = interrupted or bool(answer.flags & _INTERRUPTED)
                if answer.kind not in (_ERROR, _DONE):
                    found.append(answer.attributes)
                elif answer.code:
                    raise OSError(-answer.code, os.strerror(-answer.code))
                else:
                    return found, interrupted

    def _next(self) -> int:
        """The first sequence number of a request."""
        self._sequence = (self._sequence + _NUMBERS) & _LARGEST
        return self._sequence

    def _answers(self, begin: int) -> Iterator[_Answer]:
        """What comes next, without answers to requests before the one that began with `begin`."""
        data, at = self._socket.recv(_RECEIVE), 0
        while at < len(data):
            size, kind, flags, sequence, _, code = _ANSWER.unpack_from(data, at)
            if sequence - begin in range(_NUMBERS):
                attributes = data[at + _HEADER.size : at + size]
                is_end = kind in (_ERROR, _DONE)
                yield _Answer(kind, flags, sequence, code if is_end else 0, attributes)
            at += size + 3 & ~3


def _boundary(kind: int, sequence: int) -> bytes:
    return _HEADER.pack(_HEADER.size, kind, _REQUEST, sequence, 0, 0, socket.htons(_NFTABLES))


def _refused(error: OSError) -> DataplaneError:
    what = f"the kernel's nftables refused a change ({error.strerror or error})"
    if isinstance(error, PermissionError):
        return DataplaneError(f"{what}: that takes root, or CAP_NET_ADMIN")
    mend = "it takes a kernel with NFT_COMPAT, NETFILTER_XT_TARGET_NFQUEUE and _XT_MATCH_SOCKET"
    return DataplaneError(f"{what}: {mend}; what stands is shown by `nft list ruleset`")


# ---- writing -----------------------------------------------------------------------------------


def put(family: int, table: str, name: str, elements: Mapping[bytes, bytes]) -> list[Message]:
    """Add elements to a map; to a set, with empty values. They are not in it yet."""
    return _change(_NEW_ELEMENTS, family, table, name, elements)


def delete(family: int, table: str, name: str, keys: Iterable[bytes]) -> list[Message]:
    """Take elements out of a map or set. They are in it."""
    return _change(_DELETE_ELEMENTS, family, table, name, dict.fromkeys(keys, b""))


def _change(
    kind: int, family: int, table: str, name: str, elements: Mapping[bytes, bytes]
) -> list[Message]:
    if not elements:
        return []
    before, between = _around(*map(len, next(iter(elements.items()))))
    packed = [before + key + between + value for key, value in elements.items()]
    where = _text(_TABLE, table) + _text(_SET, name)
    return [
        Message(kind, family, where + _nested(_ELEMENTS, *packed[at : at + _AT_ONCE]))
        for at in range(0, len(packed), _AT_ONCE)
    ]


def _around(key: int, value: int) -> tuple[bytes, bytes]:
    """What is before keys and between them and values, of so many bytes, in attributes."""
    size = 12 + key + (8 + value if value else 0)
    before = pack("=6H", size, _ITEM | _NESTED, 8 + key, _KEY | _NESTED, 4 + key, _VALUE)
    between = pack("=4H", 8 + value, _DATA | _NESTED, 4 + value, _VALUE)
    return before, between if value else b""


def rule(family: int, table: str, chain: str, expressions: Iterable[bytes]) -> Message:
    """Put a rule into a chain, before any others."""
    where = _text(_TABLE, table) + _text(_CHAIN, chain)
    return Message(_NEW_RULE, family, where + _nested(_EXPRESSIONS, *expressions))


def load(offset: int, length: int) -> bytes:
    """Take bytes of the IP header."""
    return _expression("payload", _numbers({1: _REGISTER, 2: _NETWORK, 3: offset, 4: length}))


def look_up(name: str) -> bytes:
    """Take the value that a map has for what was taken; packets without go to the next rule."""
    return _expression("lookup", _text(1, name) + _numbers({2: _REGISTER, 3: _REGISTER}))


def store(offset: int, length: int, checksum: int | None) -> bytes:
    """Write what was taken into the IP header, and keep checksums right.

    `checksum` is where the IP header's own is. The upper layers' cover addresses in any case.
    """
    where = {5: _REGISTER, 2: _NETWORK, 3: offset, 4: length}
    own = {6: 0, 7: 0} if checksum is None else {6: _INTERNET_CHECKSUM, 7: checksum}
    return _expression("payload", _numbers(where | own | {8: _UPPER_LAYERS_TOO}))


def count(name: str) -> bytes:
    """Have a counter of the table count the packet."""
    return _expression("objref", _numbers({1: _COUNTER}) + _text(2, name))


def accept() -> bytes:
    """Let the packet leave the chain and those that led to it."""
    verdict = _nested(2, _nested(2, _numbers({1: _ACCEPT})))
    return _expression("immediate", _numbers({1: _VERDICT}) + verdict)


def enqueue(queue: int, *, bypass: bool) -> bytes:
    """Send the packet to a queue; `bypass`: where nobody reads that, let it go on.

    iptables' NFQUEUE (linux/netfilter/xt_NFQUEUE.h).
    """
    return _extension("target", "NFQUEUE", pack("=HHHxx", queue, 1, bypass))


def reassembled() -> bytes:
    """Have all fragments put together before the rules see them, for the mere being of this.

    iptables' match of packets with a socket (linux/netfilter/xt_socket.h).
    """
    return _extension("match", "socket", bytes(8))


def _extension(kind: str, name: str, settings: bytes) -> bytes:
    """A target or match of iptables, in its revision 3."""
    where = _ATTRIBUTE.pack(4 + len(settings), 3) + settings
    return _expression(kind, _text(1, name) + _numbers({2: 3}) + where)


def _expression(name: str, content: bytes) -> bytes:
    return _nested(_ITEM, _text(_NAME, name), _nested(_CONTENT, content))


def _numbers(values: Mapping[int, int]) -> bytes:
    return b"".join(pack("=HH4s", 8, kind, value.to_bytes(4)) for kind, value in values.items())


def _text(kind: int, value: str) -> bytes:
    size = len(value) + 1
    return _ATTRIBUTE.pack(4 + size, kind) + value.encode() + bytes(1 + -size % 4)


def _nested(kind: int, *inner: bytes) -> bytes:
    content = b"".join(inner)
    return _ATTRIBUTE.pack(4 + len(content), kind | _NESTED) + content


# ---- reading -----------------------------------------------------------------------------------


def _attributes(data: bytes, at: int, end: int) -> dict[int, tuple[int, int]]:
    """By kind, where the contents of the attributes in a range begin and end."""
    found: dict[int, tuple[int, int]] = {}
    while at < end:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        found[kind & _KIND] = (at + 4, at + length)
        at += length + 3 & ~3
    return found


def _elements_in(data: bytes) -> Iterator[Element]:
    """The elements in the attributes of one message."""
    at, end = _attributes(data, 0, len(data)).get(_ELEMENTS, (0, 0))
    while at < end:
        size, _ = _ATTRIBUTE.unpack_from(data, at)
        parts = _attributes(data, at + 4, at + size)
        yield Element(
            _value(data, *parts[_KEY]),
            _value(data, *parts[_DATA]) if _DATA in parts else b"",
            _count(data, *parts[_EXPRESSION]) if _EXPRESSION in parts else 0,
        )
        at += size


def _value(data: bytes, at: int, end: int) -> bytes:
    return data[at + 4 : end]


def _count(data: bytes, at: int, end: int) -> int:
    """What the counter of an element says."""
    return _packets(data, *_attributes(data, at, end)[_CONTENT])


def _packets(data: bytes, at: int, end: int) -> int:
    start, stop = _attributes(data, at, end)[_PACKETS]
    return int.from_bytes(data[start:stop])


def _counter_in(data: bytes) -> tuple[str, int]:
    """Name and packets of a counter, from the attributes of a message."""
    parts = _attributes(data, 0, len(data))
    start, stop = parts[_OBJECT_NAME]
    return data[start : stop - 1].decode(), _packets(data, *parts[_OBJECT_CONTENT])
