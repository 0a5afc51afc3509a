"""What a notebook shows of a result: right figures, escaped, small and self-contained."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mat_files.palette import PART_COLOURS
from mat_files.results import Provenance, Results
from mat_files.schema import HANDOVERS, PARTS
from tests.files.test_results import handover, sample

SCENARIO = '[scenario]\nname = "town"\n'


def provenance(**values: Any) -> Provenance:
    return replace(Provenance("1.2.3", SCENARIO, "", 9), **values)


def shown(*rows: dict[str, object], **values: Any) -> str:
    return Results.build(provenance(**values), rows, [], [])._repr_html_()


class Reader(HTMLParser):
    """Elements opened and closed, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self.tags.add(tag)
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and "style" not in self.open:
            self.texts.append(data.strip())


def rows_of(page: str) -> list[list[str]]:
    return [
        [re.sub("<[^>]*>", "", cell) for cell in re.findall("<td>(.*?)</td>", row)]
        for row in re.findall("<tr>(.*?)</tr>", page)
    ]


def big(count: int) -> pd.DataFrame:
    """Handovers of many nodes, as random as can be."""
    random = np.random.default_rng(3)
    columns: dict[str, Any] = {}
    for column in HANDOVERS.columns:
        if column.type == "number":
            columns[column.name] = random.exponential(0.1, count)
        elif column.type == "integer":
            columns[column.name] = pd.array(random.integers(0, 9, count), dtype="Int64")
        else:
            columns[column.name] = pd.array(random.choice(["a", "b<"], count), dtype="str")
    columns["kind"] = pd.array(random.choice(["soft", "hard"], count), dtype="str")
    columns["outcome"] = pd.array(random.choice(["completed", "superseded"], count), dtype="str")
    columns["total"] = sum(columns[part] for part in PARTS)
    return pd.DataFrame(columns)


def test_it_is_well_formed_and_names_scenario_seed_runs_and_version() -> None:
    page = Reader(sample()._repr_html_())
    assert page.open == []
    assert "svg" in page.tags
    texts = Reader(shown(runs=3)).texts
    assert texts[:2] == ["town", "seed 9 · 3 runs · mat 1.2.3"]


def test_an_override_of_the_scenario_s_name_counts_and_a_load_test_needs_none() -> None:
    assert Reader(shown(overrides='nodes.count=2\nscenario.name="wide"')).texts[0] == "wide"
    assert Reader(shown(scenario="", overrides="--rate 50")).texts[0] == "Results"


def test_the_tables_have_counts_medians_and_high_quantiles_by_kind() -> None:
    rows = [
        handover(
            ordinal=n,
            kind="soft",
            outcome="completed",
            detect=n / 100,
            total=n / 100,
            interruption_up=n / 1000,
            lost_up=1,
            lost_down=2,
        )
        for n in range(1, 101)
    ]
    page = rows_of(shown(*rows, handover(kind="hard", total=None)))
    assert ["soft", "100", "100", "0", "0", "100", "200"] in page
    assert ["hard", "1", "0", "0", "1", "–", "–"] in page
    assert ["detect", "505 ms", "990 ms", "–", "–"] in page
    assert ["total", "505 ms", "990 ms", "–", "–"] in page
    assert ["interruption up", "50.5 ms", "99.0 ms", "–", "–"] in page
    assert not any(row and row[0] == "address" for row in page)


def test_the_headline_has_totals_interruption_and_loss() -> None:
    row = handover(
        outcome="completed",
        detect=1.5,
        total=1.5,
        interruption_up=0.2,
        interruption_down=0.4,
        lost_up=3,
        lost_down=1200,
    )
    cards = re.findall("<div><b>(.*?)</b><span>(.*?)</span></div>", shown(row))
    assert cards == [
        ("1", "handovers"),
        ("1.50 s", "median total"),
        ("1.50 s", "p99 total"),
        ("300 ms", "median interruption"),
        ("1,203", "packets lost"),
        ("0", "messages"),
    ]


def test_the_bars_are_as_long_as_the_means_of_the_parts() -> None:
    rows = [
        handover(outcome="completed", detect=0.1, address=0.2, total=0.3),
        handover(ordinal=2, outcome="completed", detect=0.1, total=0.1),
    ]
    page = shown(*rows)
    found = re.findall(r'width="([\d.]+)" height="18" fill="(#\w+)"', page)
    widths = {colour: float(width) for width, colour in found}
    assert widths.keys() == {PART_COLOURS["detect"], PART_COLOURS["address"]}
    assert widths[PART_COLOURS["detect"]] == pytest.approx(widths[PART_COLOURS["address"]], abs=0.2)
    assert "<title>address: 100 ms</title>" in page


def test_the_curve_is_the_distribution_function() -> None:
    rows = [
        handover(ordinal=n, outcome="completed", detect=t, total=t) for n, t in ((1, 0.1), (2, 0.4))
    ]
    (path,) = re.findall(r'<path d="(M[\d.]+ 120H[^"]*)" fill="none" stroke="#', shown(*rows))
    steps = re.findall(r"H([\d.]+)V([\d.]+)", path)
    places = sorted({float(x) for x, _ in steps})
    assert len(places) == 2
    heights = {x: min(float(y) for at, y in steps if float(at) == x) for x in places}
    assert heights[places[0]] == pytest.approx(60)
    assert heights[places[1]] == pytest.approx(0)


