"""`mat completion`: the shells' completion scripts, which click generates."""

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command(short_help="Print a completion script for bash, zsh or fish.")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script that completes subcommands and options on Tab.

    To install it, put one line into the shell's start-up file and open a new shell.

    \b
    bash, in ~/.bashrc:
        eval "$(mat completion bash)"
    zsh, in ~/.zshrc, after compinit:
        eval "$(mat completion zsh)"
    fish, in ~/.config/fish/config.fish:
        mat completion fish | source
    """
    script = get_completion_class(shell)
    if script is None:
        raise click.ClickException(f"this release of click does not complete for {shell}")
    click.echo(script(ctx.find_root().command, {}, "mat", "_MAT_COMPLETE").source())
