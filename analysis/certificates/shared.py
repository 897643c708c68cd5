"""What making and checking a certificate share: the same model, the same losses, the same bounds."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from analysis.certificates.fingerprints import example_digest, model_fingerprint
from analysis.certificates.short_code import reached_subspace
from analysis.certificates.subspace import Subspace
from analysis.tasks import CLASSIFICATION, Task, evaluate, load_model
from theory.certificates import (
    STANDARD_GRID,
    Grid,
    cross_entropy_bound,
    disagreement_bound,
    occam_bound,
    smoothed_range,
)
from theory.checks import check_integer
from theory.heads import trained_heads

__all__ = [
    "ALLOWANCE",
    "GRIDS",
    "Measured",
    "all_bounds",
    "check_task",
    "from_text",
    "full_precision_bound",
    "heldout_predictions",
    "measure",
    "separate_heldout",
    "start_of",
    "to_text",
]

GRIDS: dict[str, Grid] = {"standard": STANDARD_GRID}


def separate_heldout(task: Task, *, overlap: Literal["error", "drop-train", "drop-heldout"] = "error") -> Task:
    """Make sure that no held-out input is also a training input, by hash of the encoded input.

    Dropping the training examples keeps the publisher's held-out set; they are chosen by looking at the
    held-out inputs alone, which are independent of the sample, so the rest is i.i.d. from the law given
    that those inputs do not occur. Dropping the held-out ones leaves the certificate's sample as it was.

    Raises:
        ValueError: if the splits overlap and ``overlap`` is ``"error"``, or nothing would be left.
    """
    train, heldout = ([example_digest(e) for e in split] for split in (task.train, task.heldout))
    shared = set(train) & set(heldout)
    if not shared:
        return task
    if overlap == "error":
        raise ValueError(
            f"task {task.name!r}: {sum(d in shared for d in heldout)} held-out inputs also occur among the training "
            f"inputs; choose overlap 'drop-train' or 'drop-heldout'"
        )
    if overlap == "drop-train":
        kept = [e for e, digest in zip(task.train, train, strict=True) if digest not in shared]
        return replace(task, train=kept, overlap=0)
    if overlap == "drop-heldout":
        kept = [e for e, digest in zip(task.heldout, heldout, strict=True) if digest not in shared]
        return replace(task, heldout=kept, overlap=0)
    raise ValueError(f"overlap must be one of error, drop-train, drop-heldout; got {overlap!r}")


def check_task(task: Task) -> None:
    """Refuse a task that is no classification or has fewer than two examples in a split."""
    if task.kind not in CLASSIFICATION:
        raise ValueError(f"certificates are for classification, got task {task.name!r} of kind {task.kind!r}")
    check_integer("number of training examples", len(task.train), minimum=2)
    check_integer("number of held-out examples", len(task.heldout), minimum=2)


def start_of(task: Task, choice: Mapping[str, Any]) -> tuple[Subspace, str]:
    """Rebuild the decoder's model for a choice; return its subspace and the fingerprint of W0 with its head."""
    base = load_model(task, seed=choice["seed"])
    fingerprint = model_fingerprint(base)
    return reached_subspace(base, choice, heads=trained_heads(base)), fingerprint


def all_bounds(
    errors: int, probabilities: np.ndarray, *, bits: int, task: Task, delta: float, slack: int
) -> dict[str, Any]:
    """Return the certificate's bounds on the 0-1 loss and on the smoothed cross-entropy, each at ``delta``."""
    n = len(task.train)
    smoothed = cross_entropy_bound(probabilities, bits=bits, num_classes=task.num_labels, delta=delta)
    low, high = smoothed_range(smoothed.alpha, num_classes=task.num_labels)
    return {
        "zero_one": {
            "empirical": errors / n,
            "bound": float(occam_bound(min(errors + slack, n) / n, bits=bits, num_examples=n, delta=delta).value),
        },
        "cross_entropy": {
            "empirical": float(smoothed.empirical),
            "bound": float(smoothed.bound.value),
            "alpha": float(smoothed.alpha),
            "range": [float(low), float(high)],
            "unit": "nats",
        },
    }


