"""Whether an SQLite write-ahead log was damaged after it was written.

SQLite reads a WAL up to the first frame whose checksum or salt is wrong and takes the rest for what
a crash left half written (https://sqlite.org/fileformat2.html#walformat). That is right for the
last transaction, which nobody was told of. But each commit is synchronised before the next
transaction begins, so a wrong frame with a later transaction behind it is damage, and what follows
would be lost without a word.

Where one transaction ends, its last frame says. Should that very mark be what is damaged, two
transactions look like one; but each writes its pages in ascending order (as long as SQLite has no
need to write before the commit, `PRAGMA cache_spill`), and the second begins below where the first
has ended: with the page that the first has filled, or with page 1, where the file's size stands.

The WAL-index, in the file with -shm behind its name (https://sqlite.org/walformat.html), says how
many frames were committed. It is written after they were synchronised and never synchronised
itself, so it may be gone or old, but never ahead: where it knows of more than the WAL holds, those
were lost. Against it, a WAL that was cut short and damage to its last transaction show as well.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

_HEADER: Final = Struct(">8I")
_FRAME: Final = Struct(">6I")
_BIG_ENDIAN_SUMS, _LITTLE_ENDIAN_SUMS = 0x377F0683, 0x377F0682
_MASK: Final = 0xFFFFFFFF

_INDEX: Final = Struct("=III?BHII8s8s8s")
"""Version, unused, change, whether it is in use, byte order, page size, frames, pages, sums of the
last frame, salts, checksum. It stands there twice."""
_INDEX_VERSION: Final = 3007000

_Sums = tuple[int, int]


class _Frame(NamedTuple):
    """One frame. `present`: its salts are those of the WAL's present generation."""

    page: int
    commits: bool
    present: bool
    sums: _Sums
    covered: bytes


def damaged_frames(path: Path) -> str:
    """What is wrong with the WAL of a database; empty if nothing is. Raises `OSError`."""
    # The index first: should others write meanwhile, the WAL is ahead of it.
    committed, index_salts = _index(path.with_name(path.name + "-shm"))
    wal = path.with_name(path.name + "-wal")
    content = wal.read_bytes() if wal.exists() else b""
    if len(content) < _HEADER.size:
        return "has been cut off" if committed else ""
    magic, _, page_size, _, *salts, first, second = _HEADER.unpack_from(content)
    if magic not in (_BIG_ENDIAN_SUMS, _LITTLE_ENDIAN_SUMS) or not 512 <= page_size <= 65536:
        return "has no valid header"
    words = Struct(f"{'>' if magic == _BIG_ENDIAN_SUMS else '<'}{(page_size + 8) // 4}I")
    head = Struct(words.format[:1] + "6I")
    if _sum(head.unpack_from(content), (0, 0)) != (first, second):
        return "has no valid header"
    if index_salts != content[16:24]:
        committed = 0
    frames = list(_frames(content, page_size, salts))
    return _first_damage(frames, words, (first, second), committed)


def _index(path: Path) -> tuple[int, bytes]:
    """Frames that were committed, and the salts of their generation; 0 if that cannot be told."""
    if not path.exists():
        return 0, b""
    with path.open("rb") as file:
        one, other = file.read(_INDEX.size), file.read(_INDEX.size)
    if len(one) < _INDEX.size or one != other:
        return 0, b""
    version, _, _, in_use, _, _, frames, _, _, salts, _ = _INDEX.unpack(one)
    return (frames, salts) if in_use and version == _INDEX_VERSION else (0, b"")


def _first_damage(frames: Sequence[_Frame], words: Struct, sums: _Sums, committed: int) -> str:
    begun = 0
    for number, frame in enumerate(frames):
        sums = _sum(words.unpack(frame.covered), sums)
        if sums != frame.sums or not frame.present:
            cut_off = _is_one_transaction(frames[begun:number], frames[number:], words)
            return "" if cut_off and number >= committed else f"frame {number} is damaged"
        if frame.commits:
            begun = number + 1
    return f"has only {len(frames)} of {committed} frames" if len(frames) < committed else ""


def _is_one_transaction(whole: Sequence[_Frame], wrong: Sequence[_Frame], words: Struct) -> bool:
    """Whether frames of this generation may all be of one transaction, which a crash cut off.

    `whole` are those that are right, `wrong` those from the first that is not.
    """
    behind = [frame for frame in wrong if frame.present]
    if _has_wrong_salts(wrong, words):
        behind.insert(0, wrong[0])
    if any(frame.commits for frame in behind[:-1]):
        return False
    pages = [frame.page for frame in (*whole, *behind)]
    return not behind or not behind[-1].commits or pages == sorted(set(pages))


def _has_wrong_salts(wrong: Sequence[_Frame], words: Struct) -> bool:
    """Whether the first frame is not of an earlier generation: the next one builds on its sums."""
    if len(wrong) == 1 or wrong[0].present or not wrong[1].present:
        return False
    return _sum(words.unpack(wrong[1].covered), wrong[0].sums) == wrong[1].sums


def _frames(content: bytes, page_size: int, salts: list[int]) -> Iterator[_Frame]:
    """All frames, those of earlier generations included."""
    size = _FRAME.size + page_size
    for start in range(_HEADER.size, len(content) - size + 1, size):
        page, commits, *here, first, second = _FRAME.unpack_from(content, start)
        covered = content[start : start + 8] + content[start + _FRAME.size : start + size]
        yield _Frame(page, commits != 0, here == salts, (first, second), covered)


def _sum(words: tuple[int, ...], sums: _Sums) -> _Sums:
    first, second = sums
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & _MASK
        second = (second + odd + first) & _MASK
    return first, second
