"""A ladder diagram as an SVG drawing that needs nothing else: for papers, slides and web pages.

One row per message, as in the text (`mat_files.ladder`); an arrow falls a little from where it
leaves to where it arrives. Signalling is drawn solid, data dashed, look-ups in the DNS dotted.
"""

from collections.abc import Iterator, Sequence
from typing import Final, final
from xml.sax.saxutils import escape

from mat_files.ladder import LadderMessage, columns_of, merged, time_title

_GAP: Final = 190
"""Pixels between columns; between rows, and above and below them, `_ROW`."""
_ROW: Final = 30
_MARGIN: Final = 90
_TOP: Final = 44
_FALL: Final = 8
_COLOURS: Final = {"signal": "#0072b2", "data": "#555555", "dns": "#009e73"}
_DASHES: Final = {"signal": "", "data": ' stroke-dasharray="7 4"', "dns": ' stroke-dasharray="2 3"'}
_LOST: Final = "#d55e00"
_STYLE: Final = (
    "text{font:13px 'Helvetica Neue',Arial,'Liberation Sans',sans-serif;fill:#222}"
    ".name{font-weight:bold;text-anchor:middle}"
    ".label{text-anchor:middle;paint-order:stroke;stroke:#fff;stroke-width:5px;"
    "stroke-linejoin:round}"
    ".sent{text-anchor:end}.time{fill:#666;font-size:11px}.life{stroke:#999}"
)


def ladder_svg(messages: Sequence[LadderMessage], participants: Sequence[str] = ()) -> str:
    """The drawing, as a document; arguments as for `mat_files.ladder.ladder`."""
    ordered = sorted(messages, key=lambda message: message.sent)
    return _Drawing(ordered, columns_of(ordered, participants)).document()


@final
class _Drawing:
    """Where everything is."""

    def __init__(self, ordered: Sequence[LadderMessage], columns: Sequence[str]) -> None:
        self._title = time_title(ordered)
        self._origin = ordered[0].sent if ordered else 0.0
        self._lines = merged(ordered)
        self._at = {name: _MARGIN + _GAP * index for index, name in enumerate(columns)}
        self._width = 2 * _MARGIN + _GAP * max(0, len(columns) - 1)
        self._height = _TOP + _ROW * (len(self._lines) + 1)

    def document(self) -> str:
        size = f'width="{self._width}" height="{self._height}"'
        box = f'viewBox="0 0 {self._width} {self._height}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {box} role="img">'
        names = escape(", ".join(self._at))
        parts = [
            head,
            f"<title>Messages between {names}</title>",
            f"<style>{_STYLE}</style>",
            f'<rect width="{self._width}" height="{self._height}" fill="#fff"/>',
            *self._columns(),
            *(part for row in range(len(self._lines)) for part in self._message(row)),
            "</svg>",
        ]
        return "\n".join(parts) + "\n"

    def _columns(self) -> Iterator[str]:
        right = self._width - _MARGIN + 16
        yield f'<text class="time sent" x="{_MARGIN - 16}" y="{_TOP - 8}">{self._title}</text>'
        if self._title.startswith("sent"):
            yield f'<text class="time" x="{right}" y="{_TOP - 8}">received</text>'
        for name, x in self._at.items():
            yield f'<text class="name" x="{x}" y="20">{escape(name)}</text>'
            yield f'<line class="life" x1="{x}" x2="{x}" y1="{_TOP - 16}" y2="{self._height - 8}"/>'

    def _message(self, row: int) -> Iterator[str]:
        message, count = self._lines[row]
        y = _TOP + _ROW * row + _ROW // 2
        start, end = self._at[message.from_], self._at[message.to]
        yield from self._arrow(message, start, end, y)
        text = message.text + (f" ×{count}" if count > 1 else "")
        middle = (start + end) // 2
        yield f'<text class="label" x="{middle}" y="{y - 4}">{escape(text)}</text>'
        sent = f"{(message.sent - self._origin) * 1000:.1f}"
        yield f'<text class="time sent" x="{_MARGIN - 16}" y="{y + 4}">{sent}</text>'
        arrival = "lost" if message.lost else ""
        if message.received is not None:
            arrival = f"{(message.received - self._origin) * 1000:.1f}"
        if arrival:
            x = self._width - _MARGIN + 16
            yield f'<text class="time" x="{x}" y="{y + 4 + _FALL // 2}">{arrival}</text>'

    def _arrow(self, message: LadderMessage, start: int, end: int, y: int) -> Iterator[str]:
        way = 1 if end > start else -1
        colour, below = _COLOURS[message.kind], y + _FALL
        if message.lost:
            end -= way * 14
        stroke = f'stroke="{colour}" stroke-width="1.6"{_DASHES[message.kind]}'
        yield f'<line x1="{start}" y1="{y}" x2="{end - way * 4}" y2="{below}" {stroke}/>'
        if message.lost:
            cross = f"M{end - 5} {below - 5}l10 10M{end + 5} {below - 5}l-10 10"
            yield f'<path d="{cross}" stroke="{_LOST}" stroke-width="2" fill="none"/>'
        else:
            tip = f"M{end} {below}l{-way * 9} -5v9z"
            yield f'<path d="{tip}" fill="{colour}"/>'
