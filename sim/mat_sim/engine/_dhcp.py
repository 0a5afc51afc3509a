"""DHCP as an exchange (RFC 2131): the client on a node's interface, the server of a network.

The client is the one that real interfaces have (`mat.dhcp`): what it sends, when it sends it again,
and what it does about a refusal are its own. Around it are models: the way between the two, with
its delay and its loss, and a server, which is workers behind a bounded queue and a pool of
addresses. The server does what RFC 2131 says in sections 4.3.1 and 4.3.2; where it leaves a choice,
the scenario or `DhcpServer` says which. A question and its answer are three events: the question
arrives, a worker is done with it, the answer arrives.
"""

from collections.abc import Sequence
from random import Random
from typing import Final, assert_never, final

from mat.address import Address, to_packed
from mat.dhcp import Bind, DhcpClient, DhcpEffect, Transmit, Unbind
from mat.dhcp_messages import ANY, DhcpMessage, Kind, Option
from mat_files.scenario import Dhcp
from mat_sim.engine._clock import Clock, Happening, Sleeper
from mat_sim.engine._network import Link, Party
from mat_sim.engine._pool import Pool
from mat_sim.engine._tally import Count, Tally
from mat_sim.engine._workers import Work, Workers

_ROLE: Final = "DHCP"
"""Of all servers, in results."""
_NODE: Final = "MN"
_SIZE: Final = 300
"""Bytes of a message: what RFC 1542, section 2.1, has them padded to, and none has more to say."""
_HELD: Final = 60.0
"""Seconds that an address is kept for whom it was offered to; RFC 2131 leaves it to the server."""
_INTERFACES: Final = 2
"""Of a node, at most."""
_LOCAL: Final = 0x02 << 40
"""Hardware addresses that nobody assigned."""


class Tenant(Party):
    """Whoever gets addresses by DHCP."""

    __slots__ = ()

    def bound(self, link: Link, address: Address, until: float) -> None:
        """The link has this address until then, s; it may have had it before."""
        raise NotImplementedError

    def unbound(self, link: Link) -> None:
        """The link has no address any more, though it is up."""
        raise NotImplementedError


@final
class DhcpServer:
    """The server of one access network.

    Clients are known by number. A server that is not authoritative says nothing to who asks for an
    address that it does not have (section 4.3.2); with none left, it says nothing either.
    """

    __slots__ = (
        "_address",
        "_model",
        "_pool",
        "_probing",
        "_random",
        "_reserved",
        "_tally",
        "_workers",
        "clients",
        "clock",
    )

    def __init__(
        self,
        model: Dhcp,
        pool: Pool,
        clock: Clock,
        tally: Tally,
        *,
        random: Random,
        clients: Random,
    ) -> None:
        """`random` is for what is on the way and in the server, `clients` for the clients."""
        self._model = model
        self._pool = pool
        self._address = to_packed(pool.router)
        self._tally = tally
        self._random = random
        self._workers = Workers(clock, model.workers, model.queue, None)
        self._reserved: dict[int, Address] = {}
        """Addresses that are prescribed for a client."""
        self._probing: dict[int, float] = {}
        """Until when what is to be offered to a client is looked at, s."""
        self.clock = clock
        self.clients = clients

    def reserve(self, client: int, address: Address) -> None:
        """This client is to have this address, from now on."""
        self._reserved[client] = address

    # ---- messages on their way -----------------------------------------------------------------

    def ask(
        self, client: "DhcpInterface", link: Link, message: DhcpMessage, *, repeat: bool
    ) -> None:
        """A client sends a message."""
        count = self._count(message, _NODE, _ROLE)
        count.retransmitted += repeat
        if self._is_lost():
            count.lost += 1
            return
        question = _Question(self, self._workers, client, link, message=message, count=count)
        self.clock.after(self._model.delay.sample(self._random), question)

    def _reply(self, question: "_Question", message: DhcpMessage, pause: float) -> None:
        count = self._count(message, _ROLE, _NODE)
        if self._is_lost():
            count.lost += 1
            return
        answer = _Answer(question.client, question.link, message, count)
        self.clock.after(pause + self._model.delay.sample(self._random), answer)

    def _count(self, message: DhcpMessage, sender: str, receiver: str) -> Count:
        count = self._tally.count(f"DHCP {message.kind.name}", sender, receiver)
        count.sent += 1
        count.bytes += _SIZE
        count.udp = True
        return count

    def _is_lost(self) -> bool:
        return self._model.loss > 0 and self._random.random() < self._model.loss

    def service_time(self) -> float:
        """How long a worker takes for a message, s."""
        return self._model.service.sample(self._random)

    # ---- what it answers -----------------------------------------------------------------------

    def serve(self, question: "_Question") -> None:
        """A worker has seen to a message."""
        now, client = self.clock.now, question.client.number
        pause = 0.0
        if question.message.kind is Kind.DISCOVER:
            if self._probing.get(client, now) > now:
                return
            pause = self._probe(client)
        answer = self.answer(client, question.message)
        if answer is not None:
            if pause:
                self._probing[client] = now + pause
            self._reply(question, answer, pause)

    def _probe(self, client: int) -> float:
        """How long it looks whether an address is in use: one that the client had is not."""
        if self._model.probe is None or self._pool.had(client):
            return 0.0
        return self._model.probe.sample(self._random)

    def answer(self, client: int, message: DhcpMessage) -> DhcpMessage | None:
        """What it says to a message; None if nothing."""
        if message.kind is Kind.DISCOVER:
            return self._offer(client, message)
        asked = message.addresses(Option.REQUESTED_ADDRESS)
        address = message.client if message.client != ANY else asked[0]
        if self._has(client, address):
            return self._acknowledge(message, address)
        # Who answers an offer, or has an address, has asked this server before.
        if self._model.authoritative or Option.SERVER in message.options or not asked:
            return self._message(Kind.NAK, message, ANY)
        return None

    def _offer(self, client: int, message: DhcpMessage) -> DhcpMessage | None:
        now = self.clock.now
        address = self._pool.offer(now, client, _HELD, self._reserved.get(client))
        if address is None:
            return None
        if self._model.rapid_commit and Option.RAPID_COMMIT in message.options:
            return self._acknowledge(message, address, {int(Option.RAPID_COMMIT): b""})
        return self._message(Kind.OFFER, message, address)

    def _has(self, client: int, address: Address) -> bool:
        """Whether an address is the client's."""
        reserved = self._reserved.get(client)
        return address == reserved if reserved is not None else self._pool.has(client, address)

    def _acknowledge(
        self, to: DhcpMessage, address: Address, more: dict[int, bytes] | None = None
    ) -> DhcpMessage:
        self._pool.renew(self.clock.now, address)
        return self._message(Kind.ACK, to, address, more)

    def _message(
        self, kind: Kind, to: DhcpMessage, address: Address, more: dict[int, bytes] | None = None
    ) -> DhcpMessage:
        options = {
            int(Option.SERVER): self._address,
            int(Option.LEASE_TIME): int(self._pool.lease_time).to_bytes(4, "big"),
            **(more or {}),
        }
        return DhcpMessage(
            kind, to.transaction, to.hardware_address, yours=address, options=options
        )