def test_the_ims_are_listed_with_load_and_loss_and_many_are_cut() -> None:
    rows = [
        {
            "run": 0,
            "ims": f"S{n}",
            "start": 0.0,
            "interval": 1.0,
            "received": 1000,
            "answered": 0,
            "refused": 0,
            "dropped": n,
            "busy": 0.5,
            "queue_max": 1,
            "wait_max": 0.0005,
        }
        for n in range(30)
    ]
    page = rows_of(Results.build(provenance(), [], [], rows)._repr_html_())
    assert page[1] == ["S0", "1,000", "0", "50.0%", "0.500 ms"]
    assert page[-1][0] == "and 22 more"


def test_what_the_server_alone_knows_is_a_dash_in_a_load_test() -> None:
    row = {
        "run": 0,
        "ims": "S",
        "start": 0.0,
        "interval": 1.0,
        "received": 7,
        "answered": 7,
        "refused": 0,
    }
    page = rows_of(Results.build(provenance(), [], [], [row])._repr_html_())
    assert page[1] == ["S", "7", "–", "–", "–"]


def test_every_text_is_escaped() -> None:
    evil = "<script>alert(1)</script>&\"'"
    page = shown(
        handover(kind=evil, outcome="completed", detect=0.1, total=0.1),
        scenario=f"[scenario]\nname = '''{evil}'''",
        version=evil,
        overrides=evil,
        recipe=evil,
    )
    assert "script" not in Reader(page).tags
    assert "<script" not in page
    assert Reader(page).open == []


def test_it_says_how_to_reproduce_the_run() -> None:
    assert "mat sim run town --runs 3" in shown(recipe="mat sim run town --runs 3")
    own = shown(overrides="nodes.count=2", trace="abc123")
    for text in (
        "mat sim run scenario.toml --seed 9",
        "nodes.count=2",
        "SHA-256 abc123",
        "mat 1.2.3",
    ):
        assert text in own
    assert "name = &quot;town&quot;" in own


def test_a_million_handovers_and_a_long_scenario_make_a_small_page() -> None:
    long = provenance(scenario=SCENARIO + "# padding\n" * 100_000, overrides="a=1\n" * 10_000)
    small = Results.build(long, [], sample_messages(), [])
    page = Results(big(1_000_000), small.messages, small.ims, long)._repr_html_()
    assert len(page.encode()) < 60_000
    assert "<b>1,000,000</b>" in page
    assert "more characters" in page


def sample_messages() -> list[dict[str, object]]:
    return [
        {
            "run": 0,
            "type": kind,
            "from_role": "MN",
            "to_role": "IMS",
            "sent": sent,
            "delivered": 0,
            "lost": 0,
            "retransmitted": 0,
            "bytes": 0,
        }
        for kind, sent in (("data", 5000), ("MA Query", 40), ("IMS Update", 2))
    ]


def test_messages_are_counted_without_data() -> None:
    page = Results.build(provenance(), [], sample_messages(), [])._repr_html_()
    assert "<b>42</b><span>messages</span>" in page


def test_kinds_beyond_soft_and_hard_are_shown_and_very_many_are_cut() -> None:
    rows = [
        handover(ordinal=n, kind=f"kind{n:02}", outcome="completed", detect=0.1, total=0.1)
        for n in range(20)
    ]
    page = shown(*rows)
    assert "kind07" in page
    assert "kind08" not in page
    assert len(page) < 60_000


def test_a_result_of_nothing_is_shown() -> None:
    page = Reader(shown())
    assert page.open == []
    assert "svg" not in page.tags
    assert "handovers" in page.texts


@pytest.mark.parametrize("total", [0.0, 1e-7, 1e5])
def test_very_short_and_very_long_handovers_are_drawn(total: float) -> None:
    page = Reader(shown(handover(outcome="completed", detect=total, total=total)))
    assert page.open == []


def test_it_takes_its_colours_from_the_page_and_loads_nothing() -> None:
    page = sample()._repr_html_()
    assert not re.findall(r"url\(|@import|src=|href=", page)
    assert set(re.findall(r"https?://[^\"]*", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.findall(r"[^-]color:(?!inherit|color-mix)", page.split("</style>")[0])
    assert "fill:currentColor" in page


def test_losses_that_were_not_measured_are_not_said_to_be_none() -> None:
    assert rows_of(shown(handover(outcome="completed", total=1.0)))[1][-2:] == ["–", "–"]
    assert rows_of(shown(handover(lost_up=0, lost_down=7)))[1][-2:] == ["0", "7"]


def test_without_handovers_the_servers_are_at_the_left_edge() -> None:
    page = replace(sample(), handovers=sample().handovers.iloc[:0])._repr_html_()
    assert '<div class="mat-columns"><div><table><thead><tr><th>IMS</th>' in page


def test_flows_are_summed_over_the_runs_with_means_of_what_was_delivered() -> None:
    ways: list[dict[str, object]] = [
        {"sent": 10, "delivered": 8, "lost": 2, "delay_mean": 0.02, "stretch_mean": 1.0},
        {"sent": 3000, "delivered": 24, "lost": 0, "delay_mean": 0.04, "stretch_mean": 2.0},
    ]
    rows = [
        {"run": run, "from_role": "MN", "to_role": "CN", "header_mean": 0.0} | way
        for run, way in enumerate(ways)
    ]
    page = Results.build(provenance(), [], [], [], rows)._repr_html_()
    assert rows_of(page)[1:] == [["MN → CN", "3,010", "2", "35.0 ms", "1.75"]]
    nothing = rows[0] | {"delivered": 0, "delay_mean": None, "stretch_mean": None}
    page = Results.build(provenance(), [], [], [], [nothing])._repr_html_()
    assert rows_of(page)[1:] == [["MN → CN", "10", "2", "–", "–"]]
    assert "mean delay" not in Results.build(provenance(), [], [], [])._repr_html_()
