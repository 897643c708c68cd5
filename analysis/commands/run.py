"""``run``: fine-tune one configuration over several seeds."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from analysis import records, runs, statistics, tasks
from analysis.commands.options import add_run_options, run_values

HELP = "fine-tune with one method over several seeds and measure accuracy and generalization error"

_EXAMPLES = """examples:
  python -m analysis run --method c3la --rank 4 --seeds 3
  python -m analysis run --task trec --data FOLDER --model MODEL --method cla --epochs 3 --seeds 3
  python -m analysis run --task custom --data my.csv --kind text-classification --text body --label topic \\
      --model tiny:bert --method lora
  torchrun --nproc-per-node 2 -m analysis run --method cla --precision bf16

A folder of records is made once: what is recorded already is not run again."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_run_options(parser)
    parser.usage = "python -m analysis run [--task TASK] [--method METHOD] [options]"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds (default: 1)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of the seeds (default: 0)")
    parser.add_argument("--folder", default="runs", help="where records go: FOLDER/KEY/record.json (default: runs)")
    parser.add_argument(
        "--report-to", default="none", choices=("none", "tensorboard", "wandb"), help="where the Trainer logs"
    )
    parser.add_argument("--again", action="store_true", help="run again what is recorded already")


def main(args: argparse.Namespace) -> int:
    """Run and print one line per seed, then the mean over seeds."""
    if args.seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {args.seeds}")
    tasks.check_places(args.task, data=args.data, model=args.model)
    first = runs.is_first_process()
    finished, failures = [], []
    report = runs.data_report(run_values(args), seed=args.first_seed)
    if first:
        print("".join(f"data: {line}\n" for line in report.lines()), end="", flush=True)
    for one in runs.run_seeds(
        run_values(args),
        seeds=range(args.first_seed, args.first_seed + args.seeds),
        folder=args.folder,
        again=args.again,
        progress=not args.quiet,
        report_to=args.report_to,
        announce=_tell if first else None,
    ):
        if one.record is None:
            failures.append(one.failure)
            print(f"seed {one.seed}: failed: {one.failure}", file=sys.stderr)
            continue
        if one.known and one.seed == args.first_seed:
            _check_known(one.record, report.content, one.folder)
        finished.append(one.record)
        if first:
            notes = [] if finished[1:] else one.record["task"]["notes"]
            print("".join(f"note: {note}\n" for note in notes), end="")
            print(_line(one.seed, one.record) + (" (recorded already)" if one.known else ""), flush=True)
            print(f"  {one.folder}", flush=True)
            for sample in one.record.get("generation", {}).get("samples", [])[:2]:
                print(f"  {sample['prompt']!r} -> {sample['written']!r}", flush=True)
    if len(finished) > 1 and first:
        _print_mean(finished)
    if failures:
        raise records.RunFailure(f"{len(failures)} of {args.seeds} runs failed; the first: {failures[0]}")
    return 0


def _check_known(record: dict, content: str, folder: Path) -> None:
    recorded = record.get("data", {}).get("content", content)  # earlier records do not say
    if recorded != content:
        raise ValueError(
            f"run {str(folder)!r} was made on other data ({recorded}, now {content}) in files of the same names and "
            "sizes; give --again to run it again"
        )


def _tell(line: str) -> None:
    print(f"before training: {line}", flush=True)


def _print_mean(finished: list[dict]) -> None:
    columns = ("metric", *(f"gap_{name}" for name in finished[0]["generalization"]))
    summary = statistics.across_seeds(runs.frame(finished), columns=columns).iloc[0]
    for name in columns:
        ends = f"[{summary[f'{name}_low']:.4f}, {summary[f'{name}_high']:.4f}]"
        print(f"mean of {len(finished)}: {name} {summary[name]:.4f} {ends}")
    heldout = {record["task"].get("heldout") for record in finished}
    if len(heldout) == 1 and heldout != {None}:
        print("note: all seeds share one held-out set, whose draw these intervals leave out; --split seed draws anew")


def _line(seed: int, record: dict) -> str:
    name = record["task"]["metric"]
    parts = [f"seed {seed}: {name} {float(record['metrics'][name]):.4f}"]
    for loss, gap in record["generalization"].items():
        parts.append(f"G {loss} {float(gap['value']):.4f} [{float(gap['low']):.4f}, {float(gap['high']):.4f}]")
    written = record.get("generation")
    if written is not None:
        parts.append(f"exact match {float(written['exact_match']):.3f} and BLEU {float(written['bleu']):.1f} of "
                     f"{written['prompts']} prompts")  # fmt: skip
    timing = record["timing"]
    parts.append(f"{timing['steps']} steps of {float(timing['seconds_per_step']):.4f} s")
    return ", ".join(parts)
