"""A full disk and a read-only one: try again, or a clear refusal, and never a wrong answer."""

import os
import random
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mat.messages import Code
from tests.real.disks import FailingDisk, fill, mount, small_disk
from tests.real.ims_server import (
    Client,
    Server,
    addresses,
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

MN, CN = key(1, "10.1.0.1"), key(2, "10.1.0.2")
KEYS = [key(number, f"10.1.0.{number}") for number in range(1, 21)]
ON_DISK = {"store": {"path": '"disk/ims.store"'}}
REFUSES = "the store does not take updates"
WORKS = "the store takes updates again"


@pytest.fixture
def disk(tmp_path: Path) -> Generator[Path]:
    with small_disk(tmp_path / "disk") as made:
        yield made


@pytest.fixture
def failing(tmp_path: Path) -> Generator[FailingDisk]:
    made = FailingDisk(tmp_path)
    yield made
    made.unmount()


def code_of(node: Client, moved: str, version: int = 0) -> int:
    """What an update of the MN is answered with."""
    reply = node.update(MN, [moved], version=version)
    assert reply is not None
    return reply.code


def fill_for_good(disk: Path, node: Client) -> Path:
    """Fill a disk, and use up what the store's files have room for."""
    ballast = fill(disk)
    for turn in range(1000):
        if code_of(node, f"198.51.100.{turn % 100 + 100}") == Code.TRY_AGAIN:
            return ballast
    raise AssertionError("the disk is not full")


def end(server: Server) -> None:
    if server.process.poll() is None:
        server.kill()


def test_on_a_full_disk_updates_have_to_be_tried_again_and_queries_are_answered(
    tmp_path: Path, disk: Path
) -> None:
    with running(tmp_path, [MN, CN], ON_DISK) as server, Client(server.port) as node:
        assert node.update(CN, ["203.0.113.2"]) is not None
        ballast = fill_for_good(disk, node)
        known = node.query("10.1.0.1")
        for _ in range(20):
            assert code_of(node, "198.51.100.1") == Code.TRY_AGAIN
            # The machine's way to the store, beside the express lane's.
            assert code_of(node, "198.51.100.1", version=7) == Code.TRY_AGAIN
            withdrawal = node.update(CN, [])
            assert withdrawal is not None
            assert withdrawal.code == Code.TRY_AGAIN
            assert addresses(node.query("10.1.0.1")) == addresses(known)
            assert addresses(node.query("10.1.0.2")) == ["203.0.113.2"]
        wait_until(lambda: f"{REFUSES}: database or disk is full" in server.log())
        assert ask(server.control)["store_unavailable"] >= 60

        ballast.unlink()
        assert code_of(node, "198.51.100.1") == Code.SUCCEEDED
        assert addresses(node.query("10.1.0.1")) == ["198.51.100.1"]
        wait_until(lambda: WORKS in server.log())
        server.kill()
        again = started(tmp_path, server.port, ON_DISK)
        assert addresses(node.query("10.1.0.1")) == ["198.51.100.1"]
        assert addresses(node.query("10.1.0.2")) == ["203.0.113.2"]
        assert again.stop() == 0


def test_a_disk_that_fills_up_and_is_cleared_under_load_loses_nothing(
    tmp_path: Path, disk: Path
) -> None:
    chance = random.Random(4)
    write_keys(tmp_path / "keys", KEYS)
    server = started(tmp_path, tables=ON_DISK)
    try:
        with Walkers(server.port, KEYS, tolerates={Code.TRY_AGAIN}) as walkers:
            for turn in range(6):
                time.sleep(chance.uniform(0.1, 0.4))
                before = ask(server.control)["store_unavailable"]
                ballast = fill(disk)
                wait_until(lambda: ask(server.control)["store_unavailable"] > before)  # noqa: B023
                if turn % 2:
                    server.kill()
                    ballast.unlink()
                    server = started(tmp_path, server.port, ON_DISK)
                else:
                    ballast.unlink()
                walkers.verify(server.port)
    finally:
        end(server)


def refusal(tmp_path: Path) -> str:
    """What a server says that does not start on the disk."""
    tried = serve(configuration(tmp_path, free_port(), ON_DISK))
    assert tried.returncode == 1
    assert "Traceback" not in tried.stderr
    return tried.stderr


def test_a_server_does_not_start_on_a_full_disk_and_says_so(tmp_path: Path, disk: Path) -> None:
    write_keys(tmp_path / "keys", [MN])
    (disk / "ims.store.lock").touch()
    ballast = fill(disk)
    assert "ims.store: cannot be made (" in refusal(tmp_path)
    assert "and is not full" in refusal(tmp_path)
    assert not (disk / "ims.store").exists()
    ballast.unlink()
    with running(tmp_path, [MN], ON_DISK) as server, Client(server.port) as node:
        assert code_of(node, "198.51.100.1") == Code.SUCCEEDED
        assert server.stop() == 0
        ballast = fill(disk)
        said = refusal(tmp_path)
        assert "ims.store: cannot be used as a store (" in said
        assert "and is not full" in said
        ballast.unlink()
        again = started(tmp_path, server.port, ON_DISK)
        assert addresses(node.query("10.1.0.1")) == ["198.51.100.1"]
        assert again.stop() == 0


def test_a_server_does_not_start_on_a_read_only_disk_and_says_so(
    tmp_path: Path, disk: Path
) -> None:
    with running(tmp_path, [MN], ON_DISK) as server, Client(server.port) as node:
        assert code_of(node, "198.51.100.1") == Code.SUCCEEDED
        assert server.stop() == 0
        before = (disk / "ims.store").read_bytes()
        mount("-o", "remount,ro", str(disk))
        said = refusal(tmp_path)
        assert "Read-only file system" in said
        assert "can be written" in said
        assert (disk / "ims.store").read_bytes() == before
        mount("-o", "remount,rw", str(disk))
        again = started(tmp_path, server.port, ON_DISK)
        assert addresses(node.query("10.1.0.1")) == ["198.51.100.1"]
        assert again.stop() == 0


def test_a_disk_that_becomes_read_only_is_a_reason_to_try_again(
    tmp_path: Path, failing: FailingDisk
) -> None:
    write_keys(tmp_path / "keys", KEYS)
    server = started(tmp_path, tables=ON_DISK)
    try:
        with Client(server.port) as node:
            assert code_of(node, "198.51.100.1") == Code.SUCCEEDED
            assert node.update(CN, ["203.0.113.2"]) is not None
            failing.fail()
            for _ in range(20):
                assert code_of(node, "198.51.100.2") == Code.TRY_AGAIN
                assert addresses(node.query("10.1.0.1")) == ["198.51.100.1"]
                assert addresses(node.query("10.1.0.2")) == ["203.0.113.2"]
            wait_until(lambda: REFUSES in server.log())
            assert "Traceback" not in server.log()
            server.kill()
            assert "Read-only file system" in refusal(tmp_path)
            failing.unmount()
            failing.mount()
            server = started(tmp_path, server.port, ON_DISK)
            assert addresses(node.query("10.1.0.1")) == ["198.51.100.1"]
            assert addresses(node.query("10.1.0.2")) == ["203.0.113.2"]
            assert code_of(node, "198.51.100.2") == Code.SUCCEEDED
    finally:
        end(server)


def test_a_store_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    with running(tmp_path, [MN]) as server, Client(server.port) as node:
        assert code_of(node, "198.51.100.1") == Code.SUCCEEDED
        assert server.stop() == 0
    store = tmp_path / "ims.store"
    with not_to_be_written(store):
        tried = serve(configuration(tmp_path, free_port()))
    assert tried.returncode == 1
    assert "ims.store: cannot be used as a store (" in tried.stderr
    assert "can be written" in tried.stderr
    assert "Traceback" not in tried.stderr
    again = started(tmp_path, server.port)
    with Client(server.port) as node:
        assert addresses(node.query("10.1.0.1")) == ["198.51.100.1"]
    assert again.stop() == 0


@contextmanager
def not_to_be_written(file: Path) -> Generator[None]:
    """A file that may be read only; root is stopped by nothing but the immutable flag."""
    if os.geteuid():
        file.chmod(0o400)
        yield
        file.chmod(0o600)
        return
    if subprocess.run(["chattr", "+i", str(file)], capture_output=True, check=False).returncode:
        pytest.skip("this file system has no immutable files")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(file)], check=True)
