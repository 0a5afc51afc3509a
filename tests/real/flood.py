"""A flood of junk at a server: `python -m tests.real.flood PORT RATE`, until it is terminated.

It says "flooding" when it begins, and at the end how many datagrams it has sent.
Half of it is noise behind a type of a message; half are updates of a known form, whose MAC a
server has to compute. It sends RATE datagrams a second, or as many as it can.
"""

import random
import signal
import sys
import threading
import time

from mat.address import parse_address
from mat.messages import Endpoint
from mat_real.datagrams import BATCH, DatagramSocket, bind
from tests.real.ims_server import key, update_of

STOCK = 400_000
"""Different datagrams: more than a backlog holds, so that none takes another's place there."""


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


def main(port: int, rate: int) -> None:
    """Send, in bursts that keep to the rate."""
    flood = DatagramSocket(bind(parse_address("127.0.0.1"), 0))
    target = Endpoint(parse_address("127.0.0.1"), port)
    stock, sent, began = junk(), 0, time.monotonic()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    sys.stdout.write("flooding\n")
    sys.stdout.flush()
    while not stop.is_set():
        for datagram in stock[sent % STOCK : sent % STOCK + BATCH]:
            flood.send(target, datagram)
        flood.flush()
        sent += BATCH
        ahead = sent / rate - (time.monotonic() - began)
        if ahead > 0:
            time.sleep(ahead)
    sys.stdout.write(f"{sent}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
