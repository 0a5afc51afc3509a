"""A result as a piece of HTML for a notebook: figures, two small drawings, how to repeat the run.

Whatever the size of the result, what comes out is some tens of kilobytes: numbers are aggregated
before they are drawn, and lists are cut with a word about what was left out. It inherits colour and
font from the page, so it is legible on light and dark ground; it needs no script and nothing from
outside. Every text that comes from a file is escaped.
"""

import math
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Final, cast, final

import numpy as np
from numpy.typing import NDArray

from mat_files.palette import PART_COLOURS, PART_NAMES, colour_of
from mat_files.schema import DIRECTIONS, PARTS

if TYPE_CHECKING:
    import pandas as pd

    from mat_files.results import Provenance, Results

_MOST_ROWS: Final = 8
"""Kinds of handover, and servers, that are listed."""
_MOST_TEXT: Final = 6000
"""Characters of a text, such as the scenario's, that are shown."""
_STEPS: Final = 100
"""Points of a distribution that is drawn."""
_OUTCOMES: Final = ("completed", "superseded", "unfinished")
_WIDTH: Final = 380
_LEFT: Final = 48

_STYLE: Final = """\
.mat-results{font-size:13px;line-height:1.4}
.mat-results h3{font-size:17px;margin:0}
.mat-results h4{font-size:13px;margin:10px 0 4px}
.mat-results .mat-about{opacity:.75;margin:0 0 8px}
.mat-results .mat-cards{display:flex;flex-wrap:wrap;gap:8px;margin:8px 0}
.mat-results .mat-cards div{border:1px solid color-mix(in srgb,currentColor 25%,transparent);
border-radius:6px;padding:4px 12px;min-width:88px}
.mat-results .mat-cards b{display:block;font-size:18px}
.mat-results .mat-cards span{opacity:.75}
.mat-results .mat-columns{display:flex;flex-wrap:wrap;gap:0 28px}
.mat-results svg{display:block;max-width:100%;height:auto;background:none}
.mat-results svg text{fill:currentColor;font:11px sans-serif}
.mat-results table{border-collapse:collapse;margin:6px 0 10px;font-size:12px}
.mat-results th,.mat-results td{text-align:right!important;padding:2px 8px!important;
background:none!important;border-bottom:1px solid color-mix(in srgb,currentColor 15%,transparent)}
.mat-results th:first-child,.mat-results td:first-child{text-align:left!important;
padding-left:0!important}
.mat-results i.mat-colour{display:inline-block;width:10px;height:10px;border-radius:2px;
margin-right:6px;outline:1px solid color-mix(in srgb,currentColor 30%,transparent)}
.mat-results pre{white-space:pre-wrap;overflow:auto;max-height:300px;padding:6px 10px;margin:4px 0;
background:color-mix(in srgb,currentColor 7%,transparent);color:inherit}
.mat-results summary{cursor:pointer}
"""


def results_html(results: "Results") -> str:
    """The whole piece of a result."""
    kinds = list(_kinds(results.handovers))
    parts = [
        f"<style>{_STYLE}</style>",
        _heading(results.provenance),
        _cards(results, kinds),
        _columns(
            _outcomes(kinds) + _durations(kinds),
            _drawings(kinds) + _servers(results.ims) + _flows(results.flows),
        ),
        _reproduction(results.provenance),
    ]
    return f'<div class="mat-results">{"".join(parts)}</div>'


def _columns(*columns: str) -> str:
    """Side by side where there is room; one that is empty takes none."""
    parts = "".join(f"<div>{column}</div>" for column in columns if column)
    return f'<div class="mat-columns">{parts}</div>'


# ---- the data ------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class _Kind:
    """The handovers of one kind; durations in seconds, of those completed, where they exist."""

    name: str
    colour: str
    outcomes: dict[str, int]
    lost: tuple[int | None, ...]
    """Packets by direction; `None` where that was not measured."""
    durations: dict[str, NDArray[np.float64]]
    means: dict[str, float]

    @property
    def number(self) -> int:
        return sum(self.outcomes.values())


