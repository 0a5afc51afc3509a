"""From a scenario straight to its animation, as the command and notebooks want it."""

from pathlib import Path

from mat_files.mobility import Mobility, mobility
from mat_files.scenario import Scenario
from mat_sim.animation._page import Animation
from mat_sim.animation._scene import Scene, check_nodes
from mat_sim.animation._staging import scene
from mat_sim.engine import simulate
from mat_sim.study import progress_bar


def animate(
    scenario: str | Path | Scenario,
    *,
    begin: float = 0.0,
    end: float | None = None,
    progress: bool | None = None,
) -> Animation:
    """Simulate a small scenario once and show it from `begin` to `end` (s; `None`: to its end).

    `scenario` is the name of one that comes with mat, a file, or a `Scenario`. `progress` shows a
    bar; by default on a terminal and in Jupyter. Raises `ScenarioError` for what cannot be read or
    is too much to show.
    """
    chosen = scenario if isinstance(scenario, Scenario) else Scenario.load(scenario)
    moves = small_mobility(chosen)
    return Animation(simulated_scene(chosen, moves, begin, end, progress=progress))


def small_mobility(scenario: Scenario) -> Mobility:
    """The movement of a scenario with few enough nodes, which is known before where it says so."""
    where = str(scenario.source.path or "scenario")
    if scenario.nodes.count != "trace":
        check_nodes(scenario.nodes.count, where)
    moves = mobility(scenario)
    check_nodes(len(moves.nodes), where)
    return moves


def simulated_scene(
    scenario: Scenario,
    moves: Mobility,
    begin: float = 0.0,
    end: float | None = None,
    *,
    progress: bool | None = None,
) -> Scene:
    """Run a scenario, whose movement is `small_mobility`, and show it from `begin` to `end`."""
    with progress_bar(f"simulating {scenario.scenario.name}", progress) as report:
        run = simulate(scenario, lambda now, last: report(now / last, 1), record=True)
    return scene(scenario, moves, run.recording, run.results.handovers, begin=begin, end=end)
