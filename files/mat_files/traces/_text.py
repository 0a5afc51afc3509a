"""Opening input files, gzipped or not, so that only `TraceError` escapes from reading them."""

import gzip
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from mat_files.errors import trace_error

_GZIP_MAGIC: Final = b"\x1f\x8b"
_CHUNK: Final = 1 << 16


@contextmanager
def opened(path: Path) -> Generator[IO[bytes]]:
    """The file's bytes, decompressed if gzipped. What reading raises becomes a `TraceError`."""
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == _GZIP_MAGIC
            raw.seek(0)
            if not zipped:
                yield raw
                return
            with gzip.GzipFile(fileobj=raw) as stream:
                yield stream  # type: ignore[misc]  # GzipFile reads like IO[bytes]
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        what = f"the gzip data is cut short or damaged ({error}); copy or compress the file again"
        raise trace_error(path, 0, "", what) from error
    except OSError as error:
        what = f"cannot be read ({error.strerror or error}); name a readable file"
        raise trace_error(path, 0, "", what) from error


def chunks(stream: IO[bytes]) -> Iterator[bytes]:
    """The stream in pieces of bounded size."""
    while piece := stream.read(_CHUNK):
        yield piece


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers and stripped lines, without blank lines and `#` comments."""
    for number, line in _all_lines(path):
        if line and not line.startswith("#"):
            yield number, line


def comments(path: Path) -> Iterator[str]:
    """The `#` comments above everything else, stripped."""
    for _, line in _all_lines(path):
        if line.startswith("#"):
            yield line
        elif line:
            return


def _all_lines(path: Path) -> Iterator[tuple[int, str]]:
    with opened(path) as stream:
        for number, raw in enumerate(stream, 1):
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                what = f"is not UTF-8 text ({error.reason}); save it as UTF-8"
                raise trace_error(path, number, "", what) from error


def number(path: Path, line: int, field: str, text: str) -> float:
    """`text` as a number; NaN and infinity are refused by the check of the whole trace."""
    try:
        return float(text)
    except ValueError:
        what = f"is {text!r}; must be a number"
        raise trace_error(path, line, field, what) from None
