"""A flood of junk at a server: `python -m tests.real.flood PORT CONTROL`, until it is terminated.

It is twice what the server reads, whatever else goes on on the machine: by the server's counters,
two datagrams are sent for each one that was read. Half of them are noise behind a type of a
message; half are updates of a known form, whose MAC a server has to compute.

It says "flooding" when it begins, and at the end how many datagrams it has sent.
"""

import random
import signal
import sys
import threading
import time
from pathlib import Path

from mat.address import parse_address
from mat.messages import Endpoint
from mat_real.datagrams import BATCH, DatagramSocket, bind
from tests.real.ims_server import ask, key, update_of

BACKLOG = 30_000
"""Datagrams that the flooded server lets wait: few, so that the flood need not last."""
STOCK = 3 * BACKLOG
"""Different datagrams: more than the backlog holds, so that none takes another's place there."""


def junk() -> list[bytes]:
    """The datagrams, no two with the same sequence."""
    chance = random.Random(1)
    # A key that the server knows, so that it has to look at the MAC.
    update = update_of(key(1, "10.1.0.1"), ["198.51.100.66"], time.time_ns()).wire
    assert update is not None
    made = list[bytes]()
    for number in range(STOCK // 2):
        sequence = (2 * number).to_bytes(4, "big")
        kind = chance.randrange(1, 9)
        noise = chance.randbytes(chance.randrange(16, 120))
        made.append(bytes((kind, 0, 0x80, chance.randrange(2, 20))) + sequence + noise)
        sequence = (2 * number + 1).to_bytes(4, "big")
        made.append(update[:4] + sequence + update[8:-16] + chance.randbytes(16))
    return made


def read(control: Path) -> int:
    """Datagrams that the server has read."""
    found = ask(control)
    received = sum(one["received"] for one in found["requests"].values())
    return int(received + found["malformed"] + found["repeated"])


def main(port: int, control: Path) -> None:
    """Fill the server's buffers, and go on with two datagrams for each that it reads."""
    flood = DatagramSocket(bind(parse_address("127.0.0.1"), 0))
    target = Endpoint(parse_address("127.0.0.1"), port)
    stock, sent, allowed, before = junk(), 0, STOCK, read(control)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    sys.stdout.write("flooding\n")
    sys.stdout.flush()
    while not stop.wait(0.02):
        while sent < allowed and not stop.is_set():
            for datagram in stock[sent % STOCK : sent % STOCK + BATCH]:
                flood.send(target, datagram)
            flood.flush()
            sent += BATCH
        allowed = STOCK + 2 * (read(control) - before)
    sys.stdout.write(f"{sent}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
