"""``landscape``: the loss around finished runs, as numbers, figures and a page to turn by mouse."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis import geometry, plots, records, runs, studies

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
    """Measure, write and print one line per run."""
    if args.examples < 1:
        raise ValueError(f"--examples must be at least 1, got {args.examples}")
    folder = records.check_writable(args.out)
    found = []
    for path in args.runs:
        try:
            key, seed, surface = _measure(path, args)
        except ValueError as error:
            raise ValueError(f"run {str(path)!r}: {error}") from None
        rise = surface.rise()
        print(
            f"{surface.title} seed {seed}: loss {surface.center_loss:.4g}, within {rise['radius']:.3g}: "
            f"worst rise {rise['worst']:.4g}, mean rise {rise['mean']:.4g} ({surface.evaluations} points, "
            f"{surface.method}{'; ' + surface.note if surface.note else ''})"
        )
        found.append((key, surface))
    for key, surface in found:  # all of them or none
        surface.save(folder / f"plane-{key}")
    drawn = [surface for _, surface in found]
    plots.save(plots.contours(drawn)[0].figure, folder / "planes.pdf")
    records.atomic_write_text(folder / "planes.html", plots.surfaces_page(drawn))
    print(f"written: {folder / 'planes.pdf'}, {folder / 'planes.html'}")
    return 0


def _measure(path: Path, args: argparse.Namespace):
    """Return a run's key, its seed and its plane."""
    run = runs.load_run(path, data=args.data, model=args.model)
    surface = studies.run_plane(
        run,
        space=args.space,
        examples=args.examples,
        directions=args.directions,
        normalization=args.normalization,
        steps=args.steps,
        radius=args.radius,
        seed=args.seed,
        evaluation=geometry.Evaluation(
            method=args.method, tolerance=args.tolerance, n_jobs=args.jobs, progress=not args.quiet
        ),
    )
    return run.record["key"], run.record["config"]["seed"], surface
