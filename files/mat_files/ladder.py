"""A ladder diagram (sequence chart) as text, like the paper's figure 3.

One line per message at its time of sending, in order; the time of its arrival is at the right.
Signalling is drawn solid, data dashed, look-ups in the DNS dotted; a lost message ends in a cross.
Of what was recorded in one place alone it is known when it passed there, and no more.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, final

from mat.messages import (
    HaAnswer,
    HaNotify,
    HaNotifyAck,
    HaQuery,
    ImsUpdate,
    ImsUpdateReply,
    MaAnswer,
    MaQuery,
    Message,
)

WIDTH: Final = 100
"""Columns that a diagram fits into."""

_LEFT: Final = 10
_RIGHT: Final = 10
_WIDEST: Final = 26


@final
@dataclass(frozen=True, slots=True)
class LadderMessage:
    """A message: times in seconds (`received` is `None` if it was lost), who, what.

    `step` is its number in the paper's figures, where it has one. Of one that was not `watched`
    nobody knows whether it arrived; `received` is `None` then too.
    """

    sent: float
    received: float | None
    from_: str
    to: str
    label: str
    step: str | None = None
    kind: Literal["signal", "data", "dns"] = "signal"
    watched: bool = True

    @property
    def lost(self) -> bool:
        """Whether it is known that it never arrived."""
        return self.watched and self.received is None

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
    width: int = WIDTH,
) -> str:
    """The diagram of `messages`, at most `width` columns wide.

    `participants` are the columns from left to right; those not named follow, in order of
    appearance, before the last. Times are in ms from the first message. `ascii_only` is taken from
    the encoding of standard output where it is `None`. No messages give an empty text.
    """
    if not messages:
        return ""
    if ascii_only is None:
        ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
    ordered = sorted(messages, key=lambda message: message.sent)
    glyphs = _ASCII if ascii_only else _UNICODE
    chart = _Chart(columns_of(ordered, participants), glyphs, width)
    lines = [chart.head(time_title(ordered))]
    for message, count in merged(ordered):
        lines += chart.message(message, count, ordered[0].sent)
    return "\n".join([*lines, chart.life("", "").rstrip()])


def time_title(messages: Iterable[LadderMessage]) -> str:
    """What the times at the left are."""
    return "sent ms" if any(message.watched for message in messages) else "seen ms"


def columns_of(messages: Iterable[LadderMessage], participants: Sequence[str]) -> list[str]:
    """The columns of a diagram from left to right, `participants` as for `ladder`."""
    seen = dict.fromkeys(name for message in messages for name in (message.from_, message.to))
    named = [name for name in participants if name in seen]
    others = [name for name in seen if name not in named]
    return named[:-1] + others + named[-1:]


def merged(messages: Iterable[LadderMessage]) -> list[tuple[LadderMessage, int]]:
    """Messages with counts: data packets that differ only in time become one line.

    But for those between which there is anything but data, or data of the same way with another
    fate.
    """
    lines: list[tuple[LadderMessage, int]] = []
    latest: dict[tuple[str, str], int] = {}
    """The line of the last data each way, since there was anything else."""
    for message in messages:
        if message.kind != "data":
            latest.clear()
        way = message.from_, message.to
        place = latest.get(way) if message.kind == "data" else None
        if place is not None and _alike(lines[place][0], message):
            lines[place] = lines[place][0], lines[place][1] + 1
            continue
        if message.kind == "data":
            latest[way] = len(lines)
        lines.append((message, 1))
    return lines


def _alike(first: LadderMessage, second: LadderMessage) -> bool:
    return (first.label, first.step, first.lost) == (second.label, second.step, second.lost)


def step_of(message: Message, from_node: bool, to_node: bool, *, first: bool = False) -> str:
    """The step of the paper's figures that a message is (primes: docs/protocol.md, section 8).

    `from_node` and `to_node` tell nodes from servers. A node's question for another is step 7,
    or step 1 if it speaks `first`: nothing has come from the other yet.
    """
    match message:
        case ImsUpdate() | ImsUpdateReply():
            return "1"
        case HaNotify():
            return "2'" if from_node and to_node else "2"
        case HaNotifyAck():
            return "4'" if from_node and to_node else "4"
        case MaQuery() | MaAnswer():
            asked_by_node = from_node if isinstance(message, MaQuery) else to_node
            return ("1" if first else "7") if asked_by_node else "3"
        case HaQuery() | HaAnswer():
            return "6"


@final
class _Chart:
    """Columns and glyphs of one diagram; each method returns finished lines."""

    __slots__ = ("_at", "_glyphs", "_span")

    def __init__(self, columns: Sequence[str], glyphs: _Glyphs, width: int) -> None:
        room = width - _LEFT - _RIGHT - 2
        gap = min(_WIDEST, room // max(1, len(columns) - 1))
        self._at = {name: index * gap for index, name in enumerate(columns)}
        self._span = gap * (len(columns) - 1) + 1
        self._glyphs = glyphs

    def head(self, times: str) -> str:
        """The line of names, each beginning above its life line."""
        names = list(" " * (self._span + _RIGHT))
        for name, at in self._at.items():
            gap = max(1, self._span // max(1, len(self._at) - 1))
            names[at : at + gap] = list(name[: gap - 1].ljust(gap))
        return f"{times:>{_LEFT - 1}}  {''.join(names).rstrip()}"

    def life(self, left: str, right: str) -> str:
        """A line on which nothing happens."""
        return self._line(left, self._lives(), right)

    def message(self, message: LadderMessage, count: int, origin: float) -> list[str]:
        """One line for a message, or two where its text does not fit into the arrow."""
        sent = f"{(message.sent - origin) * 1000:.1f}"
        arrival = "lost" if message.lost else ""
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
            shaft[-1 if end > start else 0] = self._glyphs.lost if message.lost else tip
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
