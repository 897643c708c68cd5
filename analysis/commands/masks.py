"""``masks``: supersample runs for the conditional-mutual-information bounds."""

from __future__ import annotations

import argparse
from typing import Any

from analysis import records, runs, studies
from analysis.commands.options import add_method_axes, add_run_options, run_values

HELP = "train on random halves of an n x 2 supersample and estimate the CMI family of bounds from the losses"

_EXAMPLES = """examples:
  python -m analysis masks --methods cla lora --ranks 4 --rows 100 --masks 20 --workers 2
  python -m analysis masks --rows 100 --table information.csv   # then: compare RUNS --join information.csv"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    add_run_options(parser, swept=("method", "rank", "links"))
    axes = parser.add_argument_group("configurations")
    add_method_axes(axes)
    axes.add_argument("--seed", type=int, default=0, help="of data, model and supersample (default: 0)")
    design = parser.add_argument_group("supersample")
    design.add_argument("--rows", type=int, default=50, help="n: training examples of each run")
    design.add_argument("--masks", type=int, default=20, help="runs per supersample and configuration")
    design.add_argument("--supersamples", type=int, default=1, help="supersamples drawn (default: 1)")
    jobs = parser.add_argument_group("where it runs and what is written")
    jobs.add_argument("--backend", default="loky", choices=("loky", "dask", "ray"))
    jobs.add_argument("--workers", type=int, default=1)
    jobs.add_argument("--scheduler", help="address of the Dask scheduler or Ray cluster")
    jobs.add_argument("--folder", default="runs/masks", help="where records go (default: runs/masks)")
    jobs.add_argument("--output", help="write the loss arrays of a single configuration to this .safetensors file")
    jobs.add_argument("--table", metavar="CSV", help="write one row of estimates per configuration, for compare --join")
    jobs.add_argument("--results", metavar="JSON", help="write the estimates with intervals, nulls and provenance")


def _command(args: argparse.Namespace, base: dict) -> str:
    """Write the command again, with DATA and MODEL in place of this machine's folders."""
    shared = runs.RunConfig.from_mapping(base).command().removeprefix("python -m analysis run")
    words = [f"--methods {' '.join(args.methods)} --ranks {','.join(map(str, args.ranks))}"]
    words += [f"--links {','.join(map(str, args.links))}"] if args.links else []
    words += [f"--rows {args.rows} --masks {args.masks} --supersamples {args.supersamples}"]
    return f"python -m analysis masks {' '.join(words)}{shared.replace('--first-seed', '--seed')}"


def main(args: argparse.Namespace) -> int:
    """Run the masks and print each bound with its interval and its zero-information null."""
    base = {name: value for name, value in run_values(args).items() if name not in ("method", "rank", "links")}
    configurations = runs.method_cells(base, methods=args.methods, ranks=args.ranks, links=args.links)
    if args.output and len(configurations) > 1:
        raise ValueError(f"--output holds the arrays of one configuration, got {len(configurations)}; name one method")
    groups = runs.mask_grid(
        configurations,
        rows=args.rows,
        masks=args.masks,
        supersamples=args.supersamples,
        estimated=bool(args.table or args.results),
    )
    arrays = runs.sweep_masks(
        groups,
        folder=args.folder,
        backend=args.backend,
        workers=args.workers,
        scheduler=args.scheduler,
        progress=not args.quiet,
    )
    if args.output:
        print(f"wrote {runs.write_masks(arrays[0], args.output)}")
    if not studies.estimable(arrays):
        return 0
    estimates = studies.information_frame(configurations, arrays)
    _print(estimates, rows=args.rows, count=args.masks * args.supersamples)
    if args.table:
        print(f"wrote {records.atomic_write_text(args.table, studies.joinable(estimates).to_csv(index=False))}")
    if args.results:
        made = records.provenance(_command(args, base), [args.seed])
        found = studies.information_result(
            estimates, configurations=len(configurations), rows=args.rows, masks=args.masks
        )
        print(f"wrote {records.write_result(args.results, provenance=made, **found)}")
    return 0


def _print(estimates: Any, *, rows: int, count: int) -> None:
    print(f"0-1 loss, {count} runs of n = {rows} each; bounds on the gap, in [0, 1];")
    print("[interval]; null: what zero information reads as")
    for row in estimates.itertuples():
        print(
            f"{row.method:6} r={row.rank:<3} links={row.links} {row.quantity:9} bound {row.bound:.4f} "
            f"[{row.bound_low:.4f}, {row.bound_high:.4f}] null {row.bound_null:.4f}  "
            f"gap {row.gap:.4f} [{row.gap_low:.4f}, {row.gap_high:.4f}]"
        )
