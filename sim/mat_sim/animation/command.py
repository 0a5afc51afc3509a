"""`mat sim animate`: a small scenario as an HTML file. Light to import."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mat_files.command_line import scenario_argument
from mat_files.errors import ScenarioError
from mat_files.library import find_scenario

if TYPE_CHECKING:
    from mat_sim.animation import Scene


@click.command("animate", short_help="Make an animation of a small scenario: one HTML file.")
@scenario_argument()
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    required=True,
    help="The file to write, such as first.html; one that is there is replaced.",
)
@click.option(
    "--from",
    "begin",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Simulated time at which the animation begins, s.",
)
@click.option("--until", "end", type=click.FloatRange(min=0), help="Time at which it ends, s.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed in place of the scenario's.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Another value for a field, such as nodes.count=20; may be given more than once.",
)
def animate(
    scenario: str,
    *,
    out: Path,
    begin: float,
    end: float | None,
    seed: int | None,
    overrides: tuple[str, ...],
) -> None:
    """Simulate SCENARIO and write an animation of its nodes, networks and messages.

    \b
    mat sim animate first --out first.html
    mat sim animate town --out town.html --set nodes.count=20
    mat sim animate town --out minute.html --from 60 --until 120

    The file needs nothing else: any browser opens it, without a network. In it, time slows down
    while messages of a handover are under way; keys and controls are named on the page.
    """
    try:
        _check_place(out)
        shown = _scene(scenario, overrides, seed, (begin, end))
        _write(shown, out)
    except ScenarioError as error:
        raise click.ClickException(str(error)) from error


def _check_place(out: Path) -> None:
    """Before the run: whether the directory is there."""
    if not out.parent.is_dir():
        what = f"{out}: there is no directory {out.parent}; make it, or name another"
        raise click.ClickException(what)


def _scene(
    name: str, overrides: tuple[str, ...], seed: int | None, span: tuple[float, float | None]
) -> "Scene":
    """Run the scenario, if there is something to show from begin to end."""
    from mat_files.scenario import load_scenario
    from mat_sim.animation._animate import simulated_scene, small_mobility

    scenario = load_scenario(find_scenario(name), overrides, seed=seed)
    moves = small_mobility(scenario)
    begin, end = span
    last = moves.end if end is None else min(end, moves.end)
    if begin >= last:
        what = f"--from is {begin:g}, but the animation ends at {last:g} s; give an earlier time"
        raise click.UsageError(what)
    return simulated_scene(scenario, moves, begin, last)


def _write(shown: "Scene", out: Path) -> None:
    from mat_sim.animation import Animation

    try:
        Animation(shown).write(out)
    except OSError as error:
        what = f"{out}: cannot be written ({error.strerror}); name a file that can be"
        raise click.ClickException(what) from error
    counts = f"mobile nodes: {len(shown.nodes)}, messages: {len(shown.messages)}"
    click.echo(f"Written to {out}; {counts}. {shown.note}".rstrip())
