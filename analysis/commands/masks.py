"""``masks``: supersample runs for the conditional-mutual-information bounds."""

from __future__ import annotations

import argparse

from analysis.run_options import add_run_options, run_values

HELP = "train on random halves of an n x 2 supersample and estimate the CMI family of bounds from the losses"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_run_options(parser)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=50, help="n: training examples of each run")
    parser.add_argument("--masks", type=int, default=20, help="runs per supersample")
    parser.add_argument("--supersamples", type=int, default=1)
    parser.add_argument("--backend", default="loky", choices=("loky", "dask", "ray"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--scheduler", help="address of the Dask scheduler or Ray cluster")
    parser.add_argument("--folder", default="runs/masks", help="where records go (default: runs/masks)")
    parser.add_argument("--output", help="write the loss arrays to this .safetensors file")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def main(args: argparse.Namespace) -> int:
    """Run the masks and print each bound with its interval and its zero-information null."""
    import numpy as np

    from analysis.masks import collect_masks, mask_cell, mask_cells, mask_key, write_masks
    from analysis.run_config import RunConfig
    from analysis.store import RunFailure
    from analysis.sweep import sweep
    from analysis.tasks import load_task
    from theory import cmi

    values = run_values(args)
    config = RunConfig.from_mapping(values)
    options = config.resolve().options
    task = load_task(config.task, data=config.data, model=config.model, seed=config.seed, options=options)
    if not 2 <= args.rows <= len(task.train) // 2:
        raise ValueError(f"rows must lie in 2..{len(task.train) // 2} for this task, got {args.rows}")
    cells = mask_cells(values, rows=args.rows, masks=args.masks, supersamples=args.supersamples)
    report = sweep(
        cells,
        mask_cell,
        folder=args.folder,
        key=mask_key,
        backend=args.backend,
        workers=args.workers,
        scheduler=args.scheduler,
        progress=not args.quiet,
    )
    if report.failed:
        raise RunFailure(f"{len(report.failed)} of {report.total} runs failed; see {args.folder}/{report.failed[0]}")
    arrays = collect_masks(cells, folder=args.folder)
    if args.output:
        print(f"wrote {write_masks(arrays, args.output)}")
    if len(cells) < 2 or task.kind == "regression":
        return 0
    print(f"0-1 loss, {len(cells)} runs of n = {args.rows}; nats; [interval]; null: what zero information reads as")
    for quantity in ("ld-mi", "e-cmi", "fast-rate"):
        found = cmi.estimate(arrays["zero_one"], arrays["masks"], quantity=quantity, rng=np.random.default_rng(0))
        print(
            f"{quantity:10} bound {found.bound:.4f} [{found.bound_low:.4f}, {found.bound_high:.4f}] "
            f"null {found.bound_null:.4f}"
        )
    print(f"measured gap {found.gap:.4f} [{found.gap_low:.4f}, {found.gap_high:.4f}]")
    return 0
