"""Sweeps on a real Dask cluster of several worker processes, some of which do not live long."""

import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from mat_sim.study import Precision, StudyError, simulate, sweep
from tests.sim.study_helpers import LONG, SHORT, kill, meanwhile, runs_in, tree, wait_for

distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
VARY = {"network.1.delay": [0.01, 0.02, 0.03]}


@pytest.fixture(scope="module")
def cluster() -> Generator[Any]:
    with distributed.LocalCluster(
        n_workers=3, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as started:
        yield started


@pytest.fixture
def client(cluster: Any) -> Generator[Any]:
    with distributed.Client(cluster) as connected:
        yield connected


def test_a_cluster_gives_equal_bytes(client: Any, tmp_path: Path) -> None:
    sweep(SHORT, VARY, runs=3, out=tmp_path / "cluster", client=client)
    sweep(SHORT, VARY, runs=3, out=tmp_path / "here", processes=1)
    assert tree(tmp_path / "cluster") == tree(tmp_path / "here")


def test_a_killed_worker_loses_nothing(client: Any, tmp_path: Path) -> None:
    pids = client.run(os.getpid)
    assert len(set(pids.values())) == 3
    assert os.getpid() not in pids.values()
    out = tmp_path / "cluster"

    def strike() -> None:
        wait_for(lambda: len(runs_in(out)) >= 2, "no runs")
        assert len(runs_in(out)) < 18
        kill(next(iter(pids.values())))

    with meanwhile(strike):
        sweep(LONG, VARY, runs=6, out=out, client=client)
    sweep(LONG, VARY, runs=6, out=tmp_path / "here", processes=1)
    assert tree(out) == tree(tmp_path / "here")


def test_an_address_is_enough(cluster: Any, tmp_path: Path) -> None:
    precision = Precision(0.2, least=3, most=8)
    simulate(SHORT, precision=precision, client=cluster.scheduler_address).write(tmp_path / "a")
    simulate(SHORT, precision=precision, processes=1).write(tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_a_cluster_that_goes_away_is_said_and_the_sweep_goes_on_without_it(tmp_path: Path) -> None:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as leaving:
        out = tmp_path / "cluster"

        def leave() -> None:
            wait_for(lambda: len(runs_in(out)) >= 2, "no runs")
            leaving.close()

        with (
            distributed.Client(leaving.scheduler_address) as client,
            meanwhile(leave),
            pytest.raises(StudyError, match="the Dask cluster is gone"),
        ):
            sweep(LONG, VARY, runs=20, out=out, client=client)
    done = {path: path.stat().st_ino for path in runs_in(out)}
    assert 2 <= len(done) < 60
    found = sweep(LONG, VARY, runs=3, out=out, processes=1)
    assert found.cases["runs"].tolist() == [3, 3, 3]
    assert all(path.stat().st_ino == inode for path, inode in done.items())


def test_an_address_without_a_scheduler_is_said(unused_port: int) -> None:
    with pytest.raises(StudyError, match=f"127.0.0.1:{unused_port}: no Dask scheduler answers"):
        simulate(SHORT, client=f"tcp://127.0.0.1:{unused_port}")
    with pytest.raises(StudyError, match="no Dask scheduler answers"):
        simulate(SHORT, client="nonsense://x")


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_what_is_no_client_is_said() -> None:
    with pytest.raises(StudyError, match=r"client is 5; must be a dask\.distributed Client"):
        simulate(SHORT, client=5)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(StudyError, match=r"pip install 'mat-mobility\[cluster\]'"):
        simulate(SHORT, client="tcp://127.0.0.1:1")
