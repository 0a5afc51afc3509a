"""An IMS of a hundred lines, for who needs one to talk to: the real machine over a real socket.

It runs in a thread, or as `python -m tests.real.tiny_ims PORT KEYFILE` in a process of its own.
`Faults` make it behave as servers and networks do on bad days.
"""

import random
import select
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, assert_never

from mat.address import Address, parse_address
from mat.authentication import Key
from mat.codec import Malformed, decode, encode
from mat.effects import (
    Event,
    Learned,
    Lookup,
    NotFound,
    ReadByHome,
    ReadByMobile,
    Send,
    ServerEffect,
    StoreWrite,
)
from mat.messages import Endpoint
from mat.registrations import RegistrationTable
from mat.server import MappingServer
from mat_real.datagrams import DatagramSocket, bind
from mat_real.keys import load

LOOPBACK = parse_address("127.0.0.1")


def some_keys(count: int, first: str = "10.0.0.1") -> list[Key]:
    """Keys of home addresses that follow one another, with ids from 1."""
    start = int.from_bytes(parse_address(first))
    homes = [Address((start + n).to_bytes(16)) for n in range(count)]
    return [Key(n, random.randbytes(32), home) for n, home in enumerate(homes, 1)]


def _always(_: int) -> bool:
    return True


def _as_it_is(datagram: bytes) -> bytes:
    return datagram


@dataclass
class Faults:
    """What goes wrong. `hears` gets the number of a datagram, from 1; `says` the answer."""

    hears: Callable[[int], bool] = _always
    says: Callable[[bytes], bytes] = _as_it_is
    silent: float = 0.0
    """Seconds after the first datagram in which nothing is heard."""
    slow: float = 0.0
    """Seconds that each datagram takes."""
    times: int = 1
    """How often each answer is sent."""


class TinyIms:
    """A server in a thread, from `with` to its end."""

    def __init__(
        self,
        keys: Iterable[Key],
        faults: Faults | None = None,
        address: Address = LOOPBACK,
        port: int = 0,
    ) -> None:
        ring = {key.key_id: key for key in keys}
        self.faults = faults or Faults()
        self.store = RegistrationTable()
        self.heard = 0
        self._machine = MappingServer(ring.get, self._holds, random.Random())
        self._homes = {key.home_address for key in ring.values()}
        self._socket = DatagramSocket(bind(address, port))
        self.since = 0.0
        """When the first datagram came, by `time.monotonic`."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.serve, daemon=True)

    def _holds(self, home_address: Address) -> bool:
        return home_address in self._homes

    @property
    def endpoint(self) -> Endpoint:
        return self._socket.local

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def serve(self) -> None:
        """Answer until told to stop."""
        while not self._stop.is_set():
            select.select([self._socket], [], [], 0.05)
            for datagram, peer in self._socket.receive():
                self._hear(datagram, self._socket.endpoint(peer))
            self._socket.flush()

    def _hear(self, datagram: bytes, source: Endpoint) -> None:
        if self._stop.is_set():
            return
        now = time.monotonic()
        self.since = self.since or now
        self.heard += 1
        if now < self.since + self.faults.silent or not self.faults.hears(self.heard):
            return
        if self.faults.slow:
            time.sleep(self.faults.slow)
        message = decode(datagram)
        assert not isinstance(message, Malformed), message
        self._apply(self._machine.receive(now, message, source), now)

    def _apply(self, effects: Iterable[ServerEffect], now: float) -> None:
        machine, store = self._machine, self.store
        for effect in effects:
            match effect:
                case Send():
                    answer = self.faults.says(encode(effect.message))
                    for _ in range(self.faults.times):
                        self._socket.send(effect.destination, answer)
                case StoreWrite():
                    outcome = store.write(effect.registration)
                    self._apply(machine.written(now, effect, *outcome), now)
                case ReadByHome():
                    found = store.by_home(effect.home_address)
                    self._apply(machine.read(now, effect, found), now)
                case ReadByMobile():
                    moved = store.by_mobile(effect.mobile_address)
                    self._apply(machine.read(now, effect, moved), now)
                case Lookup():
                    found_none = machine.servers_found(now, effect.home_address, NotFound.NOT_MAT)
                    self._apply(found_none, now)
                case Event() | Learned():
                    pass
                case _:
                    assert_never(effect)


if __name__ == "__main__":
    entries = load(Path(sys.argv[2])).entries()
    TinyIms((entry.key() for entry in entries), port=int(sys.argv[1])).serve()
