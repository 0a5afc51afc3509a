"""A node that goes on from what it knew behaves as if nothing had happened."""

from collections.abc import Callable

import pytest

from mat.mapping_table import Mapping
from mat.resumption import Knowledge
from mat.states import PeerState, RegistrationState
from tests.core.test_figures import separate, shared, talking
from tests.core.world import World

QUIET = 5.0


def resumed(world: World, name: str) -> Knowledge:
    """Replace a host's machine by a new one that is told what the old one knew."""
    host = world.hosts[name]
    known = host.machine.knowledge(world.now)
    assert known is not None
    host.machine.retire()
    host.machine = world._machine(host.key, None)
    host.kernel = {}
    world.apply(name, host.machine.resume(world.now, known))
    return known


@pytest.mark.parametrize("make", [separate, shared], ids=["separate", "shared"])
def test_a_handover_after_a_restart_has_the_messages_of_one_without(
    make: Callable[[], World],
) -> None:
    ladders: list[list[str]] = []
    for restarts in (False, True):
        world = talking(make())
        world.run(QUIET)
        if restarts:
            resumed(world, "MN")
            resumed(world, "CN")
        start = world.now
        world.attach("MN", "198.51.100.77")
        world.run(1.0)
        world.send("MN", "CN")
        world.send("CN", "MN")
        world.run(1.0)
        ladders.append(world.messages(start))
        assert len(world.deliveries) == 4
    assert ladders[0] == ladders[1]


def test_nothing_is_sent_on_resumption_and_packets_pass_at_once() -> None:
    world = talking(separate())
    world.run(QUIET)
    start = world.now
    resumed(world, "MN")
    world.send("MN", "CN")
    world.run(0.1)
    assert world.messages(start) == ["MN → CN: data"]


def test_what_was_resumed_is_known_again() -> None:
    world = talking(separate())
    world.attach("MN", "198.51.100.9")
    world.run(QUIET)
    for name in ("MN", "CN"):
        known = resumed(world, name)
        machine = world.hosts[name].machine
        assert machine.knowledge(world.now) == known
        assert machine.registration_state is RegistrationState.REGISTERED
        assert [peer.state for peer in machine.peers()] == [PeerState.ESTABLISHED]
    at_cn = world.hosts["CN"].machine.knowledge(world.now)
    assert at_cn is not None
    assert len(at_cn.left) == 1


def test_the_registration_is_refreshed_and_the_peer_queried_when_due() -> None:
    world = talking(separate())
    world.run(QUIET)
    resumed(world, "MN")
    start = world.now
    for _ in range(70):
        world.send("MN", "CN")
        world.run(1.0)
    sent = world.messages(start)
    assert "MN → IMS_MN: IMS Update" in sent
    assert sent.count("MN → IMS_CN: MA Query") >= 2


def test_there_is_nothing_to_go_on_from_while_something_is_under_way() -> None:
    world = talking(separate())
    world.run(QUIET)
    machine = world.hosts["MN"].machine
    assert machine.knowledge(world.now) is not None
    world.attach("MN", "198.51.100.8")
    assert machine.knowledge(world.now) is None
    world.run(0.03)
    assert machine.knowledge(world.now) is None
    world.run(QUIET)
    assert machine.knowledge(world.now) is not None
    world.attach("MN")
    assert machine.knowledge(world.now) is None


def test_a_mapping_that_ended_during_the_restart_is_asked_for() -> None:
    world = talking(separate())
    world.run(QUIET)
    host = world.hosts["MN"]
    known = host.machine.knowledge(world.now)
    assert known is not None
    assert isinstance(known.peers[0].mapping, Mapping)
    world.release("MN")
    world.run(700.0)
    world.holder[known.own.addresses[0]] = "MN"
    host.machine = world._machine(host.key, None)
    host.kernel = {}
    world.apply("MN", host.machine.resume(world.now, known))
    world.run(1.0)
    start = world.now
    world.send("MN", "CN")
    world.run(1.0)
    assert world.messages(start)[0] == "MN → DNS: DNS"
    assert "MN → CN: data" in world.messages(start)


def test_the_pace_of_messages_is_that_of_a_node_without_a_restart() -> None:
    """Moves follow each other so fast that notices have to wait, however often it restarts."""
    ladders: list[list[tuple[float, str, str, str]]] = []
    for restarts in (False, True):
        world = talking(separate())
        world.run(QUIET)
        start = world.now
        for number in range(8):
            world.attach("MN", f"198.51.100.{80 + number}")
            world.run(0.2)
            for name in ("MN", "CN") if restarts else ():
                if world.hosts[name].machine.knowledge(world.now) is not None:
                    resumed(world, name)
        world.run(3.0)
        ladders.append([line for line in world.log if line[0] >= start])
    assert ladders[0] == ladders[1]
