"""The binary relative entropy and its two inverses, which turn every certificate's budget into a risk."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from theory.arguments import Extendeds, Fractions, checked
from theory.counting import upwards

__all__ = ["binary_kl", "kl_lower", "kl_upper"]

_HALVINGS = 64


@checked
def binary_kl(q: Fractions, p: Fractions) -> NDArray[np.float64]:
    r"""Relative entropy of two Bernoulli laws, in nats.

    .. math:: kl(q \| p) = q \ln\frac{q}{p} + (1-q) \ln\frac{1-q}{1-p}

    Args:
        q: the first law's mean, in [0, 1]; broadcast against ``p``.
        p: the second law's mean, in [0, 1].

    Returns:
        Nats, infinite where p is 0 or 1 and q differs from it.

    Raises:
        ValueError: if a mean is not in [0, 1].

    >>> round(float(binary_kl(0.5, 0.25)), 6)
    0.143841
    """
    q, p = np.broadcast_arrays(np.asarray(q, dtype=np.float64), np.asarray(p, dtype=np.float64))
    with np.errstate(divide="ignore"):
        return xlogy(q, q) - xlogy(q, p) + xlogy(1 - q, 1 - q) - xlogy(1 - q, 1 - p)


@checked
def kl_upper(q: Fractions, budget: Extendeds) -> NDArray[np.float64]:
    r"""Return the largest mean that the budget cannot tell from the observed one.

    .. math:: kl^{-1}(q, c) = \sup\{p \in [q, 1] : kl(q \| p) \le c\}

    (Langford, JMLR 6, 2005). kl rises in p on [q, 1], so bisection converges; it runs on the distance
    d = p - q, where kl = -q ln(1 + d/q) - (1-q) ln(1 - d/(1-q)) loses only about 1e-16 of p to
    rounding, and it returns the upper end of the last bracket, rounded up, so that rounding favours validity.

    Args:
        q: observed mean, in [0, 1].
        budget: c in nats, not negative; infinity gives 1. Broadcast against ``q``.

    Returns:
        p, exact to 1e-12.

    Raises:
        ValueError: if a mean is not in [0, 1] or a budget is negative or NaN.

    >>> float(kl_upper(0.0, 0.1)), float(-np.expm1(-0.1))
    (0.09516258196404..., 0.09516258196404...)
    >>> kl_upper([0.1, 0.5], 0.02).round(4)
    array([0.1704, 0.599 ])
    """
    q, budget = np.broadcast_arrays(np.asarray(q, dtype=np.float64), np.asarray(budget, dtype=np.float64))
    low, high = np.zeros_like(q), 1 - q
    rest = np.maximum(high, np.finfo(np.float64).tiny)
    for _ in range(_HALVINGS):
        distance = (low + high) / 2
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = distance / q
            grown = np.where(np.isinf(ratio), np.log(distance) - np.log(q), np.log1p(ratio))
            spent = -np.where(q == 0, 0.0, q * grown) - (1 - q) * np.log1p(-distance / rest)
        inside = spent < budget
        low, high = np.where(inside, distance, low), np.where(inside, high, distance)
    result: NDArray[np.float64] = np.where(budget == 0, q, np.minimum(upwards(q + high), 1.0))
    return result


@checked
def kl_lower(q: Fractions, budget: Extendeds) -> NDArray[np.float64]:
    r"""Return the smallest mean that the budget cannot tell from the observed one.

    .. math:: \inf\{p \in [0, q] : kl(q \| p) \le c\} = 1 - kl^{-1}(1 - q, c)

    because kl(q || p) = kl(1-q || 1-p).

    Args:
        q: observed mean, in [0, 1].
        budget: c in nats, not negative.

    Returns:
        p, exact to 1e-12.

    Raises:
        ValueError: as :func:`kl_upper`.

    >>> float(kl_lower(0.25, 0.0))
    0.25
    """
    q, budget = np.broadcast_arrays(np.asarray(q, dtype=np.float64), np.asarray(budget, dtype=np.float64))
    result: NDArray[np.float64] = np.where(
        budget == 0, q, np.maximum(np.nextafter(1 - kl_upper(1 - q, budget), -1), 0.0)
    )
    return result
