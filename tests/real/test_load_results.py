"""What a load test writes: the simulator's tables, a summary for programs, and a figure."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mat.address import format_address
from mat_files.results import Results
from mat_files.schema import SCHEMAS
from mat_real.load.forms import Kind
from mat_real.load.generator import Timing
from mat_real.load.ledger import Fate, Ledger
from mat_real.load.measures import (
    Run,
    doubts,
    histogram,
    lateness,
    main,
    of_procedures,
    timeline,
    worst,
)
from mat_real.load.patterns import CHAINS, Networks, Plan, simultaneous
from mat_real.load.play import Player
from mat_real.load.population import Target, parse_target, populate, target_name
from mat_real.load.report import figure, print_summary
from mat_real.load.tables import results, summary
from tests.real.tiny_ims import TinyIms, some_keys

KEYS = some_keys(60)
OPTIONS = ("load.pattern=simultaneous", "load.window=0.2")


def random() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture(scope="module")
def run() -> Run:
    """Sixty handovers of which every seventh datagram was lost."""
    with TinyIms(KEYS) as ims:
        targets = [Target(ims.endpoint)]
        played = Player(populate(KEYS, targets, None, random()), targets, seed=3)
        played.register()
        ims.faults.hears = lambda number: number % 7 != 0
        plan = Plan(CHAINS["handover"], *simultaneous(0.2)(len(KEYS), random()))
        return played.play("sixty handovers", plan, Timing(timeout=0.05))


@pytest.fixture(scope="module")
def tables(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The tables as they come back from their files."""
    folder = tmp_path_factory.mktemp("results")
    extra = {"load.png": figure(run), "load.json": summary(run, OPTIONS)}
    written = results(run, "format = 1\n", OPTIONS).write(folder, extra)
    assert {path.name for path in written} == {
        *(f"{schema.name}.{kind}" for schema in SCHEMAS for kind in ("parquet", "csv")),
        *extra,
    }
    return Results.read(folder)


def by_type(tables: Results) -> dict[str, dict[str, Any]]:
    records: list[Any] = tables.messages.to_dict("records")
    return {row["type"]: row for row in records}


def total(rows: list[dict[str, Any]], column: str) -> int:
    return sum(int(row[column]) for row in rows)


def test_there_is_a_row_for_each_handover_with_its_parts(run: Run, tables: Results) -> None:
    rows = tables.handovers
    assert sorted(rows["node"]) == sorted(format_address(key.home_address) for key in KEYS)
    assert set(rows["outcome"]) == {"completed"}
    assert set(rows["kind"]) == {"hard"}
    assert set(rows["ordinal"]) == {1}
    assert set(rows["from_network"]) == set(rows["to_network"]) == {"load"}
    assert (rows["from_moa"] != rows["to_moa"]).all()
    parts = rows["register"] + rows["notify"] + rows["first_packet"]
    assert rows["total"].to_numpy() == pytest.approx(parts.to_numpy())
    assert np.sort(rows["total"]) == pytest.approx(np.sort(main(run.ledger).times))
    assert rows["time"].to_numpy() == pytest.approx(run.ledger.sent[::3])
    for empty in ("away", "detect", "associate", "address", "interruption_up", "lost_up"):
        assert rows[empty].isna().all()


def test_messages_are_counted_by_type_and_direction(run: Run, tables: Results) -> None:
    rows = by_type(tables)
    name = target_name(run.targets[0])
    requests = [rows[kind] for kind in ("IMS Update", "HA Notify", "MA Query")]
    answers = [rows[kind] for kind in ("IMS Update Reply", "HA Notify Ack", "MA Answer")]
    assert len(rows) == 6
    assert {row["to_role"] for row in requests} == {row["from_role"] for row in answers} == {name}
    assert total(requests, "sent") == run.ledger.transmissions
    assert total(requests, "retransmitted") == main(run.ledger).repeated
    assert total(requests, "lost") == main(run.ledger).repeated, "each one was lost once"
    assert total(answers, "sent") == total(requests, "delivered") == 180
    assert rows["HA Notify"]["bytes"] == 72 * rows["HA Notify"]["sent"]
    assert rows["IMS Update Reply"]["bytes"] == 52 * 60
    again = rows["IMS Update"]["retransmitted"]
    assert rows["IMS Update"]["bytes"] == 92 * 60 + 108 * again


