"""`mat ims serve`: a real server, asked with real datagrams."""

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from docs.generate import IMS_DOCUMENT, refreshed
from mat.address import parse_address
from mat.authentication import Key
from mat.codec import decode, encode
from mat.messages import Code, HaAnswer, MaAnswer, MaQuery, Request
from tests.real.ims_server import (
    MAIN,
    Client,
    addresses,
    alive,
    answers,
    ask,
    configuration,
    free_port,
    key,
    running,
    serve,
    started,
    update_of,
    wait_until,
    write_keys,
)

MN, CN, SIX = key(1, "10.1.0.1"), key(2, "10.1.0.2"), key(3, "2001:db8:1::1")
ROUTER = Key(4, b"the secret of the router's key", parse_address("10.1.4.0"), 120)
KEYS = (MN, CN, SIX, ROUTER)
UNITS = Path(__file__).parents[2] / "real" / "systemd"


def test_registers_answers_notifies_and_identifies_in_both_families(tmp_path: Path) -> None:
    with running(tmp_path, KEYS) as server, Client(server.port) as node:
        reply = node.update(MN, ["198.51.100.1", "203.0.113.1"])
        assert reply is not None
        assert reply.code == Code.SUCCEEDED
        assert addresses(node.query("10.1.0.1")) == ["198.51.100.1", "203.0.113.1"]
        nobody = node.query("10.1.0.9")
        assert nobody is not None
        assert nobody.code == Code.NO_MAPPING
        foreign = node.query("10.9.0.9")
        assert foreign is not None
        assert foreign.code == Code.NOT_RESPONSIBLE
        assert node.update(CN, ["198.51.100.2"]) is not None
        ack = node.notify("10.1.0.1", "10.1.0.2")
        assert ack is not None
        assert ack.code == Code.SUCCEEDED
        assert ack.mobile_addresses == (parse_address("198.51.100.2"),)
        found = node.identify("203.0.113.1")
        assert isinstance(found, HaAnswer)
        assert found.home_addresses == (MN.home_address,)
        with Client(server.port, "::1") as six:
            assert six.update(SIX, ["2001:db8:9::7"]) is not None
            assert addresses(six.query("2001:db8:1::1")) == ["2001:db8:9::7"]
            assert addresses(six.query("10.1.0.2")) == ["198.51.100.2"]
        assert server.stop() == 0


def test_mobile_router_is_found_by_any_address_of_its_prefix(tmp_path: Path) -> None:
    with running(tmp_path, KEYS) as server, Client(server.port) as node:
        assert node.update(ROUTER, ["198.51.4.0"]) is not None
        answer = node.query("10.1.4.77")
        assert isinstance(answer, MaAnswer)
        assert (answer.prefix_length, addresses(answer)) == (120, ["198.51.4.0"])
        found = node.identify("198.51.4.77")
        assert isinstance(found, HaAnswer)
        assert found.home_addresses == (parse_address("10.1.4.77"),)


def test_answers_leave_from_the_address_that_was_asked(tmp_path: Path) -> None:
    port = free_port()
    tables = {"ims": {"listen": f'["[::]:{port}"]'}}
    with running(tmp_path, KEYS, tables):
        for server in ("127.0.0.1", "127.0.0.77", "::1"):
            with Client(port, server) as node:
                # A connected socket takes datagrams from there and from nowhere else.
                node.socket.connect((server, port))
                assert node.query("10.1.0.9") is not None
                assert node.update(MN, ["198.51.100.1"]) is not None
                assert addresses(node.query("10.1.0.1")) == ["198.51.100.1"]


def test_mappings_survive_a_stop_and_a_kill(tmp_path: Path) -> None:
    with running(tmp_path, KEYS) as first, Client(first.port) as node:
        assert node.update(MN, ["198.51.100.1"]) is not None
        assert first.stop() == 0
        second = started(tmp_path, first.port)
        try:
            assert addresses(node.query("10.1.0.1")) == ["198.51.100.1"]
            assert node.update(MN, ["198.51.100.2"]) is not None
            second.kill()
            third = started(tmp_path, first.port)
            assert addresses(node.query("10.1.0.1")) == ["198.51.100.2"]
            assert third.stop() == 0
        finally:
            if second.process.poll() is None:
                second.process.kill()


