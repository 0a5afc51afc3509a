"""Tables as Parquet files, with the meaning of every column in the schema's metadata.

The one module that knows pyarrow, which has no type information: hence `Any` behind two functions.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pandas as pd

from mat_files.errors import ResultsError
from mat_files.schema import Column, Schema

_arrow: Any = import_module("pyarrow")
_parquet: Any = import_module("pyarrow.parquet")

_TYPES: Final = {
    "text": _arrow.string(),
    "integer": _arrow.int64(),
    "number": _arrow.float64(),
}


_WHOLE: Final = {_arrow.int64(): pd.Int64Dtype()}
"""Whole numbers stay so where some are missing, also beyond what a float holds."""


def write_parquet(path: Path, schema: Schema, frame: Any, metadata: Mapping[str, str]) -> None:
    """Write a DataFrame with the columns of `schema`; equal input makes equal bytes."""
    arrays = [
        _arrow.array(frame[column.name], type=_TYPES[column.type], from_pandas=True)
        for column in schema.columns
    ]
    fields = _arrow.schema([_field(column) for column in schema.columns], metadata=metadata)
    table = _arrow.Table.from_arrays(arrays, schema=fields)
    _parquet.write_table(table, path, compression="zstd")


def read_parquet(path: Path) -> tuple[dict[str, str], pd.DataFrame]:
    """The file's own metadata and its table. Raises `ResultsError` if it cannot be read."""
    try:
        table = _parquet.read_table(path)
    except (OSError, _arrow.ArrowException) as error:
        what = str(error).splitlines()[0]
        raise ResultsError(f"{path}: cannot be read as results ({what})") from error
    metadata: dict[bytes, bytes] = table.schema.metadata or {}
    frame: pd.DataFrame = table.to_pandas(types_mapper=_WHOLE.get, ignore_metadata=True)
    return {key.decode(): value.decode() for key, value in metadata.items()}, frame


def _field(column: Column) -> Any:
    metadata = {"unit": column.unit, "description": column.description}
    kind = _TYPES[column.type]
    return _arrow.field(column.name, kind, nullable=not column.required, metadata=metadata)
