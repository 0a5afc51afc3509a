"""Two replicas, one of which dies: nodes go on registering, moving and finding each other."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mat.effects import EventKind
from mat.messages import Code
from mat.parameters import Parameters
from tests.real.ims_server import (
    Client,
    Server,
    addresses,
    free_port,
    key,
    started,
    write_keys,
)
from tests.real.node_driver import Lab

MN, CN, OTHER = key(1, "10.1.0.1"), key(2, "10.1.0.2"), key(3, "10.1.0.3")
HERE, THERE, YONDER = "198.51.100.1", "198.51.100.2", "198.51.100.3"
SHORT_LIVED = Parameters.with_overrides({"registration_lifetime": 6.0})


@dataclass
class Replica:
    """One server of the two, at an address of its own, with a store of its own."""

    folder: Path
    address: str
    port: int
    server: Server | None = None

    def start(self) -> None:
        listen = {"ims": {"listen": f'["{self.address}:{self.port}"]'}}
        self.server = started(self.folder, self.port, listen)

    def kill(self) -> None:
        assert self.server is not None
        self.server.kill()
        self.server = None

    def knows(self, moved: str, home: str = "10.1.0.1") -> bool:
        """Whether it answers with this mapping."""
        with Client(self.port, self.address) as client:
            answer = client.query(home)
            assert answer is not None
            return answer.code == Code.SUCCEEDED and addresses(answer) == [moved]


@contextmanager
def replicas(folder: Path) -> Generator[list[Replica]]:
    made: list[Replica] = []
    try:
        for number in (1, 2):
            place = folder / str(number)
            place.mkdir()
            write_keys(place / "keys", [MN, CN, OTHER])
            made.append(Replica(place, f"127.0.0.{number}", free_port()))
            made[-1].start()
        yield made
    finally:
        for one in made:
            if one.server is not None:
                one.kill()


@pytest.mark.parametrize("dying", [0, 1])
def test_when_one_of_two_replicas_dies_nodes_carry_on(tmp_path: Path, dying: int) -> None:
    with (
        replicas(tmp_path) as both,
        Lab(*((one.address, one.port) for one in both)) as lab,
    ):
        mn = lab.host(MN, HERE, parameters=SHORT_LIVED)
        cn = lab.host(CN, "203.0.113.2")
        lab.run_until(lambda: all(one.knows(HERE) for one in both))
        lab.run_until(lambda: all(one.knows("203.0.113.2", "10.1.0.2") for one in both))
        cn.talk("first", "10.1.0.1")
        lab.run_until(lambda: cn.released == ["first"])
        assert cn.where_is("10.1.0.1") == HERE

        dead, alive = both[dying], both[1 - dying]
        dead.kill()
        # MN: a move, and two refreshes of it.
        mn.move(THERE)
        lab.run_until(lambda: mn.registered == [THERE] and alive.knows(THERE))
        lab.run_until(lambda: cn.where_is("10.1.0.1") == THERE)
        refreshes = mn.events[EventKind.REGISTERED]
        lab.run_until(lambda: mn.events[EventKind.REGISTERED] >= refreshes + 2)
        assert (mn.registered, cn.where_is("10.1.0.1")) == ([THERE], THERE)
        # CN: one that has never spoken to either replica, nor with the MN.
        other = lab.host(OTHER, "203.0.113.3")
        other.talk("second", "10.1.0.1")
        lab.run_until(lambda: other.released == ["second"])
        assert other.where_is("10.1.0.1") == THERE
        assert other.events[EventKind.SILENT] == 0
        assert other.dropped == cn.dropped == []

        # What comes back knows at best the mapping of before. It is told, and takes part again.
        dead.start()
        mn.move(YONDER)
        lab.run_until(lambda: cn.where_is("10.1.0.1") == YONDER)
        lab.run_until(lambda: other.where_is("10.1.0.1") == YONDER)
        lab.run_until(lambda: all(one.knows(YONDER) for one in both))
        assert mn.events[EventKind.REGISTRATION_REFUSED] == 0


def test_what_a_replica_missed_while_it_was_dead_is_not_used_again(tmp_path: Path) -> None:
    """It comes back with an older version, and is the first in the order of precedence."""
    with (
        replicas(tmp_path) as (first, second),
        Lab((first.address, first.port), (second.address, second.port)) as lab,
    ):
        mn = lab.host(MN, HERE)
        cn = lab.host(CN, "203.0.113.2")
        lab.run_until(lambda: first.knows(HERE) and second.knows(HERE))
        first.kill()
        mn.move(THERE)
        lab.run_until(lambda: second.knows(THERE))
        cn.talk("packet", "10.1.0.1")
        lab.run_until(lambda: cn.released == ["packet"])
        assert cn.where_is("10.1.0.1") == THERE
        first.start()
        # The update of the move is retransmitted until this replica has it too.
        assert first.knows(HERE)
        # The next refresh, 54 s after the move or later, would tell it anyway.
        lab.run_until(lambda: first.knows(THERE), limit=40)
        assert cn.where_is("10.1.0.1") == THERE
        assert mn.registered == [THERE]
