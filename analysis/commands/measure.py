"""``measure``: sharpness, curvature, spectra and code lengths of finished runs, written beside each record."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis import measures
from analysis.commands.options import check_folder

HELP = "measure sharpness, curvature, intruders and code length of finished runs that kept their weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("runs", type=Path, metavar="RUNS_FOLDER", help="folder of runs: RUNS_FOLDER/KEY/record.json")
    parser.add_argument("--jobs", type=int, default=1, help="processes on this machine (default: 1)")
    parser.add_argument("--data", help="where the runs' data is now (default: where it was)")
    parser.add_argument("--model", help="where the base model is now (default: where it was)")
    parser.add_argument("--examples", type=int, help="training examples of sharpness, half of curvature (default: 200)")
    parser.add_argument(
        "--kinds", nargs="+", metavar="KIND",
        help=f"which to take (default: all of {', '.join(measures.instruments())}; code takes longest)",
    )  # fmt: skip
    parser.add_argument("--again", action="store_true", help="measure again what was measured with these settings")


def main(args: argparse.Namespace) -> int:
    """Measure every finished run; what is already measured is skipped, so the same command goes on."""
    check_folder(args.runs)
    summary = measures.measure_runs(
        args.runs,
        jobs=args.jobs,
        data=args.data,
        model=args.model,
        examples=args.examples,
        kinds=args.kinds,
        again=args.again,
    )
    print(", ".join(f"{count} {what}" for what, count in summary.items()))
    return 1 if summary["failed"] else 0
