"""Handover latency without load is the sum of its path delays, exactly.

The sums here are written down from docs/protocol.md, sections 8.3 and 8.6, step by step, and know
nothing of the simulator. All times count from when the new address is configured.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path

import pytest

from mat_sim.engine import Run
from tests.sim.test_engine import (
    ADDRESS,
    ASSOCIATE,
    DETECT,
    HARD,
    SEPARATE,
    SHARED,
    SOFT,
    Row,
    handovers,
    records,
    run,
)

SPACING = 0.001
"""Between two packets, s: only where no packet is held, one has to come first."""
BOTH = "0 m1 attach A, 0 m2 attach B, 10 m1 detach A, 10 m1 attach C,10 m2 detach B, 10 m2 attach A"


@dataclass(frozen=True, slots=True)
class Delays:
    """One-way delays to the core, and the time of the DNS for an answer, s."""

    new: float
    """The network that the node moves to."""
    peer: float
    """The correspondent, or the new network of the other mobile node."""
    ims_mn: float
    ims_cn: float
    dns: float
    look_up: float


NEAR = Delays(0.010, 0.004, 0.006, 0.007, 0.008, 0.001)
FAR_SERVERS = Delays(0.003, 0.002, 0.030, 0.045, 0.020, 0.005)
FAR_PEER = Delays(0.007, 0.080, 0.002, 0.001, 0.009, 0.002)
PLACES = {"near": NEAR, "far servers": FAR_SERVERS, "far peer": FAR_PEER}


def options(delays: Delays, *more: str, ims: str) -> tuple[str, ...]:
    servers = [f"ims.0.delay={delays.ims_mn}"]
    if ims is SEPARATE:
        servers.append(f"ims.1.delay={delays.ims_cn}")
    return (
        f"network.1.delay={delays.new}",
        f"network.2.delay={delays.new}",
        f"correspondents.delay={delays.peer}",
        f"dns.delay={delays.dns}",
        f"dns.service={delays.look_up}",
        f"traffic.up={1 / SPACING}",
        f"traffic.down={1 / SPACING}",
        "protocol.minimum_timeout=1",  # nobody is impatient with far servers
        *servers,
        *more,
    )


def after_the_address(row: Row) -> float:
    """How long a handover took from when the address was configured."""
    assert row["outcome"] == "completed"
    assert (row["detect"], row["associate"], row["address"]) == pytest.approx(
        (DETECT, ASSOCIATE, ADDRESS), abs=1e-9
    )
    return float(row["total"]) - DETECT - ASSOCIATE - ADDRESS


def nothing_was_repeated(finished: Run) -> bool:
    return all(row["retransmitted"] == 0 for row in records(finished.results.messages))


# ---- one end moves -------------------------------------------------------------------------------


def notified(d: Delays, *, separate: bool, cached: bool) -> float:
    """Steps 2 to 4, from the registration."""
    if not separate:
        return 2 * (d.new + d.ims_mn)
    asking = 2 * (d.ims_cn + d.ims_mn)
    look_up = 0 if cached else 2 * (d.ims_cn + d.dns) + d.look_up
    return 2 * (d.new + d.ims_cn) + look_up + asking


def learnt(d: Delays) -> float:
    """Steps 2' and 7, from the registration: the peer knows the new address."""
    return (d.new + d.peer) + 2 * (d.peer + d.ims_mn)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("cached", [True, False], ids=["cached", "looked up"])
@pytest.mark.parametrize("ims", [SEPARATE, SHARED], ids=["separate", "shared"])
@pytest.mark.parametrize("moves", [HARD, SOFT], ids=["hard", "soft"])
def test_a_handover_of_mat_ipv4(
    tmp_path: Path, moves: str, ims: str, *, cached: bool, place: str
) -> None:
    d = PLACES[place]
    finished = run(tmp_path, moves, *options(d, f"dns.ttl={3600 * cached}", ims=ims), ims=ims)
    (row,) = handovers(finished)
    registered = 2 * (d.new + d.ims_mn)
    acknowledged = notified(d, separate=ims is SEPARATE, cached=cached)
    # Step 4' lets data go, which the node holds (hard) or sends the old way (soft) until then.
    confirmed = learnt(d) + d.peer + d.new
    data = confirmed + d.new + d.peer
    held = moves is HARD
    assert row["register"] == pytest.approx(registered, abs=1e-9)
    assert row["notify"] == pytest.approx(acknowledged, abs=1e-9)
    least = registered + max(acknowledged, data)
    if held or acknowledged >= data + SPACING:
        assert after_the_address(row) == pytest.approx(least, abs=1e-9)
    else:
        assert least - 1e-9 <= after_the_address(row) < least + SPACING
    assert nothing_was_repeated(finished)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("cached", [True, False], ids=["cached", "looked up"])
