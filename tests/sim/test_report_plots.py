"""Plots for papers: what they show, in which units, how they look, and equal bytes."""

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import colors, rcParams
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from mat_files.palette import OKABE_ITO, PART_COLOURS
from mat_files.results import Results
from mat_sim import Statistic, plots
from mat_sim.study import student_t
from tests.files.test_results import PROVENANCE, handover, sample


@pytest.fixture(autouse=True)
def no_figure_stays_open() -> Iterator[None]:
    yield
    plt.close("all")


def new_axes() -> Any:
    return Figure().subplots()


def results(**columns: list[Any]) -> Results:
    rows = [
        handover(**{"outcome": "completed", "ordinal": n} | dict(zip(columns, values, strict=True)))
        for n, values in enumerate(zip(*columns.values(), strict=True), 1)
    ]
    return Results.build(PROVENANCE, rows, [], [])


def lines(axes: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in axes.get_lines() if line.get_label()[0] != "_"}


# ---- distributions -------------------------------------------------------------------------------


def test_parts_are_distributions_in_milliseconds_each_in_its_colour() -> None:
    made = results(detect=[0.05, 0.05], address=[0.1, 0.3], away=[0.0, 0.0], total=[0.15, 0.35])
    drawn = lines(plots.parts(made, axes=new_axes()))
    assert list(drawn) == ["detect", "address", "total"]
    assert drawn["address"].get_xdata().tolist() == [100.0, 100.0, 300.0]
    assert drawn["address"].get_ydata().tolist() == [0.0, 0.5, 1.0]
    assert drawn["address"].get_color() == PART_COLOURS["address"]


def test_parts_are_of_completed_handovers_and_of_one_kind_if_asked() -> None:
    made = results(
        kind=["soft", "hard", "hard"],
        outcome=["completed", "completed", "superseded"],
        detect=[0.001, 0.002, 0.003],
    )
    rows = [*lines(plots.parts(made, axes=new_axes()))["detect"].get_xdata()]
    assert rows == [1.0, 1.0, 2.0]
    hard = lines(plots.parts(made.handovers, kind="hard", axes=new_axes()))
    assert [*hard["detect"].get_xdata()] == [2.0, 2.0]


def test_interruption_has_a_line_for_each_direction_and_kind() -> None:
    made = results(
        kind=["hard", "soft", "soft"],
        interruption_up=[0.5, 0.01, 0.02],
        interruption_down=[0.6, None, 0.03],
    )
    drawn = lines(plots.interruption(made, axes=new_axes()))
    assert list(drawn) == [
        "soft, from the node",
        "soft, to the node",
        "hard, from the node",
        "hard, to the node",
    ]
    assert drawn["soft, from the node"].get_color() == drawn["hard, from the node"].get_color()
    assert drawn["hard, to the node"].get_linestyle() == "--"


def test_a_distribution_has_the_band_of_dvoretzky_kiefer_and_wolfowitz() -> None:
    values = np.linspace(0.001, 0.2, 200)
    axes: Any = plots.distribution({"x": values}, confidence=0.95, axes=new_axes())
    corners = axes.collections[0].get_paths()[0].vertices
    at_median = corners[np.abs(corners[:, 0] - 100) < 0.6][:, 1]
    half = math.sqrt(math.log(2 / 0.05) / 400)
    assert at_median.max() - at_median.min() == pytest.approx(2 * half, abs=0.02)
    assert not plots.distribution({"x": values}, confidence=None, axes=new_axes()).collections


def test_long_times_are_in_seconds() -> None:
    assert plots.distribution({"x": [0.5, 9.0]}, axes=new_axes()).get_xlabel() == "time (ms)"
    assert plots.distribution({"x": [0.5, 12.0]}, axes=new_axes()).get_xlabel() == "time (s)"


def test_of_very_many_values_a_few_thousand_steps_are_drawn() -> None:
    values = np.random.default_rng(1).exponential(0.1, 300_000)
    (line,) = lines(plots.distribution({"x": values}, axes=new_axes())).values()
    assert len(line.get_xdata()) < 3000
    x, y = line.get_xdata(), line.get_ydata()
    assert x[np.searchsorted(y, 0.5)] == pytest.approx(1000 * np.median(values), rel=0.01)
    assert (y[0], y[-1], x[-1]) == (0.0, 1.0, 1000 * values.max())


