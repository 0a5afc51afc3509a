"""Which paths are dead although their links are up.

A link says nothing about the network behind it: an access point goes on while its uplink is gone.
Where there is another way, each mobile address asks the node's own IMS something every now and
then; one that gets no answer several times in a row, while another does, is not used until it gets
one again. With a single uplink nothing is asked: there is nowhere to go.

Packets tell sooner. Where some leave and none comes, or none comes any more, it is asked at once:
once, until some come again, so that whoever only sends, or is idle, causes no more questions. What
passes is looked at in the counters of the kernel's maps; in the mode `queue` they stand still.
"""

import asyncio
import secrets
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final, final

from mat.address import Address, format_address, is_ipv4
from mat.codec import Malformed, decode, encode
from mat.mapping_table import Servers
from mat.messages import MaAnswer, MaQuery

INTERVAL: Final = 5.0
"""Seconds between two questions over a path that works."""
PATIENCE: Final = 0.5
"""Seconds until it is asked again; an answer to any of the questions will do."""
MISSES: Final = 3
"""Questions in a row without an answer after which a path is dead."""
DEAD_INTERVAL: Final = 2.0
"""Seconds between two questions while there is a dead path."""
GLANCE: Final = 1.0
"""Seconds between two looks at what passes, where there is another way."""


@final
class _Path:
    """One mobile address, and what became of its questions."""

    def __init__(self, loop: asyncio.AbstractEventLoop, address: Address) -> None:
        self.address = address
        self.misses = 0
        self.asked: list[tuple[int, bytes]] = []
        """The last questions, none of which was answered."""
        family = socket.AF_INET if is_ipv4(address) else socket.AF_INET6
        # Bound to the mobile address: what comes back to it is no packet for the dataplane.
        self.socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self.socket.bind((format_address(address), 0))
        except OSError:
            self.socket.close()
            raise
        self._loop = loop

    def ask(self, home_address: Address, servers: Servers) -> None:
        """Ask the first of the servers that is of the path's family."""
        sequence, nonce = question = secrets.randbits(32), secrets.token_bytes(8)
        self.asked = [*self.asked[1 - MISSES :], question]
        query = encode(MaQuery(sequence, home_address, nonce=nonce))
        there = next((at for at in servers if is_ipv4(at.address) == is_ipv4(self.address)), None)
        if there is not None:
            # What cannot be sent gets no answer.
            with suppress(OSError):
                self.socket.sendto(query, (format_address(there.address), there.port))

    def is_answered(self) -> bool:
        """Read what has come; whether it answers one of the last questions."""
        answered = False
        with suppress(OSError):
            while True:
                message = decode(self.socket.recv(2048))
                if not isinstance(message, Malformed) and isinstance(message, MaAnswer):
                    answered = answered or (message.sequence, message.nonce) in self.asked
        return answered

    def close(self) -> None:
        """Ask no more."""
        self._loop.remove_reader(self.socket.fileno())
        self.socket.close()


@final
class PathProber:
    """Watches the paths of one home address's mobile addresses; all on the event loop's thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        home_address: Address,
        servers: Callable[[], Servers],
        changed: Callable[[], None],
        traffic: Callable[[], tuple[int, int]],
    ) -> None:
        """`servers` are the node's own IMS; `changed` is called when a path died or lives again.

        `traffic` says how many packets have come and gone so far, with the home address.
        """
        self._loop = loop
        self._home_address = home_address
        self._servers = servers
        self._changed = changed
        self._paths: dict[Address, _Path] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._resting = False
        """Whether the timer is for the next question that nothing has given rise to."""
        self._glances: asyncio.TimerHandle | None = None
        self._traffic = traffic
        self._passed = 0, 0
        self._coming = False
        """Whether packets came between the last two glances."""
        self._asked_about_silence = False

    def watch(self, addresses: Iterable[Address]) -> None:
        """These are the mobile addresses now."""
        wanted = set(addresses)
        if len(wanted) < 2:
            wanted.clear()
        for address in self._paths.keys() - wanted:
            self._paths.pop(address).close()
        for address in wanted - self._paths.keys():
            # The kernel may have taken the address away again.
            with suppress(OSError):
                path = self._paths[address] = _Path(self._loop, address)
                self._loop.add_reader(path.socket.fileno(), self._readable, path)
        if self._timer is None and self._paths:
            self._rest()
        if self._glances is None and self._paths:
            self._glance()

    def usable(self, addresses: Sequence[Address]) -> list[Address]:
        """Those of the addresses whose paths are not dead; all of them if all are."""
        alive = [address for address in addresses if not self._is_dead(address)]
        return alive or list(addresses)

    def close(self) -> None:
        """Ask no more."""
        self.watch(())
        for timer in (self._timer, self._glances):
            if timer is not None:
                timer.cancel()

    def _is_dead(self, address: Address) -> bool:
        path = self._paths.get(address)
        return path is not None and path.misses >= MISSES

    # ---- what passes ---------------------------------------------------------------------------

    def _glance(self) -> None:
        """Look at what has passed, and ask if that may mean that a path is dead."""
        self._glances = None
        if not self._paths:
            return
        self._glances = self._loop.call_later(GLANCE, self._glance)
        (came_before, went_before), was_coming = self._passed, self._coming
        self._passed = came, went = self._traffic()
        self._coming = came != came_before
        if self._coming:
            self._asked_about_silence = False
        elif (was_coming or went != went_before) and not self._asked_about_silence:
            self._ask_now()

    def _ask_now(self) -> None:
        """Do not wait for the time of the next question; one under way will do as well."""
        self._asked_about_silence = True
        if self._resting and self._timer is not None:
            self._timer.cancel()
            self._ask()

    # ---- questions -----------------------------------------------------------------------------

    def _rest(self) -> None:
        self._resting = True
        self._timer = self._loop.call_later(INTERVAL, self._ask)

    def _ask(self) -> None:
        """Ask over all paths, and look after a while who has an answer."""
        self._timer, self._resting = None, False
        if not self._paths:
            return
        for path in self._paths.values():
            path.ask(self._home_address, self._servers())
        self._timer = self._loop.call_later(PATIENCE, self._look)

    def _look(self) -> None:
        silent = [path for path in self._paths.values() if path.asked]
        before = self._dead()
        for path in silent:
            path.misses += 1
        dead = self._dead()
        if not silent or len(silent) == len(self._paths):
            # If all are silent, it is the IMS, or all of the world.
            self._rest()
        elif len(dead) < len(silent):
            self._ask()
        else:
            self._timer = self._loop.call_later(DEAD_INTERVAL, self._ask)
        if dead != before:
            self._changed()

    def _readable(self, path: _Path) -> None:
        if path.is_answered():
            was_dead = path.misses >= MISSES
            path.asked, path.misses = [], 0
            if was_dead:
                self._changed()

    def _dead(self) -> set[Address]:
        return {address for address in self._paths if self._is_dead(address)}
