"""The process of one worker: what the supervisor starts as `python -m mat_real.ims.worker_process`.

Its one argument is a `Task` as JSON; sockets and shared memory come as inherited file descriptors.
It writes "ready" to the supervisor's pipe when it serves, reads configuration and keys again on
SIGHUP, and answers what has arrived before it ends on SIGTERM.
"""

import asyncio
import ctypes
import gc
import json
import logging
import mmap
import os
import random
import signal
import socket
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, final

import uvloop

from mat.authentication import KeyRing
from mat.express import ExpressLane
from mat.server import MappingServer
from mat_files.errors import InputError
from mat_real.datagrams import DatagramSocket
from mat_real.dns import DnsError, Resolver
from mat_real.ims.clock import clock
from mat_real.ims.config import Configuration
from mat_real.ims.handed_down import handed_down
from mat_real.ims.tallies import DNS, Tallies, size
from mat_real.ims.worker import Siblings, Ticket, Worker
from mat_real.ims.zones import zones
from mat_real.keys import KeyRing as KeyFileRing
from mat_real.keys import load
from mat_real.logs import set_up
from mat_real.store import Store, StoreError
from mat_real.store.journal import JournalStore
from mat_real.store.memory import MemoryStore
from mat_real.store.redis import RedisConfig, RedisStore

RARELY: Final = 50_000
"""Objects more than before until the collector looks for cycles. A worker makes hardly any, and a
long backlog would be looked through again and again."""
TICK: Final = 1.0
"""Seconds between two looks at what changes slowly."""
FAILED: Final = 1
"""Exit code of a worker that cannot begin; it has said why."""
BROKEN: Final = 70
"""Exit code of a worker to which something happened that nobody expected."""
KEPT: Final = frozenset((signal.SIGHUP, signal.SIGINT))
"""Signals that a worker is started with blocked, until it can hear of them."""
_PR_SET_PDEATHSIG: Final = 1

_log = logging.getLogger("mat.ims")


