"""One Redis server as the store sees it: a connection that comes back, and batches on it.

Theory of operation. Commands are collected and go out as one batch when the collection is flushed;
a few batches may be under way, what comes meanwhile makes the next. The server carries out a
connection's commands in order, so commands for one key take effect in the order they were added.
Whatever goes wrong, each command gets exactly one reply, if need be an `ErrorReply` made here: on a
lost connection for everything that is under way or waits, and at once for what comes while there is
no connection. A task connects again, with growing pauses.

Each batch begins with ROLE. A server that was made a replica goes on serving its clients, with data
that grows old; the batch is then not believed and the connection is given up. Where updates must
have reached replicas, a batch with updates ends with WAIT.

A connection is used only if the server's configuration keeps what it acknowledges, and is checked
anew each time, since a restart may have changed it (Redis documentation: persistence, eviction).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeAlias, cast, final
from urllib.parse import urlsplit

import redis.asyncio.connection as library
from redis.backoff import EqualJitterBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import ConnectionError as LostConnection

from mat_real.store import StoreError
from mat_real.store._redis_schema import SCRIPTS
from mat_real.store._redis_wire import ErrorReply, Reply, ReplyReader, encode

_log = logging.getLogger(__name__)

Durability: TypeAlias = Literal["fsync", "trust"]

BATCH: Final = 1000
"""Commands in one batch at most: some 10 ms of the server's time."""
_RECEIVE: Final = 1 << 18
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0
_ROLE: Final = encode(b"ROLE")


