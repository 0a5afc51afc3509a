"""Tables of a run as DataFrames, from columns."""

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from mat_files.schema import Schema, Type

DTYPES: Final[dict[Type, str]] = {"text": "str", "integer": "Int64", "number": "float64"}
"""Of a column's type, pandas' own; in each, a missing value stays missing."""


def frame_of(schema: Schema, columns: Mapping[str, Any]) -> pd.DataFrame:
    """A DataFrame with the columns of `schema`, from sequences of equal length.

    In numbers, NaN is an empty cell, and None in text. A column that is not given is empty. Raises
    `ValueError` for a key that is no column and for an empty cell where there must be none.
    """
    if unknown := sorted(set(columns) - {column.name for column in schema.columns}):
        raise ValueError(f"{schema.name} has no column {', '.join(unknown)}")
    length = len(next(iter(columns.values()), ()))
    made: dict[str, Any] = {}
    for column in schema.columns:
        values = columns.get(column.name)
        given: Any = [None] * length if values is None else values
        untyped: Any = pd.Series(given)
        series = untyped.astype(DTYPES[column.type])
        if column.required and series.isna().any():
            what = f"{schema.name}.{column.name} is empty in a row; it is required"
            raise ValueError(what)
        made[column.name] = series
    return pd.DataFrame(made)
