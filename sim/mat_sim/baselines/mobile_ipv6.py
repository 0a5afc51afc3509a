"""Mobile IPv6 (RFC 6275) with route optimisation.

A node away from home registers its care-of address with its home agent (section 11.7.1), which from
then on sends it in a tunnel what is addressed to the home address; its own packets go back through
that tunnel. With each correspondent that it exchanges data with it then proves, by the return
routability procedure, that it is to be found at both addresses (section 5.2): Home Test Init and
Care-of Test Init go out in parallel, behind the Binding Update to the home agent (section 11.7.2);
when both tests have come back and the home agent has acknowledged, the correspondent gets a Binding
Update too. From then on packets go straight between the two, with a home address option or a type 2
routing header.

After a move the correspondent goes on sending to the old care-of address until the new Binding
Update arrives; the other direction works sooner, through the tunnel. Whatever expects an answer is
repeated after a second, then after twice as long each time up to 32 s (section 11.8); the first
registration waits 1.5 s, for the home agent first looks for a duplicate of the home address.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, final

from mat.address import Address
from mat_sim.baselines import _mobility_header as mh
from mat_sim.baselines._alarms import REFRESH, Alarm, Alarms, Rate, Request
from mat_sim.baselines._datagram import (
    HOME_ADDRESS_OPTION,
    IPV6_TUNNEL,
    ROUTING_HEADER,
    Data,
    Datagram,
    Message,
)
from mat_sim.baselines._home_agent import Binding, HomeAgent, HomeAgents
from mat_sim.baselines._machine import Deliver, Discard, Effect, Home, Host, Reason, Transmit
from mat_sim.baselines._registering import RegisteringHost

INITIAL_BINDACK_TIMEOUT: Final = 1.0
"""Seconds; this and those below are the protocol constants of section 12."""
INITIAL_BINDACK_TIMEOUT_FIRST: Final = 1.5
MAX_BINDACK_TIMEOUT: Final = 32.0
MAX_RR_BINDING_LIFETIME: Final = 420.0
MAX_UPDATE_RATE: Final = 3
"""Messages of one type to one correspondent within a second."""

ACCEPTED: Final = 0
SEQUENCE_OUT_OF_WINDOW: Final = 135


@final
@dataclass(frozen=True, slots=True)
class Parameters:
    """Times in seconds."""

    lifetime: float = 1800.0
    """Asked for in a home registration."""
    route_optimisation: bool = True
    """False: everything goes through the home agent, both ways."""
    acknowledge: bool = False
    """Ask correspondents to acknowledge Binding Updates (section 11.7.2), and wait for it."""
    duplicate_detection: float = 1.0
    """What the home agent takes before it first acknowledges (section 10.3.1; RFC 4862)."""


def _tunnel_header(payload: Message | Data | Datagram, size: int) -> int:
    """What the tunnel between node and home agent adds: encryption for the home test."""
    if isinstance(payload, mh.HomeTestInit | mh.HomeTest):
        return IPV6_TUNNEL + mh.encrypted(size) - size
    return IPV6_TUNNEL


def _tunnelled(inner: Datagram, source: Address, destination: Address) -> Datagram:
    return inner.tunnelled(source, destination, _tunnel_header(inner.payload, inner.size))


@final
class _Procedure:
    """One correspondent registration: the return routability procedure, then the Binding Update."""

    __slots__ = ("care_of", "care_of_cookie", "home_cookie", "requests", "tested")

    def __init__(self, care_of: Address) -> None:
        self.care_of = care_of
        self.home_cookie = 0
        self.care_of_cookie = 0
        self.requests: dict[type[Message], Request] = {}
        self.tested: set[type[Message]] = set()


@final
class _Peer:
    """A correspondent: what it knows of this node, and what this node knows of it."""

    __slots__ = (
        "bound",
        "bound_until",
        "cached",
        "cached_sequence",
        "cached_until",
        "home_address",
        "procedure",
        "rates",
        "refresh",
        "sequence",
        "used",
    )

    def __init__(self, home_address: Address, refresh: Alarm) -> None:
        self.home_address = home_address
        self.bound: Address | None = None
        """The address that it was told; the entry of the Binding Update List."""
        self.bound_until = 0.0
        self.cached: Address | None = None
        """Its care-of address; the entry of the Binding Cache."""
        self.cached_until = 0.0
        self.cached_sequence = -1
        self.procedure: _Procedure | None = None
        self.rates: dict[type[Message], Rate] = {}
        self.refresh = refresh
        self.sequence = 0
        self.used = 0.0

    def care_of(self, now: float) -> Address | None:
        """Its care-of address, while known."""
        return self.cached if self.cached_until > now else None

    def rate(self, kind: type[Message]) -> Rate:
        """The limit for messages of one type."""
        return self.rates.setdefault(kind, Rate(MAX_UPDATE_RATE, 1.0))


@final
class MobileIpv6Host(RegisteringHost):
    """A mobile node and a correspondent in one; without a home agent it is a correspondent only."""

    def __init__(
        self, home_address: Address, agent: Address | None, parameters: Parameters
    ) -> None:
        super().__init__(home_address, agent, begins_at=home_address)
        self._parameters = parameters
        self._peers: dict[Address, _Peer] = {}
        self._cookie = 0
        self._sequence = 0
        self._bound_until = 0.0
        self._sent = 0.0

    def informed(self, now: float, peers: Sequence[Address]) -> bool:
        """Whether all these correspondents have been sent the preferred address."""
        if self._agent is None or not self._parameters.route_optimisation:
            return True
        known = [self._peers.get(peer) for peer in peers]
        under_way = any(peer is not None and peer.procedure is not None for peer in known)
        return not under_way and all(self._knows(now, peer) for peer in known)

    def _knows(self, now: float, peer: _Peer | None) -> bool:
        """Whether a peer sends to the preferred address; one without a binding does at home."""
        bound = peer.bound if peer is not None and peer.bound_until > now else None
        return self.addresses[:1] == (bound or self.home_address,)

    def found(self, now: float, home_address: Address, address: Address | None) -> list[Effect]:  # noqa: ARG002
        """It never asks the DNS."""
        return []

    # ---- home registration ---------------------------------------------------------------------

    def _moved(self, now: float, *, told: bool) -> list[Effect]:
        effects = [] if told else self._register(now)
        return effects + self._inform_all(now)

    def _stop(self) -> None:
        super()._stop()
        for peer in self._peers.values():
            self._end_procedure(peer)

    def _register(self, now: float) -> list[Effect]:
        new = self._bound_until <= now
        first = INITIAL_BINDACK_TIMEOUT_FIRST if new else INITIAL_BINDACK_TIMEOUT
        return self._ask_server(
            now, self._transmit_update, first=first, ceiling=MAX_BINDACK_TIMEOUT
        )

    def _transmit_update(self, now: float, repeat: bool) -> list[Effect]:
        assert self._agent is not None
        assert self._wanted is not None
        self._sequence += 1
        self._sent = now
        home = self._wanted == self.home_address
        lifetime = 0.0 if home else self._parameters.lifetime
        message = mh.BindingUpdate(
            self.home_address, self._wanted, lifetime, self._sequence, True, True
        )
        return [self._from_care_of(self._wanted, self._agent, message, mh.HOME_UPDATE, repeat)]

    def _from_care_of(
        self, care_of: Address, destination: Address, message: Message, size: int, repeat: bool
    ) -> Transmit:
        """A message from the care-of address that tells the home address too."""
        if care_of == self.home_address:
            return Transmit(Datagram(care_of, destination, message, size), care_of, repeat)
        size += HOME_ADDRESS_OPTION
        datagram = Datagram(care_of, destination, message, size, home_source=self.home_address)
        return Transmit(datagram, care_of, repeat)

    def _home_acknowledged(self, now: float, answer: mh.BindingAcknowledgement) -> list[Effect]:
        if answer.status == SEQUENCE_OUT_OF_WINDOW:
            self._sequence = max(self._sequence, answer.sequence)
            return []
        if self._request is None or answer.sequence != self._sequence:
            return []
        self._confirmed(self._sent, answer.lifetime)
        self._bound_until = self._sent + answer.lifetime
        effects: list[Effect] = []
        for peer in self._peers.values():
            effects += self._bind_if_complete(now, peer)
        return effects

    # ---- correspondent registrations -----------------------------------------------------------

    def _peer(self, home_address: Address) -> _Peer:
        peer = self._peers.get(home_address)
        if peer is None:
            peer = _Peer(home_address, Alarm(lambda now: self._renew_with(now, home_address)))
            self._peers[home_address] = peer
        return peer

    def _inform_all(self, now: float) -> list[Effect]:
        """After a move: everyone on the Binding Update List that data has gone on with lately."""
        effects: list[Effect] = []
        for peer in self._peers.values():
            under_way = peer.procedure.care_of if peer.procedure else None
            listed = peer.bound is not None or under_way is not None
            done = under_way is None and self._knows(now, peer)
            if not listed or done or under_way == self.addresses[0]:
                continue
            if now - peer.used <= MAX_RR_BINDING_LIFETIME:
                effects += self._inform(now, peer)
        return effects

    def _renew_with(self, now: float, home_address: Address) -> list[Effect]:
        peer = self._peers[home_address]
        if not self.addresses or now - peer.used > REFRESH * MAX_RR_BINDING_LIFETIME:
            return []
        return self._inform(now, peer)

    def _inform(self, now: float, peer: _Peer) -> list[Effect]:
        """Begin the return routability procedure."""
        self._end_procedure(peer)
        care_of = self.addresses[0]
        procedure = peer.procedure = _Procedure(care_of)
        effects = self._test(now, peer, mh.HomeTestInit)
        if care_of == self.home_address:
            procedure.tested.add(mh.CareOfTest)
        else:
            effects += self._test(now, peer, mh.CareOfTestInit)
        return effects

    def _end_procedure(self, peer: _Peer) -> None:
        if peer.procedure is not None:
            for request in peer.procedure.requests.values():
                self._alarms.end(request)
            peer.procedure = None

    def _test(
        self, now: float, peer: _Peer, kind: type[mh.HomeTestInit] | type[mh.CareOfTestInit]
    ) -> list[Effect]:
        def transmit(_now: float, repeat: bool) -> list[Effect]:
            return self._transmit_test(peer, kind, repeat)

        return self._ask(
            now,
            peer,
            kind,
            Request(
                transmit,
                first=INITIAL_BINDACK_TIMEOUT,
                ceiling=MAX_BINDACK_TIMEOUT,
                rate=peer.rate(kind),
            ),
        )

    def _ask(self, now: float, peer: _Peer, kind: type[Message], request: Request) -> list[Effect]:
        assert peer.procedure is not None
        peer.procedure.requests[kind] = request
        return self._alarms.begin(now, request)

    def _transmit_test(
        self, peer: _Peer, kind: type[mh.HomeTestInit] | type[mh.CareOfTestInit], repeat: bool
    ) -> list[Effect]:
        procedure = peer.procedure
        assert procedure is not None
        self._cookie += 1
        if kind is mh.CareOfTestInit:
            procedure.care_of_cookie = self._cookie
            message: Message = mh.CareOfTestInit(self._cookie)
            datagram = Datagram(procedure.care_of, peer.home_address, message, mh.TEST_INIT)
            return [Transmit(datagram, procedure.care_of, repeat)]
        procedure.home_cookie = self._cookie
        message = mh.HomeTestInit(self._cookie)
        return self._from_home(peer.home_address, message, mh.TEST_INIT, repeat=repeat)

    def _from_home(
        self, destination: Address, message: Message, size: int, *, repeat: bool = False
    ) -> list[Effect]:
        """A message from the home address, without route optimisation."""
        plain = Datagram(self.home_address, destination, message, size)
        way = self._through_home(plain)
        return (
            [Transmit(way.datagram, way.leaves_from, repeat)] if isinstance(way, Transmit) else []
        )

    def _through_home(self, plain: Datagram) -> Transmit | Reason:
        """As it is from home, in the tunnel to the home agent else (section 11.3.1)."""
        if self.home_address in self.addresses:
            return Transmit(plain, self.home_address)
        if self._agent is None or self._wanted is None or self._wanted not in self.addresses:
            return Reason.NO_ADDRESS
        return Transmit(_tunnelled(plain, self._wanted, self._agent), self._wanted)

    def _tested(
        self,
        now: float,
        source: Address,
        kind: type[mh.HomeTest] | type[mh.CareOfTest],
        cookie: int,
    ) -> list[Effect]:
        peer = self._peers.get(source)
        procedure = peer.procedure if peer else None
        if peer is None or procedure is None:
            return []
        home = kind is mh.HomeTest
        if cookie != (procedure.home_cookie if home else procedure.care_of_cookie):
            return []
        procedure.tested.add(kind)
        self._alarms.end(procedure.requests.get(mh.HomeTestInit if home else mh.CareOfTestInit))
        return self._bind_if_complete(now, peer)

    def _bind_if_complete(self, now: float, peer: _Peer) -> list[Effect]:
        """With both tests back and the home agent's word, tell the correspondent."""
        procedure = peer.procedure
        if procedure is None or procedure.care_of != self._registered or self._request is not None:
            return []
        if len(procedure.tested) < 2 or mh.BindingUpdate in procedure.requests:
            return []

        def transmit(now: float, repeat: bool) -> list[Effect]:
            return self._transmit_binding(now, peer, procedure.care_of, repeat)

        return self._ask(
            now,
            peer,
            mh.BindingUpdate,
            Request(
                transmit,
                first=INITIAL_BINDACK_TIMEOUT,
                ceiling=MAX_BINDACK_TIMEOUT,
                rate=peer.rate(mh.BindingUpdate),
            ),
        )

    def _transmit_binding(
        self, now: float, peer: _Peer, care_of: Address, repeat: bool
    ) -> list[Effect]:
        peer.sequence += 1
        lifetime = 0.0 if care_of == self.home_address else MAX_RR_BINDING_LIFETIME
        wait = self._parameters.acknowledge
        message = mh.BindingUpdate(self.home_address, care_of, lifetime, peer.sequence, False, wait)
        sent = self._from_care_of(
            care_of, peer.home_address, message, mh.CORRESPONDENT_UPDATE, repeat
        )
        if wait:
            peer.bound = None
        else:
            self._bound(now, peer, care_of, lifetime)
        return [sent]

    def _bound(self, now: float, peer: _Peer, care_of: Address, lifetime: float) -> None:
        self._end_procedure(peer)
        peer.bound = care_of if lifetime > 0 else None
        peer.bound_until = now + lifetime
        self._alarms.cancel(peer.refresh)
        if lifetime > 0:
            self._alarms.schedule(peer.refresh, now + REFRESH * lifetime)

    def _correspondent_acknowledged(
        self, now: float, source: Address, answer: mh.BindingAcknowledgement
    ) -> None:
        peer = self._peers.get(source)
        if peer is None:
            return
        procedure = peer.procedure
        if answer.status == SEQUENCE_OUT_OF_WINDOW:
            if answer.sequence > peer.sequence:
                peer.sequence = answer.sequence
                peer.bound = None
        elif procedure is None or mh.BindingUpdate not in procedure.requests:
            return
        elif answer.sequence == peer.sequence:
            self._bound(now, peer, procedure.care_of, answer.lifetime)

    def _in_use(self, now: float, home_address: Address) -> list[Effect]:
        """Data goes to or comes from a peer: have the route optimised."""
        peer = self._peer(home_address)
        peer.used = now
        away = bool(self.addresses) and self.addresses[0] != self.home_address
        wanted = self._agent is not None and self._parameters.route_optimisation and away
        if not wanted or peer.procedure is not None or self._registered != self.addresses[0]:
            return []
        return [] if self._knows(now, peer) else self._inform(now, peer)

    # ---- as a correspondent --------------------------------------------------------------------

    def _update_cache(
        self, now: float, datagram: Datagram, update: mh.BindingUpdate
    ) -> list[Effect]:
        peer = self._peer(update.home_address)
        status = ACCEPTED
        if peer.care_of(now) is not None and update.sequence <= peer.cached_sequence:
            status = SEQUENCE_OUT_OF_WINDOW
        else:
            peer.cached_sequence = update.sequence
            peer.cached = update.care_of if update.lifetime > 0 else None
            peer.cached_until = now + min(update.lifetime, MAX_RR_BINDING_LIFETIME)
        if not update.acknowledge and status == ACCEPTED:
            return []
        sequence = update.sequence if status == ACCEPTED else peer.cached_sequence
        answer = mh.BindingAcknowledgement(status, update.lifetime, sequence)
        plain = Datagram(
            self.home_address, update.home_address, answer, mh.CORRESPONDENT_ACKNOWLEDGEMENT
        )
        away = datagram.source if datagram.home_source else None
        way = self._through_home(_towards(plain, away))
        return [way] if isinstance(way, Transmit) else []

    # ---- what arrives --------------------------------------------------------------------------

    def receive(self, now: float, datagram: Datagram) -> list[Effect]:
        """A datagram has arrived."""
        inner = self._out_of_tunnel(datagram)
        if inner is None or isinstance(inner.payload, Datagram):
            return []
        if isinstance(inner.payload, Data):
            return self._receive_data(now, datagram, inner)
        return self._receive_message(now, inner, inner.payload)

    def _out_of_tunnel(self, datagram: Datagram) -> Datagram | None:
        if not isinstance(datagram.payload, Datagram):
            return datagram
        return datagram.payload if datagram.source == self._agent else None

    def _receive_data(self, now: float, datagram: Datagram, inner: Datagram) -> list[Effect]:
        got = self.way_in(now, datagram)
        if isinstance(got, Data):
            return [Deliver(got), *self._in_use(now, got.source)]
        assert isinstance(inner.payload, Data)
        effects: list[Effect] = [Discard(inner.payload, got)]
        if inner.home_source is not None:
            error = mh.BindingError(inner.home_source)
            effects += self._from_home(inner.source, error, mh.BINDING_ERROR)
        return effects

    def _receive_message(self, now: float, datagram: Datagram, message: Message) -> list[Effect]:
        source = datagram.sender
        match message:
            case mh.BindingAcknowledgement() if datagram.source == self._agent:
                return self._home_acknowledged(now, message)
            case mh.BindingAcknowledgement():
                self._correspondent_acknowledged(now, source, message)
                return []
            case mh.BindingUpdate():
                return self._update_cache(now, datagram, message)
            case mh.HomeTestInit():
                return self._from_home(source, mh.HomeTest(message.cookie), mh.TEST)
            case mh.CareOfTestInit():
                return self._from_home(source, mh.CareOfTest(message.cookie), mh.TEST)
            case mh.HomeTest() | mh.CareOfTest():
                return self._tested(now, source, type(message), message.cookie)
            case mh.BindingError():
                return self._forgotten(now, source)
            case _:
                return []

    def _forgotten(self, now: float, source: Address) -> list[Effect]:
        """The correspondent has no binding (section 11.3.6)."""
        peer = self._peers.get(source)
        if peer is None or peer.bound is None:
            return []
        peer.bound = None
        return self._in_use(now, source)

    # ---- data ----------------------------------------------------------------------------------

    def packet_out(self, now: float, data: Data) -> list[Effect]:
        """An application sends a packet."""
        way = self.way_out(now, data)
        if isinstance(way, Reason):
            return [Discard(data, way)]
        return [way, *self._in_use(now, data.destination)]

    def way_out(self, now: float, data: Data) -> Transmit | Reason:
        """Straight to a peer that knows the care-of address, else through the home agent."""
        if not self.addresses:
            return Reason.NO_ADDRESS
        plain = Datagram(self.home_address, data.destination, data, data.size)
        peer = self._peers.get(data.destination)
        if peer is None:
            return self._through_home(plain)
        return self._optimised(now, peer, _towards(plain, peer.care_of(now)))

    def _optimised(self, now: float, peer: _Peer, plain: Datagram) -> Transmit | Reason:
        bound = peer.bound
        home = self.home_address in self.addresses
        if home or bound is None or bound not in self.addresses or peer.bound_until <= now:
            return self._through_home(plain)
        datagram = Datagram(
            bound,
            plain.destination,
            plain.payload,
            plain.size + HOME_ADDRESS_OPTION,
            home_source=self.home_address,
            home_destination=plain.home_destination,
        )
        return Transmit(datagram, bound)

    def way_in(self, now: float, datagram: Datagram) -> Data | Reason:
        """Out of the tunnel, by the routing header, or plain; a home address must be verified."""
        inner = self._out_of_tunnel(datagram)
        if inner is None or not isinstance(inner.payload, Data):
            return Reason.NOT_ACCEPTED
        destination = inner.home_destination or inner.destination
        if destination != self.home_address:
            return Reason.NOT_ACCEPTED
        if inner.home_source is not None:
            peer = self._peers.get(inner.home_source)
            if peer is None or peer.care_of(now) != inner.source:
                return Reason.NO_BINDING
        return inner.payload