def test_a_comparison_has_both_medians_and_their_difference() -> None:
    one, other = results(total=[0.1, 0.2, 0.3]), results(total=[0.1, 0.25, 0.3])
    axes: Any = plots.comparison(one, other, axes=new_axes())
    assert list(lines(axes)) == ["simulator (3)", "lab (3)"]
    (text,) = [text.get_text() for text in axes.texts]
    assert text == "medians 200 and 250 ms\ndifference +50 ms"
    assert axes.get_xlabel() == "total (ms)"
    dotted = [line.get_xdata()[0] for line in axes.get_lines() if line.get_linestyle() == ":"]
    assert dotted == [200.0, 250.0]


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        ([0.1, 0.2], [0.1, 0.2 + 2e-16], "medians 150 and 150 ms\ndifference 0 ms"),
        ([0.1651], [0.165], "medians 165.1 and 165 ms\ndifference -0.1 ms"),
        ([1.0], [1.23449], "medians 1000 and 1234 ms\ndifference +234.5 ms"),
        ([0.0], [0.0], "medians 0 and 0 ms\ndifference 0 ms"),
        ([12.0], [112.0], "medians 12 and 112 s\ndifference +100 s"),
        ([2e-6], [2.05e-6], "medians 0.002 and 0.00205 ms\ndifference +0.00005 ms"),
    ],
)
def test_a_difference_has_the_digits_that_its_medians_bear(
    first: list[float], second: list[float], text: str
) -> None:
    one, other = results(total=first), results(total=second)
    axes: Any = plots.comparison(one, other, axes=new_axes())
    assert [each.get_text() for each in axes.texts] == [text]


def test_a_comparison_with_nothing_says_which_side_is_empty() -> None:
    with pytest.raises(ValueError, match="lab has no value of total"):
        plots.comparison(results(total=[0.1]), results(total=[None]), axes=new_axes())


# ---- bars ----------------------------------------------------------------------------------------


def test_stacked_bars_add_up_to_the_mean_total_in_each_group() -> None:
    made = results(
        kind=["soft", "soft", "hard"],
        detect=[0.05, 0.15, 0.2],
        notify=[0.1, None, 0.3],
        total=[0.15, 0.15, 0.5],
    )
    axes: Any = plots.stacked(made, axes=new_axes())
    assert [label.get_text() for label in axes.get_yticklabels()] == ["soft", "hard"]
    ends: dict[float, float] = {}
    for bar in axes.patches:
        ends[bar.get_y()] = max(ends.get(bar.get_y(), 0.0), bar.get_x() + bar.get_width())
    assert [*ends.values()] == [pytest.approx(150), pytest.approx(500)]
    assert [text.get_text() for text in axes.texts] == ["150 ms", "500 ms"]
    assert axes.get_xlabel() == "mean time of a handover (ms)"


def test_stacked_bars_of_systems_have_their_names_in_the_given_order() -> None:
    one, other = results(detect=[0.1], total=[0.1]), results(detect=[0.3], total=[0.3])
    axes: Any = plots.stacked({"MAT": one, "Mobile IPv4": other.handovers}, axes=new_axes())
    assert [label.get_text() for label in axes.get_yticklabels()] == ["MAT", "Mobile IPv4"]


def test_the_whisker_is_the_confidence_interval_of_the_mean_total() -> None:
    total = [0.1, 0.2, 0.3, 0.4]
    axes: Any = plots.stacked(results(detect=total, total=total), axes=new_axes())
    (bars,) = [c for c in axes.collections if len(c.get_segments()) == 1]
    ((low, high),) = [segment[:, 0] for segment in bars.get_segments()]
    half = 1.96 * np.std(total, ddof=1) / 2 * 1000
    assert (high - low) / 2 == pytest.approx(half)


# ---- load of the IMS -----------------------------------------------------------------------------


