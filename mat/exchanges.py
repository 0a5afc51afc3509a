"""Requests on their way: retransmission, choice of replica, and the match of answers.

A request is sent to the nearest replica (the lowest smoothed round trip; one never tried counts as
nearest, so that all get known), and again after a timeout that doubles, each time to the next
replica. An answer counts if it copies the sequence and the nonce of a request under way.
"""

from enum import Enum
from typing import Final, Protocol, final

from mat.address import Address
from mat.mapping_table import Servers
from mat.messages import (
    NONCE_SIZE,
    Answer,
    Endpoint,
    HaAnswer,
    HaNotify,
    HaNotifyAck,
    HaQuery,
    ImsUpdate,
    ImsUpdateReply,
    MaAnswer,
    MaQuery,
    Request,
)
from mat.parameters import Parameters
from mat.timers import Timed, Timers

UNLIMITED: Final = 1 << 30
_MEASURED: Final = 16
"""Servers whose round trip one machine remembers."""
_MOST_DOUBLINGS: Final = 10
_SMOOTHING: Final = 0.125
"""Weight of a new round trip in the average (RFC 6298)."""
_ANSWERS: Final[dict[type, type]] = {
    ImsUpdate: ImsUpdateReply,
    MaQuery: MaAnswer,
    HaNotify: HaNotifyAck,
    HaQuery: HaAnswer,
}


class Random(Protocol):
    """The source of randomness that a driver hands in: `random.Random`, or a system source."""

    def getrandbits(self, k: int, /) -> int:
        """`k` random bits."""
        ...

    def random(self) -> float:
        """A number from 0 up to 1."""
        ...


class Purpose(Enum):
    """What a request is for: where its answer goes."""

    REGISTER = "IMS Update"
    RESOLVE = "MA Query for a peer"
    INTRODUCE = "HA Notify to the peer's IMS"
    CONFIRM = "HA Notify to the peer itself"
    IDENTIFY = "HA Query for an unknown source"
    INQUIRE = "MA Query of an IMS for a node of another"

    __hash__ = object.__hash__


@final
class Exchange(Timed):
    """One request and what became of it so far. `subject` is the key of what it is about."""

    __slots__ = (
        "_turn",
        "attempts",
        "destination",
        "first_freshness",
        "limit",
        "local",
        "purpose",
        "request",
        "sent_at",
        "servers",
        "subject",
    )

    def __init__(
        self, purpose: Purpose, subject: object, request: Request, servers: Servers, limit: int
    ) -> None:
        super().__init__()
        self.purpose = purpose
        self.subject = subject
        self.request = request
        self.servers = servers
        self._turn = 0
        self.destination = servers[0]
        """The replica that the next, or the last, transmission goes to."""
        self.limit = limit
        self.attempts = 0
        self.sent_at = 0.0
        self.first_freshness = 0
        self.local: Address | None = None

    def start_at(self, replica: int) -> None:
        """Begin with this one of the servers."""
        self._turn = replica
        self.destination = self.servers[replica]

    def turn(self) -> None:
        """Go on to the next replica."""
        self._turn += 1
        self.destination = self.servers[self._turn % len(self.servers)]


class Exchanges(Timers):
    """All requests of one machine that wait for an answer, and with them all its timers."""

    __slots__ = ("_pending", "_random", "parameters", "round_trips")

    def __init__(self, parameters: Parameters, random: Random) -> None:
        super().__init__()
        self.parameters = parameters
        self._random = random
        self._pending: dict[int, Exchange] | None = None
        self.round_trips: tuple[tuple[Endpoint, float], ...] = ()
        """Servers and their smoothed round trips, s, the newest first."""

    def __len__(self) -> int:
        return len(self._pending) if self._pending else 0

    def identify(self) -> tuple[int, bytes]:
        """A fresh sequence and nonce, both unguessable."""
        bits = self._random.getrandbits(32 + 8 * NONCE_SIZE)
        return bits & 0xFFFFFFFF, (bits >> 32).to_bytes(NONCE_SIZE, "big")

    def jittered(self, interval: float, share: float) -> float:
        """`interval`, less up to `share` of it."""
        return interval * (1 - share * self._random.random())

    def add(self, exchange: Exchange) -> None:
        """Take charge of a request; the caller transmits it with `transmitted`."""
        if self._pending is None:
            self._pending = {}
        if exchange.purpose is not Purpose.REGISTER:
            exchange.start_at(self._nearest(exchange.servers))
        self._pending[exchange.request.sequence] = exchange

    def transmitted(self, now: float, exchange: Exchange) -> None:
        """The request goes out now: count it and set the timer for the next time."""
        exchange.attempts += 1
        exchange.sent_at = now
        self.schedule(exchange, now + self._timeout(exchange))

    def fall_over(self, exchange: Exchange) -> bool:
        """A timeout passed: turn to the next replica. False when the attempts are used up."""
        if exchange.attempts >= exchange.limit:
            self.finish(exchange)
            return False
        self._penalise(exchange)
        exchange.turn()
        return True

    def match(self, now: float, answer: Answer) -> Exchange | None:
        """The request that this answers, still under way; None for anything else."""
        exchange = self._pending.get(answer.sequence) if self._pending else None
        if exchange is None or exchange.request.nonce != answer.nonce:
            return None
        if _ANSWERS[type(exchange.request)] is not type(answer):
            return None
        # A notice goes to an address that the peer is about to leave, or has just got.
        if exchange.attempts == 1 and exchange.purpose is not Purpose.CONFIRM:
            self._measure(exchange.destination, now - exchange.sent_at)
        return exchange

    def finish(self, exchange: Exchange) -> None:
        """The request is over: answered, given up, or pointless."""
        sequence = exchange.request.sequence
        if self._pending is not None and self._pending.get(sequence) is exchange:
            del self._pending[sequence]
            if not self._pending:
                self._pending = None
        self.cancel(exchange)

    def _timeout(self, exchange: Exchange) -> float:
        parameters = self.parameters
        known = self._round_trip_of(exchange.destination)
        first = parameters.initial_timeout
        if known is not None:
            first = max(parameters.minimum_timeout, parameters.timeout_factor * known)
        doubled = first * (1 << min(exchange.attempts - 1, _MOST_DOUBLINGS))
        stretch = 1 + parameters.timeout_jitter * self._random.random()
        return min(doubled, parameters.maximum_timeout) * stretch

    def _round_trip_of(self, server: Endpoint) -> float | None:
        for known, round_trip in self.round_trips:
            if known is server or known == server:
                return round_trip
        return None

    def _nearest(self, servers: Servers) -> int:
        if len(servers) == 1 or not self.round_trips:
            return 0
        trips = [self._round_trip_of(server) or 0.0 for server in servers]
        return trips.index(min(trips))

    def _measure(self, server: Endpoint, round_trip: float) -> None:
        old = self._round_trip_of(server)
        if old is not None:
            round_trip = old + _SMOOTHING * (round_trip - old)
        self._remember(server, round_trip)

    def _penalise(self, exchange: Exchange) -> None:
        """A silent replica counts as far away, until another one falls silent too."""
        if len(exchange.servers) > 1:
            self._remember(exchange.destination, self.parameters.initial_timeout)

    def _remember(self, server: Endpoint, round_trip: float) -> None:
        """The newest first. A tuple: most nodes know one server, and there are many nodes."""
        others = [trip for trip in self.round_trips if trip[0] != server]
        self.round_trips = ((server, round_trip), *others[: _MEASURED - 1])
