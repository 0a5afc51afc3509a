"""The parts of the documents that come from the code: `python -m docs.generate` renews them.

What stands between `<!-- begin NAME -->` and `<!-- end NAME -->` is replaced. Tests check that
nothing would change.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, get_args

import click

from mat.parameters import Parameters
from mat.states import PEER, REGISTRATION, diagram
from mat.translation import Refusal
from mat_files.errors import shown

DOCUMENT: Final = Path(__file__).parent / "protocol.md"
IMS_DOCUMENT: Final = Path(__file__).parent / "ims.md"
NODE_DOCUMENT: Final = Path(__file__).parent / "node.md"
COMMAND_DOCUMENT: Final = Path(__file__).parent / "cli.md"
_MARK: Final = re.compile(r"(<!-- begin (\S+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)
_WRITTEN: Final = {"ims.listen": '`["[::]:49628"]`'}
"""Defaults that the code has in another form than the file."""


def refreshed(text: str) -> str:
    """The document with its generated parts as the code has them now."""
    return _MARK.sub(lambda match: match[1] + _PARTS[match[2]]() + match[3], text)


def _ims_configuration() -> str:
    # Here, for the tests of the core read only the protocol's parts.
    from mat_real.ims.config import ServerConfig

    return "".join(f"{line}\n" for line in _fields(ServerConfig))


def _node_configuration() -> str:
    from mat_real.node.config import NodeConfig

    return "".join(f"{line}\n" for line in _fields(NodeConfig))


def _fields(configuration: type[Any]) -> Iterator[str]:
    yield from ("| field | default | meaning |", "| --- | --- | --- |")
    for table, field in configuration.model_fields.items():
        model: Any = next(iter(get_args(field.annotation)), field.annotation)
        if not hasattr(model, "model_fields"):
            yield f"| `{table}.NAME` | | {_meaning(field)} |"
            continue
        about = "" if field.default is not None else " (the whole table is optional)"
        yield f"| **`[{table}]`** | | {_meaning(model)}{about} |"
        for name, one in model.model_fields.items():
            path = f"{table}.{name}"
            default = "required" if one.is_required() else f"`{shown(one.default)}`"
            yield f"| `{path}` | {_WRITTEN.get(path, default)} | {_meaning(one)} |"


def _meaning(described: Any) -> str:
    text = getattr(described, "description", None) or described.__doc__
    return " ".join(text.split()).replace("|", "\\|")


def _parameters() -> str:
    rows = [
        f"| `{name}` | {default:g} | {unit} | {reason} |"
        for name, default, unit, reason in Parameters.table()
    ]
    return "\n".join(["| name | default | unit | reason |", "| --- | --- | --- | --- |", *rows, ""])


def _commands() -> str:
    from mat_cli import command

    return "".join(_help(click.Context(command, info_name="mat", **command.context_settings)))


def _help(context: click.Context) -> Iterator[str]:
    """The help of a command, and of all below it."""
    found = context.command
    path = context.command_path
    yield f"{'###' if path.count(' ') > 1 else '##'} `{path}`\n\n"
    yield f"```text\n{found.get_help(context).rstrip()}\n```\n\n"
    if isinstance(found, click.Group):
        for name in found.list_commands(context):
            inner = found.get_command(context, name)
            if inner is not None:
                yield from _help(click.Context(inner, info_name=name, parent=context))


def _refusals() -> str:
    return "".join(f"- {refusal.value}\n" for refusal in Refusal)


_PARTS: Final[dict[str, Callable[[], str]]] = {
    "parameters": _parameters,
    "peer": lambda: f"```mermaid\n{diagram(PEER)}```\n",
    "registration": lambda: f"```mermaid\n{diagram(REGISTRATION)}```\n",
    "refusals": _refusals,
    "ims.configuration": _ims_configuration,
    "node.configuration": _node_configuration,
    "commands": _commands,
}


def main() -> None:
    """Renew the documents."""
    for document in (DOCUMENT, IMS_DOCUMENT, NODE_DOCUMENT, COMMAND_DOCUMENT):
        document.write_text(refreshed(document.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
