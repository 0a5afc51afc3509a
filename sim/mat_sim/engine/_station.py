"""An IMS: the real machine behind a queue with workers, a service time and a store."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
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
from mat.messages import Endpoint, HaNotify, HaQuery, ImsUpdate, MaQuery, Message
from mat.registrations import RegistrationTable
from mat.server import MappingServer
from mat_files.scenario import Ims
from mat_sim.engine._clock import Happening
from mat_sim.engine._network import Link, Party, Site
from mat_sim.engine._wiring import Wiring

INTERVAL: Final = 10.0
"""Seconds of one row of the table `ims`."""


@final
@dataclass(slots=True)
class _Interval:
    received: int = 0
    answered: int = 0
    refused: int = 0
    dropped: int = 0
    busy: float = 0.0
    queue_max: int = 0
    waits: int = 0
    wait_sum: float = 0.0
    wait_max: float = 0.0
    mappings: int = 0


@final
class _Service(Happening):
    """A message at an IMS; its happening is the end of the service."""

    __slots__ = ("_message", "_source", "_station", "since")

    def __init__(
        self, station: "Station", message: Message, source: Endpoint, since: float
    ) -> None:
        self._station = station
        self._message = message
        self._source = source
        self.since = since
        """When it arrived, s."""

    def happen(self) -> None:
        """The worker is done."""
        self._station.served(self._message, self._source)


@final
class _Durable(Happening):
    """An update becomes durable."""

    __slots__ = ("_effect", "_station")

    def __init__(self, station: "Station", effect: StoreWrite) -> None:
        self._station = station
        self._effect = effect

    def happen(self) -> None:
        """It is."""
        self._station.durable(self._effect)


@final
class Station(Party):
    """One IMS, or one replica of it."""

    __slots__ = (
        "_busy",
        "_intervals",
        "_machine",
        "_model",
        "_queue",
        "_random",
        "_wiring",
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
    ) -> None:
        super().__init__(wiring.network.clock, name, name)
        self.endpoint = endpoint
        self._model = model
        self._machine = machine
        self._wiring = wiring
        self._random = random
        self.site = Site(model.delay, model.loss)
        self.store = RegistrationTable()
        """What it holds of its nodes."""
        self._queue: deque[_Service] = deque()
        self._busy = 0
        self._intervals: list[_Interval] = []
        wiring.network.connect(Link(self, self.site), endpoint.address)

    @property
    def mean_service(self) -> float:
        """Mean time that a worker spends on a message, s."""
        return self._model.service.mean

    def deadline(self) -> float | None:
        """When the machine wants to be woken."""
        return self._machine.deadline

    def wake(self, now: float) -> None:
        """The machine's deadline has come."""
        self._apply(self._machine.handle_timer(now))

    def receive(self, message: Message, source: Endpoint) -> None:
        """A message has arrived: to a worker, into the queue, or into the void."""
        interval = self._interval()
        interval.received += 1
        work = _Service(self, message, source, self.clock.now)
        if self._busy < self._model.workers:
            self._begin(work)
        elif len(self._queue) < self._model.queue:
            self._queue.append(work)
            interval.queue_max = max(interval.queue_max, len(self._queue))
        else:
            interval.dropped += 1

    def servers_found(self, home_address: Address, result: Servers | NotFound) -> None:
        """The DNS answered."""
        self._apply(self._machine.servers_found(self.clock.now, home_address, result))

    def _begin(self, work: "_Service") -> None:
        self._busy += 1
        service = self._model.service.sample(self._random)
        now = self.clock.now
        interval = self._interval()
        interval.waits += 1
        interval.wait_sum += now - work.since
        interval.wait_max = max(interval.wait_max, now - work.since)
        self._add_busy(now, min(now + service, self.clock.end))
        self.clock.after(service, work)

    def served(self, message: Message, source: Endpoint) -> None:
        """A worker is done with a message, and takes the next."""
        self._busy -= 1
        self._apply(self._machine.receive(self.clock.now, message, source))
        if self._queue:
            self._begin(self._queue.popleft())

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
                self._wiring.look_up(self, effect.home_address, self.site)
            case Event() | Learned():
                pass
            case _:
                assert_never(effect)

    def _store(self, effect: StoreWrite) -> None:
        taken = self._model.store.sample(self._random)
        if taken > 0:
            self.clock.after(taken, _Durable(self, effect))
        else:
            self.durable(effect)

    def durable(self, effect: StoreWrite) -> None:
        """An update is in the store."""
        outcome, freshness = self.store.write(effect.registration)
        self._interval().mappings = len(self.store)
        self._apply(self._machine.written(self.clock.now, effect, outcome, freshness))

    def _count_answer(self, message: Message) -> None:
        if isinstance(message, ImsUpdate | MaQuery | HaNotify | HaQuery):
            return
        interval = self._interval()
        interval.answered += 1
        interval.refused += message.code != 0

    # ---- intervals -----------------------------------------------------------------------------

    def _interval(self) -> _Interval:
        return self._interval_at(int(self.clock.now / INTERVAL))

    def _interval_at(self, number: int) -> _Interval:
        while len(self._intervals) <= number:
            before = self._intervals[-1].mappings if self._intervals else 0
            self._intervals.append(_Interval(mappings=before))
        return self._intervals[number]

    def _add_busy(self, begin: float, end: float) -> None:
        """Busy time from `begin` to `end`, shared among the intervals it lies in."""
        number = int(begin / INTERVAL)
        while begin < end:
            until = min(end, (number + 1) * INTERVAL)
            self._interval_at(number).busy += until - begin
            begin, number = until, number + 1

    def rows(self, run: int) -> list[dict[str, object]]:
        """The rows of the table `ims`, up to the end of the run."""
        end = self.clock.end
        self._interval_at(max(0, int(end / INTERVAL - 1e-9)))
        rows: list[dict[str, object]] = []
        for number, interval in enumerate(self._intervals):
            start = number * INTERVAL
            length = min(INTERVAL, end - start)
            if length <= 0:
                break
            mean = interval.wait_sum / interval.waits if interval.waits else None
            rows.append(
                {
                    "run": run,
                    "ims": self.name,
                    "start": start,
                    "interval": length,
                    "received": interval.received,
                    "answered": interval.answered,
                    "refused": interval.refused,
                    "dropped": interval.dropped,
                    "busy": min(1.0, interval.busy / (length * self._model.workers)),
                    "queue_max": interval.queue_max,
                    "wait_mean": mean,
                    "wait_max": interval.wait_max if interval.waits else None,
                    "mappings": interval.mappings,
                }
            )
        return rows
