"""`mat lab run` and `mat sim compare`: one scenario in the simulator and in the lab."""

import csv
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mat_files.results import Results
from mat_files.scenario import load_scenario
from mat_real.lab import LabError, plan_of
from mat_real.namespaces import NAMED
from tests.real.ims_server import MAIN
from tests.real.privilege import needs_root

SCENARIO = """
format = 1
[scenario]
name = "beside"
duration = 11.0
[movement]
events = "moves.csv"
[nodes]
interfaces = 2
[[network]]
name = "A"
delay = 0.006
detect = 0.02
association = 0.05
address = 0.1
[[network]]
name = "B"
delay = 0.012
detect = 0.02
association = 0.05
address = 0.1
[[ims]]
name = "IMS_MN"
serves = "mobile"
delay = 0.005
[[ims]]
name = "IMS_CN"
serves = "correspondents"
delay = 0.002
[traffic]
up = 100
down = 100
"""
MOVES = """t,node,action,network
0,m1,attach,A
2.5,m1,attach,B
4.5,m1,detach,A
6.5,m1,detach,B
6.5,m1,attach,A
8.5,m1,detach,A
8.8,m1,attach,B
"""
MAT = (sys.executable, "-c", MAIN)
OWN = ("associate", "address", "register", "notify")
"""Parts whose share of the lab is known, so that what is left is exact."""


def written(folder: Path) -> Path:
    (folder / "moves.csv").write_text(MOVES)
    path = folder / "beside.toml"
    path.write_text(SCENARIO)
    return path


