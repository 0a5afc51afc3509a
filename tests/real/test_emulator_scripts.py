"""The examples in shell, as in docs/emulators.md: plain namespaces, meshnet-lab, munet."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from mat_real.namespaces import NodeRef, namespaces
from tests.real.emulators import EMULATORS, NAMES, SANDBOX, mat_program, needs, survived
from tests.real.privilege import needs_root

pytestmark = [needs_root, needs("ip", "nsenter", "unshare", "iperf3", "ping", "ss")]
LIMIT = 180


def environment(folder: Path, **more: str) -> dict[str, str]:
    """The logs of a script that fails are in `folder`, and printed."""
    return (
        os.environ | {"MAT": str(mat_program(folder / "program/mat")), "TMPDIR": str(folder)} | more
    )


def run(folder: Path, *command: str | Path, **more: str) -> str:
    done = subprocess.run(
        command,
        check=False,
        env=environment(folder, **more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
    )
    logs = [f"{path}:\n{path.read_text()}" for path in folder.glob("mat-example-*/*.log")]
    assert done.returncode == 0, "\n".join([done.stdout, *logs])
    return done.stdout


LEFT = """
echo LEFT OVER
ip netns list
for process in /proc/[0-9]*; do tr '\\0' ' ' < $process/cmdline; echo; done
"""


def nothing_is_left(said: str) -> bool:
    """Whether a script has taken away its namespaces, and ended its daemons."""
    left = said.split("LEFT OVER")[1]
    return not re.search(r"^mat\d+-|mat_cli|sleep infinity|iperf3", left, re.MULTILINE)


@pytest.mark.parametrize("kind", ["netns", "unshare"])
def test_a_host_of_plain_namespaces_moves_and_nothing_is_left_of_it(
    tmp_path: Path, kind: str
) -> None:
    script = EMULATORS / f"namespaces/{kind}.sh"
    shell = f"{script} || exit\n{LEFT}"
    said = run(tmp_path, *SANDBOX, *NAMES, "sh", "-c", shell)
    assert survived(said)
    assert nothing_is_left(said)
    assert not list(tmp_path.glob("mat-example-*"))


def test_a_script_that_is_ended_in_between_leaves_nothing_but_its_logs(tmp_path: Path) -> None:
    shell = f"""
{EMULATORS}/namespaces/netns.sh &
until ls "$TMPDIR"/mat-example-*/mn.sock; do sleep 0.2; done
kill $!
wait $!
echo code $?
{LEFT}
"""
    said = run(tmp_path, *SANDBOX, *NAMES, "sh", "-c", shell)
    assert "code 143" in said
    assert nothing_is_left(said)
    assert list(tmp_path.glob("mat-example-*/mn.log"))


@pytest.fixture
def node() -> Generator[NodeRef]:
    """A namespace with a name as meshnet-lab has them."""
    with namespaces(f"ns-mat{os.getpid()}") as (made,):
        try:
            yield made
        finally:
            listing = ["ip", "netns", "pids", made.path.name]
            for pid in subprocess.check_output(listing, text=True).split():
                os.kill(int(pid), signal.SIGKILL)


def meshnet(folder: Path, node: NodeRef | None, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script of a protocol as meshnet-lab's software.py does."""
    path = EMULATORS / f"meshnet-lab/mat_{script}.sh"
    command = f"sh -s local < {path}"
    if node:
        name = node.path.name
        command = f"ip netns exec {name} sh -s local {name.removeprefix('ns-')} < {path}"
    return subprocess.run(
        ["sh", "-c", command],
        check=False,
        env=environment(folder, MAT_FOLDER=str(folder)),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


def test_meshnet_labs_scripts_start_and_stop_a_server_in_a_node(
    tmp_path: Path, node: NodeRef
) -> None:
    name = node.path.name.removeprefix("ns-")
    (tmp_path / "keys").touch(mode=0o600)
    (tmp_path / f"{name}.ims.toml").write_text(
        'ims.zones = ["10.1.0.0/16"]\nims.keys = "keys"\nstore.kind = "memory"\n'
    )
    (tmp_path / f"{name}.sh").write_text("ip address add 192.0.2.1/24 dev lo\n")
    for end in (node, None):
        started = meshnet(tmp_path, node, "start")
        assert started.returncode == 0, started.stderr
        assert started.stdout == f"start mat on local in {name}\n"
        process = Path("/proc", (tmp_path / f"{name}.pid").read_text().strip())
        assert process.joinpath("ns/net").samefile(node.path)
        assert "192.0.2.1" in node.run("ip", "address", "show", "dev", "lo")
        again = meshnet(tmp_path, node, "start").stdout
        assert again == f"mat already runs on local in {name}\n"
        assert meshnet(tmp_path, end, "stop").returncode == 0
        assert not process.exists()
        assert not (tmp_path / f"{name}.pid").exists()


def test_meshnet_labs_scripts_leave_other_nodes_alone_and_say_what_is_wrong(
    tmp_path: Path, node: NodeRef
) -> None:
    name = node.path.name.removeprefix("ns-")
    nothing = meshnet(tmp_path, node, "start")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    (tmp_path / f"{name}.toml").write_text('node.key = "none.key"\n')
    wrong = meshnet(tmp_path, node, "start")
    assert wrong.returncode == 1
    assert f"{tmp_path}/none.key: does not exist" in wrong.stderr
    # A number that is another program's by now: that is left alone.
    other = subprocess.Popen(["sleep", "600"])
    try:
        (tmp_path / f"{name}.pid").write_text(f"{other.pid}\n")
        meshnet(tmp_path, node, "stop")
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


@pytest.mark.skipif("MESHNET_LAB" not in os.environ, reason="MESHNET_LAB names no meshnet-lab")
def test_the_example_of_meshnet_lab_moves_a_node(tmp_path: Path) -> None:
    lab = shutil.copytree(os.environ["MESHNET_LAB"], tmp_path / "lab")
    # It sets what only the machine's own network has.
    sysctl = tmp_path / "program/sysctl"
    sysctl.parent.mkdir()
    sysctl.write_text(f'#!/bin/sh\nexec {shutil.which("sysctl")} -e "$@"\n')
    sysctl.chmod(0o755)
    path = f"{sysctl.parent}:{os.environ['PATH']}"
    script = EMULATORS / "meshnet-lab/handover.sh"
    assert survived(run(tmp_path, *SANDBOX, *NAMES, script, MESHNET_LAB=str(lab), PATH=path))


@needs("munet")
def test_the_example_of_munet_moves_a_node(tmp_path: Path) -> None:
    assert survived(run(tmp_path, *SANDBOX, EMULATORS / "munet/handover.sh"))
