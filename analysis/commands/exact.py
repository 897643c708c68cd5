"""``exact``: every bound against the truth, on models that can be solved."""

from __future__ import annotations

import argparse

from analysis import studies

HELP = "draw every information bound against the exact generalization gap of solvable models"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--results", default="report/results/exact.json", metavar="PATH", help="file to write")
    parser.add_argument("--repeats", type=int, help="Monte Carlo runs per point; the profile's number by default")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")


def main(args: argparse.Namespace) -> int:
    """Compute the tables and write them."""
    repeats = studies.get_profile().repeats if args.repeats is None else args.repeats
    print(f"wrote {studies.write_exact(args.results, repeats=repeats, seed=args.seed)}")
    return 0
