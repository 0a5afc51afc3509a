"""The Redis protocol (RESP2) as far as updates and look-ups need it: commands out, replies in.

The client library connects, authenticates and asks what is asked rarely. For what is done for every
update it is too slow: its pipeline takes six to eight times the CPU time of these two functions,
its connection five to six times (`test_the_wire` in tests/bench/bench_store_redis.py). Source: the
protocol specification, https://redis.io/docs/latest/develop/reference/protocol-spec/.
"""

from typing import Final, TypeAlias, final

from redis.exceptions import InvalidResponse

_ERROR: Final = ord("-")
_SIMPLE: Final = ord("+")
_INTEGER: Final = ord(":")
_BULK: Final = ord("$")
_ARRAY: Final = ord("*")


@final
class ErrorReply:
    """What the server said instead of doing it, as in `READONLY You can't write …`."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    @property
    def code(self) -> str:
        """The first word, which says what kind of error it is."""
        return self.text.partition(" ")[0]


Reply: TypeAlias = "bytes | int | ErrorReply | list[Reply] | None"


def encode(*arguments: bytes) -> bytes:
    """A command as it is sent."""
    parts = [b"*%d\r\n" % len(arguments)]
    parts += [b"$%d\r\n%b\r\n" % (len(argument), argument) for argument in arguments]
    return b"".join(parts)


class _CutOffError(Exception):
    """The rest of the reply has not arrived yet."""


@final
class ReplyReader:
    """Replies out of a stream of bytes, however it is cut."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that are complete with these bytes.

        Raises `redis.exceptions.InvalidResponse` when this is not the protocol.
        """
        data = self._rest + data
        replies: list[Reply] = []
        at, size = 0, len(data)
        try:
            while at < size:
                reply, at = _reply(data, at)
                replies.append(reply)
        except _CutOffError:
            pass
        except ValueError as error:
            raise InvalidResponse(f"not the Redis protocol: {data[at : at + 40]!r}") from error
        self._rest = data[at:]
        return replies


def _reply(data: bytes, at: int) -> tuple[Reply, int]:
    """The reply that begins at `at`, and where the next one does."""
    end = data.find(b"\r\n", at)
    if end < 0:
        raise _CutOffError
    kind, line, at = data[at], data[at + 1 : end], end + 2
    if kind == _BULK:
        return _bulk(data, at, int(line))
    if kind == _INTEGER:
        return int(line), at
    if kind == _SIMPLE:
        return line, at
    if kind == _ERROR:
        return ErrorReply(line.decode(errors="replace")), at
    if kind == _ARRAY:
        return _array(data, at, int(line))
    raise ValueError(f"a reply of the unknown kind {kind}")


def _bulk(data: bytes, at: int, size: int) -> tuple[Reply, int]:
    if size < 0:
        return None, at
    end = at + size
    if end + 2 > len(data):
        raise _CutOffError
    return data[at:end], end + 2


def _array(data: bytes, at: int, size: int) -> tuple[Reply, int]:
    if size < 0:
        return None, at
    items: list[Reply] = []
    for _ in range(size):
        item, at = _reply(data, at)
        items.append(item)
    return items, at
