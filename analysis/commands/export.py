"""``export``: the updates of finished runs as files small enough to commit."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis import studies
from theory.defaults import NUM_LINKS

HELP = "write each method's update, at the last and the best checkpoint, as adapters that spectra reads"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("runs", type=Path, metavar="RUNS_FOLDER", help="runs of one task that kept their weights")
    parser.add_argument("--rank", type=int, help="the rank to take where the folder holds several")
    parser.add_argument(
        "--links", type=int, default=NUM_LINKS, help="length of the chains to take (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="base.safetensors, METHOD/last, ...")


def main(args: argparse.Namespace) -> int:
    """Choose each method's first seed, write and print the sizes."""
    paths = studies.first_seeds(studies.chain_runs(args.runs, rank=args.rank, links=args.links))
    rank = "" if args.rank is None else f" --rank {args.rank}"
    index = studies.write_adapters(
        paths, args.out, command=f"python -m analysis export RUNS_FOLDER{rank} --links {args.links} --out FOLDER"
    )
    size = sum(path.stat().st_size for path in args.out.rglob("*.safetensors"))
    print(f"written: {index} and {size / 1e6:.1f} MB of weights of {len(paths)} methods")
    return 0
