"""What a record says, in numbers, tables and figures."""

import math
import re
from pathlib import Path

import pytest

from mat_paper import PARTS, PaperError, ladders, published, summary
from mat_paper.figures import KINDS
from mat_paper.record import Record
from mat_paper.report import HTML, MARKDOWN, html, report, write_report
from mat_paper.summary import estimate
from mat_paper.variants import VARIANTS, events
from tests.paper.records import ADDED, flood, whole

FIGURES = {"table-4", "figure-5", "handover", "crowd"}
MILLI = 1000


def test_what_mat_adds_is_a_difference_within_a_round(record: Record) -> None:
    found = {one.way: one for one in summary.round_trips(record)}
    assert found["without"].added is None
    maps, queue = found["maps"].added, found["queue"].added
    assert maps is not None
    assert queue is not None
    # 3, 1 and 4 µs; the difference of the medians would be 4.
    assert (maps.median, maps.low, maps.high) == pytest.approx((3e-6, 1e-6, 4e-6))
    assert (queue.median, queue.low, queue.high) == pytest.approx((105e-6, 100e-6, 105e-6))
    assert found["maps"].mean.median == pytest.approx(19e-6)
    assert (found["maps"].lost, found["maps"].sent) == (3, 30)


def test_a_confidence_interval_is_students() -> None:
    found = estimate([1.0, 2.0, 3.0, 4.0])
    # t with 3 degrees of freedom at 97.5 % is 3.182; the standard error is 1.291 / 2.
    assert found.mean == 2.5
    assert found.high - found.mean == pytest.approx(3.182 * 0.6455, rel=1e-3)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)
    assert estimate([7.0]) == summary.Estimate(7.0, 7.0, 7.0)


def test_throughput_is_summed_up_by_way_and_load(record: Record) -> None:
    found = {(one.way, one.load): one for one in summary.throughput(record)}
    maps = found["maps", 400e6]
    assert maps.arrived.mean == pytest.approx(360.5e6)
    assert maps.loss.mean == pytest.approx(0.101)
    assert maps.rounds == 2
    assert found["queue", 400e6].loss.mean == pytest.approx(0.776)


def test_handovers_are_compared_without_what_the_lab_adds_itself(record: Record) -> None:
    found = {one.variant.node: one for one in summary.handovers(record)}
    assert set(found) == {variant.node for variant in VARIANTS}
    for one in found.values():
        assert one.handovers == (2, 2)
        columns = {line.column: (line, raw) for line, raw in one.parts}
        register, with_lab = columns["register"]
        assert register.agrees
        assert register.difference == pytest.approx(0, abs=1e-4)
        assert with_lab.difference == pytest.approx(ADDED, abs=1e-4)
        # What is not the lab's own is not taken off: its server takes as long for a notice, too.
        assert columns["notify"][0].agrees is False
        assert "interruption_up" not in columns


def test_the_simulator_is_given_what_addresses_took_in_the_lab(record: Record) -> None:
    for one in summary.handovers(record):
        (address,) = (line for line, _ in one.parts if line.column == "address")
        assert address.first.median == pytest.approx(address.second.median)


def test_a_crowd_is_summed_up_by_its_size_and_place(record: Record) -> None:
    found = {
        (one.nodes, one.where): one for one in summary.crowds(record) if one.column == "register"
    }
    assert set(found) == {(n, w) for n in (1, 3) for w in ("simulator", "lab", "net")}
    assert found[3, "lab"].completed == found[3, "lab"].all == 3
    # Three updates at a server that takes 10 ms for each.
    assert found[3, "lab"].p95 > found[1, "lab"].p95 + 0.01
    assert found[1, "net"].median == pytest.approx(found[1, "simulator"].median, abs=1e-4)
    assert not math.isnan(found[3, "net"].p95)


def test_each_cycle_has_a_handover_of_each_kind() -> None:
    lines = [line.split(",") for line in events(2).splitlines()[1:]]
    times = [float(line[0]) for line in lines]
    assert times == sorted(times)
    for variant in VARIANTS:
        own = [line for line in lines if line[1] == variant.node and line[3] == "B"]
        assert [line[2] for line in own] == ["attach", "detach"] * 2
    single = [line for line in lines if line[1] == "single"]
    assert {line[4] for line in single} == {"0"}
    # What leaves goes before what comes.
    assert [line[2] for line in single[1:3]] == ["detach", "attach"]


