"""The `mat` command: the root that other packages hang their subcommands on.

The root knows no subcommand of its own but `completion`. The others come from entry points, so that
`mat_sim` and `mat_real` never meet and a package from elsewhere can add its own. Start reading at
`mat_cli.plugins` for what a subcommand's module owes, at `mat_cli.command` for errors and exit
codes.
"""

from mat_cli.command import command, main

__all__ = ["command", "main"]
