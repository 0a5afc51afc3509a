"""`mat lab demo`: what somebody sees first."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.real.ims_server import MAIN
from tests.real.privilege import needs_root


@needs_root
def test_the_demo_moves_a_download_and_its_checksum_matches() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "lab", "demo"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("soft: ") == 2
    assert done.stdout.count("hard: ") == 1
    assert "at both ends: it matches" in done.stdout


@needs_root
def test_programs_that_are_missing_are_named_with_their_packages(tmp_path: Path) -> None:
    for name in ("ip", "tc", "nsenter"):
        (tmp_path / name).symlink_to(shutil.which(name) or name)
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "lab", "demo"],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 1
    assert "not on the path: curl; mend it with: sudo apt install curl" in done.stderr
