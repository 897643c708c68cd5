"""The command line: ``python -m analysis SUBCOMMAND``, a thin layer over the same functions users import.

Exit status: 0 done, 1 a run failed, 2 wrong usage or bad input (one line on standard error, no traceback).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType

from analysis import commands
from analysis.records import RunFailure

__all__ = ["main"]

_OWN_BARS = ("bench", "exact")  # shown whatever the environment says


def _command_modules() -> dict[str, ModuleType]:
    names = sorted(info.name for info in pkgutil.iter_modules(commands.__path__))
    found = {name: importlib.import_module(f"analysis.commands.{name}") for name in names}
    return {name: module for name, module in found.items() if hasattr(module, "add_arguments")}


class _Subparser(argparse.ArgumentParser):
    """A subcommand's parser, which asks its module for the options when it is chosen.

    They name methods, tasks and measures, and what packages outside add to those is not looked for before.
    """

    module: ModuleType | None = None

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def, override]
        """Add the options, once, and parse."""
        if self.module is not None:
            self.module.add_arguments(self)
            self.module = None
        return super().parse_known_args(args, namespace)


def _parser(modules: dict[str, ModuleType]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m analysis",
        description="Fine-tune with eleven adapters, measure generalization, and evaluate its bounds.",
        epilog="Every subcommand has its own --help.",
    )
    parser.add_argument("--traceback", action="store_true", help="show the full traceback of an error")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="SUBCOMMAND", parser_class=_Subparser)
    for name, module in modules.items():
        subparser = subparsers.add_parser(name, help=module.HELP, description=module.HELP)
        subparser.module = module
        if name not in _OWN_BARS:
            subparser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser


@contextlib.contextmanager
def _bars(*, hidden: bool) -> Iterator[None]:
    """Hide tqdm's bars in this process and its workers.

    tqdm reads the variable once, when it is imported, so that in one process the first command decides for all.
    """
    if not hidden or "TQDM_DISABLE" in os.environ:
        yield
        return
    os.environ["TQDM_DISABLE"] = "1"
    try:
        yield
    finally:
        del os.environ["TQDM_DISABLE"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the words after the program's name; ``sys.argv[1:]`` by default.

    Returns:
        The exit status.
    """
    modules = _command_modules()
    args = _parser(modules).parse_args(argv)
    try:
        with _bars(hidden=getattr(args, "quiet", False)):
            return int(modules[args.command].main(args))
    except KeyboardInterrupt:
        print(f"{args.command}: interrupted; finished runs are kept, the same command goes on", file=sys.stderr)
        return 130
    except (ValueError, TypeError, OSError, RunFailure) as error:
        if args.traceback:
            raise
        print(f"{args.command}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1 if isinstance(error, RunFailure) else 2