def ims_rows(run: int, received: tuple[int, ...], name: str = "IMS") -> list[dict[str, object]]:
    return [
        {
            "run": run,
            "ims": name,
            "start": 10.0 * index,
            "interval": 10.0,
            "received": number,
            "answered": number,
            "refused": 0,
            "busy": number / 1000,
            "queue_max": number // 10,
            "wait_mean": number / 1e5,
        }
        for index, number in enumerate(received)
    ]


def test_the_load_over_time_has_four_panels_with_units() -> None:
    made = Results.build(PROVENANCE, [], [], ims_rows(0, (100, 200)))
    panels = plots.ims_load(made, figure=Figure())
    assert [panel.get_ylabel() for panel in panels] == [
        "arrivals\n(messages/s)",
        "busy\n(share)",
        "longest queue\n(messages)",
        "mean wait\n(ms)",
    ]
    assert panels[-1].get_xlabel() == "time (s)"
    drawn = [panel.get_lines()[0] for panel in panels]
    assert np.asarray(drawn[0].get_xdata()).tolist() == [0.0, 10.0, 20.0]
    heights = [np.asarray(line.get_ydata()).tolist() for line in drawn]
    assert heights == [[10, 20, 20], [0.1, 0.2, 0.2], [10, 20, 20], [1.0, 2.0, 2.0]]


@pytest.mark.parametrize(
    ("time", "label"),
    [
        ("wait_p99", "99 % of waits\n(ms)"),
        ("response_p50", "median response\n(ms)"),
        ("wait_max", "longest wait\n(ms)"),
    ],
)
def test_the_load_shows_any_time_of_its_table(time: plots.LoadTime, label: str) -> None:
    rows = [row | {time: 0.25} for row in ims_rows(0, (100, 200))]
    panel: Any = plots.ims_load(
        Results.build(PROVENANCE, [], [], rows), time=time, figure=Figure()
    )[-1]
    assert panel.get_ylabel() == label
    assert panel.get_lines()[0].get_ydata().tolist() == [250.0, 250.0, 250.0]


def test_the_load_of_what_is_no_time_is_an_error() -> None:
    wrong: Any = "busy"
    with pytest.raises(ValueError, match="time is 'busy'; must be one of wait_mean, wait_p50"):
        plots.ims_load(Results.build(PROVENANCE, [], [], []), time=wrong, figure=Figure())


def test_the_load_of_several_runs_is_their_mean_with_a_band() -> None:
    rows = [row for run in range(3) for row in ims_rows(run, (100 + 50 * run,))]
    panels: Any = plots.ims_load(Results.build(PROVENANCE, [], [], rows), figure=Figure())
    assert panels[0].get_lines()[0].get_ydata().tolist() == [15.0, 15.0]
    corners = panels[0].collections[0].get_paths()[0].vertices[:, 1]
    assert (corners.min(), corners.max()) == (pytest.approx(10.25), pytest.approx(19.75))


def test_of_many_servers_the_busiest_have_colours_and_the_others_are_grey_together() -> None:
    rows = [row for n in range(9) for row in ims_rows(0, (100 + n,), f"S{n}")]
    panels: Any = plots.ims_load(Results.build(PROVENANCE, [], [], rows), figure=Figure())
    labels = [text.get_text() for text in panels[0].get_legend().get_texts()]
    assert labels == ["S8", "S7", "S6", "S5", "S4", "S3", "others"]


def test_a_load_test_s_table_without_the_server_s_own_figures_is_drawn() -> None:
    rows = [
        {k: v for k, v in row.items() if k not in ("busy", "queue_max", "wait_mean")}
        for row in ims_rows(0, (5, 6))
    ]
    panels = plots.ims_load(Results.build(PROVENANCE, [], [], rows), figure=Figure())
    assert len(panels) == 4


# ---- curves and knees ----------------------------------------------------------------------------

LOADS = np.arange(0.05, 0.96, 0.05)


