"""A crowd of N nodes in pairs hands over within ten seconds, with real machines and four IMS.

    python tests/bench/sim_scale.py [N …]          default: 10000 100000

Each size runs in a process of its own. Time is the processor's, per node, by phase: making the
movement, building, the pairs' acquaintance, the run itself, the tables. That is the engine as it is
installed; for the compiled one, first `make compiled`, then

    PYTHONPATH=build/compiled/site python -P tests/bench/sim_scale.py 1000000
"""

import itertools
import json
import resource
import subprocess
import sys
import time
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


def measure(nodes: int) -> dict[str, Any]:
    """One run, in this process."""
    from mat_sim.engine import _simulation

    changes: dict[str, object] = {
        "nodes.count": nodes,
        "nodes.home_prefix": "10.0.0.0/11",
        "network.0.pool": "10.128.0.0/11",
        "network.1.pool": "10.160.0.0/11",
    }
    scenario = Scenario.model_validate(_parsed()).changed(changes)
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
    marks.append(time.process_time())
    phases = [(end - begin) / nodes * 1e6 for begin, end in itertools.pairwise(marks)]
    handovers = run.results.handovers
    return {
        "nodes": nodes,
        "engine": "compiled" if _compiled() else "interpreted",
        "us": phases,
        "seconds": marks[-1] - marks[0],
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "events": run.happenings / nodes,
        "messages": float(run.results.messages["sent"].sum()) / nodes,
        "completed": int((handovers["outcome"] == "completed").sum()),
        "median": float(handovers["total"].median()),
    }


def _parsed() -> dict[str, Any]:
    import tomllib

    return tomllib.loads(SCENARIO)


def _compiled() -> bool:
    import mat.node

    return not (mat.node.__file__ or "").endswith(".py")


def main() -> None:
    """Measure each size in a process of its own, and print a line for it."""
    if sys.argv[1:2] == ["--one"]:
        sys.stdout.write(json.dumps(measure(int(sys.argv[2]))))
        return
    names = ("movement", "build", "acquaint", "run", "tables")
    head = "nodes      engine       " + " ".join(f"{name:>9}" for name in names)
    sys.stdout.write(head + "   total s     MB  events  messages  completed\n")
    for size in sys.argv[1:] or ["10000", "100000"]:
        command = [sys.executable, "-P", __file__, "--one", size]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found = json.loads(out)
        phases = " ".join(f"{value:9.1f}" for value in found["us"])
        sys.stdout.write(
            f"{found['nodes']:<10} {found['engine']:<12} {phases} {found['seconds']:9.1f}"
            f" {found['megabytes']:6.0f} {found['events']:7.1f} {found['messages']:9.1f}"
            f" {found['completed']:10}\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
