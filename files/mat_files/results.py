"""Results of a run: five tables and how they came about, as Parquet and CSV.

The tables are those of `mat_files.schema`. A Parquet file carries, in its schema's metadata, the
unit and meaning of every column and what is needed to repeat the run; CSV files are for a quick
look.
Equal results are written as equal bytes: no time of writing, no host, no user.
"""

import shutil
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, final

import pandas as pd

from mat_files._html import results_html
from mat_files._parquet import read_parquet, write_parquet
from mat_files.errors import ResultsError
from mat_files.frames import frame_of, frame_of_rows
from mat_files.schema import (
    FLOWS,
    HANDOVERS,
    IMS,
    LINKS,
    MESSAGES,
    SCHEMA_VERSION,
    SCHEMAS,
    Schema,
)

EXTRA_FILES: Final = (
    "handovers.png",
    "ladder.txt",
    "load.png",
    "load.json",
    "calibration.json",
    "calibration.toml",
)
"""Files that a run may write besides the tables."""
_LATER: Final = (FLOWS, LINKS)
"""Tables that results of older versions may lack."""


@final
@dataclass(frozen=True, slots=True)
class Provenance:
    """What repeats a run: the program's version, the scenario's text, overrides, seed and trace.

    `overrides` has one `KEY=VALUE` per line; `trace` is the SHA-256 of the movement file, empty
    where there is none. `first_run` and `runs` say which replications the tables have, and
    `recipe` in words, a command and lines of Python how to make them again, where that is known.
    """

    version: str
    scenario: str
    overrides: str
    seed: int
    trace: str = ""
    first_run: int = 0
    runs: int = 1
    recipe: str = ""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Results:
    """The tables of a run, or of several with different `run`, and their provenance."""

    handovers: pd.DataFrame
    messages: pd.DataFrame
    ims: pd.DataFrame
    provenance: Provenance
    flows: pd.DataFrame = field(default_factory=lambda: frame_of_rows(FLOWS, []))
    links: pd.DataFrame = field(default_factory=lambda: frame_of_rows(LINKS, []))

    @classmethod
    def build(
        cls,
        provenance: Provenance,
        handovers: Iterable[Mapping[str, object]],
        messages: Iterable[Mapping[str, object]],
        ims: Iterable[Mapping[str, object]],
        flows: Iterable[Mapping[str, object]] = (),
        *,
        links: Iterable[Mapping[str, object]] = (),
    ) -> "Results":
        """Results from rows as mappings; a missing key is an empty cell.

        Raises `ValueError` for a key that is no column and for an empty required cell.
        """
        return cls(
            frame_of_rows(HANDOVERS, handovers),
            frame_of_rows(MESSAGES, messages),
            frame_of_rows(IMS, ims),
            provenance,
            frame_of_rows(FLOWS, flows),
            frame_of_rows(LINKS, links),
        )

    @classmethod
    def joined(cls, parts: Sequence["Results"], provenance: Provenance) -> "Results":
        """The rows of several results, in their order; `provenance` is that of the whole."""
        tables = ((p.handovers, p.messages, p.ims, p.flows, p.links) for p in parts)
        handovers, messages, ims, flows, links = map(_joined, zip(*tables, strict=True))
        return cls(handovers, messages, ims, provenance, flows, links)

    def write(
        self, directory: Path, extra: Mapping[str, bytes] | None = None, *, csv: bool = True
    ) -> list[Path]:
        """Write all tables, and the `extra` files by name (of `EXTRA_FILES`), into a directory.

        With `csv` false, tables are written as Parquet alone. Everything is written beside its
        final place first and moved there at the end, so an interrupted or failed write leaves what
        was there before. Files of an earlier run are replaced or removed, others are left alone.
        Raises `ResultsError` where this cannot be done.
        """
        files = extra or {}
        if unknown := set(files) - set(EXTRA_FILES):
            raise ValueError(f"not among the files of a run: {', '.join(sorted(unknown))}")
        with _staging(directory) as stage:
            for schema, frame in self._tables():
                metadata = _metadata(schema, self.provenance)
                write_parquet(stage / f"{schema.name}.parquet", schema, frame, metadata)
                if csv:
                    frame.to_csv(stage / f"{schema.name}.csv", index=False, lineterminator="\n")
            for name, content in files.items():
                (stage / name).write_bytes(content)
            return _publish(stage, directory)

    @classmethod
    def read(cls, directory: Path) -> "Results":
        """The results in a directory, from its Parquet files. Raises `ResultsError`.

        Results of an older version may lack the tables `flows` and `links`; then they are empty.
        """
        paths = {schema: directory / f"{schema.name}.parquet" for schema in SCHEMAS}
        read = {s: _read(s, p) for s, p in paths.items() if s not in _LATER or p.exists()}
        handovers, messages, ims, flows, links = (
            read[schema][0] if schema in read else frame_of_rows(schema, []) for schema in SCHEMAS
        )
        return cls(handovers, messages, ims, read[HANDOVERS][1], flows, links)

    def _repr_html_(self) -> str:
        """What a notebook shows of a result: figures, drawings, and how to reproduce it."""
        return results_html(self)

    def _tables(self) -> Iterator[tuple[Schema, pd.DataFrame]]:
        frames = (self.handovers, self.messages, self.ims, self.flows, self.links)
        yield from zip(SCHEMAS, frames, strict=True)


