"""``collect``: the records of a folder as one table."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from analysis import records, runs, statistics
from analysis.commands.options import check_folder, whole_numbers

HELP = "collect the records of runs into a table, a Parquet file, or a committed result"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "folder", help="where the records are: FOLDER/KEY/record.json; of a result file, its means anew"
    )
    parser.add_argument("--parquet", help="write all runs to this file")
    parser.add_argument("--csv", help="write all runs to this file")
    parser.add_argument("--result", help="write report/results/NAME.json: all runs and their means over seeds")
    parser.add_argument("--command", default="", dest="made_by", help="the command that made the runs, for --result")
    parser.add_argument("--model-name", help="name of the base model in the tables of --result")
    parser.add_argument("--methods", nargs="+", help="only runs of these methods")
    parser.add_argument("--ranks", type=whole_numbers, help="only adapters of these ranks, for example 1,2,4")
    parser.add_argument("--links", type=whole_numbers, help="only chains of these lengths")
    parser.add_argument("--failed", action="store_true", help="include failed runs")
    parser.add_argument("--skip-corrupt", action="store_true", help="report records that cannot be read, and go on")


def main(args: argparse.Namespace) -> int:
    """Collect, write what was asked for, and print the means over seeds."""
    check_folder(args.folder)
    if Path(args.folder).is_file():
        print(f"wrote {runs.renew_means(args.folder)}: means over seeds taken anew from its runs")
        return 0
    asked = {"method": args.methods, "rank": args.ranks, "links": args.links}
    only = {name: values for name, values in asked.items() if values is not None}
    for flaw in runs.corrupt_records(args.folder) if args.skip_corrupt else ():
        print(f"left out: {flaw}", file=sys.stderr)
    everything = runs.read_records(args.folder, failed=True, only=only, skip_corrupt=args.skip_corrupt)
    kept = everything if args.failed else [record for record in everything if record["status"] == "done"]
    if not kept:
        raise ValueError(f"no finished run under {args.folder!r} ({len(everything)} failed); --failed shows them")
    if len(kept) < len(everything):
        print(f"{len(everything) - len(kept)} failed runs left out; --failed shows them", file=sys.stderr)
    table = runs.frame(kept)
    if args.parquet:
        print(f"wrote {runs.write_parquet(table, args.parquet)}")
    if args.csv:
        print(f"wrote {records.atomic_write_text(args.csv, table.to_csv(index=False))}")
    if args.result:
        print(f"wrote {runs.runs_result(everything, args.result, command=args.made_by, model_name=args.model_name)}")
    columns = [name for name in ("metric", "gap_cross_entropy", "gap_squared_error", "gap_zero_one") if name in table]
    by = runs.seeds_of(table)
    means = statistics.across_seeds(table, columns=columns, by=by).sort_values(by)
    shown = [*by, "seeds"]
    for name in columns:
        shown += [name, f"{name}_low", f"{name}_high"]
    print(means[shown].to_string(index=False, float_format=lambda value: f"{value:.4f}"))
    return 0
