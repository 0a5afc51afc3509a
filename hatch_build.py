"""A wheel whose hot paths are compiled: the protocol core, and the simulator's engine.

Off by default: the plain wheel needs no compiler and runs anywhere. `make compiled` builds this
one, or HATCH_BUILD_HOOK_ENABLE_CUSTOM=true pip install . does, with mypyc, from the same files.

Only the constructors of dataclasses are written out for it: mypyc leaves them to `dataclasses`,
which makes them as the program runs, to be interpreted; that took a fifth of a simulation. What is
written out can be neither copied nor pickled: in the core and the engine nothing is.
"""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_FOLDERS: Final = ("mat", "sim/mat_sim/engine")
"""Folders whose modules are compiled."""
_SINGLE: Final = ("sim/mat_sim/baselines/_alarms.py",)
"""Others, that have compiled classes for parents."""
_INTERPRETED: Final = {
    "mat/parameters.py",  # its dataclass has fields made by a function, whose types mypyc mistakes
    "sim/mat_sim/engine/_simulation.py",  # runs once; pandas
    "sim/mat_sim/engine/_frames.py",  # pandas
    "sim/mat_sim/engine/_timetable.py",  # numpy
}
_SETUP: Final = """
from mypyc.build import mypycify
from setuptools import setup

options = ["--config-file=/dev/null", "--explicit-package-bases", "--ignore-missing-imports",
           "--follow-imports=silent"]
setup(name="compiled", packages=[], ext_modules=mypycify([*options, *{modules!r}], opt_level="3"))
"""


def with_constructors(source: str) -> str:
    """A module with the constructors of its dataclasses written out, each into a blank line.

    So all lines keep their numbers. Fields may be inherited from dataclasses of the same module.
    """
    lines = [*source.splitlines(), ""]
    fields: dict[str, list[ast.AnnAssign]] = {}
    for made in ast.parse(source).body:
        if not isinstance(made, ast.ClassDef) or (decorator := _dataclass(made)) is None:
            continue
        inherited = [one for base in made.bases for one in fields[ast.unparse(base)]]
        own = [node for node in made.body if isinstance(node, ast.AnnAssign)]
        fields[made.name] = [*inherited, *own]
        checks = any(getattr(node, "name", "") == "__post_init__" for node in made.body)
        assert made.end_lineno is not None
        assert not lines[made.end_lineno]
        lines[made.end_lineno] = _constructor(fields[made.name], checks=checks)
        at = decorator.lineno - 1
        lines[at] = lines[at].replace("dataclass(", "dataclass(init=False, ")
    return "\n".join(lines)


def _dataclass(made: ast.ClassDef) -> ast.expr | None:
    """The decorator that makes a class a dataclass, if it is one."""
    found = (one for one in made.decorator_list if ast.unparse(one).startswith("dataclass("))
    return next(found, None)


def _constructor(fields: list[ast.AnnAssign], *, checks: bool) -> str:
    """One line, at the place of a method; `checks` if `__post_init__` is to be called."""
    placed, named, steps = list[str](), list[str](), list[str]()
    for field in fields:
        name, options = ast.unparse(field.target), _options(field)
        parameter, value = f"{name}: {ast.unparse(field.annotation)}", name
        if "default" in options:
            parameter += f" = {options['default']}"
        elif "default_factory" in options:
            parameter += " | None = None"
            value = f"{name} if {name} is not None else {options['default_factory']}()"
        (named if options.get("kw_only") == "True" else placed).append(parameter)
        steps.append(f"self.{name} = {value}")
    parameters = ", ".join(["self", *placed, *(["*", *named] if named else [])])
    steps += ["self.__post_init__()"] * checks
    body = "; ".join(steps or ["pass"])
    # A frozen class may set its own attributes; mypy does not know that, as it is not asked to.
    return f"    def __init__({parameters}) -> None: {body}  # type: ignore"


def _options(field: ast.AnnAssign) -> dict[str, str]:
    """What a field is given, as the keywords of `dataclasses.field`."""
    given = field.value
    if isinstance(given, ast.Call) and ast.unparse(given.func) == "field":
        return {str(word.arg): ast.unparse(word.value) for word in given.keywords}
    return {"default": ast.unparse(given)} if given is not None else {}


class CompiledWheel(BuildHookInterface[Any]):
    """Compiles modules and puts the results beside their sources."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; an editable installation stays as it is, for its sources change."""
        if version == "editable":
            return
        root = Path(self.root)
        work = root / "build" / "compiling"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        modules = [path for path in self._modules(root) if path not in _INTERPRETED]
        (work / "setup.py").write_text(_SETUP.format(modules=modules), encoding="utf-8")
        for source in ("mat", "files/mat_files", "sim/mat_sim"):
            shutil.copytree(root / source, work / source)
        for file in (work / module for module in modules):
            file.write_text(with_constructors(file.read_text(encoding="utf-8")), encoding="utf-8")
        path = os.pathsep.join(str(work / part) for part in (".", "files", "sim"))
        command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", "lib"]
        # In a folder of its own: setuptools would read the project's pyproject.toml otherwise.
        subprocess.run(command, cwd=work, env=os.environ | {"MYPYPATH": path}, check=True)  # noqa: S603
        made = sorted((work / "lib").rglob("*.so"))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"] |= {
            str(file): str(file.relative_to(work / "lib")) for file in made
        }

    @staticmethod
    def _modules(root: Path) -> list[str]:
        found = [file for folder in _FOLDERS for file in sorted((root / folder).glob("*.py"))]
        named = [str(file.relative_to(root)) for file in found if file.name != "__init__.py"]
        return [*named, *_SINGLE]
