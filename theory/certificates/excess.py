"""The excess-loss form: W0 is independent of the sample, so only what the update changed is paid for."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.arguments import Fractions, NonNegatives, Positive, Probability, Reals, checked
from theory.assumptions import CODE_FIRST, IID, IN_RANGE, INDEPENDENT
from theory.counting import upwards
from theory.kl import kl_upper
from theory.records import Bound

__all__ = ["empirical_bernstein", "excess_loss_bound"]

BERNSTEIN = "empirical Bernstein, arXiv:0907.3740"


@checked
def empirical_bernstein(
    values: Reals,
    *,
    complexity: NonNegatives,
    delta: Probability,
    value_range: Positive = 1.0,
    of: Literal["risk", "excess"] = "risk",
) -> Bound:
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
        of: what the values are: losses, of at least 0, or what they exceed W0's by.

    Returns:
        Upper bounds of the mean, of the leading shape; negative where the values are.

    Raises:
        ValueError: if n is below 2 or the values span more than ``value_range``.

    >>> round(empirical_bernstein([0.0, 1.0] * 500, complexity=0.0, delta=0.05).value, 4)
    0.5516
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] < 2:
        raise ValueError(f"values must hold at least 2 numbers on the last axis, got shape {array.shape}")
    span = float(np.max(np.ptp(array, axis=-1)))
    if not span <= value_range * (1 + 1e-12):
        raise ValueError(f"values must span at most value_range = {value_range}, got a span of {span}")
    return Bound(
        name="empirical-bernstein",
        of=of,
        value=_bernstein(array, complexity, math.log(2) - math.log(delta), value_range),
        kind="high-probability",
        delta=delta,
        source=BERNSTEIN,
        assumptions=(IID, CODE_FIRST),
        loss_range=value_range,
        measured=("values",),
    )


def _bernstein(
    values: NDArray[np.float64], complexity: ArrayLike, log_share: float, value_range: float
) -> NDArray[np.float64]:
    n = values.shape[-1]
    budget = upwards(np.asarray(complexity, dtype=np.float64) + log_share)
    spread = np.sqrt(2 * upwards(values.var(axis=-1, ddof=1)) * budget / n)
    result: NDArray[np.float64] = values.mean(axis=-1) + upwards(spread + value_range * 7 * budget / (3 * (n - 1)))
    return result


@checked
def excess_loss_bound(
    losses: Fractions,
    base_losses: Fractions,
    *,
    bits: NonNegatives,
    delta: Probability,
    base: Literal["hoeffding", "kl"] = "hoeffding",
) -> Bound:
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
        Bounds on the risk, of the leading shape; they may exceed 1.

    Raises:
        ValueError: if a loss is outside [0, 1] or the shapes differ.

    >>> from numpy import zeros, repeat
    >>> round(excess_loss_bound(zeros(1000), repeat([0, 1], [900, 100]), bits=8, delta=0.05).value, 4)
    0.1316
    """
    new, old = np.asarray(losses, dtype=np.float64), np.asarray(base_losses, dtype=np.float64)
    if new.ndim == 0 or old.ndim == 0 or new.shape[-1:] != old.shape[-1:] or new.shape[-1] < 2:
        raise ValueError(
            f"losses and base_losses must share a last axis of at least 2, got shapes {new.shape} and {old.shape}"
        )
    log_half = math.log(2) - math.log(delta)
    n = old.shape[-1]
    base_risk = np.clip(old.mean(axis=-1), 0.0, 1.0)
    budget = upwards(log_half / n)
    base_bound = upwards(base_risk + np.sqrt(budget / 2)) if base == "hoeffding" else kl_upper(base_risk, budget)
    complexity = np.asarray(bits, dtype=np.float64) * math.log(2)
    change = _bernstein(new - old, complexity, log_half + math.log(2), 2.0)
    return Bound(
        name="excess-loss",
        of="risk",
        value=np.maximum(base_bound + change, 0.0),
        kind="high-probability",
        delta=delta,
        source=f"excess loss over W0 by {BERNSTEIN}",
        assumptions=(IID, CODE_FIRST, INDEPENDENT, IN_RANGE),
        measured=("losses", "base_losses"),
        bits=bits,
    )
