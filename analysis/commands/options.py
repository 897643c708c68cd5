"""Command-line options of a run, shared by ``run``, ``sweep`` and ``masks``, and of what is looked at."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import theory
from analysis import runs, tasks
from theory.defaults import METHOD, RANK

__all__ = [
    "add_data_options",
    "add_method_axes",
    "add_run_options",
    "add_subjects",
    "check_folder",
    "run_values",
    "subjects",
    "whole_numbers",
]

_KINDS = ("image-classification", "text-classification", "multiple-choice", "regression", "causal-lm")


def add_run_options(parser: argparse.ArgumentParser, *, swept: Sequence[str] = ()) -> None:
    """Add the options of a run but those in ``swept``, which the caller adds as lists."""
    groups = {
        "data and model": _add_data,
        "method": _add_method,
        "training": _add_training,
        "what is kept": _add_kept,
    }
    for title, fill in groups.items():
        group = parser.add_argument_group(title)

        def add(flag: str, *, group: argparse._ArgumentGroup = group, **kwargs: Any) -> None:
            if flag.removeprefix("--").replace("-", "_") not in swept:
                group.add_argument(flag, **kwargs)

        fill(add)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a run that say what data it reads and what model's tokens it becomes."""
    _add_data(parser.add_argument_group("data and model").add_argument)


def add_subjects(parser: argparse.ArgumentParser, *, what: str = "folders of runs that kept their weights") -> None:
    """Add what is looked at: finished runs, or anyone's model with its adapters or checkpoints, and data."""
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN", help=what)
    parser.add_argument(
        "--adapter", nargs="+", default=[], metavar="FOLDER", help="PEFT adapters on --model, each looked at"
    )
    parser.add_argument(
        "--checkpoints", nargs="+", default=[], metavar="FOLDER",
        help="one training's checkpoints on --model, oldest first (PEFT's or whole models): the last is looked at",
    )  # fmt: skip
    add_data_options(parser)
    parser.set_defaults(task="custom")


def subjects(args: argparse.Namespace) -> Iterable[Path | runs.LoadedRun]:
    """Return the runs, or load the models, that the options name.

    Raises:
        ValueError: if they name neither or both.
    """
    foreign = bool(args.adapter or args.checkpoints)
    if bool(args.runs) == foreign:
        raise ValueError("give folders of runs, or --model with --adapter or --checkpoints, and --data")
    if args.runs:
        return args.runs
    if args.model is None:
        raise ValueError("--adapter and --checkpoints need --model, the base: a local folder or a hub id")
    values = run_values(args)
    names = {item.name for item in dataclasses.fields(tasks.DataOptions)}
    return runs.load_models(
        args.model,
        adapters=args.adapter,
        checkpoints=args.checkpoints,
        task=args.task,
        data=args.data,
        options=tasks.DataOptions(**{name: value for name, value in values.items() if name in names}),
    )


def _add_data(add: Callable[..., None]) -> None:
    add("--task", default="digits", help=_task_help())
    add("--data", help="a preset's folder in its publisher's format; for custom a file, folder or hub id")
    add("--model", help=_model_help())
    add("--model-name", help="the model's name in records and tables")
    add("--num-train", type=int, help="training examples kept, drawn by seed")
    add("--num-heldout", type=int, help="held-out examples kept, drawn by seed")
    add("--max-length", type=int, help="tokens per example")
    add("--kind", choices=_KINDS, help="kind of a custom task")
    add("--text", help="column of the text (of the images, for images)")
    add("--text-pair", help="column of the second text")
    add("--label", help="column of the label (of the target text, for causal-lm)")
    add("--choices", nargs="+", help="columns of the choices (multiple-choice)")
    add("--encoding", default="utf-8", help="encoding of local text files (default: utf-8; a byte-order mark is found)")
    add("--separator", help="between the fields of local text files (default: found by the columns' names)")
    add("--quoting", choices=("double", "none"), help="whether quotation marks quote (default: not beside tabs)")
    add(
        "--missing",
        default="refuse",
        choices=("refuse", "drop", "keep"),
        help="rows that lack a label or text; keep takes -1 and - for classes (default: refuse)",
    )
    add("--strict", action="store_true", help="refuse what the data report warns about")
    add(
        "--split",
        default="published",
        choices=("published", "seed"),
        help="the data set's own splits, or a new held-out set with every seed (default: published)",
    )
    add("--stratify", action="store_true", help="draw splits and subsamples with the classes' shares")
    add("--heldout-share", type=float, default=0.2, help="held-out share where there is no split (default: 0.2)")
    add(
        "--label-range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="range of a regression's label (default: that of the training split)",
    )


