"""The excess-loss form: W0 is independent of the sample, so only what the update changed is paid for."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from theory.arguments import Fractions, NonNegatives, Positive, Probability, Reals, checked
from theory.checks import check_choice, check_number, check_probability
from theory.kl import kl_upper

__all__ = ["empirical_bernstein", "excess_loss_bound"]


@checked
def empirical_bernstein(
    values: Reals, *, complexity: NonNegatives, delta: Probability, value_range: Positive = 1.0
) -> NDArray[np.float64]:
    r"""Bound a mean by the sample's mean and variance.

    With probability at least 1 - delta, for every member of a family whose prior gives it e^-K,

    .. math:: \mu \le \bar v + \sqrt{\frac{2 \hat V (K + \ln(2/\delta))}{n}}
              + \Delta \frac{7 (K + \ln(2/\delta))}{3 (n-1)}

    (Maurer & Pontil, arXiv:0907.3740, theorem 4 at confidence delta e^-K, scaled to values in an
    interval of length Delta; V is the unbiased sample variance).

    Args:
        values: shape (..., n), inside one interval of length ``value_range``.
        complexity: K in nats (b ln 2 for a code word of b bits), broadcast to the leading shape.
        delta: failure probability.
        value_range: Delta.

    Returns:
        Upper bounds, of the leading shape.

    Raises:
        ValueError: if n is below 2 or the values span more than ``value_range``.

    >>> round(float(empirical_bernstein([0.0, 1.0] * 500, complexity=0.0, delta=0.05)), 4)
    0.5516
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] < 2:
        raise ValueError(f"values must hold at least 2 numbers on the last axis, got shape {array.shape}")
    span = float(np.max(np.ptp(array, axis=-1)))
    if not span <= check_number("value_range", value_range, positive=True) * (1 + 1e-12):
        raise ValueError(f"values must span at most value_range = {value_range}, got a span of {span}")
    n = array.shape[-1]
    budget = np.asarray(complexity, dtype=np.float64) + math.log(2 / check_probability("delta", delta))
    spread = np.sqrt(2 * array.var(axis=-1, ddof=1) * budget / n)
    result: NDArray[np.float64] = array.mean(axis=-1) + spread + value_range * 7 * budget / (3 * (n - 1))
    return result


@checked
def excess_loss_bound(
    losses: Fractions,
    base_losses: Fractions,
    *,
    bits: NonNegatives,
    delta: Probability,
    base: Literal["hoeffding", "kl"] = "hoeffding",
) -> NDArray[np.float64]:
    r"""Bound the risk of W0 + dW through that of W0.

    R(W) = R(W0) + E[loss(W) - loss(W0)]. W0 was fixed before the data, so Hoeffding bounds its risk with
    no complexity, at delta/2:  R(W0) <= Rhat(W0) + sqrt(ln(2/delta)/(2n)); the differences lie in [-1, 1]
    and go through :func:`empirical_bernstein` with range 2 at delta/2. It gains on the Occam bound when
    the update changes few losses, since then the variance of the differences is small.

    Args:
        losses: losses of the decoded predictor, in [0, 1], shape (..., n).
        base_losses: losses of W0 (with its head at initialisation) on the same examples.
        bits: code length of the update.
        delta: failure probability.
        base: how W0's own error is bounded; ``"kl"`` is never worse.

    Returns:
        Upper bounds on the risk, of the leading shape; they may exceed 1.

    Raises:
        ValueError: if a loss is outside [0, 1] or the shapes differ.

    >>> from numpy import zeros, repeat
    >>> round(float(excess_loss_bound(zeros(1000), repeat([0, 1], [900, 100]), bits=8, delta=0.05)), 4)
    0.1316
    """
    check_choice("base", base, ("hoeffding", "kl"))
    new, old = np.asarray(losses, dtype=np.float64), np.asarray(base_losses, dtype=np.float64)
    if new.shape[-1:] != old.shape[-1:] or new.ndim == 0:
        raise ValueError(f"losses and base_losses must share their last axis, got shapes {new.shape} and {old.shape}")
    for name, array in (("losses", new), ("base_losses", old)):
        if not ((array >= 0) & (array <= 1)).all():
            raise ValueError(f"{name} must lie in [0, 1]; rescale the loss by its range first")
    half = check_probability("delta", delta) / 2
    n = old.shape[-1]
    base_risk = old.mean(axis=-1)
    confidence = -math.log(half) / n
    base_bound = base_risk + math.sqrt(confidence / 2) if base == "hoeffding" else kl_upper(base_risk, confidence)
    complexity = np.asarray(bits, dtype=np.float64) * math.log(2)
    return base_bound + empirical_bernstein(new - old, complexity=complexity, delta=half, value_range=2.0)
