"""How far rounding moves logits and mean losses, and how clear a choice of the smallest loss is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike

__all__ = ["forward_error", "lowest", "mean_error"]


def forward_error(model: torch.nn.Module, scale: float) -> float:
    r"""Estimate how far rounding moves a logit of a network.

    To first order a chain of L products with inner dimension at most n is off by :math:`L n \varepsilon` relative to
    the norms that it passes (Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., sections 3.1 and 3.7);
    normalisation keeps those on the scale of what comes out. n counts the numbers of the longest inner product, where
    the worst case over signs stands in for what the first order leaves out.

    Args:
        model: its parameters of two or more dimensions are the products (more than lie on any path); the coarsest
            precision among them counts.
        scale: the largest |logit|.

    Raises:
        ValueError: if the model has no matrix.
    """
    matrices = [weight for weight in model.parameters() if weight.ndim >= 2 and weight.is_floating_point()]
    if not matrices:
        raise ValueError("model has no matrix, so that nothing is known of its rounding")
    inner = max(weight[0].numel() for weight in matrices)
    precision = max(torch.finfo(weight.dtype).eps for weight in matrices)
    return len(matrices) * inner * precision * scale


def mean_error(losses: ArrayLike, logit_error: float, *, squared: bool = False) -> float:
    r"""Bound how far the mean of losses moves when every logit moves by at most ``logit_error``.

    Cross-entropy is 2-Lipschitz in the largest change of a logit, a squared error :math:`e^2` moves by at most
    :math:`2 |e| \delta + \delta^2`; the float64 mean of N numbers adds :math:`N \varepsilon_{64}` of their mean size
    (Higham, section 4.2).

    Args:
        losses: per-example losses, shape (N,).
        logit_error: from `forward_error`.
        squared: whether they are squared errors rather than cross-entropies.
    """
    losses = np.asarray(losses, dtype=np.float64)
    each = 2 * np.sqrt(losses) * logit_error + logit_error**2 if squared else np.full(1, 2 * logit_error)
    return float(each.mean()) + len(losses) * float(np.finfo(np.float64).eps) * float(np.abs(losses).mean())


def lowest(values: Sequence[float], errors: Sequence[float]) -> tuple[float, bool]:
    """Say how clear a choice of the smallest value is.

    Args:
        values: what was compared; NaN never wins.
        errors: how far each may be off.

    Returns:
        The second smallest minus the smallest (inf for a single candidate), and whether rounding can reverse the two.

    >>> lowest([0.3, 0.5], [0.01, 0.01]), lowest([0.3, 0.3001], [0.01, 0.01])[1]
    ((0.2, False), True)
    """
    known = [(value, error) for value, error in zip(values, errors, strict=True) if value == value]
    if len(known) < 2:
        return np.inf, False
    first, *others = sorted(known)
    return others[0][0] - first[0], any(value - error <= first[0] + first[1] for value, error in others)
