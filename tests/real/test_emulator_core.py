"""MAT as services of CORE, as in docs/emulators.md, where CORE is installed as it says itself."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.real.emulators import EMULATORS, SANDBOX, mat_program, survived
from tests.real.privilege import needs_root

CORE_PYTHON = os.environ.get("CORE_PYTHON", "/opt/core/venv/bin/python")
"""The Python with CORE's modules, where its installer puts it."""
pytestmark = [
    needs_root,
    pytest.mark.skipif(
        not (shutil.which("vnoded") and Path(CORE_PYTHON).exists()),
        reason=f"CORE is not installed: no vnoded, or no {CORE_PYTHON} (CORE_PYTHON)",
    ),
]
CORE = EMULATORS / "core"


def run(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program in CORE's Python; its sessions are in a folder of their own."""
    mat = mat_program(folder / "program/mat")
    given = {"MAT": str(mat), "TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [*SANDBOX, CORE_PYTHON, *command],
        check=False,
        env=os.environ | given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
    )


def test_the_example_moves_a_node_under_tcp_connections_that_go_on(tmp_path: Path) -> None:
    done = run(tmp_path, CORE / "handover.py")
    assert done.returncode == 0, done.stdout
    assert survived(done.stdout)
    assert not list(tmp_path.glob("pycore.*"))


SESSION = """
import sys
from core.emulator.coreemu import CoreEmu
from core.emulator.enumerations import EventTypes
from core.nodes.base import CoreNode

coreemu = CoreEmu({"custom_services_dir": sys.argv[1]})
print(coreemu.service_errors, *sorted(s for s in coreemu.service_manager.services if "MAT" in s))
session = coreemu.create_session()
session.set_state(EventTypes.CONFIGURATION_STATE)
options = CoreNode.create_options()
options.services = ["MAT"]
node = session.add_node(CoreNode, _id=258, name="n1", options=options)
for field in sys.argv[2:]:
    node.set_service_config("MAT", dict([field.split("=")]))
print(node.services["MAT"].home(), *session.instantiate())
coreemu.delete_session(session.id)
"""


def test_core_loads_the_services_and_starts_them_without_any_configuration(
    tmp_path: Path,
) -> None:
    services = CORE / "mat_services"
    done = run(tmp_path, "-c", SESSION, services)
    assert done.stdout.splitlines() == ["[] MAT MAT-DNS MAT-IMS", "10.1.1.2"]


def test_a_daemon_that_ends_at_once_is_an_error_of_the_session_with_its_words(
    tmp_path: Path,
) -> None:
    done = run(tmp_path, "-c", SESSION, CORE / "mat_services", f"key={tmp_path}/none.key")
    assert f"{tmp_path}/none.key: does not exist" in done.stdout, done.stdout


def test_where_there_is_no_mat_the_error_says_how_to_name_it(tmp_path: Path) -> None:
    shutil.copytree(CORE / "mat_services", tmp_path / "custom")
    done = run(tmp_path, "-c", SESSION, tmp_path / "custom", "mat=/nowhere/mat")
    assert "there is no program /nowhere/mat: `make real`" in done.stdout, done.stdout