def _add_method(add: Callable[..., None]) -> None:
    add("--method", default=METHOD, help=_method_help())
    add("--rank", type=int, default=RANK, help="rank r, or columns per link (default: %(default)s)")
    add("--alpha", type=float, help="updates are scaled by alpha/rank (default: 2 rank)")
    add("--links", type=int, help="chain length (default: the settings' for chained methods)")
    add("--lr-ratio", type=float, help="lr_B / lr_A (default: 16 for lora+)")
    add("--target-modules", nargs="+", help="adapted modules (default: query and value)")
    add("--layers", nargs="+", type=int, help="blocks that are adapted, counted from 0 (default: all)")
    add(
        "--chain-schedule",
        default="run",
        choices=("run", "link"),
        help="one learning-rate schedule or one per link",
    )


def _add_training(add: Callable[..., None]) -> None:
    known = "the paper's (roberta, vit, gpt2, deberta, ...) or this project's (digits, text, pairs)"
    add("--settings", default="auto", help=f"training settings by family: {known}")
    add("--epochs", type=float, help="passes over the training examples (default: the settings')")
    add("--batch-size", type=int, help="examples per step and process")
    add("--learning-rate", type=float, help="of the adapter")
    add("--head-learning-rate", type=float, help="of the new head (default: the adapter's)")
    add("--weight-decay", type=float, help="AdamW's, of matrices")
    add("--lr-scheduler", choices=("linear", "cosine", "constant", "constant_with_warmup"), help="schedule")
    add("--warmup", type=float, help="share of the steps spent warming up")
    add("--max-grad-norm", type=float, default=1.0, help="gradient clipping (default: 1)")
    add("--precision", default="fp32", choices=("fp32", "bf16", "fp16"), help="autocast; weights stay fp32")
    add("--gradient-checkpointing", action="store_true", help="recompute activations in the backward pass")
    add("--packing", action="store_true", help="several examples of a causal-lm task in one sequence")
    add("--select", default="last", choices=("last", "best"), help="best: on a split carved from train")
    add("--selection-share", type=float, default=0.1, help="share carved out under --select best")


def _add_kept(add: Callable[..., None]) -> None:
    add("--generate", type=int, default=0, metavar="N", help="continue N held-out prompts: exact match and BLEU")
    add("--save-adapter", action="store_true", help="keep the trained weights (safetensors)")
    add("--save-checkpoints", type=int, default=0, metavar="N", help="keep N evenly spaced snapshots")
    add("--checkpoint-every", type=int, default=0, metavar="STEPS", help="resumable checkpoints of a long run")


def add_method_axes(group: argparse._ActionsContainer) -> None:
    """Add the axes of a grid that belong to the method: ``--methods``, ``--ranks`` and ``--links``."""
    group.add_argument("--methods", nargs="+", default=["all"], help="methods, or all for the eleven")
    group.add_argument("--ranks", type=whole_numbers, default=[RANK], help="for example 1,2,4,8,16")
    group.add_argument("--links", type=whole_numbers, help="chain lengths of the chained methods")


def _task_help() -> str:
    return f"digits (bundled, the default), custom (give --kind and columns), or a preset: {', '.join(tasks.DATASETS)}"


def _method_help() -> str:
    return f"{', '.join(theory.method_keys())} (default: {METHOD})"


def _model_help() -> str:
    tiny = ", ".join(f"tiny:{name}" for name in tasks.TINY_MODELS)
    return (
        f"base model: local folder, hub id, one of the paper's ({', '.join(tasks.MODELS)}), or random weights ({tiny})"
    )


def check_folder(folder: str | Path) -> None:
    """Refuse a folder of runs that is not there, before anything is loaded that could read it.

    Raises:
        ValueError: naming it.
    """
    if not Path(folder).exists():
        raise ValueError(f"no folder of runs at {str(folder)!r}")


def run_values(args: argparse.Namespace) -> dict[str, Any]:
    """Return the parsed options as values of a :class:`analysis.runs.config.RunConfig`."""
    names = {item.name for item in (*dataclasses.fields(runs.RunConfig), *dataclasses.fields(tasks.DataOptions))}
    values = {name: value for name, value in vars(args).items() if name in names}
    for name in ("choices", "target_modules", "layers", "label_range"):
        if values.get(name) is not None:
            values[name] = tuple(values[name])
        elif name == "choices":
            values.pop(name, None)
    return values


def whole_numbers(text: str) -> list[int]:
    """Parse ``3`` (0, 1, 2 are meant by the caller), ``1,2,4`` or ``0-4``.

    >>> whole_numbers("1,2,4"), whole_numbers("0-2")
    ([1, 2, 4], [0, 1, 2])
    """
    found: list[int] = []
    for part in text.split(","):
        low, dash, high = part.partition("-")
        try:
            found += range(int(low), int(high) + 1) if dash else [int(low)]
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected whole numbers such as 1,2,4 or 0-4, got {text!r}") from None
    return found
