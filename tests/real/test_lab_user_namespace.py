"""A lab of a user who is not root."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mat_real.lab import enter_user_namespace
from tests.real.key_files import ROOT
from tests.real.privilege import needs_root

NOBODY = 65534
# The interpreter may be in a folder that only root can enter: in a mount namespace of its own, the
# first such folder above it is replaced by one that leads to the interpreter alone.
REACHABLE = """
hidden=$1; shown=$2; hold=$3; shift 3
if [ -n "$hidden" ]; then
    mount --bind "$shown" "$hold"
    mount -t tmpfs -o mode=755 tmpfs "$hidden"
    mkdir -p "$shown"
    mount --bind "$hold" "$shown"
    umount "$hold"
fi
exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
"""
PROGRAM = """
import os, sys
from mat_files.distributions import Constant
from mat_real.lab import Lab, Quality, enter_user_namespace, simple_plan
enter_user_namespace()
assert os.geteuid() == 0
print(sys.argv[1:], open("/proc/self/uid_map").read().split())
with Lab(simple_plan({"A": Quality(Constant(0.003), rate=1e7)})) as lab:
    lab.attach("MN", "A")
    lab.configure("MN")
    recording = lab.capture("DNS", lab.folder / "dns.pcap", what="icmp")
    print(lab.run("MN", "ping", "-c1", "192.0.2.53"))
    print(recording.stop(), (lab.folder / "dns.pcap").stat().st_size > 200)
    lab.check()
print(os.listdir("/run/netns"), os.listdir("/run/mat-lab"))
"""


def hidden_above(path: Path) -> Path | None:
    """The uppermost folder above a path that others may not enter."""
    above = [*reversed(path.parents), path]
    return next((folder for folder in above if not folder.stat().st_mode & 0o001), None)


def as_nobody(hold: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program as a user who may do nothing."""
    shown = Path(sys.base_prefix)
    hidden = hidden_above(shown)
    folders = [ROOT, ROOT / "files", ROOT / "real"]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, folders)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/",
        "TMPDIR": "/tmp",
    }
    arguments = [str(hidden or ""), str(shown), str(hold), *command]
    return subprocess.run(
        ["unshare", "--mount", "sh", "-ec", REACHABLE, "sh", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd="/",
    )


@needs_root
def test_a_lab_stands_in_a_user_namespace_without_any_privilege(tmp_path: Path) -> None:
    tried = as_nobody(tmp_path, "unshare", "--user", "--map-root-user", "--net", "--mount", "true")
    if tried.returncode:
        pytest.skip(f"user namespaces are not allowed here: {tried.stderr.strip()}")
    if hidden_above(ROOT) is not None:
        pytest.skip(f"{ROOT} is in a folder that other users may not enter")
    done = as_nobody(tmp_path, sys.executable, "-c", PROGRAM, "an argument")
    assert done.returncode == 0, done.stderr
    assert f"['an argument'] ['0', '{NOBODY}', '1']" in done.stdout
    assert "1 received" in done.stdout
    assert "\n0 True\n" in done.stdout
    assert done.stdout.endswith("[] []\n")


@needs_root
def test_where_user_namespaces_are_forbidden_it_is_said(tmp_path: Path) -> None:
    program = "from mat_real.lab import enter_user_namespace; enter_user_namespace()"
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        forbidden = Path(folder) / "unshare"
        forbidden.write_text("#!/bin/sh\necho unshare failed: not today >&2; exit 1\n")
        forbidden.chmod(0o755)
        path = f"PATH={folder}:{os.environ['PATH']}"
        done = as_nobody(tmp_path, "env", path, sys.executable, "-c", program)
    said = "LabError: user namespaces are not allowed here (unshare failed: not today)"
    assert said in done.stderr


@needs_root
def test_root_stays_where_it_is() -> None:
    before = Path("/proc/self/ns/user").readlink()
    enter_user_namespace()
    assert Path("/proc/self/ns/user").readlink() == before
