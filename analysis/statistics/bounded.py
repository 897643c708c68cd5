r"""Intervals for the mean of a bounded variable that cover at every sample size, seen extremes or not.

A bootstrap only knows the values it has seen: with one error in a hundred, a third of all samples of 100 hold none, and
their interval has width zero. Both intervals here reckon with what was not seen. For 0-1 values it is Clopper and
Pearson's (1934), exact. For other values it is Gaffke's (2005, "Three test statistics for a nonparametric one-sided
hypothesis on the mean of a nonnegative variable"; Learned-Miller and Thomas, arXiv:1905.06208): the upper end is a
quantile of :math:`\sum_{i=0}^n D_i x_i` over uniform Dirichlet weights D, where :math:`x_0` is the largest value that
is possible, and the lower end one with the least. On 0-1 values that is Clopper and Pearson's; for others coverage is a
conjecture that no world has been found to break, and ``python -m analysis coverage`` measures it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

__all__ = ["bounded_mean_interval"]


def bounded_mean_interval(
    values: ArrayLike,
    *,
    largest: float,
    clusters: ArrayLike | None = None,
    confidence: float = 0.95,
    replicates: int = 4_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return a confidence interval for the expectation of a variable in [0, largest].

    Values of one cluster are no independent evidence: clusters get the weights then, each with all of its values, and
    the unseen one has the clusters' mean size. The expectation is that of a value, not of a cluster.

    Args:
        values: in [0, largest], shape (N,).
        largest: what a value can be at most.
        clusters: label of each value's cluster, shape (N,); None for independent values.
        confidence: in (0, 1).
        replicates: draws of the weights; values that are all 0 or ``largest``, unclustered, need none.
        seed: of the draws.

    Returns:
        Lower and upper end; NaN where a value is NaN.

    Raises:
        ValueError: if there are no values, one lies outside [0, largest], labels and values differ in number, or
            ``confidence`` lies outside (0, 1).

    >>> low, high = bounded_mean_interval(np.zeros(100), largest=1.0)
    >>> low, round(high, 4)
    (0.0, 0.0362)
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"values must be a non-empty vector, got shape {values.shape}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    outside = values[(values < 0) | (values > largest)]
    if outside.size:
        raise ValueError(f"values must lie in [0, {largest:g}], got {outside[0]:g}")
    totals, sizes = _units(values, clusters)
    if np.isnan(values).any():
        return float("nan"), float("nan")
    if len(totals) == len(values) and np.isin(values, (0.0, largest)).all():
        test = stats.binomtest(int((values == largest).sum()), len(values))
        exact = test.proportion_ci(confidence, method="exact")
        return largest * float(exact.low), largest * float(exact.high)
    rng = np.random.default_rng(seed)
    unseen = sizes.mean()
    ends = np.empty((2, replicates))
    chunk = max(1, 4_000_000 // len(totals))
    for start in range(0, replicates, chunk):
        stop = min(start + chunk, replicates)
        weights = rng.standard_exponential((stop - start, len(totals) + 1))
        total, size = weights[:, 1:] @ totals, weights @ np.append(unseen, sizes)
        ends[:, start:stop] = total / size, (total + weights[:, 0] * unseen * largest) / size
    tail = (1 - confidence) / 2
    return float(np.quantile(ends[0], tail)), float(np.quantile(ends[1], 1 - tail))


def _units(values: NDArray[np.float64], clusters: ArrayLike | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sum and the number of values of each independent unit."""
    if clusters is None:
        return values, np.ones_like(values)
    labels = np.asarray(clusters)
    if labels.shape != values.shape:
        raise ValueError(f"clusters must have one label per value, {len(values)}, got shape {labels.shape}")
    codes = pd.factorize(labels)[0]  # in the order of their first values, whatever the labels are
    return np.bincount(codes, weights=values).astype(np.float64), np.bincount(codes).astype(np.float64)