ALLOWANCE = 5.0
"""Float32 on another processor may be four times as far from the exact value as here, on the other side."""

_COMPARED = 1000


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a coded model does on a task in float32, and how far another processor's float32 may be from it.

    The distance to float64, whose own rounding is some 10^8 times smaller, is measured on up to a thousand examples of
    each split, evenly spaced; :data:`ALLOWANCE` times the largest is taken to hold for all of them everywhere. An
    example can change sides only if its margin (its true class's logit minus the largest other) is smaller than that.

    Attributes:
        errors: on the training examples.
        losses: cross-entropy of the training examples, nats, shape (n,).
        heldout_errors: on the held-out examples.
        heldout_predictions: class of each held-out example, shape (m,).
        near_ties: the larger number of examples, of the two splits, that can change sides.
        loss_reach: how far a training example's loss can be from the one here, nats.
    """

    errors: int
    losses: np.ndarray
    heldout_errors: int
    heldout_predictions: np.ndarray
    near_ties: int
    loss_reach: float

    def probabilities(self, *, moved: float = 0.0) -> np.ndarray:
        """Return the probability of each true class, every loss lowered by ``moved`` (but not below 0)."""
        return np.clip(np.exp(-(self.losses - moved)), 0.0, 1.0)


def measure(subspace: Subspace, values: Mapping[str, Any], task: Task) -> Measured:
    """Write w into the model and measure it on both splits, in float32 and, for the distance, in float64."""
    subspace.write(values)
    model, splits = subspace.model, (task.train, task.heldout)
    train, heldout = (evaluate(model, task, split) for split in splits)
    apart, near_ties = [], []
    try:
        model.double()
        for split, here in zip(splits, (train, heldout), strict=True):
            rows = np.unique(np.linspace(0, len(split) - 1, min(len(split), _COMPARED)).astype(int))
            exact = evaluate(model, task, [split[i] for i in rows])
            apart.append(float(np.abs(here.losses[rows] - exact.losses).max()))
            margin = float(np.abs(here.margins[rows] - exact.margins).max())
            near_ties.append(int((np.abs(here.margins) <= ALLOWANCE * margin).sum()))
    finally:
        model.float()  # back to the same bits: every float32 is a float64
    return Measured(
        errors=int(train.errors.sum()),
        losses=train.losses,
        heldout_errors=int(heldout.errors.sum()),
        heldout_predictions=heldout.predictions,
        near_ties=max(near_ties),
        loss_reach=ALLOWANCE * apart[0],
    )


def full_precision_bound(disagreements: int, errors: int, *, bits: int, task: Task, delta: float, slack: int) -> float:
    """Carry the certificate over to the unquantised adapter, half of delta for each step."""
    n, m = len(task.train), len(task.heldout)
    surrogate = occam_bound(min(errors + slack, n) / n, bits=bits, num_examples=n, delta=delta / 2)
    disagreement = min(disagreements + slack, m) / m
    return float(disagreement_bound(surrogate, disagreement, num_unlabelled=m, delta=delta / 2).value)


def heldout_predictions(subspace: Subspace, values: Mapping[str, Any], task: Task) -> np.ndarray:
    """Write w into the model and return its class of each held-out example."""
    subspace.write(values)
    return evaluate(subspace.model, task, task.heldout).predictions


def to_text(w: np.ndarray) -> str:
    """Write numbers as base64 of little-endian 32-bit floats."""
    return base64.b64encode(np.asarray(w, dtype="<f4").tobytes()).decode()


def from_text(text: str) -> np.ndarray:
    """Read what :func:`to_text` wrote."""
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4").astype(np.float32)