def test_the_servers_rows_are_what_the_client_saw_and_no_more(run: Run, tables: Results) -> None:
    rows = tables.ims
    assert set(rows["ims"]) == {target_name(run.targets[0])}
    assert rows["received"].sum() == run.ledger.transmissions
    assert rows["answered"].sum() == run.ledger.heard
    assert rows["refused"].sum() == 0
    assert (rows["interval"] == 0.1).all()
    for unknown in ("dropped", "busy", "queue_max", "wait_mean", "wait_max", "mappings"):
        assert rows[unknown].isna().all()


def test_the_tables_say_how_they_came_about(tables: Results) -> None:
    assert tables.provenance.overrides == "load.pattern=simultaneous\nload.window=0.2"
    assert (tables.provenance.scenario, tables.provenance.seed) == ("format = 1\n", 3)


def test_the_summary_has_what_the_terminal_shows(run: Run) -> None:
    content = json.loads(summary(run, OPTIONS))
    assert content["what"] == "sixty handovers"
    assert content["options"] == {"load.pattern": "simultaneous", "load.window": "0.2"}
    by_name = {about["name"]: about for about in content["measured"]}
    about = main(run.ledger)
    assert by_name["handover"]["done"] == 60
    assert by_name["handover"]["repeated"] == about.repeated
    assert by_name["handover"]["response"]["p99"] == pytest.approx(np.quantile(about.times, 0.99))
    line = content["timeline"]
    assert sum(line["begun"]) == sum(line["answered"]) == 180
    assert sum(line["repeated"]) == about.repeated
    assert len(line["p50"]) == len(line["begun"])
    assert line["p100"][0] == pytest.approx(about.times[about.starts < 0.1].max())


def test_the_terminal_shows_counts_times_and_the_generators_own_lateness(run: Run) -> None:
    console = Console(width=100, record=True, force_terminal=False)
    print_summary(run, console)
    text = console.export_text()
    assert "sixty handovers: 60 of 60 done, 0 lost for good, in" in text
    assert "The generator was late by, ms: median" in text
    row = next(line for line in text.splitlines() if line.startswith("│ handover"))
    assert [cell.strip() for cell in row.split("│")[1:-1]] == [
        "handover",
        "60",
        "60",
        "0",
        "0",
        "0",
        str(main(run.ledger).repeated),
    ]
    assert "…" not in text, "cells cut short"


def test_the_figure_is_a_png(run: Run) -> None:
    assert figure(run).startswith(b"\x89PNG")


def test_a_run_without_any_answer_has_tables_a_summary_and_a_figure() -> None:
    with TinyIms(KEYS) as ims:
        targets = [Target(ims.endpoint)]
        played = Player(populate(KEYS, targets, None, random()), targets)
        ims.faults.hears = lambda _: False
        plan = Plan(CHAINS["handover"], *simultaneous(0.1)(len(KEYS), random()))
        silent = played.play("nothing", plan, Timing(timeout=1.0, give_up=0.2))
    tables = results(silent, "", OPTIONS)
    assert set(tables.handovers["outcome"]) == {"unfinished"}
    assert tables.handovers[["register", "notify", "first_packet", "total"]].isna().all(axis=None)
    assert by_type(tables)["IMS Update"]["lost"] == 60
    assert json.loads(summary(silent, OPTIONS))["measured"][-1]["response"]["p50"] is None
    assert figure(silent).startswith(b"\x89PNG")
    console = Console(width=100, record=True)
    print_summary(silent, console)
    assert "nothing: 0 of 60 done, 60 lost for good" in console.export_text()


def test_queries_alone_are_no_handovers(tmp_path: Path) -> None:
    with TinyIms(KEYS) as ims:
        targets = [Target(ims.endpoint)]
        played = Player(populate(KEYS, targets, None, random()), targets)
        plan = Plan(CHAINS["query"], *simultaneous(0.1)(len(KEYS), random()))
        asked = played.play("queries", plan, Timing())
    tables = results(asked, "", OPTIONS)
    tables.write(tmp_path)
    assert len(Results.read(tmp_path).handovers) == 0
    assert by_type(tables)["MA Query"]["bytes"] == 64 * 60
    assert tables.ims["refused"].sum() == 60, "nobody was registered"


def test_a_scenarios_networks_stand_in_the_table() -> None:
    with TinyIms(KEYS) as ims:
        targets = [Target(ims.endpoint)]
        played = Player(populate(KEYS, targets, 2, random()), targets)
        networks = Networks(["A", "B"], ["B", "C"], [True, False])
        plan = Plan(CHAINS["update"], np.array([0, 1]), np.zeros(2), networks=networks)
        rows = results(played.play("two", plan, Timing()), "", OPTIONS).handovers
    columns = rows[["from_network", "to_network", "kind"]].to_numpy().tolist()
    assert columns == [["A", "B", "soft"], ["B", "C", "hard"]]
    assert rows["notify"].isna().all()
    assert rows["peers"].tolist() == [0, 0]


