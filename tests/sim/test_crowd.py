"""Large populations: what is there only while it is needed, and what makes that quick."""

import gc
from ipaddress import ip_network
from pathlib import Path
from random import Random
from typing import final

import pytest

from mat.address import Address, in_prefix
from mat.effects import NotFound
from mat.messages import MAT_PORT, Endpoint
from mat_files.distributions import Constant, Distribution, Empirical, Exponential, Normal, Uniform
from mat_files.mobility import mobility
from mat_files.scenario import Scenario
from mat_sim.engine import simulate
from mat_sim.engine._clock import Clock, Happening
from mat_sim.engine._draw import Draw
from mat_sim.engine._host import Host
from mat_sim.engine._pool import address_in
from mat_sim.engine._simulation import _World
from mat_sim.engine._zones import Zones

CROWD = """format = 1

[scenario]
name = "crowd"
duration = 40.0

[nodes]
count = 60
interfaces = 1

[movement.crowd]
start = 1.0
window = 10.0

[[network]]
name = "A"
delay = 0.01

[[network]]
name = "B"
delay = 0.01
loss = 0.1

[correspondents]
count = 0

[[ims]]
name = "IMS"
count = 2

[traffic]
pairs = "mobile"
up = 0.0
down = 0.0
established = true
"""


@pytest.fixture
def crowd(tmp_path: Path) -> Scenario:
    path = tmp_path / "crowd.toml"
    path.write_text(CROWD)
    return Scenario.load(path)


def awake(world: _World) -> list[Host]:
    hosts = [host for host in world._mobile if isinstance(host, Host)]
    assert hosts
    return [host for host in hosts if host._machine is not None]


def test_only_machines_with_something_under_way_are_there(crowd: Scenario) -> None:
    moves = mobility(crowd)
    world = _World(crowd, moves, 0, record=False)
    most = 0
    for tenth in range(10, 200):
        world.clock.run(tenth / 10)
        hosts = awake(world)
        for host in hosts:
            assert host._machine is not None
            assert host._machine.knowledge(world.clock.now) is None or host._current is not None
        most = max(most, len(hosts))
    assert 0 < most < 20
    world.clock.run(moves.end)
    assert not awake(world)


def test_a_run_leaves_nothing_to_the_collector(crowd: Scenario) -> None:
    gc.collect()
    gc.disable()
    try:
        simulate(crowd)
        left = [one for one in gc.get_objects() if isinstance(one, Host)]
    finally:
        gc.enable()
    assert not left


@final
class Note(Happening):
    """Writes down when it happened, and may ask for more."""

    def __init__(self, clock: Clock, number: int, notes: list[tuple[float, int]]) -> None:
        self.clock = clock
        self.number = number
        self.notes = notes

    def happen(self) -> None:
        self.notes.append((self.clock.now, self.number))


@pytest.mark.parametrize("scale", [1e-5, 1e-3, 1.0])
def test_things_happen_in_order_of_time_and_of_asking(scale: float) -> None:
    clock, random, notes = Clock(1e3), Random(4), list[tuple[float, int]]()
    asked: list[tuple[float, int]] = []
    for stretch in range(20):
        for _ in range(50):
            time = clock.now + scale * random.choice([0.0, 1.0, random.random(), random.random()])
            asked.append((time, len(asked)))
            clock.at(time, Note(clock, len(asked) - 1, notes))
        clock.run((stretch + 1) * scale / 3)
    clock.run(1e3)
    assert notes == sorted(asked)
    assert clock.happenings == len(asked)


def test_what_is_early_comes_before_what_was_asked_for_before() -> None:
    clock, notes = Clock(10.0), list[tuple[float, int]]()
    clock.at(5.0, Note(clock, 3, notes))
    clock.first_at(5.0, Note(clock, 2, notes))
    clock.early_at(5.0, Note(clock, 1, notes))
    clock.at(10.0, Note(clock, 4, notes))
    clock.run(10.0)
    assert notes == [(5.0, 1), (5.0, 2), (5.0, 3)]


@pytest.mark.parametrize("space", ["0.0.0.0/0", "10.0.0.0/8"])
def test_the_longest_home_prefix_counts(space: str) -> None:
    random, zones = Random(1), Zones()
    whole = ip_network(space)
    known: list[tuple[int, Address, tuple[Endpoint, ...]]] = []
    for number in range(40):
        length = random.randrange(whole.prefixlen, 33)
        network = list(whole.supernet(new_prefix=0).hosts()) if length < 0 else None
        assert network is None
        bits = random.getrandbits(32) >> (32 - length) << (32 - length) if length else 0
        inside = (bits | int(whole.network_address)) if whole.prefixlen else bits
        prefix = Address(bytes(10) + b"\xff\xff" + inside.to_bytes(4))
        servers = (Endpoint(prefix, MAT_PORT, Address(bytes([number]) * 16)),)
        if all((96 + length, prefix) != (other, base) for other, base, _ in known):
            known.append((96 + length, prefix, servers))
            zones.add(prefix, 96 + length, servers)
        for home in (prefix, address_in(whole, random.getrandbits(20))):
            fitting = [one for one in known if in_prefix(home, one[1], one[0])]
            longest = max(fitting, key=lambda one: one[0])[2] if fitting else NotFound.NOT_MAT
            assert zones.find(home) == longest
            assert zones.has(home) == bool(fitting)


@pytest.mark.parametrize(
    "distribution",
    [
        Constant(0.1),
        Uniform(0.2, 0.7),
        Exponential(0.03),
        Normal(0.1, 0.2),
        Empirical((0.1, 0.2, 0.9)),
    ],
)
def test_the_engine_draws_what_the_distribution_draws(distribution: Distribution) -> None:
    ours, theirs = Random(7), Random(7)
    draw = Draw(distribution)
    for _ in range(200):
        assert draw.sample(ours) == distribution.sample(theirs)