@final
class DhcpInterface(Sleeper):
    """An interface of a node, and the client on it; `ordinal` is the interface's number."""

    __slots__ = ("_asked", "_client", "_hardware_address", "_link", "_server", "_tenant", "number")

    def __init__(self, tenant: Tenant, node: int, ordinal: int, random: Random) -> None:
        super().__init__(tenant.clock)
        self._tenant = tenant
        self.number = node * _INTERFACES + ordinal
        """What servers know it by."""
        self._hardware_address = (_LOCAL | self.number).to_bytes(6, "big")
        self._client = DhcpClient(random)
        self._server: DhcpServer | None = None
        self._link: Link | None = None
        self._asked: tuple[int, Kind] | None = None
        """What it sent last."""

    def associated(self, link: Link, server: DhcpServer, *, at_once: bool) -> None:
        """The link is there; `at_once`: the exchange takes no time, if the server answers."""
        self._link, self._server = link, server
        effects = self._client.carrier_came(self.clock.now, self._hardware_address)
        self._do(effects, at_once=at_once)

    def left(self, link: Link) -> None:
        """The link is gone, if it ever was there."""
        if self._link is link:
            self._link = None
            self._client.carrier_went()

    def hear(self, link: Link, message: DhcpMessage) -> bool:
        """A server's message is there; whether the interface still is."""
        if self._link is not link:
            return False
        self._do(self._client.receive(self.clock.now, message))
        return True

    def deadline(self) -> float | None:
        """When the client wants to be woken, s."""
        return self._client.deadline

    def wake(self, now: float) -> None:
        """The client's deadline has come."""
        self._do(self._client.handle_timer(now))

    def _do(self, effects: Sequence[DhcpEffect], *, at_once: bool = False) -> None:
        link = self._link
        assert link is not None
        for effect in effects:
            match effect:
                case Transmit():
                    self._transmit(link, effect.message, at_once=at_once)
                case Bind():
                    self._tenant.bound(link, effect.lease.address, effect.lease.until)
                case Unbind():
                    self._tenant.unbound(link)
                case _:
                    assert_never(effect)
        self.rearm()

    def _transmit(self, link: Link, message: DhcpMessage, *, at_once: bool) -> None:
        server = self._server
        assert server is not None
        if at_once:
            answer = server.answer(self.number, message)
            if answer is not None:
                self._do(self._client.receive(self.clock.now, answer), at_once=True)
            return
        asked = (message.transaction, message.kind)
        repeat, self._asked = asked == self._asked, asked
        server.ask(self, link, message, repeat=repeat)


@final
class _Question(Work):
    """A message to a server: it arrives, and then a worker is done with it."""

    __slots__ = ("_arrived", "_count", "_server", "client", "link", "message")

    def __init__(
        self,
        server: DhcpServer,
        workers: Workers,
        client: DhcpInterface,
        link: Link,
        *,
        message: DhcpMessage,
        count: Count,
    ) -> None:
        super().__init__(workers, 0.0)
        self._server = server
        self._arrived = False
        self._count = count
        self.client = client
        self.link = link
        self.message = message

    def happen(self) -> None:
        """It has arrived, or a worker is done."""
        if self._arrived:
            super().happen()
            return
        self._arrived, self.since = True, self._server.clock.now
        if self.workers.offer(self):
            self._count.delivered += 1
        else:
            self._count.lost += 1

    def duration(self) -> float:
        """How long a worker takes, s."""
        return self._server.service_time()

    def done(self) -> None:
        """The server has read it."""
        self._server.serve(self)


@final
class _Answer(Happening):
    """A message to a client."""

    __slots__ = ("_client", "_count", "_link", "_message")

    def __init__(
        self, client: DhcpInterface, link: Link, message: DhcpMessage, count: Count
    ) -> None:
        self._client = client
        self._link = link
        self._message = message
        self._count = count

    def happen(self) -> None:
        """It has arrived, if the client is still there."""
        if self._client.hear(self._link, self._message):
            self._count.delivered += 1
        else:
            self._count.lost += 1
