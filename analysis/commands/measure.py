"""``measure``: sharpness, curvature, spectra and code lengths of finished runs, or of anyone's models."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from analysis import measures, records
from analysis.commands.options import add_subjects, check_folder, subjects

HELP = "measure sharpness, curvature, intruders and code length of finished runs that kept their weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_subjects(parser, what="folder of runs, RUNS_FOLDER/KEY/record.json: measures are written beside each record")
    parser.add_argument("--jobs", type=int, default=1, help="processes on this machine (default: 1)")
    parser.add_argument("--examples", type=int, help="training examples of sharpness, half of curvature (default: 200)")
    parser.add_argument(
        "--kinds", nargs="+", metavar="KIND",
        help=f"which to take (default: all of {', '.join(measures.instruments())}; code takes longest)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="JSON", help="write what is measured of models there")
    parser.add_argument("--again", action="store_true", help="measure again what was measured with these settings")


def main(args: argparse.Namespace) -> int:
    """Measure every finished run, what is already measured skipped, so that the same command goes on; or models."""
    for folder in args.runs or ():
        check_folder(folder)
    found = subjects(args)
    if not args.runs:
        return _measure_models(found, args)
    if len(args.runs) > 1:
        raise ValueError(f"measure takes one folder of runs, got {len(args.runs)}")
    summary = measures.measure_runs(
        args.runs[0],
        jobs=args.jobs,
        data=args.data,
        model=args.model,
        examples=args.examples,
        kinds=args.kinds,
        again=args.again,
    )
    print(", ".join(f"{count} {what}" for what, count in summary.items()))
    return 1 if summary["failed"] else 0


def _measure_models(found: Iterable[Any], args: argparse.Namespace) -> int:
    """Print what needs no run's record: sharpness, curvature and spectra."""
    if args.kinds not in (None, ["geometry"]):
        raise ValueError(f"of a model that is no run only the kind geometry can be taken, got {' '.join(args.kinds)}")
    rows = []
    for model in found:
        for name, value in measures.geometry_of_model(model, examples=args.examples).items():
            print(f"{model.title}: {name} {value:.6g}")
            rows.append([model.title, name, value])
    if args.out is not None:
        tables = {"measures": {"columns": ["model", "measure", "value"], "rows": rows}}
        record = records.provenance("python -m analysis measure --model BASE ...")
        print(f"written: {records.write_result(args.out, provenance=record, tables=tables)}")
    return 0