@final
@dataclass(frozen=True, slots=True)
class RedisConfig:
    """Where the store is, and how it is to be used. Times in seconds.

    Raises `StoreError` for values that cannot be used.
    """

    url: str = field(repr=False)
    """`redis://`, `rediss://` (TLS) or `unix://`, as the client library reads it: user, password,
    host, port, number of the database; TLS options behind "?", such as `ssl_ca_certs=PATH`."""
    cluster: bool = False
    """The URL names a server of a Redis Cluster: the others are found through it."""
    timeout: float = 1.0
    """Every effect is answered after so long, at the latest as unavailable."""
    durability: Durability = "fsync"
    """`fsync`: servers that would not write an update to the disk before they acknowledge it are
    refused. `trust`: the operator sees to it by other means; nothing is checked."""
    replicas: int = 0
    """Updates are acknowledged when so many replicas have them too (WAIT)."""
    prefix: str = "mat"
    """What the names of all keys begin with."""
    max_in_flight: int = 4
    """Batches on their way to one server."""
    queue: int = 20_000
    """Effects submitted and not answered; beyond that they are answered as unavailable at once."""
    password_file: Path | None = None
    """The password is read from here at each connection, rather than from the URL."""

    def __post_init__(self) -> None:
        for problem, found in (
            (f"timeout = {self.timeout}; must be above 0", self.timeout <= 0),
            (f"replicas = {self.replicas}; must not be below 0", self.replicas < 0),
            (f"max_in_flight = {self.max_in_flight}; must be at least 1", self.max_in_flight < 1),
            (f"queue = {self.queue}; must be at least 1", self.queue < 1),
            (
                f"prefix = {self.prefix!r}; must be printable and without braces or spaces",
                not self.prefix.isprintable()
                or not self.prefix
                or bool(set(self.prefix) & {*"{} "}),
            ),
        ):
            if found:
                raise StoreError(f"redis store: {problem}")

    @property
    def place(self) -> str:
        """The URL without the password, for messages."""
        parts = urlsplit(self.url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


@final
class _PasswordFile(CredentialProvider):
    """The password as it stands in a file now: a change needs no restart."""

    def __init__(self, path: Path, user: str | None) -> None:
        self._path = path
        self._user = user

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        try:
            password = self._path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(f"{self._path}: cannot be read as a password ({error})") from error
        if not password:
            raise StoreError(f"{self._path}: is empty; write the password of the Redis server")
        return (self._user, password) if self._user else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()


class _Streams:
    """What the hot path does with a library connection: bytes out at once, bytes in as they come.

    The names are the library's; its own methods read a reply at a time.
    """

    _reader: asyncio.StreamReader | None
    _writer: asyncio.StreamWriter | None

    def write(self, data: bytes) -> None:
        """Send. On a connection that is closed already nothing happens: `receive` will say so."""
        assert self._writer is not None
        if not self._writer.transport.is_closing():
            self._writer.write(data)

    async def receive(self) -> bytes:
        """What has arrived. Raises `redis.exceptions.ConnectionError` at the end of the stream."""
        assert self._reader is not None
        data = await self._reader.read(_RECEIVE)
        if not data:
            raise LostConnection("the server closed the connection")
        return data

    def abort(self) -> None:
        """Close without another word: a pending `receive` ends."""
        if self._writer is not None:
            self._writer.transport.abort()


@final
class _Tcp(_Streams, library.Connection):
    pass


@final
class _Tls(_Streams, library.SSLConnection):
    pass


@final
class _Unix(_Streams, library.UnixDomainSocketConnection):
    pass


Connection: TypeAlias = _Tcp | _Tls | _Unix
Place: TypeAlias = tuple[str, int]
"""Host and port of a server."""


@final
class Connector:
    """Makes connections to the servers of one store: checked, and with the scripts loaded."""

    __slots__ = ("_class", "_options", "config", "seed")

    def __init__(self, config: RedisConfig) -> None:
        self.config = config
        options = _options(config)
        kind = options.pop("connection_class", library.Connection)
        classes: dict[Any, Callable[..., Connection]] = {
            library.Connection: _Tcp,
            library.SSLConnection: _Tls,
            library.UnixDomainSocketConnection: _Unix,
        }
        self._class = classes[kind]
        self._options = options
        self.seed: Place = (options.get("host", "localhost"), options.get("port", 6379))
        """Host and port in the URL."""

    def place(self, at: Place | None) -> str:
        """A server's name in messages: the URL's, or another's of its cluster."""
        return self.config.place if at is None else f"{at[0]}:{at[1]}"

    async def open(self, at: Place | None = None) -> Connection:
        """A connection to the server of the URL, or to another of its cluster; not checked.

        Raises what the library raises, and `StoreError` for a URL or password that cannot be read.
        """
        options = self._options if at is None else {**self._options, "host": at[0], "port": at[1]}
        try:
            connection = self._class(**options)
        except TypeError as error:
            raise StoreError(f"redis store: url: {error}") from error
        try:
            with _lost_if_closed():
                await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def connect(self, at: Place | None = None) -> Connection:
        """The same, checked and with the scripts loaded.

        Raises `StoreError` also if that server must not be used.
        """
        connection = await self.open(at)
        place = self.place(at)
        try:
            await _check_role(connection, place)
            if self.config.durability == "fsync":
                await _check_durability(connection, place)
            for script in SCRIPTS:
                await ask(connection, "SCRIPT LOAD", script.text)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection


def _options(config: RedisConfig) -> dict[str, Any]:
    """What the library's connections are made with."""
    try:
        options = cast(dict[str, Any], library.parse_url(config.url))
    except ValueError:
        # What is wrong is not quoted: it may be a piece of the password.
        raise StoreError(
            "redis store: url: cannot be read; write redis://USER:PASSWORD@HOST:PORT/0, rediss://…"
            " or unix://PATH, with / and @ in a password as %2F and %40"
        ) from None
    if config.password_file is not None:
        user = cast(str | None, options.pop("username", None))
        if options.pop("password", None) is not None:
            raise StoreError("redis store: the password is in the url and in password_file")
        options["credential_provider"] = _PasswordFile(config.password_file, user)
    # RESP2: a server sends nothing but replies, one for each command.
    limits = {"socket_timeout": config.timeout, "socket_connect_timeout": config.timeout}
    return {**options, **limits, "protocol": 2, "decode_responses": False}


@contextmanager
def _lost_if_closed() -> Generator[None]:
    """For `RuntimeError`, uvloop's word when a connection to be written to was closed just now."""
    try:
        yield
    except RuntimeError as error:
        raise LostConnection(str(error)) from error


async def ask(connection: Connection, *command: bytes | str) -> Any:
    """One command by the library's means. Raises what the library raises."""
    with _lost_if_closed():
        await connection.send_command(*command)
    return cast(Any, await connection.read_response(disable_decoding=True))


async def _check_role(connection: Connection, place: str) -> None:
    role = await ask(connection, "ROLE")
    if role[0] != b"master":
        raise StoreError(
            f"{place}: this server is a {role[0].decode()} and no master; name the master"
        )


_KEEPS: Final = (
    ("appendonly", b"yes", "without a file that updates are appended to, a restart loses them"),
    ("appendfsync", b"always", "an update would be acknowledged before it is on the disk"),
    ("no-appendfsync-on-rewrite", b"no", "updates would not reach the disk during a rewrite"),
    ("maxmemory-policy", b"noeviction", "a full server would forget registrations"),
)
"""Settings without which a server would lose what it has acknowledged, and how it would."""


async def _check_durability(connection: Connection, place: str) -> None:
    for name, wanted, why in _KEEPS:
        try:
            found = await ask(connection, "CONFIG GET", name)
        except ResponseError as error:
            raise StoreError(
                f"{place}: the server does not tell its configuration ({error}), so whether"
                " it keeps what it acknowledges is not known; let the user do CONFIG GET, or say"
                ' durability = "trust"'
            ) from error
        if found[1] != wanted:
            raise StoreError(
                f"{place}: {name} is {found[1].decode()!r}: {why};"
                f" set {name} {wanted.decode()} in redis.conf"
            )


NEEDED: Final = (
    "get, set, ttl, sadd, smembers, evalsha, script|load, role, config|get; where replicas count,"
    " wait; in a cluster, asking and cluster|slots"
)
"""Commands that the user of the server must be allowed."""


def explain(error: Exception, place: str) -> StoreError:
    """Why a server cannot be used, as it is told to who started the IMS."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, AuthenticationError):
        return StoreError(f"{place}: user or password refused ({error}); see url, password_file")
    if isinstance(error, ResponseError):
        return StoreError(f"{place}: the server refuses ({error}); the user needs {NEEDED}")
    return StoreError(f"{place}: cannot be reached ({error}); is the server running, the url right")


class Waiting(Protocol):
    """Who waits for a reply until `deadline` (event loop's time); `done` once nobody does."""

    deadline: float
    done: bool


@final
class Command:
    """A command on its way, and whom its reply is for: which part of what that one waits for."""

    __slots__ = ("index", "key", "packed", "redirects", "waiting", "writes")

    def __init__(
        self, key: bytes, packed: bytes, writes: bool, waiting: Waiting, index: int
    ) -> None:
        self.key = key
        self.packed = packed
        self.writes = writes
        self.waiting = waiting
        self.index = index
        self.redirects = 0

    def preamble(self, *arguments: bytes) -> "Command":
        """A command to be sent before this one, and whose reply nobody reads."""
        return Command(self.key, encode(*arguments), False, self.waiting, UNREAD)


UNREAD: Final = -1


async def end(task: asyncio.Task[None]) -> None:
    """Cancel a task for good.

    Until Python 3.12, `asyncio.wait_for`, which the library uses, loses a cancellation that comes
    at the moment when what it waits for is done.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=0.1)
    if not task.cancelled():
        task.result()


@final
class _Batch:
    __slots__ = ("commands", "deadline", "expected", "replies", "waits")

    def __init__(self, commands: list[Command], deadline: float, waits: bool) -> None:
        self.commands = commands
        self.deadline = deadline
        self.waits = waits
        self.expected = len(commands) + 1 + waits
        self.replies: list[Reply] = []


Deliver: TypeAlias = Callable[["Link", Command, Reply], None]


@final
class Link:
    """One server: its connection, or the attempts to have one again."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], Awaitable[Connection]],
        config: RedisConfig,
        *,
        deliver: Deliver,
        received: Callable[[], None],
        lost: Callable[[], None],
    ) -> None:
        """`received` is called after a number of `deliver`; `lost` when there is no connection."""
        self.name = name
        self._connect = connect
        self._config = config
        self._deliver = deliver
        self._received = received
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._collected: list[Command] = []
        self._in_flight: deque[_Batch] = deque()
        self._task: asyncio.Task[None] | None = None
        # The waits of all batches under way, one after the other, end within the timeout.
        milliseconds = max(1, int(500 * config.timeout / config.max_in_flight))
        self._wait = encode(b"WAIT", b"%d" % config.replicas, b"%d" % milliseconds)

    async def open(self) -> None:
        """Connect for the first time. Raises what the library raises, and `StoreError`."""
        self._start(await self._connect())

    def open_soon(self) -> None:
        """Connect when it can be done."""
        self._start(None)

    def _start(self, connection: Connection | None) -> None:
        self._connection = connection
        self._task = self._loop.create_task(self._run(), name=f"redis {self.name}")

    async def close(self) -> None:
        """Give up the connection; what is under way is answered with an error."""
        if self._task is not None:
            await end(self._task)

    # ---- commands ------------------------------------------------------------------------------

    def add(self, command: Command) -> None:
        """Collect a command for the next batch."""
        if self._connection is None:
            self._deliver(self, command, _LOST)
        else:
            self._collected.append(command)

    def flush(self) -> None:
        """Send what is collected, as far as batches may be under way.

        What nobody waits for any more is not: a server that is too slow would else work on nothing
        but that.
        """
        while self._collected and len(self._in_flight) < self._config.max_in_flight:
            commands = [c for c in self._collected[:BATCH] if not c.waiting.done]
            del self._collected[:BATCH]
            if commands:
                self._send(commands)

    def _send(self, commands: list[Command]) -> None:
        assert self._connection is not None
        waits = self._config.replicas > 0 and any(command.writes for command in commands)
        parts = [_ROLE, *(command.packed for command in commands)]
        if waits:
            parts.append(self._wait)
        deadline = max(self._loop.time() + self._config.timeout, commands[-1].waiting.deadline)
        self._in_flight.append(_Batch(commands, deadline, waits))
        self._connection.write(b"".join(parts))

    def deadline(self) -> float | None:
        """When `check` should be called; None while nothing is under way."""
        return self._in_flight[0].deadline if self._in_flight else None

    def check(self, now: float) -> None:
        """Give up a connection on which the server is silent."""
        if self._in_flight and self._in_flight[0].deadline <= now:
            self._give_up("no reply in time")

    # ---- the connection ------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            connection = self._connection
            if connection is None:
                connection = self._connection = await self._reconnect()
            try:
                await self._serve(connection)
            except (RedisError, OSError) as error:
                self._give_up(str(error))
            finally:
                self._give_up("")
                await connection.disconnect(nowait=True)

    async def _reconnect(self) -> Connection:
        pauses = EqualJitterBackoff(_LONGEST_PAUSE, _FIRST_PAUSE)
        failures, said = 0, ""
        while True:
            self._lost()
            try:
                connection = await self._connect()
            except (RedisError, OSError, StoreError) as error:
                why = str(explain(error, self.name))
                if why != said:
                    _log.warning("store: %s", why)
                    said = why
                failures += 1
                await asyncio.sleep(pauses.compute(failures))
            else:
                _log.info("store: %s: connected", self.name)
                return connection

    async def _serve(self, connection: Connection) -> None:
        reader = ReplyReader()
        while True:
            data = await connection.receive()
            if self._connection is not connection:
                return
            for reply in reader.feed(data):
                self._take(reply)
            self._received()

    def _give_up(self, why: str) -> None:
        """Answer everything, for the connection is of no use; `why` is empty if it was closed."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        connection.abort()
        commands = [command for batch in self._in_flight for command in batch.commands]
        commands += self._collected
        self._in_flight.clear()
        self._collected.clear()
        if why:
            _log.warning("store: %s: connection lost (%s)", self.name, why)
        for command in commands:
            self._deliver(self, command, _LOST)
        self._received()

    # ---- replies -------------------------------------------------------------------------------

    def _take(self, reply: Reply) -> None:
        if not self._in_flight:
            raise LostConnection("a reply to nothing that was asked")
        batch = self._in_flight[0]
        if not batch.replies and not _is_master(reply):
            raise LostConnection("the server is no master now, or not ready")
        batch.replies.append(reply)
        if len(batch.replies) == batch.expected:
            self._in_flight.popleft()
            self._settle(batch)

    def _settle(self, batch: _Batch) -> None:
        """Hand on the replies of a batch that is complete."""
        lacking = batch.waits and not self._reached(batch.replies[-1])
        for command, reply in zip(batch.commands, batch.replies[1:], strict=False):
            self._deliver(self, command, _NOT_COPIED if lacking and command.writes else reply)

    def _reached(self, reply: Reply) -> bool:
        return isinstance(reply, int) and reply >= self._config.replicas


_LOST: Final = ErrorReply("LOST the connection")
_NOT_COPIED: Final = ErrorReply("NOREPLICAS too few have the update")


def _is_master(reply: Reply) -> bool:
    return isinstance(reply, list) and reply[0] == b"master"
