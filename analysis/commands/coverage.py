"""``coverage``: how often the intervals hold the truth, in simulated worlds."""

from __future__ import annotations

import argparse

from analysis import records, studies

HELP = "measure by simulation how often the intervals of runs and of means over seeds hold the truth"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--results", default="report/results/coverage.json", metavar="PATH", help="file to write")
    parser.add_argument("--trials", type=int, default=1000, help="simulations per case (default: %(default)s)")
    parser.add_argument("--replicates", type=int, default=500, help="draws per interval (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")


def main(args: argparse.Namespace) -> int:
    """Simulate, write, and print the least coverage of each kind."""
    path = studies.write_coverage(
        args.results, trials=args.trials, replicates=args.replicates, seed=args.seed, progress=not args.quiet
    )
    for name, value in records.read_json(path)["values"].items():
        print(f"{name}: {value:g}")
    print(f"wrote {path}")
    return 0