@pytest.mark.parametrize("ims", [SEPARATE, SHARED], ids=["separate", "shared"])
@pytest.mark.parametrize("moves", [HARD, SOFT], ids=["hard", "soft"])
def test_a_handover_of_mat_ipv6(
    tmp_path: Path, moves: str, ims: str, *, cached: bool, place: str
) -> None:
    """The mover's packets need not wait: the peer holds them until it has learnt."""
    d = PLACES[place]
    more = (f"dns.ttl={3600 * cached}", "nodes.family=6")
    finished = run(tmp_path, moves, *options(d, *more, ims=ims), ims=ims)
    (row,) = handovers(finished)
    registered = 2 * (d.new + d.ims_mn)
    # The last to arrive is the peer's first packet after it has learnt.
    least = registered + learnt(d) + d.peer + d.new
    assert row["register"] == pytest.approx(registered, abs=1e-9)
    assert "notify" not in row
    assert least - 1e-9 <= after_the_address(row) < least + SPACING
    assert nothing_was_repeated(finished)


def test_the_servers_time_comes_besides(tmp_path: Path) -> None:
    d = NEAR
    times = ("ims.0.service=0.0011", "ims.1.service=0.0013", "ims.0.store=0.0017")
    (row,) = handovers(run(tmp_path, HARD, *options(d, *times, ims=SEPARATE)))
    registered = 2 * (d.new + d.ims_mn) + 0.0011 + 0.0017
    acknowledged = notified(d, separate=True, cached=True) + 2 * 0.0013 + 0.0011
    data = learnt(d) + 0.0011 + 2 * (d.peer + d.new)
    assert after_the_address(row) == pytest.approx(registered + max(acknowledged, data), abs=1e-9)


# ---- both ends move ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mover:
    """One of two nodes that move at the same time: one-way delay of its new network, s."""

    delay: float
    ims: float

    @property
    def registered(self) -> float:
        return 2 * (self.delay + self.ims)

    @property
    def told(self) -> float:
        """When it hears from the IMS: the Ack of step 4, or the answer to its MA Query (8.6)."""
        return self.registered + 2 * (self.delay + self.ims)

    def follows(self, other: "Mover") -> bool:
        """Whether its IMS knows where the other is by then."""
        return other.delay + other.ims < self.registered + self.delay + self.ims


def knows(one: Mover, other: Mover) -> float:
    """When `one` knows where the other is: from its IMS, or because the other speaks first (2')."""
    if one.follows(other):
        return one.told
    heard = other.told + one.delay + other.delay
    return heard + 2 * (one.delay + one.ims)


def confirmed(one: Mover, other: Mover) -> float:
    """When `one` has the other's confirmation (4') of its new address.

    Its first 2' went to an address that the other has left; the next goes out once it knows the new
    one. The other acknowledges once it knows where `one` is.
    """
    way = one.delay + other.delay
    heard = knows(one, other) + way
    asked = heard + 2 * (other.delay + other.ims)
    return max(heard, min(knows(other, one), asked)) + way


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(
    ("first", "second"), [(0.010, 0.005), (0.005, 0.010), (0.020, 0.018), (0.003, 0.050)]
)
def test_both_ends_move_at_the_same_time(
    tmp_path: Path, first: float, second: float, family: int
) -> None:
    d = NEAR
    m1, m2 = Mover(first, d.ims_mn), Mover(second, d.ims_mn)
    more = ("traffic.pairs='mobile'", "correspondents.count=0", f"nodes.family={family}")
    at = (f"network.2.delay={first}", f"network.0.delay={second}")
    found = run(tmp_path, BOTH, *options(d, *more, ims=SHARED), *at, ims=SHARED)
    rows = handovers(found)
    # The last of what both wait for: data in IPv4, and in IPv6 what was held until confirmed.
    way = first + second if family == 4 else 0
    expected = max(confirmed(one, two) for one, two in itertools.permutations((m1, m2))) + way
    for row, mover in zip(rows, (m1, m2), strict=True):
        assert row["register"] == pytest.approx(mover.registered, abs=1e-9)
        if family == 4:
            assert row["notify"] == pytest.approx(mover.told - mover.registered, abs=1e-9)
        assert after_the_address(row) == pytest.approx(expected, abs=1e-9)
    assert nothing_was_repeated(found)
