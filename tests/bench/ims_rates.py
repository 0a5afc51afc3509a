"""What one worker on one core answers, beside NSD and Redis: `python -m tests.bench.ims_rates`.

In turn, round after round: NSD (one process, 100,000 names, asked by dnsperf), Redis (GET, asked by
redis-benchmark), and `mat ims serve` (MA Query; then IMS Updates, durable and authenticated; then
HA Notify). The server has processor 0 to itself and who asks has processor 1. Each asks as fast as
it is answered, with so many requests under way as is usual for it. At the end stand medians and
their ratios; programs that are not installed are left out, and it says so.

The figures are in requests a second.
"""

import contextlib
import os
import random
import re
import select
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Final

from mat.address import Address, from_ipv4, parse_address
from mat.authentication import Key, sign
from mat.codec import encode
from mat.ims_record import IMS_RECORD_TYPE, record, reverse_name
from mat.messages import Endpoint, HaNotify, ImsUpdate, MaQuery
from mat_real.datagrams import DatagramSocket, bind
from tests.real.ims_server import free_port, started, wait_until, write_keys

NODES: Final = 100_000
ROUNDS: Final = 3
SECONDS: Final = 4.0
QUERIES_UNDER_WAY: Final = 512
UPDATES_UNDER_WAY: Final = 4096
SERVER_CPU, ASKER_CPU = 0, 1
FOLDER: Final = Path("build/bench-rates")


def home(number: int) -> Address:
    """The home address of a node."""
    return from_ipv4(bytes((10, *number.to_bytes(3, "big"))))


def key(number: int) -> Key:
    """Its key."""
    return Key(number + 1, b"a secret of 32 bytes %11d" % number, home(number))


# ---- asking an IMS -------------------------------------------------------------------------------


def rate(port: int, requests: Iterator[bytes], under_way: int) -> float:
    """Requests answered in a second, with so many under way, for `SECONDS` or to their end."""
    asker = DatagramSocket(bind(buffer=32 << 20))
    server = Endpoint(parse_address("127.0.0.1"), port)
    ready = select.poll()
    ready.register(asker.fileno(), select.POLLIN)
    sent = answered = 0
    begun = last = time.perf_counter()
    more = True
    while more or answered < sent:
        now = time.perf_counter()
        if now > begun + SECONDS or now > last + 1:
            break
        while more and sent - answered < under_way:
            for _ in range(64):
                request = next(requests, None)
                if request is None:
                    more = False
                    break
                asker.send(server, request)
                sent += 1
            asker.flush()
        ready.poll(50)
        while found := asker.receive():
            answered += len(found)
            last = time.perf_counter()
    asker.close()
    return answered / (last - begun)


def endless(requests: list[bytes]) -> Iterator[bytes]:
    """The requests over and over."""
    while True:
        yield from requests


def queries() -> list[bytes]:
    """An MA Query for each node, in random order."""
    order = random.Random(1).sample(range(NODES), NODES)
    return [encode(MaQuery(n, home(n), nonce=n.to_bytes(8, "big"))) for n in order]


def notices() -> list[bytes]:
    """An HA Notify of each node to another one of the same IMS."""
    order = random.Random(2).sample(range(NODES), NODES)
    return [
        encode(HaNotify(n, home(n), home(peer), nonce=n.to_bytes(8, "big")))
        for n, peer in enumerate(order)
    ]


def updates() -> list[bytes]:
    """A fresh IMS Update of each node, with a new mobile address."""
    made: list[bytes] = []
    freshness = time.time_ns() * (1 << 32) // 10**9
    for number in random.Random(3).sample(range(NODES), NODES):
        moved = from_ipv4(bytes((172, *random.Random(number ^ freshness).randbytes(3))))
        nonce = number.to_bytes(8, "big")
        update = ImsUpdate(number, home(number), (moved,), freshness, 600, nonce=nonce)
        sign(update, key(number), freshness)
        made.append(encode(update))
    return made


# ---- the others ----------------------------------------------------------------------------------


@contextlib.contextmanager
def running(command: list[str]) -> Generator[subprocess.Popen[bytes]]:
    """A server on its processor, for as long as the block lasts."""
    pinned = ["taskset", "--cpu-list", str(SERVER_CPU), *command]
    with subprocess.Popen(pinned, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def asked(command: list[str]) -> str:
    """What a benchmark program prints, run on the asker's processor."""
    pinned = ["taskset", "--cpu-list", str(ASKER_CPU), *command]
    return subprocess.run(pinned, capture_output=True, text=True, check=True).stdout


def nsd() -> float:
    """NSD with one process and as many names as there are nodes."""
    port, folder = free_port(), FOLDER.resolve()
    generic = record("192.0.2.1").to_generic_text()
    names = [reverse_name(home(number)) for number in range(NODES)]
    head = "$TTL 300\n10.in-addr.arpa. SOA ns. root. 1 3600 600 86400 60\n10.in-addr.arpa. NS ns.\n"
    lines = (f"{name} TYPE{IMS_RECORD_TYPE} {generic}\n" for name in names)
    (folder / "zone").write_text(head + "".join(lines))
    random.Random(1).shuffle(names)
    (folder / "names").write_text("".join(f"{n} TYPE{IMS_RECORD_TYPE}\n" for n in names))
    (folder / "nsd.conf").write_text(
        f"""server:
  server-count: 1
  ip-address: 127.0.0.1@{port}
  username: ""
  zonesdir: "{folder}"
  database: ""
  pidfile: "{folder}/nsd.pid"
  xfrdfile: "{folder}/xfrd"
  zonelistfile: "{folder}/zones"
  rrl-ratelimit: 0
remote-control:
  control-enable: no
zone:
  name: 10.in-addr.arpa
  zonefile: zone
"""
    )
    with running(["nsd", "-d", "-c", str(folder / "nsd.conf")]):
        time.sleep(3)
        out = asked(
            [
                "dnsperf",
                "-s",
                "127.0.0.1",
                "-p",
                str(port),
                "-d",
                str(folder / "names"),
                "-l",
                f"{SECONDS:g}",
                "-q",
                str(QUERIES_UNDER_WAY),
                "-c",
                "4",
                "-T",
                "1",
            ]
        )
    found = re.search(r"Queries per second:\s+([0-9.]+)", out)
    assert found is not None, out
    return float(found[1])


def redis_get() -> float:
    """Redis GET with 50 clients, nothing written to a disk."""
    port = free_port()
    with running(["redis-server", "--port", str(port), "--save", "", "--appendonly", "no"]):
        time.sleep(1)
        out = asked(
            [
                "redis-benchmark",
                "-p",
                str(port),
                "-t",
                "get",
                "-n",
                "400000",
                "-c",
                "50",
                "-r",
                str(NODES),
                "--csv",
            ]
        )
    return float(out.splitlines()[-1].split(",")[1].strip('"'))


# ---- all of it -----------------------------------------------------------------------------------


def ims() -> Generator[tuple[str, float]]:
    """The three rates of a new server."""
    folder = FOLDER / f"ims-{random.getrandbits(32):x}"
    folder.mkdir()
    write_keys(folder / "keys", map(key, range(NODES)))
    tables = {"ims": {"zones": '["10.0.0.0/8"]'}}
    pinned = ("taskset", "--cpu-list", str(SERVER_CPU))
    server = started(folder, tables=tables, wrapper=pinned)
    try:
        register = updates()
        rate(server.port, iter(register), 256)
        yield "MA Query", rate(server.port, endless(queries()), QUERIES_UNDER_WAY)
        yield "HA Notify", rate(server.port, endless(notices()), QUERIES_UNDER_WAY)
        twice = updates() + updates()
        yield "IMS Update", rate(server.port, iter(twice), UPDATES_UNDER_WAY)
    finally:
        server.stop()
        wait_until(lambda: server.process.poll() is not None)


def main() -> None:
    """Measure in turn, and print medians and ratios."""
    os.sched_setaffinity(0, {ASKER_CPU})
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    others: dict[str, tuple[tuple[str, ...], Callable[[], float]]] = {
        "NSD": (("nsd", "dnsperf"), nsd),
        "Redis GET": (("redis-server", "redis-benchmark"), redis_get),
    }
    found: dict[str, list[float]] = {}
    for turn in range(ROUNDS):
        for name, (programs, measure) in others.items():
            if absent := [program for program in programs if shutil.which(program) is None]:
                sys.stdout.write(f"{name}: left out, not installed: {', '.join(absent)}\n")
                continue
            found.setdefault(name, []).append(measure())
        for name, answered in ims():
            found.setdefault(name, []).append(answered)
        said = ", ".join(f"{name} {rates[-1]:,.0f}" for name, rates in found.items())
        sys.stdout.write(f"round {turn + 1}: {said}\n")
        sys.stdout.flush()
    medians = {name: statistics.median(rates) for name, rates in found.items()}
    for name, median in medians.items():
        ratios = ", ".join(
            f"{median / medians[other]:.2f} × {other}" for other in others if other in medians
        )
        sys.stdout.write(f"{name}: {median:,.0f}/s = {ratios}\n")
    shutil.rmtree(FOLDER)


if __name__ == "__main__":
    main()
