"""`mat paper` (docs/evaluation.md), smallest size: measured, kept, interrupted, gone on with."""

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from mat_files.results import Results
from mat_paper import PaperError, handover, ladders, summary
from mat_paper.hosts import WAYS, turns
from mat_paper.played import LAB, SCENARIOS, play
from mat_paper.record import Ping, Record, Udp
from mat_paper.run import evaluate
from mat_paper.size import load_size
from mat_real.namespaces import NAMED
from tests.real.privilege import needs_root

MAIN = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from mat_cli import main; main()"
)
"""As `mat`, also where the tests run in the background, with Ctrl-C ignored."""
TINY = (
    "ping.count=50",
    "ping.rounds=1",
    "udp.seconds=0.5",
    "udp.rounds=1",
    "udp.loads=[5]",
    "handover.cycles=1",
    "handover.runs=1",
    "crowd.nodes=[2]",
)

pytestmark = [
    needs_root,
    pytest.mark.skipif(shutil.which("iperf") is None, reason="iperf is not installed"),
]


def words(out: Path, parts: Sequence[str], *overrides: str) -> list[str]:
    settings = [f"--set={one}" for one in (*TINY, *overrides)]
    return [sys.executable, "-c", MAIN, "paper", *parts, f"--out={out}", *settings]


def measured(out: Path, *parts: str) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        words(out, parts), capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def namespaces() -> set[str]:
    return {path.name for path in NAMED.glob("mat-lab-*")}


def test_floods_and_throughput_of_all_ways_are_measured_and_printed_beside_the_papers(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    done = measured(out, "ping", "udp")
    assert "short: about" in done.stderr
    record = Record.read(out)
    assert record.parts == ("ping", "udp")
    pings, throughput = record.rows(Ping), record.rows(Udp)
    assert [row.way for row in pings] == [row.way for row in throughput] == list(WAYS)
    for row in pings:
        assert row.transmitted == 50
        assert row.received >= 45
        assert 0 < row.least <= row.mean <= row.greatest
    for one in throughput:
        # iperf's own clock begins with its first datagram, and 0.5 s hold 213.
        assert 150 < one.datagrams < 250
        assert one.arrived > 0
    assert record.machine["iperf"].startswith("iperf version 2")
    assert "0.412" in done.stdout
    assert "MAT, NFQUEUE alone" in done.stdout
    assert (out / "figure-5.svg").exists()
    assert not (out / "logs").exists()
    again = measured(out, "ping", "udp")
    assert "has all of this" in again.stderr
    assert Record.read(out).rows(Ping) == pings


def test_ctrl_c_leaves_nothing_behind_but_what_was_measured(tmp_path: Path) -> None:
    out, before = tmp_path / "out", namespaces()
    command = words(out, ["ping"], "ping.rounds=2000")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while not (out / "ping.csv").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert f"What was measured is kept in {out}; the same command goes on." in said
    assert said.splitlines()[-1] == "Interrupted."
    assert namespaces() <= before
    record = Record.read(out)
    assert record.parts == ()
    assert 0 < len(record.rows(Ping)) < 6000
    # It goes on behind the last one, each once.
    kept = record.rows(Ping)
    size = load_size("short", (*TINY, f"ping.rounds={kept[-1].round + 1}"))
    evaluate(Record(out, size, record._values), ["ping"], lambda *_: None)
    rows = Record.read(out).rows(Ping)
    assert rows[: len(kept)] == kept
    assert set(Counter((row.round, row.way) for row in rows).values()) == {1}
    assert len(rows) == 3 * (kept[-1].round + 1)


def test_handovers_are_timed_in_lab_and_simulator(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = measured(out, "handover")
    found = summary.handovers(Record.read(out))
    assert [one.handovers for one in found] == [(1, 1)] * 3
    lab = Results.read(out / handover.FOLDER / LAB).handovers
    assert all(lab["address"] > 0)
    for one in found:
        lines = {line.column: line for line, _ in one.parts}
        # What messages take over the scenario's links, whatever the machine does.
        assert lines["register"].agrees, one
        assert lines["notify"].agrees, one
    assert "soft, with overlap" in done.stdout


def test_a_crowd_of_real_nodes_moves_and_so_does_the_simulators(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = measured(out, "crowd")
    found = {one.where: one for one in summary.crowds(Record.read(out)) if one.column == "register"}
    assert {one.completed for one in found.values()} == {2}
    assert found["net"].median == pytest.approx(found["simulator"].median, abs=0.002)
    assert found["lab"].median > found["net"].median
    assert "Handovers at the same time" in done.stdout


def test_a_handover_is_the_same_sequence_of_messages_in_lab_and_simulator(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = measured(out, "ladders")
    assert "Figure 3, handover, lab" in done.stdout
    assert between_hosts(out, "lab") == between_hosts(out, "simulator")


def between_hosts(out: Path, source: str) -> dict[tuple[str, str], list[str]]:
    """The messages of figure 3 by sender and receiver, in order: whose come first may differ."""
    path = out / ladders.FOLDER / ladders.CAPTURE.format(place=source)
    found: dict[tuple[str, str], list[str]] = {}
    for one in ladders.story_of(path, ladders.FIGURES[1]).messages:
        if one.kind == "signal":
            found.setdefault((one.from_, one.to), []).append(one.text)
    assert len(found) > 5
    return found


def test_a_scenario_of_the_evaluation_is_the_same_in_simulator_and_lab(tmp_path: Path) -> None:
    arguments = ["--set", "traffic.up=200", "--net", "--tolerance", "0.1"]
    main = "from mat_cli import main; main()"
    command = [sys.executable, "-c", main, "sim", "compare", str(SCENARIOS / "figures.toml")]
    done = subprocess.run(
        [*command, *arguments, "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env=os.environ,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Completed hard handovers" in done.stdout
    assert "NO" not in done.stdout


def test_what_the_lab_refuses_is_said_in_its_own_words(tmp_path: Path) -> None:
    place = tmp_path / "crowd" / LAB
    with pytest.raises(PaperError, match=r"mat lab run has failed \(exit code 1\):\nError: IMS"):
        play(SCENARIOS / "figures.toml", place, tmp_path, "--set=ims.0.replicas=2")
    assert not place.exists()
    assert "has 2 replicas" in (tmp_path / "crowd" / "lab.log").read_text()


def test_everybody_is_measured_after_everybody_else_in_turn() -> None:
    orders = [list(turns(number)) for number in range(3)]
    assert orders[0] == list(WAYS)
    assert {order[0] for order in orders} == set(WAYS)
    assert all(set(order) == set(WAYS) for order in orders)
