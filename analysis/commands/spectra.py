"""``spectra``: singular spectra and intruder dimensions of a run, an adapter folder, or two checkpoints."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis import measures, records, runs, spectra

HELP = "singular values, ranks and intruder dimensions of a finished run, a PEFT adapter, or two checkpoints"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "tuned", type=Path, help="a run's folder, a PEFT adapter's folder (with --base), or tuned weights (with --base)"
    )
    parser.add_argument("--base", type=Path, help="base weights: a safetensors file or a folder of them")
    parser.add_argument("--convention", default="authors", choices=("authors", "paper"))
    parser.add_argument("--count", type=int, default=10, help="leading vectors, authors' convention (default: 10)")
    parser.add_argument("--side", default="left", choices=("left", "right"))
    parser.add_argument("--epsilon", type=float, nargs="+", default=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    parser.add_argument("--include", default="", help="regular expression of weight names, for two checkpoints")
    parser.add_argument("--cache", type=Path, help="folder that keeps the base's SVDs for the next adapter")
    parser.add_argument("--data", help="where the run's data is now")
    parser.add_argument("--model", help="where the run's base model is now")
    parser.add_argument("--layers", action="store_true", help="print the table of layers too")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write everything there")


def main(args: argparse.Namespace) -> int:
    """Measure and print the counts."""
    if not args.tuned.exists():
        raise ValueError(f"nothing at {str(args.tuned)!r}; give a run's folder, an adapter's folder or weights")
    cache = spectra.BasisCache(args.cache, in_memory=1)
    vectors = spectra.intruder_dimensions(
        _updates(args), convention=args.convention, count=args.count, side=args.side, cache=cache
    )
    if vectors.empty:
        raise ValueError(f"no matrix of {str(args.tuned)!r} differs from its base")
    counts = spectra.intruder_counts(vectors, args.epsilon)
    print(f"{vectors['layer'].nunique()} matrices, {len(vectors)} {args.side} vectors ({args.convention}' convention)")
    print(counts.to_string(index=False))
    table = (
        spectra.spectrum_table(_updates(args), cache=spectra.BasisCache(args.cache, in_memory=1))
        if args.layers or args.out
        else None
    )
    if args.layers and table is not None:
        print(table.to_string(index=False))
    if args.out is not None and table is not None:
        tables = {
            name: {"columns": list(frame.columns), "rows": frame.to_numpy().tolist()}
            for name, frame in (("counts", counts), ("layers", table), ("vectors", vectors))
        }
        command = f"python -m analysis spectra TUNED --convention {args.convention} --side {args.side}"
        print(f"written: {records.write_result(args.out, provenance=records.provenance(command), tables=tables)}")
    return 0


def _updates(args: argparse.Namespace):
    if args.base is not None:
        if (args.tuned / "adapter_config.json").is_file():
            return spectra.from_adapter(args.tuned, args.base)
        return spectra.from_checkpoints(args.base, args.tuned, include=args.include)
    if not (args.tuned / "record.json").is_file():
        raise ValueError(f"{str(args.tuned)!r} is no run's folder; an adapter or weights need --base")
    return measures.run_updates(runs.load_run(args.tuned, data=args.data, model=args.model))