def test_figures_2_and_3_are_drawn_from_a_capture_alone(record: Record) -> None:
    capture = record.directory / ladders.FOLDER / ladders.CAPTURE.format(place="simulator")
    start, move = (ladders.story_of(capture, figure) for figure in ladders.FIGURES)
    steps = [one.step for one in start.messages if one.step]
    assert steps[0] == "1"
    for earlier, later in (("1", "2"), ("2", "3"), ("3", "4"), ("2'", "7"), ("7", "4'")):
        assert steps.index(earlier) < steps.index(later)
    assert [one.label for one in move.messages][:2] == ["IMS Update", "IMS Update Reply"]
    drawn = dict(ladders.draw(capture))
    assert all(text.lstrip().startswith("<") and "svg" in text for text in drawn.values())


def test_a_capture_without_a_handover_is_refused(record: Record, tmp_path: Path) -> None:
    with pytest.raises(PaperError, match="cannot be read"):
        ladders.story_of(tmp_path / "none.pcapng", ladders.FIGURES[0])
    whole_capture = record.directory / ladders.FOLDER / ladders.CAPTURE.format(place="lab")
    (tmp_path / "short.pcapng").write_bytes(whole_capture.read_bytes()[:400])
    with pytest.raises(PaperError):
        ladders.story_of(tmp_path / "short.pcapng", ladders.FIGURES[1])


def test_the_report_has_our_figures_beside_the_papers(record: Record) -> None:
    text = report(record)
    for cell in ("| paper, without MAT | 0.265 | 0.412 | 0.477 |", "0.382 | 0.464 | 0.644 | 0.052"):
        assert cell in text
    assert re.search(r"\| MAT, fast path \| [^|]+ \| 0\.019 \(0\.013–0\.021\) \| 0\.038", text)
    assert "0.003 (0.001–0.004) | 3 of 30 |" in text
    assert re.search(r"\| 400 \| 400 ± \d+ \| 400 \| 0\.1% \| 360 ± \d+ \| 400 \| 10\.1% \|", text)
    assert "| kernel | Linux 6.1 |" in text
    assert "Intel Atom N280" in text
    for variant in VARIANTS:
        assert f"**{variant.name}**: 2 handovers in the lab, 2 in the simulator" in text
    assert "| 3 | 3 of 3 |" in text
    assert "Figure 2, start of communication, lab" in text


def test_only_parts_that_are_whole_are_reported(empty: Path) -> None:
    record = whole(empty, "ping")
    flood(record, range(1))
    text = report(record)
    assert text.count("\n## ") == 1
    assert "Table 4" in text


def test_a_loaded_machine_is_named(empty: Path) -> None:
    text = report(whole(empty, "udp", busy=1.25))
    assert "**on a loaded machine** (other programs kept 1.2 processors busy)" in text
    assert "loaded" not in report(whole(empty.with_name("quiet"), "udp", busy=0.1))


def test_everything_is_written_and_equal_records_make_equal_bytes(record: Record) -> None:
    written: list[dict[str, bytes]] = []
    for _ in range(2):
        write_report(record)
        names = {f"{name}.{kind}" for name in FIGURES for kind in KINDS} | {MARKDOWN, HTML}
        written.append({name: (record.directory / name).read_bytes() for name in names})
    assert written[0] == written[1]
    page = written[0][HTML].decode()
    assert page.count("<table>") >= len(PARTS)
    assert '<img src="figure-5.svg"' in page
    assert all(len(content) > 1000 for content in written[0].values())


def test_markdown_becomes_a_page_whose_text_is_escaped() -> None:
    assert "<td>&lt;b&gt;</td>" in html("| a |\n| --- |\n| <b> |\n").replace("\n", "")


def test_the_papers_own_difference_is_that_of_its_means() -> None:
    with_, without = published.TABLE_4["with"], published.TABLE_4["without"]
    assert with_.mean - without.mean == pytest.approx(published.ADDED)
    assert with_.mean * MILLI == pytest.approx(0.464)
