"""The notebooks run, say nothing that should not be said, and are kept without outputs.

Outputs are not committed: they would change with every change of the engine, and the figures with
every version of matplotlib. `make notebooks` makes them, and so does this test, in the small size.
"""

import ast
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
FIGURES = {"1": 2, "2": 3, "3": 5, "4": 5, "5": 3}
"""How many each notebook saves, by the number that its name begins with."""
IN_THE_LAB = {"5-the-paper"}
WAIT_SECONDS = 600
MOST_BYTES = 1_000_000

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def code_cells(path: Path) -> list[Any]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def test_there_is_a_notebook_for_each_question() -> None:
    assert [path.stem for path in NOTEBOOKS] == [
        "1-getting-started",
        "2-ims-scalability",
        "3-simultaneous-handover",
        "4-handover-latency",
        "5-the-paper",
    ]


@each_notebook
def test_a_notebook_runs_and_saves_its_figures(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path.stem in IN_THE_LAB and (os.geteuid() != 0 or shutil.which("iperf") is None):
        pytest.skip("it measures in network namespaces with iperf, which takes root and iperf")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    for scenario in FOLDER.glob("*.toml"):
        shutil.copy(scenario, tmp_path)
    notebook = read(path)
    place = {"metadata": {"path": str(tmp_path)}}
    client = NotebookClient(notebook, timeout=WAIT_SECONDS, kernel_name="python3", resources=place)
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert [output for output in outputs if output.output_type == "error"] == []
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    figures = sorted((tmp_path / "figures").iterdir())
    assert len(figures) == FIGURES[path.stem[0]]
    assert all(figure.name.startswith(path.stem[0] + "-") for figure in figures)
    assert all(figure.stat().st_size > 1000 for figure in figures)


@each_notebook
def test_a_notebook_is_kept_valid_and_without_outputs(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    cells = code_cells(path)
    assert [cell.id for cell in cells if cell.outputs or cell.execution_count is not None] == []
    assert path.read_text(encoding="utf-8") == nbformat.writes(notebook) + "\n"  # type: ignore[no-untyped-call]


@each_notebook
def test_cells_have_names_and_the_first_code_is_the_size(path: Path) -> None:
    first, *others = code_cells(path)
    assert first.id == "parameters"
    assert first.metadata.tags == ["parameters"]
    assert first.source.startswith('SCALE = "small"')
    names = [cell.id for cell in (first, *others)]
    assert len(set(names)) == len(names)


@each_notebook
def test_a_notebook_has_no_logic_of_its_own(path: Path) -> None:
    banned = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.While, ast.If, ast.Try)
    trees = [ast.parse(cell.source) for cell in code_cells(path)]
    found = [type(node).__name__ for tree in trees for node in ast.walk(tree)]
    assert [name for name in found if name in {each.__name__ for each in banned}] == []


def test_notebooks_are_small() -> None:
    files = [path for path in FOLDER.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES
