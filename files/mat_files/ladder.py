"""A ladder diagram (sequence chart) as text, like the paper's figure 3.

One line per message at its time of sending, in order; the time of its arrival is at the right.
Signalling is drawn solid, data dashed, look-ups in the DNS dotted; a lost message ends in a cross.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, final

WIDTH: Final = 100
"""Columns that a diagram fits into."""

_LEFT: Final = 10
_RIGHT: Final = 10
_WIDEST: Final = 26


@final
@dataclass(frozen=True, slots=True)
class LadderMessage:
    """A message: times in seconds (`received` is `None` if it was lost), who, what.

    `step` is its number in the paper's figures, where it has one.
    """

    sent: float
    received: float | None
    from_: str
    to: str
    label: str
    step: str | None = None
    kind: Literal["signal", "data", "dns"] = "signal"

    @property
    def text(self) -> str:
        """Step and label."""
        return f"({self.step}) {self.label}" if self.step else self.label


@final
@dataclass(frozen=True, slots=True)
class _Glyphs:
    life: str
    line: dict[str, str]
    right: str
    left: str
    lost: str
    times: str


_UNICODE: Final = _Glyphs("│", {"signal": "─", "data": "╌", "dns": "┄"}, "▶", "◀", "✗", "×")
_ASCII: Final = _Glyphs("|", {"signal": "-", "data": "=", "dns": "."}, ">", "<", "x", "x")


def ladder(
    messages: Sequence[LadderMessage],
    participants: Sequence[str] = (),
    *,
    ascii_only: bool | None = None,
) -> str:
    """The diagram of `messages`, at most `WIDTH` columns wide.

    `participants` are the columns from left to right; those not named follow, in order of
    appearance, before the last. Times are in ms from the first message. `ascii_only` is taken from
    the encoding of standard output where it is `None`. No messages give an empty text.
    """
    if not messages:
        return ""
    if ascii_only is None:
        ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
    ordered = sorted(messages, key=lambda message: message.sent)
    chart = _Chart(_columns(ordered, participants), _ASCII if ascii_only else _UNICODE)
    lines = [chart.head()]
    for message, count in _merged(ordered):
        lines += chart.message(message, count, ordered[0].sent)
    return "\n".join([*lines, chart.life("", "").rstrip()])


def _columns(messages: Iterable[LadderMessage], participants: Sequence[str]) -> list[str]:
    seen = dict.fromkeys(name for message in messages for name in (message.from_, message.to))
    named = [name for name in participants if name in seen]
    others = [name for name in seen if name not in named]
    return named[:-1] + others + named[-1:]


def _merged(messages: Sequence[LadderMessage]) -> list[tuple[LadderMessage, int]]:
    """Messages with counts: data packets in a row that differ only in time become one line."""
    merged: list[tuple[LadderMessage, int]] = []
    for message in messages:
        if merged and message.kind == "data" and _alike(merged[-1][0], message):
            merged[-1] = (merged[-1][0], merged[-1][1] + 1)
        else:
            merged.append((message, 1))
    return merged


def _alike(first: LadderMessage, second: LadderMessage) -> bool:
    same = (first.from_, first.to, first.label, first.step, first.kind)
    lost = first.received is None, second.received is None
    return lost[0] == lost[1] and same == (
        second.from_,
        second.to,
        second.label,
        second.step,
        second.kind,
    )


@final
class _Chart:
    """Columns and glyphs of one diagram; each method returns finished lines."""

    __slots__ = ("_at", "_glyphs", "_span")

    def __init__(self, columns: Sequence[str], glyphs: _Glyphs) -> None:
        room = WIDTH - _LEFT - _RIGHT - 2
        gap = min(_WIDEST, room // max(1, len(columns) - 1))
        self._at = {name: index * gap for index, name in enumerate(columns)}
        self._span = gap * (len(columns) - 1) + 1
        self._glyphs = glyphs

    def head(self) -> str:
        """The line of names, each beginning above its life line."""
        names = list(" " * (self._span + _RIGHT))
        for name, at in self._at.items():
            gap = max(1, self._span // max(1, len(self._at) - 1))
            names[at : at + gap] = list(name[: gap - 1].ljust(gap))
        return f"{'sent ms':>{_LEFT - 1}}  {''.join(names).rstrip()}"

    def life(self, left: str, right: str) -> str:
        """A line on which nothing happens."""
        return self._line(left, self._lives(), right)

    def message(self, message: LadderMessage, count: int, origin: float) -> list[str]:
        """One line for a message, or two where its text does not fit into the arrow."""
        sent = f"{(message.sent - origin) * 1000:.1f}"
        arrival = "lost"
        if message.received is not None:
            arrival = f"{(message.received - origin) * 1000:.1f}"
        text = message.text + (f" {self._glyphs.times}{count}" if count > 1 else "")
        low, high = sorted((self._at[message.from_], self._at[message.to]))
        if len(text) + 4 <= high - low:
            return [self._line(sent, self._arrow(message, text), arrival)]
        above = self._lives()
        start = max(0, min(low + 2, self._span - len(text)))
        above[start : start + len(text)] = list(text)
        return [self._line("", above, ""), self._line(sent, self._arrow(message, ""), arrival)]

    def _arrow(self, message: LadderMessage, text: str) -> list[str]:
        row = self._lives()
        start, end = self._at[message.from_], self._at[message.to]
        low, high = min(start, end), max(start, end)
        shaft = [self._glyphs.line[message.kind]] * max(0, high - low - 1)
        if text:
            begin = (len(shaft) - len(text) - 2) // 2
            shaft[begin : begin + len(text) + 2] = f" {text} "
        if shaft:
            tip = self._glyphs.right if end > start else self._glyphs.left
            shaft[-1 if end > start else 0] = self._glyphs.lost if message.received is None else tip
        row[low + 1 : high] = shaft
        return row

    def _lives(self) -> list[str]:
        row = [" "] * self._span
        for at in self._at.values():
            row[at] = self._glyphs.life
        return row

    @staticmethod
    def _line(left: str, row: Sequence[str], right: str) -> str:
        return f"{left:>{_LEFT - 1}}  {''.join(row)}{right:>{_RIGHT}}".rstrip()
