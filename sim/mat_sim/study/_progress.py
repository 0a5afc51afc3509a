"""A progress bar on a terminal and in Jupyter, silence elsewhere."""

import html
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias

Report: TypeAlias = Callable[[float, float], None]
"""Called with the runs done, fractions included, and the runs wanted as far as that is known."""


class _Handle(Protocol):
    """What IPython's `display` returns with `display_id`."""

    def update(self, obj: object) -> None: ...


@contextmanager
def progress_bar(title: str, shown: bool | None) -> Generator[Report]:
    """A bar that goes away at the end; `shown` None stands for "where somebody looks".

    It goes to standard error, and to the cell in Jupyter.
    """
    from rich.console import Console

    console = Console(stderr=True, force_terminal=shown or None)
    if shown is None:
        shown = console.is_terminal or console.is_jupyter
    if not shown:
        yield _silent
    elif console.is_jupyter:
        with _notebook_bar(title) as report:
            yield report
    else:
        with _terminal_bar(title, console) as report:
            yield report


def _silent(done: float, wanted: float) -> None:
    pass


def _counted(title: str, done: float, wanted: float) -> str:
    return title if wanted <= 1 else f"{title}, {int(done)} of {wanted:g} runs"


@contextmanager
def _terminal_bar(title: str, console: Any) -> Generator[Report]:
    from rich.progress import Progress

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)

        def report(done: float, wanted: float) -> None:
            text = _counted(title, done, wanted)
            bar.update(task, completed=done, total=wanted, description=text)

        yield report


@contextmanager
def _notebook_bar(title: str) -> Generator[Report]:
    """HTML that is replaced; rich's own bar needs ipywidgets there."""
    from importlib import import_module

    display: Any = import_module("IPython.display")
    handle: _Handle = display.display(display.HTML(""), display_id=True)

    def report(done: float, wanted: float) -> None:
        bar = f'<progress max="{wanted:g}" value="{done:.4g}"></progress>'
        handle.update(display.HTML(f"{bar} {html.escape(_counted(title, done, wanted))}"))

    try:
        yield report
    finally:
        handle.update(display.HTML(""))
