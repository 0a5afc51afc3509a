"""What is built and shipped, and what the core may lean on."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("mat", "mat_cli", "mat_files", "mat_paper", "mat_real", "mat_sim")


def test_the_core_needs_the_standard_library_only() -> None:
    """Every module of mat/ is imported by a Python that sees no installed package."""
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "mat").rglob("*.py")
    ]
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        f"import importlib; [importlib.import_module(name) for name in {names}]"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True)


@pytest.mark.parametrize("lock", ["run", "dev", "fuzz"])
def test_a_lock_has_a_hash_for_every_pin_and_no_address(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    pins = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert pins
    assert all("==" in pin and pin.endswith("\\") for pin in pins)
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text


def test_the_wheel_has_the_packages_their_types_the_scenarios_and_the_adapters(
    tmp_path: Path,
) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("mat_mobility-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        shipped = set(archive.namelist())
    assert {f"{name}/py.typed" for name in PACKAGES} <= shipped
    assert {name.split("/")[0] for name in shipped if ".dist-info/" not in name} == set(PACKAGES)
    scenarios = ROOT / "sim" / "scenarios"
    files = [path.relative_to(scenarios) for path in scenarios.rglob("*") if path.is_file()]
    assert {f"mat_files/scenarios/{path.as_posix()}" for path in files} <= shipped
    assert {
        "mat_real/emulators/mininet/mat_mininet.py",
        "mat_real/emulators/core/mat_services/mat.py",
        "mat_real/emulators/meshnet-lab/mat_start.sh",
        "mat_paper/sizes/full.toml",
        "mat_paper/scenarios/handover.toml",
    } <= shipped
