"""``pretrain``: train the digits' base model again and say how far the committed one is from it."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis import records, tasks

HELP = "train the base model of the digits again and compare it with the one that the package carries"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--out", metavar="FILE", help="write the weights trained here to this .safetensors file")


def main(args: argparse.Namespace) -> int:
    """Train, compare and, if asked, write."""
    if args.out is not None:
        records.check_writable(Path(args.out).parent)
    carried, trained = tasks.base_weights(), tasks.pretrain()
    found = tasks.base_distance(trained, carried)
    print(f"the package's base model: {sum(w.numel() for w in carried.values()):,} numbers, {tasks.base_fingerprint()}")
    print(
        f"trained here: |W - W0| / |W0| = {found.relative:.2g}, largest difference {found.largest:.2g}; "
        f"mean cosine of the two models' features on digits 5-9: {found.cosine:.6f}"
    )
    print("the same bits" if found.largest == 0 else "other bits, as on other processors: the package's are used")
    if args.out is not None:
        print(f"written to {tasks.write_base(trained, args.out)}")
    return 0
