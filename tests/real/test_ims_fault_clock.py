"""The host's clock is set back, or ahead, an hour: no mapping revives, none dies, ages stay right.

The machine's own clock is left alone. What changes is the time of day that a server is told: by a
`sitecustomize` module that shifts `time.time` of its processes. Lifetimes and ages may not come
from there but from the time since boot, which nobody can set.
"""

import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mat.messages import Code, MaAnswer
from mat_real.ims.clock import boot, clock, remembered
from mat_real.store.journal import Journal
from tests.real.ims_server import (
    Client,
    Server,
    addresses,
    free_port,
    key,
    started,
    wait_until,
    write_keys,
)

HOUR = 3600.0
MN, CN, LATE = key(1, "10.1.0.1"), key(2, "10.1.0.2"), key(3, "10.1.0.3")
LIFETIME = 600
SHIFTED = """
import time
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + {shift}
time.time_ns = lambda: _time_ns() + int({shift} * 10**9)
"""


# ---- the clock itself ----------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [-HOUR, HOUR])
def test_as_long_as_the_machine_runs_the_clock_goes_on_as_it_was(
    monkeypatch: pytest.MonkeyPatch, shift: float
) -> None:
    kept = remembered("", 0.0)
    now = clock(kept)
    first, of_day = now(), time.time()
    assert abs(first - of_day) < 60
    monkeypatch.setattr(time, "time", lambda: of_day + shift)
    assert remembered(kept, 0.0) == kept
    assert remembered(kept, first + HOUR) == kept
    second = clock(remembered(kept, first))()
    assert first <= second < first + 60
    assert first <= now() < first + 60


def test_after_a_boot_it_is_the_time_of_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    going_on = remembered("another-boot 5.0", 1_999_999_000.0)
    assert going_on.split()[0] == boot()
    assert 0 <= clock(going_on)() - 2_000_000_000.0 < 60


