"""``data``: read a data set as a run would, and report what became of it."""

from __future__ import annotations

import argparse

from analysis import records, runs, tasks
from analysis.commands.options import add_data_options, run_values

HELP = "read, draw and encode a data set as a run would, and report what became of it; nothing is trained"

_EXAMPLES = """examples:
  python -m analysis data --task trec --data FOLDER --model MODEL
  python -m analysis data --task custom --data my.tsv --kind text-classification --text body --label topic \\
      --model tiny:bert --strict"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    add_data_options(parser)
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: 0)")
    parser.add_argument("--json", metavar="PATH", help="write the report there")


def main(args: argparse.Namespace) -> int:
    """Print the report."""
    tasks.check_places(args.task, data=args.data, model=args.model)
    report = runs.data_report(run_values(args), seed=args.seed)
    print("\n".join(report.lines()))
    if args.json is not None:
        print(f"wrote {records.atomic_write_json(args.json, report.as_record())}")
    return 0
