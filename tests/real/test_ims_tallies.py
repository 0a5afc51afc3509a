"""What the workers count, and what status and metrics make of it."""

import mmap
from pathlib import Path
from typing import Any

import pytest

from mat_real.ims.config import Configuration
from mat_real.ims.metrics import Counters
from mat_real.ims.status import snapshot
from mat_real.ims.tallies import BOUNDS, GAUGES, Tallies, size

REQUEST = "MA Query"


@pytest.fixture
def tallies() -> Tallies:
    return Tallies(mmap.mmap(-1, size(1)), 0)


def bucket(tallies: Tallies) -> int:
    """The one bucket with an answer in it."""
    (found,) = (n for n in range(len(BOUNDS) + 1) if tallies["response", REQUEST, str(n)])
    return found


def quantiles(tallies: Tallies, folder: Path) -> dict[str, float | None]:
    config = folder / "ims.toml"
    config.write_text('[ims]\nzones = ["10.1.0.0/16"]\n')
    found: Any = snapshot(Configuration(config, ()).config, [{}], [tallies], 1.0)["requests"]
    response: dict[str, float | None] = found[REQUEST]["response"]
    return response


@pytest.mark.parametrize("place", range(len(BOUNDS)))
def test_a_bucket_reaches_up_to_its_bound_and_includes_it(tallies: Tallies, place: int) -> None:
    tallies.responded(REQUEST, BOUNDS[place])
    assert bucket(tallies) == place


@pytest.mark.parametrize("place", range(len(BOUNDS)))
def test_what_is_longer_is_in_the_next_bucket(tallies: Tallies, place: int) -> None:
    tallies.responded(REQUEST, BOUNDS[place] + 1e-6)
    assert bucket(tallies) == place + 1


def test_a_quantile_is_the_bound_of_its_bucket(tallies: Tallies, tmp_path: Path) -> None:
    tallies.responded(REQUEST, 100e-6, 99)
    tallies.responded(REQUEST, 1.5)
    found = quantiles(tallies, tmp_path)
    assert found == {"p50": 128e-6, "p99": 128e-6, "p99.9": pytest.approx(2.097152)}


def test_there_is_no_quantile_without_answers_nor_above_all_bounds(
    tallies: Tallies, tmp_path: Path
) -> None:
    assert set(quantiles(tallies, tmp_path).values()) == {None}
    tallies.responded(REQUEST, 3600.0)
    assert set(quantiles(tallies, tmp_path).values()) == {None}


def test_a_reload_by_all_workers_counts_once() -> None:
    memory = mmap.mmap(-1, size(2))
    workers = [Tallies(memory, number) for number in range(2)]
    for one in workers:
        one.add(("reloads",), 3)
    (reloads,) = (m for m in Counters(workers).collect() if m.name == "mat_ims_reloads")
    assert [sample.value for sample in reloads.samples] == [3]


def test_who_keeps_mappings_in_redis_does_not_say_that_there_are_none(
    tallies: Tallies, tmp_path: Path
) -> None:
    config = tmp_path / "ims.toml"
    config.write_text(
        '[ims]\nzones = ["10.1.0.0/16"]\n[store]\nkind = "redis"\nurl = "redis://127.0.0.1"\n'
    )
    found: Any = snapshot(Configuration(config, ()).config, [{}], [tallies], 1.0)["workers"]
    assert found[0]["mappings"] is None
    assert found[0]["keys"] == 0


def test_gauges_are_cleared_and_counters_are_not(tallies: Tallies) -> None:
    for name in GAUGES:
        tallies.set(("gauge", name), 7)
    tallies.add(("reloads",), 3)
    tallies.clear_gauges()
    assert [tallies["gauge", name] for name in GAUGES] == [0] * len(GAUGES)
    assert tallies["reloads",] == 3
