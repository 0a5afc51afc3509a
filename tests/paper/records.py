"""A record as `mat paper` leaves it: floods and throughput as given, scenarios by the simulator.

In the lab's place are results of the simulator, too, of slower servers, with the share that is the
lab's own written beside them.
"""

from collections.abc import Sequence
from pathlib import Path

from mat_files.program import run_mat
from mat_files.results import Results
from mat_paper import crowd, handover, ladders
from mat_paper.calibration import address_times
from mat_paper.handover import of_variant, simulated
from mat_paper.played import LAB, SCENARIOS, SIMULATOR, simulate
from mat_paper.record import Ping, Record, Udp
from mat_paper.size import Size, load_size
from mat_paper.variants import VARIANTS, duration, events

SIZE = (
    "ping.count=10",
    "ping.rounds=3",
    "udp.rounds=2",
    "udp.loads=[100, 400]",
    "handover.cycles=2",
    "handover.runs=1",
    "crowd.nodes=[1, 3]",
)
MACHINE = {"processor": "a processor", "cores": "2", "kernel": "Linux 6.1", "iperf": "2.1.8"}
FLOODS = {
    "without": (0.010, 0.020, 0.015),
    "maps": (0.013, 0.021, 0.019),
    "queue": (0.110, 0.125, 0.120),
}
"""Means of three rounds, ms."""
SLOWER = ("ims.0.service=0.010", "ims.1.service=0.010")
"""What the lab's servers take: 9.95 ms more than the scenario's."""
ADDED = 0.00995


def size() -> Size:
    return load_size("short", SIZE)


def begun(directory: Path) -> Record:
    return Record.begin(directory, "short", size(), MACHINE)


def flood(record: Record, rounds: Sequence[int] = range(3)) -> None:
    for number in rounds:
        for way, means in FLOODS.items():
            mean = means[number] / 1000
            record.add(Ping(number, way, 10, 10 - number, mean / 2, mean, mean * 2))


def load(record: Record) -> None:
    """Of 400 Mbit/s a tenth is lost by MAT's fast path, and all but 90 by a queue."""
    for number in range(2):
        for way, most in (("without", 1e9), ("maps", 360e6), ("queue", 90e6)):
            for offered in (100e6, 400e6):
                arrived = min(offered, most) + 1e6 * number
                lost = round(1000 * (1 - min(offered, most) / offered)) + 2 * number
                record.add(Udp(number, way, offered, offered, arrived, lost, 1000))


def move(record: Record) -> None:
    place, cycles = record.directory / handover.FOLDER, record.size.handover.cycles
    place.mkdir()
    scenario = place / "handover.toml"
    scenario.write_bytes((SCENARIOS / "handover.toml").read_bytes())
    (place / "handover.csv").write_text(events(cycles))
    length = f"scenario.duration={duration(cycles)}"
    simulate(scenario, place / LAB, [length, *SLOWER])
    share(place / LAB)
    lab = Results.read(place / LAB)
    for variant in VARIANTS:
        calibrated = address_times(of_variant(lab, variant))
        simulate(scenario, simulated(place, variant), [length, *calibrated])


def crowds(record: Record) -> None:
    for nodes in record.size.crowd.nodes:
        place = crowd.folder(record.directory, nodes, 0)
        count = f"nodes.count={nodes}"
        simulate(SCENARIOS / "crowd.toml", place / LAB, [count, *SLOWER])
        share(place / LAB)
        simulate(SCENARIOS / "crowd.toml", place / SIMULATOR, [count])


def share(directory: Path) -> None:
    """Say that the server's time in an update is the lab's own."""
    handovers = Results.read(directory).handovers
    lines = [
        f"{node},{ordinal},{kind},register,{ADDED},0"
        for node, ordinal, kind in handovers[["node", "ordinal", "kind"]].to_numpy().tolist()
    ]
    head = "node,ordinal,kind,part,programs,links"
    (directory / "shares.csv").write_text("\n".join([head, *lines, ""]))


def capture(record: Record) -> None:
    place = record.directory / ladders.FOLDER
    place.mkdir()
    for source in ladders.SOURCES:
        pcapng = place / ladders.CAPTURE.format(place=source)
        run_mat(["sim", "run", str(SCENARIOS / "figures.toml"), f"--pcapng={pcapng}"])


PARTS = {"ping": flood, "udp": load, "ladders": capture, "handover": move, "crowd": crowds}


def whole(directory: Path, *parts: str, busy: float = 0.0) -> Record:
    """A record of these parts, by default of all, on a machine that others kept so busy."""
    record = begun(directory)
    for part in parts or PARTS:
        record.begin_part(part, busy)
        PARTS[part](record)
        record.end_part(part)
    return record
