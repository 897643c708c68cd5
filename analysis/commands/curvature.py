"""``curvature``: top eigenvalues, trace and spectral density of the loss at finished runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis import geometry, measures, plots, records, runs

HELP = "top Hessian eigenvalues with residuals, trace with standard error, spectral density of finished runs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of runs that kept their weights")
    parser.add_argument("--space", default="adapter", choices=("adapter", "merged", "full"))
    parser.add_argument("--matrix", default="hessian", choices=("hessian", "gauss-newton"))
    parser.add_argument("--count", type=int, default=3, help="top eigenvalues (default: 3)")
    parser.add_argument("--probes", type=int, default=16, help="probes of the trace (default: 16)")
    parser.add_argument("--density", type=int, default=0, metavar="STEPS", help="Lanczos steps of the density; 0: none")
    parser.add_argument("--examples", type=int, default=200, help="training examples of the fixed batch (default: 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", help="where the runs' data is now")
    parser.add_argument("--model", help="where the base model is now")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write everything there")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the densities there (pdf, svg or png)")


def main(args: argparse.Namespace) -> int:
    """Measure and print one line per run."""
    if args.figure is not None and not args.density:
        raise ValueError("--figure draws densities; give --density STEPS")
    build = geometry.hessian if args.matrix == "hessian" else geometry.gauss_newton
    rows, drawn = [], {}
    for path in args.runs:
        run = runs.load_run(path, data=args.data, model=args.model)
        names = measures.adapted_weights(run.model, run.record) if args.space != "full" else None
        operator = build(run.model, measures.training_batch(run, examples=args.examples), space=args.space, names=names)
        top = geometry.top_eigenvalues(operator, count=args.count, seed=args.seed)
        trace = geometry.hutchinson(operator, probes=args.probes, seed=args.seed)
        config = run.record["config"]
        label = config["method"] if config["method"] not in drawn else f"{config['method']}, {run.record['key'][:6]}"
        if args.density:
            drawn[label] = geometry.spectral_density(operator, steps=args.density, seed=args.seed)
        values = ", ".join(f"{v:.5g} (±{r:.1g})" for v, r in zip(top.values, top.residuals, strict=True))
        print(f"{label} seed {config['seed']}: top {values}; trace {trace.value:.4g} ± {trace.standard_error:.2g}")
        rows += [
            [
                run.record["key"],
                config["method"],
                config["seed"],
                k + 1,
                value,
                residual,
                trace.value,
                trace.standard_error,
            ]
            for k, (value, residual) in enumerate(zip(top.values, top.residuals, strict=True))
        ]
    if args.figure is not None:
        fig, ax = plots.figure()
        plots.densities(drawn, ax=ax)
        print(f"written: {plots.save(fig, args.figure)}")
    if args.out is not None:
        columns = ["run", "method", "seed", "index", "eigenvalue", "residual", "trace", "trace_error"]
        series = {
            label: {"grid": item.grid, "density": item.density, "standard_error": item.standard_error}
            for label, item in drawn.items()
        }
        record = records.provenance(f"python -m analysis curvature RUN ... --space {args.space}", [args.seed])
        tables = {"eigenvalues": {"columns": columns, "rows": rows}}
        print(f"written: {records.write_result(args.out, provenance=record, tables=tables, series=series)}")
    return 0
