"""An IMS: the real machine behind workers and a queue, and a store."""

from collections.abc import Sequence
from random import Random
from typing import Final, assert_never, final

from mat.address import Address
from mat.effects import (
    Event,
    EventKind,
    Learned,
    Lookup,
    NotFound,
    ReadByHome,
    ReadByMobile,
    Send,
    ServerEffect,
    StoreWrite,
)
from mat.mapping_table import Servers
from mat.messages import Endpoint, HaNotify, HaQuery, ImsUpdate, MaAnswer, MaQuery, Message
from mat.registrations import RegistrationTable
from mat.server import MappingServer
from mat_files.distributions import Distribution
from mat_files.scenario import Ims, Services
from mat_sim.engine._clock import Happening
from mat_sim.engine._draw import Draw
from mat_sim.engine._network import Link, Party, Site
from mat_sim.engine._record import Record, Row
from mat_sim.engine._wiring import Wiring
from mat_sim.engine._workers import Work, Workers

_UNKNOWN: Final = -1.0
"""When what is answered now arrived, where that is not known."""


@final
class _Request(Work):
    """A message at an IMS."""

    __slots__ = ("_message", "_source", "_station")

    def __init__(
        self, station: "Station", workers: Workers, message: Message, source: Endpoint
    ) -> None:
        super().__init__(workers, station.clock.now)
        self._station = station
        self._message = message
        self._source = source

    def duration(self) -> float:
        """How long a worker takes, s."""
        return self._station.time_for(self._message)

    def done(self) -> None:
        """The machine hears of it."""
        self._station.serve(self._message, self._source, self.since)


@final
class _Update:
    """An IMS Update on its way into the store, and when it arrived, s."""

    __slots__ = ("effect", "since")

    def __init__(self, effect: StoreWrite, since: float) -> None:
        self.effect = effect
        self.since = since


@final
class _Commit(Happening):
    """Updates become durable."""

    __slots__ = ("_group", "_station")

    def __init__(self, station: "Station", group: list[_Update]) -> None:
        self._station = station
        self._group = group

    def happen(self) -> None:
        """They are."""
        self._station.committed(self._group)


