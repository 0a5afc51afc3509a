"""A walk from A to B to C and back to A, soft and hard, in both families, as a scenario has it."""

import asyncio
from pathlib import Path

import pytest

from mat_files.scenario import Scenario, load_scenario
from mat_real.control import ask
from mat_real.lab import Lab, Stream, handover_rows, plan_of
from tests.real.ims_server import wait_until
from tests.real.privilege import needs_root

pytestmark = needs_root

SCENARIO = """
format = 1
[scenario]
name = "walks"
duration = 18.0
[movement]
events = "moves.csv"
[nodes]
interfaces = 2
start_attached = true
[traffic]
up = 50
down = 50
"""
NETWORK = """
[[network]]
name = "{name}"
delay = 0.002
detect = 0.01
association = 0.02
"""
SEPARATE = """
[[ims]]
name = "IMS_MN"
serves = "mobile"
[[ims]]
name = "IMS_CN"
serves = "correspondents"
"""
SHARED = """
[[ims]]
name = "IMS"
serves = "all"
"""
# Soft from one interface to the other, then hard on one interface.
MOVES = """t,node,action,network,interface
0,m1,attach,A,0
3,m1,attach,B,1
4.5,m1,detach,A,0
5.5,m1,attach,C,0
7,m1,detach,B,1
8,m1,attach,A,1
9.5,m1,detach,C,0
10.5,m1,detach,A,1
10.5,m1,attach,B,1
13,m1,detach,B,1
13,m1,attach,C,1
15.5,m1,detach,C,1
15.5,m1,attach,A,1
"""
WALK = [("A", "B"), ("B", "C"), ("C", "A")]


def scenario(folder: Path, ims: str, family: int) -> Scenario:
    networks = "".join(NETWORK.format(name=name) for name in "ABC")
    (folder / "moves.csv").write_text(MOVES)
    (folder / "walks.toml").write_text(SCENARIO + networks + ims)
    return load_scenario(folder / "walks.toml", [f"nodes.family={family}"])


def registered(lab: Lab, node: str) -> list[list[str]]:
    """The mobile addresses of a node that its IMS knows, by family."""
    return [home["registered"] for home in ask(lab.control(node), "status")["homes"]]


@pytest.mark.parametrize("ims", [SEPARATE, SHARED], ids=["separate IMS", "a shared IMS"])
def test_a_walk_through_three_networks_and_back_is_survived_in_both_families_soft_and_hard(
    tmp_path: Path, ims: str
) -> None:
    read = {family: scenario(tmp_path, ims, family) for family in (4, 6)}
    with Lab(plan_of(read[4], plain=())) as lab:
        # What it takes, a second or two, is the kernel's.
        lab.run("m1", "sysctl", "-qw", *(f"net.ipv6.conf.eth{i}.accept_dad=0" for i in (0, 1)))
        lab.start_servers()
        for node in ("m1", "CN1"):
            lab.start_node(node)
        wait_until(lambda: all(registered(lab, "CN1")))
        streams: dict[int, list[Stream]] = {
            4: [lab.probe("m1", "CN1", up=0.02, down=0.02)],
            6: [lab.probe("m1", "CN1", up=0.02, down=0.02, family=6)],
        }
        played = asyncio.run(lab.play(read[4]))
        moa = lab.plan.moa("m1", "A", 1)
        # The kernel still has the IPv6 addresses of B and C, which lead nowhere.
        wait_until(lambda: registered(lab, "m1") == [[str(moa.ipv4)], [str(moa.ipv6)]])
        rows = {
            family: handover_rows(read[family], lab.plan, played, streams[family])
            for family in (4, 6)
        }
    for family, found in rows.items():
        walked = [(row["kind"], row["from_network"], row["to_network"]) for row in found]
        assert walked == [(kind, *step) for kind in ("soft", "hard") for step in WALK], family
        assert [row["outcome"] for row in found] == ["completed"] * 6, (family, found)
