"""A node while the DNS is down: what goes on, what waits, and what it says of that."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.ims_server import MAIN, wait_until
from tests.real.node_world import HOMES, IMS, PLAIN, World, address, world
from tests.real.privilege import needs_root

pytestmark = needs_root

PORT = 7010
KNOWN, NEW = HOMES["cn"]
"""Of the CN's two home addresses, peers of machines that know nothing of each other."""
# A client that says what it was greeted with, or that there was no connection.
GREETED = f"""
import socket as s
c = s.create_connection(({NEW!r}, {PORT}), 90)
print(c.makefile().readline(), end="", flush=True)
"""


def start_dns(made: World) -> subprocess.Popen[bytes]:
    """The name server of the nodes, on a host of its own; it answers."""
    words = [sys.executable, "-c", MAIN, "dns"]
    zones = ("10.in-addr.arpa", "168.192.in-addr.arpa", "0.1.d.f.ip6.arpa", "0.0.d.f.ip6.arpa")
    nodes = ("10.1.0.0/16", "10.2.0.0/16", "fd10:1::/32", "fd10:2::/32")
    records = [word for net in nodes for word in ("--record", f"{net}=10 49628 {IMS}")]
    served = [word for zone in zones for word in ("--zone", zone)]
    at = f"{PLAIN[0]}:53"
    server = made.start("plain", *words, "serve", *served, *records, "--listen", at, log="dns")

    def answers() -> bool:
        assert server.poll() is None, (made.folder / "dns").read_text()
        asked = made.hosts["ims"].popen(
            [*words, "lookup", HOMES["mn"][0], "--server", at],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return asked.wait(30) == 0

    wait_until(answers)
    return server


def kill(server: subprocess.Popen[bytes]) -> None:
    """Kill -9 a server."""
    server.kill()
    server.wait()


def shown(made: World, host: str) -> str:
    """What `mat node status` prints."""
    control = str(made.folder / f"{host}.sock")
    command = [sys.executable, "-c", MAIN, "node", "status", "--control", control]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    """MN in network a, CN in c; no daemon yet."""
    with world(tmp_path) as made:
        made.attach("mn", "w0", "a", 2)
        yield made


@pytest.mark.parametrize("how", ["killed", "unreachable"])
def test_the_dns_is_down_during_a_move_and_comes_back(here: World, how: str) -> None:
    server = start_dns(here)
    for host in HOMES:
        here.start_node(host, f'dns.servers=["{PLAIN[0]}"]')
    for at in (KNOWN, NEW):
        here.listen("cn", PORT, at)
    with here.talk("mn", KNOWN, PORT) as known:
        assert known.greeting == HOMES["mn"][0]
        if how == "killed":
            kill(server)
        else:
            here.ip("r", "link set rp down")
        here.attach("mn", "w1", "b", 2, metric=50)
        here.detach("mn", "w0")
        here.registers("mn", [address("b", 2)], [address("b", 2, ipv6=True)])
        assert known.goes_on()
        new = here.start("mn", sys.executable, "-c", GREETED, log="new")
        wait_until(lambda: "had no answer" in shown(here, "mn"))
        assert f"the DNS ({PLAIN[0]}) had no answer about {NEW}" in shown(here, "mn")
        assert new.poll() is None
        assert known.goes_on()
        if how == "killed":
            start_dns(here)
        else:
            here.ip("r", "link set rp up")
        assert new.wait(60) == 0
        assert (here.folder / "new").read_text() == HOMES["mn"][1] + "\n"
        assert known.goes_on()
    assert "problem" not in shown(here, "mn")
    assert here.log("mn").count("the DNS does not answer") == 1
    assert here.log("mn").count("the DNS answers again") == 1


def test_a_node_that_starts_without_the_dns_registers_when_it_is_back(here: World) -> None:
    here.launch_node("mn", f'dns.servers=["{PLAIN[0]}"]')
    wait_until((here.folder / "mn.sock").exists)
    wait_until(lambda: "had no answer" in shown(here, "mn"))
    said = shown(here, "mn")
    for home in HOMES["mn"]:
        assert f"{home}: locating, registered at nowhere, IMS not found yet" in said
    assert "the DNS does not answer" in here.log("mn")
    start_dns(here)
    here.registers("mn", [address("a", 2)], [address("a", 2, ipv6=True)])
    assert "problem" not in shown(here, "mn")
