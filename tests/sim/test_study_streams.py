"""Streams of randomness by seed, run and name: distinct, and the same everywhere."""

import itertools
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest
from numpy.random import SeedSequence

from mat_files.streams import array_stream, random_stream, seed_sequence

ROOT = Path(__file__).parents[2]
KEYS = list(itertools.product((0, 1, 2**70), (0, 1, 7), ("", "network", "MN1", "MN11", "IMS_é")))
PROGRAM = """
from mat_files.streams import array_stream, random_stream
print(random_stream(5, 3, "network").random(), array_stream(5, 3, "network").random())
"""


def prefix(key: tuple[int, int, str]) -> list[float]:
    stream = random_stream(*key)
    return [stream.random() for _ in range(64)]


def test_other_seeds_runs_and_names_share_no_draw() -> None:
    draws = [draw for key in KEYS for draw in prefix(key)]
    assert len(set(draws)) == len(KEYS) * 64
    arrays = np.concatenate([array_stream(*key).random(64) for key in KEYS])
    assert len(np.unique(arrays)) == len(KEYS) * 64


def test_streams_do_not_correlate() -> None:
    draws = np.array([[stream.random() for _ in range(2000)] for stream in map_streams(20)])
    others = np.corrcoef(draws)[~np.eye(20, dtype=bool)]
    assert np.abs(others).max() < 4.5 / np.sqrt(2000)


def map_streams(runs: int) -> list[Random]:
    return [random_stream(1, run, "network") for run in range(runs)]


def test_equal_keys_give_equal_streams() -> None:
    assert prefix((1, 2, "dns")) == prefix((1, 2, "dns"))


def test_a_run_is_a_child_of_the_seed_and_its_streams_are_below_it() -> None:
    sequence = seed_sequence(9, 4, "traffic")
    child = SeedSequence(9).spawn(5)[4]
    assert sequence.entropy == child.entropy
    assert sequence.spawn_key[:1] == child.spawn_key


@pytest.mark.parametrize("hash_seed", ["0", "1234"])
def test_another_process_has_the_same_streams(hash_seed: str) -> None:
    folders = os.pathsep.join(str(ROOT / name) for name in (".", "sim", "files"))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": folders},
        capture_output=True,
        text=True,
        check=True,
    )
    here = (random_stream(5, 3, "network").random(), array_stream(5, 3, "network").random())
    assert tuple(map(float, done.stdout.split())) == here


def test_the_numbers_stay_those_that_earlier_versions_drew() -> None:
    assert random_stream(1, 0, "network").random() == 0.39012494239304607
    assert float(array_stream(1, 0, "network").random()) == 0.5609528956888069
