"""``sweep``: a grid of runs, on this machine, a Dask cluster or a Ray cluster."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis import records, runs, tasks
from analysis.commands.options import add_method_axes, add_run_options, run_values

HELP = "run a grid of configurations (method x rank x links x seed x task), killable and resumable"

_EXAMPLES = """examples:
  python -m analysis sweep --ranks 1,2,4,8,16 --seeds 5 --workers 2 --dry-run
  python -m analysis sweep --tasks trec trec50 --data FOLDER --model MODEL --ranks 16 --epochs 3 --workers 2
  python -m analysis sweep --backend dask --scheduler tcp://HOST:8786 --folder SHARED_FOLDER

Kill it at any moment and give the same command again: no finished run is lost or repeated. Workers on this machine
end within seconds of a killed sweep; those of a cluster go on with what they have begun, and record it. On a cluster
data, model and folder have to be at the same paths on every machine."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.usage = "python -m analysis sweep [--tasks TASK ...] [--methods METHOD ...] [--ranks 1,2,4] [options]"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    add_run_options(parser, swept=("method", "rank", "links", "task"))
    axes = parser.add_argument_group("grid")
    axes.add_argument(
        "--tasks", "--task", nargs="+", default=["digits"], help="tasks as in run --help; all read --data and --model"
    )
    add_method_axes(axes)
    axes.add_argument("--seeds", type=int, default=3, help="number of seeds (default: 3)")
    axes.add_argument("--first-seed", type=int, default=0)
    jobs = parser.add_argument_group("where it runs")
    jobs.add_argument("--backend", default="loky", choices=("loky", "dask", "ray"))
    jobs.add_argument("--workers", type=int, default=1, help="processes on this machine")
    jobs.add_argument("--scheduler", help="address of the Dask scheduler or Ray cluster")
    jobs.add_argument("--folder", default="runs", help="where records go: FOLDER/KEY/record.json (default: runs)")
    jobs.add_argument("--dry-run", action="store_true", help="list the cells and their states, compute nothing")
    jobs.add_argument("--retry-failed", action="store_true", help="compute failed cells again")
    jobs.add_argument("--parquet", help="collect the finished runs into this file at the end")


def main(args: argparse.Namespace) -> int:
    """Run the grid and say what was done."""
    if args.seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {args.seeds}")
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    values = {**run_values(args), "data": _whole_path(args.data), "model": _whole_path(args.model)}
    axes = {"methods": args.methods, "ranks": args.ranks, "links": args.links}
    cells = runs.seed_cells(values, tasks=args.tasks, seeds=seeds, **axes)
    for task in args.tasks:
        tasks.check_places(task, data=args.data, model=args.model)
    remaining, seconds = runs.estimate_seconds(cells, folder=args.folder, key=runs.run_key, workers=args.workers)
    guess = "no finished run yet to estimate the time from" if seconds is None else f"about {_clock(seconds)}"
    named = {runs.run_key(cell): cell for cell in cells}
    if args.dry_run:
        _print_states(named, args.folder)
    print(f"{len(named)} runs, {remaining} to do, {guess}", flush=True)
    if args.dry_run:
        return 0
    if remaining:
        _print_data(args)
    report = runs.sweep(
        cells,
        runs.run_cell,
        folder=args.folder,
        key=runs.run_key,
        backend=args.backend,
        workers=args.workers,
        scheduler=args.scheduler,
        retry_failed=args.retry_failed,
        progress=not args.quiet,
    )
    print(
        f"{report.total} runs: {report.skipped} were there, {report.done} computed, {report.elsewhere} computed "
        f"elsewhere, {len(report.failed)} failed, {report.restarts} pool restarts, {_clock(report.seconds)}"
    )
    if args.parquet:
        print(f"wrote {runs.write_parquet(runs.frame(runs.read_records(args.folder, failed=True)), args.parquet)}")
    _raise_failures(report.failed, args.folder)
    return 0


def _raise_failures(failed: list[str], folder: str) -> None:
    if failed:
        message = records.read_json(f"{folder}/{failed[0]}/record.json")["failure"]["message"]
        raise records.RunFailure(f"{len(failed)} runs failed; the first, {failed[0]}: {message}")


def _print_data(args: argparse.Namespace) -> None:
    for task in args.tasks:
        lines = runs.data_report({**run_values(args), "task": task}, seed=args.first_seed).lines()
        print("".join(f"data of {task}: {line}\n" for line in lines), end="", flush=True)


def _print_states(named: dict[str, dict], folder: str) -> None:
    for name, cell in named.items():
        shown = " ".join(str(cell[k]) for k in ("task", "method", "rank", "links", "seed") if cell[k] is not None)
        print(f"{name}  {records.cell_state(f'{folder}/{name}'):6}  {shown}")


def _whole_path(place: str | None) -> str | None:
    """Return a local path from the root: a worker elsewhere has another working directory."""
    path = None if place is None else Path(place).expanduser()
    return place if path is None or not path.exists() else str(path.resolve())


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
