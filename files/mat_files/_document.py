"""The generated parts of docs/scenario.md and docs/results.md, from the code that defines them.

`python -m mat_files._document FILE…` brings files up to date: what stands between
`<!-- begin NAME -->` and `<!-- end NAME -->` is replaced. A test checks that nothing would change.
"""

import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, get_args, get_origin

from pydantic.fields import FieldInfo

from mat_files._explain import Unit
from mat_files.distributions import Constant, Distribution
from mat_files.document import Table
from mat_files.errors import shown
from mat_files.scenario import (
    About,
    Access,
    Correspondents,
    CoverageModel,
    Crowd,
    Dhcp,
    Dns,
    Grid,
    Ims,
    Load,
    Movement,
    Network,
    Nodes,
    RandomWaypoint,
    Services,
    Traffic,
    Train,
)
from mat_files.scenario._model import Party, Point
from mat_files.schema import SCHEMAS, markdown

_TABLES: Final[dict[str, type[Table]]] = {
    "scenario": About,
    "movement": Movement,
    "movement.random_waypoint": RandomWaypoint,
    "movement.train": Train,
    "movement.crowd": Crowd,
    "coverage": CoverageModel,
    "coverage.grid": Grid,
    "network": Network,
    "access": Access,
    "network.dhcp": Dhcp,
    "nodes": Nodes,
    "correspondents": Correspondents,
    "ims": Ims,
    "ims.services": Services,
    "dns": Dns,
    "background": Load,
    "traffic": Traffic,
}
_INHERITED: Final = frozenset(Access.model_fields)
_TYPES: Final = {str: "text", int: "integer", float: "number", bool: "true or false"}
_BOUNDS: Final = (("gt", "> {}"), ("ge", "≥ {}"), ("lt", "< {}"), ("le", "≤ {}"))
_MARK: Final = re.compile(r"(<!-- begin (\S+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)


def refreshed(text: str) -> str:
    """A document with its generated parts as the code has them now."""
    return _MARK.sub(lambda match: f"{match[1]}{_PARTS[match[2]]()}\n{match[3]}", text)


def fields(table: type[Table]) -> str:
    """The fields of one table of the scenario format, as a Markdown table."""
    own = {
        name: field
        for name, field in table.model_fields.items()
        if table is Access or not (issubclass(table, Access) and name in _INHERITED)
    }
    rows = [
        f"| `{name}` | {_type(field)} | {_unit(field)} | {_default(field)} | {_meaning(field)} |"
        for name, field in own.items()
        if not _is_table(field)
    ]
    head = ["| field | value | unit | default | meaning |", "| --- " * 5 + "|"]
    return "\n".join([*head, *rows])


def _is_table(field: FieldInfo) -> bool:
    """Whether it is a table of its own, with a section of its own."""
    return any(
        isinstance(part, type) and issubclass(part, Table) for part in get_args(field.annotation)
    )


def _meaning(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())


def _unit(field: FieldInfo) -> str:
    return next((item.symbol for item in _metadata(field) if isinstance(item, Unit)), "")


def _default(field: FieldInfo) -> str:
    default: Any = field.default
    if field.is_required():
        return "required"
    if default is None or default in ("", ()):
        return ""
    if isinstance(default, Distribution):
        return f"`{default}`"
    return f"`{shown('all' if default == ('all',) else default)}`"


def _metadata(field: FieldInfo) -> Iterator[Any]:
    """Bounds and units, also those within `X | None`."""
    yield from field.metadata
    for part in get_args(field.annotation):
        if get_origin(part) is Annotated:
            for item in get_args(part)[1:]:
                yield from getattr(item, "metadata", [item])


def _type(field: FieldInfo) -> str:
    annotation: Any = field.annotation
    parts = [part for part in get_args(annotation) or (annotation,) if part is not type(None)]
    if Constant in parts or any(Constant in _alternatives(part) for part in parts):
        return "time"
    if Party in parts or "all" in str(annotation):
        return "text or array"
    if "IPv4Network" in str(annotation):
        return "prefix"
    if annotation == tuple[Point, ...]:
        return "[[number, number], …]"
    if "tuple[float" in str(annotation):
        return "[number, number]"
    if annotation == tuple[str, ...]:
        return "array of text"
    if all(isinstance(part, str | int) for part in parts):
        return " or ".join(f"`{shown(part)}`" for part in parts)
    base = get_args(parts[0])[0] if get_origin(parts[0]) is Annotated else parts[0]
    named = _TYPES[base] + (' or `"trace"`' if len(parts) > 1 else "")
    return ", ".join([named, *_bounds(field)])


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """The types of an `Annotated` union; none of anything else."""
    return get_args(get_args(annotation)[0]) if get_origin(annotation) is Annotated else ()


def _bounds(field: FieldInfo) -> Iterator[str]:
    for item in _metadata(field):
        for name, form in _BOUNDS:
            if (value := getattr(item, name, None)) is not None:
                yield form.format(int(value) if value == int(value) else value)


_PARTS: Final[dict[str, Callable[[], str]]] = {
    **{name: partial(fields, table) for name, table in _TABLES.items()},
    **{f"results.{schema.name}": partial(markdown, schema) for schema in SCHEMAS},
}


def main(paths: list[str]) -> None:
    """Bring the generated parts of the named files up to date."""
    for path in map(Path, paths):
        path.write_text(refreshed(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
