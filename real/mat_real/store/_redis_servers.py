"""Which server a key is on: always the same one, or a Redis Cluster's.

Of a cluster each master has a `Link` of its own, so that a server that is lost takes only its own
share of the keys with it. Where the keys are is asked of the servers (CLUSTER SLOTS), and asked
again whenever a link is lost or a server says that a slot has moved. A command that came to the
wrong server is sent on as the reply says: MOVED for good, ASK for once, while a slot is moved.

The library's own cluster client is not used: its pipeline waits for all servers and repeats the
whole when one is silent. Source: the cluster specification,
https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, Protocol, TypeAlias, final

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AuthenticationError, RedisError
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import TimeoutError as NoReply

from mat_real.store import StoreError
from mat_real.store._redis_link import Command, Connector, Link, Place, ask, end, explain
from mat_real.store._redis_schema import SCRIPTS
from mat_real.store._redis_wire import ErrorReply, Reply

_log = logging.getLogger(__name__)

_REFRESH: Final = 0.25
"""Seconds between two questions for the slots: a crowd of redirections is one reason to ask."""
_MOST_REDIRECTS: Final = 5

Answer: TypeAlias = Callable[[Command, Reply], None]
"""What is done with the reply to a command."""


class Servers(Protocol):
    """All servers of a store, behind one face."""

    async def open(self) -> None:
        """Connect. Raises `StoreError`."""
        ...

    def add(self, command: Command) -> None:
        """Collect a command for the server that has its key."""
        ...

    def links(self) -> Iterable[Link]:
        """The servers, each with its connection."""
        ...

    async def close(self) -> None:
        """Give up all connections."""
        ...


def _told_again(link: Link, command: Command) -> bool:
    """Send a command again to a server that did not know its script, with the scripts before it."""
    command.redirects += 1
    if command.redirects > _MOST_REDIRECTS:
        return False
    for script in SCRIPTS:
        link.add(command.preamble(b"SCRIPT", b"LOAD", script.text))
    link.add(command)
    return True


@final
class SingleServer:
    """One server, with replicas or without."""

    def __init__(self, connector: Connector, answer: Answer, received: Callable[[], None]) -> None:
        self._answer = answer
        config = connector.config
        self._link = Link(
            config.place,
            connector.connect,
            config,
            deliver=self._deliver,
            received=received,
            lost=lambda: None,
        )

    async def open(self) -> None:
        """Connect. Raises `StoreError`."""
        try:
            await self._link.open()
        except (RedisError, OSError, StoreError) as error:
            raise explain(error, self._link.name) from error

    def add(self, command: Command) -> None:
        """Collect a command."""
        self._link.add(command)

    def links(self) -> Iterable[Link]:
        """The one server."""
        return (self._link,)

    async def close(self) -> None:
        """Give up the connection."""
        await self._link.close()

    def _deliver(self, link: Link, command: Command, reply: Reply) -> None:
        unknown = type(reply) is ErrorReply and reply.code == "NOSCRIPT"
        if not (unknown and _told_again(link, command)):
            self._answer(command, reply)


@final
class Cluster:
    """The masters of a Redis Cluster."""

    def __init__(self, connector: Connector, answer: Answer, received: Callable[[], None]) -> None:
        self._connector = connector
        self._answer = answer
        self._received = received
        self._links: dict[Place, Link] = {}
        self._slots: list[Link | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._stirred = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Find the masters and connect to each that can be reached. Raises `StoreError`."""
        place = self._connector.config.place
        try:
            masters = await self._masters(None)
            for at in masters:
                await self._open(at)
        except (RedisError, OSError, StoreError) as error:
            await self.close()
            if "cluster support disabled" in str(error):
                what = "the server is not part of a cluster; leave out cluster = true"
                raise StoreError(f"{place}: {what}") from error
            raise explain(error, place) from error
        await self._adopt(masters)
        self._watch = asyncio.create_task(self._keep_up(), name="redis cluster")

    async def _open(self, at: Place) -> None:
        """Connect to a master; one that cannot be reached now must not keep the IMS from serving.

        Raises the error of one that can be, and must not be used.
        """
        link = self._links[at] = self._link(at)
        try:
            await link.open()
        except AuthenticationError:
            raise
        except (LostConnection, NoReply, OSError):
            link.open_soon()

    def _link(self, at: Place) -> Link:
        connector = self._connector
        return Link(
            connector.place(at),
            partial(connector.connect, at),
            connector.config,
            deliver=self._deliver,
            received=self._received,
            lost=self._stirred.set,
        )

    def add(self, command: Command) -> None:
        """Collect a command for the server that has its key."""
        link = self._slots[key_slot(command.key)]
        if link is None:
            self._answer(command, _UNSERVED)
        else:
            link.add(command)

    def links(self) -> Iterable[Link]:
        """The masters."""
        return self._links.values()

    async def close(self) -> None:
        """Give up all connections."""
        if self._watch is not None:
            await end(self._watch)
        for link in self._links.values():
            await link.close()

    # ---- where the slots are -------------------------------------------------------------------

    async def _keep_up(self) -> None:
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            await self._refresh()
            await asyncio.sleep(_REFRESH)

    async def _refresh(self) -> None:
        """Ask any server that answers."""
        for at in (*self._links, None):
            try:
                masters = await self._masters(at)
            except (RedisError, OSError, StoreError) as error:
                _log.debug("store: %s: %s", self._connector.place(at), error)
            else:
                await self._adopt(masters)
                return

    async def _masters(self, at: Place | None) -> dict[Place, list[range]]:
        """The masters and their slots, as one server sees them. Raises what the library raises."""
        connection = await self._connector.open(at)
        try:
            rows = await ask(connection, "CLUSTER SLOTS")
        finally:
            await connection.disconnect(nowait=True)
        asked = (at or self._connector.seed)[0]
        masters: dict[Place, list[range]] = {}
        for first, last, (host, port, *_), *_ in rows:
            # A server that does not know its own address leaves it out.
            place = (host.decode() if host else asked, int(port))
            masters.setdefault(place, []).append(range(first, last + 1))
        return masters

    async def _adopt(self, masters: dict[Place, list[range]]) -> None:
        slots: list[Link | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for at, ranges in masters.items():
            link = self._at(at)
            for some in ranges:
                slots[some.start : some.stop] = [link] * len(some)
        self._slots = slots
        for at in self._links.keys() - masters.keys():
            await self._links.pop(at).close()

    def _at(self, at: Place) -> Link:
        link = self._links.get(at)
        if link is None:
            link = self._links[at] = self._link(at)
            link.open_soon()
        return link

    # ---- replies -------------------------------------------------------------------------------

    def _deliver(self, link: Link, command: Command, reply: Reply) -> None:
        sent = type(reply) is ErrorReply and self._sent_on(link, command, reply)
        if not sent:
            self._answer(command, reply)

    def _sent_on(self, link: Link, command: Command, reply: ErrorReply) -> bool:
        """Whether a command was sent again, since this reply says how it may succeed."""
        if reply.code == "NOSCRIPT":
            return _told_again(link, command)
        command.redirects += 1
        useless = command.waiting.done or command.redirects > _MOST_REDIRECTS
        if useless or reply.code not in ("MOVED", "ASK"):
            return False
        _, slot, place = reply.text.split()
        host, _, port = place.rpartition(":")
        target = self._at((host or link.name.rpartition(":")[0], int(port)))
        if reply.code == "MOVED":
            self._slots[int(slot)] = target
            self._stirred.set()
        else:
            target.add(command.preamble(b"ASKING"))
        target.add(command)
        return True


_UNSERVED: Final = ErrorReply("CLUSTERDOWN no server has the slot")
