"""``curvature``: top eigenvalues, trace and spectral density of the loss at finished runs or anyone's models."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis import measures, plots, records
from analysis.commands.options import add_subjects, subjects

HELP = "top Hessian eigenvalues with residuals, trace with standard error, spectral density, runs' or models'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_subjects(parser)
    parser.add_argument("--space", default="adapter", choices=("adapter", "merged", "full"))
    parser.add_argument("--matrix", default="hessian", choices=("hessian", "gauss-newton"))
    parser.add_argument("--count", type=int, default=3, help="top eigenvalues (default: 3)")
    parser.add_argument("--probes", type=int, default=16, help="probes of the trace (default: 16)")
    parser.add_argument("--trace", default="hutchinson", choices=("hutchinson", "hutch++"), help="how it is estimated")
    parser.add_argument("--density", type=int, default=0, metavar="STEPS", help="Lanczos steps of the density; 0: none")
    parser.add_argument("--examples", type=int, default=200, help="training examples of the fixed batch (default: 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, metavar="JSON", help="write everything there")
    parser.add_argument(
        "--figure", type=Path, metavar="FILE", help="draw eigenvalues, and densities if asked for (pdf, svg or png)"
    )


def main(args: argparse.Namespace) -> int:
    """Measure and print one line per run."""
    found = []
    for one in measures.curvature_of_runs(
        subjects(args),
        matrix=args.matrix,
        space=args.space,
        count=args.count,
        probes=args.probes,
        trace=args.trace,
        density_steps=args.density,
        examples=args.examples,
        seed=args.seed,
        data=args.data,
        model=args.model,
    ):
        values = ", ".join(f"{v:.5g} (±{r:.1g})" for v, r in zip(one.top.values, one.top.residuals, strict=True))
        trace = f"{one.trace.value:.4g} ± {one.trace.standard_error:.2g}"
        print(f"{one.label} seed {one.seed}: top {values}; trace {trace}", flush=True)
        found.append(one)
    if args.figure is not None:
        fig, _ = plots.figure(height=4.2 if args.density else 2.2, rows=2 if args.density else 1)
        plots.plot_eigenvalues({one.label: one.top for one in found}, ax=fig.axes[0])
        if args.density:
            densities = {one.label: one.density for one in found if one.density is not None}
            plots.plot_densities(densities, ax=fig.axes[1])
        print(f"written: {plots.save(fig, args.figure)}")
    if args.out is not None:
        record = records.provenance(f"python -m analysis curvature RUN ... --space {args.space}", [args.seed])
        tables = measures.curvature_tables(found)
        print(f"written: {records.write_result(args.out, provenance=record, **tables)}")
    return 0
