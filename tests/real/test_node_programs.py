"""What people run over a node while it moves: ssh, downloads, one-way streams, idle TCP."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.ims_server import wait_until
from tests.real.node_world import HOMES, World, address, world
from tests.real.privilege import needs_root
from tests.real.probes import Stream

pytestmark = needs_root

HOME = {host: homes[0] for host, homes in HOMES.items()}
CN = HOME["cn"]
PROBES = [sys.executable, "-m", "tests.real.probes"]
SIZE = 1 << 30


@pytest.fixture
def two(tmp_path: Path) -> Iterator[World]:
    """MN in network a, CN in c; both registered."""
    with world(tmp_path) as made:
        made.attach("mn", "w0", "a", 2)
        made.start_node("mn")
        made.start_node("cn")
        made.registers("mn", [address("a", 2)], [address("a", 2, ipv6=True)])
        yield made


def soft(made: World, host: str = "mn", net: str = "b") -> None:
    """Make before break: to the second uplink, then away from the first."""
    made.attach(host, "w1", net, 2, metric=50)
    wait_until(lambda: made.registered(host)[0][:1] == [address(net, 2)])
    made.detach(host, "w0")
    wait_until(lambda: made.registered(host)[0] == [address(net, 2)])


def hard(made: World, host: str, new: str, net: str, number: int = 2) -> None:
    """Break before make: away from one uplink, then to the other, `new`."""
    old = {"w0": "w1", "w1": "w0"}[new]
    made.ip(host, f"addr flush dev {old} scope global", *made.addresses(new, net, number))
    wait_until(lambda: made.registered(host)[0] == [address(net, number)])


def test_a_shell_over_ssh_keeps_its_prompt(two: World) -> None:
    folder = two.folder
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    (folder / "user.pub").rename(folder / "authorized")
    folder.chmod(0o700)
    Path("/run/sshd").mkdir(exist_ok=True)
    (folder / "sshd.conf").write_text(
        f"ListenAddress 0.0.0.0\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        f"PermitRootLogin prohibit-password\nStrictModes no\nUsePAM no\nPidFile none\n"
    )
    two.start("cn", "/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "sshd.conf"), log="sshd")
    wait_until(lambda: "listening" in (folder / "sshd").read_text())
    options = [f"-oUserKnownHostsFile={folder}/known", "-oStrictHostKeyChecking=accept-new"]
    shell = two.hosts["mn"].popen(
        ["ssh", "-tt", *options, "-i", str(folder / "user"), f"root@{CN}", "PS1='ready> ' sh -i"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=two.stack.enter_context((folder / "ssh").open("wb")),
        bufsize=0,
    )
    try:
        said = b""

        def says(wanted: bytes) -> None:
            nonlocal said
            assert shell.stdout is not None
            while wanted not in said:
                more = os.read(shell.stdout.fileno(), 4096)
                assert more, (said, (folder / "ssh").read_text())
                said += more
            said = said.partition(wanted)[2]

        def types(line: bytes) -> None:
            assert shell.stdin is not None
            shell.stdin.write(line + b"\n")

        says(b"ready> ")
        soft(two)
        types(b"echo $((40 + 2))")
        says(b"42\r\n")
        says(b"ready> ")
        hard(two, "mn", "w0", "a", 3)
        types(b"echo $((40 + 3))")
        says(b"43\r\n")
        types(b"exit")
        assert shell.wait(30) == 0
    finally:
        shell.kill()
        shell.communicate()


def test_a_download_of_a_gigabyte_arrives_whole(two: World) -> None:
    source, copy = two.folder / "www" / "file", two.folder / "copy"
    source.parent.mkdir()
    block = os.urandom(1 << 24)
    with source.open("wb") as file:
        for number in range(SIZE >> 24):
            file.write(number.to_bytes(8) + block[8:])
    serve = [sys.executable, "-m", "http.server", "8080", "--directory", str(source.parent)]
    two.start("cn", *serve, log="http")
    wait_until(lambda: "200" in _headers(two))
    url = f"http://{CN}:8080/file"
    begun = ["curl", "-sS", "--limit-rate", "150M", "-o", str(copy), url]
    curl = two.start("mn", *begun, log="curl")
    wait_until(lambda: copy.exists() and copy.stat().st_size > SIZE // 10)
    soft(two)
    wait_until(lambda: copy.stat().st_size > SIZE // 3)
    hard(two, "mn", "w0", "a", 3)
    wait_until(lambda: copy.stat().st_size > SIZE // 2)
    hard(two, "cn", "w1", "d")
    assert curl.wait(120) == 0, (two.folder / "curl").read_text()
    digests = []
    for one in (source, copy):
        with one.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").digest())
    assert digests[0] == digests[1]


def _headers(made: World) -> str:
    try:
        return made.run("mn", "curl", "-sI", "-m", "5", f"http://{CN}:8080/file")
    except subprocess.CalledProcessError:
        return ""


@pytest.mark.parametrize("sender", ["mn", "cn"])
@pytest.mark.parametrize("how", ["soft", "hard", "both"])
def test_a_stream_in_one_direction_only_goes_on(two: World, sender: str, how: str) -> None:
    receiver = "cn" if sender == "mn" else "mn"
    ends = two.start(receiver, *PROBES, "receive", HOME[receiver], "14", log="stream")
    two.start(sender, *PROBES, "send", HOME[receiver], "0.02", "12", HOME[sender])
    stream = two.folder / "stream"
    wait_until(lambda: stream.read_text().count("\n") > 50)
    if how == "soft":
        soft(two)
    elif how == "hard":
        hard(two, "mn", "w1", "b")
    else:
        for host, net in (("mn", "b"), ("cn", "d")):
            two.ip(host, "addr flush dev w0 scope global", *two.addresses("w1", net, 2))
    moved = time.monotonic()
    ends.wait(30)
    found = Stream.read(stream)
    # Whoever sends, probes of after the move have come, and go on coming.
    assert sum(at > moved + 2 for at in found.times) > 100
    if how == "soft":
        assert found.lost() == 0


def test_a_connection_that_was_idle_during_a_move_answers_afterwards(two: World) -> None:
    echo = "import socket as s; l = s.create_server(('', 7)); c, _ = l.accept()\n"
    echo += "while (d := c.recv(99)): c.sendall(d)"
    two.start("cn", sys.executable, "-c", echo)
    ask = (
        "import socket as s, sys, time\n"
        "while True:\n"
        "    try: c = s.create_connection(('10.2.0.1', 7), timeout=5); break\n"
        "    except OSError: time.sleep(0.1)\n"
        "for line in sys.stdin:\n"
        "    c.sendall(line.encode()); print(c.recv(99).decode(), end='', flush=True)\n"
    )
    client = two.hosts["mn"].popen(
        [sys.executable, "-c", ask], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert client.stdin is not None
    assert client.stdout is not None
    try:
        moves = [("mn", "w1", "b", 2), ("cn", "w1", "d", 2), ("mn", "w0", "a", 3)]
        for turn in range(len(moves) + 1):
            if turn:
                hard(two, *moves[turn - 1])
            client.stdin.write(f"turn {turn}\n")
            client.stdin.flush()
            assert client.stdout.readline() == f"turn {turn}\n"
    finally:
        client.kill()
        client.communicate()


def test_a_move_while_the_ims_is_down_is_made_up_for_when_it_is_back(two: World) -> None:
    pings = two.start("mn", "ping", "-i", "0.1", CN, log="pings")
    wait_until(lambda: "icmp_seq=5 " in (two.folder / "pings").read_text())
    two.stop("ims")
    two.ip("mn", "addr flush dev w0 scope global", *two.addresses("w1", "b", 2))
    wait_until(lambda: two.status("mn")["homes"][0]["addresses"] == [address("b", 2)])
    assert two.registered("mn")[0] == []
    two.start_ims()
    wait_until(lambda: two.registered("mn")[0] == [address("b", 2)])
    seen = (two.folder / "pings").read_text().count("icmp_seq=")
    wait_until(lambda: (two.folder / "pings").read_text().count("icmp_seq=") > seen + 10)
    assert pings.poll() is None
