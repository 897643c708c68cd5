r"""How far rounding can move what is counted at a threshold or picked as the smallest.

A count of values below a threshold is the same on every processor only if none of the values lies within its rounding
error of it. So every such count comes with a range: the count with every doubtful value moved to either side. A
recount elsewhere has to overlap it; a count outside is a real difference.

Singular vectors. LAPACK's SVD is backward stable (LAPACK Users' Guide, 3rd ed., section 4.9): what is computed is
exact for :math:`M + E`, :math:`\|E\|_2 \le p(m, n)\, \varepsilon\, \|M\|_2`, with a modestly growing p, taken here as
max(m, n), as the usual tolerance of a numerical rank does. By the sine theorem (Wedin 1972; Stewart and Sun, *Matrix
Perturbation Theory*, V.4) on the Jordan-Wielandt matrix, whose perturbation of a pair of vectors has Frobenius norm at
most :math:`\sqrt2 \|E\|_2`, a vector turns by :math:`\sin\theta \le \sqrt2 \|E\|_2 / (g - \|E\|_2)`, where g is the
computed distance of its singular value to the nearest other one (to zero as well if the matrix is not square). Unit
vectors at angle theta are at most :math:`2 \sin(\theta/2) \le \sqrt2 \sin\theta` apart, and a cosine moves by no more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

__all__ = ["best_match_error", "count_range", "gaps", "svd_error", "turn"]


def svd_error(shape: Sequence[int], dtype: torch.dtype, norm: float) -> float:
    """Return the spectral norm of the backward error of a computed SVD, or of a sum of products of that inner size.

    Args:
        shape: (m, n); the larger one is the p(m, n) of the module's text.
        dtype: precision of the computation.
        norm: spectral norm of the matrix, or the product of the factors' norms.

    >>> import torch
    >>> svd_error((384, 384), torch.float64, 1.0) < 1e-13
    True
    """
    return max(shape) * torch.finfo(dtype).eps * norm


def gaps(values: ArrayLike, *, square: bool) -> NDArray[np.float64]:
    """Return each singular value's distance to the nearest other one, and to zero where the matrix is not square.

    Args:
        values: largest first, shape (k,).
        square: whether m = n; else the complement has singular value zero.

    >>> gaps([4.0, 2.0, 1.0], square=True).tolist()
    [2.0, 1.0, 1.0]
    """
    values = np.asarray(values, dtype=np.float64)
    padded = np.concatenate([[np.inf], values, [-np.inf]])
    found = np.minimum(padded[:-2] - padded[1:-1], padded[1:-1] - padded[2:])
    return found if square else np.minimum(found, values)


def turn(error: ArrayLike, gap: ArrayLike, dimension: ArrayLike = 1) -> NDArray[np.float64]:
    r"""Return how far a cosine with a computed singular vector (or the norm of a projection) can be off.

    :math:`2 \sqrt d\, \|E\| / (g - \|E\|)`, at most 1. Where the gap is not above the error the vector is undefined,
    and a cosine can be anything in [0, 1].

    Args:
        error: spectral norm of E.
        gap: computed distance to the nearest singular value outside.
        dimension: d, of the subspace.

    >>> turn(1e-3, [1.0, 1e-3]).round(6).tolist()
    [0.002002, 1.0]
    """
    error, gap = np.broadcast_arrays(np.asarray(error, dtype=np.float64), np.asarray(gap, dtype=np.float64))
    room = gap - error
    moved = 2 * np.sqrt(np.asarray(dimension, dtype=np.float64)) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(room > 0, np.minimum(moved / room, 1.0), np.where(error > 0, 1.0, 0.0))


def best_match_error(
    inner: NDArray[np.float64],
    own: NDArray[np.float64],
    values: ArrayLike,
    error: float,
    *,
    square: bool,
) -> NDArray[np.float64]:
    r"""Bound how far rounding moves :math:`\max_i |\cos(u_j, u^0_i)|`.

    Each cosine moves by the turn of both vectors. Vectors of W0 whose singular values nearly agree are defined as a
    subspace alone: the best of d of them has a cosine between :math:`\|P u_j\| / \sqrt d` and :math:`\|P u_j\|`, so
    that an undefined vector of W0 makes those cosines doubtful that lie near its subspace, not all of them. Clusters
    end where neighbours are further apart than :math:`\sqrt{\|E\| \sigma_1}`, so that a cluster turns by no more than
    the root of the relative error.

    Args:
        inner: computed |cosines|, shape (p, k).
        own: `turn` of each u_j, shape (k,).
        values: singular values of W0, largest first, shape (p,).
        error: spectral norm of the error of W0's SVD.
        square: whether W0 is square.

    Returns:
        Shape (k,), each in [0, 1].
    """
    values = np.asarray(values, dtype=np.float64)
    split = values[:-1] - values[1:] > np.sqrt(error * values[0])
    starts = np.concatenate([[0], np.flatnonzero(split) + 1])
    sizes = np.diff(np.concatenate([starts, [len(values)]]))
    ends = starts + sizes - 1
    outside = np.minimum(
        np.concatenate([[np.inf], values[ends[:-1]] - values[starts[1:]]]),
        np.concatenate([values[ends[:-1]] - values[starts[1:]], [np.inf]]),
    )
    outside = outside if square else np.minimum(outside, values[ends])
    alone = turn(error, gaps(values, square=square))[:, None]
    together = turn(error, outside, sizes)[:, None]
    projected = np.sqrt(np.add.reduceat(inner**2, starts, axis=0))
    best = inner.max(axis=0)
    upper = np.minimum(inner + alone, np.repeat(projected + together, sizes, axis=0)).max(axis=0)
    lower = np.maximum((inner - alone).max(axis=0), (projected / np.sqrt(sizes)[:, None] - together).max(axis=0))
    return np.clip(np.maximum(upper - best, best - lower) + own, 0.0, 1.0)


def count_range(values: ArrayLike, threshold: float, uncertainty: ArrayLike) -> tuple[int, int]:
    """Count the values strictly below a threshold, every doubtful one moved to either side.

    Args:
        values: shape (N,); NaN is not below.
        threshold: what they are compared with.
        uncertainty: how far each may be off, one number or shape (N,).

    Returns:
        The least and the largest count.

    Raises:
        ValueError: if an uncertainty is negative or NaN.

    >>> count_range([0.2, 0.5, 0.7], 0.5, 1e-9)
    (1, 2)
    """
    values, uncertainty = np.asarray(values, dtype=np.float64), np.asarray(uncertainty, dtype=np.float64)
    if not (uncertainty >= 0).all():
        raise ValueError(f"uncertainty must not be negative or NaN, got {uncertainty.min()}")
    return int((values + uncertainty < threshold).sum()), int((values - uncertainty < threshold).sum())
