"""A wheel whose hot paths are compiled: the protocol core, and the simulator's engine.

Off by default: the plain wheel needs no compiler and runs anywhere. `make compiled` builds this
one, or HATCH_BUILD_HOOK_ENABLE_CUSTOM=true pip install . does, with mypyc, from the same files.
"""

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