def mm1_quantile(load: Any, share: float = 0.99) -> Any:
    """Sojourn time's quantile of M/M/1 with service rate 1: it is exponential, rate 1 - load."""
    return -math.log(1 - share) / (1 - load)


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_the_knee_of_mm1_is_at_half_the_capacity_whatever_the_quantile(share: float) -> None:
    found = plots.knee(LOADS, mm1_quantile(LOADS, share))
    assert found is not None
    assert found.load == pytest.approx(0.5, abs=1e-6)
    assert found.value == pytest.approx(2 * mm1_quantile(0.0, share), rel=1e-6)
    assert [found.low, found.high] == pytest.approx([0.45, 0.55])


def test_the_knee_between_two_loads_is_found() -> None:
    loads = np.array([0.15, 0.33, 0.44, 0.59, 0.8])
    found = plots.knee(loads, mm1_quantile(loads))
    assert found is not None
    assert found.load == pytest.approx(0.5, abs=0.01)


def test_the_knee_of_md1_is_at_two_minus_the_root_of_two() -> None:
    time = 1 + LOADS / (2 * (1 - LOADS))
    found = plots.knee(LOADS, time)
    assert found is not None
    assert found.load == pytest.approx(2 - math.sqrt(2), abs=0.005)


def test_a_constant_delay_moves_the_knee_towards_the_capacity() -> None:
    """Mean time D + 1/(1 - x): the power is greatest where (1 - x)² D = 2x - 1."""
    delay = 8.0
    loads = np.arange(0.02, 0.99, 0.02)
    found = plots.knee(loads, delay + 1 / (1 - loads))
    assert found is not None
    assert found.load == pytest.approx(1 + (1 - math.sqrt(1 + delay)) / delay, abs=0.005)


def test_the_knee_does_not_depend_on_how_far_the_sweep_goes() -> None:
    found = [plots.knee(x, mm1_quantile(x)) for x in (LOADS[:count] for count in (13, 16, 19))]
    assert [round(each.load, 6) for each in found if each] == [0.5, 0.5, 0.5]


def test_a_sweep_that_does_not_reach_the_knee_has_none() -> None:
    low, high = LOADS[LOADS < 0.42], LOADS[LOADS > 0.58]
    assert plots.knee(low, mm1_quantile(low)) is None
    assert plots.knee(high, mm1_quantile(high)) is None


def test_the_order_of_the_loads_and_a_load_of_zero_do_not_matter() -> None:
    loads = np.array([0.6, 0.0, 0.3, 0.5, 0.4])
    found = plots.knee(loads, mm1_quantile(loads))
    assert found is not None
    assert [found.load, found.low, found.high] == pytest.approx([0.5, 0.4, 0.6])


def test_a_wide_band_widens_the_range_of_the_knee() -> None:
    time = mm1_quantile(LOADS)
    narrow = plots.knee(LOADS, time, 0.999 * time, 1.001 * time)
    wide = plots.knee(LOADS, time, 0.9 * time, 1.1 * time)
    assert narrow is not None
    assert wide is not None
    assert [narrow.low, narrow.high] == pytest.approx([0.45, 0.55])
    # Loads x whose power x(1-x)/0.9 may reach the surely reached 0.25/1.1.
    root = math.sqrt(0.25 - 0.25 * 0.9 / 1.1)
    inside = LOADS[np.abs(LOADS - 0.5) <= root]
    assert (wide.low, wide.high) == (inside[0], inside[-1])


def test_a_band_that_reaches_below_0_leaves_the_knee_open_to_that_side() -> None:
    time = mm1_quantile(LOADS)
    low = time.copy()
    low[-2:] = -1.0
    found = plots.knee(LOADS, time, low, 1.001 * time)
    assert found is not None
    assert found.load == pytest.approx(0.5)
    assert found.high == LOADS[-1]


def test_a_knee_without_intervals_has_its_neighbours_for_a_range() -> None:
    none = np.full(len(LOADS), math.nan)
    found = plots.knee(LOADS, mm1_quantile(LOADS), none, none)
    assert found is not None
    assert [found.low, found.high] == pytest.approx([0.45, 0.55])