def _kinds(handovers: "pd.DataFrame") -> Iterator[_Kind]:
    """Kinds in the order soft, hard, others."""
    frame: Any = handovers
    names: list[str] = sorted(
        frame["kind"].unique().tolist(), key=lambda n: (n != "soft", n != "hard", n)
    )
    for index, name in enumerate(names[:_MOST_ROWS]):
        rows = frame[frame["kind"] == name] if len(names) > 1 else frame
        counts: dict[str, int] = rows["outcome"].value_counts().to_dict()
        outcomes = {outcome: int(counts.get(outcome, 0)) for outcome in _OUTCOMES}
        done = rows[rows["outcome"] == "completed"]
        durations = {column: _values(done[column]) for column in (*PARTS, "total")}
        means = {
            part: float(values.sum()) / max(1, len(done)) for part, values in durations.items()
        }
        for direction in DIRECTIONS:
            column = f"interruption_{direction}"
            durations[column] = _values(rows[column])
        lost = tuple(_sum(rows[f"lost_{direction}"]) for direction in DIRECTIONS)
        yield _Kind(name, colour_of(name, index), outcomes, lost, durations, means)


def _values(column: Any) -> NDArray[np.float64]:
    values: NDArray[np.float64] = column.to_numpy(dtype=np.float64, na_value=np.nan)
    return values[~np.isnan(values)]


def _sum(column: Any) -> int | None:
    return int(column.sum()) if column.notna().any() else None


def _count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"


def _quantiles(values: NDArray[np.float64], *shares: float) -> list[str]:
    if not values.size:
        return ["–"] * len(shares)
    return [_time(value) for value in np.quantile(values, shares).tolist()]


def _time(seconds: float) -> str:
    """With the unit that fits, three digits."""
    if seconds == 0:
        return "0 ms"
    if seconds < 0.9995:
        return f"{_digits(seconds * 1000)} ms"
    return f"{_digits(seconds)} s"


def _digits(value: float) -> str:
    places = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{min(places, 3)}f}"


# ---- texts and tables ----------------------------------------------------------------------------


def _heading(provenance: "Provenance") -> str:
    runs = "1 run" if provenance.runs == 1 else f"{provenance.runs} runs"
    about = f"seed {provenance.seed} · {runs} · mat {escape(provenance.version[:40])}"
    return f'<h3>{escape(_name(provenance))}</h3><p class="mat-about">{about}</p>'


def _name(provenance: "Provenance") -> str:
    """The scenario's name, by its text and the overrides; a load test may have none."""
    named = [_name_in(provenance.scenario)]
    named += [
        _name_in(f"[scenario]\nname = {line.partition('=')[2]}")
        for line in provenance.overrides.splitlines()
        if line.partition("=")[0].strip() == "scenario.name"
    ]
    return next((name for name in reversed(named) if name), "Results")[:100]


def _name_in(text: str) -> str:
    try:
        about: object = tomllib.loads(text).get("scenario")
    except tomllib.TOMLDecodeError:
        return ""
    return str(cast(dict[str, object], about).get("name", "")) if isinstance(about, dict) else ""


def _cards(results: "Results", kinds: Sequence[_Kind]) -> str:
    cards = [("handovers", f"{len(results.handovers):,}")]
    total = _together(kinds, "total")
    if total.size:
        median, high = _quantiles(total, 0.5, 0.99)
        cards += [("median total", median), ("p99 total", high)]
    interruption = _together(kinds, *(f"interruption_{direction}" for direction in DIRECTIONS))
    if interruption.size:
        cards.append(("median interruption", _quantiles(interruption, 0.5)[0]))
        lost = sum(number or 0 for kind in kinds for number in kind.lost)
        cards.append(("packets lost", f"{lost:,}"))
    cards.append(("messages", f"{_signals(results.messages):,}"))
    boxes = "".join(f"<div><b>{value}</b><span>{name}</span></div>" for name, value in cards)
    return f'<div class="mat-cards">{boxes}</div>'


def _together(kinds: Iterable[_Kind], *columns: str) -> NDArray[np.float64]:
    found = [kind.durations[column] for kind in kinds for column in columns]
    return np.concatenate(found) if found else np.empty(0)


def _signals(messages: Any) -> int:
    """Transmissions that are not data."""
    return int(messages.loc[messages["type"] != "data", "sent"].sum())


