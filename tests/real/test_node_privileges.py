"""A node with no more privileges than its unit, or than CAP_NET_ADMIN, has."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from ctypes.util import find_library
from pathlib import Path

import pytest

from mat_real.dataplane import QUEUE
from tests.real.ims_server import MAIN, wait_until
from tests.real.node_world import HOMES, IMS, World, address, world
from tests.real.privilege import needs_root
from tests.real.unit_sandbox import read_unit

pytestmark = needs_root

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "real/systemd/mat-node.service"
NOBODY = 61234
"""A user that has nothing, and no name."""
CN = HOMES["cn"]


@pytest.fixture
def here() -> Iterator[World]:
    """MN in networks a and b, CN registered; in a folder that every user can enter."""
    with tempfile.TemporaryDirectory(prefix="mat-privileges-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with world(folder) as made:
            made.attach("mn", "w0", "a", 2, metric=10)
            made.attach("mn", "w1", "b", 2, metric=20)
            made.start_node("cn")
            (folder / "run").mkdir()
            (folder / "mn.sock").symlink_to("run/node.sock")
            yield made


def launch(made: World, wrapper: list[str], control: str, *more: str) -> None:
    """The daemon of MN behind a wrapper; it has registered where it is."""
    config = made.folder / "mn.toml"
    config.write_text(
        f'[node]\nkey = "mn.key"\ncontrol = "{control}"\n{"".join(more)}'
        f'[dns]\nservers = ["{IMS}"]\n'
    )
    node = [sys.executable, "-c", MAIN, "node", "run", "--config", str(config)]
    made.daemons["mn"] = daemon = made.start("mn", *wrapper, *node, log="mn.log")

    def registered() -> bool:
        assert daemon.poll() is None, (daemon.returncode, made.log("mn"))
        try:
            return made.is_registered("mn")
        except (OSError, ValueError):
            return False

    try:
        wait_until(registered)
    except AssertionError as error:
        raise AssertionError(made.log("mn")) from error


def pings(made: World, to: str) -> bool:
    """Whether MN reaches an address."""
    return made.start("mn", "ping", "-c", "1", "-W", "5", to).wait(30) == 0


def moves_and_leaves_nothing(made: World) -> None:
    """Soft and hard moves under a ping, then an orderly end."""
    assert pings(made, CN[0])
    assert pings(made, CN[1])
    with made.talk("mn", CN[0], 7011) as four, made.talk("mn", CN[1], 7011) as six:
        made.ip("mn", "link set w0 down")
        made.registers("mn", [address("b", 2)], [address("b", 2, ipv6=True)])
        assert four.goes_on()
        assert six.goes_on()
        fresh = made.addresses("w0", "a", 3, 10)
        made.ip("mn", "link set w0 up", "addr flush dev w0 scope global", *fresh)
        made.ip("mn", "addr flush dev w1 scope global")
        made.registers("mn", [address("a", 3)], [address("a", 3, ipv6=True)])
        assert four.goes_on()
        assert six.goes_on()
    assert made.status("mn")["problems"] == []
    assert made.stop("mn") == 0, made.log("mn")
    assert "mat" not in made.run("mn", "nft", "list", "ruleset")
    for family in ("-4", "-6"):
        assert "proto 77" not in made.run("mn", "ip", family, "rule")
        assert made.run("mn", "ip", family, "route", "show", "table", "all", "proto", "77") == ""
    assert HOMES["mn"][0] not in made.run("mn", "ip", "addr")
    assert not (made.folder / "run/node.sock").exists()


def test_a_user_with_cap_net_admin_alone_runs_a_node(here: World) -> None:
    wrapper = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    wrapper += [f"--{which}=-all,+net_admin" for which in ("inh-caps", "ambient-caps")]
    wrapper += ["--bounding-set=-all,+net_admin", "--no-new-privs", "--"]
    imports = [sys.executable, "-c", "import mat_cli, nftables, uvloop"]
    if subprocess.run([*wrapper, *imports], check=False, capture_output=True).returncode:
        pytest.skip("no other user can run the Python of these tests")
    for path in ("mn.key", "run"):
        os.chown(here.folder / path, NOBODY, NOBODY)
    for at in CN:
        here.listen("cn", 7011, at)
    here.run("mn", "sysctl", "-qw", "net.ipv4.conf.w0.rp_filter=1")
    launch(here, wrapper, "run/node.sock")
    status = Path(f"/proc/{here.daemons['mn'].pid}/status").read_text()
    assert f"Uid:\t{NOBODY}\t{NOBODY}" in status
    assert re.search(r"CapEff:\t0*1000\n", status), status
    moves_and_leaves_nothing(here)
    assert here.run("mn", "sysctl", "-n", "net.ipv4.conf.w0.rp_filter") == "1\n"


def sandbox(made: World) -> list[str]:
    """The wrapper that has a command do as under the unit."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    if not all(map(find_library, ("seccomp", "cap"))):
        pytest.skip("libseccomp2 and libcap2 are not installed")
    folder = made.folder
    words = [sys.executable, "-m", "tests.real.unit_sandbox", str(UNIT)]
    return [*words, str(folder / "run"), str(folder), "--"]


