"""A crowd of N nodes in pairs hands over within ten seconds, with real machines and four IMS.

    python tests/bench/sim_scale.py [N …]          default: 10000 100000

Each size runs in a process of its own. Time is the processor's, per node, by phase: making the
movement, building, the pairs' acquaintance, the run itself, the tables (and letting go of it all).
That is the engine as it is installed; for the compiled one, first `make compiled`, then

    PYTHONPATH=build/compiled/site python -P tests/bench/sim_scale.py 1000000

The work that network simulators are measured by, N nodes with three requests and replies to one
server each, is `--requests [N …]` (default: 30000), in nodes per second of the processor's time:

- "registering": each node has its machine, asks the DNS, and sends three IMS Updates, which are
  authentic and retransmitted if need be, in two minutes;
- "background": the nodes are the population of `[background]`, without machines and timers, which
  sends three MA Queries a node in half a minute.

In both the server is a real IMS with its workers and queue, and each message has its delays and its
loss. What network simulators do and this one does not: sockets, headers, routing hop by hop (the
path is two halves, each one draw), and queues of links.
"""

import itertools
import json
import resource
import subprocess
import sys
import time
import tomllib
from typing import Any

from mat_files.mobility import mobility
from mat_files.scenario import Scenario

SCENARIO = """format = 1

[scenario]
name = "scale"
duration = 15.0

[nodes]
interfaces = 1

[movement.crowd]
start = 1.0
window = 10.0

[[network]]
name = "A"
delay = {uniform = [0.004, 0.012]}

[[network]]
name = "B"
delay = {uniform = [0.004, 0.012]}

[correspondents]
count = 0

[[ims]]
name = "IMS"
count = 4
service = {exponential = 0.00002}
workers = 8
queue = 100000

[traffic]
pairs = "mobile"
up = 0.0
down = 0.0
established = true
"""


SPACE: dict[str, object] = {
    "nodes.home_prefix": "10.0.0.0/11",
    "network.0.pool": "10.128.0.0/11",
    "network.1.pool": "10.160.0.0/11",
}
REQUESTS: dict[str, dict[str, object]] = {
    "registering": {
        "ims.0.count": 1,
        "movement.crowd.start": 1000.0,
        "scenario.duration": 119.0,
        "traffic.established": False,
        "traffic.pairs": "none",
    },
    "background": {
        "background.query": 0.1,
        "ims.0.count": 1,
        "nodes.count": 2,
        "scenario.duration": 30.0,
    },
}
"""What differs from the crowd where each node makes three requests; nobody moves."""
SIZE = {"registering": "nodes.count", "background": "background.nodes"}


def scenario_of(changes: dict[str, object]) -> Scenario:
    """The crowd, changed."""
    return Scenario.model_validate(tomllib.loads(SCENARIO)).changed({**SPACE, **changes})


def measure(nodes: int) -> dict[str, Any]:
    """One run of the crowd, in this process."""
    from mat_sim.engine import _simulation

    scenario = scenario_of({"nodes.count": nodes})
    marks = [time.process_time()]
    with _simulation._without_collector():
        moves = mobility(scenario)
        marks.append(time.process_time())
        world = _simulation._World(scenario, moves, 0, record=False)
        marks.append(time.process_time())
        for until in (1.0, moves.end):
            world.clock.run(until)
            marks.append(time.process_time())
        run = world.finished()
        del world
    marks.append(time.process_time())
    phases = [(end - begin) / nodes * 1e6 for begin, end in itertools.pairwise(marks)]
    handovers = run.results.handovers
    return {
        "nodes": nodes,
        "engine": _engine(),
        "us": phases,
        "seconds": marks[-1] - marks[0],
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "events": run.happenings / nodes,
        "messages": float(run.results.messages["sent"].sum()) / nodes,
        "completed": int((handovers["outcome"] == "completed").sum()),
        "median": float(handovers["total"].median()),
    }


def measure_requests(kind: str, nodes: int) -> dict[str, Any]:
    """One run of requests, in this process."""
    from mat_sim.engine import simulate

    scenario = scenario_of({**REQUESTS[kind], SIZE[kind]: nodes})
    begin = time.process_time()
    run = simulate(scenario)
    seconds = time.process_time() - begin
    return {
        "nodes": nodes,
        "engine": _engine(),
        "seconds": seconds,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "events": run.happenings / nodes,
        "messages": float(run.results.messages["sent"].sum()) / nodes,
    }


def _engine() -> str:
    import mat.node

    return "interpreted" if (mat.node.__file__ or "").endswith(".py") else "compiled"


def _in_a_process(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-P", __file__, "--one", *arguments]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(out)
    return found


def _print_crowd(sizes: list[str]) -> None:
    names = ("movement", "build", "acquaint", "run", "tables")
    head = "nodes      engine       " + " ".join(f"{name:>9}" for name in names)
    sys.stdout.write(head + "   total s     MB  events  messages  completed\n")
    for size in sizes or ["10000", "100000"]:
        found = _in_a_process(size)
        phases = " ".join(f"{value:9.1f}" for value in found["us"])
        sys.stdout.write(
            f"{found['nodes']:<10} {found['engine']:<12} {phases} {found['seconds']:9.1f}"
            f" {found['megabytes']:6.0f} {found['events']:7.1f} {found['messages']:9.1f}"
            f" {found['completed']:10}\n"
        )
        sys.stdout.flush()


def _print_requests(sizes: list[str]) -> None:
    sys.stdout.write(
        "nodes      engine       requests      total s   nodes/s     MB  events  messages\n"
    )
    for size in sizes or ["30000"]:
        for kind in REQUESTS:
            found = _in_a_process(size, kind)
            sys.stdout.write(
                f"{found['nodes']:<10} {found['engine']:<12} {kind:<12} {found['seconds']:8.1f}"
                f" {found['nodes'] / found['seconds']:9.0f} {found['megabytes']:6.0f}"
                f" {found['events']:7.1f} {found['messages']:9.1f}\n"
            )


def main() -> None:
    """Measure each size in a process of its own, and print a line for it."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["--one"]:
        size, *kinds = arguments[1:]
        found = measure_requests(kinds[0], int(size)) if kinds else measure(int(size))
        sys.stdout.write(json.dumps(found))
    elif arguments[:1] == ["--requests"]:
        _print_requests(arguments[1:])
    else:
        _print_crowd(arguments)


if __name__ == "__main__":
    main()
