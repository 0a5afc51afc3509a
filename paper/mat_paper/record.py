"""What was measured, in a directory: settings and machine as TOML, measurements as CSV.

`paper.toml` says how much was wanted, on which machine, and which parts are whole; `ping.csv` and
`udp.csv` have a row for each measurement, added when it is made, and the other parts the tables
that lab and simulator have written, in folders of their own. All files are replaced whole, so an
interruption leaves nothing in halves.
"""

import csv
import io
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self, TypeVar, final

import tomli_w

from mat_files.document import Document
from mat_files.results import check_directory, write_files
from mat_paper import PARTS, PaperError
from mat_paper.size import Size, SizeError

FILE: Final = "paper.toml"
FORMAT: Final = 1


@final
@dataclass(frozen=True, slots=True)
class Ping:
    """One flood of one way; times in s."""

    round: int
    way: str
    transmitted: int
    received: int
    least: float
    mean: float
    greatest: float


@final
@dataclass(frozen=True, slots=True)
class Udp:
    """One run of iperf: what was to be sent, was sent and arrived, bit/s, and datagrams lost."""

    round: int
    way: str
    load: float
    sent: float
    arrived: float
    lost: int
    datagrams: int


Row = TypeVar("Row", Ping, Udp)
_NAMES: Final[dict[type[Any], str]] = {Ping: "ping.csv", Udp: "udp.csv"}


@final
class Record:
    """An evaluation in its `directory`: of one `size` and one `machine`."""

    def __init__(self, directory: Path, size: Size, values: dict[str, Any]) -> None:
        """Use `begin` or `read`."""
        self.directory = directory
        self.size = size
        self._values = values

    @classmethod
    def begin(cls, directory: Path, name: str, size: Size, machine: Mapping[str, str]) -> Self:
        """A new record, or the one that is there, to go on with.

        Raises `PaperError` if what is there is something else, or was measured otherwise, and
        `ResultsError` where nothing can be written.
        """
        check_directory(directory)
        if (directory / FILE).exists():
            found = cls.read(directory)
            found.check_same(size, machine)
            return found
        if directory.exists() and any(directory.iterdir()):
            what = f"{directory}: is not empty, and holds no result of mat paper"
            raise PaperError(f"{what}; name a new directory: --out DIR")
        settings = size.model_dump(mode="json")
        values = {
            "format": FORMAT,
            "size": name,
            "settings": settings,
            "machine": dict(machine),
            "parts": {},
        }
        record = cls(directory, size, values)
        record._write()
        return record

    @classmethod
    def read(cls, directory: Path) -> Self:
        """The record in a directory. Raises `PaperError`."""
        path = directory / FILE
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            what = f"{directory}: holds no result of mat paper (no {FILE})"
            raise PaperError(f"{what}; make one with: mat paper --out {directory}") from None
        except (OSError, ValueError) as error:
            raise PaperError(f"{path}: cannot be read ({error})") from error
        if values.get("format") != FORMAT:
            what = f"has format {values.get('format')}; this program reads {FORMAT}"
            raise PaperError(f"{path}: {what}")
        return cls(directory, _settings(path, values), values)

    def check_same(self, size: Size, machine: Mapping[str, str]) -> None:
        """That what is to be added is of the same kind as what is there; else `PaperError`."""
        if size != self.size:
            what = (
                f"{self.directory}: was measured in another size ({self.name}, or with other --set)"
            )
            raise PaperError(f"{what}; give the same, or name a new directory: --out DIR")
        before = self.machine
        if other := [key for key, value in machine.items() if before.get(key) != value]:
            changes = ", ".join(f"{key} was {before.get(key)}, is {machine[key]}" for key in other)
            what = f"{self.directory}: was measured otherwise: {changes}"
            raise PaperError(f"{what}; name a new directory: --out DIR")

    # ---- what there is -------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name of the size."""
        return str(self._values["size"])

    @property
    def machine(self) -> dict[str, str]:
        """On what it was measured."""
        return {key: str(value) for key, value in self._values["machine"].items()}

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that are whole, in their order."""
        return tuple(part for part in PARTS if "ended" in self._values["parts"].get(part, {}))

    def when(self, part: str) -> str:
        """The day on which a part ended, as 2026-01-31."""
        return str(self._values["parts"][part]["ended"])[:10]

    def busy(self, part: str) -> float:
        """How many processors others kept busy when a part began: the most, if it did so often."""
        return float(self._values["parts"][part]["busy"])

    def rows(self, kind: type[Row]) -> list[Row]:
        """All measurements of a kind, in order. Raises `PaperError`."""
        path = self.directory / _NAMES[kind]
        if not path.exists():
            return []
        types = [field.type for field in fields(kind)]
        try:
            with path.open(newline="", encoding="utf-8") as file:
                _, *lines = csv.reader(file)
            return [kind(*_cells(types, line)) for line in lines]
        except (ValueError, TypeError) as error:
            raise PaperError(f"{path}: cannot be read ({error})") from error

    # ---- what comes ----------------------------------------------------------------------------

    def add(self, row: Row) -> None:
        """Write one more measurement."""
        written: list[Any] = [*self.rows(type(row)), row]
        text = io.StringIO(newline="")
        table = csv.writer(text, lineterminator="\n")
        table.writerow(field.name for field in fields(row))
        table.writerows(astuple(one) for one in written)
        write_files(self.directory, {_NAMES[type(row)]: text.getvalue().encode()})

    def begin_part(self, part: str, busy: float) -> None:
        """Note that a part is to be measured, and how many processors others keep busy."""
        noted = self._values["parts"].setdefault(part, {"busy": 0.0})
        noted["busy"] = round(max(float(noted["busy"]), busy), 2)
        self._write()

    def end_part(self, part: str) -> None:
        """Note that a part is whole."""
        self._values["parts"][part]["ended"] = datetime.now(UTC).isoformat(timespec="seconds")
        self._write()

    def _write(self) -> None:
        write_files(self.directory, {FILE: tomli_w.dumps(self._values).encode()})

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write a report or figures beside the measurements."""
        write_files(self.directory, files)


def _settings(path: Path, values: Mapping[str, Any]) -> Size:
    document = Document(path, "a result", SizeError, "")
    document.values = dict(values.get("settings", {}))
    return document.validated(Size)


def _cells(types: Sequence[Any], line: Sequence[str]) -> Iterator[Any]:
    for kind, text in zip(types, line, strict=True):
        yield kind(text)


def missing(wanted: Iterable[tuple[Any, ...]], present: Iterable[tuple[Any, ...]]) -> list[Any]:
    """What is left to be measured, by keys, in the order in which it is wanted."""
    there = set(present)
    return [key for key in wanted if key not in there]
