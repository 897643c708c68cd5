"""``landscape``: the loss around finished runs or anyone's models, as numbers, figures and a page to turn by mouse."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from analysis import geometry, plots, records, studies
from analysis.commands.options import add_subjects, subjects

HELP = "loss planes of finished runs or anyone's models: random or PCA directions, adapter space or merged weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_subjects(parser)
    parser.add_argument("--space", default="adapter", choices=("adapter", "merged", "full"))
    parser.add_argument("--directions", default="random", choices=("random", "pca"), help="pca needs checkpoints")
    parser.add_argument("--normalization", default="filter", choices=("filter", "layer", "none"))
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[25], help="points per axis, odd; or along x and y (default: 25)"
    )
    parser.add_argument(
        "--radius",
        type=float,
        nargs="+",
        help="half-width in units of the directions, or two (default: 1 or the path)",
    )
    parser.add_argument(
        "--buffers", default="moved", choices=("moved", "recalibrated"), help="batch norms' running statistics"
    )
    parser.add_argument("--method", default="auto", choices=("auto", "vmap", "serial", "chebyshev"))
    parser.add_argument("--tolerance", type=float, default=0.01, help="of the Chebyshev check, share of the range")
    parser.add_argument("--examples", type=int, default=200, help="training examples of the fixed batch (default: 200)")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the grid (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the directions (default: 0)")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="planes, planes.pdf, planes.html")


def main(args: argparse.Namespace) -> int:
    """Measure, print one line per run, and write all of them or none."""
    if args.examples < 1:
        raise ValueError(f"--examples must be at least 1, got {args.examples}")
    folder = records.check_writable(args.out)
    how = geometry.Evaluation(
        method=args.method, tolerance=args.tolerance, n_jobs=args.jobs, progress=not args.quiet, buffers=args.buffers
    )
    found = []
    for record, surface in studies.measured_planes(
        subjects(args),
        steps=_one_or_two("--steps", args.steps),
        evaluation=how,
        data=args.data,
        model=args.model,
        space=args.space,
        examples=args.examples,
        directions=args.directions,
        normalization=args.normalization,
        radius=_one_or_two("--radius", args.radius),
        seed=args.seed,
    ):
        rise, note = surface.rise(), f"; {surface.note}" if surface.note else ""
        print(
            f"{surface.title} seed {record['config']['seed']}: loss {surface.center_loss:.4g}, "
            f"within {rise['radius']:.3g}: worst rise {rise['worst']:.4g}, mean rise {rise['mean']:.4g} "
            f"({surface.evaluations} points, {surface.method}{note})",
            flush=True,
        )
        if surface.fixed:
            more = f" and {len(surface.fixed) - 4} more" if len(surface.fixed) > 4 else ""
            print(f"  trained, but not moved: {', '.join(surface.fixed[:4])}{more}", flush=True)
        for loss, distance in zip(surface.path_losses, surface.path_distances, strict=True):
            print(f"  checkpoint: loss {loss:.4g}, {distance:.3g} from the plane", flush=True)
        found.append((record["key"], surface))
    for key, surface in found:
        surface.save(folder / f"plane-{key}")
    drawn = [surface for _, surface in found]
    plots.save(plots.plot_contours(drawn)[0].figure, folder / "planes.pdf")
    records.atomic_write_text(folder / "planes.html", plots.surfaces_page(drawn))
    print(f"written: {folder / 'planes.pdf'}, {folder / 'planes.html'}")
    return 0


def _one_or_two(flag: str, given: list[Any] | None) -> Any:
    """Return one number for both axes, or a pair."""
    if given is not None and len(given) > 2:
        raise ValueError(f"{flag} takes one number or two, got {len(given)}")
    return given[0] if given is not None and len(given) == 1 else None if given is None else tuple(given)