# ---- figures by hand -----------------------------------------------------------------------------


def ledger_of(fates: list[list[Fate]], sent: list[float], answered: list[float]) -> Ledger:
    plan = Plan(CHAINS["handover"], np.arange(len(fates)), np.zeros(len(fates)))
    ledger = Ledger(plan, random())
    ledger.fates[:] = np.array(fates, np.uint8).ravel()
    ledger.sent[:] = np.tile(sent, len(fates))
    ledger.answered[:] = np.tile(answered, len(fates))
    ledger.begun = len(fates)
    return ledger


def test_a_handovers_time_is_that_of_the_update_and_the_longer_of_what_follows() -> None:
    done = [[Fate.DONE] * 3]
    ledger = ledger_of(done, [1.0, 1.6, 1.6], [1.5, 1.9, 1.8])
    assert of_procedures(ledger).times.tolist() == pytest.approx([0.5 + 0.3])
    assert np.sort(lateness(ledger)).tolist() == pytest.approx([0.1, 0.1, 1.0])


@pytest.mark.parametrize(
    ("fates", "whole"),
    [
        ([Fate.DONE, Fate.DONE, Fate.DONE], Fate.DONE),
        ([Fate.DONE, Fate.LOST, Fate.DONE], Fate.LOST),
        ([Fate.DONE, Fate.DONE, Fate.FAILED], Fate.FAILED),
        ([Fate.LOST, Fate.PLANNED, Fate.PLANNED], Fate.LOST),
        ([Fate.FORGED, Fate.DONE, Fate.DONE], Fate.FORGED),
        ([Fate.SUPERSEDED, Fate.SUPERSEDED, Fate.SUPERSEDED], Fate.SUPERSEDED),
        ([Fate.PLANNED, Fate.PLANNED, Fate.PLANNED], Fate.PLANNED),
    ],
)
def test_a_handover_is_what_the_first_of_its_requests_is_that_failed(
    fates: list[Fate], whole: Fate
) -> None:
    assert worst(np.array([fates], np.uint8)).tolist() == [whole]


def a_run(ledger: Ledger, dropped: int = 0, unsent: int = 0) -> Run:
    targets = [parse_target("192.0.2.1")]
    population = populate(KEYS, targets, None, random())
    return Run("a run", 1, targets, population, ledger, 0, dropped, unsent)


def test_figures_are_doubted_when_the_generator_was_late_or_lost_something_itself() -> None:
    late = ledger_of([[Fate.DONE] * 3] * 10, [0.5, 0.6, 0.6], [0.6, 0.7, 0.7])
    assert any("late by 500.0 ms" in doubt for doubt in doubts(a_run(late)))
    prompt = ledger_of([[Fate.DONE] * 3] * 10, [0.001, 0.601, 0.601], [0.6, 0.7, 0.7])
    assert doubts(a_run(prompt)) == []
    assert "net.core.rmem_max" in doubts(a_run(prompt, dropped=3))[0]
    assert "not taken by the kernel" in doubts(a_run(prompt, unsent=3))[0]


def test_lateness_that_is_small_beside_what_is_measured_is_no_doubt() -> None:
    slow = ledger_of([[Fate.DONE] * 3] * 10, [0.05, 2.05, 2.05], [2.0, 3.0, 3.0])
    assert doubts(a_run(slow)) == []


def test_what_lies_beyond_the_edges_counts_at_the_ends() -> None:
    assert histogram(np.array([-1.0, 0.05, 0.3, 9.0]), np.array([0.0, 0.1, 0.2])).tolist() == [2, 2]


def test_a_timeline_is_in_tenths_of_a_second_or_whole_ones() -> None:
    ledger = ledger_of([[Fate.DONE] * 3], [0.0, 0.1, 0.1], [0.1, 0.2, 0.2])
    for start, ended, interval, count in (
        (0.0, 0.35, 0.1, 4),
        (20.0, 61.0, 0.1, 610),
        (60.0, 61.0, 1.0, 61),
    ):
        ledger.plan.starts[:] = start
        ledger.ended = ended
        line = timeline(ledger)
        assert (line.interval, len(line.starts)) == (interval, count)
        assert line.begun.sum() == line.answered.sum() == 3


def test_kinds_of_a_chain_stand_at_their_places() -> None:
    ledger = ledger_of([[Fate.DONE] * 3], [0.0] * 3, [0.1] * 3)
    assert [ledger.position(kind) for kind in (Kind.UPDATE, Kind.NOTIFY, Kind.QUERY)] == [0, 1, 2]
