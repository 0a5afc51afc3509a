"""Subcommands of `mat` for the mapping server and its tools, each in a module light to import."""