def mat(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [*MAT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that `mat sim compare --out` has written."""
    folder = tmp_path_factory.mktemp("compared")
    scenario, out = written(folder), folder / "out"
    done = mat("sim", "compare", scenario, "--net", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "mobile nodes: 1, correspondents: 1; 11 s of movement in real time" in done.stderr
    assert "handovers: 3 (3 completed)" in done.stderr
    assert "Completed hard handovers" in done.stdout
    return out


@needs_root
def test_without_what_the_lab_adds_itself_its_handovers_are_those_of_the_simulator(
    compared: Path,
) -> None:
    found = {(row["kind"], row["column"]): row for row in rows(compared / "comparison.csv")}
    for kind in ("soft", "hard"):
        for part in OWN:
            row = found[kind, part]
            assert row["agrees"] == "yes", (kind, part, row["first_median"], row["second_median"])
        # With a packet each 10 ms.
        assert abs(float(found[kind, "first_packet"]["difference"])) < 0.011
    assert found["hard", "away"]["agrees"] == "yes"


@needs_root
def test_in_the_lab_everything_takes_as_long_as_in_the_simulator_at_least(compared: Path) -> None:
    one, other = (Results.read(compared / side).handovers for side in ("simulator", "lab"))
    assert list(one["kind"]) == list(other["kind"]) == ["soft", "hard", "hard"]
    assert list(other["outcome"]) == ["completed"] * 3
    assert list(one["to_network"]) == list(other["to_network"])
    # A worker of the simulator's IMS takes 50 µs for a message; a packet comes every 10 ms.
    for part, slack in (("register", 0.001), ("notify", 0.001), ("first_packet", 0.011)):
        assert all(other[part] > one[part] - slack), part
    for way in ("up", "down"):
        interruption = f"interruption_{way}"
        hard = one["kind"] == "hard"
        assert all(other[interruption][hard] > one[interruption][hard] - 0.011)


@needs_root
def test_data_of_the_lab_is_beside_the_simulator_s(compared: Path) -> None:
    found = rows(compared / "comparison-flows.csv")
    assert [(row["from_role"], row["to_role"]) for row in found] == [("CN", "MN"), ("MN", "CN")]
    for row in found:
        # A packet each 10 ms for 10 s.
        assert abs(float(row["first_sent"]) - float(row["second_sent"])) <= 10
        assert float(row["first_sent"]) == pytest.approx(1000, abs=10)
        assert float(row["second_delay_mean"]) > float(row["first_delay_mean"]) - 0.001


@needs_root
def test_a_soft_handover_loses_nothing_in_the_lab_as_the_new_network_is_preferred_at_once(
    compared: Path,
) -> None:
    soft = Results.read(compared / "lab").handovers.iloc[0]
    assert (soft["lost_up"], soft["lost_down"]) == (0, 0)
    # The old link goes 2 s after the new one came.
    assert soft["total"] < 1.5


@needs_root
def test_the_same_messages_are_sent_but_for_what_correspondents_do_before_a_run(
    compared: Path,
) -> None:
    sides = [Results.read(compared / side).messages for side in ("simulator", "lab")]
    counts = [
        {
            (str(kind), str(sender), str(receiver)): sent - again
            for kind, sender, receiver, sent, again in frame[
                ["type", "from_role", "to_role", "sent", "retransmitted"]
            ].itertuples(index=False)
        }
        for frame in sides
    ]
    for kind, sender, receiver in counts[0]:
        # Correspondents are registered before, and away from home; two uplinks are asked about.
        if (
            kind == "data"
            or "DNS" in kind
            or {sender, receiver} in ({"CN", "IMS_CN"}, {"MN", "CN"})
        ):
            continue
        if {sender, receiver} == {"MN", "IMS_MN"} and kind.startswith("MA "):
            continue
        key = kind, sender, receiver
        assert counts[1].get(key) == counts[0][key], key
    data = "data", "CN", "MN"
    assert abs(counts[1][data] - counts[0][data]) <= 2


@needs_root
def test_what_the_lab_adds_is_written_beside_its_results(compared: Path) -> None:
    shares = rows(compared / "lab" / "shares.csv")
    assert {row["part"] for row in shares} >= {*OWN, "first_packet"}
    of_messages = [row for row in shares if row["part"] in ("register", "notify")]
    assert len(of_messages) == 6
    assert all(float(row["programs"]) > 0 for row in of_messages)


@needs_root
def test_ctrl_c_ends_a_comparison_and_its_lab_and_leaves_nothing(tmp_path: Path) -> None:
    before = set(NAMED.iterdir()) if NAMED.exists() else set[Path]()
    scenario, out = written(tmp_path), tmp_path / "out"
    command = [*MAT, "sim", "compare", str(scenario), f"--out={out}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert "about" in process.stderr.readline()
        while not any("mat-lab" in path.name for path in set(NAMED.glob("*")) - before):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert said.splitlines()[-1] == "Interrupted."
    assert not out.exists() or not list(out.iterdir())


@needs_root
def test_a_lab_that_refuses_is_a_comparison_that_fails_with_its_words(tmp_path: Path) -> None:
    done = mat("sim", "compare", written(tmp_path), "--set", "ims.0.replicas=2")
    assert done.returncode == 1
    assert "Error: IMS IMS_MN has 2 replicas" in done.stderr
    assert "mat lab run has failed (exit code 1), as said above" in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


@needs_root
def test_logs_go_to_a_new_folder_only(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "of-another-run").touch()
    scenario, out = written(tmp_path), tmp_path / "out"
    done = mat("lab", "run", scenario, "--out", out, "--logs", tmp_path / "logs")
    assert done.returncode == 1
    assert "logs: is not empty; name a new folder for the logs" in done.stderr
    assert not out.exists()


@needs_root
def test_a_capture_needs_a_directory_that_is_there(tmp_path: Path) -> None:
    scenario, out, capture = written(tmp_path), tmp_path / "out", tmp_path / "no" / "x.pcapng"
    done = mat("lab", "run", scenario, "--out", out, "--pcapng", capture)
    assert done.returncode == 1
    assert f"there is no directory {capture.parent}; make it" in done.stderr


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ('scenario.system="none"', 'scenario.system = "none": its programs are MAT\'s'),
        ('traffic.kind="poisson"', 'traffic.kind = "poisson", only packets at equal distances'),
        ('traffic.pairs="random"', 'traffic.pairs = "random"'),
        ("background={nodes=5, query=1.0}", "a background load: set background.nodes = 0"),
        ("dns.resolver=0.001", "resolvers at the sites: leave dns.resolver out"),
    ],
)
def test_what_the_lab_cannot_play_is_refused(tmp_path: Path, override: str, what: str) -> None:
    with pytest.raises(LabError) as refused:
        plan_of(load_scenario(written(tmp_path), [override]))
    assert f"the lab cannot play {what}" in str(refused.value)


@needs_root
def test_a_scenario_with_dhcp_is_played_with_dhcp(tmp_path: Path) -> None:
    text = SCENARIO.replace("address = 0.1", "[network.dhcp]").replace("11.0", "5.0")
    (tmp_path / "moves.csv").write_text(
        "t,node,action,network\n0,m1,attach,A\n2.5,m1,detach,A\n2.5,m1,attach,B\n"
    )
    (tmp_path / "beside.toml").write_text(text)
    out = tmp_path / "out"
    done = mat("sim", "compare", tmp_path / "beside.toml", "--out", out)
    assert done.returncode == 0, done.stderr
    one, other = (Results.read(out / side).handovers for side in ("simulator", "lab"))
    assert list(one["outcome"]) == list(other["outcome"]) == ["completed"]
    # REQUEST and NAK, DISCOVER and OFFER, REQUEST and ACK, each half a millisecond of service.
    assert one["address"][0] == pytest.approx(0.0015)
    assert other["address"][0] > 0
    found = {(row["kind"], row["column"]) for row in rows(out / "comparison.csv")}
    assert ("hard", "address") in found
