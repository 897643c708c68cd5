"""``python -m analysis bounds``: every generalization bound for a model and a method, or for a trained adapter."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import theory
from analysis import records, studies, tasks
from theory.defaults import BITS, NUM_LINKS, RANK

_SHOWN = ("method", "bound", "gap", "risk", "confidence", "vacuous", "bits", "assumptions")

HELP = "evaluate every generalization bound, before training or from what a run really trained"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's arguments."""
    what = parser.add_argument_group("what is trained")
    what.add_argument("--model", default="roberta-base", help="one of the paper's ten models (default: %(default)s)")
    what.add_argument("--method", default="all", help="one of the methods, or all (default: %(default)s)")
    what.add_argument("--rank", type=int, default=RANK, help="r (default: %(default)s)")
    what.add_argument("--bits", type=float, default=BITS, help="q, bits per stored number (default: %(default)s)")
    what.add_argument("--links", type=int, default=NUM_LINKS, help="k, links of a chain (default: %(default)s)")
    what.add_argument("--target-modules", help="as in PEFT: a,b or a regular expression or all-linear (default: q, v)")
    what.add_argument("--head", type=int, default=0, metavar="N", help="numbers trained outside (default: %(default)s)")
    what.add_argument("--record", type=Path, metavar="JSON", help="a run's record.json: bound what it trained instead")
    how = parser.add_argument_group("the loss and the sample")
    how.add_argument("--n", type=int, help="size of the fine-tuning sample (default: the data set's)")
    how.add_argument(
        "--data-set", default="mrpc", choices=tuple(tasks.DATASETS), metavar="NAME",
        help=f"its published training split is the sample: {', '.join(tasks.DATASETS)} (default: %(default)s)",
    )  # fmt: skip
    how.add_argument("--sigma", type=float, default=0.5, help="sub-Gaussian parameter (default: %(default)s)")
    how.add_argument("--loss-range", type=float, help="length of the loss's interval (default: 2 sigma)")
    how.add_argument("--loss-change", type=float, metavar="D", help="a-priori cap of |loss(W) - loss(W0)|")
    how.add_argument("--choices", type=int, default=1, help="seeds or ranks picked from by data (default: %(default)s)")
    out = parser.add_argument_group("output")
    out.add_argument("--json", type=Path, metavar="PATH", help="write the bounds with their assumptions there")
    out.add_argument("--csv", type=Path, metavar="PATH", help="write the table there")
    out.add_argument(
        "--needed", action="store_true",
        help="print instead how many examples the paper's models need on its data sets before a bound says something",
    )  # fmt: skip
    out.add_argument("--latex", action="store_true", help="print table 1 as LaTeX instead")
    out.add_argument("--typst", action="store_true", help="print table 1 as Typst instead")
    out.add_argument(
        "--results", type=Path, metavar="PATH", help="write the report's bounds.json there (all models, stress test)"
    )


def main(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    args.n = tasks.DATASETS[args.data_set].num_train if args.n is None else args.n
    if args.latex or args.typst:
        print(theory.symbolic.table1_latex() if args.latex else theory.symbolic.table1_typst(), end="")
        return 0
    if args.results is not None:
        return _write_results(args)
    if args.needed:
        return _print_needed(args)
    frame = _frame(args)
    kept = [name for name in _SHOWN if name in frame]
    shown = frame[kept]
    print(shown.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    print(f"n = {args.n}, sigma = {args.sigma:g}; in expectation over the sample; vacuous: not below the loss's range")
    if args.json is not None:
        records.atomic_write_json(
            args.json, {"bounds": frame.astype(object).where(frame.notna(), None).to_dict("records")}
        )
    if args.csv is not None:
        records.atomic_write_text(args.csv, frame.to_csv(index=False))
    return 0


def _print_needed(args: argparse.Namespace) -> int:
    frame = studies.table1.needed_frame(
        methods=theory.method_keys() if args.method == "all" else [theory.get_method(args.method).key],
        rank=args.rank,
        bits=args.bits,
        links=args.links,
    )
    print(frame.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    print(
        "needed: the least n at which the bound on the gap is at most the range of a loss in [0, 1]; times: needed / n"
    )
    if args.csv is not None:
        records.atomic_write_text(args.csv, frame.to_csv(index=False))
    return 0


def _frame(args: argparse.Namespace) -> Any:
    common: dict[str, Any] = {
        "num_examples": args.n,
        "sigma": args.sigma,
        "loss_range": args.loss_range,
        "loss_change": args.loss_change,
        "num_choices": args.choices,
    }
    if args.record is not None:
        return studies.table1.trained_frame(args.record, **common)
    targets = args.target_modules
    if targets is not None and targets != "all-linear" and all(part.isidentifier() for part in targets.split(",")):
        targets = targets.split(",")
    return studies.table1.methods_frame(
        theory.layers.for_model(args.model, target_modules=targets),
        methods=theory.method_keys() if args.method == "all" else [theory.get_method(args.method).key],
        rank=args.rank,
        bits=args.bits,
        links=args.links,
        head_numbers=args.head,
        **common,
    )


def _write_results(args: argparse.Namespace) -> int:
    found = studies.table1.result(rank=args.rank, bits=args.bits, links=args.links)
    name = args.results.name if args.results.is_absolute() else args.results.as_posix()
    command = f"python -m analysis bounds --rank {args.rank} --bits {args.bits:g} --links {args.links} --results {name}"
    path = records.write_result(args.results, provenance=records.provenance(command, [0]), **found)
    for key, value in found["values"].items():
        print(f"{key}: {value:.6g}")
    print(f"written: {path}")
    return 0
