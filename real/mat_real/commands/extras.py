"""What a command says when the packages of its extra are not installed."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

import click

_OWN: Final = frozenset(("mat", "mat_files", "mat_real", "mat_sim"))


@contextmanager
def explained(extra: str) -> Generator[None]:
    """A package that is missing, in a line."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name in _OWN:
            raise
        what = f"this needs the Python package '{name}', which is not installed"
        mend = f"pip install 'mat-mobility[{extra}]', or in a checkout: make {extra}"
        raise click.ClickException(f"{what}; mend it with: {mend}") from error


class NeedsIms(click.Group):
    """A group whose commands may need what the extra `ims` brings."""

    extra = "ims"

    def invoke(self, ctx: click.Context) -> Any:
        """Run a subcommand; a package that is missing is said in a line."""
        with explained(self.extra):
            return super().invoke(ctx)


class NeedsReal(NeedsIms):
    """A group whose commands may need what the extra `real` brings."""

    extra = "real"
