"""Kill -9 at random moments under load: nothing acknowledged is lost, nothing older is answered."""

import os
import random
import signal
import socket
import time
from pathlib import Path

import pytest

from mat.address import parse_address
from mat.messages import Code, HaNotify, MaQuery
from tests.real.ims_server import (
    Client,
    Server,
    addresses,
    alive,
    ask,
    configuration,
    free_port,
    key,
    running,
    serve,
    started,
    wait_until,
    write_keys,
)
from tests.real.walkers import Walkers

KILLS = int(os.environ.get("MAT_FAULT_KILLS", "50"))
"""How often a server is killed, in both histories together."""
KEYS = [key(number, f"10.1.0.{number}") for number in range(1, 41)]


def kill_a_worker(server: Server, chance: random.Random) -> None:
    """Kill one worker; the supervisor starts another."""
    before = server.workers()
    os.kill(chance.choice(before), signal.SIGKILL)
    wait_until(lambda: len(server.workers()) == len(before) and server.workers() != before)


def end(server: Server) -> None:
    """Leave no process behind, whatever the test has come to."""
    if server.process.poll() is None:
        server.kill()


@pytest.mark.parametrize("seed", [1, 2])
def test_no_acknowledged_update_is_lost_by_kills_under_load(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    write_keys(tmp_path / "keys", KEYS)
    server = started(tmp_path)
    try:
        with Walkers(server.port, KEYS) as walkers:
            for turn in range(KILLS // 2):
                time.sleep(chance.uniform(0.0, 0.4))
                if turn % 3 < 2:
                    kill_a_worker(server, chance)
                else:
                    server.kill()
                    server = started(tmp_path, server.port)
                walkers.verify(server.port)
        assert walkers.answered > KILLS
        assert walkers.moves > KILLS * len(KEYS) // 2
    finally:
        end(server)


def test_what_one_worker_acknowledged_survives_its_death_at_the_other(tmp_path: Path) -> None:
    chance = random.Random(3)
    write_keys(tmp_path / "keys", KEYS)
    server = started(tmp_path, tables={"ims": {"workers": "2"}})
    try:
        # Stale is what waited for a worker that had died, while the other took what came after it.
        with Walkers(server.port, KEYS, sockets=8, tolerates={Code.STALE}) as walkers:
            for _ in range(max(6, KILLS // 10)):
                time.sleep(chance.uniform(0.0, 0.6))
                kill_a_worker(server, chance)
                walkers.verify(server.port)
        received = [one["restarts"] for one in ask(server.control)["workers"]]
        assert min(received) > 0
    finally:
        end(server)


def test_a_store_is_not_taken_over_while_a_worker_may_still_commit(tmp_path: Path) -> None:
    """The supervisor is killed alone, and its workers are slow to notice."""
    with running(tmp_path, KEYS, {"ims": {"workers": "2"}}) as server, Client(server.port) as node:
        assert node.update(KEYS[0], ["198.51.100.1"]) is not None
        workers = server.workers()
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        server.process.kill()
        server.process.wait()
        try:
            tried = serve(configuration(tmp_path, free_port()))
            assert tried.returncode == 1
            assert "in use by another server" in tried.stderr
        finally:
            for pid in workers:
                os.kill(pid, signal.SIGCONT)
        wait_until(lambda: not any(alive(pid) for pid in workers))
        again = started(tmp_path, server.port)
        assert addresses(node.query("10.1.0.1")) == ["198.51.100.1"]
        assert again.stop() == 0


def test_a_worker_that_starts_while_its_supervisor_dies_does_not_stay(tmp_path: Path) -> None:
    with running(tmp_path, KEYS) as server:
        (worker,) = server.workers()
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: server.workers() not in ([], [worker]))
        (starting,) = server.workers()
        # Before it could ask the kernel for a signal.
        os.kill(starting, signal.SIGSTOP)
        server.process.kill()
        server.process.wait()
        os.kill(starting, signal.SIGCONT)
        wait_until(lambda: not alive(starting))
        again = started(tmp_path, server.port)
        assert again.stop() == 0


def test_what_the_kernel_has_received_waits_for_the_next_worker(tmp_path: Path) -> None:
    with running(tmp_path, KEYS) as server, Client(server.port) as node:
        assert node.update(KEYS[0], ["198.51.100.1"]) is not None
        (worker,) = server.workers()
        os.kill(worker, signal.SIGSTOP)
        askers = [Client(server.port) for _ in range(50)]
        query = MaQuery(7, KEYS[0].home_address, nonce=b"nonce 07")
        for asker in askers:
            asker.send(query)
        os.kill(worker, signal.SIGKILL)
        for asker in askers:
            assert addresses(asker.answer(query)) == ["198.51.100.1"]
            asker.socket.close()


def test_an_answer_outside_a_slice_knows_what_the_other_worker_has_committed(
    tmp_path: Path,
) -> None:
    """HA Notify for a node of an IMS that is silent is answered by a timer, seconds later."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        dns = free_port()
        tables = {
            "ims": {"workers": "2"},
            "dns": {"servers": f'["127.0.0.1:{dns}"]'},
            "responder": {
                "listen": f'"127.0.0.1:{dns}"',
                "zones": '["4.10.in-addr.arpa"]',
                "records": f'{{"10.4.0.0/16" = "10 {silent.getsockname()[1]} 127.0.0.1"}}',
            },
            "protocol": {"initial_timeout": "0.3", "maximum_timeout": "0.3"},
        }
        with running(tmp_path, KEYS, tables) as server, Client(server.port) as node:
            assert node.update(KEYS[0], ["198.51.100.1"]) is not None
            notices = [
                (
                    Client(server.port),
                    HaNotify(
                        number,
                        parse_address(f"10.4.0.{number}"),
                        KEYS[0].home_address,
                        nonce=b"nonce 08",
                    ),
                )
                for number in range(1, 13)
            ]
            for notifier, notice in notices:
                notifier.send(notice)
            wait_until(lambda: ask(server.control)["asked_other_ims"] >= len(notices))
            assert node.update(KEYS[0], ["198.51.100.2"]) is not None
            for notifier, notice in notices:
                acknowledged = notifier.answer(notice)
                assert acknowledged is not None
                assert acknowledged.code == Code.TRY_AGAIN
                assert addresses(acknowledged) == ["198.51.100.2"]
                notifier.socket.close()