def test_workers_share_what_they_know(tmp_path: Path) -> None:
    with running(tmp_path, KEYS, {"ims": {"workers": "3"}}) as server:
        clients = [Client(server.port) for _ in range(24)]
        for turn, client in enumerate(clients):
            moved = [f"198.51.100.{turn + 1}"]
            assert client.update(MN, moved) is not None
            for other in clients:
                assert addresses(other.query("10.1.0.1")) == moved
        received = [one["pid"] for one in ask(server.control)["workers"]]
        assert len(set(received)) == 3
        for client in clients:
            client.socket.close()


def test_a_worker_that_is_killed_is_replaced_and_loses_nothing(tmp_path: Path) -> None:
    with running(tmp_path, KEYS) as server, Client(server.port) as node:
        assert node.update(MN, ["198.51.100.1"]) is not None
        (before,) = server.workers()
        os.kill(before, signal.SIGKILL)
        assert addresses(node.query("10.1.0.1", attempts=60)) == ["198.51.100.1"]
        (after,) = server.workers()
        assert after != before
        assert ask(server.control)["workers"][0]["restarts"] == 1


def test_workers_end_with_their_supervisor(tmp_path: Path) -> None:
    with running(tmp_path, KEYS, {"ims": {"workers": "2"}}) as server:
        workers = server.workers()
        server.process.kill()
        server.process.wait()
        wait_until(lambda: not any(alive(pid) for pid in workers))


def test_hangup_takes_on_new_keys_and_zones_and_refuses_bad_ones(tmp_path: Path) -> None:
    with running(tmp_path, [MN]) as server, Client(server.port) as node:
        refused = node.update(CN, ["198.51.100.2"])
        assert refused is not None
        assert refused.code == Code.AUTHENTICATION_FAILED
        write_keys(tmp_path / "keys", KEYS)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: ask(server.control)["reloads"] == 1)
        taken = node.update(CN, ["198.51.100.2"])
        assert taken is not None
        assert taken.code == Code.SUCCEEDED

        configuration(tmp_path, server.port, {"ims": {"zones": '["10.1.0.0/33"]'}})
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "not reloaded" in server.log())
        assert addresses(node.query("10.1.0.2")) == ["198.51.100.2"]

        configuration(tmp_path, server.port, {"ims": {"zones": '["10.2.0.0/16"]'}})
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: ask(server.control)["reloads"] == 2)
        answer = node.query("10.1.0.2")
        assert answer is not None
        assert answer.code == Code.NOT_RESPONSIBLE


def test_reloads_under_load_lose_no_request(tmp_path: Path) -> None:
    with running(tmp_path, KEYS) as server, Client(server.port) as node:
        assert node.update(MN, ["198.51.100.1"]) is not None
        for turn in range(200):
            if turn % 20 == 0:
                server.process.send_signal(signal.SIGHUP)
            answer = node.query("10.1.0.1", attempts=1)
            assert addresses(answer) == ["198.51.100.1"], turn
        wait_until(lambda: ask(server.control)["reloads"] >= 1)


