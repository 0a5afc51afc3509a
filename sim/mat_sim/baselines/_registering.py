"""What hosts have in common that keep a server of their own told where they are.

A request is repeated until it is answered. While it is not, the server may have taken it all the
same: whether a host's address is known to it goes by what was asked for last. A registration is
renewed before its lifetime is over.
"""

from collections.abc import Callable, Sequence

from mat.address import Address
from mat_sim.baselines._alarms import REFRESH, Alarm, Alarms, Request
from mat_sim.baselines._machine import Effect


class RegisteringHost:
    """A host with a server, or, where `server` is None, one that needs none as it never moves."""

    def __init__(
        self, home_address: Address, server: Address | None, *, begins_at: Address | None
    ) -> None:
        """`begins_at` is the address that a server takes for granted before it is told any."""
        self.home_address = home_address
        self.addresses: tuple[Address, ...] = ()
        self._agent = server
        self._alarms = Alarms()
        self._request: Request | None = None
        self._wanted = begins_at
        """The address that was registered, or asked for, last."""
        self._registered = begins_at
        """The address that the server has confirmed."""
        self._refresh = Alarm(self._renew)

    @property
    def deadline(self) -> float | None:
        """When to call `handle_timer`, s."""
        return self._alarms.deadline

    @property
    def registered(self) -> bool:
        """Whether the server has confirmed the preferred address."""
        return self._agent is None or self.addresses[:1] == (self._registered,)

    def handle_timer(self, now: float) -> list[Effect]:
        """The deadline has come."""
        return self._alarms.handle(now)

    def addresses_changed(self, now: float, addresses: Sequence[Address]) -> list[Effect]:
        """These are its addresses from now on; registers the preferred one."""
        self.addresses = tuple(addresses)
        if self._agent is None:
            return []
        if not addresses:
            self._stop()
            return []
        # An unanswered request may have been granted: what it was for is what counts.
        settled = self._request is not None or self._registered == self._wanted
        return self._moved(now, told=settled and self._wanted == addresses[0])

    def _moved(self, now: float, *, told: bool) -> list[Effect]:
        """What follows from new addresses; `told`: the server need not be told of them."""
        raise NotImplementedError

    def _register(self, now: float) -> list[Effect]:
        """Ask the server to take the preferred address."""
        raise NotImplementedError

    def _ask_server(
        self,
        now: float,
        transmit: Callable[[float, bool], list[Effect]],
        *,
        first: float,
        ceiling: float,
    ) -> list[Effect]:
        """Register the preferred address, in place of what was asked for before."""
        self._alarms.end(self._request)
        self._wanted = self.addresses[0]
        self._request = Request(transmit, first=first, ceiling=ceiling)
        return self._alarms.begin(now, self._request)

    def _stop(self) -> None:
        """Nothing is asked any more."""
        self._alarms.end(self._request)
        self._request = None

    def _confirmed(self, since: float, lifetime: float) -> None:
        """The server has taken what it was asked for; `lifetime` (s) runs from `since` (s)."""
        self._alarms.end(self._request)
        self._request = None
        self._registered = self._wanted
        self._alarms.cancel(self._refresh)
        if lifetime > 0:
            self._alarms.schedule(self._refresh, since + REFRESH * lifetime)

    def _renew(self, now: float) -> list[Effect]:
        if not self.addresses or self._request is not None:
            self._registered = None
            return []
        return self._register(now)
