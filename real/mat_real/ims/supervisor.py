"""The process in charge: binds the sockets, starts the workers, and keeps them going.

The supervisor holds every socket, so a worker that dies loses nothing that the kernel has received:
its successor reads it. It also holds the store's lock, the clock, the counters' memory, and what
operators talk to: signals, metrics, the control socket.
"""

import asyncio
import fcntl
import logging
import mmap
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

from mat.address import format_address
from mat.ims_record import RecordError, from_text
from mat_files.errors import InputError
from mat_real.control import listen
from mat_real.datagrams import bind, receive_buffer
from mat_real.dns import DnsError, Responder
from mat_real.ims.clock import remembered
from mat_real.ims.config import Configuration, MetricsTable, ResponderTable, ServerConfig
from mat_real.ims.handed_down import hand_down
from mat_real.ims.metrics import serve_metrics
from mat_real.ims.status import snapshot
from mat_real.ims.tallies import Tallies, size
from mat_real.ims.worker_process import BROKEN, FAILED, KEPT, Task
from mat_real.key_file import open_key_file
from mat_real.keys import load
from mat_real.logs import set_up
from mat_real.notify import notify
from mat_real.store import StoreError
from mat_real.store.journal import Journal, create

STOP_TIME: Final = 20.0
"""Seconds that workers have to finish before they are killed."""
SLOWEST_RESTART: Final = 10.0
"""Longest pause, s, before a worker that dies again and again is started again."""
SIBLING_BUFFER: Final = 4 << 20
"""Bytes for what other workers have told one that has not read it yet."""
_FRESHNESS_UNITS: Final = 1 << 32
"""Freshness counts in 2^-32 s (docs/protocol.md, section 6.2)."""

_log = logging.getLogger("mat.ims")


class ServerError(Exception):
    """The server cannot start; says why and how to mend it."""


