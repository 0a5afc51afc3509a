"""A scenario as TOML: what a result keeps of a scenario that a program built.

The inverse of reading: the text, read again, is an equal scenario. It has what differs from the
defaults, in the order of the format, so equal scenarios have equal texts.
"""

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Final, assert_never, cast, get_args

import tomli_w

from mat_files.distributions import (
    Constant,
    Distribution,
    Empirical,
    Exponential,
    Normal,
    Uniform,
)
from mat_files.document import Table

_DISTRIBUTIONS: Final[tuple[type, ...]] = get_args(Distribution)


def toml(table: Table) -> str:
    """A scenario as the text of a TOML file."""
    return tomli_w.dumps(cast(dict[str, Any], plain(table)))


def inline(value: object) -> str:
    """A value as it stands behind the `=` of a TOML file, in one line.

    Raises `ValueError` for what TOML cannot say.
    """
    value = plain(value)
    if isinstance(value, dict):
        items = cast(dict[str, object], value).items()
        return "{" + ", ".join(f"{_key(key)} = {inline(item)}" for key, item in items) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(inline, cast(list[object], value)))}]"
    return tomli_w.dumps({"value": value}).removeprefix("value = ").removesuffix("\n")


def plain(value: object) -> object:
    """A value of a scenario in the types that TOML has: tables are dicts, arrays are lists.

    Raises `ValueError` for what TOML cannot say.
    """
    if isinstance(value, Table):
        return _fields(value)
    if isinstance(value, _DISTRIBUTIONS):
        return _distribution(cast(Distribution, value))
    if isinstance(value, Mapping):
        items = cast(Mapping[object, object], value).items()
        return {str(key): plain(item) for key, item in items}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item) for item in cast(Sequence[object], value)]
    if isinstance(value, IPv4Network | IPv6Network | Path):
        return str(value)
    if (item := getattr(value, "item", None)) is not None:  # numpy's numbers
        return plain(item())
    if isinstance(value, str | int | float):
        return value
    raise ValueError(f"is {value!r}; a scenario holds numbers, text, true or false, arrays, tables")


def _fields(table: Table) -> dict[str, object]:
    """What differs from the defaults; what must be given differs always."""
    fields = type(table).model_fields
    return {
        name: plain(value)
        for name, value in table
        if name in fields and value != fields[name].get_default(call_default_factory=True)
    }


def _distribution(time: Distribution) -> object:
    match time:
        case Constant(value):
            return float(value)
        case Uniform(low, high):
            return {"uniform": [float(low), float(high)]}
        case Exponential(mean):
            return {"exponential": float(mean)}
        case Normal(centre, deviation):
            return {"normal": [float(centre), float(deviation)]}
        case Empirical(quantiles):
            return {"quantiles": [float(value) for value in quantiles]}
        case _:
            assert_never(time)


def _key(key: str) -> str:
    return tomli_w.dumps({key: 0}).removesuffix(" = 0\n")
