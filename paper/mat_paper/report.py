"""What a record says, in words and tables beside the paper's: Markdown, of which all else is made.

The same sections are the report of `mat paper` and the figures of docs/evaluation.md. Numbers come
from the record alone; a part that is not whole is left out.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from mat_files.palette import PART_NAMES
from mat_paper import PARTS, figures, ladders, published, summary
from mat_paper.hosts import WAY_NAMES
from mat_paper.record import Record
from mat_paper.summary import Crowd, Estimate, Handovers, RoundTrips, Spread, Throughput

if TYPE_CHECKING:
    from mat_sim.compare import Line

MARKDOWN: Final = "report.md"
HTML: Final = "report.html"
_BUSY: Final = 0.2
"""Processors that others keep busy, before a part begins, from which on a machine is not quiet."""
_LADDER: Final = 100
"""Columns of a ladder diagram."""
_VERDICTS: Final = {True: "yes", False: "**no**", None: "–"}


def report(record: Record, *, pictures: bool = True) -> str:
    """All of a record as a page of Markdown; with `pictures`, those that are files beside it."""
    shown = [f"## {_TITLES[part]}\n\n{section(record, part)}" for part in record.parts]
    if pictures:
        links = [_links(part) for part in record.parts]
        shown = [f"{text}\n\n{link}" for text, link in zip(shown, links, strict=True)]
    sections = ["# The paper's evaluation, done over", about(record), *shown]
    return "\n\n".join(sections) + "\n"


def section(record: Record, part: str) -> str:
    """The tables of a part that is whole."""
    noted = f"Measured on {record.when(part)}, size `{record.name}`{busy(record, part)}."
    return f"{noted}\n\n{_SECTIONS[part](record)}"


def busy(record: Record, part: str) -> str:
    """A word of warning where other programs had the machine, too."""
    others = record.busy(part)
    if others <= _BUSY:
        return ""
    return f", **on a loaded machine** (other programs kept {others:.1f} processors busy)"


def about(record: Record) -> str:
    """On which machine, beside the paper's."""
    rows = [(key, value) for key, value in record.machine.items()]
    rows += [(f"paper: {key}", value) for key, value in published.MACHINES.items()]
    return _table(("", "machine"), rows)


def drawings(part: str) -> dict[str, str]:
    """The titles of a part's drawings, and the files that they are in."""
    if part != "ladders":
        return {_TITLES[part]: f"{_FIGURES[part]}.svg"}
    return {
        f"Figure {figure.number}, {source}": ladders.drawing_name(figure, source)
        for figure in ladders.FIGURES
        for source in ladders.SOURCES
    }


def write_report(record: Record) -> None:
    """Write the report as Markdown and HTML, and the figures of all parts that are whole."""
    drawn = {
        "ping": lambda: figures.table_4(summary.round_trips(record)),
        "udp": lambda: figures.figure_5(summary.throughput(record)),
        "handover": lambda: figures.parts(summary.handovers(record)),
        "crowd": lambda: figures.crowd(summary.crowds(record)),
    }
    files: dict[str, bytes] = {}
    for part in record.parts:
        if part in drawn:
            files |= dict(figures.files(_FIGURES[part], drawn[part]()))
    text = report(record)
    record.write(files | {MARKDOWN: text.encode(), HTML: html(text).encode()})


def html(text: str) -> str:
    """A page of its own of a text in Markdown."""
    from markdown_it import MarkdownIt

    body: str = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    return f"<!doctype html>\n<meta charset=utf-8>\n<title>mat paper</title>\n{_STYLE}\n{body}"


# ---- the parts -----------------------------------------------------------------------------------


def _ping(record: Record) -> str:
    size = record.size.ping
    found = summary.round_trips(record)
    command = f"`ping -s {published.PING_PAYLOAD} -f -c {size.count}`"
    text = (
        f"{command}, {size.rounds} rounds in which all take turns; medians, in brackets the least"
        " and the greatest round. *Added* is the difference of the means within a round.\n\n"
    )
    return text + _table(
        ("RTT, ms", "min", "avg", "max", "added", "lost"),
        [*_paper_round_trips(), *(_round_trips(one) for one in found)],
    )


def _paper_round_trips() -> Iterator[tuple[str, ...]]:
    for name, one in published.TABLE_4.items():
        added = _ms(published.ADDED, 3) if name == "with" else ""
        times = (_ms(time, 3) for time in (one.least, one.mean, one.greatest))
        yield f"paper, {name} MAT", *times, added, ""


def _round_trips(one: RoundTrips) -> tuple[str, ...]:
    times = (_spread(each) for each in (one.least, one.mean, one.greatest))
    added = _spread(one.added) if one.added else ""
    return WAY_NAMES[one.way], *times, added, f"{one.lost} of {one.sent:,}"


def _udp(record: Record) -> str:
    size = record.size.udp
    found = summary.throughput(record)
    text = (
        f"`iperf -u -t {size.seconds:g} -l {published.UDP_DATAGRAM} -b LOAD`, {size.rounds} rounds;"
        " Mbit/s that arrived, means ± 95 % confidence, and the share that was lost. The paper saw"
        f" no difference up to {published.UDP_EQUAL / 1e6:.0f} Mbit/s, less with MAT beyond, and a"
        f" limit of its machines near {published.UDP_LIMIT / 1e6:.0f} Mbit/s. Where less was sent"
        " than offered, iperf's client had no more of the processor.\n\n"
    )
    ways = [way for way in WAY_NAMES if any(one.way == way for one in found)]
    heads = [head for way in ways for head in (WAY_NAMES[way], "sent", "lost")]
    rows = [
        (f"{load / 1e6:g}", *(cell for way in ways for cell in _throughput(found, way, load)))
        for load in sorted({one.load for one in found})
    ]
    return text + _table(("offered", *heads), rows)


