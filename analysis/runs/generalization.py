"""Measured G(W): the generalization error of one run with its interval, and over seeds.

G(W) = L_mu(W) - L_S(W), the expected minus the empirical loss of the trained weights. For a given run
W and S are fixed, so L_S(W) is a number, computed exactly; only L_mu(W) is estimated, by the mean over
held-out examples that played no part in training or selection. The interval of a run is therefore about
the held-out examples alone; the spread over training sets and seeds is what
:func:`analysis.statistics.across_seeds` shows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

from analysis.records import config_key
from analysis.statistics import bounded_mean_interval
from analysis.tasks import Task

__all__ = ["Gap", "heldout_fingerprint", "measured_gap"]


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A measured generalization error. Losses lie in [0, range].

    Attributes:
        value: |held-out mean - training mean|.
        low: lower end of the interval of ``value``.
        high: upper end.
        signed: held-out mean minus training mean.
        signed_low: lower end of the interval of ``signed``.
        signed_high: upper end.
        train: mean loss on the training examples.
        heldout: mean loss on the held-out examples.
        range: the largest value the (clipped) loss can take.
        confidence: of both intervals.
        units: independent held-out units behind the intervals: examples, or clusters of them.
    """

    value: float
    low: float
    high: float
    signed: float
    signed_low: float
    signed_high: float
    train: float
    heldout: float
    range: float
    confidence: float
    units: int

    def as_record(self) -> dict[str, float]:
        """Return the fields as a plain dictionary."""
        return asdict(self)


def _checked(losses: ArrayLike, name: str, loss_range: float) -> np.ndarray:
    losses = np.asarray(losses, dtype=np.float64)
    if losses.ndim != 1 or losses.size == 0:
        raise ValueError(f"{name} must be a non-empty vector of losses, got shape {losses.shape}")
    outside = losses[(losses < 0) | (losses > loss_range)]
    if outside.size:
        raise ValueError(f"{name} must lie in [0, {loss_range:g}], got {outside[0]:g}; clip the loss first")
    return losses


def measured_gap(
    train_losses: ArrayLike,
    heldout_losses: ArrayLike,
    *,
    loss_range: float,
    clusters: ArrayLike | None = None,
    confidence: float = 0.95,
    replicates: int = 4_000,
    seed: int = 0,
) -> Gap:
    """Measure G(W) of one run, with the interval of :func:`analysis.statistics.bounded_mean_interval` for L_mu(W).

    The interval counts on nothing that it has not seen: it has a width where no held-out example is wrong.
    The interval of ``value`` is the image of the signed interval under the absolute value, so it covers
    |G| at least as often as the signed interval covers G; it begins at 0 when the sign is not determined.

    Args:
        train_losses: clipped losses of the final weights on the training examples, eval mode, shape (n,).
        heldout_losses: the same on held-out examples that nothing was chosen by, shape (m,).
        loss_range: the largest value a loss can take.
        clusters: label of the group that each held-out example belongs to, shape (m,), where examples share a text;
            None where all are independent.
        confidence: in (0, 1).
        replicates: draws behind the interval of a loss that is not 0-1.
        seed: of the draws.

    Returns:
        The gap; NaN throughout where a loss is NaN.

    Raises:
        ValueError: if a vector is empty, a loss lies outside [0, loss_range], or confidence outside (0, 1).

    >>> gap = measured_gap([0.0, 0.0], [0.0, 1.0, 1.0, 0.0], loss_range=1.0)
    >>> gap.value, gap.signed, gap.low <= 0.5 <= gap.high
    (0.5, 0.5, True)
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    if not (loss_range > 0 and np.isfinite(loss_range)):
        raise ValueError(f"loss_range must be positive and finite, got {loss_range}")
    train = _checked(train_losses, "train_losses", loss_range)
    heldout = _checked(heldout_losses, "heldout_losses", loss_range)
    signed = float(heldout.mean() - train.mean())
    ends = bounded_mean_interval(
        heldout, largest=loss_range, clusters=clusters, confidence=confidence, replicates=replicates, seed=seed
    )
    low, high = (end - float(train.mean()) for end in ends)
    near, far = sorted((abs(low), abs(high)))
    return Gap(
        value=abs(signed),
        low=0.0 if low < 0 < high else near,
        high=far,
        signed=signed,
        signed_low=low,
        signed_high=high,
        train=float(train.mean()),
        heldout=float(heldout.mean()),
        range=float(loss_range),
        confidence=confidence,
        units=len(heldout) if clusters is None else len(np.unique(np.asarray(clusters))),
    )


def heldout_fingerprint(task: Task) -> str | None:
    """Name the held-out texts and labels, so that records tell whether they share them; None for images."""
    if task.kind == "image-classification":
        return None
    return config_key({"examples": [[example["input_ids"], example["labels"]] for example in task.heldout]})
