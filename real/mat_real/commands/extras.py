"""What a command says when the packages of its extra are not installed."""

from typing import Any

import click


class NeedsIms(click.Group):
    """A group whose commands may need what the extra `ims` brings."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a subcommand; a package that is missing is said in a line."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            name = (error.name or "").partition(".")[0]
            if name in {"mat", "mat_files", "mat_real", "mat_sim"}:
                raise
            what = f"this needs the Python package '{name}', which is not installed"
            mend = "pip install 'mat-mobility[ims]', or in a checkout: make ims"
            raise click.ClickException(f"{what}; mend it with: {mend}") from error
