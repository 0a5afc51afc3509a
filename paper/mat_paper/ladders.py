"""Figures 2 and 3, drawn from packets: start of communication, and handover, of lab and simulator.

Both play the same scenario and write what hosts sent and heard into a capture; what is drawn is
read from that alone, so any other capture of the same kind will do (`draw`). Figure 2 begins when
the mobile node asks the DNS for its peer's IMS, figure 3 when it tells its own of the new address.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, final

from mat_paper import PaperError
from mat_paper.ping import Report
from mat_paper.played import LAB, SCENARIOS, SIMULATOR, play, simulate_with_capture
from mat_paper.record import Record

if TYPE_CHECKING:
    from mat_files.capture import Story
    from mat_files.ladder import LadderMessage

FOLDER: Final = "ladders"
CAPTURE: Final = "{place}.pcapng"
SOURCES: Final = (SIMULATOR, LAB)
_SCENARIO: Final = SCENARIOS / "figures.toml"
_NODE: Final = "MN"
_UPDATE: Final = "IMS Update"
_LENGTH: Final = 1.0
"""Seconds after which nothing belongs to a figure any more."""
_BEFORE: Final = 0.001
"""Seconds before it that are shown, too."""


@final
@dataclass(frozen=True, slots=True)
class Figure:
    """One of the paper's figures: its number, and what it shows."""

    number: Literal[2, 3]
    title: str


FIGURES: Final = (Figure(2, "start of communication"), Figure(3, "handover"))


def measure(record: Record, logs: Path, report: Report) -> None:
    """Play and capture what is missing, and draw it. Raises `PaperError`."""
    folder = record.directory / FOLDER
    report(0, len(SOURCES))
    simulate_with_capture(_SCENARIO, folder / SIMULATOR, _capture(folder, SIMULATOR))
    report(1, len(SOURCES))
    play(_SCENARIO, folder / LAB, logs, f"--pcapng={_capture(folder, LAB)}")
    report(len(SOURCES), len(SOURCES))
    for source in SOURCES:
        for figure, drawing in draw(_capture(folder, source)):
            record.write({drawing_name(figure, source): drawing.encode()})


def drawing_name(figure: Figure, source: str) -> str:
    """The file of a figure's drawing."""
    return f"figure-{figure.number}-{source}.svg"


def draw(path: Path) -> Iterator[tuple[Figure, str]]:
    """The figures in a capture, as SVG. Raises `PaperError`."""
    from mat_files.ladder_svg import ladder_svg

    for figure in FIGURES:
        story = story_of(path, figure)
        yield figure, ladder_svg(story.messages, story.participants)


def texts(record: Record, source: str, width: int) -> Iterator[tuple[Figure, str]]:
    """The figures of lab or simulator as text. Raises `PaperError`."""
    from mat_files.ladder import ladder

    for figure in FIGURES:
        story = story_of(_capture(record.directory / FOLDER, source), figure)
        text = ladder(story.messages, story.participants, ascii_only=False, width=width)
        yield figure, text


def story_of(path: Path, figure: Figure) -> "Story":
    """What belongs to a figure. Raises `PaperError` where the capture does not have it."""
    from mat_files.capture import read_capture
    from mat_files.capture import story_of as story_in
    from mat_files.errors import CaptureError

    try:
        whole = story_in(read_capture(path), family=4)
    except CaptureError as error:
        raise PaperError(str(error)) from error
    begins = [one.sent for one in whole.messages if _begins(one, figure)]
    if not begins:
        raise PaperError(f"{path}: has no {figure.title} of {_NODE}")
    begin = begins[0] if figure.number == 2 else begins[-1]
    return whole.between(begin - _BEFORE, begin + _LENGTH)


def _begins(one: "LadderMessage", figure: Figure) -> bool:
    if one.from_ != _NODE:
        return False
    if figure.number == 2:
        return one.kind == "dns" and _NODE not in one.label
    return one.label == _UPDATE


def _capture(folder: Path, source: str) -> Path:
    return folder / CAPTURE.format(place=source)
