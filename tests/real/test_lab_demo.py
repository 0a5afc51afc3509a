"""`mat lab demo`: what somebody sees first; docs/tutorial.md ends with it."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from mat_real.namespaces import NAMED
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
    for name in ("ip", "tc", "nsenter", "ping", "dnsmasq"):
        (tmp_path / name).symlink_to(shutil.which(name) or name)
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "lab", "demo"],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 1
    mend = "not on the path: curl nft; mend it with: sudo apt install curl nftables"
    assert mend in done.stderr


@needs_root
def test_the_logs_of_a_demo_that_fails_are_kept_and_named(tmp_path: Path) -> None:
    programs, logs = tmp_path / "bin", tmp_path / "tmp"
    programs.mkdir()
    logs.mkdir()
    broken = programs / "dnsmasq"
    broken.write_text("#!/bin/sh\necho not today; exit 3\n")
    broken.chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "lab", "demo"],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path, "TMPDIR": str(logs)},
        check=False,
    )
    assert done.returncode == 1
    assert "ended with 3" in done.stderr
    (kept,) = logs.iterdir()
    assert f"the logs are in {kept}" in done.stderr
    assert "not today" in (kept / "A" / "dnsmasq.log").read_text()


@needs_root
def test_ctrl_c_ends_a_demo_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-c", MAIN, "lab", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A terminal that cannot show everything.
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONIOENCODING": "latin-1"},
    )
    try:
        assert demo.stdout is not None
        shown = next(line for line in demo.stdout if "Mbit/s  #" in line)
        assert len(shown) <= 80
        demo.send_signal(signal.SIGINT)
        said, _ = demo.communicate(timeout=60)
    finally:
        demo.kill()
        demo.wait()
    assert demo.returncode == 130
    assert said.splitlines()[-1] == "Interrupted."
    assert not list(tmp_path.iterdir())
    assert not list(NAMED.glob(f"mat-lab-{demo.pid}-*"))