def _outcomes(kinds: Sequence[_Kind]) -> str:
    heads = ("handovers", "number", *_OUTCOMES, "lost up", "lost down")
    rows = [
        (
            _coloured(kind.colour, kind.name[:40]),
            f"{kind.number:,}",
            *(f"{kind.outcomes[outcome]:,}" for outcome in _OUTCOMES),
            *map(_count, kind.lost),
        )
        for kind in kinds
    ]
    return _table(heads, rows)


def _durations(kinds: Sequence[_Kind]) -> str:
    """Median and 99th percentile of each part; its colour is that of the bars."""
    heads = ["time", *(f"{kind.name[:40]} {what}" for kind in kinds for what in ("median", "p99"))]
    rows: list[list[str]] = []
    for column in (*PARTS, "total", *(f"interruption_{direction}" for direction in DIRECTIONS)):
        values = [kind.durations[column] for kind in kinds]
        if any(of_kind.any() for of_kind in values):
            name = PART_NAMES.get(column, column.replace("_", " "))
            colour = PART_COLOURS.get(column) if column in PARTS else None
            cells = [cell for of_kind in values for cell in _quantiles(of_kind, 0.5, 0.99)]
            rows.append([_coloured(colour, name), *cells])
    return _table(heads, rows)


def _servers(ims: Any) -> str:
    heads = ("IMS", "received", "dropped", "busiest", "longest wait")
    rows: list[list[str]] = []
    groups = ims.groupby("ims", sort=False)
    for name, frame in list(groups)[:_MOST_ROWS]:
        busy, wait = _values(frame["busy"]), _values(frame["wait_max"])
        rows.append(
            [
                escape(str(name)[:40]),
                f"{int(frame['received'].sum()):,}",
                _count(_sum(frame["dropped"])),
                f"{busy.max():.1%}" if busy.size else "–",
                _time(float(wait.max())) if wait.size else "–",
            ]
        )
    if (more := groups.ngroups - len(rows)) > 0:
        rows.append([f"and {more:,} more", "", "", "", ""])
    return _table(heads, rows)


def _flows(flows: Any) -> str:
    heads = ("data", "sent", "lost", "mean delay", "path stretch")
    rows = [
        (
            escape(f"{sender} → {receiver}"[:40]),
            _count(_sum(frame["sent"])),
            _count(_sum(frame["lost"])),
            *_of_delivered(frame),
        )
        for (sender, receiver), frame in flows.groupby(["from_role", "to_role"], sort=False)
    ]
    return _table(heads, rows[:_MOST_ROWS])


def _of_delivered(frame: Any) -> tuple[str, str]:
    """Means of delay and stretch over the packets of all runs."""
    known = frame[frame["delay_mean"].notna() & (frame["delivered"] > 0)]
    if not len(known):
        return "–", "–"
    weights = _values(known["delivered"])
    stretch = known["stretch_mean"]
    return (
        _time(float(np.average(_values(known["delay_mean"]), weights=weights))),
        f"{np.average(_values(stretch), weights=weights):.2f}" if stretch.notna().all() else "–",
    )