@final
@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is to be, and its inherited file descriptors."""

    config: str
    """Path of the configuration; empty for none."""
    overrides: list[str]
    text: str
    """What the configuration file held when the server started."""
    reloaded: int
    """File descriptor: what it held when keys and zones were last read again."""
    supervisor: int
    """Its process id."""
    worker: int
    workers: int
    clock: str
    """`mat_real.ims.clock`: common to all workers."""
    memory: int
    ready: int
    sockets: list[int]
    inbox: int
    outboxes: list[int]

    def to_json(self) -> str:
        """As the one argument of the process."""
        return json.dumps(asdict(self))


def _die_with(supervisor: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != supervisor:
        # It has died before it could be asked for a signal.
        sys.exit(FAILED)


@final
class _Process:
    """One worker with everything around it."""

    def __init__(self, task: Task, configuration: Configuration) -> None:
        self._task = task
        self._configuration = configuration
        config = configuration.config
        memory = mmap.mmap(task.memory, size(task.workers))
        self._tallies = Tallies(memory, task.worker)
        self._now = clock(task.clock)
        self._loop = asyncio.get_running_loop()
        self._resolver = Resolver(config.resolver)
        accepted = accepted_by(task, configuration)
        self._keys = load(accepted.beside(accepted.config.ims.keys))
        self._zones = zones(accepted.config.ims.zones)
        self._reloading = asyncio.Lock()
        self._journal: JournalStore[Ticket] | None = None
        parameters = config.parameters
        keys: KeyRing = self._keys
        machine = MappingServer(keys, self._zones, random.SystemRandom(), parameters=parameters)
        self._longest = int(parameters.maximum_lifetime)
        sockets = [DatagramSocket(socket.socket(fileno=number)) for number in task.sockets]
        self._tallies.set(("gauge", "receive_buffer"), min(s.receive_buffer for s in sockets))
        self.worker = Worker(
            self._loop,
            machine,
            sockets=sockets,
            resolver=self._resolver,
            now=self._now,
            tallies=self._tallies,
            backlog=config.ims.backlog,
            siblings=_siblings(task) if task.workers > 1 else None,
        )
        self._failure = ""
        self._overflowed = 0
        self._asked_before = {name: self._tallies["dns", name] for name in DNS}
        """What predecessors on this seat have counted."""

    async def begin(self) -> None:
        """Open the store and serve. Raises `StoreError`."""
        store = self._configuration.config.store
        worker = self.worker
        if store.kind == "redis":
            worker.begin(await self._redis())
            return
        opened: JournalStore[Ticket] | MemoryStore[Ticket]
        if store.kind == "memory":
            opened, catch_up = MemoryStore(worker.answered, worker.entered), None
        else:
            shared = self._task.workers > 1
            opened = self._journal = JournalStore(
                self._configuration.beside(store.path),
                worker.answered,
                worker.entered,
                self._loop.call_soon_threadsafe,
                shared=shared,
            )
            catch_up = opened.catch_up if shared else None
        lane = ExpressLane(opened.table, self._keys, self._zones, self._longest)
        worker.begin(opened, (lane, opened.enter), catch_up)

    async def _redis(self) -> Store:
        store = self._configuration.config.store
        config = RedisConfig(
            url=store.url,
            cluster=store.cluster,
            timeout=store.timeout,
            durability=store.durability,
            replicas=store.replicas,
            password_file=self._configuration.beside(store.password_file)
            if store.password_file
            else None,
        )
        return await RedisStore.open(config, self.worker.answered)

    async def reload(self) -> None:
        """Read configuration and keys again; what cannot be used leaves everything as it was."""
        async with self._reloading:
            try:
                accepted, keys = await self._loop.run_in_executor(None, self._reread)
            except InputError as error:
                _log.error("not reloaded: %s", error)
                return
            self._keys = keys
            self.worker.adopt(keys, zones(accepted.config.ims.zones))
            self._tallies.add(("reloads",))

    def _reread(self) -> tuple[Configuration, KeyFileRing]:
        accepted = accepted_by(self._task, self._configuration)
        return accepted, load(accepted.beside(accepted.config.ims.keys))

    def tick(self) -> None:
        """Gauges, and what is worth a line in the log."""
        tallies = self._tallies
        self.worker.gauge()
        tallies.set(("gauge", "keys"), len(self._keys))
        for name in DNS:
            asked = getattr(self._resolver.counters, name)
            tallies.set(("dns", name), self._asked_before[name] + asked)
        if self._journal is not None:
            tallies.set(("gauge", "mappings"), len(self._journal.table))
            self._tell(self._journal.failure)
        overflowed = tallies["overflowed",]
        if overflowed > self._overflowed:
            _log.warning("overloaded: the backlog is full", extra={"worker": self._task.worker})
        self._overflowed = overflowed
        self._loop.call_later(TICK, self.tick)

    def _tell(self, failure: str) -> None:
        """Log when the store begins to fail, and when it works again."""
        if failure and not self._failure:
            _log.error("the store does not take updates: %s", failure)
        elif self._failure and not failure:
            _log.info("the store takes updates again")
        self._failure = failure

    async def end(self) -> None:
        """Answer what has arrived, and let go of everything."""
        await self.worker.end()
        await self._resolver.close()


def accepted_by(task: Task, configuration: Configuration) -> Configuration:
    """The configuration whose keys and zones count now: as last read again by the supervisor.

    What else has changed in the file since the start takes a restart, of the whole server.
    """
    return configuration.reread(handed_down(task.reloaded))


def _siblings(task: Task) -> Siblings:
    inbox = socket.socket(fileno=task.inbox)
    outboxes = tuple(socket.socket(fileno=number) for number in task.outboxes)
    for one in (inbox, *outboxes):
        one.setblocking(False)
    return Siblings(inbox, outboxes)


def _die(_loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """What nobody expected leaves nobody knows what behind: the supervisor starts a new worker."""
    error = context.get("exception")
    found = error if isinstance(error, BaseException) else None
    _log.critical("the worker ends: %s", context.get("message"), exc_info=found)
    logging.shutdown()
    os._exit(BROKEN)


def _die_with_thread(ended: threading.ExceptHookArgs) -> None:
    """A worker without one of its threads would go on half-dead."""
    name = ended.thread.name if ended.thread else "?"
    _log.critical("the worker ends: its thread %s has ended", name, exc_info=ended.exc_value)
    logging.shutdown()
    os._exit(BROKEN)


async def _run(task: Task, configuration: Configuration) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.set_exception_handler(_die)
    threading.excepthook = _die_with_thread
    wanted = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, wanted.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, KEPT)
    process = _Process(task, configuration)
    await process.begin()
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        begun = loop.create_task(process.reload())
        reloads.add(begun)
        begun.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    if wanted.is_set():
        reload()
    process.tick()
    os.write(task.ready, b"ready")
    # Everything loaded so far stays: the collector need not look at it again and again.
    gc.freeze()
    gc.set_threshold(RARELY)
    await stop.wait()
    await process.end()


def main() -> int:
    """Be a worker; the exit code."""
    task = Task(**json.loads(sys.argv[1]))
    _die_with(task.supervisor)
    # Ctrl-C goes to the whole terminal; the supervisor says when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        path = Path(task.config) if task.config else None
        configuration = Configuration(path, tuple(task.overrides), task.text)
        set_up(configuration.config.log.level, configuration.config.log.format)
        uvloop.run(_run(task, configuration))
    except (InputError, StoreError, DnsError, OSError) as error:
        _log.error("worker %d cannot begin: %s", task.worker, error)
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
