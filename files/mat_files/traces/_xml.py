"""XML traces are read with expat itself: it streams, and it knows the line of every element.

No trace needs entities of its own, and files with them can be made to blow up or to read others, so
they are refused.
"""

from collections.abc import Iterator
from pathlib import Path
from xml.parsers import expat

from mat_files.errors import trace_error
from mat_files.traces._text import chunks, opened


def xml_parser(path: Path) -> expat.XMLParserType:
    """A parser that refuses a document type with entities."""
    parser = expat.ParserCreate()
    parser.buffer_text = True

    def refuse(name: str, *_: object) -> None:
        what = f"declares the entity {name!r}; write the file without a document type"
        raise trace_error(path, parser.CurrentLineNumber, "<!DOCTYPE>", what)

    parser.EntityDeclHandler = refuse
    return parser


def fed(path: Path, parser: expat.XMLParserType) -> Iterator[None]:
    """Give the parser all of the file; yields after every piece.

    What the parser cannot read becomes a `TraceError`.
    """
    with opened(path) as stream:
        for piece in chunks(stream):
            _parse(path, parser, piece, final=False)
            yield
        _parse(path, parser, b"", final=True)
        yield


def _parse(path: Path, parser: expat.XMLParserType, piece: bytes, *, final: bool) -> None:
    try:
        parser.Parse(piece, final)
    except expat.ExpatError as error:
        what = f"malformed XML ({expat.ErrorString(error.code)}); write the file again"
        raise trace_error(path, error.lineno, "", what) from error
    except (LookupError, ValueError) as error:
        raise trace_error(path, 1, "", f"cannot be decoded ({error}); save it as UTF-8") from error
