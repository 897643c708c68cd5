"""``python -m analysis compare``: which measure predicts the measured generalization error?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from analysis import measures, plots, records, studies
from analysis.commands.options import check_folder

HELP = "compare every bound, sharpness, spectrum and norm with the measured generalization error of finished runs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's arguments."""
    parser.add_argument(
        "runs", nargs="*", type=Path, metavar="RUNS",
        help="folders of finished runs; or a result file of compare, whose runs are taken for tasks that no folder has",
    )  # fmt: skip
    parser.add_argument(
        "--published", action="store_true", help="compare the paper's own table 3 with the order of its bounds instead"
    )
    parser.add_argument(
        "--join", nargs="+", type=Path, default=[], metavar="CSV",
        help="tables of measures per configuration (ld-MI, CMI, code lengths) with columns method, rank, links ...",
    )  # fmt: skip
    parser.add_argument(
        "--join-family", default="information", choices=measures.FAMILIES,
        help="family of joined measures that are not registered (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--results", type=Path, metavar="JSON", help="write the tables there")
    parser.add_argument(
        "--figures", type=Path, metavar="FOLDER",
        help="draw every measure's agreement, and the best measure against the measured gap, as TASK-LOSS.pdf there",
    )  # fmt: skip
    parser.add_argument("--permutations", type=int, default=999, help="shuffles of the null (default: %(default)s)")
    parser.add_argument(
        "--worlds", type=int, default=0, metavar="N",
        help="simulate N worlds like the runs per planted difference: null rates and power of the verdicts",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="seed of all draws (default: %(default)s)")
    parser.add_argument("--top", type=int, default=12, help="rows printed per table (default: %(default)s)")


def main(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    if bool(args.runs) == args.published:
        raise ValueError("give either folders of finished runs or --published")
    for folder in args.runs or ():
        check_folder(folder)
    for name in ("permutations", "top"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(args, name)}")
    notes = []
    if args.published:
        found = studies.published_result(studies.generalization_error(), studies.performance(), seed=args.seed)
        shown = {key: value for key, value in found["values"].items() if "links-3/all" in key or "cla-below" in key}
        for key, value in shown.items():
            print(f"{key}: {value:.4g}")
    else:
        gathered = studies.gather_runs(args.runs, join=args.join, family=args.join_family)
        print("".join(f"{line}\n" for line in gathered.told), end="")
        options = {name: getattr(args, name) for name in ("permutations", "worlds", "seed")}
        found, notes = studies.claim.result(gathered.frame, **options, progress=not args.quiet), gathered.notes
        _print(found, top=args.top)
        if args.figures is not None:
            _draw(found, gathered.frame, records.check_writable(args.figures))
    if args.results is not None:
        record = records.provenance(f"{_command(args)} --results {records.shown_path(args.results)}", [args.seed])
        path = records.write_result(args.results, provenance=record | ({"notes": notes} if notes else {}), **found)
        print(f"written: {path}")
    return 0


def _command(args: argparse.Namespace) -> str:
    if args.published:
        return "python -m analysis compare --published"
    folders = " ".join(map(records.shown_path, args.runs))
    join = " ".join(["--join", *map(records.shown_path, args.join), ""]) if args.join else ""
    join += "" if args.join_family == "information" else f"--join-family {args.join_family} "
    sizes = f"--permutations {args.permutations} --worlds {args.worlds}"
    return f"python -m analysis compare {folders} {join}{sizes} --seed {args.seed}"


def _print(found: dict, *, top: int) -> None:
    for name, value in found["values"].items():
        if name.endswith("/left_out"):
            print(f"{name.removesuffix('/left_out')}: left out, {value}")
    columns = ["runs", "tau_b", "tau_b_low", "tau_b_high", "q", "granulated", "robust_sign_error", "cmi", "partial_tau"]
    for name, table in found["tables"].items():
        if name.startswith("agreement/"):
            frame = records.frame_of(table).set_index("measure")
            where = name.removeprefix("agreement/")
            shown = [column for column in columns if column in frame]
            print(f"\n{where} ({min(top, len(frame))} of {len(frame)} candidates)")
            print(frame[shown].head(top).to_string(float_format=lambda value: f"{value:.3f}"))
            print(found["values"][f"{where}/sentence"])
            if f"rates/{where}" in found["tables"]:
                print(f"in worlds like these runs, null first; {_power(found['values'], where)}")
                rates = records.frame_of(found["tables"][f"rates/{where}"])
                print(rates.to_string(index=False, float_format=lambda value: f"{value:.3f}"))


def _power(values: dict, where: str) -> str:
    least = values.get(f"{where}/detectable")
    reach = "no planted difference" if least is None else f"a difference of tau-b from {least:.2f} on"
    return f"with a power of 0.8 it would see {reach}"


def _draw(found: dict, frame: Any, folder: Path) -> None:
    for name, table in found["tables"].items():
        if name.startswith("agreement/"):
            task, loss = name.split("/")[1:]
            ranked, runs = records.frame_of(table).set_index("measure"), frame[frame["task"] == task]
            fig, _ = plots.figure(plots.PAGE_WIDTH, 1.6 + 0.13 * len(ranked), columns=2)
            stated = dict(found["tables"]["families"]["rows"])
            plots.agreement.plot_agreement(ranked, families=stated, ax=fig.axes[0])
            plots.agreement.plot_gap(runs, measure=ranked.index[0], target=f"gap/{loss}", ax=fig.axes[1])
            print(f"written: {plots.save(fig, folder / f'{task}-{loss}.pdf')}")
