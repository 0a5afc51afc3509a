"""`mat lab demo`: what somebody sees first."""

import subprocess
import sys

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
