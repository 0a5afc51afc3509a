"""Tables of a run as DataFrames, from columns or from rows."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import pandas as pd

from mat_files.schema import Schema, Type

_DTYPES: Final[dict[Type, str]] = {"text": "str", "integer": "Int64", "number": "float64"}
"""Of a column's type, pandas' own; in each, a missing value stays missing."""


def frame_of(schema: Schema, columns: Mapping[str, Any]) -> pd.DataFrame:
    """A DataFrame with the columns of `schema`, from sequences of equal length.

    In numbers, NaN is an empty cell, and None in text. A column that is not given is empty. Raises
    `ValueError` for a key that is no column and for an empty cell where there must be none.
    """
    _check_names(schema, columns)
    length = len(next(iter(columns.values()), ()))
    made: dict[str, Any] = {}
    for column in schema.columns:
        values = columns.get(column.name)
        given: Any = [None] * length if values is None else values
        series: Any = pd.Series(given, dtype=_DTYPES[column.type])
        if column.required and series.isna().any():
            raise ValueError(f"{schema.name}.{column.name} is empty in a row; it is required")
        made[column.name] = series
    return pd.DataFrame(made, copy=False)


def frame_of_rows(schema: Schema, rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """The same from rows; a key that is missing in one is an empty cell."""
    listed = list(rows)
    _check_names(schema, (name for row in listed for name in row))
    names = [column.name for column in schema.columns]
    return frame_of(schema, {name: [row.get(name) for row in listed] for name in names})


def _check_names(schema: Schema, names: Iterable[str]) -> None:
    if unknown := sorted(set(names) - {column.name for column in schema.columns}):
        raise ValueError(f"{schema.name} has no column {', '.join(unknown)}")
