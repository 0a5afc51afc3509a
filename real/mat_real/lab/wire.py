"""A link with delay, loss, rate and queue in user space: `python wire.py A B …`.

Theory of operation. The process stands between two interfaces. It reads whole frames from each by
a packet socket (packet(7)), in batches; drops some; and gives each of the others a time at which it
is due at the other side, drawn anew for each: so frames overtake each other where the delay varies,
as in netem and in the simulator. Frames wait in a heap, and the process sleeps until the first is
due or another arrives.

With a rate, a frame first waits until those before it are sent, and then for its own length; so
many may wait, and more are dropped. That is known at once: each begins when the last one ends.
What arrives while the process sleeps counts as arriving together, so a queue of a few packets drops
more on a busy machine than it should.

Frames must be whole and have their checksums, so what feeds the interfaces
must not offload segmentation and checksums (`without_offloads`).

It is a script that imports nothing but the standard library and the distributions, so that it
starts in a moment.
"""

import argparse
import ctypes
import fcntl
import heapq
import select
import signal
import socket
import struct
import sys
import time
import tomllib
from collections import deque
from collections.abc import Iterable
from random import Random
from types import FrameType
from typing import Final, TypeAlias, final

from mat_files.distributions import Constant, Distribution
from mat_files.distributions import parse as parse_distribution

READY: Final = "carrying"
"""What it prints when frames pass."""
_EVERY_PROTOCOL: Final = 3  # ETH_P_ALL
_FRAME: Final = 65536
_BATCH: Final = 64
_BUFFER: Final = 32 << 20
"""Bytes that may wait in the kernel for this process."""
_PACKET_LEVEL: Final = 263  # SOL_PACKET
_FORCE_RECEIVE_BUFFER: Final = 33  # SO_RCVBUFFORCE
_FORCE_SEND_BUFFER: Final = 32  # SO_SNDBUFFORCE
_TIMER_SLACK: Final = 29  # PR_SET_TIMERSLACK
_STATISTICS: Final = 6  # PACKET_STATISTICS
_IGNORE_OUTGOING: Final = 23  # PACKET_IGNORE_OUTGOING

# ethtool(8), as ioctls (linux/ethtool.h): names, commands that set them.
_SIOCETHTOOL: Final = 0x8946
_OFFLOADS: Final = (0x17, 0x1F, 0x24)  # ETHTOOL_STXCSUM, _STSO, _SGSO

_ETHERNET: Final = 14
"""Bytes of a frame that do not count for the rate, which is that of IP packets."""

_Due: TypeAlias = tuple[float, int, socket.socket, bytes]


@final
class Bottleneck:
    """What one direction can carry: `rate` in bit/s, and so many frames that wait."""

    __slots__ = ("_ends", "_queue", "_rate")

    def __init__(self, rate: float, queue: int) -> None:
        self._rate = rate
        self._queue = queue
        self._ends: deque[float] = deque()

    def sent(self, now: float, size: int) -> float | None:
        """When a frame of so many bytes that arrives now is sent; None if it finds no room."""
        ends = self._ends
        while ends and ends[0] <= now:
            ends.popleft()
        if len(ends) > self._queue:
            return None
        begin = ends[-1] if ends else now
        ends.append(begin + (size - _ETHERNET) * 8 / self._rate)
        return ends[-1]


