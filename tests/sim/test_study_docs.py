"""docs/study.md is true of the code: its options are there, and its recipe is a result's."""

import re
from pathlib import Path

from click.testing import CliRunner

from mat_sim.cli import sim
from mat_sim.study import simulate
from tests.sim.study_helpers import SHORT

TEXT = (Path(__file__).parents[2] / "docs" / "study.md").read_text(encoding="utf-8")


def test_the_options_that_are_named_are_those_of_the_commands() -> None:
    known = " ".join(CliRunner().invoke(sim, [name, "--help"]).output for name in ("run", "sweep"))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", TEXT)) - {"--set"}
    assert len(named) >= 5
    assert {option for option in named if option not in known} == set()


def test_the_recipe_that_is_shown_is_that_of_a_result() -> None:
    shown = re.search(r"```text\n(Results of mat .*?)```", TEXT, re.DOTALL)
    assert shown is not None
    recipe = simulate("first", runs=10, processes=1).provenance.recipe
    changed = re.sub(r"mat \d+\.\d+\.\d+", "mat X", recipe.replace("run first", "run town"))
    assert re.sub(r"mat \d+\.\d+\.\d+", "mat X", shown[1]).rstrip() == changed
    assert simulate(SHORT).provenance.recipe != recipe
