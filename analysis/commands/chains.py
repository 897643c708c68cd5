"""``chains``: are chained variants sharper, and have they more intruders? Finished runs, paired by seed."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "test on finished runs whether chains are sharper and have more intruder dimensions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("runs", type=Path, metavar="RUNS_FOLDER", help="runs of one task and model, with weights")
    parser.add_argument("--examples", type=int, default=100, help="training examples of the fixed batch")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="write landscape.json and spectra.json there")


def main(args: argparse.Namespace) -> int:
    """Measure, test, print, and write if asked."""
    from analysis.chains import intruder_frame, sharpness_frame
    from analysis.paired import paired_claim
    from analysis.provenance import provenance
    from analysis.store import check_writable, write_result

    paths = [path.parent for path in sorted(args.runs.rglob("record.json")) if (path.parent / "adapter").is_dir()]
    if not paths:
        raise ValueError(f"no run with weights under {str(args.runs)!r}")
    if args.results is not None:
        check_writable(args.results)
    sharp, spectra = sharpness_frame(paths, examples=args.examples), intruder_frame(paths)
    measured = {
        "landscape": (sharp, ["worst_merged", "mean_merged", "worst_adapter", "mean_adapter"]),
        "spectra": (spectra, ["authors", "paper", "effective_rank", "stable_rank"]),
    }
    for name, (frame, columns) in measured.items():
        claim = paired_claim(frame, columns)
        print(f"{name}\n{claim.to_string(index=False)}")
        if args.results is not None:
            tables = {
                key: {"columns": list(part.columns), "rows": part.to_numpy().tolist()}
                for key, part in (("claim", claim), ("runs", frame))
            }
            values = {
                f"{row.measure}/{row.checkpoint}/{key}": getattr(row, key)
                for row in claim.itertuples()
                for key in ("units", "larger", "chain", "single", "difference", "low", "high", "p_value")
            }
            seeds = sorted({int(seed) for seed in frame["seed"]})
            record = provenance(f"python -m analysis chains RUNS_FOLDER --examples {args.examples}", seeds)
            path = write_result(args.results / f"{name}.json", provenance=record, values=values, tables=tables)
            print(f"written: {path}")
    return 0
