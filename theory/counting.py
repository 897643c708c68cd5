r"""Logarithms of numbers of ways, without the cancellation that a difference of ln Gamma has, and the safe side.

ln C(n, k) as a difference of three ln Gamma loses everything below :math:`10^{-16}\,n \ln n`: at n = 10^15, k = 3 that
is 2.6 bits of 147. With Stirling's series :math:`\ln\Gamma(x) = (x - 1/2) \ln x - x + \ln\sqrt{2\pi} + \mu(x)` the
large terms cancel by hand, and what is left is a sum of terms of one sign.
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from theory.arguments import Count, Integers, Numbers, Whole, checked

__all__ = ["log2_binomial", "log_binomial", "log_rising", "upwards"]

_EXACT = 64
_SLACK = 2.0**-49
"""Relative; sixteen units in the last place of a float64, more than the few operations behind any bound lose."""


@checked
def upwards(value: Annotated[ArrayLike, Numbers(minimum=-math.inf, finite=False)]) -> NDArray[np.float64]:
    """Return numbers rounded away from zero by sixteen units in the last place: a bound never ends below its formula.

    Zero and infinity stay; the smallest numbers take the next float.

    >>> bool(1 < upwards(1.0) < 1 + 1e-14), float(upwards(0.0))
    (True, 0.0)
    """
    array = np.asarray(value, dtype=np.float64)
    moved = np.nextafter(array * (1 + _SLACK), np.copysign(np.inf, array))
    result: NDArray[np.float64] = np.where((array == 0) | np.isinf(array), array, moved)
    return result


@checked
def log2_binomial(total: Count, chosen: Whole) -> float:
    """Return log2 of the number of ways to choose ``chosen`` of ``total``: the bits of a data-chosen set.

    Rounded up; exact integers up to 64 on the smaller side, ``log_binomial`` beyond.

    Raises:
        ValueError: if ``chosen`` is not between 0 and ``total``.

    >>> round(log2_binomial(768, 16), 1)
    108.9
    """
    if chosen > total:
        raise ValueError(f"chosen must be an integer of at least 0 and at most total = {total}, got {chosen}")
    smaller = min(chosen, total - chosen)
    if smaller <= _EXACT:
        bits = math.log2(math.comb(total, smaller))
    else:
        bits = float(log_binomial(total, smaller)) / math.log(2)
    return bits * (1 + _SLACK)


@checked
def log_binomial(
    total: Annotated[ArrayLike, Integers()], chosen: Annotated[ArrayLike, Integers(-(2**62))]
) -> NDArray[np.float64]:
    r"""Return ln C(n, k), minus infinity where k is not between 0 and n; broadcast.

    :math:`k \ln\frac{n}{k} + (n-k) \ln\frac{n}{n-k} + \frac12 \ln\frac{n}{2\pi k (n-k)} + \mu(n) - \mu(k) - \mu(n-k)`.

    Args:
        total: n, integers of at least 0.
        chosen: k, integers.

    Returns:
        Nats, right to a few units in the last place where n is below 2^53.

    >>> round(math.exp(float(log_binomial(10, 3))))
    120
    """
    n, k = (np.asarray(one, dtype=np.float64) for one in np.broadcast_arrays(total, chosen))
    inside = (k > 0) & (k < n)
    k_safe = np.where(inside, k, 1.0)
    n_safe = np.where(inside, n, 2.0)
    rest = n_safe - k_safe
    small, large = np.minimum(k_safe, rest), np.maximum(k_safe, rest)
    value = small * np.log(n_safe / small) - large * np.log1p(-small / n_safe)
    value = value + 0.5 * np.log(n_safe / (2 * math.pi * k_safe * rest))
    value = value + _remainder(n_safe) - _remainder(k_safe) - _remainder(rest)
    result: NDArray[np.float64] = np.where(inside, value, np.where((k == 0) | (k == n), 0.0, -np.inf))
    return result


@checked
def log_rising(counts: Annotated[ArrayLike, Integers()]) -> float:
    r"""Return :math:`-\ln \prod_a \frac{\Gamma(c_a + 1/2)}{\Gamma(1/2)} \cdot \frac{\Gamma(L/2)}{\Gamma(n + L/2)}`.

    The nats that Krichevsky and Trofimov's mixture (1981) takes for symbols of these counts, n their sum. With
    N = n + L/2 it is :math:`\sum_a c_a \ln\frac{N}{c_a + 1/2} + \frac{L-1}{2} \ln\frac{N}{2 \pi}` and remainders of
    Stirling's series, every term of the sum at least zero.

    Args:
        counts: c_a, how often each of L symbols occurs.
    """
    c = np.asarray(counts, dtype=np.float64).ravel()
    half = c.size / 2
    whole = c.sum() + half
    # ln Gamma(1/2)^L / Gamma(L/2), with ln Gamma(1/2) = ln(pi) / 2
    constant = half * math.log(math.pi) - float(gammaln(half)) - (c.size - 1) / 2 * math.log(2 * math.pi)
    terms = c * np.log1p((c.sum() - c + half - 0.5) / (c + 0.5))
    value = terms.sum() + (c.size - 1) / 2 * math.log(whole) + constant
    return float(value + _remainder(np.asarray(whole)) - _remainder(c + 0.5).sum())


def _remainder(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return mu(x) = ln Gamma(x) - (x - 1/2) ln x + x - ln sqrt(2 pi): the series beyond 16, the difference below."""
    small = np.minimum(x, 16.0)
    near = gammaln(small) - (small - 0.5) * np.log(small) + small - 0.5 * math.log(2 * math.pi)
    square = 1 / np.maximum(x, 16.0) ** 2
    series = (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square * (1 / 1680 - square / 1188)))) / np.maximum(
        x, 1
    )
    result: NDArray[np.float64] = np.where(x < 16, near, series)
    return result
