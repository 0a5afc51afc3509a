"""One IMS Update at a time, beside one fsync: `python -m tests.bench.ims_latency`.

Both in a folder of the current directory, which has to be on a disk. Times are in milliseconds and
include the way of the datagrams to the server and back.
"""

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Final

from mat.codec import encode
from tests.real.ims_server import Client, key, running, update_of

COUNT: Final = 2000
FOLDER: Final = Path("build/bench-latency")


def fsyncs() -> list[float]:
    """Seconds of one write of a page and its fdatasync, each time."""
    descriptor, times = os.open(FOLDER / "page", os.O_CREAT | os.O_RDWR), list[float]()
    os.pwrite(descriptor, bytes(1 << 20), 0)
    os.fsync(descriptor)
    for turn in range(COUNT):
        begun = time.perf_counter()
        os.pwrite(descriptor, bytes(4096), turn % 256 * 4096)
        os.fdatasync(descriptor)
        times.append(time.perf_counter() - begun)
    os.close(descriptor)
    return times


def updates() -> list[float]:
    """Seconds from sending an IMS Update to its Reply, each time."""
    node, times = key(1, "10.1.0.1"), list[float]()
    with running(FOLDER, [node]) as server, Client(server.port) as client:
        for turn in range(COUNT + 200):
            freshness = time.time_ns() * (1 << 32) // 10**9
            moved = f"198.51.{turn >> 8}.{turn & 255}"
            wire = encode(update_of(node, [moved], freshness))
            begun = time.perf_counter()
            client.socket.sendto(wire, client.server)
            client.socket.recv(2048)
            times.append(time.perf_counter() - begun)
    return times[200:]


def main() -> None:
    """Measure both, and print medians, 99th percentiles and their ratio."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    for turn in range(3):
        found = {"update": sorted(updates()), "fsync": sorted(fsyncs())}
        ratio = found["update"][COUNT * 99 // 100] / found["fsync"][COUNT // 2]
        said = ", ".join(
            f"{name} median {times[COUNT // 2] * 1e3:.3f}, p99 {times[COUNT * 99 // 100] * 1e3:.3f}"
            for name, times in found.items()
        )
        sys.stdout.write(f"round {turn + 1}: {said}; p99 of the update = {ratio:.1f} fsyncs\n")
    shutil.rmtree(FOLDER)


if __name__ == "__main__":
    main()
