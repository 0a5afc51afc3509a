"""From a scenario straight to its animation, as the command and notebooks want it."""

from pathlib import Path

from mat_files.mobility import Mobility, mobility
from mat_files.scenario import Scenario
from mat_sim.animation._page import Animation
from mat_sim.animation._scene import Scene, check_nodes
from mat_sim.animation._staging import scene
from mat_sim.engine import simulate


def animate(
    scenario: str | Path | Scenario, *, begin: float = 0.0, end: float | None = None
) -> Animation:
    """Simulate a small scenario once and show it from `begin` to `end` (s; `None`: to its end).

    `scenario` is the name of one that comes with mat, a file, or a `Scenario`. Raises
    `ScenarioError` for what cannot be read or is too much to show.
    """
    chosen = scenario if isinstance(scenario, Scenario) else Scenario.load(scenario)
    moves = mobility(chosen)
    return Animation(simulated_scene(chosen, moves, begin, end))


def simulated_scene(
    scenario: Scenario, moves: Mobility, begin: float = 0.0, end: float | None = None
) -> Scene:
    """Run a scenario with its movement, unless it shows beforehand that it is too large."""
    check_nodes(len(moves.nodes), str(scenario.source.path or "scenario"))
    run = simulate(scenario, record=True)
    return scene(scenario, moves, run.recording, run.results.handovers, begin=begin, end=end)
