"""``spectra``: singular spectra and intruder dimensions of a run, of adapters, or of checkpoints against their base."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from analysis import measures, records, runs, spectra, tasks

HELP = "singular values, ranks and intruder dimensions of a finished run, a PEFT adapter, or two checkpoints"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "tuned",
        type=Path,
        nargs="?",
        help="a run's folder; or, with --base, a PEFT adapter's or tuned weights",
    )
    parser.add_argument("--base", type=Path, help="base weights: a safetensors or .bin file, or a folder of them")
    parser.add_argument(
        "--adapter", type=Path, nargs="+", default=[], metavar="FOLDER", help="PEFT adapters on --model"
    )
    parser.add_argument(
        "--checkpoints",
        type=Path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="tuned weights of --model, or adapters",
    )
    parser.add_argument("--convention", default="authors", choices=("authors", "paper"))
    parser.add_argument("--count", type=int, default=10, help="leading vectors, authors' convention (default: 10)")
    parser.add_argument("--side", default="left", choices=("left", "right"))
    parser.add_argument("--epsilon", type=float, nargs="+", default=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    parser.add_argument("--include", default="", help="regular expression of weight names, for two checkpoints")
    parser.add_argument("--cache", type=Path, help="folder that keeps the base's SVDs for the next adapter")
    parser.add_argument("--data", help="where the run's data is now")
    parser.add_argument("--model", help="the base, a local folder or hub id; of a run, where it is now")
    parser.add_argument("--layers", action="store_true", help="print the table of layers too")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write everything there")


def main(args: argparse.Namespace) -> int:
    """Measure and print the counts."""
    tuned = [*([args.tuned] if args.tuned is not None else []), *args.adapter, *args.checkpoints]
    if not tuned:
        raise ValueError("give a run's folder, or --model with --adapter or --checkpoints")
    for place in tuned:
        if not place.exists():
            raise ValueError(f"nothing at {str(place)!r}; give a run's folder, an adapter's folder or weights")
    tables: dict[str, Any] = {}
    for place in tuned:
        prefix = f"{place.name}/" if len(tuned) > 1 else ""
        tables |= {f"{prefix}{name}": table for name, table in _measure(place, args).items()}
    if args.out is not None:
        command = f"python -m analysis spectra TUNED --convention {args.convention} --side {args.side}"
        print(f"written: {records.write_result(args.out, provenance=records.provenance(command), tables=tables)}")
    return 0


def _measure(place: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Print one model's counts, and return its tables."""
    cache, left_out = spectra.BasisCache(args.cache, in_memory=1), list[str]()
    vectors = spectra.intruder_dimensions(
        _updates(place, args, left_out), convention=args.convention, count=args.count, side=args.side, cache=cache
    )
    if vectors.empty:
        raise ValueError(f"no matrix of {str(place)!r} differs from its base")
    counts = spectra.intruder_counts(vectors, args.epsilon)
    head = f"{vectors['layer'].nunique()} matrices, {len(vectors)} {args.side} vectors ({args.convention}' convention)"
    print(head if place == args.tuned else f"{place}: {head}")
    print(counts.to_string(index=False))
    if left_out:
        print(f"left out: {'; '.join(left_out[:8])}{f'; {len(left_out) - 8} more' if len(left_out) > 8 else ''}")
    if not (args.layers or args.out):
        return {}
    table = spectra.spectrum_table(_updates(place, args, []), cache=spectra.BasisCache(args.cache, in_memory=1))
    if args.layers:
        print(table.to_string(index=False))
    frames = {"counts": counts, "layers": table, "vectors": vectors}
    return {name: {"columns": list(frame.columns), "rows": frame.to_numpy().tolist()} for name, frame in frames.items()}


def _updates(place: Path, args: argparse.Namespace, left_out: list[str]) -> Iterable[spectra.LayerUpdate]:
    base = args.base if args.base is not None or place == args.tuned else tasks.weights_folder(_model_of(args))
    if base is not None:
        if (place / "adapter_config.json").is_file():
            return spectra.from_adapter(place, base, left_out=left_out)
        return spectra.from_checkpoints(base, place, include=args.include, left_out=left_out)
    if not (place / "record.json").is_file():
        raise ValueError(f"{str(place)!r} is no run's folder; an adapter or weights need --base")
    return measures.run_updates(runs.load_run(place, data=args.data, model=args.model))


def _model_of(args: argparse.Namespace) -> str:
    if args.model is None:
        raise ValueError("--adapter and --checkpoints need --model, the base: a local folder or a hub id")
    return args.model
