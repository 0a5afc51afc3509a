"""One end of a stream of probes: `python probe.py --peer ADDRESS --interval 0.02 …`.

Sends a datagram every so often, and writes down what it sent and what came: lines `s NUMBER TIME`
and `r NUMBER SENT TIME`, times in seconds of CLOCK_MONOTONIC, which all processes of a machine
share. A packet that could not be sent counts as sent: an application has no other either. Without
`--peer` it sends to where it last heard from, and nothing until then. With `--start` it sends
nothing until so many seconds after SIGUSR1. Of the standard library alone, so that it starts in a
moment.
"""

import argparse
import os
import select
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Final, TextIO, final

READY: Final = "probing"
"""What it prints when it listens."""
PORT: Final = 49700
MOST: Final = 1000
"""Streams of a lab; each has a port of its own, from `PORT` on."""
HEADERS: Final = {4: 28, 6: 48}
"""Bytes of IP and UDP headers, by version."""
_MARK: Final = b"MATP"
_PROBE: Final = struct.Struct("!4sIq")  # mark, number, time of sending in ns
_FLUSH: Final = 0.2


def number_of(payload: bytes) -> int | None:
    """The number of a probe; None for a datagram that is none."""
    if len(payload) < _PROBE.size or payload[:4] != _MARK:
        return None
    number: int = _PROBE.unpack_from(payload)[1]
    return number


def sent_at(payload: bytes) -> float:
    """When the application sent a probe, s."""
    nanoseconds: int = _PROBE.unpack_from(payload)[2]
    return nanoseconds / 1e9


@final
class Probe:
    """One end of a stream; `interval` in seconds, 0 to send nothing, `size` with all headers."""

    begin: float | None
    """When the first is due; None while that is not known, s."""

    def __init__(
        self, opened: socket.socket, peer: tuple[str, int] | None, interval: float, size: int
    ) -> None:
        version = 6 if opened.family == socket.AF_INET6 else 4
        self._socket = opened
        self._peer = peer
        self._follow = peer is None
        self._interval = interval
        self._padding = bytes(max(0, size - HEADERS[version] - _PROBE.size))
        self._number = 0
        self.begin = time.monotonic()
        # A signal ends the waiting.
        self._woken, waker = os.pipe()
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker)

    def hold(self, start: float) -> None:
        """Send nothing until `start` seconds after SIGUSR1."""
        self.begin = None

        def release(_number: int, _frame: FrameType | None) -> None:
            self.begin = time.monotonic() + start

        signal.signal(signal.SIGUSR1, release)

    def run(self, log: TextIO) -> None:
        """Send and receive for as long as the process lives."""
        flushed = 0.0
        while True:
            due = self._due()
            now = time.monotonic()
            if now - flushed > _FLUSH:
                log.flush()
                flushed = now
            if due is not None and due <= now:
                self._send(log)
                continue
            wait = _FLUSH if due is None else min(_FLUSH, due - now)
            ready = select.select([self._socket.fileno(), self._woken], (), (), wait)[0]
            if self._woken in ready:
                os.read(self._woken, 1)
            if self._socket.fileno() in ready:
                self._receive(log)

    def _due(self) -> float | None:
        if self.begin is None or not self._interval:
            return None
        return self.begin + self._number * self._interval

    def _send(self, log: TextIO) -> None:
        number, self._number = self._number, self._number + 1
        if self._peer is None:
            return
        now = time.monotonic_ns()
        # No address or no route, while a host moves: the packet is lost as if on the way.
        with suppress(OSError):
            self._socket.sendto(_PROBE.pack(_MARK, number, now) + self._padding, self._peer)
        log.write(f"s {number} {now / 1e9:.6f}\n")

    def _receive(self, log: TextIO) -> None:
        try:
            data, source = self._socket.recvfrom(65536)
        except OSError:
            return
        now = time.monotonic()
        if number_of(data) is None:
            return
        if self._follow:
            self._peer = source[:2]
        _, number, sent = _PROBE.unpack_from(data)
        log.write(f"r {number} {sent / 1e9:.6f} {now:.6f}\n")


def main() -> None:
    """Probe until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--family", type=int, choices=(4, 6), default=4)
    parser.add_argument("--port", type=int, default=PORT, help="of both ends")
    parser.add_argument("--peer", help="address; without it, wherever probes come from")
    parser.add_argument("--interval", type=float, default=0.02, help="seconds; 0: only listen")
    parser.add_argument("--size", type=int, default=200, help="bytes, headers included")
    parser.add_argument("--start", type=float, help="seconds after SIGUSR1; default: at once")
    parser.add_argument("--log", type=Path, required=True)
    options = parser.parse_args()
    family = socket.AF_INET if options.family == 4 else socket.AF_INET6
    signal.signal(signal.SIGTERM, _end)
    with socket.socket(family, socket.SOCK_DGRAM) as opened, options.log.open("w") as log:
        opened.bind(("", options.port))
        peer = (options.peer, options.port) if options.peer else None
        probe = Probe(opened, peer, options.interval, options.size)
        if options.start is not None:
            probe.hold(options.start)
        sys.stdout.write(f"{READY}\n")
        sys.stdout.flush()
        probe.run(log)


def _end(_number: int, _frame: FrameType | None) -> None:
    # On the way out the log is closed, and so written.
    sys.exit()


if __name__ == "__main__":
    main()
