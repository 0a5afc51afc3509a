"""What a node knows of one peer, and of one source address that it cannot place yet."""

from typing import NamedTuple, final

from mat.address import Address
from mat.effects import Handle, Translation
from mat.exchanges import Exchange
from mat.mapping_table import Mapping, Servers
from mat.messages import Endpoint, HaNotify
from mat.parameters import Parameters
from mat.states import PeerState
from mat.timers import Timed

_BURST = 2
"""Messages of one purpose that may go ahead of the steady rate."""


@final
class Arrival(NamedTuple):
    """A packet from the wire that waits, and the addresses it bears there."""

    handle: Handle
    source: Address
    destination: Address


@final
class Peer(Timed):
    """One correspondent. Its timer is that of the periodic query, or of the mapping's end."""

    __slots__ = (
        "caller",
        "confirmation",
        "confirmed",
        "doubtful_until",
        "held_in",
        "held_out",
        "home_address",
        "introduced_version",
        "introduction",
        "mapping",
        "notices",
        "paced",
        "query",
        "servers",
        "state",
        "translation",
        "unanswered_version",
        "used_at",
        "wanted_version",
    )

    def __init__(self, home_address: Address, now: float, *, caller: bool) -> None:
        super().__init__()
        self.home_address = home_address
        self.state = PeerState.UNKNOWN
        self.caller = caller
        """This node spoke first, so it has to introduce itself (steps 2 to 4)."""
        self.servers: Servers = ()
        self.mapping: Mapping | None = None
        self.translation: Translation | None = None
        """What the driver was told last."""
        self.confirmed: tuple[Address, ...] = ()
        """Own mobile addresses that the peer said it knows."""
        self.wanted_version = 0
        """The peer's mapping is at least this new: from a notice, so a hint only."""
        self.used_at = now
        self.paced: list[float] | None = None
        self.query: Exchange | None = None
        self.introduction: Exchange | None = None
        self.confirmation: Exchange | None = None
        self.introduced_version = 0
        """Version of the own mapping that the peer's IMS has acknowledged (step 4)."""
        self.unanswered_version = 0
        """Version of the own mapping whose notices (2') the peer has left without an answer."""
        self.doubtful_until = 0.0
        """Till then packets to a new own address may be stragglers for who had it before."""
        self.held_out: list[Handle] = []
        self.held_in: list[Arrival] = []
        self.notices: list[tuple[HaNotify, Endpoint]] = []

    def in_use(self, now: float, parameters: Parameters) -> bool:
        """Whether packets went to or came from this peer lately."""
        return now - self.used_at <= parameters.peer_idle_time

    def may_send(self, now: float, purpose: int, rate: float) -> float:
        """The time from which one more message of this purpose may go."""
        if self.paced is None:
            return now
        return max(now, self.paced[purpose] - _BURST / rate)

    def count_sent(self, now: float, purpose: int, rate: float) -> None:
        """A message of this purpose goes out now."""
        if self.paced is None:
            self.paced = [now, now, now]
        self.paced[purpose] = max(self.paced[purpose], now) + 1 / rate

    def pace(self, now: float) -> tuple[float, float, float] | None:
        """Up to when the messages of each purpose use up their rate; None if that is past."""
        if self.paced is None or max(self.paced) <= now:
            return None
        resolve, introduce, confirm = self.paced
        return resolve, introduce, confirm


@final
class Source:
    """A source address of packets that no mapping explains, while the own IMS is asked (step 6)."""

    __slots__ = ("address", "held", "query")

    def __init__(self, address: Address) -> None:
        self.address = address
        self.held: list[Arrival] = []
        self.query: Exchange | None = None
