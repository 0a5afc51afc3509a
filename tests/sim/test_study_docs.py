"""docs/study.md is true of the code: what it imports is there, and its recipe is a result's."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner

from mat_sim.cli import sim
from mat_sim.study import simulate
from tests.sim.study_helpers import SHORT

TEXT = (Path(__file__).parents[2] / "docs" / "study.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS)
def test_what_an_example_imports_is_there(code: str) -> None:
    imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    for node in imports:
        if node.module and node.module.startswith("mat"):
            module = import_module(node.module)
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_there_are_examples() -> None:
    assert len(BLOCKS) >= 6


def test_the_options_that_are_named_are_those_of_the_commands() -> None:
    known = " ".join(CliRunner().invoke(sim, [name, "--help"]).output for name in ("run", "sweep"))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", TEXT)) - {"--set"}
    assert len(named) >= 5
    assert {option for option in named if option not in known} == set()


def test_the_recipe_that_is_shown_is_that_of_a_result() -> None:
    shown = re.search(r"```\n(Results of mat .*?)```", TEXT, re.DOTALL)
    assert shown is not None
    recipe = simulate("first", runs=10, processes=1).provenance.recipe
    changed = re.sub(r"mat \d+\.\d+\.\d+", "mat X", recipe.replace("run first", "run town"))
    assert re.sub(r"mat \d+\.\d+\.\d+", "mat X", shown[1]).rstrip() == changed
    assert simulate(SHORT).provenance.recipe != recipe