def _towards(plain: Datagram, care_of: Address | None) -> Datagram:
    """With a routing header to the care-of address, if there is one."""
    if care_of is None:
        return plain
    size = plain.size + ROUTING_HEADER
    home = plain.destination
    return Datagram(plain.source, care_of, plain.payload, size, plain.home_source, home)


@final
class Ipv6HomeAgent(HomeAgent):
    """Registers nodes and stands in for those that are away (section 10)."""

    def __init__(self, address: Address, parameters: Parameters) -> None:
        super().__init__(address)
        self._parameters = parameters
        self._detecting: dict[Address, tuple[mh.BindingUpdate, Address]] = {}
        self._alarms = Alarms()

    @property
    def deadline(self) -> float | None:
        """When to call `handle_timer`, s."""
        return self._alarms.deadline

    def handle_timer(self, now: float) -> list[Effect]:
        """The deadline has come: no duplicate has answered."""
        return self._alarms.handle(now)

    def _registration(self, now: float, datagram: Datagram) -> list[Effect] | None:
        if isinstance(datagram.payload, mh.BindingUpdate):
            return self._update(now, datagram.payload, datagram.source)
        return None

    def _into_tunnel(self, inner: Datagram, care_of: Address) -> Datagram:
        return _tunnelled(inner, self.address, care_of)

    def _update(self, now: float, update: mh.BindingUpdate, source: Address) -> list[Effect]:
        home = update.home_address
        known = self._bindings[home] if self.care_of(now, home) is not None else None
        if known is not None and update.sequence <= known.number:
            return self._acknowledge(update, source, SEQUENCE_OUT_OF_WINDOW, known.number)
        new = known is None and update.lifetime > 0
        if new and self._parameters.duplicate_detection > 0:
            begun = home in self._detecting
            self._detecting[home] = (update, source)
            if not begun:
                alarm = Alarm(lambda now: self._detected(now, home))
                self._alarms.schedule(alarm, now + self._parameters.duplicate_detection)
            return []
        self._detecting.pop(home, None)
        return self._accept(now, update, source)

    def _detected(self, now: float, home: Address) -> list[Effect]:
        waiting = self._detecting.pop(home, None)
        return self._accept(now, *waiting) if waiting else []

    def _accept(self, now: float, update: mh.BindingUpdate, source: Address) -> list[Effect]:
        care_of = update.care_of if update.lifetime > 0 else None
        binding = Binding(care_of, now + update.lifetime, update.sequence)
        self._bindings[update.home_address] = binding
        return self._acknowledge(update, source, ACCEPTED, update.sequence)

    def _acknowledge(
        self, update: mh.BindingUpdate, source: Address, status: int, sequence: int
    ) -> list[Effect]:
        answer = mh.BindingAcknowledgement(status, update.lifetime, sequence)
        home = update.home_address
        plain = Datagram(self.address, home, answer, mh.HOME_ACKNOWLEDGEMENT)
        datagram = _towards(plain, source if source != home else None)
        return [Transmit(datagram, self.address)]


@final
class MobileIpv6(HomeAgents):
    """The system: a home agent for each of `homes`, on the home network."""

    family: Literal[4, 6] = 6

    def __init__(self, homes: Sequence[Home], parameters: Parameters | None = None) -> None:
        self._parameters = own = parameters or Parameters()
        super().__init__(homes, {home.server: Ipv6HomeAgent(home.server, own) for home in homes})
        self.tells_peers = own.route_optimisation
        self.name = "Mobile IPv6" if self.tells_peers else "Mobile IPv6, bidirectional tunnel"

    def host(self, home_address: Address, *, moves: bool = True) -> Host:
        """A mobile node, or a fixed correspondent that can optimise routes."""
        agent = self._agent_of(home_address) if moves else None
        return MobileIpv6Host(home_address, agent, self._parameters)
