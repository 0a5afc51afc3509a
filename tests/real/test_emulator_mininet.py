"""MAT hosts in Mininet: its own Python and its own network, Debian's as they are."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.real.emulators import EMULATORS, SANDBOX, mat_program, needs, survived
from tests.real.ims_server import wait_until
from tests.real.privilege import needs_root

pytestmark = [needs_root, needs("mn", "brctl", "iperf3")]
ADAPTER = EMULATORS / "mininet/mat_mininet.py"
PYTHON = "/usr/bin/python3"
"""Debian's, for which its Mininet is."""
LIMIT = 180


def environment(folder: Path) -> dict[str, str]:
    mat = mat_program(folder / "program/mat")
    given = {"MAT": str(mat), "MAT_FOLDER": str(folder / "run"), "PYTHONPATH": str(ADAPTER.parent)}
    return {**os.environ, **given, "PYTHONDONTWRITEBYTECODE": "1"}


def run(folder: Path, *command: str | Path, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SANDBOX, *command],
        check=False,
        env=environment(folder) | changes,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
    )


def test_the_example_moves_a_host_under_tcp_connections_that_go_on(tmp_path: Path) -> None:
    done = run(tmp_path, PYTHON, ADAPTER.with_name("handover.py"))
    assert done.returncode == 0, done.stdout
    assert survived(done.stdout)
    assert re.search(r"ping: \d+ packets transmitted, \d+ received", done.stdout)
    log = (tmp_path / "run/mn.log").read_text()
    assert "at=192.168.1.10" in log
    assert "at=192.168.2.10" in log


def test_mn_builds_the_topology_and_finds_mat_in_the_checkout(tmp_path: Path) -> None:
    adapter = tmp_path / "checkout/real/emulators/mininet/mat_mininet.py"
    adapter.parent.mkdir(parents=True)
    shutil.copy(ADAPTER, adapter)
    mat_program(tmp_path / "checkout/.venv/bin/mat")
    script = tmp_path / "commands"
    script.write_text("py mn.wait_registered()\npy cn.wait_registered()\nmn ping -c 2 10.2.0.1\n")
    net = ("--custom", adapter, "--topo", "mat", "--switch", "lxbr", "--controller", "none")
    done = run(tmp_path, "mn", *net, "--host", "mat", "--test", "none", "--post", script, MAT="")
    assert " 0% packet loss" in done.stdout, done.stdout
    assert f"configurations, keys and logs are in {tmp_path}/run" in done.stdout


def test_a_topology_as_in_the_manual_runs_with_home_addresses_by_number(tmp_path: Path) -> None:
    manual = (EMULATORS.parents[1] / "docs/emulators.md").read_text()
    (text,) = re.findall(r"```python\n(.*?class Yours.*?)```", manual, re.DOTALL)
    yours = tmp_path / "yours.py"
    yours.write_text(text)
    script = tmp_path / "commands"
    script.write_text("py h1.wait_registered()\npy h2.wait_registered()\nh1 ping -c 2 10.1.0.2\n")
    net = ("--custom", yours, "--topo", "yours", "--switch", "lxbr", "--controller", "none")
    host = ("--host", "mat,home=10.1.0.{}")
    done = run(tmp_path, "mn", *net, *host, "--test", "none", "--post", script)
    assert "64 bytes from 10.1.0.2" in done.stdout
    assert " 0% packet loss" in done.stdout


LATER = """
from mininet.net import Mininet
from mininet.nodelib import LinuxBridge
from mat_mininet import MatHost, MatTopo
net = Mininet(topo=MatTopo(), host=MatHost, switch=LinuxBridge, controller=None)
try:
    net.start()
    late = net.addHost("h7", home="10.1.0.{}", settings={"node.dataplane": "queue"})
    late.move(net, net["s2"], "192.168.2.7/24", via="192.168.2.1")
    late.config()
    late.wait_registered()
    found = late.status()
    print(found["homes"][0]["home"], found["homes"][0]["registered"], found["dataplane"])
finally:
    net.stop()
"""


def test_a_host_that_joins_a_running_net_gets_a_key_that_its_mapping_server_knows(
    tmp_path: Path,
) -> None:
    done = run(tmp_path, PYTHON, "-c", LATER)
    assert "10.1.0.7 ['192.168.2.7'] queue" in done.stdout, done.stdout


ONE_HOST = """
import sys, time
from mininet.net import Mininet
from mat_mininet import DnsHost, MatHost
net = Mininet(controller=None)
dns = net.addHost("dns", cls=DnsHost, ip="127.0.0.1/8")
if len(sys.argv) > 2:
    net.addHost("h1", cls=MatHost, home="10.1.0.1", key=sys.argv[2])
net.start()
print(dns.daemon.pid, flush=True)
if sys.argv[1] == "stop":
    net.stop()
elif sys.argv[1] == "exception":
    raise ValueError
time.sleep(600)
"""


def test_a_daemon_that_ends_at_once_is_an_error_with_its_words(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("nonsense\n")
    key.chmod(0o600)
    done = run(tmp_path, PYTHON, "-c", ONE_HOST, "wait", key)
    assert done.returncode == 1
    assert "MatError: h1: `mat attach` ended at once, with exit code 1" in done.stdout
    assert f"{key}:1: " in done.stdout
    assert str(tmp_path / "run/h1.log") in done.stdout


@pytest.mark.parametrize("end", ["stop", "exception", "SIGINT", "SIGTERM", "SIGKILL"])
def test_daemons_end_with_mininet_however_it_ends(tmp_path: Path, end: str) -> None:
    # Its processes are the machine's: the end of a sandbox is not what ends them.
    command = ["unshare", "--net", PYTHON, "-c", ONE_HOST, end]
    mininet = subprocess.Popen(
        command,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert mininet.stdout
    daemon = Path("/proc", mininet.stdout.readline().strip() or "nothing")
    try:
        assert daemon.name.isdecimal()
        if end.startswith("SIG"):
            assert b"mat_cli" in daemon.joinpath("cmdline").read_bytes()
            mininet.send_signal(signal.Signals[end])
        wait_until(lambda: not daemon.exists())
    finally:
        mininet.kill()
        mininet.communicate()
        if daemon.exists():
            os.kill(int(daemon.name), signal.SIGKILL)


def test_where_there_is_no_mat_the_error_says_how_to_name_it(tmp_path: Path) -> None:
    adapter = shutil.copy(ADAPTER, tmp_path)
    program = "import mat_mininet; mat_mininet.MatHost('h1', home='10.1.0.1')"
    plain = {
        "MAT": "",
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": str(Path(adapter).parent),
    }
    done = run(tmp_path, PYTHON, "-c", program, **plain)
    assert "MatError: there is no program `mat`" in done.stdout
    assert "MAT=/path/to/.venv/bin/mat" in done.stdout
    done = run(tmp_path, PYTHON, "-c", program, **(plain | {"MAT": "/nowhere/mat"}))
    assert "MatError: MAT=/nowhere/mat is no program that can be run" in done.stdout
