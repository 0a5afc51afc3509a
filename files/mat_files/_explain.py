"""What pydantic finds wrong, in plain words: what is wrong and what would be right."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, final, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from mat_files._toml import KeyPath
from mat_files.errors import shown


@final
@dataclass(frozen=True, slots=True)
class Unit:
    """The unit of a field, for messages and the documentation."""

    symbol: str


_EXPECTED: Final = {
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "string_type": "must be text in quotes",
    "bool_type": "must be true or false",
    "finite_number": "must be a finite number",
    "model_type": "must be a table",
    "dict_type": "must be a table",
    "tuple_type": "must be an array",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
    "literal_error": "must be {expected}",
    "string_too_short": "must not be empty",
    "too_short": "must have {min_length} elements",
    "too_long": "must have at most {max_length} elements",
    "string_pattern_mismatch": "must match {pattern}",
}


def explain(error: ErrorDetails, root: type[BaseModel]) -> str:
    """What is wrong and what would be right, for one error of the validation of `root`."""
    kind, path, context = error["type"], error["loc"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(path, root)
    if kind == "missing":
        return _missing(path, root)
    if kind == "value_error":
        return str(context["error"])
    expected = _EXPECTED.get(kind, error["msg"]).format(**context)
    if kind == "tuple_type" and _table_at(path, root) is not None:
        expected += "; of tables, with [[double brackets]]"
    return f"is {shown(error['input'])}; {_plain_numbers(expected)}"


def _plain_numbers(text: str) -> str:
    """`0.0` as `0`: bounds are floats whatever the file's author wrote."""
    return text.removesuffix(".0") if text.endswith(".0") else text.replace(".0 or", " or")


def _unknown_key(path: KeyPath, root: type[BaseModel]) -> str:
    model = _table_at(path[:-1], root)
    known = list(model.model_fields) if model else []
    close = difflib.get_close_matches(str(path[-1]), known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"unknown key; {hint}possible here: {', '.join(known)}"


def _missing(path: KeyPath, root: type[BaseModel]) -> str:
    model = _table_at(path[:-1], root)
    field = model.model_fields.get(str(path[-1])) if model else None
    if field is None:
        return "has too few elements"
    unit = next((f" [{item.symbol}]" for item in field.metadata if isinstance(item, Unit)), "")
    about = (field.description or "a table").split("\n")[0].rstrip(".")
    return f"is missing; it must be given: {about}{unit}"


def _table_at(path: Sequence[str | int], root: type[BaseModel]) -> type[BaseModel] | None:
    """The class of the table at a path, `None` where the path leads to no table."""
    model = root
    for part in path:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        inner = next(_tables(field.annotation), None) if field else None
        if inner is None:
            return None
        model = inner
    return model


def _tables(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _tables(argument)