def test_status_and_metrics_count_what_happened(tmp_path: Path) -> None:
    port = free_port()
    with (
        running(tmp_path, KEYS, {"metrics": {"listen": f'"127.0.0.1:{port}"'}}) as server,
        Client(server.port) as node,
    ):
        assert node.update(MN, ["198.51.100.1"]) is not None
        assert node.query("10.1.0.1") is not None
        assert node.query("10.1.0.9") is not None
        node.socket.sendto(b"junk", node.server)
        assert node.query("10.1.0.1") is not None
        found = ask(server.control)
        queries = found["requests"]["MA Query"]
        assert queries["received"] == 3
        assert queries["answers"]["succeeded"] == 2
        assert queries["answers"]["no_mapping"] == 1
        assert found["malformed"] == 1
        wait_until(lambda: ask(server.control)["workers"][0]["mappings"] == 1)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
            text = page.read().decode()
        assert 'mat_ims_received_total{type="MA Query"} 3.0' in text
        assert 'mat_ims_answers_total{code="succeeded",request="IMS Update"} 1.0' in text
        assert 'mat_ims_response_seconds_count{request="MA Query"} 3.0' in text
        assert 'mat_ims_malformed_total{reason="short"} 1.0' in text
        out = subprocess.run(
            [sys.executable, "-c", MAIN, "ims", "status", "--control", str(server.control)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert "MA Query" in out
        assert "store journal" in out


def test_a_second_server_does_not_take_the_store_of_the_first(tmp_path: Path) -> None:
    with running(tmp_path, KEYS) as server:
        other = tmp_path / "other"
        other.mkdir()
        write_keys(other / "keys", KEYS)
        config = configuration(other, free_port(), {"store": {"path": '"../ims.store"'}})
        tried = serve(config)
        assert tried.returncode == 1
        assert "in use by another server" in tried.stderr
        assert server.process.poll() is None


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_graceful_stop_answers_what_has_arrived(tmp_path: Path, stop: signal.Signals) -> None:
    with running(tmp_path, KEYS) as server, Client(server.port) as node:
        assert node.update(MN, ["198.51.100.1"]) is not None
        (worker,) = server.workers()
        os.kill(worker, signal.SIGSTOP)
        # A thread that does not stand still yet could take the signal that is to wait.
        wait_until(lambda: thread_states(worker) == {"T"})
        asked: list[Request] = [
            MaQuery(number, MN.home_address, nonce=number.to_bytes(8, "big"))
            for number in range(100)
        ]
        asked.append(update_of(CN, ["198.51.100.2"], 1 << 63))
        for message in asked:
            node.socket.sendto(encode(message), node.server)
        server.process.send_signal(stop)
        # The supervisor passes it on; the worker finds both when it goes on.
        wait_until(lambda: "SIGTERM" in pending_signals(worker))
        os.kill(worker, signal.SIGCONT)
        assert server.process.wait(30) == 0
        node.socket.settimeout(5)
        found = [decode(node.socket.recv(2048)) for _ in asked]
        assert sum(answers(one, message) for one in found for message in asked) == len(asked)
        assert not server.control.exists()


def thread_states(pid: int) -> set[str]:
    """States of a process's threads: T where one is stopped."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return {(task / "stat").read_text().rpartition(")")[2].split()[0] for task in tasks}


def pending_signals(pid: int) -> set[str]:
    """Names of the signals that wait to be delivered to a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    mask = int(re.findall(r"ShdPnd:\s+([0-9a-f]+)", text)[0], 16)
    return {one.name for one in signal.Signals if mask >> (one - 1) & 1}


def test_it_needs_no_capability(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("capabilities can only be dropped by root, with setpriv")
    write_keys(tmp_path / "keys", KEYS)
    bare = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    server = started(tmp_path, wrapper=bare)
    try:
        (worker,) = server.workers()
        status = Path(f"/proc/{worker}/status").read_text()
        assert "CapEff:\t0000000000000000" in status
        with Client(server.port) as node:
            assert node.update(MN, ["198.51.100.1"]) is not None
            assert addresses(node.query("10.1.0.1")) == ["198.51.100.1"]
        assert server.stop() == 0
    finally:
        server.process.kill()
        server.process.wait()


def test_the_systemd_unit_is_valid_and_sandboxed(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "mat-ims.service"
    unit.write_text((UNITS / "mat-ims.service").read_text())
    verified = subprocess.run(
        [analyze, "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    rated = subprocess.run(
        [analyze, "security", "--offline=true", unit], capture_output=True, text=True, check=True
    )
    found = re.search(r"exposure level for mat-ims.service: ([0-9.]+)", rated.stdout)
    assert found is not None
    assert float(found[1]) < 2


def test_the_documents_table_is_that_of_the_code() -> None:
    text = IMS_DOCUMENT.read_text(encoding="utf-8")
    assert refreshed(text) == text, "run: python -m docs.generate"


def test_a_worker_started_again_has_the_configuration_of_the_server(tmp_path: Path) -> None:
    with running(tmp_path, KEYS) as server, Client(server.port) as node:
        assert node.update(MN, ["198.51.100.1"]) is not None
        (before,) = server.workers()
        # Edited, and not reloaded: what is wrong in it is nobody's business yet.
        configuration(tmp_path, server.port, {"store": {"path": '"another"'}, "ims": {"x": "1"}})
        os.kill(before, signal.SIGKILL)
        assert addresses(node.query("10.1.0.1", attempts=60)) == ["198.51.100.1"]
        assert not (tmp_path / "another").exists()
        assert server.workers() != [before]


def test_a_server_does_not_take_the_control_socket_of_another(tmp_path: Path) -> None:
    with running(tmp_path, KEYS) as server:
        other = tmp_path / "other"
        other.mkdir()
        write_keys(other / "keys", KEYS)
        config = configuration(other, free_port(), {"ims": {"control": '"../ims.sock"'}})
        tried = serve(config)
        assert tried.returncode == 1
        assert "is that of one that runs" in tried.stderr
        assert server.workers()


def test_a_control_socket_left_by_a_dead_server_is_replaced(tmp_path: Path) -> None:
    with running(tmp_path, KEYS) as server:
        server.kill()
        assert server.control.exists()
        again = started(tmp_path, server.port)
        assert again.workers()
        assert again.stop() == 0
