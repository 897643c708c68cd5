"""``certify``: train a short code, print its certificate, write it as a record."""

from __future__ import annotations

import argparse
import itertools
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import theory
from analysis import certificates, records, tasks

HELP = "fine-tune through a short code and certify the result: a bound on its error for this one run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_data_arguments(parser)
    choice = parser.add_argument_group("choices the code pays for; give several values to search over them")
    choice.add_argument("--method", nargs="+", default=["cla"], help="lora, lora+, asym, cla or r-cla")
    choice.add_argument("--targets", nargs="+", default=["attention"], help="attention or all-linear")
    choice.add_argument("--rank", nargs="+", type=int, default=[8], help="1, 2, 4, 8, 16 or 32")
    choice.add_argument("--layers", nargs="+", type=int, default=[0], help="last blocks adapted; 0 for all")
    choice.add_argument("--seed", nargs="+", type=int, default=[0], help="of the head, the adapter and the subspace")
    choice.add_argument("--adapter-numbers", nargs="+", type=int, default=[96], help="d of the adapter")
    choice.add_argument("--head-numbers", nargs="+", type=int, default=[96], help="d of the head")
    choice.add_argument("--quantizer", nargs="+", default=["uniform"], help="uniform or learned")
    choice.add_argument("--levels", nargs="+", type=int, default=[2], help="values each number can take")
    training = parser.add_argument_group("training (free)")
    training.add_argument("--epochs", type=int, default=4, help="passes in floating point")
    training.add_argument("--quantized-epochs", type=int, default=8, help="passes through the quantiser")
    training.add_argument("--batch-size", type=int, default=32)
    training.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--delta", type=float, default=0.05, help="failure probability")
    parser.add_argument(
        "--slack",
        type=int,
        help="errors added, so that other machines can verify (default: as many as rounding can move)",
    )
    parser.add_argument(
        "--overlap",
        default="error",
        choices=("error", "drop-train", "drop-heldout"),
        help="what to do about inputs in both splits",
    )
    parser.add_argument("--output", default="certificate.json", help="where the certificate is written")


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that name data and model, shared with ``verify``."""
    data = parser.add_argument_group("data and model")
    data.add_argument("--task", default="digits", help="digits (bundled), custom, or a preset such as trec")
    data.add_argument("--data", help="a preset's folder in its publisher's format; for custom a file, folder or hub id")
    data.add_argument("--model", help="base model: local folder or hub id")
    data.add_argument("--num-train", type=int, help="training examples kept, drawn by seed")
    data.add_argument("--num-heldout", type=int, help="held-out examples kept, drawn by seed")
    data.add_argument("--max-length", type=int, default=128, help="tokens per example")
    data.add_argument("--text", help="column of the text of a custom data set")
    data.add_argument("--label", help="column of the label of a custom data set")
    data.add_argument("--split-seed", type=int, default=0, help="seed of the splits")


def task_of(args: argparse.Namespace):
    """Load the task that the options name."""
    options = tasks.DataOptions(
        kind="text-classification" if args.task == "custom" else None,
        text=args.text,
        label=args.label,
        num_train=args.num_train,
        num_heldout=args.num_heldout,
        max_length=args.max_length,
    )
    return tasks.load_task(args.task, data=args.data, model=args.model, seed=args.split_seed, options=options)


def main(args: argparse.Namespace) -> int:
    """Certify, print the table and write the record."""
    theory.checks.check_probability("delta", args.delta)
    options = certificates.TrainingOptions(
        epochs=args.epochs,
        quantized_epochs=args.quantized_epochs,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        progress=not args.quiet,
    )
    names = list(certificates.GRIDS["standard"].options)
    values = itertools.product(*(getattr(args, name) for name in names))
    choices = [certificates.GRIDS["standard"].check(dict(zip(names, point, strict=True))) for point in values]
    records.check_writable(_parent(args.output))
    certificate = certificates.certify(
        task_of(args), choices, delta=args.delta, options=options, overlap=args.overlap, slack=args.slack
    )
    certificate["provenance"] = records.provenance(_command(args), [certificate["choice"]["seed"]])
    print(certificates.certificate_table(certificate))
    path = records.atomic_write_json(args.output, certificate)
    print(f"\nwritten to {path}; check it with:\n{_verify_command(args, path)}")
    return 0


def _verify_command(args: argparse.Namespace, path: object) -> str:
    """Write the command that checks the certificate: the same data and model, option by option."""
    given = [word for name, value in _given(args, add_data_arguments) for word in (name, shlex.quote(str(value)))]
    return " ".join(["python -m analysis verify", shlex.quote(str(path)), *given])


def _command(args: argparse.Namespace) -> str:
    """Write the command again, with DATA and MODEL in place of this machine's folders."""
    words = ["python -m analysis certify"]
    for name, value in _given(args, add_arguments):
        if name != "--output":
            shown = name[2:].upper() if name in ("--data", "--model") else value
            words.append(f"{name} {' '.join(map(str, shown)) if isinstance(shown, list) else shown}")
    return " ".join(words)


def _given(args: argparse.Namespace, add: Callable[[argparse.ArgumentParser], None]) -> Iterator[tuple[str, Any]]:
    """Yield the options added by ``add`` that are not at their defaults, with their values."""
    parser = argparse.ArgumentParser()
    add(parser)
    for name, default in vars(parser.parse_args([])).items():
        if getattr(args, name) != default:
            yield f"--{name.replace('_', '-')}", getattr(args, name)


def _parent(path: str):
    return Path(path).parent
