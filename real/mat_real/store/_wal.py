"""Whether an SQLite write-ahead log was damaged after it was written.

SQLite reads a WAL up to the first frame whose checksum is wrong and takes the rest for what a crash
left half written (https://sqlite.org/fileformat2.html#walformat). That is right for the last
transaction, which nobody was told of. But each commit is synchronised before the next transaction
begins, so a wrong frame with a later transaction behind it is damage, and what follows would be
lost without a word.
"""

from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

_HEADER: Final = Struct(">8I")
_FRAME: Final = Struct(">6I")
_BIG_ENDIAN_SUMS, _LITTLE_ENDIAN_SUMS = 0x377F0683, 0x377F0682
_MASK: Final = 0xFFFFFFFF


class _Frame(NamedTuple):
    """One frame of the WAL's present generation."""

    commits: bool
    sums: tuple[int, int]
    covered: bytes


def damaged_frames(path: Path) -> str:
    """What is wrong with a WAL file; empty if nothing is, or if there is none. Raises `OSError`."""
    if not path.exists() or path.stat().st_size < _HEADER.size:
        return ""
    content = path.read_bytes()
    magic, _, page_size, _, *salts, first, second = _HEADER.unpack_from(content)
    if magic not in (_BIG_ENDIAN_SUMS, _LITTLE_ENDIAN_SUMS) or not 512 <= page_size <= 65536:
        return "has no valid header"
    words = Struct(f"{'>' if magic == _BIG_ENDIAN_SUMS else '<'}{(page_size + 8) // 4}I")
    head = Struct(words.format[:1] + "6I")
    if _sum(head.unpack_from(content), (0, 0)) != (first, second):
        return "has no valid header"
    return _first_damage(_frames(content, page_size, salts), words, (first, second))


def _first_damage(frames: Iterator[_Frame], words: Struct, sums: tuple[int, int]) -> str:
    for number, frame in enumerate(frames):
        sums = _sum(words.unpack(frame.covered), sums)
        if sums != frame.sums:
            # A torn last transaction ends with its own commit, if it has one: nothing is behind.
            while not frame.commits:
                following = next(frames, None)
                if following is None:
                    return ""
                frame = following  # noqa: PLW2901  # the same walk, without checking sums
            return f"frame {number} is damaged" if next(frames, None) is not None else ""
    return ""


def _frames(content: bytes, page_size: int, salts: list[int]) -> Iterator[_Frame]:
    """The frames up to the first of an earlier generation, or to the end."""
    size = _FRAME.size + page_size
    for start in range(_HEADER.size, len(content) - size + 1, size):
        _, commits, *here, first, second = _FRAME.unpack_from(content, start)
        if here != salts:
            return
        covered = content[start : start + 8] + content[start + _FRAME.size : start + size]
        yield _Frame(commits != 0, (first, second), covered)


def _sum(words: tuple[int, ...], sums: tuple[int, int]) -> tuple[int, int]:
    first, second = sums
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & _MASK
        second = (second + odd + first) & _MASK
    return first, second
