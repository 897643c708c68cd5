"""``landscape``: the loss around finished runs, as numbers, figures and a page to turn by mouse."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis import geometry, plots, records, studies

HELP = "loss planes of finished runs: random or PCA directions, adapter space or merged weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of runs that kept their weights")
    parser.add_argument("--space", default="adapter", choices=("adapter", "merged", "full"))
    parser.add_argument("--directions", default="random", choices=("random", "pca"), help="pca needs checkpoints")
    parser.add_argument("--normalization", default="filter", choices=("filter", "layer", "none"))
    parser.add_argument("--steps", type=int, default=25, help="points per axis, odd (default: 25)")
    parser.add_argument("--radius", type=float, help="half-width in units of the directions (default: 1, or the path)")
    parser.add_argument("--method", default="auto", choices=("auto", "vmap", "serial", "chebyshev"))
    parser.add_argument("--tolerance", type=float, default=0.01, help="of the Chebyshev check, share of the range")
    parser.add_argument("--examples", type=int, default=200, help="training examples of the fixed batch (default: 200)")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the grid (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the directions (default: 0)")
    parser.add_argument("--data", help="where the runs' data is now")
    parser.add_argument("--model", help="where the base model is now")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="planes, planes.pdf, planes.html")


def main(args: argparse.Namespace) -> int:
    """Measure, print one line per run, and write all of them or none."""
    if args.examples < 1:
        raise ValueError(f"--examples must be at least 1, got {args.examples}")
    folder = records.check_writable(args.out)
    how = geometry.Evaluation(method=args.method, tolerance=args.tolerance, n_jobs=args.jobs, progress=not args.quiet)
    found = []
    for record, surface in studies.measured_planes(
        args.runs,
        steps=args.steps,
        evaluation=how,
        data=args.data,
        model=args.model,
        space=args.space,
        examples=args.examples,
        directions=args.directions,
        normalization=args.normalization,
        radius=args.radius,
        seed=args.seed,
    ):
        rise, note = surface.rise(), f"; {surface.note}" if surface.note else ""
        print(
            f"{surface.title} seed {record['config']['seed']}: loss {surface.center_loss:.4g}, "
            f"within {rise['radius']:.3g}: worst rise {rise['worst']:.4g}, mean rise {rise['mean']:.4g} "
            f"({surface.evaluations} points, {surface.method}{note})",
            flush=True,
        )
        found.append((record["key"], surface))
    for key, surface in found:
        surface.save(folder / f"plane-{key}")
    drawn = [surface for _, surface in found]
    plots.save(plots.plot_contours(drawn)[0].figure, folder / "planes.pdf")
    records.atomic_write_text(folder / "planes.html", plots.surfaces_page(drawn))
    print(f"written: {folder / 'planes.pdf'}, {folder / 'planes.html'}")
    return 0
