"""The resolver of a MAT driver: home address to IMS, remembered for as long as the DNS allows.

A driver asks `cached` first, which costs no switch of tasks, and `servers` if that does not know.
Questions about one home address at a time share one look-up; no more than `concurrency` look-ups
run at a time, each over one socket, and the others wait in a queue, so that a crowd costs memory
and not file descriptors.

What is remembered: servers for their TTL; that there is no IMS record for the time of RFC 2308, at
most `negative_ttl`; a failure for `failure_time` (docs/protocol.md, section 10), so that a dead DNS
is not asked anew for each packet.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias, final

from mat.address import Address, format_address
from mat.effects import NotFound
from mat.mapping_table import Servers
from mat.parameters import DEFAULTS
from mat_real.dns.config import ResolverConfig, Server
from mat_real.dns.errors import BogusError, ResolutionError
from mat_real.dns.lookup import Absent, Located, Lookup
from mat_real.dns.upstream import ResolverCounters

Answer: TypeAlias = Servers | NotFound

_log = logging.getLogger(__name__)


@final
class Resolver:
    """Finds the IMS of home addresses. All calls are made on one event loop's thread."""

    __slots__ = (
        "_cache",
        "_clock",
        "_config",
        "_lookup",
        "_pending",
        "_queue",
        "_workers",
        "counters",
    )

    def __init__(
        self, config: ResolverConfig | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Prepare; nothing is asked yet. `clock` gives seconds, for the ages in the cache.

        Raises `DnsError` if no servers are configured and the system has none.
        """
        self._config = config or ResolverConfig()
        self.counters = ResolverCounters()
        self._clock = clock
        self._lookup = Lookup(self._config, self.counters, clock)
        self._cache: dict[Address, tuple[float, Answer]] = {}
        self._pending: dict[Address, asyncio.Future[Answer]] = {}
        self._queue: deque[Address] = deque()
        self._workers: set[asyncio.Task[None]] = set()

    def cached(self, home_address: Address) -> Answer | None:
        """What is remembered of a home address; None: ask `servers`."""
        entry = self._cache.get(home_address)
        if entry is None or entry[0] <= self._clock():
            return None
        self._cache[home_address] = self._cache.pop(home_address)  # used last
        self.counters.cache_hits += 1
        return entry[1]

    async def servers(self, home_address: Address) -> Answer:
        """The IMS of a home address, from memory or from the DNS; never raises for what it says."""
        answer = self.cached(home_address)
        if answer is not None:
            return answer
        pending = self._pending.get(home_address) or self._begin(home_address)
        # Who gives up waiting must not end the look-up for the others.
        return await asyncio.shield(pending)

    async def locate(self, home_address: Address) -> Located | Absent:
        """All that the DNS says of a home address now, past the cache. Raises `ResolutionError`."""
        return await self._lookup.locate(home_address)

    def use_servers(self, servers: tuple[Server, ...], sources: tuple[str, ...] = ()) -> None:
        """Ask these from now on, from these own addresses: the host is in another network.

        What is known stays known; what the former servers were silent about is forgotten.
        """
        self._config = replace(self._config, servers=servers, sources=sources)
        self._lookup = Lookup(self._config, self.counters, self._clock)
        silent = [home for home, (_, answer) in self._cache.items() if answer is NotFound.FAILED]
        for home_address in silent:
            del self._cache[home_address]

    async def close(self) -> None:
        """End all look-ups; who waits for one gets `NotFound.FAILED`."""
        self._queue.clear()
        workers = list(self._workers)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        for pending in self._pending.values():
            pending.set_result(NotFound.FAILED)
        self._pending.clear()

    def _begin(self, home_address: Address) -> asyncio.Future[Answer]:
        loop = asyncio.get_running_loop()
        pending: asyncio.Future[Answer] = loop.create_future()
        self._pending[home_address] = pending
        self._queue.append(home_address)
        if len(self._workers) < self._config.concurrency:
            worker = loop.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
        return pending

    async def _work(self) -> None:
        """Take look-ups from the queue until it is empty."""
        while self._queue:
            home_address = self._queue.popleft()
            answer: Answer = NotFound.FAILED
            try:
                answer, ttl = await self._ask(home_address)
                self._remember(home_address, answer, ttl)
            except Exception:  # noqa: BLE001 - logged; the others in the queue must not wait for ever
                _log.exception("a bug in the look-up of %s", format_address(home_address))
            finally:
                # Even if this is cancelled: nobody waits for ever.
                self._pending.pop(home_address).set_result(answer)

    async def _ask(self, home_address: Address) -> tuple[Answer, float]:
        """The answer of the DNS, and for how many seconds to remember it."""
        config, counters = self._config, self.counters
        try:
            found = await self._lookup.locate(home_address)
        except ResolutionError as error:
            counters.failures += 1
            counters.bogus += isinstance(error, BogusError)
            return NotFound.FAILED, DEFAULTS.failure_time
        if isinstance(found, Absent):
            counters.negative += 1
            return NotFound.NOT_MAT, min(max(found.ttl, config.minimum_ttl), config.negative_ttl)
        return found.servers, min(max(found.ttl, config.minimum_ttl), config.maximum_ttl)

    def _remember(self, home_address: Address, answer: Answer, ttl: float) -> None:
        self._cache.pop(home_address, None)
        if len(self._cache) >= self._config.cache_limit:
            del self._cache[next(iter(self._cache))]
        self._cache[home_address] = (self._clock() + ttl, answer)
