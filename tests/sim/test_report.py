"""What a user sees: tables and the figure."""

import dataclasses
import io
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from mat_files.results import Results
from mat_sim.report import figure, print_summary
from tests.files.test_results import PROVENANCE, handover, sample


def summary(results: Results) -> str:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    print_summary(results, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_links_are_shown_where_there_are_any() -> None:
    results = sample()
    (line,) = (line for line in summary(results).splitlines() if line.split()[1:3] == ["A", "│"])
    assert line.replace("│", " ").split() == ["A", "up", "9", "1", "800", "50.00%", "20.00"]
    assert "Links" not in summary(dataclasses.replace(results, links=results.links[:0]))


def many() -> Results:
    rows = [
        handover(
            ordinal=n,
            kind="hard" if n % 5 == 0 else "soft",
            outcome="completed",
            detect=0.05,
            address=n / 100,
            total=0.05 + n / 100,
            interruption_up=n / 1000,
            interruption_down=0.0,
            lost_up=n % 2,
            lost_down=1,
        )
        for n in range(1, 101)
    ]
    return Results.build(PROVENANCE, rows, [], [])


def cells(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_summary_gives_counts_and_quantiles_in_milliseconds() -> None:
    rows = cells(summary(many()))
    assert ["soft", "80", "80", "0", "0", "40", "80"] in rows
    assert ["hard", "20", "20", "0", "0", "10", "20"] in rows
    address = ["address", "500.0", "941.0", "990.0", "525.0", "952.5", "1000.0"]
    assert address in rows
    assert ["detect", "50.0", "50.0", "50.0", "50.0", "50.0", "50.0"] in rows
    assert not any(row[0] == "notify (HA Notify)" for row in rows)


def test_summary_shows_messages_and_servers() -> None:
    rows = cells(summary(sample()))
    assert ["MA Query", "MN", "IMS_CN", "2", "1", "1", "1", "128"] in rows
    assert ["IMS_CN", "1", "1", "0", "0", "50.00%", "–"] in rows


def test_summary_weighs_the_means_of_runs_by_the_packets_delivered() -> None:
    roles = {"from_role": "CN", "to_role": "MN"}
    rows: list[dict[str, object]] = [
        {"run": 0, **roles, "sent": 10, "delivered": 9, "lost": 1, "delay_mean": 0.010},
        {"run": 1, **roles, "sent": 90, "delivered": 81, "lost": 9, "delay_mean": 0.020},
        {"run": 2, **roles, "sent": 5, "delivered": 0, "lost": 5},
    ]
    for row in rows[:2]:
        row |= {"stretch_mean": 1 + 2 * int(row["run"] == 1), "header_mean": 20.0}
    shown = cells(summary(Results.build(PROVENANCE, [], [], [], rows)))
    assert shown == [["CN", "MN", "105", "90", "19.0", "2.80", "20.00"]]
    (nothing,) = cells(summary(Results.build(PROVENANCE, [], [], [], rows[2:])))
    assert nothing == ["CN", "MN", "5", "0", "–", "–", "–"]


def test_summary_of_nothing_is_empty() -> None:
    assert summary(Results.build(PROVENANCE, [], [], [])) == ""


def test_figure_is_a_png_and_the_same_for_the_same_results() -> None:
    image = figure(many())
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", image[16:24])
    assert (width, height) == (1650, 750)
    assert figure(many()) == image


def test_figure_of_nothing_is_drawn() -> None:
    assert figure(Results.build(PROVENANCE, [], [], [])).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "name",
    [
        "mat_sim",
        "mat_files.library",
        "mat_files.ladder",
        "mat_files.ladder_command",
        "mat_files.schema",
    ],
)
def test_light_modules_import_nothing_heavy(name: str) -> None:
    code = (
        f"import sys, {name}; print(sorted({{'pandas', 'numpy', 'pyarrow', 'matplotlib',"
        " 'pydantic', 'simpy'} & set(sys.modules)))"
    )
    path = Path(__file__).parents[2] / "sim"
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=path, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


def test_results_do_not_import_matplotlib() -> None:
    code = "import sys, mat_sim.report; print('matplotlib' in sys.modules)"
    path = Path(__file__).parents[2] / "sim"
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=path, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "False"
