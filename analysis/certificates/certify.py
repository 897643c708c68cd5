"""Certify a fine-tuned model, and check somebody else's certificate from its code and the data.

A certificate holds for every prior that does not look at the data. Here the prior is: the pretrained W0,
the head and the adapter's start as their seeds draw them, the random subspace, the grid of choices, and
the adaptive coder; 2^-length of the code is its mass. What is certified is the decoded model's loss.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from analysis.certificates.fingerprints import data_fingerprint
from analysis.certificates.shared import (
    GRIDS,
    all_bounds,
    check_task,
    full_precision_bound,
    measure,
    separate_heldout,
    start_of,
    to_text,
)
from analysis.certificates.short_code import TrainingOptions, train_short_code
from analysis.certificates.verify import Check, verify
from analysis.tasks import Task
from theory.certificates import GROUPS, decode_subspace, encode_subspace
from theory.checks import check_integer, check_probability
from theory.kl import kl_lower, kl_upper

__all__ = ["GRIDS", "Check", "certify", "separate_heldout", "verify"]


ASSUMPTIONS = (
    "the sample is drawn i.i.d. from the law that the guarantee is about; a held-out set of another law tests less",
    "W0, the seeds, the grid and the coder were fixed without looking at the sample",
)


def _majority(task: Task) -> float:
    counts = Counter(int(example["labels"]) for example in task.train)
    return 1 - max(counts.values()) / len(task.train)


def certify(
    task: Task,
    choices: Sequence[Mapping[str, Any]],
    *,
    delta: float = 0.05,
    grid: str = "standard",
    options: TrainingOptions | None = None,
    overlap: Literal["error", "drop-train", "drop-heldout"] = "error",
    slack: int | None = None,
) -> dict[str, Any]:
    r"""Train a short code for each choice, and certify the one whose bound is least.

    With probability at least 1 - delta over the training sample, kl(Rhat || R) <= (b ln 2 + ln(1/delta))/n
    for every code word at once (:func:`theory.certificates.occam_bound`), so the search over the choices,
    learning rates and epochs is free; what the decoder must know costs its bits in the code.

    Args:
        task: its training examples are the sample, its held-out examples are only reported, and used
            without labels for the disagreement certificate.
        choices: points of the grid to try, at least one.
        delta: failure probability; each bound of the certificate holds with it on its own.
        grid: name of the grid in :data:`GRIDS`.
        options: how to train.
        overlap: what to do about inputs that are in both splits.
        slack: errors added to the count before it is certified, so that a machine whose arithmetic
            rounds differently can still verify; the bound pays for it. None takes the number of examples that
            rounding can move to the other side (:class:`analysis.certificates.shared.Measured`).

    Returns:
        The certificate, a record for JSON; ``certificate["bound"]`` is the number to quote.

    Raises:
        ValueError: for a task that is no classification, fewer than 2 examples, delta not strictly
            between 0 and 1, overlapping splits, a choice off the grid.
    """
    delta = check_probability("delta", delta)
    slack = None if slack is None else check_integer("slack", slack, minimum=0)
    if grid not in GRIDS:
        raise ValueError(f"grid must be one of {', '.join(GRIDS)}; got {grid!r}")
    if not choices:
        raise ValueError("choices must name at least one point of the grid")
    points = [GRIDS[grid].check(choice) for choice in choices]
    check_task(task)
    given = len(task.train), len(task.heldout)
    task = separate_heldout(task, overlap=overlap)
    check_task(task)
    best: dict[str, Any] | None = None
    tried = []
    for choice in points:
        candidate = _candidate(task, choice, grid=grid, delta=delta, options=options, slack=slack)
        tried.append({"choice": choice, "bound": candidate["bound"], "error": candidate["empirical"]["error"]})
        best = candidate if best is None or candidate["bound"] < best["bound"] else best
    assert best is not None
    best["tried"] = tried
    best["data"] |= {"dropped_train": given[0] - len(task.train), "dropped_heldout": given[1] - len(task.heldout)}
    best["training"] = asdict(options or TrainingOptions())
    return best


def _candidate(
    task: Task, choice: dict[str, Any], *, grid: str, delta: float, options: TrainingOptions | None, slack: int | None
) -> dict[str, Any]:
    subspace, base_fingerprint = start_of(task, choice)
    run = train_short_code(subspace, task, choice, options=options)
    word, parts = encode_subspace(run.code, grid=GRIDS[grid])
    decoded = decode_subspace(word, grid=GRIDS[grid])
    full = measure(subspace, run.full_precision, task)
    measured = measure(subspace, {group: part.values for group, part in decoded.groups.items()}, task)
    n, m, bits = len(task.train), len(task.heldout), 8 * len(word)
    differ = int((full.heldout_predictions != measured.heldout_predictions).sum())
    near_ties = max(full.near_ties, measured.near_ties)
    given: dict[str, Any] = {"bits": bits, "task": task, "delta": delta, "slack": near_ties if slack is None else slack}
    bounds = all_bounds(measured.errors, measured.probabilities(), **given)
    return {
        "schema": 1,
        "kind": "prefix code of an adapter in a random subspace",
        "task": {"name": task.name, "num_labels": task.num_labels, "label_names": list(task.label_names)},
        "data": {"num_examples": n, "num_heldout": m, "train_sha256": data_fingerprint(task.train),
                 "heldout_sha256": data_fingerprint(task.heldout)},
        "base": {"sha256": base_fingerprint, "start_sha256": subspace.fingerprint},
        "grid": {"name": grid, "sha256": GRIDS[grid].fingerprint, "bits": GRIDS[grid].bits},
        "choice": choice,
        "code": {"base64": base64.b64encode(word).decode(), "sha256": hashlib.sha256(word).hexdigest(), "bits": bits,
                 "bits_by_part": parts, "numbers": sum(choice[f"{group}_numbers"] for group in GROUPS)},
        "delta": delta,
        "assumptions": list(ASSUMPTIONS),
        "empirical": {"errors": measured.errors, "slack": given["slack"], "error": measured.errors / n},
        "rounding": {"near_ties": near_ties, "loss_reach": measured.loss_reach},
        "bounds": bounds,
        "bound": bounds["zero_one"]["bound"],
        "heldout": _heldout(measured.heldout_errors, m, delta),
        "majority_error": _majority(task),
        "chance_error": 1 - 1 / task.num_labels,
        "full_precision": {
            "numbers": {group: to_text(w) for group, w in run.full_precision.items()},
            "train_error": full.errors / n,
            "heldout_error": full.heldout_errors / m,
            "disagreements": differ,
            "bound": full_precision_bound(differ, measured.errors, **given),
        },
        "seconds_per_step": run.seconds_per_step,
    }  # fmt: skip


def _heldout(errors: int, m: int, delta: float) -> dict[str, float]:
    budget = math.log(2 / delta) / m
    return {
        "errors": errors,
        "error": errors / m,
        "low": float(kl_lower(errors / m, budget)),
        "high": float(kl_upper(errors / m, budget)),
    }