def test_a_node_works_with_what_its_unit_permits(here: World) -> None:
    for at in CN:
        here.listen("cn", 7011, at)
    here.run("mn", "sysctl", "-qw", "net.ipv4.conf.w0.rp_filter=1")
    launch(here, sandbox(here), "/run/mat-node/node.sock")
    moves_and_leaves_nothing(here)
    assert here.run("mn", "sysctl", "-n", "net.ipv4.conf.w0.rp_filter") == "1\n"


def test_a_node_is_its_own_dhcp_client_with_what_its_unit_permits(here: World) -> None:
    if shutil.which("dnsmasq") is None:
        pytest.skip("dnsmasq is not installed")
    here.detach("mn", "w0")
    options = ["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--no-ping"]
    options += ["--user=root", "--interface=ra", "--bind-interfaces", "--pid-file="]
    leased = address("a", 77)
    options += [f"--dhcp-leasefile={here.folder}/leases", f"--dhcp-range={leased},{leased},1h"]
    here.start("r", "dnsmasq", *options, log="dnsmasq")
    launch(here, sandbox(here), "/run/mat-node/node.sock", 'dhcp = ["w0"]\n')
    wait_until(lambda: leased in here.registered("mn")[0])
    # The lease will be renewed from there; the privileged port takes a capability of its own.
    assert f"{leased}%w0:68" in here.run("mn", "ss", "-Huln")
    assert here.stop("mn") == 0, here.log("mn")
    assert leased not in here.run("mn", "ip", "addr")


@contextmanager
def occupied_queue(made: World) -> Generator[None]:
    """Somebody else reads the queue of MN."""
    script = f"""
import sys
from mat_real.dataplane.queue import PacketQueue
queue = PacketQueue({QUEUE})
print("bound", flush=True)
sys.stdin.read()
"""
    command = ["nsenter", f"--net={made.hosts['mn'].path}", sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"bound\n"
        yield
        assert other.stdin is not None
        other.stdin.close()


def test_a_node_that_the_packet_filter_refuses_says_why_and_leaves_nothing(here: World) -> None:
    with occupied_queue(here), pytest.raises(AssertionError, match="another program reads it"):
        launch(here, [], "run/node.sock")
    assert here.daemons["mn"].wait(30) == 1
    assert "Traceback" not in here.log("mn")
    assert "mat" not in here.run("mn", "nft", "list", "ruleset")
    assert "proto 77" not in here.run("mn", "ip", "rule")


def test_the_unit_is_valid_and_sandboxed(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text())
    verified = subprocess.run(
        [analyze, "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    rated = subprocess.run(
        [analyze, "security", "--offline=true", unit], capture_output=True, text=True, check=True
    )
    found = re.search(r"exposure level for mat-node.service: ([0-9.]+)", rated.stdout)
    assert found is not None
    assert float(found[1]) < 3
    # What a killed daemon leaves for its successor is in there.
    assert read_unit(UNIT)["RuntimeDirectoryPreserve"] == ["restart"]
