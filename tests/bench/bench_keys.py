"""Keys of an IMS: a file of a million, and look-ups among them.

    pytest tests/bench/bench_keys.py --benchmark-columns=min,median --benchmark-json=keys.json

Memory is in the extra info of the JSON file.
"""

import random
import tracemalloc
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Final

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from mat.address import Address
from mat.messages import EXACT
from mat_real.key_changes import new_keys
from mat_real.key_file import Entry, Home
from mat_real.keys import KeyRing, load

MILLION: Final = 1_000_000


def homes(count: int) -> list[Home]:
    start = int.from_bytes(bytes(10) + b"\xff\xff\x0a\0\0\0")
    return [(Address((start + i).to_bytes(16)), EXACT) for i in range(count)]


@pytest.fixture(scope="module")
def million(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("keys") / "keys"
    new_keys(path, homes(MILLION), 0.0)
    yield path
    path.unlink()


ONCE: Final = pytest.mark.benchmark(min_rounds=1, max_time=0.1)
"""What takes seconds is not repeated."""


@pytest.mark.benchmark(min_rounds=3, max_time=0.1)
def test_load_a_million_keys(benchmark: BenchmarkFixture, million: Path) -> None:
    ring = benchmark(load, million)
    assert len(ring) == MILLION


@ONCE
def test_make_a_million_keys(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    wanted = homes(MILLION)
    paths = (tmp_path / f"{n}.keys" for n in range(10))
    made = benchmark(lambda: new_keys(next(paths), wanted, 0.0))
    assert len(made.ids) == MILLION
    for path in tmp_path.iterdir():
        path.unlink()


@ONCE
def test_add_a_key_to_a_million(benchmark: BenchmarkFixture, million: Path) -> None:
    others = iter(homes(MILLION + 10)[MILLION:])
    made = benchmark(lambda: new_keys(million, [next(others)], 0.0))
    assert len(made.ids) == 1


def ring_of(ids: Sequence[int]) -> KeyRing:
    secret = bytes(32)
    return KeyRing(Entry(i, *home, secret) for i, home in zip(ids, homes(len(ids)), strict=True))


IDS: Final = {
    "in a row": range(1, MILLION + 1),
    "1 in 100 missing": [i for i in range(1, MILLION + 1) if i % 100],
    "at random": sorted(random.Random(1).sample(range(1 << 32), MILLION)),
}


@pytest.mark.parametrize("ids", IDS.values(), ids=IDS.keys())
@pytest.mark.parametrize("of", [10_000, MILLION], ids="one of {}".format)
def test_look_up(benchmark: BenchmarkFixture, ids: Sequence[int], of: int) -> None:
    """Time of 1000 look-ups. Of 10,000 keys, all are kept as objects; of a million, hardly any."""
    ring = ring_of(ids)
    upcoming = cycle(random.Random(2).sample(ids, min(of, len(ids))))

    def look_up() -> None:
        for key_id in islice(upcoming, 1000):
            ring(key_id)

    for _ in range(of // 1000):
        look_up()
    benchmark(look_up)


@ONCE
def test_memory_of_a_key(benchmark: BenchmarkFixture) -> None:
    """Reported as extra info: bytes per key, without those kept as objects."""

    def size(ids: Sequence[int]) -> float:
        tracemalloc.start()
        ring = ring_of(ids)
        found, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return found / len(ring)

    benchmark.extra_info["bytes per key"] = round(benchmark(size, range(1, 100_001)))
