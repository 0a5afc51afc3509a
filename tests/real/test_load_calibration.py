"""A calibration says how long a worker takes, and the simulator can use what it says."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest

from mat.address import parse_address
from mat.codec import decode, encode
from mat.messages import MaAnswer, MaQuery
from mat_files.distributions import Empirical, parse
from mat_files.scenario import Services, load_scenario
from mat_real.load import echo
from mat_real.load.calibration import KINDS, LAST, POINTS, Calibration, Stage, calibrate
from mat_real.load.forms import Kind
from mat_real.load.play import Player
from mat_real.load.population import LoadError, Target, populate
from mat_sim.engine import simulate
from tests.real.tiny_ims import Faults, TinyIms, some_keys

KEYS = some_keys(300)
SLOW = 0.002
"""Seconds that the slow server takes for each message, at least."""


def measured(ims: TinyIms) -> Calibration:
    targets = [Target(ims.endpoint)]
    population = populate(KEYS, targets, None, np.random.default_rng(1))
    Player(population, targets).register()
    found = calibrate(population, targets[0], alone=50)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def slow() -> Iterator[Calibration]:
    with TinyIms(KEYS, Faults(slow=SLOW)) as ims:
        yield measured(ims)


def test_a_server_that_takes_two_milliseconds_is_said_to(slow: Calibration) -> None:
    for kind in KINDS:
        service = slow.service(kind)
        assert service.mean >= SLOW
        assert service.mean == pytest.approx(1 / slow.stages[kind].rate, rel=0.01)
        assert slow.stages[kind].alone.min() >= SLOW
    assert slow.way < SLOW, "the way does not take what the server does"
    assert slow.path == "median round trip to a server on loopback that does nothing"


def test_distributions_have_their_points_and_do_not_fall(slow: Calibration) -> None:
    for distribution in (*map(slow.service, KINDS), slow.mixed(), slow.store()):
        assert len(distribution.quantiles) == POINTS
        assert list(distribution.quantiles) == sorted(distribution.quantiles)
        assert distribution.quantiles[0] >= 0


def test_the_mixture_has_the_mean_of_its_parts(slow: Calibration) -> None:
    means = [slow.service(kind).mean for kind in KINDS]
    assert slow.mixed().mean == pytest.approx(sum(means) / 3, rel=0.01)


def test_the_file_for_programs_has_every_message_and_how_it_was_measured(slow: Calibration) -> None:
    content = json.loads(slow.as_json())
    assert content["server"] == slow.server
    assert set(content["messages"]) == {"IMS Update", "HA Notify", "MA Query"}
    for kind, name in ((Kind.UPDATE, "IMS Update"), (Kind.QUERY, "MA Query")):
        message = content["messages"][name]
        assert parse({"quantiles": message["service"]["quantiles"]}) == slow.service(kind)
        assert message["service"]["mean"] == slow.service(kind).mean
        assert message["alone"]["samples"] == 50
        assert message["saturated"]["rate"] == pytest.approx(slow.stages[kind].rate, abs=0.1)


def test_the_lines_for_a_scenario_are_ones_that_the_simulator_runs(
    slow: Calibration, tmp_path: Path
) -> None:
    lines = slow.as_toml().decode()
    found = tomllib.loads(lines)
    assert parse(found["service"]).mean == pytest.approx(slow.mixed().mean, rel=1e-3)
    text = 'format = 1\n[scenario]\nname = "calibrated"\nduration = 10.0\n'
    text += f'[nodes]\ncount = 5\n[[network]]\nname = "A"\n[[ims]]\nname = "IMS"\n{lines}'
    (tmp_path / "calibrated.toml").write_text(text)
    scenario = load_scenario(tmp_path / "calibrated.toml")
    assert scenario.ims[0].service == parse(found["service"])
    assert scenario.ims[0].services == Services(
        update=slow.service(Kind.UPDATE),
        notify=slow.service(Kind.NOTIFY),
        query=slow.service(Kind.QUERY),
    )
    busy = simulate(scenario).results.ims
    received = int(busy["received"].sum())
    assert received > 0
    work = float((busy["busy"] * busy["interval"]).sum())
    assert 0.3 * SLOW < work / received < 5 * SLOW


# ---- by hand -------------------------------------------------------------------------------------


def stage(values: list[float], rate: float) -> Stage:
    return Stage(np.array(values), rate, 1000)


def by_hand(update: list[float]) -> Calibration:
    query = [0.0011, 0.0013, 0.0015]
    stages = {
        Kind.UPDATE: stage(update, 500.0),
        Kind.NOTIFY: stage(query, 1000.0),
        Kind.QUERY: stage(query, 2000.0),
    }
    return Calibration("192.0.2.1:49628", "by hand", 0.001, stages)


def test_the_shape_is_what_is_left_of_the_round_trip_and_the_mean_what_a_busy_worker_has() -> None:
    query = by_hand([0.0]).service(Kind.QUERY)
    low, middle, high = (query.quantiles[k] for k in (0, POINTS // 2, -1))
    assert query.mean == pytest.approx(1 / 2000, rel=1e-3)
    assert middle / low == pytest.approx(3, rel=1e-2)
    assert high / low == pytest.approx(1 + 4 * LAST, rel=1e-2)


def test_what_an_update_waits_for_its_store_is_not_its_service_time() -> None:
    # Alone, an MA Query takes 0.3 ms, 0.6 of what it takes of a busy worker: taken for no less.
    quick, waits = by_hand([0.0025, 0.0026, 0.0027]), by_hand([0.013, 0.013, 0.030])
    update, query = waits.service(Kind.UPDATE), waits.service(Kind.QUERY)
    assert update == quick.service(Kind.UPDATE)
    assert update.quantiles == pytest.approx([4 * time for time in query.quantiles], rel=1e-3)
    assert quick.store().mean == 0
    assert waits.store().quantiles[0] == pytest.approx(0.013 - 0.001 - 1 / 500)


def test_a_worker_that_cannot_be_told_from_the_way_has_a_constant_service_time() -> None:
    stages = {kind: stage([0.001] * 3, 2000.0) for kind in KINDS}
    found = Calibration("192.0.2.1:49628", "by hand", 0.001, stages)
    assert found.service(Kind.QUERY) == Empirical((0.0005, 0.0005))
    assert found.mixed().sample(Random(1)) == 0.0005


# ---- around it -----------------------------------------------------------------------------------


@pytest.mark.parametrize("home", ["10.0.0.1", "2001:db8::1"])
def test_the_echo_answers_as_an_ims_would(home: str) -> None:
    query = MaQuery(77, parse_address(home), nonce=b"12345678")
    answer = decode(echo.answer(encode(query)))
    assert isinstance(answer, MaAnswer)
    assert (answer.sequence, answer.code, answer.nonce) == (77, 0, query.nonce)
    assert answer.home_address == query.home_address
    assert answer.mobile_addresses == (query.home_address,)
    assert answer.lifetime > 0


def test_a_server_that_refuses_is_no_base_for_a_calibration() -> None:
    with TinyIms(KEYS) as ims:
        targets = [Target(ims.endpoint)]
        population = populate(some_keys(3), targets, None, np.random.default_rng(1))
        what = "only 0 of \\d+ IMS Update were answered rightly"
        with pytest.raises(LoadError, match=what):
            calibrate(population, targets[0], alone=5)


def test_a_calibration_that_is_stopped_is_none() -> None:
    with TinyIms(KEYS) as ims:
        targets = [Target(ims.endpoint)]
        population = populate(KEYS, targets, None, np.random.default_rng(1))
        Player(population, targets).register()
        before = ims.heard
        stopped = calibrate(
            population, targets[0], alone=50, stopped=lambda: ims.heard >= before + 20
        )
        assert stopped is None


def test_no_date_and_no_name_of_the_host_is_in_the_files(slow: Calibration) -> None:
    assert not re.search(rb"20\d\d-\d\d", slow.as_json() + slow.as_toml())
