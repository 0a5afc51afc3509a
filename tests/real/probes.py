"""A stream of probes over UDP: `python -m tests.real.probes send|receive …`.

The sender sends numbered datagrams at a fixed pace for a fixed time; the receiver writes when each
came, a line each: number and seconds of CLOCK_MONOTONIC, which all namespaces of a host share.
"""

import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

PORT = 7007


def send(to: str, interval: float, seconds: float, source: str = "") -> None:
    """Send probes; a failure to send one is a probe lost."""
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        if source:
            one.bind((source, 0))
        begin = time.monotonic()
        for number in range(int(seconds / interval)):
            time.sleep(max(0.0, begin + number * interval - time.monotonic()))
            try:
                one.sendto(number.to_bytes(8), (to, PORT))
            except OSError:
                continue


def receive(at: str, seconds: float) -> None:
    """Write what comes to an address within a time."""
    family = socket.AF_INET6 if ":" in at else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        one.bind((at, PORT))
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            one.settimeout(left)
            try:
                data = one.recv(64)
            except TimeoutError:
                break
            sys.stdout.write(f"{int.from_bytes(data)} {time.monotonic():.6f}\n")
            sys.stdout.flush()


@dataclass(frozen=True)
class Stream:
    """What a receiver wrote: numbers and times of arrival."""

    numbers: list[int]
    times: list[float]

    @classmethod
    def read(cls, path: Path) -> "Stream":
        """From the receiver's output."""
        rows = [line.split() for line in path.read_text().splitlines()]
        return cls([int(row[0]) for row in rows], [float(row[1]) for row in rows])

    def longest_gap(self) -> float:
        """Longest time between two arrivals, s."""
        return max(b - a for a, b in zip(self.times, self.times[1:], strict=False))

    def lost(self) -> int:
        """Probes between the first and the last that came which did not.

        Those before the first may have been sent before there was a receiver.
        """
        return max(self.numbers) - min(self.numbers) + 1 - len(set(self.numbers))


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(sys.argv[2], float(sys.argv[3]), float(sys.argv[4]), *sys.argv[5:])
    else:
        receive(sys.argv[2], float(sys.argv[3]))
