"""`python -m mat_cli` is `mat`."""

from mat_cli.command import main

main()
