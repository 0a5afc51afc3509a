"""The `mat` commands in a text, and what they are by the commands' own parsers."""

import itertools
import re
import shlex
from collections.abc import Iterator
from typing import Final

import click

from mat_cli import command as root

_HERE_DOCUMENT: Final = re.compile(r"<<'?(\w+)'?(.*)\n.*?^\1$", re.DOTALL | re.MULTILINE)
_BEFORE: Final = {"sudo", "exec", "nice", "-n", "-5", "env"}
_END: Final = re.compile(r"[;&|<>()]+")


def commands(shell: str) -> Iterator[list[str]]:
    """The words of each simple command of a shell text, without redirections."""
    text = _HERE_DOCUMENT.sub(r"\2", shell).replace("\\\n", " ")
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in lexer:
            if _END.fullmatch(word):
                yield words
                words = []
            else:
                words.append(word)
        yield words


def mat_commands(shell: str) -> Iterator[list[str]]:
    """The arguments of each call of mat."""
    for words in commands(shell):
        called = [*itertools.dropwhile(_BEFORE.__contains__, words)]
        if called and called[0] in {"mat", ".venv/bin/mat"}:
            yield called[1:]


def check(arguments: list[str], *, whole: bool = True) -> None:
    """Raise `click.UsageError` unless mat has this command with these options and arguments.

    Values are not looked at. Of a command that is not `whole`, a mention in a sentence, arguments
    may be missing.
    """
    found: click.Command = root
    context = click.Context(root, info_name="mat", **root.context_settings)
    rest = arguments
    while isinstance(found, click.Group) and rest and not rest[0].startswith("-"):
        inner = found.get_command(context, rest[0])
        if inner is None:
            raise click.UsageError(f"mat has no command {' '.join(arguments)}")
        context = click.Context(inner, info_name=rest[0], parent=context, **inner.context_settings)
        found, rest = inner, rest[1:]
    if isinstance(found, click.Group) and whole and not rest:
        raise click.UsageError(f"mat {' '.join(arguments)} lacks a command")
    parser = found.make_parser(context)
    try:
        _, extra, _ = parser.parse_args(args=list(rest))
    except click.BadOptionUsage:
        if whole:
            raise
        return
    if extra:
        raise click.UsageError(f"too many arguments: {' '.join(extra)}")
