"""``python -m analysis compare``: which measure predicts the measured generalization error?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from analysis import measures, records, studies

if TYPE_CHECKING:
    import pandas as pd

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
    parser.add_argument("--replicates", type=int, default=1000, help="bootstrap samples (default: %(default)s)")
    parser.add_argument("--permutations", type=int, default=999, help="shuffles of the null (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of both (default: %(default)s)")
    parser.add_argument("--top", type=int, default=12, help="rows printed per table (default: %(default)s)")


def main(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    if bool(args.runs) == args.published:
        raise ValueError("give either folders of finished runs or --published")
    for name in ("replicates", "permutations", "top"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(args, name)}")
    notes: list[str] = []
    if args.published:
        found = studies.published_result(studies.generalization_error(), studies.performance(), seed=args.seed)
        command = "python -m analysis compare --published"
        shown = {key: value for key, value in found["values"].items() if "links-3/all" in key or "cla-below" in key}
        for key, value in shown.items():
            print(f"{key}: {value:.4g}")
    else:
        frame, notes = _frame(args.runs)
        if frame.attrs["unstated"]:
            print(f"left out, being no registered measure: {', '.join(frame.attrs['unstated'])}")
        for path in args.join:
            frame = studies.join_measures(frame, path, family=args.join_family)
            joined = frame.attrs["joined"]
            matched = int(frame[joined].notna().any(axis=1).sum())
            print(f"{path.name}: {', '.join(joined)} for {matched} of {len(frame)} runs")
        options = {"replicates": args.replicates, "permutations": args.permutations, "seed": args.seed}
        found = studies.claim.result(frame, **options, progress=not args.quiet)
        folders = " ".join(map(records.shown_path, args.runs))
        sizes = f"--replicates {args.replicates} --permutations {args.permutations}"
        join = " ".join(["--join", *map(records.shown_path, args.join), ""]) if args.join else ""
        join += "" if args.join_family == "information" else f"--join-family {args.join_family} "
        command = f"python -m analysis compare {folders} {join}{sizes} --seed {args.seed}"
        _print(found, top=args.top)
    if args.results is not None:
        record = records.provenance(f"{command} --results {records.shown_path(args.results)}", [args.seed])
        path = records.write_result(args.results, provenance=record | ({"notes": notes} if notes else {}), **found)
        print(f"written: {path}")
    return 0


def _frame(places: list[Path]) -> tuple[pd.DataFrame, list[str]]:
    """Collect runs from folders and, for other tasks, from earlier comparisons; say what was taken from where."""
    notes: list[str] = []
    folders = [path for path in places if path.suffix != ".json"]
    frame = studies.comparison_frame(folders) if folders else None
    for path in places:
        if path.suffix == ".json":
            known = set() if frame is None else set(frame["task"])
            frame = studies.with_recorded(frame, path)
            taken = frame[~frame["task"].isin(known)]
            tasks = sorted(set(taken["task"]))
            print(f"{path.name}: {len(taken)} runs of {', '.join(tasks)} as recorded there")
            notes += records.carried_notes(records.read_json(path)["provenance"], tasks, how="recorded")
    assert frame is not None
    return frame, notes


def _print(found: dict, *, top: int) -> None:
    import pandas as pd

    for name, value in found["values"].items():
        if name.endswith("/left_out"):
            print(f"{name.removesuffix('/left_out')}: left out, {value}")
    columns = ["runs", "tau_b", "tau_b_low", "tau_b_high", "q", "granulated", "robust_sign_error", "cmi", "partial_tau"]
    for name, table in found["tables"].items():
        if name.startswith("agreement/"):
            frame = pd.DataFrame(table["rows"], columns=table["columns"]).set_index("measure")
            where = name.removeprefix("agreement/")
            shown = [column for column in columns if column in frame]
            print(f"\n{where} ({min(top, len(frame))} of {len(frame)} candidates)")
            print(frame[shown].head(top).to_string(float_format=lambda value: f"{value:.3f}"))
            print(found["values"][f"{where}/sentence"])