def test_after_a_boot_with_the_clock_set_back_nothing_lies_in_the_future(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    newest = 2_000_000_000.0
    monkeypatch.setattr(time, "time", lambda: newest - HOUR)
    assert 0 <= clock(remembered("another-boot 5.0", newest))() - newest < 60


# ---- a server ------------------------------------------------------------------------------------


@contextmanager
def at(folder: Path, shift: float, port: int = 0) -> Generator[Server]:
    """A server whose host's clock is so many seconds ahead."""
    place = folder / "shifted"
    place.mkdir(exist_ok=True)
    (place / "sitecustomize.py").write_text(SHIFTED.format(shift=shift))
    search = os.pathsep.join((str(place), os.environ.get("PYTHONPATH", "")))
    server = started(folder, port, wrapper=("env", f"PYTHONPATH={search}"))
    try:
        yield server
        assert server.stop() == 0
    finally:
        if server.process.poll() is None:
            server.kill()


class Watched:
    """The MN's mapping, and between which moments of this test's clock it was registered."""

    def __init__(self, node: Client, moved: str) -> None:
        self._node = node
        self.moved = moved
        self._before = time.monotonic()
        reply = node.update(MN, [moved], lifetime=LIFETIME)
        assert reply is not None
        assert reply.code == Code.SUCCEEDED
        self._after = time.monotonic()

    def answer(self) -> MaAnswer:
        """What is answered about it, after a check of age and lifetime."""
        asked = time.monotonic()
        answer = self._node.query("10.1.0.1")
        answered = time.monotonic()
        assert answer is not None
        assert addresses(answer) == [self.moved]
        age = answer.age / 1000
        assert asked - self._after - 0.001 <= age <= answered - self._before
        # The lifetime is rounded down to the second, the age to the millisecond.
        assert LIFETIME - 1.001 <= answer.lifetime + age <= LIFETIME
        return answer


def has_no_mapping(node: Client, home: str) -> bool:
    answer = node.query(home)
    assert answer is not None
    return answer.code == Code.NO_MAPPING


@pytest.mark.parametrize("shift", [-HOUR, HOUR])
def test_a_restart_at_another_time_of_day_changes_no_mapping(tmp_path: Path, shift: float) -> None:
    write_keys(tmp_path / "keys", [MN, CN, LATE])
    port = free_port()
    with Client(port) as node:
        with at(tmp_path, 0, port):
            assert node.update(CN, ["203.0.113.2"], lifetime=1) is not None
            watched = Watched(node, "198.51.100.1")
            wait_until(lambda: has_no_mapping(node, "10.1.0.2"))
            before = watched.answer()
        with at(tmp_path, shift, port):
            after = watched.answer()
            assert (after.version, after.age >= before.age) == (before.version, True)
            assert has_no_mapping(node, "10.1.0.2")
            # Nodes whose clocks are right go on; one that was never heard of begins.
            watched = Watched(node, "198.51.100.2")
            first = node.update(LATE, ["203.0.113.3"])
            assert first is not None
            assert first.code == Code.SUCCEEDED
        with at(tmp_path, 0, port):
            watched.answer()
            assert has_no_mapping(node, "10.1.0.2")
            assert not has_no_mapping(node, "10.1.0.3")


def test_a_boot_with_the_clock_set_back_revives_nothing_that_ended_before_the_newest(
    tmp_path: Path,
) -> None:
    write_keys(tmp_path / "keys", [MN, CN])
    with at(tmp_path, 0) as server, Client(server.port) as node:
        assert node.update(CN, ["203.0.113.2"], lifetime=1) is not None
        wait_until(lambda: has_no_mapping(node, "10.1.0.2"))
        Watched(node, "198.51.100.1")
        port = server.port
    store = Journal(tmp_path / "ims.store")
    newest, offset = store.latest(), float(store.meta("clock").split()[1])
    store.set_meta("clock", f"another-boot {offset + 5 * HOUR}")
    store.close()
    with at(tmp_path, -HOUR, port), Client(port) as node:
        answer = node.query("10.1.0.1")
        assert addresses(answer) == ["198.51.100.1"]
        assert answer is not None
        # As if no time had passed since the newest registration, and from there on as ever.
        assert LIFETIME - 1.001 <= answer.lifetime + answer.age / 1000 <= LIFETIME
        assert has_no_mapping(node, "10.1.0.2")
        Watched(node, "198.51.100.3").answer()
    store = Journal(tmp_path / "ims.store")
    assert store.meta("clock").split()[0] == boot()
    assert store.latest() >= newest
    store.close()


def test_a_store_made_while_the_clock_was_ahead_costs_nodes_one_exchange(tmp_path: Path) -> None:
    write_keys(tmp_path / "keys", [MN])
    with at(tmp_path, HOUR) as server, Client(server.port) as node:
        refused = node.update(MN, ["198.51.100.1"])
        assert refused is not None
        assert refused.code == Code.STALE
        assert refused.authentication is not None
        floor = refused.authentication.freshness
        taken = node.update(MN, ["198.51.100.1"], floor + 1)
        assert taken is not None
        assert taken.code == Code.SUCCEEDED
        assert addresses(node.query("10.1.0.1")) == ["198.51.100.1"]


def test_a_node_whose_clock_is_set_back_continues_above_what_is_stored(tmp_path: Path) -> None:
    write_keys(tmp_path / "keys", [MN])
    with at(tmp_path, 0) as server, Client(server.port) as node:
        Watched(node, "198.51.100.1")
        an_hour_ago = int((time.time() - HOUR) * (1 << 32))
        refused = node.update(MN, ["198.51.100.2"], an_hour_ago)
        assert refused is not None
        assert refused.code == Code.STALE
        assert refused.authentication is not None
        assert addresses(node.query("10.1.0.1")) == ["198.51.100.1"]
        taken = node.update(MN, ["198.51.100.2"], refused.authentication.freshness + 1)
        assert taken is not None
        assert taken.code == Code.SUCCEEDED
        assert addresses(node.query("10.1.0.1")) == ["198.51.100.2"]
