"""An agent of one of the systems that MAT is compared with: its machine behind a queue.

A home agent, a mapping agent, a dynamic DNS. Packets that a home agent is to send on pass through
the same queue and workers as its messages do, but take a time of their own. What has the same
source and destination goes to the same worker, and so keeps its order: a node's registration is not
overtaken by what the node sends through the tunnel behind it.
"""

from collections.abc import Sequence
from math import nextafter
from random import Random
from typing import final
from zlib import crc32

from mat_files.scenario import Ims
from mat_sim.baselines import Datagram, Effect, Server, Transmit
from mat_sim.engine._carriage import Carriage, Carried
from mat_sim.engine._clock import Happening
from mat_sim.engine._network import Datagram as Travelling
from mat_sim.engine._network import Link, Party, Site
from mat_sim.engine._record import Record, Row
from mat_sim.engine._workers import Work, Workers


@final
class _Arrival(Work):
    """A datagram at an agent."""

    __slots__ = ("_agent", "payload")

    def __init__(self, agent: "Agent", workers: Workers, payload: Datagram) -> None:
        super().__init__(workers, agent.clock.now)
        self._agent = agent
        self.payload = payload

    def duration(self) -> float:
        """How long a worker takes, s."""
        return self._agent.time_for(self.payload)

    def done(self) -> None:
        """The machine hears of it."""
        self._agent.serve(self)


@final
class _Census(Happening):
    """Just before the end of each interval, an agent counts whom it knows."""

    __slots__ = ("_agent", "_interval", "_number")

    def __init__(self, agent: "Agent", interval: float) -> None:
        self._agent = agent
        self._interval = interval
        self._number = 0
        self._next()

    def _next(self) -> None:
        self._number += 1
        clock = self._agent.clock
        clock.at(nextafter(min(self._number * self._interval, clock.end), 0.0), self)

    def happen(self) -> None:
        """It is that time."""
        self._agent.take_census()
        if self._number * self._interval < self._agent.clock.end:
            self._next()


@final
class Agent(Party):
    """One server of a baseline, which has the place and the capacity of an `[[ims]]`."""

    __slots__ = ("_carriage", "_machine", "_model", "_random", "_record", "_workers")

    def __init__(
        self,
        model: Ims,
        machine: Server,
        *,
        carriage: Carriage,
        random: Random,
        interval: float,
    ) -> None:
        network = carriage.network
        super().__init__(network.clock, model.name, machine.role)
        self._model = model
        self._machine = machine
        self._carriage = carriage
        self._random = random
        self._record = Record(self.clock, self.name, model.workers, interval)
        self._workers = Workers(
            self.clock, model.workers, model.queue, self._record, keep_order=True
        )
        capacity = network.capacity("ims", model.name, model.rate, model.link_queue)
        site = Site(model.delay, model.loss, capacity=capacity)
        network.connect(Link(self, site), machine.address)
        _Census(self, interval)

    def deadline(self) -> float | None:
        """When the machine wants to be woken."""
        return self._machine.deadline

    def wake(self, now: float) -> None:
        """The machine's deadline has come."""
        self._apply(self._machine.handle_timer(now))

    def arrived(self, datagram: Travelling) -> None:
        """A datagram has come: for the agent, or for a host that it stands in for."""
        assert isinstance(datagram, Carried)
        payload = datagram.payload
        way = crc32(payload.source + payload.destination)
        self._workers.offer(_Arrival(self, self._workers, payload), way)

    def time_for(self, payload: Datagram) -> float:
        """How long a worker takes for a datagram, s."""
        time = self._model.forward if payload.is_data else self._model.service
        return time.sample(self._random)

    def serve(self, arrival: _Arrival) -> None:
        """A worker has seen to a datagram."""
        self._apply(self._machine.receive(self.clock.now, arrival.payload), arrival)

    def _apply(self, effects: Sequence[Effect], cause: _Arrival | None = None) -> None:
        for effect in effects:
            if isinstance(effect, Transmit):
                self._count(effect.datagram, cause)
                self._carriage.transmit(self, effect)
        self.rearm()

    def _count(self, sent: Datagram, cause: _Arrival | None) -> None:
        """What carries the same as its cause is sent on; all else is an answer."""
        content = sent.content
        if cause is not None and content is cause.payload.content:
            self._record.forwarded()
            return
        response = self.clock.now - cause.since if cause is not None else -1.0
        self._record.answered(refused=content.refuses, response=response)

    # ---- its record ----------------------------------------------------------------------------

    def take_census(self) -> None:
        """Write down how many hosts it knows of."""
        self._record.holds(self._machine.entries(self.clock.now))

    def rows(self, run: int) -> list[Row]:
        """The rows of the table `ims`."""
        return self._record.rows(run)