@final
@dataclass(slots=True)
class _Seat:
    """A worker's place: what outlives the process that sits there."""

    number: int
    sockets: list[socket.socket]
    inbox: socket.socket
    outbox: socket.socket
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0
    begun: float = 0.0
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once a process on this seat has served."""
    serving: bool = False


def serve(path: Path | None, overrides: Sequence[str]) -> None:
    """Run the server until it is told to stop (SIGTERM, SIGINT).

    Raises `ServerError`, `ControlError`, `StoreError`, `DnsError` and
    `mat_files.errors.InputError` if it cannot start.
    """
    # Until there is somebody to hear of a reload, the kernel keeps it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    configuration = Configuration(path, tuple(overrides))
    set_up(configuration.config.log.level, configuration.config.log.format)
    # Workers read the keys; what they would all refuse is better said once, and here.
    open_key_file(configuration.beside(configuration.config.ims.keys)).close()
    asyncio.run(_serve(path, overrides, configuration))


async def _serve(path: Path | None, overrides: Sequence[str], configuration: Configuration) -> None:
    with ExitStack() as stack:
        kept_clock, lock = remembered("", 0.0), None
        if configuration.config.store.kind == "journal":
            store = configuration.beside(configuration.config.store.path)
            lock = stack.enter_context(_locked(store))
            kept_clock = await asyncio.to_thread(_prepare_journal, store)
        supervisor = _Supervisor(
            path, overrides, configuration, stack, kept_clock=kept_clock, lock=lock
        )
        await supervisor.run()


@contextmanager
def _locked(store: Path) -> Generator[int]:
    """Only one server uses a journal at a time. Raises `StoreError`.

    Whoever inherits the descriptor holds the lock too: workers that outlive their supervisor for
    a moment may still commit.
    """
    path = store.with_name(store.name + ".lock")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        what = f"{path}: cannot be made ({error.strerror}); see that its directory exists"
        raise StoreError(f"{what} and can be written") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        what = "is in use by another server; stop that one, or name another store"
        raise StoreError(f"{store}: {what}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _prepare_journal(store: Path) -> str:
    """Make the journal if there is none; the clock to go on with. Raises `StoreError`."""
    if not store.exists():
        create(store, int(time.time() * _FRESHNESS_UNITS), remembered("", 0.0))
        _log.info("made a new store", extra={"path": str(store)})
    journal = Journal(store)
    try:
        kept = journal.meta("clock")
        going_on = remembered(kept, 0.0)
        if going_on != kept:
            going_on = remembered("", journal.latest())
            journal.set_meta("clock", going_on)
    finally:
        journal.close()
    return going_on


@contextmanager
def _signals_kept() -> Generator[None]:
    """Until the process that is started meanwhile can hear of them, the kernel keeps signals."""
    signal.pthread_sigmask(signal.SIG_BLOCK, KEPT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, KEPT)


@final
class _Supervisor:
    def __init__(
        self,
        path: Path | None,
        overrides: Sequence[str],
        configuration: Configuration,
        stack: ExitStack,
        *,
        kept_clock: str,
        lock: int | None,
    ) -> None:
        self._path = path
        self._overrides = list(overrides)
        self._start = configuration
        """What the server was started with, and has until it ends, but for keys and zones."""
        self._configuration = configuration
        """What was last read again."""
        self._clock = kept_clock
        self._lock = () if lock is None else (lock,)
        self._stack = stack
        self._stopping = asyncio.Event()
        self._failed = ""
        self._reloads: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()
        self._started = time.monotonic()
        workers = configuration.config.ims.workers
        self._memory = os.memfd_create("mat-ims-tallies", 0)
        stack.callback(os.close, self._memory)
        os.ftruncate(self._memory, size(workers))
        self._reloaded = os.memfd_create("mat-ims-configuration", 0)
        stack.callback(os.close, self._reloaded)
        hand_down(self._reloaded, configuration.text)
        mapped = mmap.mmap(self._memory, size(workers))
        self._tallies = [Tallies(mapped, number) for number in range(workers)]
        self._seats = [self._seat(number) for number in range(workers)]

    def _seat(self, number: int) -> _Seat:
        ims = self._start.config.ims
        sockets: list[socket.socket] = []
        for address, port in ims.listen:
            try:
                bound = bind(address, port, reuse_port=ims.workers > 1, buffer=ims.receive_buffer)
            except OSError as error:
                where = f"[{format_address(address)}]:{port}"
                what = f"cannot listen on {where} ({error.strerror})"
                mend = "set ims.listen to an address of this host and a port that is free"
                raise ServerError(f"{what}; {mend}") from error
            sockets.append(self._stack.enter_context(bound))
        inbox, outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        # A slice's worth of inquiries may end at once, in each of the other workers.
        outbox.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SIBLING_BUFFER)
        self._stack.enter_context(inbox)
        self._stack.enter_context(outbox)
        return _Seat(number, sockets, inbox, outbox)

    # ---- life ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until told to stop. Raises `ServerError` if a worker cannot begin."""
        loop = asyncio.get_running_loop()
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(one, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._begin_reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        config = self._configuration.config
        control = await self._control()
        if config.metrics is not None:
            self._stack.callback(_metrics(config.metrics, self._tallies))
        responder = await _responder(config)
        keepers = [asyncio.create_task(self._keep(seat)) for seat in self._seats]
        ready = asyncio.create_task(self._all_ready())
        stopped = asyncio.create_task(self._stopping.wait())
        # A keeper ends before it is told to only if something is wrong with it.
        first = asyncio.FIRST_COMPLETED
        await asyncio.wait((ready, stopped, *keepers), return_when=first)
        if ready.done():
            self._announce()
            await asyncio.wait((stopped, *keepers), return_when=first)
        ready.cancel()
        self._stopping.set()
        notify("STOPPING=1")
        await self._stop(keepers)
        control.close()
        if responder is not None:
            await responder.close()
        await asyncio.gather(*keepers)
        if self._failed:
            raise ServerError(self._failed)

    async def _all_ready(self) -> None:
        for seat in self._seats:
            await seat.ready.wait()

    def _announce(self) -> None:
        ims = self._configuration.config.ims
        _log.info(
            "serving",
            extra={
                "listen": " ".join(f"[{format_address(a)}]:{port}" for a, port in ims.listen),
                "workers": ims.workers,
                "store": self._configuration.config.store.kind,
            },
        )
        sockets = [one for seat in self._seats for one in seat.sockets]
        granted = min(map(receive_buffer, sockets))
        if granted < ims.receive_buffer:
            _log.warning(
                "the kernel grants a smaller socket buffer than wanted; bursts may be lost:"
                " raise net.core.rmem_max, or lower ims.receive_buffer",
                extra={"wanted": ims.receive_buffer, "granted": granted},
            )
        notify("READY=1")

    async def _keep(self, seat: _Seat) -> None:
        """Have a process on this seat until the server stops."""
        pause = 0.1
        while not self._stopping.is_set():
            try:
                code = await self._sit(seat)
            except OSError as error:
                _log.error("a worker cannot be started: %s", error)
                code = BROKEN
            if self._stopping.is_set():
                return
            self._tallies[seat.number].clear_gauges()
            if not seat.ready.is_set() and code == FAILED:
                self._failed = "a worker could not begin; the line before this one says why"
                self._stopping.set()
                return
            seat.restarts += 1
            _log.error(
                "a worker died and is started again",
                extra={"worker": seat.number, "code": code, "restarts": seat.restarts},
            )
            lived = time.monotonic() - seat.begun
            pause = 0.1 if lived > SLOWEST_RESTART else min(2 * pause, SLOWEST_RESTART)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _sit(self, seat: _Seat) -> int:
        """Start a process on the seat and wait for its end; its exit code. Raises `OSError`."""
        seat.begun = time.monotonic()
        loop = asyncio.get_running_loop()
        reader, writer = os.pipe()
        try:
            try:
                process = seat.process = await self._launched(seat, writer)
            finally:
                os.close(writer)
            loop.add_reader(reader, self._said, seat, reader)
            return await process.wait()
        finally:
            seat.process, seat.serving = None, False
            loop.remove_reader(reader)
            os.close(reader)

    async def _launched(self, seat: _Seat, ready: int) -> asyncio.subprocess.Process:
        """A process for the seat; it says through `ready` when it serves."""
        outboxes = [other.outbox.fileno() for other in self._seats if other is not seat]
        task = Task(
            config=str(self._path) if self._path else "",
            overrides=self._overrides,
            text=self._start.text,
            reloaded=self._reloaded,
            supervisor=os.getpid(),
            worker=seat.number,
            workers=len(self._seats),
            clock=self._clock,
            memory=self._memory,
            ready=ready,
            sockets=[one.fileno() for one in seat.sockets],
            inbox=seat.inbox.fileno(),
            outboxes=outboxes,
        )
        inherited = (
            self._memory,
            self._reloaded,
            ready,
            *task.sockets,
            task.inbox,
            *outboxes,
            *self._lock,
        )
        with _signals_kept():
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "mat_real.ims.worker_process",
                task.to_json(),
                pass_fds=inherited,
                stdin=asyncio.subprocess.DEVNULL,
            )

    def _said(self, seat: _Seat, reader: int) -> None:
        if os.read(reader, 16):
            seat.ready.set()
            seat.serving = True
        else:
            asyncio.get_running_loop().remove_reader(reader)

    async def _stop(self, keepers: Sequence[asyncio.Task[None]]) -> None:
        self._signal(signal.SIGTERM)
        _, late = await asyncio.wait(keepers, timeout=STOP_TIME)
        if late:
            _log.error(
                "workers did not finish in time and are killed", extra={"workers": len(late)}
            )
            self._signal(signal.SIGKILL)
            await asyncio.wait(late)

    def _signal(self, number: signal.Signals) -> None:
        for seat in self._seats:
            if seat.process is not None:
                with suppress(ProcessLookupError):
                    seat.process.send_signal(number)

    # ---- what operators talk to ----------------------------------------------------------------

    def _begin_reload(self) -> None:
        begun = asyncio.create_task(self._reload())
        self._reloads.add(begun)
        begun.add_done_callback(self._reloads.discard)

    async def _reload(self) -> None:
        async with self._reloading:
            await self._reload_alone()

    async def _reload_alone(self) -> None:
        try:
            fresh = self._configuration.reread()
            await asyncio.to_thread(load, fresh.beside(fresh.config.ims.keys))
        except InputError as error:
            _log.error("not reloaded, all goes on as before: %s", error)
            return
        for what in _fixed(self._start.config, fresh.config):
            _log.warning("%s has changed; that takes a restart", what)
        self._configuration = fresh
        hand_down(self._reloaded, fresh.text)
        self._signal(signal.SIGHUP)
        _log.info("reloaded")

    async def _control(self) -> asyncio.Server:
        path = self._start.beside(self._start.config.ims.control)
        server = await listen(path, lambda _: self._snapshot(), "ims.control")
        self._stack.callback(path.unlink, missing_ok=True)
        return server

    def _snapshot(self) -> dict[str, object]:
        processes: list[dict[str, object]] = [
            {
                "pid": seat.process.pid if seat.process else None,
                "restarts": seat.restarts,
                "ready": seat.serving,
            }
            for seat in self._seats
        ]
        uptime = time.monotonic() - self._started
        return snapshot(self._configuration.config, processes, self._tallies, uptime)


