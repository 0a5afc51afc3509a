"""`mat ladder`: the message sequence of a capture. Light to import."""

from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click

if TYPE_CHECKING:
    from mat_files.capture import Capture, Story

_FAMILIES: Final[dict[str | None, Literal[4, 6] | None]] = {"4": 4, "6": 6, None: None}


@click.command("ladder", short_help="Draw the messages of a capture as a ladder diagram.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--between",
    nargs=2,
    type=float,
    metavar="START END",
    help="Only what was sent in this time, s from the first packet.",
)
@click.option(
    "--node",
    "nodes",
    multiple=True,
    metavar="NAME",
    help="Only what is from, to or about this node: its name, else its home address. May be given"
    " more than once.",
)
@click.option(
    "--family",
    type=click.Choice(["4", "6"]),
    help="Only what is about addresses of IPv4 or of IPv6: a node with both does all twice.",
)
@click.option("--no-data", is_flag=True, help="Only signalling.")
@click.option("--ascii", "ascii_only", is_flag=True, help="Draw with ASCII characters.")
@click.option(
    "--width",
    type=click.IntRange(min=60),
    default=100,
    show_default=True,
    help="Columns of text that the diagram fits into.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the diagram into this file: a drawing if it ends in .svg, else text.",
)
def ladder(
    file: Path,
    *,
    between: tuple[float, float] | None,
    nodes: tuple[str, ...],
    family: Literal["4", "6"] | None,
    no_data: bool,
    ascii_only: bool,
    width: int,
    out: Path | None,
) -> None:
    """Draw the message sequence in FILE: pcapng or pcap, of the lab, the simulator, or tcpdump.

    \b
    mat sim run first --pcapng first.pcapng
    mat ladder first.pcapng --between 0 2           the start of communication
    mat ladder first.pcapng --node m1 --no-data     signalling of m1 alone
    mat ladder first.pcapng -o handover.svg --between 10.42 10.52
    tcpdump -i any -w here.pcap 'udp port 49628 or port 53'; mat ladder here.pcap

    Numbers in brackets are steps of docs/protocol.md (8.2, 8.3). Times are in ms from the first
    line.
    A capture of one host or link says when packets passed there, not when they arrived: then one
    time is shown. Hosts are called by their names in the capture, else by their home address.
    """
    from mat_files.errors import CaptureError

    try:
        capture, story = _story(file, nodes, _FAMILIES[family])
    except CaptureError as error:
        raise click.ClickException(str(error)) from error
    if capture.cut:
        click.echo(f"{file}: ends {capture.cut}; what is before that is drawn", err=True)
    if no_data:
        story = story.signalling()
    if between is not None:
        story = _within(story, *between)
    if not story.messages:
        raise click.ClickException(f"{file}: nothing is left to draw; ask for less to be left out")
    drawing = _drawing(story, ascii_only or None, width, svg=out is not None and _is_svg(out))
    _show(drawing, out)


def _story(
    file: Path, nodes: tuple[str, ...], family: Literal[4, 6] | None
) -> "tuple[Capture, Story]":
    from mat.messages import MAT_PORT
    from mat_files.capture import read_capture, story_of
    from mat_files.errors import CaptureError

    capture = read_capture(file)
    story = story_of(capture, nodes, family)
    if not story.messages:
        many = f"in {len(capture.packets)} IP packets"
        what = f"UDP port {MAT_PORT}, a question for an IMS record, or data between nodes of either"
        raise CaptureError(f"{file}: nothing of MAT is {many}: no {what}")
    return capture, story


def _within(story: "Story", begin: float, end: float) -> "Story":
    if begin >= end:
        raise click.UsageError(f"--between {begin:g} {end:g}: the end must be after the start")
    found = story.between(begin, end)
    if not found.messages:
        last = max(message.sent for message in story.messages)
        what = f"nothing was sent then; the last of all at {last:.3f} s"
        raise click.ClickException(f"--between {begin:g} {end:g}: {what}")
    return found


def _is_svg(out: Path) -> bool:
    return out.suffix.lower() == ".svg"


def _drawing(story: "Story", ascii_only: bool | None, width: int, *, svg: bool) -> str:
    from mat_files.ladder import ladder as text_of
    from mat_files.ladder_svg import ladder_svg

    if svg:
        return ladder_svg(story.messages, story.participants)
    shown = text_of(story.messages, story.participants, ascii_only=ascii_only, width=width)
    return f"{shown}\n"


def _show(drawing: str, out: Path | None) -> None:
    if out is None:
        click.echo(drawing, nl=False)
        return
    try:
        out.write_text(drawing, encoding="utf-8")
    except OSError as error:
        what = f"{out}: cannot be written ({error.strerror}); name a file that can be"
        raise click.ClickException(what) from error
    click.echo(f"Written to {out}.")
