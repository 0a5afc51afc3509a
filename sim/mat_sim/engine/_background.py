"""Nodes that are not simulated one by one, but whose requests load the IMS: `[background]`.

Each of many nodes makes requests at random times, independent of the others. All together they make
Poisson processes, whose rates are known and of which a node need not know: a request is drawn, and
then the node that it is of. What is sent are real messages, which the real machines answer; an
answer is worth nothing to anybody, and a request that is lost is not repeated.
"""

from array import array
from collections.abc import Sequence
from random import Random
from typing import Final, final

from mat.address import Address, from_ipv4, is_ipv4
from mat.authentication import Key, sign
from mat.effects import NotFound, Send
from mat.mapping_table import Servers
from mat.messages import EXACT, HaNotify, ImsUpdate, MaQuery, Message
from mat.registrations import Registration, key_of, pack
from mat_files.scenario import Load
from mat_sim.engine._clock import Clock, Happening
from mat_sim.engine._network import Link, Party, Site
from mat_sim.engine._station import Station
from mat_sim.engine._wiring import Wiring
from mat_sim.engine._zones import Zones

BACKGROUND: Final = "background"
"""Role and name of these nodes in results."""
FIRST_KEY: Final = 1 << 31
"""Keys of these nodes have numbers from here on."""
_PLACES: Final = {4: 0x64400000, 6: 0x20010002 << 96}
"""Mobile addresses of these nodes, which nothing is sent to: 100.64.0.0/10 and 2001:2::/48."""
_LONG: Final = 1 << 31
"""Lifetime of what is registered at the begin, s."""
_BEGUN: Final = 1
"""Version of every mapping at the begin."""


@final
class Background(Party):
    """The nodes of `[background]`, at one place."""

    __slots__ = (
        "_address",
        "_family",
        "_homes",
        "_random",
        "_sequence",
        "_versions",
        "_wiring",
        "_zones",
    )

    def __init__(
        self,
        load: Load,
        address: Address,
        homes: Sequence[Address],
        *,
        wiring: Wiring,
        zones: Zones,
        random: Random,
    ) -> None:
        """Requests leave from `address`; `homes` are the nodes' home addresses."""
        super().__init__(wiring.network.clock, BACKGROUND, BACKGROUND)
        self._address = address
        self._family = 4 if is_ipv4(address) else 6
        self._homes = homes
        self._wiring = wiring
        self._zones = zones
        self._random = random
        self._sequence = 0
        self._versions = array("Q", [_BEGUN]) * len(homes)
        wiring.network.connect(Link(self, Site(load.delay, 0.0)), address)
        for kind, rate in (
            (ImsUpdate, load.update),
            (MaQuery, load.query),
            (HaNotify, load.notify),
        ):
            if rate:
                _Stream(self, kind, rate * len(homes), random)

    def key(self, number: int) -> Key:
        """The key of a node, by the key's number."""
        return Key(number, number.to_bytes(16, "big"), self._homes[number - FIRST_KEY], EXACT)

    def register(self, stations: Sequence[Station]) -> None:
        """All of them are registered, for as long as a run may take."""
        holders = {station.endpoint: station for station in stations}
        for node, home in enumerate(self._homes):
            registration = Registration(
                home, EXACT, (self._place(node),), _BEGUN, _BEGUN, 0.0, _LONG
            )
            key, record = key_of(home, EXACT), pack(registration)
            for server in self._zones.servers(home):
                holders[server].hold(key, record)

    def _place(self, node: int) -> Address:
        """The mobile address of a node: of two, that of its version."""
        number = _PLACES[self._family] + 2 * node + self._versions[node] % 2
        return from_ipv4(number.to_bytes(4)) if self._family == 4 else Address(number.to_bytes(16))

    # ---- requests ------------------------------------------------------------------------------

    def request(self, kind: type) -> None:
        """Some node makes a request."""
        node = int(self._random.random() * len(self._homes))
        self._sequence = (self._sequence + 1) % (1 << 32)
        if kind is ImsUpdate:
            self._update(node)
        elif kind is MaQuery:
            home = self._homes[node]
            self._ask(home, MaQuery(self._sequence, home, nonce=self._nonce()))
        else:
            self._notify(node)

    def _nonce(self) -> bytes:
        return self._sequence.to_bytes(8)

    def _update(self, node: int) -> None:
        """It has moved: every replica hears of it, as a node itself sees to it."""
        self._versions[node] += 1
        version, home = self._versions[node], self._homes[node]
        for server in self._zones.servers(home):
            update = ImsUpdate(
                self._sequence, home, (self._place(node),), version, _LONG, nonce=self._nonce()
            )
            sign(update, self.key(FIRST_KEY + node), version)
            self._wiring.send(self, self._address, Send(update, server), repeat=False)

    def _notify(self, node: int) -> None:
        """It tells the IMS of some other node."""
        other = int(self._random.random() * (len(self._homes) - 1))
        peer = self._homes[other + (other >= node)]
        self._ask(peer, HaNotify(self._sequence, self._homes[node], peer, nonce=self._nonce()))

    def _ask(self, whose: Address, message: Message) -> None:
        """Send to one of the replicas: nodes are everywhere, and so is the nearest for each."""
        servers = self._zones.servers(whose)
        server = servers[int(self._random.random() * len(servers))] if servers[1:] else servers[0]
        self._wiring.send(self, self._address, Send(message, server), repeat=False)

    # ---- as a party ----------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """They wait for nothing."""
        return None

    def receive(self, message: Message, source: object) -> None:
        """An answer, which is of no use here."""

    def servers_found(self, home_address: Address, result: Servers | NotFound) -> None:
        """The DNS is not asked: these nodes have talked before."""


@final
class _Stream(Happening):
    """The requests of one type, as a Poisson process."""

    __slots__ = ("_clock", "_kind", "_nodes", "_random", "_rate")

    def __init__(self, nodes: Background, kind: type, rate: float, random: Random) -> None:
        self._nodes = nodes
        self._kind = kind
        self._rate = rate
        self._random = random
        self._clock: Clock = nodes.clock
        self._wait()

    def _wait(self) -> None:
        self._clock.after(self._random.expovariate(self._rate), self)

    def happen(self) -> None:
        """A request is made, and the next comes in a while."""
        self._wait()
        self._nodes.request(self._kind)
