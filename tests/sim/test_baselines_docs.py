"""docs/baselines.md says what the machines do."""

import re
from pathlib import Path

from mat_sim.baselines import Lin6, MobileIpv4, MobileIpv6, MobilePpc, System, mobile_ipv6
from mat_sim.baselines import _datagram as headers
from tests.sim.baselines_world import A1, B1, CN, HOME, MN, SERVER, World

TEXT = (Path(__file__).parents[2] / "docs" / "baselines.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (\w[^|*]+) \| (\w+) → (\w+) \| [^|]+ \| (\d+) \| ([^|]+) \|$", re.MULTILINE)


def documented() -> set[tuple[str, str, str, int]]:
    """Type, from, to and size of every message in the tables."""
    return {(name, origin, to, int(size)) for name, origin, to, size, _ in ROW.findall(TEXT)}


def seen(system: System) -> set[tuple[str, str, str, int]]:
    """Of every message of a handover, with a first registration and a lost Binding Update."""
    world = World(system)
    world.host(CN)
    world.host(MN, A1)
    world.run(4.0)
    world.flow(MN, CN, 4.0, 20.0)
    world.flow(CN, MN, 4.0, 20.0)
    world.run(10.0)
    world.move(world.hosts[MN], B1)
    world.run(12.0)
    world.lose = lambda datagram: datagram.name == "Binding Update" and datagram.destination == CN
    world.move(world.hosts[MN], A1)
    world.run(14.0)
    return set(world.signalling())


def test_the_tables_have_every_message_with_its_hop_and_length() -> None:
    acknowledged = MobileIpv6([HOME], mobile_ipv6.Parameters(acknowledge=True))
    systems: list[System] = [
        MobileIpv4([HOME]),
        MobileIpv6([HOME]),
        acknowledged,
        Lin6([HOME]),
        MobilePpc(SERVER),
    ]
    assert documented() == set[tuple[str, str, str, int]]().union(*map(seen, systems))


def test_the_lengths_in_the_tables_are_the_sums_of_their_parts() -> None:
    for name, _, _, size, parts in ROW.findall(TEXT):
        if parts == "the same":
            continue
        lengths = [part.split(" (")[0].split(";")[0] for part in parts.split(", ")]
        total = 0
        for part in lengths:
            numbers = re.search(r"(?:(\d+) × )?(\d+)$", part)
            assert numbers, (name, part)
            total += int(numbers[1] or 1) * int(numbers[2])
        assert total == int(size), name


def test_the_header_overheads_are_those_of_the_tables() -> None:
    extra = dict(re.findall(r"^\| \*([^*]+)\* \| [^|]+\| [^|]+\| \+(\d+) \|", TEXT, re.MULTILINE))
    assert {name: int(size) for name, size in extra.items()} == {
        "IP in IP": headers.IPV4_TUNNEL,
        "tunnel": headers.IPV6_TUNNEL,
        "home address option": headers.HOME_ADDRESS_OPTION,
        "type 2 routing header": headers.ROUTING_HEADER,
    }