def _throughput(found: Sequence[Throughput], way: str, load: float) -> tuple[str, str, str]:
    for one in found:
        if (one.way, one.load) == (way, load):
            return _mbit(one.arrived), f"{one.sent.mean / 1e6:.0f}", f"{one.loss.mean:.1%}"
    return "–", "–", "–"


def _ladder_section(record: Record) -> str:
    found: list[str] = []
    for source in ladders.SOURCES:
        for figure, text in ladders.texts(record, source, _LADDER):
            found.append(
                f"Figure {figure.number}, {figure.title}, {source}:\n\n```text\n{text}\n```"
            )
    return "\n\n".join(found)


def _handover(record: Record) -> str:
    text = (
        "The nodes' own DHCP client; medians in ms. *Lab, net* is what is left without the time"
        " that the lab's programs and links take beyond the scenario's (`shares.csv`); it is"
        " compared with the simulator, whose hosts take none, and agrees within 10 % or 2 ms. What"
        " DHCP takes (*address*) is measured in the lab and given to the simulator.\n\n"
    )
    return text + "\n\n".join(_one_kind(one) for one in summary.handovers(record))


def _one_kind(one: Handovers) -> str:
    simulated, played = one.handovers
    title = f"**{one.variant.name}**: {played} handovers in the lab, {simulated} in the simulator"
    rows = [_part(line, raw) for line, raw in one.parts]
    rows += [
        (f"interruption, {line.column.removeprefix('interruption_')}", _ms(line.first.median), "",
         _ms(line.second.median), _ms(line.second.p95), "")
        for line in one.raw
        if line.column.startswith("interruption")
    ]  # fmt: skip
    heads = ("", "simulator", "lab, net", "lab", "lab, p95", "agree")
    return f"{title}\n\n{_table(heads, rows)}"


def _part(line: "Line", raw: "Line") -> tuple[str, ...]:
    times = (line.first.median, line.second.median, raw.second.median, raw.second.p95)
    return PART_NAMES[line.column], *map(_ms, times), _VERDICTS[line.agrees]


def _crowd(record: Record) -> str:
    found = summary.crowds(record)
    text = (
        "All nodes leave network A for B in the same moment; each has its own namespace, daemon and"
        " DHCP client, and two IMS serve them. Rounds:"
        f" {record.size.crowd.rounds}. Median / 95th percentile, ms; *lab, net* and the"
        " simulator's addresses as above.\n\n"
    )
    heads = ["nodes", "completed"]
    for column in summary.CROWD_COLUMNS:
        heads += [f"{column}: simulator", "lab, net", "lab"]
    return text + _table(heads, [_crowd_row(found, nodes) for nodes in record.size.crowd.nodes])


def _crowd_row(found: Sequence[Crowd], nodes: int) -> list[str]:
    of = {(one.column, one.where): one for one in found if one.nodes == nodes}
    played = of[summary.CROWD_COLUMNS[0], "lab"]
    row = [str(nodes), f"{played.completed} of {played.all}"]
    for column in summary.CROWD_COLUMNS:
        for where in ("simulator", "net", "lab"):
            one = of[column, where]
            row.append(f"{_ms(one.median)} / {_ms(one.p95)}")
    return row


_TITLES: Final = {
    "ping": "Table 4: round trips",
    "udp": "Figure 5: UDP throughput",
    "ladders": "Figures 2 and 3: message sequences",
    "handover": "Handovers with DHCP",
    "crowd": "Handovers at the same time",
}
_FIGURES: Final = {"ping": "table-4", "udp": "figure-5", "handover": "handover", "crowd": "crowd"}
_SECTIONS: Final[dict[str, Callable[[Record], str]]] = {
    "ping": _ping,
    "udp": _udp,
    "ladders": _ladder_section,
    "handover": _handover,
    "crowd": _crowd,
}
assert tuple(_SECTIONS) == tuple(PARTS)


# ---- cells ---------------------------------------------------------------------------------------


def _links(part: str) -> str:
    return "\n\n".join(f"![{title}]({name})" for title, name in drawings(part).items())


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ms(seconds: float, digits: int = 1) -> str:
    return "–" if math.isnan(seconds) else f"{seconds * 1000:.{digits}f}"


def _spread(one: Spread) -> str:
    return f"{_ms(one.median, 3)} ({_ms(one.low, 3)}–{_ms(one.high, 3)})"


def _mbit(one: Estimate) -> str:
    half = (one.high - one.low) / 2
    return f"{one.mean / 1e6:.0f} ± {half / 1e6:.0f}"


_STYLE: Final = """\
<style>
body{font:15px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}
table{border-collapse:collapse}
td,th{padding:.2em .8em;border-bottom:1px solid #ccc}
pre{font-size:11px;line-height:1.15;overflow:auto}
img{max-width:100%}
</style>"""
