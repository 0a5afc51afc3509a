"""Measurements in a directory: kept as they are made, gone on with, and never mixed."""

import subprocess
import sys
from pathlib import Path

import pytest

from mat_paper import PaperError
from mat_paper.machine import busy
from mat_paper.record import FILE, Ping, Record, Udp, missing
from mat_paper.size import SizeError, load_size
from tests.paper.records import MACHINE, begun, flood, size

ROW = Ping(0, "maps", 10, 9, 0.1e-3, 0.2e-3, 0.3e-3)


def test_what_is_added_is_there_for_whoever_reads_next(empty: Path) -> None:
    record = begun(empty)
    record.add(ROW)
    record.add(Udp(1, "queue", 1e8, 99e6, 98e6, 3, 1000))
    again = Record.read(empty)
    assert again.rows(Ping) == [ROW]
    assert again.rows(Udp) == [Udp(1, "queue", 1e8, 99e6, 98e6, 3, 1000)]
    assert (again.size, again.machine, again.name) == (size(), MACHINE, "short")


def test_a_part_is_whole_when_it_has_ended(empty: Path) -> None:
    record = begun(empty)
    for part in ("udp", "ping"):
        record.begin_part(part, 0.1)
    assert record.parts == ()
    record.end_part("udp")
    record.end_part("ping")
    again = begun(empty)
    assert again.parts == ("ping", "udp")
    assert again.busy("ping") == 0.1
    assert again.when("ping").startswith("20")


def test_what_was_interrupted_goes_on_with_what_is_missing(empty: Path) -> None:
    flood(begun(empty), range(1))
    begun(empty).add(Ping(1, "queue", 10, 10, 1e-4, 1e-4, 1e-4))
    wanted = [(number, way) for number in range(2) for way in ("queue", "maps")]
    there = ((row.round, row.way) for row in begun(empty).rows(Ping))
    assert missing(wanted, there) == [(1, "maps")]


def test_of_a_part_that_begins_often_the_busiest_begin_counts(empty: Path) -> None:
    for others in (0.25, 1.5, 1.0):
        begun(empty).begin_part("ping", others)
    assert begun(empty).busy("ping") == 1.5


def test_a_busy_processor_is_seen() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as program:
        try:
            # Beside others, too, for it is not its own time that counts.
            assert busy() > 0.5
        finally:
            program.kill()


def test_another_size_is_not_added_to_it(empty: Path) -> None:
    begun(empty)
    with pytest.raises(PaperError, match=r"measured in another size \(short, .*--out DIR"):
        Record.begin(empty, "full", load_size("full"), MACHINE)


def test_another_machine_is_not_added_to_it(empty: Path) -> None:
    begun(empty)
    other = MACHINE | {"kernel": "Linux 6.2"}
    with pytest.raises(PaperError, match=r"otherwise: kernel was Linux 6\.1, is Linux 6\.2; name"):
        Record.begin(empty, "short", size(), other)


def test_a_directory_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(PaperError, match="is not empty, and holds no result of mat paper; name"):
        begun(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_where_there_is_no_result_it_is_said_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(PaperError, match=r"holds no result of mat paper .*mat paper --out"):
        Record.read(tmp_path)


@pytest.mark.parametrize(
    ("text", "what"),
    [("format = 2", "has format 2; this program reads 1"), ("format", "cannot be read")],
)
def test_a_result_of_another_kind_is_refused(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(PaperError, match=what):
        Record.read(tmp_path)


def test_a_table_that_somebody_has_changed_is_refused(empty: Path) -> None:
    record = begun(empty)
    record.add(ROW)
    table = empty / "ping.csv"
    table.write_text(table.read_text() + "1,maps,ten\n")
    with pytest.raises(PaperError, match=r"ping\.csv: cannot be read"):
        record.rows(Ping)


def test_sizes_say_what_is_wrong_with_them() -> None:
    with pytest.raises(SizeError, match=r"--set ping\.cuont=3: ping\.cuont: .*count"):
        load_size("short", ["ping.cuont=3"])
    with pytest.raises(SizeError, match=r"crowd\.nodes"):
        load_size("short", ["crowd.nodes=[200]"])


def test_the_short_size_takes_two_minutes_and_the_full_one_less_than_three_hours() -> None:
    parts = ("ping", "udp", "ladders", "handover", "crowd")
    short, full = (sum(map(load_size(name).seconds, parts)) for name in ("short", "full"))
    assert 60 < short <= 120
    assert 3600 < full < 3 * 3600