@final
class Station(Party):
    """One IMS, or one replica of it."""

    __slots__ = (
        "_committing",
        "_gathered",
        "_group_commit",
        "_latency",
        "_machine",
        "_mean",
        "_random",
        "_record",
        "_service",
        "_since",
        "_times",
        "_wiring",
        "_workers",
        "endpoint",
        "site",
        "store",
    )

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        model: Ims,
        machine: MappingServer,
        *,
        wiring: Wiring,
        random: Random,
        interval: float,
    ) -> None:
        """`interval` is the length of a row of the table, s."""
        super().__init__(wiring.network.clock, name, name)
        self.endpoint = endpoint
        self._machine = machine
        self._wiring = wiring
        self._random = random
        self._service = Draw(model.service)
        """How long a worker takes for a message of a type without a time of its own, s."""
        self._times = _times(model.services)
        self._mean = model.service.mean
        self._latency = Draw(model.store)
        self._group_commit = model.group_commit
        self._record = Record(self.clock, name, model.workers, interval)
        self._workers = Workers(self.clock, model.workers, model.queue, self._record)
        capacity = wiring.network.capacity("ims", name, model.rate, model.link_queue)
        self.site = Site(model.delay, model.loss, capacity=capacity)
        self.store = RegistrationTable()
        """What it holds of its nodes."""
        self._gathered: list[_Update] = []
        """What the next commit will make durable."""
        self._committing = False
        self._since = _UNKNOWN
        """When the request arrived that is worked on, s."""
        wiring.network.connect(Link(self, self.site), endpoint.address)

    def hold(self, key: bytes, record: bytes) -> None:
        """This is registered, packed, when the run begins."""
        self.store.put(key, record)
        self._record.holds(len(self.store))

    @property
    def mean_service(self) -> float:
        """Mean time that a worker spends on a message of a type without a time of its own, s."""
        return self._mean

    def time_for(self, message: Message) -> float:
        """How long a worker takes for a message, s."""
        return self._times.get(type(message), self._service).sample(self._random)

    def deadline(self) -> float | None:
        """When the machine wants to be woken."""
        return self._machine.deadline

    def wake(self, now: float) -> None:
        """The machine's deadline has come."""
        self._apply(self._machine.handle_timer(now))

    def receive(self, message: Message, source: Endpoint) -> None:
        """A message has arrived."""
        self._workers.offer(_Request(self, self._workers, message, source))

    def servers_found(self, home_address: Address, result: Servers | NotFound) -> None:
        """The DNS answered."""
        self._apply(self._machine.servers_found(self.clock.now, home_address, result))

    def serve(self, message: Message, source: Endpoint, since: float) -> None:
        """A worker has seen to a message, which arrived at `since`."""
        # What an answer of another IMS makes possible answers requests that arrived before it.
        self._since = since if not isinstance(message, MaAnswer) else _UNKNOWN
        self._apply(self._machine.receive(self.clock.now, message, source))
        self._since = _UNKNOWN

    def _apply(self, effects: Sequence[ServerEffect]) -> None:
        repeat = False
        for effect in effects:
            self._carry_out(effect, repeat=repeat)
            repeat = isinstance(effect, Event) and effect.kind is EventKind.RETRANSMITTED
        self.rearm()

    def _carry_out(self, effect: ServerEffect, *, repeat: bool) -> None:
        now = self.clock.now
        match effect:
            case Send():
                self._count_answer(effect.message)
                self._wiring.send(self, self.endpoint.address, effect, repeat=repeat)
            case ReadByHome():
                found = self.store.by_home(effect.home_address)
                self._apply(self._machine.read(now, effect, found))
            case StoreWrite():
                self._store(effect)
            case ReadByMobile():
                moved = self.store.by_mobile(effect.mobile_address)
                self._apply(self._machine.read(now, effect, moved))
            case Lookup():
                self._wiring.look_up(self, effect.home_address, self.site, self.endpoint.address)
            case Event() | Learned():
                pass
            case _:
                assert_never(effect)

    # ---- the store -----------------------------------------------------------------------------

    def _store(self, effect: StoreWrite) -> None:
        update = _Update(effect, self._since)
        if self._group_commit:
            self._gathered.append(update)
            if not self._committing:
                self._commit()
            return
        taken = self._latency.sample(self._random)
        if taken > 0:
            self.clock.after(taken, _Commit(self, [update]))
        else:
            self._durable(update)

    def _commit(self) -> None:
        """What has been gathered goes into the store together."""
        group, self._gathered = self._gathered, []
        self._committing = True
        self.clock.after(self._latency.sample(self._random), _Commit(self, group))

    def committed(self, group: list[_Update]) -> None:
        """A group of updates is durable."""
        for update in group:
            self._durable(update)
        if self._group_commit:
            self._committing = False
            if self._gathered:
                self._commit()

    def _durable(self, update: _Update) -> None:
        """An update is in the store."""
        effect, self._since = update.effect, update.since
        outcome, freshness = self.store.write(effect.registration)
        self._record.holds(len(self.store))
        self._apply(self._machine.written(self.clock.now, effect, outcome, freshness))
        self._since = _UNKNOWN

    # ---- its record ----------------------------------------------------------------------------

    def _count_answer(self, message: Message) -> None:
        if isinstance(message, (ImsUpdate, MaQuery, HaNotify, HaQuery)):
            return
        response = self.clock.now - self._since if self._since >= 0 else _UNKNOWN
        self._record.answered(refused=message.code != 0, response=response)

    def rows(self, run: int) -> list[Row]:
        """The rows of the table `ims`."""
        rows = self._record.rows(run)
        for row in rows:
            row["forwarded"] = None
        return rows


def _times(services: Services | None) -> dict[type, Draw]:
    """The time of a worker for the types of message that have one of their own."""
    if services is None:
        return {}
    given: dict[type, Distribution | None] = {
        ImsUpdate: services.update,
        MaQuery: services.query,
        HaNotify: services.notify,
        HaQuery: services.ha_query,
        MaAnswer: services.answer,
    }
    return {kind: Draw(time) for kind, time in given.items() if time is not None}