@final
class Wire:
    """Frames between two interfaces of this namespace, each late by a draw of `delay`, or lost."""

    __slots__ = (
        "_buffer",
        "_delay",
        "_due",
        "_ends",
        "_limits",
        "_loss",
        "_missed",
        "_number",
        "_random",
        "dropped",
        "late",
        "passed",
    )

    def __init__(
        self,
        ends: tuple[str, str],
        delay: Distribution,
        loss: float,
        *,
        rate: float | None = None,
        queue: int = 0,
    ) -> None:
        """`loss` is a probability, `rate` in bit/s, and `queue` counts frames."""
        self._ends = tuple(map(_opened, ends))
        self._limits = {
            end: Bottleneck(rate, queue) if rate is not None else None for end in self._ends
        }
        """Of what comes from an end."""
        self._delay = delay
        self._loss = loss
        self._random = Random()
        self._buffer = memoryview(bytearray(_FRAME))
        self._due: list[_Due] = []
        self._number = 0
        self.passed = 0
        self.dropped = 0
        self.late = 0.0
        """How much later than due a frame was sent at worst, s."""
        self._missed = 0

    def missed(self) -> int:
        """Frames lost because this process could not keep up."""
        size = 2 * struct.calcsize("I")
        for end in self._ends:
            # The kernel counts from the last time that it was asked.
            counted = end.getsockopt(_PACKET_LEVEL, _STATISTICS, size)
            self._missed += struct.unpack("II", counted)[1]
        return self._missed

    def carry(self) -> None:
        """Carry frames for as long as the process lives."""
        first, second = self._ends
        others = {first: second, second: first}
        while True:
            readable, _, _ = select.select(self._ends, (), (), self._patience())
            for end in readable:
                self._take(end, others[end])
            self._give()

    def _patience(self) -> float | None:
        return max(0.0, self._due[0][0] - time.monotonic()) if self._due else None

    def _take(self, end: socket.socket, other: socket.socket) -> None:
        """Read what has arrived at one end, a batch at most."""
        now = time.monotonic()
        random, loss, delay = self._random, self._loss, self._delay
        constant = delay.value if isinstance(delay, Constant) else None
        buffer, due, limit, sent = self._buffer, self._due, self._limits[end], now
        for _ in range(_BATCH):
            try:
                size = end.recv_into(buffer)
            except BlockingIOError:
                return
            except OSError as error:
                # ENETDOWN once, when the interface goes down; it may come back.
                _say(str(error.strerror))
                return
            if limit is not None:
                ended = limit.sent(now, size)
                if ended is None:
                    self.dropped += 1
                    continue
                sent = ended
            if loss and random.random() < loss:
                self.dropped += 1
                continue
            late = constant if constant is not None else delay.sample(random)
            self._number += 1
            heapq.heappush(due, (sent + late, self._number, other, bytes(buffer[:size])))

    def _give(self) -> None:
        """Send what is due."""
        due, now = self._due, time.monotonic()
        if due and now - due[0][0] > self.late:
            self.late = now - due[0][0]
        while due and due[0][0] <= now:
            _, _, end, frame = heapq.heappop(due)
            try:
                end.send(frame)
                self.passed += 1
            except OSError:
                # The other side is down or cannot keep up: as on a cable, the frame is lost.
                self.dropped += 1


def _opened(interface: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    opened.setsockopt(_PACKET_LEVEL, _IGNORE_OUTGOING, 1)
    for option, forced in (
        (socket.SO_RCVBUF, _FORCE_RECEIVE_BUFFER),
        (socket.SO_SNDBUF, _FORCE_SEND_BUFFER),
    ):
        try:
            opened.setsockopt(socket.SOL_SOCKET, forced, _BUFFER)
        except PermissionError:
            opened.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
    opened.bind((interface, _EVERY_PROTOCOL))
    return opened


def without_offloads(interfaces: Iterable[str]) -> None:
    """Let the kernel cut and checksum what it sends by these interfaces of this namespace itself.

    Raises `OSError`.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for interface in interfaces:
            for command in _OFFLOADS:
                value = ctypes.create_string_buffer(struct.pack("=II", command, 0))
                request = struct.pack("16sP8x", interface.encode(), ctypes.addressof(value))
                fcntl.ioctl(any_socket, _SIOCETHTOOL, request)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    """Carry frames until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("ends", nargs=2)
    parser.add_argument("--delay", required=True, help="as a scenario has it: delay = 0.01")
    parser.add_argument("--loss", type=float, default=0.0)
    parser.add_argument("--rate", type=float, help="bit/s, of IP packets")
    parser.add_argument("--queue", type=int, default=0, help="packets that wait for that")
    options = parser.parse_args()
    delay = parse_distribution(tomllib.loads(options.delay)["delay"])
    # Else the kernel wakes a sleeper up to 50 microseconds late.
    ctypes.CDLL(None).prctl(_TIMER_SLACK, 1, 0, 0, 0)
    first, second = options.ends
    ends = (first, second)
    wire = Wire(ends, delay, options.loss, rate=options.rate, queue=options.queue)

    def report(_number: int, _frame: FrameType | None) -> None:
        _say(f"{wire.passed} passed, {wire.dropped} dropped, {wire.missed()} missed")
        _say(f"at worst {wire.late * 1000:.3f} ms late")
        wire.late = 0.0

    def end(number: int, frame: FrameType | None) -> None:
        report(number, frame)
        sys.exit()

    signal.signal(signal.SIGUSR1, report)
    signal.signal(signal.SIGTERM, end)
    _say(READY)
    wire.carry()


if __name__ == "__main__":
    main()
