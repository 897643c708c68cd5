"""Prediction smoothing: a bounded cross-entropy, so that it can be certified."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theory.arguments import Fractions, NonNegative, Probabilities, Probability, Several, checked
from theory.assumptions import CODE_FIRST, IID
from theory.certificates.occam import occam_bound
from theory.counting import upwards
from theory.records import Bound

__all__ = ["SmoothedBound", "cross_entropy_bound", "smoothed_cross_entropy", "smoothed_range"]


class SmoothedBound(NamedTuple):
    """A certificate on the smoothed cross-entropy, in nats, and what it was reached with; arrays of the leading shape.

    Attributes:
        bound: on the expected smoothed cross-entropy.
        empirical: its mean on the sample.
        alpha: the smoothing chosen.
    """

    bound: Bound
    empirical: NDArray[np.float64]
    alpha: NDArray[np.float64]


@checked
def smoothed_range(alpha: Probabilities, *, num_classes: Several) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Return the least and the greatest smoothed cross-entropy, in nats.

    With p' = (1-a) p + a/V, p in [0, 1], the loss -ln p' lies between -ln(1-a+a/V) and ln(V/a); the
    length of that interval is Delta = ln(1 + (1-a)V/a) (arXiv:2312.17173, in bits there).

    Raises:
        ValueError: if alpha is not strictly between 0 and 1.

    >>> low, high = smoothed_range(0.1, num_classes=6)
    >>> round(float(high - low), 9) == round(math.log(1 + 0.9 * 6 / 0.1), 9)
    True
    """
    array = np.asarray(alpha, dtype=np.float64)
    return -np.log1p(array / num_classes - array), math.log(num_classes) - np.log(array)


@checked
def smoothed_cross_entropy(probability: Fractions, *, alpha: Probability, num_classes: Several) -> NDArray[np.float64]:
    """Return -ln((1-a) p + a/V) for the probability p given to the true class, in nats.

    Raises:
        ValueError: if a probability is not in [0, 1] or alpha not strictly between 0 and 1.

    >>> float(smoothed_cross_entropy(0.0, alpha=0.5, num_classes=2)) == math.log(4)
    True
    """
    p = np.asarray(probability, dtype=np.float64)
    return -np.log((1 - alpha) * p + alpha / num_classes)


@checked
def cross_entropy_bound(
    probability: Fractions,
    *,
    bits: NonNegative,
    num_classes: Several,
    delta: Probability,
    alphas: tuple[Probability, ...] = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9),
) -> SmoothedBound:
    """Certify the smoothed cross-entropy of a predictor that a prefix code names in ``bits`` bits.

    The smoothed loss minus its least value lies in [0, Delta] and goes through the Occam bound; the best
    alpha of the grid is taken and its log2(len(alphas)) bits are paid, once (the public code of
    arXiv:2312.17173 adds them anew for each alpha: valid, and looser).

    Args:
        probability: probability given to the true class of each of the n examples, shape (..., n).
        bits: code length of the predictor, without alpha.
        num_classes: V.
        delta: failure probability.
        alphas: the grid, fixed before the data.

    Returns:
        The least bound over the grid.

    Raises:
        ValueError: if a probability, an alpha or delta is out of range.

    >>> float(cross_entropy_bound(np.full(5000, 0.9), bits=500, num_classes=6, delta=0.05).alpha)
    0.1
    """
    if not alphas:
        raise ValueError("alphas must name at least one smoothing")
    p = np.asarray(probability, dtype=np.float64)
    if p.ndim == 0 or p.shape[-1] < 2:
        raise ValueError(f"probability must hold at least 2 examples on its last axis, got shape {p.shape}")
    means, bounds = [], []
    for alpha in alphas:
        low, high = smoothed_range(alpha, num_classes=num_classes)
        means.append(smoothed_cross_entropy(p, alpha=alpha, num_classes=num_classes).mean(axis=-1))
        length = float(high - low) * (1 + 2.0**-48)
        excess = occam_bound(
            np.clip(means[-1] - low, 0.0, length),
            bits=bits + math.log2(len(alphas)),
            num_examples=p.shape[-1],
            delta=delta,
            loss_range=length,
        )
        bounds.append(upwards(low + np.asarray(excess.value)))
    best = np.argmin(bounds, axis=0)
    chosen = best[None]
    ranges = np.array([float(smoothed_range(alpha, num_classes=num_classes)[1]) for alpha in alphas])
    bound = Bound(
        name="smoothed-cross-entropy",
        of="risk",
        value=np.take_along_axis(np.asarray(bounds), chosen, 0)[0],
        kind="high-probability",
        delta=delta,
        source="Occam bound with prediction smoothing, arXiv:2312.17173",
        assumptions=(IID, CODE_FIRST),
        unit="nats",
        loss_range=float(ranges.max()),
        measured=("probability",),
        bits=bits + math.log2(len(alphas)),
    )
    return SmoothedBound(
        bound, np.take_along_axis(np.asarray(means), chosen, 0)[0], np.asarray(alphas, dtype=np.float64)[best]
    )