def _fixed(old: ServerConfig, new: ServerConfig) -> Iterator[str]:
    """What differs and cannot be changed while the server runs."""
    for name in ("store", "dns", "responder", "metrics", "log", "protocol"):
        if getattr(old, name) != getattr(new, name):
            yield name
    for name in ("listen", "workers", "backlog", "receive_buffer", "control"):
        if getattr(old.ims, name) != getattr(new.ims, name):
            yield f"ims.{name}"


def _metrics(table: MetricsTable, tallies: Sequence[Tallies]) -> Callable[[], None]:
    """Serve metrics; the function that stops it. Raises `ServerError`."""
    address, port = table.listen
    try:
        return serve_metrics(address, port, tallies)
    except OSError as error:
        where = f"[{format_address(address)}]:{port}"
        what = f"cannot serve metrics on {where} ({error.strerror})"
        mend = "set metrics.listen to an address of this host and a port that is free"
        raise ServerError(f"{what}; {mend}") from error


async def _responder(config: ServerConfig) -> Responder | None:
    """The embedded DNS server, serving. Raises `DnsError`."""
    if config.responder is None:
        return None
    responder = made_responder(config.responder)
    address, port = config.responder.listen
    try:
        await responder.start(format_address(address), port)
    except DnsError as error:
        raise DnsError(f"responder.listen: {error}") from error
    return responder


def made_responder(table: ResponderTable) -> Responder:
    """The embedded DNS server, not serving yet. Raises `DnsError`."""
    try:
        records = [(where, from_text(text)) for where, text in table.records.items()]
        responder = Responder(table.zones, records)
    except RecordError as error:
        raise DnsError(f"responder.records: {error}") from error
    except DnsError as error:
        what = f"responder.zones: {error}"
        raise DnsError(f"{what}; write them as 1.10.in-addr.arpa") from error
    return responder
