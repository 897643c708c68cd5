"""Certificates for chains: every link starts from a predictor that later data has not seen."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from theory.arguments import Fraction, Fractions, NonNegative, NonNegatives, Probability, Several, checked
from theory.checks import check_integer, check_number, check_probability
from theory.kl import kl_upper

__all__ = ["fold_bound", "recursive_bound"]


@checked
def fold_bound(
    risks: Fractions, *, bits: NonNegatives, fold_sizes: Sequence[Several], delta: Probability
) -> NDArray[np.float64]:
    r"""Certify each link of a chain on its own fold of the data, for its own bits alone.

    Split the sample into k folds and train link j on folds 1..j. The predictor before link j does not
    depend on fold j, so it may serve as the centre of link j's code, and only link j's b_j bits count:
    for all j at once, with probability at least 1 - delta,

    .. math:: kl(\hat R_j(W_j) \| R(W_j)) \le \frac{b_j \ln 2 + \ln(k/\delta)}{n_j}.

    Args:
        risks: error of W_j on fold j, shape (..., k), in [0, 1].
        bits: code length of link j, given the links before it, shape (k,) or broadcast.
        fold_sizes: n_j.
        delta: failure probability, shared equally by the links.

    Returns:
        Bounds of shape (..., k); any of them may be picked after the fact.

    Raises:
        ValueError: if a shape does not fit, a fold holds fewer than 2 examples, or a risk is not in [0, 1].

    >>> fold_bound([0.2, 0.1], bits=[40, 40], fold_sizes=[500, 500], delta=0.05).round(3)
    array([0.363, 0.238])
    """
    risks, sizes = np.asarray(risks, dtype=np.float64), _sizes(fold_sizes)
    if risks.shape[-1:] != sizes.shape:
        raise ValueError(f"risks must end in {sizes.size} links, got shape {risks.shape}")
    budget = np.asarray(bits, dtype=np.float64) * math.log(2) + math.log(sizes.size / check_probability("delta", delta))
    return kl_upper(risks, budget / sizes)


@checked
def recursive_bound(
    errors: Fractions,
    *,
    bits: Sequence[NonNegative],
    fold_sizes: Sequence[Several],
    delta: Probability,
    gamma: Fraction = 0.5,
) -> NDArray[np.float64]:
    r"""Certify a chain recursively: link j is paid for only where it differs from link j-1.

    Recursive PAC-Bayes (Wu et al., arXiv:2405.14681) with point-mass posteriors: the prior of
    link j puts 2^-b on each of its code words given link j-1, so KL = b_j ln 2 and no sqrt(n) is needed.

    .. math:: R(W_j) = E[\ell_j - \gamma \ell_{j-1}] + \gamma R(W_{j-1})

    Link j is trained on folds 1..j, so W_{j-1} is independent of folds j..k, on which the excess is
    bounded. It takes the values -gamma, 0, 1-gamma, 1; written as
    -gamma + gamma 1[>=0] + (1-gamma) 1[>=1-gamma] + gamma 1[>=1], each indicator's mean is bounded by kl
    inversion at a third of the link's share of delta ("split-kl"). W0 is bounded on all the data for free.

    Args:
        errors: 0-1 losses of W_0, ..., W_k on all n examples in the order of the folds, shape (..., k+1, n).
        bits: b_1..b_k, given the links before.
        fold_sizes: n_1..n_k with sum n.
        delta: failure probability, shared equally by the k+1 stages.
        gamma: in [0, 1], fixed before the data.

    Returns:
        Bounds on the risks of W_0, ..., W_k, shape (..., k+1).

    Raises:
        ValueError: if a shape does not fit, an error is neither 0 nor 1, or gamma is out of range.

    >>> errors = np.zeros((3, 900)); errors[0, ::2] = 1; errors[1:, ::10] = 1
    >>> recursive_bound(errors, bits=[30, 30], fold_sizes=[450, 450], delta=0.05).round(3)
    array([0.548, 0.238, 0.262])
    """
    errors, sizes = np.asarray(errors, dtype=np.float64), _sizes(fold_sizes)
    gamma = check_number("gamma", gamma)
    if gamma > 1:
        raise ValueError(f"gamma must lie in [0, 1], got {gamma}")
    if len(bits) != sizes.size or errors.ndim < 2 or errors.shape[-2:] != (sizes.size + 1, sizes.sum()):
        wanted = f"(..., {sizes.size + 1}, {sizes.sum()}) with {sizes.size} code lengths"
        raise ValueError(f"errors must have shape {wanted}, got {errors.shape} and {len(bits)}")
    if not np.isin(errors, (0, 1)).all():
        raise ValueError("errors must be 0 or 1: the recursion is for the 0-1 loss")
    share = math.log((sizes.size + 1) / check_probability("delta", delta))
    bounds = [kl_upper(errors[..., 0, :].mean(axis=-1), share / sizes.sum())]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    for link, (start, length) in enumerate(zip(starts, bits, strict=True), start=1):
        new, old = errors[..., link, start:], errors[..., link - 1, start:]
        budget = (float(length) * math.log(2) + share + math.log(3)) / new.shape[-1]
        events = (~((new == 0) & (old == 1)), new == 1, (new == 1) & (old == 0))
        steps = (gamma, 1 - gamma, gamma)
        parts = [step * kl_upper(event.mean(axis=-1), budget) for step, event in zip(steps, events, strict=True)]
        bounds.append(-gamma + sum(parts) + gamma * bounds[-1])
    return np.stack(bounds, axis=-1)


def _sizes(fold_sizes: Sequence[int]) -> NDArray[np.int64]:
    if not fold_sizes:
        raise ValueError("fold_sizes must name at least one fold")
    return np.array([check_integer("fold size", size, minimum=2) for size in fold_sizes])
