"""Nodes that never stop moving, and somebody who asks for them all the time.

Each node's mobile address follows from how often it has moved, so an answer shows which of its
mappings it is. Of each node it is remembered what was acknowledged. An answer about it that is
older than what had been acknowledged before it was asked for is a fault of the server's.
"""

import random
import socket
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from mat.address import Address, from_ipv4
from mat.authentication import Key, is_authentic, sign
from mat.codec import Malformed, decode, encode
from mat.messages import Code, ImsUpdate, ImsUpdateReply, MaAnswer, MaQuery
from tests.real.ims_server import Client

PATIENCE = 0.2
"""Seconds after which an update is not waited for any longer: the node moves again."""
LIFETIME = 600


@dataclass
class _Node:
    key: Key
    moves: int = 0
    waits_until: float = 0.0
    acknowledged: int = 0
    """The highest freshness that was acknowledged."""
    moved: dict[int, Address] = field(default_factory=dict[int, Address])
    """All mobile addresses that it ever registered, by version."""


class Walkers:
    """The load. `with` starts it; at its end, and by `check`, faults that were seen are raised."""

    def __init__(
        self,
        port: int,
        keys: Sequence[Key],
        *,
        sockets: int = 1,
        tolerates: Collection[Code] = (),
    ) -> None:
        """Several `sockets` reach several workers; `tolerates`: what else updates may end with."""
        self._tolerates = tolerates
        self._server = "127.0.0.1", port
        self._nodes = {key.home_address: _Node(key) for key in keys}
        self._began = time.time_ns() * (1 << 32) // 10**9
        self._senders = [self._socket() for _ in range(sockets)]
        self._askers = [self._socket() for _ in range(sockets)]
        self._stopped = threading.Event()
        self._faults: list[str] = []
        self._threads = [
            threading.Thread(target=self._watched, args=(work,)) for work in (self._walk, self._ask)
        ]
        self.answered = 0
        """Queries that were answered."""

    @property
    def moves(self) -> int:
        """Updates that were sent."""
        return sum(node.moves for node in self._nodes.values())

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        for one in (*self._senders, *self._askers):
            one.close()
        self.check()

    def check(self) -> None:
        """Fail if a fault was seen."""
        assert not self._faults, self._faults

    def verify(self, port: int) -> None:
        """Ask for every node: what was acknowledged is there, or something newer that was sent."""
        known = {home: node.acknowledged for home, node in self._nodes.items()}
        with Client(port) as client:
            for home, least in known.items():
                answer = client.query(home)
                assert answer is not None, "no answer"
                self._compare(answer, least)
        self.check()

    # ---- the threads ---------------------------------------------------------------------------

    def _watched(self, work: object) -> None:
        assert callable(work)
        try:
            work()
        except Exception as error:  # noqa: BLE001  # told by `check`, in the test's own thread
            self._faults.append(repr(error))

    def _walk(self) -> None:
        while not self._stopped.is_set():
            now = time.monotonic()
            for node in self._nodes.values():
                if now >= node.waits_until:
                    self._move(node, now)
            time.sleep(0.001)
            for one in self._senders:
                for datagram in _arrived(one):
                    self._acknowledged(datagram)

    def _move(self, node: _Node, now: float) -> None:
        node.moves += 1
        node.waits_until = now + PATIENCE
        freshness = self._began + node.moves
        moved = from_ipv4(bytes((172, 16 + (node.moves >> 16), *node.moves.to_bytes(4, "big")[2:])))
        node.moved[freshness] = moved
        update = ImsUpdate(
            node.moves,
            node.key.home_address,
            (moved,),
            freshness,
            LIFETIME,
            nonce=node.key.key_id.to_bytes(8, "big"),
        )
        sign(update, node.key, freshness)
        self._send(self._senders, encode(update))

    def _acknowledged(self, datagram: bytes) -> None:
        reply = decode(datagram)
        assert isinstance(reply, ImsUpdateReply)
        number = int.from_bytes(reply.nonce, "big")
        node = next(node for node in self._nodes.values() if node.key.key_id == number)
        assert is_authentic(reply, node.key)
        assert reply.authentication is not None
        assert reply.authentication.freshness in node.moved, reply
        if reply.code in self._tolerates:
            return
        assert reply.code == Code.SUCCEEDED, reply
        node.acknowledged = max(node.acknowledged, reply.authentication.freshness)
        node.waits_until = 0.0

    def _ask(self) -> None:
        chance = random.Random(3)
        homes = list(self._nodes)
        while not self._stopped.is_set():
            home = chance.choice(homes)
            least = self._nodes[home].acknowledged
            query = MaQuery(chance.getrandbits(32), home, nonce=chance.randbytes(8))
            asker = self._send(self._askers, encode(query))
            end = time.monotonic() + PATIENCE
            while time.monotonic() < end and not self._stopped.is_set():
                found = [decode(datagram) for datagram in _arrived(asker, 0.02)]
                if any(self._is_right(one, query, least) for one in found):
                    self.answered += 1
                    break

    def _is_right(self, found: object, query: MaQuery, least: int) -> bool:
        """Whether a datagram answers the query; a fault is raised."""
        if isinstance(found, Malformed) or not isinstance(found, MaAnswer):
            raise AssertionError(f"unexpected {found}")
        if found.nonce != query.nonce:
            return False
        if least or found.code == Code.SUCCEEDED:
            self._compare(found, least)
        return True

    def _compare(self, answer: MaAnswer, least: int) -> None:
        if not least and answer.code == Code.NO_MAPPING:
            return
        node = self._nodes[answer.home_address]
        assert answer.code == Code.SUCCEEDED, f"{answer}: {least} was acknowledged"
        assert answer.version >= least, f"{answer}: {least} was acknowledged"
        assert answer.mobile_addresses == (node.moved[answer.version],), f"{answer} was never sent"

    def _socket(self) -> socket.socket:
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def _send(self, through: list[socket.socket], datagram: bytes) -> socket.socket:
        through.append(through.pop(0))
        # Where nobody listens just now, the kernel may say so, about this or the last one.
        with suppress(OSError):
            through[0].sendto(datagram, self._server)
        return through[0]


def _arrived(one: socket.socket, patience: float = 0.0) -> Iterator[bytes]:
    """What has arrived at a socket; waits for the first."""
    one.settimeout(patience)
    with suppress(OSError):
        while True:
            yield one.recv(2048)
            one.settimeout(0.0)
