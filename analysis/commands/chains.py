"""``chains``: are chained variants sharper, and have they more intruders? Finished runs, paired by seed."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis import records, studies
from analysis.commands.options import whole_numbers
from theory.defaults import NUM_LINKS

HELP = "test on finished runs whether chains are sharper and have more intruder dimensions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUNS_FOLDER", help="runs that kept their weights, one task a folder"
    )
    parser.add_argument("--ranks", type=whole_numbers, help="the rank to take of each folder, for example 4,16")
    parser.add_argument(
        "--links", type=int, default=NUM_LINKS, help="length of the chains to take (default: %(default)s)"
    )
    parser.add_argument("--examples", type=int, default=100, help="training examples of the fixed batch (default: 100)")
    parser.add_argument("--steps", type=int, default=15, help="points per axis of the planes, odd (default: 15)")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the runs (default: 1)")
    parser.add_argument(
        "--results", type=Path, metavar="FOLDER",
        help="write landscape.json and spectra.json there; other tasks of those files stay",
    )  # fmt: skip


def main(args: argparse.Namespace) -> int:
    """Measure, test, print, and write if asked; the command in a result names folders as RUNS_FOLDER."""
    if args.examples < 1 or args.steps < 3 or args.steps % 2 == 0:
        raise ValueError(
            f"--examples must be at least 1 and --steps odd and at least 3, got {args.examples} and {args.steps}"
        )
    tasks = studies.chain_tasks(args.runs, ranks=args.ranks, links=args.links)
    if args.results is not None:
        records.check_writable(args.results)
    parts = []
    for part in studies.chain_parts(tasks, examples=args.examples, n_jobs=args.jobs):
        print(f"{part.task}, {part.name}\n{part.claim.to_string(index=False)}", flush=True)
        parts.append(part)
    if args.results is not None:
        planes = studies.chain_planes(tasks, steps=args.steps, examples=args.examples, n_jobs=args.jobs)
        words = ["python -m analysis chains", *["RUNS_FOLDER"] * len(args.runs)]
        words += [f"--ranks {','.join(map(str, args.ranks))}"] if args.ranks is not None else []
        words += [f"--links {args.links} --examples {args.examples} --steps {args.steps} --results FOLDER"]
        written = studies.write_chains(parts, planes=planes, folder=args.results, command=" ".join(words))
        for path, others in written.items():
            print(f"written: {path}" + (f"; {', '.join(others)} kept as recorded there" if others else ""))
    return 0
