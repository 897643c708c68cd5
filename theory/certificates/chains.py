"""Certificates for chains: every link starts from a predictor that later data has not seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory.arguments import Fraction, Fractions, NonNegative, NonNegatives, Probability, Several, checked
from theory.assumptions import DRAWN, FOLDS, IID, IN_RANGE, ZERO_ONE
from theory.counting import upwards
from theory.kl import kl_upper
from theory.records import Bound

__all__ = ["fold_bound", "recursive_bound"]


@checked
def fold_bound(
    risks: Fractions,
    *,
    bits: NonNegatives,
    fold_sizes: Sequence[Several],
    delta: Probability,
    population_size: Several | None = None,
) -> Bound:
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
        population_size: N, where the folds were drawn in turn, without replacement, from a collection of N; None for
            independent draws from a law.

    Returns:
        Bounds of shape (..., k). For independent draws all of them are about the law, and any may be picked after the
        fact. Of a collection stage j is about the examples that no fold before j holds (``about="unseen"``), other
        examples at each stage, folds j to k among them: not to be compared with each other, and no statement on those
        that were never drawn, which ``recursive_bound`` gives.

    Raises:
        ValueError: if a shape does not fit, a fold holds fewer than 2 examples, or a risk is not in [0, 1].

    >>> fold_bound([0.2, 0.1], bits=[40, 40], fold_sizes=[500, 500], delta=0.05).value.round(3)
    array([0.363, 0.238])
    """
    found, sizes = np.asarray(risks, dtype=np.float64), _sizes(fold_sizes, population_size)
    if found.shape[-1:] != sizes.shape:
        raise ValueError(f"risks must end in {sizes.size} links, got shape {found.shape}")
    nats = np.asarray(bits, dtype=np.float64) * math.log(2) + math.log(sizes.size) - math.log(delta)
    return Bound(
        name="fold",
        of="risk",
        about="law" if population_size is None else "unseen",
        value=kl_upper(found, upwards(nats / sizes)),
        kind="high-probability",
        delta=delta,
        source="Occam bound per fold",
        assumptions=(IID if population_size is None else DRAWN, FOLDS, IN_RANGE),
        measured=("risks",),
        bits=np.asarray(bits, dtype=np.float64),
    )


@checked
def recursive_bound(
    errors: Fractions,
    *,
    bits: Sequence[NonNegative],
    fold_sizes: Sequence[Several],
    delta: Probability,
    gamma: Fraction = 0.5,
    population_size: Several | None = None,
) -> Bound:
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
        population_size: N, where the folds were drawn in turn, without replacement, from a collection of N; None for
            independent draws from a law.

    Returns:
        Bounds on the risks of W_0, ..., W_k, shape (..., k+1). For independent draws every stage is about the law. Of a
        collection folds j..k are a uniform sample of what folds 1..j-1 left, M examples (kl bounds hold: Hoeffding
        1963, theorem 4); each indicator's bound B there is converted to the N - n that were never drawn, (M B - sum of
        those seen) / (N - n), before the stages are added: every stage is about those others.

    Raises:
        ValueError: if a shape does not fit, an error is neither 0 nor 1, or gamma is out of range.

    >>> errors = np.zeros((3, 900)); errors[0, ::2] = 1; errors[1:, ::10] = 1
    >>> recursive_bound(errors, bits=[30, 30], fold_sizes=[450, 450], delta=0.05).value.round(3)
    array([0.548, 0.238, 0.262])
    """
    seen, sizes = np.asarray(errors, dtype=np.float64), _sizes(fold_sizes, population_size)
    if len(bits) != sizes.size or seen.ndim < 2 or seen.shape[-2:] != (sizes.size + 1, sizes.sum()):
        wanted = f"(..., {sizes.size + 1}, {sizes.sum()}) with {sizes.size} code lengths"
        raise ValueError(f"errors must have shape {wanted}, got {seen.shape} and {len(bits)}")
    if not np.isin(seen, (0, 1)).all():
        raise ValueError("errors must be 0 or 1: the recursion is for the 0-1 loss")
    n = int(sizes.sum())
    share = math.log(sizes.size + 1) - math.log(delta)

    def upper(events: NDArray[Any], nats: float) -> NDArray[np.float64]:
        """Bound the mean of an indicator from its last examples: of the law, or of those never drawn."""
        count = events.shape[-1]
        bound = kl_upper(events.mean(axis=-1), upwards(nats / count))
        if population_size is None:
            return bound
        left = population_size - n
        return np.clip(upwards((bound * (left + count) - events.sum(axis=-1)) / left), 0.0, 1.0)

    bounds = [upper(seen[..., 0, :], share)]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    for link, (start, length) in enumerate(zip(starts, bits, strict=True), start=1):
        new, old = seen[..., link, start:], seen[..., link - 1, start:]
        events = (~((new == 0) & (old == 1)), new == 1, (new == 1) & (old == 0))
        steps = (gamma, 1 - gamma, gamma)
        nats = length * math.log(2) + share + math.log(3)
        parts = [step * upper(event, nats) for step, event in zip(steps, events, strict=True)]
        bounds.append(np.maximum(-gamma + upwards(sum(parts) + gamma * bounds[-1]), 0.0))
    return Bound(
        name="recursive",
        of="risk",
        about="law" if population_size is None else "others",
        value=np.stack(bounds, axis=-1),
        kind="high-probability",
        delta=delta,
        source="Recursive PAC-Bayes, arXiv:2405.14681",
        assumptions=(IID if population_size is None else DRAWN, FOLDS, ZERO_ONE),
        measured=("errors",),
    )


def _sizes(fold_sizes: Sequence[int], population_size: int | None) -> NDArray[np.int64]:
    if not fold_sizes:
        raise ValueError("fold_sizes must name at least one fold, got none")
    if population_size is not None and sum(fold_sizes) >= population_size:
        raise ValueError(f"population_size must be above the {sum(fold_sizes)} examples drawn, got {population_size}")
    return np.array(fold_sizes)
