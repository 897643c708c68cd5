"""``chains``: are chained variants sharper, and have they more intruders? Finished runs, paired by seed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis import records, statistics, studies
from analysis.commands.options import whole_numbers

if TYPE_CHECKING:
    import pandas as pd

HELP = "test on finished runs whether chains are sharper and have more intruder dimensions"

LANDSCAPE = ("worst_merged", "mean_merged", "worst_adapter", "mean_adapter")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUNS_FOLDER", help="runs that kept their weights, one task a folder"
    )
    parser.add_argument("--ranks", type=whole_numbers, help="the rank to take of each folder, for example 4,16")
    parser.add_argument("--links", type=int, default=3, help="length of the chains to take (default: 3)")
    parser.add_argument("--examples", type=int, default=100, help="training examples of the fixed batch (default: 100)")
    parser.add_argument("--steps", type=int, default=15, help="points per axis of the planes, odd (default: 15)")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the runs (default: 1)")
    parser.add_argument(
        "--results", type=Path, metavar="FOLDER",
        help="write landscape.json and spectra.json there; other tasks of those files stay",
    )  # fmt: skip


def main(args: argparse.Namespace) -> int:
    """Measure, test, print, and write if asked."""
    if args.examples < 1 or args.steps < 3 or args.steps % 2 == 0:
        raise ValueError(
            f"--examples must be at least 1 and --steps odd and at least 3, got {args.examples} and {args.steps}"
        )
    tasks = _tasks(args)
    if args.results is not None:
        records.check_writable(args.results)
    measures = {"landscape": LANDSCAPE, "spectra": studies.SPECTRA}
    found: dict[str, list[tuple[str, pd.DataFrame, pd.DataFrame]]] = {name: [] for name in measures}
    for task, paths in tasks.items():
        frames = studies.chain_frames(paths, examples=args.examples, n_jobs=args.jobs)
        for name, frame in zip(measures, frames, strict=True):
            claim = statistics.paired_claim(frame, measures[name])
            print(f"{task}, {name}\n{claim.to_string(index=False)}")
            found[name].append((task, frame, claim))
    if args.results is not None:
        series = {"landscape": _planes(tasks, args), "spectra": _curves(found["spectra"])}
        for name, parts in found.items():
            print(f"written: {_write(name, parts, series[name], args)}")
    return 0


def _tasks(args: argparse.Namespace) -> dict[str, list[Path]]:
    """Return each task's runs."""
    if args.ranks is not None and len(args.ranks) != len(args.runs):
        raise ValueError(f"--ranks needs one rank for each of the {len(args.runs)} folders, got {len(args.ranks)}")
    tasks: dict[str, list[Path]] = {}
    for folder, rank in zip(args.runs, args.ranks or [None] * len(args.runs), strict=True):
        paths = studies.chain_runs(folder, rank=rank, links=args.links)
        task = records.read_json(paths[0] / "record.json")["config"]["task"]
        if task in tasks:
            raise ValueError(f"two folders hold runs of {task!r}; give each task one folder")
        tasks[task] = paths
    return tasks


def _planes(tasks: dict[str, list[Path]], args: argparse.Namespace) -> dict[str, Any]:
    """Measure one plane of every method: its first seed's, at the last checkpoint, in merged space."""
    options: dict[str, Any] = {"steps": args.steps, "examples": args.examples, "n_jobs": args.jobs}
    return {
        f"{task}/planes": [surface.to_dict() for surface in studies.planes(studies.first_seeds(paths), **options)]
        for task, paths in tasks.items()
    }


def _curves(parts: list[tuple[str, pd.DataFrame, pd.DataFrame]]) -> dict[str, Any]:
    """Return intruders against epsilon, mean and range over seeds, by task, checkpoint and method."""
    return {
        f"{task}/curves/{checkpoint}": {
            method: curve.to_dict("list")
            for method, curve in studies.intruder_curves(frame, checkpoint=checkpoint).items()
        }
        for task, frame, _ in parts
        for checkpoint in ("last", "best")
    }


def _write(
    name: str, parts: list[tuple[str, pd.DataFrame, pd.DataFrame]], series: dict[str, Any], args: argparse.Namespace
) -> Path:
    """Write one committed result, beside what it holds of other tasks; its command names folders as RUNS_FOLDER."""
    import pandas as pd

    values: dict[str, Any] = {}
    for task, frame, claim in parts:
        last = frame[frame["checkpoint"] == "last"]
        values |= {f"{task}/runs": len(last), f"{task}/seeds": last["seed"].nunique()}
        values[f"{task}/best_is_last"] = int((frame[frame["checkpoint"] == "best"]["weights"] == "adapter").sum())
        values |= statistics.claim_values(claim, task=task) | {
            f"{task}/best_doubtful": int(last["choice_doubtful"].sum())
        }
    curves = ["curve", "curve_low", "curve_high"]
    runs = pd.concat([frame.drop(columns=curves, errors="ignore").assign(task=task) for task, frame, _ in parts])
    claims = pd.concat([claim.assign(task=task) for task, _, claim in parts])
    path, notes = args.results / f"{name}.json", {}
    frames = {"claim": claims, "runs": runs}
    kept = _other_tasks(path, set(runs["task"])) if path.exists() else None
    if kept is not None:
        frames = {key: pd.concat([whole, kept["frames"][key]]) for key, whole in frames.items()}
        values, series, notes = values | kept["values"], series | kept["series"], {"notes": kept["notes"]}
    tables = {
        key: records.table_of(whole[["task", *(column for column in whole.columns if column != "task")]])
        for key, whole in frames.items()
    }
    command = ["python -m analysis chains", *["RUNS_FOLDER"] * len(args.runs)]
    if args.ranks is not None:
        command.append(f"--ranks {','.join(map(str, args.ranks))}")
    command.append(f"--links {args.links} --examples {args.examples} --steps {args.steps} --results FOLDER")
    record = records.provenance(" ".join(command), sorted({int(seed) for seed in frames["runs"]["seed"]})) | notes
    return records.write_result(path, provenance=record, values=values, tables=tables, series=series)


def _other_tasks(path: Path, measured: set[str]) -> dict[str, Any] | None:
    """Return what a result file holds of other tasks than those measured now, and say that it stays."""
    result = records.read_json(path)
    frames = {key: records.frame_of(result["tables"][key]) for key in ("claim", "runs")}
    others = sorted(set(frames["runs"]["task"]) - measured)
    if not others:
        return None
    print(f"{path.name}: {', '.join(others)} kept as recorded there")
    named = {part: {key: value for key, value in result[part].items() if key.split("/")[0] in others}
             for part in ("values", "series")}  # fmt: skip
    return {
        "frames": {key: frame[frame["task"].isin(others)] for key, frame in frames.items()},
        "notes": records.carried_notes(result["provenance"], others, how="measured"),
        **named,
    }