def _joined(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)


def _metadata(schema: Schema, provenance: Provenance) -> dict[str, str]:
    metadata = {"mat.table": schema.name, "mat.schema_version": str(SCHEMA_VERSION)}
    return metadata | {f"mat.{key}": str(value) for key, value in asdict(provenance).items()}


def _read(schema: Schema, path: Path) -> tuple[pd.DataFrame, Provenance]:
    metadata, frame = read_parquet(path)
    if metadata.get("mat.table") != schema.name:
        raise ResultsError(f"{path}: is no {schema.name} table of mat")
    if (version := metadata.get("mat.schema_version")) != str(SCHEMA_VERSION):
        what = f"has schema version {version}; this program reads {SCHEMA_VERSION}"
        raise ResultsError(f"{path}: {what}")
    try:
        known = {c.name: frame[c.name] for c in schema.columns if c.name in frame}
        return frame_of(schema, known), _provenance(metadata)
    except (KeyError, ValueError, TypeError) as error:
        raise ResultsError(f"{path}: is incomplete ({error})") from error


def _provenance(metadata: Mapping[str, str]) -> Provenance:
    text = {name: metadata[f"mat.{name}"] for name in ("version", "scenario", "overrides", "trace")}
    first_run, runs = (int(metadata.get(f"mat.{n}", d)) for n, d in (("first_run", 0), ("runs", 1)))
    recipe = metadata.get("mat.recipe", "")
    seed = int(metadata["mat.seed"])
    return Provenance(seed=seed, first_run=first_run, runs=runs, recipe=recipe, **text)


def write_files(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write files by name into a directory, all or none; others are left alone.

    Raises `ResultsError`.
    """
    with _staging(directory) as stage:
        for name, content in files.items():
            (stage / name).write_bytes(content)
        for name in files:
            (stage / name).replace(directory / name)


def check_directory(directory: Path) -> None:
    """Before a long run: whether results could be written here. Raises `ResultsError`."""
    with _staging(directory):
        pass


@contextmanager
def _staging(directory: Path) -> Generator[Path]:
    """A temporary directory inside `directory`, on the same file system; gone afterwards.

    Directories made for it go too if nothing came to be in them.
    """
    made = [path for path in (directory, *directory.parents) if not path.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".writing-", dir=directory))
        try:
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    except OSError as error:
        what = f"{directory}: results cannot be written here ({error.strerror or error})"
        raise ResultsError(f"{what}; name a directory that can be written") from error
    finally:
        for path in made:
            with suppress(OSError):
                path.rmdir()


def _publish(stage: Path, directory: Path) -> list[Path]:
    """Move every file to its place, and remove what an earlier run left under our names."""
    names = sorted(path.name for path in stage.iterdir())
    for name in names:
        (stage / name).replace(directory / name)
    for name in {*EXTRA_FILES, *(f"{schema.name}.csv" for schema in SCHEMAS)} - set(names):
        (directory / name).unlink(missing_ok=True)
    return [directory / name for name in names]