def _coloured(colour: str | None, name: str) -> str:
    mark = f'<i class="mat-colour" style="background:{colour}"></i>' if colour else ""
    return mark + escape(name)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML, heads are text; nothing where there is no row."""
    if not rows:
        return ""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _reproduction(provenance: "Provenance") -> str:
    recipe = provenance.recipe or _recipe(provenance)
    scenario = f"<p>scenario.toml:</p>{_text(provenance.scenario)}" if provenance.scenario else ""
    return f"<details><summary>How to reproduce</summary>{_text(recipe)}{scenario}</details>"


def _recipe(provenance: "Provenance") -> str:
    """A command, for results that do not bring their own."""
    lines = [f"# mat {provenance.version}, seed {provenance.seed}"]
    lines += [f"# {line}" for line in provenance.overrides.splitlines()]
    if provenance.trace:
        lines.append(f"# movement file with SHA-256 {provenance.trace}")
    lines.append("# results.provenance.scenario is the scenario's text; saved as scenario.toml:")
    lines.append(f"mat sim run scenario.toml --seed {provenance.seed}")
    return "\n".join(lines)


def _text(text: str) -> str:
    rest = len(text) - _MOST_TEXT
    shown = text if rest <= 0 else f"{text[:_MOST_TEXT]}\n… and {rest:,} more characters"
    return f"<pre>{escape(shown)}</pre>"


# ---- drawings ------------------------------------------------------------------------------------


def _drawings(kinds: Sequence[_Kind]) -> str:
    drawn = [kind for kind in kinds if kind.durations["total"].any()]
    if not drawn:
        return ""
    bars = f"<h4>Mean of each part</h4>{_bars(drawn)}"
    return f"{bars}<h4>Total: share of handovers done within</h4>{_curves(drawn)}"


def _bars(kinds: Sequence[_Kind]) -> str:
    """One stacked bar per kind; the means of the parts add up to the mean of the total."""
    axis = _Axis(max(kind.means["total"] for kind in kinds))
    height = 26 * len(kinds)
    shapes: list[str] = []
    for row, kind in enumerate(kinds):
        start, y = 0.0, 26 * row + 4
        for part in PARTS:
            end = start + kind.means[part]
            if axis.at(end) - axis.at(start) >= 0.1:
                name = escape(f"{PART_NAMES[part]}: {_time(kind.means[part])}")
                width = axis.at(end) - axis.at(start)
                shapes.append(
                    f'<rect x="{axis.at(start):.1f}" y="{y}" width="{width:.1f}" height="18"'
                    f' fill="{PART_COLOURS[part]}"><title>{name}</title></rect>'
                )
            start = end
        label = escape(kind.name[:7])
        shapes.append(f'<text x="{_LEFT - 6}" y="{y + 13}" text-anchor="end">{label}</text>')
    return _svg("Mean of each part of a handover, by kind", height, axis, shapes)


def _curves(kinds: Sequence[_Kind]) -> str:
    """The distribution of the total, by kind, to the 99.5th percentile."""
    totals = [kind.durations["total"] for kind in kinds]
    axis = _Axis(max(float(np.quantile(values, 0.995)) for values in totals))
    height = 120
    shapes = [
        f'<text x="{_LEFT - 6}" y="{height - height * share + 4:.0f}" text-anchor="end">'
        f"{share:.0%}</text>"
        f'<path d="M{_LEFT} {height - height * share:.1f}H{_WIDTH}" stroke="currentColor"'
        ' opacity=".15"/>'
        for share in (0.5, 1.0)
    ]
    shares = np.linspace(0, 1, _STEPS + 1)
    for kind, values in zip(kinds, totals, strict=True):
        points = np.quantile(values, shares, method="inverted_cdf").tolist()
        line = f"M{axis.at(points[0]):.1f} {height}" + "".join(
            f"H{axis.at(value):.1f}V{height - height * share:.1f}"
            for value, share in zip(points, shares.tolist(), strict=True)
            if value <= axis.end
        )
        shapes.append(
            f'<path d="{line}" fill="none" stroke="{kind.colour}" stroke-width="2">'
            f"<title>{escape(kind.name[:40])}</title></path>"
        )
    return _svg("Distribution of the total time of a handover, by kind", height, axis, shapes)


@final
class _Axis:
    """A linear axis of time from 0 to `end`, s, across a drawing, with three to seven ticks."""

    __slots__ = ("_step", "end")

    def __init__(self, greatest: float) -> None:
        exponent = 10.0 ** math.floor(math.log10(greatest / 3))
        steps = [step * exponent for step in (1, 2, 5, 10)]
        self._step = next(step for step in steps if greatest / step <= 6)
        self.end = greatest * 1.03

    def at(self, value: float) -> float:
        """Where a time is, in the drawing's units."""
        return _LEFT + (_WIDTH - _LEFT - 10) * value / self.end

    def ticks(self) -> list[float]:
        return [self._step * count for count in range(int(self.end / self._step) + 1)]


def _svg(title: str, height: float, axis: _Axis, shapes: Sequence[str]) -> str:
    ticks = "".join(
        f'<path d="M{axis.at(tick):.1f} {height}v4" stroke="currentColor"/>'
        f'<text x="{axis.at(tick):.1f}" y="{height + 16}" text-anchor="middle">'
        f"{_time(tick) if tick else '0'}</text>"
        for tick in axis.ticks()
    )
    base = f'<path d="M{_LEFT} {height}H{_WIDTH - 10}" stroke="currentColor" fill="none"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 -6 {_WIDTH} {height + 28}"'
        f' width="{_WIDTH}" height="{height + 28}" role="img" aria-label="{title}">'
        f"{''.join(shapes)}{base}{ticks}</svg>"
    )
