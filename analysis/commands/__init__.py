"""Subcommands of ``python -m analysis``: one module each, with HELP, add_arguments and main."""
