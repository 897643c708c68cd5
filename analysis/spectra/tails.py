r"""The tail exponent of a weight's eigenvalues, only where there are enough of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["PowerLaw", "heavy_tail"]


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    r"""A power law :math:`p(\lambda) \propto \lambda^{-\alpha}` for :math:`\lambda \ge \lambda_{\min}`.

    Attributes:
        alpha: the exponent; NaN where it is undefined.
        start: lambda_min.
        distance: Kolmogorov-Smirnov distance of the tail from the fit.
        tail: eigenvalues at or above ``start``.
        reason: why alpha is undefined; empty when it is defined.
    """

    alpha: float
    start: float
    distance: float
    tail: int
    reason: str = ""


def heavy_tail(values: Sequence[float] | np.ndarray, *, min_eigenvalues: int = 50, min_tail: int = 10) -> PowerLaw:
    r"""Fit the tail exponent of the eigenvalues :math:`\lambda_i = \sigma_i^2`, if there are enough of them.

    Source: Clauset, Shalizi, Newman, arXiv:0706.1062: for each candidate start the maximum-likelihood exponent
    :math:`1 + k / \sum_i \ln(\lambda_i / \lambda_{\min})`; the start with the smallest Kolmogorov-Smirnov distance
    wins. A rank-r update has r eigenvalues: below ``min_eigenvalues`` the exponent is said to be undefined.

    Args:
        values: singular values.
        min_eigenvalues: nonzero eigenvalues needed.
        min_tail: eigenvalues that a tail must have.

    Returns:
        The fit, or NaN with the reason.
    """
    squares = np.sort(np.square(np.asarray(values, dtype=np.float64)))
    squares = squares[squares > squares.max(initial=0.0) * 1e-12]
    if len(squares) < min_eigenvalues:
        why = f"{len(squares)} nonzero eigenvalues, a tail exponent needs {min_eigenvalues}"
        return PowerLaw(alpha=math.nan, start=math.nan, distance=math.nan, tail=len(squares), reason=why)
    logs = np.log(squares)
    size = len(logs)
    starts = np.arange(size - min_tail + 1)
    tails = size - starts
    sums = np.cumsum(logs[::-1])[::-1][starts] - tails * logs[starts]
    with np.errstate(divide="ignore"):
        alphas = 1 + tails / sums
    distances = np.full(len(starts), np.inf)
    for index, start in enumerate(starts):
        if np.isfinite(alphas[index]):
            model = 1 - np.exp(-(alphas[index] - 1) * (logs[start:] - logs[start]))
            steps = np.arange(tails[index] + 1) / tails[index]
            distances[index] = max(np.abs(model - steps[:-1]).max(), np.abs(model - steps[1:]).max())
    best = int(distances.argmin())
    if not np.isfinite(distances[best]):
        return PowerLaw(alpha=math.nan, start=math.nan, distance=math.nan, tail=size, reason="all eigenvalues equal")
    return PowerLaw(
        alpha=float(alphas[best]), start=float(squares[best]), distance=float(distances[best]), tail=int(tails[best])
    )
