"""The build of the compiled wheel: what it writes out is what `dataclasses` would have made."""

import ast
import importlib.util
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [*sorted((ROOT / "mat").glob("*.py")), ROOT / "sim/mat_sim/engine/_tally.py"]


@pytest.fixture(scope="module")
def build() -> ModuleType:
    pytest.importorskip("hatchling")
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def executed(name: str, source: str) -> ModuleType:
    """A module, interpreted; there, but not compiled, what is frozen would mind its constructor."""
    source = source.replace("frozen=True", "frozen=False")
    module = ModuleType(name)
    sys.modules[name] = module
    try:
        exec(compile(source, name, "exec"), module.__dict__)
    finally:
        del sys.modules[name]
    return module


def classes(module: ModuleType) -> dict[str, type]:
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__
    }


def without_factories(signature: str) -> str:
    """`dataclasses` shows a factory as the default; written out, it is None that asks for it."""
    return re.sub(r"( \| None)? = (<factory>|None)", " = …", signature)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_constructors_have_the_signatures_of_those_that_are_left_out(
    build: ModuleType, path: Path
) -> None:
    if path.stem == "parameters":
        pytest.skip("is not compiled")
    source = path.read_text(encoding="utf-8")
    written = build.with_constructors(source)
    ours, theirs = classes(executed("ours", written)), classes(executed("theirs", source))
    assert ours.keys() == theirs.keys()
    for name, made in ours.items():
        if "__dataclass_fields__" in vars(made):
            expected = str(inspect.signature(theirs[name])).replace("theirs.", "ours.")
            assert without_factories(str(inspect.signature(made))) == without_factories(expected)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_all_lines_keep_their_numbers(build: ModuleType, path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    written = build.with_constructors(source)
    lines = list(zip(source.splitlines(), written.splitlines(), strict=False))
    changed = [(old, new) for old, new in lines if old != new]
    assert all(not old or "dataclass(" in old for old, new in changed)
    assert len(written.splitlines()) - len(source.splitlines()) in (0, 1)
    made = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    assert len(changed) <= 2 * len(made)


def test_a_constructor_sets_what_it_is_given(build: ModuleType) -> None:
    path = ROOT / "mat/messages.py"
    ours = executed("ours", build.with_constructors(path.read_text(encoding="utf-8")))
    query = ours.MaQuery(7, bytes(16), nonce=b"12345678")
    assert (query.sequence, query.home_address, query.version) == (7, bytes(16), 0)
    assert (query.nonce, query.draft_length, query.wire) == (b"12345678", False, None)
    assert query == ours.MaQuery(7, bytes(16), 0, nonce=b"12345678", wire=b"not compared")
    assert repr(query).startswith("MaQuery(sequence=7")


def test_what_a_factory_makes_is_made_for_each(build: ModuleType) -> None:
    source = """from dataclasses import dataclass, field

@dataclass(slots=True)
class Box:
    name: str
    content: list[int] = field(default_factory=list[int])

"""
    made = executed("made", build.with_constructors(source))
    one, other = made.Box("one"), made.Box("other", [1])
    one.content.append(2)
    assert (one.content, other.content, made.Box("third").content) == ([2], [1], [])
