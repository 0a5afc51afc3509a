"""A download that goes on while its host is carried from network to network."""

import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from mat_files.distributions import Constant
from mat_real.control import ask
from mat_real.lab.errors import LabError
from mat_real.lab.lab import PROGRAMS, PROGRAMS_OF_NODES, Lab
from mat_real.lab.plan import Quality
from mat_real.lab.programs import require
from mat_real.lab.simple import simple_plan

RATE: Final = 100e6
"""Of each access network, bit/s."""
DELAY: Final = 0.005
"""One way, s."""
SIZE: Final = 200 << 20
"""Bytes to be downloaded: some 18 s at full rate."""
SAMPLE: Final = 0.5
"""Seconds between two looks at how far the download is."""
PATIENCE: Final = 20.0
"""Seconds for daemons to be registered, and for the download to go on."""
PORT: Final = 8080

Move = tuple[float, str, Callable[[], object]]
"""When, s after the download began; in words; how."""


def play(folder: Path, say: Callable[[str], None]) -> None:
    """Build the lab, download, move, compare; logs go to `folder`.

    Raises `LabError` if anything is not as it should.
    """
    require({"curl": "curl"} | PROGRAMS | PROGRAMS_OF_NODES)
    quality = Quality(Constant(DELAY), rate=RATE)
    plan = simple_plan(dict.fromkeys("ABC", quality), plain=())
    with TemporaryDirectory(prefix="mat-lab-") as files, Lab(plan, folder) as lab:
        say("networks A, B and C, two mapping servers, the DNS, MN and CN: as network namespaces")
        lab.start_servers()
        for node in ("MN", "CN"):
            lab.start_node(node)
        lab.attach("MN", "A")
        _wait(lambda: _registered(lab, "MN") and _registered(lab, "CN"), "a node is not registered")
        say(f"MN is in A, registered at {' '.join(_registered(lab, 'MN'))}; the download begins")
        _download(lab, Path(files), say)


def _download(lab: Lab, files: Path, say: Callable[[str], None]) -> None:
    source, copy = files / "www" / "file", files / "copy"
    source.parent.mkdir()
    with source.open("wb") as file:
        for _ in range(SIZE >> 20):
            file.write(os.urandom(1 << 20))
    serve = [sys.executable, "-u", "-m", "http.server", str(PORT), "--directory"]
    lab.start("CN", [*serve, str(source.parent)]).wait_for("Serving HTTP", PATIENCE)
    home = lab.plan.node("CN").home
    assert home is not None
    url = f"http://{home.ipv4}:{PORT}/file"
    program = lab.start("MN", ["curl", "-sS", "-o", str(copy), url])
    for line in _watch(lab, copy):
        say(line)
    if program.wait(PATIENCE) != 0:
        raise LabError(f"the download failed: {program.text().strip()}")
    sums = [hashlib.sha256(one.read_bytes()).hexdigest() for one in (source, copy)]
    if sums[0] != sums[1]:
        raise LabError(f"what arrived is not what was sent: sha256 {sums[1]}, not {sums[0]}")
    say(f"{SIZE >> 20} MiB over one connection, sha256 {sums[0][:16]}… at both ends: it matches")


def _watch(lab: Lab, copy: Path) -> Iterator[str]:
    """Carry MN about while the file grows; a line for each sample."""
    moves: list[Move] = [
        (4.0, "soft: B is up, then A goes", partial(_soft, lab, "A", "B")),
        (8.0, "hard: B goes, then C is up", partial(_hard, lab, "B", "C")),
        (12.0, "soft: A is up, then C goes", partial(_soft, lab, "C", "A")),
    ]
    begun = moved_on = time.monotonic()
    before = 0
    while before < SIZE:
        if moves and time.monotonic() - begun >= moves[0][0]:
            _, words, move = moves.pop(0)
            yield f"      {words}"
            move()
        time.sleep(SAMPLE)
        size = copy.stat().st_size if copy.exists() else 0
        rate = (size - before) * 8 / SAMPLE / 1e6
        at = "".join(sorted(lab.attached.values()))
        yield f"{time.monotonic() - begun:5.1f} s  in {at:2}  {rate:6.1f} Mbit/s  {_bar(rate)}"
        if size > before:
            moved_on = time.monotonic()
        elif time.monotonic() - moved_on > PATIENCE:
            raise LabError(f"the download has stood still for {PATIENCE:.0f} s, at {size} bytes")
        before = size


def _soft(lab: Lab, old: str, new: str) -> None:
    """Make before break: leave a network once MN is registered in both."""
    interface = next(number for (_, number), network in lab.attached.items() if network == old)
    lab.attach("MN", new, 1 - interface)
    _wait(lambda: len(_registered(lab, "MN")) > 1, "MN does not register its second address")
    lab.detach("MN", old)


def _hard(lab: Lab, old: str, new: str) -> None:
    """Break before make."""
    lab.detach("MN", old)
    lab.attach("MN", new)


def _registered(lab: Lab, node: str) -> list[str]:
    found: list[str] = ask(lab.control(node), "status")["homes"][0]["registered"]
    return found


def _wait(condition: Callable[[], object], otherwise: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise LabError(f"{otherwise} after {PATIENCE:.0f} s; the logs say why")
        time.sleep(0.05)


def _bar(rate: float) -> str:
    return "█" * round(40 * rate * 1e6 / RATE)