@pytest.mark.parametrize(
    ("loads", "times", "said"),
    [
        ([1, 2], [1, 2], "has 2 points with load; a knee needs three"),
        ([1, 2, 2], [1, 2, 3], "a load occurs twice"),
        ([1, 2, 3], [1, 0, 3], "must be positive"),
        ([-1, 2, 3], [1, 2, 3], "must be positive"),
        ([1, 2, 3], [1, math.nan, 3], "must be positive"),
    ],
)
def test_what_is_no_load_curve_is_refused(
    loads: list[float], times: list[float], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        plots.knee(loads, times)


def sweep() -> pd.DataFrame:
    time = mm1_quantile(LOADS) / 1000
    return pd.DataFrame({"load": LOADS, "estimate": time, "low": 0.99 * time, "high": 1.02 * time})


def test_a_curve_has_its_estimates_a_band_and_the_knee() -> None:
    axes: Any = plots.curve(
        sweep(),
        "load",
        mark_knee=True,
        factor=1000,
        x_label="load",
        y_label="p99 (ms)",
        axes=new_axes(),
    )
    estimates, mark = axes.get_lines()
    assert estimates.get_ydata() == pytest.approx(mm1_quantile(LOADS))
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (
        pytest.approx(0.99 * mm1_quantile(LOADS[0])),
        pytest.approx(1.02 * mm1_quantile(LOADS[-1])),
    )
    assert mark.get_xdata()[0] == pytest.approx(0.5)
    assert [text.get_text() for text in axes.texts] == ["knee at 0.5"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("load", "p99 (ms)")


def test_curves_by_a_column_have_a_line_and_a_knee_each() -> None:
    slower = sweep().assign(load=2 * LOADS, workers=2)
    frame = pd.concat([sweep().assign(workers=1), slower]).sample(frac=1, random_state=1)
    axes: Any = plots.curve(frame, "load", by="workers", mark_knee=True, axes=new_axes())
    named = lines(axes)
    assert sorted(named) == ["1", "2"]
    assert named["2"].get_xdata() == pytest.approx(2 * LOADS)
    assert sorted(text.get_text() for text in axes.texts) == ["knee at 0.5", "knee at 1"]


def test_a_curve_without_a_band_is_a_line() -> None:
    axes = plots.curve(sweep()[["load", "estimate"]], "load", axes=new_axes())
    assert len(axes.get_lines()) == 1
    assert not axes.collections


def test_a_column_that_is_missing_is_named_with_those_that_there_are() -> None:
    said = "has no column rate, p99; it has load, estimate, low, high"
    with pytest.raises(ValueError, match=said):
        plots.curve(sweep(), "rate", estimate="p99", axes=new_axes())


# ---- style and files -----------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "inches"), [("single", 3.5), ("double", 7.16)])
def test_figures_are_as_wide_as_a_column_or_two_with_text_of_7_to_9_points(
    width: plots.Width, inches: float
) -> None:
    before = dict(rcParams)
    with plots.style(width):
        axes: Any = plots.parts(sample())
    figure = axes.get_figure()
    assert figure.get_size_inches()[0] == inches
    texts = [
        axes.xaxis.label,
        axes.yaxis.label,
        *axes.get_xticklabels(),
        *axes.get_legend().get_texts(),
    ]
    assert {text.get_fontsize() for text in texts} <= {7.0, 8.0, 9.0}
    assert dict(rcParams) == before


def test_nothing_of_a_figure_is_outside_of_it() -> None:
    with plots.style("single"):
        axes: Any = plots.interruption(
            results(kind=["soft", "hard"], interruption_up=[0.1, 0.2], interruption_down=[0.1, 0.2])
        )
        figure = axes.get_figure()
        figure.draw_without_rendering()
    box = figure.get_tightbbox()
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= 3.5
    assert box.y1 <= 2.4


@pytest.mark.parametrize("kind", ["pdf", "svg", "png"])
def test_equal_figures_make_equal_bytes_without_a_date(tmp_path: Path, kind: str) -> None:
    for name in ("a", "b"):
        with plots.style():
            plots.save(plots.stacked(sample()), tmp_path / f"{name}.{kind}")
    content = (tmp_path / f"a.{kind}").read_bytes()
    assert content == (tmp_path / f"b.{kind}").read_bytes()
    assert not re.search(rb"CreationDate|ModDate|<dc:date>|Software", content)
    assert content.startswith({"pdf": b"%PDF", "svg": b"<?xml", "png": b"\x89PNG"}[kind])


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.jpg; must end in \.pdf, \.svg, \.png"):
        plots.save(plots.parts(sample()), tmp_path / "a.jpg")


def test_the_colours_differ_in_lightness_or_hue_for_every_kind_of_sight() -> None:
    """The simulation of Machado, Oliveira and Fernandes (2009), severity 1, in linear RGB."""
    sights = {
        "protan": (
            (0.152286, 1.052583, -0.204868),
            (0.114503, 0.786281, 0.099216),
            (-0.003882, -0.048116, 1.051998),
        ),
        "deutan": (
            (0.367322, 0.860646, -0.227968),
            (0.280085, 0.672501, 0.047413),
            (-0.011820, 0.042940, 0.968881),
        ),
    }
    for matrix, palette in itertools.product(sights.values(), (OKABE_ITO, PART_COLOURS.values())):
        rgb = np.array([colors.to_rgb(colour) for colour in palette])
        seen = np.clip(rgb**2.2 @ np.array(matrix).T, 0, 1) ** (1 / 2.2)
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=2) + 9 * np.eye(len(rgb))
        assert apart.min() > 0.1


def test_plots_of_nothing_say_so() -> None:
    empty = Results.build(PROVENANCE, [], [], [])
    for plot in (plots.parts, plots.interruption, plots.stacked):
        drawn: Any = plot(empty, axes=new_axes())
        assert [text.get_text() for text in drawn.texts] == ["none"]
    panels = plots.ims_load(empty, figure=Figure())
    assert [text.get_text() for panel in panels for text in panel.texts] == ["none"] * 4


# ---- estimates side by side, and over time -------------------------------------------------------


def estimated(*values: float) -> pd.DataFrame:
    table = np.array(values)
    return pd.DataFrame({"system": ["a", "b"], "value": table, "low": table - 1, "high": table + 2})


def test_estimates_have_a_row_for_each_name_and_a_colour_for_each_series() -> None:
    frames = {"up": estimated(1.0, 2.0), "down": estimated(3.0, math.nan)}
    axes: Any = plots.estimates(frames, "system", factor=1000, x_label="ms", axes=new_axes())
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b"]
    assert axes.get_ylim() == (1.5, -0.5)
    up, down = axes.containers
    assert up.lines[0].get_xdata().tolist() == [1000.0, 2000.0]
    assert up.lines[0].get_ydata()[0] < 0 < down.lines[0].get_ydata()[0]
    (bars,) = up.lines[2]
    assert bars.get_segments()[0][:, 0].tolist() == [0.0, 3000.0]
    assert [up.lines[0].get_color(), down.lines[0].get_color()] == list(OKABE_ITO[:2])


def test_a_quantity_over_time_is_the_mean_of_the_runs_and_the_sum_of_the_servers() -> None:
    def row(run: int, ims: str, start: float, received: int) -> dict[str, object]:
        times = {"start": start, "interval": 2.0, "busy": 0.0, "queue_max": 0, "mappings": 0}
        counts = {"received": received, "answered": 0, "refused": 0, "dropped": 0}
        return {"run": run, "ims": ims, **times, **counts}

    rows = [row(run, ims, s, 10 + 4 * run) for run in (0, 1) for ims in "ab" for s in (0.0, 2.0)]
    made = Results.build(replace(PROVENANCE, runs=2), [], [], rows)
    arrivals = Statistic("received / interval", table="ims")
    axes: Any = plots.over_time({"x": made}, arrivals, factor=10, y_label="1/s", axes=new_axes())
    (line,) = axes.get_lines()
    assert line.get_xdata().tolist() == [0.0, 2.0]
    assert line.get_ydata().tolist() == [120.0, 120.0]
    band = student_t([100.0, 140.0])
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert [heights.min(), heights.max()] == pytest.approx([band.low, band.high])
    assert axes.get_ylim()[0] == 0
